"""Folders of runs, made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_rows(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def result(correct: int, n: int, interval: tuple[float, float] = (0.2, 0.8)) -> dict[str, Any]:
    return {"n": n, "correct": correct, "accuracy": correct / n, "interval": list(interval)}


def evaluated(folder: Path, hits: dict[str, bool], n: int | None = None, **recipe: Any) -> None:
    """An evaluation on ecqa, with the record of its recipe; of n rows where predictions are to be missing."""
    write(
        folder / "metrics.json", {"n": n or len(hits), "results": {"ecqa": result(sum(hits.values()), n or len(hits))}}
    )
    write_rows(
        folder / "predictions.jsonl", [{"id": row, "source": "ecqa", "correct": hit} for row, hit in hits.items()]
    )
    data = [{"file": "test.jsonl", "sha256": recipe.pop("sha256", "a" * 64)}]
    record = {"recipe": recipe, "command": "scripts/evaluate.py e.yaml", "data": data, "started": "2026-01-01"}
    write(folder / "provenance.json", record)


def side(tokens: list[str], rewards: list[float], weights: list[float], differs: list[bool]) -> dict[str, Any]:
    """A response of a tokens file; π of the n-th token is 1/2ⁿ."""
    probabilities = [2.0**-place for place in range(1, len(tokens) + 1)]
    return {
        "tokens": tokens,
        "rewards": rewards,
        "probabilities": probabilities,
        "weights": weights,
        "differs": differs,
    }
