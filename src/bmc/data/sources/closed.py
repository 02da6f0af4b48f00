"""What loaders of closed tasks (QA, math) share: the SFT target, options, and the prepared shape."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ..schema import Row, assistant, user

LEAD = "Let's think step by step."
CLOSE = "The answer is"

_LEAD = re.compile(r"Let['’]s think step by step[.:]")
_CLOSE = re.compile(r"(?:(?:^|\n)####|(?<![A-Za-z])The answer is\b)[^\n]*\Z")

Parts = tuple[str, str, Any]


def sft_target(reasoning: str, answer: str) -> str:
    """What an SFT model learns to say: the lead, the reasoning if there is any, and the answer, each once.

    Args:
        reasoning: A worked solution; a lead or a final answer that it has already is not repeated.
        answer: The final answer.
    """
    answer = " ".join(answer.split())
    return "\n".join(filter(None, (LEAD, _bare(reasoning, answer), f"{CLOSE} {answer}")))


def _bare(reasoning: str, answer: str) -> str:
    """Reasoning without lead and final answer. They may stand one after another, so it strips until nothing changes."""
    # An answer of several lines (a matrix) is known only by what it says; any other, by standing on the last line.
    words = r"\s+".join(map(re.escape, answer.split()))
    stated = re.compile(rf"{CLOSE}:?\s+{words}\Z")
    while True:
        shorter = reasoning.strip()
        lead = _LEAD.match(shorter)
        shorter = shorter[lead.end() :] if lead else shorter
        shorter = _CLOSE.sub("", stated.sub("", shorter).strip()).strip()
        if shorter == reasoning:
            return shorter
        reasoning = shorter


def _answer(value: Any) -> str:
    """An answer as text of one line: 43.0 → `43`, true → `yes`.

    Raises:
        ValueError: It is empty or no plain value.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float) or not str(value).strip():
        raise ValueError("answer: is empty, or neither text nor a number")
    return " ".join(str(value).split())


def with_options(question: str, options: list[str]) -> str:
    """A question with its options below it, one a line."""
    return "\n".join([question, "Options:", *options])


def closed(source: str, task: str) -> Callable[[Callable[[Row], Parts]], Callable[[Row], Row]]:
    """Makes a loader of a function that takes a raw row apart into question, reasoning and answer.

    The loader takes the prepared shape too, which the project's own JSONL files have:
    `{"problem": "…\\nOptions:\\n…", "solution": "…\\nThe answer is beads", "answer": "beads"}`.
    """

    def decorate(parts: Callable[[Row], Parts]) -> Callable[[Row], Row]:
        def to_row(raw: Row) -> Row:
            prepared = raw.get("problem") is not None and raw.get("answer") is not None
            question, reasoning, answer = (
                (raw["problem"], raw.get("solution") or "", raw["answer"]) if prepared else parts(raw)
            )
            if not isinstance(question, str) or not question.strip():
                raise ValueError("question: is empty or no text")
            answer = _answer(answer)
            completion = assistant(sft_target(reasoning, answer))
            return {
                "source": source,
                "task": task,
                "prompt": user(question),
                "completion": completion,
                "answer": answer,
            }

        to_row.__name__, to_row.__doc__ = parts.__name__, parts.__doc__
        return to_row

    return decorate
