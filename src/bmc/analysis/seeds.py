"""What several seeds of one recipe scored, as `preference.py --seeds` leaves it."""

from __future__ import annotations

import re
from math import sqrt
from statistics import fmean, stdev
from typing import Any

from ..evaluation.stats import t95

FILE = "seeds.json"


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """A benchmark's results over seeds: `mean`, `sd` (a sample's; none of one seed), `accuracies` and `n` of each."""
    accuracies = [result["accuracy"] for result in results]
    sd = stdev(accuracies) if len(accuracies) > 1 else None
    return {"mean": fmean(accuracies), "sd": sd, "accuracies": accuracies, "n": results[0]["n"]}


def interval(found: dict[str, Any]) -> tuple[float, float] | None:
    """Compute the 95 % t interval of a mean over seeds, on these test rows; None of a single seed."""
    if found["sd"] is None:
        return None
    count = len(found["accuracies"])
    half = t95(count - 1) * found["sd"] / sqrt(count)
    return max(0.0, found["mean"] - half), min(1.0, found["mean"] + half)


def seeds_cell(found: dict[str, Any]) -> str:
    """Format a mean over seeds in %: `50.0 ± 2.0 [45.0, 55.0] (3 seeds, n = 100)`."""
    ends, count = interval(found), len(found["accuracies"])
    spread = "" if ends is None else f" ± {100 * found['sd']:.1f} [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"
    return f"{100 * found['mean']:.1f}{spread} ({count} seed{'s' * (count > 1)}, n = {found['n']})"


def method_and_seed(run: str) -> tuple[str, int | None]:
    """`("dpo", 3)` of the run `dpo/seed_3`; of any other its name and None."""
    found = re.fullmatch(r"(.*?)/?seed_(\d+)", run)
    return (found[1], int(found[2])) if found else (run, None)
