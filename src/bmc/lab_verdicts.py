"""Verdicts on the claims of `docs/claims.md`, from the committed numbers of the laboratory's studies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log2, sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from .data.schema import Row
from .evaluation.stats import holm
from .evaluation.summary import markdown_table
from .runs import read_json

LEVEL = 0.05
EQUAL = 2.0  # points within which two accuracies count as equal
Value = Callable[[Row], float]


def accuracy(row: Row) -> float:
    """Return accuracy in percent."""
    return 100 * float(row["accuracy"])


def reward_accuracy(row: Row) -> float:
    """Return the share of held-out pairs with a positive margin at the end, in percent."""
    return 100 * float(row["held_out"][-1][4])


def margin(row: Row) -> float:
    """Return the mean reward margin of held-out pairs at the end."""
    return float(row["held_out"][-1][3])


def displacement(row: Row) -> float:
    """Return how far log π(chosen) of held-out pairs has moved from the SFT model's, in nats a response."""
    return float(row["held_out"][-1][1] - row["held_out"][0][1])


def gradient(row: Row) -> float:
    """Return the gradient norm that is logged first."""
    return float(row["steps"][0][2])


def surprise(side: str) -> Value:
    """Return by how many nats the first token of a differing span is less likely than the later ones."""
    return lambda row: float(row["spans"][side]["first"] - row["spans"][side]["later"])


@dataclass(frozen=True)
class Side:
    """One side of a comparison: the models of a method, trained on some pairs, in a study.

    Attributes:
        study: Name of the study.
        method: Name of the method's recipe.
        pairs: Name of the bridging.
        at: Its hyperparameters; by default all that the study has.
    """

    study: str
    method: str
    pairs: str = "bridge"
    at: Row | None = None

    def by_seed(self, results: Row, value: Value) -> dict[int, float]:
        """Return the mean over preference seeds for each SFT seed."""
        found: dict[int, list[float]] = {}
        for row in results[self.study]["rows"]:
            if (row["method"], row["pairs"]) == (self.method, self.pairs) and self.at in (None, row["values"]):
                found.setdefault(row["sft_seed"], []).append(value(row))
        return {seed: fmean(values) for seed, values in found.items()}


@dataclass(frozen=True)
class Claim:
    """A claim that one side has more of a value than another.

    Attributes:
        name: As in `docs/claims.md`; claims of one letter are a family.
        text: What is claimed.
        value: What of each model is compared.
        more: The side that has more.
        less: The side that has less; 0 for None.
        equal: Whether the two are claimed to be equal.
    """

    name: str
    text: str
    value: Value
    more: Side
    less: Side | None
    equal: bool = False

    @property
    def sides(self) -> list[Side]:
        return [self.more, *([self.less] if self.less else [])]

    def by_seed(self, results: Row) -> dict[int, float]:
        """Return the difference for each SFT seed that both sides have."""
        more = self.more.by_seed(results, self.value)
        less = self.less.by_seed(results, self.value) if self.less else dict.fromkeys(more, 0.0)
        return {seed: more[seed] - less[seed] for seed in sorted(more.keys() & less.keys())}


@dataclass(frozen=True)
class Slope:
    """A claim that a difference of accuracies, or an accuracy, grows with a setting.

    Attributes:
        name: As in `docs/claims.md`.
        text: What is claimed.
        points: The setting's value, and what is compared there; claims of accuracy.
    """

    name: str
    text: str
    points: tuple[tuple[float, Claim], ...]
    equal: bool = False

    @property
    def sides(self) -> list[Side]:
        return [side for _, claim in self.points for side in claim.sides]

    def by_seed(self, results: Row) -> dict[int, float]:
        """Return the least-squares slope for each SFT seed that all points have, in points a unit of the setting."""
        places, found = [x for x, _ in self.points], [claim.by_seed(results) for _, claim in self.points]
        centre = fmean(places)
        spread = sum((x - centre) ** 2 for x in places)
        return {
            seed: sum((x - centre) * gains[seed] for x, gains in zip(places, found, strict=True)) / spread
            for seed in sorted(set.intersection(*map(set, found)))
        }


def _accuracies(name: str, text: str, more: Side, less: Side | None, equal: bool = False) -> Claim:
    return Claim(name, text, accuracy, more, less, equal)


def _core(name: str, text: str, more: str, less: str, equal: bool = False) -> Claim:
    return _accuracies(name, text, Side("core", more), Side("core", less), equal)


