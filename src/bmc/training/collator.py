"""From tokenised pairs to tensors: rows for the model, and where in them each response token is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from trl.trainer.dpo_trainer import DataCollatorForPreference

from ..errors import user_error
from .prefix_sharing import PackedRow, index_trees, pack_sequences, segments
from .throughput import Work, count_visible
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

    Attributes:
        prefix_sharing: Lay what sequences with the same prompt have in common down once.
        packing: Put the sequences of the batch end to end in one row, without padding. With both, the whole batch is
            one row of prefix trees.
    """

    prefix_sharing: bool = False
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

        Args:
            pairs: Token ids of prompt and response.

        Returns:
            `input_ids` (R, S); `predictors` (2, U) and `labels` (U,) as in `bmc.training.lm_head.score`, one for each
            token to be scored; `places` (N, T), which of the U each response token is, and `response_mask` (N, T). A
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
            unscored = 0 if example["prompt_ids"] else 1
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
