"""Exact match for questions whose answer is one of some options."""

from __future__ import annotations

import re
import unicodedata

from .answers import MARK, stated_answer

_PUNCTUATION = re.compile(r"[^\w\s]|_")


def normalise(answer: str) -> str:
    """An answer with case, punctuation, accents' encodings and spaces folded.

    >>> normalise(" Friend’s House. ")
    'friends house'
    """
    return " ".join(_PUNCTUATION.sub("", unicodedata.normalize("NFKC", answer).casefold()).split())


def extract(text: str) -> str:
    """The answer that a response states; empty if it states none."""
    return stated_answer(text) or ""


def correct_released(text: str, gold: str) -> bool:
    """The rule of the paper's released code: what follows the last "The answer is", in lower case, is the gold answer
    as it stands. A gold answer with a capital is never met.

    Args:
        text: The whole response.
        gold: The answer that it must state.
    """
    _, found, stated = text.rpartition(MARK)
    return bool(found) and stated.strip().lower() == gold


def correct(answer: str, gold: str) -> bool:
    """Whether an extracted answer is the gold one, both normalised.

    Answers of punctuation alone ("+", "%") are compared as they stand.
    """
    if not normalise(gold):
        return answer.strip() == gold.strip()
    return normalise(answer) == normalise(gold)