def _moved(name: str, text: str, value: Value, more: str, less: str) -> Claim:
    return Claim(name, text, value, Side("displacement", more), Side("displacement", less))


def _over_writers(name: str, title: str, method: str) -> Slope:
    points = [(log2(x), _accuracies("", "", Side(study, method), Side(study, "dpo"))) for x, study in WRITERS]
    return Slope(name, f"{title} − DPO grows with the writers", tuple(points))


def _remedies() -> list[Claim]:
    """Return h1 to h12: each remedy for a step that is too large, with each method."""
    methods = ("dpo", "dpo_bc", "dpo_mc", "dpo_bmc")
    remedies: list[tuple[str, str, Row | None]] = [
        ("an SFT term", "remedies", TOO_LARGE | {"loss_type": ["sigmoid", "sft"]}),
        ("β 1", "remedies", TOO_LARGE | {"beta": 1.0}),
        ("step 3e-4", "displacement", None),
    ]
    return [
        _accuracies(
            f"h{4 * row + column + 1}",
            f"step 1e-3, {TITLES[method]}: {remedy} helps",
            Side(study, method, at=at),
            Side("remedies", method, at=TOO_LARGE),
        )
        for row, (remedy, study, at) in enumerate(remedies)
        for column, method in enumerate(methods)
    ]


def _elsewhere(letter: str, study: str, where: str) -> list[Claim]:
    """Return the claims a1 to a4 and a7 for another study."""
    compared = (("dpo", "sft"), ("dpo_bmc", "dpo"), ("dpo_bc", "dpo"), ("dpo_mc", "dpo"), ("dpo_bmc", "sft_bridged"))
    names = TITLES | {"sft": "SFT", "sft_bridged": "SFT on ỹ_w"}
    return [
        _accuracies(f"{letter}{n}", f"{where}: {names[more]} > {names[less]}", Side(study, more), Side(study, less))
        for n, (more, less) in enumerate(compared, 1)
    ]


def _with_control(letter: str, study: str, where: str) -> list[Claim]:
    """Return the claims of `_elsewhere`, and a8."""
    converged = f"{where}: SFT on y_w = SFT"
    return [
        *_elsewhere(letter, study, where),
        _accuracies(f"{letter}6", converged, Side(study, "sft_chosen"), Side(study, "sft"), equal=True),
    ]


def _noise(names: tuple[str, str], study: str, where: str = "", at: Row | None = None) -> list[Claim]:
    """Return what it costs, with DPO and DPO-MC, that y_w is always in another writer's style than y_l."""
    return [
        _accuracies(
            name,
            f"{where}{title}: bridged > the other writer's y_w",
            Side(study, method, at=at),
            Side(study, method, "noise_100", at),
        )
        for name, title, method in zip(names, ("DPO", "DPO with MC"), ("dpo_bc", "dpo_bmc"), strict=True)
    ]


def _large_step(names: tuple[str, str], study: str, where: str, beta: float = 0.1) -> list[Claim]:
    """Return what MC's weights hold up where the step is too large, against a β of the method without them."""
    other = "" if beta == TOO_LARGE["beta"] else f" at β {beta:g}"
    return [
        _accuracies(
            name,
            f"{where}step 1e-3: {TITLES[more]} > {TITLES[less]}{other}",
            Side(study, more, at=TOO_LARGE),
            Side(study, less, at=TOO_LARGE | {"beta": beta}),
        )
        for name, more, less in zip(names, ("dpo_mc", "dpo_bmc"), ("dpo", "dpo_bc"), strict=True)
    ]


def _editors(names: tuple[str, str], study: str, where: str = "") -> list[Claim]:
    """Return what an ideal editor is worth, with DPO-BC and DPO-BMC."""
    return [
        _accuracies(
            name, f"{where}{TITLES[method]}: ideal > sloppy editor", Side(study, method), Side(study, method, "sloppy")
        )
        for name, method in zip(names, ("dpo_bc", "dpo_bmc"), strict=True)
    ]


