"""Prompts of an LLM editor, and the parser of its responses.

The prompts stand in `prompts/*.txt`, our own to the paper's description (§3.1, A.2; its Figures 7 and 8 are images):
the system message, a line `---`, and the user message, with the fields `{mark}`, `{prompt}` (x), `{chosen}` (y_w) and
`{rejected}` (y_l). `feedback.txt` and `rationale.txt` are added to the user message of those that want them; two
sentences on what is wrong before the edit are CLAIR's idea (arXiv 2408.06266).

Every part stands between tags that carry a mark, and the mark is chosen so that no part contains it: whatever a
response says, it can't close its own tag. Special tokens of chat templates are escaped, so that it can't end its
message either.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config import BridgeMode
from ..data.schema import digest
from .edits import Edit, EditRejected, EditRequest, RejectionReason
from .validators import escape_special_tokens, unescape_special_tokens
from .words import number_words

Messages = list[dict[str, str]]

# Part of a request's key: raise it when a template changes, and every request is new, unless `earlier_versions`
# knows how the same was worded before.
VERSION = 2


@dataclass(frozen=True)
class Prompt:
    """The prompt for one kind of edit."""

    system: str  # the system message
    # the user message, with fields for `mark` and those of the case's `prompt`, `chosen`, `rejected` and `feedback`
    # that it shows
    text: str
    judges: bool = False  # whether the reply may be that y_l needs no edit
    tag: str = "revised"  # what the reply stands between
    wanted: str = "the whole revised text"  # what that is

    def fill(self, **texts: str) -> tuple[Messages, str]:
        """Fill in those of the texts that the prompt shows: `(messages, mark)`."""
        shown = {name: escape_special_tokens(text) for name, text in texts.items() if f"{{{name}}}" in self.text}
        mark = _mark("\n".join(shown.values()))
        user = self.text.format(mark=mark, **shown)
        return [{"role": "system", "content": self.system}, {"role": "user", "content": user}], mark

    def between_tags(self, reply: str, mark: str) -> str:
        """Return the text between the last pair of tags in a reply.

        Raises:
            EditRejected: It has none.
        """
        tag = self.tag
        if span := _last_pair(reply, tag, mark):
            return unescape_special_tokens(_trimmed(reply[slice(*span)]))
        what = "revised draft" if tag == "revised" else tag
        missing = f"there is no text between <{tag} {mark}> and </{tag} {mark}>"
        raise EditRejected(RejectionReason(f"unreadable reply: no {what} between the tags", missing))

    def again(self, reply: str, advice: str, mark: str) -> Messages:
        """Write the turns that follow a rejected reply: itself, and why, without a word of the data."""
        # templates refuse empty or missing turns
        rejected_edit = escape_special_tokens(reply) if reply.strip() else "(nothing)"
        user = (
            f"This can't be used: {advice}. Do the task once more under the same rules, and write {self.wanted} "
            f"between <{self.tag} {mark}> and </{self.tag} {mark}>."
        )
        return [{"role": "assistant", "content": rejected_edit}, {"role": "user", "content": user}]


def _read(name: str, **how: Any) -> Prompt:
    """Read `prompts/NAME.txt`."""
    system, _, user = (
        (Path(__file__).parent / "prompts" / f"{name}.txt").read_text(encoding="utf-8").partition("\n\n---\n\n")
    )
    return Prompt(system, user, **how)


def _prompts() -> Iterator[tuple[tuple[str, str], Prompt]]:
    for mode in ("targeted", "without_reference", "degrade", "fresh", "polish"):
        reply = {"tag": "answer", "wanted": "the whole answer"} if mode == "fresh" else {}
        for template in ("closed", "instruction"):
            judges = template == "closed" and mode in ("targeted", "degrade")
            yield (mode, template), _read(f"{mode}_{template}", judges=judges, **reply)


# Version 1 differs from version 2 in the system message of most modes alone.
_SYSTEM_1 = (Path(__file__).parent / "prompts" / "editor_system_version_1.txt").read_text(encoding="utf-8").strip()

PROMPTS: dict[tuple[str, str], Prompt] = dict(_prompts())
SCORING = _read("token_scores", tag="scores", wanted="the list of number:score")
_FEEDBACK, _RATIONALE = (_read(name).system.strip() for name in ("feedback", "rationale"))


def edit_prompt(mode: BridgeMode, template: str, rationale: bool, case: EditRequest | None = None) -> Prompt:
    """Compose the prompt for an edit; `targeted` shows the case's feedback, in place of y_w where there is none."""
    shows_feedback = mode == "targeted" and case is not None and case.feedback is not None
    instead = shows_feedback and case is not None and not case.has_reference
    prompt = PROMPTS["without_reference" if instead else mode, template]
    added = [*([_FEEDBACK] if shows_feedback else []), *([_RATIONALE] if rationale else [])]
    return replace(prompt, text="\n\n".join([prompt.text.rstrip("\n"), *added])) if added else prompt


