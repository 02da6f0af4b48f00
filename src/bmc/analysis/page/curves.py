"""Training curves: small charts of what `trainer_state.json` logged, a line a run, drawn as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, isfinite, log10
from typing import Any

from ...web.page import breakable, escape, table

PANELS = {
    "loss": ("Loss", "of the objective that a run minimises; of different objectives not to be compared"),
    "rewards/margins": ("Reward margin", "reward of ỹ_w less that of y_l, the plain DPO reward"),
    "rewards/accuracies": ("Reward accuracy", "share of pairs in which ỹ_w has the higher reward"),
    "rewards/chosen": ("Reward of ỹ_w", "β Σ log π_θ/π_ref; below 0 the policy has moved away from it"),
    "rewards/rejected": ("Reward of y_l", "β Σ log π_θ/π_ref"),
    "k3/chosen": (
        "k3 on ỹ_w",
        "r − 1 − log r a token, r = π_ref/π_θ: the policy's distance on these texts, not a KL",
    ),
    "grad_norm": ("Gradient norm", "before clipping"),
    "diff/weight": ("Mean λ", "of the tokens that differ; 1 without weights"),
    "diff/share": ("Differing tokens", "as a share of the response tokens"),
}
COLOURS, DASHES = 7, ("", "6 3", "2 3", "8 3 2 3", "12 4", "10 3 2 3 2 3")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 210, 46, 74, 10, 34
_MOST_DOTS = 40  # points of a line that are told one by one; the table has all
_MOST_LABELS = 6

Points = list[tuple[int, float]]


def curves(states: dict[str, dict[str, Any]]) -> str:
    """The charts, under a legend that they share.

    Args:
        states: Name of a run → its `trainer_state.json`.
    """
    logged = {run: series(state) for run, state in states.items()}
    if any("rewards/margins" in found for found in logged.values()):  # SFT has other losses, and nothing else
        logged = {run: found for run, found in logged.items() if "rewards/margins" in found}
    logged = {run: found for run, found in logged.items() if found}
    places = {run: place for place, run in enumerate(logged)}
    panels = []
    for key, (title, what) in PANELS.items():
        lines = {run: found[key] for run, found in logged.items() if found.get(key)}
        if lines:
            panels.append(_figure(title, what, lines, places))
    if not panels:
        return ""
    smoothing = (
        '<p class="controls" data-tools hidden><label>Smoothing <input type="range" id="smoothing" min="0" max="0.98" '
        'step="0.02" value="0"></label> <output id="smoothness" for="smoothing">none</output></p>'
    )
    return f'{chooser(list(places), places)}{smoothing}<div class="charts">{"".join(panels)}</div>'


def series(state: dict[str, Any]) -> dict[str, Points]:
    """What was logged, as (step, value) a metric; numbers that are none (NaN, infinity) are left out."""
    found: dict[str, Points] = {}
    history = state.get("log_history")
    for entry in history if isinstance(history, list) else ():
        if not isinstance(entry, dict) or not isinstance(entry.get("step"), int):
            continue
        for key in PANELS:
            value = entry.get(key)
            if isinstance(value, int | float) and isfinite(value):
                found.setdefault(key, []).append((entry["step"], value))
    return found


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers that span [low, high]: multiples of 1, 2 or 5 times a power of ten.

    >>> ticks(0.0, 0.69)
    [0.0, 0.2, 0.4, 0.6, 0.8]
    """
    if high <= low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    raw = (high - low) / count
    unit = 10.0 ** floor(log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * 0.999)
    first, last = floor(low / step + 1e-9), -floor(-high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def _figure(title: str, what: str, lines: dict[str, Points], places: dict[str, int]) -> str:
    steps = sorted({step for points in lines.values() for step, _ in points})
    known = {run: dict(points) for run, points in lines.items()}
    rows = [[str(step), *(f"{found[step]:.4g}" if step in found else "" for found in known.values())] for step in steps]
    numbers = table(f"{title}: numbers", ["step", *map(breakable, lines)], rows)
    return (
        f'<figure class="chart"><figcaption><b>{title}</b><br>{what}</figcaption>{_svg(title, lines, places)}'
        f"<details><summary>Numbers</summary>{numbers}</details></figure>"
    )


def _svg(title: str, lines: dict[str, Points], places: dict[str, int]) -> str:
    values = [value for points in lines.values() for _, value in points]
    y_ticks = ticks(min(values), max(values))
    steps = [step for points in lines.values() for step, _ in points]
    first, last = min(steps), max(max(steps), min(steps) + 1)
    right = WIDTH - (RIGHT if len(lines) <= _MOST_LABELS else 8)

    def x(step: float) -> float:
        return LEFT + (step - first) / (last - first) * (right - LEFT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (HEIGHT - BOTTOM - TOP)

    drawn = [_grid(y_ticks, y, right), _steps(first, max(steps), x)]
    for run, points in lines.items():
        path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)
        said = f"{escape(run)}: {points[-1][1]:.4g} at step {points[-1][0]}"
        drawn.append(f'<g data-run="{escape(run)}">')
        drawn.append(f'<polyline points="{path}" {stroke(places[run])}><title>{said}</title></polyline>')
        for step, value in points if len(points) <= _MOST_DOTS else ():
            at = f'cx="{x(step):.1f}" cy="{y(value):.1f}"'
            told = f"<title>{escape(run)}, step {step}: {value:.4g}</title>"
            drawn.append(f'<circle class="c{places[run] % COLOURS}" {at} r="2.5">{told}</circle>')
        drawn.append("</g>")
    if len(lines) <= _MOST_LABELS:
        drawn.append(_labels({run: y(points[-1][1]) for run, points in lines.items()}, places, right))
    ends = ", ".join(f"{run} {points[-1][1]:.3g}" for run, points in lines.items())
    label = f"{title} by step; at the end: {ends}"
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(drawn)}</svg>'