TITLES = {"dpo": "DPO", "dpo_bc": "DPO-BC", "dpo_mc": "DPO-MC", "dpo_bmc": "DPO-BMC"}
OBJECTIVES = {"ipo": "IPO", "orpo": "ORPO", "rdpo": "R-DPO", "simpo": "SimPO"}
NOISE = ((0, "bridge"), (50, "noise_50"), (100, "noise_100"))  # % of pairs whose y_w is in the other style
WRITERS = ((1, "writers_1"), (2, "core"), (4, "writers_4"))
SHARES = ((0.0, "share_0"), (0.33, "share_33"), (0.67, "share_67"), (1.0, "bridge"))  # of bridged pairs
BMC_AT: Row = {"learning_rate": 3e-4, "beta": 0.1}  # core's values of DPO-BMC
TOO_LARGE: Row = {"learning_rate": 1e-3, "beta": 0.1}
DELTA = {delta: Side("delta", "dpo_bmc", at=BMC_AT | {"bmc_delta": delta}) for delta in (0.5, 1.0, 2.5, 5.0)}
CLAIMS: list[Claim | Slope] = [
    _core("a1", "DPO > SFT", "dpo", "sft"),
    _core("a2", "DPO-BMC > DPO", "dpo_bmc", "dpo"),
    _core("a3", "DPO-BC > DPO", "dpo_bc", "dpo"),
    _core("a4", "DPO-MC > DPO", "dpo_mc", "dpo"),
    _core("a5", "DPO-BMC > DPO-BC", "dpo_bmc", "dpo_bc"),
    _core("a6", "DPO-BMC > DPO-MC", "dpo_bmc", "dpo_mc"),
    _core("a7", "DPO-BMC > SFT on ỹ_w", "dpo_bmc", "sft_bridged"),
    _core("a8", "SFT on y_w = SFT", "sft_chosen", "sft", equal=True),
    _moved("b1", "reward accuracy: DPO-BMC > DPO", reward_accuracy, "dpo_bmc", "dpo"),
    _moved("b2", "reward margin: DPO-BMC > DPO", margin, "dpo_bmc", "dpo"),
    Claim("c1", "y_l: a span's first token is less likely", surprise("rejected"), Side("core", "sft"), None),
    Claim("c2", "ỹ_w: a span's first token is less likely", surprise("chosen"), Side("core", "sft"), None),
    Claim(
        "c3",
        "more so in y_l",
        lambda row: surprise("rejected")(row) - surprise("chosen")(row),
        Side("core", "sft"),
        None,
    ),
    _moved("d1", "gradient norm: DPO > DPO-BC", gradient, "dpo", "dpo_bc"),
    _moved("d2", "gradient norm: DPO > DPO-MC", gradient, "dpo", "dpo_mc"),
    _over_writers("e1", "DPO-BC", "dpo_bc"),
    _over_writers("e2", "DPO-BMC", "dpo_bmc"),
    *_noise(("e3", "e4"), "noise"),
    *_editors(("f1", "f2"), "editors"),
    Claim("g1", "log π(ỹ_w) falls under DPO-BC", lambda row: -displacement(row), Side("displacement", "dpo_bc"), None),
    _moved("g2", "log π(chosen): DPO > DPO-BC", displacement, "dpo", "dpo_bc"),
    _moved("g3", "log π(chosen): DPO-BMC > DPO-BC", displacement, "dpo_bmc", "dpo_bc"),
    *_remedies(),
    _accuracies("i1", "DPO-BMC: δ 2.5 > δ 0.5", DELTA[2.5], DELTA[0.5]),
    _accuracies("i2", "DPO-BMC: δ 2.5 > δ 5", DELTA[2.5], DELTA[5.0]),
    Slope(
        "i3",
        "DPO-BMC grows with the share of bridged pairs",
        tuple(
            (
                share,
                _accuracies(
                    "", "", Side("delta", "dpo_bmc", pairs, None if share < 1 else BMC_AT | {"bmc_delta": 2.5}), None
                ),
            )
            for share, pairs in SHARES
        ),
    ),
    *(
        _accuracies(f"j{n}", f"{title}-BMC > {title}", Side("systems", f"{method}_bmc"), Side("systems", method))
        for n, (method, title) in enumerate(OBJECTIVES.items(), 1)
    ),
    *_elsewhere("k", "turns", "turns"),
    *_editors(("k6", "k7"), "turns", "turns, "),
    *_with_control("l", "smollm2", "SmolLM2"),
    *(
        _accuracies(
            f"m{n}", f"{TITLES[method]}: ideal > rule editor", Side("editors", method), Side("rules", method, "rules")
        )
        for n, method in enumerate(("dpo_bc", "dpo_bmc"), 1)
    ),
    *_with_control("n", "smollm2_two_digits", "SmolLM2, two digits"),
    *_with_control("p", "manner", "manner"),
    *_noise(("p7", "p8"), "manner_steps", "manner, step 3e-4, ", BMC_AT),
    *_noise(("p9", "p10"), "manner_steps", "manner, step 1e-3, ", TOO_LARGE),
    *_large_step(("o1", "o2"), "large_step", ""),
    *_large_step(("o3", "o4"), "manner_steps", "manner, "),
    _accuracies(
        "o5",
        "SmolLM2, step 3e-5: DPO-BMC > DPO",
        Side("smollm2_large_step", "dpo_bmc"),
        Side("smollm2_large_step", "dpo"),
    ),
    *_large_step(("q1", "q2"), "large_step", "", 0.23),
    *_large_step(("q3", "q4"), "manner_steps", "manner, ", 0.22),
]


