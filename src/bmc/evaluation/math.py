"""Equality of mathematical answers: numbers, expressions, lists, intervals, matrices, equations, units, words.

Three readings, from the strictest to the most lenient:

1. The same text in one notation (`notation.clean`).
2. The same mathematics: structure is compared part by part, and expressions by their values (`expressions`).
3. A plain number within words ("18 dollars a day"), only where the gold answer is a plain number and the answer has
   neither LaTeX nor algebra. It never overrules a different value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from . import qa
from .expressions import FUNCTIONS, Number, Unreadable, real, same_value, values
from .notation import clean
from .numerals import number_words, spelled
from .units import canonical, known, split_unit

MAX_LENGTH = 2000  # of an answer that is read as mathematics; longer ones are compared as text

_OPEN, _CLOSE = "([{", ")]}"
_NUMBER = r"\d+(?:\.\d+)?|\.\d+"
_PLAIN = re.compile(rf"[+-]?\s*(?:{_NUMBER})")
_DECIMAL = re.compile(r"[+-]?\s*(\d*)\.(\d+)")
_SEPARATOR = re.compile(
    r"\s*(?:,?\s*\\text\{\s*,?\s*(?:and|or)\s*\}|,?\s*(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|[,;])\s*"
)
_RELATION = re.compile(r"\\(?:le|ge|ne|in|approx|equiv|sim|to)(?![A-Za-z])|<=|>=|!=|[<>=]")
_OPERATORS = {"\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\in": "in", "\\approx": "~", "\\sim": "~", "\\equiv": "="}
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_ENVIRONMENT = re.compile(r"\\begin\{(\w*matrix|array)\}(?:\{[^{}]*\})?(.*)\\end\{\1\}", re.DOTALL)
_NOTHING = {
    "no solution",
    "no solutions",
    "no real solution",
    "no real solutions",
    "none",
    "empty set",
    "the empty set",
}
_REALS = {"all real numbers", "all reals", "any real number", "real numbers", "the real numbers", "r"}
_UNDEFINED = {"does not exist", "dne", "undefined"}


def math_equal(answer: str, gold: str) -> bool:
    r"""Whether an answer is the gold one: the same number, expression, list, interval, matrix, equation or words.

    `1/2`, `0.5`, `50\%` and `\frac12` are equal; so are `x = 5`, `5 \text{ cm}` and 5, and lists in any order.
    A unit may be left out, but not replaced by another.

    Args:
        answer: An extracted answer.
        gold: The answer that it must equal.
    """
    if answer.strip() == gold.strip():
        return bool(gold.strip())
    if max(len(answer), len(gold)) > MAX_LENGTH:
        return " ".join(answer.split()) == " ".join(gold.split())
    a, g = _regroup(clean(answer)), _regroup(clean(gold))
    if not a or not g:
        return False
    return _squeeze(a) == _squeeze(g) or _same(a, g) or _same_plain(a, g)


def _squeeze(text: str) -> str:
    """A cleaned text without spaces, but for those between digits, and without braces around single signs."""
    return re.sub(r"\{(\w)\}", r"\1", re.sub(r"(?<!\d) | (?!\d)", "", text))


def _regroup(text: str) -> str:
    """Numbers in one notation: `1,234`, `1 234`, `1'234`, `1_234` → 1234; `2 1/2` and `2\\frac12` → a sum; `0.\\overline{3}`;
    `1.5e3`; `five`."""
    text = re.sub(r"(?<![\\A-Za-z])infinity\b", r"\\infty", number_words(text))
    depth0 = not re.search(r"[(\[{]", re.sub(r"\\text\{[^{}]*\}", "", text))
    if depth0:
        text = re.sub(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)", lambda found: found.group().replace(",", ""), text)
        text = re.sub(
            r"(?<![\d.,])\d{1,2}(?:,\d{2})+,\d{3}(?!\d|,\d)", lambda found: found.group().replace(",", ""), text
        )
        text = re.sub(r"(?<![\d.,])\d{1,3}(?:\.\d{3}){2,}(?![\d.])", lambda found: found.group().replace(".", ""), text)
        text = re.sub(
            r"(?<![\d.,/^_\w])\d{1,3}(?:(?: \d{3})+|(?:'\d{3})+|(?:_\d{3})+)(?![\d/,_'])",
            lambda f: re.sub(r"\D", "", f.group()),
            text,
        )
    text = re.sub(r"(\d*)\.(\d*)(?:\\(?:overline|bar)\{\s*(\d+)\s*\}|\\dot\{?(\d)\}?|\((\d+)\)(?=$))", _repeating, text)
    text = re.sub(
        r"(?<![\d.\w/^_}\])])(\d+)(?:\s+|\s*(?:\\text\{)?\s*and\s*\}?\s*)(\d+)\s*/\s*(\d+)(?![\d.])", _mixed, text
    )
    text = re.sub(
        r"(?<![\d.\w/^_}\])])(\d+)\s*(?:and\s+)?\\frac\s*(?:\{\s*(\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))",
        _mixed_latex,
        text,
    )
    text = re.sub(r"(\d+)\s*(?:\(|\\text\{|\\;)?\s*,?\s*(?:in )?base\s*\}?[ -]?\s*(\d+)\s*[)}]?", r"\1_{\2}", text)
    return re.sub(r"_\s*\{?\s*(?:\\text\{)?\s*(two|three|four|five|six|seven|eight|nine|ten|twelve|sixteen)\s*\}?\s*\}?",
                  lambda found: f"_{{{spelled(found[1])}}}", text)  # fmt: skip


def _repeating(found: re.Match[str]) -> str:
    whole, fixed, repeated = found[1] or "0", found[2], found[3] or found[4] or found[5]
    value = Fraction(int(whole + fixed), 10 ** len(fixed)) + Fraction(
        int(repeated), (10 ** len(repeated) - 1) * 10 ** len(fixed)
    )
    return f"({value.numerator}/{value.denominator})"


def _mixed(found: re.Match[str]) -> str:
    whole, top, bottom = found[1], found[2], found[3]
    return f"({whole}+{top}/{bottom})" if 0 < int(top) < int(bottom) else found.group()


def _mixed_latex(found: re.Match[str]) -> str:
    whole, top, bottom = found[1], found[2] or found[3], found[4] or found[5]
    return f"({whole}+{top}/{bottom})" if 0 < int(top) < int(bottom) else found.group()


# The same mathematics


def _same(a: str, g: str, depth: int = 0) -> bool:
    """Whether two cleaned texts are the same mathematics; the structure decides first, then values."""
    if _squeeze(a) == _squeeze(g):
        return True
    if depth > 8:
        return False
    if _is_words(g) or _is_words(a):
        return _same_words(a, g)
    unions = [_as_union(text) for text in (a, g)]
    if any(unions):
        return all(unions) and _matched(unions[0] or [], unions[1] or [], lambda x, y: _same(x, y, depth + 1))
    items, wanted = _items(a), _items(g)
    if len(items) != len(wanted):
        return False
    if len(wanted) > 1:
        names = [{item.partition("=")[0].strip() for item in each if "=" in item} for each in (items, wanted)]
        if min(map(len, names)) == 0 and max(map(len, names)) > 1:
            return False  # `x = 1, y = 2` says more than `1, 2`
        return _matched(items, wanted, lambda x, y: _same(x, y, depth + 1))
    return _same_item(items[0], wanted[0], depth) if wanted else True


def _same_item(a: str, g: str, depth: int) -> bool:
    for kind in (_relation, _matrix, _bracketed, _ratio):
        parts, wanted = kind(a), kind(g)
        if parts is None and wanted is None:
            continue
        if kind is _relation:
            return _same_relation(a, g, depth)
        if parts is None or wanted is None or parts[0] != wanted[0] or len(parts[1]) != len(wanted[1]):
            return False
        if kind is _ratio and not units_agree(split_unit(a)[1], split_unit(g)[1]):
            return False
        return all(_same(x, y, depth + 1) for x, y in zip(parts[1], wanted[1], strict=True))
    return _same_quantity(a, g)


def _matched(items: Sequence[str], wanted: Sequence[str], same: Callable[[str, str], bool]) -> bool:
    """Whether two lists have the same members, in any order and as often."""
    if len(items) != len(wanted) or len(items) > 50:
        return False
    left = list(wanted)
    for item in items:
        match = next((other for other in left if same(item, other)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _split(text: str, separator: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """Parts of a text between separators that stand in no bracket, and those separators."""
    parts, found, depth, start, position = [], [], 0, 0, 0
    while position < len(text):
        letter = text[position]
        match = separator.match(text, position) if depth == 0 else None
        if match and match.end() > position:
            parts.append(text[start:position])
            found.append(match.group())
            start = position = match.end()
            continue
        if text.startswith(("\\begin", "\\lfloor", "\\lceil", "\\langle"), position):
            depth += 1
        elif text.startswith(("\\end", "\\rfloor", "\\rceil", "\\rangle"), position):
            depth -= 1
        if letter == "\\" and position + 1 < len(text):
            following = text[position + 1]
            depth += (following == "{") - (following == "}")
            position += 2 if not following.isalpha() else 1
            continue
        depth += (letter in _OPEN) - (letter in _CLOSE)
        position += 1
    parts.append(text[start:])
    return [part.strip() for part in parts], found


def _items(text: str) -> list[str]:
    r"""Members of a list or set: `3, 5 and 7`, `\{3, 5, 7\}`; `1 \pm 2` is two of them."""
    text = re.sub(r"^[A-Za-z]\s*\\in\s*(?=\\\{)", "", text)
    braces = re.fullmatch(r"\\\{(.*)\\\}", text, re.DOTALL)
    if braces and len(_split(text, re.compile(r"$^"))[0]) == 1 and _closes_at_end(text):
        text = braces[1]
    parts = [part for part in _split(text, _SEPARATOR)[0] if part]
    items: list[str] = []
    for part in parts:
        signs = re.findall(r"\\(?:pm|mp)(?![A-Za-z])", part)
        if signs and not re.search(r"\\begin", part):
            for plus, minus in (("+", "-"), ("-", "+")):
                items.append(re.sub(r"\\mp(?![A-Za-z])", minus, re.sub(r"\\pm(?![A-Za-z])", plus, part)))
        else:
            items.append(part)
    named = re.fullmatch(r"[A-Za-z](?:_\{?\w+\}?)?\s*=\s*(.*)", items[0]) if len(items) > 1 else None
    if named and not any(_RELATION.search(item) for item in items[1:]):  # `x = 3, 5`
        items[0] = named[1]
    return items


def _closes_at_end(text: str) -> bool:
    """Whether the bracket that opens a text is closed by its end."""
    depth, position = 0, 0
    while position < len(text):
        letter = text[position]
        if letter == "\\" and text[position + 1 : position + 2] in ("{", "}"):
            position += 1
            letter = text[position]
        depth += (letter in _OPEN) - (letter in _CLOSE)
        position += 1
        if depth == 0:
            return position >= len(text)
    return False


def _as_union(text: str) -> list[str] | None:
    r"""Intervals of `A \cup B` or of `x < 2 or x > 3`; None for anything else."""
    text = re.sub(r"^[A-Za-z]\s*\\in\s*(?=[(\[])", "", text)
    parts, found = _split(text, re.compile(r"\\cup(?![A-Za-z])"))
    if found:
        return parts
    parts, found = _split(text, re.compile(r"\s*,?\s*(?:\\text\{\s*or\s*\}|(?<![A-Za-z\\])or(?![A-Za-z]))\s*"))
    intervals = [_interval(part) for part in parts]
    return [part for part in intervals if part] if found and all(intervals) else None


def _interval(text: str) -> str | None:
    r"""The interval that an inequality of one bare variable describes: `-2 \le x < 7` → `[-2,7)`."""
    sides, operators = _sides(text)
    names = [place for place, side in enumerate(sides) if re.fullmatch(r"[A-Za-z]|\\[a-z]{2,7}(?<!\\pi)", side)]
    if len(names) != 1 or any(operator not in _FLIPPED for operator in operators) or len(sides) > 3:
        return None
    if len(sides) == 2:
        bound, operator = sides[1 - names[0]], operators[0] if names[0] == 0 else _FLIPPED[operators[0]]
        if operator in ("<", "<="):
            return rf"(-\infty,{bound}{']' if operator == '<=' else ')'}"
        return rf"{'[' if operator == '>=' else '('}{bound},\infty)"
    if names[0] != 1:
        return None
    if all(operator in (">", ">=") for operator in operators):
        sides, operators = sides[::-1], [_FLIPPED[operator] for operator in operators[::-1]]
    if not all(operator in ("<", "<=") for operator in operators):
        return None
    opening, closing = "[" if operators[0] == "<=" else "(", "]" if operators[1] == "<=" else ")"
    return f"{opening}{sides[0]},{sides[2]}{closing}"


def _sides(text: str) -> tuple[list[str], list[str]]:
    sides, operators = _split(text, _RELATION)
    return sides, [_OPERATORS.get(operator, operator) for operator in operators]


def _relation(text: str) -> tuple[str, list[str]] | None:
    sides, operators = _sides(text)
    return (" ".join(operators), sides) if operators and all(sides) else None


def _matrix(text: str) -> tuple[str, list[str]] | None:
    """Entries of a matrix, with its shape; the kind of brackets matters for determinants only."""
    found = _ENVIRONMENT.search(text)
    if not found:
        return None
    before, after = text[: found.start()].strip(), text[found.end() :].strip()
    if (before, after) not in (("", ""), ("(", ")"), ("[", "]")):
        return None
    rows = [
        row.split("&") for row in re.split(r"\\\\(?:\[[^\]]*\])?|\\cr", found[2].replace("\\hline", "")) if row.strip()
    ]
    kind = found[1] if found[1] in ("vmatrix", "Vmatrix") else "matrix"
    return f"{kind} {[len(row) for row in rows]}", [entry.strip() for row in rows for entry in row]


def _bracketed(text: str) -> tuple[str, list[str]] | None:
    """Members of a pair, an interval or a vector, with its brackets: `(3, 4]`."""
    text = text.replace("\\langle", "(").replace("\\rangle", ")")
    if not (text.startswith(("(", "[")) and text.endswith((")", "]")) and _closes_at_end(text)):
        return None
    parts = _split(text[1:-1], re.compile(r"\s*[,;]\s*"))[0]
    return (text[0] + text[-1], parts) if len(parts) > 1 else None


def _ratio(text: str) -> tuple[str, list[str]] | None:
    """Parts of a ratio or a time: `3:4`, `3 to 4`, `6:45 a.m.`; a time's unit is compared apart."""
    parts = re.split(r"(?<=[\d})A-Za-z])\s*:\s*|(?<=\d)\s+(?:\\text\{to\}|to)\s+(?=\d)", split_unit(text)[0])
    return (str(len(parts)), [part.strip() for part in parts]) if len(parts) > 1 and all(parts) else None


