"""One notation for the many ways in which answers are written: LaTeX, plain text, Unicode, Markdown."""

from __future__ import annotations

import re
import unicodedata

_UNICODE = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ",
    "∙": "\\cdot ", "÷": "/", "⁄": "/", "∕": "/", "π": "\\pi ", "∞": "\\infty ",
    "≤": "\\le ", "⩽": "\\le ", "≥": "\\ge ", "⩾": "\\ge ", "≠": "\\ne ", "≈": "\\approx ", "±": "\\pm ", "∓": "\\mp ",
    "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "∅": "\\emptyset ", "°": "^\\circ ", "º": "^\\circ ", "ℝ": "\\mathbb{R}",
    "θ": "\\theta ", "α": "\\alpha ", "β": "\\beta ", "γ": "\\gamma ", "λ": "\\lambda ", "μ": "\\mu ", "φ": "\\phi ",
    "“": '"', "”": '"', "‘": "'", "’": "'", "∶": ":", "，": ",", "℃": "^\\circ C", "℉": "^\\circ F", "⟨": "\\langle ",
    "⟩": "\\rangle ", "‰": "/1000", "…": "\\ldots ", "𝑖": "i", "⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ", "⌉": "\\rceil ",
}  # fmt: skip
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\u2061\u2062\u2063\ufeff\u200e\u200f"
_RAISED, _LOWERED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "₀₁₂₃₄₅₆₇₈₉"
_ROOT = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?)?")
_SCRIPTS = re.compile(f"([{_RAISED}]+)|([{_LOWERED}]+)")

# Commands that only place or dress what they stand before.
_DRESS = re.compile(
    r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|left|right|middle|bigl|bigr|Bigl|Bigr|biggl|biggr|big|Big|bigg|Bigg"
    r"|m?space|hfill|relax|,|;|:|!|>|~|quad|qquad|enspace|thinspace|nobreak|allowbreak|rm|bf|it)(?![A-Za-z])"
)
_SPACE = re.compile(r"\\h?(?:space|phantom)\*?\{[^{}]*\}|(?<!\\)\\[ \n\t]|~")
_WORDS = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up)?|mbox|hbox|mathrm|mathbf|mathit|mathsf|mathtt|boldsymbol|bm|pmb|operatorname\*?"
    r"|emph|underline|mathbf|vec|hat)\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*")
