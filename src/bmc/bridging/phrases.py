"""What an editor says instead of an edit or around it, in English: refusals, and talk about the edit."""

from __future__ import annotations

import re
from collections.abc import Iterator

_SORRY = (
    r"(?:however,? |but )?"
    r"(?:(?:i am|i'm|we are|we're) (?:\w+ )?sorry|sorry|(?:my )?apologies|i apologi[sz]e|unfortunately|regrettably|"
    r"as an? (?:ai|artificial|large|language)[^.\n]{0,60}?)[^.\n]{0,60}?[,.;:!–—-]? ?(?:but |and |that |however,? )?"
)
_CANNOT = (
    r"(?:{who} (?:can't|cannot(?: and will not)?|can not|could not|couldn't|will not|won't|am unable to|"
    r"am not able to|are unable to|are not able to|will not be able to|won't be able to|am not going to|"
    r"do not feel comfortable|don't feel comfortable)|"
    r"(?:i'm|we're) (?:unable to|not able to|not going to|not comfortable))(?: \w+ly)? "
)
_REQUEST = (
    r"(?:\w+ ){0,3}?"
    r"(?:requests?|drafts?|tasks?|questions?|texts?|responses?|answers?|content|edits?|revisions?|information|advice|"
    r"instructions|guidance|assistance|help|topics?|discussions?|conversations?)\b"
)
# "I can't do that." refuses, "we can't do that without equipment" explains.
_ITSELF = r"(?:that|this|these|those|it|so)(?: for you)?(?=[.,;!:\n]|\Z| (?:because|as|since|due|in good conscience)\b)"
_HELP = r"(?:assist|help|helping|assisting)(?: you)?(?:(?: with\b| in\b| on\b)|(?=[.,;!\n]|\Z)| to\b)"
_DO = (
    r"(?:fulfil|fulfill|complet|process|provid|answer|respond to|edit|revis|rewrit|improv|mend|creat|generat|writ|"
    r"produc|engag|continu|discuss|shar|giv|offer|do|support|promot|participat)(?:e|ing)?(?: in| with)?"
    r"(?: you(?: with)?)? "
)
_DECLINE = r"(?:i|we) (?:must|have to|need to|will)(?: \w+ly)? (?:decline|refuse)\b"
_ANYTHING = rf"(?:{_HELP}|compl(?:y|ying)\b|{_DO}(?:{_REQUEST}|{_ITSELF}))"
# Who says "we" in a response mostly explains something, so that only a request's own words make it a refusal.
_REFUSAL = re.compile(
    rf"(?:\A|[.!?\n] ?)(?:"
    rf"{_SORRY}{_CANNOT.replace('{who}', '(?:i|we)')}{_ANYTHING}"
    rf"|(?:however,? |but )?{_CANNOT.replace('{who}', 'i')}{_ANYTHING}"
    rf"|(?:however,? |but )?{_CANNOT.replace('{who}', 'we')}"
    rf"(?:{_HELP}(?= (?:that|this|your)\b|[.!\n])|compl(?:y|ying) with\b|"
    rf"{_DO}(?:that|this|your|such an?) (?:\w+ )?requests?\b)"
    rf"|(?:{_SORRY})?{_DECLINE})"
)

