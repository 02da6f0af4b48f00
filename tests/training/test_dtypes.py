"""Log-probs, λ, sums and loss are float32 whatever the model computes in, and a value that isn't stops the step."""

from math import log
from typing import Any

import pytest
import torch
from datasets import Dataset

import bmc
from bmc.precision import require_float32

ROWS = [
    {"prompt": f"What is {n} and 2? ", "chosen": f"The sum is {n + 2}.", "rejected": f"The sum is {n + 3}, or {n}."}
    for n in range(4)
]


def model(dtype: torch.dtype) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=259, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype)


def trainer_of(
    tokenizer: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, weights: str, autocast: bool, **changed: Any
) -> Any:
    if weights == "bfloat16":  # as under DeepSpeed and FSDP, which keep float32 copies of them
        monkeypatch.setattr("bmc.training.trainer.train_whole_in_float32", lambda *_: None)
        monkeypatch.setattr("bmc.training.fault_tolerance.train_in_float32", lambda *_: None)
    args = bmc.BMCConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=autocast, report_to="none", gradient_checkpointing=False,
        **{"token_weighting": "bmc", "reference_cache": str(tmp_path / "reference")} | changed,
    )  # fmt: skip
    policy, reference = model(getattr(torch, weights)), None
    if not args.precompute_ref_log_probs and args.reads_reference:
        reference = model(getattr(torch, weights))
    made = bmc.BMCTrainer(policy, reference, args, train_dataset=Dataset.from_list(ROWS), processing_class=tokenizer)
    assert made.model.dtype == getattr(torch, weights)
    return made


def step(trainer: Any) -> torch.Tensor:
    batch = trainer._prepare_inputs(trainer.data_collator(list(trainer.train_dataset)))
    with trainer.compute_loss_context_manager(), trainer.accelerator.autocast():
        return trainer.compute_loss(trainer.model, batch)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("precomputed", [True, False])
@pytest.mark.parametrize(("weights", "autocast"), [("float32", True), ("bfloat16", False), ("bfloat16", True)])
def test_a_step_in_16_bits_has_a_loss_of_32(
    weights: str, autocast: bool, precomputed: bool, padded: bool, tokenizer: Any, tmp_path: Any, monkeypatch: Any
) -> None:
    seen: dict[str, torch.dtype] = {}

    def spy(**values: Any) -> None:
        seen.update({name: value.dtype for name, value in values.items()})
        require_float32(**values)

    monkeypatch.setattr("bmc.training.trainer.require_float32", spy)
    layout = {"prefix_sharing": False, "packing": False} if padded else {}
    options: dict[str, Any] = {"precompute_ref_log_probs": precomputed, **layout}
    trainer = trainer_of(tokenizer, tmp_path, monkeypatch, weights, autocast, **options)
    loss = step(trainer)
    loss.backward()
    assert {"logps", "ref_logps", "weights", "chosen_logps", "rejected_diff_logps", "loss"} <= seen.keys()
    assert set(seen.values()) == {torch.float32}
    # policy and reference are one model; rows of other batches are rounded otherwise, hence the tolerance
    assert loss.item() == pytest.approx(log(2), abs=0.02 if precomputed else 1e-6)


@pytest.mark.slow
def test_every_loss_is_float32_under_autocast(
    subtests: pytest.Subtests, tokenizer: Any, tmp_path: Any, monkeypatch: Any
) -> None:
    for loss_type in [name for name in bmc.LOSSES if name != "exo_pair"]:
        with subtests.test(loss_type=loss_type):
            options: dict[str, Any] = {"loss_type": loss_type, "precompute_ref_log_probs": False}
            assert step(trainer_of(tokenizer, tmp_path, monkeypatch, "float32", True, **options)).dtype == torch.float32


@pytest.mark.parametrize(("key", "named"), [("ref_logps", "ref_logps"), ("token_weights", "weights")])
def test_a_number_in_16_bits_stops_the_step(key: str, named: str, tokenizer: Any, tmp_path: Any, monkeypatch: Any):
    """As DeepSpeed's inputs would be, if its trainer cast them."""
    trainer = trainer_of(tokenizer, tmp_path, monkeypatch, "float32", False, precompute_ref_log_probs=True)
    batch = trainer.data_collator(list(trainer.train_dataset))
    batch["token_weights"] = torch.ones_like(batch["ref_logps"])
    trainer.args.token_weighting = "external"
    trainer.compute_loss(trainer.model, dict(batch))
    batch[key] = batch[key].bfloat16()
    with pytest.raises(TypeError, match=f"^{named} must be float32 or more in the loss, got bfloat16$"):
        trainer.compute_loss(trainer.model, batch)


def test_what_counts_as_float32():
    require_float32(a=torch.zeros(2), b=torch.zeros(2, dtype=torch.float64))
    for dtype in (torch.float16, torch.bfloat16, torch.int64):
        with pytest.raises(TypeError, match=r"^c must be float32"):
            require_float32(a=torch.zeros(2), c=torch.zeros(2, dtype=dtype))
