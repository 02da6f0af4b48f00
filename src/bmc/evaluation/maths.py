"""Equality of mathematical answers: numbers, expressions, lists, intervals, matrices, equations, units, words.

Three readings, from the strictest to the most lenient:

1. The same text in one notation (`math_reading.clean`).
2. The same mathematics: structure is compared part by part, and expressions by their values (`math_reading.values`).
3. A plain number within words ("18 dollars a day"), only where the gold answer is a plain number and the answer has
   neither LaTeX nor algebra (`same_plain`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

from .math_reading import (
    CURRENCIES,
    FUNCTIONS,
    Unreadable,
    Values,
    canonical,
    clean,
    constant,
    known,
    proportional,
    same_values,
    split_unit,
    squeeze,
    values,
)
from .qa import qa_equal

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
    r"""Return whether an answer is the gold one: the same number, expression, list, interval, matrix, equation or
    words.

    `1/2`, `0.5`, `50\%` and `\frac12` are equal; so are `x = 5`, `5 \text{ cm}` and 5, and lists in any order.
    A unit may be left out, but not replaced by another. It takes milliseconds whatever the texts are.
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
    """Return an answer, and what it states for a calculation before or behind it: `6*3 = 18 eggs`, `18 (6*3)`."""
    found = [text]
    if equation := relation(text):
        found += _stated(*equation)
    behind = _BEHIND.fullmatch(text)
    if behind and same_expression(behind[2], (behind[3].rpartition("=")[0] or behind[3]).strip()):
        found.append(behind[1])
    return found


def _same_digits(a: str, g: str) -> bool:
    """Return whether an answer leaves out the base of the gold one: `10101` for `10101_2`."""
    digits, found, _ = g.partition("_")
    return bool(found) and bool(re.fullmatch(r"[\dA-F]+_(?:\{\d+\}|\d+)", g)) and a.lstrip("0") == digits.lstrip("0")


def _same(a: str, g: str, depth: int = 0) -> bool:
    """Return whether two cleaned texts are the same mathematics or the same words."""

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
    """Compare the names that two lists give their members: `x = 1, y = 2` says more than `1, 2`."""
    names = [{item.partition("=")[0].strip() for item in each if "=" in item} for each in (ours, theirs)]
    return min(map(len, names)) > 0 or max(map(len, names)) <= 1


def _same_members(ours: list[str] | None, theirs: list[str] | None, same: Callable[[str, str], bool]) -> bool:
    """Return whether two lists have the same members, in any order and as often."""
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
    """Return whether two texts that are no lists are the same: relation, matrix, pair, ratio or quantity."""
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
    """Return whether two texts, one of which at least is a relation, are the same."""
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
    r"""Rewrite `x \in A` as `A`."""
    found = relation(text)
    return found[1][-1] if found and found[0] == "in" and is_name(found[1][0]) else text


def _stated(operators: str, sides: list[str]) -> list[str]:
    r"""Return the value that a relation states for a name, or for what it works out: `x = 5`, `7 + 8 = 15`, `x \in
    A`."""
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
    """Return whether a text is words, or the letter of an option, and no mathematics."""
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


# Structure: lists, unions, intervals, relations, matrices, pairs, ratios

Parts = tuple[str, list[str]]  # what kind of whole it is, and its parts

_OPEN, _CLOSE = "([{", ")]}"
_OPEN_COMMANDS, _CLOSE_COMMANDS = (
    tuple(f"\\{name}" for name in names.split()) for names in ("begin lfloor lceil langle", "end rfloor rceil rangle")
)
_JOINING = r"\\text\{{\s*,?\s*(?:{0})\s*\}}|(?<![A-Za-z\\])(?:{0})(?![A-Za-z])"
_SEPARATOR = re.compile(rf"\s*(?:,?\s*(?:{_JOINING.format('and|or')})|[,;])\s*")
_OR = re.compile(rf"\s*,?\s*(?:{_JOINING.format('or')})\s*")
_CUP = re.compile(r"\\cup(?![A-Za-z])")
_COMMA = re.compile(r"\s*[,;]\s*")
_RELATION = re.compile(r"\\(?:le|ge|ne|in|approx|equiv|sim|to)(?![A-Za-z])|<=|>=|!=|[<>=]")
_OPERATORS = {"\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\in": "in", "\\approx": "~", "\\sim": "~", "\\equiv": "="}
FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_ENVIRONMENT = re.compile(r"\\begin\{(\w*matrix|array)\}(?:\{[^{}]*\})?(.*)\\end\{\1\}", re.DOTALL)
_ROW = re.compile(r"\\\\(?:\[[^\]]*\])?|\\cr")
_NAME = re.compile(
    r"(?:[A-Za-z\s'.:|,]|\\[A-Za-z]++|\\text\{[^{}]*\}|_\{?\w++\}?|_\{[^{}]*\}|\^\{?-1\}?|\^\s*\\circ"
    r"|(?<=[A-Za-z])\([\w, .-]+\)|\([A-Za-z](?:\s*,\s*[A-Za-z])*\))++"
)
_CALCULATION = re.compile(r"\\(?:frac|sqrt|pi|infty|cdot|times)(?![A-Za-z])")


