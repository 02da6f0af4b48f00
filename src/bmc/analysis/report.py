"""`report.md` and `report.html`: all that is known of the runs below a folder, to be read and to be looked at."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import logging
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from markupsafe import Markup

from ..bridging import stats as bridging
from ..config import ReportConfig
from ..errors import user_error
from ..evaluation.judges import lost
from ..evaluation.summary import NOT_RUN, SEEDS_FILE, Table, join_names, markdown_table, seeds_cell
from ..provenance import read_provenance
from ..runs import write_text
from ..web import data, data_uri, render
from .results import (
    ANALYSIS_FILE,
    DIFFERENCE_HEADER,
    DIFFERENCE_NOTE,
    NO_INTERVAL,
    OVERVIEW_NOTE,
    REPORTED,
    STATE_FILE,
    Column,
    Comparison,
    Run,
    are_numbers,
    as_dict,
    as_dicts,
    comparability_warnings,
    compare_to_baseline,
    find_files,
    find_runs,
    load_correctness,
    missing_rows,
    overview,
    overview_table,
    read_or_warn,
    run_name,
)

logger = logging.getLogger(__name__)
TEMPLATE = Path(__file__).parent / "templates/report.html.jinja"
SCRIPTS = ("runs.js", "predictions.js", "viewer.js")
SEEDS_NOTE = (
    "Mean ± standard deviation of the accuracy in %, over the seeds that a method was trained with; in brackets the "
    "mean's 95 % t interval over seeds, on these test rows."
)
STAGES_NOTE = "What each stage took and made, in the order in which they ended."


class TitledTable(NamedTuple):
    """A table with a title and a sentence on what it shows."""

    title: str
    note: str
    header: list[str]
    rows: list[list[str]]


def report(config: ReportConfig) -> str:
    """Write `report.md` and `report.html`, return the tables as Markdown, and warn of what a reader must know.

    Raises:
        UserErrors: There is no such folder, no run in it, two runs have one name, or an evaluation's files are damaged.
    """
    root, notices = Path(config.runs), list[str]()
    if not root.is_dir():
        raise user_error(config.runs, "no such folder; give the one that the runs were written to")
    runs, analyses = find_runs(root, notices), find_files(root, ANALYSIS_FILE)
    if not (runs or analyses):
        raise user_error(
            config.runs, "holds no run; train one by scripts/preference.py, evaluate it by scripts/evaluate.py"
        )
    evaluated = {name: run.evaluation for name, run in runs.items() if run.evaluation}
    predictions = {name: folder / "predictions.jsonl" for name, folder in evaluated.items()}
    correctness = {name: load_correctness(path) for name, path in predictions.items()}
    notices += [*comparability_warnings(runs), *missing_rows(runs, correctness), *_verdict_warnings(runs, root)]
    columns, compared = overview(runs, root), compare_to_baseline(correctness)
    tables = list(_tables(root, list(runs), columns, compared, notices))
    markdown = "\n\n".join(
        f"## {one.title}\n\n{one.note}\n\n{markdown_table((one.header, one.rows))}" for one in tables
    )
    values: dict[str, Any] = {
        "title": f"Runs in {root}",
        "names": list(runs),
        "columns": columns,
        "differences": compared[1] if compared else [],
        "span": _difference_span(compared),
        "tables": dict.fromkeys(["Scores", "Seeds", "Differences"]) | {one.title: one for one in tables},
        "predictions": predictions_data(predictions, notices),
        "curves": curves(_states(runs, notices)),
        "tokens": _tokens(analyses, notices),
        "analyses": [(run_name(path.parent, root), *figures(path.parent, notices)) for path in analyses],
        "bridged": list(_bridged(root, notices)),
        "records": [(name, provenance(folder)) for name, folder in _sources(runs, root).items()],
        "notices": notices,
    }
    html = render(TEMPLATE, ["report.css"], SCRIPTS, **values)
    for notice in notices:
        logger.warning(notice)
    output = Path(config.output_dir or config.runs)
    parts = [f"# Runs in {root}", "\n".join(f"- {notice}" for notice in notices), markdown]
    write_text(output / "report.md", "\n\n".join(filter(None, parts)))
    write_text(output / "report.html", html)
    return markdown


# Tables


def _tables(
    root: Path, names: list[str], columns: list[Column], compared: Comparison, notices: list[str]
) -> Iterator[TitledTable]:
    """Make the tables of `report.md`."""
    if columns:
        controlled = NO_INTERVAL if any(column.metric == "judge.alpaca_eval_lc" for column in columns) else ""
        reported = REPORTED if any(column.reported for column in columns) else ""
        yield TitledTable("Scores", OVERVIEW_NOTE + controlled + reported, *overview_table(names, columns))
    if seeds := over_seeds(root, notices):
        yield TitledTable("Seeds", SEEDS_NOTE, *seeds)
    if compared:
        baseline, rows = compared
        note = DIFFERENCE_NOTE.format(baseline=baseline, count=sum(row.p is not None for row in rows))
        yield TitledTable("Differences", note, DIFFERENCE_HEADER, [row.cells() for row in rows])
    yield TitledTable("Stages", STAGES_NOTE, *stages(root, notices))


def _difference_span(compared: Comparison) -> tuple[float, float]:
    gains = [row.gain[:3] for row in compared[1] if row.gain] if compared else []
    ends = [0.0, *(end for gain in gains for end in gain if end is not None)]
    return min(ends), max(ends)


def _verdict_warnings(runs: dict[str, Run], root: Path) -> Iterator[str]:
    """Name the verdicts that no score is made of, and the trained models without scores."""
    for name, run in runs.items():
        for benchmark, file in run.judge_results.items():
            old = "{unreadable} of the verdicts can't be read; they are not scored"
            if file.content.get("unreadable"):
                yield f"{name}: {benchmark}: {lost(file.content) or old.format_map(file.content)}"
    how = "scripts/evaluate.py RECIPE --model_name_or_path MODEL --output_dir MODEL/eval"
    if names := [name for name, run in runs.items() if run.evaluation is None]:
        yield f"{join_names(names)}: trained and not evaluated; run {how}"


def over_seeds(root: Path, notices: list[str]) -> Table | None:
    """Make a table with a line for each method that was trained with several seeds; None where none was."""
    found: dict[str, dict[str, str]] = {}
    for path in find_files(root, SEEDS_FILE):
        results = as_dict((read_or_warn(path, notices) or {}).get("results"))
        try:
            found[run_name(path.parent, root)] = {name: seeds_cell(result) for name, result in results.items()}
        except (AttributeError, KeyError, TypeError, ValueError):
            notices.append(f"{path}: isn't what --seeds writes; run it again")
    benchmarks = list(dict.fromkeys(name for results in found.values() for name in results))
    rows = [[method, *(cells.get(name, NOT_RUN) for name in benchmarks)] for method, cells in sorted(found.items())]
    return (["method", *benchmarks], rows) if benchmarks else None


def stages(root: Path, notices: list[str]) -> Table:
    """Make a table with a line for each folder that a stage wrote, in the order in which they were finished."""
    paths = [*find_files(root, "stats.json"), *find_files(root, "metrics.json")]
    rows = []
    for path in sorted(paths, key=lambda path: path.stat().st_mtime):
        stats = read_or_warn(path, notices)
        if stats is not None:
            seconds = stats.get("seconds")
            took = f"{seconds:,.0f} s" if isinstance(seconds, int | float) else "–"
            rows.append([str(path.parent.relative_to(root)), took, _made(stats)])
    return ["stage", "took", "made"], rows


def _made(stats: dict[str, Any]) -> str:
    """Say in words what a stage made."""
    names = ("rows", "kept", "bridged", "dropped", "pairs", "n", "train", "validation", "test")
    if "kept" in stats:
        form = "{kept} of {rows} pairs kept ({bridged} bridged), {dropped} dropped"
    elif "pairs" in stats:
        form = "{pairs} pairs sampled, {dropped} dropped"
    elif "leaked" in stats:
        form = "{train} training, {validation} validation and {test} test rows"
    else:
        form = "{n} responses scored" if "results" in stats else "a model, from {rows} rows"
    return form.format(**{name: stats.get(name, "?") for name in names})


# Training curves, which runs.js draws

PANELS = {
    "loss": ("Loss", "of the objective that a run minimises; of different objectives not to be compared"),
    "rewards/margins": ("Reward margin", "reward of ỹ_w less that of y_l, the plain DPO reward"),
    "rewards/accuracies": ("Reward accuracy", "share of pairs in which ỹ_w has the higher reward"),
    "rewards/chosen": ("Reward of ỹ_w", "β Σ log π_θ/π_ref; below 0 the policy has moved away from it"),
    "rewards/rejected": ("Reward of y_l", "β Σ log π_θ/π_ref"),
    "k3/chosen": ("k3 on ỹ_w", "r − 1 − log r a token, r = π_ref/π_θ: the policy's distance on these texts, not a KL"),
    "grad_norm": ("Gradient norm", "before clipping"),
    "diff/weight": ("Mean λ", "of the tokens that differ; 1 without weights"),
    "diff/share": ("Differing tokens", "as a share of the response tokens"),
    "tokens_per_second": ("Tokens per second", "pushed through the model by all ranks"),
    "tokens_saved": ("Tokens saved", "by sharing prefixes and packing, of those of two padded sequences a pair"),
    "mfu": ("MFU", "least FLOPs of a step, nothing computed twice, over the cards' bf16 peak"),
}


def _states(runs: dict[str, Run], notices: list[str]) -> dict[str, Any]:
    paths = {name: run.folder / STATE_FILE for name, run in runs.items() if run.folder}
    states = {name: read_or_warn(path, notices) for name, path in paths.items() if path.exists()}
    return {name: state for name, state in states.items() if state is not None}


def curves(states: dict[str, Any]) -> dict[str, Any]:
    """Collect what is drawn of training: a panel a metric, a line a run.

    Returns:
        `runs`, `panels` (title, note, and their numbers as a table), and `drawn`, the same for the script.
    """
    logged = {run: logged_metrics(state) for run, state in states.items()}
    if any("rewards/margins" in found for found in logged.values()):  # SFT has other losses, and nothing else
        logged = {run: found for run, found in logged.items() if "rewards/margins" in found}
    logged = {run: found for run, found in logged.items() if found}
    panels, drawn = [], []
    for key, (title, note) in PANELS.items():
        lines = {place: found[key] for place, found in enumerate(logged.values()) if found.get(key)}
        if lines:
            values = [dict(points) for points in lines.values()]
            steps = sorted({step for points in values for step in points})
            rows = [[str(step), *(f"{one[step]:.4g}" if step in one else "" for one in values)] for step in steps]
            panels.append({"title": title, "note": note, "names": [list(logged)[n] for n in lines], "rows": rows})
            drawn.append({"title": title, "lines": list(lines.items())})
    return {"runs": list(logged), "panels": panels, "drawn": {"runs": list(logged), "panels": drawn}}


def logged_metrics(state: dict[str, Any]) -> dict[str, list[tuple[int, float]]]:
    """Collect (step, value) by metric; what is no finite number is left out."""
    found: dict[str, list[tuple[int, float]]] = {}
    for entry in as_dicts(state.get("log_history")):
        for key in PANELS if isinstance(entry.get("step"), int) else ():
            value = entry.get(key)
            if isinstance(value, int | float) and isfinite(value):
                found.setdefault(key, []).append((entry["step"], value))
    return found


# Figures of an analysis

FIGURE_TYPES = {"svg": "image/svg+xml", "png": "image/png", "csv": "text/csv"}
MAX_LINES = 100  # of a figure's numbers, that are shown as a table too


def figures(folder: Path, notices: list[str]) -> tuple[list[dict[str, Any]], list[tuple[str, str, str]]]:
    """Load the figures that an analysis left, and what it says is missing: name, why, command."""
    path = folder / ANALYSIS_FILE
    found, drawn = read_or_warn(path, notices) or {}, []
    for figure in as_dicts(found.get("figures")):
        try:
            drawn.append(_figure(folder, figure))
        except (OSError, KeyError, TypeError) as error:
            why = f"{error.filename} can't be read" if isinstance(error, OSError) else f"it has no {error}"
            notices.append(f"{path}: {figure.get('name')}: isn't shown, {why}; analyze again")
    missing = as_dicts(found.get("missing"))
    return drawn, [
        (str(one.get("name")), str(one.get("why")).rstrip("."), str(one.get("command") or "")) for one in missing
    ]


def _figure(folder: Path, figure: dict[str, Any]) -> dict[str, Any]:
    kind = "svg" if figure.get("svg") else "png"
    return {
        "title": str(figure.get("title") or figure["name"]),
        "caption": str(figure.get("caption") or ""),
        # as a picture, in which no script of an SVG runs
        "picture": data_uri(FIGURE_TYPES[kind], (folder / figure[kind]).read_bytes()),
        "csv": _numbers(folder / figure["csv"]) if figure.get("csv") else None,
    }


def _numbers(path: Path) -> dict[str, Any]:
    """Read a figure's numbers: to download, and where they are few to read."""
    content = path.read_bytes()
    header, *rows = list(csv.reader(content.decode("utf-8", "replace").splitlines())) or [[]]
    few = len(rows) <= MAX_LINES and all(len(row) == len(header) for row in rows)
    uri = data_uri(FIGURE_TYPES["csv"], content)
    return {"name": path.name, "uri": uri, "header": header, "rows": rows if few else []}


