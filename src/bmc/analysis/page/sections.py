"""What stands in `report.html` beside charts and tokens: scores, figures, bridging, and how each number came about."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import yaml

from ... import runs as provenance
from ...bridging.page import sections as bridging_sections
from ...bridging.statistics import examples_of
from ...web.page import breakable, data_uri, escape, facts, table
from ..differences import HEADER, Compared
from ..overview import NOT_RUN, Column, Score
from ..runs import dict_of, dicts_of, readable
from .curves import chooser

KINDS = {"svg": "image/svg+xml", "png": "image/png", "csv": "text/csv"}
MOST_LINES = 100  # of a figure's numbers, that are shown as a table too


def notices(said: list[str]) -> str:
    """What a reader must know before the numbers."""
    if not said:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in said)
    return (
        f'<section class="notices" aria-labelledby="notices"><h2 id="notices">Mind this</h2><ul>{items}</ul></section>'
    )


def scores(runs: list[str], columns: list[Column]) -> str:
    """The overview: the value above its interval, the best in bold and named."""
    header, rows = ["run"], [[breakable(run)] for run in runs]
    for column in columns:
        ends = [end for score in column.scores.values() for end in (score.low, score.value, score.high)]
        span = min(end for end in ends if end is not None), max(end for end in ends if end is not None)
        counts = {score.n for score in column.scores.values()}
        (n,) = counts if len(counts) == 1 else (None,)
        header.append(_head(column.title, f"n = {n:,}" if n is not None else ""))
        for run, row in zip(runs, rows, strict=True):
            row.append(_score(column.scores.get(run), column.mark(run), n is None, span))
        if column.reported:
            header.append(_head(column.title, column.papers))
            for run, row in zip(runs, rows, strict=True):
                row.append(escape(column.reported.get(run, "–")))
    choice = f"<details><summary>Choose runs</summary>{chooser(runs, {})}</details>" if len(runs) > 2 else ""
    return choice + table("scores of each run", header, rows, runs=runs)


def _head(title: str, below: str) -> str:
    """A column's name, what kind of number it holds, and what stands below."""
    name, _, kind = title.partition(", ")
    return escape(name) + "".join(f"<br><small>{escape(line)}</small>" for line in (kind, below) if line)


def _score(score: Score | None, mark: str, with_n: bool, span: tuple[float, float]) -> str:
    if score is None:
        return f'<span class="none">{NOT_RUN}</span>'
    value = f"{score.value:.1f}"
    value = f'<b>{value}</b> <span class="mark">{mark}</span>' if mark else value
    n = f", n = {score.n:,}" if with_n and score.n is not None else ""
    interval = "no interval" if score.low is None else f"{score.low:.1f} to {score.high:.1f}"
    return f"{value}<br><small>{interval}{n}</small>{_whisker(score, span)}"


def differences(compared: Compared) -> str:
    """What each run gains over the baseline, with its interval beside the line of no difference."""
    rows = compared[1] if compared else []
    ends = [0.0, *(end for row in rows for end in row.gain or ())]
    body = []
    for row in rows:
        _, benchmark, told, *p = map(escape, row.cells())
        drawn = _whisker(Score(*row.gain), (min(ends), max(ends)), zero=True) if row.gain else ""
        body.append([breakable(row.run), benchmark, told, drawn, *p])
    header = [*HEADER[:3], "interval", *HEADER[3:]]
    return table("differences from the baseline", header, body, (1,), [row.run for row in rows]) if body else ""


def _whisker(score: Score, span: tuple[float, float], zero: bool = False) -> str:
    """The interval and the value as a line with a dot, on a scale that the column shares."""
    if score.low is None or score.high is None:
        return ""

    def x(value: float) -> float:
        return 4 + 92 * (value - span[0]) / ((span[1] - span[0]) or 1)

    line = f'<line x1="{x(score.low):.1f}" y1="4" x2="{x(score.high):.1f}" y2="4"/>'
    dot = f'<circle cx="{x(score.value):.1f}" cy="4" r="3"/>'
    none = f'<line class="zero" x1="{x(0):.1f}" y1="0" x2="{x(0):.1f}" y2="8"/>' if zero else ""
    return f'<svg class="whisker" viewBox="0 0 100 8" aria-hidden="true">{none}{line}{dot}</svg>'


def figures(folder: Path, said: list[str]) -> str:
    """The figures that an analysis left, inside the page, and what it says is missing.

    Args:
        folder: Of the analysis.
        said: Gets what can't be read.
    """
    found = readable(folder / "analysis.json", said) or {}
    parts = []
    for figure in dicts_of(found.get("figures")):
        try:
            parts.append(_figure(folder, figure))
        except (OSError, KeyError, TypeError) as error:
            why = f"{error.filename} can't be read" if isinstance(error, OSError) else f"it has no {error}"
            said.append(f"{folder / 'analysis.json'}: {figure.get('name')}: isn't shown, {why}; analyze again")
    missing = "".join(map(_missing, dicts_of(found.get("missing"))))
    listed = f'<h3>Not made</h3><ul class="missing">{missing}</ul>' if missing else ""
    return f'<div class="figures">{"".join(parts)}</div>{listed}' if parts else listed


