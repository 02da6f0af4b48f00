"""From tokenised pairs to tensors: rows for the model, and where in them each response token is.

Short pairs waste a GPU when a micro-batch is a fixed number of them, and under ZeRO-3 and FSDP every micro-batch
gathers all weights. With `micro_batch_tokens` the data loader deals out all pairs of a rank's optimizer step at once,
the collator splits them in their order into as few micro-batches as the budget allows, and the step adds up their
gradients. All ranks run equally many: one that needs fewer repeats its cheapest with weight 0.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer
from trl.data_utils import common_prefix_length
from trl.trainer.dpo_trainer import DataCollatorForPreference

from ..errors import user_error
from .metrics import Work, count_visible
from .prefix_sharing import PackedRow, index_trees, pack_sequences, segments
from .token_weights import DIFF_COLUMNS, RESPONSES, WEIGHT_COLUMNS

REF_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
Batch = dict[str, Any]


# why a tokenised pair teaches nothing → how to say so
NO_SIGNAL = {
    "prompt": "prompts alone fill its {max_length} tokens",
    "cut": "responses are equal within its {max_length} tokens",
    "equal": "responses are equal once tokenised (a chat template may trim them)",
}


def chosen_first(rows: Tensor) -> Tensor:
    """Order the rows of B pairs, (2B, …), as TRL has them: all chosen, then all rejected sequences."""
    return torch.cat([rows[0::2], rows[1::2]])


def no_signal(row: dict[str, Any], max_length: int | None) -> str | None:
    """Say why a tokenised pair holds no preference, a key of `NO_SIGNAL`; None if it holds one."""
    chosen, rejected = (row[side] for side in RESPONSES)
    if max_length is not None and len(row["prompt_ids"]) >= max_length:
        return "prompt"
    if chosen == rejected:
        return "equal"
    room = None if max_length is None else max_length - len(row["prompt_ids"])
    return "cut" if chosen[:room] == rejected[:room] else None


@dataclass
class DataCollatorForBMC(DataCollatorForPreference):
    """Pairs as rows for the model, with the values of the response tokens beside them.

    Each example has `prompt_ids`, `chosen_ids`, `rejected_ids` (token ids), `chosen_diff`, `rejected_diff` (one bool a
    response token) and perhaps `ref_chosen_logps`, `ref_rejected_logps`, `chosen_weights`, `rejected_weights` (one
    float a response token). What `max_length` cuts off is cut off everywhere.

    A batch of B pairs has, chosen before rejected and T being the longest response's tokens:
    `num_tokens` (B,), of both sequences of a pair; `response_mask` (B, 2, T), which are tokens and no padding;
    `diff_mask` (B, 2, T), bool; perhaps `ref_logps` and `token_weights` (B, 2, T), float32; perhaps `ids`, the rows';
    and what `lay_out` returns.
    """

    prefix_sharing: bool = False  # lay what sequences with the same prompt have in common down once
    # put the sequences of the batch end to end in one row, without padding; with both, in one row of prefix trees
    packing: bool = False

    @classmethod
    def of(cls, given: Any) -> DataCollatorForBMC:
        """Convert a `DataCollatorForPreference`, which keeps nothing beside tokens.

        Raises:
            UserErrors: It is another collator, or cuts sequences at their beginning.
        """
        if isinstance(given, cls):
            return given
        if type(given) is not DataCollatorForPreference:
            how = "leave it out, or give a DataCollatorForPreference"
            raise user_error("data_collator", f"{type(given).__name__} doesn't make what token weights need; {how}")
        if given.truncation_mode != "keep_start":
            raise user_error("truncation_mode", f"{given.truncation_mode} isn't supported; set keep_start")
        return cls(given.pad_token_id, given.max_length, pad_to_multiple_of=given.pad_to_multiple_of)

    def torch_call(self, examples: list[dict[str, Any]]) -> Batch:
        pairs = [(example["prompt_ids"], example[side]) for example in examples for side in RESPONSES]
        layout = self.lay_out(pairs)
        shape = (len(examples), 2, -1)
        lengths = [len((prompt + response)[: self.max_length]) for prompt, response in pairs]
        batch: Batch = {"num_tokens": torch.tensor(lengths).view(-1, 2).sum(dim=1)}  # first: its length is the batch's
        for key in ("places", "response_mask"):
            layout[key] = layout[key].view(shape)
        batch |= layout
        beside = {"diff_mask": DIFF_COLUMNS, "ref_logps": REF_COLUMNS, "token_weights": WEIGHT_COLUMNS}
        for key, columns in beside.items():
            if columns[0] in examples[0]:
                dtype = torch.bool if key == "diff_mask" else torch.float32
                batch[key] = self._gather_columns(examples, columns, batch["response_mask"], dtype)
        if "id" in examples[0]:
            batch["ids"] = [example["id"] for example in examples]
        return batch

    def lay_out(self, pairs: Sequence[tuple[list[int], list[int]]]) -> Batch:
        """Lay N sequences out in rows, and say where their response tokens are.

        Returns:
            `input_ids` (R, S); `predictors` (2, U) and `labels` (U,) as in `lm_head.score_tokens`, one for each token
            to be scored; `places` (N, T), which of the U each response token is, and `response_mask` (N, T). A
            token that several sequences share is scored once. With trees `position_ids` (R, S), `trees`, a tuple of R
            `Tree`s, and `tree_index`, a `VarlenIndex` of them; else `attention_mask` (R, S). All int64, but for the
            bool mask. `work`: a `Work` that says what it costs.
        """
        sequences = [(prompt + response)[: self.max_length] for prompt, response in pairs]
        rows = self._rows(pairs, sequences)
        width = max(len(row.ids) for row in rows)
        width += -width % (self.pad_to_multiple_of or 1)
        places, predictors, labels = [], [], []
        walks = ((number, walk) for number, row in enumerate(rows) for walk in row.places)
        for (number, walk), (prompt, _), ids in zip(walks, pairs, sequences, strict=True):
            first = max(len(prompt), 1)  # nothing predicts the first token of a sequence
            flat = np.asarray(walk) + number * width
            places.append(flat[first:])
            predictors.append(flat[first - 1 : -1])
            labels.append(ids[first:])
        _, kept, index = np.unique(np.concatenate(places), return_index=True, return_inverse=True)
        predictor = torch.from_numpy(np.concatenate(predictors)[kept])
        scored = torch.from_numpy(index).split([len(tokens) for tokens in labels])
        layout: Batch = {
            "input_ids": self._pad([row.ids for row in rows], self.pad_token_id, width),
            "predictors": torch.stack([predictor // width, predictor % width - width]),
            "labels": torch.tensor([token for tokens in labels for token in tokens], dtype=torch.int64)[kept],
            "places": pad_sequence(scored, batch_first=True),
            "response_mask": pad_sequence([torch.ones_like(index, dtype=torch.bool) for index in scored], True),
        }
        layout["work"] = _measure(rows, sequences, len(kept), width)
        if not self.prefix_sharing and not self.packing:
            return layout | {"attention_mask": self._pad([[1] * len(row.ids) for row in rows], 0, width)}
        trees = tuple(row.tree.padded(width - len(row.ids)) for row in rows)
        positions = self._pad([row.positions for row in rows], 0, width)
        return layout | {"position_ids": positions, "trees": trees, "tree_index": index_trees(trees)}

    def _rows(self, pairs: Sequence[tuple[list[int], list[int]]], sequences: list[list[int]]) -> list[PackedRow]:
        """Pack the sequences into rows, in their order."""
        if self.packing:
            return [pack_sequences(sequences, self.prefix_sharing)]
        if not self.prefix_sharing:
            return [pack_sequences([sequence], share=False) for sequence in sequences]
        together = groupby(range(len(pairs)), key=lambda number: pairs[number][0])
        return [pack_sequences([sequences[number] for number in numbers], share=True) for _, numbers in together]

    def _pad(self, rows: list[list[int]], filler: int, width: int) -> Tensor:
        return torch.tensor([row + [filler] * (width - len(row)) for row in rows])

    def _gather_columns(
        self, examples: list[dict[str, Any]], columns: tuple[str, str], responses: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Put per-token values at their tokens' places, (B, 2, T); leave out those without one."""
        placed = torch.zeros(responses.shape, dtype=dtype)
        for number, example in enumerate(examples):
            # nothing predicts the first token of a sequence, and the reference's columns hold no number for it
            unscored = 0 if example["prompt_ids"] or columns is REF_COLUMNS else 1
            for side, column in enumerate(columns):
                count = int(responses[number, side].sum())
                placed[number, side, :count] = torch.tensor(example[column][unscored : unscored + count], dtype=dtype)
        return placed


def _measure(rows: Sequence[PackedRow], sequences: Sequence[list[int]], scored: int, width: int) -> Work:
    """Count what rows cost, and what their sequences would, padded to the longest."""
    found = [
        (segment.size, sum(row.tree.sizes[node] for node in segment.path))
        for row in rows
        for segment in segments(row.tree)
    ]
    tokens = sum(len(row.ids) for row in rows)
    return Work(tokens, count_visible(found), scored, len(rows) * width, len(sequences) * max(map(len, sequences)))


def split_by_tokens(costs: Sequence[int], budget: int, padded: bool = False) -> list[slice]:
    """Split rows into as few runs of neighbours as fit a budget of tokens; a row that exceeds it is a run of its own.

    `padded`: the rows of a run are padded to its longest.
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
    """Pairs of an optimizer step → a batch with `micro_batches`, and with `num_tokens` and `ids` of all pairs."""

    collator: DataCollatorForBMC  # of a micro-batch
    budget: int  # tokens that a micro-batch pushes through the model at the most, unless a single pair has more

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
