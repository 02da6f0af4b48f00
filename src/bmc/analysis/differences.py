"""Two methods on the same test rows: by how much they differ, and whether that may be chance."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import fail
from ..evaluation.stats import holm, paired_difference
from .seeds import method_and_seed

BASELINE = "dpo"
NOTE = (
    "Accuracy in points above {baseline}, row by row on the same test rows, with a 95 % interval. Of single runs it is "
    "the score interval (Tango), and p is McNemar's exact one: they show the chance in the rows, not in the training. "
    "Of several seeds they are t intervals and tests over seeds and rows; where only one of the two methods has "
    "several, the other is taken to vary as much. The last column is p adjusted for all comparisons of this table "
    "(Holm): below 0.05 there, one can say that something differs, though {count} were tried."
)
Hits = dict[str, dict[str, bool]]  # benchmark → row id → whether it is right
Seeds = dict[int | None, dict[str, bool]]  # seed → row id → whether it is right


@dataclass(frozen=True)
class Difference:
    """What a run gains over the baseline on a benchmark.

    Attributes:
        run: The run, or the method of several seeds.
        benchmark: Where.
        gain: In points, with its interval; None where the two were scored on other rows.
        n: Rows.
        p: Two-sided p-value.
        adjusted: The same, by Holm, for all comparisons of the table.
        seeds: How many of this method and of the baseline.
    """

    run: str
    benchmark: str
    gain: tuple[float, float, float] | None = None
    n: int = 0
    p: float | None = None
    adjusted: float | None = None
    seeds: tuple[int, int] = (1, 1)

    def cells(self) -> list[str]:
        """Return the cells of its line, as in `HEADER`."""
        if self.gain is None:
            return [self.run, self.benchmark, "other rows", "", ""]
        gain, low, high = self.gain
        several = f", {self.seeds[0]} against {self.seeds[1]} seeds" if max(self.seeds) > 1 else ""
        told = f"{gain:+.1f} [{low:+.1f}, {high:+.1f}] (n = {self.n}{several})"
        return [self.run, self.benchmark, told, *("" if p is None else f"{p:.3g}" for p in (self.p, self.adjusted))]


HEADER = ["run", "benchmark", "difference", "p", "p (Holm)"]
Compared = tuple[str, list[Difference]] | None  # the baseline's name, and the differences


def differences(found: dict[str, Hits]) -> Compared:
    """What each run gains over the baseline, the run whose name ends in `dpo`, or else the first.

    Args:
        found: Name of a run → its predictions. Runs `X/seed_1`, `X/seed_2` are one, `X`.

    Returns:
        The baseline's name, and the differences; None where no two runs can be compared.
    """
    runs: dict[str, dict[str, Seeds]] = {}
    for run, benchmarks in found.items():
        method, seed = method_and_seed(run)
        for benchmark, hits in benchmarks.items():
            runs.setdefault(method, {}).setdefault(benchmark, {})[seed] = hits
    baseline = next((name for name in runs if name.split("/")[-1] == BASELINE), next(iter(runs), None))
    if baseline is None or len(runs) < 2:
        return None
    theirs = runs.pop(baseline)
    pairs = ((name, ours, benchmark) for name, ours in runs.items() for benchmark in sorted(ours.keys() & theirs))
    return baseline, _adjusted([_compared(name, of, ours[of], theirs[of]) for name, ours, of in pairs])


def _compared(name: str, benchmark: str, ours: Seeds, theirs: Seeds) -> Difference:
    ids = list(next(iter(theirs.values())))
    if any(hits.keys() != set(ids) for hits in (*ours.values(), *theirs.values())):
        return Difference(name, benchmark)
    mine, other = (np.array([[hits[row] for row in ids] for hits in seeds.values()], bool) for seeds in (ours, theirs))
    gain, (low, high), p = paired_difference(mine, other)
    points = (100 * gain, 100 * low, 100 * high)
    return Difference(name, benchmark, points, len(ids), p, seeds=(len(ours), len(theirs)))


def _adjusted(found: list[Difference]) -> list[Difference]:
    """The differences with their adjusted p-values."""
    adjusted = iter(holm([one.p for one in found if one.p is not None]))
    return [one if one.p is None else replace(one, adjusted=next(adjusted)) for one in found]


def hits_of(path: Path) -> Hits:
    """What an evaluation scored (`predictions.jsonl`), if it scored anything.

    Raises:
        Faults: A line is no prediction.
    """
    hits: Hits = {}
    if not path.exists():
        return hits
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                if row["correct"] is not None:
                    hits.setdefault(row["source"] or "data", {})[row["id"]] = bool(row["correct"])
            except (ValueError, KeyError, TypeError):
                raise fail(f"{path}: row {number}", "is no prediction; remove the folder and evaluate again") from None
    return hits