def _missing(one: dict[str, Any]) -> str:
    why = str(one.get("why")).rstrip(".")
    how = f". Make it with <code>{escape(str(one['command']))}</code>" if one.get("command") else ""
    return f"<li><b>{escape(str(one.get('name')))}</b>: {escape(why)}{how}</li>"


def _figure(folder: Path, figure: dict[str, Any]) -> str:
    kind = "svg" if figure.get("svg") else "png"
    title, caption = str(figure.get("title") or figure["name"]), str(figure.get("caption") or "")
    # as a picture, in which no script of an SVG runs
    picture = data_uri(KINDS[kind], (folder / figure[kind]).read_bytes())
    numbers = _numbers(folder / figure["csv"], title) if figure.get("csv") else ""
    return (
        f'<figure class="figure"><img alt="{escape(f"{title}. {caption}")}" src="{picture}">'
        f"<figcaption><b>{escape(title)}</b><br>{escape(caption)}</figcaption>{numbers}</figure>"
    )


def _numbers(path: Path, title: str) -> str:
    """A figure's numbers to take along, and where they are few to read."""
    content = path.read_bytes()
    header, *rows = list(csv.reader(content.decode("utf-8", "replace").splitlines())) or [[]]
    few = len(rows) <= MOST_LINES and all(len(row) == len(header) for row in rows)
    shown = table(title, [*map(escape, header)], [[*map(escape, row)] for row in rows]) if few and rows else ""
    name, uri = escape(path.name), data_uri(KINDS["csv"], content)
    link = f'<p><a download="{name}" href="{uri}">{name}</a></p>'
    return f"<details><summary>Numbers</summary>{link}{shown}</details>"


def bridging(folder: Path, said: list[str]) -> str:
    """What `stats.html` shows of a bridging run, from its `stats.json` and `train.jsonl`."""
    summary = readable(folder / "stats.json", said) or {}
    try:
        with (folder / "train.jsonl").open(encoding="utf-8") as lines:
            examples = examples_of(map(json.loads, lines), summary.get("mode", "targeted"))
        parts = bridging_sections(summary, examples)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{Path(error.filename).name} can't be read" if isinstance(error, OSError) else repr(error)
        said.append(f"{folder}: what bridging did can't be shown ({why}); bridge again")
        return ""
    tiles = []
    for title, text in parts:
        head = f"<h4>{title or 'Pairs'}</h4>"
        if title == "Examples":
            tiles.append(f'<details class="whole"><summary>{title}</summary>{text}</details>')
        else:
            tiles.append(f"<div{' class=whole' if '<figure' in text else ''}>{head}{text}</div>")
    return f'<div class="charts">{"".join(tiles)}</div>'


def origins(folders: dict[str, Path]) -> str:
    """How each run's numbers came about, one fold each."""
    parts = []
    for name, folder in folders.items():
        record = provenance.read_provenance(folder)
        text = _origin(name, record) if record else "<p>There is no provenance.json that can be read.</p>"
        short = _short(record) if record else "no record"
        parts.append(f"<details><summary>{escape(name)} <small>{short}</small></summary>{text}</details>")
    return "\n".join(parts)


def _short(record: dict[str, Any]) -> str:
    """What tells a run from others at a glance: commit, data, day."""
    git = dict_of(record.get("git"))
    commit = f"commit {str(git['commit'])[:7]}{' and changes' if git.get('dirty') else ''}" if git.get("commit") else ""
    digests = " ".join(str(entry.get("sha256"))[:7] for entry in dicts_of(record.get("data")))
    day = str(record.get("started") or "")[:10]
    return escape(", ".join(filter(None, [commit, f"data {digests}" if digests else "", day])))


def _origin(name: str, record: dict[str, Any]) -> str:
    git, model = dict_of(record.get("git")), dict_of(record.get("model"))
    changed = ", with changes that weren't committed" if git.get("dirty") else ""
    versions = ", ".join(f"{name} {found}" for name, found in dict_of(record.get("versions")).items() if found)
    host = ", ".join(f"{name} {found}" for name, found in dict_of(record.get("host")).items())
    data = [
        f"{escape(str(entry.get('file', str(entry.get('rows')) + ' rows as read')))}<br>"
        f"<small>SHA-256 {escape(str(entry.get('sha256')))}</small>"
        for entry in dicts_of(record.get("data"))
    ]
    rows = {
        "Command": f"<code>{escape(str(record.get('command')))}</code>",
        "Commit": f"{escape(str(git['commit']))}{changed}" if git.get("commit") else "none recorded",
        "Data": "<br>".join(data) or "none recorded",
        "Model": " ".join(escape(f"{key} {value}" if key != "name" else str(value)) for key, value in model.items()),
        "Seed": escape(str(record.get("seed"))),
        "Started": escape(str(record.get("started"))),
        "Resumed": escape(str(len(record["resumed"]))) + " times" if record.get("resumed") else "",
        "Versions": escape(versions),
        "Machine": escape(host),
    }
    recipe = yaml.safe_dump(record.get("recipe"), sort_keys=True, allow_unicode=True)
    shown = facts("", {name: value for name, value in rows.items() if value})
    text = f'<pre class="text" tabindex="0" role="group" aria-label="recipe of {escape(name)}">{escape(recipe)}</pre>'
    return f'<div class="origin">{shown}</div><p class="label">Recipe</p>{text}'
