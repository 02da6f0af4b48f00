"""Figures of the laboratory's studies, from the committed numbers."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import Any

from .data.schema import Row
from .lab_verdicts import NOISE, WRITERS, Side, accuracy, t_test
from .runs import write_text

NAMES = {
    "dpo": "DPO",
    "dpo_bc": "DPO-BC",
    "dpo_mc": "DPO-MC",
    "dpo_bmc": "DPO-BMC",
    "sft_chosen": "SFT on y_w",
    "sft_bridged": "SFT on ỹ_w",
}
Lines = dict[str, list[tuple[float, float, float, float]]]  # name → (x, mean, low, high)
METHODS = ("dpo", "dpo_bc", "dpo_mc", "dpo_bmc")


def draw(results: Row, folder: Path) -> list[Path]:
    """Draw each figure whose studies are there.

    Returns:
        The SVG files written.

    Raises:
        ModuleNotFoundError: matplotlib is missing.
    """
    import matplotlib

    matplotlib.use("svg")
    # The same numbers give the same file, and text stays text.
    matplotlib.rcParams.update({"svg.hashsalt": "bmc", "svg.fonttype": "none", "font.size": 9})
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"search": (search, ["search"]), "displacement": (displacement, ["displacement"])}
    figures["noise"] = (gain_over_noise, ["noise"])
    figures["writers"] = (gain_over_writers, [study for _, study in WRITERS])
    written = []
    for name, (figure, studies) in figures.items():
        if all(study in results for study in studies):
            path = folder / f"{name}.svg"
            drawn = StringIO()
            figure(results).savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
            write_text(path, "\n".join(map(str.rstrip, drawn.getvalue().splitlines())))
            written.append(path)
    return written


def search(results: Row) -> Any:
    """Draw validation accuracy over learning rate × β, one panel a method."""
    from matplotlib.figure import Figure

    rows = results["search"]["rows"]
    base = next(accuracy(row) for row in rows if row["method"] == "sft")
    figure = Figure(figsize=(10, 2.6), layout="constrained")
    for axes, (method, title) in zip(figure.subplots(1, len(NAMES), sharey=True), NAMES.items(), strict=True):
        lines: dict[Any, list[tuple[float, float]]] = {}
        for row in rows:
            if row["method"] == method:
                point = (row["values"]["learning_rate"], accuracy(row))
                lines.setdefault(row["values"].get("beta"), []).append(point)
        for beta, points in lines.items():
            style = {"color": "black"} if beta is None else {"label": f"β = {beta:g}"}
            axes.plot(*zip(*sorted(points), strict=True), marker="o", **style)
        axes.axhline(base, color="grey", linestyle=":", label="SFT")
        axes.set(xscale="log", title=title, xlabel="learning rate")
    figure.axes[0].set_ylabel("validation accuracy, %")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def displacement(results: Row) -> Any:
    """Draw how log π(chosen) and log π(rejected) of held-out pairs move, a mean over SFT seeds, one panel a method."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.6), layout="constrained")
    for axes, method in zip(figure.subplots(1, len(METHODS), sharey=True), METHODS, strict=True):
        curves = [row["held_out"] for row in results["displacement"]["rows"] if row["method"] == method]
        length = min(map(len, curves))
        for place, label in ((1, "chosen"), (2, "rejected")):
            moved = [fmean(curve[line][place] - curve[0][place] for curve in curves) for line in range(length)]
            axes.plot([line[0] for line in curves[0][:length]], moved, marker="o", label=label)
        axes.axhline(0, color="grey", linestyle=":")
        axes.set(title=NAMES[method], xlabel="step")
    figure.axes[0].set_ylabel("Δ log π, nats a response")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def gain_over_noise(results: Row) -> Any:
    """Draw what bridging gains over the share of pairs whose y_w is in the other writer's style."""
    lines: Lines = {}
    for method, name in (("dpo_bc", "DPO"), ("dpo_bmc", "DPO with MC")):
        sides = [(share, Side("noise", method), Side("noise", method, pairs)) for share, pairs in NOISE]
        lines[f"{name}: bridged − not"] = [(share, *_gain(results, more, less)) for share, more, less in sides]
    return _gains(lines, "pairs whose y_w is in the other style, %")


def gain_over_writers(results: Row) -> Any:
    """Draw the gain of bridging over the number of writers."""
    lines: Lines = {}
    for method in ("dpo_bc", "dpo_bmc"):
        sides = [(writers, Side(study, method), Side(study, "dpo")) for writers, study in WRITERS]
        lines[f"{NAMES[method]} − DPO"] = [(writers, *_gain(results, more, less)) for writers, more, less in sides]
    return _gains(lines, "writers")


def _gain(results: Row, more: Side, less: Side) -> tuple[float, float, float]:
    """Return the mean difference in accuracy and both ends of its interval."""
    ours, theirs = more.by_seed(results, accuracy), less.by_seed(results, accuracy)
    return t_test([ours[seed] - theirs[seed] for seed in ours])[:3]


def _gains(lines: Lines, label: str) -> Any:
    """Draw lines of (x, mean, low, high), with 95 % t intervals over SFT seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 3), layout="constrained")
    axes = figure.subplots()
    for name, points in lines.items():
        places, means, lows, highs = zip(*points, strict=True)
        bars = [
            [m - low for m, low in zip(means, lows, strict=True)],
            [h - m for m, h in zip(means, highs, strict=True)],
        ]
        axes.errorbar(places, means, yerr=bars, marker="o", capsize=3, label=name)
    axes.axhline(0, color="grey", linestyle=":")
    axes.set(xlabel=label, ylabel="points of accuracy", xticks=places)
    figure.legend(loc="outside upper center", ncols=2)
    return figure
