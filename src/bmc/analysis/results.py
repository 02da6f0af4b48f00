"""The runs below a folder: their results with intervals, whether they are comparable, and how they differ."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from ..config import EvaluateConfig
from ..data.schema import digest
from ..errors import UserErrors, user_error
from ..evaluation.stats import Z95, holm, paired_difference, share_interval, wilson
from ..evaluation.summary import (
    NOT_RUN,
    SEEDS_FILE,
    Estimate,
    Table,
    average,
    join_names,
    percent,
    seed_estimate,
    seeds_cell,
)
from ..manual import default_of
from ..pipeline import OUTPUTS
from ..program import trains_on_pairs
from ..provenance import file_digest, read_provenance
from ..recipe import load_recipe
from ..runs import RECIPE_FILE, read_json

ANALYSIS_FILE = "analysis.json"
STATE_FILE = "trainer_state.json"
METHODS = {"dpo": "DPO", "dpo_mc": "DPO-MC", "dpo_bc": "DPO-BC", "dpo_bmc": "DPO-BMC"}
REPORTED_NUMBERS = "recipes/reported.yaml"
UNKNOWN = "–"


# Runs


@dataclass(frozen=True)
class ResultFile:
    """A JSON file that belongs to a run."""

    path: Path
    content: dict[str, Any]  # all of it, or the part that is meant


@dataclass(eq=False)
class Run:
    """A model: its training, its evaluation, or both."""

    name: str  # its folder below the folder of all runs: `dpo_bmc`, `ablations/dpo_bmc_delta_1.5`
    folder: Path | None = None  # where it was trained; None where only its evaluation is there
    # where `metrics.json` with `results` lies, or else the first file of a judge or of lm-eval
    evaluation: Path | None = None
    results: dict[str, Any] = field(default_factory=dict)  # benchmark → accuracy, interval, n
    # Benchmark → what a judge found (`judge_results.json`)
    judge_results: dict[str, ResultFile] = field(default_factory=dict)
    # Task → what lm-evaluation-harness measured (`tasks` of `lm_eval.json`)
    harness: dict[str, ResultFile] = field(default_factory=dict)

    @property
    def trained(self) -> Path:
        """Return the folder of the training; ValueError without one."""
        if self.folder is None:
            raise ValueError(f"{self.name} has no training")
        return self.folder

    @property
    def benchmarks(self) -> list[str]:
        """Return what it was scored on."""
        return [*self.results, *self.judge_results]

    @property
    def method(self) -> str:
        """Return its name in a figure."""
        return METHODS.get(self.name, self.name)

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """Return the recipe that it was trained by."""
        return read_json(self.trained / RECIPE_FILE)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Return what its training measured."""
        return read_json(self.trained / "metrics.json")

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """Return what was logged while it trained; nothing where that wasn't kept."""
        path = self.trained / STATE_FILE
        return list(read_json(path).get("log_history", [])) if path.is_file() else []

    @property
    def steps(self) -> int | None:
        """Return its optimizer steps; None where they weren't kept."""
        return max((line["step"] for line in self.history if "step" in line), default=None)

    @property
    def has_weights(self) -> bool:
        """Return whether its model is still there."""
        return _has_weights(self.trained)

    def checkpoints(self) -> list[tuple[int, Path]]:
        """Find step and folder of each checkpoint that is whole and has weights."""
        from ..training.fault_tolerance import find_damage

        found = []
        for path in self.trained.glob("checkpoint-*"):
            number = re.fullmatch(r"checkpoint-(\d+)", path.name)
            if number and _has_weights(path) and find_damage(path) is None:
                found.append((int(number[1]), path))
        return sorted(found)


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


def find_files(root: Path, *names: str) -> list[Path]:
    """Find files by name, sorted; not those of a sweep, which is scored on other rows."""
    paths = sorted(path for name in names for path in root.rglob(name))
    return [path for path in paths if not any((folder / "sweep.json").exists() for folder in path.parents)]


