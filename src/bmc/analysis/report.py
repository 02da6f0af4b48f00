"""`report.md` and `report.html`: all that is known of the runs below a folder, to be read and to be looked at."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..config import ReportConfig
from ..errors import fail
from ..evaluation.judges import lost
from ..runs import write_text
from .alike import missing_rows, unlike
from .cells import Named, Table, listed, markdown_table
from .differences import HEADER, Compared, differences, hits_of
from .differences import NOTE as DIFFERENCES
from .overview import NO_INTERVAL, REPORTED, Column, as_table, overview
from .overview import NOTE as SCORES
from .page.whole import Found, page
from .runs import ANALYSIS, dict_of, find, find_runs, find_trainings, name_of, readable
from .seeds import FILE, seeds_cell

logger = logging.getLogger(__name__)

SEEDS = (
    "Mean ± standard deviation of the accuracy in %, over the seeds that a method was trained with; in brackets the "
    "mean's 95 % t interval over seeds, on these test rows."
)
STAGES = "What each stage took and made, in the order in which they ended."


def report(config: ReportConfig) -> str:
    """Writes `report.md` and `report.html` and returns the tables as Markdown; warns of what a reader must know.

    Raises:
        Faults: There is no such folder, no run in it, two runs have one name, or an evaluation's files are damaged.
    """
    root, notices = Path(config.runs), list[str]()
    if not root.is_dir():
        raise fail(config.runs, "no such folder; give the one that the runs were written to")
    found = Found(root, find_runs(root), find_trainings(root, notices), find(root, ANALYSIS))
    if not (found.runs or found.trained or found.analyses):
        raise fail(config.runs, "holds no run; train one by scripts/preference.py, evaluate it by scripts/evaluate.py")
    hits = {name: hits_of(run.folder / "predictions.jsonl") for name, run in found.runs.items()}
    notices += [*unlike(found.runs), *missing_rows(found.runs, hits), *_unreadable(found), *_not_evaluated(found)]
    columns, compared = overview(found.runs, root), differences(hits)
    tables = list(_tables(found, columns, compared, notices))
    markdown = "\n\n".join(f"## {one.title}\n\n{one.note}\n\n{markdown_table(one.cells)}" for one in tables)
    html = page(found, columns, compared, tables, notices)
    for notice in notices:
        logger.warning(notice)
    output = Path(config.output_dir or config.runs)
    parts = [f"# Runs in {root}", "\n".join(f"- {notice}" for notice in notices), markdown]
    write_text(output / "report.md", "\n\n".join(filter(None, parts)))
    write_text(output / "report.html", html)
    return markdown


def _tables(found: Found, columns: list[Column], compared: Compared, notices: list[str]) -> Iterator[Named]:
    """The tables of `report.md`."""
    if columns:
        controlled = any(column.metric == "judged.alpaca_eval_lc" for column in columns)
        note = (
            SCORES
            + (NO_INTERVAL if controlled else "")
            + (REPORTED if any(column.reported for column in columns) else "")
        )
        yield Named("Scores", note, as_table(found.names, columns))
    if seeds := over_seeds(found.root, notices):
        yield Named("Seeds", SEEDS, seeds)
    if compared:
        baseline, rows = compared
        count = sum(row.p is not None for row in rows)
        cells = HEADER, [row.cells() for row in rows]
        yield Named("Differences", DIFFERENCES.format(baseline=baseline, count=count), cells)
    yield Named("Stages", STAGES, stages(found.root, notices))


def _unreadable(found: Found) -> list[str]:
    """The verdicts that no score is made of."""
    judged = {f"{name}: {key}": told.said for name, run in found.runs.items() for key, told in run.judged.items()}
    unreadable = {what: said for what, said in judged.items() if said.get("unreadable")}
    old = "{unreadable} of the verdicts can't be read; they are not scored"
    return [f"{what}: {lost(said) or old.format_map(said)}" for what, said in unreadable.items()]


def _not_evaluated(found: Found) -> list[str]:
    """The trained models without scores."""
    names = [name for name in found.trained if name not in found.runs]
    how = "scripts/evaluate.py RECIPE --model_name_or_path MODEL --output_dir MODEL/eval"
    return [f"{listed(names)}: trained and not evaluated; run {how}"] if names else []


def over_seeds(root: Path, notices: list[str]) -> Table | None:
    """Header and rows: a line for each method that was trained with several seeds; None where none was."""
    found: dict[str, dict[str, str]] = {}
    for path in find(root, FILE):
        results = dict_of((readable(path, notices) or {}).get("results"))
        try:
            found[name_of(path.parent, root)] = {name: seeds_cell(result) for name, result in results.items()}
        except (AttributeError, KeyError, TypeError, ValueError):
            notices.append(f"{path}: isn't what --seeds writes; run it again")
    benchmarks = list(dict.fromkeys(name for results in found.values() for name in results))
    rows = [[method, *(cells.get(name, "not run") for name in benchmarks)] for method, cells in sorted(found.items())]
    return (["method", *benchmarks], rows) if benchmarks else None


def stages(root: Path, notices: list[str]) -> Table:
    """Header and rows: a line for each folder that a stage wrote, in the order in which they were finished."""
    paths = [*find(root, "stats.json"), *find(root, "metrics.json")]
    rows = []
    for path in sorted(paths, key=lambda path: path.stat().st_mtime):
        stats = readable(path, notices)
        if stats is not None:
            seconds = stats.get("seconds")
            took = f"{seconds:,.0f} s" if isinstance(seconds, int | float) else "–"
            rows.append([str(path.parent.relative_to(root)), took, _made(stats)])
    return ["stage", "took", "made"], rows


def _made(stats: dict[str, Any]) -> str:
    """What a stage's numbers say, in words."""
    said = {name: stats.get(name, "?") for name in ("rows", "kept", "bridged", "dropped", "pairs", "n")}
    said |= {name: stats.get(name, "?") for name in ("train", "validation", "test")}
    if "kept" in stats:
        form = "{kept} of {rows} pairs kept ({bridged} bridged), {dropped} dropped"
    elif "pairs" in stats:
        form = "{pairs} pairs sampled, {dropped} dropped"
    elif "leaked" in stats:
        form = "{train} training, {validation} validation and {test} test rows"
    else:
        form = "{n} responses scored" if "results" in stats else "a model, from {rows} rows"
    return form.format(**said)
