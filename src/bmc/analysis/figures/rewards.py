"""§5.3: reward margin and reward accuracy on held-out pairs."""

from __future__ import annotations

from typing import Any

from ..numbers import Estimate, accuracy, mean
from ..token_scores import Scored, Scores
from .drawing import BLUE, VERMILION, Drawing, Row, error_bars

NAME, TITLE = "rewards", "§5.3: reward margin and accuracy on held-out pairs"
KINDS = {
    "y_w / y_l": (r"$(y_w, y_l)$", BLUE, "o", "white"),
    "ỹ_w / y_l": (r"$(\tilde{y}_w, y_l)$", VERMILION, "D", None),
}
CAPTION = (
    "Plain DPO rewards β Σ log π_θ/π_ref over the response (all tokens weigh 1, each run with its own β): the mean of "
    "the winner's reward minus the loser's, and the share of pairs whose winner has the larger one. {n} held-out "
    "pairs, as they were before bridging (y_w, y_l) and after (ỹ_w, y_l); 95 % intervals over pairs (accuracy: "
    "Wilson). Each line is a single run."
)


def margins(scores: Scores, beta: float) -> list[float]:
    """r(x, y_w) − r(x, y_l) of each pair."""
    return [sum(winner.rewards(beta)) - sum(loser.rewards(beta)) for winner, loser in scores.values()]


def rewards(runs: list[Scored]) -> Drawing:
    """Of each run, on the pairs before and after bridging."""
    header = ("run", "pairs", "margin", "low", "high", "n", "accuracy in %", "low", "high", "n")
    rows: list[Row] = []
    found: dict[tuple[str, str], tuple[Estimate, Estimate]] = {}
    for scored in runs:
        for kind, scores in zip(KINDS, (scored.originals, scored.bridged), strict=True):
            values = margins(scores, scored.beta)
            margin, share = mean(values), accuracy(values)
            if margin is not None and share is not None:
                found[scored.run.method, kind] = margin, share
                rows.append((scored.run.name, kind, *margin, *share))
    caption = CAPTION.format(n=max(len(scored.bridged) for scored in runs))
    return Drawing(NAME, TITLE, caption, header, rows, lambda figure: _draw(figure, found))


def _draw(figure: Any, found: dict[tuple[str, str], tuple[Estimate, Estimate]]) -> None:
    methods = list(dict.fromkeys(method for method, _ in found))
    panels = figure.subplots(1, 2, sharey=True)
    for number, (panel, title) in enumerate(zip(panels, ("reward margin", "reward accuracy, %"), strict=True)):
        for offset, (kind, (label, color, marker, face)) in zip((-0.14, 0.14), KINDS.items(), strict=True):
            there = [(place + offset, found[m, kind][number]) for place, m in enumerate(methods) if (m, kind) in found]
            if there:
                panel.errorbar(
                    [estimate.value for _, estimate in there], [place for place, _ in there],
                    xerr=error_bars([estimate for _, estimate in there]), linestyle="none", marker=marker, color=color,
                    markerfacecolor=face or color, markersize=8, label=label,
                )  # fmt: skip
        chance = 50 if number else 0
        panel.axvline(chance, color="#777777", linewidth=1, linestyle=":")
        panel.set_xlabel(title)
        panel.grid(axis="y", visible=False)
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    handles, labels = panels[0].get_legend_handles_labels()
    n = max(margin.n for margin, _ in found.values())
    figure.legend(handles, labels, loc="outside upper center", ncols=2, title=f"{n} held-out pairs")
