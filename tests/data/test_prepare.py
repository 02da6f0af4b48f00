"""Validation by the hash of the prompt, and no leaks from the benchmarks."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from bmc.config import DatasetConfig, DatasetMixture, PrepareConfig
from bmc.data.prepare import prepare

ROWS = [{"problem": f"What is {i}?", "solution": f"It is {i}.", "answer": str(i)} for i in range(200)]


def run(folder: Path, rows: list[dict[str, Any]], test: list[dict[str, Any]], share: float) -> dict[str, list[Any]]:
    """The three parts that `prepare` makes of these rows."""
    folder.mkdir()
    for name, part in (("train", rows), ("test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    mixture = DatasetMixture(
        datasets=[DatasetConfig(id=str(folder / "train.jsonl"), source="metamathqa")],
        test_datasets=[DatasetConfig(id=str(folder / "test.jsonl"), source="gsm8k")] if test else [],
    )
    prepare(PrepareConfig(dataset_mixture=mixture, validation_fraction=share, output_dir=str(folder / "out")))
    names = ("train", "validation", "test")
    return {name: [json.loads(s) for s in (folder / f"out/{name}.jsonl").read_text().splitlines()] for name in names}


def prompts(rows: list[Any]) -> set[str]:
    return {row["prompt"][0]["content"] for row in rows}


def test_validation_moves_neither_with_the_order_nor_with_new_rows(tmp_path: Path) -> None:
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    first = run(tmp_path / "a", ROWS, [], 0.2)
    second = run(tmp_path / "b", shuffled, [], 0.2)
    fewer = run(tmp_path / "c", ROWS[:100], [], 0.2)
    assert prompts(first["validation"]) == prompts(second["validation"])
    assert prompts(fewer["validation"]) == prompts(first["validation"]) & {row["problem"] for row in ROWS[:100]}
    assert not prompts(first["validation"]) & prompts(first["train"])
    assert 20 <= len(first["validation"]) <= 60  # 40 expected of 200


def test_rows_of_one_prompt_stay_together(tmp_path: Path) -> None:
    other_solutions = [row | {"solution": f"Well: {row['answer']}."} for row in ROWS]
    parts = run(tmp_path / "a", ROWS + other_solutions, [], 0.5)
    assert not prompts(parts["validation"]) & prompts(parts["train"])
    assert len(parts["validation"]) == 2 * len(prompts(parts["validation"]))


def test_benchmark_prompts_are_not_trained_on(tmp_path: Path) -> None:
    test = [
        {"problem": "  what is 7? ", "solution": "", "answer": "7"},
        {"problem": "New?", "answer": "1", "solution": ""},
    ]
    parts = run(tmp_path / "a", ROWS, test, 0.0)
    assert len(parts["train"]) == 199
    assert "What is 7?" not in prompts(parts["train"])
    assert len(parts["test"]) == 2
    assert json.loads((tmp_path / "a/out/stats.json").read_text())["leaked"] == 1
