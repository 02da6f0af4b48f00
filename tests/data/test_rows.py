"""Rows come as they stand in their files, in every format, as often as they are read."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bmc.config import DatasetConfig
from bmc.data.loading import load_mixture
from bmc.errors import Faults

Rows = list[dict[str, Any]]
PAIRS = [{"prompt": f"p{i % 3}", "chosen": f"c{i}", "rejected": f"{'r' * i} é\u2028", "n": i} for i in range(12)]


def write(path: Path, rows: Rows, **how: Any) -> DatasetConfig:
    """As JSON Lines, JSON or Parquet, by the suffix."""
    if path.suffix == ".parquet":
        from datasets import Dataset

        Dataset.from_list(rows).to_parquet(str(path))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return DatasetConfig(id=str(path), **how)


def twice(*configs: DatasetConfig, seed: int = 3) -> Rows:
    """The rows of a mixture, the same each time."""
    mixture = load_mixture(configs, seed)
    rows = list(mixture)
    assert rows == list(mixture)
    assert len(rows) == len(mixture)
    assert {column for row in rows for column in row} <= set(mixture.columns)
    return rows


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize(
    "how", [{}, {"weight": 0.5}, {"num_rows": 5}, {"columns": ["prompt", "n"]}, {"edit_split": "2/3"}, {"split": "x"}]
)
def test_one_file(tmp_path: Path, suffix: str, how: dict[str, Any]) -> None:
    rows = twice(write(tmp_path / f"a{suffix}", PAIRS, **how))
    assert rows[0]["id"].startswith("a-")
    given = {row["n"]: row for row in PAIRS}
    assert all(row.items() <= (given[row["n"]] | {"id": row["id"]}).items() for row in rows)
    assert rows == twice(write(tmp_path / "a.jsonl", PAIRS, **how))


def test_parts_with_ids_without_and_with_the_twice(tmp_path: Path) -> None:
    given = [row | {"id": id} for row, id in zip(PAIRS, ["x", "x", "x-2", "", None, "y"] * 2, strict=True)]
    parts = [write(tmp_path / "a.jsonl", given), write(tmp_path / "b.jsonl", given, weight=0.5, columns=["prompt"])]
    rows = twice(*parts, write(tmp_path / "c.parquet", [{"prompt": "p", "more": [1]}]))
    assert len({row["id"] for row in rows}) == len(rows) == 12 + 6 + 1


def test_a_source_and_a_folder(tmp_path: Path) -> None:
    raw = [{"problem": f"{i} + 1 =", "solution": "s", "answer": str(i + 1)} for i in range(3)]
    write(tmp_path / "test.jsonl", raw)
    rows = twice(DatasetConfig(id=str(tmp_path), source="ecqa", split="test"))
    assert rows[1]["answer"] == "2"


VALUES = st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=5))
ROW = st.fixed_dictionaries({"prompt": st.text(max_size=5)}, optional={"id": VALUES, "chosen": VALUES, "other": VALUES})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=st.lists(ROW, max_size=8),
    second=st.lists(ROW, max_size=8),
    weight=st.sampled_from([0.3, 0.5, 1.0]),
    most=st.sampled_from([None, 1, 3]),
)
def test_any_rows(tmp_path: Path, first: Rows, second: Rows, weight: float, most: int | None) -> None:
    configs = write(tmp_path / "a.jsonl", first, weight=weight), write(tmp_path / "b.jsonl", second, num_rows=most)
    if not round(weight * len(first)) and not second:
        with pytest.raises(Faults, match="no rows are left"):
            load_mixture(configs, 3)
        return
    rows = twice(*configs)
    assert len({row["id"] for row in rows}) == len(rows)
    taken = len(rows) - min(len(second), len(second) if most is None else most)
    assert taken == round(weight * len(first))
    if weight == 1.0:
        assert [{**row, "id": None} for row in rows[:taken]] == [{**row, "id": None} for row in first]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no rows are left"),
        ('{"a": 1}\n{', r"a\.jsonl: row 2: is not JSON"),
        ("[1]", "row 1: is not an object"),
    ],
)
def test_faults_of_a_file(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(Faults, match=told):
        load_mixture([DatasetConfig(id=str(tmp_path / "a.jsonl"))], 0)


def test_other_faults(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_bytes(b'{"a": "\xff"}')
    (tmp_path / "c.parquet").write_bytes(b"PAR1")
    for name, told in (("b.jsonl", "is not UTF-8"), ("c.parquet", "can't be read as Parquet"), ("d.jsonl", "no such")):
        with pytest.raises(Faults, match=told):
            load_mixture([DatasetConfig(id=str(tmp_path / name))], 0)
    with pytest.raises(Faults, match="has no column 'm'"):
        load_mixture([write(tmp_path / "a.jsonl", [{"n": 1}], columns=["m"])], 0)


def test_the_first_rows(tmp_path: Path) -> None:
    stream = load_mixture([write(tmp_path / "a.jsonl", PAIRS)], 0)
    assert [row["n"] for row in stream.first(3)] == [0, 1, 2]
    assert (len(stream.first(3)), len(stream.first(99)), len(stream.first(None))) == (3, 12, 12)


ADD, WEATHER = (
    {"type": "function", "function": {"name": name, "parameters": {"properties": properties, "default": default}}}
    for name, properties, default in [("add", {"a": {"type": "integer"}}, None), ("weather", {"city": {}}, {"n": 1})]
)
ODD = [
    {"prompt": "a", "answer": 5, "tools": [ADD], "meta": {"n": 1}, "big": 2**63, "mixed": "5"},
    {"prompt": "b", "answer": 2.5, "tools": [WEATHER], "meta": {"n": "x", "m": [1, "y"]}, "big": -(2**70), "mixed": 5},
    {"prompt": "c", "answer": "1e3", "meta": None, "mixed": {"deep": [[], {}]}, "text": "2020-01-01"},
]


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_values_stay_as_they_are(tmp_path: Path, suffix: str) -> None:
    """Schemas of different tools, numbers of two kinds, mixed columns, integers beyond Arrow's."""
    assert [{**row, "id": "x"} for row in twice(write(tmp_path / f"a{suffix}", ODD))] == [{**r, "id": "x"} for r in ODD]
    assert [set(row) for row in twice(write(tmp_path / f"a{suffix}", ODD, columns=["prompt", "answer"]))] == [
        {"prompt", "answer", "id"}
    ] * 3


def test_structs_of_parquet_lose_the_keys_of_other_rows(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": "a",
            "tools": [{"name": "add", "properties": {"a": {"type": "integer"}}}],
            "kwargs": {"think": True},
        },
        {"prompt": "b", "tools": [{"name": "weather", "properties": {"city": {"type": "string"}}}], "kwargs": {}},
    ]
    read = twice(write(tmp_path / "a.parquet", rows))
    assert [{**row, "id": "x"} for row in read] == [{**row, "id": "x"} for row in rows]


def test_what_json_has_no_word_for_becomes_text(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {
        "prompt": ["a"], "at": [datetime.datetime(2026, 1, 2, 3, 4)], "price": [Decimal("1.50")], "raw": [b"\xff"],
        "deep": [[{"day": datetime.date(2026, 1, 2)}]],
    }  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    (row,) = load_mixture([DatasetConfig(id=str(tmp_path / "a.parquet"))], 0)
    assert json.loads(json.dumps(row)) == row
    assert {key: row[key] for key in ("at", "price", "raw", "deep")} == {
        "at": "2026-01-02 03:04:00", "price": "1.50", "raw": "/w==", "deep": [{"day": "2026-01-02"}],
    }  # fmt: skip
