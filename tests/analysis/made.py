"""Folders of runs made by hand, and pairs and stages of a tiny setting."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
VALIDATION = 6
MAX_LENGTH = 58  # some responses are longer


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
    n = n or len(hits)
    write(folder / "metrics.json", {"n": n, "results": {"ecqa": result(sum(hits.values()), n)}})
    write_rows(folder / "predictions.jsonl", [{"id": r, "source": "ecqa", "correct": hit} for r, hit in hits.items()])
    data = [{"file": "test.jsonl", "sha256": recipe.pop("sha256", "a" * 64)}]
    record = {"recipe": recipe, "command": "scripts/evaluate.py e.yaml", "data": data, "started": "2026-01-01"}
    write(folder / "provenance.json", record)


def side(tokens: list[str], rewards: list[float], weights: list[float], differs: list[bool]) -> dict[str, Any]:
    """A response of a tokens file; π of the n-th token is 1/2ⁿ."""
    probabilities = [2.0**-place for place in range(1, len(tokens) + 1)]
    numbers = {"rewards": rewards, "probabilities": probabilities, "weights": weights}
    return {"tokens": tokens, **numbers, "differs": differs}


def message(words: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": words}]


def pair(number: int) -> dict[str, Any]:
    """A bridged pair; an à has two tokens of the tiny tokenizer."""
    total = number + number % 7
    return {
        "id": f"sum-{number}",
        "prompt": [{"role": "user", "content": f"Add {number} and {number % 7}."}],
        "chosen": message(f"The sum, voilà, is {total}."),
        "rejected": message(f"The sum, voilà, is not {number}."),
        "original_chosen": message(f"It makes {total}, I think"),
        "bridged": True,
        "edit_ratio": 0.2,
    }


def call(script: str, *arguments: str) -> None:
    """Run a stage in this process, in the repository's root."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"scripts/{script}.py", *arguments])
        patch.chdir(ROOT)
        runpy.run_path(str(ROOT / f"scripts/{script}.py"), run_name="__main__")
