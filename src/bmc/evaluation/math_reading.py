"""Reading mathematical answers: one notation, numbers in words, units, and the values of expressions.

`clean` writes the many ways in which answers are written (LaTeX, plain text, Unicode, HTML, Markdown) in one way,
`split_unit` takes a unit off, and `values` evaluates an expression at a few fixed points: rational numbers exactly, all
others to 50 digits. Two expressions are the same if their values are. No step depends on a clock: numbers may only grow
so far, then an expression counts as unreadable, so that `9^{9^{9^9}}` costs no more than `9` in any thread or process.
"""

from __future__ import annotations

import hashlib
import html
import math
import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from mpmath import MPContext

# Notation

_UNICODE = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ",
    "∙": "\\cdot ", "÷": "/", "⁄": "/", "∕": "/", "π": "\\pi ", "∞": "\\infty ", "≤": "\\le ", "⩽": "\\le ",
    "≥": "\\ge ", "⩾": "\\ge ", "≠": "\\ne ", "≈": "\\approx ", "±": "\\pm ", "∓": "\\mp ", "∪": "\\cup ",
    "∩": "\\cap ", "∈": "\\in ", "∅": "\\emptyset ", "°": "^\\circ ", "º": "^\\circ ", "ℝ": "\\mathbb{R}",
    "θ": "\\theta ", "α": "\\alpha ", "β": "\\beta ", "γ": "\\gamma ", "λ": "\\lambda ", "μ": "\\mu ",
    "φ": "\\phi ", "“": '"', "”": '"', "‘": "'", "’": "'", "∶": ":", "，": ",", "℃": "^\\circ C",
    "℉": "^\\circ F", "⟨": "\\langle ", "⟩": "\\rangle ", "…": "\\ldots ", "⌊": "\\lfloor ", "⌋": "\\rfloor ",
    "⌈": "\\lceil ", "⌉": "\\rceil ", "。": ".", "；": ";", "∫": "\\int ", "∑": "\\sum ",
}  # fmt: skip
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\u2061\u2062\u2063\ufeff\u200e\u200f"
_ROOT = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?)?")
_SCRIPTS = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ]+)|([₀₁₂₃₄₅₆₇₈₉]+)")