# Bridging and provenance


def _bridged(root: Path, notices: list[str]) -> Iterator[tuple[str, list[bridging.Section]]]:
    """Collect what `stats.html` shows of each bridging run, from its `stats.json` and `train.jsonl`."""
    for folder in _bridging_folders(root):
        summary = read_or_warn(folder / "stats.json", notices) or {}
        try:
            with (folder / "train.jsonl").open(encoding="utf-8") as lines:
                examples = bridging.examples_of(map(json.loads, lines), summary.get("mode", "targeted"))
            yield run_name(folder, root), bridging.sections(summary, examples)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"{Path(error.filename).name} can't be read" if isinstance(error, OSError) else repr(error)
            notices.append(f"{folder}: what bridging did can't be shown ({why}); bridge again")


def _bridging_folders(root: Path) -> list[Path]:
    return [path.parent for path in find_files(root, "stats.json") if "kept" in (read_or_warn(path, []) or {})]


def _sources(runs: dict[str, Run], root: Path) -> dict[str, Path]:
    """Name every folder that a run's numbers come from."""
    return (
        {f"{name}: evaluation": run.evaluation for name, run in runs.items() if run.evaluation}
        | {f"{name}: {key}": one.path.parent for name, run in runs.items() for key, one in run.judge_results.items()}
        | {f"{name}: training": run.folder for name, run in runs.items() if run.folder}
        | {f"{run_name(folder, root)}: bridging": folder for folder in _bridging_folders(root)}
    )


