"""What of a tokens file goes into the page, and how small."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from made import side, write_rows

from bmc.analysis.page import tokens
from bmc.analysis.page.tokens import chosen_runs, robust_maximum, viewer


def block(markup: str, name: str) -> list[Any]:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', markup, re.DOTALL)
    assert found
    return [json.loads(line) for line in found[1].split("\n")]


def row(name: str, words: list[str], rewards: list[float], weight: float) -> dict[str, Any]:
    chosen = side(words, rewards, [weight] * len(words), [True, False][: len(words)])
    return {"id": name, "prompt": "x", "chosen": chosen, "rejected": side(["c"], [-0.00004], [1.0], [False])}


def test_pairs_stand_once_and_numbers_for_each_run(tmp_path: Path) -> None:
    write_rows(tmp_path / "dpo.jsonl", [row("1", ["a", " b"], [0.12345, -0.5], 1.0), row("2", ["a"], [0.1], 1.0)])
    write_rows(tmp_path / "dpo_bmc.jsonl", [row("1", ["a", " b"], [0.2, -1.0], 2.5)])
    notices: list[str] = []
    markup = viewer({name: tmp_path / f"{name}.jsonl" for name in ("dpo", "dpo_bmc")}, notices)
    assert notices == []
    first, second = block(markup, "pairs")
    assert first == {
        "id": "1",
        "prompt": "x",
        "chosen": {"tokens": ["a", " b"], "differs": "10"},
        "rejected": {"tokens": ["c"], "differs": "0"},
    }
    assert second["id"] == "2"
    # ten-thousandths; without weights where every λ is 1; the sum is −0.37655 before rounding
    rejected = {"rewards": [0], "probabilities": [5000], "reward": 0}
    numbers = {"rewards": [1234, -5000], "probabilities": [5000, 2500], "reward": -3766}
    assert block(markup, "run-0")[0] == {"chosen": numbers, "rejected": rejected}
    weighed = {"rewards": [2000, -10000], "probabilities": [5000, 2500], "weights": [25000, 25000], "reward": -8000}
    assert block(markup, "run-1") == [{"chosen": weighed, "rejected": rejected}, None]
    (head,) = block(markup, "viewer")
    assert (head["runs"], head["shown"], head["unit"]) == (["dpo", "dpo_bmc"], ["dpo", "dpo_bmc"], 10_000)


def test_a_run_with_other_tokens_brings_its_own(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [row("1", ["a", " b"], [0.1, 0.2], 1.0)])
    write_rows(tmp_path / "b.jsonl", [row("1", ["a b"], [0.3], 1.0)])
    markup = viewer({name: tmp_path / f"{name}.jsonl" for name in "ab"}, [])
    assert block(markup, "pairs")[0]["chosen"]["tokens"] == ["a", " b"]
    (line,) = block(markup, "run-1")
    assert line["texts"]["chosen"] == {"tokens": ["a b"], "differs": "1"}
    assert line["chosen"]["rewards"] == [3000]


def test_the_scale_leaves_out_the_extremes() -> None:
    """Of 1, 2, …, 100 the 99th percentile is 99.01; one outlier changes next to nothing."""
    rewards = [sign * reward for reward, sign in zip(range(1, 101), [1, -1] * 50, strict=True)]
    found = {"run": {"1": {"chosen": {"rewards": rewards[:40]}, "rejected": {"rewards": rewards[40:]}}}}
    assert robust_maximum(found) == 99
    rewards[99] = -1_000_000
    assert robust_maximum({"run": {"1": {"chosen": {"rewards": rewards}, "rejected": {"rewards": []}}}}) < 11_000
    assert robust_maximum({"run": {"1": {"chosen": {"rewards": []}, "rejected": {"rewards": [0]}}}}) == 1


@pytest.mark.parametrize(
    ("runs", "shown"),
    [
        (["dpo", "dpo_bc", "dpo_bmc"], ["dpo", "dpo_bmc"]),
        (["dpo_bmc", "sft", "x/dpo"], ["x/dpo", "dpo_bmc"]),
        (["a", "dpo_bmc", "b"], ["dpo_bmc", "a"]),
        (["only"], ["only"]),
    ],
)
def test_dpo_and_dpo_bmc_are_shown_first(runs: list[str], shown: list[str]) -> None:
    assert chosen_runs(runs) == shown


@pytest.mark.parametrize(
    "line",
    [
        '{"id": "2", "prompt": "x", "chos',
        "[]",
        "",
        json.dumps(row("2", ["a", "b"], [0.1], 1.0)),  # fewer rewards than tokens
        json.dumps(row("2", ["a"], [float("nan")], 1.0)),
        json.dumps({**row("2", ["a"], [0.1], 1.0), "rejected": {}}),
    ],
)
def test_a_damaged_row_is_named_and_left_out(line: str, tmp_path: Path) -> None:
    path, notices = tmp_path / "dpo.jsonl", list[str]()
    path.write_text(json.dumps(row("1", ["a"], [0.1], 1.0)) + "\n" + line + "\n")
    assert len(block(viewer({"dpo": path}, notices), "pairs")) == 1
    assert notices == [f"{path}: row 2: is no pair with its tokens' numbers; analyze again"]


def test_more_pairs_than_the_page_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST", 2)
    for name in ("a", "b"):
        write_rows(tmp_path / f"{name}.jsonl", [row(str(n), ["a"], [0.1], 1.0) for n in range(3)])
    notices: list[str] = []
    markup = viewer({name: tmp_path / f"{name}.jsonl" for name in ("a", "b")}, notices)
    assert len(block(markup, "pairs")) == len(block(markup, "run-1")) == 2
    assert notices == ["the token viewer holds the first 2 of 3 pairs"]
    assert viewer({"none": tmp_path / "none.jsonl"}, notices) == ""
    assert "none.jsonl: can't be read" in notices[-1]
