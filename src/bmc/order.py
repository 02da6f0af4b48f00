"""Which rows make an optimizer step: the seed alone decides it, and each row of an epoch is in it once.

Accelerate deals batches out to the processes in turn, so that a step of a given size has the same rows however it is
split. Where an epoch's last rows don't fill a batch on each process, it fills up with rows from the epoch's start; here
those weigh nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler


class ByLength(LengthGroupedSampler):
    """Rows of like length together, in an order of seed and epoch.

    transformers' own draws from the generator of the process: each process gets an order of its own, and a resumed run
    another one than the run it resumes.

    Attributes:
        epoch: Number of the epoch whose order comes next.
    """

    def __init__(self, lengths: list[int], batch: int, seed: int) -> None:
        super().__init__(batch, lengths=lengths, generator=torch.Generator())
        self.seed, self.epoch = seed, 0

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch)
        return super().__iter__()


def last_step(rows: int, size: int, ranks: int, rank: int, batches: int) -> tuple[int, float] | None:
    """How the rows of an epoch's last step count, where the mean over each micro-batch isn't the mean over the step.

    Args:
        rows: Rows of the epoch.
        size: Rows of a micro-batch on one process.
        ranks: Processes.
        rank: This one.
        batches: Micro-batches of the step on each process.

    Returns:
        `(rows of this process's last micro-batch that aren't repeated, weight of a row)`: with these weights the sum
        over a micro-batch, averaged over micro-batches and processes, is the mean over the rows of the step. None where
        all micro-batches are full, or the step is a single one.
    """
    left = rows % (size * ranks)
    if left == 0 or ranks == batches == 1:
        return None
    weight = batches * ranks / ((batches - 1) * size * ranks + left)
    return min(max(left - rank * size, 0), size), weight


def silence(batch: dict[str, Any], own: int, size: int) -> None:
    """Takes the labels from the rows of a micro-batch that come after its `own` first.

    Rows without padding stand end to end; where packing has put several in one they can't be told apart and stay.
    """
    labels = batch["labels"]
    if len(labels) == size:
        labels[own:] = -100
    elif "position_ids" in batch and len(starts := (batch["position_ids"][0] == 0).nonzero()) == size and own < size:
        labels[0, starts[own] :] = -100