def judge_files(root: Path) -> list[Path]:
    """Find the files of judge results; before 0.2 their name was `judged.json`."""
    return find_files(root, "judge_results.json", "judged.json")


def run_name(folder: Path, root: Path) -> str:
    """Name a run: its folder's path below the root, without a closing `eval`."""
    parts = folder.relative_to(root).parts
    return "/".join(parts[:-1] if parts[-1:] == ("eval",) else parts) or root.name


def find_runs(root: Path, notices: list[str]) -> dict[str, Run]:
    """Find all runs below a folder, by name, the evaluated ones first.

    What can't be read of trainings becomes a notice.

    Raises:
        UserErrors: A file of an evaluation can't be read or isn't of its shape, or two are of one run.
    """
    runs = _evaluations(root)
    for path in judge_files(root):
        found = read_json(path)
        run, benchmark = _owner(runs, path, found, root), str(found.get("benchmark"))
        if benchmark in run.judge_results:
            both = f"{run.judge_results[benchmark].path} and {path}"
            raise user_error(
                str(root), f"{run.name} has two judge results on {benchmark}: {both}; move or remove one of them"
            )
        run.judge_results[benchmark] = ResultFile(path, found)
    for path in find_files(root, "lm_eval.json"):
        found = read_json(path)
        if not isinstance(tasks := found.get("tasks"), dict):
            raise user_error(str(path), "has no tasks; run lm-eval again")
        files = {name: ResultFile(path, as_dict(task)) for name, task in tasks.items()}
        _owner(runs, path, found, root).harness.update(files)
    for path in find_files(root, "metrics.json", STATE_FILE):
        training = path.name == STATE_FILE or "results" not in (read_or_warn(path, notices) or {"results": ""})
        if training and not path.parent.name.startswith("checkpoint-"):
            name = run_name(path.parent, root)
            runs.setdefault(name, Run(name)).folder = path.parent
    return runs


def _evaluations(root: Path) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    for path in find_files(root, "metrics.json"):
        metrics = read_json(path)
        if "results" not in metrics:
            continue  # a training's
        _check_results(metrics["results"], path)
        name = run_name(path.parent, root)
        if name in runs:
            both = f"{runs[name].evaluation}/{path.name} and {path}"
            raise user_error(str(root), f"two runs are called {name}: {both}; move or remove one of them")
        runs[name] = Run(name, None, path.parent, metrics["results"])
    return runs


