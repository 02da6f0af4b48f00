"""Words of a text, in any script."""

from __future__ import annotations

import re
from itertools import pairwise

import regex

Span = tuple[int, int]

# Scripts that put no space between words. Unicode's default rules (UAX #29) then give single characters, or runs of
# katakana; a dictionary would give words, but no count or score here needs more than pieces of an even size.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Tai_Le}\p{Javanese}]"
# \b is Unicode's word boundary; punctuation and marks start no word.
_START = regex.compile(rf"(?w)\b(?={UNSPACED})|(?<={UNSPACED}[\p{{M}}\p{{P}}]*)\b(?=[\p{{L}}\p{{N}}])")


def words(text: str) -> list[Span]:
    """Return [start, end) of each word: what stands between white space, cut further in scripts without spaces.

    Punctuation stays with the word before it.

    >>> [text[slice(*span)] for text in ["It is 4, sure.", "这是 4。"] for span in words(text)]
    ['It', 'is', '4,', 'sure.', '这', '是', '4。']
    """
    return [span for chunk in re.finditer(r"\S+", text) for span in _pieces(text, *chunk.span())]


def _pieces(text: str, start: int, end: int) -> list[Span]:
    """Cut one chunk between white space."""
    if text[start:end].isascii():
        return [(start, end)]
    cuts = [start, *(at for found in _START.finditer(text, start, end) if (at := found.start()) > start), end]
    return list(pairwise(cuts))


def word_texts(text: str) -> list[str]:
    """Return the words themselves."""
    return [text[start:end] for start, end in words(text)]
