"""Mixtures: ids, draws, columns, splits by edit distance; and what a trainer gets of the rows."""

import datetime
import json
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from hub_rows import HUB
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from rapidfuzz.distance import Levenshtein
from reference_tokens import trl_prepared
from test_masks import TRL, byte_tokenizer

from bmc.config import DatasetConfig, DatasetMixture
from bmc.data import loading
from bmc.data.loading import RowStream, load_mixture, load_split, to_dataset, unique_ids
from bmc.data.schema import PAIR, assistant, chosen_response, edit_split, unbridged, user
from bmc.data.tokenization import encode_prompt
from bmc.errors import UserErrors

Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def write(path: Path, rows: Rows, **config: Any) -> DatasetConfig:
    if path.suffix == ".parquet":
        datasets.Dataset.from_list(rows).to_parquet(str(path))
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return DatasetConfig(id=str(path), **config)


def numbered(folder: Path, name: str = "rows", count: int = 100, **config: Any) -> DatasetConfig:
    rows = [{"prompt": f"{name} {i}", "answer": str(i)} for i in range(count)]
    return write(folder / f"{name}.jsonl", rows, **config)


def column(rows: Any, name: str) -> list[Any]:
    return [row.get(name) for row in rows]


def load(*configs: DatasetConfig, seed: int = 3) -> Rows:
    """Load a mixture, and see that it gives the same rows each time."""
    mixture = load_mixture(configs, seed)
    rows = list(mixture)
    assert rows == list(mixture) == [mixture[place] for place in range(len(mixture))]
    assert {column for row in rows for column in row} <= set(mixture.columns)
    return rows


def faults(*configs: DatasetConfig) -> str:
    with pytest.raises(UserErrors) as caught:
        load_mixture(configs, 0)
    return str(caught.value)


# Ids


def test_ids_depend_on_texts_only_and_are_unique(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "completion": f"c{i}", "note": i} for i in range(20)]
    (tmp_path / "other").mkdir()
    first = load(write(tmp_path / "rows.jsonl", rows))
    backwards = [{**row, "note": 99} for row in reversed(rows)]
    second = load(write(tmp_path / "other/rows.jsonl", backwards, columns=["prompt"], weight=0.5))
    ids = dict(zip(column(first, "prompt"), column(first, "id"), strict=True))
    assert len(set(ids.values())) == 20
    assert all(id.startswith("rows-") for id in ids.values())
    assert all(row == {"prompt": row["prompt"], "id": ids[row["prompt"]]} for row in second)
    equal = write(tmp_path / "equal.jsonl", [{"prompt": text} for text in "aaba"])
    once = column(load(equal), "id")
    assert once == [once[0], f"{once[0]}-2", once[2], f"{once[0]}-3"]
    twice = column(load(equal, equal), "id")
    assert twice[:4] == once
    assert len(set(twice)) == 8


def test_own_ids_are_kept(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "id": 7, "key": "x"}, {"prompt": "b", "id": None, "key": "y"}]
    own, made = column(load(write(tmp_path / "rows.jsonl", rows, columns=["prompt"])), "id")
    assert own == "7"
    assert made.startswith("rows-")
    mapped = write(tmp_path / "rows.jsonl", rows, columns={"id": "key", "prompt": "prompt"})
    assert load(mapped) == [{"id": "x", "prompt": "a"}, {"id": "y", "prompt": "b"}]


@given(st.lists(st.sampled_from(["a", "a-2", "a-3", "b", "a-2-2"]), max_size=8))
def test_unique_ids(ids: list[str]) -> None:
    unique = unique_ids(ids)
    assert len(set(unique)) == len(ids)
    assert set(ids) <= set(unique)
    assert all(new == old or new.startswith(f"{old}-") for new, old in zip(unique, ids, strict=True))


# Values


