"""Equality of quantities: a value, and perhaps a unit or a percent sign, alone or within words."""

from __future__ import annotations

import re
from fractions import Fraction

from .expressions import Unreadable, Values, constant, same_values, values
from .notation import squeeze
from .units import CURRENCIES, canonical, known, split_unit

_NUMBER = r"\d+(?:\.\d+)?|\.\d+"
_PLAIN = re.compile(rf"[+-]?\s*(?:{_NUMBER})")
_DECIMAL = re.compile(r"[+-]?\s*(\d*)\.(\d+)")
_ENOUGH = 6  # significant digits that a decimal must have to stand for a fraction or a root

# Words that make another number of the one they stand beside, and what else is no plain number within words.
_MATHS = re.compile(
    r"\b(?:not|never|no|than|least|most|over|under|above|below|nearly|almost|between|plus|minus|times \d|divided|or"
    r"|except|squared|cubed|factorial|pi|root|sqrt|infinity|from|to|instead|wrong|either|neither|if|unless|log|sin|cos"
    r"|tan|ln|half|halves|thirds?|(?:four|fif|six|seven|eigh|nin|ten|hundred|thousand)ths?|dozens?|hundreds?|thousands?"
    r"|(?:m|b|tr)illions?|degrees? [CF]\b)\b|n't\b",
    re.IGNORECASE,
)
_ALGEBRA = re.compile(
    r"(?<!\w)-(?!\w)|[\\^*=<>+|/!_\[\]{}&]|\d[A-Za-z]|(?<![A-Za-z'])(?![aAI]\b|[mgshlL]\b)[A-Za-z](?![A-Za-z'.])"
)
_WITHIN_WORDS = [
    (re.compile(r"\\text\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\([A-Za-z%¤ ]+\)\s*$|\(s\)"), " "),  # 18 (eggs)
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\b(?:minus|negative)\s+(?=[\d.])", re.IGNORECASE), "-"),
    (re.compile(r"(?<=\d)(?:st|nd|rd|th)\b"), ""),
    (re.compile(r"(?<=\d)(?=[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af])(?![万萬千百十亿億半分倍兆만천억])"), " "),  # 5个
    (re.compile(r"(?<=\d)(?=(?:cm|km|mm|kg|ft|in|mph|lbs?|oz|min|hrs?|mi|mg|ml|yd|sec)\b)"), " "),
]
_STATED = re.compile(rf"(?<![\w.])(-?\s*[{CURRENCIES}]?\s*-?(?:{_NUMBER}))(?![\w:]|\.\d)")


def same_quantity(a: str, g: str) -> bool:
    """Whether two cleaned texts have the same value; a unit may be left out, but not replaced by another."""
    if same_expression(a, g):
        return True
    (a_core, a_unit), (g_core, g_unit) = split_unit(a), split_unit(g)
    if not a_unit and not g_unit:
        return False
    if "%" in (a_unit, g_unit):
        return _same_percent(a_core, a_unit, g_core, g_unit)
    return units_agree(a_unit, g_unit) and same_expression(a_core, g_core)


def same_plain(a: str, g: str) -> bool:
    """Whether an answer in words has one number, and that is the gold one; only of plain gold numbers."""
    g_core, g_unit = split_unit(g)
    if not _PLAIN.fullmatch(g_core):
        return False
    for pattern, written in _WITHIN_WORDS:
        a = pattern.sub(written, a)
    found = _STATED.findall(a)
    if len(found) != 1 or len(re.findall(_NUMBER, a)) != 1:
        return False
    before, _, after = a.partition(found[0])
    rest = f"{before} {after}"
    if _MATHS.search(rest) or _ALGEBRA.search(rest.replace("%", " ")):
        return False
    number, money = re.sub(r"[^\d.-]", "", found[0]), "".join(re.findall(f"[{CURRENCIES}]", found[0]))
    if re.match(r"\s*(?:%|percent)", after):
        return _same_percent(number, "%", g_core, g_unit)
    units = known(canonical(f"{money} {re.split(r'[.,;:] |per ', after)[0]}"))
    return (not g_unit or not units or known(g_unit) <= units) and same_expression(number, g_core)


def units_agree(a: str, g: str) -> bool:
    """Whether two units may belong to the same quantity: one is left out, or both name the same."""
    if not a or not g or a == g:
        return True
    if known(a) or known(g):
        return bool(known(g)) and known(g) <= known(a)
    return a in g or g in a


def _same_percent(a: str, a_unit: str, g: str, g_unit: str) -> bool:
    """50 % is 0.5, and 50 where a question asks for percent; of numbers below 1 only the value counts."""
    if a_unit == g_unit:
        return same_expression(a, g)
    if a_unit and g_unit:
        return False
    percent, number = (a, g) if a_unit else (g, a)
    if same_expression(f"({percent})/100", number):
        return True
    if not same_expression(a, g):
        return False
    value = constant(_values(g))
    return bool(g_unit) or value is None or abs(value) >= 1 or value == 0


def same_expression(a: str, g: str) -> bool:
    """Whether two expressions have the same values; a decimal of six digits may stand for a fraction or a root."""
    ours, theirs = _values(a), _values(g)
    if ours is None or theirs is None:
        return squeeze(a) == squeeze(g)
    return same_values(ours, theirs) or _rounds(a, ours, g, theirs) or _rounds(g, theirs, a, ours)


def _values(text: str) -> Values | None:
    try:
        return values(text)
    except Unreadable:
        return None


def _rounds(decimal: str, its_values: Values, other: str, other_values: Values) -> bool:
    """Whether a decimal is the other value, rounded or cut off; of another plain number, but for a computer's last
    digits."""
    literal = _DECIMAL.fullmatch(decimal.strip("() "))
    value, exact = constant(its_values), constant(other_values)
    if not literal or value is None or exact is None:
        return False
    digits, error = len((literal[1] + literal[2]).lstrip("0")), abs(value - exact)
    if _PLAIN.fullmatch(other.strip("() ")):
        return digits >= 14 and error <= abs(exact) / 10**12
    step = Fraction(1, 10 ** len(literal[2]))
    return digits >= _ENOUGH and (error <= step / 2 or (error < step and abs(value) < abs(exact)))
