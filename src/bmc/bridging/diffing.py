"""Two texts compared word by word, as HTML."""

from __future__ import annotations

import html
import re

from rapidfuzz.distance import Levenshtein

LIMIT = 20_000  # characters of a text that are shown
_DIRECTIONS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_WORD = re.compile(r"\w+\s*|[^\w\s]\s*|\s+")


def escape(text: str) -> str:
    """A text to be shown: markup, control characters and marks of direction as they are written, cut at `LIMIT`."""
    more = len(text) - LIMIT
    return html.escape(_visible(text[:LIMIT])) + (f"<small> … {more:,} more characters</small>" if more > 0 else "")


def _visible(text: str) -> str:
    """The text with what would act on the page, or not be seen there, written out."""
    text = "".join(chr(0x2400 + ord(char)) if char < " " and char not in "\n\t" else char for char in text)
    return _DIRECTIONS.sub(lambda mark: f"[U+{ord(mark[0]):04X}]", text).encode("utf-8", "replace").decode("utf-8")


def diff(before: str, after: str) -> str:
    """`after` as an edit of `before`: what was taken out in `<del>`, what was put in in `<ins>`.

    >>> diff("It is a bank.", "It is a river.")
    'It is a <del>bank</del><ins>river</ins>.'
    """
    old, new = (_WORD.findall(text[:LIMIT]) for text in (before, after))
    pieces = []
    for step in Levenshtein.opcodes(old, new):
        removed, added = "".join(old[step.src_start : step.src_end]), "".join(new[step.dest_start : step.dest_end])
        if step.tag == "equal":
            pieces.append(escape(added))
        else:
            pieces += [_changed("del", removed), _changed("ins", added)]
    more = max(len(before), len(after)) - LIMIT
    return "".join(pieces) + (f"<small> … {more:,} more characters</small>" if more > 0 else "")


def _changed(tag: str, text: str) -> str:
    """A piece that was taken out or put in; its line breaks are made visible."""
    return f"<{tag}>{escape(text).replace(chr(10), '↵' + chr(10))}</{tag}>" if text else ""
