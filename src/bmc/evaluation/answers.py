"""Where a response states its answer."""

from __future__ import annotations

import re

from .notation import braced

MARK = "The answer is"

_STATEMENT = re.compile(
    r"(?:^|(?<=[^\w-]))(?:(?:the|my|our|this|final|correct|right)\s+){0,4}answers?\b"
    r"(?:\s+(?:here|to\s+[^.\n:]{1,80}?(?=\s+is\b)))?[*_]*\s*"
    r"(?:(?:is|are|(?:would|should|must|will) be)\b"
    r"(?:\s+(?:therefore|thus|then|simply|just|hence)\b(?=[ \t,:]*[\w$\\]))?|[:=])"
    r"[*_]*[ \t]*:?"
    r"|^[ \t]*[#*]+[ \t]*(?:the\s+)?(?:final\s+)?answer[ \t]*[*:]*[ \t]*$"
    r"|^[ \t]*####[ \t]*(?=\S)",
    re.IGNORECASE | re.MULTILINE,
)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_EMPTY = re.compile(  # what says nothing of the answer, or only what it isn't
    r"\s*(?:not\b|never\b"
    r"|(?:(?:in)?correct|right|wrong|reasonable|valid|clear|obvious|above|below|as follows)[.!]?\s*(?:\n|\Z))",
    re.IGNORECASE,
)
_JOINT = re.compile(r"[\s$.,;()\\\[\]]*(?:(?:and|or)\b|[,;])?[\s$()\\\[\]]*(?:[A-Za-z]\w?\s*=\s*)?[\s$()\\\[\]]*")
_NUMBER = re.compile(r"-?[$£€]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?%?|-?\.\d+")
_FURTHER = re.compile(r"(?<=[\d)}$*%\]])[.!]\s+(?=[A-Z])|(?<=[a-z]{3})[.!]\s+(?=[A-Z])")
_SPOKEN = re.compile(r"\banswers?\s+(?:is|are)(?:n['’]t)?\b", re.IGNORECASE)
_LINES = 60  # of an answer at the most


def extract_answer(text: str, task: str) -> str:
    r"""The answer that a response states: what its last "The answer is", `\boxed{…}` or `####` says.

    It may stand on the next line, and a matrix or a displayed formula may span several. A statement of what the answer
    is not is passed over. Several boxes in one statement are a list.

    Args:
        text: A response.
        task: Where a `math` response states nothing, its last number or formula is taken; for `qa` there is then no
            answer.

    Returns:
        The answer; empty if there is none.
    """
    text = text.rpartition("</think>")[2].replace("\r\n", "\n")
    stated = statement(text)
    boxes = list(_BOX.finditer(text))
    if boxes and (stated is None or boxes[-1].start() >= stated[0]):
        inside = stated is not None and boxes[-1].start() < stated[1]
        return _boxed(text, boxes, stated[0] if stated and inside else 0)
    if stated is not None:
        answer = text[stated[0] : stated[1]].strip()
        return _one_sentence(answer) if task == "math" else answer.replace("**", "").strip()
    return _last_value(text) if task == "math" and not _SPOKEN.search(text) else ""


def stated_answer(text: str) -> str | None:
    """What the last statement of an answer says; None if nothing states one.

    >>> stated_answer("So 2 + 2 = 4.\\nThe answer is 4")
    '4'
    """
    stated = statement(text)
    return None if stated is None else text[stated[0] : stated[1]].strip()


def statement(text: str) -> tuple[int, int] | None:
    """Where the last statement of an answer begins and ends; None if there is none.

    One that only denies is passed over, unless it is a last line of its own ("The answer is not very much") and nothing
    else is stated.
    """
    found = list(_STATEMENT.finditer(text))
    last_line = len(text.rstrip()) - len(text.rstrip().rpartition("\n")[2])
    end, denial = len(text), None
    for stated in reversed(found):
        span = stated.end(), min(end, _end(text, stated.end()))
        if not _EMPTY.match(text, stated.end()):
            return span
        if stated.start() == last_line and re.match(r"\s*not [a-z]", text[stated.end() :], re.IGNORECASE):
            denial = span
        end = stated.start()
    return denial


def _end(text: str, start: int) -> int:
    """Where an answer ends: with its line, or with the line that closes what it opens."""
    end = start - 1
    for _ in range(_LINES):
        end = text.find("\n", end + 1)
        if end < 0:
            return len(text)
        said = text[start:end]
        if said.strip(" \t\n*:$`#>[\\") and not _is_open(said):
            return end
    return end


def _is_open(text: str) -> bool:
    return (
        text.count("$$") % 2 == 1
        or text.count("\\begin{") > text.count("\\end{")
        or len(re.findall(r"(?<!\\)\\\[", text)) > len(re.findall(r"(?<!\\)\\\]", text))
        or len(re.findall(r"(?<!\\)\\\((?!\))", text)) > len(re.findall(r"(?<!\\)\\\)", text))
        or (bool(_BOX.search(text)) and text.count("{") > text.count("}"))
        or text.count("```") % 2 == 1
    )


def _boxed(text: str, boxes: list[re.Match[str]], start: int) -> str:
    """The content of the last box, and of those that are joined to it: `\\boxed{3} and \\boxed{5}` → `3, 5`."""
    contents: list[str] = []
    following: int | None = None
    for box in reversed(boxes):
        content, end = braced(text, box.end())
        if following is not None and not (0 <= following - end < 40 and _JOINT.fullmatch(text[end:following])):
            break
        if box.start() < start:
            break
        if not contents or content != contents[0]:
            contents.insert(0, content)
        following = box.start()
    return ", ".join(contents)


def _one_sentence(answer: str) -> str:
    """Without the sentences that follow an answer on its line."""
    if _is_open(_FURTHER.split(answer, maxsplit=1)[0]):
        return answer
    return _FURTHER.split(answer, maxsplit=1)[0].strip()


def _last_value(text: str) -> str:
    """The last formula or number of a response that marks no answer; a text of a few words as it stands."""
    line = text.strip().rpartition("\n")[2].strip()
    if len(line.split()) < 3 or re.fullmatch(r"[^A-Za-z]*", line):
        return line
    formulas = re.findall(r"(?<![\\\d$])\$([^$\n]+)\$", text)
    if formulas and re.search(r"\$[^$\n]+\$\W*$", line):
        return formulas[-1].strip()
    numbers = _NUMBER.findall(text)
    return numbers[-1].strip("$") if numbers else line
