"""From tokenised pairs to padded tensors, with every value of a response token beside its token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from trl.trainer.dpo_trainer import DataCollatorForPreference

DIFF_COLUMNS = ("chosen_diff", "rejected_diff")
REF_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")


@dataclass
class DataCollatorForBMC(DataCollatorForPreference):
    """TRL's collator plus `diff_mask` and, where the reference was run beforehand, `ref_logps`.

    Each example has `prompt_ids`, `chosen_ids`, `rejected_ids` (token ids), `chosen_diff`, `rejected_diff` (one bool a
    response token) and perhaps `ref_chosen_logps`, `ref_rejected_logps` (one float a response token).

    A batch of B pairs has, all of shape (2B, T) with the winners first: `input_ids`, `attention_mask`,
    `completion_mask` (int64), `diff_mask` (bool; False outside the response) and perhaps `ref_logps` (float32; 0
    outside the response).
    """

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        ids = ("prompt_ids", "chosen_ids", "rejected_ids")
        batch = super().torch_call([{key: example[key] for key in ids} for example in examples])
        responses = batch["completion_mask"].bool()
        batch["diff_mask"] = _place(examples, DIFF_COLUMNS, responses, torch.bool)
        if REF_COLUMNS[0] in examples[0]:
            batch["ref_logps"] = _place(examples, REF_COLUMNS, responses, torch.float32)
        return batch


def _place(examples: list[dict[str, Any]], columns: tuple[str, str], responses: Tensor, dtype: torch.dtype) -> Tensor:
    """Per-token values of both responses at their tokens' places; what truncation cut off is cut off here too."""
    rows = [example[column] for column in columns for example in examples]
    kept = responses.sum(dim=1).tolist()
    placed = torch.zeros(responses.shape, dtype=dtype)
    placed[responses] = torch.tensor([x for row, n in zip(rows, kept, strict=True) for x in row[:n]], dtype=dtype)
    return placed
