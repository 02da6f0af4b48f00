"""Figures: their numbers, style and files; and those that need no model: Figures 3, 4 and 5, Tables 9 and 10.

The same numbers give the same bytes. Colours are Okabe's and Ito's, which people with any kind of colour vision tell
apart; a method also has a marker and a line style of its own, so that a print without colours can be read.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean as mean
from typing import Any

from ..data.files import file_rows
from ..data.schema import split_distances
from ..evaluation.summary import Estimate
from ..provenance import read_provenance
from ..runs import read_json, write_text
from .results import BASELINE, METHODS, Run, load_metric, make_command, stage_command

SIZE = (6.5, 4.2)  # inches; half of that must still be readable
DPI = 200
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
MATPLOTLIB_STYLE: dict[Any, Any] = {
    "font.size": 13,
    "axes.titlesize": 13,
    "axes.labelsize": 13,
    "legend.fontsize": 12,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E3E3E3",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "errorbar.capsize": 3,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "bmc",
    "figure.constrained_layout.use": True,
}
Row = Sequence[str | int | float | None]


STYLES = {  # a method's colour, marker and line style
    "DPO": (BLUE, "o", "-"),
    "DPO-MC": (ORANGE, "s", "--"),
    "DPO-BC": (GREEN, "^", "-."),
    "DPO-BMC": (VERMILION, "D", ":"),
}
_OTHERS = ((PURPLE, "v", "-"), (SKY, "P", "--"), (BLACK, "X", "-."))


@dataclass(frozen=True)
class Figure:
    """A figure that can be drawn."""

    name: str  # of its files: `figure2`
    title: str
    caption: str  # what is shown, on what, how it is defined, n and intervals
    header: Row  # columns of the CSV
    rows: Sequence[Row]
    draw: Callable[[Any], None]  # draws on a figure of matplotlib's
    size: tuple[float, float] = SIZE  # in inches


@dataclass(frozen=True)
class MissingFigure:
    """A figure that can't be drawn."""

    name: str  # of its files, if there were any
    why: str
    command: str


def save(figure: Figure, folder: Path) -> dict[str, str]:
    """Write a figure's files: NAME.csv, NAME.svg, NAME.png; return their names by kind."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    names = {kind: f"{figure.name}.{kind}" for kind in ("svg", "png", "csv")}
    write_text(folder / names["csv"], to_csv(figure.header, figure.rows))
    with rc_context(MATPLOTLIB_STYLE):
        canvas = Canvas(figsize=figure.size)
        figure.draw(canvas)
        # neither a date nor a version, so that the same numbers are the same bytes
        svg: dict[str, Any] = {"metadata": {"Date": None, "Creator": "bmc", "Title": figure.title}}
        png: dict[str, Any] = {"metadata": {"Software": None, "Title": figure.title}, "dpi": DPI}
        for kind, options in {"svg": svg, "png": png}.items():
            partial = folder / f"{names[kind]}.tmp"
            canvas.savefig(partial, format=kind, **options)
            os.replace(partial, folder / names[kind])
    return names


def to_csv(header: Row, rows: Sequence[Row]) -> str:
    """Format numbers as CSV, to six digits; nothing where there is none."""
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([header, *(map(_cell, row) for row in rows)])
    return lines.getvalue().removesuffix("\n")


def _cell(value: str | int | float | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def method_style(method: str, among: Sequence[str] = ()) -> dict[str, Any]:
    """Return matplotlib's options of a method's line: its own, or some by its place among those that have none."""
    others = [name for name in among if name not in STYLES]
    color, marker, line = STYLES.get(method) or _OTHERS[others.index(method) % len(_OTHERS)]
    return {"color": color, "marker": marker, "linestyle": line, "linewidth": 2, "label": method}


def error_bars(estimates: Sequence[Estimate]) -> Any:
    """Return matplotlib's `yerr` of estimates."""
    return list(zip(*(estimate.bars for estimate in estimates), strict=True))


def plot(panel: Any, at: Sequence[float], estimates: Sequence[Estimate], sideways: bool = False, **style: Any) -> None:
    """Draw estimates with their intervals at places along x, or along y where `sideways`."""
    values, bars = [estimate.value for estimate in estimates], error_bars(estimates)
    places: Any = (values, at) if sideways else (at, values)
    panel.errorbar(*places, **{"xerr" if sideways else "yerr": bars}, **style)


# A label, colour, marker and fill of each kind of number that stands side by side at a method
Kinds = dict[str, tuple[str, str, str, str | None]]