def t_test(differences: list[float]) -> tuple[float, float, float, float]:
    """Compare a mean with 0 by Student's t.

    Returns:
        Mean, both ends of its 95 % interval, and the two-sided p. Values that are all equal have p = 0, or 1 at 0.
    """
    from scipy import stats

    mean, n = fmean(differences), len(differences)
    error = stdev(differences) / sqrt(n)
    if error == 0:
        return mean, mean, mean, 1.0 if mean == 0 else 0.0
    half = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * error
    return mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, n - 1))


def verdict(low: float, high: float, p: float, equal: bool) -> str:
    """Decide as `docs/claims.md` says, by the interval and the adjusted p."""
    if equal and low >= -EQUAL and high <= EQUAL:
        return "supported"
    if p >= LEVEL or low <= 0 <= high:
        return "undecided"
    return "contradicted" if equal or high < 0 else "supported"


def verdicts(results: Row) -> list[Row]:
    """Judge every claim whose studies are there; Holm over the claims of each letter."""
    found: list[Row] = []
    for claim in CLAIMS:
        if any(side.study not in results for side in claim.sides):
            continue
        if len(differences := list(claim.by_seed(results).values())) > 1:
            mean, low, high, p = t_test(differences)
            found.append({"claim": claim, "seeds": len(differences), "mean": mean, "low": low, "high": high, "p": p})
    for letter in {line["claim"].name[0] for line in found}:
        family = [line for line in found if line["claim"].name[0] == letter]
        for line, adjusted in zip(family, holm([line["p"] for line in family]), strict=True):
            line["holm"] = adjusted
            line["verdict"] = verdict(line["low"], line["high"], adjusted, line["claim"].equal)
    return found


def read_results(folder: Path) -> dict[str, Any]:
    """Read each study's numbers, `STUDY.json`."""
    return {path.stem: read_json(path) for path in sorted(folder.glob("*.json"))}


def tables(folder: Path) -> dict[str, str]:
    """Return every table of the results as Markdown, by name: claims, and studies with the commands that make them."""
    results, repetition = read_results(folder), read_results(folder / "repeat")
    made = {"claims": claims_table(results, repetition), "headline": headline(results, repetition)}
    for study in ("core", "turns"):
        if study in results:
            rows = [runs[study]["rows"] if study in runs else [] for runs in (results, repetition)]
            made[f"{study}_followed"] = writers_table(*rows)
    for study in results:
        searched = results[study]["study"]["split"] == "validation"
        table = search_table(results[study]) if searched else accuracies(results, repetition, study)
        made[study] = f"{table}\n\n{study_commands(study, results, repetition)}"
    return made


def study_commands(study: str, results: Row, repetition: Row) -> str:
    """Return the commands that make a study's numbers, and those of its repetition, as a Markdown block."""
    command = f"python scripts/lab.py recipes/lab/{study}.yaml"
    lines = [command]
    if study in repetition:
        first, again = results[study]["study"], repetition[study]["study"]
        given = [f'--{key} "{again[key]}"' for key in ("sft_seeds", "seeds") if again[key] != first[key]]
        lines.append(" ".join([command, *given, f"--output_dir outputs/lab/repeat/{study}   # repeated"]))
    return "\n".join(["```bash", *lines, "```"])