def earlier_versions(messages: Messages) -> list[tuple[int, Messages]]:
    """Return the requests of earlier versions, with these, whose cached responses stand for a request's."""
    system, *rest = messages
    if system["content"] == PROMPTS["targeted", "closed"].system:
        system = system | {"content": _SYSTEM_1}
    return [(1, [system, *rest])]


def request(prompt: Prompt, case: EditRequest) -> tuple[Messages, str]:
    """Write the request for an edit: `(messages, mark)`; the mark is needed to read the reply."""
    texts = {"prompt": case.prompt, "chosen": case.chosen, "rejected": case.rejected, "feedback": case.feedback or ""}
    return prompt.fill(**texts)


def score_request(prompt: str, response: str) -> tuple[Messages, str]:
    """Write the request for the scores of a response's words: `(messages, mark)`."""
    return SCORING.fill(prompt=prompt, response=number_words(response))


# Letters that look like those of a mark.
_LOOK_ALIKES = str.maketrans("аαсϲԁеḟ", "aaccdef")


def _mark(text: str) -> str:
    """Choose a short word that doesn't occur in the text, nor in what it looks like; the same for the same text."""
    # no joiners, no direction marks
    visible = text if text.isascii() else "".join(char for char in text if unicodedata.category(char) != "Cf")
    looks = unicodedata.normalize("NFKC", visible).casefold().translate(_LOOK_ALIKES)
    mark = digest(text)[:6]
    while mark in text or mark in looks:
        mark = digest(mark)[:6]
    return mark


# What closes a reasoning model's thoughts, in the responses of servers that leave them in.
_END_OF_THOUGHTS = re.compile(
    r"</(?:think|thinking|thought|thoughts|reasoning|seed:think)>|\[/THINK\]|◁/think▷", re.IGNORECASE
)
_OPEN_THOUGHTS = re.compile(r"\s*<(?:think|thinking|thought|thoughts|reasoning|seed:think)>", re.IGNORECASE)
_VERDICT = re.compile(
    r"<verdict(?:\s+\w+)?\s*>\W{0,5}(good|edit)(?:\s+enough)?\W{0,5}</verdict(?:\s+\w+)?\s*>", re.IGNORECASE
)
_NO_TEXT = {"and", "to", "&", "/", "…", "..."}  # between tags that a reply only mentions: "between <a> and </a>"
_MARKDOWN = "*`"  # what a reply may write around a tag: **<a>**, `<a>`


def _end_of_thoughts(reply: str) -> int:
    """Return where the reply proper starts: at its end, if it opens its thoughts and never closes them."""
    end = max((found.end() for found in _END_OF_THOUGHTS.finditer(reply)), default=0)
    return end or (len(reply) if _OPEN_THOUGHTS.match(reply) else 0)


