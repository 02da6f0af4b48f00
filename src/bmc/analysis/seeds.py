"""What several seeds of one recipe scored, as `preference.py --seeds` leaves it."""

from __future__ import annotations

import re
from statistics import fmean, stdev
from typing import Any

FILE = "seeds.json"


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """A benchmark's results over seeds: `mean`, `sd` (a sample's; none of one seed), `accuracies` and `n` of each."""
    accuracies = [result["accuracy"] for result in results]
    sd = stdev(accuracies) if len(accuracies) > 1 else None
    return {"mean": fmean(accuracies), "sd": sd, "accuracies": accuracies, "n": results[0]["n"]}


def seeds_cell(found: dict[str, Any]) -> str:
    """A mean over seeds in %: `50.0 ± 2.0 (3 seeds, n = 100)`."""
    sd = "" if found["sd"] is None else f" ± {100 * found['sd']:.1f}"
    count = len(found["accuracies"])
    return f"{100 * found['mean']:.1f}{sd} ({count} seed{'s' * (count > 1)}, n = {found['n']})"


def method_and_seed(run: str) -> tuple[str, int | None]:
    """`("dpo", 3)` of the run `dpo/seed_3`; of any other its name and None."""
    found = re.fullmatch(r"(.*?)/?seed_(\d+)", run)
    return (found[1], int(found[2])) if found else (run, None)
