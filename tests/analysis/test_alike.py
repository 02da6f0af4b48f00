"""What is said of runs that were not made alike, and of rows that are missing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from made import evaluated, write

from bmc.analysis.alike import missing_rows, unlike
from bmc.analysis.differences import hits_of
from bmc.analysis.runs import find_runs

HITS = {"r1": True, "r2": False}


def said(root: Path) -> list[str]:
    return unlike(find_runs(root))


def test_runs_that_were_made_alike(tmp_path: Path) -> None:
    for run in ("dpo", "dpo_bmc"):  # 512 is the default, so that it needn't be written down
        model = f"outputs/{run}"
        evaluated(tmp_path / run / "eval", HITS, model_name_or_path=model, batch_size=len(run), output_dir=run)
    evaluated(tmp_path / "sft/eval", HITS, max_new_tokens=512)
    assert said(tmp_path) == []


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ({"max_new_tokens": 64}, "not made alike: max_new_tokens is 512 for a and b; 64 for c"),
        ({"temperature": 0.7}, "not made alike: temperature is 0.0 for a and b; 0.7 for c"),
        (
            {"sha256": "b" * 64},
            "not made alike: evaluation data is SHA-256 aaaaaaaaaaaa for a and b; SHA-256 bbbbbbbbbbbb for c",
        ),
        (
            {"dataset_mixture": {"datasets": [{"id": "test.jsonl", "num_rows": 10}]}},
            "not made alike: evaluation data is SHA-256 aaaaaaaaaaaa for a and b; "
            "SHA-256 aaaaaaaaaaaa (num_rows 10) for c",
        ),
    ],
)
def test_what_differs_is_named_with_its_runs(recipe: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    evaluated(tmp_path / "a/eval", HITS)
    evaluated(tmp_path / "b/eval", HITS)
    evaluated(tmp_path / "c/eval", HITS, **recipe)
    assert said(tmp_path) == [sentence]


def test_preference_training_on_other_pairs(tmp_path: Path) -> None:
    for run in ("sft", "dpo", "dpo_bc", "dpo_bmc"):
        evaluated(tmp_path / run / "eval", HITS)
        script = "sft" if run == "sft" else "preference"
        digest = {"sft": "c", "dpo_bmc": "b"}.get(run, "0") * 64
        record = {"command": f"scripts/{script}.py r.yaml", "recipe": {}, "data": [{"sha256": digest}]}
        write(tmp_path / run / "provenance.json", record)
    assert said(tmp_path) == [
        "not made alike: training data is SHA-256 000000000000 for dpo and dpo_bc; SHA-256 bbbbbbbbbbbb for dpo_bmc"
    ]


def test_of_many_ways_the_first_are_told(tmp_path: Path) -> None:
    for number in range(6):
        evaluated(tmp_path / f"r{number}/eval", HITS, max_new_tokens=10 + number)
    (sentence,) = said(tmp_path)
    assert sentence.endswith("11 for r1; 12 for r2; 13 for r3; 2 other ways")


def test_templates_are_compared_by_their_text(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("A {{ messages }}")
    evaluated(tmp_path / "runs/a/eval", HITS, chat_template=str(tmp_path / "t.jinja"))
    for run, text in (("b", "A {{ messages }}"), ("c", "B {{ messages }}")):
        evaluated(tmp_path / f"runs/{run}/eval", HITS)
        (tmp_path / f"runs/{run}/chat_template.jinja").write_text(text)
    (sentence,) = said(tmp_path / "runs")
    digests = r"the one with digest \w{8} for a and b; the one with digest \w{8} for c"
    assert re.fullmatch(f"not made alike: chat template is {digests}", sentence)


def test_another_judge(tmp_path: Path) -> None:
    for run, judge in (("a", "gpt-4-turbo"), ("b", "gpt-4o")):
        write(tmp_path / run / "eval/judged.json", {"benchmark": "arena_hard", "judge": judge, "reference": "gpt-4"})
    assert said(tmp_path) == ["not made alike: arena_hard's judge is gpt-4-turbo for a; gpt-4o for b"]


def test_runs_of_other_benchmarks_are_not_compared(tmp_path: Path) -> None:
    evaluated(tmp_path / "a/eval", HITS)
    write(tmp_path / "b/eval/metrics.json", {"results": {}})
    write(tmp_path / "b/eval/provenance.json", {"recipe": {"max_new_tokens": 1}})
    assert said(tmp_path) == []


def test_a_run_without_a_record(tmp_path: Path) -> None:
    for run in "abc":
        evaluated(tmp_path / run / "eval", HITS)
    (tmp_path / "c/eval/provenance.json").write_text("{")
    assert said(tmp_path) == ["c: how it was evaluated isn't recorded (no provenance.json)"]


def missing(root: Path) -> list[str]:
    runs = find_runs(root)
    return missing_rows(runs, {name: hits_of(run.folder / "predictions.jsonl") for name, run in runs.items()})


def test_missing_predictions(tmp_path: Path) -> None:
    evaluated(tmp_path / "a/eval", {f"r{n}": True for n in range(10)})
    evaluated(tmp_path / "b/eval", {f"r{n}": True for n in range(7)}, n=10)
    assert missing(tmp_path) == [
        f"{tmp_path}/b/eval/predictions.jsonl: has 7 of the 10 rows of ecqa that metrics.json counts; evaluate again",
        "b: was not scored on 3 rows of ecqa that others have (r7, r8 and r9)",
    ]


def test_other_rows(tmp_path: Path) -> None:
    evaluated(tmp_path / "a/eval", {"r1": True, "r2": True})
    evaluated(tmp_path / "b/eval", {"r1": True, "x": True})
    assert missing(tmp_path) == [
        "a: was not scored on 1 row of ecqa that others have (x)",
        "b: was not scored on 1 row of ecqa that others have (r2)",
    ]