# Relations


def _same_relation(a: str, g: str, depth: int) -> bool:
    a_relation, g_relation = _relation(a), _relation(g)
    if a_relation and g_relation:
        return _same_relations(a_relation, g_relation, depth)
    relation, other, mine = (a_relation, g, True) if a_relation else (g_relation, a, False)
    assert relation is not None
    interval = _interval(a if mine else g)
    if interval:
        return _bracketed(other) is not None and _same(interval, other, depth + 1)
    candidates = _stated(*relation)
    return any(_same(value, other, depth + 1) if mine else _same(other, value, depth + 1) for value in candidates)


def _stated(operators: str, sides: list[str]) -> list[str]:
    """The value that a relation states for a name, or for what has been worked out: `x = 5`, `7 + 8 = 15`, `x \\in A`."""
    kinds = set(operators.split())
    if kinds == {"in"} and _is_name(sides[0]):
        return [sides[-1]]
    if kinds <= {"=", "~"} and (_is_name(sides[0]) or all(_is_constant(side) for side in sides[:-1])):
        if "~" in kinds:
            return sides[1:] if _is_name(sides[0]) else sides
        return [sides[-1]]
    return []


def _is_name(text: str) -> bool:
    """Whether a text names something instead of calculating: `x`, `x_1`, `f(x)`, `AB`, `\\angle A`, `\\text{Area}`, words."""
    return bool(re.fullmatch(r"(?:[A-Za-z\s'.:|,]|\\[A-Za-z]+|\\text\{[^{}]*\}|_\{?\w+\}?|(?<=[A-Za-z])\([\w, .-]+\)|\([A-Za-z](?:\s*,\s*[A-Za-z])*\)|_\{[^{}]*\}|\^\{?-1\}?|\^\s*\\circ)+", text)
                and not re.search(r"\\(?:frac|sqrt|pi|infty|cdot|times)(?![A-Za-z])", text))  # fmt: skip


