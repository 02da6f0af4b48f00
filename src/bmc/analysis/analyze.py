"""Analyse the runs of a setting: token rewards of validation pairs, Figures 2, 6 and 9, the rewards of §5.3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..config import AnalyzeConfig
from ..data.schema import digest
from ..errors import UserErrors
from ..evaluation.summary import Estimate, mean_estimate, ratio_estimate
from ..runs import (
    check_output_dir,
    claim_output_dir,
    elapsed,
    report_disk_errors,
    run_fingerprint,
    write_json,
    write_jsonl,
)
from .figures import (
    BLUE,
    ORANGE,
    VERMILION,
    Figure,
    Kinds,
    MissingFigure,
    Row,
    error_bars,
    figure3,
    figure4,
    figure5,
    method_style,
    plot,
    plot_kinds,
    save,
    table9,
    table10,
)
from .results import METHODS, Run, check_comparable, find_trained, make_command, stage_command
from .token_rewards import (
    EvalPairs,
    PairScores,
    ScoredRun,
    Scorer,
    TokenScores,
    load_eval_pairs,
    reward_accuracy,
    sums_by_position,
    token_row,
)


def analyze(config: AnalyzeConfig) -> dict[str, Any]:
    """Write all that can be made of the runs that are there: `tokens/RUN.jsonl`, `figures/NAME.{svg,png,csv}` and
    `analysis.json`, which it returns.

    Raises:
        UserErrors: There is no finished run, runs don't compare, a file is damaged, or the output folder is another
            recipe's. Nothing has been written.
    """
    recipe = run_fingerprint(config)
    check_output_dir(config.output_dir, recipe)
    runs, missing = find_trained(config.setting, config.runs)
    check_comparable(runs)
    there = [run for run in runs if run.has_weights]
    missing |= {run.name: "its weights are gone; only its curves are shown" for run in runs if run not in there}
    setting = Path(config.setting)  # a damaged file is named before anything is scored
    ablations = [draw(setting, config.metric) for draw in (figure3, figure4, figure5)]
    costs = [table9(setting), table10(setting, runs)]
    pairs, why = _pairs(config, there)
    scorer = Scorer(config, there) if pairs else None
    folder = claim_output_dir(config.output_dir, recipe, config, rows=pairs.rows if pairs else None)
    scored = _score(scorer, there, pairs, folder) if scorer and pairs else []
    with report_disk_errors(folder):
        (folder / "figures").mkdir(exist_ok=True)
        figures = list(_figures(config, runs, scored, pairs, why))
        figures[1:1] = ablations  # in the paper's order
        figures += costs
        drawn = [figure for figure in figures if isinstance(figure, Figure)]
        files = {figure.name: save(figure, folder / "figures") for figure in drawn}
        _remove_others(folder, [one.run.name for one in scored], files)
    gone = [MissingFigure(name, why, make_command(config.setting, name)) for name, why in missing.items()]
    summary = {
        "setting": config.setting,
        "pairs": None if pairs is None else {"n": len(pairs.rows), "from": pairs.origin, "left_out": pairs.left_out},
        "runs": {one.run.name: _described(one) for one in scored},
        "figures": [
            {"name": figure.name, "title": figure.title, "caption": figure.caption}
            | {kind: f"figures/{name}" for kind, name in files[figure.name].items()}
            for figure in drawn
        ],
        "missing": [vars(one) for one in (*gone, *figures) if isinstance(one, MissingFigure)],
        "seconds": elapsed(),
    }
    write_json(folder / "analysis.json", summary)
    return summary


def _remove_others(folder: Path, runs: list[str], files: dict[str, dict[str, str]]) -> None:
    """Remove what an earlier analysis left of runs and figures that aren't there any more."""
    kept = {folder / "tokens" / f"{run}.jsonl" for run in runs}
    kept |= {folder / "figures" / name for names in files.values() for name in names.values()}
    for path in (*folder.glob("tokens/**/*.jsonl"), *folder.glob("figures/*")):
        if path not in kept:
            path.unlink()


def _pairs(config: AnalyzeConfig, there: list[Run]) -> tuple[EvalPairs | None, str]:
    """Load validation pairs, or say why there are none; pairs that are named in the recipe must be good."""
    if not there:
        return None, "no run has its weights"
    try:
        return load_eval_pairs(config, there), ""
    except UserErrors as error:
        if config.dataset_mixture is not None:
            raise
        return None, "; ".join(map(str, error.faults))