def provenance(folder: Path) -> dict[str, Any] | None:
    """Collect what `provenance.json` says: commit, data and day in short, all facts, and the recipe; None without."""
    record = read_provenance(folder)
    if not record:
        return None
    git, model, files = as_dict(record.get("git")), as_dict(record.get("model")), as_dicts(record.get("data"))
    commit, dirty = git.get("commit"), git.get("dirty")
    changed = ", with changes that weren't committed" if dirty else ""
    digests = " ".join(str(entry.get("sha256"))[:7] for entry in files)
    short = [
        f"commit {str(commit)[:7]}{' and changes' if dirty else ''}" if commit else "",
        f"data {digests}" if digests else "",
        str(record.get("started") or "")[:10],
    ]
    named = [f"{entry.get('file', str(entry.get('rows')) + ' rows as read')}" for entry in files]
    data = (f"{name}, SHA-256 {entry.get('sha256')}" for name, entry in zip(named, files, strict=True))
    versions = as_dict(record.get("versions"))
    rows = {
        "Command": str(record.get("command")),
        "Commit": f"{commit}{changed}" if commit else "none recorded",
        "Data": "; ".join(data) or "none recorded",
        "Model": " ".join(f"{key} {value}" if key != "name" else str(value) for key, value in model.items()),
        "Seed": str(record.get("seed")),
        "Started": str(record.get("started")),
        "Resumed": f"{len(record['resumed'])} times" if record.get("resumed") else "",
        "Versions": ", ".join(f"{name} {found}" for name, found in versions.items() if found),
        "Machine": ", ".join(f"{name} {found}" for name, found in as_dict(record.get("host")).items()),
    }
    recipe = yaml.safe_dump(record.get("recipe"), sort_keys=True, allow_unicode=True)
    return {
        "short": ", ".join(filter(None, short)),
        "facts": {name: value for name, value in rows.items() if value},
        "recipe": recipe,
    }


