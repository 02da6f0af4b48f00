"""Methods × benchmarks: every number that evaluations left, with its interval, the paper's beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import fail
from ..evaluation.stats import Z95, share_interval, wilson
from ..recipe import load
from .cells import Table
from .runs import Run, Told, are_numbers
from .tables import UNKNOWN, TableConfig, average

BEST, HIGHEST = "best", "highest"
NOT_RUN = "not run"
NOTE = (
    "In %, with 95 % intervals (Wilson's for accuracies) and the number of rows. Each line is a single run. "
    f'"{BEST}": no other run lies within its interval; "{HIGHEST}": some do, so that it may be chance.'
)
NO_INTERVAL = (
    " A length-controlled win rate has no interval: the error that alpaca_eval gives is the spread of its model's "
    "predictions."
)
REPORTED = (
    " The paper's numbers stand beside the runs of its settings, accuracies as averages over the paper's benchmarks; "
    "recipes/reported.yaml says where they are from."
)
JUDGES = {  # benchmark → (name, key of judged.json → its name and its metric in reported.yaml)
    "alpaca_eval": ("AlpacaEval 2", {"length_controlled_win_rate": ("LC", "lc"), "win_rate": ("WR", "wr")}),
    "arena_hard": ("Arena-Hard", {"win_rate": ("WR", "wr")}),
}


@dataclass(frozen=True)
class Score:
    """A number in %, and how sure it is."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None

    def __str__(self) -> str:
        interval = "" if self.low is None else f" [{self.low:.1f}, {self.high:.1f}]"
        return f"{self.value:.1f}{interval}" + ("" if self.n is None else f" (n = {self.n})")


@dataclass(frozen=True)
class Column:
    """A benchmark's numbers.

    Attributes:
        title: Of the column.
        scores: Of each run that has one.
        metric: What `reported.yaml` calls it, where the paper has it.
        reported: The paper's number for a run of the same setting, ready to print.
    """

    title: str
    scores: dict[str, Score]
    metric: str | None = None
    reported: dict[str, str] = field(default_factory=dict)

    @property
    def papers(self) -> str:
        """What the paper's numbers are called."""
        return "the paper's average" if self.metric == "accuracy" else "the paper's"

    def mark(self, run: str) -> str:
        """`best`, `highest` or nothing; nothing either where there is nothing to compare with."""
        score = self.scores.get(run)
        if score is None or len(self.scores) < 2 or any(other.value > score.value for other in self.scores.values()):
            return ""
        others = [other.value for name, other in self.scores.items() if name != run]
        clear = score.low is not None and all(other < score.low for other in others)
        return BEST if clear else HIGHEST


def overview(runs: dict[str, Run], root: Path) -> list[Column]:
    """The columns: accuracies, their average, the released code's scoring, win rates, lm-evaluation-harness.

    Raises:
        Faults: A judge's or the harness's file isn't of its shape.
    """
    columns = [*_accuracies(runs), *_judged(runs), *_harness(runs)]
    known = _reported(root, list(runs)) if columns else {}
    for column in columns:
        reported = {run: known[run, column.metric] for run in runs if column.metric and (run, column.metric) in known}
        column.reported.update(reported)
    return columns


def as_table(runs: list[str], columns: list[Column]) -> Table:
    """The columns as words, a line a run."""
    header, rows = ["run"], [[name] for name in runs]
    for column in columns:
        header.append(column.title)
        for row in rows:
            row.append(str(column.scores.get(row[0], "–" if column.title == "average" else NOT_RUN)))
        if column.reported:
            header.append(f"{column.title}, {column.papers}")
            for row in rows:
                row.append(column.reported.get(row[0], UNKNOWN))
    return header, rows


