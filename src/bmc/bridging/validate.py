"""What an edit must be before it is trained on; each check is a pure function → the objection, or None.

What a check is about depends on the mode (`Candidate`). What y_w or y_l says already is never held against an edit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy
from rapidfuzz import process
from rapidfuzz.distance import LCSseq, Levenshtein, Postfix, Prefix

from ..config import BridgeMode, ValidatorSettings
from ..evaluation.scoring import GRADERS, is_correct
from ..llm.client import Completion
from .delimiters import delimiters
from .edit import Case, Objection
from .edit_talk import Originals, plain, talk_about_edit, wraps_all
from .phrases import refusal
from .words import word_texts, words

LONG = 5_000  # characters; below, a comparison takes no more than milliseconds


@dataclass(frozen=True)
class Candidate:
    """An edit and what it was made for.

    Attributes:
        text: ỹ_w (for `degrade` ỹ_l).
        case: The pair.
        mode: What kind of edit it is.
        mark: That of the request's tags; None of an editor by rule, which copies nothing.
    """

    text: str
    case: Case
    mode: BridgeMode
    mark: str | None = None

    @property
    def base(self) -> tuple[str, str] | None:
        """What it was made of, and the prompt's word for that; a fresh answer is made of nothing."""
        winner, loser = (self.case.chosen, "draft"), (self.case.rejected, "draft")
        made_of = {"degrade": (self.case.chosen, "reference"), "polish": winner, "fresh": None}
        return made_of.get(self.mode, loser)

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


Check = Callable[[Candidate, ValidatorSettings], Objection | None]


@lru_cache(maxsize=64)  # several checks compare the same texts, and then the statistics do
def edit_ratio(a: str, b: str) -> float:
    """Levenshtein distance over the longer length, in characters."""
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


def unfinished(reply: Completion, limits: ValidatorSettings) -> Objection | None:
    """A reply that isn't whole, whatever it holds."""
    if reply.finish_reason == "length" and limits.cut_off:
        return Objection("cut off: the reply reached max_tokens", "it was cut off before its end; be brief")
    if reply.finish_reason == "content_filter":
        return Objection("cut off: by the endpoint's content filter", "it was cut off by a content filter")
    if not reply.text.strip():
        return Objection("empty reply", "it is empty")
    return None


def refused_reply(reply: Completion, case: Case, limits: ValidatorSettings) -> Objection | None:
    """A refusal in place of the tags."""
    return _refusal(reply.text, case, limits)


def empty(edit: Candidate, limits: ValidatorSettings) -> Objection | None:
    if len(edit.text.strip()) >= limits.min_chars:
        return None
    return Objection("empty edit", "there is nothing, or next to nothing, between the tags")


def refuses(edit: Candidate, limits: ValidatorSettings) -> Objection | None:
    return _refusal(edit.text, edit.case, limits)


def _refusal(text: str, case: Case, limits: ValidatorSettings) -> Objection | None:
    phrase = refusal(text, limits.refusal_window)
    originals = (case.chosen, case.rejected)
    if not phrase or any(refusal(known, limits.refusal_window) or phrase in plain(known) for known in originals):
        return None
    return Objection("refusal", "it refuses; the texts are material, and only their wording is to be worked on")


def tells_of_edit(edit: Candidate, limits: ValidatorSettings) -> Objection | None:
    """Reject talk about the edit, and a wrapper around all of it that neither response has."""
    case = edit.case
    base = edit.base[0] if edit.base else f"{case.chosen}\n{case.rejected}"
    originals = Originals.of(case.prompt, case.chosen, case.rejected, base, case.task not in GRADERS)
    if talk_about_edit(edit.text, originals, limits.meta_window):
        return Objection("talks about the edit", "the text between the tags must not speak of the edit")
    if limits.delimiters and wraps_all(edit.text, case.prompt, (case.chosen, case.rejected), edit.base is None):
        what = "a code fence, quotation marks or a tag hold the whole text, which the draft doesn't have"
        return Objection("a wrapper around the whole edit", what)
    return None


def holds_delimiters(edit: Candidate, limits: ValidatorSettings) -> Objection | None:
    known = "\n".join((edit.case.prompt, edit.case.chosen, edit.case.rejected))
    leaked = any(found not in known for found in delimiters(edit.text)) or (edit.mark and edit.mark in edit.text)
    if not leaked or not limits.delimiters:
        return None
    return Objection("template delimiters in the edit", "there are tags or special tokens within the text")


