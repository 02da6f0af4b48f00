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

    The processes share the batches out and each ends with all rows, in the order of the data set.

    Args:
        dataset: Tokenised pairs.
        forward: A padded batch → log π_ref of each next token, (2B, T − 1), winners first.
        collate: The trainer's collator.
        accelerator: Knows the processes.
        batch_size: Pairs a batch and process.
        name: What to call the data set in the progress bar.
    """
    loader = accelerator.prepare(DataLoader(dataset, batch_size=batch_size, collate_fn=collate, shuffle=False))
    columns: dict[str, list[np.ndarray]] = {column: [] for column in REF_COLUMNS}
    for batch in tqdm(loader, desc=f"Reference log-probs of the {name} pairs"):
        logps, responses = forward(batch).float(), batch["completion_mask"][:, 1:]
        for column, *side in zip(REF_COLUMNS, logps.chunk(2), responses.chunk(2), strict=True):
            padded = accelerator.pad_across_processes([tensor.contiguous() for tensor in side], dim=1)
            rows = zip(*accelerator.gather_for_metrics(padded), strict=True)
            columns[column] += [values[mask.bool()].cpu().numpy() for values, mask in rows]
    return concatenate_datasets([dataset, Dataset.from_dict(columns)], axis=1)