def plot_kinds(panel: Any, kinds: Kinds, found: dict[str, dict[int, Estimate]], sideways: bool = False) -> None:
    """Draw each kind's estimates beside those of the other kind, at the places of their methods."""
    for offset, (kind, (label, color, marker, face)) in zip((-0.13, 0.13), kinds.items(), strict=True):
        if there := found[kind]:
            style: dict[str, Any] = {"color": color, "marker": marker, "markerfacecolor": face or color, "label": label}
            places = [place + offset for place in there]
            plot(panel, places, list(there.values()), sideways, linestyle="none", markersize=8, **style)


# Figures 3, 4 and 5

TITLES = {
    "figure3": "Figure 3: the share of pairs that is bridged",
    "figure4": "Figure 4: δ of DPO-BMC",
    "figure5": "Figure 5: six splits of the pairs by rising edit distance",
}
PROPORTIONS = {
    0: "dpo_mc", **{share: f"ablations/dpo_bmc_proportion_{share / 100:.1f}" for share in (20, 40, 60, 80)},
    100: "dpo_bmc",
}  # fmt: skip
DELTAS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5)
SPLITS = range(1, 7)
NORM, DISTANCE = "gradient norm", "edit distance"
GREY = "#777777"
Points = dict[float, Estimate]


def figure3(setting: Path, metric: str) -> Figure | MissingFigure:
    """Plot DPO-BMC where 0, 20, …, 100 % of the pairs are bridged; with none it is DPO-MC."""
    points, missing = _points(setting, metric, {float(share): name for share, name in PROPORTIONS.items()})
    if len(points) < 2:
        return _missing("figure3", setting, missing)
    caption = f"{_named(metric)} of DPO-BMC by the share of pairs that is bridged; the rest keep (y_w, y_l). At 0 % it "
    caption += f"is DPO-MC. {_intervals(points)}{_and_missing(missing)}"
    return _over("figure3", caption, "bridged pairs, %", metric, points, None)


def figure4(setting: Path, metric: str) -> Figure | MissingFigure:
    """Plot DPO-BMC by δ, and DPO, which has none."""
    runs = {delta: f"ablations/dpo_bmc_delta_{delta}" for delta in DELTAS}
    if (recipe := setting / "dpo_bmc/recipe.json").is_file():
        runs[float(read_json(recipe).get("bmc_delta", 3.0))] = "dpo_bmc"  # the setting's own
    points, missing = _points(setting, metric, dict(sorted(runs.items())))
    if len(points) < 2:
        return _missing("figure4", setting, missing)
    baseline = load_metric(setting / "dpo", metric)
    caption = f"{_named(metric)} of DPO-BMC by δ, the most that a differing token weighs above 1; at δ = 1 the weight "
    caption += f"is a fixed 2. {_intervals(points)}{_and_missing(missing)}"
    return _over("figure4", caption, "δ", metric, points, baseline[0] if baseline else None)


def figure5(setting: Path, metric: str) -> Figure | MissingFigure:
    """Plot the pairs' edit distance by split, and for each method the metric and the gradient norm on each split."""
    measures = {_axis(metric): metric, NORM: "grad_norm"}
    found: dict[str, dict[str, Points]] = {name: {} for name in measures}
    missing: list[str] = []
    for run, method in METHODS.items():
        names = {float(split): f"ablations/{run}_split_{split}" for split in SPLITS}
        for name, of in measures.items():
            points, absent = _points(setting, of, names)
            if points:
                found[name][method] = points
            missing += [target for target in absent if target not in missing]
    panels = {name: lines for name, lines in found.items() if any(len(points) > 1 for points in lines.values())}
    if not panels:
        return _missing("figure5", setting, missing)
    if distances := _distances(setting):
        panels = {DISTANCE: {"all pairs": distances}, **panels}
    header = ("measure", "run", "split", "value", "low", "high", "n")
    rows: list[Row] = [
        (name, method, split, *estimate)
        for name, lines in panels.items()
        for method, points in lines.items()
        for split, estimate in points.items()
    ]
    counted = [estimate for points in found[_axis(metric)].values() for estimate in points.values()]
    rows_a_point = f" (n = {_counts(counted)})" if counted else ""
    caption = (
        "Each method trained on each sixth of the pairs, by rising edit distance between y_w and y_l (characters; the "
        "first panel has each sixth's mean, where bridge/train.jsonl is there). "
        f"{_named(metric)}, with 95 % intervals over test rows{rows_a_point}; gradient norm: the mean of the "
        f"norms that were logged in training, before clipping.{_and_missing(missing)}"
    )
    size = (SIZE[0] * max(1.0, len(panels) / 2), SIZE[1])
    return Figure(
        "figure5", TITLES["figure5"], caption, header, rows, lambda figure: _draw_panels(figure, panels), size
    )


def _distances(setting: Path) -> Points:
    """Compute the mean edit distance of each split of the training pairs; nothing without them."""
    path = setting / "bridge/train.jsonl"
    if not path.is_file():
        return {}
    splits = split_distances([*file_rows(path)], len(SPLITS), str(path))
    return {
        float(k): Estimate(mean(found), None, None, len(found))
        for k, found in zip(SPLITS, splits, strict=True)
        if found
    }


