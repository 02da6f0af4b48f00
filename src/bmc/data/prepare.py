"""Prepare data: write `train.jsonl`, `validation.jsonl` and `test.jsonl` without leaks between them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from ..config import PrepareConfig
from ..errors import user_error
from ..runs import claim_output_dir, elapsed, run_fingerprint, write_json, write_jsonl
from .loading import load_mixture, load_split
from .schema import Row, content, hash_fraction

logger = logging.getLogger(__name__)


def prepare(config: PrepareConfig) -> dict[str, Any]:
    """Write the three files and `stats.json` to the recipe's `output_dir`.

    Whether a training row goes to validation depends on its prompt alone: neither the order of the rows nor new rows
    change it, and rows with the same prompt stay together. Training rows whose prompt is in a benchmark are left out,
    and so are rows of `validation_datasets` whose prompt is in a benchmark or in the training data.
    """
    mixture = config.dataset_mixture
    train, evaluation = load_split(mixture)
    test = list(evaluation) if evaluation is not None else []
    given = list(load_mixture(config.validation_datasets, mixture.seed)) if config.validation_datasets else []
    benchmark = _prompts(test)
    kept = [row for row in train if _key(row) not in benchmark]
    if not kept:
        raise user_error("dataset_mixture", "every training row is in a benchmark; nothing is left to train on")
    parts: dict[str, list[Row]] = {"train": [], "validation": [], "test": test}
    for row in kept:
        parts["validation" if hash_fraction(_key(row)) < config.validation_fraction else "train"].append(row)
    held_out = len(parts["validation"])
    if given:
        known = benchmark | _prompts(kept)
        parts["validation"] = [row for row in given if _key(row) not in known]

    folder = claim_output_dir(config.output_dir, run_fingerprint(config), config, rows=[*train, *test, *given])
    stats: dict[str, Any] = {"leaked": len(train) - len(kept), "held_out": held_out}
    for name, rows in parts.items():
        written = ({key: value for key, value in row.items() if value is not None} for row in rows)
        stats[name] = write_jsonl(folder / f"{name}.jsonl", written)
    stats["seconds"] = elapsed()
    write_json(folder / "stats.json", stats)
    if stats["leaked"]:
        logger.warning("left out %d training rows whose prompts are in a benchmark", stats["leaked"])
    if shared := len(given) - len(parts["validation"]) if given else 0:
        logger.warning("left out %d validation rows whose prompts are in a benchmark or in the training data", shared)
    return stats


def _prompts(rows: Iterable[Row]) -> set[str]:
    return {_key(row) for row in rows}


def _key(row: Row) -> str:
    """Normalise a prompt for comparison: its words, in lower case and evenly spaced."""
    text: Any = row.get("prompt") or (row.get("messages") or [])[:1]
    if not text:
        raise user_error(f"row {row['id']}", f"has neither prompt nor messages; there are {', '.join(row)}")
    return " ".join(content(text).casefold().split())
