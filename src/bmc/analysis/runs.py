"""What lies below a folder of runs: evaluations, trainings, analyses, and what is missing or damaged among them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from ..errors import Faults, fail
from .cells import read_json

EVALUATION = ("metrics.json", "judged.json", "lm_eval.json")
ANALYSIS = "analysis.json"
STATE = "trainer_state.json"


@dataclass(frozen=True)
class Run:
    """An evaluated model.

    Attributes:
        folder: Of the evaluation.
        metrics: `metrics.json`, with `results`.
        judged: `judged.json`: what a judge said.
        harness: `tasks` of `lm_eval.json`: what lm-evaluation-harness measured.
    """

    folder: Path
    metrics: dict[str, Any]
    judged: dict[str, Any] = field(default_factory=dict)
    harness: dict[str, Any] = field(default_factory=dict)


def name_of(folder: Path, root: Path) -> str:
    """What a run is called: its folder's path below the root, without a closing `eval`."""
    parts = folder.relative_to(root).parts
    return "/".join(parts[:-1] if parts[-1:] == ("eval",) else parts) or root.name


def find_runs(root: Path) -> dict[str, Run]:
    """Name of a run → its evaluation.

    Raises:
        Faults: A file of an evaluation can't be read or isn't of its shape, or two runs have one name.
    """
    runs: dict[str, Run] = {}
    for folder in sorted({path.parent for path in _files(root, *EVALUATION)}):
        paths = {file: folder / file for file in EVALUATION if (folder / file).exists()}
        found = {file: read_json(path) for file, path in paths.items()}
        metrics = found.pop("metrics.json", {})
        if "results" not in metrics and not found:
            continue  # a training's
        _check(metrics, folder / "metrics.json")
        name = name_of(folder, root)
        if name in runs:
            other = next(iter(runs[name].folder / file for file in EVALUATION if (runs[name].folder / file).exists()))
            this = next(iter(paths.values()))
            raise fail(str(root), f"two runs are called {name}: {other} and {this}; move or remove one of them")
        tasks = found.get("lm_eval.json", {}).get("tasks", {})
        runs[name] = Run(folder, {"results": {}} | metrics, found.get("judged.json", {}), tasks)
    return runs


def find_trainings(root: Path, notices: list[str]) -> dict[str, Path]:
    """Name → folder of the models that were trained, evaluated or not.

    Args:
        root: Folder of the runs.
        notices: Gets what can't be read.
    """
    found: dict[str, Path] = {}
    for path in _files(root, "metrics.json", STATE):
        training = path.name == STATE or "results" not in (readable(path, notices) or {"results": ""})
        if training and not path.parent.name.startswith("checkpoint-"):
            found[name_of(path.parent, root)] = path.parent
    return found


def find(root: Path, name: str) -> list[Path]:
    """Files of a name, those of sweeps left out."""
    return list(_files(root, name))


def readable(path: Path, notices: list[str]) -> dict[str, Any] | None:
    """A JSON object, or None with a notice where it can't be read."""
    try:
        return read_json(path)
    except Faults as error:
        notices.append(str(error))
        return None


def _files(root: Path, *names: str) -> Iterator[Path]:
    """Files of these names, sorted, but those of a sweep, which is scored on other rows."""
    for path in sorted(path for name in names for path in root.rglob(name)):
        if not any((folder / "sweep.json").exists() for folder in path.parents):
            yield path


def _check(metrics: dict[str, Any], path: Path) -> None:
    results = metrics.get("results", {})
    if not isinstance(results, dict):
        raise fail(f"{path}: results", "is no mapping of benchmarks; remove the file and evaluate again")
    for name, result in results.items():
        try:
            numbers = [result["accuracy"], *result["interval"], result["n"]]
            whole = len(numbers) == 4 and all(isfinite(number) for number in numbers)
        except (KeyError, TypeError):
            whole = False
        if not whole:
            what = "lacks accuracy, interval or n; remove the file and evaluate again"
            raise fail(f"{path}: results.{name}", what)
