"""The paper's tables and figures, reported beside reproduced: `recipes/reported.yaml` and the folders of the runs → one
Markdown table."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import did_you_mean, user_error
from ..evaluation.summary import NOT_RUN, SEEDS_FILE, markdown_table
from ..recipe import load_recipe
from ..runs import read_json
from .results import REPORTED_NUMBERS, UNKNOWN, compare_to_baseline, load_correctness, load_metric

OTHER_MODEL = "other model"
NOT_APPLICABLE = "n/a"  # of a row that a column has no number for
SINGLE = "A reproduced number is a single run, with its 95 % interval where it has one, and n, unless it is of seeds."
BY_JUDGE = "Win rates and lengths are a judge's (make SETTING/METHOD/judge)."
DAMAGED = (AttributeError, KeyError, TypeError, ValueError)

# What the paper's text says of its analyses: metric → figure, column, and which line of its CSV
RECIPE = "the run's recipe"
FIGURE_METRICS: Mapping[str, tuple[str, str, dict[str, str]]] = {
    "validation.margin": ("rewards", "margin", {"run": RECIPE, "pairs": "y_w / y_l"}),
    "validation.accuracy": ("rewards", "accuracy in %", {"run": RECIPE, "pairs": "y_w / y_l"}),
    "spans.first": ("figure2", "mean −log p", {"model": "after", "response": "y_l", "tokens": "first"}),
    "spans.later": ("figure2", "mean −log p", {"model": "after", "response": "y_l", "tokens": "later"}),
    "time.ratio": ("table10", "ratio to dpo", {"run": RECIPE}),
}
BRIDGING_METRICS = ("bridging.no_edit_needed", "bridging.cosine")
NO_EDIT_NEEDED = ("y_l needs no edit", "y_l is good enough")  # today's reason, and that before 0.2


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
    numbers: str = REPORTED_NUMBERS

    def faults(self) -> Iterator[tuple[str, str]]:
        tables, _ = load_recipe(Path(self.numbers))
        if self.table not in tables:
            hint = did_you_mean(self.table, list(tables))
            yield "table", f"'{self.table}' is unknown{hint}; choose from {', '.join(tables)}"
        elif self.model is not None and self.model not in (models := tables[self.table].get("other_models", {})):
            hint = did_you_mean(self.model, list(models))
            choose = f"choose from {', '.join(models)}, or leave it out" if models else "leave it out"
            yield "model", f"{self.table} has no '{self.model}'{hint}; {choose}"


@dataclass(frozen=True)
class Cell:
    """One number of a table."""

    method: str  # the row's
    column: str
    setting: str
    recipe: str  # of the run that makes the number, below the setting
    metric: str  # where the number stands in the run's folder; `reported.yaml` says how
    reported: str  # the paper's number, ready to print

    @property
    def run(self) -> str:
        """Return SETTING/RECIPE."""
        return f"{self.setting}/{self.recipe}"

    @property
    def target(self) -> str:
        """Return the make target that leaves the number: an analysis of the setting, or the run itself."""
        return f"{self.setting}/analyze" if self.metric in FIGURE_METRICS else self.run

    @property
    def judge_file(self) -> str | None:
        """Return where the judge's numbers stand in the run's folder; None for a metric that isn't a judge's."""
        kind, _, name = self.metric.partition(".")
        return f"eval/{name.rpartition('_')[0]}/judge_results.json" if kind == "judge" else None


def table_rows(config: TableConfig) -> list[list[Cell]]:
    """List the rows of a table. At another model's scale they are those that have a recipe there."""
    columns, rows = _columns(config), []
    for row in _entry(config)["rows"]:
        numbers = row["reported"] if config.model is None else [OTHER_MODEL] * len(columns)
        line = []
        for column, number in zip(columns, numbers, strict=True):
            reported, metric = UNKNOWN if number is None else str(number), row.get("metric") or column["metric"]
            line.append(Cell(row["method"], column["name"], column["setting"], row["recipe"], metric, reported))
        there = [(Path(config.numbers).parent / f"{cell.run}.yaml").exists() for cell in line]
        if config.model is None or all(there):
            rows.append(line)
    return rows