# Browser of predictions, by predictions.js. Names and verdicts stand in the page as they are; prompts, and each run's
# responses, are compressed (gzip in base64) and unpacked when they are shown.

MAX_ROWS = 20_000  # that the page holds
SHOWN_FIRST = ("dpo", "dpo_bmc")


def predictions_data(files: dict[str, Path], notices: list[str]) -> Markup:
    """Make the data of the browser of predictions; nothing where no file has a row."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    found: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    left_out = 0
    for run, path in files.items():
        mine: dict[tuple[str, str], dict[str, Any]] = {}
        for row in _predictions(path):
            key = str(row.get("source") or "data"), str(row.get("id"))
            if key not in rows and len(rows) >= MAX_ROWS:
                left_out += 1
                continue
            rows.setdefault(key, {"prompt": _text(row.get("prompt")), "gold": _text(row.get("gold"))})
            mine[key] = row
        if mine:
            found[run] = mine
    if not rows:
        return Markup()
    if left_out:
        what = f"holds the first {MAX_ROWS:,} rows; {left_out:,} predictions are left out"
        notices.append(f"the browser of predictions {what}")
    head = {
        "runs": list(found),
        "shown": runs_shown_first(list(found)),
        "ids": [id for _, id in rows],
        "sources": [source for source, _ in rows],
        "verdicts": ["".join(_verdict(mine.get(key)) for key in rows) for mine in found.values()],
    }
    packed = [_packed([[row["prompt"], row["gold"]] for row in rows.values()])]
    packed += [_packed([_response(mine.get(key), row) for key, row in rows.items()]) for mine in found.values()]
    return data("predictions-index", [head]) + "\n" + data("predictions-texts", packed)


def runs_shown_first(runs: list[str]) -> list[str]:
    """Choose the two runs that are shown at first: DPO and DPO-BMC, or else the first two."""
    named = [run for name in SHOWN_FIRST for run in runs if run.split("/")[-1] == name]
    return list(dict.fromkeys([*named, *runs]))[:2]


def _predictions(path: Path) -> Iterator[dict[str, Any]]:
    """Read the rows that are objects; what can't be read has stopped the report already."""
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as lines:
            yield from (row for line in lines if isinstance(row := json.loads(line), dict))


