"""An editor that knows all right solutions, for generated data: ideal, or with stated faults."""

from __future__ import annotations

from rapidfuzz.distance import Levenshtein

from ..data.schema import hash_fraction
from ..errors import user_error
from .edits import Edit, EditError, EditRequest, Scores
from .validators import edit_ratio
from .words import words


class IdealEditor:
    """Bridge with the right solution that is nearest to y_l, of those in the row's `solutions`.

    A row's `solutions` are right responses to its prompt in several styles, y_w's among them. The nearest one is what
    an editor writes who changes y_l only where it is wrong. Two faults can be set (`editor: sloppy`):

    Args:
        error_rate: Share of the pairs, chosen by the hash of the id, whose edit is half done: of the places where y_l
            and the nearest solution differ, only the first half is edited.
        rewrite_rate: Share of the pairs, chosen likewise, whose edit is a rewrite: the right solution farthest from
            y_l.
    """

    def __init__(self, error_rate: float = 0.0, rewrite_rate: float = 0.0) -> None:
        self.error_rate, self.rewrite_rate = error_rate, rewrite_rate

    def close(self) -> None:
        """Hold nothing."""

    async def edit(self, case: EditRequest) -> Edit:
        if not case.solutions:
            raise user_error(
                f"row {case.id}",
                "editor: ideal and editor: sloppy need a column `solutions`, a list of right responses",
            )
        if case.rejected.strip() in case.solutions:
            return Edit(None)
        ranked = sorted(case.solutions, key=lambda solution: edit_ratio(solution, case.rejected))
        if hash_fraction(f"error {case.id}") < self.error_rate:
            return Edit(_half_edited(case.rejected, ranked[0]))
        return Edit(ranked[-1] if hash_fraction(f"rewrite {case.id}") < self.rewrite_rate else ranked[0])

    async def score(self, case: EditRequest) -> tuple[Scores, Scores]:
        raise EditError("editor: ideal scores no words")


def _half_edited(before: str, after: str) -> str:
    """Edit only the first half of the places where two texts differ.

    >>> _half_edited("3 + 4 = 8, 8 + 1 = 9", "3 + 4 = 7, 7 + 1 = 8")
    '3 + 4 = 7, 7 + 1 = 9'
    """
    old, new = ([text[start : _next(text, place, spans)] for place, (start, _) in enumerate(spans)]
                for text in (before, after) for spans in [words(text)])  # fmt: skip
    steps = Levenshtein.opcodes(old, new)
    changes = [step for step in steps if step.tag != "equal"]
    kept = changes[(len(changes) + 1) // 2 :]
    return "".join(
        "".join(old[step.src_start : step.src_end] if step in kept else new[step.dest_start : step.dest_end])
        for step in steps
    )


def _next(text: str, place: int, spans: list[tuple[int, int]]) -> int:
    """Return where the word after a place begins, so that white space stays with the word before it."""
    return spans[place + 1][0] if place + 1 < len(spans) else len(text)