def _entry(config: TableConfig) -> dict[str, Any]:
    return dict(load_recipe(Path(config.numbers))[0][config.table])


def _columns(config: TableConfig) -> list[dict[str, Any]]:
    entry = _entry(config)
    return list(entry["columns"] if config.model is None else entry["other_models"][config.model])


def targets(config: TableConfig) -> list[str]:
    """Return the make targets that a table needs, each once: its runs, then what judges them.

    Without what a judge needs (its key, the package `alpaca_eval`) the runs alone; `table` says what is missing.
    """
    needed = [cell for row in table_rows(config) for cell in row if cell.reported != NOT_APPLICABLE]
    results = [str(Path(config.runs, cell.run, cell.judge_file)) for cell in needed if cell.judge_file]
    with_judge = config.dry_run or not _judge_needs(config)
    return list(dict.fromkeys([*(cell.target for cell in needed), *(results if with_judge else [])]))


def _judge_needs(config: TableConfig) -> list[str]:
    """Return what the judges of a table still need on this machine, as the beginnings of a command line."""
    metrics = {cell.metric for row in table_rows(config) for cell in row if cell.judge_file}
    benchmarks = sorted({metric.partition(".")[2].rpartition("_")[0] for metric in metrics})
    missing = {}
    for benchmark in benchmarks:
        recipe = load_recipe(Path(config.numbers).parent / f"judge_{benchmark}.yaml")[0]
        if not os.environ.get(key := recipe.get("api_key_env", "OPENAI_API_KEY")):
            missing[key] = f"{key}=…"
    if "alpaca_eval" in benchmarks and importlib.util.find_spec("alpaca_eval") is None:
        return ["pip install '.[eval]' &&", *missing.values()]
    return [*missing.values()]


def table(config: TableConfig) -> str:
    """Format a table as Markdown: title, sources, and for each method and column the reported and reproduced number.

    Raises:
        UserErrors: A file of a run can't be read.
    """
    rows, entry, runs = table_rows(config), _entry(config), Path(config.runs)
    baseline = entry.get("baseline")
    if baseline is None:
        header = ["method", *(f"{cell.column}, {what}" for cell in rows[0] for what in ("reported", "reproduced"))]
        cells = [[(cell.reported, reproduced(runs, cell)) for cell in row] for row in rows]
    else:
        header = ["method", *itertools.chain(*((cell.column, f"above {baseline}, 95 %") for cell in rows[0]))]
        gains = [_gains(runs, list(column), baseline) for column in zip(*rows, strict=True)]
        cells = [
            [(reproduced(runs, cell), gain.get(cell.recipe, "")) for cell, gain in zip(row, gains, strict=True)]
            for row in rows
        ]
    body = [[row[0].method, *itertools.chain(*line)] for row, line in zip(rows, cells, strict=True)]
    title, source = entry["title"], f"{'Reported' if baseline is None else 'Source'}: {entry['source']}."
    if config.model is not None and baseline is None:
        title, source = f"{title}; here with {config.model}", "Reported: nothing, the paper's model is another."
    has_judge = any(cell.judge_file for cell in rows[0])
    notes = [source, SINGLE, *([BY_JUDGE] if has_judge else []), *_left_out(config)]
    model = [f"MODEL={config.model}"] if config.model else []
    command = " ".join([*_judge_needs(config), "make", config.table, *model])
    missing = [f"What is missing comes by `{command}`."] if NOT_RUN in itertools.chain(*body) else []
    return "\n\n".join([f"## {title}", "\n".join(notes), markdown_table((header, body)), *missing])