def _check_results(results: Any, path: Path) -> None:
    if not isinstance(results, dict):
        raise user_error(f"{path}: results", "is no mapping of benchmarks; remove the file and evaluate again")
    for name, result in results.items():
        try:
            numbers = [result["accuracy"], *result["interval"], result.get("accuracy_released", 0.0)]
            whole = len(numbers) == 4 and are_numbers(*numbers, result["n"], whole=result["n"])
            whole = whole and all(0 <= number <= 1 for number in numbers)
        except (KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            what = "lacks accuracy, interval or n; remove the file and evaluate again"
            raise user_error(f"{path}: results.{name}", what)


def _owner(runs: dict[str, Run], path: Path, found: dict[str, Any], root: Path) -> Run:
    """Find the run whose folder a file lies in (or in one below), or whose responses it names; else make one."""
    near = [path.parent, path.parent.parent, Path(str(found.get("responses", path.parent)))]
    for folder in (one.resolve() for one in near):
        for run in runs.values():
            home = run.evaluation.resolve() if run.evaluation else None
            if home and (folder == home or (home.name == "eval" and folder == home.parent)):
                return run
    name = run_name(path.parent, root)
    return runs.setdefault(name, Run(name, None, path.parent))


def read_or_warn(path: Path, notices: list[str]) -> dict[str, Any] | None:
    """Read a JSON object; None, with a notice, where it can't be read."""
    try:
        return read_json(path)
    except UserErrors as error:
        notices.append(str(error))
        return None


def as_dict(value: Any) -> dict[str, Any]:
    """Return a mapping that may be missing or something else."""
    return value if isinstance(value, dict) else {}


def as_dicts(value: Any) -> list[dict[str, Any]]:
    """Return the mappings of a list that may be missing or something else."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def are_numbers(*values: Any, whole: Any = 0) -> bool:
    """Tell whether these are numbers within reason, and one of them a count."""
    fine = all(isinstance(value, int | float) and abs(value) < 1e9 for value in values)  # NaN is not
    return fine and isinstance(whole, int) and whole >= 0


# Trained runs of one model and task, as an analysis takes them


def find_trained(setting: str, names: list[str]) -> tuple[list[Run], dict[str, str]]:
    """Find the finished runs of a model and task.

    Returns:
        `(runs, name → what is missing)`.

    Raises:
        UserErrors: There is no such folder, or none of them in it.
    """
    folder = Path(setting)
    if not folder.is_dir():
        raise user_error("setting", f"there is no folder {setting}; give the one that the runs were written to")
    runs, missing = [], {}
    for name in names:
        if (folder / name / "metrics.json").is_file():
            runs.append(Run(name, folder / name))
        else:
            missing[name] = "not finished" if (folder / name / RECIPE_FILE).exists() else NOT_RUN
    if not runs:
        what = f"holds no finished run {', '.join(names)} (metrics.json)"
        raise user_error(setting, f"{what}; {make_command(setting, names[-1])}")
    return runs, missing


def make_command(setting: str, *names: str) -> str:
    """Return the command that makes runs of a model and task, with what they need."""
    return f"make {' '.join(f'{_place(setting)}/{name}' for name in names)}"


def stage_command(name: str, setting: str) -> str:
    """Return the command of one stage alone, by the recipe of that name."""
    return f"python scripts/{name}.py recipes/{_place(setting)}/{name}.yaml"


def _place(setting: str) -> str:
    """Return a folder below `recipes`: the same as below `outputs`."""
    parts = Path(setting).parts
    return "/".join(parts[parts.index(OUTPUTS) + 1 :] if OUTPUTS in parts else parts[-2:])


def check_comparable(runs: list[Run]) -> None:
    """Check that runs share their reference, `max_length`, and tokenizer with its template.

    Raises:
        UserErrors: They don't.
    """
    first = runs[0]
    for run in runs[1:]:
        for what, of in (("reference model", _reference), ("tokenizer", _tokenizer), ("max_length", _max_length)):
            if of(run) != of(first):
                both = "" if of is _tokenizer else f" ({of(run)} and {of(first)})"
                raise user_error("runs", f"{run.name} has another {what} than {first.name}{both}; analyse them apart")


def _reference(run: Run) -> str:
    if named := run.recipe.get("ref_model_name_or_path"):
        return str(named)
    name, revision = run.recipe.get("model_name_or_path"), run.recipe.get("model_revision", "main")
    return f"{name}" if revision == "main" else f"{name}@{revision}"


def _max_length(run: Run) -> Any:
    return run.recipe.get("max_length", "TRL's default")


def _tokenizer(run: Run) -> list[str]:
    names = ("tokenizer.json", "chat_template.jinja")
    return [file_digest(path) if (path := run.trained / name).is_file() else "" for name in names]


# One metric of a run

JUDGE_METRICS = {  # kind of a judge's number → keys of `judge_results.json`: the number, and its interval if it has one
    "lc": ("length_controlled_win_rate", None),  # alpaca_eval's error is the spread of predictions, not of rows
    "wr": ("win_rate", "interval"),
    "length": ("length", None),
}


def accuracy_of(results: dict[str, Any]) -> Estimate | None:
    """Average an evaluation's `results` in %; None without a benchmark."""
    found = average(results)
    return None if found is None else percent(found)


def gradient_norm_of(state: dict[str, Any]) -> Estimate | None:
    """Average the finite gradient norms that a training logged; n is their number."""
    norms = [step["grad_norm"] for step in state["log_history"] if isfinite(step.get("grad_norm", float("nan")))]
    return Estimate(sum(norms) / len(norms), n=len(norms)) if norms else None


def judge_result(content: dict[str, Any], kind: str) -> Estimate | None:
    """Read a number of `judge_results.json`; None where the judge gave none."""
    key, interval = JUDGE_METRICS[kind]
    if content.get(key) is None:
        return None
    low, high = content.get(interval or "") or (None, None)
    return Estimate(content[key], low, high, content["n"])


def load_metric(folder: Path, metric: str) -> tuple[Estimate, str] | None:
    """Load one number of a run, and its text for a table; None where it wasn't measured.

    `accuracy` is in %, the macro average over benchmarks, over seeds the mean with its t interval; `grad_norm` the mean
    of those logged; `judge.BENCHMARK_lc` and `_wr` are win rates in %, `_length` a mean length.

    Raises:
        UserErrors: A file of the run is damaged.
    """
    path = folder / {"accuracy": "eval/metrics.json", "grad_norm": STATE_FILE}.get(metric, "")
    try:
        if metric == "accuracy" and (folder / SEEDS_FILE).is_file():
            path = folder / SEEDS_FILE
            results = read_json(path)["results"]  # on average, or on the only benchmark
            summary = results.get("average") or next(iter(results.values()))
            return seed_estimate(summary), seeds_cell(summary)
        found = None
        if path.is_file() and metric == "accuracy":
            found = accuracy_of(read_json(path)["results"])
        elif path.is_file():
            found = gradient_norm_of(read_json(path))
            return None if found is None else (found, f"{found.value:.2f} (n = {found.n} logged)")
        elif metric.startswith("judge"):
            benchmark, _, kind = metric.partition(".")[2].rpartition("_")
            for path in judge_files(folder):
                content = read_json(path)
                ours = "seed_" not in str(path.relative_to(folder))  # a seed's number isn't the run's
                ours = ours and content.get("benchmark", path.parent.name) == benchmark
                if ours and (found := judge_result(content, kind)):
                    break
        return None if found is None else (found, str(found))
    except (AttributeError, KeyError, TypeError, ValueError, StopIteration):
        what = f"isn't of the shape that {metric} needs; remove it and make it again"
        raise user_error(str(path), what) from None


# Overview: runs × benchmarks

BEST, HIGHEST = "best", "highest"
OVERVIEW_NOTE = (
    "In %, with 95 % intervals (Wilson's for accuracies) and the number of rows. Each line is a single run. "
    f'"{BEST}": no other run lies within its interval; "{HIGHEST}": some do, so that it may be chance.'
)
NO_INTERVAL = (
    " A length-controlled win rate has no interval: the error that alpaca_eval gives is the spread of its model's "
    "predictions."
)
REPORTED = (
    " The paper's numbers stand beside the runs of its settings, accuracies as averages over the paper's benchmarks; "
    f"{REPORTED_NUMBERS} says where they are from."
)
JUDGES = {"alpaca_eval": ("AlpacaEval 2", ("lc", "wr")), "arena_hard": ("Arena-Hard", ("wr",))}


@dataclass(frozen=True)
class Column:
    """A benchmark's numbers."""

    title: str
    scores: dict[str, Estimate]  # run → estimate in %
    metric: str | None = None  # its name in `reported.yaml`, where the paper has it
    reported: dict[str, str] = field(default_factory=dict)  # run of the paper's settings → the paper's number

    @property
    def reported_title(self) -> str:
        """Return the header of the paper's numbers."""
        return "the paper's average" if self.metric == "accuracy" else "the paper's"

    @property
    def n(self) -> int | None:
        """Return the number of rows, where it is the same for all runs."""
        counts = {score.n for score in self.scores.values()}
        return counts.pop() if len(counts) == 1 else None

    @property
    def span(self) -> tuple[float, float]:
        """Return the range that all values and intervals lie in."""
        ends = [end for score in self.scores.values() for end in score[:3] if end is not None]
        return min(ends), max(ends)

    def mark(self, run: str) -> str:
        """Return `best`, `highest` or nothing; nothing either where there is nothing to compare with."""
        score = self.scores.get(run)
        if score is None or len(self.scores) < 2 or any(other.value > score.value for other in self.scores.values()):
            return ""
        others = [other.value for name, other in self.scores.items() if name != run]
        clear = score.low is not None and all(other < score.low for other in others)
        return BEST if clear else HIGHEST


def overview(runs: dict[str, Run], root: Path) -> list[Column]:
    """Collect accuracies, their average, the released code's scoring, win rates, and lm-eval's metrics.

    Raises:
        UserErrors: A judge's or lm-eval's file isn't of its shape.
    """
    columns = [column for column in (*_accuracies(runs), *_win_rates(runs), *_harness(runs)) if column.scores]
    known = _reported(root, list(runs)) if columns else {}
    for column in columns:
        found = {run: known[run, column.metric] for run in runs if column.metric and (run, column.metric) in known}
        column.reported.update(found)
    return columns


def overview_table(runs: list[str], columns: list[Column]) -> Table:
    """Format the columns, a line a run."""
    header, rows = ["run"], [[name] for name in runs]
    for column in columns:
        header.append(column.title)
        for row in rows:
            row.append(str(column.scores.get(row[0], UNKNOWN if column.title == "average" else NOT_RUN)))
        if column.reported:
            header.append(f"{column.title}, {column.reported_title}")
            for row in rows:
                row.append(column.reported.get(row[0], UNKNOWN))
    return header, rows


def _accuracies(runs: dict[str, Run]) -> Iterator[Column]:
    results = {name: run.results for name, run in runs.items()}
    benchmarks = sorted({name for found in results.values() for name in found})
    for name in benchmarks:
        metric = "accuracy" if len(benchmarks) == 1 else None
        yield Column(name, {run: percent(found[name]) for run, found in results.items() if name in found}, metric)
    if len(benchmarks) > 1:
        several = {run: accuracy_of(found) for run, found in results.items() if len(found) > 1}
        yield Column("average", {run: mean for run, mean in several.items() if mean}, "accuracy")
    for name in benchmarks:
        released = {run: found[name] for run, found in results.items() if "accuracy_released" in found.get(name, {})}
        yield Column(f"{name}, released scoring", {run: _released(found) for run, found in released.items()})


def _released(result: dict[str, Any]) -> Estimate:
    share, n = result["accuracy_released"], result["n"]
    low, high = wilson(round(share * n), n)
    return Estimate(100 * share, 100 * low, 100 * high, n)


def _win_rates(runs: dict[str, Run]) -> Iterator[Column]:
    for benchmark in sorted({benchmark for run in runs.values() for benchmark in run.judge_results}):
        title, kinds = JUDGES.get(benchmark, (benchmark, ("wr",)))
        found = {name: run.judge_results[benchmark] for name, run in runs.items() if benchmark in run.judge_results}
        for kind in kinds:
            key, interval = JUDGE_METRICS[kind]
            scores = {
                run: _checked(file, key, file.content[key], file.content.get(interval or ""))
                for run, file in found.items()
                if file.content.get(key) is not None
            }
            yield Column(f"{title} {kind.upper()}", scores, f"judge.{benchmark}_{kind}")


def _harness(runs: dict[str, Run]) -> Iterator[Column]:
    for task in sorted({task for run in runs.values() for task in run.harness}):
        found = {name: run.harness[task] for name, run in runs.items() if task in run.harness}
        metrics = sorted({str(file.content.get("metric")) for file in found.values()})
        scores = {name: _harness_estimate(file, task) for name, file in found.items()}
        yield Column(f"{task}, lm-eval ({', '.join(metrics)})", scores)


def _harness_estimate(file: ResultFile, task: str) -> Estimate:
    """Convert a share (or another metric) and its standard error to an estimate in %."""
    share = _checked(file, f"tasks.{task}: value", file.content.get("value"), None)
    if file.content.get("stderr") is None:
        return Estimate(100 * share.value, n=share.n)
    error = _checked(file, f"tasks.{task}: stderr", file.content["stderr"], None).value
    low, high = share.value - Z95 * error, share.value + Z95 * error
    if 0 <= share.value <= 1 and share.n:
        low, high = share_interval(share.value, error, share.n)
    return Estimate(100 * share.value, 100 * low, 100 * high, share.n)


def _checked(file: ResultFile, key: str, value: Any, interval: Any) -> Estimate:
    """Return an estimate over a file's n rows."""
    n, ends = file.content.get("n"), interval or []
    if not (isinstance(ends, list) and len(ends) in (0, 2) and are_numbers(value, *ends, whole=n)):
        raise user_error(f"{file.path}: {key}", "is no number with an interval and n; make the file again")
    low, high = ends or (None, None)
    return Estimate(value, low, high, n)


def _reported(root: Path, names: list[str]) -> dict[tuple[str, str], str]:
    """Find (run, metric) → the paper's number, for runs whose path ends in SETTING/RECIPE of one of its tables."""
    path = Path(REPORTED_NUMBERS)
    known: dict[tuple[str, str], str] = {}
    for table in load_recipe(path)[0].values() if path.is_file() else ():
        for row in table["rows"]:
            for column, number in zip(table["columns"], row["reported"], strict=True):
                ending = f"/{column['setting']}/{row['recipe']}"
                for name in names if number is not None else ():
                    if str((root / name).resolve()).endswith(ending):
                        known.setdefault((name, row.get("metric") or column["metric"]), str(number))
    return known


# Comparability

SETTINGS = ("backend", "dtype", "max_new_tokens", "temperature", "top_p", "benchmarks")
NO_RECORD = "not recorded"
MAX_VARIANTS = 4  # that one sentence names


def comparability_warnings(runs: dict[str, Run]) -> list[str]:
    """Say what differs between runs that share a benchmark: rows, template, settings, judge, or training pairs."""
    evaluated = {name: run for name, run in runs.items() if run.evaluation}
    settings = {name: _settings(run) for name, run in evaluated.items()}
    shared = [[name for name, run in evaluated.items() if one in run.benchmarks] for one in _benchmarks(evaluated)]
    found = (sentence for names in shared for sentence in _differing({name: settings[name] for name in names}))
    return list(dict.fromkeys(found))


def missing_rows(runs: dict[str, Run], correctness: dict[str, Correctness]) -> list[str]:
    """Say which predictions are missing: of those that `metrics.json` counts, or of those that other runs have."""
    found = []
    for benchmark in _benchmarks(runs):
        rows = {name: hits[benchmark].keys() for name, hits in correctness.items() if benchmark in hits}
        every = dict.fromkeys(row for ids in rows.values() for row in ids)
        for name, run in runs.items():
            result, there = run.results.get(benchmark), set(rows.get(name, ()))
            if result and correctness[name] and len(there) != result["n"]:
                what = f"has {len(there)} of the {result['n']} rows of {benchmark} that metrics.json counts"
                found.append(f"{run.evaluation}/predictions.jsonl: {what}; evaluate again")
            lacking = [str(row) for row in every if row not in there]
            if lacking and name in rows:
                count = f"{len(lacking)} row{'s' * (len(lacking) > 1)}"
                found.append(
                    f"{name}: was not scored on {count} of {benchmark} that others have ({join_names(lacking)})"
                )
    return found


def _benchmarks(runs: dict[str, Run]) -> list[str]:
    return list(dict.fromkeys(name for run in runs.values() for name in run.benchmarks))


def _settings(run: Run) -> dict[str, str]:
    """Describe a run's evaluation settings, as strings that are equal where the settings are."""
    if run.evaluation is None:
        return {}
    model, found = run.evaluation.parent, {}
    record = read_provenance(run.evaluation)
    if record is None or not isinstance(record.get("recipe"), dict):
        found["how it was evaluated"] = NO_RECORD
    else:
        recipe = record["recipe"]
        defaults = {field.name: default_of(field) for field in dataclasses.fields(EvaluateConfig)}
        found["evaluation data"] = _data(record)
        found["chat template"] = _template(recipe.get("chat_template"), model)
        found |= {key: str(recipe.get(key, defaults[key])) for key in SETTINGS}
    training = read_provenance(model)
    if training and trains_on_pairs(str(training.get("command"))):  # SFT has other data by its nature
        found["training data"] = _data(training)
    for benchmark, file in run.judge_results.items():
        found[f"{benchmark}'s judge"] = str(file.content.get("judge"))
        found[f"{benchmark}'s reference"] = str(file.content.get("reference"))
    return found


def _data(record: dict[str, Any]) -> str:
    """Describe data by the digests of its files and which of their rows were taken."""
    digests = [str(entry.get("sha256"))[:12] for entry in as_dicts(record.get("data"))]
    parts = as_dicts(as_dict(as_dict(record.get("recipe")).get("dataset_mixture")).get("datasets"))
    taken = [{key: value for key, value in part.items() if key != "id"} for part in parts]
    chosen = ", ".join(f"{key} {json.dumps(value)}" for part in taken for key, value in sorted(part.items()))
    return " ".join(filter(None, ["SHA-256", *digests, chosen and f"({chosen})"]))


def _template(value: Any, model: Path) -> str:
    """Describe a template by the digest of its text: the recipe's, or else the one saved with the model."""
    given = None if value is None else str(value)
    path = Path(given) if given and "\n" not in given and len(given) < 500 else model / "chat_template.jinja"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        text = given or ""
    return f"the one with digest {digest(text.strip())[:8]}" if text else "the tokenizer's"


def _differing(settings: dict[str, dict[str, str]]) -> list[str]:
    found = []
    for what in dict.fromkeys(key for one in settings.values() for key in one):
        groups: dict[str, list[str]] = defaultdict(list)
        for name, one in settings.items():
            if what in one:
                groups[one[what]].append(name)
        if what == "how it was evaluated" and len(groups[NO_RECORD]) < len(settings):
            found.append(f"{join_names(groups[NO_RECORD])}: {what} isn't recorded (no provenance.json)")
        elif len(groups) > 1:
            variants = sorted(groups.items(), key=lambda group: -len(group[1]))
            named = "; ".join(f"{value} for {join_names(names)}" for value, names in variants[:MAX_VARIANTS])
            named += f"; {len(variants) - MAX_VARIANTS} other values" if len(variants) > MAX_VARIANTS else ""
            found.append(f"not comparable: {what} is {named}")
    return found


# Differences from a baseline on the same rows

BASELINE = "dpo"
DIFFERENCE_NOTE = (
    "Accuracy in points above {baseline}, row by row on the same test rows, with a 95 % interval. Of single runs it is "
    "the score interval (Tango), and p is McNemar's exact one: they show the chance in the rows, not in the training. "
    "Of several seeds they are t intervals and tests over seeds and rows; where only one of the two methods has "
    "several, the other is taken to vary as much. The last column is p adjusted for all comparisons of this table "
    "(Holm): below 0.05 there, one can say that something differs, though {count} were tried."
)
DIFFERENCE_HEADER = ["run", "benchmark", "difference", "p", "p (Holm)"]
Correctness = dict[str, dict[str, bool]]  # benchmark → row id → whether it is right
Seeds = dict[int | None, dict[str, bool]]  # seed → row id → whether it is right


@dataclass(frozen=True)
class Difference:
    """What a run gains over the baseline on a benchmark."""

    run: str  # the run, or the method of several seeds
    benchmark: str
    gain: Estimate | None = None  # in points, over n rows; None where the two were scored on other rows
    p: float | None = None  # two-sided p-value
    adjusted: float | None = None  # the same, by Holm, for all comparisons of the table
    seeds: tuple[int, int] = (1, 1)  # how many of this method and of the baseline

    def cells(self) -> list[str]:
        """Return the cells of its line, as in `DIFFERENCE_HEADER`."""
        p_values = ("" if p is None else f"{p:.3g}" for p in (self.p, self.adjusted))
        return [self.run, self.benchmark, str(self), *p_values]

    def __str__(self) -> str:
        if self.gain is None:
            return "other rows"
        several = f", {self.seeds[0]} against {self.seeds[1]} seeds" if max(self.seeds) > 1 else ""
        return f"{self.gain.value:+.1f} [{self.gain.low:+.1f}, {self.gain.high:+.1f}] (n = {self.gain.n}{several})"


Comparison = tuple[str, list[Difference]] | None  # the baseline's name, and the differences


def compare_to_baseline(found: dict[str, Correctness], named: str | None = None) -> Comparison:
    """Compare each run with the baseline: by default the run whose name ends in `dpo`, or else the first.

    Runs `X/seed_1`, `X/seed_2` are one, `X`.

    Returns:
        The baseline's name, and the differences; None where no two runs can be compared.
    """
    runs: dict[str, dict[str, Seeds]] = {}
    for run, benchmarks in found.items():
        method, seed = method_and_seed(run)
        for benchmark, hits in benchmarks.items():
            runs.setdefault(method, {}).setdefault(benchmark, {})[seed] = hits
    baseline = named or next((name for name in runs if name.split("/")[-1] == BASELINE), next(iter(runs), None))
    if baseline not in runs or len(runs) < 2:
        return None
    theirs = runs.pop(baseline)
    pairs = ((name, ours, benchmark) for name, ours in runs.items() for benchmark in sorted(ours.keys() & theirs))
    differences = [_compare(name, benchmark, ours[benchmark], theirs[benchmark]) for name, ours, benchmark in pairs]
    adjusted = iter(holm([one.p for one in differences if one.p is not None]))
    return baseline, [one if one.p is None else replace(one, adjusted=next(adjusted)) for one in differences]


def _compare(name: str, benchmark: str, ours: Seeds, theirs: Seeds) -> Difference:
    ids = list(next(iter(theirs.values())))
    if any(hits.keys() != set(ids) for hits in (*ours.values(), *theirs.values())):
        return Difference(name, benchmark)
    mine, other = (np.array([[hits[row] for row in ids] for hits in seeds.values()], bool) for seeds in (ours, theirs))
    gain, (low, high), p = paired_difference(mine, other)
    points = Estimate(100 * gain, 100 * low, 100 * high, len(ids))
    return Difference(name, benchmark, points, p, seeds=(len(ours), len(theirs)))


def method_and_seed(run: str) -> tuple[str, int | None]:
    """Split `dpo/seed_3` into `("dpo", 3)`; any other name has no seed."""
    found = re.fullmatch(r"(.*?)/?seed_(\d+)", run)
    return (found[1], int(found[2])) if found else (run, None)


def load_correctness(path: Path) -> Correctness:
    """Load which predictions are right (`predictions.jsonl`); nothing where nothing was scored.

    Raises:
        UserErrors: A line is no prediction.
    """
    found: Correctness = {}
    if not path.exists():
        return found
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                if row["correct"] is not None:
                    found.setdefault(row["source"] or "data", {})[row["id"]] = bool(row["correct"])
            except (ValueError, KeyError, TypeError):
                raise user_error(
                    f"{path}: row {number}", "is no prediction; remove the folder and evaluate again"
                ) from None
    return found
