"""What the paper's text says of its analyses, from our own: held-out rewards, spans, training time, bridging."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .cells import read_json

RECIPE = "the run's recipe"
FIGURES: Mapping[str, tuple[str, str, dict[str, str]]] = {  # metric → figure, column, and which line of its CSV
    "held_out.margin": ("rewards", "margin", {"run": RECIPE, "pairs": "y_w / y_l"}),
    "held_out.accuracy": ("rewards", "accuracy in %", {"run": RECIPE, "pairs": "y_w / y_l"}),
    "spans.first": ("figure2", "mean −log p", {"model": "after", "response": "y_l", "tokens": "first"}),
    "spans.later": ("figure2", "mean −log p", {"model": "after", "response": "y_l", "tokens": "later"}),
    "time.ratio": ("table10", "ratio to dpo", {"run": RECIPE}),
}
BRIDGING = ("bridging.good_enough", "bridging.cosine")
METRICS = (*FIGURES, *BRIDGING)
GOOD_ENOUGH = "y_l is good enough"


def target(setting: str, recipe: str, metric: str) -> str:
    """Return the make target that leaves a metric: an analysis of the setting, or the bridging itself."""
    return f"{setting}/analyze" if metric in FIGURES else f"{setting}/{recipe}"


def claim(folder: Path, recipe: str, metric: str) -> str | None:
    """Read one number of ours, ready to print; None where it isn't there.

    Args:
        folder: The setting's runs.
        recipe: Of the run, below the setting.
        metric: One of `METRICS`.

    Raises:
        KeyError, TypeError, ValueError: A file isn't of its shape.
    """
    if metric in FIGURES:
        figure, column, where = FIGURES[metric]
        wanted = {name: recipe if value is RECIPE else value for name, value in where.items()}
        return _of_figure(folder / "analyze/figures" / f"{figure}.csv", column, wanted)
    path = folder / recipe / "stats.json"
    return _of_bridging(read_json(path), metric) if path.is_file() else None


def _of_figure(path: Path, column: str, wanted: Mapping[str, str]) -> str | None:
    """A number of a figure's CSV, with the interval and n that stand after it."""
    if not path.is_file():
        return None
    header, *lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    for line in lines:
        if all(line[header.index(name)] == value for name, value in wanted.items()):
            place = header.index(column)
            value, low, high, n = [*line[place : place + 4], "", "", ""][:4]
            if not value:
                return None
            interval = f" [{float(low):.2f}, {float(high):.2f}] (n = {n})" if low and high else ""
            return f"{float(value):.2f}{interval}"
    return None


def _of_bridging(stats: dict[str, Any], metric: str) -> str | None:
    """The share of pairs that were good enough, or the mean cosine of a response and its edit."""
    if metric == "bridging.good_enough":
        return f"{100 * stats['reasons'].get(GOOD_ENOUGH, 0) / stats['rows']:.1f} % (n = {stats['rows']})"
    cosine = stats["similarity"].get("cosine")
    if not cosine:
        return None
    value = cosine["edit_y_l" if stats["mode"] == "degrade" else "y_w_edit"]
    return None if value is None else f"{value:.2f} (n = {stats['bridged']})"