def _verdict(row: dict[str, Any] | None) -> str:
    """Return 1 (right), 0 (wrong), ? (not scored) or - (no such row)."""
    if row is None:
        return "-"
    return "?" if row.get("correct") is None else "1" if row["correct"] else "0"


def _response(row: dict[str, Any] | None, known: dict[str, str]) -> list[str]:
    """Return response and extracted answer; the prompt too, where it isn't the one that the page has."""
    if row is None:
        return []
    prompt, answer, response = (_text(row.get(key)) for key in ("prompt", "answer", "prediction"))
    return [response, "" if answer == response else answer, *([prompt] if prompt != known["prompt"] else [])]


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _packed(rows: list[Any]) -> str:
    """Compress rows as JSON; half a surrogate pair, which UTF-8 lacks, becomes a question mark."""
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return base64.b64encode(gzip.compress(text, 6, mtime=0)).decode()


# Token viewer, by viewer.js. Pairs stand in the page a line each, and so do the numbers of each run, in whole
# ten-thousandths; a line is read when its pair is shown. A run whose tokens of a pair differ brings its own.

UNIT = 10_000
MAX_PAIRS = 500  # that the page holds
SIDES = ("chosen", "rejected")
NUMBERS = ("rewards", "probabilities", "weights")


def _tokens(analyses: list[Path], notices: list[str]) -> dict[str, Any]:
    """Make the viewer's data from the first analysis that has tokens, and say where its pairs are from."""
    folders = [path.parent for path in analyses if (path.parent / "tokens").is_dir()]
    if not folders:
        return {"note": "", "data": ""}
    if len(folders) > 1:
        others = join_names([str(folder.parent) for folder in folders[1:]])
        notices.append(f"the tokens shown are those of {folders[0].parent}; report {others} alone to see theirs")
    home = folders[0] / "tokens"
    files = {str(path.relative_to(home).with_suffix("")): path for path in sorted(home.rglob("*.jsonl"))}
    pairs = as_dict((read_or_warn(folders[0] / ANALYSIS_FILE, []) or {}).get("pairs"))
    note = f"Pairs: {pairs['from']}." if "from" in pairs else ""
    return {"note": note, "data": token_data(files, notices)}


