"""A name for every row, that changes with neither its place nor its file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from .schema import Row, digest

TEXTS = ("prompt", "completion", "messages", "chosen", "rejected")


def named_by(columns: Sequence[str]) -> list[str]:
    """The columns that an id is made of where a row has none."""
    return [column for column in TEXTS if column in columns] or [column for column in columns if column != "id"]


def own_id(row: Row, texts: list[str], name: str) -> str:
    """A row's id: its own, or one that depends on its `texts` only."""
    if row.get("id") not in (None, ""):
        return str(row["id"])
    said = {text: row.get(text) for text in texts}
    words = json.dumps(said, sort_keys=True, ensure_ascii=False, default=str) if texts else ""
    return f"{name}-{digest(words)}"


def unique(ids: Iterable[str]) -> list[str]:
    """The ids, with -2, -3, … after repeats."""
    ids = list(ids)
    taken, counts, unique = set(ids), dict.fromkeys(ids, 0), []
    for id in ids:
        counts[id] += 1
        name = id if counts[id] == 1 else f"{id}-{counts[id]}"
        while counts[id] > 1 and name in taken:
            counts[id] += 1
            name = f"{id}-{counts[id]}"
        taken.add(name)
        unique.append(name)
    return unique
