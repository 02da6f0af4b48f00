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


@dataclass(frozen=True)
class Side:
    """One side of a comparison: the models of a method, trained on some pairs, in a study."""

    study: str
    method: str
    pairs: str = "bridge"

    def by_seed(self, results: Row, value: Value) -> dict[int, float]:
        """Return the mean over preference seeds for each SFT seed."""
        found: dict[int, list[float]] = {}
        for row in results[self.study]["rows"]:
            if (row["method"], row["pairs"]) == (self.method, self.pairs):
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

    def differences(self, results: Row) -> list[float] | None:
        """Return the difference for each SFT seed; None where a study is missing."""
        sides = [self.more, *([self.less] if self.less else [])]
        if any(side.study not in results for side in sides):
            return None
        more = self.more.by_seed(results, self.value)
        less = self.less.by_seed(results, self.value) if self.less else dict.fromkeys(more, 0.0)
        return [more[seed] - less[seed] for seed in sorted(more.keys() & less.keys())]


@dataclass(frozen=True)
class Slope:
    """A claim that the difference of two methods grows with log2 of the number of writers.

    Attributes:
        name: As in `docs/claims.md`.
        text: What is claimed.
        more: The method whose advantage grows.
        less: The method that it is compared with.
        studies: Number of writers → study.
    """

    name: str
    text: str
    more: str
    less: str
    studies: tuple[tuple[int, str], ...]
    equal: bool = False

    def differences(self, results: Row) -> list[float] | None:
        """Return the least-squares slope for each SFT seed, in points for each doubling; None where one is missing."""
        if any(study not in results for _, study in self.studies):
            return None
        gains = []
        for writers, study in self.studies:
            more = Side(study, self.more).by_seed(results, accuracy)
            less = Side(study, self.less).by_seed(results, accuracy)
            gains.append((log2(writers), {seed: more[seed] - less[seed] for seed in more}))
        seeds = sorted(set.intersection(*(set(gain) for _, gain in gains)))
        centre = fmean(x for x, _ in gains)
        spread = sum((x - centre) ** 2 for x, _ in gains)
        return [sum((x - centre) * gain[seed] for x, gain in gains) / spread for seed in seeds]


def _core(name: str, text: str, more: str, less: str, equal: bool = False) -> Claim:
    return Claim(name, text, accuracy, Side("core", more), Side("core", less), equal)


def _moved(name: str, text: str, value: Value, more: str, less: str) -> Claim:
    return Claim(name, text, value, Side("displacement", more), Side("displacement", less))


NOISE = ((0, "bridge"), (50, "noise_50"), (100, "noise_100"))  # % of pairs whose y_w is in the other style
WRITERS = ((1, "writers_1"), (2, "core"), (4, "writers_4"))
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
    _moved("d1", "gradient norm: DPO > DPO-BC", gradient, "dpo", "dpo_bc"),
    _moved("d2", "gradient norm: DPO > DPO-MC", gradient, "dpo", "dpo_mc"),
    Slope("e1", "DPO-BC − DPO grows with the writers", "dpo_bc", "dpo", WRITERS),
    Slope("e2", "DPO-BMC − DPO grows with the writers", "dpo_bmc", "dpo", WRITERS),
    Claim(
        "e3",
        "DPO: bridged > the other writer's y_w",
        accuracy,
        Side("noise", "dpo_bc"),
        Side("noise", "dpo_bc", "noise_100"),
    ),
    Claim(
        "e4",
        "DPO with MC: bridged > the other writer's y_w",
        accuracy,
        Side("noise", "dpo_bmc"),
        Side("noise", "dpo_bmc", "noise_100"),
    ),
    Claim(
        "f1", "DPO-BC: ideal > sloppy editor", accuracy, Side("editors", "dpo_bc"), Side("editors", "dpo_bc", "sloppy")
    ),
    Claim(
        "f2",
        "DPO-BMC: ideal > sloppy editor",
        accuracy,
        Side("editors", "dpo_bmc"),
        Side("editors", "dpo_bmc", "sloppy"),
    ),
    Claim("g1", "log π(ỹ_w) falls under DPO-BC", lambda row: -displacement(row), Side("displacement", "dpo_bc"), None),
    _moved("g2", "log π(chosen): DPO > DPO-BC", displacement, "dpo", "dpo_bc"),
    _moved("g3", "log π(chosen): DPO-BMC > DPO-BC", displacement, "dpo_bmc", "dpo_bc"),
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
        differences = claim.differences(results)
        if differences is not None and len(differences) > 1:
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


def accuracies(results: Row, study: str) -> str:
    """Return a Markdown table of a study: accuracy of each SFT seed, and their mean, for each method and bridging."""
    names = dict.fromkeys((row["method"], row["pairs"]) for row in results[study]["rows"])
    lines = []
    for method, pairs in names:
        rows = [row for row in results[study]["rows"] if (row["method"], row["pairs"]) == (method, pairs)]
        by_seed = Side(study, method, pairs).by_seed(results, accuracy)
        point = ", ".join(f"{key} {value:g}" for key, value in rows[0]["values"].items())
        name = method if pairs == "bridge" else f"{method}, {pairs}"
        each = ", ".join(f"{by_seed[seed]:.1f}" for seed in sorted(by_seed))
        lines.append([name, point, each, f"{fmean(by_seed.values()):.1f}", str(len(rows))])
    return markdown_table((["method", "at", "accuracy of each SFT seed, %", "mean", "models"], lines))


def claims_table(results: Row) -> str:
    """Return the verdicts as a Markdown table."""
    lines = []
    for line in verdicts(results):
        claim = line["claim"]
        interval = f"{line['mean']:+.2f} [{line['low']:+.2f}, {line['high']:+.2f}]"
        lines.append([claim.name, claim.text, interval, f"{line['holm']:.3f}", str(line["seeds"]), line["verdict"]])
    return markdown_table((["", "claim", "difference, 95 %", "p (Holm)", "SFT seeds", "verdict"], lines))