def _score(scorer: Scorer, there: list[Run], pairs: EvalPairs, folder: Path) -> list[ScoredRun]:
    """Score the pairs with each run and write `tokens/RUN.jsonl`."""
    prompts, scored = pairs.prompts, []
    for run in there:
        one = scorer.score(run, pairs.rows)
        rows = (token_row(id, prompts[id], sides, one.beta) for id, sides in one.bridged.items())
        with report_disk_errors(folder):
            write_jsonl(folder / "tokens" / f"{run.name}.jsonl", rows)
        scored.append(one)
    return scored


def _described(one: ScoredRun) -> dict[str, Any]:
    return {
        "tokens": f"tokens/{one.run.name}.jsonl",
        "method": one.run.method,
        "model": str(one.run.trained),
        "beta": one.beta,
        "delta": one.delta,
    }


def _figures(
    config: AnalyzeConfig,
    runs: list[Run],
    scored: list[ScoredRun],
    pairs: EvalPairs | None,
    why: str,
) -> Iterator[Figure | MissingFigure]:
    """Make each figure of validation pairs, or say what it lacks."""
    by_name = {one.run.name: one for one in scored}

    def of_runs(name: str, runs: tuple[str, ...], draw: Callable[[], Figure | MissingFigure]) -> Figure | MissingFigure:
        """Make a figure of validation pairs, by runs that must be there."""
        absent = [run for run in runs if run not in by_name]
        if pairs and not absent:
            return draw()
        lacking = f"needs the model of {' and '.join(absent)}" if pairs else why
        return MissingFigure(name, lacking, make_command(config.setting, *(absent or runs)))

    prompts = pairs.prompts if pairs else {}
    again, two = stage_command("analyze", config.setting), ("dpo", "dpo_bmc")
    yield of_runs("figure2", ("dpo_bc",), lambda: figure2(by_name["dpo_bc"]))
    yield of_runs("figure6", two, lambda: figure6([by_name[run] for run in two], prompts, config.pair, again))
    yield (
        rewards_figure(scored) if scored else MissingFigure("rewards", why, make_command(config.setting, *config.runs))
    )
    yield figure9(runs, scored, make_command(config.setting, *METHODS))


# Figure 2

SPANS, SPANS_TITLE = "figure2", "Figure 2: −log p at the first and later tokens of spans that differ"
SIDES = (("ỹ_w", r"chosen $\tilde{y}_w$"), ("y_l", r"rejected $y_l$"))
PLACES = {"first": ("first token", BLUE, ""), "later": ("later tokens", ORANGE, "//")}
SPANS_CAPTION = (
    "Tokens in which the responses of a bridged pair differ, grouped into spans of neighbours: mean −log p (natural "
    "logarithm) of the spans' first tokens against the later ones, before and after DPO on bridged pairs ({run}). "
    "{n} validation pairs; error bars are 95 % intervals over pairs. The paper averages over the training itself."
)


def figure2(scored: ScoredRun) -> Figure:
    """Plot −log p of the reference, and of the model that plain DPO made of it on bridged pairs."""
    models = {"before": lambda side: side.ref_logps, "after": lambda side: side.logps}
    header = ("model", "response", "tokens", "mean −log p", "low", "high", "pairs", "number of tokens")
    rows: list[Row] = []
    estimates: dict[tuple[str, str, str], Estimate] = {}
    for model, logps in models.items():
        for index, (response, _) in enumerate(SIDES):
            for place in PLACES:
                found = _span_estimate([pair[index] for pair in scored.bridged.values()], logps, place)
                if found is not None:
                    estimates[model, response, place] = found[0]
                    rows.append((model, response, place, *found[0], found[1]))
    caption = SPANS_CAPTION.format(run=scored.run.name, n=len(scored.bridged))
    return Figure(
        SPANS, SPANS_TITLE, caption, header, rows, lambda figure: _draw_spans(figure, estimates, len(scored.bridged))
    )


def _span_estimate(sides: list[TokenScores], logps: Any, place: str) -> tuple[Estimate, int] | None:
    """Average −log p over all tokens at a position; return how many they are too."""
    sums, counts = zip(
        *(sums_by_position([-x for x in logps(side)], side.differs)[place] for side in sides), strict=True
    )
    found = ratio_estimate(sums, counts)
    return None if found is None else (found, sum(counts))


def _draw_spans(figure: Any, estimates: dict[tuple[str, str, str], Estimate], n: int) -> None:
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
    figure.legend(handles, labels, loc="outside upper center", ncols=2, title=f"{n} validation pairs")