ADD, WEATHER = (
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {key: kind}}}}
    for name, key, kind in [("add", "a", {"type": "integer"}), ("weather", "city", {"type": "string"})]
)
ODD: Rows = [
    {"prompt": "a", "answer": 5, "tools": [ADD], "meta": {"n": 1, "default": None}, "big": 2**63, "mixed": "5"},
    {"prompt": "b", "answer": 2.5, "tools": [WEATHER], "meta": {"n": "x", "m": [1]}, "big": -(2**70), "mixed": 5},
    {"prompt": "c\u2028é", "answer": "1e3", "meta": None, "mixed": {"deep": [[], {}]}, "text": "2020-01-01"},
]


def test_values_stay_as_they_are(tmp_path: Path) -> None:
    """Schemas of different tools, numbers of two kinds, mixed columns, integers beyond Arrow's."""
    assert [{**row, "id": ""} for row in load(write(tmp_path / "a.jsonl", ODD))] == [{**row, "id": ""} for row in ODD]
    structs = [{"prompt": row["prompt"], "tools": row["tools"]} for row in ODD[:2]]
    read = load(write(tmp_path / "a.parquet", structs))  # Arrow gives each struct the keys of the others
    assert [{**row, "id": ""} for row in read] == [{**row, "id": ""} for row in structs]
    columns = {
        "prompt": ["a"], "at": [datetime.datetime(2026, 1, 2, 3, 4)], "price": [Decimal("1.50")], "raw": [b"\xff"],
        "deep": [[{"day": datetime.date(2026, 1, 2)}]],
    }  # fmt: skip
    parquet.write_table(pyarrow.table(columns), tmp_path / "b.parquet")
    (row,) = load(DatasetConfig(id=f"{tmp_path}/b.parquet"))
    assert {key: row[key] for key in ("at", "price", "raw", "deep")} == {
        "at": "2026-01-02 03:04:00", "price": "1.50", "raw": "/w==", "deep": [{"day": "2026-01-02"}],
    }  # fmt: skip


def test_the_prompt_is_split_from_the_responses_once_loaded(tmp_path: Path) -> None:
    """Original responses of bridged pairs, too, and columns by other names."""
    raw, row = HUB["ultrafeedback"]
    (found,) = load(write(tmp_path / "a.jsonl", [raw], source="ultrafeedback"))
    assert {**found, "id": ""} == {**row, "id": ""}
    turns = user("q")
    texts = {side: [*turns, *assistant(side)] for side in ("good", "bad", "before")}
    names = {"chosen": "good", "rejected": "bad", "original_chosen": "before"}
    (found,) = load(write(tmp_path / "b.jsonl", [texts], columns=names))
    assert {**found, "id": ""} == {
        "prompt": turns, **{ours: assistant(side) for ours, side in names.items()}, "id": ""
    }  # fmt: skip
    assert faults(write(tmp_path / "b.jsonl", [texts], columns={"chosen": "god"})) == (
        f"{tmp_path}/b.jsonl: has no column 'god' (did you mean 'good'?); there are good, bad, before, id"
    )


# Draws


def test_weight_and_num_rows(tmp_path: Path) -> None:
    def drawn(seed: int, **options: Any) -> list[int]:
        return [int(row["answer"]) for row in load(numbered(tmp_path, **options), seed=seed)]

    sizes = {(0.3, None): 30, (0.3, 7): 7, (0.3, 70): 30, (1.0, 7): 7, (1.0, None): 100}
    assert {key: len(drawn(1, weight=key[0], num_rows=key[1])) for key in sizes} == sizes
    assert drawn(1) == list(range(100))
    assert drawn(1, weight=0.3) == sorted(drawn(1, weight=0.3)) != drawn(2, weight=0.3)
    assert set(drawn(1, num_rows=7)) < set(drawn(1, weight=0.3)) < set(drawn(1, weight=0.6))


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
        assert "no rows are left" in faults(*configs)
        return
    rows = load(*configs)
    assert len({row["id"] for row in rows}) == len(rows)
    taken = len(rows) - min(len(second), len(second) if most is None else most)
    assert taken == round(weight * len(first))
    if weight == 1.0:
        assert [{**row, "id": None} for row in rows[:taken]] == [{**row, "id": None} for row in first]


