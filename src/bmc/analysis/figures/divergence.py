"""Figure 9: how far a model moves from the reference on held-out winners."""

from __future__ import annotations

from typing import Any

from ..numbers import Estimate, ratio
from ..token_scores import Scored, Scores
from ..trained import Run
from .drawing import BLUE, VERMILION, Drawing, Missing, Row, error_bars, look

NAME, TITLE = "figure9", "Figure 9: KL(policy ‖ reference) on held-out winners"
LOGGED, EXACT = "while training: k3", "saved models: exact KL"
KEY = "eval_k3/chosen"
KINDS = {"y_w": (r"on $y_w$", BLUE, "o", "white"), "ỹ_w": (r"on $\tilde{y}_w$", VERMILION, "D", None)}
CAPTIONS = {
    LOGGED: "While training: k3, the mean over tokens of r − 1 − log r with r = π_ref/π_θ of the response's own token, "
    "logged at each evaluation on the run's own winners (ỹ_w for DPO-BC and DPO-BMC, y_w for DPO and DPO-MC). The "
    "policy didn't sample these texts, so it is no estimate of the KL and can be many times that: compare runs within "
    "this panel only.",
    EXACT: "Saved models: the divergence of the next token's distribution over the whole vocabulary, Σ_v π_θ(v) "
    "log π_θ(v)/π_ref(v), the mean over the tokens of {n} held-out winners, the same ones for all runs; 95 % intervals "
    "over pairs.",
}
PAPER = (
    "The paper's curves are, by its released code, KL(π_ref ‖ π_θ), the other direction, summed over a response and "
    "not averaged over tokens."
)
Lines = dict[str, dict[int, float]]  # method → step → estimate
Points = dict[str, list[tuple[int, Estimate]]]  # method → steps and exact KLs


def divergence(scores: Scores) -> Estimate | None:
    """KL(π_θ ‖ π_ref) a token, exact, over the tokens of all winners."""
    winners = [winner for winner, _ in scores.values()]
    return ratio([sum(winner.kl) for winner in winners], [len(winner.kl) for winner in winners])


def figure9(runs: list[Run], scored: list[Scored], command: str) -> Drawing | Missing:
    """What was logged while training, and the exact divergence of the models that were saved.

    Args:
        runs: All runs.
        scored: Those whose models are there.
        command: What makes the runs.
    """
    every = {run.method: {line["step"]: line[KEY] for line in run.history if KEY in line} for run in runs}
    logged = {method: line for method, line in every.items() if line}
    exact: dict[str, Points] = {kind: {} for kind in KINDS}
    for one in scored:
        for step, bridged, originals in (*one.saved, (one.run.steps or 0, one.bridged, one.originals)):
            for kind, scores in zip(KINDS, (originals, bridged), strict=True):
                if (found := divergence(scores)) is not None:
                    exact[kind].setdefault(one.run.method, []).append((step, found))
    panels = [panel for panel, there in ((LOGGED, logged), (EXACT, exact["y_w"])) if there]
    if not panels:
        return Missing(NAME, "no run evaluated while it trained (eval_strategy), and no model is there", command)
    rows: list[Row] = [
        (LOGGED, method, "own", step, value, None, None, None)
        for method, line in logged.items()
        for step, value in line.items()
    ]
    rows += [
        (EXACT, method, kind, step, *found)
        for kind, points in exact.items()
        for method, line in points.items()
        for step, found in line
    ]
    caption = " ".join(CAPTIONS[panel] for panel in panels).format(n=max((len(s.bridged) for s in scored), default=0))
    caption += f" {PAPER}"
    header = ("kind", "run", "winners", "step", "nats a token", "low", "high", "pairs")
    return Drawing(NAME, TITLE, caption, header, rows, lambda figure: _draw(figure, panels, logged, exact))


def _draw(figure: Any, panels: list[str], logged: Lines, exact: dict[str, Points]) -> None:
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for title, panel in zip(panels, axes, strict=True):
        if title == LOGGED:
            for method, line in logged.items():
                style = look(method, list(logged))
                panel.plot(
                    list(line), list(line.values()), color=style.color, marker=style.marker, linestyle=style.line,
                    linewidth=2, label=method,
                )  # fmt: skip
            _finish(panel)
        elif max(map(len, exact["y_w"].values())) > 1:
            _draw_steps(panel, exact["y_w"])
        else:
            _draw_methods(panel, exact)
        panel.set_title(title)
        panel.set_ylim(bottom=0)
    axes[0].set_ylabel("nats a token")


def _draw_steps(panel: Any, points: Points) -> None:
    """A line a run, on y_w."""
    for method, line in points.items():
        style, found = look(method, list(points)), [estimate for _, estimate in line]
        panel.errorbar(
            [step for step, _ in line], [estimate.value for estimate in found], yerr=error_bars(found),
            color=style.color, marker=style.marker, linestyle=style.line, linewidth=2, label=method,
        )  # fmt: skip
    _finish(panel)


def _finish(panel: Any) -> None:
    panel.set_xlabel("step")
    panel.xaxis.get_major_locator().set_params(integer=True)
    _legend(panel)


def _legend(panel: Any, title: str | None = None) -> None:
    """Below the panel, where it hides nothing."""
    panel.legend(title=title, loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=2, columnspacing=1.0)


def _draw_methods(panel: Any, exact: dict[str, Points]) -> None:
    """A place a run, its last model alone, on y_w and on ỹ_w."""
    methods = list(exact["y_w"])
    for offset, (kind, (label, color, marker, face)) in zip((-0.12, 0.12), KINDS.items(), strict=True):
        found = [exact[kind][method][-1][1] for method in methods]
        panel.errorbar(
            [place + offset for place in range(len(methods))], [estimate.value for estimate in found],
            yerr=error_bars(found), linestyle="none", color=color, marker=marker, markerfacecolor=face or color,
            markersize=8, label=label,
        )  # fmt: skip
    panel.set_xticks(range(len(methods)), methods, rotation=25)
    panel.grid(axis="x", visible=False)
    _legend(panel, f"{exact['y_w'][methods[0]][-1][1].n} pairs")