def _points(setting: Path, metric: str, runs: dict[float, str]) -> tuple[Points, list[str]]:
    """Load the numbers that are there, and name the runs that aren't."""
    found = {x: (name, load_metric(setting / name, metric)) for x, name in runs.items()}
    points = {x: measured[0] for x, (_, measured) in found.items() if measured}
    return points, [name for name, measured in found.values() if not measured]


def _over(name: str, caption: str, axis: str, metric: str, points: Points, baseline: Estimate | None) -> Figure:
    """Plot a line of DPO-BMC, and perhaps DPO's level."""
    header = ("run", axis, _axis(metric), "low", "high", "n")
    rows: list[Row] = [("DPO-BMC", x, *estimate) for x, estimate in points.items()]
    rows += [] if baseline is None else [("DPO", None, *baseline)]

    def draw(figure: Any) -> None:
        panel = figure.subplots()
        if baseline is not None:
            color = STYLES["DPO"][0]
            panel.axhline(baseline.value, color=color, linestyle="--", linewidth=2, label="DPO")
            if baseline.low is not None:
                panel.axhspan(baseline.low, baseline.high, color=color, alpha=0.12, linewidth=0)
        plot(
            panel, list(points), list(points.values()), **method_style("DPO-BMC") | {"linestyle": "-", "markersize": 7}
        )
        panel.set_xticks(list(points))
        panel.set_xlabel(axis)
        panel.set_ylabel(f"{_axis(metric)} (n = {_counts(points.values())})")
        if baseline is not None:
            figure.legend(loc="outside upper center", ncols=2)

    return Figure(name, TITLES[name], caption, header, rows, draw)


def _draw_panels(figure: Any, panels: dict[str, dict[str, Points]]) -> None:
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (name, lines) in zip(axes, panels.items(), strict=True):
        for place, (method, points) in enumerate(lines.items()):
            if name == DISTANCE:
                panel.bar(list(points), [estimate.value for estimate in points.values()], color=GREY)
                continue
            shift = 0.1 * (place - (len(lines) - 1) / 2)  # so that bars stand side by side
            plot(panel, [x + shift for x in points], list(points.values()), **method_style(method), markersize=7)
        panel.set_xticks(list(SPLITS))
        panel.set_xlabel("split, by edit distance")
        panel.set_ylabel(name)
    named = {label: handle for panel in axes for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named, loc="outside upper center", ncols=len(named))


def _axis(metric: str) -> str:
    if metric == "accuracy":
        return "accuracy, %"
    benchmark, _, kind = metric.partition(".")[2].rpartition("_")
    return f"{benchmark} {kind.upper()}, %".replace("_", " ")


def _named(metric: str) -> str:
    return "Accuracy (the macro average over the benchmarks)" if metric == "accuracy" else f"Win rate ({_axis(metric)})"


def _intervals(points: Points) -> str:
    kind = "Error bars: 95 % intervals, over test rows or, where a run has several seeds, over these."
    there = any(estimate.low is not None for estimate in points.values())
    return f"n = {_counts(points.values())} test rows a point.{f' {kind}' if there else ''}"


def _counts(estimates: Iterable[Estimate]) -> str:
    """Format the rows of a point: a number, or the least and the most."""
    n = sorted({estimate.n or 0 for estimate in estimates})
    return " to ".join(map(str, n[:: len(n) - 1 or 1]))


def _missing(name: str, setting: Path, missing: list[str]) -> MissingFigure:
    return MissingFigure(name, _not_run(missing), make_command(str(setting), name))


def _not_run(missing: list[str]) -> str:
    few = ", ".join(name.removeprefix("ablations/") for name in missing[:3])
    return f"not run: {few}{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}"


def _and_missing(missing: list[str]) -> str:
    return f" {_not_run(missing).capitalize()}." if missing else ""


# Tables 9 and 10

TABLE9 = "Table 9: tokens and dollars of bridging"
TABLE10 = "Table 10: training time"


