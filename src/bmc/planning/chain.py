"""Which recipe makes what another one reads."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..pipeline import OUTPUTS, producer

__all__ = ["OUTPUTS", "upstream"]


@cache
def upstream(folder: str) -> dict[str, Any] | None:
    """Return the keys of the recipe that writes a folder; None if there is no such recipe."""
    found = producer(folder)
    return found.values if found else None
