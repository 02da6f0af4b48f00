"""Decide whether an edit may be trained on: refusals, special tokens, copies, rewrites, lengths, final answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy
from rapidfuzz import process
from rapidfuzz.distance import LCSseq, Levenshtein, Postfix, Prefix

from ..config import BridgeMode, ValidatorSettings
from ..evaluation.scoring import GRADERS, is_correct
from ..llm.client import Completion
from .edit_talk import Originals, plain, talk_about_edit, wraps_all
from .edits import EditRequest, RejectionReason
from .words import word_texts, words

_JOINER = "\u2060"
_TOKENS = (
    r"<[|｜][^<>|｜\s]{1,60}[|｜]>",  # ChatML, Llama 3 and 4, Phi, Qwen, DeepSeek, Command R, gpt-oss
    r"\[/?INST\]|<</?SYS>>|</?s>",  # Llama 2, Mistral
    r"\[/?(?:AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|SYSTEM_PROMPT|THINK)\]",  # Mistral
    r"</?(?:start|end)_of_(?:turn|utterance|image)>|<(?:bos|eos|pad|unk)>",  # Gemma, SmolVLM
    r"\[gMASK\]|<sop>",  # GLM
)
SPECIAL = re.compile("|".join(_TOKENS))
_HEADING = re.compile(r"^### ?(?:Instruction|Input|Response|System|User|Human|Assistant) ?:", re.MULTILINE)
_TAG = re.compile(r"</?(?:revised|draft|reference|verdict|scores)(?: [0-9a-f]+)?>", re.IGNORECASE)
# A change that is marked instead of made: ~~old~~ **new**, CriticMarkup, word diffs, HTML.
_DIFF_MARKS = re.compile(
    r"~~[^~\n]+~~|</?(?:del|ins|strike)>|\{(?:--|\+\+|~~)[^{}\n]*(?:--|\+\+|~~)\}|\[-[^\]\n]*-\]|\{\+[^}\n]*\+\}|^```diff$",
    re.MULTILINE,
)
# What may be a special token, with joiners after its first character.
_JOINED = re.compile(rf"([<\[])({_JOINER}*)([^<>\[\]\s]{{1,70}}[>\]]|</?SYS>>)")


def escape_special_tokens(text: str) -> str:
    """Put a word joiner, or one more, after the first character of each special token.

    >>> escape_special_tokens("<s>") == "<\u2060s>"
    True
    """
    return _JOINED.sub(lambda token: token[1] + _JOINER + token[2] + token[3] if _is_special(token) else token[0], text)


def unescape_special_tokens(text: str) -> str:
    """Undo `escape_special_tokens`, in its result or in what an editor made of that."""
    return _JOINED.sub(lambda token: token[1] + token[2][1:] + token[3] if _is_special(token) else token[0], text)


def _is_special(token: re.Match[str]) -> bool:
    return SPECIAL.fullmatch(token[1] + token[3]) is not None


def find_delimiters(text: str) -> set[str]:
    """Find the special tokens, headings of turns (`### Response:`), the prompts' tags and diff marks in a text."""
    return {found[0] for pattern in (SPECIAL, _HEADING, _TAG, _DIFF_MARKS) for found in pattern.finditer(text)}


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
    """Return the refusal that a text begins with, as `plain` gives it; None if it begins with none."""
    found = _REFUSAL.search(plain(text)[:window])
    return found[0].strip(" .!?\n") if found else None


LONG = 5_000  # characters; below, a comparison takes no more than milliseconds


@dataclass(frozen=True)
class EditCandidate:
    """An edit and what it was made for."""

    text: str  # ỹ_w (for `degrade` ỹ_l)
    case: EditRequest  # the pair
    mode: BridgeMode  # what kind of edit it is
    mark: str | None = None  # that of the request's tags; None of an editor by rule, which copies nothing

    @property
    def base(self) -> tuple[str, str] | None:
        """What it was made of, and the prompt's word for that; a fresh answer is made of nothing."""
        chosen, rejected = (self.case.chosen, "draft"), (self.case.rejected, "draft")
        made_of = {"degrade": (self.case.chosen, "reference"), "polish": chosen, "fresh": None}
        return made_of.get(self.mode, rejected)

    @property
    def model(self) -> tuple[str, str] | None:
        """What it was to learn from, and the prompt's word for that, if the editor saw any such thing."""
        shown = {"targeted": (self.case.chosen, "reference"), "degrade": (self.case.rejected, "draft")}
        return shown.get(self.mode)

    @property
    def rivals(self) -> dict[str, str]:
        """What it must differ from: the response that it stands against, and for `polish` y_w too."""
        names = {"degrade": ("y_w",), "polish": ("y_w", "y_l")}.get(self.mode, ("y_l",))
        return {name: {"y_w": self.case.chosen, "y_l": self.case.rejected}[name] for name in names}


