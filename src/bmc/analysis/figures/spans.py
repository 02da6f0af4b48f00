"""Figure 2: how sure a model is of the first token of a span that differs, and of the later ones."""

from __future__ import annotations

from typing import Any

from ..numbers import Estimate, ratio, sums_by_place
from ..token_scores import Scored, Side
from .drawing import BLUE, ORANGE, Drawing, Row, error_bars

NAME, TITLE = "figure2", "Figure 2: −log p at the first and later tokens of spans that differ"
SIDES = (("ỹ_w", r"winner $\tilde{y}_w$"), ("y_l", r"loser $y_l$"))
PLACES = {"first": ("first token", BLUE, ""), "later": ("later tokens", ORANGE, "//")}
CAPTION = (
    "Tokens in which the responses of a bridged pair differ, grouped into spans of neighbours: mean −log p (natural "
    "logarithm) of the spans' first tokens against the later ones, before and after DPO on bridged pairs ({run}). "
    "{n} held-out pairs; error bars are 95 % intervals over pairs. The paper averages over the training itself."
)


def figure2(scored: Scored) -> Drawing:
    """Of the reference, with which training begins, and of a model that plain DPO made of it on bridged pairs."""
    models = {"before": lambda side: side.ref_logps, "after": lambda side: side.logps}
    header = ("model", "response", "tokens", "mean −log p", "low", "high", "pairs", "number of tokens")
    rows: list[Row] = []
    estimates: dict[tuple[str, str, str], Estimate] = {}
    for model, logps in models.items():
        for index, (response, _) in enumerate(SIDES):
            for place in PLACES:
                found = _estimate([pair[index] for pair in scored.bridged.values()], logps, place)
                if found is not None:
                    estimates[model, response, place] = found[0]
                    rows.append((model, response, place, *found[0], found[1]))
    caption = CAPTION.format(run=scored.run.name, n=len(scored.bridged))
    return Drawing(NAME, TITLE, caption, header, rows, lambda figure: _draw(figure, estimates, len(scored.bridged)))


def _estimate(sides: list[Side], logps: Any, place: str) -> tuple[Estimate, int] | None:
    """The mean −log p over all tokens at a place, and how many they are."""
    sums, counts = zip(*(sums_by_place([-x for x in logps(side)], side.differs)[place] for side in sides), strict=True)
    found = ratio(sums, counts)
    return None if found is None else (found, sum(counts))


def _draw(figure: Any, estimates: dict[tuple[str, str, str], Estimate], n: int) -> None:
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (model, title) in zip(panels, (("before", "before DPO"), ("after", "after DPO")), strict=True):
        for offset, (place, (label, color, hatch)) in zip((-0.2, 0.2), PLACES.items(), strict=True):
            found = [(x, estimates.get((model, name, place))) for x, (name, _) in enumerate(SIDES)]
            there = [(x + offset, estimate) for x, estimate in found if estimate is not None]
            heights = [estimate.value for _, estimate in there]
            bars = panel.bar(
                [x for x, _ in there], heights, 0.38, color=color, hatch=hatch, edgecolor="white", label=label,
                yerr=error_bars([estimate for _, estimate in there]) if there else None,
            )  # fmt: skip
            panel.bar_label(bars, [f"{height:.2f}" for height in heights], padding=2, fontsize=12)
        panel.set_title(title)
        panel.set_xticks(range(len(SIDES)), [label for _, label in SIDES])
        panel.grid(axis="x", visible=False)
        panel.margins(y=0.15)
    panels[0].set_ylabel("mean −log p")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, title=f"{n} held-out pairs")