def split(text: str, separator: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """Split a text at separators that stand in no bracket; return the parts and the separators."""
    parts, found, depth, start, position = [], [], 0, 0, 0
    while position < len(text):
        match = separator.match(text, position) if depth == 0 else None
        if match and match.end() > position:
            parts.append(text[start:position])
            found.append(match.group())
            start = position = match.end()
            continue
        change, length = _bracket(text, position)
        depth += change
        position += length
    parts.append(text[start:])
    return [part.strip() for part in parts], found


def _bracket(text: str, position: int) -> tuple[int, int]:
    """By how much the sign at a position nests what follows deeper, and how long it is."""
    letter = text[position]
    if letter == "\\":
        if text.startswith(_OPEN_COMMANDS, position):
            return 1, 2
        if text.startswith(_CLOSE_COMMANDS, position):
            return -1, 2
        following = text[position + 1 : position + 2]
        return (following == "{") - (following == "}"), 1 if following.isalpha() else 2
    return (letter in _OPEN) - (letter in _CLOSE), 1


def _closes_at_end(text: str) -> bool:
    """Return whether the bracket that opens a text is closed by its end."""
    depth, position = 0, 0
    while position < len(text):
        change, length = _bracket(text, position)
        depth += change
        position += length
        if depth == 0:
            return position >= len(text)
    return False


def items(text: str) -> list[str]:
    r"""Return the members of a list or set: `3, 5 and 7`, `\{3, 5, 7\}`, `x = 3, 5`; `1 \pm 2` is two of them."""
    text = re.sub(r"^[A-Za-z]\s*\\in\s*(?=\\\{)", "", text)
    if text.startswith("\\{") and text.endswith("\\}") and _closes_at_end(text):
        text = text[2:-2].strip()
    members = [member for part in split(text, _SEPARATOR)[0] if part for member in _signed(part)]
    named = re.fullmatch(r"[A-Za-z](?:_\{?\w+\}?)?\s*=\s*(.*)", members[0]) if len(members) > 1 else None
    if named and not any(_RELATION.search(member) for member in members[1:]):
        members[0] = named[1]
    return members


def _signed(text: str) -> list[str]:
    r"""Both values of a text with `\pm`."""
    if not re.search(r"\\(?:pm|mp)(?![A-Za-z])", text) or "\\begin" in text:
        return [text]
    return [re.sub(r"\\mp(?![A-Za-z])", minus, re.sub(r"\\pm(?![A-Za-z])", plus, text)) for plus, minus in ("+-", "-+")]


def union(text: str) -> list[str] | None:
    r"""Return the intervals of `A \cup B` or of `x < 2 or x > 3`; None for anything else."""
    parts, found = split(re.sub(r"^[A-Za-z]\s*\\in\s*(?=[(\[])", "", text), _CUP)
    if found:
        return parts
    parts, found = split(text, _OR)
    intervals = [interval(part) for part in parts]
    return [part for part in intervals if part] if found and all(intervals) else None


def interval(text: str) -> str | None:
    r"""Return the interval that an inequality of one bare variable describes: `-2 \le x < 7` → `[-2,7)`."""
    operators, sides = relation(text) or ("", [])
    kinds = operators.split()
    names = [place for place, side in enumerate(sides) if re.fullmatch(r"[A-Za-z]|\\(?!pi|infty)[a-z]{2,7}", side)]
    if len(names) != 1 or len(sides) > 3 or any(kind not in FLIPPED for kind in kinds):
        return None
    if len(sides) == 2:
        bound, kind = sides[1 - names[0]], kinds[0] if names[0] == 0 else FLIPPED[kinds[0]]
        closed = kind.endswith("=")
        return rf"(-\infty,{bound}{')]'[closed]}" if kind[0] == "<" else rf"{'(['[closed]}{bound},\infty)"
    if all(kind[0] == ">" for kind in kinds):
        sides, kinds = sides[::-1], [FLIPPED[kind] for kind in kinds[::-1]]
    if names[0] != 1 or any(kind[0] == ">" for kind in kinds):
        return None
    return f"{'(['[kinds[0] == '<=']}{sides[0]},{sides[2]}{')]'[kinds[1] == '<=']}"


def relation(text: str) -> Parts | None:
    """Return the operators and sides of an equation, an inequality, or a chain of them."""
    sides, operators = split(text, _RELATION)
    return (" ".join(_OPERATORS.get(sign, sign) for sign in operators), sides) if operators and all(sides) else None


def is_name(text: str) -> bool:
    r"""Return whether a text names something and calculates nothing: `x`, `x_1`, `f(x)`, `AB`, `\angle A`,
    `\text{Area}`."""
    return bool(_NAME.fullmatch(text)) and not _CALCULATION.search(text)


def matrix(text: str) -> Parts | None:
    """Shape and entries of a matrix; the kind of brackets matters for determinants only."""
    found = _ENVIRONMENT.search(text)
    if not found:
        return None
    if text[: found.start()].strip() + text[found.end() :].strip() not in ("", "()", "[]"):
        return None
    rows = [row.split("&") for row in _ROW.split(found[2].replace("\\hline", "")) if row.strip()]
    kind = found[1] if found[1] in ("vmatrix", "Vmatrix") else "matrix"
    return f"{kind} {[len(row) for row in rows]}", [entry.strip() for row in rows for entry in row]


def bracketed(text: str) -> Parts | None:
    """Return the brackets and members of a pair, an interval or a vector: `(3, 4]`."""
    text = text.replace("\\langle", "(").replace("\\rangle", ")")
    if not (text.startswith(("(", "[")) and text.endswith((")", "]")) and _closes_at_end(text)):
        return None
    parts = split(text[1:-1], _COMMA)[0]
    return (text[0] + text[-1], parts) if len(parts) > 1 else None


def ratio(text: str) -> Parts | None:
    """Return the parts of a ratio or a time without its unit: `3:4`, `3 to 4`, `6:45 a.m.`"""
    parts = re.split(r"(?<=[\d})A-Za-z])\s*:\s*|(?<=\d)\s+(?:\\text\{to\}|to)\s+(?=\d)", split_unit(text)[0])
    return (str(len(parts)), [part.strip() for part in parts]) if len(parts) > 1 and all(parts) else None


# Quantities: a value, and perhaps a unit or a percent sign, alone or within words

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
    """Return whether two cleaned texts have the same value; a unit may be left out, but not replaced by another."""
    if same_expression(a, g):
        return True
    (a_core, a_unit), (g_core, g_unit) = split_unit(a), split_unit(g)
    if not a_unit and not g_unit:
        return False
    if "%" in (a_unit, g_unit):
        return _same_percent(a_core, a_unit, g_core, g_unit)
    return units_agree(a_unit, g_unit) and same_expression(a_core, g_core)


def same_plain(a: str, g: str) -> bool:
    """Return whether an answer in words has one number, and that is the gold one; only of plain gold numbers."""
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
    """Return whether two units may belong to the same quantity: one is left out, or both name the same."""
    if not a or not g or a == g:
        return True
    if known(a) or known(g):
        return bool(known(g)) and known(g) <= known(a)
    return a in g or g in a


def _same_percent(a: str, a_unit: str, g: str, g_unit: str) -> bool:
    """Compare percentages: 50 % is 0.5, and 50 where x asks for percent; of numbers below 1 only the value counts."""
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
    """Return whether two expressions have the same values; a decimal of six digits may stand for a fraction or a
    root."""
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
    """Return whether a decimal is the other value, rounded or cut off; of another plain number, but for a computer's
    last digits."""
    literal = _DECIMAL.fullmatch(decimal.strip("() "))
    value, exact = constant(its_values), constant(other_values)
    if not literal or value is None or exact is None:
        return False
    digits, error = len((literal[1] + literal[2]).lstrip("0")), abs(value - exact)
    if _PLAIN.fullmatch(other.strip("() ")):
        return digits >= 14 and error <= abs(exact) / 10**12
    step = Fraction(1, 10 ** len(literal[2]))
    return digits >= _ENOUGH and (error <= step / 2 or (error < step and abs(value) < abs(exact)))
