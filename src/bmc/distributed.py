"""This process among those of a stage, started by `accelerate launch`, torchrun or the stage itself."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any


def rank() -> int:
    """This process's number, from 0."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def all_gather(value: Any) -> list[Any]:
    """The `value` of each process, in the order of their ranks; each waits here for all the others.

    The processes talk by gloo, over the network and without a GPU. One that dies takes the others with it.
    """
    if world_size() == 1:
        return [value]
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=timedelta(days=30))  # the first to end waits for the last
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values