# Figure 6

PAIR, PAIR_TITLE = "figure6", "Figure 6: the reward of each token of a validation pair"
PAIR_CAPTION = (
    "r(x, y^t) = β log π_θ/π_ref of each token of a validation pair; {runs}. Tokens in which the responses differ are "
    "underlined. Both runs have one scale of colours; it ends at the largest |r| of the pair. Prompt: “{prompt}” (pair "
    "{id}, {why})."
)
WIDTH, LINES = 62, 7  # characters a line, and lines a response may have
FONT = 11.5
INCHES_A_LINE = 0.24


def figure6(runs: list[ScoredRun], prompts: dict[str, str], wanted: str | None, command: str) -> Figure | MissingFigure:
    """Draw the token rewards of one pair by two runs.

    Plain DPO's run stands first. `wanted` is a pair's id; by default that with the smallest hash among those that fit.
    """
    pairs = [one.bridged for one in runs]
    fitting = [id for id in pairs[0] if all(_fits(side) for side in pairs[0][id])]
    chosen = wanted if wanted is not None else min(fitting, key=lambda id: digest(f"figure6 {id}"), default=None)
    if chosen is None or chosen not in pairs[0]:
        why = (
            f"there is no validation pair {wanted}"
            if wanted
            else f"no pair has {LINES} lines of {WIDTH} characters or less"
        )
        return MissingFigure(PAIR, why, f"{command} --pair {next(iter(pairs[0]), 'ID')}")
    rows: list[Row] = []
    for one in runs:
        for name, side in zip(("ỹ_w", "y_l"), one.bridged[chosen], strict=True):
            cells = zip(side.tokens, side.rewards(one.beta), side.differs, strict=True)
            rows += [(one.run.name, name, place, *cell) for place, cell in enumerate(cells, start=1)]
    why = "named in the recipe" if wanted else "chosen by its id's hash among those that fit"
    named = " and ".join(f"{one.run.method}, β = {one.beta:g}" for one in runs)
    caption = PAIR_CAPTION.format(runs=named, prompt=" ".join(prompts[chosen].split()), id=chosen, why=why)
    header = ("run", "response", "place", "token", "reward", "differs")
    names = (r"$\tilde{y}_w$", r"$y_l$")
    blocks = [
        (f"{one.run.method}, {name}", side, side.rewards(one.beta))
        for one in runs
        for name, side in zip(names, one.bridged[chosen], strict=True)
    ]
    height = 1.0 + INCHES_A_LINE * sum(len(_lines(side.tokens)) + 1.5 for _, side, _ in blocks)
    return Figure(
        PAIR, PAIR_TITLE, caption, header, rows, lambda figure: _draw_pair(figure, blocks, height), (6.5, height)
    )


def _fits(side: TokenScores) -> bool:
    return len(_lines(side.tokens)) <= LINES


def _shown(token: str) -> str:
    """Write a token in one line: a line break by its sign."""
    return token.replace("\n", "⏎").replace("\t", " ")


def _lines(tokens: list[str]) -> list[list[int]]:
    """Break tokens into lines of their places: a line ends after a line break, and where the next token has no room."""
    lines: list[list[int]] = [[]]
    used = 0
    for place, token in enumerate(tokens):
        size = len(_shown(token))
        if lines[-1] and (used + size > WIDTH or "\n" in tokens[place - 1]):
            lines.append([])
            used = 0
        lines[-1].append(place)
        used += size
    return lines


def _draw_pair(figure: Any, blocks: list[tuple[str, TokenScores, list[float]]], height: float) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    largest = max((abs(reward) for *_, rewards in blocks for reward in rewards), default=0.0) or 1.0
    colors = colormaps["PuOr_r"]
    panel = figure.subplots()
    panel.set_axis_off()
    panel.set_xlim(0, WIDTH)
    y = 0.0
    for title, side, rewards in blocks:
        panel.text(0, y + 0.75, title, fontweight="bold")
        y += 1.1
        for line in _lines(side.tokens):
            x = 0
            for place in line:
                color = colors((rewards[place] / largest + 1) / 2)
                x += _draw_token(panel, x, y, side.tokens[place], color, side.differs[place])
            y += 1
        y += 0.4
    panel.set_ylim(y, 0)
    scale = ScalarMappable(Normalize(-largest, largest), colors)
    bar = figure.colorbar(scale, ax=panel, orientation="horizontal", fraction=0.25 / height, aspect=40, pad=0.02)
    bar.set_label("token reward r")


