"""Where a response states its answer."""

from __future__ import annotations

import re

from .math_reading import braced

MARK = "The answer is"

_STATEMENT = re.compile(
    r"(?:^|(?<=[^\w-]))(?:(?:(?:the|my|our|this|final|correct|right|best)\s+){0,4}answers?(?:\s+(?:choice|option))?\b"
    r"|(?:(?:the|my)\s+)?(?:final|correct|right|best)\s+(?:option|choice)\b)"
    r"(?:\s+(?:here|to\s+[^.\n:]{1,80}?(?=\s+is\b)))?[*_]*\s*"
    r"(?:(?:is|are|(?:would|should|must|will) be)\b|[:=])"
    r"[*_]*[ \t]*:?"
    r"|^[ \t]*[#*]+[ \t]*(?:the\s+)?(?:final\s+)?answer[ \t]*[*:]*[ \t]*$"
    r"|^[ \t]*####[ \t]*(?=\S)"
    r"|(?:答案|答え|답|정답)\s*(?:应该|應該)?(?:[是为為は은]|[：:])[ \t]*[：:]?"
    r"|\b(?:respuesta|resposta|risposta|réponse|antwort)(?:\s+(?:final|correcta|correta|corretta|finale))?\s*"
    r"(?:\b(?:es|é|est|è|ist|lautet)\b[ \t]*:?|:)|\bответ\s*[:—-]",
    re.IGNORECASE | re.MULTILINE,
)
_THOUGHT = r"[<\[◁](/?)(?:seed:)?(?:think|thinking|thought|thoughts|reasoning)[>\]▷]"
_TAGGED = re.compile(r"<(?:final_)?answer>\s*(.*?)\s*</(?:final_)?answer>", re.IGNORECASE | re.DOTALL)
_TAG_LEFT_OPEN = re.compile(r"^[ \t]*<(?:final_)?answer>[ \t]*(\S[^\n<]*)\s*\Z", re.IGNORECASE | re.MULTILINE)
_JSON = re.compile(r'"(?:final_)?answer"\s*:\s*(?:"((?:[^"\\]|\\.)*)"|([^"\s,{}\[\]]+))\s*[,}]', re.IGNORECASE)
_ITEM = re.compile(r"[ \t]*(?:[-*•+]|\d{1,2}[.)])[ \t]+(?=\S)")  # of a list
_LIST = re.compile(rf"[ \t*:]*(?:\n[ \t]*)+(?={_ITEM.pattern})")
_WITHDRAWN = re.compile(  # `no`: for sure; otherwise only where another answer follows
    r"(?:[.!?…,;—–\n]|\s-)[\s*$]*(?:(?:(?:oh|but|hmm+|ah)[\s,.…!]+)?(?:wait|hold on|actually|sorry|hmm+)[\s,.…!—-]*)?"
    r"(?:(?P<no>no,?\s+wait\b|no\s*[,.!…—-]|no(?= (?:it|that|wait)\b)|scratch that|oops|correction\b"
    r"|(?:that|this|it)(?:['’]s| is| was) (?:wrong|not right|not correct|incorrect)|I (?:was|am) wrong|I made a)"
    r"|(?<=[a-z])[\s,.…!—-]|on second thought|let me|I mean|or rather)",
    re.IGNORECASE,
)
_INSTEAD = re.compile(
    r"\b(?:(?:it|that|this)(?:['’]s|\s+is|\s+(?:should|must|would|will)\s+be|\s+equals)|I mean|or rather|make that)"
    r"(?:\s+(?:actually|really|instead))?[ \t,:]+"
    r"(?!(?:wrong|not|(?:in)?correct|right|because|too|that|a|an|in|on)\b)(?=\S)",
    re.IGNORECASE,
)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_VERDICT = r"\s*(?:(?:in)?correct|right|wrong|reasonable|valid|clear|obvious|above|below|as follows)[.!]?\s*(?:\n|\Z)"
_EMPTY = re.compile(rf"\s*(?:not|never)\b|{_VERDICT}", re.IGNORECASE)  # says nothing, or only what the answer isn't
_ADVERB = re.compile(r"(?:therefore|thus|then|simply|just|hence)\b[ \t,:]*(?=[\w$\\])", re.IGNORECASE)
_WORDS = re.compile(r"\s*(?!(?:not|never)\s*(?:[^a-z\s]|\Z))[a-z]", re.IGNORECASE)
_DRESS = r"[\s$.()\\\[\]]*"
_NAME = r"[A-Za-z]\w?\s*="
_JOINT = re.compile(  # between boxes of one answer: nothing, `,`, `and`, or the name of the next; no mere line break
    rf"[ \t$.()\\\[\]]*|{_DRESS}(?:(?:[,;]\s*)?(?:and|or)\b|[,;]){_DRESS}(?:{_NAME}{_DRESS})?|{_DRESS}{_NAME}{_DRESS}"
)
_NUMBER = re.compile(r"-?[$£€]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?%?|-?\.\d+")
_FURTHER = re.compile(r"(?<=[\d)}$*%\]])[.!]\s+(?=[A-Z])|(?<=[a-z]{3})[.!]\s+(?=[A-Z])")
_SPOKEN = re.compile(r"\banswers?\s+(?:is|are)(?:n['’]t)?\b", re.IGNORECASE)
_LINES = 60  # of an answer at the most