def accuracies(results: Row, repetition: Row, study: str) -> str:
    """Return a study as a Markdown table: accuracy of each SFT seed, and their mean, for each method and its point."""
    sides: list[Side] = []
    for row in results[study]["rows"]:
        side = Side(study, row["method"], row["pairs"], at=row["values"])
        if side not in sides:
            sides.append(side)
    lines = []
    for side in sides:
        name = side.method if side.pairs == "bridge" else f"{side.method}, {side.pairs}"
        lines.append([name, _point(side.at or {}), *_mean_and_each(side, results), *_mean_and_each(side, repetition)])
    header = ["mean, %", "of each SFT seed"]
    return markdown_table((["method", "at", *header, *(f"repeated: {column}" for column in header)], lines))


def _mean_and_each(side: Side, results: Row) -> list[str]:
    scores = side.by_seed(results, accuracy) if side.study in results else {}
    return (
        [f"{fmean(scores.values()):.1f}", ", ".join(f"{scores[seed]:.1f}" for seed in sorted(scores))]
        if scores
        else ["", ""]
    )


def _point(values: Row) -> str:
    shown = {key: " + ".join(value) if isinstance(value, list) else f"{value:g}" for key, value in values.items()}
    return ", ".join(f"{key} {value}" for key, value in shown.items())


def writers_table(first: list[Row], again: list[Row]) -> str:
    """Return, for each method, the share of its responses that begin as each writer does, and how many are right."""
    lines = []
    for method in dict.fromkeys(row["method"] for row in first):
        cells = []
        for rows in (first, again):
            models = [row for row in rows if (row["method"], row["pairs"]) == (method, "bridge")]
            for followed in zip(*(row["writers"] for row in models), strict=True):
                number, right = (sum(count[place] for count in followed) for place in (0, 1))
                share = number / sum(count[0] for row in models for count in row["writers"])
                cells.append(f"{100 * share:.0f}, {100 * right / max(number, 1):.0f}")
        lines.append([method, *cells])
    columns = ["from the left", "from the right", "neither"]
    header = [*columns, *(f"repeated: {column}" for column in columns if again)]
    return markdown_table((["method", *header], lines))


def claims_table(results: Row, repetition: Row) -> str:
    """Return the verdicts as a Markdown table: of the first runs, and of the repetition with new SFT seeds."""
    found = [{line["claim"].name: line for line in verdicts(runs)} for runs in (results, repetition)]
    lines = []
    for claim in CLAIMS:
        if any(claim.name in runs for runs in found):
            cells = [cell for runs in found for cell in _verdict_cells(runs.get(claim.name))]
            lines.append([claim.name, claim.text, *cells])
    return markdown_table((["", "claim", *COLUMNS, *(f"repeated: {column}" for column in COLUMNS)], lines))


def headline(results: Row, repetition: Row) -> str:
    """Return the verdicts that README shows, as a Markdown table."""
    found = [{line["claim"].name: line for line in verdicts(runs)} for runs in (results, repetition)]
    lines = []
    for name in HEADLINE:
        first, again = (_verdict_cells(runs.get(name)) for runs in found)
        if first[-1]:
            text = next(claim.text for claim in CLAIMS if claim.name == name)
            lines.append([text, first[0], first[-1], again[-1] or again[0]])
    return markdown_table((["claim", "difference, 95 %", "verdict", "repeated"], lines))


HEADLINE = ("a8", "a3", "a2", "p3", "p2", "f1", "f2", "g1", "g3", "h1", "o1", "o2", "k1", "k3", "l1", "l2", "l6")
COLUMNS = ("difference, 95 %", "p (Holm)", "seeds", "verdict")


def _verdict_cells(line: Row | None) -> list[str]:
    if line is None:
        return ["not run", "", "", ""]
    interval = f"{line['mean']:+.2f} [{line['low']:+.2f}, {line['high']:+.2f}]"
    return [interval, f"{line['holm']:.3f}", str(line["seeds"]), line["verdict"]]


def search_table(study: Row) -> str:
    """Return a tuning search as a Markdown table: validation accuracy, and what moved on held-out pairs."""
    lines = []
    for row in study["rows"]:
        if row["method"] != "sft":
            curve = row["held_out"]
            moved = [f"{curve[-1][place] - curve[0][place]:+.2f}" if curve else "" for place in (1, 2)]
            lines.append([row["method"], _point(row["values"]), f"{100 * row['accuracy']:.1f}", *moved])
    return markdown_table((["method", "at", "accuracy, %", "Δ log π(chosen)", "Δ log π(rejected)"], lines))
