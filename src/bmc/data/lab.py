"""Generate the laboratory's tasks, with as many right solutions as there are writers.

Preference pairs are written in isolation: y_w by one writer, y_l in the style of another. Here the number of writers
is a setting, and the right solution in every writer's style is known, so that the noise of the pairs and the quality of
an editor can be varied one at a time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, TypeAdapter, ValidationError

from ..errors import user_error
from .datasets import Parts, answerable_task, sft_target, with_options
from .schema import Row, assistant

LAB = "lab"


@dataclass(frozen=True)
class Style:
    """Describe how a writer writes.

    Attributes:
        forward: Sums: add from the left, or from the right. Swaps: tell every move, or only those of the coin.
        symbols: `8 + 3 = 11`, or `8 and 3 make 11`.
        lines: One step a line, or all on one line.
    """

    forward: bool
    symbols: bool
    lines: bool

    def join(self, steps: list[str]) -> str:
        return ("\n" if self.lines else " ; ").join(steps)


# `writers: n` means the first n, so that more writers differ in more ways.
WRITERS = [
    Style(forward, symbols, lines) for lines in (True, False) for symbols in (True, False) for forward in (True, False)
]


class Problem(Protocol):
    """A task that can be solved in any style, with or without one error."""

    question: str

    def solve(self, style: Style, error: random.Random | None = None) -> tuple[str, str]:
        """Return reasoning and answer.

        Args:
            style: The writer's.
            error: Draws the step that goes wrong and its result; later steps follow from it. None for a right solution.
        """
        ...


class Sum:
    """A sum of digits; each step adds one."""

    def __init__(self, draw: random.Random, length: int) -> None:
        self.terms = [draw.randint(1, 9) for _ in range(length)]
        self.question = f"Calculate {' + '.join(map(str, self.terms))}."

    def solve(self, style: Style, error: random.Random | None = None) -> tuple[str, str]:
        total, *rest = self.terms if style.forward else self.terms[::-1]
        wrong, steps = error.randrange(len(rest)) if error else None, []
        for place, term in enumerate(rest):
            after = total + term + (error.choice((-2, -1, 1, 2)) if error and place == wrong else 0)
            steps.append(f"{total} + {term} = {after}" if style.symbols else f"{total} and {term} make {after}")
            total = after
        return style.join(steps), str(total)


BOXES = ("black", "blue", "green", "red", "white")


class Swaps:
    """Swaps of boxes, one of which holds a coin; each step says where it was and where it is then."""

    def __init__(self, draw: random.Random, length: int) -> None:
        self.start = draw.choice(BOXES)
        self.moves = [draw.sample(BOXES, 2) for _ in range(length)]
        told = " ".join(f"Swap {one} and {other}." for one, other in self.moves)
        self.question = with_options(f"The coin is in {self.start}. {told} Where is the coin?", list(BOXES))

    def solve(self, style: Style, error: random.Random | None = None) -> tuple[str, str]:
        place, steps = self.start, []
        wrong = error.randrange(len(self.moves)) if error else None
        for number, (one, other) in enumerate(self.moves):
            after = {one: other, other: one}.get(place, place)
            if error and number == wrong:
                after = error.choice([box for box in BOXES if box != after])
            if style.forward or after != place:
                before = f"{place} : " if style.symbols else f"in {place} , "
                swap = f"{one} - {other} : {after}" if style.symbols else f"{one} with {other} , now in {after}"
                steps.append(before + swap)
            place = after
        return style.join(steps), place


TASKS: dict[str, tuple[str, Callable[[random.Random, int], Problem]]] = {"sums": ("math", Sum), "swaps": ("qa", Swaps)}


@dataclass(kw_only=True)
class LabParameters:
    """The `config` of `source: lab`.

    Attributes:
        task: `sums` (of digits) or `swaps` (of boxes; closed questions with options).
        writers: How many styles of writing there are.
        length: Terms of a sum, or swaps.
        rejected_error_rate: Give each row a y_l in the style of a writer drawn anew, with one wrong step in this share
            of the rows; by default rows have no y_l, and a model's own responses serve.
        seed: Of the rows.
    """

    task: Literal["sums", "swaps"] = "sums"
    writers: Annotated[int, Field(ge=1, le=len(WRITERS))] = 2
    length: Annotated[int, Field(ge=2, le=20)] = 5
    rejected_error_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: int = 0

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - pydantic's name


def generate_lab(parameters: Any, num_rows: int | None) -> list[Row]:
    """Generate raw rows with different questions.

    Args:
        parameters: `LabParameters` as a mapping.
        num_rows: How many; 500 by default.

    Returns:
        `{"task", "question", "answer", "reasoning", "solutions", "rejected"}` each: the reasoning of one writer, drawn
        at random, the solutions of all, and y_l or None.

    Raises:
        UserErrors: A parameter is unknown or out of range, or there aren't so many questions.
    """
    where = f"{LAB}: config"
    if not isinstance(parameters, Mapping):
        raise user_error(where, "must be a mapping, as in {task: sums, writers: 4, length: 5, seed: 7}")
    try:
        given = TypeAdapter(LabParameters).validate_python(dict(parameters))
    except ValidationError as error:
        first = error.errors()[0]
        raise user_error(f"{where}.{'.'.join(map(str, first['loc']))}", first["msg"]) from None
    kind, make = TASKS[given.task]
    draw, wanted = random.Random(given.seed), num_rows or 500
    rows: dict[str, Row] = {}
    for _ in range(100 * wanted):
        problem = make(draw, given.length)
        row = _raw(problem, kind, draw, WRITERS[: given.writers], given.rejected_error_rate)
        rows.setdefault(problem.question, row)
        if len(rows) == wanted:
            return list(rows.values())
    raise user_error(where, f"has only {len(rows):,} different questions of {wanted:,}; raise length or lower num_rows")


def _raw(problem: Problem, kind: str, draw: random.Random, writers: list[Style], error_rate: float | None) -> Row:
    chosen, rejected = draw.choice(writers), draw.choice(writers)
    (reasoning, answer), wrong = problem.solve(chosen), None
    if error_rate is not None:
        wrong = sft_target(*problem.solve(rejected, draw if draw.random() < error_rate else None))
    solutions = dict.fromkeys(sft_target(*problem.solve(style)) for style in writers)
    row = {"task": kind, "question": problem.question, "reasoning": reasoning, "answer": answer}
    return row | {"solutions": list(solutions), "rejected": wrong}


@answerable_task(LAB, "math")
def _parts(raw: Row) -> Parts:
    return raw["question"], raw["reasoning"], raw["answer"]


def lab(raw: Row) -> Row:
    """Turn a generated row into ours: an SFT row, or a pair where it has a y_l, with every right solution."""
    row = _parts(raw) | {"task": raw["task"], "solutions": raw["solutions"]}
    if raw["rejected"] is None:
        return row
    return {"chosen": row.pop("completion"), "rejected": assistant(raw["rejected"])} | row