def table9(setting: Path) -> Figure | MissingFigure:
    """Plot the tokens of the responses that each bridging of a setting rests on, whenever they were paid for."""
    rows: list[Row] = []
    found = sorted([*setting.glob("bridge*/stats.json"), *setting.glob("ablations/bridge*/stats.json")])
    for path in found:
        stats, name = read_json(path), str(path.parent.relative_to(setting))
        if used := stats.get("usage") or stats.get("answers"):  # its name before 0.2
            count = used["completions" if "completions" in used else "replies"]
            tokens = used["prompt_tokens"], used["completion_tokens"]
            rows.append((name, stats["rows"], stats["kept"], count, *tokens, used["dollars"]))
    if not found:
        return MissingFigure("table9", "nothing was bridged", make_command(str(setting), "bridge"))
    if not rows:
        why = "the pairs were bridged by rules, which cost nothing; an LLM would cost tokens"
        return MissingFigure(
            "table9", why, f"{stage_command('bridge', str(setting))} --editor openai --output_dir {setting}/bridge_llm"
        )
    caption = (
        "Tokens that the editor read and wrote for the pairs of each bridging, second tries included, and dollars by "
        "the recipe's prices (none where it has no price). " + "; ".join(
            f"{row[0]}: {row[3]:,} responses for {row[1]:,} pairs" for row in rows) + "."
    )  # fmt: skip
    header = ("bridging", "pairs", "kept", "responses", "tokens read", "tokens written", "dollars")
    return Figure("table9", TABLE9, caption, header, rows, lambda figure: _draw9(figure, rows))


def _draw9(figure: Any, rows: list[Row]) -> None:
    panel = figure.subplots()
    for offset, column, label, color, hatch in ((-0.19, 4, "read", BLUE, ""), (0.19, 5, "written", ORANGE, "//")):
        heights = [float(row[column] or 0) / 1000 for row in rows]
        panel.barh(
            [place + offset for place in range(len(rows))], heights, 0.36, color=color, hatch=hatch, edgecolor="white",
            label=f"tokens {label}",
        )  # fmt: skip
    for place, row in enumerate(rows):
        most, dollars = float(row[4] or 0) / 1000, row[6]
        panel.text(most, place - 0.19, "  no price" if dollars is None else f"  ${float(dollars):,.2f}", va="center")
    panel.set_yticks(range(len(rows)), [str(row[0]).removeprefix("ablations/") for row in rows])
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.margins(x=0.25)
    panel.set_xlabel("thousand tokens")
    panel.grid(axis="y", visible=False)
    figure.legend(loc="outside upper center", ncols=2)


def table10(setting: Path, runs: list[Run]) -> Figure | MissingFigure:
    """Plot the time in each run's training loop, evaluations included."""
    took: dict[Run, float] = {}
    for run in runs:
        resumed = (read_provenance(run.trained) or {}).get("resumed")
        if "train_runtime" in run.metrics and not resumed:
            took[run] = run.metrics["train_runtime"]
    if not took:
        return MissingFigure(
            "table10",
            "no run trained without a break, so none has a time to compare",
            make_command(str(setting), *METHODS),
        )
    baseline = next((seconds for run, seconds in took.items() if run.name == BASELINE), None)
    ratios = {run: None if baseline is None else seconds / baseline for run, seconds in took.items()}
    sentences = [
        "Wall time of the training loop, evaluations during it included; the reference log-probs, which runs share "
        "through a cache, are not. Each bar is a single run, without an interval.",
        "; ".join(f"{run.method}: {run.metrics.get('rows')} pairs, {run.steps} steps" for run in took) + ".",
    ]
    if len({str((read_provenance(run.trained) or {}).get("host")) for run in took}) > 1:
        sentences.append("They ran on different machines, so their times don't compare.")
    if left_out := [run.method for run in runs if run not in took]:
        sentences.append(f"Left out, since their time is that of their last part alone: {', '.join(left_out)}.")
    header = ("run", "pairs", "steps", "training seconds", "seconds of the whole stage", f"ratio to {BASELINE}")
    rows: list[Row] = [
        (run.name, run.metrics.get("rows"), run.steps, seconds, run.metrics.get("seconds"), ratios[run])
        for run, seconds in took.items()
    ]
    return Figure("table10", TABLE10, " ".join(sentences), header, rows, lambda figure: _draw10(figure, took, ratios))


def _draw10(figure: Any, took: dict[Run, float], ratios: dict[Run, float | None]) -> None:
    panel, methods = figure.subplots(), [run.method for run in took]
    longest = max(took.values())
    unit, name = (3600, "hours") if longest >= 5400 else (60, "minutes") if longest >= 90 else (1, "seconds")
    lengths = [seconds / unit for seconds in took.values()]
    colors = [method_style(method, methods)["color"] for method in methods]
    bars = panel.barh(range(len(took)), lengths, 0.6, color=colors)
    shown = [f"{length:.1f}" for length in lengths]
    for place, ratio in enumerate(ratios.values()):
        shown[place] += "" if ratio is None else f" ({ratio:.2f} × DPO)"
    panel.bar_label(bars, shown, padding=4)
    panel.set_yticks(range(len(took)), methods)
    panel.set_ylim(len(took) - 0.4, -0.6)
    panel.margins(x=0.45)
    panel.set_xlabel(f"training time, {name}")
    panel.grid(axis="y", visible=False)
