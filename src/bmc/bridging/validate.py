"""What an edit must be before it is trained on; each check is a pure function → the reason against it, or None."""

from __future__ import annotations

from types import ModuleType

from ..evaluation import math, qa
from .edit import Case

_SCORERS: dict[str, ModuleType] = {"qa": qa, "math": math}


def empty(text: str, case: Case) -> str | None:
    return None if text.strip() else "empty edit"


def unchanged(text: str, case: Case) -> str | None:
    return "edit equals y_l" if text.strip() == case.rejected.strip() else None


def lost_answer(text: str, case: Case) -> str | None:
    """A closed task's edit must state the gold answer."""
    scorer = _SCORERS.get(case.task)
    if scorer is None or case.answer is None or scorer.correct(scorer.extract(text), case.answer):
        return None
    return "edit doesn't state the gold answer"


VALIDATORS = (empty, unchanged, lost_answer)


def objection(text: str, case: Case) -> str | None:
    """The first reason against an edit."""
    return next((reason for check in VALIDATORS if (reason := check(text, case))), None)
