"""Two methods on the same test rows: by how much they differ, and whether that may be chance."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import fail
from ..evaluation.stats import mcnemar, paired_bootstrap
from .seeds import method_and_seed

BASELINE = "dpo"
NOTE = (
    "Accuracy in points above {baseline}, row by row on the same test rows: 95 % paired bootstrap interval, and the "
    "exact p-value of McNemar's test. A single run shows the chance in the rows, not in the training; of several seeds "
    "the rows' means are compared, and there is a p for each seed that both have."
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
        p: Of McNemar's test, one a seed that both have.
    """

    run: str
    benchmark: str
    gain: tuple[float, float, float] | None = None
    n: int = 0
    p: tuple[float, ...] = ()

    def cells(self) -> list[str]:
        """The four cells of its line."""
        if self.gain is None:
            return [self.run, self.benchmark, "other rows", ""]
        gain, low, high = self.gain
        told = f"{gain:+.1f} [{low:+.1f}, {high:+.1f}] (n = {self.n})"
        return [self.run, self.benchmark, told, ", ".join(f"{x:.3g}" for x in self.p)]


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
    return baseline, [_compared(name, benchmark, ours[benchmark], theirs[benchmark]) for name, ours, benchmark in pairs]


def _compared(name: str, benchmark: str, ours: Seeds, theirs: Seeds) -> Difference:
    ids = list(next(iter(theirs.values())))
    if any(hits.keys() != set(ids) for hits in (*ours.values(), *theirs.values())):
        return Difference(name, benchmark)
    mine, other = _means(ours, ids), _means(theirs, ids)
    low, high = paired_bootstrap(mine, other)
    gain = (sum(mine) - sum(other)) / len(ids)
    both = [seed for seed in ours if seed in theirs]
    p = (mcnemar([ours[seed][row] for row in ids], [theirs[seed][row] for row in ids]) for seed in both)
    return Difference(name, benchmark, (100 * gain, 100 * low, 100 * high), len(ids), tuple(p))


def _means(seeds: Seeds, ids: list[str]) -> list[float]:
    return [sum(hits[row] for hits in seeds.values()) / len(seeds) for row in ids]


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
