"""One training among several: checked beforehand, then trained and evaluated in processes of its own, so that one that
fails takes no other with it. What it has finished is not done again."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import program
from ..config import EvaluateConfig
from ..errors import Fault, Faults, fail
from ..ranks import processes
from ..recipe import parse, resolve
from ..runtime import PREEMPTED, Preempted, may_claim, on_sigterm, recipe_of
from ..training import identity, parse_training
from ..training_config import BMCConfig, PreferenceArguments

# keys of the command line that say what the several trainings are
OWN = ("sweep", "seeds")


class TrialFailed(Exception):
    """A process of a trial ended with an error; the message is its last words."""


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        values: What it has that the recipe hasn't.
        folder: Its output; the log stands beside it.
        train: Arguments of `scripts/preference.py`.
        evaluate: Arguments of `scripts/evaluate.py`; none where it is scored while training.
    """

    values: dict[str, Any]
    folder: Path
    train: list[str]
    evaluate: list[str]

    @property
    def name(self) -> str:
        return label(self.values)

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def metrics(self) -> Path:
        """The file that holds its score, once it is there."""
        return self.folder / ("eval/metrics.json" if self.evaluate else "metrics.json")


def label(values: dict[str, Any]) -> str:
    """What to call a trial: `learning_rate=5e-07,beta=0.1`, as a file name."""
    words = (f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items())
    return re.sub(r"[^\w.,=+-]+", "_", ",".join(words))


def overrides(values: dict[str, Any]) -> list[str]:
    """A trial's values as arguments of a command line."""
    return [f"--{name}={json.dumps(value)}" for name, value in values.items()]


def trials(
    argv: list[str], points: list[dict[str, Any]], folders: list[Path], evaluate: list[str], key: str
) -> list[Trial]:
    """Trials of a recipe, each read as its own process will read it.

    Args:
        argv: The command line, as given.
        points: Values of each trial.
        folders: Output of each.
        evaluate: Arguments of `scripts/evaluate.py` without model and folder; empty for no evaluation.
        key: The key of the recipe that the values come from, for messages.

    Raises:
        Faults: A value can't be trained with, or a folder holds another recipe's run.
    """
    made, faults = [], []
    for values, folder in zip(points, folders, strict=True):
        scores_itself = [] if evaluate else ["--do_eval=true"]  # on the pairs that it holds out
        alone = (f"--{name}=null" for name in OWN)
        train = [*argv, *alone, *scores_itself, *overrides(values), f"--output_dir={folder}"]
        scored = [*evaluate, f"--model_name_or_path={folder}", f"--output_dir={folder}/eval"] if evaluate else []
        try:
            arguments, model_args, config = parse_training(train, PreferenceArguments, BMCConfig, "")
            may_claim(str(folder), identity(arguments, model_args, config))
            if scored:
                (evaluation,) = parse(scored, EvaluateConfig)
                may_claim(evaluation.output_dir, recipe_of(evaluation))
        except Faults as error:
            faults += [Fault(fault.where, f"{key}: {fault.what}") for fault in error.faults]
            continue
        made.append(Trial(values, folder, train, scored))
    if faults:
        raise Faults(*dict.fromkeys(faults))
    return made


def eval_recipe(argv: list[str], arguments: PreferenceArguments) -> Path:
    """The recipe that scores what the recipe of a command line trained.

    Raises:
        Faults: There is none.
    """
    if arguments.eval_recipe:
        return Path(arguments.eval_recipe)
    recipe = resolve(argv, PreferenceArguments, BMCConfig)[0]
    beside = recipe.with_name("eval.yaml") if recipe else None
    if beside is None or not beside.exists():
        raise fail("eval_recipe", "is missing; no eval.yaml stands beside the recipe")
    return beside


def refuse_launcher() -> None:
    """The trainings are started here, each by the launcher.

    Raises:
        Faults: This process was started by one.
    """
    if processes() > 1:
        raise fail("command line", 'run it by python; `--launcher "accelerate launch …"` starts each training')


def run(trial: Trial, launcher: str | None) -> None:
    """Trains and evaluates what isn't there yet; what the processes print goes to the trial's log.

    Raises:
        TrialFailed: One of them ended with an error.
    """
    trial.folder.parent.mkdir(parents=True, exist_ok=True)
    start = shlex.split(launcher) if launcher else [sys.executable]
    if not (trial.folder / "metrics.json").exists():
        _process([*start, *program.start("train"), *trial.train], trial.log)
    if not trial.metrics.exists():
        _process([sys.executable, *program.start("evaluate"), *trial.evaluate], trial.log)


def _process(command: list[str], log: Path) -> None:
    with log.open("a+", encoding="utf-8", errors="replace") as file:
        print(shlex.join(command), file=file, flush=True)
        start = file.tell()
        try:
            running = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        except OSError as error:
            raise fail("launcher", f"'{command[0]}' can't be started ({error.strerror})") from None
        status = _wait(running)
        if status < 0:
            raise TrialFailed(f"ended by signal {-status}")
        if status:
            file.seek(start)
            raise TrialFailed(last_words(file.read()))


def _wait(running: subprocess.Popen[bytes]) -> int:
    """Wait for a process, passing SIGTERM on to it; return its exit status.

    Raises:
        Preempted: SIGTERM came to this process or to that one, which has saved what it had.
    """
    terminated: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        terminated.append(number)
        running.send_signal(number)

    with running, on_sigterm(pass_on):
        status = running.wait()
    if terminated or status == PREEMPTED:
        raise Preempted
    return status


def last_words(log: str) -> str:
    """The line of a log that says best why its process failed: the last exception, else the last line."""
    lines = [re.sub(r"^\[rank\d+\]: ?", "", line).strip() for line in log.splitlines()]
    lines = [line for line in lines if line]
    raised = [line for line in lines if re.match(r"[A-Za-z_.]*(Error|Exception|Interrupt)\b", line)]
    return (raised or lines or ["ended without a word"])[-1]


def drop_weights(folder: Path) -> None:
    """Removes a trial's weights and checkpoints; what it measured stays."""
    for path in _weights(folder):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _weights(folder: Path) -> Iterator[Path]:
    yield from list(folder.glob("checkpoint-*"))
    yield from list(folder.glob("*.safetensors"))