def extract_answer(text: str, task: str) -> str:
    r"""Return the answer that a response states: what its last "The answer is", `\boxed{…}` or `####` says.

    It may stand on the next line, and a matrix or a displayed formula may span several. A statement of what the answer
    is not is passed over. Several boxes in one statement are a list. Where a `math` response states nothing, its last
    number or formula is taken; for `qa` there is then no answer.

    Returns:
        The answer; empty if there is none.
    """
    text = _spoken(text.replace("\r\n", "\n"))
    tagged = _TAGGED.findall(text) or _TAG_LEFT_OPEN.findall(text)
    tagged = tagged or [(words or bare).replace("\\\\", "\\") for words, bare in _JSON.findall(text)]
    if tagged and tagged[-1]:
        text = tagged[-1]
        return _stated(text, task) or text
    return _stated(text, task) or (_last_value(text) if task == "math" and not _SPOKEN.search(text) else "")


def _spoken(text: str) -> str:
    """Return a response without its thoughts; those that never end leave nothing after them."""
    marks = list(re.finditer(_THOUGHT, text, re.IGNORECASE))
    closing = [mark.end() for mark in marks if mark[1]]
    start = closing[-1] if closing else 0
    opening = [mark.start() for mark in marks if not mark[1] and mark.start() >= start]
    return text[start : opening[0] if opening else len(text)]


def _stated(text: str, task: str) -> str:
    """Return what the last statement or box says; empty if there is none."""
    stated = statement(text)
    boxes = list(_BOX.finditer(text))
    while boxes and not braced(text, boxes[-1].end())[0].strip():
        boxes.pop()  # "put it in \\boxed{}"
    if stated and (boxes or task == "math") and re.match(_VERDICT, text[stated[0] :], re.IGNORECASE):
        stated = None
    if boxes and (stated is None or boxes[-1].start() >= stated[0]):
        inside = stated is not None and boxes[-1].start() < stated[1]
        content, end = _boxed(text, boxes, stated[0] if stated and inside else 0)
        withdrawn, instead = _corrected(text[end:], task)
        return instead if withdrawn else content
    if stated is None:
        return ""
    answer = _items(text, *stated)
    withdrawn, instead = _corrected(text[stated[0] :], task)
    if withdrawn:
        return instead
    return _one_sentence(_ADVERB.sub("", answer)) if task == "math" else answer.replace("**", "").strip()


def _corrected(said: str, task: str) -> tuple[bool, str]:
    """Return whether an answer is withdrawn after it was stated, and what is said instead: "4. Wait, no. It is 5."."""
    found = _WITHDRAWN.search(said)
    if found is None:
        return False, ""
    instead = list(_INSTEAD.finditer(said, found.start()))
    if instead:
        answer = said[instead[-1].end() :].partition("\n")[0].strip()
        return True, _one_sentence(answer) if task == "math" else answer.replace("**", "").strip()
    rest = said[found.end() :].lstrip(" \t,.:;!-—")
    return found["no"] is not None, _last_value(rest) if task == "math" else rest.partition("\n")[0].strip()


def _items(text: str, start: int, end: int) -> str:
    """Return a stated answer; of a list below "The answer is:" the items."""
    below = _LIST.match(text, start)
    if below is None:
        return text[start:end].strip()
    items = []
    for line in text[below.end() :].split("\n"):
        if not (item := _ITEM.match(line)):
            break
        items.append(line[item.end() :].strip())
    return ", ".join(items)


def stated_answer(text: str) -> str | None:
    """Return what the last statement of an answer says; None if nothing states one.

    >>> stated_answer("So 2 + 2 = 4.\\nThe answer is 4")
    '4'
    """
    stated = statement(text)
    return None if stated is None else text[stated[0] : stated[1]].strip()


def statement(text: str) -> tuple[int, int] | None:
    """Where the last statement of an answer begins and ends; None if there is none.

    One that says nothing, or only denies, is passed over, unless it is the last line ("The answer is not very much",
    "The answer is clear") and nothing else is stated.
    """
    found = list(_STATEMENT.finditer(text))
    last_line = len(text.rstrip()) - len(text.rstrip().rpartition("\n")[2])
    end, denial = len(text), None
    for stated in reversed(found):
        span = stated.end(), min(end, _end(text, stated.end()))
        if not _EMPTY.match(text, stated.end()):
            return span
        if stated.start() == last_line and _WORDS.match(text, stated.end()):
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


def _boxed(text: str, boxes: list[re.Match[str]], start: int) -> tuple[str, int]:
    """Return the content of the last box and of those that are joined to it, and where it ends.

    `\\boxed{3} and \\boxed{5}` → `3, 5`; a box on the next line is another answer.
    """
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
    return ", ".join(contents), braced(text, boxes[-1].end())[1]


def _one_sentence(answer: str) -> str:
    """Without the sentences that follow an answer on its line."""
    if _is_open(_FURTHER.split(answer, maxsplit=1)[0]):
        return answer
    return _FURTHER.split(answer, maxsplit=1)[0].strip()


def _last_value(text: str) -> str:
    """Return the last formula or number of a response that marks no answer; a text of a few words as it stands."""
    line = text.strip().rpartition("\n")[2].strip()
    if len(line.split()) < 3 or re.fullmatch(r"[^A-Za-z]*", line):
        return line
    formulas = re.findall(r"(?<![\\\d$])\$([^$\n]+)\$", text)
    if formulas and re.search(r"\$[^$\n]+\$\W*$", line):
        return formulas[-1].strip()
    numbers = _NUMBER.findall(text)
    return numbers[-1].strip("$") if numbers else line
