"""The token viewer: pairs and what each run makes of their tokens, small enough to open at once.

Pairs stand in the page a line each, and so do the numbers of each run; a line is read when its pair is shown. Numbers
are whole ten-thousandths. A run whose tokens of a pair aren't those of the pair's line brings its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...web.page import data
from ..runs import are_numbers

UNIT = 10_000
MOST = 500  # pairs that the page holds
SIDES = ("chosen", "rejected")
NUMBERS = ("rewards", "probabilities", "weights")
DEFAULTS = ("dpo", "dpo_bmc")
_PAGE = Path(__file__).with_name("viewer.html")


def viewer(files: dict[str, Path], notices: list[str]) -> str:
    """The viewer's markup and data; nothing where no file has a pair.

    Args:
        files: Name of a run → its `tokens/RUN.jsonl`.
        notices: Gets what is missing or damaged.
    """
    pairs: dict[str, dict[str, Any]] = {}
    numbers: dict[str, dict[str, Any]] = {}
    total = 0
    for run, path in files.items():
        found, rows = {}, 0
        for row in _rows(path, notices):
            rows += 1
            texts = {side: _texts(row[side]) for side in SIDES}
            pair = {"id": row["id"], "prompt": row["prompt"], **texts}
            if row["id"] not in pairs and len(pairs) >= MOST:
                continue
            known = pairs.setdefault(row["id"], pair)
            own = {} if all(known[side] == texts[side] for side in SIDES) else {"texts": texts}
            found[row["id"]] = {side: _numbers(row[side]) for side in SIDES} | own
        if found:
            numbers[run] = found
        total = max(total, rows)
    if not pairs:
        return ""
    if total > len(pairs):
        notices.append(f"the token viewer holds the first {len(pairs)} of {total} pairs")
    scale = robust_maximum(numbers)
    head = {
        "runs": list(numbers),
        "shown": chosen_runs(list(numbers)),
        "unit": UNIT,
        "scale": scale,
        "pairs": len(pairs),
    }
    lines = [data("viewer", [head]), data("pairs", list(pairs.values()))]
    lines += [data(f"run-{n}", [found.get(pair) for pair in pairs]) for n, found in enumerate(numbers.values())]
    return _PAGE.read_text(encoding="utf-8") + "\n".join(lines)


def chosen_runs(runs: list[str]) -> list[str]:
    """The two runs that are shown at first: DPO and DPO-BMC, or else the first two."""
    named = [run for name in DEFAULTS for run in runs if run.split("/")[-1] == name]
    return list(dict.fromkeys([*named, *runs]))[:2]


def robust_maximum(numbers: dict[str, dict[str, Any]]) -> float:
    """Where the colours end on either side: the 99th percentile of |reward| over all runs' tokens, in `UNIT`s."""
    rewards = [line[side]["rewards"] for found in numbers.values() for line in found.values() for side in SIDES]
    every = np.abs(np.fromiter((reward for line in rewards for reward in line), dtype=np.int64))
    return max(1, round(float(np.percentile(every, 99)))) if every.size else 1


def _texts(side: dict[str, Any]) -> dict[str, Any]:
    return {"tokens": side["tokens"], "differs": "".join("01"[bool(differs)] for differs in side["differs"])}


def _numbers(side: dict[str, Any]) -> dict[str, Any]:
    """A response's numbers in `UNIT`s, with the sum of its rewards; `weights` is left out where every λ is 1."""
    whole: dict[str, Any] = {name: [round(UNIT * value) for value in side[name]] for name in NUMBERS}
    if all(weight == UNIT for weight in whole["weights"]):
        del whole["weights"]
    return whole | {"reward": round(UNIT * sum(side["rewards"]))}


def _rows(path: Path, notices: list[str]) -> Iterator[dict[str, Any]]:
    """The lines that are whole; of the others a notice that names the first."""
    bad: list[int] = []
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                row = _whole(line)
                if row is not None:
                    yield row
                else:
                    bad.append(number)
    except OSError as error:
        notices.append(f"{path}: can't be read ({error.strerror or error}); analyze again")
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        notices.append(f"{path}: row {bad[0]}{more}: is no pair with its tokens' numbers; analyze again")


def _whole(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        row["id"], row["prompt"] = str(row["id"]), str(row["prompt"])
        for side in (row[name] for name in SIDES):
            count = len(side["tokens"])
            fine = len(side["differs"]) == count and all(isinstance(token, str) for token in side["tokens"])
            numbers = [side[name] for name in NUMBERS]
            if not fine or not all(len(each) == count and are_numbers(*each) for each in numbers):
                return None
    except (ValueError, KeyError, TypeError):
        return None
    return dict(row)
