"""Whether a response to a closed task (QA, math) is right."""

from __future__ import annotations

from collections.abc import Callable

from .answers import extract_answer
from .math import math_equal
from .qa import qa_equal

GRADERS: dict[str, Callable[[str, str], bool]] = {"qa": qa_equal, "math": math_equal}


def is_correct(text: str, gold: str, task: str) -> bool:
    """Whether a response states the gold answer.

    Args:
        text: The whole response.
        gold: The answer that it must state.
        task: One of `GRADERS`.
    """
    return GRADERS[task](extract_answer(text, task), gold)