def _last_pair(reply: str, tag: str, mark: str) -> tuple[int, int] | None:
    """Find the text between the last pair of tags, outside the thoughts.

    Case and white space inside a tag don't matter, nor whether the mark is an attribute; the closing tag may lack it.
    Markdown around both tags is no text. A reply may try twice, or mention the tags before it uses them: the last pair
    that holds a text counts.
    """
    thoughts_end, limit = _end_of_thoughts(reply), len(reply)
    starts, closing = _tags(tag)
    for opening in reversed([found for found in starts.finditer(reply) if found["mark"].casefold() == mark]):
        found_ends = closing.finditer(reply, opening.end(), limit)
        ends = [found for found in found_ends if (found["mark"] or mark).casefold() == mark]
        # A text may hold an unmarked closing tag of its own, so a marked one comes first, then the last of the others.
        end = next((found for found in ends if found["mark"]), ends[-1] if ends else None)
        if end and end.end() > thoughts_end:
            span = _without_markdown(reply, opening.start(), opening.end(), end.start())
            if reply[slice(*span)].strip().casefold() not in _NO_TEXT:
                return span
        limit = opening.start()
    return None


@functools.cache
def _tags(tag: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return what finds an opening tag and a closing one, with any mark."""
    marked = r"[\s_-]\s*(?:[a-z]+=)?[\"']?(?P<mark>[0-9a-z]+)[\"']?"
    patterns = rf"<\s*{tag}{marked}\s*>", rf"<\\?/\s*{tag}(?:{marked})?\s*>"
    return re.compile(patterns[0], re.IGNORECASE), re.compile(patterns[1], re.IGNORECASE)


def _without_markdown(reply: str, tag: int, start: int, end: int) -> tuple[int, int]:
    """Drop the markdown that stands around both tags from the text between them."""
    before = reply[max(tag - 3, 0) : tag]
    sign = before[len(before.rstrip(_MARKDOWN)) :]
    if sign and reply.startswith(sign, start, end - len(sign)) and reply.endswith(sign, start + len(sign), end):
        return start + len(sign), end - len(sign)
    return start, end


def _trimmed(text: str) -> str:
    """Drop the spaces and the one line break that belong to the tags."""
    return re.sub(r"\A[ \t]*(?:\r?\n)?|(?:\r?\n)?[ \t]*\Z", "", text)


def _is_good(reply: str, span: tuple[int, int] | None) -> bool:
    """Return whether the last verdict, outside thoughts and the edit at `span`, is "good"."""
    start, end = span or (len(reply), len(reply))
    outside = reply[_end_of_thoughts(reply) : start] + "\n" + reply[end:]
    verdicts = _VERDICT.findall(outside)
    return bool(verdicts) and verdicts[-1].casefold() == "good"


def read_reply(prompt: Prompt, reply: str, mark: str) -> Edit:
    """Read an editor's reply: an edit, or the verdict that none is needed.

    Raises:
        EditRejected: The reply has neither the requested text nor, where it may, a verdict "good".
    """
    span = _last_pair(reply, prompt.tag, mark)
    if prompt.judges and _is_good(reply, span):
        return Edit(None)
    rationale = _rationale(reply, span, mark) if _RATIONALE in prompt.text else None
    return Edit(prompt.between_tags(reply, mark), rationale=rationale)


_ANY_TAG = re.compile(r"</?\s*(?:rationale|verdict|revised|answer)\b[^<>]*>", re.IGNORECASE)
_RATIONALE_LABEL = re.compile(r"\A[\W_]*(?:rationale|reasoning|what is wrong)[\W_]*:[\s*_]*", re.IGNORECASE)


def _rationale(reply: str, span: tuple[int, int] | None, mark: str) -> str | None:
    """Find what a reply says is wrong, outside the edit at `span`: between the tags, else what stands before the edit.

    Tags may lack their mark or their end. A reply that says nothing of the kind is no fault: the edit counts.
    """
    start, end = span or (len(reply), len(reply))
    outside = reply[:start] + "\n" + reply[end:]
    if found := _last_pair(outside, "rationale", mark):
        text = outside[slice(*found)]
    else:
        before = _VERDICT.sub("", reply[_end_of_thoughts(reply) : start])
        text = re.split(r"<\s*rationale\b[^<>]*>", before, flags=re.IGNORECASE)[-1]
        text = re.split(r"</\s*rationale\b", text, flags=re.IGNORECASE)[0]
    text = _RATIONALE_LABEL.sub("", _ANY_TAG.sub("", unescape_special_tokens(text)).strip(" \t\r\n*_`"))
    return " ".join(text.split()) or None
