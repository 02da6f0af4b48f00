"""Edit requests, edits, and why an edit is missing or rejected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

Scores = Mapping[int, int]  # number of the word, from 1 → score from −3 to 3; 0 where there is none


@dataclass(frozen=True)
class EditRequest:
    """One pair, as an editor sees it."""

    id: str  # the row's
    task: str  # `qa`, `math` or `chat`
    prompt: str  # x
    chosen: str  # y_w
    rejected: str  # y_l
    answer: str | None = None  # the gold answer of a closed task, if known
    solutions: tuple[str, ...] = ()  # right responses, where the data have them (`editor: ideal`)
    feedback: str | None = None  # a note on what is wrong with y_l, where somebody has written one
    # whether there is a y_w; `chosen` is y_l where there is none, so that nothing but y_l is known
    has_reference: bool = True


@dataclass(frozen=True)
class Edit:
    """An editor's verdict on y_l."""

    # ỹ_w (for `degrade` ỹ_l); None where y_l needs no edit and the pair teaches nothing (§4: 31 % of QA, 43 % of math)
    text: str | None
    notes: tuple[str, ...] = ()  # what the rule editor did, for the statistics
    rationale: str | None = None  # what the editor says is wrong with y_l, if it was requested


class EditError(Exception):
    """The editor has nothing usable for this pair; the message is the `reason` in `dropped.jsonl`."""

    rejected_edit: str | None = None  # why the edit before the last was rejected, where there was one


class NoEditNeeded(EditError):
    """The editor finds nothing to edit in y_l. Not a failure: the pair is dropped whatever `on_failure` says (§4)."""

    def __init__(self) -> None:
        super().__init__("y_l needs no edit")


class UnusableRow(EditError):
    """No pair can be made of a row of the data; it is dropped whatever `on_failure` says."""


@dataclass(frozen=True)
class RejectionReason:
    """What is wrong with a reply."""

    reason: str  # the `reason` in `dropped.jsonl`
    # what the retry says of it, in the terms of its prompt: nothing that the prompt doesn't show, and no data
    advice: str


class EditRejected(EditError):
    """A reply that can't be used, where another try may help."""

    def __init__(self, reason: RejectionReason) -> None:
        super().__init__(reason.reason)
        self.advice = reason.advice


@runtime_checkable
class Editor(Protocol):
    """Anything that edits pairs without a prompt; `rule_editor.RuleEditor` does."""

    async def edit(self, case: EditRequest) -> Edit:
        """Edit one pair; raise `EditError` where there is no usable edit, which drops the pair with that reason."""
        ...

    async def score(self, case: EditRequest) -> tuple[Scores, Scores]:
        """Score the words of y_w and y_l, for `token_scores`; raise as `edit` does."""
        ...