def _is_constant(text: str) -> bool:
    try:
        found = values(_worded(text))
    except Unreadable:
        return bool(re.search(r"[A-Za-z]{2}", text))  # "9 eggs * $2 = $18"
    return all(value is not None and same_value(value, found[0]) for value in found)


def _worded(text: str) -> str:
    return split_unit(text)[0]


def _same_relations(a: tuple[str, list[str]], g: tuple[str, list[str]], depth: int) -> bool:
    (a_operators, a_sides), (g_operators, g_sides) = a, g
    if set(a_operators.split()) == set(g_operators.split()) == {"="}:
        if _is_name(a_sides[0]) and _is_name(g_sides[0]) and _squeeze(a_sides[0]) == _squeeze(g_sides[0]):
            if _same(a_sides[-1], g_sides[-1], depth + 1):
                return True
        if len(a_sides) == len(g_sides) == 2:
            return _proportional(a_sides, g_sides, signed=False)
        return False
    forms = [_interval(_join(*relation)) for relation in (a, g)]
    if all(forms):
        return _same(forms[0] or "", forms[1] or "", depth + 1)
    if "in" in (a_operators, g_operators):
        stated = [
            (_stated(*relation) or [""])[0] if relation[0] == "in" else _interval(_join(*relation))
            for relation in (a, g)
        ]
        names = [relation[1][0] for relation in (a, g) if relation[0] == "in"]
        return (
            all(stated)
            and (len(names) < 2 or names[0] == names[1])
            and _same(stated[0] or "", stated[1] or "", depth + 1)
        )
    if len(a_sides) != 2 or len(g_sides) != 2:
        return a_operators == g_operators and all(_same(x, y, depth + 1) for x, y in zip(a_sides, g_sides, strict=True))
    if a_operators == g_operators:
        return _proportional(a_sides, g_sides, signed=a_operators in _FLIPPED)
    if _FLIPPED.get(a_operators) == g_operators:
        return _proportional(a_sides[::-1], g_sides, signed=True)
    return False


