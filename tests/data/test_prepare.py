"""Validation by the hash of the prompt, and no leaks from the benchmarks."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from bmc.config import DatasetConfig, DatasetMixture, PrepareConfig
from bmc.data.prepare import prepare
from bmc.errors import UserErrors
from bmc.recipe import parse

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


def test_a_validation_set_of_its_own_takes_nothing_from_training(tmp_path: Path) -> None:
    """Of five validation rows one is a benchmark's and one a training row's; all training rows stay."""
    twice = [ROWS[7], {"problem": "benchmark?", "answer": "1"}]
    files = {
        "train": ROWS[:50],
        "test": [{"problem": "Benchmark?", "answer": "1", "solution": ""}],
        "dev": [*({"problem": f"Dev {i}?", "answer": "1"} for i in range(3)), *twice],
    }
    for name, rows in files.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train, test, dev = (DatasetConfig(id=str(tmp_path / f"{name}.jsonl"), source="gsm8k") for name in files)
    mixture = DatasetMixture(datasets=[train], test_datasets=[test])
    stats = prepare(PrepareConfig(dataset_mixture=mixture, validation_datasets=[dev], output_dir=str(tmp_path / "out")))
    assert {key: stats[key] for key in ("leaked", "held_out", "train", "validation", "test")} == {
        "leaked": 0, "held_out": 0, "train": 50, "validation": 3, "test": 1
    }  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "out/validation.jsonl").read_text().splitlines()]
    assert prompts(rows) == {"Dev 0?", "Dev 1?", "Dev 2?"}


def test_validation_is_asked_for_in_one_way() -> None:
    words = ["--dataset_mixture", "{datasets: [{source: ecqa}]}", "--output_dir", "o"]
    with pytest.raises(UserErrors, match="validation_fraction: there are validation_datasets already") as caught:
        parse([*words, "--validation_fraction", "0.1", "--validation_datasets", "[{source: ecqa}]"], PrepareConfig)
    assert len(caught.value.faults) == 1
    with pytest.raises(
        UserErrors, match=r"validation_datasets\[0\].source: 'ecka' is unknown \(did you mean 'ecqa'\?\)"
    ):
        parse([*words, "--validation_datasets", "[{source: ecka}]"], PrepareConfig)
