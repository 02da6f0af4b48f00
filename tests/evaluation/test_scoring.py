from typing import Any

import pytest

from bmc.evaluation.scoring import describe, predict, summarise


def scored(source: str | None, *hits: bool | None) -> list[dict[str, Any]]:
    return [{"source": source, "correct": hit, "correct_released": None} for hit in hits]


def test_a_prediction() -> None:
    row = {"id": "1", "source": "ecqa", "task": "qa", "prompt": [{"role": "user", "content": "Where?"}]}
    assert predict(row | {"answer": "river"}, "So.\nThe answer is River") == {
        "id": "1", "source": "ecqa", "prompt": "Where?", "prediction": "So.\nThe answer is River", "answer": "River",
        "gold": "river", "correct": True, "correct_released": True
    }  # fmt: skip


def test_what_is_correct(subtests: pytest.Subtests) -> None:
    for task, gold, text, correct in [
        ("qa", "river", "The answer is bank", False), ("qa", "river", "A river", False),
        ("math", "24", "15 + 9 = 24", True), ("math", "1/2", "The answer is 0.5", True),
        ("math", "0", "The answer is 0", True), ("math", 0, "The answer is 0", True),
        ("math", 24, "The answer is 25", False), ("qa", None, "The answer is bank", None),
        ("chat", "river", "river", None), (None, "river", "river", None)
    ]:  # fmt: skip
        with subtests.test(task=task):
            assert predict({"task": task, "prompt": "x", "answer": gold}, text)["correct"] is correct


def test_a_label_is_an_option_of_the_prompt(subtests: pytest.Subtests) -> None:
    for task, gold, options, text, correct in [
        ("qa", "money", "(A) bank (B) money", "The answer is (B)", True),
        ("qa", "money", "(A) bank (B) money", "The answer is (A) money", False),
        ("qa", "money", "(A) bank (B) money", "The answer is (A)", False),
        ("math", "12", "(A) 10 (B) 12", "The answer is (B).", True),
        ("math", "\\text{(B)}", "(A) 10 (B) 12", "The answer is $12$", True),
        ("math", "\\text{(B)}", "(A) 10 (B) 12", "The answer is $10$", False),
        ("math", "12", "(1) 12 (2) 15", "\\boxed{12}", True),
    ]:
        with subtests.test(task=task):
            prompt = [{"role": "user", "content": f"What is it? {options}"}]
            assert predict({"task": task, "prompt": prompt, "answer": gold}, text)["correct"] is correct


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


def test_both_scorings_side_by_side() -> None:
    """The released rule lowers the prediction and not the gold answer, and cleans neither."""
    row = {"source": "qasc", "task": "qa", "prompt": "x"}
    said = [("river", "River"), ("River", "river"), ("river", "river."), ("The sea.", "The sea."), ("bank", "sand")]
    predictions = [predict(row | {"answer": gold}, f"The answer is {gold}\nThe answer is {a}") for gold, a in said]
    assert [prediction["correct"] for prediction in predictions] == [True, True, True, True, False]
    assert [prediction["correct_released"] for prediction in predictions] == [True, False, False, False, False]
    result = summarise(predictions)["results"]["qasc"]
    assert (result["n"], result["correct"], result["accuracy"]) == (5, 4, 0.8)
    assert (result["correct_released"], result["accuracy_released"]) == (1, 0.2)
    z2 = 1.959963984540054**2
    roots = [(2 + z2 + sign * (z2 * (z2 + 4 * 0.8)) ** 0.5) / (2 * (5 + z2)) for sign in (-1, 1)]  # Wilson's, 1 of 5
    assert result["interval_released"] == pytest.approx(roots)
    assert describe({"results": {"qasc": result}}).endswith("; as released: 20.0 %")


@pytest.mark.parametrize("task", ["chat", None])
def test_nothing_is_released_beyond_closed_tasks(task: str | None) -> None:
    prediction = predict({"task": task, "source": "s", "prompt": "x", "answer": "4"}, "The answer is 4")
    assert prediction["correct_released"] is None
    assert summarise([prediction])["results"] == {}


def test_the_released_tolerance_beside_the_exact_score() -> None:
    row = {"source": "gsm8k", "task": "math", "prompt": "x", "answer": "50"}
    predictions = [predict(row, f"The answer is {answer}") for answer in ("50", "0.5", "5000", "50.004", "51")]
    assert [prediction["correct"] for prediction in predictions] == [True, False, False, False, False]
    assert [prediction["correct_released"] for prediction in predictions] == [True, True, True, True, False]
    result = summarise(predictions)["results"]["gsm8k"]
    assert (result["accuracy"], result["accuracy_released"]) == (0.2, 0.8)
