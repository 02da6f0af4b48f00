"""The paper's tables and figures, reported beside reproduced: `recipes/reported.yaml` and the folders of the runs → one
Markdown table."""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

from ..errors import did_you_mean, fail
from ..recipe import load
from . import claims
from .cells import accuracy_cell, markdown_table, read_json
from .seeds import FILE as SEEDS
from .seeds import seeds_cell

NOT_RUN, UNKNOWN, OTHER_MODEL = "not run", "–", "other model"
NOT_APPLICABLE = "n/a"  # of a row that a column has no number for
SINGLE = "A reproduced number is a single run, with its 95 % interval where it has one, and n, unless it is of seeds."
JUDGED = "Win rates and lengths are a judge's (make SETTING/METHOD/judge)."
KEYS = {  # name in `reported.yaml` → keys of `judged.json`: the number, and its interval if it has one
    "lc": ("length_controlled_win_rate", None),  # alpaca_eval's error of it is of predictions, not of rows
    "wr": ("win_rate", "interval"),
    "length": ("length", None),
}


@dataclass(kw_only=True)
class TableConfig:
    """Arguments of `scripts/table.py`.

    Attributes:
        table: Table or figure: `table1`, `figure4`, …
        runs: Folder of the runs.
        model: Model at whose scale to show the table, where that isn't the paper's: `smollm2-135m`.
        targets: Print the make targets that the table needs instead, one a line; those of a judge only where this
            machine has what it needs.
        dry_run: With `targets`: those of a judge in any case.
        numbers: File of the reported numbers, beside the settings' folders.
    """

    table: str
    runs: str = "outputs"
    model: str | None = None
    targets: bool = False
    dry_run: bool = False
    numbers: str = "recipes/reported.yaml"

    def faults(self) -> Iterator[tuple[str, str]]:
        tables, _ = load(Path(self.numbers))
        if self.table not in tables:
            hint = did_you_mean(self.table, list(tables))
            yield "table", f"'{self.table}' is unknown{hint}; choose from {', '.join(tables)}"
        elif self.model is not None and self.model not in (models := tables[self.table].get("other_models", {})):
            hint = did_you_mean(self.model, list(models))
            choose = f"choose from {', '.join(models)}, or leave it out" if models else "leave it out"
            yield "model", f"{self.table} has no '{self.model}'{hint}; {choose}"


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        method: The row's.
        column: The column's name.
        run: SETTING/RECIPE, the run that makes it.
        metric: Where the number stands in the run's folder; `reported.yaml` says how.
        reported: The paper's number, ready to print.
    """

    method: str
    column: str
    run: str
    metric: str
    reported: str

    @property
    def place(self) -> tuple[str, str]:
        """Setting and recipe."""
        model, task, recipe = self.run.split("/", 2)
        return f"{model}/{task}", recipe


def cells(config: TableConfig) -> list[list[Cell]]:
    """The rows of a table. At another model's scale they are those that have a recipe there."""
    entry = load(Path(config.numbers))[0][config.table]
    columns = _columns(config)
    rows = []
    for row in entry["rows"]:
        numbers = row["reported"] if config.model is None else [OTHER_MODEL] * len(columns)
        line = []
        for column, number in zip(columns, numbers, strict=True):
            run, reported = f"{column['setting']}/{row['recipe']}", UNKNOWN if number is None else str(number)
            metric = row.get("metric") or column["metric"]
            line.append(Cell(row["method"], column["name"], run, metric, reported))
        there = [(Path(config.numbers).parent / f"{cell.run}.yaml").exists() for cell in line]
        if config.model is None or all(there):
            rows.append(line)
    return rows


def targets(config: TableConfig) -> list[str]:
    """Return the make targets that a table needs, each once: its runs, then what judges them.

    Without what a judge needs (its key, the package `alpaca_eval`) the runs alone; `table` says what is missing.
    """
    needed = [cell for row in cells(config) for cell in row if cell.reported != NOT_APPLICABLE]
    judged = [str(Path(config.runs, cell.run, place)) for cell in needed if (place := _judged_file(cell.metric))]
    return list(dict.fromkeys([*map(_target, needed), *(judged if config.dry_run or not _lacking(config) else [])]))


def _target(cell: Cell) -> str:
    return claims.target(*cell.place, cell.metric) if cell.metric in claims.METRICS else cell.run


def _judged_file(metric: str) -> str | None:
    """Where the judge's numbers stand in a run's folder; None for a metric that isn't a judge's."""
    kind, _, name = metric.partition(".")
    return f"eval/{name.rpartition('_')[0]}/judged.json" if kind == "judged" else None


def _lacking(config: TableConfig) -> list[str]:
    """Return what the judges of a table still need on this machine, as the beginnings of a command line."""
    metrics = {cell.metric for row in cells(config) for cell in row if _judged_file(cell.metric)}
    benchmarks = sorted({metric.partition(".")[2].rpartition("_")[0] for metric in metrics})
    lacking = {}
    for benchmark in benchmarks:
        recipe = load(Path(config.numbers).parent / f"judge_{benchmark}.yaml")[0]
        if not os.environ.get(key := recipe.get("api_key_env", "OPENAI_API_KEY")):
            lacking[key] = f"{key}=…"
    if "alpaca_eval" in benchmarks and importlib.util.find_spec("alpaca_eval") is None:
        return ["pip install '.[eval]' &&", *lacking.values()]
    return [*lacking.values()]


