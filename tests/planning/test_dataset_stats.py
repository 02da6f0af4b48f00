"""Rows and tokens: counted where the data are, by the recipes that lead there where they aren't."""

import json
from pathlib import Path
from typing import Any

import pytest

from bmc.config import DatasetConfig
from bmc.planning.dataset_stats import DatasetStats, dataset_stats

ROOT = Path(__file__).parents[2]


class Words:
    def encode(self, text: str) -> list[str]:
        return text.split()


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def test_pairs_are_counted_in_the_file(tmp_path: Path) -> None:
    rows = [pair("a b c", "one two three", "one two four five six"), pair("a", "x y", "z")]
    file = write(tmp_path / "train.jsonl", *rows)
    # "one two three" and "one two four …" part at the second letter of "three" and "four": "one two " is common
    expected = DatasetStats(2, prompt=2.0, response=(4 + 1.5) / 2, common=1.0, counted=True)
    assert dataset_stats([DatasetConfig(id=file)], Words()) == expected
    assert dataset_stats([DatasetConfig(id=str(tmp_path))], Words()) == expected
    (tmp_path / "train.jsonl").rename(tmp_path / "pairs.jsonl")
    assert dataset_stats([DatasetConfig(id=str(tmp_path / "pairs.jsonl"), num_rows=1)], Words()).rows == 1


def test_messages_completions_and_characters(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c d e"}]
    file = write(tmp_path / "a.jsonl", {"messages": chat})
    assert dataset_stats([DatasetConfig(id=file)], Words()) == DatasetStats(1, 2.0, 3.0, 0.0, counted=True)
    file = write(tmp_path / "b.jsonl", {"prompt": "12345678", "completion": "1234"})
    assert dataset_stats([DatasetConfig(id=file)]) == DatasetStats(1, 2.0, 1.0, 0.0, counted=True)


def test_other_formats_and_renamed_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,completion\n12345678,1234\n")
    renamed = DatasetConfig(id=str(tmp_path / "a.csv"), columns={"prompt": "question", "completion": "completion"})
    assert dataset_stats([renamed]) == DatasetStats(1, 2.0, 1.0, 0.0, counted=True)


def test_lines_beyond_the_sample_are_counted(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", *[{"prompt": "a", "completion": "b"}] * 1234)
    assert dataset_stats([DatasetConfig(id=file)]).rows == 1234


def test_tokens_of_a_row() -> None:
    """Prompt 10, responses 20, of which 5 are common: 60 as two sequences, 45 shared; cut at 25 they are 50 and 35."""
    load = DatasetStats(7, prompt=10, response=20, common=5)
    assert load.tokens(pairs=True, shared=False, max_length=None) == 60
    assert load.tokens(pairs=True, shared=True, max_length=None) == 45
    assert load.tokens(pairs=True, shared=True, max_length=25) == 35
    assert load.tokens(pairs=False, shared=False, max_length=25) == 25


def test_without_data_the_papers_counts_go_through_the_recipes(
    subtests: pytest.Subtests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    for data, rows in [
        # Table 6: ECQA 7,598 + QASC 8,134, none of which are held out, and bridging drops 31 % of QA's pairs
        ({"id": "outputs/llama2-7b/qa/prepare/train.jsonl"}, 15_732),
        ({"id": "outputs/llama2-7b/qa/prepare/validation.jsonl"}, 1_090 + 500),
        ({"id": "outputs/llama2-7b/qa/prepare/test.jsonl"}, 2_194 + 926 + 500 + 687),
        ({"id": "outputs/llama2-7b/qa/bridge/train.jsonl"}, round(15_732 * 0.69)),
        # MetaMathQA 40,000; bridging drops 43 % of math's
        ({"id": "outputs/llama2-7b/math/prepare/test.jsonl"}, 1_319 + 5_000 + 2_065 + 1_000),
        ({"id": "outputs/llama2-7b/math/prepare/validation.jsonl"}, 700 + 1_000),
        ({"id": "outputs/llama2-7b/math/bridge/train.jsonl"}, round(40_000 * 0.57)),
        # UltraFeedback 61,135, no filter
        ({"id": "outputs/llama3-8b/ultrafeedback/bridge/train.jsonl"}, 61_135),
        ({"id": "outputs/llama3-8b/ultrafeedback/bridge_held_out/train.jsonl"}, 2_000),
        ({"id": "outputs/llama3-8b/ultrafeedback/prepare/test.jsonl"}, 805 + 500),
        ({"id": "outputs/llama3-8b/ultrafeedback/bridge/train.jsonl", "edit_split": "2/6"}, 61_135 // 6),
        ({"source": "ecqa", "weight": 0.5}, 3_799),
        ({"id": "HuggingFaceH4/ultrafeedback_binarized", "split": "train_prefs"}, 61_135),
    ]:
        with subtests.test(data=data, rows=rows):
            load = dataset_stats([DatasetConfig(**data)])
            assert load is not None
            assert abs(load.rows - rows) <= 1
            assert not load.counted


def test_a_generator_is_asked() -> None:
    task = {"task": "basic_arithmetic", "min_terms": 2, "max_terms": 2, "operators": ["+"], "seed": 1}
    load = dataset_stats([DatasetConfig(source="reasoning_gym", config=task, num_rows=300)])
    assert (load.rows, load.counted, load.task) == (300, True, None)
    assert 3 < load.prompt < 30


def test_one_unknown_part_makes_it_unknown() -> None:
    assert dataset_stats([DatasetConfig(source="ecqa"), DatasetConfig(id="nobody/knows")]) is None
    assert dataset_stats([]) is None
