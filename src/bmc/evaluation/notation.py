"""One notation for the many ways in which answers are written: LaTeX, plain text, Unicode, Markdown."""

from __future__ import annotations

import html
import re
import unicodedata
from fractions import Fraction

from .numerals import number_words, spelled

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
    (re.compile(r"<su([pb])>(.*?)</su\1>"), lambda found: f"{'^' if found[1] == 'p' else '_'}{{{found[2]}}}"),
    (re.compile(r"<br\s*/?>"), " "),
    (re.compile(r"&(?:nbsp|times|minus|deg|pi|lt|gt|le|ge|frac\d\d|amp);"), lambda found: html.unescape(found[0])),
]
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
    r"""The group `{…}` that begins at `start`, without its braces, and where it ends.

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
    text = _plain_unicode(text)
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
    """A cleaned text without spaces, but for those between digits, and without braces around single signs."""
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
    """`√13` → `\\sqrt{13}`: a bare root is that of the whole number."""
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
    """`\\mathrm{sin}` is a function, `\\mathbf{v}` a variable, `\\text{(C)}` signs, all else words."""
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
    """`0.1\\overline{6}` → 1/6."""
    whole, fixed, repeated = found[1] or "0", found[2], found[3] or found[4]
    if max(map(len, (whole, fixed, repeated))) > 100:
        return found.group()
    scale = 10 ** len(fixed)
    value = Fraction(int(whole + fixed), scale) + Fraction(int(repeated), (10 ** len(repeated) - 1) * scale)
    return f"({value.numerator}/{value.denominator})"


def _mixed(found: re.Match[str]) -> str:
    """`2 1/2` and `2\\frac12` → 2 + 1/2; a fraction above 1 makes no mixed number."""
    whole, top, bottom = (part for part in found.groups() if part)
    proper = len(bottom) <= 100 and 0 < int(top[:101]) < int(bottom)
    return f"({whole}+{top}/{bottom})" if proper else found.group()
