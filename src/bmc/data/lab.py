"""Generate the laboratory's tasks, with as many right solutions as there are writers.

Preference pairs are written in isolation: y_w by one writer, y_l in the style of another. Here the number of writers
is a setting, and the right solution in every writer's style is known, so that the noise of the pairs and the quality of
an editor can be varied one at a time.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from ..errors import user_error
from .datasets import Parts, answerable_task, sft_target, with_options
from .schema import Row, assistant

LAB = "lab"


@dataclass(frozen=True)
class Style:
    """Describe how a writer writes.

    Attributes:
        forward: Add from the left, or from the right.
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


class Problem(ABC):
    """A task of steps that each add one term to a running total, which can be solved in any style, with or without an
    error.

    Attributes:
        question: Its text.
        terms: What is added, in the order of the question.
        errors: What a wrong step adds to its result.
    """

    question: str
    terms: list[int]
    errors: tuple[int, ...]

    @abstractmethod
    def name(self, total: int, whole: bool) -> str:
        """Return the text of a term or a total; `whole` says whether the first term is in it."""

    def solve(self, style: Style, error: random.Random | None = None) -> tuple[str, str]:
        """Return reasoning and answer.

        Args:
            style: The writer's.
            error: Draws the step that goes wrong and its result; later steps follow from it. None for a right solution.
        """
        total, *rest = self.terms if style.forward else self.terms[::-1]
        wrong, steps = error.randrange(len(rest)) if error else None, []
        for place, term in enumerate(rest):
            last = place == len(rest) - 1
            after = total + term + (error.choice(self.errors) if error and place == wrong else 0)
            # adding from the right, only the last step adds the first term
            one, other = self.name(total, style.forward), self.name(term, last and not style.forward)
            result = self.name(after, style.forward or last)
            steps.append(f"{one} + {other} = {result}" if style.symbols else f"{one} and {other} make {result}")
            total = after
        return style.join(steps), self.name(total, True)


class Sum(Problem):
    """A sum of digits."""

    errors = (-2, -1, 1, 2)

    def __init__(self, draw: random.Random, length: int) -> None:
        self.terms = [draw.randint(1, 9) for _ in range(length)]
        self.question = f"Calculate {' + '.join(map(str, self.terms))}."

    def name(self, total: int, whole: bool) -> str:
        return str(total)


HEADINGS = ("north", "east", "south", "west")
TURNS = ("none", "right", "back", "left")


class Turn(Problem):
    """A closed question: where one faces after some turns."""

    errors = (1, 2, 3)

    def __init__(self, draw: random.Random, length: int) -> None:
        self.terms = [draw.randrange(4), *(draw.randint(1, 3) for _ in range(length - 1))]
        start, *turns = (self.name(term, place == 0) for place, term in enumerate(self.terms))
        question = f"You face {start} and turn {', '.join(turns)}. Where do you face?"
        self.question = with_options(question, list(HEADINGS))

    def name(self, total: int, whole: bool) -> str:
        return (HEADINGS if whole else TURNS)[total % 4]


TASKS: dict[str, tuple[str, Callable[[random.Random, int], Problem]]] = {"sums": ("math", Sum), "turns": ("qa", Turn)}


@dataclass(kw_only=True)
class LabParameters:
    """The `config` of `source: lab`.

    Attributes:
        task: `sums` (of digits) or `turns` (of a heading; closed questions with options).
        writers: How many styles of writing there are; at most 4 with `order: left`.
        order: `either` has writers who add from the left and from the right, which is not equally hard; `left` has
            writers who all add from the left, and differ in words and layout.
        length: Terms of a sum; the heading and its turns.
        rejected_error_rate: Give each row a y_l in the style of a writer drawn anew, with one wrong step in this share
            of the rows; by default rows have no y_l, and a model's own responses serve.
        seed: Of the rows.
    """

    task: Literal["sums", "turns"] = "sums"
    writers: Annotated[int, Field(ge=1, le=len(WRITERS))] = 2
    order: Literal["either", "left"] = "either"
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
    writers = [style for style in WRITERS if style.forward or given.order == "either"]
    if given.writers > len(writers):
        raise user_error(f"{where}.writers", f"must be at most {len(writers)} with order: left, got {given.writers}")
    kind, make = TASKS[given.task]
    draw, wanted = random.Random(given.seed), num_rows or 500
    rows: dict[str, Row] = {}
    for _ in range(100 * wanted):
        problem = make(draw, given.length)
        row = _raw(problem, kind, draw, writers[: given.writers], given.rejected_error_rate)
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
