"""Equality of mathematical answers: numbers, expressions, lists, intervals, matrices, equations, units, words.

Three readings, from the strictest to the most lenient:

1. The same text in one notation (`notation`).
2. The same mathematics: structure is compared part by part (`structure`), expressions by their values (`expressions`).
3. A plain number within words ("18 dollars a day"), only where the gold answer is a plain number and the answer has
   neither LaTeX nor algebra (`quantities.same_plain`).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .expressions import FUNCTIONS, Unreadable, constant, proportional, values
from .notation import clean, squeeze
from .qa import qa_equal
from .quantities import same_expression, same_plain, same_quantity, units_agree
from .structure import FLIPPED, Parts, bracketed, interval, is_name, items, matrix, ratio, relation, union
from .units import split_unit

MAX_LENGTH = 600  # of an answer that is read as mathematics; longer ones are compared as text
MAX_ITEMS = 50  # of a list
MAX_DEPTH = 8  # of nested structures

_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_PHRASES = {  # what several words, or signs, mean
    "nothing": "no solution|no solutions|no real solution|no real solutions|none|empty set|the empty set"
    "|\\emptyset|\\{\\}",
    "reals": "all real numbers|all reals|any real number|real numbers|the real numbers|\\mathbbr|(-\\infty,\\infty)",
    "undefined": "does not exist|dne|undefined",
}
_MEANING = {phrase: meaning for meaning, phrases in _PHRASES.items() for phrase in phrases.split("|")}
_BEHIND = re.compile(  # a calculation behind its result
    r"((-?\d+(?:\.\d+)?)(?: [A-Za-z ]+)?)\s+\(\s*(?:=|since|because|i\.e\.,?|as)?\s*"
    r"((?:[^A-Za-z()\\]|\\(?:times|cdot|frac)(?![A-Za-z]))*\d)\s*\)"
)
_OPTION = re.compile(r"\(?([A-Z])\)?\.?")
_CHOSEN = re.compile(
    r"(?:(?:option|choice)\s+)?(?:\(([a-z])\)|([a-z]))[.:)]?(?:\s+(?!or\b|and\b)\w[^\s,].*)?", re.IGNORECASE
)


def math_equal(answer: str, gold: str) -> bool:
    r"""Whether an answer is the gold one: the same number, expression, list, interval, matrix, equation or words.

    `1/2`, `0.5`, `50\%` and `\frac12` are equal; so are `x = 5`, `5 \text{ cm}` and 5, and lists in any order.
    A unit may be left out, but not replaced by another. It takes milliseconds whatever the texts are.

    Args:
        answer: An extracted answer.
        gold: The answer that it must equal.
    """
    if answer.strip() == gold.strip():
        return bool(gold.strip())
    answer, gold = " ".join(answer.split()), " ".join(gold.split())
    if max(len(answer), len(gold)) > MAX_LENGTH:
        return answer == gold
    a, g = clean(answer), clean(gold)
    if not a or not g:
        return False
    return _same(a, g) or any(same_plain(stated, g) for stated in _conclusions(a)) or _same_digits(a, g)


def _conclusions(text: str) -> list[str]:
    """An answer, and what it states for a calculation before or behind it: `6*3 = 18 eggs`, `18 (6*3)`."""
    found = [text]
    if equation := relation(text):
        found += _stated(*equation)
    behind = _BEHIND.fullmatch(text)
    if behind and same_expression(behind[2], (behind[3].rpartition("=")[0] or behind[3]).strip()):
        found.append(behind[1])
    return found


def _same_digits(a: str, g: str) -> bool:
    """Whether an answer leaves out the base of the gold one: `10101` for `10101_2`."""
    digits, found, _ = g.partition("_")
    return bool(found) and bool(re.fullmatch(r"[\dA-F]+_(?:\{\d+\}|\d+)", g)) and a.lstrip("0") == digits.lstrip("0")


def _same(a: str, g: str, depth: int = 0) -> bool:
    """Whether two cleaned texts are the same mathematics or the same words."""

    def same(x: str, y: str) -> bool:
        return _same(x, y, depth + 1)

    if squeeze(a) == squeeze(g):
        return True
    if depth > MAX_DEPTH:
        return False
    meanings = [_meaning(text) for text in (a, g)]
    if any(meanings):
        return meanings[0] == meanings[1]
    if _is_words(a) or _is_words(g):
        return _same_words(a, g)
    unions = union(a), union(g)
    if any(unions):
        return _same_members(unions[0], unions[1], same)
    ours, theirs = items(a), items(g)
    if len(ours) != 1 or len(theirs) != 1:
        return _same_names(ours, theirs) and _same_members(ours, theirs, same)
    return _same_whole(ours[0], theirs[0], same)


def _same_names(ours: list[str], theirs: list[str]) -> bool:
    """`x = 1, y = 2` says more than `1, 2`."""
    names = [{item.partition("=")[0].strip() for item in each if "=" in item} for each in (ours, theirs)]
    return min(map(len, names)) > 0 or max(map(len, names)) <= 1


def _same_members(ours: list[str] | None, theirs: list[str] | None, same: Callable[[str, str], bool]) -> bool:
    """Whether two lists have the same members, in any order and as often."""
    if ours is None or theirs is None or len(ours) != len(theirs) or len(ours) > MAX_ITEMS:
        return False
    left = list(theirs)
    for item in ours:
        match = next((other for other in left if same(item, other)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _same_whole(a: str, g: str, same: Callable[[str, str], bool]) -> bool:
    """Whether two texts that are no lists are the same: relation, matrix, pair, ratio or quantity."""
    if relation(a) or relation(g):
        return _same_relation(a, g, same)
    for kind in (matrix, bracketed, ratio):
        ours, theirs = kind(a), kind(g)
        if ours is None and theirs is None:
            continue
        if ours is None or theirs is None or ours[0] != theirs[0] or len(ours[1]) != len(theirs[1]):
            return False
        if kind is ratio and not units_agree(split_unit(a)[1], split_unit(g)[1]):
            return False
        return all(map(same, ours[1], theirs[1]))
    return same_quantity(a, g)


# Relations


def _same_relation(a: str, g: str, same: Callable[[str, str], bool]) -> bool:
    """Whether two texts, one of which at least is a relation, are the same."""
    ours, theirs = relation(a), relation(g)
    intervals = interval(a), interval(g)
    if any(intervals):
        forms = [found or _stated_set(text) for found, text in zip(intervals, (a, g), strict=True)]
        return all(map(bracketed, forms)) and same(*forms)
    if ours and theirs:
        return _same_relations(ours, theirs, same)
    if ours:
        return any(same(value, g) for value in _stated(*ours))
    return theirs is not None and any(same(a, value) for value in _stated(*theirs))


def _stated_set(text: str) -> str:
    r"""`x \in A` → `A`."""
    found = relation(text)
    return found[1][-1] if found and found[0] == "in" and is_name(found[1][0]) else text


def _stated(operators: str, sides: list[str]) -> list[str]:
    r"""The value that a relation states for a name, or for what it works out: `x = 5`, `7 + 8 = 15`, `x \in A`."""
    kinds = set(operators.split())
    if kinds == {"in"}:
        return sides[-1:] if is_name(sides[0]) else []
    if not kinds <= {"=", "~"} or not (is_name(sides[0]) or all(map(_is_constant, sides[:-1]))):
        return []
    if "~" in kinds:
        return sides[1:] if is_name(sides[0]) else sides
    return sides[-1:]


def _is_constant(text: str) -> bool:
    try:
        return constant(values(split_unit(text)[0])) is not None
    except Unreadable:
        return bool(re.search(r"[A-Za-z]{2}", text))  # "9 eggs * $2 = $18"


def _same_relations(ours: Parts, theirs: Parts, same: Callable[[str, str], bool]) -> bool:
    (kind, sides), (wanted, other_sides) = ours, theirs
    if {*kind.split()} == {*wanted.split()} == {"="}:
        named = is_name(sides[0]) and is_name(other_sides[0]) and squeeze(sides[0]) == squeeze(other_sides[0])
        if named and same(sides[-1], other_sides[-1]):
            return True
        return len(sides) == len(other_sides) == 2 and proportional(sides, other_sides, signed=False)
    if FLIPPED.get(kind) == wanted:
        kind, sides = wanted, sides[::-1]
    if kind != wanted:
        return False
    if len(sides) == len(other_sides) == 2 and kind != "in":
        return proportional(sides, other_sides, signed=kind in FLIPPED)
    return len(sides) == len(other_sides) and all(map(same, sides, other_sides))


# Words


def _meaning(text: str) -> str:
    return _MEANING.get(
        squeeze(re.sub(r"^[A-Za-z]\s*\\in\s*", "", text)).lower().replace("+\\infty", "\\infty"), ""
    ) or (_MEANING.get(_TEXT.sub(r"\1", text).strip(" .").lower(), ""))


def _is_words(text: str) -> bool:
    """Whether a text is words, or the letter of an option, and no mathematics."""
    inside = _TEXT.sub(r"\1", text)
    marked = inside != text
    words = re.findall(r"[^\W\d_]+", inside)
    if "\\" in inside or not words:
        return False
    if _OPTION.fullmatch(inside):
        return marked or "(" in text
    if any(word in FUNCTIONS for word in words) and all(word in FUNCTIONS or len(word) == 1 for word in words):
        return False
    if re.search(r"[=<>^*+|\[\]{}]|\d\s*/|[-/]\s*\d", inside):
        return False
    longest = max(map(len, words))
    if re.search(r"\d", inside):  # "June 20", but not "20 June": a quantity begins with its number
        return bool(re.match(r"[^\W\d_]{3,}", inside)) and (
            marked or bool(re.search(r"[^\W\d_]{3,} \d+(?:st|nd|rd|th)?$", inside))
        )
    return marked or longest > 3 or (longest > 1 and len(words) > 1) or words[0].lower() in ("yes", "no")


def _same_words(a: str, g: str) -> bool:
    ours, theirs = (re.sub(r"(?<=\d)(?:st|nd|rd|th)\b", "", _TEXT.sub(r"\1", text).strip()) for text in (a, g))
    if any(re.search(r"\\[a-z]{2}|[\[\]]|^[-+]\s*[(A-Za-z]", text) for text in (ours, theirs)) or re.search(
        r"\}\s*!", a
    ):
        return False  # mathematics is added to the words
    if option := _OPTION.fullmatch(theirs):
        chosen = _CHOSEN.fullmatch(ours)
        return chosen is not None and (chosen[1] or chosen[2]).upper() == option[1]
    return qa_equal(ours, theirs)
