"""What a figure is, how it looks, and its files: NAME.csv, NAME.svg, NAME.png; the same bytes from the same numbers.

Colours are Okabe's and Ito's, which people with any kind of colour vision tell apart; a method also has a marker and a
line style of its own, so that a print without colours can be read.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import fail
from ...runs import write_text
from ..numbers import Estimate

SIZE = (6.5, 4.2)  # inches; half of that must still be readable
DPI = 200
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
STYLE: dict[Any, Any] = {
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


class Look(NamedTuple):
    """How a method's line is drawn."""

    color: str
    marker: str
    line: str


LOOKS = {
    "DPO": Look(BLUE, "o", "-"),
    "DPO-MC": Look(ORANGE, "s", "--"),
    "DPO-BC": Look(GREEN, "^", "-."),
    "DPO-BMC": Look(VERMILION, "D", ":"),
}
_OTHERS = (Look(PURPLE, "v", "-"), Look(SKY, "P", "--"), Look(BLACK, "X", "-."))


@dataclass(frozen=True)
class Drawing:
    """A figure that can be drawn.

    Attributes:
        name: Of its files: `figure2`.
        title: A line.
        caption: What is shown, on what, how it is defined, n and intervals.
        header: Columns of the CSV.
        rows: The numbers.
        draw: Draws on a figure of matplotlib's.
        size: In inches.
    """

    name: str
    title: str
    caption: str
    header: Row
    rows: Sequence[Row]
    draw: Callable[[Any], None]
    size: tuple[float, float] = SIZE


@dataclass(frozen=True)
class Missing:
    """A figure that can't be drawn.

    Attributes:
        name: Of its files, if there were any.
        why: What is missing.
        command: What would make it.
    """

    name: str
    why: str
    command: str


def look(method: str, among: Sequence[str]) -> Look:
    """A method's look: its own, or one by its place among those that have none."""
    if method in LOOKS:
        return LOOKS[method]
    others = [name for name in among if name not in LOOKS]
    return _OTHERS[others.index(method) % len(_OTHERS)]


def check_matplotlib() -> None:
    """Whether figures can be drawn at all.

    Raises:
        Faults: matplotlib isn't installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise fail("figures", "need matplotlib, which isn't there; pip install '.[plots]'") from None


def save(drawing: Drawing, folder: Path) -> dict[str, str]:
    """Writes a figure's files; returns their names by kind."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, rc_context

    names = {kind: f"{drawing.name}.{kind}" for kind in ("svg", "png", "csv")}
    write_text(folder / names["csv"], table(drawing.header, drawing.rows))
    with rc_context(STYLE):
        figure = pyplot.figure(figsize=drawing.size)
        drawing.draw(figure)
        # neither a date nor a version, so that the same numbers are the same bytes
        svg: dict[str, Any] = {"metadata": {"Date": None, "Creator": "bmc", "Title": drawing.title}}
        png: dict[str, Any] = {"metadata": {"Software": None, "Title": drawing.title}, "dpi": DPI}
        for kind, options in {"svg": svg, "png": png}.items():
            partial = folder / f"{names[kind]}.tmp"
            figure.savefig(partial, format=kind, **options)
            os.replace(partial, folder / names[kind])
        pyplot.close(figure)
    return names


def table(header: Row, rows: Sequence[Row]) -> str:
    """CSV; numbers to six digits, nothing where there is none."""
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([header, *(map(_cell, row) for row in rows)])
    return lines.getvalue().removesuffix("\n")


def _cell(value: str | int | float | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def numbers(estimate: Estimate) -> Row:
    """An estimate as cells: value, low, high, n."""
    return tuple(estimate)


def error_bars(estimates: Sequence[Estimate]) -> Any:
    """matplotlib's `yerr` of estimates."""
    return list(zip(*(estimate.bars for estimate in estimates), strict=True))
