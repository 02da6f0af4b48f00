from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from bmc.config import DatasetConfig
from bmc.data.loading import load_mixture
from bmc.data.schema import assistant, chosen_response, edit_split, unbridged
from bmc.errors import Faults

PLAIN = {"id": "1", "prompt": "x", "chosen": "y_w", "rejected": "y_l"}


@pytest.mark.parametrize(
    "row",
    [
        PLAIN,
        {**PLAIN, "chosen": "ỹ_w", "original_chosen": "y_w", "bridged": True, "edit_ratio": 0.5},
        {**PLAIN, "rejected": "ỹ_l", "original_chosen": "y_w", "original_rejected": "y_l", "bridged": True},
        {**PLAIN, "original_chosen": "y_w", "chosen_weights": [1.0], "rejected_weights": [2.0], "bridged": False},
        {**PLAIN, "original_chosen": None, "original_rejected": None},
    ],
)
def test_a_pair_before_it_was_bridged(row: dict[str, Any]) -> None:
    assert unbridged(row) == PLAIN
    assert chosen_response(row) == "y_w"


def test_the_winner_is_the_ground_truth() -> None:
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


def table(rows: list[tuple[str, str, str]]) -> list[dict[str, str]]:
    return [{"id": id, "chosen": chosen, "rejected": rejected} for id, chosen, rejected in rows]


@pytest.mark.parametrize(
    ("part", "places"),
    [
        ("1/1", [0, 1, 2, 3, 4, 5, 6]),
        ("1/2", [1, 4, 6]),
        ("2/2", [0, 2, 3, 5]),
        ("1/3", [4, 6]),
        ("2/3", [1, 3]),
        ("3/3", [0, 2, 5]),
        ("6/7", [0]),
        ("1/8", []),
        ("8/8", [5]),
    ],
)
def test_splits_by_distance_then_id(part: str, places: list[int]) -> None:
    assert edit_split(table(SEVEN), part, "pairs") == places


def test_the_distance_is_that_of_the_original_winner() -> None:
    rows = [
        {"id": "1", "chosen": "aaab", "original_chosen": "bbbb", "rejected": "aaaa"},  # 4, and 1 when bridged
        {"id": "2", "chosen": "aabb", "original_chosen": None, "rejected": "aaaa"},  # 2
    ]
    assert edit_split(rows, "1/2", "pairs") == [1]
    only = [{"id": "1", "original_chosen": "b", "rejected": "a"}]
    assert edit_split(only, "1/1", "pairs") == [0]


def test_messages_have_a_distance() -> None:
    rows = [{"id": str(n), "chosen": assistant("a" * n), "rejected": assistant("b")} for n in (5, 3, 4)]
    assert edit_split(rows, "1/3", "pairs") == [1]


texts = st.text("ab", min_size=1, max_size=6)


@given(st.lists(st.tuples(texts, texts).filter(lambda pair: pair[0] != pair[1]), max_size=15), st.integers(1, 7))
@settings(deadline=None, max_examples=40)
def test_splits_partition_the_rows_by_rising_distance(pairs: list[tuple[str, str]], parts: int) -> None:
    rows = table([(str(number), *pair) for number, pair in enumerate(pairs)])
    splits = [edit_split(rows, f"{part}/{parts}", "pairs") for part in range(1, parts + 1)]
    assert sorted(place for split in splits for place in split) == list(range(len(pairs)))
    assert all(split == sorted(split) for split in splits)
    sizes = [len(split) for split in splits]
    assert max(sizes) - min(sizes) <= 1
    distances = [[Levenshtein.distance(*pairs[place]) for place in split] for split in splits if split]
    assert all(max(nearer) <= min(further) for nearer, further in pairwise(distances))


def write(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_split_comes_before_weight_and_number(tmp_path: Path) -> None:
    rows = [{"id": id, "prompt": "x", "chosen": chosen, "rejected": rejected} for id, chosen, rejected in SEVEN]
    path = write(tmp_path, rows)

    def ids(**settings: Any) -> list[str]:
        return [row["id"] for row in load_mixture([DatasetConfig(id=path, **settings)], 0)]

    assert ids(edit_split="2/2") == ["g", "e", "d", "b"]
    assert len(ids(edit_split="2/2", weight=0.5)) == len(ids(edit_split="2/2", num_rows=2)) == 2
    assert set(ids(edit_split="2/2", weight=0.5)) < {"g", "e", "d", "b"}
    assert ids(edit_split="2/2", columns=["prompt"]) == ["g", "e", "d", "b"]
    with pytest.raises(Faults, match="pairs: no rows are left; look at the files, `edit_split`, `weight`"):
        ids(edit_split="1/8")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (
            {"prompt": "x", "completion": "y"},
            "edit_split: is for pairs with `chosen` and `rejected`; there are prompt,",
        ),
        ({"chosen": "x"}, "edit_split: is for pairs with `chosen` and `rejected`; there are chosen, id"),
        ({"rejected": "x"}, "edit_split: is for pairs"),
        ({"chosen": "x", "rejected": ""}, "row 1: rejected: is empty; write it or remove the row"),
        ({"chosen": "x", "rejected": 3}, "row 1: rejected: must be a string or a list"),
    ],
)
def test_rows_that_are_no_pairs(row: dict[str, Any], fault: str, tmp_path: Path) -> None:
    path = write(tmp_path, [row])
    with pytest.raises(Faults) as raised:
        load_mixture([DatasetConfig(id=path, edit_split="1/2")], 0)
    assert str(raised.value).startswith(f"{path}: {fault}")
    assert len(str(raised.value).splitlines()) == 1
