"""Rank and world size of this process, under `accelerate launch`, torchrun or alone."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return the number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def all_gather(value: Any) -> list[Any]:
    """Gather a value from every process, in the order of their ranks; waits for all of them.

    Uses gloo, over the network and without a GPU. If a process dies, the others fail too.
    """
    if world_size() == 1:
        return [value]
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=timedelta(days=30))  # the first to finish waits for the last
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values
