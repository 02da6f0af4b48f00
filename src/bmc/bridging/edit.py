"""What an editor is given and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Case:
    """One pair, as an editor sees it.

    Attributes:
        id: The row's.
        task: `qa`, `math` or `chat`.
        prompt: x.
        chosen: y_w.
        rejected: y_l.
        answer: The gold answer of a closed task, if known.
    """

    id: str
    task: str
    prompt: str
    chosen: str
    rejected: str
    answer: str | None = None


@dataclass(frozen=True)
class Edit:
    """An editor's verdict on y_l.

    Attributes:
        text: ỹ_w (for `degrade` ỹ_l); None where y_l is good enough as it is and the pair teaches nothing (§4: 31 % of
            QA, 43 % of math).
    """

    text: str | None


class EditError(Exception):
    """The editor has nothing usable for this pair; the message is the `reason` in `dropped.jsonl`."""


class Editor(Protocol):
    """Anything that edits pairs; `rules.RulesEditor` and `editors.OpenAIEditor` do."""

    async def edit(self, case: Case) -> Edit:
        """Mends one pair.

        Raises:
            EditError: Nothing usable came of it; the pair is dropped with that reason.
            Faults: The run can't go on (no such model, a refused key).
        """
        ...

    def close(self) -> None:
        """Lets go of what the editor holds."""
        ...