def _draw_token(panel: Any, x: int, y: float, token: str, color: Any, differs: bool) -> int:
    """Draw a token on its colour, in black or white, whichever can be read; return its width in characters."""
    from matplotlib.patches import Rectangle

    text = _shown(token)
    ink = "white" if 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 0.5 else "black"
    panel.add_patch(Rectangle((x, y), len(text), 0.84, facecolor=color, edgecolor="white", linewidth=0.5))
    fixed = text.replace(" ", "\u00a0")  # a browser leaves out a space at the beginning of an SVG's text
    panel.text(x, y + 0.62, fixed, fontsize=FONT, family="monospace", color=ink, parse_math=False)
    if differs:
        panel.plot([x + 0.1, x + len(text) - 0.1], [y + 0.9] * 2, color="black", linewidth=1.8, solid_capstyle="butt")
    return len(text)


# Rewards

REWARDS, REWARDS_TITLE = "rewards", "§5.3: reward margin and accuracy on validation pairs"
PAIR_KINDS: Kinds = {
    "y_w / y_l": (r"$(y_w, y_l)$", BLUE, "o", "white"),
    "ỹ_w / y_l": (r"$(\tilde{y}_w, y_l)$", VERMILION, "D", None),
}
REWARDS_CAPTION = (
    "Plain DPO rewards β Σ log π_θ/π_ref over the response (all tokens weigh 1, each run with its own β): the mean of "
    "the chosen response's reward minus the rejected one's, and the share of pairs in which the chosen one has the "
    "larger reward. {n} validation pairs, as they were before bridging (y_w, y_l) and after (ỹ_w, y_l); 95 % "
    "intervals over pairs (accuracy: Wilson). Each line is a single run."
)


def margins(scores: PairScores, beta: float) -> list[float]:
    """Compute r(x, y_w) − r(x, y_l) of each pair."""
    return [sum(chosen.rewards(beta)) - sum(rejected.rewards(beta)) for chosen, rejected in scores.values()]


def rewards_figure(runs: list[ScoredRun]) -> Figure:
    """Plot each run's margin and accuracy, on the pairs before and after bridging."""
    header = ("run", "pairs", "margin", "low", "high", "n", "accuracy in %", "low", "high", "n")
    rows: list[Row] = []
    found: dict[tuple[str, str], tuple[Estimate, Estimate]] = {}
    for scored in runs:
        for kind, scores in zip(PAIR_KINDS, (scored.originals, scored.bridged), strict=True):
            values = margins(scores, scored.beta)
            margin, share = mean_estimate(values), reward_accuracy(values)
            if margin is not None and share is not None:
                found[scored.run.method, kind] = margin, share
                rows.append((scored.run.name, kind, *margin, *share))
    caption = REWARDS_CAPTION.format(n=max(len(scored.bridged) for scored in runs))
    return Figure(REWARDS, REWARDS_TITLE, caption, header, rows, lambda figure: _draw_rewards(figure, found))


def _draw_rewards(figure: Any, found: dict[tuple[str, str], tuple[Estimate, Estimate]]) -> None:
    methods = list(dict.fromkeys(method for method, _ in found))
    panels = figure.subplots(1, 2, sharey=True)
    for number, (panel, title) in enumerate(zip(panels, ("reward margin", "reward accuracy, %"), strict=True)):
        numbers = {
            kind: {place: found[m, kind][number] for place, m in enumerate(methods) if (m, kind) in found}
            for kind in PAIR_KINDS
        }
        plot_kinds(panel, PAIR_KINDS, numbers, sideways=True)
        chance = 50 if number else 0
        panel.axvline(chance, color="#777777", linewidth=1, linestyle=":")
        panel.set_xlabel(title)
        panel.grid(axis="y", visible=False)
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    handles, labels = panels[0].get_legend_handles_labels()
    n = max(margin.n or 0 for margin, _ in found.values())
    figure.legend(handles, labels, loc="outside upper center", ncols=2, title=f"{n} validation pairs")


# Figure 9

