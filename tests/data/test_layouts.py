"""Files as people have them: CSV, compressed, in folders as the Hub lays them out, under other names of columns."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from bmc.config import DatasetConfig
from bmc.data.loading import load_mixture
from bmc.data.schema import PAIR, check_rows
from bmc.errors import Faults

ROWS = [
    {"prompt": "Why, then?", "chosen": 'He said "no",\nand left.', "rejected": "007"},
    {"prompt": "q2", "chosen": "true", "rejected": "2020-01-01"},
]


def rows(**config: Any) -> list[dict[str, Any]]:
    found = load_mixture([DatasetConfig(**config)], 0)
    return [{key: value for key, value in row.items() if key != "id"} for row in found]


def lines(path: Path, given: list[dict[str, Any]], opener: Any = open) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with opener(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in given)
    return str(path)


def table(path: Path, given: list[dict[str, Any]], opener: Any = open) -> str:
    with opener(path, "wt", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(given[0]))
        writer.writeheader()
        writer.writerows(given)
    return str(path)


def parquet(path: Path, given: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(given).to_parquet(str(path))
    return str(path)


def test_csv_holds_texts_alone(tmp_path: Path) -> None:
    assert rows(id=table(tmp_path / "a.csv", ROWS)) == ROWS
    assert rows(id=table(tmp_path / "a.csv.gz", ROWS, gzip.open)) == ROWS
    (tmp_path / "b.csv").write_text("prompt,answer\r\nq,\r\nr,7\r\n")
    assert rows(id=str(tmp_path / "b.csv")) == [{"prompt": "q"}, {"prompt": "r", "answer": "7"}]
    (tmp_path / "c.csv").write_text("prompt,answer\nq,a, b\n")
    with pytest.raises(Faults, match=r"c.csv: row 1: has more cells than the first line has names; put texts with"):
        rows(id=str(tmp_path / "c.csv"))
    (tmp_path / "d.csv").write_text("prompt,answer,prompt,,\nq,a,b,,\n")
    with pytest.raises(Faults, match=r"d.csv: has two columns 'prompt'; give each its own name in the first line"):
        rows(id=str(tmp_path / "d.csv"))


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[10:], lambda data: data[:10] + b"!" * 20])
def test_a_damaged_compressed_file_is_one_fault(suffix: str, damage: Any, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}.gz"
    path.write_bytes(damage(gzip.compress(json.dumps(ROWS).encode() * 9)))
    with pytest.raises(Faults, match=rf"a.{suffix}.gz: can't be read \((?!None)"):
        rows(id=str(path))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz"])
def test_compressed_json(name: str, tmp_path: Path) -> None:
    assert rows(id=lines(tmp_path / name, ROWS, gzip.open)) == ROWS


def test_a_list_that_is_compressed(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(json.dumps(ROWS).encode()))
    assert rows(id=str(path)) == ROWS


def test_folders_as_the_hub_lays_them_out(tmp_path: Path) -> None:
    one = tmp_path / "one"
    parquet(one / "data/train-00000-of-00002.parquet", ROWS[:1])
    parquet(one / "data/train-00001-of-00002.parquet", ROWS[1:])
    parquet(one / "data/test_prefs-00000-of-00001-0123456789abcdef.parquet", ROWS[1:])
    assert rows(id=str(one)) == ROWS
    assert rows(id=str(one), split="test_prefs") == ROWS[1:]
    with pytest.raises(Faults, match=r"one: has no split 'test'; there are test_prefs, train"):
        rows(id=str(one), split="test")
    two = tmp_path / "two"
    parquet(two / "default/train/0000.parquet", ROWS[:1])
    parquet(two / "default/train/0001.parquet", ROWS[1:])
    lines(two / "other/train.jsonl", ROWS[1:])
    assert rows(id=str(two), config="default") == ROWS
    assert rows(id=str(two), config="other") == ROWS[1:]


def test_a_split_in_two_forms_is_read_once(tmp_path: Path) -> None:
    lines(tmp_path / "train.jsonl", ROWS[:1])
    parquet(tmp_path / "train.parquet", ROWS)
    assert rows(id=str(tmp_path)) == ROWS[:1]


def test_what_save_to_disk_wrote(tmp_path: Path) -> None:
    DatasetDict({"train": Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "d"))
    Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "e"))
    assert rows(id=str(tmp_path / "d")) == rows(id=str(tmp_path / "e")) == ROWS
    with pytest.raises(Faults, match=r"d: has no split 'test'; there are train"):
        rows(id=str(tmp_path / "d"), split="test")


def test_columns_by_other_names(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [{"id": "7", "question": "q", "good": "a", "bad": "b", "more": 1}])
    mapping = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    assert rows(id=path, columns=mapping) == [{"prompt": "q", "chosen": "a", "rejected": "b"}]
    (row,) = load_mixture([DatasetConfig(id=path, columns=mapping)], 0)
    assert row["id"] == "7"
    with pytest.raises(Faults, match=r"has no column 'god' \(did you mean 'good'\?\)"):
        rows(id=path, columns={**mapping, "chosen": "god"})


@pytest.mark.parametrize(
    ("names", "mapping"),
    [
        (
            ["system", "question", "chosen", "rejected"],
            "{prompt: question, chosen: chosen, rejected: rejected}",
        ),  # Orca
        (
            ["history", "human_ref_A", "human_ref_B"],
            "{prompt: history, chosen: human_ref_A, rejected: human_ref_B}; that is right only for rows in which A",
        ),
        (
            ["prompt", "response", "helpfulness"],
            "{prompt: prompt, chosen: …, rejected: …}; for … write one of response, ",
        ),
        (["prompt", "answers"], "{prompt: prompt, chosen: …, rejected: …}; for … write one of answers"),  # Nectar
    ],
)
def test_one_fault_shows_the_mapping_to_write(names: list[str], mapping: str) -> None:
    given = [{name: f"{name} {number}" for name in names} for number in range(50)]
    with pytest.raises(Faults) as caught:
        check_rows(given, PAIR, "rows.jsonl")
    (fault,) = caught.value.faults
    assert fault.what.startswith("has no column ")
    assert f"write in dataset_mixture.datasets what they are called: columns: {mapping}" in fault.what
