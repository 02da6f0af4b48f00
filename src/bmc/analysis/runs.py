"""What lies below a folder of runs: evaluations, trainings, analyses, and what is missing or damaged among them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import Faults, fail
from .cells import read_json

ANALYSIS = "analysis.json"
STATE = "trainer_state.json"


@dataclass(frozen=True)
class Told:
    """What a file says of a run.

    Attributes:
        path: The file.
        said: Its content, or the part that is meant.
    """

    path: Path
    said: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """An evaluated model.

    Attributes:
        folder: Of the evaluation.
        metrics: `metrics.json`, with `results`.
        judged: Benchmark → what a judge said (`judged.json`).
        harness: Task → what lm-evaluation-harness measured (`tasks` of `lm_eval.json`).
    """

    folder: Path
    metrics: dict[str, Any]
    judged: dict[str, Told] = field(default_factory=dict)
    harness: dict[str, Told] = field(default_factory=dict)


def name_of(folder: Path, root: Path) -> str:
    """What a run is called: its folder's path below the root, without a closing `eval`."""
    parts = folder.relative_to(root).parts
    return "/".join(parts[:-1] if parts[-1:] == ("eval",) else parts) or root.name


def find_runs(root: Path) -> dict[str, Run]:
    """Name of a run → its evaluation.

    Raises:
        Faults: A file of an evaluation can't be read or isn't of its shape, or two are of one run.
    """
    runs = _evaluations(root)
    for path in find(root, "judged.json"):
        said = read_json(path)
        name, run = _owner(runs, path, said, root)
        benchmark = str(said.get("benchmark"))
        if benchmark in run.judged:
            both = f"{run.judged[benchmark].path} and {path}"
            raise fail(str(root), f"{name} was judged twice on {benchmark}: {both}; move or remove one of them")
        run.judged[benchmark] = Told(path, said)
    for path in find(root, "lm_eval.json"):
        found = read_json(path)
        tasks = found.get("tasks")
        if not isinstance(tasks, dict):
            raise fail(str(path), "has no tasks; run lm-eval again")
        _owner(runs, path, found, root)[1].harness.update(
            {name: Told(path, dict_of(one)) for name, one in tasks.items()}
        )
    return runs


def _evaluations(root: Path) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    for path in find(root, "metrics.json"):
        metrics = read_json(path)
        if "results" not in metrics:
            continue  # a training's
        _check(metrics, path)
        name = name_of(path.parent, root)
        if name in runs:
            both = f"{runs[name].folder / path.name} and {path}"
            raise fail(str(root), f"two runs are called {name}: {both}; move or remove one of them")
        runs[name] = Run(path.parent, metrics)
    return runs


def _owner(runs: dict[str, Run], path: Path, found: dict[str, Any], root: Path) -> tuple[str, Run]:
    """The run that a file is about: in whose folder it lies, or in one below, or whose responses it names; else a new
    one.
    """
    near = [path.parent, path.parent.parent, Path(str(found.get("responses", path.parent)))]
    for folder in (one.resolve() for one in near):
        for name, run in runs.items():
            home = run.folder.resolve()
            if folder == home or (home.name == "eval" and folder == home.parent):
                return name, run
    name = name_of(path.parent, root)
    return name, runs.setdefault(name, Run(path.parent, {"results": {}}))


def find_trainings(root: Path, notices: list[str]) -> dict[str, Path]:
    """Name → folder of the models that were trained, evaluated or not.

    Args:
        root: Folder of the runs.
        notices: Gets what can't be read.
    """
    found: dict[str, Path] = {}
    for path in find(root, "metrics.json", STATE):
        training = path.name == STATE or "results" not in (readable(path, notices) or {"results": ""})
        if training and not path.parent.name.startswith("checkpoint-"):
            found[name_of(path.parent, root)] = path.parent
    return found


def find(root: Path, *names: str) -> list[Path]:
    """Files of these names, sorted, but those of a sweep, which is scored on other rows."""
    paths = sorted(path for name in names for path in root.rglob(name))
    return [path for path in paths if not any((folder / "sweep.json").exists() for folder in path.parents)]


def readable(path: Path, notices: list[str]) -> dict[str, Any] | None:
    """A JSON object, or None with a notice where it can't be read."""
    try:
        return read_json(path)
    except Faults as error:
        notices.append(str(error))
        return None


def _check(metrics: dict[str, Any], path: Path) -> None:
    results = metrics["results"]
    if not isinstance(results, dict):
        raise fail(f"{path}: results", "is no mapping of benchmarks; remove the file and evaluate again")
    for name, result in results.items():
        try:
            numbers = [result["accuracy"], *result["interval"], result.get("accuracy_released", 0.0)]
            whole = len(numbers) == 4 and are_numbers(*numbers, result["n"], whole=result["n"])
            whole = whole and all(0 <= number <= 1 for number in numbers)
        except (KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            what = "lacks accuracy, interval or n; remove the file and evaluate again"
            raise fail(f"{path}: results.{name}", what)


def dict_of(value: Any) -> dict[str, Any]:
    """A mapping that may be missing or something else."""
    return value if isinstance(value, dict) else {}


def dicts_of(value: Any) -> list[dict[str, Any]]:
    """The mappings of a list that may be missing or something else."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def are_numbers(*values: Any, whole: Any = 0) -> bool:
    """Whether these are numbers within reason, and one of them a count."""
    fine = all(isinstance(value, int | float) and abs(value) < 1e9 for value in values)  # NaN is not
    return fine and isinstance(whole, int) and whole >= 0
