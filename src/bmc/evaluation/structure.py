"""How a cleaned mathematical answer is put together: lists, unions, intervals, relations, matrices, pairs, ratios."""

from __future__ import annotations

import re

from .units import split_unit

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
_NOWHERE = re.compile(r"$^")
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
    """Parts of a text between separators that stand in no bracket, and those separators."""
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
    """Whether the bracket that opens a text is closed by its end."""
    depth, position = 0, 0
    while position < len(text):
        change, length = _bracket(text, position)
        depth += change
        position += length
        if depth == 0:
            return position >= len(text)
    return False


def items(text: str) -> list[str]:
    r"""Members of a list or set: `3, 5 and 7`, `\{3, 5, 7\}`, `x = 3, 5`; `1 \pm 2` is two of them."""
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
    r"""Intervals of `A \cup B` or of `x < 2 or x > 3`; None for anything else."""
    parts, found = split(re.sub(r"^[A-Za-z]\s*\\in\s*(?=[(\[])", "", text), _CUP)
    if found:
        return parts
    parts, found = split(text, _OR)
    intervals = [interval(part) for part in parts]
    return [part for part in intervals if part] if found and all(intervals) else None


def interval(text: str) -> str | None:
    r"""The interval that an inequality of one bare variable describes: `-2 \le x < 7` → `[-2,7)`."""
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
    """Operators and sides of an equation, an inequality, or a chain of them."""
    sides, operators = split(text, _RELATION)
    return (" ".join(_OPERATORS.get(sign, sign) for sign in operators), sides) if operators and all(sides) else None


def is_name(text: str) -> bool:
    r"""Whether a text names something and calculates nothing: `x`, `x_1`, `f(x)`, `AB`, `\angle A`, `\text{Area}`."""
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
    """Brackets and members of a pair, an interval or a vector: `(3, 4]`."""
    text = text.replace("\\langle", "(").replace("\\rangle", ")")
    if not (text.startswith(("(", "[")) and text.endswith((")", "]")) and _closes_at_end(text)):
        return None
    parts = split(text[1:-1], _COMMA)[0]
    return (text[0] + text[-1], parts) if len(parts) > 1 else None


def ratio(text: str) -> Parts | None:
    """Parts of a ratio or a time without its unit: `3:4`, `3 to 4`, `6:45 a.m.`"""
    parts = re.split(r"(?<=[\d})A-Za-z])\s*:\s*|(?<=\d)\s+(?:\\text\{to\}|to)\s+(?=\d)", split_unit(text)[0])
    return (str(len(parts)), [part.strip() for part in parts]) if len(parts) > 1 and all(parts) else None