_TAGS = [  # HTML
    (re.compile(r"<(b|i|u|p|em|strong|span|div|code|mark|font|center|h[1-6]|li)(?: [^<>]*)?>(.*?)</\1>"), r" \2 "),
    (re.compile(r"<sup>(.*?)</sup>"), r"^{\1}"),
    (re.compile(r"<sub>(.*?)</sub>"), r"_{\1}"),
    (re.compile(r"<br\s*/?>"), " "),
]
_ENTITY = re.compile(r"&(?:nbsp|times|minus|deg|pi|lt|gt|le|ge|frac\d\d|amp);")
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*")
_FIRST = [
    (re.compile(r"\^?\s*\{?\s*\\degree(?![A-Za-z])\s*\}?"), r"^\\circ "),
    (re.compile(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)"), r" \\times "),
    (re.compile(r"(?<=\\in)\s*\{([^{}]*)\}"), r" \\{\1\\}"),
    (re.compile(r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}"), r"\\binom{\1}{\2}"),
    (re.compile(r"\\\\(?=(?:[dt]?frac|sqrt|pi|text|cdot|times|infty|cup|pm|circ)(?![A-Za-z]))"), r"\\"),
    (re.compile(r"\\[()\[\]](?!\s*\d+(?:pt|em|ex|cm|mm)\])"), " "),  # delimiters
    (re.compile(r"(?<=\d)(?:,\s*\\!\s*|\{,\}\s*|\\,\s*|\\!,)(?=\d{3}(?!\d))"), ""),  # thousands
]
_DRESS = re.compile(  # what only places or dresses the signs after it
    r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|left|right|middle|[bB]ig{1,2}[lr]?|m?space|hfill|relax"
    r"|quad|qquad|enspace|thinspace|nobreak|allowbreak|rm|bf|it)(?![A-Za-z])|\\[,;:!>~]"
)
_SPACE = re.compile(r"\\h?(?:space|phantom)\*?\{[^{}]*\}|(?<!\\)\\[ \n\t]|~")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_SAME = {
    "dfrac": "\\frac", "tfrac": "\\frac", "cfrac": "\\frac", "dbinom": "\\binom", "tbinom": "\\binom",
    "leq": "\\le", "leqslant": "\\le", "geq": "\\ge", "geqslant": "\\ge", "neq": "\\ne", "lt": "<", "gt": ">",
    "varnothing": "\\emptyset", "lbrace": "\\{", "rbrace": "\\}", "lbrack": "[", "rbrack": "]", "colon": ":",
    "mid": "|", "vert": "|", "lvert": "|", "rvert": "|", "dots": "\\ldots", "cdots": "\\ldots", "land": ",",
    "wedge": ",", "bullet": "\\cdot", "cosec": "\\csc", "textdollar": "¤", "euro": "€", "pounds": "£",
}  # fmt: skip
_WORDS = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|[mh]box|math(?:rm|bf|it|sf|tt)|boldsymbol|bm|operatorname\*?|emph|underline|vec"
    r"|hat)\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_FUNCTION = re.compile(r"(?:arc)?(?:sin|cos|tan)|cot|sec|csc|ln|log|exp")
_POWER = re.compile(r"(?<=[\w)])\*\*(?=[\d(A-Za-z-])")
_DEGREES = re.compile(r"\^\s*\{\s*\\circ\s*\}")
_BOLD = re.compile(r"\*\*(?!\d)(?=\s|$|[.,;:!?A-Za-z])|(?<!\S)\*\*|(?<!\S)__(?=\S)|(?<=\S)__(?=$|[\s.,])")
_QUOTED = re.compile(r"([*_\"'])([^*_\"']+)\1\.?")

_INFINITY = re.compile(r"(?<![\\A-Za-z])infinity\b")
_GROUPS = [  # of digits: 1,234,567; 12,34,567; 1.234.567; 1 234, 1'234 and 1_234
    re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)"),
    re.compile(r"(?<![\d.,])\d{1,2}(?:,\d{2})+,\d{3}(?!\d|,\d)"),
    re.compile(r"(?<![\d.,])\d{1,3}(?:\.\d{3}){2,}(?![\d.])"),
    re.compile(r"(?<![\d.,/^_\w])\d{1,3}(?:(?: \d{3})+|(?:'\d{3})+|(?:_\d{3})+)(?![\d/,_'])"),
]
_CENTS = re.compile(r"¤?\s*(\d+)\s*(?:dollars?)?,?\s+(?:and\s+)?(\d{1,2})\s+cents?\b")
_REPEATING = re.compile(r"(\d*)\.(\d*)(?:\\(?:overline|bar)\{\s*(\d+)\s*\}|\\dot\{?(\d)\}?)")
_ALONE = r"(?<![\d.\w/^_}\])])"  # before a number that is no exponent, no subscript and no part of another
_MIXED = [
    re.compile(_ALONE + r"(\d+)(?:\s+|\s*(?:\\text\{)?\s*and\s*\}?\s*)(\d+)\s*/\s*(\d+)(?![\d.])"),
    re.compile(_ALONE + r"(\d+)\s*(?:and\s+)?\\frac\s*(?:\{\s*(\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))"),
]
_BASE = re.compile(r"(\d+)\s*(?:\(|\\text\{)?\s*,?\s*(?:in )?base\s*\}?[ -]?\s*(\d+)\s*[)}]?")
_SPELLED_BASE = re.compile(
    r"_\s*\{?\s*(?:\\text\{)?\s*(two|three|four|five|six|seven|eight|nine|ten|twelve|sixteen)\s*\}?\s*\}?"
)


def unbox(text: str) -> str:
    r"""Replace each `\boxed{…}` by its content."""
    while found := _BOX.search(text):
        content, end = braced(text, found.end())
        text = f"{text[: found.start()]}{content}{text[end:]}"
    return text


def braced(text: str, start: int) -> tuple[str, int]:
    r"""Return the group `{…}` that begins at `start`, without its braces, and where it ends.

    Without a brace there it is what people mean by `\boxed 5`: all up to a space or `$`. A group that is never closed
    reaches to the end of the text.
    """
    if not text.startswith("{", start):
        bare = re.match(r"[^\s$]*", text[start:])
        end = start + (bare.end() if bare else 0)
        return text[start:end], end
    depth, position = 0, start
    while position < len(text):
        letter = text[position]
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return text[start + 1 : position].strip(), position + 1
        position += 2 if letter == "\\" else 1  # `\{` and `\}` are signs, not groups
    return text[start + 1 :].strip(), len(text)


def clean(text: str) -> str:
    r"""Write an answer in one notation: ASCII, one command for one thing, numbers without separators, `¤` for dollars.

    Words of `\text{…}` stay in it. What only places or dresses signs (delimiters, `\left`, Markdown, a full stop) goes.
    """
    text = unbox(" ".join(text.split()))
    for tag, plain in _TAGS:
        text = tag.sub(plain, text)
    text = _plain_unicode(_ENTITY.sub(lambda found: html.unescape(found[0]), text))
    if "\\begin" not in text:
        text = re.sub(r"\\\\(?=[()\[\]])", r"\\", text)  # `\\(`, as JSON written twice has it
    for pattern, written in _FIRST:
        text = pattern.sub(written, text)
    text = _POWER.sub("^", _emphasis(_dollars(text)))
    text = _COMMAND.sub(lambda found: _SAME.get(found[1], found[0]), _DRESS.sub(" ", _SPACE.sub(" ", text)))
    text = _DEGREES.sub(r"^\\circ ", text)
    while (words := _WORDS.sub(_text, text)) != text:
        text = words
    return _numbers(_end(" ".join(text.replace("\x00", "\\text{").split())))


def squeeze(text: str) -> str:
    """Return a cleaned text without spaces, but for those between digits, and without braces around single signs."""
    return re.sub(r"\{(\w)\}", r"\1", re.sub(r"(?<!\d) | (?!\d)", "", text))


def _plain_unicode(text: str) -> str:
    """Write full-width, raised, lowered and vulgar characters in ASCII: `１`, `x²`, `52₈`, `2½`, a no-break space."""
    text = text.translate({ord(mark): None for mark in _INVISIBLE})
    return "".join(map(_plain_letter, _SCRIPTS.sub(_script, _ROOT.sub(_root, text))))


def _plain_letter(letter: str) -> str:
    if letter in _UNICODE:
        return _UNICODE[letter]
    folded = unicodedata.normalize("NFKC", letter)
    if "⁄" in folded:  # ½
        top, _, bottom = folded.partition("⁄")
        return f" \\frac{{{top}}}{{{bottom or 1}}}"
    return "".join(_UNICODE.get(part, part) for part in folded)


def _root(found: re.Match[str]) -> str:
    """Rewrite `√13` as `\\sqrt{13}`: a bare root is that of the whole number."""
    degree = {"∛": "[3]", "∜": "[4]"}.get(found[1], "")
    return f"\\sqrt{degree}{{{found[2]}}}" if found[2] else f"\\sqrt{degree} "


def _script(found: re.Match[str]) -> str:
    signs = unicodedata.normalize("NFKC", found.group()).replace("−", "-")
    return f"{'^' if found[1] else '_'}{{{signs}}}"


def _dollars(text: str) -> str:
    """Tell dollars from delimiters: `\\$18`, `$18` and `$5 and $10` are money, `$18$` and `$$18$$` are not."""
    text = text.replace("\\$", "¤").replace("$$", " ")
    ends = [found.end() for found in re.finditer(r"\$", text)]
    if len(ends) % 2 or all(re.match(r"\s*\d|\.\d", text[end:]) for end in ends):
        text = re.sub(r"\$(?=\s*\.?\d)", "¤", text)
    return text.replace("$", " ")


def _emphasis(text: str) -> str:
    """Take Markdown's marks and quotes away: `**73**`, `__73__`, `` `73` ``, `_73_`, `*73*`, `"73"`."""
    text = _BOLD.sub(" ", text.replace("`", " ").strip()).strip()
    quoted = _QUOTED.fullmatch(text)
    return quoted[2] if quoted else text


def _text(found: re.Match[str]) -> str:
    """Tell functions (`\\mathrm{sin}`), variables (`\\mathbf{v}`) and signs (`\\text{(C)}`) from words."""
    content = found[1].strip()
    if _FUNCTION.fullmatch(content):
        return f"\\{content} "
    if re.search(r"[A-Za-z]{2}", content):
        return f" \x00{content}}} "
    return content if len(content) == 1 and found[0].startswith("\\math") else f" {content} "


def _end(text: str) -> str:
    """Take away what ends a sentence, and braces around all."""
    while True:
        shorter = re.sub(r"\\+$", "", text.strip().rstrip(",;:?")).strip()
        shorter = shorter if shorter.endswith("...") else re.sub(r"\s*\.+$", "", shorter)
        shorter = re.sub(r"(?<![\\A-Za-z])([A-Za-z]{2,})!+$", r"\1", shorter)
        shorter = shorter if shorter.startswith(">") else shorter.strip("*#> ")
        shorter = re.sub(r"^(?:\\approx(?![A-Za-z])|=)\s*|(?<=^[A-Z])\)$", "", shorter)
        if shorter.startswith("{") and shorter.endswith("}") and braced(shorter, 0)[1] == len(shorter):
            shorter = shorter[1:-1]
        if shorter == text:
            return shorter
        text = shorter


def _numbers(text: str) -> str:
    r"""Write numbers in one way: `1,234` and `1 234` as 1234, `2 1/2` as a sum, `0.\overline{3}` as a fraction."""
    text = _INFINITY.sub(r"\\infty", number_words(text))
    if not re.search(r"[(\[]|\\\{", text):  # `(100,200)` is a pair
        for pattern in _GROUPS:
            text = pattern.sub(lambda found: re.sub(r"\D", "", found.group()), text)
    text = _CENTS.sub(lambda found: f"{found[1]}.{found[2]:0>2} dollars", text)
    text = _REPEATING.sub(_repeating, text)
    for pattern in _MIXED:
        text = pattern.sub(_mixed, text)
    text = _BASE.sub(r"\1_{\2}", text)
    return _SPELLED_BASE.sub(lambda found: f"_{{{spelled(found[1])}}}", text)


def _repeating(found: re.Match[str]) -> str:
    """Read `0.1\\overline{6}` as 1/6."""
    whole, fixed, repeated = found[1] or "0", found[2], found[3] or found[4]
    if max(map(len, (whole, fixed, repeated))) > 100:
        return found.group()
    scale = 10 ** len(fixed)
    value = Fraction(int(whole + fixed), scale) + Fraction(int(repeated), (10 ** len(repeated) - 1) * scale)
    return f"({value.numerator}/{value.denominator})"


def _mixed(found: re.Match[str]) -> str:
    """Read `2 1/2` and `2\\frac12` as 2 + 1/2. With a fraction above 1 it is no mixed number, and no product
    either."""
    whole, top, bottom = (part for part in found.groups() if part)
    proper = len(bottom) <= 100 and 0 < int(top[:101]) < int(bottom)
    return f"({whole}+{top}/{bottom})" if proper else rf"\mixed{{{whole}}}{{{top}}}{{{bottom}}}"


# Numbers in words

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
_COUNT = "|".join([*sorted(_VALUES, key=len, reverse=True), "hundred", *_SCALES])
_NUMERAL = re.compile(
    rf"(?:a (?=hundred|thousand|million|billion))?(?:(?:{_COUNT})(?:[ -]+(?:and )?(?=(?:{_COUNT})\b)|\b))+",
    re.IGNORECASE,
)
_FRACTION_OF = re.compile(rf"(?:(?P<a>a|an|one)|(?P<top>{_COUNT}))[ -](?P<part>{'|'.join(_PARTS)})s?", re.IGNORECASE)
_SCALED = re.compile(
    r"(\d+(?:\.\d+)?) (?:\\text\{)?(hundred|thousand|million|billion|trillion|dozen)\b\}?|^(?:an? |one )?(half|dozen)$",
    re.IGNORECASE,
)


def spelled(words: str) -> int | None:
    """Return the value of a numeral of words; None if it is none.

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
    part = _FRACTION_OF.match(bare, start)
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


# Units and currencies

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
    """Return the units of measurement in a canonical unit, with their powers."""
    return {part for part in re.split(r"[ /]", unit) if part.partition("^")[0] in _SYNONYMS}


def split_unit(text: str) -> tuple[str, str]:
    """Return a cleaned answer's value and its unit, in one notation; the unit is empty where there is none.

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
    """Return whether the end of a text is a unit: words in `\\text{…}`, or bare words that are known as units."""
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


# Values of expressions

POINTS = range(4)  # at points 0 and 1 all variables are positive
MAX_TOKENS, MAX_DEPTH, MAX_DIGITS = 1000, 40, 1000
MAX_BITS = 200_000  # of one rational number
MAX_WORK = 2_000_000  # bits of all large rational numbers of one expression

Number = Any  # a Fraction, or an mpmath number where a value is irrational or complex
Values = list[Number | None]  # at each point; None where an expression has no value

_MP = MPContext()  # not `mpmath.mp`, whose precision every thread may change
_MP.dps = 50
_HUGE = 10**15  # of an argument that a function has to reduce

_TOKEN = re.compile(
    r"(?P<base>(?<![A-Za-z\d.])\d[\dA-F]*_(?:\{\d+\}|\d+))"
    r"|(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+(?![\w.]))?|\.\d+)"
    r"|(?P<command>\\[A-Za-z]+|\\.)|(?P<word>[A-Za-z]+)|(?P<sign>\S)"
)
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "sin": _MP.sin, "cos": _MP.cos, "tan": _MP.tan, "cot": _MP.cot, "sec": _MP.sec, "csc": _MP.csc,
    "arcsin": _MP.asin, "arccos": _MP.acos, "arctan": _MP.atan, "sinh": _MP.sinh, "cosh": _MP.cosh,
    "tanh": _MP.tanh, "exp": _MP.exp, "ln": _MP.log, "log": _MP.log10, "lg": _MP.log10,
}  # fmt: skip
_INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
_CLOSING = {"(": ")", "[": "]", "{": "}", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil", "\\lvert": "\\rvert"}
_TIMES = {"*", "\\cdot", "\\times", "\\ast"}
_OVER = {"/", "\\div"}
_NAMES = {"pi": "\\pi", "infinity": "\\infty", "inf": "\\infty", "sqrt": "\\sqrt"}
_SYMBOLS = {
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "iota",
    "kappa", "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "varphi", "chi", "psi",
    "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega", "ell",
    "infty", "hbar",
}  # fmt: skip


class Unreadable(ValueError):
    """The text is no expression, or one too large to evaluate."""


class Undefined(ValueError):
    """The expression has no value at this point."""


def values(text: str) -> Values:
    """Evaluate an expression at each of `POINTS`; None where it has no value.

    Raises:
        Unreadable: The text is no expression, is too large, or has no value at most points.
    """
    tokens = _tokens(text)
    found: Values = []
    for point in POINTS:
        try:
            found.append(_Reader(tokens, point).read())
        except (Undefined, ZeroDivisionError):
            found.append(None)
        except (ValueError, OverflowError, TypeError) as error:
            raise Unreadable(str(error)) from None
    if sum(value is not None for value in found) < 2:
        raise Unreadable("has no value at most points")
    return found


def same_value(a: Number, b: Number) -> bool:
    """Return whether two values are equal: exactly if both are rational, to 30 digits otherwise."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    a, b = _lift(a), _lift(b)
    return bool(abs(a - b) <= max(abs(a), abs(b)) * _MP.mpf(10) ** -30 + _MP.mpf(10) ** -40)


def same_values(ours: Values, theirs: Values) -> bool:
    """Return whether two expressions have the same value wherever both have one."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    return len(pairs) > 1 and all(same_value(a, b) for a, b in pairs)


def constant(found: Values | None) -> Fraction | None:
    """Return the real value of an expression without variables, to 50 digits; None for any other."""
    known = [value for value in found or [] if value is not None]
    return real(known[0]) if known and all(same_value(value, known[0]) for value in known[1:]) else None


def proportional(ours: list[str], theirs: list[str], signed: bool) -> bool:
    """Return whether left − right of one relation is a constant multiple of the other's; a positive one if `signed`."""
    try:
        sides = [values(side) for side in (*ours, *theirs)]
    except Unreadable:
        return False
    ratios: Values = []
    for left, right, other_left, other_right in zip(*sides, strict=True):
        if None not in (left, right, other_left, other_right):
            difference, other = _exactly(left, right, -1), _exactly(other_left, other_right, -1)
            if difference == 0 or other == 0:
                return False
            ratios.append(_exactly(difference, other, 0))
    if len(ratios) < 2 or not all(same_value(ratio, ratios[0]) for ratio in ratios):
        return False
    return not signed or (real(ratios[0]) or 0) > 0


def _exactly(a: Number, b: Number, sign: int) -> Number:
    """Return a + sign · b, or a / b for sign 0; exact if both are rational."""
    if not (isinstance(a, Fraction) and isinstance(b, Fraction)):
        a, b = _lift(a), _lift(b)
    return a + sign * b if sign else a / b


def real(value: Number) -> Fraction | None:
    """Return a real value as a fraction, to 50 digits; None for a complex one."""
    if isinstance(value, Fraction):
        return value
    value = _MP.mpmathify(value)
    if not same_value(value.imag, Fraction(0)) or not _MP.isfinite(value):
        return None
    mantissa, exponent = _MP.mpf(value.real).man_exp
    if abs(exponent) > MAX_BITS:
        return None
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent) * (-1 if value.real < 0 < mantissa else 1)


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens = [(found.lastgroup or "", found.group()) for found in _TOKEN.finditer(text)]
    if not tokens or len(tokens) > MAX_TOKENS:
        raise Unreadable("is empty, or too long")
    return tokens


