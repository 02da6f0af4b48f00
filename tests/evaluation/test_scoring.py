from __future__ import annotations

from typing import Any

import pytest

from bmc.evaluation.scoring import describe, predict, summarise


def scored(source: str | None, *hits: bool | None) -> list[dict[str, Any]]:
    return [{"source": source, "correct": hit} for hit in hits]


def test_a_prediction() -> None:
    row = {"id": "1", "source": "ecqa", "task": "qa", "prompt": [{"role": "user", "content": "Where?"}]}
    assert predict(row | {"answer": "river"}, "So.\nThe answer is River.") == {
        "id": "1",
        "source": "ecqa",
        "prompt": "Where?",
        "prediction": "So.\nThe answer is River.",
        "answer": "River.",
        "gold": "river",
        "correct": True,
    }


@pytest.mark.parametrize(
    ("task", "gold", "text", "correct"),
    [
        ("qa", "river", "The answer is bank", False),
        ("qa", "river", "A river", False),
        ("math", "24", "15 + 9 = 24", True),
        ("math", "1/2", "The answer is 0.5", True),
        ("math", "0", "The answer is 0", True),
        ("math", 0, "The answer is 0", True),
        ("math", 24, "The answer is 25", False),
        ("qa", None, "The answer is bank", None),
        ("chat", "river", "river", None),
        (None, "river", "river", None),
    ],
)
def test_what_is_correct(task: str | None, gold: Any, text: str, correct: bool | None) -> None:
    assert predict({"task": task, "prompt": "x", "answer": gold}, text)["correct"] is correct


def test_benchmarks_and_their_average() -> None:
    summary = summarise(scored("b", True, True, False, True) + scored("a", True, False) + scored("chat", None))
    assert summary["n"] == 7
    assert list(summary["results"]) == ["a", "b"]
    assert [(r["n"], r["correct"], r["accuracy"]) for r in summary["results"].values()] == [(2, 1, 0.5), (4, 3, 0.75)]
    assert summary["average"] == 0.625  # of the two accuracies, whatever their sizes


def test_one_benchmark_has_no_average() -> None:
    summary = summarise(scored(None, *[True] * 5, *[False] * 5))
    assert list(summary) == ["n", "results"]
    assert summary["results"]["data"]["accuracy"] == 0.5
    assert describe(summary) == "data: 50.0 % (5/10; 95 % interval 23.7 to 76.3)"


@pytest.mark.parametrize("predictions", [[], scored("chat", None, None)])
def test_nothing_to_compare(predictions: list[dict[str, Any]]) -> None:
    summary = summarise(predictions)
    assert summary == {"n": len(predictions), "results": {}}
    assert describe(summary) == f"{len(predictions)} responses; nothing to compare them with"
