"""Units of measurement, currencies and counted things that stand beside a number."""

from __future__ import annotations

import re

CURRENCIES = "¤£€¥₹"

_SYNONYMS = {
    "mm": "millimeter millimetre", "cm": "centimeter centimetre", "dm": "decimeter decimetre",
    "m": "meter metre", "km": "kilometer kilometre", "in": "inch inches", "ft": "foot feet", "yd": "yard",
    "mi": "mile", "mg": "milligram", "g": "gram gm gramme", "kg": "kilogram kilo", "lb": "pound lbs",
    "oz": "ounce", "ton": "tonne", "s": "second sec", "min": "minute mins", "h": "hour hr hrs", "day": "",
    "week": "wk", "month": "", "year": "yr yrs", "l": "liter litre L", "ml": "milliliter millilitre mL",
    "gal": "gallon", "qt": "quart", "pt": "pint", "cup": "", "acre": "", "rad": "radian", "°": "degree deg",
    "°C": "celsius", "°F": "fahrenheit", "¤": "dollar usd USD buck", "cent": "¢", "£": "gbp", "€": "euro eur",
    "¥": "yen yuan rmb", "₹": "rupee rs", "%": "percent percentage pct", "unit": "", "mph": "", "kph": "kmph",
    "am": "a.m", "pm": "p.m", "v": "volt V", "w": "watt W", "j": "joule J", "n": "newton N", "hz": "hertz Hz",
}  # fmt: skip
_CANONICAL = {word: unit for unit, words in _SYNONYMS.items() for word in (unit, *words.split())}
_SINGLE = {"m", "g", "s", "h", "l", "L"}  # units that are letters, and so variables where no space stands before
_POWERS = {"square": 2, "squared": 2, "sq": 2, "cubic": 3, "cubed": 3, "cu": 3}
_FILLERS = {"of", "the", "a", "an", "in", "total"}

_WORD = re.compile(r"[A-Za-z]+(?:\.[A-Za-z]\b)?")
_PART = re.compile(r"°[CF]?|[A-Za-z]+(?:\.[A-Za-z]\b)?|[¤£€¥₹¢%/]|\^?\d")
_MONEY = re.compile(rf"(-?)\s*(?:USD\s*|US\s*(?=¤))?([{CURRENCIES}]|USD)\s*(?=[\d.\\(-])")
_TAIL_START = re.compile(r"(?<=[\d})\]!|.])|\s|(?<=[A-Za-z])(?=\\text)")
_TAIL = re.compile(
    r"\s*(?:\\text\{[^{}]*\}\s*(?:\^\s*(?:\{\d\}|\d))?|\^\s*\\circ(?:\s*[CF]\b)?|\\?%|[¢/¤€£¥₹]|\s"
    r"|[A-Za-z]++(?:\.[A-Za-z]\b)?\.?(?:\s*\^\s*(?:\{[23]\}|[23]))?)++"
)


def canonical(words: str) -> str:
    """Write a unit in one way: `square inches`, `in.^2` and `inches squared` → `in^2`; `miles per hour` → `mi/h`.

    Words that are no unit stay, in the singular.
    """
    text = words.replace("^\\circ", "°").replace("\\%", "%")
    text = re.sub(r"[\\{}]|\btext\b", " ", re.sub(r"°\s*([CF])\b", r"°\1", text))
    text = re.sub(r"\bm\.?p\.?h\b", "mi/h", text).replace(" per ", " / ")
    parts: list[str] = []
    power = 1
    for word in _PART.findall(text):
        if word in _POWERS and word.endswith("ed") and parts:
            parts[-1] += f"^{_POWERS[word]}"
        elif word in _POWERS:
            power = _POWERS[word]
        elif word[-1].isdigit() and parts:
            parts[-1] += f"^{word[-1]}"
        elif word not in _FILLERS or not (parts or power > 1):
            parts.append(_name(word) + (f"^{power}" if power > 1 else ""))
            power = 1
    return " ".join(parts).replace(" / ", "/")


def _name(word: str) -> str:
    if word in _CANONICAL:
        return _CANONICAL[word]
    lower = word.lower().rstrip(".")
    for name in (lower, lower.removesuffix("s"), lower.removesuffix("es")):
        if name in _CANONICAL and len(name) > 1:
            return _CANONICAL[name]
    return lower.removesuffix("s") if len(lower) > 3 else lower


def known(unit: str) -> set[str]:
    """The units of measurement in a canonical unit, with their powers."""
    return {part for part in re.split(r"[ /]", unit) if part.partition("^")[0] in _SYNONYMS}


def split_unit(text: str) -> tuple[str, str]:
    """A cleaned answer's value and its unit, in one notation; the unit is empty where there is none.

    >>> split_unit("864 \\\\text{inches}^2")
    ('864', 'in^2')
    >>> split_unit("-¤5")
    ('-5', '¤')
    """
    if money := _MONEY.match(text):
        core, after = split_unit(f"{money[1]}{text[money.end() :]}")
        unit = canonical(money[2])
        return core, unit if after in ("", unit) else f"{unit} {after}"
    for start in _TAIL_START.finditer(text):
        core, tail = text[: start.start()], text[start.start() :]
        if tail.strip() and _TAIL.fullmatch(tail) and _is_unit(core, tail):
            core = re.sub(r"\s*\\(?:cdot|times)$", "", core.strip())
            return (core, canonical(tail)) if core and core[-1] not in "+-*/^_=<>(,:|&" else (text, "")
    return text, ""


def _is_unit(core: str, tail: str) -> bool:
    """Whether the end of a text is a unit: words in `\\text{…}`, or bare words that are known as units."""
    if not core or core.count("{") != core.count("}") or core.count("(") < core.count(")"):
        return False
    bare = re.sub(r"\\text\{[^{}]*\}|\\circ\s*[CF]?|\^\s*\{?\d\}?", " ", tail)
    apart = tail[:1].isspace() or core[-1:].isspace() or "/" in tail
    for word in _WORD.findall(bare):
        if word not in _POWERS and word != "per" and _name(word) not in _SYNONYMS:
            return False
        if len(word) == 1 and not (apart and (word in _SINGLE or "/" in tail)):
            return False
    return True