def _join(operators: str, sides: list[str]) -> str:
    joined = sides[0]
    for operator, side in zip(operators.split(), sides[1:], strict=True):
        joined += f" {operator} {side}"
    return joined


def _proportional(a: list[str], g: list[str], signed: bool) -> bool:
    """Whether left − right of one relation is a constant multiple of the other's; a positive one if `signed`."""
    try:
        ours, theirs = ([values(side) for side in sides] for sides in (a, g))
    except Unreadable:
        return False
    ratios: list[Number] = []
    for ours_left, ours_right, their_left, their_right in zip(*ours, *theirs, strict=True):
        if None in (ours_left, ours_right, their_left, their_right):
            continue
        mine, wanted = _minus(ours_left, ours_right), _minus(their_left, their_right)
        if wanted == 0 or mine == 0:
            return False
        ratios.append(
            mine / wanted
            if isinstance(mine, Fraction) == isinstance(wanted, Fraction)
            else _float(mine) / _float(wanted)
        )
    return (
        len(ratios) > 1
        and all(same_value(ratio, ratios[0]) for ratio in ratios)
        and (not signed or (real(ratios[0]) or 0) > 0)
    )


def _float(value: Number) -> Number:
    from .expressions import lift

    return lift(value)


def _minus(a: Number, b: Number) -> Number:
    return a - b if isinstance(a, Fraction) and isinstance(b, Fraction) else _float(a) - _float(b)


