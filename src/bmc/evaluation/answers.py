"""Where a response states its answer."""

from __future__ import annotations

import re

MARK = "The answer is"
_MARKED = re.compile(re.escape(MARK) + r":?[ \t]*([^\n]*)", re.IGNORECASE)


def stated_answer(text: str) -> str | None:
    """What follows the last "The answer is" on its line; None if nothing states an answer.

    >>> stated_answer("So 2 + 2 = 4.\\nThe answer is 4")
    '4'
    """
    found = _MARKED.findall(text)
    return found[-1].strip() if found else None
