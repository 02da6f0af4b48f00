"""What an editor says instead of an edit or around it, in English: refusals, and talk about the edit."""

from __future__ import annotations

import re
from collections.abc import Iterator

_SORRY = (
    r"(?:however,? |but )?"
    r"(?:(?:(?:i am|i'm|we are|we're) (?:\w+ )?sorry|sorry|(?:my )?apologies|i apologi[sz]e|unfortunately|regrettably|"
    r"as an? (?:ai|artificial|large|language)[^.\n]{0,60}?)[^.\n]{0,60}?[,.;:!–—-]? ?(?:but |and |that |however,? )?)?"
)
_CANNOT = (
    r"(?:(?:i|we) (?:can't|cannot|can not|could not|couldn't|will not|won't|am unable to|am not able to|"
    r"will not be able to|won't be able to|am not going to|do not feel comfortable|don't feel comfortable)|"
    r"(?:i'm|we're|we are) (?:unable to|not able to|not going to|not comfortable))"
)
_OBJECT = (
    r"(?:that|this|these|those|such|your|you|any|(?:the|a|an) (?:\w+ )?"
    r"(?:request|draft|task|question|text|response|answer|content|edit|revision)|"
    r"(?:\w+ )?(?:information|advice|content|instructions|guidance|assistance|help))\b"
)
_HELP = r"(?:assist|help|helping|assisting)(?: you)?(?: with\b| in\b| on\b| to\b|[.,;!\n]|\Z)"
_DO = (
    r"(?:fulfil|fulfill|complet|process|provid|answer|respond to|edit|revis|rewrit|improv|mend|creat|generat|writ|"
    r"produc|engag|continu|discuss|shar|giv|offer|do|support|promot|participat)(?:e|ing)?(?: in| with)? "
)
_DECLINE = r"(?:i|we) (?:must|have to|need to|will)(?: \w+ly)? (?:decline|refuse)\b"
_REFUSAL = re.compile(
    rf"(?:\A|[.!?\n] ?){_SORRY}(?:{_CANNOT}(?: \w+ly)? (?:{_HELP}|compl(?:y|ying)\b|{_DO}{_OBJECT})|{_DECLINE})"
)

_EDITED = (
    r"(?:revised|edited|improved|corrected|mended|polished|re-?written|updated|modified|refined|enhanced|amended|fixed)"
)
_OURS = r"(?:draft|reference|response|answer|reply)"
_META = re.compile(
    rf"(?:here(?:'s| is| are)|below is|this is|the following is) (?:the |my |your |an? )?(?:\w+ )?{_EDITED}"
    rf"(?: and \w+)? (?:{_OURS}|version|text|paragraph|passage|solution)\b"
    rf"|^\W*{_EDITED} (?:{_OURS}|version|text)\W*(?::|$)"
    rf"|\bi(?:'ve| have)? (?:\w+ly |also |only |just )?(?:revised|edited|mended|corrected|polished|rewrote|rewritten|"
    rf"changed|improved|modified|kept|left) (?:only )?(?:the|your) (?:\w+ )?(?:{_OURS}|text|wording)\b"
    rf"|\b(?:the|your) (?:reference|draft|preferred|{_EDITED}) {_OURS}\b"
    r"|^\W*(?:(?:changes|edits|revisions|modifications|corrections)(?: i)? made|"
    r"(?:summary|list|explanation) of (?:the |my )?(?:changes|edits|revisions))\b"
    r"|\bnote:? [^.\n]{0,30}\bi(?:'ve| have)? (?:changed|revised|kept|corrected|edited|fixed|replaced|removed|added)\b",
    re.MULTILINE,
)
_ASKS_FOR_EDIT = re.compile(
    r"\b(?:re-?writ|re-?phras|paraphras|revis|edit\b|proof-?read|improv|polish|refin|rework|"
    r"(?:correct|fix|mend|update|modify|change|amend|enhance) (?:the|this|that|my|our|any|all|it|these|following)\b)"
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
    """What a text says about the edit, `plain`.

    Args:
        text: An edit.
        window: Characters at the start, and at the end, that are looked at.
    """
    folded = plain(text)
    for part in (folded[:window], folded[len(folded) - window :] if len(folded) > window else ""):
        yield from (found[0].strip() for found in _META.finditer(part))


def own_words(phrase: str) -> set[str]:
    """The words for the prompt's parts in a phrase."""
    return set(re.findall(_OURS, phrase))
