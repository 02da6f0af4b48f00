"""Numbers that are spelled out."""

from __future__ import annotations

import re
from fractions import Fraction

_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_VALUES = {word: value for value, word in enumerate(_ONES)} | {
    word: 10 * place for place, word in enumerate(_TENS, start=2)
}
_PARTS = {
    "half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10, "twelfth": 12, "hundredth": 100,
}  # fmt: skip
_WORD = "|".join([*sorted(_VALUES, key=len, reverse=True), "hundred", *_SCALES])
_NUMERAL = re.compile(
    rf"(?:a (?=hundred|thousand|million|billion))?(?:(?:{_WORD})(?:[ -]+(?:and )?(?=(?:{_WORD})\b)|\b))+", re.IGNORECASE
)
_PART = re.compile(rf"(?:(?P<a>a|an|one)|(?P<top>{_WORD}))[ -](?P<part>{'|'.join(_PARTS)})s?", re.IGNORECASE)
_SCALED = re.compile(
    r"(\d+(?:\.\d+)?) (?:\\text\{)?(hundred|thousand|million|billion|trillion|dozen)\b\}?|^(?:an? |one )?(half|dozen)$",
    re.IGNORECASE,
)


def spelled(words: str) -> int | None:
    """The value of a numeral of words; None if it is none.

    >>> spelled("one hundred and twenty-five")
    125
    """
    total, part = 0, 0
    seen = False
    for word in re.split(r"[ -]+", words.lower()):
        if word in ("and", "a"):
            part = max(part, 1 if word == "a" else part)
        elif word in _VALUES:
            value = _VALUES[word]
            if seen and part % 100 and not (part % 10 == 0 and part % 100 >= 20 and 0 < value < 10):
                return None  # "five six"
            part += value
            seen = True
        elif word == "hundred":
            part = max(part, 1) * 100
            seen = True
        elif word in _SCALES:
            total, part = total + max(part, 1) * _SCALES[word], 0
            seen = True
        else:
            return None
    return total + part if seen else None


def number_words(text: str) -> str:
    """Write a numeral at a text's start in digits, where nothing but a unit follows: `five dollars` → `5 dollars`,
    `two thirds` → `2/3`; `3 million` → `3000000`."""
    text = _SCALED.sub(_scale, text)
    bare = re.sub(r"^\\text\{([^{}]*)\}", r"\1", text)
    sign = re.match(r"(?:negative|minus) ", bare, re.IGNORECASE)
    start = sign.end() if sign else 0
    part = _PART.match(bare, start)
    if part:
        top = 1 if part["a"] else spelled(part["top"])
        value, end = f"{top}/{_PARTS[part['part'].lower()]}", part.end()
    else:
        found = _NUMERAL.match(bare, start)
        number = spelled(found.group()) if found else None
        if found is None or number is None:
            return text
        value, end = str(number), found.end()
    if re.search(r"\d|[-+*/^=\\]", bare[end:]):
        return text
    return f"{'-' if sign else ''}{value}{bare[end:]}"


def _scale(found: re.Match[str]) -> str:
    if found[3]:
        return {"half": "1/2", "dozen": "12"}[found[3].lower()]
    scale = {"hundred": 100, "dozen": 12, **_SCALES}[found[2].lower()]
    value = Fraction(found[1]) * scale
    return str(value.numerator) if value.denominator == 1 else found.group()
