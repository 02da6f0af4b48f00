"""The reference model's log-probabilities of every response token, computed once before training.

Per token, where TRL stores one sum a response: λ changes while the policy trains, so Σ_t λ log π_ref does too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import tqdm
from datasets import Dataset, concatenate_datasets
from torch import Tensor
from torch.utils.data import DataLoader

from .batching import REF_COLUMNS


def add_reference_logps(
    dataset: Dataset,
    forward: Callable[[dict[str, Any]], Tensor],
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
    accelerator: Accelerator,
    batch_size: int,
    name: str,
) -> Dataset:
    """Adds `ref_chosen_logps` and `ref_rejected_logps`: one float32 for each response token that is kept.

    The processes share the batches out and each ends with all rows.

    Args:
        dataset: Tokenised pairs.
        forward: A padded batch → log π_ref of each next token, (2B, T − 1).
        collate: The trainer's collator.
        accelerator: Knows the processes.
        batch_size: Pairs a batch and process.
        name: What to call the data set in the progress bar.
    """
    rows = _run(dataset, forward, collate, accelerator, batch_size, name)
    columns = {column: [row[side] for row in rows] for side, column in enumerate(REF_COLUMNS)}
    return concatenate_datasets([dataset, Dataset.from_dict(columns)], axis=1)


def _run(
    dataset: Dataset,
    forward: Callable[[dict[str, Any]], Tensor],
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
    accelerator: Accelerator,
    batch_size: int,
    name: str,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """`(winner's, loser's)` per-token log-probs of each pair, in the order of the data set, on every process."""
    loader = accelerator.prepare(DataLoader(dataset, batch_size=batch_size, collate_fn=collate, shuffle=False))
    rows: list[tuple[np.ndarray, np.ndarray]] = []
    for batch in tqdm(loader, desc=f"Reference log-probs of the {name} pairs"):
        logps, responses = forward(batch).float(), batch["completion_mask"][:, 1:]
        sides = []
        for side_logps, side_mask in zip(logps.chunk(2), responses.chunk(2), strict=True):
            padded = accelerator.pad_across_processes((side_logps.contiguous(), side_mask.contiguous()), dim=1)
            gathered_logps, gathered_mask = accelerator.gather_for_metrics(padded)
            sides.append(
                [row[mask.bool()].cpu().numpy() for row, mask in zip(gathered_logps, gathered_mask, strict=True)]
            )
        rows.extend(zip(*sides, strict=True))
    return rows