_EDITED = (
    r"(?:revised|edited|improved|corrected|mended|polished|re-?written|updated|modified|refined|enhanced|amended|fixed|"
    r"changed|adjusted|reworked|reworded|rephrased)"
)
_CHANGED = rf"(?:{_EDITED}|rewrote|replaced|removed|added|swapped|kept|left|inserted|deleted|substituted|made)"
_OURS = r"(?:draft|reference|response|answer|reply)"
_TEXT = rf"(?:{_OURS}|version|text|paragraph|passage|solution|essay|story|sentence|letter|email)"
_CHANGES = r"(?:changes|edits|corrections|revisions|modifications)"
_I = r"\bi(?:'ve| have)? (?:\w+ly |also |only |just )?"
_LABEL = r"(?:note|explanation|rationale|reasoning|comment|remark|changes?|edits?|revisions?)s?"
# What no response says unless it is about the edit, each with an example.
_META = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        # Here is the revised draft
        rf"(?:here(?:'s| is| are)|below is|this is|the following is) (?:the |my |your |an? )?(?:\w+ )?{_EDITED}"
        rf"(?: and \w+)? {_TEXT}\b",
        # Revised: …   **Corrected answer:** …
        rf"^\W*(?:the |my )?{_EDITED}(?: {_TEXT})?\W*:",
        # ## Revised response   **Corrected version**   Here's my revision   Here is the answer, revised
        rf"^(?:#+ +|\*\*)(?:the |my )?{_EDITED}(?: {_TEXT})?\W*$",
        r"\b(?:here(?:'s| is)|this is|below is) (?:my|the|a|your) (?:\w+ )?(?:revision|rewrite)\b",
        rf"\bhere(?:'s| is) (?:my|the|a|your) {_TEXT},? (?:{_EDITED}|with (?:\w+ ){{0,2}}{_CHANGES})\b",
        # I made minimal changes to   I kept the rest as   No other changes were needed   further edits   This revision
        rf"{_I}made (?:only )?(?:\w+ ){{0,2}}{_CHANGES} (?:to|in|so|only|and)\b",
        rf"{_I}(?:kept|left) (?:the rest|everything else) (?:\w+ )?(?:unchanged|untouched|intact|as)\b",
        rf"\bno (?:other|further|additional) {_CHANGES} (?:were|are) (?:made|needed|necessary)\b",
        r"\bfurther (?:edits|revisions)\b|\b(?:this|the|my) revision (?:keeps|preserves|helps|fixes|corrects)\b",
        # As in the reference, …
        r"\b(?:as in|according to|as per|to match|following) the reference(?=[.,;:!)\n]|\Z)",
        # I have only changed the wording
        rf"{_I}{_CHANGED} (?:only )?(?:the|your) (?:\w+ )?(?:{_OURS}|text|wording)\b",
        # the reference answer
        rf"\b(?:the|your) (?:reference|draft|preferred|{_EDITED}) {_OURS}\b",
        # Changes made: …   Edits: …   What I changed: …   Summary of the changes
        rf"^\W*(?:(?:the|key|main|minor) )?(?:edit|{_CHANGES})(?:(?: i)?(?: have)? made\b|\W*:)",
        r"^\W*(?:what i (?:changed|edited)|(?:summary|list|explanation) of (?:the |my )?(?:changes|edits|revisions))\b",
        r"^\W*what changed\W*:|^\W*reasons? for (?:the |this )?(?:change|edit|revision)s?\b",
        # Note: I have replaced …   (I replaced the hammer with a pick.)   *I changed the tool.*
        rf"^\W*{_LABEL}\W{{0,5}}[^.\n]{{0,40}}{_I}{_CHANGED}\b",
        rf"(?:(?:^|[.!?…:\"'] ?)[(\[]|^[*_]{{1,2}}) ?(?:{_LABEL}\W+)?[^.()\n]{{0,20}}{_I}{_CHANGED}\b"
        r"[^)\]\n]{0,120}[)\]*_]",
        # (Changed the hammer to a pick.)   Note: "hammer" was replaced with "pick".
        r"^[(\[*_]+(?:changed|replaced|swapped|corrected|substituted) [^)\]\n]{1,60} (?:to|with|for|by) [^)\]\n]{1,60}"
        r"[)\]*_]",
        rf"^\W*{_LABEL}\W{{0,5}}[^.\n\"]{{0,20}}\"[^\"\n]{{1,60}}\" (?:was|has been|is now) "
        r"(?:changed|replaced|corrected)\b",
        # [Edited for accuracy]
        rf"[(\[] ?(?:{_LABEL}\W+)?{_EDITED}(?: (?:for|to|so|with|from|text|version|draft)\b[^)\]\n]{{0,80}})? ?[)\]]",
        # The draft used …   Draft: …   A response may be about a draft, but then x, y_w or y_l speaks of it too.
        r"\b(?:the|your|this|original) draft\b(?! (?:law|bill|picks?|treaty|beer|lottery|order|board)\b)|^\W*draft\W*:",
    )
)
_ASKS_FOR_EDIT = re.compile(
    r"\b(?:re-?writ|re-?phras|re-?word|paraphras|revis|edit\b|edited\b|proof-?read|improv|polish|refin|rework|shorten|condens|simplif|"
    r"expand|elaborat|tighten|summari[sz]|translat|convert|transform|adapt|adjust|grammar|typos?\b|spelling|punctuat|"
    r"(?:correct|fix|mend|update|modify|change|amend|enhance) (?:the|this|that|my|our|any|all|it|these|following)\b|"
    r"make (?:the|this|that|my|our|it|these|following)\b|better version|"
    r"more (?:formal|concise|professional|readable|polite)\b)"
)


def plain(text: str) -> str:
    """The text with case, apostrophes and spaces folded; lines stay lines."""
    text = text.casefold().replace("’", "'").replace("`", "'").replace("\r\n", "\n")
    return re.sub(r"[^\S\n]+", " ", text).strip()


def refusal(text: str, window: int) -> str | None:
    """The refusal that a text begins with, `plain`; None if it begins with none.

    Args:
        text: An edit or a whole reply.
        window: Characters at the start that are looked at.
    """
    found = _REFUSAL.search(plain(text)[:window])
    return found[0].strip(" .!?\n") if found else None


def asks_for_edit(prompt: str) -> bool:
    """Whether x itself asks for a text to be edited, so that a response may well speak of that."""
    return _ASKS_FOR_EDIT.search(plain(prompt)) is not None


def meta_phrases(text: str, window: int) -> Iterator[str]:
    """Find what a text says about the edit, `plain`.

    Args:
        text: An edit.
        window: Characters at the start, and at the end, that are looked at.
    """
    folded = plain(text)
    for part in (folded[:window], folded[len(folded) - window :] if len(folded) > window else ""):
        for pattern in _META:
            yield from (found[0].strip() for found in pattern.finditer(part))


def own_words(phrase: str) -> set[str]:
    """The words for the prompt's parts in a phrase."""
    return set(re.findall(_OURS, phrase))