def _lift(value: Number) -> Any:
    return _MP.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _sample(name: str, point: int) -> Fraction:
    """Return the value of a variable at a point: the same for the same name, unrelated for others."""
    digest = int.from_bytes(hashlib.sha256(f"{point} {name}".encode()).digest()[:8])
    sign = -1 if point > 1 and digest % 2 else 1
    return Fraction(sign * (300 + digest % 3701), 997)


class _Reader:
    """Recursive descent over the tokens of one expression, which evaluates as it reads."""

    def __init__(self, tokens: list[tuple[str, str]], point: int) -> None:
        self.tokens, self.point = [*tokens, ("end", "")], point
        self.at, self.depth, self.work = 0, 0, 0
        self.inside_bars = False  # of |x|, whose second bar opens nothing

    def read(self) -> Number:
        value = self.sum()
        if self.kind != "end":
            raise Unreadable(f"nothing should follow, but there is {self.text}")
        return value

    @property
    def kind(self) -> str:
        return self.tokens[self.at][0]

    @property
    def text(self) -> str:
        return self.tokens[self.at][1]

    def take(self, wanted: str | None = None) -> str:
        text = self.text
        if (wanted is not None and text != wanted) or self.kind == "end":
            raise Unreadable(f"{wanted or 'more'} is missing")
        self.at += 1
        return text

    # Grammar

    def sum(self) -> Number:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("is nested too deeply")
        value = self.product()
        while self.text in ("+", "-"):
            sign = self.take()
            value = self.add(value, self.product(), 1 if sign == "+" else -1)
        self.depth -= 1
        return value

    def product(self) -> Number:
        value = self.signed()
        while True:
            if self.text in _TIMES:
                self.take()
                value = self.multiply(value, self.signed())
            elif self.text in _OVER:
                self.take()
                value = self.divide(value, self.signed())
            elif self.starts_factor():
                if self.kind in ("number", "base") and self.tokens[self.at - 1][0] in ("number", "base"):
                    raise Unreadable("two numbers stand side by side")
                value = self.multiply(value, self.power())
            else:
                return value

    def signed(self) -> Number:
        sign = 1
        while self.text in ("+", "-"):
            sign = -sign if self.take() == "-" else sign
        return self.multiply(Fraction(sign), self.power()) if sign < 0 else self.power()

    def starts_factor(self) -> bool:
        if self.kind in ("number", "base", "word"):
            return True
        if self.kind == "command":
            return self.text[1:] in _SYMBOLS | FUNCTIONS.keys() or self.text in (
                "\\frac", "\\sqrt", "\\binom", "\\pi", "\\lfloor", "\\lceil", "\\lvert",
            )  # fmt: skip
        return self.text in ("(", "[", "{") or (self.text == "|" and not self.inside_bars)

    def power(self) -> Number:
        value = self.postfix(self.atom())
        if self.text != "^":
            return value
        self.take()
        return self.postfix(self.raise_to(value, self.exponent()))

    def exponent(self) -> Number:
        """Return what follows `^`: a group, or one signed atom, perhaps with an exponent of its own."""
        if self.text == "{":
            return self.argument()
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("is nested too deeply")
        sign = -1 if self.text == "-" else 1
        if self.text in ("+", "-"):
            self.take()
        value = self.multiply(Fraction(sign), self.atom())
        if self.text == "^":
            self.take()
            value = self.raise_to(value, self.exponent())
        self.depth -= 1
        return value

    def postfix(self, value: Number) -> Number:
        while True:
            if self.text == "!":
                self.take()
                value = self.factorial(value)
            elif self.text in ("%", "\\%"):
                self.take()
                value = self.divide(value, Fraction(100))
            elif self.text == "^" and [text for _, text in self.tokens[self.at + 1 : self.at + 2]] == ["\\circ"]:
                self.at += 2
                value = self.multiply(self.divide(value, Fraction(180)), +_MP.pi)
            else:
                return value

    def atom(self) -> Number:
        kind, text = self.kind, self.take()
        if kind == "number":
            return self.literal(text)
        if kind == "base":
            digits, base = text.split("_")
            return _sample(f"{digits.lstrip('0')}_{base.strip('{}')}", self.point)
        if kind == "word":
            return self.word(text)
        if text in ("(", "[", "{"):
            return self.closed(text)
        if text == "|" and not self.inside_bars:
            self.inside_bars = True
            value = self.sum()
            self.inside_bars = False
            self.take("|")
            return abs(value)
        if kind == "command":
            return self.command(text[1:])
        raise Unreadable(f"{text} is no value")

    def closed(self, opening: str) -> Number:
        bars, self.inside_bars = self.inside_bars, False
        value = self.sum()
        self.inside_bars = bars
        self.take(_CLOSING[opening])
        return value

    def word(self, word: str) -> Number:
        """Read letters: variables that are multiplied, but for names of functions and numbers."""
        if word in _NAMES:
            return self.command(_NAMES[word][1:])
        if word in FUNCTIONS:
            return self.function(word)
        if len(word) > 3:
            raise Unreadable(f"{word} is a word")
        value: Number = Fraction(1)
        for place, letter in enumerate(word, start=1):
            factor = self.variable(letter) if place == len(word) else self.constant(letter)
            value = self.multiply(value, factor) if place < len(word) or self.text != "^" else (value, factor)
        if isinstance(value, tuple):  # `xy^2`: the exponent is the last letter's
            self.take()
            return self.multiply(value[0], self.raise_to(value[1], self.exponent()))
        return value

    def constant(self, name: str) -> Number:
        if name == "i":
            return _MP.mpc(0, 1)
        return +_MP.e if name == "e" else _sample(name, self.point)

    def variable(self, name: str) -> Number:
        """Return a variable with its primes and subscript."""
        while self.text in ("'", "′"):
            name += self.take()
        if self.text != "_":
            return self.constant(name)
        self.take()
        name += "_" + (self.raw() if self.text == "{" else self.take())
        return _sample(name, self.point)

    def raw(self) -> str:
        """Return the text of a group that isn't evaluated."""
        self.take("{")
        words, depth = [], 1
        while depth:
            text = self.take()
            depth += (text == "{") - (text == "}")
            words.append(text)
        return "".join(words[:-1])

    def argument(self) -> Number:
        """Return what a command is applied to: a group, or one digit, letter or command, as in `\\frac12`."""
        if self.text == "{":
            self.take()
            return self.closed("{")
        if self.kind in ("number", "word") and len(self.text) > 1:
            kind, text = self.tokens[self.at]
            self.tokens[self.at : self.at + 1] = [(kind, text[0]), (kind, text[1:])]
        return self.atom()

    def command(self, name: str) -> Number:
        if name in FUNCTIONS:
            return self.function(name)
        if name == "pi":
            return +_MP.pi
        if name in _SYMBOLS:
            return self.variable(f"\\{name}")
        if name == "frac":
            return self.divide(self.argument(), self.argument())
        if name == "binom":
            return self.choose(self.argument(), self.argument())
        if name == "sqrt":
            return self.root()
        if name in ("lfloor", "lceil"):
            value = real(self.closed(f"\\{name}"))
            if value is None:
                raise Undefined("no real number")
            return Fraction(math.floor(value) if name == "lfloor" else math.ceil(value))
        if name == "lvert":
            return abs(self.closed("\\lvert"))
        raise Unreadable(f"\\{name} is unknown")

    def root(self) -> Number:
        degree: Number = Fraction(2)
        if self.text == "[":
            self.take()
            degree = self.closed("[")
        if self.text == "(":
            self.take()
            value = self.closed("(")
        else:
            value = self.argument()
        if isinstance(value, Fraction) and isinstance(degree, Fraction):
            if value < 0 and degree.denominator == 1 and degree % 2:
                return -self.raise_to(-value, 1 / degree)
            if degree == 2 and value >= 0:
                top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
                if top * top == value.numerator and bottom * bottom == value.denominator:
                    return Fraction(top, bottom)
        return self.raise_to(value, self.divide(Fraction(1), degree))

    def function(self, name: str) -> Number:
        """Read a function: `\\sin^2 x`, `\\log_2 8`, `\\sin 2x`, `\\ln(x)`."""
        exponent: Number | None = None
        base: Number | None = None
        while self.text in ("^", "_"):
            if self.take() == "^":
                exponent = self.exponent()
            else:
                base = self.argument()
        if exponent == -1 and name in _INVERSE:
            name, exponent = _INVERSE[name], None
        value = self.apply(name, self.function_argument())
        if base is not None:
            value = self.divide(value, self.apply(name, base))
        return value if exponent is None else self.raise_to(value, exponent)

    def function_argument(self) -> Number:
        if self.text in ("(", "{", "["):
            return self.closed(self.take())
        value = self.signed()
        while self.starts_factor() and self.text[1:] not in FUNCTIONS and self.text not in FUNCTIONS:
            if self.text in ("(", "["):
                break
            value = self.multiply(value, self.power())
        return value

    # Arithmetic, with a bound on the size of what it makes

    def literal(self, text: str) -> Fraction:
        mantissa, _, exponent = text.lower().partition("e")
        if len(mantissa) > MAX_DIGITS or len(exponent) > 5 or abs(int(exponent or 0)) > MAX_DIGITS:
            raise Unreadable("a number is too long")
        return Fraction(mantissa) * Fraction(10) ** int(exponent or 0)

    def bounded(self, value: Number) -> Number:
        if isinstance(value, Fraction):
            bits = value.numerator.bit_length() + value.denominator.bit_length()
            self.work += bits if bits > 4096 else 0
            if bits > MAX_BITS or self.work > MAX_WORK:
                raise Unreadable("a number is too large")
        elif not _MP.isfinite(value):
            raise Undefined("infinite")
        return value

    def add(self, a: Number, b: Number, sign: int) -> Number:
        return self.bounded(_exactly(a, b, sign))

    def multiply(self, a: Number, b: Number) -> Number:
        if not (isinstance(a, Fraction) and isinstance(b, Fraction)):
            a, b = _lift(a), _lift(b)
        return self.bounded(a * b)

    def divide(self, a: Number, b: Number) -> Number:
        if b == 0:
            raise Undefined("division by zero")
        return self.bounded(_exactly(a, b, 0))

    def raise_to(self, a: Number, b: Number) -> Number:
        if a == 0:
            if not isinstance(b, Fraction) or b <= 0:
                raise Undefined("a power of zero")
            return Fraction(0)
        if isinstance(a, Fraction) and isinstance(b, Fraction) and b.denominator == 1:
            bits = max(a.numerator.bit_length(), a.denominator.bit_length())
            if abs(b) * bits > MAX_BITS:
                raise Unreadable("a power is too large")
            return self.bounded(a ** int(b))
        a, b = _lift(a), _lift(b)
        if abs(b) > _HUGE or abs(b * _MP.log(a)) > MAX_BITS:
            raise Unreadable("a power is too large")
        return self.bounded(_MP.power(a, b))

    def apply(self, name: str, value: Number) -> Number:
        if abs(_lift(value)) > (MAX_BITS if name in ("exp", "sinh", "cosh", "tanh") else _HUGE):
            raise Unreadable("an argument is too large")
        if value == 0 and name in ("ln", "log", "lg"):
            raise Undefined("a logarithm of zero")
        return self.bounded(FUNCTIONS[name](_lift(value)))

    def factorial(self, value: Number) -> Number:
        if isinstance(value, Fraction) and value.denominator == 1:
            if value < 0:
                raise Undefined("a factorial of a negative number")
            if value > MAX_DIGITS:
                raise Unreadable("a factorial is too large")
            return Fraction(math.factorial(int(value)))
        if abs(_lift(value)) > MAX_DIGITS:
            raise Unreadable("a factorial is too large")
        return self.bounded(_MP.gamma(_lift(value) + 1))

    def choose(self, n: Number, k: Number) -> Number:
        if max(abs(_lift(n)), abs(_lift(k))) > MAX_DIGITS:
            raise Unreadable("a binomial coefficient is too large")
        if all(isinstance(value, Fraction) and value.denominator == 1 and value >= 0 for value in (n, k)):
            return Fraction(math.comb(int(n), int(k)))
        return self.bounded(_MP.binomial(_lift(n), _lift(k)))