def _gains(runs: Path, column: list[Cell], baseline: str) -> dict[str, str]:
    """Compare the runs of a column with one of them, row by row on the test rows and over seeds where there are any.

    Returns:
        Recipe → the gain in points with its 95 % interval; `–` for the baseline.
    """
    found = {}
    for cell in column:
        folder = runs / cell.run
        seeds = sorted(folder.glob("seed_*/eval")) if (folder / SEEDS_FILE).is_file() else []
        for evaluation in seeds or [folder / "eval"]:
            name = f"{cell.recipe}/{evaluation.parent.name}" if seeds else cell.recipe
            if correct := load_correctness(evaluation / "predictions.jsonl"):
                found[name] = correct
    compared = compare_to_baseline(found, baseline)
    gains = {one.run: str(one) for one in compared[1]} if compared else {}
    return {baseline: UNKNOWN} | gains


def _left_out(config: TableConfig) -> list[str]:
    """Say of each of a table's settings how many training rows were set aside, where any were."""
    notes = []
    for setting in dict.fromkeys(column["setting"] for column in _columns(config)):
        path = Path(config.runs, setting, "prepare/stats.json")
        found = read_json(path) if path.is_file() else {}
        reasons = {"held out for validation": found.get("held_out"), "prompts of a benchmark": found.get("leaked")}
        counts = ", ".join(f"{count:,} {what}" for what, count in reasons.items() if count)
        rows = sum(found.get(part) or 0 for part in ("train", "held_out", "leaked"))
        if counts:
            notes.append(f"{setting}: not trained on, unlike in the paper: {counts} (of {rows:,} rows).")
    return notes


def reproduced(runs: Path, cell: Cell) -> str:
    """Return our number for a cell, or `not run`."""
    if cell.reported == NOT_APPLICABLE:
        return UNKNOWN
    if cell.metric in FIGURE_METRICS or cell.metric in BRIDGING_METRICS:
        return _of_analysis(runs / cell.setting, cell)
    found = load_metric(runs / cell.run, cell.metric)
    return NOT_RUN if found is None else found[1]


def _of_analysis(folder: Path, cell: Cell) -> str:
    """Return what an analysis of a setting, or its bridging, says of a cell."""
    try:
        if cell.metric in FIGURE_METRICS:
            return _of_figure(folder / "analyze/figures", cell) or NOT_RUN
        path = folder / cell.recipe / "stats.json"
        return (_of_bridging(read_json(path), cell.metric) if path.is_file() else None) or NOT_RUN
    except DAMAGED:
        what = f"hold no {cell.metric} that can be read; run make {cell.target} again"
        raise user_error(str(folder), f"its files {what}") from None


def _of_figure(folder: Path, cell: Cell) -> str | None:
    """Read a number of a figure's CSV, with the interval and n that stand after it."""
    figure, column, where = FIGURE_METRICS[cell.metric]
    path, wanted = folder / f"{figure}.csv", {**where, **({"run": cell.recipe} if "run" in where else {})}
    if not path.is_file():
        return None
    header, *lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    for line in lines:
        if all(line[header.index(name)] == value for name, value in wanted.items()):
            place = header.index(column)
            value, low, high, n = [*line[place : place + 4], "", "", ""][:4]
            interval = f" [{float(low):.2f}, {float(high):.2f}] (n = {n})" if low and high else ""
            return f"{float(value):.2f}{interval}" if value else None
    return None


def _of_bridging(stats: dict[str, Any], metric: str) -> str | None:
    """Return the share of pairs that needed no edit, or the mean cosine of a response and its edit."""
    if metric == "bridging.no_edit_needed":
        pairs = sum(stats["reasons"].get(reason, 0) for reason in NO_EDIT_NEEDED)
        return f"{100 * pairs / stats['rows']:.1f} % (n = {stats['rows']})"
    cosine = stats["similarity"].get("cosine")
    if not cosine:
        return None
    value = cosine["edit_y_l" if stats["mode"] == "degrade" else "y_w_edit"]
    return None if value is None else f"{value:.2f} (n = {stats['bridged']})"
