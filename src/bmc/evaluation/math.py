"""Numeric and symbolic equality for mathematical answers, by the library `math-verify`."""

from __future__ import annotations

import logging
import re

from . import qa
from .answers import stated_answer

_SEVERAL = re.compile(r"\d\s*[:;]\s*\d")  # "6:45 A.M.", "3:4", "7; 100": math-verify would compare one of the numbers
_WORDS = re.compile(r"[A-Za-z][A-Za-z ,.'’-]+")  # which it doesn't read


def extract(text: str) -> str:
    """The answer that a response states; the whole text where none is marked, for `correct` to search."""
    stated = stated_answer(text)
    return text if stated is None else stated


def correct(answer: str, gold: str) -> bool:
    """Whether two answers are the same number, expression, set or interval; `1/2`, `0.5` and `\\frac12` are.

    Where the gold answer is words, a time, a ratio or a list (TabMWP, ASDiv), the same words, as in `qa`.

    Args:
        answer: An extracted answer.
        gold: The answer it must equal.
    """
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    if answer.strip() == gold.strip():
        return True
    if _SEVERAL.search(gold) or (_WORDS.fullmatch(gold) and _WORDS.fullmatch(answer.strip(" .!$"))):
        return qa.correct(answer, gold)
    return any(verify(parse(read(gold)), parse(read(answer))) for read in (str, _as_latex))


def _as_latex(answer: str) -> str:
    """Bare LaTeX ("3x + 2", "\\frac12") in the delimiters that the library looks for."""
    bare = answer.strip().rstrip(".")
    return answer if "$" in bare or "\n" in bare or "\\boxed" in bare else f"${bare}$"