# Quantities: a value and perhaps a unit


def _same_quantity(a: str, g: str) -> bool:
    if _same_expression(a, g):
        return True
    (a_core, a_unit), (g_core, g_unit) = split_unit(a), split_unit(g)
    if not a_unit and not g_unit:
        return False
    if "%" in (a_unit, g_unit):
        return _same_percent(a_core, a_unit, g_core, g_unit)
    return units_agree(a_unit, g_unit) and _same_expression(a_core, g_core)


def units_agree(a: str, g: str) -> bool:
    """Whether two units may belong to the same quantity: one is left out, or both name the same."""
    if not a or not g or a == g:
        return True
    return bool(known(g)) and known(g) <= known(a) or (not known(a) and not known(g) and (a in g or g in a))


def _same_percent(a: str, a_unit: str, g: str, g_unit: str) -> bool:
    """50 % is 0.5, and 50 where a question asks for percent; of numbers below 1 only the value counts."""
    if a_unit == g_unit:
        return _same_expression(a, g)
    if a_unit and g_unit:
        return False
    percent, number = (a, g) if a_unit else (g, a)
    if _same_expression(f"({percent})/100", number):
        return True
    return _same_expression(a, g) and (bool(g_unit) or _at_least_one(g))


def _at_least_one(text: str) -> bool:
    value = real(values(text)[0])
    return value is not None and (abs(value) >= 1 or value == 0)


