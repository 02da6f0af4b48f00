"""One table over all runs below a folder."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from ..config import ReportConfig
from ..errors import fail
from .differences import NOTE as DIFFERENCES
from .differences import differences
from .seeds import FILE, seeds_cell

NOTE = "Accuracy in %, with its 95 % Wilson interval and the number of rows. Each line is a single run."
SEEDS = "Mean ± standard deviation of the accuracy in %, over the seeds that a method was trained with."
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1a1a1a; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .4rem .9rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }}
thead th {{ border-bottom: 2px solid #1a1a1a; }}
</style>
<h1>{title}</h1>
{tables}
</html>
"""
Table = tuple[list[str], list[list[str]]]


def report(config: ReportConfig) -> str:
    """Writes `report.md` and `report.html` and returns the Markdown.

    Raises:
        Faults: There is no such folder, or no evaluated run in it.
    """
    folder = Path(config.runs)
    if not folder.is_dir():
        raise fail(config.runs, "no such folder; give the one that the runs were written to")
    folders = find_runs(folder)
    runs = {name: read_json(path / "metrics.json") for name, path in folders.items()}
    if not runs:
        raise fail(config.runs, "holds no evaluated run (metrics.json with `results`); run scripts/evaluate.py")
    sections = [("Accuracy", NOTE, accuracies(runs)), ("Stages", "What each stage took and made.", stages(folder))]
    if seeds := over_seeds(folder):
        sections.insert(1, ("Seeds", SEEDS, seeds))
    compared = differences(folders)
    if compared:
        baseline, rows = compared
        table = (["run", "benchmark", "difference", "p"], rows)
        sections.insert(-1, ("Differences", DIFFERENCES.format(baseline=baseline), table))
    markdown = "\n\n".join(f"## {title}\n\n{note}\n\n{markdown_table(table)}" for title, note, table in sections)
    output = Path(config.output_dir or config.runs)
    output.mkdir(parents=True, exist_ok=True)
    (output / "report.md").write_text(f"# Runs in {folder}\n\n{markdown}\n", encoding="utf-8")
    tables = "\n".join(f"<h2>{title}</h2>\n<p>{note}</p>\n{_html(table)}" for title, note, table in sections)
    page = _PAGE.format(title=html.escape(f"Runs in {folder}"), tables=tables)
    (output / "report.html").write_text(page, encoding="utf-8")
    return markdown


def find_runs(folder: Path) -> dict[str, Path]:
    """Name of a run → the folder of its evaluation. The name is that folder's path, without a closing `eval`.

    Raises:
        Faults: A `metrics.json` can't be read.
    """
    runs = {}
    for path in sorted(folder.rglob("metrics.json")):
        if read_json(path).get("results") and not _of_a_sweep(path):
            parts = path.parent.relative_to(folder).parts
            runs["/".join(parts[:-1] if parts[-1:] == ("eval",) else parts) or folder.name] = path.parent
    return runs


def over_seeds(folder: Path) -> Table | None:
    """Header and rows: a line for each method that was trained with several seeds; None where none was."""
    found = {str(path.parent.relative_to(folder)): read_json(path)["results"] for path in folder.rglob(FILE)}
    benchmarks = list(dict.fromkeys(name for results in found.values() for name in results))
    rows = [
        [method, *(seeds_cell(results[name]) if name in results else "not run" for name in benchmarks)]
        for method, results in sorted(found.items())
    ]
    return (["method", *benchmarks], rows) if rows else None


def _of_a_sweep(path: Path) -> bool:
    """Whether a run is a sweep's, which is scored on other rows."""
    return any((folder / "sweep.json").exists() for folder in path.parents)


def accuracies(runs: dict[str, dict[str, Any]]) -> Table:
    """Header and rows: a line a run, a column a benchmark, and the average where there are several."""
    benchmarks = sorted({name for metrics in runs.values() for name in metrics["results"]})
    several = ["average"] if len(benchmarks) > 1 else []
    rows = []
    for name, metrics in runs.items():
        average = [f"{100 * metrics['average']:.1f}" if "average" in metrics else "–" for _ in several]
        rows.append([name, *(accuracy_cell(metrics["results"].get(b)) for b in benchmarks), *average])
    return ["run", *benchmarks, *several], rows


def accuracy_cell(result: dict[str, Any] | None) -> str:
    """A share in %, with its interval and n: `50.0 [20.0, 80.0] (n = 10)`."""
    if result is None:
        return "not run"
    low, high = result["interval"]
    return f"{100 * result['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}] (n = {result['n']})"


def stages(folder: Path) -> Table:
    """Header and rows: a line for each folder that a stage wrote, in the order in which they were finished."""
    paths = sorted((p for p in folder.rglob("*.json") if p.name in ("stats.json", "metrics.json")), key=_time)
    rows = []
    for path in paths:
        stats = read_json(path)
        rows.append([str(path.parent.relative_to(folder)), f"{stats.get('seconds', 0):.0f} s", _made(stats)])
    return ["stage", "took", "made"], rows


def _time(path: Path) -> float:
    return path.stat().st_mtime


def _made(stats: dict[str, Any]) -> str:
    """What a stage's numbers say, in words."""
    if "kept" in stats:
        return f"{stats['kept']} of {stats['rows']} pairs kept ({stats['bridged']} bridged), {stats['dropped']} dropped"
    if "pairs" in stats:
        return f"{stats['pairs']} pairs sampled, {stats['dropped']} dropped"
    if "leaked" in stats:
        return f"{stats['train']} training, {stats['validation']} validation and {stats['test']} test rows"
    if "results" in stats:
        return f"{stats['n']} responses scored"
    return f"a model, from {stats.get('rows', '?')} rows"


def read_json(path: Path) -> dict[str, Any]:
    """What a stage wrote.

    Raises:
        Faults: It is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise fail(str(path), "is not JSON; remove it and run its stage again") from None


def markdown_table(table: Table) -> str:
    """A table in GitHub's Markdown, numbers to the right."""
    header, rows = table
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _html(table: Table) -> str:
    header, rows = table
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "\n".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'
