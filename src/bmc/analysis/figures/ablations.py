"""Figures 3, 4 and 5: a metric over the share of bridged pairs, over δ, and over splits by edit distance."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import fmean as mean
from typing import Any

from ...data.files import file_rows
from ...data.schema import split_distances
from ..cells import read_json
from ..measured import number
from ..numbers import Estimate
from ..trained import METHODS, make
from .drawing import SIZE, Drawing, Missing, Row, error_bars, look

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


def figure3(setting: Path, metric: str) -> Drawing | Missing:
    """DPO-BMC where 0, 20, …, 100 % of the pairs are bridged; with none it is DPO-MC."""
    points, missing = _points(setting, metric, {float(share): name for share, name in PROPORTIONS.items()})
    if len(points) < 2:
        return _missing("figure3", setting, missing)
    caption = f"{_named(metric)} of DPO-BMC by the share of pairs that is bridged; the rest keep (y_w, y_l). At 0 % it "
    caption += f"is DPO-MC. {_intervals(points)}{_and_missing(missing)}"
    return _over("figure3", caption, "bridged pairs, %", metric, points, None)


def figure4(setting: Path, metric: str) -> Drawing | Missing:
    """DPO-BMC by δ, and DPO, which has none."""
    runs = {delta: f"ablations/dpo_bmc_delta_{delta}" for delta in DELTAS}
    if (recipe := setting / "dpo_bmc/recipe.json").is_file():
        runs[float(read_json(recipe).get("bmc_delta", 3.0))] = "dpo_bmc"  # the setting's own
    points, missing = _points(setting, metric, dict(sorted(runs.items())))
    if len(points) < 2:
        return _missing("figure4", setting, missing)
    baseline = number(setting / "dpo", metric)
    caption = f"{_named(metric)} of DPO-BMC by δ, the most that a differing token weighs above 1; at δ = 1 the weight "
    caption += f"is a fixed 2. {_intervals(points)}{_and_missing(missing)}"
    return _over("figure4", caption, "δ", metric, points, baseline)


def figure5(setting: Path, metric: str) -> Drawing | Missing:
    """The pairs' edit distance by split; each method on each split: the metric, and the gradient norm in training."""
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
    return Drawing(
        "figure5", TITLES["figure5"], caption, header, rows, lambda figure: _draw_panels(figure, panels), size
    )


def _distances(setting: Path) -> Points:
    """The mean edit distance of each split of the pairs that the methods train on; nothing without them."""
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
    """The numbers that are there, and the runs that aren't."""
    found = {x: (name, number(setting / name, metric)) for x, name in runs.items()}
    points = {x: estimate for x, (_, estimate) in found.items() if estimate is not None}
    return points, [name for name, estimate in found.values() if estimate is None]


def _over(name: str, caption: str, axis: str, metric: str, points: Points, baseline: Estimate | None) -> Drawing:
    """A line of DPO-BMC, and perhaps DPO's level."""
    header = ("run", axis, _axis(metric), "low", "high", "n")
    rows: list[Row] = [("DPO-BMC", x, *estimate) for x, estimate in points.items()]
    rows += [] if baseline is None else [("DPO", None, *baseline)]

    def draw(figure: Any) -> None:
        panel = figure.subplots()
        if baseline is not None:
            style = look("DPO", ())
            panel.axhline(baseline.value, color=style.color, linestyle="--", linewidth=2, label="DPO")
            if baseline.low is not None:
                panel.axhspan(baseline.low, baseline.high, color=style.color, alpha=0.12, linewidth=0)
        _line(panel, "DPO-BMC", points, solid=True)
        panel.set_xticks(list(points))
        panel.set_xlabel(axis)
        panel.set_ylabel(f"{_axis(metric)} (n = {_counts(points.values())})")
        if baseline is not None:
            figure.legend(loc="outside upper center", ncols=2)

    return Drawing(name, TITLES[name], caption, header, rows, draw)


def _line(panel: Any, method: str, points: Points, solid: bool = False, shift: float = 0.0) -> None:
    style, estimates = look(method, ()), list(points.values())
    panel.errorbar(
        [x + shift for x in points], [estimate.value for estimate in estimates], yerr=error_bars(estimates),
        color=style.color, marker=style.marker, linestyle="-" if solid else style.line, linewidth=2, markersize=7,
        label=method,
    )  # fmt: skip


def _draw_panels(figure: Any, panels: dict[str, dict[str, Points]]) -> None:
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (name, lines) in zip(axes, panels.items(), strict=True):
        for place, (method, points) in enumerate(lines.items()):
            if name == DISTANCE:
                panel.bar(list(points), [estimate.value for estimate in points.values()], color=GREY)
                continue
            _line(panel, method, points, shift=0.1 * (place - (len(lines) - 1) / 2))  # so that bars stand side by side
        panel.set_xticks(list(SPLITS))
        panel.set_xlabel("split, by edit distance")
        panel.set_ylabel(name)
    named = {label: handle for panel in axes for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named, loc="outside upper center", ncols=len(named))


def _axis(metric: str) -> str:
    if metric == "accuracy":
        return "accuracy, %"
    benchmark, _, kind = metric.removeprefix("judged.").rpartition("_")
    return f"{benchmark} {kind.upper()}, %".replace("_", " ")


def _named(metric: str) -> str:
    return "Accuracy (the macro average over the benchmarks)" if metric == "accuracy" else f"Win rate ({_axis(metric)})"


def _intervals(points: Points) -> str:
    kind = (
        "Error bars: 95 % intervals, over test rows or, where a run has several seeds, over these. "
        if any(e.low is not None for e in points.values())
        else ""
    )
    return f"n = {_counts(points.values())} test rows a point. {kind}".rstrip()


def _counts(estimates: Iterable[Estimate]) -> str:
    """Rows of a point: a number, or the least and the most."""
    n = sorted({estimate.n for estimate in estimates})
    return " to ".join(map(str, n[:: len(n) - 1 or 1]))


def _missing(name: str, setting: Path, missing: list[str]) -> Missing:
    return Missing(name, _not_run(missing), make(str(setting), name))


def _not_run(missing: list[str]) -> str:
    few = ", ".join(name.removeprefix("ablations/") for name in missing[:3])
    return f"not run: {few}{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}"


def _and_missing(missing: list[str]) -> str:
    return f" {_not_run(missing).capitalize()}." if missing else ""