def _same_expression(a: str, g: str) -> bool:
    try:
        ours, theirs = values(a), values(g)
    except Unreadable:
        return _squeeze(a) == _squeeze(g)
    pairs = [(x, y) for x, y in zip(ours, theirs, strict=True) if x is not None and y is not None]
    if len(pairs) > 1 and all(same_value(x, y) for x, y in pairs):
        return True
    return len(pairs) > 1 and (_rounds(a, ours, g, theirs) or _rounds(g, theirs, a, ours))


def _rounds(decimal: str, found: list[Number | None], exact: str, values_: list[Number | None]) -> bool:
    """Whether a decimal of six significant digits or more is the exact value, rounded or cut off; or, beside another
    plain number, the same but for a computer's last digits."""
    literal = _DECIMAL.fullmatch(decimal.strip("() "))
    value = real(values_[0]) if values_[0] is not None else None
    ours = real(found[0]) if found[0] is not None else None
    if (
        not literal
        or value is None
        or ours is None
        or not all(v is not None and same_value(v, values_[0]) for v in values_)
    ):
        return False
    digits = len((literal[1] + literal[2]).lstrip("0"))
    if _PLAIN.fullmatch(exact.strip("() ")):
        return digits >= 14 and abs(value - ours) <= abs(value) / 10**12
    step = Fraction(1, 10 ** len(literal[2]))
    return digits >= 6 and (abs(value - ours) <= step / 2 or (abs(value - ours) < step and abs(ours) < abs(value)))


# Words


def _is_words(text: str) -> bool:
    """Whether a text is words, or the letter of an option, and no mathematics."""
    inside = re.sub(r"\\text\{([^{}]*)\}", r"\1", text)
    if "\\" in inside and not re.fullmatch(r"\\emptyset|\\mathbb\s*\{?R\}?|\\\{\s*\\\}", inside):
        return False
    if re.fullmatch(r"\(?[A-Z]\)?[.:)]?", inside) and ("(" in text or "\\text" in text):
        return True
    if "\\" in inside:
        return True
    letters = re.findall(r"[^\W\d_]+", inside)
    if (
        not letters
        or all(run in FUNCTIONS or len(run) == 1 for run in letters)
        and any(run in FUNCTIONS for run in letters)
        or re.search(r"[=<>^*+|\[\]{}]|\d\s*/|[-/]\s*\d", inside)
    ):
        return False
    longest = max(map(len, letters))
    if re.search(r"\d", inside):
        return (
            bool(re.match(r"[^\W\d_]{3,}", inside))
            and longest > 2
            and bool(re.search(r"\\text|[^\W\d_]{3,} \d+(?:st|nd|rd|th)?$", text))
        )
    return (
        longest > 3
        or (longest > 1 and len(inside.split()) > 1)
        or "\\text" in text
        or inside.lower() in _UNDEFINED | {"yes", "no"}
        or not inside.isascii()
    )