KL, KL_TITLE = "figure9", "Figure 9: KL(policy ‖ reference) on chosen validation responses"
LOGGED, EXACT = "while training: k3", "saved models: exact KL"
KEY = "eval_k3/chosen"
KL_KINDS: Kinds = {"y_w": (r"on $y_w$", BLUE, "o", "white"), "ỹ_w": (r"on $\tilde{y}_w$", VERMILION, "D", None)}
KL_CAPTIONS = {
    LOGGED: "While training: k3, the mean over tokens of r − 1 − log r with r = π_ref/π_θ of the response's own token, "
    "logged at each evaluation on the run's own chosen responses (ỹ_w for DPO-BC and DPO-BMC, y_w for DPO and DPO-MC). "
    "The policy didn't sample these texts, so it is no estimate of the KL and can be many times that: compare runs "
    "within this panel only.",
    EXACT: "Saved models: the divergence of the next token's distribution over the whole vocabulary, Σ_v π_θ(v) "
    "log π_θ(v)/π_ref(v), the mean over the tokens of {n} chosen validation responses, the same ones for all runs; "
    "95 % intervals over pairs.",
}
KL_PAPER = (
    "The paper's curves are, by its released code, KL(π_ref ‖ π_θ), the other direction, summed over a response and "
    "not averaged over tokens."
)
Lines = dict[str, dict[int, float]]  # method → step → estimate
Points = dict[str, list[tuple[int, Estimate]]]  # method → steps and exact KLs


def divergence(scores: PairScores) -> Estimate | None:
    """Compute KL(π_θ ‖ π_ref) a token, exact, over the tokens of all chosen responses."""
    chosen = [chosen for chosen, _ in scores.values()]
    return ratio_estimate([sum(one.kl) for one in chosen], [len(one.kl) for one in chosen])


def figure9(runs: list[Run], scored: list[ScoredRun], command: str) -> Figure | MissingFigure:
    """Plot what was logged while training, and the exact divergence of the models that were saved."""
    every = {run.method: {line["step"]: line[KEY] for line in run.history if KEY in line} for run in runs}
    logged = {method: line for method, line in every.items() if line}
    exact: dict[str, Points] = {kind: {} for kind in KL_KINDS}
    for one in scored:
        for step, bridged, originals in (*one.saved, (one.run.steps or 0, one.bridged, one.originals)):
            for kind, scores in zip(KL_KINDS, (originals, bridged), strict=True):
                if (found := divergence(scores)) is not None:
                    exact[kind].setdefault(one.run.method, []).append((step, found))
    panels = [panel for panel, there in ((LOGGED, logged), (EXACT, exact["y_w"])) if there]
    if not panels:
        return MissingFigure(KL, "no run evaluated while it trained (eval_strategy), and no model is there", command)
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
    caption = " ".join(KL_CAPTIONS[panel] for panel in panels).format(
        n=max((len(s.bridged) for s in scored), default=0)
    )
    caption += f" {KL_PAPER}"
    header = ("kind", "run", "chosen", "step", "nats a token", "low", "high", "pairs")
    return Figure(KL, KL_TITLE, caption, header, rows, lambda figure: _draw_divergence(figure, panels, logged, exact))


def _draw_divergence(figure: Any, panels: list[str], logged: Lines, exact: dict[str, Points]) -> None:
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for title, panel in zip(panels, axes, strict=True):
        if title == LOGGED:
            for method, line in logged.items():
                panel.plot(list(line), list(line.values()), **method_style(method, list(logged)))
            _finish(panel)
        elif max(map(len, exact["y_w"].values())) > 1:
            for method, points in exact["y_w"].items():
                steps, found = zip(*points, strict=True)
                plot(panel, steps, found, **method_style(method, list(exact["y_w"])))
            _finish(panel)
        else:
            _draw_methods(panel, exact)
        panel.set_title(title)
        panel.set_ylim(bottom=0)
    axes[0].set_ylabel("nats a token")


def _finish(panel: Any) -> None:
    panel.set_xlabel("step")
    panel.xaxis.get_major_locator().set_params(integer=True)
    _legend(panel)


def _legend(panel: Any, title: str | None = None) -> None:
    """Put a legend below the panel, where it hides nothing."""
    panel.legend(title=title, loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=2, columnspacing=1.0)


def _draw_methods(panel: Any, exact: dict[str, Points]) -> None:
    """Draw a place a run, its last model alone, on y_w and on ỹ_w."""
    methods = list(exact["y_w"])
    last = {kind: {place: exact[kind][m][-1][1] for place, m in enumerate(methods)} for kind in KL_KINDS}
    plot_kinds(panel, KL_KINDS, last)
    panel.set_xticks(range(len(methods)), methods, rotation=25)
    panel.grid(axis="x", visible=False)
    _legend(panel, f"{exact['y_w'][methods[0]][-1][1].n} pairs")
