"""A page to be read: one file that fetches nothing and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LIMIT = 20_000  # characters of a text that are shown
STYLE = Path(__file__).with_name("style.css")
_DIRECTIONS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_IN_SCRIPT = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
{styles}
</head>
<body>
{body}
{scripts}
</body>
</html>"""


def document(title: str, body: str, styles: Sequence[str] = (), scripts: Sequence[str] = ()) -> str:
    """A whole page. Its policy allows these styles and scripts by their digests, pictures of its own, and nothing else.

    Args:
        title: Plain text.
        body: Markup.
        styles: CSS, after the shared sheet.
        scripts: JavaScript, run in this order at the end of the body.
    """
    sheets = [STYLE.read_text(encoding="utf-8"), *styles]
    allowed = {
        "default-src": "'none'",
        "style-src": " ".join(map(_source, sheets)),
        "script-src": " ".join(map(_source, scripts)) or "'none'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return _PAGE.format(
        policy="; ".join(f"{name} {value}" for name, value in allowed.items()),
        title=escape(title),
        styles="\n".join(f"<style>{sheet}</style>" for sheet in sheets),
        body=body,
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def escape(text: str) -> str:
    """A text to be shown: markup, control characters and marks of direction as they are written, cut at `LIMIT`."""
    more = len(text) - LIMIT
    return html.escape(_visible(text[:LIMIT])) + (f"<small> … {more:,} more characters</small>" if more > 0 else "")


def breakable(text: str) -> str:
    """Escape a name, and let a line break after its separators and nowhere else."""
    return re.sub(r"([/_.=-])(?=[^\W\d])", r"\1<wbr>", escape(text))


def _visible(text: str) -> str:
    """The text with what would act on the page, or not be seen there, written out."""
    text = "".join(chr(0x2400 + ord(char)) if char < " " and char not in "\n\t" else char for char in text)
    return _DIRECTIONS.sub(lambda mark: f"[U+{ord(mark[0]):04X}]", text).encode("utf-8", "replace").decode("utf-8")


def data(name: str, lines: Sequence[Any]) -> str:
    """Values for a script, a line of JSON each, in an element that nothing runs; no text in them can end it."""
    rows = (json.dumps(line, ensure_ascii=False, separators=(",", ":")).translate(_IN_SCRIPT) for line in lines)
    text = "\n".join(rows).encode("utf-8", "backslashreplace").decode("utf-8")  # half a surrogate pair: JSON's escape
    return f'<script type="application/json" id="{name}">{text}</script>'


def data_uri(kind: str, content: bytes) -> str:
    """A file inside the page: `data:image/svg+xml;base64,…`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def table(
    label: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    words: Sequence[int] = (),
    runs: Sequence[str] = (),
) -> str:
    """A table in a box that scrolls by itself, by keyboard too; the first cell of a line is its name.

    Args:
        label: What the table is, for who can't see it.
        header: Markup of the columns' names.
        rows: Markup of the cells.
        words: Places of the columns that hold no numbers, and stand to the left.
        runs: Name of the run that each line is about, by which it can be hidden.
    """
    kinds = [' class="words"' if place in words else "" for place in range(len(header))]
    head = "".join(f'<th scope="col"{kind}>{cell}</th>' for cell, kind in zip(header, kinds, strict=True))
    lines = ("".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row[1:], kinds[1:], strict=True)) for row in rows)
    marks = [f' data-run="{escape(run)}"' for run in runs] or [""] * len(rows)
    body = "\n".join(
        f'<tr{mark}><th scope="row">{row[0]}</th>{line}</tr>'
        for mark, row, line in zip(marks, rows, lines, strict=True)
    )
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{escape(label)}"><table class="grid">\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def facts(caption: str, rows: dict[str, str]) -> str:
    """A table of names and values; the values are markup."""
    head = f"<caption>{caption}</caption>" if caption else ""
    cells = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{value}</td></tr>' for name, value in rows.items())
    return f"<table>{head}{cells}</table>"