Check = Callable[[EditCandidate, ValidatorSettings], RejectionReason | None]


@lru_cache(maxsize=64)  # several checks compare the same texts, and then the statistics do
def edit_ratio(a: str, b: str) -> float:
    """Compute the Levenshtein distance over the longer length, in characters."""
    longest = max(len(a), len(b))
    if longest < LONG:
        return Levenshtein.normalized_distance(a, b)
    a, b = (text[Prefix.similarity(a, b) :] for text in (a, b))  # equal ends cost no distance, but `cdist` time
    a, b = (text[: len(text) - Postfix.similarity(a, b)] for text in (a, b))
    # seconds for 200,000 characters; unlike `distance`, `cdist` lets other threads run meanwhile
    return float(process.cdist([a], [b], scorer=Levenshtein.distance, dtype=numpy.int64)[0, 0]) / longest


def lost_share(before: str, after: str) -> float:
    """Compute the share of a text's words that aren't in a longest common subsequence with what became of it.

    >>> lost_share("It is a bank", "I think it is a river and not a bank")
    0.25
    """
    old = word_texts(before)
    return 1 - LCSseq.similarity(old, word_texts(after)) / max(len(old), 1)


def is_truncated(reply: Completion, limits: ValidatorSettings) -> RejectionReason | None:
    """Reject a reply that isn't whole, whatever it holds."""
    if reply.finish_reason == "length" and limits.cut_off:
        return RejectionReason("cut off: the reply reached max_tokens", "it was cut off before its end; be brief")
    if reply.finish_reason == "content_filter":
        return RejectionReason("cut off: by the endpoint's content filter", "it was cut off by a content filter")
    if not reply.text.strip():
        return RejectionReason("empty reply", "it is empty")
    return None


def refused_reply(reply: Completion, case: EditRequest, limits: ValidatorSettings) -> RejectionReason | None:
    """Reject a refusal in place of the tags."""
    return _refusal(reply.text, case, limits)


def is_empty(edit: EditCandidate, limits: ValidatorSettings) -> RejectionReason | None:
    if len(edit.text.strip()) >= limits.min_chars:
        return None
    return RejectionReason("empty edit", "there is nothing, or next to nothing, between the tags")


def is_refusal(edit: EditCandidate, limits: ValidatorSettings) -> RejectionReason | None:
    return _refusal(edit.text, edit.case, limits)


def _refusal(text: str, case: EditRequest, limits: ValidatorSettings) -> RejectionReason | None:
    phrase = refusal(text, limits.refusal_window)
    originals = (case.chosen, case.rejected)
    if not phrase or any(refusal(known, limits.refusal_window) or phrase in plain(known) for known in originals):
        return None
    return RejectionReason("refusal", "it refuses; the texts are material, and only their wording is to be worked on")


def mentions_edit(edit: EditCandidate, limits: ValidatorSettings) -> RejectionReason | None:
    """Reject talk about the edit, and a wrapper around all of it that neither response has."""
    case = edit.case
    base = edit.base[0] if edit.base else f"{case.chosen}\n{case.rejected}"
    originals = Originals.of(case.prompt, case.chosen, case.rejected, base, case.task not in GRADERS)
    if talk_about_edit(edit.text, originals, limits.meta_window):
        return RejectionReason("talks about the edit", "the text between the tags must not speak of the edit")
    if limits.delimiters and wraps_all(edit.text, case.prompt, (case.chosen, case.rejected), edit.base is None):
        what = "a code fence, quotation marks or a tag hold the whole text, which the draft doesn't have"
        return RejectionReason("a wrapper around the whole edit", what)
    return None


def contains_special_tokens(edit: EditCandidate, limits: ValidatorSettings) -> RejectionReason | None:
    known = "\n".join((edit.case.prompt, edit.case.chosen, edit.case.rejected))
    leaked = any(found not in known for found in find_delimiters(edit.text)) or (edit.mark and edit.mark in edit.text)
    if not leaked or not limits.delimiters:
        return None
    return RejectionReason("template delimiters in the edit", "there are tags or special tokens within the text")


def is_unchanged(edit: EditCandidate, limits: ValidatorSettings) -> RejectionReason | None:
    """Reject an edit that differs from its rival in white space alone, or by no more than `min_edit_ratio`."""
    for name, rival in edit.rivals.items():
        if edit_ratio(_one_spaced(edit.text), _one_spaced(rival)) <= limits.min_edit_ratio:
            unchanged = edit.base and edit.base[0] == rival
            advice = (
                f"it leaves the {edit.base[1]} as it is"
                if edit.base and unchanged
                else "it is no better than a weak answer"
            )
            return RejectionReason(f"edit equals {name}", advice)
    return None


