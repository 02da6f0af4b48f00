"""The page of rounds: accuracy, KL from the first model, edits, pairs, drop reasons and cost of each round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.schema import Row
from ..evaluation.summary import Estimate, Table, accuracy_cell, markdown_table, percent
from ..runs import write_text
from ..web import data_uri, render
from .figures import BLUE, GREEN, ORANGE, VERMILION, Figure, plot, save

# What is known of a model; of the first one without a training only the accuracies.
KEYS = (
    "model", "accuracy", "validation", "kl", "prompts", "sampled", "kept", "trained_on", "edit_ratio", "reasons",
    "dollars",
)  # fmt: skip
TEMPLATE = Path(__file__).parent / "templates" / "rounds.html.jinja"
HEADER = [
    "round", "accuracy, %", "validation accuracy, %", "KL, nats a response", "KL, nats a token", "edit ratio",
    "prompts", "pairs sampled", "pairs kept", "trained on", "dollars", "seconds",
]  # fmt: skip
WORDS = {"this_round": "the pairs of this round", "all": "all pairs so far"}
KL_NOTE = (
    "KL from the first model: the mean over the responses of a round's own evaluation of Σ log π − log π_ref, in nats, "
    "with its 95 % t interval over responses; per token, the sum over all responses by the number of their tokens, "
    "with the interval of a ratio. "
)
SAMPLED = "The responses are sampled at temperature 1 from all of π, so the estimate is unbiased."
NOT_SAMPLED = (
    "The evaluation decodes at temperature {temperature:g} and top_p {top_p:g}, so this is the distance on these "
    "texts, no unbiased estimate of the divergence, which takes responses sampled at temperature 1."
)


def _named(found: Row) -> list[tuple[str, Row]]:
    """Return the models with their names."""
    names = ["first model", *(f"round {number}" for number in range(1, len(found["rounds"])))]
    return list(zip(names, found["rounds"], strict=True)) + (
        [("control", found["control"])] if found["control"] else []
    )


def _table(found: Row) -> Table:
    return HEADER, [[name, *_cells(result)] for name, result in _named(found)]


def _cells(result: Row) -> list[str]:
    kl = result["kl"] or {}
    counts = [result[key] for key in ("prompts", "sampled", "kept", "trained_on")]
    return [
        accuracy_cell(result["accuracy"]) if result["accuracy"] else "not scored",
        accuracy_cell(result["validation"]) if result["validation"] else "–",
        *(_interval(kl.get(key), places) for key, places in (("per_response", 2), ("per_token", 4))),
        "–" if result["edit_ratio"] is None else f"{result['edit_ratio']:.3f}",
        *("–" if count is None else f"{count:,}" for count in counts),
        "–" if result["dollars"] is None else f"{result['dollars']:,.4f}",
        f"{result['seconds']:,.0f}",
    ]


def _interval(values: list[float | None] | None, places: int) -> str:
    if not values:
        return "–"
    value, low, high = values
    return f"{value:.{places}f}" + ("" if low is None else f" [{low:.{places}f}, {high:.{places}f}]")


def conclusions(found: Row) -> list[str]:
    """Say in sentences why the rounds ended, which model is best, what was spent, and what the control had."""
    lines = [found["stopped"][0].upper() + found["stopped"][1:] + "."] if found["stopped"] else []
    if best := found["best"]:
        accuracy = accuracy_cell(found["rounds"][best["round"]]["validation"])
        name = f"that of round {best['round']}" if best["round"] else "the first one: no round was better"
        lines.append(f"The best model on the validation rows is {name}: {best['model']} ({accuracy}).")
    if found["dollars"] is not None:
        most = found["max_cost_usd"]
        cap = "" if most is None else f" of at most ${most:,.4f}"
        lines.append(f"The editor has cost ${found['dollars']:,.4f}{cap} in all runs.")
    if found["wants_control"] and len(found["rounds"]) == 2:
        lines.append("A control would have the pairs and the model of the only round: it would be the same training.")
    if (control := found["control"]) and control["kept"] < control["wanted"]:
        what = f"the first model yielded {control['kept']} of the {control['wanted']} pairs"
        lines.append(f"The control has fewer pairs than the rounds: {what}.")
    return lines


def summary(found: Row) -> str:
    """Return the table and the conclusions as Markdown."""
    return "\n\n".join([markdown_table(_table(found)), *conclusions(found)])


def write_page(folder: Path, found: Row) -> None:
    """Write `rounds.html`, and its figures in `figures`."""
    settings, decoding = found["settings"], found["decoding"]
    files = [save(figure, folder / "figures") for figure in _figures(found)]
    sampled = SAMPLED if set(decoding.values()) == {1.0} else NOT_SAMPLED.format(**decoding)
    header, rows = _table(found)
    reasons = {name: result["reasons"] for name, result in _named(found) if result["reasons"]}
    facts = {
        "first model": found["first_model"],
        "prompts": "the same in every round" if settings["prompts"] == "same" else "fresh ones in every round",
        "reference": f"the {settings['reference']} model",
        "trained on": WORDS[settings["pairs"]],
    }
    html = render(
        TEMPLATE,
        title=f"Rounds in {folder}",
        facts_of=facts,
        conclusions=conclusions(found),
        header=header,
        rows=rows,
        kl_note=KL_NOTE + sampled,
        reasons=reasons,
        pictures=[data_uri("image/svg+xml", (folder / "figures" / file["svg"]).read_bytes()) for file in files],
    )
    write_text(folder / "rounds.html", html)


def _figures(found: Row) -> list[Figure]:
    """Make the curves over rounds, round 0 being the first model; the control is a point at the last one."""
    rounds, control = found["rounds"], found["control"]
    lines: dict[str, list[tuple[str, float, Estimate]]] = {"accuracy": [], "kl": []}
    for number, result in enumerate(rounds):
        for name, key in (("evaluation", "accuracy"), ("validation", "validation")):
            if result[key]:
                lines["accuracy"].append((name, number, percent(result[key])))
        lines["kl"].append(
            ("rounds", number, Estimate(*result["kl"]["per_response"]) if result["kl"] else Estimate(0.0))
        )
    if control:
        last = len(rounds) - 1 + 0.15
        if control["accuracy"]:
            lines["accuracy"].append(("control", last, percent(control["accuracy"])))
        lines["kl"].append(("control", last, Estimate(*control["kl"]["per_response"])))
    axes = {"accuracy": "accuracy, %", "kl": "KL, nats a response"}
    return [_figure(name, axes[name], points) for name, points in lines.items() if points]


def _figure(name: str, axis: str, points: list[tuple[str, float, Estimate]]) -> Figure:
    colors = {"evaluation": BLUE, "validation": ORANGE, "rounds": GREEN, "control": VERMILION}

    def draw(figure: Any) -> None:
        panel = figure.subplots()
        for line in dict.fromkeys(line for line, *_ in points):
            mine = [(at, estimate) for named, at, estimate in points if named == line]
            style: dict[str, Any] = {"color": colors[line], "marker": "s" if line == "control" else "o", "label": line}
            plot(panel, [at for at, _ in mine], [estimate for _, estimate in mine], linewidth=2, **style)
        panel.set_xlabel("round (0: the first model)")
        panel.set_ylabel(axis)
        panel.xaxis.get_major_locator().set_params(integer=True)
        figure.legend(loc="outside upper center", ncols=3)

    rows = [(line, at, *estimate[:3]) for line, at, estimate in points]
    return Figure(name, f"{axis} over rounds", "95 % intervals", ("line", "round", "value", "low", "high"), rows, draw)