def _command(config: TableConfig) -> str:
    """Return the command that makes what a table lacks."""
    model = [f"MODEL={config.model}"] if config.model else []
    return " ".join([*_lacking(config), "make", config.table, *model])


def table(config: TableConfig) -> str:
    """A table as Markdown: title, sources, and for each method and column the reported and the reproduced number.

    Raises:
        Faults: A file of a run can't be read.
    """
    rows = cells(config)
    entry = load(Path(config.numbers))[0][config.table]
    header = ["method", *(f"{cell.column}, {what}" for cell in rows[0] for what in ("reported", "reproduced"))]
    body = [
        [row[0].method, *(text for cell in row for text in (cell.reported, _ours(Path(config.runs), cell)))]
        for row in rows
    ]
    title, source = entry["title"], f"Reported: {entry['source']}."
    if config.model is not None:
        title, source = f"{title}; here with {config.model}", "Reported: nothing, the paper's model is another."
    judged = any(cell.metric.startswith("judged.") for cell in rows[0])
    notes = [source, SINGLE, *([JUDGED] if judged else []), *left_out(config)]
    missing = [f"What is missing comes by `{_command(config)}`."] if NOT_RUN in itertools.chain(*body) else []
    return "\n\n".join([f"## {title}", "\n".join(notes), markdown_table((header, body)), *missing])


def _ours(runs: Path, cell: Cell) -> str:
    return UNKNOWN if cell.reported == NOT_APPLICABLE else reproduced(runs, cell)


def left_out(config: TableConfig) -> list[str]:
    """Say of each of a table's settings how many training rows were set aside, where any were."""
    said = []
    for setting in dict.fromkeys(column["setting"] for column in _columns(config)):
        path = Path(config.runs, setting, "prepare/stats.json")
        found = read_json(path) if path.is_file() else {}
        reasons = {"held out for validation": found.get("held_out"), "prompts of a benchmark": found.get("leaked")}
        told = ", ".join(f"{count:,} {what}" for what, count in reasons.items() if count)
        if told:
            said.append(f"{setting}: not trained on, unlike in the paper: {told} (of {_source_rows(found):,} rows).")
    return said


def _source_rows(found: dict[str, Any]) -> int:
    return sum(found.get(part) or 0 for part in ("train", "held_out", "leaked"))


def _columns(config: TableConfig) -> list[dict[str, Any]]:
    entry = load(Path(config.numbers))[0][config.table]
    columns: list[dict[str, Any]] = entry["columns"] if config.model is None else entry["other_models"][config.model]
    return columns


def reproduced(runs: Path, cell: Cell) -> str:
    """Our number for a cell, or `not run`."""
    if cell.metric in claims.METRICS:
        return _claimed(runs, cell)
    kind, _, name = cell.metric.partition(".")
    folder, key = runs / cell.run, name.rpartition("_")[2]
    if kind == "accuracy" and (folder / SEEDS).is_file():
        return _seeds(folder / SEEDS)
    place = {"accuracy": "eval/metrics.json", "grad_norm": "trainer_state.json"}.get(kind)
    path = folder / (place or _judged_file(cell.metric) or "")
    if not path.is_file():
        return NOT_RUN
    found = read_json(path)
    try:
        if kind == "accuracy":
            return accuracy_cell(average(found["results"]))
        return _gradient_norm(found) if kind == "grad_norm" else _judgement(found, *KEYS[key])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise fail(str(path), f"isn't of the shape that {cell.metric} needs; remove it and make it again") from None


def _claimed(runs: Path, cell: Cell) -> str:
    setting, recipe = cell.place
    try:
        return claims.claim(runs / setting, recipe, cell.metric) or NOT_RUN
    except (AttributeError, KeyError, TypeError, ValueError):
        what = f"hold no {cell.metric} that can be read; run make {_target(cell)} again"
        raise fail(str(runs / setting), f"its files {what}") from None


def _seeds(path: Path) -> str:
    results = read_json(path)["results"]
    return seeds_cell(results.get("average") or next(iter(results.values())))


def average(results: dict[str, Any]) -> dict[str, Any] | None:
    """The macro average over benchmarks, as one result with an interval; none of no benchmark.

    The interval joins those of the benchmarks (MOVER, Zou & Donner, 2008): the distances to their ends add up in
    squares, each times 1/k. Of one benchmark it is its own.
    """
    if not results:
        return None
    count, parts = len(results), list(results.values())
    low, high = (sqrt(sum((part["accuracy"] - part["interval"][end]) ** 2 for part in parts)) / count for end in (0, 1))
    mean = sum(part["accuracy"] for part in parts) / count
    return {"accuracy": mean, "interval": [mean - low, mean + high], "n": sum(part["n"] for part in parts)}


def gradient_norms(state: dict[str, Any]) -> list[float]:
    """Those that a training logged (`trainer_state.json`), and that are numbers."""
    return [step["grad_norm"] for step in state["log_history"] if isfinite(step.get("grad_norm", float("nan")))]


def _gradient_norm(state: dict[str, Any]) -> str:
    logged = gradient_norms(state)
    return f"{sum(logged) / len(logged):.2f} (n = {len(logged)} logged)" if logged else NOT_RUN


def _judgement(found: dict[str, Any], key: str, interval: str | None) -> str:
    if found.get(key) is None:
        return NOT_RUN
    low, high = found.get(interval or "") or (None, None)
    return f"{found[key]:.1f}{'' if low is None else f' [{low:.1f}, {high:.1f}]'} (n = {found['n']})"
