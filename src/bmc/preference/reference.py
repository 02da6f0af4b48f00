"""The reference model's log-probabilities of every response token, computed once before training.

Per token, where TRL stores one sum a response: λ changes while the policy trains, so Σ_t λ log π_ref does too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, tqdm
from datasets import Dataset, concatenate_datasets
from datasets.fingerprint import Hasher
from torch import Tensor
from torch.utils.data import DataLoader

from .batching import REF_COLUMNS


def add_reference_logps(
    dataset: Dataset,
    forward: Callable[[dict[str, Any]], Tensor],
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
    accelerator: Accelerator,
    batch_size: int,
    model_hash: str,
    name: str,
) -> Dataset:
    """Adds `ref_chosen_logps` and `ref_rejected_logps`: one float32 for each response token that is kept.

    The result is cached by `datasets` beside the data, under a fingerprint of rows, tokenisation, truncation and
    reference weights.

    Args:
        dataset: Tokenised pairs.
        forward: A padded batch → log π_ref of each next token, (2B, T − 1).
        collate: The trainer's collator.
        accelerator: Shares the batches out over the processes.
        batch_size: Pairs a batch and process.
        model_hash: Names the reference's weights.
        name: What to call the data set in the progress bar.
    """
    key = [Hasher.hash((dataset._fingerprint, model_hash, getattr(collate, "max_length", None), "per-token"))]
    broadcast_object_list(key, from_process=0)  # a sharded model hashes differently on each rank
    cache_file = dataset._get_cache_file_path(key[0])
    if not os.path.exists(cache_file):
        rows = _run(dataset, forward, collate, accelerator, batch_size, name)
        if accelerator.is_main_process:
            dataset.map(
                lambda _, indices: {
                    column: [rows[i][side] for i in indices] for side, column in enumerate(REF_COLUMNS)
                },
                with_indices=True,
                batched=True,
                remove_columns=dataset.column_names,
                new_fingerprint=key[0],
                cache_file_name=cache_file,
                desc=f"Caching reference log-probs of the {name} pairs",
            )
        accelerator.wait_for_everyone()
    return concatenate_datasets([dataset, Dataset.from_file(cache_file)], axis=1)


def _run(
    dataset: Dataset,
    forward: Callable[[dict[str, Any]], Tensor],
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
    accelerator: Accelerator,
    batch_size: int,
    name: str,
) -> list[tuple[list[float], list[float]]]:
    """`(winner's, loser's)` per-token log-probs of each pair, in the order of the data set, on every process."""
    loader = accelerator.prepare(DataLoader(dataset, batch_size=batch_size, collate_fn=collate, shuffle=False))
    rows: list[tuple[list[float], list[float]]] = []
    for batch in tqdm(loader, desc=f"Reference log-probs of the {name} pairs"):
        logps, responses = forward(batch).float(), batch["completion_mask"][:, 1:]
        sides = []
        for side_logps, side_mask in zip(logps.chunk(2), responses.chunk(2), strict=True):
            padded = accelerator.pad_across_processes((side_logps.contiguous(), side_mask.contiguous()), dim=1)
            gathered_logps, gathered_mask = accelerator.gather_for_metrics(padded)
            sides.append([row[mask.bool()].tolist() for row, mask in zip(gathered_logps, gathered_mask, strict=True)])
        rows.extend(zip(*sides, strict=True))
    return rows
