"""Rows as the `datasets.Dataset` that a trainer takes, with each value as it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .mixture import Rows
from .pairs import WEIGHTS
from .schema import Row, tools_of

if TYPE_CHECKING:
    from datasets import Dataset

# columns that go to a trainer if they are there: TRL hands two to the chat template, two are token weights, and ids
# name rows in messages
ALSO = ("tools", "chat_template_kwargs", *WEIGHTS, "id")


def table(rows: Rows, texts: tuple[str, ...], ready: Callable[[Row], Row] = dict) -> Dataset:
    """Write rows to the cache of 🤗 datasets and open them there.

    The file's name and the fingerprint are a hash of the content: what a trainer computes from the rows is found again
    by the next run on the same ones. Columns whose values have no common type, such as the JSON schemas of different
    tools, are `Json()`: Arrow's structs would give each value the keys of all others.

    Args:
        rows: Rows that were checked.
        texts: The columns to train on; those in `ALSO` come with them.
        ready: What is done to each row first.
    """
    import datasets

    def made(columns: list[str]) -> Iterator[Row]:
        """The rows in the order of their files."""
        for row in rows.read():
            row = ready(row)
            options = {"tools": tools_of(row), "chat_template_kwargs": row.get("chat_template_kwargs") or {}}
            yield {column: options[column] if column in options else row.get(column) for column in columns}

    digest = hashlib.sha256()
    kinds: dict[str, set[str]] = {}
    for row in made([*texts, *(column for column in ALSO if column in rows.columns)]):
        digest.update(json.dumps(row, sort_keys=True).encode())
        for column, value in row.items():
            if value:
                kinds.setdefault(column, set()).add(_kind(value))
    features = datasets.Features({column: _feature(kind, datasets) for column, kind in kinds.items()})
    digest.update(repr(features).encode())
    whole = datasets.Dataset.from_generator(
        lambda: made([*features]),
        features=features,
        cache_dir=str(Path(datasets.config.HF_DATASETS_CACHE) / "bmc-rows"),
        fingerprint=digest.hexdigest()[:32],
    )
    return whole if rows.order is None else whole.select(rows.order)


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return "numbers"
    if isinstance(value, list) and all(isinstance(item, dict) and _is_plain(item) for item in value):
        return "messages"
    return "json"


def _is_plain(message: dict[str, Any]) -> bool:
    return message.keys() == {"role", "content"} and isinstance(message["content"], str)


def _feature(kinds: set[str], datasets: Any) -> Any:
    text = datasets.Value("string")
    known = {
        "text": text,
        "numbers": datasets.List(datasets.Value("float64")),
        "messages": datasets.List({"role": text, "content": text}),
    }
    return known.get("".join(kinds), datasets.Json())  # of several kinds there is none by that name