def _same_words(a: str, g: str) -> bool:
    ours, theirs = (re.sub(r"\\text\{([^{}]*)\}", r"\1", text).strip() for text in (a, g))
    groups = [_group(text) for text in (ours, theirs)]
    if any(groups):
        return groups[0] == groups[1]
    if any(re.search(r"\\[a-z]{2}|[\[\]]|^[-+]\s*[(A-Za-z]", text) for text in (ours, theirs)) or re.search(
        r"\}\s*!", a
    ):
        return False
    if option := re.fullmatch(r"\(?([A-Z])\)?\.?", theirs):
        said = re.fullmatch(
            r"(?:(?:option|choice)\s+)?(?:\(([a-z])\)|([a-z]))[.:)]?(?:\s+(?!or\b|and\b)\w[^\s,].*)?",
            ours,
            re.IGNORECASE,
        )
        return bool(said) and (said[1] or said[2]).upper() == option[1]
    return qa.qa_equal(_ordinals(ours), _ordinals(theirs))


def _ordinals(text: str) -> str:
    return re.sub(r"(?<=\d)(?:st|nd|rd|th)\b", "", text)


def _group(text: str) -> str:
    """The name of what several words mean: nothing, all reals, undefined."""
    text = re.sub(r"^[A-Za-z]\s*\\in\s*", "", text)
    words = text.lower().strip(" .")
    if words in _NOTHING or re.fullmatch(r"\\emptyset|\\\{\s*\\\}", text):
        return "nothing"
    if re.fullmatch(r"\\mathbb\s*\{?R\}?|\(\s*-\s*\\infty\s*,\s*\+?\s*\\infty\s*\)", text) or words in _REALS - {"r"}:
        return "reals"
    return "undefined" if words in _UNDEFINED else ""


# A plain number within words

_MATHS = re.compile(
    r"\b(?:not|never|no|than|least|most|over|under|above|below|nearly|almost|between|plus|minus|times \d|divided|squared|cubed|"
    r"factorial|pi|root|sqrt|half|halves|thirds?|fourths?|fifths?|sixths?|sevenths?|eighths?|ninths?|tenths?|hundredths?|thousandths?|"
    r"or|infinity|except|from|to|instead|wrong|either|neither|if|unless|isn't|log|sin|cos|tan|ln|mod|dozens?|hundreds?|thousands?|"
    r"millions?|billions?|trillions?|degrees? [CF]\b)\b|n't\b",
    re.IGNORECASE,
)
_ALGEBRA = re.compile(
    r"(?<!\w)-(?!\w)|[\\^*=<>+|/!_\[\]{}&]|\d[A-Za-z]|(?<![A-Za-z'])(?![aAI]\b|[mgshlL]\b)[A-Za-z](?![A-Za-z'.])"
)


def _same_plain(a: str, g: str) -> bool:
    """Whether an answer in words has one number, and that is the gold one."""
    g_core, g_unit = split_unit(g)
    if not _PLAIN.fullmatch(g_core) or a == g:
        return False
    a = re.sub(r"\((?:[A-Za-z%¤ ]+)\)\s*$|\(s\)", " ", re.sub(r"\\text\{([^{}]*)\}", r" \1 ", a))
    a = re.sub(r"\\%", "%", a)
    a = re.sub(r"(?i)\b(?:minus|negative)\s+(?=[\d.])", "-", a)
    a = re.sub(r"(?<=\d)(?:st|nd|rd|th)\b", "", a)
    a = re.sub(r"(?<=\d)(?=(?:cm|km|mm|kg|ft|in|mph|lbs?|oz|min|hrs?|mi|mg|ml|yd|sec)\b)", " ", a)
    found = re.findall(rf"(?<![\w.])(-?\s*[¤£€¥₹]?\s*-?(?:{_NUMBER}))(?![\w:]|\.\d)", a)
    if len(found) != 1 or len(re.findall(r"\d+(?:\.\d+)?|\.\d+", a)) != 1:
        return False
    before, _, after = a.partition(found[0])
    rest = f"{before} {after}"
    if _MATHS.search(rest) or _ALGEBRA.search(rest.replace("%", " ")):
        return False
    number, money = re.sub(r"[^\d.-]", "", found[0]), re.search(r"[¤£€¥₹]", found[0])
    unit = canonical((money[0] if money else "") + " " + re.split(r"[.,;:]\s|\bper\b", after)[0])
    if re.match(r"\s*%|\s*percent", after):
        return _same_percent(number, "%", g_core, g_unit)
    units = known(unit)
    if g_unit and units and not known(g_unit) <= units:
        return False
    return _same_expression(number, g_core)
