"""Every private name of TRL's and transformers' that training relies on; a test looks each of them up.

`OVERRIDDEN` and `READ` list what our trainers override or read on themselves; the functions wrap the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import trl
import trl.trainer.utils
from transformers import Trainer

# methods that our trainers override → their parameters, and why
OVERRIDDEN: dict[tuple[type, str], tuple[str, str]] = {
    (Trainer, "_get_output_dir"): ("trial", "a checkpoint is written in another folder and renamed when it is whole"),
    (Trainer, "_save_checkpoint"): ("model trial", "a checkpoint appears when it is whole"),
    (Trainer, "_push_from_checkpoint"): ("checkpoint_folder", "only a whole checkpoint is pushed to the Hub"),
    (Trainer, "_run_epoch"): (
        "model epoch train_dataloader steps_in_epoch num_update_steps_per_epoch trial ignore_keys_for_eval start_time "
        "resume_from_checkpoint epochs_trained steps_trained_in_current_epoch",
        "a training that has ended takes no further step",
    ),
    (Trainer, "_finalize_training"): ("trial num_train_samples start_time", "time and loss of a resumed run are whole"),
    (Trainer, "_get_train_sampler"): ("train_dataset", "rows grouped by length have one order on all ranks"),
    (Trainer, "_get_eval_sampler"): ("eval_dataset", "evaluation rows come in their order"),
    (Trainer, "_get_dataloader"): (
        "dataset description batch_size sampler_fn is_training dataloader_key",
        "a collator splits the pairs of a step by tokens",
    ),
    (Trainer, "_get_num_items_in_batch"): ("batch_samples device", "repeated rows of the last step weigh nothing"),
    (Trainer, "_get_grad_norm"): ("model grad_norm", "a gradient that isn't finite stops the run"),
    (Trainer, "_prepare_input"): ("data", "numbers of a batch aren't rounded to the engine's precision"),
    (Trainer, "_prepare_for_training"): (
        "max_steps train_dataloader resume_from_checkpoint",
        "prefix sharing is checked on the engine's model",
    ),
    (trl.DPOTrainer, "_prepare_dataset"): (
        "dataset processing_class args dataset_name",
        "differing tokens are marked when pairs are tokenised",
    ),
    (trl.SFTTrainer, "_prepare_dataset"): ("dataset processing_class args", "assistant tokens are marked"),
    (trl.DPOTrainer, "_set_signature_columns_if_needed"): ("", "the collator gets our columns"),
    (trl.DPOTrainer, "_precompute_ref_logps"): ("dataset name batch_size", "reference log-probs are cached by token"),
    (trl.DPOTrainer, "_compute_loss"): ("model inputs return_outputs", "the loss is ours"),
}
# attributes that they read or set → why
READ: dict[tuple[type, str], str] = {
    (Trainer, "_tr_loss"): "a checkpoint holds the loss since the last logged line",
    (Trainer, "_total_loss_scalar"): "a checkpoint holds the loss of the whole training",
    (Trainer, "_globalstep_last_logged"): "a checkpoint holds the last logged step",
    (Trainer, "_initial_global_step"): "speed is that of the whole training",
    (Trainer, "_train_batch_size"): "the last step's rows are counted",
    (Trainer, "_signature_columns"): "the collator gets our columns",
    (trl.DPOTrainer, "_metrics"): "metrics are sums and counts until they are logged",
    (trl.DPOTrainer, "_total_train_tokens"): "a checkpoint holds the tokens seen",
    (trl.DPOTrainer, "_tp_size"): "tokens are counted once under tensor parallelism",
    (trl.DPOTrainer, "_tokenizer"): "stop words are looked up",
    (trl.DPOTrainer, "_precompute_engine"): "the reference runs before DeepSpeed has prepared the policy",
}


@contextmanager
def fused_head_kernel(kernel: Any) -> Iterator[None]:
    """Have TRL's fused head (`add_fused_lm_head`) use another kernel, with the parameters of its own `apply`."""
    theirs = trl.trainer.utils._ChunkedLogProbFunction
    trl.trainer.utils._ChunkedLogProbFunction = kernel
    try:
        yield
    finally:
        trl.trainer.utils._ChunkedLogProbFunction = theirs


def trl_kernel(device: torch.device) -> Any:
    """Return the kernel of TRL's fused head where it scores given positions alone (Triton); None elsewhere."""
    return trl.trainer.utils._ChunkedLogProbFunction if trl.trainer.utils._use_triton(device) else None


def attention_implementation(config: Any) -> str:
    """Return the attention that a text model's configuration names."""
    return str(config._attn_implementation)


def takes_attention_functions(model: Any) -> bool:
    """Return whether a model's attention can be any registered function."""
    return bool(model._supports_attention_backend)


def name_or_path(model: Any) -> str:
    """Return where a model was loaded from, or is to be: it may be a name already."""
    return model if isinstance(model, str) else str(model.config._name_or_path)


def items_in_batch(trainer: Any, batches: list[Any]) -> Any:
    """Count the tokens of a step over all ranks, as transformers' own Trainer does."""
    return Trainer._get_num_items_in_batch(trainer, batches, trainer.args.device)