_SAME = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom", "leq": "le", "leqslant": "le",
    "geq": "ge", "geqslant": "ge", "neq": "ne", "lt": "<", "gt": ">", "varnothing": "emptyset", 
    "lbrace": "{", "rbrace": "}", "lbrack": "[", "rbrack": "]", "colon": ":", "mid": "|", "vert": "|", "lvert": "|",
    "rvert": "|", "dots": "ldots", "cdots": "ldots", "dotsc": "ldots", "infin": "infty", "plusmn": "pm", "land": ",",
    "wedge": ",", "lor": ",", "vee": ",", "bullet": "cdot", "mathpi": "pi", "cosec": "csc", "arcsec": "arcsec",
    "dollar": "$", "euro": "€", "pounds": "£", "textdollar": "$",
}  # fmt: skip
_FIRST = [
    (re.compile(r"^((?!.*\\begin).*?)\\\\(?=[()\[\]])", re.DOTALL), r"\1\\"),  # `\\(`, as JSON read twice has it
    (re.compile(r"\^?\s*\{?\s*\\degree(?![A-Za-z])\s*\}?"), r"^\\circ "),
    (re.compile(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)"), r" \\times "),
    (re.compile(r"\\\\(?=(?:[dt]?frac|sqrt|pi|text|cdot|times|infty|cup|pm|circ)(?![A-Za-z]))"), r"\\"),
    (re.compile(r"\\[()\[\]](?!\s*\d+(?:pt|em|ex|cm|mm)\])"), " "),
    (re.compile(r"(?<=\d)(?:,\s*\\!\s*|\{,\}\s*|\\,\s*|\\!,)(?=\d{3}(?!\d))"), ""),  # thousands
]
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_SIGNS = {"<", ">", "[", "]", ":", "|", ",", "€", "£"}


def unbox(text: str) -> str:
    r"""Replace each `\boxed{…}` by its content."""
    while found := _BOX.search(text):
        content, end = braced(text, found.end())
        text = f"{text[: found.start()]}{content}{text[end:]}"
    return text


def braced(text: str, start: int) -> tuple[str, int]:
    r"""The group `{…}` that begins at `start`, without its braces, and where it ends.

    Without a brace there it is what LaTeX would take, or what people mean: `\boxed 5`, up to a space or `$`. A group
    that is never closed reaches to the end of the text.
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


def plain_unicode(text: str) -> str:
    """Write full-width, raised, lowered and vulgar characters in ASCII: `１`, `x²`, `52₈`, `2½`, a no-break space."""
    text = text.translate({ord(mark): None for mark in _INVISIBLE})
    text = _SCRIPTS.sub(_script, _ROOT.sub(_root, text))
    letters = []
    for letter in text:
        if letter in _UNICODE:
            letters.append(_UNICODE[letter])
            continue
        folded = unicodedata.normalize("NFKC", letter)
        if "⁄" in folded:  # ½
            top, _, bottom = folded.partition("⁄")
            letters.append(f" \\frac{{{top}}}{{{bottom or 1}}}")
        else:
            letters.append("".join(_UNICODE.get(part, part) for part in folded))
    return unicodedata.normalize("NFC", "".join(letters))


def _root(found: re.Match[str]) -> str:
    """`√13` → `\\sqrt{13}`: a bare root is that of the whole number."""
    degree = {"∛": "[3]", "∜": "[4]"}.get(found[1], "")
    return f"\\sqrt{degree}{{{found[2]}}}" if found[2] else f"\\sqrt{degree} "


def _script(found: re.Match[str]) -> str:
    digits = unicodedata.normalize("NFKC", found.group()).replace("−", "-")
    return f"{'^' if found[1] else '_'}{{{digits}}}"


def clean(text: str) -> str:
    """Write an answer in one notation: ASCII, one command for one thing, no dress, no delimiters, `¤` for dollars.

    Words of `\\text{…}` stay in it. Spaces are single.
    """
    text = plain_unicode(unbox(text))
    for pattern, written in _FIRST:
        text = pattern.sub(written, text)
    text = re.sub(r"(?<=[\w)])\*\*(?=[\d(A-Za-z-])", "^", _emphasis(_dollars(text)))
    text = _COMMAND.sub(_command, _DRESS.sub(" ", _SPACE.sub(" ", text)))
    text = re.sub(r"\^\s*\{\s*\\circ\s*\}", r"^\\circ ", text)
    while (words := _WORDS.sub(_text, text)) != text:
        text = words
    return _end(" ".join(text.replace("\x00", "\\text{").split()))


def _command(found: re.Match[str]) -> str:
    name = _SAME.get(found[1], found[1])
    if name in _SIGNS:
        return name
    return "¤" if name == "$" else f"\\{name}"


def _text(found: re.Match[str]) -> str:
    """`\\mathrm{sin}` is a function, a single letter a variable, all else words."""
    content = found[1].strip()
    if content in ("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "ln", "log", "exp"):
        return f"\\{content} "
    if len(content) == 1 or not re.search(r"[A-Za-z]{2}", content):
        return f" {content} " if len(content) != 1 or found[0].startswith(("\\text", "\\mbox")) else content
    return f" \x00{content}}} "


def _dollars(text: str) -> str:
    """Tell dollars from delimiters: `\\$18`, `$18` and `$5 and $10` are money, `$18$` and `$$18$$` are not."""
    text = text.replace("\\$", "¤").replace("$$", " ")
    marks = [found.end() for found in re.finditer(r"\$", text)]
    money = [bool(re.match(r"\s*\d|\.\d", text[end:])) for end in marks]
    if len(marks) % 2 or all(money):
        return re.sub(r"\$(?=\s*\.?\d)", "¤", text).replace("$", " ")
    return text.replace("$", " ")


def _emphasis(text: str) -> str:
    """Take Markdown's marks away: `**73**`, `__73__`, `` `73` ``, `_73_`, `*73*`."""
    text = text.replace("`", " ").strip()
    text = re.sub(r"\*\*(?!\d)(?=\s|$|[.,;:!?A-Za-z])|(?:(?<=^)|(?<=\s))\*\*", " ", text)
    text = re.sub(r"(?:(?<=^)|(?<=\s))__(?=\S)|(?<=\S)__(?=$|[\s.,])", " ", text).strip()
    if re.fullmatch(r"([*_\"'])[^*_\"']+\1[.]?", text):
        text = text.rstrip(".")[1:-1]
    return text


def _end(text: str) -> str:
    """Take away what ends a sentence, braces around all, and a lone sign of Markdown."""
    while True:
        shorter = text.strip().rstrip(",;:?").strip()
        shorter = re.sub(r"(?<!\\ldots)\s*\.+$", "", shorter) if not shorter.endswith("...") else shorter
        shorter = re.sub(r"(?<![\\A-Za-z])([A-Za-z]{2,})!+$", r"\1", shorter)
        shorter = shorter if shorter.startswith(">") else shorter.strip("*#> ")
        if shorter.startswith("{") and braced(shorter, 0)[1] == len(shorter) and shorter.endswith("}"):
            shorter = shorter[1:-1]
        if shorter == text:
            return shorter
        text = shorter
