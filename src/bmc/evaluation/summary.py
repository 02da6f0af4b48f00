"""Accuracies with their intervals: averages over benchmarks, means over seeds, and the cells of tables."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import Any, NamedTuple

from .stats import ratio, t95

SEEDS_FILE = "seeds.json"
NOT_RUN = "not run"
Table = tuple[list[str], list[list[str]]]  # header, and rows of cells


class Estimate(NamedTuple):
    """A number with its 95 % interval, and how many rows or pairs it rests on."""

    value: float
    low: float | None = None  # lower end of the interval; None without one
    high: float | None = None
    n: int | None = None  # rows or pairs; None where unknown

    def __str__(self) -> str:
        interval = "" if self.low is None else f" [{self.low:.1f}, {self.high:.1f}]"
        return f"{self.value:.1f}{interval}" + ("" if self.n is None else f" (n = {self.n})")

    @property
    def bars(self) -> tuple[float, float]:
        """Return the lengths of the error bar below and above; 0 without an interval."""
        if self.low is None or self.high is None:
            return 0.0, 0.0
        return max(self.value - self.low, 0.0), max(self.high - self.value, 0.0)


def ratio_estimate(sums: Sequence[float], counts: Sequence[float]) -> Estimate | None:
    """Compute Σ sums / Σ counts over pairs, an average over tokens where a pair has several; None without a token.

    The tokens of a pair aren't independent, the pairs are: the interval is that of a ratio estimator, R ± t s with
    n − 1 degrees of freedom (`stats.ratio`). With counts of 1 it is a mean's.
    """
    pairs = [(total, count) for total, count in zip(sums, counts, strict=True) if count]
    if not pairs:
        return None
    n = len(pairs)
    value, error = ratio(*zip(*pairs, strict=True))
    if error is None:
        return Estimate(value, None, None, n)
    return Estimate(value, value - t95(n - 1) * error, value + t95(n - 1) * error, n)


def mean_estimate(values: Sequence[float]) -> Estimate | None:
    """Compute a mean with its 95 % t interval; None of nothing."""
    return ratio_estimate(values, [1] * len(values))


def percent(result: dict[str, Any]) -> Estimate:
    """Convert a benchmark's result (`accuracy`, `interval`, `n`) to an estimate in %."""
    low, high = result["interval"]
    return Estimate(100 * result["accuracy"], 100 * low, 100 * high, result["n"])


def accuracy_cell(result: dict[str, Any] | None) -> str:
    """Format a benchmark's result in %: `50.0 [20.0, 80.0] (n = 10)`."""
    return NOT_RUN if result is None else str(percent(result))


def average(results: dict[str, Any]) -> dict[str, Any] | None:
    """Compute the macro average over benchmarks, as one result with an interval; None without a benchmark.

    The interval joins those of the benchmarks (MOVER, Zou & Donner, 2008): the distances to their ends add up in
    squares, each times 1/k. With one benchmark it is its own.
    """
    if not results:
        return None
    count, parts = len(results), list(results.values())
    low, high = (sqrt(sum((part["accuracy"] - part["interval"][end]) ** 2 for part in parts)) / count for end in (0, 1))
    mean = sum(part["accuracy"] for part in parts) / count
    return {"accuracy": mean, "interval": [mean - low, mean + high], "n": sum(part["n"] for part in parts)}


def seed_summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Summarize a benchmark's results over seeds: `mean`, `sd` (of a sample; None for one seed), `accuracies`, `n`."""
    accuracies = [result["accuracy"] for result in results]
    sd = stdev(accuracies) if len(accuracies) > 1 else None
    return {"mean": fmean(accuracies), "sd": sd, "accuracies": accuracies, "n": results[0]["n"]}


def seed_estimate(summary: dict[str, Any]) -> Estimate:
    """Convert a summary over seeds to an estimate in %, with the 95 % t interval of the mean, within [0, 100]."""
    mean, sd, count = summary["mean"], summary["sd"], len(summary["accuracies"])
    if sd is None:
        return Estimate(100 * mean, n=summary["n"])
    half = t95(count - 1) * sd / sqrt(count)
    return Estimate(100 * mean, 100 * max(0.0, mean - half), 100 * min(1.0, mean + half), summary["n"])


def seeds_cell(summary: dict[str, Any]) -> str:
    """Format a mean over seeds in %: `50.0 ± 2.0 [45.0, 55.0] (3 seeds, n = 100)`."""
    found, count = seed_estimate(summary), len(summary["accuracies"])
    spread = "" if found.low is None else f" ± {100 * summary['sd']:.1f} [{found.low:.1f}, {found.high:.1f}]"
    return f"{found.value:.1f}{spread} ({count} seed{'s' * (count > 1)}, n = {found.n})"


def markdown_table(table: Table) -> str:
    """Format a table in GitHub's Markdown, numbers to the right."""
    header, rows = table
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def join_names(names: list[str], most: int = 5) -> str:
    """Join names: `a, b and c`; the first of many: `a, b, c, d, e and 7 more`."""
    shown = names[:most] if len(names) > most + 1 else names
    rest = [f"{len(names) - len(shown)} more"] if len(shown) < len(names) else []
    *first, last = [*shown, *rest]
    return f"{', '.join(first)} and {last}" if first else last
