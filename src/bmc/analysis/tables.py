"""The paper's tables and figures, reported beside reproduced: `recipes/reported.yaml` and the folders of the runs → one
Markdown table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

from ..errors import did_you_mean, fail
from ..recipe import load
from .cells import accuracy_cell, markdown_table, read_json
from .seeds import FILE as SEEDS
from .seeds import seeds_cell

NOT_RUN, UNKNOWN, OTHER_MODEL = "not run", "–", "other model"
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
        targets: Print the make targets that the table needs instead, one a line.
        numbers: File of the reported numbers, beside the settings' folders.
    """

    table: str
    runs: str = "outputs"
    model: str | None = None
    targets: bool = False
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


def cells(config: TableConfig) -> list[list[Cell]]:
    """The rows of a table. At another model's scale they are those that have a recipe there."""
    entry = load(Path(config.numbers))[0][config.table]
    columns = entry["columns"] if config.model is None else entry["other_models"][config.model]
    rows = []
    for row in entry["rows"]:
        numbers = row["reported"] if config.model is None else [OTHER_MODEL] * len(columns)
        line = []
        for column, number in zip(columns, numbers, strict=True):
            run, reported = f"{column['setting']}/{row['recipe']}", UNKNOWN if number is None else str(number)
            line.append(Cell(row["method"], column["name"], run, column["metric"], reported))
        there = [(Path(config.numbers).parent / f"{cell.run}.yaml").exists() for cell in line]
        if config.model is None or all(there):
            rows.append(line)
    return rows


def targets(config: TableConfig) -> list[str]:
    """The make targets that a table needs, each once."""
    return list(dict.fromkeys(cell.run for row in cells(config) for cell in row))


def table(config: TableConfig) -> str:
    """A table as Markdown: title, sources, and for each method and column the reported and the reproduced number.

    Raises:
        Faults: A file of a run can't be read.
    """
    rows = cells(config)
    entry = load(Path(config.numbers))[0][config.table]
    header = ["method", *(f"{cell.column}, {what}" for cell in rows[0] for what in ("reported", "reproduced"))]
    body = [
        [row[0].method, *(text for cell in row for text in (cell.reported, reproduced(Path(config.runs), cell)))]
        for row in rows
    ]
    title, source = entry["title"], f"Reported: {entry['source']}."
    if config.model is not None:
        title, source = f"{title}; here with {config.model}", "Reported: nothing, the paper's model is another."
    judged = any(cell.metric.startswith("judged.") for cell in rows[0])
    notes = [source, SINGLE, *([JUDGED] if judged else [])]
    return "\n\n".join([f"## {title}", "\n".join(notes), markdown_table((header, body))])


def reproduced(runs: Path, cell: Cell) -> str:
    """Our number for a cell, or `not run`."""
    kind, _, name = cell.metric.partition(".")
    folder = runs / cell.run
    if kind == "accuracy" and (folder / SEEDS).is_file():
        return _seeds(folder / SEEDS)
    benchmark, _, key = name.rpartition("_")
    judged = f"eval/{benchmark}/judged.json"
    path = folder / {"accuracy": "eval/metrics.json", "grad_norm": "trainer_state.json"}.get(kind, judged)
    if not path.is_file():
        return NOT_RUN
    found = read_json(path)
    try:
        if kind == "accuracy":
            return accuracy_cell(average(found["results"]))
        return _gradient_norm(found) if kind == "grad_norm" else _judgement(found, *KEYS[key])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise fail(str(path), f"isn't of the shape that {cell.metric} needs; remove it and make it again") from None


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
