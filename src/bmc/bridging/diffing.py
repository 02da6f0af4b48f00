"""Two texts compared word by word, as HTML."""

from __future__ import annotations

import regex
from rapidfuzz.distance import Levenshtein

from ..web.page import LIMIT, escape
from .words import UNSPACED

_WORD = regex.compile(rf"{UNSPACED}\p{{M}}*\s*|(?:(?!{UNSPACED})\w)+\s*|[^\w\s]\s*|\s+")


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