def token_data(files: dict[str, Path], notices: list[str]) -> Markup:
    """Make the data of the token viewer; nothing where no file has a pair."""
    pairs: dict[str, dict[str, Any]] = {}
    numbers: dict[str, dict[str, Any]] = {}
    total = 0
    for run, path in files.items():
        found, rows = {}, 0
        for row in _token_rows(path, notices):
            rows += 1
            texts = {side: _token_texts(row[side]) for side in SIDES}
            if row["id"] not in pairs and len(pairs) >= MAX_PAIRS:
                continue
            known = pairs.setdefault(row["id"], {"id": row["id"], "prompt": row["prompt"], **texts})
            own = {} if all(known[side] == texts[side] for side in SIDES) else {"texts": texts}
            found[row["id"]] = {side: _token_numbers(row[side]) for side in SIDES} | own
        if found:
            numbers[run] = found
        total = max(total, rows)
    if not pairs:
        return Markup()
    if total > len(pairs):
        notices.append(f"the token viewer holds the first {len(pairs)} of {total} pairs")
    names = list(numbers)
    head = {"runs": names, "shown": runs_shown_first(names), "unit": UNIT, "scale": color_scale(numbers)}
    lines = [data("viewer", [head]), data("pairs", list(pairs.values()))]
    lines += [data(f"run-{n}", [found.get(pair) for pair in pairs]) for n, found in enumerate(numbers.values())]
    return Markup("\n").join(lines)


def color_scale(numbers: dict[str, dict[str, Any]]) -> int:
    """Find where the colours end on either side: the 99th percentile of |reward| over all runs' tokens, in `UNIT`s."""
    rewards = [line[side]["rewards"] for found in numbers.values() for line in found.values() for side in SIDES]
    every = np.abs(np.fromiter((reward for line in rewards for reward in line), dtype=np.int64))
    return max(1, round(float(np.percentile(every, 99)))) if every.size else 1


def _token_texts(side: dict[str, Any]) -> dict[str, Any]:
    return {"tokens": side["tokens"], "differs": "".join("01"[bool(differs)] for differs in side["differs"])}


def _token_numbers(side: dict[str, Any]) -> dict[str, Any]:
    """Round a response's numbers to `UNIT`s, with the sum of its rewards; without `weights` where every λ is 1."""
    whole: dict[str, Any] = {name: [round(UNIT * value) for value in side[name]] for name in NUMBERS}
    if all(weight == UNIT for weight in whole["weights"]):
        del whole["weights"]
    return whole | {"reward": round(UNIT * sum(side["rewards"]))}


def _token_rows(path: Path, notices: list[str]) -> Iterator[dict[str, Any]]:
    """Read the lines that are whole; name the first of the others in a notice."""
    bad: list[int] = []
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                row = _token_row(line)
                if row is not None:
                    yield row
                else:
                    bad.append(number)
    except OSError as error:
        notices.append(f"{path}: can't be read ({error.strerror or error}); analyze again")
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        notices.append(f"{path}: row {bad[0]}{more}: is no pair with its tokens' numbers; analyze again")


def _token_row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        row["id"], row["prompt"] = str(row["id"]), str(row["prompt"])
        for side in (row[name] for name in SIDES):
            count = len(side["tokens"])
            fine = len(side["differs"]) == count and all(isinstance(token, str) for token in side["tokens"])
            numbers = [side[name] for name in NUMBERS]
            if not fine or not all(len(each) == count and are_numbers(*each) for each in numbers):
                return None
    except (ValueError, KeyError, TypeError):
        return None
    return dict(row)
