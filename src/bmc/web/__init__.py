"""Pages in one file, by jinja2 with autoescape: they fetch nothing and run no script but their own."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

LIMIT = 20_000  # characters of a text that are shown
TEMPLATES = Path(__file__).parent / "templates"
_DIRECTIONS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_IN_SCRIPT = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def render(
    template: Path, styles: Sequence[str] = (), scripts: Sequence[str] = (), connect: str = "'none'", **values: Any
) -> str:
    """Render a page whose policy allows its own styles and scripts by their digests, embedded pictures, nothing else.

    Every string that a template prints is escaped as by `escape`.

    Args:
        template: Extends `base.html.jinja`.
        styles: CSS files beside it, after the shared sheet.
        scripts: JavaScript files beside it, run in this order at the end of the body.
        connect: Where its scripts may send requests, as the policy names it.
        values: What the template prints; `title` among them.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: escape(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"breakable": breakable}
    environment.globals |= {"data": data, "data_uri": data_uri}
    sheets = [_read(TEMPLATES / "style.css"), *(_read(template.parent / name) for name in styles)]
    code = [_read(template.parent / name) for name in scripts]
    policy = Markup(
        f"default-src 'none'; style-src {_sources(sheets)}; script-src {_sources(code)}; img-src data:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
    return environment.get_template(template.name).render(styles=sheets, scripts=code, policy=policy, **values)


def _read(path: Path) -> Markup:
    return Markup(path.read_text(encoding="utf-8"))


def _sources(texts: Sequence[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"


def escape(text: str) -> Markup:
    """Show a text as it is: markup, control characters and marks of direction written out, cut at `LIMIT`."""
    more = len(text) - LIMIT
    rest = f"<small> … {more:,} more characters</small>" if more > 0 else ""
    return Markup(html.escape(_visible(text[:LIMIT])) + rest)


def shown(text: str) -> str:
    """Write a text for a script to print, as `escape` does for a page."""
    more = len(text) - LIMIT
    return _visible(text[:LIMIT]) + (f" … {more:,} more characters" if more > 0 else "")


def breakable(text: str) -> Markup:
    """Escape a name, and let a line break after its separators and nowhere else."""
    return Markup(re.sub(r"([/_.=-])(?=[^\W\d])", r"\1<wbr>", str(escape(text))))


def _visible(text: str) -> str:
    text = "".join(chr(0x2400 + ord(char)) if char < " " and char not in "\n\t" else char for char in text)
    return _DIRECTIONS.sub(lambda mark: f"[U+{ord(mark[0]):04X}]", text).encode("utf-8", "replace").decode("utf-8")


def data(name: str, lines: Sequence[Any]) -> Markup:
    """Embed values for a script, a line of JSON each, in an element that nothing runs; no text in them can end it."""
    rows = (json.dumps(line, ensure_ascii=False, separators=(",", ":")).translate(_IN_SCRIPT) for line in lines)
    text = "\n".join(rows).encode("utf-8", "backslashreplace").decode("utf-8")  # half a surrogate pair: JSON's escape
    return Markup(f'<script type="application/json" id="{name}">{text}</script>')


def data_uri(kind: str, content: bytes) -> Markup:
    """Embed a file: `data:image/svg+xml;base64,…`."""
    return Markup(f"data:{kind};base64,{base64.b64encode(content).decode()}")