def _grid(values: Sequence[float], y: Any, right: float) -> str:
    return "".join(
        f'<line x1="{LEFT}" y1="{y(value):.1f}" x2="{right}" y2="{y(value):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
        for value in values
    )


def _steps(first: int, last: int, x: Any) -> str:
    shown = [step for step in map(round, ticks(first, last)) if first <= step <= last]
    marks = "".join(
        f'<text x="{x(step):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{step}</text>'
        for step in dict.fromkeys(shown)
    )
    return f'{marks}<text x="{x((first + last) / 2):.1f}" y="{HEIGHT - 4}" text-anchor="middle">step</text>'


def _labels(ends: dict[str, float], places: dict[str, int], right: float) -> str:
    """The runs' names at the ends of their lines, moved apart where they would cover one another."""
    drawn, floor_ = [], float("-inf")
    overflow = max(0.0, _lowest(ends) - (HEIGHT - BOTTOM))
    for run, end in sorted(ends.items(), key=lambda item: item[1]):
        floor_ = max(end - overflow, floor_ + 12)
        name = run.rpartition("/")[2] if len(run) > 11 else run
        short = name if len(name) <= 11 else f"{name[:10]}…"
        at = f'x="{right + 6}" y="{floor_ + 4:.1f}" data-run="{escape(run)}"'
        drawn.append(f'<text class="t{places[run] % COLOURS}" {at}>{escape(short)}</text>')
    return "".join(drawn)


def _lowest(ends: dict[str, float]) -> float:
    at = float("-inf")
    for end in sorted(ends.values()):
        at = max(end, at + 12)
    return at


def chooser(runs: Sequence[str], places: dict[str, int]) -> str:
    """List the runs, each with its line where it has one, and with a box that hides it from tables and charts."""
    items = []
    for run in runs:
        line = f'<line x1="0" y1="4" x2="30" y2="4" {stroke(places[run])}/>' if run in places else ""
        sample = f'<svg viewBox="0 0 30 8" aria-hidden="true">{line}</svg>' if places else ""
        box = f'<input type="checkbox" checked data-tools hidden value="{escape(run)}">'
        items.append(f"<li><label>{box}{sample}<span>{breakable(run)}</span></label></li>")
    buttons = (
        '<p class="controls" data-tools hidden><button type="button" data-show="all">Show all runs</button>'
        '<button type="button" data-show="none">Hide all</button></p>'
    )
    return f'<ul class="legend">{"".join(items)}</ul>{buttons if len(runs) > 1 else ""}'


def stroke(place: int) -> str:
    """Class and dashes of the n-th run: seven colours, then the same with other dashes, and then all of it thicker."""
    dash = DASHES[(place % COLOURS + place // COLOURS) % len(DASHES)]
    thick = " thick" if place // (COLOURS * len(DASHES)) % 2 else ""
    return f'class="c{place % COLOURS}{thick}"' + (f' stroke-dasharray="{dash}"' if dash else "")
