"""Units of measurement, currencies and counted things that stand beside a number."""

from __future__ import annotations

import re

_SYNONYMS = {
    "mm": "millimeter millimetre", "cm": "centimeter centimetre", "dm": "decimeter", "m": "meter metre", "km": "kilometer kilometre",
    "in": "inch inches", "ft": "foot feet", "yd": "yard", "mi": "mile", "mg": "milligram", "g": "gram gm gramme",
    "kg": "kilogram kilo", "lb": "pound lbs", "oz": "ounce", "ton": "tonne", "s": "second sec", "min": "minute mins",
    "h": "hour hr hrs", "day": "", "week": "wk", "month": "", "year": "yr yrs", "l": "liter litre L", "ml": "milliliter mL",
    "gal": "gallon", "qt": "quart", "pt": "pint", "cup": "", "acre": "", "rad": "radian", "°": "degree deg", "°C": "celsius",
    "°F": "fahrenheit", "¤": "dollar usd buck", "cent": "¢", "£": "gbp", "€": "euro eur", "¥": "yen yuan rmb", "₹": "rupee rs",
    "%": "percent percentage pct", "unit": "", "mph": "", "kph": "kmph", "am": "a.m", "pm": "p.m", "v": "volt V", "w": "watt W",
    "j": "joule J", "n": "newton N", "hz": "hertz Hz", "mod": "",
}  # fmt: skip
_CANONICAL = {word: unit for unit, words in _SYNONYMS.items() for word in (unit, *words.split())}
_SINGLE = {"m", "g", "s", "h", "l", "L"}  # units that are letters, and so variables where no space stands before
_POWERS = {"square": 2, "squared": 2, "sq": 2, "cubic": 3, "cubed": 3, "cu": 3}
CURRENCIES = "¤£€¥₹"


def canonical(words: str) -> str:
    """Write a unit in one way: `square inches`, `in.^2` and `inches squared` → `in^2`; `miles per hour` → `mi/h`.

    Words that are no unit stay, in the singular.
    """
    text = words.replace("^\\circ", "°").replace("\\circ", "°").replace("\\%", "%")
    text = re.sub(r"°\s*([CF])\b", r"°\1", text)
    text = re.sub(r"[\\{}]|\btext\b", " ", text)
    text = re.sub(r"\b(?:miles|mi\.?) per (?:hour|hr)\b|\bm\.?p\.?h\b", "mi/h", text).replace(" per ", " / ")
    parts: list[str] = []
    power = 1
    for word in re.findall(r"°[CF]?|[A-Za-z]+(?:\.[A-Za-z]\b)?|[¤£€¥₹¢%/]|\^?\d", text):
        if word in _POWERS:
            if word.endswith("ed") and parts:
                parts[-1] += f"^{_POWERS[word]}"
            else:
                power = _POWERS[word]
        elif word[-1].isdigit() and parts:
            parts[-1] += f"^{word[-1]}"
        elif word in ("of", "the", "a", "an", "in", "total") and len(parts) + power > 1:
            continue
        else:
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


def is_unit(word: str) -> bool:
    """Whether a word is a unit of measurement, a power of one, or a currency."""
    return word in _CANONICAL or word in _POWERS or word == "per" or _name(word) in _SYNONYMS


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
    money = re.match(rf"^(-?)\s*(?:USD\s*|US\s*(?=¤))?([{CURRENCIES}]|USD)\s*(?=[\d.\\(-])", text)
    if money:
        core, after = split_unit(f"{money[1]}{text[money.end() :]}")
        unit = canonical(money[2])
        return core, unit if after in ("", unit) else f"{unit} {after}"
    tail = _tail(text)
    core = text[: len(text) - len(tail)].strip() if tail else text
    core = re.sub(r"\s*\\(?:cdot|times)$", "", core)
    if not core or core[-1] in "+-*/^_=<>(,:|&" or not tail:
        return text, ""
    return core, canonical(tail)


def _tail(text: str) -> str:
    """The part of a text that is its unit: words in `\\text{…}`, or bare words that are known units."""
    for found in re.finditer(r"(?<=[\d})\]!|.])|\s|(?<=[A-Za-z])(?=\\text)", text):
        tail = text[found.start() :]
        if re.fullmatch(
            r"\s*(?:\\text\{[^{}]*\}\s*(?:\^\s*(?:\{\d\}|\d))?|\^\s*\\circ(?:\s*[CF]\b)?|\\?%"
            r"|[A-Za-z]+(?:\.[A-Za-z]\b)?\.?(?:\s*\^\s*(?:\{[23]\}|[23]))?|[¢/¤€£¥₹]|\s)+",
            tail,
        ) and _is_tail(text[: found.start()], tail):
            return tail
    return ""


def _is_tail(core: str, tail: str) -> bool:
    bare = re.sub(r"\\text\{[^{}]*\}|\\circ\s*[CF]?|\^\s*\{?\d\}?", " ", tail)
    words = re.findall(r"[A-Za-z]+(?:\.[A-Za-z]\b)?", bare)
    if not core or core.count("{") != core.count("}") or core.count("(") < core.count(")"):
        return False
    apart = tail[:1].isspace() or core[-1:].isspace()
    return all(is_unit(word) and (len(word) > 1 or (word in _SINGLE and apart) or "/" in tail) for word in words)
