"""`BMCTrainer`: `trl.DPOTrainer` with token weights."""

from __future__ import annotations

import contextlib
import logging
from typing import Any, NamedTuple

import torch
from accelerate.utils import is_peft_model
from datasets import Dataset, IterableDataset
from torch import Tensor
from transformers import AutoTokenizer
from trl import DPOTrainer
from trl.models import prepare_deepspeed
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import use_adapter

from ..errors import fail
from ..training_config import BMCConfig
from .batching import DIFF_COLUMNS, DataCollatorForBMC
from .diff import token_diff
from .losses import LOSSES, Pairs, hyperparameters
from .packing import branch_mask, obstacle, unfold
from .reference import REF_COLUMNS, add_reference_logps
from .weights import bmc_weights

logger = logging.getLogger(__name__)


class TokenOutputs(NamedTuple):
    """What a forward says of every token but the first, (2B, T − 1) with the winners first; 0 outside the responses.

    The reference's has `logps` only. `aux_loss` is the router's, of a mixture of experts.
    """

    logps: Tensor
    entropy: Any
    is_top1: Any
    aux_loss: Any


class BMCTrainer(DPOTrainer):
    """DPO over weighted tokens (arXiv 2408.07471, §3.2), a drop-in for `trl.DPOTrainer`.

    The constructor is DPOTrainer's, with a `BMCConfig` for `args`; so are model loading, PEFT, DeepSpeed, saving and
    resuming. What is new: the tokens that differ are marked once, when the pairs are tokenised, and each step
    computes

        forward → per-token log-probs → weights λ → objective (`LOSSES`) → metrics

    The logged `rewards/*` are the plain DPO rewards β Σ_t log π_θ/π_ref (λ ≡ 1), so that curves of DPO and DPO-BMC
    compare (§5.3). `diff/share` is the share of response tokens that differ, `diff/weight` their mean λ.
    """

    _tag_names = ["trl", "dpo", "bmc"]  # noqa: RUF012 - the attribute is TRL's
    _name = "BMC"
    args: BMCConfig
    _signature_columns: list[str]
    _precompute_engine: Any

    def __init__(
        self,
        model: Any,
        ref_model: Any = None,
        args: BMCConfig | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        args = args or BMCConfig(output_dir="bmc-output")
        if data_collator is None:
            processing_class = processing_class or _tokenizer_of(model, args)
            if processing_class.pad_token is None:
                processing_class.pad_token = processing_class.eos_token
            data_collator = DataCollatorForBMC(  # whether it shares prefixes is known when the model is
                pad_token_id=processing_class.pad_token_id,
                max_length=args.max_length,
                pad_to_multiple_of=args.pad_to_multiple_of,
            )
        super().__init__(model, ref_model, args, data_collator, train_dataset, eval_dataset, processing_class, **kwargs)
        if not args.precompute_ref_log_probs:  # else it was done before the reference ran
            self._share_prefixes()

    # data: tokenise as TRL does, mark the differing tokens, perhaps run the reference

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        streamed = isinstance(dataset, IterableDataset)
        rows = 0 if streamed else len(dataset)
        dataset = super()._prepare_dataset(dataset, processing_class, args, dataset_name)
        if not streamed and len(dataset) < rows:
            logger.warning(
                "max_length: dropped %d of %d %s pairs, whose prompts alone fill its %d tokens",
                *(rows - len(dataset), rows, dataset_name, args.max_length),
            )
        if not streamed and not len(dataset):
            raise fail("max_length", f"no {dataset_name} pair is left under {args.max_length} tokens; raise it")
        options = {} if streamed else {"num_proc": args.dataset_num_proc, "desc": f"Comparing {dataset_name} pairs"}
        return dataset.map(_mark_differences, **options)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns = [*dict.fromkeys([*self._signature_columns, *DIFF_COLUMNS, *REF_COLUMNS])]

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        if isinstance(dataset, IterableDataset):
            raise fail("precompute_ref_log_probs", "a streamed data set can't keep them; set it to false")
        self._share_prefixes()
        if self.ref_model is None and self.is_deepspeed_enabled and self._precompute_engine is None:
            # as in TRL: the policy isn't on its device yet, so an inference engine places and gathers it
            self._precompute_engine = prepare_deepspeed(self.model, self.accelerator)
        model = self.ref_model or self._precompute_engine or self.model
        return add_reference_logps(
            dataset,
            lambda batch: self._reference_logps(model, batch),
            self.data_collator,
            self.accelerator,
            batch_size,
            name,
        )

    def _share_prefixes(self) -> None:
        """Has the collator fold the two sequences of a pair into one, where the recipe and the model allow it."""
        wanted, reason = self.args.prefix_sharing, obstacle(self.model, self.args.max_length)
        if self.aux_loss_enabled:
            reason = "the router's auxiliary loss counts every token"
        if wanted is not False and reason:
            logger.warning("prefix_sharing: two sequences a pair, since %s", reason)
        if isinstance(self.data_collator, DataCollatorForBMC):
            self.data_collator.prefix_sharing = wanted is not False and reason is None

    # a training step

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        outputs = self._forward(model, inputs)
        responses = inputs["completion_mask"][:, 1:].bool()
        diff_mask = inputs["diff_mask"][:, 1:]
        ref_logps = inputs["ref_logps"][:, 1:] if "ref_logps" in inputs else self._reference_logps(self.model, inputs)
        weights = self._weights(outputs.logps, diff_mask)
        loss = self._objective(weigh(outputs.logps, ref_logps, weights, responses))
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss
        self._record(outputs, inputs, ref_logps, weights, responses, diff_mask)
        if not return_outputs:
            return loss
        with torch.no_grad():  # the fused head makes no logits, which `compute_metrics` may ask for
            return loss, model(**_plain(inputs))

    def _forward(self, model: Any, inputs: dict[str, Any]) -> TokenOutputs:
        """log π of each next token and what comes with it, in one sequence a pair where prefixes are shared."""
        responses = inputs["completion_mask"][:, 1:].bool()
        shared = "shared_ids" in inputs
        arguments = _shared(inputs) if shared else _plain(inputs)
        if self.aux_loss_enabled:
            arguments["output_router_logits"] = True
        outputs = model(**arguments, fused_lm_head=True)

        def placed(values: Tensor | None) -> Any:
            if values is None or not shared:
                return None if values is None else values[:, -responses.size(1) :]  # virtual tokens stand in front
            return unfold(values, inputs["shared_places"], responses)

        logps, entropy, is_top1 = map(placed, (outputs.log_probs, outputs.entropy, outputs.is_top1))
        return TokenOutputs(logps, entropy, is_top1, outputs.aux_loss)

    def _reference_logps(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """log π_ref of each next token, (2B, T − 1): of `ref_model`, or of the policy without its adapter."""
        adapter: Any = contextlib.nullcontext()
        if self.ref_model is None and is_peft_model(self.model):
            policy = self.accelerator.unwrap_model(self.model)
            adapter = use_adapter(policy, adapter_name="ref" if "ref" in policy.peft_config else None)
        checkpointing = disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs)
        with torch.no_grad(), checkpointing, adapter, self.accelerator.autocast():
            return self._forward(self.ref_model or model, inputs).logps

    def _weights(self, logps: Tensor, diff_mask: Tensor) -> Tensor:
        """λ of each token, (2B, T − 1), detached."""
        if self.args.token_weighting == "bmc":
            return bmc_weights(logps, diff_mask, self.args.bmc_delta)
        return torch.ones_like(logps)

    def _objective(self, pairs: Pairs) -> Tensor:
        """The mean over the batch of `loss_type`, or of the sum of several with `loss_weights`."""
        losses = zip(self.loss_types, self.loss_weights, strict=True)
        return sum(
            weight * LOSSES[name](pairs, **{key: getattr(self.args, key) for key in hyperparameters(name)}).mean()
            for name, weight in losses
        )

    def _record(
        self,
        outputs: TokenOutputs,
        inputs: dict[str, Any],
        ref_logps: Tensor,
        weights: Tensor,
        responses: Tensor,
        diff_mask: Tensor,
    ) -> None:
        """Appends this batch's metrics, averaged over the processes; `log` averages them over the steps."""
        logps = outputs.logps.detach()
        chosen_logps, rejected_logps = logps.sum(dim=1).chunk(2)
        chosen_rewards, rejected_rewards = (self.beta * ((logps - ref_logps) * responses).sum(dim=1)).chunk(2)
        means = {
            "rewards/chosen": chosen_rewards,
            "rewards/rejected": rejected_rewards,
            "rewards/margins": chosen_rewards - rejected_rewards,
            "rewards/accuracies": (chosen_rewards > rejected_rewards).float(),
            "logps/chosen": chosen_logps,
            "logps/rejected": rejected_logps,
        }
        chosen = responses.chunk(2)[0]
        shares = {  # (sum, count) over tokens
            "entropy": (outputs.entropy.detach() * responses, responses),
            "mean_token_accuracy": (outputs.is_top1.chunk(2)[0].bool() & chosen, chosen),
            "diff/share": (diff_mask, responses),
            "diff/weight": (weights * diff_mask, diff_mask),
        }
        mode = "train" if self.model.training else "eval"
        metrics = self._metrics[mode]
        for name, values in means.items():
            metrics[name].append(self.accelerator.gather_for_metrics(values).mean().item())
        for name, (values, mask) in shares.items():
            totals = torch.stack([values.sum().float(), mask.sum().float()])[None]
            total, count = self.accelerator.gather_for_metrics(totals).sum(dim=0).tolist()
            if count:
                metrics[name].append(total / count)
        if mode == "train":
            tokens = self.accelerator.gather_for_metrics(inputs["attention_mask"].sum()).sum().item()
            self._total_train_tokens += tokens // self._tp_size
        metrics["num_tokens"] = [self._total_train_tokens]


def weigh(logps: Tensor, ref_logps: Tensor, weights: Tensor, responses: Tensor) -> Pairs:
    """Sums the weighted tokens of each response (the two sums of Eq. 4).

    Args:
        logps: log π_θ of each token, (2B, T), winners first.
        ref_logps: log π_ref, (2B, T).
        weights: λ, (2B, T).
        responses: Which tokens belong to the response; bool, (2B, T).

    Returns:
        The sums of the B pairs.
    """
    weights = weights * responses
    chosen, rejected = (weights * logps).sum(dim=1).chunk(2)
    ref_chosen, ref_rejected = (weights * ref_logps).sum(dim=1).chunk(2)
    return Pairs(chosen, rejected, ref_chosen, ref_rejected, *weights.sum(dim=1).chunk(2))


def _mark_differences(row: dict[str, Any]) -> dict[str, Any]:
    """The masks of a pair, over the whole responses: they change with neither prompt, batch, padding nor cut."""
    return dict(zip(DIFF_COLUMNS, token_diff(row["chosen_ids"], row["rejected_ids"]), strict=True))


def _plain(inputs: dict[str, Any]) -> dict[str, Any]:
    """The model's arguments for two sequences a pair."""
    ours = ("completion_mask", "diff_mask", "ref_logps", "shared_")
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    theirs = {key: value for key, value in inputs.items() if not key.startswith(ours)}
    return theirs | {"labels": labels, "use_cache": False}


def _shared(inputs: dict[str, Any]) -> dict[str, Any]:
    """The model's arguments for one sequence a pair."""
    return {
        "input_ids": inputs["shared_ids"],
        "position_ids": inputs["shared_positions"],
        "attention_mask": branch_mask(inputs["shared_branch"]),
        "labels": inputs["shared_labels"],
        "use_cache": False,
    }


def _tokenizer_of(model: Any, args: BMCConfig) -> Any:
    revision = (args.model_init_kwargs or {}).get("revision") if isinstance(model, str) else None
    path = model if isinstance(model, str) else model.config._name_or_path
    return AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=args.trust_remote_code)
