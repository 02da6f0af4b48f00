"""Micro-batches by tokens: the pairs of an optimizer step in as few forward passes as a budget allows.

Short pairs waste a GPU when a micro-batch is a fixed number of them, and under ZeRO-3 and FSDP every micro-batch
gathers all weights. With a budget the data loader deals out all pairs of a rank's optimizer step at once, the collator
splits them in their order, and the step adds up the micro-batches' gradients. All ranks run equally many: one that
needs fewer repeats its cheapest with weight 0, while the others compute.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer
from trl.data_utils import common_prefix_length

from .collator import Batch, DataCollatorForBMC
from .token_weights import RESPONSES


def split_by_tokens(costs: Sequence[int], budget: int, padded: bool = False) -> list[slice]:
    """Split rows into as few runs of neighbours as fit a budget; a row that exceeds it alone is a run of its own.

    Args:
        costs: Tokens of each row.
        budget: The most tokens of a run, at least 1.
        padded: Whether the rows of a run are padded to its longest.
    """
    runs, start, largest, total = [], 0, 0, 0
    for place, cost in enumerate(costs):
        largest, total = max(largest, cost), total + cost
        if place > start and (largest * (place + 1 - start) if padded else total) > budget:
            runs.append(slice(start, place))
            start, largest, total = place, cost, cost
    return [*runs, slice(start, len(costs))] if costs else []


@dataclass
class MicroBatchCollator:
    """Pairs of an optimizer step → a batch with `micro_batches`, and with `num_tokens` and `ids` of all pairs.

    Attributes:
        collator: Of a micro-batch.
        budget: Tokens that a micro-batch pushes through the model at the most, unless a single pair has more.
    """

    collator: DataCollatorForBMC
    budget: int

    def __call__(self, examples: list[dict[str, Any]]) -> Batch:
        runs = split_by_tokens([self._cost(example) for example in examples], self.budget, not self.collator.packing)
        batches = [self.collator(examples[run]) for run in runs]
        # first: its length is the batch's
        whole: Batch = {"num_tokens": torch.cat([batch["num_tokens"] for batch in batches])}
        if "ids" in batches[0]:
            whole["ids"] = [id for batch in batches for id in batch["ids"]]
        return whole | {"micro_batches": batches}

    def _cost(self, example: dict[str, Any]) -> int:
        """Count the tokens that a pair lays down: what its responses share once, or two padded sequences."""
        sequences = [(example["prompt_ids"] + example[side])[: self.collator.max_length] for side in RESPONSES]
        if not self.collator.packing and not self.collator.prefix_sharing:
            return 2 * max(map(len, sequences))
        shared = common_prefix_length(*sequences) if self.collator.prefix_sharing else 0
        return sum(map(len, sequences)) - shared


class MicroBatchTrainer(Trainer):
    """Mixin before a trainer whose loss is a mean over pairs, or their sum weighted with `pair_weights`."""

    micro_batch_tokens: int | None = None
    data_collator: Any

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """As the trainer's, with a collator that splits. Others who ask `data_collator` get one micro-batch."""
        collator = self.data_collator
        trains, evaluates = kwargs.get("is_training"), kwargs.get("description") == "Evaluation"
        wanted = trains or (evaluates and self.compute_metrics is None)  # others are to see logits
        if self.micro_batch_tokens is None or not wanted:
            return super()._get_dataloader(*args, **kwargs)
        self.data_collator = MicroBatchCollator(collator, self.micro_batch_tokens)
        try:
            return super()._get_dataloader(*args, **kwargs)
        finally:
            self.data_collator = collator

    def _split(self, inputs: Batch) -> list[Batch]:
        """List the micro-batches that this rank runs, each with its pairs' weights in the mean over all its pairs."""
        pairs = len(inputs["num_tokens"])
        weights = inputs.get("pair_weights", torch.full((pairs,), 1 / pairs))
        counts = [len(batch["num_tokens"]) for batch in inputs["micro_batches"]]
        parts = zip(inputs["micro_batches"], weights.split(counts), strict=True)
        batches: list[Batch] = [batch | {"pair_weights": own} for batch, own in parts]
        most = torch.tensor(len(batches), device=self.args.device)
        if self.args.world_size > 1:
            most = self.accelerator.gather(most[None]).max()
        cheapest = min(batches, key=lambda batch: batch["input_ids"].numel())
        idle = cheapest | {"pair_weights": torch.zeros_like(cheapest["pair_weights"])}
        return batches + [idle] * (int(most) - len(batches))

    def training_step(self, model: Any, inputs: Batch, *args: Any, **kwargs: Any) -> Tensor:
        """Run the step's micro-batches one after another; ranks exchange gradients in the last."""
        if "micro_batches" not in inputs:
            return super().training_step(model, inputs, *args, **kwargs)
        batches, state = self._split(inputs), self.accelerator.gradient_state
        total = torch.zeros((), device=self.args.device)
        for number, batch in enumerate(batches, start=1):
            last = number == len(batches)
            alone = last or self.is_deepspeed_enabled  # which looks at `sync_gradients` itself
            state._set_sync_gradients(last)
            with contextlib.nullcontext() if alone else self.accelerator.no_sync(model):
                total += super().training_step(model, batch, *args, **kwargs)
        return total

    def prediction_step(self, model: Any, inputs: Batch, *args: Any, **kwargs: Any) -> Any:
        run = super().prediction_step
        if "micro_batches" not in inputs:
            return run(model, inputs, *args, **kwargs)
        losses = [run(model, batch, *args, **kwargs)[0] for batch in self._split(inputs)]
        return torch.stack(losses).sum(), None, None

    def floating_point_ops(self, inputs: Batch) -> int:
        count = super().floating_point_ops
        return sum(map(count, inputs.get("micro_batches", [inputs])))