def same(edit: Candidate, limits: ValidatorSettings) -> Objection | None:
    """Reject an edit that differs from its rival in white space alone, or by no more than `min_edit_ratio`."""
    for name, rival in edit.rivals.items():
        if edit_ratio(_one_spaced(edit.text), _one_spaced(rival)) <= limits.min_edit_ratio:
            unchanged = edit.base and edit.base[0] == rival
            advice = (
                f"it leaves the {edit.base[1]} as it is"
                if edit.base and unchanged
                else "it is no better than a weak answer"
            )
            return Objection(f"edit equals {name}", advice)
    return None


def _one_spaced(text: str) -> str:
    return " ".join(text.split())


def wrongly_good(case: Case, limits: ValidatorSettings) -> Objection | None:
    """Reject the verdict "good" on a y_l that doesn't state the gold answer."""
    if not limits.final_answer or case.task not in GRADERS or case.answer is None:
        return None
    if is_correct(case.rejected, case.answer, case.task, case.prompt):
        return None
    return Objection(
        "verdict good, but y_l doesn't state the gold answer",
        "the draft's final answer is not the reference's, so the draft isn't good enough",
    )


def final_answer(edit: Candidate, limits: ValidatorSettings) -> Objection | None:
    """A closed task's winner must state the gold answer, its loser must not."""
    if not limits.final_answer or edit.case.task not in GRADERS or edit.case.answer is None:
        return None
    gold = is_correct(edit.text, edit.case.answer, edit.case.task, edit.case.prompt)
    if gold and edit.mode == "degrade":
        return Objection("edit still states the gold answer", "its final answer is right and must be wrong")
    if gold or edit.mode == "degrade":
        return None
    return Objection("edit doesn't state the gold answer", "its last line doesn't state the right final answer")


def copies(edit: Candidate, limits: ValidatorSettings) -> Objection | None:
    """A copy of what it was to learn from, where mending what it was made of can't have led there."""
    if edit.mark is None or edit.base is None or edit.model is None or _is_short(edit.base[0], limits):
        return None
    original = edit_ratio(edit.base[0], edit.model[0])
    if original <= limits.copy_min_original_ratio:
        return None
    if edit_ratio(edit.text.strip(), edit.model[0].strip()) > limits.copy_edit_ratio:
        return None
    name = "y_l" if edit.mode == "degrade" else "y_w"
    return Objection(f"copy of {name}", f"it copies the {edit.model[1]}; keep what is usable of the {edit.base[1]}")


def rewrites(edit: Candidate, limits: ValidatorSettings) -> Objection | None:
    """Reject an edit that is far from what it was made of and keeps too little of it.

    The edit ratio alone would count every word that an edit adds, though all of y_l may still be there.
    """
    if edit.base is None or _is_short(edit.base[0], limits):
        return None
    text, name = edit.base
    if edit_ratio(edit.text, text) <= limits.max_edit_ratio or lost_share(text, edit.text) <= limits.max_edit_ratio:
        return None
    return Objection(
        f"a rewrite, not an edit: edit ratio above {limits.max_edit_ratio:g}",
        f"it changes too much of the {name}; keep every word of the {name} that may stay",
    )


def drifts(edit: Candidate, limits: ValidatorSettings) -> Objection | None:
    """Much shorter or longer than both responses that it lies between; a polished one has y_w alone to go by."""
    if edit.base is None:
        return None
    known = [edit.case.chosen] if edit.mode == "polish" else [edit.case.chosen, edit.case.rejected]
    lengths = [len(text.strip()) for text in known]
    length, (shortest, longest) = len(edit.text.strip()), (min(lengths), max(lengths))
    if all(_is_short(text, limits) for text in known):
        return None
    if length < limits.min_length_ratio * shortest:
        return Objection(f"length drift: below {limits.min_length_ratio:g} times", "it is much too short")
    if limits.max_length_ratio is not None and length > limits.max_length_ratio * longest:
        return Objection(f"length drift: above {limits.max_length_ratio:g} times", "it is much too long")
    return None


def _is_short(text: str, limits: ValidatorSettings) -> bool:
    return len(words(text)) <= limits.short_words


# The mode decides what each is about; a fresh answer is no edit, so nothing is a copy, a rewrite or a drift there.
VALIDATORS: tuple[Check, ...] = (
    empty, refuses, tells_of_edit, holds_delimiters, same, final_answer, copies, rewrites, drifts,
)  # fmt: skip


def objection(edit: Candidate, limits: ValidatorSettings) -> Objection | None:
    """The first objection to an edit."""
    return next((found for check in VALIDATORS if (found := check(edit, limits))), None)
