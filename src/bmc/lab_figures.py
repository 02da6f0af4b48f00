"""Figures of the laboratory's studies, from the committed numbers (extra `plots`)."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from .data.schema import Row
from .lab_verdicts import WRITERS, Side, accuracy, t_test

NAMES = {
    "dpo": "DPO",
    "dpo_bc": "DPO-BC",
    "dpo_mc": "DPO-MC",
    "dpo_bmc": "DPO-BMC",
    "sft_chosen": "SFT on y_w",
    "sft_bridged": "SFT on ỹ_w",
}
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
    figures["writers"] = (gain_over_writers, [study for _, study in WRITERS])
    written = []
    for name, (figure, studies) in figures.items():
        if all(study in results for study in studies):
            path = folder / f"{name}.svg"
            figure(results).savefig(path, metadata={"Date": None, "Creator": None})
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
            axes.plot(*zip(*sorted(points), strict=True), marker="o", label="" if beta is None else f"β = {beta:g}")
        axes.axhline(base, color="grey", linestyle=":", label="SFT")
        axes.set(xscale="log", title=title, xlabel="learning rate")
    figure.axes[0].set_ylabel("validation accuracy, %")
    figure.axes[0].legend()
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
    figure.axes[0].legend()
    return figure


def gain_over_writers(results: Row) -> Any:
    """Draw the gain of bridging over the number of writers, with 95 % t intervals over SFT seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3), layout="constrained")
    axes = figure.subplots()
    for shift, method in ((-0.03, "dpo_bc"), (0.03, "dpo_bmc")):
        places, means, errors = [], [], []
        for writers, study in WRITERS:
            more, less = (Side(study, name).by_seed(results, accuracy) for name in (method, "dpo"))
            mean, low, high, _ = t_test([more[seed] - less[seed] for seed in more])
            places.append(writers * 2**shift)
            means.append(mean)
            errors.append((mean - low, high - mean))
        bars = list(zip(*errors, strict=True))
        axes.errorbar(places, means, yerr=bars, marker="o", capsize=3, label=f"{NAMES[method]} − DPO")
    axes.axhline(0, color="grey", linestyle=":")
    axes.set_xscale("log", base=2)
    axes.set(xlabel="writers", ylabel="points of accuracy", xticks=[1, 2, 4], xticklabels=["1", "2", "4"])
    axes.legend()
    return figure
