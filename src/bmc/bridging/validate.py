"""What an edit must be before it is trained on; each check is a pure function → the reason against it, or None."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from ..config import BridgeMode
from ..evaluation import math, qa
from .edit import Case

_SCORERS: dict[str, ModuleType] = {"qa": qa, "math": math}


def empty(text: str, case: Case) -> str | None:
    return None if text.strip() else "empty edit"


def equals_loser(text: str, case: Case) -> str | None:
    return "edit equals y_l" if text.strip() == case.rejected.strip() else None


def equals_winner(text: str, case: Case) -> str | None:
    return "edit equals y_w" if text.strip() == case.chosen.strip() else None


def lost_answer(text: str, case: Case) -> str | None:
    """A closed task's winner must state the gold answer."""
    return "edit doesn't state the gold answer" if _states_gold(text, case) is False else None


def kept_answer(text: str, case: Case) -> str | None:
    """A closed task's loser must not."""
    return "edit still states the gold answer" if _states_gold(text, case) else None


def _states_gold(text: str, case: Case) -> bool | None:
    """None where no gold answer is known, or the task has none."""
    scorer = _SCORERS.get(case.task)
    if scorer is None or case.answer is None:
        return None
    return scorer.correct(scorer.extract(text), case.answer)


# An edit must differ from what it was made of, and, as a winner, from the loser that it stands against.
VALIDATORS: dict[str, tuple[Callable[[str, Case], str | None], ...]] = {
    "targeted": (empty, equals_loser, lost_answer),
    "without_reference": (empty, equals_loser, lost_answer),
    "degrade": (empty, equals_winner, kept_answer),
    "fresh": (empty, equals_loser, lost_answer),
    "polish": (empty, equals_winner, equals_loser, lost_answer),
}


def objection(mode: BridgeMode, text: str, case: Case) -> str | None:
    """The first reason against an edit."""
    return next((reason for check in VALIDATORS[mode] if (reason := check(text, case))), None)
