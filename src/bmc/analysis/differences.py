"""Two methods on the same test rows: by how much they differ, and whether that may be chance."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import fail
from ..evaluation.stats import mcnemar, paired_bootstrap

BASELINE = "dpo"
NOTE = (
    "Accuracy in points above {baseline}, row by row on the same test rows: 95 % paired bootstrap interval, and the "
    "exact p-value of McNemar's test. Each run is a single one: this is the chance in the rows, not in the training."
)
Hits = dict[str, dict[str, bool]]  # benchmark → row id → whether it is right


def differences(folders: dict[str, Path]) -> tuple[str, list[list[str]]] | None:
    """What each run gains over the baseline, the run whose name ends in `dpo`, or else the first.

    Args:
        folders: Name of a run → the folder with its `predictions.jsonl`.

    Returns:
        `(name of the baseline, rows of run, benchmark, difference, p)`; None where no two runs can be compared.
    """
    runs = {name: hits for name, folder in folders.items() if (hits := _hits(folder / "predictions.jsonl"))}
    baseline = next((name for name in runs if name.split("/")[-1] == BASELINE), next(iter(runs), None))
    if baseline is None or len(runs) < 2:
        return None
    rows = []
    for name, hits in runs.items():
        for benchmark in sorted(hits.keys() & runs[baseline].keys()) if name != baseline else ():
            rows.append([name, benchmark, *_compared(hits[benchmark], runs[baseline][benchmark])])
    return baseline, rows


def _compared(ours: dict[str, bool], theirs: dict[str, bool]) -> tuple[str, str]:
    if ours.keys() != theirs.keys():
        return "other rows", ""
    mine, other = list(ours.values()), [theirs[row] for row in ours]
    low, high = paired_bootstrap(mine, other)
    gain = (sum(mine) - sum(other)) / len(mine)
    return f"{100 * gain:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] (n = {len(mine)})", f"{mcnemar(mine, other):.3g}"


def _hits(path: Path) -> Hits:
    """What an evaluation scored, if it scored anything.

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
                    hits.setdefault(row["source"] or "data", {})[row["id"]] = row["correct"]
            except (ValueError, KeyError, TypeError):
                raise fail(f"{path}: row {number}", "is no prediction; remove the folder and evaluate again") from None
    return hits