def _one_spaced(text: str) -> str:
    return " ".join(text.split())


def wrong_verdict(case: EditRequest, limits: ValidatorSettings) -> RejectionReason | None:
    """Reject the verdict "good" on a y_l that doesn't state the gold answer."""
    if not limits.final_answer or case.task not in GRADERS or case.answer is None:
        return None
    if is_correct(case.rejected, case.answer, case.task, case.prompt):
        return None
    return RejectionReason(
        "verdict good, but y_l doesn't state the gold answer",
        "the draft's final answer is not the reference's, so the draft isn't good enough",
    )


def wrong_final_answer(edit: EditCandidate, limits: ValidatorSettings) -> RejectionReason | None:
    """Reject a ỹ_w of a closed task that doesn't state the gold answer, and a ỹ_l that does."""
    if not limits.final_answer or edit.case.task not in GRADERS or edit.case.answer is None:
        return None
    gold = is_correct(edit.text, edit.case.answer, edit.case.task, edit.case.prompt)
    if gold and edit.mode == "degrade":
        return RejectionReason("edit still states the gold answer", "its final answer is right and must be wrong")
    if gold or edit.mode == "degrade":
        return None
    return RejectionReason("edit doesn't state the gold answer", "its last line doesn't state the right final answer")


def copies_reference(edit: EditCandidate, limits: ValidatorSettings) -> RejectionReason | None:
    """Reject a copy of what it was to learn from, where an edit of what it was made of can't have led there."""
    if edit.mark is None or edit.base is None or edit.model is None or _is_short(edit.base[0], limits):
        return None
    original = edit_ratio(edit.base[0], edit.model[0])
    if original <= limits.copy_min_original_ratio:
        return None
    if edit_ratio(edit.text.strip(), edit.model[0].strip()) > limits.copy_edit_ratio:
        return None
    name = "y_l" if edit.mode == "degrade" else "y_w"
    return RejectionReason(
        f"copy of {name}", f"it copies the {edit.model[1]}; keep what is usable of the {edit.base[1]}"
    )


def is_rewrite(edit: EditCandidate, limits: ValidatorSettings) -> RejectionReason | None:
    """Reject an edit that is far from what it was made of and keeps too little of it.

    The edit ratio alone would count every word that an edit adds, though all of y_l may still be there.
    """
    if edit.base is None or _is_short(edit.base[0], limits):
        return None
    text, name = edit.base
    if edit_ratio(edit.text, text) <= limits.max_edit_ratio or lost_share(text, edit.text) <= limits.max_edit_ratio:
        return None
    return RejectionReason(
        f"a rewrite, not an edit: edit ratio above {limits.max_edit_ratio:g}",
        f"it changes too much of the {name}; keep every word of the {name} that may stay",
    )


def length_out_of_range(edit: EditCandidate, limits: ValidatorSettings) -> RejectionReason | None:
    """Reject what is much shorter or longer than both responses; a polished one has y_w alone to go by."""
    if edit.base is None:
        return None
    known = [edit.case.chosen] if edit.mode == "polish" else [edit.case.chosen, edit.case.rejected]
    lengths = [len(text.strip()) for text in known]
    length, (shortest, longest) = len(edit.text.strip()), (min(lengths), max(lengths))
    if all(_is_short(text, limits) for text in known):
        return None
    if length < limits.min_length_ratio * shortest:
        return RejectionReason(f"length drift: below {limits.min_length_ratio:g} times", "it is much too short")
    if limits.max_length_ratio is not None and length > limits.max_length_ratio * longest:
        return RejectionReason(f"length drift: above {limits.max_length_ratio:g} times", "it is much too long")
    return None


def _is_short(text: str, limits: ValidatorSettings) -> bool:
    return len(words(text)) <= limits.short_words


# The mode decides what each compares; a fresh answer is no edit, so no check on copies, rewrites or length applies.
VALIDATORS: tuple[Check, ...] = (
    is_empty, is_refusal, mentions_edit, contains_special_tokens, is_unchanged, wrong_final_answer, copies_reference,
    is_rewrite, length_out_of_range,
)  # fmt: skip


def first_rejection(edit: EditCandidate, limits: ValidatorSettings) -> RejectionReason | None:
    """Return the first reason to reject an edit, or None."""
    return next((found for check in VALIDATORS if (found := check(edit, limits))), None)
