"""Predictions → scores, by the task of each row."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ..data.schema import Row, content
from .answers import extract_answer
from .grading import GRADERS, is_right
from .released import correct_released
from .stats import accuracy


def predict(row: Row, text: str) -> Row:
    """A line of `predictions.jsonl`; `correct` and `correct_released` are None where nothing can be compared (chat, or
    no gold answer).
    """
    task = row.get("task") or ""
    closed = task in GRADERS
    gold = None if row.get("answer") is None else str(row["answer"])
    answer = extract_answer(text, task) if closed else None
    scored = closed and bool(gold)
    prompt = content(row["prompt"])
    return {
        "id": row.get("id"),
        "source": row.get("source"),
        **({"question_id": row["question_id"]} if "question_id" in row else {}),  # Arena-Hard's name of it
        "prompt": prompt,
        "prediction": text,
        "answer": answer,
        "gold": gold,
        "correct": is_right(answer or "", gold or "", task, prompt) if scored else None,
        "correct_released": correct_released(text, gold or "", task) if scored else None,
    }


def summarise(predictions: list[Row]) -> dict[str, Any]:
    """n, accuracy and interval of each benchmark (`source`) and, of several, their macro average; what the
    released code's procedure says of the same rows is in `…_released`.
    """
    scored: dict[str, list[Row]] = defaultdict(list)
    for prediction in predictions:
        if prediction["correct"] is not None:
            scored[prediction["source"] or "data"].append(prediction)
    results: dict[str, Any] = {name: _scores(rows) for name, rows in sorted(scored.items())}
    summary: dict[str, Any] = {"n": len(predictions), "results": results}
    if len(results) > 1:  # the paper's "Avg." column
        summary["average"] = sum(result["accuracy"] for result in results.values()) / len(results)
    return summary


def _scores(rows: list[Row]) -> dict[str, Any]:
    scores: dict[str, Any] = accuracy([row["correct"] for row in rows])
    released = [row["correct_released"] for row in rows]
    if None in released:
        return scores
    return scores | {f"{key}_released": value for key, value in accuracy(released).items() if key != "n"}


def describe(metrics: Row) -> str:
    """A line for each benchmark: accuracy, interval, n."""
    lines = [
        f"{name}: {100 * r['accuracy']:.1f} % ({r['correct']}/{r['n']}; 95 % interval {_percents(r['interval'])})"
        + (f"; as released: {100 * r['accuracy_released']:.1f} %" if "accuracy_released" in r else "")
        for name, r in metrics["results"].items()
    ]
    return "\n".join(lines or [f"{metrics['n']} responses; nothing to compare them with"])


def _percents(interval: list[float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