def _accuracies(runs: dict[str, Run]) -> Iterator[Column]:
    results = {run: found.metrics["results"] for run, found in runs.items()}
    benchmarks = sorted({name for found in results.values() for name in found})
    for name in benchmarks:
        metric = "accuracy" if len(benchmarks) == 1 else None
        yield Column(name, {run: _accuracy(found[name]) for run, found in results.items() if name in found}, metric)
    if len(benchmarks) > 1:
        several = {run: found for run, found in results.items() if len(found) > 1}
        means = {run: mean for run, found in several.items() if (mean := average(found))}
        yield Column("average", {run: _accuracy(mean) for run, mean in means.items()}, "accuracy")
    for name in benchmarks:
        released = {run: found[name] for run, found in results.items() if "accuracy_released" in found.get(name, {})}
        if released:
            yield Column(f"{name}, released scoring", {run: _released(found) for run, found in released.items()})


def _accuracy(result: dict[str, Any]) -> Score:
    low, high = result["interval"]
    return Score(100 * result["accuracy"], 100 * low, 100 * high, result["n"])


def _released(result: dict[str, Any]) -> Score:
    low, high = wilson(round(result["accuracy_released"] * result["n"]), result["n"])
    return Score(100 * result["accuracy_released"], 100 * low, 100 * high, result["n"])


def _judged(runs: dict[str, Run]) -> Iterator[Column]:
    benchmarks = sorted({benchmark for run in runs.values() for benchmark in run.judged})
    for benchmark in benchmarks:
        title, keys = JUDGES.get(benchmark, (benchmark, {"win_rate": ("WR", "wr")}))
        found = {run: made.judged[benchmark] for run, made in runs.items() if benchmark in made.judged}
        for key, (short, name) in keys.items():
            scores = {run: _win_rate(one, key) for run, one in found.items() if one.said.get(key) is not None}
            if scores:
                yield Column(f"{title} {short}", scores, f"judged.{benchmark}_{name}")


def _win_rate(judged: Told, key: str) -> Score:
    return _checked(judged, key, judged.said.get(key), judged.said.get("interval") if key == "win_rate" else None)


def _harness(runs: dict[str, Run]) -> Iterator[Column]:
    for task in sorted({task for run in runs.values() for task in run.harness}):
        found = {name: run.harness[task] for name, run in runs.items() if task in run.harness}
        metrics = sorted({str(told.said.get("metric")) for told in found.values()})
        scores = {name: _of_harness(told, task) for name, told in found.items()}
        yield Column(f"{task}, lm-eval ({', '.join(metrics)})", scores)


def _of_harness(told: Told, task: str) -> Score:
    """A share (or another metric) and its standard error → a score in %."""
    share = _checked(told, f"tasks.{task}: value", told.said.get("value"), None)
    if told.said.get("stderr") is None:
        return Score(100 * share.value, n=share.n)
    error = _checked(told, f"tasks.{task}: stderr", told.said["stderr"], None).value
    low, high = share.value - Z95 * error, share.value + Z95 * error
    if 0 <= share.value <= 1 and share.n:
        low, high = share_interval(share.value, error, share.n)
    return Score(100 * share.value, 100 * low, 100 * high, share.n)


def _checked(told: Told, key: str, value: Any, interval: Any) -> Score:
    """A score of a file's n rows, if these are numbers.

    Raises:
        Faults: They aren't.
    """
    n, ends = told.said.get("n"), interval or []
    whole = isinstance(ends, list) and len(ends) in (0, 2) and are_numbers(value, *ends, whole=n)
    if not whole:
        raise fail(f"{told.path}: {key}", "is no number with an interval and n; make the file again")
    low, high = ends or (None, None)
    return Score(value, low, high, n)


def _reported(root: Path, names: list[str]) -> dict[tuple[str, str], str]:
    """(run, metric) → the paper's number, for the runs whose path ends in SETTING/RECIPE of one of its tables."""
    path = Path(TableConfig.numbers)
    known: dict[tuple[str, str], str] = {}
    for table in load(path)[0].values() if path.is_file() else ():
        for row in table["rows"]:
            for column, number in zip(table["columns"], row["reported"], strict=True):
                ending = f"/{column['setting']}/{row['recipe']}"
                for name in names if number is not None else ():
                    if str((root / name).resolve()).endswith(ending):
                        known.setdefault((name, row.get("metric") or column["metric"]), str(number))
    return known
