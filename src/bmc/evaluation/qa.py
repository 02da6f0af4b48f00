"""Exact match for questions whose answer is one of some options."""

from __future__ import annotations

import re
import unicodedata

from .answers import stated_answer

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


def correct(answer: str, gold: str) -> bool:
    """Whether an extracted answer is the gold one, both normalised.

    Answers of punctuation alone ("+", "%") are compared as they stand.
    """
    if not normalise(gold):
        return answer.strip() == gold.strip()
    return normalise(answer) == normalise(gold)