def test_faults_of_all_parts_at_once(tmp_path: Path) -> None:
    one, empty = numbered(tmp_path, "one", 2), write(tmp_path / "empty.jsonl", [])
    assert faults(empty, numbered(tmp_path, "one", 2, weight=0.0)) == (
        "empty, one: no rows are left; look at the files, `edit_split`, `weight` and `num_rows`"
    )
    both = faults(DatasetConfig(id="x.jsonl"), one, DatasetConfig(id="y.jsonl"))
    assert [line.split(":")[0] for line in both.split("\n")] == ["x.jsonl", "y.jsonl"]
    assert len(load(empty, one)) == 2


# Training and evaluation rows


def test_split_order(tmp_path: Path) -> None:
    one, two = numbered(tmp_path, "one", 50), numbered(tmp_path, "two", 50)
    train, evaluation = load_split(DatasetMixture(datasets=[one]))
    assert (evaluation, column(train, "answer")) == (None, [str(i) for i in range(50)])
    orders = [column(load_split(DatasetMixture(datasets=[one, two], seed=seed))[0], "prompt") for seed in (3, 3, 4)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    assert {prompt[:3] for prompt in orders[0][:20]} == {"one", "two"}
    weighted, _ = load_split(DatasetMixture(datasets=[numbered(tmp_path, "one", 50, weight=0.5)]))
    assert column(weighted, "answer") != sorted(column(weighted, "answer"), key=int)
    parts = [numbered(tmp_path, "two", 4, weight=0.5), numbered(tmp_path, "one", 5, num_rows=2)]
    _, evaluation = load_split(DatasetMixture(datasets=[one], test_datasets=parts))
    assert column(evaluation, "prompt")[:4] == [f"two {i}" for i in range(4)]  # neither shuffled nor weighted
    assert evaluation is not None
    assert len(evaluation) == 6


def test_held_out_rows(tmp_path: Path) -> None:
    one = numbered(tmp_path, "one", 50)
    for size, rows in ((7, 7), (0.2, 10), (0.001, 1), (1, 1)):
        splits = [load_split(DatasetMixture(datasets=[one], test_split_size=size, seed=5)) for _ in range(2)]
        ids = [[column(rows, "id") for rows in split] for split in splits]
        assert ids[0] == ids[1]
        assert [len(part) for part in ids[0]] == [50 - rows, rows]
        assert not set(ids[0][0]) & set(ids[0][1])
    for size, test, message in (
        (1.5, [], "test_split_size: is 1.5; give a whole number of rows, or a share below 1"),
        (50, [], "test_split_size: would hold out 50 of 50 rows and leave none to train on; make it smaller"),
        (0.5, [one], "test_split_size: there are test_datasets already; give one of the two"),
    ):
        with pytest.raises(UserErrors, match=message):
            load_split(DatasetMixture(datasets=[one], test_datasets=test, test_split_size=size))


# Pairs


PLAIN = {"id": "1", "prompt": "x", "chosen": "y_w", "rejected": "y_l"}


def test_a_pair_before_it_was_bridged() -> None:
    for changes in (
        {},
        {"chosen": "ỹ_w", "original_chosen": "y_w", "bridged": True, "edit_ratio": 0.5},
        {"rejected": "ỹ_l", "original_chosen": "y_w", "original_rejected": "y_l", "bridged": True},
        {"original_chosen": "y_w", "chosen_weights": [1.0], "rejected_weights": [2.0], "bridged": False},
        {"original_chosen": None, "original_rejected": None},
    ):
        assert unbridged(PLAIN | changes) == PLAIN
        assert chosen_response(PLAIN | changes) == "y_w"
    assert chosen_response({"completion": "c", "chosen": "y"}) == "c"
    assert chosen_response({"completion": None, "chosen": "y"}) == "y"
    assert chosen_response({"prompt": "x"}) is None


SEVEN = [
    ("g", "aaaa", "abbb"),  # 3
    ("f", "aaaa", "abaa"),  # 1
    ("e", "aaaa", "aabb"),  # 2
    ("d", "aaaa", "aa"),  # 2
    ("c", "aaaa", "aaaaa"),  # 1
    ("b", "aaaa", "bbbb"),  # 4
    ("a", "aaaa", "aaba"),  # 1
]  # by distance, then id: a c f | d e | g b, in places 6 4 1 | 3 2 | 0 5


def pairs(rows: list[tuple[str, str, str]]) -> Rows:
    return [{"id": id, "prompt": "x", "chosen": chosen, "rejected": rejected} for id, chosen, rejected in rows]


def test_splits_by_distance_then_id() -> None:
    parts = {
        "1/1": [0, 1, 2, 3, 4, 5, 6], "1/2": [1, 4, 6], "2/2": [0, 2, 3, 5], "1/3": [4, 6], "2/3": [1, 3],
        "3/3": [0, 2, 5], "6/7": [0], "1/8": [], "8/8": [5],
    }  # fmt: skip
    assert {part: edit_split(pairs(SEVEN), part, "pairs") for part in parts} == parts
    rows: Rows = [
        {"id": "1", "chosen": "aaab", "original_chosen": "bbbb", "rejected": "aaaa"},  # 4, and 1 when bridged
        {"id": "2", "chosen": "aabb", "original_chosen": None, "rejected": "aaaa"},  # 2
    ]
    assert edit_split(rows, "1/2", "pairs") == [1]
    assert edit_split([{"id": "1", "original_chosen": "b", "rejected": "a"}], "1/1", "pairs") == [0]
    rows = [{"id": str(n), "chosen": assistant("a" * n), "rejected": assistant("b")} for n in (5, 3, 4)]
    assert edit_split(rows, "1/3", "pairs") == [1]


texts = st.text("ab", min_size=1, max_size=6)


@given(st.lists(st.tuples(texts, texts).filter(lambda pair: pair[0] != pair[1]), max_size=15), st.integers(1, 7))
@settings(deadline=None, max_examples=40)
def test_splits_partition_the_rows_by_rising_distance(given: list[tuple[str, str]], parts: int) -> None:
    rows = pairs([(str(number), *pair) for number, pair in enumerate(given)])
    splits = [edit_split(rows, f"{part}/{parts}", "pairs") for part in range(1, parts + 1)]
    assert sorted(place for split in splits for place in split) == list(range(len(given)))
    assert all(split == sorted(split) for split in splits)
    assert max(map(len, splits)) - min(map(len, splits)) <= 1
    distances = [[Levenshtein.distance(*given[place]) for place in split] for split in splits if split]
    assert all(max(nearer) <= min(further) for nearer, further in pairwise(distances))


def test_a_split_comes_before_weight_and_number(tmp_path: Path) -> None:
    def ids(**config: Any) -> list[str]:
        return column(load(write(tmp_path / "pairs.jsonl", pairs(SEVEN), **config)), "id")

    assert ids(edit_split="2/2") == ids(edit_split="2/2", columns=["prompt"]) == ["g", "e", "d", "b"]
    assert len(ids(edit_split="2/2", weight=0.5)) == len(ids(edit_split="2/2", num_rows=2)) == 2
    assert set(ids(edit_split="2/2", weight=0.5)) < {"g", "e", "d", "b"}
    wrong: dict[str, str] = {}
    for row, fault in (
        (
            {"prompt": "x", "completion": "y"},
            "edit_split: is for pairs with `chosen` and `rejected`; there are prompt,",
        ),
        ({"chosen": "x"}, "edit_split: is for pairs with `chosen` and `rejected`; there are chosen, id"),
        ({"rejected": "x"}, "edit_split: is for pairs"),
        ({"chosen": "x", "rejected": ""}, "row 1: rejected: is empty; write it or remove the row"),
        ({"chosen": "x", "rejected": 3}, "row 1: rejected: must be a string or a list"),
    ):
        said = faults(write(tmp_path / "a.jsonl", [row], edit_split="1/2"))
        if not said.startswith(f"{tmp_path}/a.jsonl: {fault}") or "\n" in said:
            wrong[str(row)] = said
    assert not wrong


# What a trainer gets, with TRL's own preparation as the oracle


IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
BASE: dict[str, Any] = {"prompt": user("q"), "chosen": assistant("w"), "rejected": assistant("l"), "meta": {"x": 1}}
TOOLED = [
    BASE | {"tools": [ADD], "id": "0"},
    BASE | {"tools": [WEATHER], "chat_template_kwargs": {"enable_thinking": False}, "id": "1", "meta": "y"},
    BASE | {"tools": None, "chat_template_kwargs": None, "id": "2"},
    BASE | {"tools": '[{"type": "function", "function": {"name": "text"}}]', "id": "3"},
    BASE | {"tools": [], "id": "4", "meta": 2**80},
    BASE | {"id": "5", "chosen": [{"role": "assistant", "content": "", "tool_calls": [{"function": {
        "name": "add", "arguments": {"a": 1}}}]}]},
    BASE | {"id": "6", "chosen": [{"role": "assistant", "content": "", "tool_calls": [{"function": {
        "name": "weather", "arguments": {"city": "Bonn", "days": [1, "two"]}}}]}]},
]  # fmt: skip


def test_each_row_is_rendered_with_its_own_tools_and_arguments() -> None:
    tokenizer = byte_tokenizer((TRL / "qwen3.jinja").read_text())
    together = to_dataset(RowStream(TOOLED), PAIR)
    assert "meta" not in together.column_names
    prepared = trl_prepared(tokenizer, together)
    for row, ids, raw in zip(together, prepared, TOOLED, strict=True):
        (alone,) = trl_prepared(tokenizer, to_dataset(RowStream([raw]), PAIR))
        assert [ids[key] for key in IDS] == [alone[key] for key in IDS]
        assert encode_prompt(tokenizer, raw) == encode_prompt(tokenizer, row)
        text = tokenizer.decode(ids["prompt_ids"])
        assert ("null" not in text, "weather" in text) == (True, raw["id"] == "1")
    texts = [tokenizer.decode(encode_prompt(tokenizer, row)) for row in TOOLED]
    assert ["<think>\n\n</think>" in text for text in texts] == [number == 1 for number in range(7)]
    assert ["<tools>" in text for text in texts] == [True, True, False, True, False, False, False]
    assert '{"city": "Bonn", "days": [1, "two"]}' in tokenizer.decode(prepared[6]["chosen_ids"])


def test_the_same_rows_are_the_same_table() -> None:
    first, other = to_dataset(RowStream(TOOLED), PAIR), to_dataset(RowStream(TOOLED[:6]), PAIR)
    again = to_dataset(RowStream([{**row, "meta": 0} for row in TOOLED]), PAIR)
    assert again._fingerprint == first._fingerprint != other._fingerprint
    assert first.cache_files == again.cache_files
    assert to_dataset(RowStream(TOOLED).select([5, 2, 3]), PAIR)["id"][:] == ["5", "2", "3"]
    assert to_dataset(RowStream([BASE | {"tools": [], "chat_template_kwargs": {}, "id": "0"}]), PAIR).column_names == [
        *PAIR, "id",
    ]  # fmt: skip
    row = {"prompt": "5", "chosen": "1e3", "rejected": "null", "chosen_weights": [1.0, 2], "rejected_weights": [1.5]}
    assert list(to_dataset(RowStream([row]), PAIR)) == [row]


def test_a_stream_is_cut_ordered_and_mapped(monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests) -> None:
    for memory in (2**20, 100):  # bytes; beyond them rows are in a file
        with subtests.test(memory=memory):
            monkeypatch.setattr(loading, "MEMORY", memory)
            check_stream()


def check_stream() -> None:
    stream = RowStream({"n": n} for n in range(12))
    assert (len(stream.first(3)), len(stream.first(99)), len(stream.first(None))) == (3, 12, 12)
    twice = stream.select([5, 1, 3]).map(lambda row: {"n": 2 * row["n"]}).map(lambda row: {"n": row["n"] + 1})
    assert column(twice, "n") == [11, 3, 7]
    assert column(twice.select([2, 0]), "n") == [7, 11]
    assert column(twice.in_file_order(), "n") == [2 * n + 1 for n in range(12)]
