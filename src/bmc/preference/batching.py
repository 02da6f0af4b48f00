"""From tokenised pairs to padded tensors, with every value of a response token beside its token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import pad

from .packing import PAD, share_prefix

DIFF_COLUMNS = ("chosen_diff", "rejected_diff")
REF_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
Batch = dict[str, Tensor]


@dataclass
class DataCollatorForBMC(DataCollatorForPreference):
    """TRL's collator plus `diff_mask`, the reference's log-probs where they are known, and shared rows.

    Each example has `prompt_ids`, `chosen_ids`, `rejected_ids` (token ids), `chosen_diff`, `rejected_diff` (one bool a
    response token) and perhaps `ref_chosen_logps`, `ref_rejected_logps` (one float a response token).

    A batch of B pairs has, of shape (2B, T) with the winners first: `input_ids`, `attention_mask`, `completion_mask`
    (int64), `diff_mask` (bool; False outside the response) and perhaps `ref_logps` (float32; 0 outside the response).
    With `prefix_sharing` it has besides, of shape (B, S), `shared_ids`, `shared_positions`, `shared_branch`,
    `shared_labels`, and `shared_places` (2B, T − 1); `bmc.preference.packing` says what they mean.
    """

    prefix_sharing: bool = False

    def torch_call(self, examples: list[dict[str, Any]]) -> Batch:
        ids = ("prompt_ids", "chosen_ids", "rejected_ids")
        batch = super().torch_call([{key: example[key] for key in ids} for example in examples])
        responses = batch["completion_mask"].bool()
        batch["diff_mask"] = _place(examples, DIFF_COLUMNS, responses, torch.bool)
        if REF_COLUMNS[0] in examples[0]:
            batch["ref_logps"] = _place(examples, REF_COLUMNS, responses, torch.float32)
        return batch | (self._share(examples, batch["input_ids"].size(1)) if self.prefix_sharing else {})

    def _share(self, examples: list[dict[str, Any]], width: int) -> Batch:
        """The shared rows of a batch whose own sequences have `width` tokens."""
        pairs = [
            share_prefix(
                (example["prompt_ids"] + example["chosen_ids"])[: self.max_length],
                (example["prompt_ids"] + example["rejected_ids"])[: self.max_length],
                len(example["prompt_ids"]),
            )
            for example in examples
        ]
        winners = [list(range(1, width))] * len(pairs)
        losers = [pair.places[1:] + [1] * (width - len(pair.places)) for pair in pairs]
        return {
            "shared_ids": self._pad([pair.ids for pair in pairs], self.pad_token_id),
            "shared_positions": self._pad([pair.positions for pair in pairs], 0),
            "shared_branch": self._pad([pair.branch for pair in pairs], PAD),
            "shared_labels": self._pad([pair.labels for pair in pairs], -100),
            "shared_places": torch.tensor(winners + losers),
        }

    def _pad(self, rows: list[list[int]], filler: int) -> Tensor:
        """A row is never narrower than its pair's own sequences, so neither is the padded batch."""
        tensors = [torch.tensor(row) for row in rows]
        return pad(tensors, padding_value=filler, padding_side="right", pad_to_multiple_of=self.pad_to_multiple_of)


def _place(examples: list[dict[str, Any]], columns: tuple[str, str], responses: Tensor, dtype: torch.dtype) -> Tensor:
    """Per-token values of both responses at their tokens' places; what truncation cut off is cut off here too."""
    rows = [example[column] for column in columns for example in examples]
    kept = responses.sum(dim=1).tolist()
    placed = torch.zeros(responses.shape, dtype=dtype)
    placed[responses] = torch.tensor([x for row, n in zip(rows, kept, strict=True) for x in row[:n]], dtype=dtype)
    return placed
