"""`BMCTrainer`: `trl.DPOTrainer` with token weights."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import math
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model, send_to_device
from datasets import Dataset, IterableDataset
from torch import Tensor
from transformers import AutoTokenizer
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.liger import apply_liger_kernel
from trl import DPOTrainer
from trl.models import prepare_deepspeed, prepare_fsdp
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import add_fused_lm_head, create_model_from_path, get_config_model_id, use_adapter

from ..errors import user_error
from ..precision import require_float32, train_whole_in_float32
from .collator import NO_SIGNAL, REF_COLUMNS, DataCollatorForBMC, MicroBatchTrainer, chosen_first, no_signal
from .config import BMCConfig
from .fault_tolerance import FaultTolerantTrainer
from .lm_head import TokenLogprobs, exact_kl, gather_response_tokens, score_tokens, slice_hidden_states
from .losses import LOSSES, REFERENCE_FREE, PairLogps, hyperparameters, sum_weighted_logps
from .metrics import (
    RewardCollapseWarning,
    ThroughputCallback,
    k3,
    matmul_size,
    reward_metrics,
    token_metrics,
    weight_shares,
)
from .prefix_sharing import (
    TREE_ATTENTION,
    attention_arguments,
    attention_without_trees,
    causal_lm,
    has_dropout,
    unsupported_reason,
    use_tree_attention,
)
from .reference_cache import ReferenceCache, add_reference_logps, default_cache, model_digest, weights_digest
from .token_weights import (
    DIFF_COLUMNS,
    RESPONSES,
    WEIGHT_COLUMNS,
    bmc_weights,
    check_token_weights,
    confpo_weights,
    entropy_weights,
    mark_differences,
    position_weights,
    shift_weights,
    stop_word_ids,
)
from .tree_check import HALF_ROUNDING, KERNEL_ERROR, ROUNDING, Outcome, compare, kernel_error, longest, sequences
from .trl_compat import attention_implementation, name_or_path
from .varlen import HALF, KERNELS, candidates

logger = logging.getLogger(__name__)

UNKNOWN_LENGTH = 1024  # tokens of the longest sequence of a streamed data set without max_length


class BMCTrainer(FaultTolerantTrainer, MicroBatchTrainer, DPOTrainer):
    """DPO over weighted tokens (arXiv 2408.07471, §3.2), a drop-in for `trl.DPOTrainer`.

    The constructor is DPOTrainer's, with a `BMCConfig` for `args` (a `DPOConfig` will do); so are model loading, PEFT,
    DeepSpeed, saving and resuming. What is new: the tokens that differ are marked once, when the pairs are tokenised,
    and each step computes

        forward → per-token log-probs → weights λ → objective (`LOSSES`) → metrics

    The logged `rewards/*` are the plain DPO rewards β Σ_t log π_θ/π_ref (λ ≡ 1), so that curves of DPO and DPO-BMC
    compare (§5.3). `diff/share` is the share of response tokens that differ, `diff/weight` their mean λ.
    """

    _tag_names = ["trl", "dpo", "bmc"]  # noqa: RUF012 - the attribute is TRL's
    _name = "BMC"
    args: BMCConfig
    data_collator: DataCollatorForBMC
    ref_model: Any
    _signature_columns: list[str]
    _layout_chosen = False
    _start_weights: str | None = None  # their digest, of a model that was given as an object and is its own reference
    _checked: tuple[Any, ...] = ()
    _tree_kernels: tuple[str, ...] = ("loop",)  # those that no check has ruled out yet; the first is used
    _precompute_engine: Any

    def __init__(
        self,
        model: Any,
        ref_model: Any = None,
        args: Any = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        compute_metrics: Any = None,
        callbacks: Any = None,
        optimizers: Any = (None, None),
        quantization_config: Any = None,
        peft_config: Any = None,
    ) -> None:
        args = BMCConfig.of(BMCConfig(f"{Path(name_or_path(model)).name}-BMC") if args is None else args)
        if args.n_gpu > 1:
            raise user_error(
                "accelerate launch", f"is needed to use {args.n_gpu} GPUs; or show one, CUDA_VISIBLE_DEVICES=0"
            )
        self.micro_batch_tokens = args.micro_batch_tokens
        self._in_memory = not isinstance(model, str)  # its folder may hold other weights
        self.reference_free = REFERENCE_FREE.issuperset(args.loss_type)
        if self.reference_free:
            ref_model, args.precompute_ref_log_probs = None, True  # DPOTrainer then loads none; see below
        named = None if self.reference_free or ref_model is not None else args.ref_model_name_or_path
        if args.precompute_ref_log_probs is None:
            args.precompute_ref_log_probs = _sees_all(args, train_dataset, eval_dataset)
        if peft_config is None and quantization_config is None:
            train_whole_in_float32(model, args)
        if named:
            ref_model = _reference_beside(model, named, args, quantization_config)
        elif ref_model is None and peft_config is None and not args.precompute_ref_log_probs:
            ref_model = _copy_of(model)
        if data_collator is None:
            processing_class = processing_class or _tokenizer_of(model, args)
            data_collator = DataCollatorForBMC(  # whether it shares prefixes is known when the model is
                pad_token_id=_pad_token(processing_class, args),
                max_length=args.max_length,
                pad_to_multiple_of=args.pad_to_multiple_of,
            )
        data_collator = DataCollatorForBMC.of(data_collator)
        if args.accelerator_config.dispatch_batches:
            raise user_error("accelerator_config.dispatch_batches", "packed sequences can't be split; leave it out")
        args.accelerator_config.dispatch_batches = False  # nor can one of a streamed data set
        self._max_length = min((n for n in (args.max_length, data_collator.max_length) if n is not None), default=None)
        rest = (compute_metrics, callbacks, optimizers, quantization_config, peft_config)
        super().__init__(model, ref_model, args, data_collator, train_dataset, eval_dataset, processing_class, *rest)
        self.precompute_ref_logps &= not self.reference_free
        if named and self.precompute_ref_logps:
            self.ref_model = None  # its log-probs are there
        self.add_callback(RewardCollapseWarning())
        self._throughput = ThroughputCallback(self.accelerator.device)
        self._throughput.size = matmul_size(self.accelerator.unwrap_model(self.model))
        self.add_callback(self._throughput)
        self._choose_layout()
        self._check_trees(self.ref_model)
        if not self._sharded:
            self._check_trees(self.model)

    # data: tokenise as TRL does, mark the differing tokens, perhaps run the reference

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        streamed = isinstance(dataset, IterableDataset)
        columns = dataset.column_names or [*next(iter(dataset))]
        ours = REF_COLUMNS if args.token_weighting == "external" else (*REF_COLUMNS, *WEIGHT_COLUMNS)
        dataset = dataset.remove_columns([name for name in ours if name in columns])  # another's of these names
        # DPOTrainer would drop long prompts by a function that holds all of `args`: no other run would find what comes
        # after it in the cache
        whole = copy.copy(args)
        whole.max_length = None
        dataset = super()._prepare_dataset(dataset, processing_class, whole, dataset_name)
        if args.token_weighting == "external":
            check_token_weights(dataset, dataset.column_names or WEIGHT_COLUMNS, dataset_name)
        ignored = stop_word_ids(self._tokenizer) if args.ignore_stop_words else []
        how = {"algorithm": args.diff_algorithm, "ignored": ignored}
        options = {} if streamed else {"num_proc": args.dataset_num_proc, "desc": f"Comparing {dataset_name} pairs"}
        dataset = dataset.map(mark_differences, fn_kwargs=how, **options)
        max_length = self._max_length
        if streamed:
            return dataset.filter(lambda row: no_signal(row, max_length) is None)
        return self._with_signal(dataset, max_length, args.dataset_num_proc, dataset_name)

    def _with_signal(self, dataset: Dataset, max_length: int | None, processes: int | None, name: str) -> Dataset:
        """Drop the pairs that hold no preference, and say how many and why."""
        found = dataset.map(
            lambda row: {"reason": no_signal(row, max_length) or ""},
            remove_columns=dataset.column_names,
            num_proc=processes,
            desc=f"Looking for {name} pairs without a difference",
        )["reason"]
        for reason, count in Counter(filter(None, found)).items():
            what = NO_SIGNAL[reason].format(max_length=max_length)
            key = "" if reason == "equal" else "max_length: "
            logger.warning("%sdropped %d of %d %s pairs, whose %s", key, count, len(dataset), name, what)
        kept = dataset.select([place for place, reason in enumerate(found) if not reason])
        if not len(kept) and set(found) == {"equal"}:
            raise user_error(f"{name} data", "no pair is left: chosen and rejected are equal once tokenised")
        if not len(kept):
            raise user_error("max_length", f"no {name} pair is left under {max_length} tokens; raise it")
        return kept

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        ours = ("id", *DIFF_COLUMNS, *REF_COLUMNS, *WEIGHT_COLUMNS)
        self._signature_columns = [*dict.fromkeys([*self._signature_columns, *ours])]

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        if self.reference_free:
            return dataset
        if isinstance(dataset, IterableDataset):
            raise user_error("precompute_ref_log_probs", "a streamed data set can't keep them; set it to false")
        self._choose_layout()
        if self.ref_model is None and self.is_deepspeed_enabled and self._precompute_engine is None:
            # as in TRL: the policy isn't on its device yet, so an inference engine places and gathers it
            self._precompute_engine = prepare_deepspeed(self.model, self.accelerator)
        model = self.ref_model or self._precompute_engine or self.model
        self._check_trees(model)
        reference = self.accelerator.unwrap_model(self.ref_model or self.model)
        weights = weights_digest(reference)
        if self._in_memory and self.ref_model is None and not self._sharded:
            self._start_weights = weights
        digest = model_digest(reference, weights, self.accelerator)
        return add_reference_logps(
            dataset,
            ReferenceCache(Path(self.args.reference_cache or default_cache()) / digest),
            lambda layout: self._reference_logps(model, layout),
            self.data_collator,
            self.accelerator,
            batch_size,
            name,
        )

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluate as DPOTrainer does; load the reference again for rows that weren't there when it ran."""
        new = eval_dataset is not None and not isinstance(eval_dataset, str) and self.state.global_step > 0
        by_adapter = is_peft_model(self.model) and not self.args.ref_model_name_or_path
        if not new or not self.precompute_ref_logps or self.ref_model is not None or by_adapter:
            return super().evaluate(eval_dataset, *args, **kwargs)
        self.ref_model = self._load_reference()
        try:
            return super().evaluate(eval_dataset, *args, **kwargs)
        finally:
            self.ref_model = None

    def _load_reference(self) -> Any:
        """Load the reference, by default the model that training began with, ready to run, as DPOTrainer does."""
        name = self.args.ref_model_name_or_path or get_config_model_id(self.model.config)
        attention = attention_without_trees(self.model)
        options = {"dtype": self.model.dtype, "attn_implementation": attention, **(self.args.model_init_kwargs or {})}
        try:
            model = create_model_from_path(name, trust_remote_code=self.args.trust_remote_code, **options)
        except (OSError, ValueError, TypeError):
            what = f"new rows need the reference model, and '{name}' can't be loaded again"
            raise user_error("precompute_ref_log_probs", f"{what}; set it to false, or give a ref_model") from None
        if self._start_weights not in (None, weights_digest(model)):
            what = f"new rows need the reference model, and '{name}' holds other weights than training began with"
            raise user_error("precompute_ref_log_probs", f"{what}; set it to false, or give a ref_model")
        add_fused_lm_head(model)
        self._prepare_model(model)
        if self.is_deepspeed_enabled:
            return prepare_deepspeed(model, self.accelerator)
        if self.is_fsdp_enabled:
            return prepare_fsdp(model, self.accelerator)
        return self.accelerator.prepare_model(model, evaluation_mode=True)

    def _choose_layout(self) -> None:
        """Share prefixes and pack where the recipe and the models' classes allow it; once."""
        if self._layout_chosen:
            return
        self._layout_chosen, self._tree_kernels = True, candidates(self.accelerator.device.type)
        models = self._models()
        reason = next(filter(None, map(unsupported_reason, models)), None)
        if self.aux_loss_enabled:
            reason = "the router's auxiliary loss counts every token"
            if self.micro_batch_tokens is not None:
                raise user_error("micro_batch_tokens", f"{reason} of a micro-batch; leave it out")
        if self.args.neftune_noise_alpha:
            reason = "NEFTune's noise depends on how long a row is"
        if has_dropout(self.model):
            reason = "each sequence draws its own dropout"
        if self.compute_metrics is not None:
            reason = "compute_metrics is to see the logits of two sequences a pair"
        for key in ("prefix_sharing", "packing"):
            setattr(self.data_collator, key, getattr(self.args, key) is not False)
        if reason:
            self._pad_pairs(reason)
        for model in models:
            self._prepare_model(model)

    def _prepare_model(self, model: Any) -> None:
        """Change what a model computes with. Policy and reference are changed alike, before either runs: Trainer would
        give the policy Liger's kernels when training starts, after the reference log-probs and the check of trees."""
        if self.args.use_liger_kernel:
            apply_liger_kernel(model, self.args.liger_kernel_config)
        slice_hidden_states(model)
        use_tree_attention(model, self.data_collator.prefix_sharing or self.data_collator.packing)

    @property
    def _sharded(self) -> bool:
        """Return whether the policy can't run before an engine has prepared it for training."""
        return bool(self.is_deepspeed_enabled or self.is_fsdp_enabled)

    def _models(self) -> list[Any]:
        return [self.accelerator.unwrap_model(model) for model in (self.model, self.ref_model) if model is not None]

    def _pad_pairs(self, reason: str) -> None:
        """Take two padded sequences a pair, and say why where something else was wanted."""
        wanted = [key for key in ("prefix_sharing", "packing") if getattr(self.data_collator, key)]
        if wanted:
            logger.warning("%s: two padded sequences a pair, since %s", " and ".join(wanted), reason)
        self.data_collator.prefix_sharing = self.data_collator.packing = False
        for model in self._models():
            use_tree_attention(model, False)

    def _check_trees(self, model: Any) -> None:
        """Compare a tree with its sequences on a model that is ready to run; once, and on every process."""
        lm = model and causal_lm(self.accelerator.unwrap_model(model))
        shares = self.data_collator.prefix_sharing or self.data_collator.packing
        if lm is None or not shares or any(lm is checked for checked in self._checked):
            return
        self._checked += (lm,)
        config, training, device = lm.config.get_text_config(), lm.training, self.accelerator.device
        computed: set[torch.dtype] = set()  # dtypes that the model has computed in

        def logps(layout: dict[str, Any]) -> Tensor:
            layout = send_to_device(layout, device)
            with torch.no_grad():
                scores = self._score(model, layout)
            computed.add(scores.head.dtype)
            return gather_response_tokens(scores.logps, layout)

        def plain(layout: dict[str, Any]) -> Tensor:
            use_tree_attention(lm, False)
            return logps(layout)

        def with_trees(layout: dict[str, Any]) -> Tensor:
            use_tree_attention(lm)
            return logps(layout)

        def outcome_of() -> Outcome:
            found = compare(pairs, self.data_collator, plain, with_trees)
            return found._replace(rounding=ROUNDING if computed.isdisjoint(HALF) else HALF_ROUNDING)

        positions = getattr(config, "max_position_embeddings", None) or self._longest()
        pairs = sequences(max(8, min(positions, self._longest())), config.vocab_size)
        model.eval()
        first = self._tree_kernels[0]
        while True:
            computed.clear()
            outcomes, half = [outcome_of()], self._half_of_kernel(lm)
            if half and computed.isdisjoint(HALF):  # no kernel takes float32: again, as a step computes
                with self.accelerator.autocast():
                    outcomes.append(outcome_of())
            outcome = next((each for each in outcomes if not each.passed), outcomes[0])
            alone = kernel_error(self._tree_kernels[0], config, half, device) if outcome.passed and half else 0.0
            passed = outcome.passed and alone <= KERNEL_ERROR
            failed = self.accelerator.reduce(torch.tensor(float(not passed), device=device)) > 0
            rest = self._tree_kernels[1:] if attention_implementation(config) == TREE_ATTENTION else ()
            if not failed or not rest:
                break
            self._tree_kernels = rest
        model.train(training)
        if failed:
            found = f"other log-probs ({outcome.error:.2g} nats a token apart)"
            self._pad_pairs(f"{type(lm).__name__} has {outcome.reason or found} when sequences share a row")
        elif self._tree_kernels[0] != first:
            logger.warning("prefix_sharing: %s gives other numbers here; using %s", first, self._tree_kernels[0])

    def _half_of_kernel(self, lm: Any) -> torch.dtype | None:
        """Return the 16-bit dtype that the kernel to be used computes in; None where none will run."""
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.accelerator.mixed_precision, lm.dtype)
        trees = attention_implementation(lm.config.get_text_config()) == TREE_ATTENTION
        return dtype if trees and self._tree_kernels[0] in KERNELS and dtype in HALF else None

    def _longest(self) -> int:
        """Count the tokens of the longest sequence that the model will see."""
        evaluation = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"eval": self.eval_dataset}
        found = [self.train_dataset, *evaluation.values()]
        limit = self._max_length or math.inf
        if any(isinstance(dataset, IterableDataset) for dataset in found):
            return self._max_length or UNKNOWN_LENGTH
        return int(min(limit, max(longest(dataset) for dataset in found if dataset is not None)))

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **kwargs)
        self._check_trees(self.model_wrapped)  # of those that an engine shards; the others have been seen
        return prepared

    def _lengths(self, dataset: Any) -> list[int]:
        columns = (dataset[column] for column in ("prompt_ids", *RESPONSES))
        return [sum(map(len, ids)) for ids in zip(*columns, strict=True)]

    def _reweight_rows(self, batch: dict[str, Any], own: int, size: int, weight: float) -> None:
        batch["pair_weights"] = torch.full((len(batch["num_tokens"]),), weight)
        batch["pair_weights"][own:] = 0.0

    def _prepare_input(self, data: Any) -> Any:
        """Move data to its device, unrounded: DeepSpeed's model reads no number of a batch."""
        return data.to(self.args.device) if isinstance(data, Tensor) else super()._prepare_input(data)

    # a training step

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        scores = self._score(model, inputs)
        logps = gather_response_tokens(scores.logps, inputs)
        ref_logps = self._ref_logps(inputs)
        responses, differs = inputs["response_mask"], inputs["diff_mask"]
        weights = ref_weights = self._weights(scores, logps, inputs)
        if self.args.weight_source == "each_model":
            ref_weights = bmc_weights(ref_logps, differs, self.args.bmc_delta)
        pairs = sum_weighted_logps(logps, ref_logps, weights, ref_weights, responses, differs)
        loss = self._objective(pairs, inputs.get("pair_weights"))
        require_float32(logps=logps, ref_logps=ref_logps, weights=weights, **pairs._asdict(), loss=loss)
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * scores.aux_loss
        self._record(scores, logps, ref_logps, weights, inputs)
        if not return_outputs:
            return loss
        if "trees" in inputs:
            raise user_error(
                "prefix_sharing", "sequences that share a row have no logits of their own; set packing to false too"
            )
        with torch.no_grad():  # the fused head makes no logits, which `compute_metrics` may ask for
            rows = {key: chosen_first(inputs[key]) for key in ("input_ids", "attention_mask")}
            return loss, model(**rows)

    def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
        """Predict as DPOTrainer does: logits and token ids of all chosen sequences before the rejected ones."""
        loss, logits, labels = super().prediction_step(*args, **kwargs)
        return loss, logits, labels if labels is None else chosen_first(labels)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Predict as DPOTrainer does, on padded sequences, which have logits of their own."""
        collator = self.data_collator
        self.data_collator = dataclasses.replace(collator, prefix_sharing=False, packing=False)
        try:
            return super().predict(*args, **kwargs)
        finally:
            self.data_collator = collator

    def _score(self, model: Any, inputs: dict[str, Any]) -> TokenLogprobs:
        """Compute log π of the response tokens, each token once, and what comes with it."""
        router = {"output_router_logits": True} if self.aux_loss_enabled else {}
        return score_tokens(model, inputs["predictors"], inputs["labels"], **self._arguments(model, inputs), **router)

    @torch.no_grad()
    def token_scores(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Compute what an analysis reads, for a batch of the collator's on the trainer's device. Needs a `ref_model`.

        Returns:
            `logps` and `ref_logps` as a training step has them, `weights` λ, and `kl`, KL(π_θ ‖ π_ref) of the
            distribution that each token was drawn from; (B, 2, T) each, 0 at padding but for `weights`.
        """
        scores, reference = (self._score(model, inputs) for model in (self.model, self.ref_model))
        logps = gather_response_tokens(scores.logps, inputs)
        return {
            "logps": logps,
            "ref_logps": gather_response_tokens(reference.logps, inputs),
            "weights": self._weights(scores, logps, inputs),
            "kl": gather_response_tokens(exact_kl(scores.head, reference.head), inputs),
        }

    def _arguments(self, model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        """Hand a model its view of a batch: rows of several sequences, or padded sequences."""
        if "trees" not in inputs:
            return {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
        config = causal_lm(self.accelerator.unwrap_model(model)).config.get_text_config()
        positions = inputs["position_ids"]
        kernel = self._tree_kernels[0]
        attention = attention_arguments(config, inputs["trees"], positions, inputs["tree_index"], kernel)
        return {"input_ids": inputs["input_ids"], "position_ids": positions, **attention}

    def _reference_logps(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Compute log π_ref of the response tokens, (…, T): of `ref_model`, or of the policy without its adapter."""
        adapter: Any = contextlib.nullcontext()
        if self.ref_model is None and is_peft_model(self.model):
            policy = self.accelerator.unwrap_model(self.model)
            adapter = use_adapter(policy, adapter_name="ref" if "ref" in policy.peft_config else None)
        checkpointing = disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs)
        with torch.no_grad(), checkpointing, adapter, self.accelerator.autocast():
            return gather_response_tokens(self._score(self.ref_model or model, inputs).logps, inputs)

    def _ref_logps(self, inputs: dict[str, Any]) -> Tensor:
        """Return log π_ref of the response tokens, (B, 2, T): computed beforehand, or now; 0 where nothing reads it."""
        if self.reference_free:
            return torch.zeros_like(inputs["response_mask"], dtype=torch.float32)
        return inputs["ref_logps"] if "ref_logps" in inputs else self._reference_logps(self.model, inputs)

    def _weights(self, scores: TokenLogprobs, logps: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Compute λ of each token, (B, 2, T), detached."""
        responses, differs = inputs["response_mask"], inputs["diff_mask"]
        match self.args.token_weighting:
            case "bmc":
                return bmc_weights(logps, differs, self.args.bmc_delta)
            case "confpo":
                return confpo_weights(logps, responses)
            case "entropy":
                entropy = gather_response_tokens(scores.entropy.detach(), inputs)
                return entropy_weights(entropy, responses, self.args.entropy_share)
            case "position":
                return position_weights(differs, self.args.position_decay)
            case "shift":
                return shift_weights(logps.detach(), self.args.rejected_weight)
            case "external":
                return inputs["token_weights"]
        return torch.ones_like(logps)

    def _objective(self, pairs: PairLogps, pair_weights: Tensor | None) -> Tensor:
        """Compute the batch's mean, or weighted sum, of `loss_type`, or of several with `loss_weights`."""
        total: Any = 0
        for name, weight in zip(self.loss_types, self.loss_weights, strict=True):
            losses = LOSSES[name](pairs, **{key: getattr(self.args, key) for key in hyperparameters(name)})
            total = total + weight * (losses.mean() if pair_weights is None else (losses * pair_weights).sum())
        return total

    def _rewards(self, logps: Tensor, ref_logps: Tensor, responses: Tensor) -> Tensor:
        """Compute the plain DPO rewards β Σ_t log π_θ/π_ref, (B, 2); without a reference SimPO's β/|y| Σ_t log π_θ."""
        if not self.reference_free:
            return self.beta * ((logps - ref_logps) * responses).sum(dim=-1)
        beta = self.beta if any("beta" in hyperparameters(name) for name in self.loss_types) else 1.0
        return beta * logps.sum(dim=-1) / responses.sum(dim=-1).clamp(min=1)

    def _record(
        self, scores: TokenLogprobs, logps: Tensor, ref_logps: Tensor, weights: Tensor, inputs: dict[str, Any]
    ) -> None:
        """Add this batch's sums and counts, over all processes, to those that `log` divides."""
        responses, diff_mask, logps = inputs["response_mask"], inputs["diff_mask"], logps.detach()
        tokens = {
            "entropy": (gather_response_tokens(scores.entropy.detach(), inputs), responses),
            "mean_token_accuracy": (gather_response_tokens(scores.is_top1, inputs)[:, 0], responses[:, 0]),
            "diff/share": (diff_mask, responses),
            "diff/weight": (weights, diff_mask),
        }
        if self.args.token_weighting != "none":
            tokens |= weight_shares(weights, diff_mask)
        if scores.mean_logits is not None:
            means = gather_response_tokens(scores.mean_logits.detach(), inputs)
            tokens |= {
                f"logits/{side}": (means[:, n], responses[:, n]) for n, side in enumerate(("chosen", "rejected"))
            }
        if not self.reference_free:
            tokens["k3/chosen"] = (k3(logps, ref_logps)[:, 0], responses[:, 0])
        found = reward_metrics(self._rewards(logps, ref_logps, responses), logps) | token_metrics(tokens)
        plain = torch.full_like(found["rewards/chosen"][0], inputs["work"].plain / len(responses))
        found["tokens_saved"] = plain - inputs["work"].pushed / len(responses), plain
        if self.aux_loss_enabled:
            found["aux_loss"] = scores.aux_loss.detach().expand_as(plain), torch.ones_like(plain)
        of_pairs = torch.stack([torch.stack(sum_and_count, dim=1) for sum_and_count in found.values()], dim=1)
        real = inputs.get("pair_weights", inputs["num_tokens"]) > 0  # a repeated pair weighs nothing
        totals = self.accelerator.reduce((of_pairs * real[:, None, None]).sum(dim=0)).tolist()
        mode = "train" if self.model.training else "eval"
        metrics = self._metrics[mode]
        for name, sum_and_count in zip(found, totals, strict=True):
            metrics[name].append(sum_and_count)
        if mode == "train":
            tokens_seen = self.accelerator.reduce((inputs["num_tokens"] * real).sum()).item()
            self._total_train_tokens += tokens_seen // self._tp_size
            if real.any():  # what a rank repeats while others work is no work
                self._throughput.add(inputs["work"])
        metrics["num_tokens"] = [self._total_train_tokens]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Average over pairs or tokens, whatever the micro-batches; DPOTrainer averages over micro-batches."""
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name in [*metrics]:
            if name != "num_tokens":
                total, count = map(sum, zip(*metrics.pop(name), strict=True))
                metrics |= {name: [total / count]} if count else {}
        if "loss" in logs:
            logs |= self._throughput.take(self.accelerator)
        super().log(logs, start_time)


def _reference_beside(model: Any, name: str, args: BMCConfig, quantization: Any) -> Any:
    """Load a reference that the recipe names, in the precision of the policy, which may be a model or its name."""
    options = {key: value for key, value in (args.model_init_kwargs or {}).items() if key != "revision"}
    if not isinstance(model, str):
        options |= {"dtype": model.dtype, "attn_implementation": attention_without_trees(model)}
        quantization = getattr(model.config, "quantization_config", quantization)
    if quantization is not None:
        options["quantization_config"] = quantization
    if args.distributed_state.distributed_type in ("MULTI_GPU", "DEEPSPEED"):
        options["device_map"] = None
    return create_model_from_path(name, trust_remote_code=args.trust_remote_code, **options)


def _copy_of(model: Any) -> Any:
    """Copy a model that was given as an object, which DPOTrainer would load again from where it came, as if nothing had
    changed it since; None where DPOTrainer's way serves: a name, an adapter, the parts of a model under ZeRO-3."""
    if isinstance(model, str) or is_peft_model(model) or is_deepspeed_zero3_enabled():
        return None
    return copy.deepcopy(model).eval()


def _sees_all(args: BMCConfig, dataset: Any, evaluation: Any) -> bool:
    """Return whether a run goes through every pair, so that its reference log-probs are best computed beforehand."""
    others = evaluation.values() if isinstance(evaluation, dict) else [evaluation]
    if dataset is None or any(isinstance(rows, IterableDataset) for rows in (dataset, *others)):
        return False
    pairs = args.train_batch_size * args.gradient_accumulation_steps * args.world_size * args.max_steps
    return args.max_steps < 1 or pairs >= len(dataset)


def _pad_token(processing_class: Any, args: BMCConfig) -> int:
    """Return the id of the padding token, which the tokenizer gets if it has none, as in TRL."""
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    token = args.pad_token or tokenizer.pad_token or tokenizer.eos_token
    if token not in tokenizer.get_vocab():
        raise user_error(
            "pad_token", f"'{token}' isn't in the tokenizer's vocabulary; leave it out, or name a token that is"
        )
    tokenizer.pad_token = token
    return int(tokenizer.pad_token_id)


def _tokenizer_of(model: Any, args: BMCConfig) -> Any:
    revision = (args.model_init_kwargs or {}).get("revision") if isinstance(model, str) else None
    return AutoTokenizer.from_pretrained(
        name_or_path(model), revision=revision, trust_remote_code=args.trust_remote_code
    )
