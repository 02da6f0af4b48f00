"""Whether a response to a closed task (QA, math) is right."""

from __future__ import annotations

from collections.abc import Callable

from .answers import extract_answer
from .math import math_equal
from .qa import qa_equal, read_options, same_choice

GRADERS: dict[str, Callable[[str, str], bool]] = {"qa": qa_equal, "math": math_equal}


def is_correct(text: str, gold: str, task: str, prompt: str = "") -> bool:
    """Whether a response states the gold answer.

    Args:
        text: The whole response.
        gold: The answer that it must state.
        task: One of `GRADERS`.
        prompt: x. Where it lists options with labels, a label stands for its option.
    """
    return is_right(extract_answer(text, task), gold, task, prompt)


def is_right(answer: str, gold: str, task: str, prompt: str = "") -> bool:
    """Whether an extracted answer is the gold one; arguments as those of `is_correct`."""
    verdict = same_choice(answer, gold, read_options(prompt), GRADERS[task])
    return GRADERS[task](answer, gold) if verdict is None else verdict
