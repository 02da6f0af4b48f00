"""What an editor says instead of an edit or around it, in English: refusals."""

from __future__ import annotations

import re

from .edit_talk import plain

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


def refusal(text: str, window: int) -> str | None:
    """The refusal that a text begins with, `plain`; None if it begins with none.

    Args:
        text: An edit or a whole reply.
        window: Characters at the start that are looked at.
    """
    found = _REFUSAL.search(plain(text)[:window])
    return found[0].strip(" .!?\n") if found else None
