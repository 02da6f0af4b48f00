"""reasoning-gym's tasks, which are generated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ...errors import did_you_mean, fail
from ..schema import Row, share
from .closed import Parts, closed

GENERATOR = "reasoning_gym"
ORDER = "solution_order"
_SUM = re.compile(r"-?\d+(?: [+-] -?\d+)+")


def running_sums(expression: str) -> str:
    """The worked solution of a sum of integers, one step a line: `60 + 93 - 16` → `60 + 93 = 153⏎153 - 16 = 137`.

    Empty for anything that isn't integers joined by + and -.
    """
    if not _SUM.fullmatch(expression):
        return ""
    first, *rest = expression.split()
    total, lines = int(first), []
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        after = total + int(term) if sign == "+" else total - int(term)
        lines.append(f"{total} {sign} {term} = {after}")
        total = after
    return "\n".join(lines)


@closed(GENERATOR, "math")
def reasoning_gym(raw: Row) -> Parts:
    """`{"question": "… 60 + 93 - 16 =", "answer": "137", "metadata": {"expression": "60 + 93 - 16", …}}`

    The reasoning is `answer_cot` (gsm_symbolic), the running sums of `expression` (chain_sum and its like), or empty.
    With `solution_order: either` half of the pure sums are added up from their end, as other writers would: two right
    solutions of one task then differ in much that doesn't matter, which is what bridging is about.
    """
    metadata = raw.get("metadata") or {}
    expression = str(metadata.get("expression", ""))
    if raw.get(ORDER) == "either" and "-" not in expression and share(expression) < 0.5:
        expression = " ".join(reversed(expression.split()))
    return raw["question"], metadata.get("answer_cot") or running_sums(expression), raw["answer"]


def generate(parameters: Any, num_rows: int | None) -> list[Row]:
    """Raw rows of a reasoning-gym task.

    Args:
        parameters: `{"task": "chain_sum", "seed": 7, …}`: the task, and parameters of its own. Without `seed` it is 0,
            so that a recipe always means the same rows. `solution_order` (`left`, `either`) is ours.
        num_rows: Rows to generate; the task's `size` (500) where none.

    Returns:
        `{"question", "answer", "metadata", "solution_order"}` each.

    Raises:
        Faults: The task or a parameter is unknown, or a parameter's value is refused.
    """
    where = f"{GENERATOR}: config"
    if not isinstance(parameters, Mapping) or "task" not in parameters:
        raise fail(where, "must name the task and its parameters, as in {task: chain_sum, seed: 7}")
    from reasoning_gym.factory import DATASETS, create_dataset

    task = parameters["task"]
    if task not in DATASETS:
        raise fail(f"{where}.task", f"'{task}' is unknown{did_you_mean(str(task), list(DATASETS))}")
    known = [parameter.name for parameter in fields(DATASETS[task][1])]
    own = {"seed": 0} | {key: value for key, value in parameters.items() if key not in ("task", ORDER)}
    order = parameters.get(ORDER, "left")
    if order not in ("left", "either"):
        raise fail(f"{where}.{ORDER}", f"must be left or either, got '{order}'")
    for key in own:
        if key not in known and key in parameters:
            raise fail(
                f"{where}.{key}", f"is no parameter of {task}{did_you_mean(key, known)}; it has {', '.join(known)}"
            )
    if num_rows is not None:
        own["size"] = num_rows
    try:
        rows = create_dataset(task, **{key: own[key] for key in own if key in known})
        return [{**row, ORDER: order} for row in rows]
    except (AssertionError, TypeError, ValueError) as error:
        raise fail(where, f"{task} refuses these parameters ({error})") from error
