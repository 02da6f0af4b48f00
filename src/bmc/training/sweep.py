"""One recipe, several seeds: mean ± standard deviation of their test scores, and the 95 % t interval of the mean.

One training among several: checked beforehand, then trained and evaluated in processes of its own, so that one that
fails takes no other with it. What it has finished is not done again.

Hyperparameters chosen on validation rows: every point of a grid trained and scored, the best one left as a recipe.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .. import program
from ..config import EvaluateConfig
from ..data.loading import has_answers
from ..distributed import world_size
from ..errors import UserError, UserErrors, user_error
from ..evaluation.stats import accuracy
from ..evaluation.summary import SEEDS_FILE, accuracy_cell, average, markdown_table, seed_summary, seeds_cell
from ..recipe import COMMAND_LINE, load_recipe, parse, resolve
from ..recipe_files import find_ablation
from ..runs import EXIT_PREEMPTED, Preempted, check_output_dir, on_sigterm, read_json, run_fingerprint, write_json
from .config import BMCConfig, ModelArguments, PreferenceArguments
from .run import parse_training, recipe_fingerprint


def seeds(argv: list[str], arguments: PreferenceArguments, config: BMCConfig) -> str:
    """Train and evaluate a recipe with each seed, in `OUTPUT_DIR/seed_N`, and write `OUTPUT_DIR/seeds.json`; return the
    table, as Markdown.

    A seed decides the order of the pairs and dropout, not which rows are drawn (that is the mixture's). Started again,
    it goes on, and tries again what failed.

    Raises:
        UserErrors: A folder holds another recipe's run, the test rows have no answers, or a training failed.
    """
    refuse_launcher()
    numbers, folder = arguments.seed_list(), Path(config.output_dir)
    evaluate = [str(eval_recipe(argv, arguments))]
    points = [{"seed": number} for number in numbers]
    made = trials(argv, points, [folder / f"seed_{number}" for number in numbers], evaluate, "seeds")
    found: dict[str, list[dict[str, Any]]] = {}
    failed = []
    for trial in made:
        try:
            run_trial(trial, arguments.launcher)
        except TrialFailed as error:
            failed.append(f"{trial.folder}: {error}")
            print(f"{trial.folder.name} failed: {error}", file=sys.stderr)
            continue
        results = read_json(trial.metrics)["results"]
        for benchmark, result in {**results, **({"average": average(results)} if len(results) > 1 else {})}.items():
            found.setdefault(benchmark, []).append(result)
    if failed:
        raise user_error(
            str(folder), f"{len(failed)} of {len(numbers)} seeds failed; run it again for those; {failed[-1]}"
        )
    if not found:
        raise user_error(evaluate[0], "its rows have no answers to compare")
    summaries = {benchmark: seed_summary(results) for benchmark, results in found.items()}
    write_json(folder / SEEDS_FILE, {"seeds": numbers, "results": summaries})
    header = ["benchmark", "mean ± sd [95 % interval]", *(f"seed {number}" for number in numbers)]
    rows = [[name, seeds_cell(summaries[name]), *map(accuracy_cell, found[name])] for name in found]
    return markdown_table((header, rows))


# keys of the command line that say what the several trainings are
OWN = ("sweep", "sweep_hours", "seeds")


class TrialFailed(Exception):
    """A process of a trial ended with an error; the message is its last words."""


@dataclass(frozen=True)
class Trial:
    """One training."""

    values: dict[str, Any]  # what it has that the recipe hasn't
    folder: Path  # its output; the log stands beside it
    train: list[str]  # arguments of `scripts/preference.py`
    evaluate: list[str]  # arguments of `scripts/evaluate.py`; none where it is scored while training

    @property
    def name(self) -> str:
        return label(self.values)

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def metrics(self) -> Path:
        """Return the file that will hold its score."""
        return self.folder / ("eval/metrics.json" if self.evaluate else "metrics.json")


def label(values: dict[str, Any]) -> str:
    """Name a trial, as a file name: `learning_rate=5e-07,beta=0.1`."""
    words = (f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items())
    return re.sub(r"[^\w.,=+-]+", "_", ",".join(words))


def overrides(values: dict[str, Any]) -> list[str]:
    """Format a trial's values as command-line arguments."""
    return [f"--{name}={json.dumps(value)}" for name, value in values.items()]


def trials(
    argv: list[str], points: list[dict[str, Any]], folders: list[Path], evaluate: list[str], key: str
) -> list[Trial]:
    """Make the trials of a recipe, each parsed as its own process will parse it.

    `evaluate` are arguments of `scripts/evaluate.py` without model and folder, empty for no evaluation; `key` is the
    recipe's that the values come from, for messages.

    Raises:
        UserErrors: A value can't be trained with, or a folder holds another recipe's run.
    """
    made, faults = [], []
    for values, folder in zip(points, folders, strict=True):
        scores_itself = [] if evaluate else ["--do_eval=true"]  # on the pairs that it holds out
        alone = (f"--{name}=null" for name in OWN)
        train = [*argv, *alone, *scores_itself, *overrides(values), f"--output_dir={folder}"]
        scored = [*evaluate, f"--model_name_or_path={folder}", f"--output_dir={folder}/eval"] if evaluate else []
        try:
            arguments, model_args, config = parse_training(train, PreferenceArguments, BMCConfig, "")
            check_output_dir(str(folder), recipe_fingerprint(arguments, model_args, config), writes_rows=False)
            if scored:
                (evaluation,) = parse(scored, EvaluateConfig)
                check_output_dir(evaluation.output_dir, run_fingerprint(evaluation))
        except UserErrors as error:
            faults += [UserError(fault.where, f"{key}: {fault.what}") for fault in error.faults]
            continue
        made.append(Trial(values, folder, train, scored))
    if faults:
        raise UserErrors(*dict.fromkeys(faults))
    return made


def eval_recipe(argv: list[str], arguments: PreferenceArguments) -> Path:
    """Find the recipe that evaluates what a command line trains.

    Raises:
        UserErrors: There is none.
    """
    if arguments.eval_recipe:
        return Path(arguments.eval_recipe)
    recipe = resolve(argv, PreferenceArguments, BMCConfig)[0]
    if recipe and (ablation := find_ablation(recipe)):
        recipe = ablation.recipe
    beside = recipe.with_name("eval.yaml") if recipe else None
    if beside is None or not beside.exists():
        raise user_error("eval_recipe", "is missing; no eval.yaml stands beside the recipe")
    return beside


def refuse_launcher() -> None:
    """Refuse to run under a launcher: each training is started by it from here.

    Raises:
        UserErrors: This process was started by one.
    """
    if world_size() > 1:
        raise user_error("command line", 'run it by python; `--launcher "accelerate launch …"` starts each training')


def run_trial(trial: Trial, launcher: str | None) -> None:
    """Train and evaluate what isn't done yet; the processes' output goes to the trial's log.

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
            raise user_error("launcher", f"'{command[0]}' can't be started ({error.strerror})") from None
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
    if terminated or status == EXIT_PREEMPTED:
        raise Preempted
    return status


def last_words(log: str) -> str:
    """Find the line of a log that says why its process failed: the last exception, else the last line."""
    lines = [re.sub(r"^\[rank\d+\]: ?", "", line).strip() for line in log.splitlines()]
    lines = [line for line in lines if line]
    raised = [line for line in lines if re.match(r"[A-Za-z_.]*(Error|Exception|Interrupt)\b", line)]
    return (raised or lines or ["ended without a word"])[-1]


def drop_weights(folder: Path) -> None:
    """Remove a trial's weights and checkpoints; its metrics stay."""
    for path in [*folder.glob("checkpoint-*"), *folder.glob("*.safetensors")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


LEARNING_RATES = [3e-7, 5e-7, 6e-7, 1e-6]
DELTAS = [1.5, 2.0, 2.5, 3.0, 3.5]
RANGES: dict[str, dict[str, list[float]]] = {
    "figa": {"figa_alpha": [0.5, 1.0, 1.5], "figa_beta": [0.5, 1.0, 1.5]},
    "ipo": {"beta": [0.01, 0.1, 0.5, 1.0]},  # τ
    "orpo": {"orpo_lambda": [0.1, 0.5, 1.0, 2.0]},
    "rdpo": {"rdpo_alpha": [0.05, 0.1, 0.5, 1.0], "beta": [0.01, 0.05, 0.1]},
    "simpo": {"beta": [2.0, 2.5], "simpo_gamma": [0.3, 0.5, 1.0, 1.2, 1.4, 1.6]},
    "sigmoid": {"beta": [0.01, 0.05, 0.1]},
}
REWARDS = "eval_rewards/accuracies"


def table_7(config: BMCConfig) -> dict[str, list[float]]:
    """Look up the ranges that the paper searches for an objective (Table 7, A.3).

    Only DPO-BMC's row has a range for δ; IPO-BMC and its kin (§5.4), which have none, keep the recipe's.

    Raises:
        UserErrors: The table doesn't have the objective.
    """
    names = [config.loss_type] if isinstance(config.loss_type, str) else config.loss_type
    if len(names) > 1 or names[0] not in RANGES:
        raise user_error(
            "sweep", f"Table 7 has no ranges for {' + '.join(names)}; write them: `sweep: {{beta: [0.1, 0.5]}}`"
        )
    deltas = {"bmc_delta": DELTAS} if names == ["sigmoid"] and config.token_weighting == "bmc" else {}
    return {"learning_rate": LEARNING_RATES, **RANGES[names[0]], **deltas}


Search = list[dict[str, Any]] | dict[str, float]  # a grid's points, or where a line search starts
FACTOR = 3  # of a step of the line search


def line_search(start: dict[str, float]) -> Generator[dict[str, float], float, None]:
    """Yield the points of a line search; each is answered by its accuracy (−∞ where it couldn't be trained).

    Key by key, a value is tripled while that raises accuracy; if the first such step doesn't, it is divided by 3 while
    that does.
    """
    best = start
    score = yield best
    for key in start:
        for factor in (FACTOR, 1 / FACTOR):
            ahead = False
            while True:
                point = best | {key: float(f"{best[key] * factor:.6g}")}
                found = yield point
                if found <= score:
                    break
                best, score, ahead = point, found, True
            if ahead:
                break


def _start(config: BMCConfig) -> dict[str, float]:
    """Return where a line search starts: the learning rate, and the first hyperparameter of the loss in Table 7."""
    own = next(key for key in table_7(config) if key != "learning_rate")
    return {"learning_rate": config.learning_rate, own: getattr(config, own)}


def _next_point(search: Search, results: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the point to train after those with results: a grid's next, or a line search's; None at the end."""
    if isinstance(search, list):
        return search[len(results)] if len(results) < len(search) else None
    points = line_search(search)
    try:
        point = next(points)
        for result in results:
            point = points.send(result.get("accuracy", float("-inf")))
    except StopIteration:
        return None
    return point


def _over_budget(results: list[dict[str, Any]], hours: float | None) -> bool:
    """Return whether a training as long as the mean of the finished ones would end after the budget."""
    taken = [result["seconds"] for result in results if "seconds" in result]
    return bool(hours and taken) and sum(taken) + sum(taken) / len(taken) > 3600 * (hours or 0)


def sweep(argv: list[str], arguments: PreferenceArguments, config: BMCConfig) -> str:
    """Train and score the points of a recipe's grid or line search, one after the other, in `OUTPUT_DIR-sweep`; return
    the table, as Markdown.

    That folder gets `sweep.json` and `sweep.md`, after each point anew, and `best.yaml`, the recipe with the best
    point's values; of points that score alike, the first. Data, masks and the reference log-probs are made by the
    first point and found by the others. Only the best point keeps its weights. Started again, it goes on, and tries
    again what failed.

    Raises:
        UserErrors: The grid, the folder or the validation rows can't be used, or every point failed.
    """
    refuse_launcher()
    how = scoring(argv, arguments)
    folder = Path(f"{config.output_dir}-sweep")
    search = _search(arguments, config)
    made = _trials(argv, search, folder, how.evaluate)
    results: list[dict[str, Any]] = []
    best: int | None = None
    while (point := _next_point(search, results)) is not None and not _over_budget(results, arguments.sweep_hours):
        number = len(results)
        if number == len(made):
            made += trials(argv, [point], [folder / label(point)], how.evaluate, "sweep")
        trial = made[number]
        try:
            run_trial(trial, arguments.launcher)
            results.append({"values": trial.values, **how.score(trial), "seconds": _seconds(trial)})
            ahead = best is None or results[number]["accuracy"] > results[best]["accuracy"]
            if (worse := best if ahead else number) is not None:
                drop_weights(made[worse].folder)
            best = number if ahead else best
        except TrialFailed as error:
            results.append({"values": trial.values, "failed": str(error)})
        print(f"[{number + 1}{_of(search)}] {trial.name}: {_outcome(results[number])}", file=sys.stderr)
        write_json(folder / "sweep.json", {"scored_on": how.rows, "best": best, "points": results})
        (folder / "sweep.md").write_text(_table(how, results, best, search) + "\n", encoding="utf-8")
    if best is None:
        raise user_error(str(folder), f"no point could be trained; the last said: {results[-1]['failed']}")
    (folder / "best.yaml").write_text(_best(argv, made[best], results[best], how, config.output_dir), encoding="utf-8")
    if point is not None:
        print(f"sweep_hours: stopped after {len(results)} points", file=sys.stderr)
    return f"{_table(how, results, best, search)}\n\nbest: {folder / 'best.yaml'}; its weights: {made[best].folder}"


def _seconds(trial: Trial) -> float:
    return round(sum(read_json(path)["seconds"] for path in {trial.folder / "metrics.json", trial.metrics}), 1)


def _outcome(result: dict[str, Any]) -> str:
    return f"failed: {result['failed']}" if "failed" in result else accuracy_cell(result)


def _of(search: Search) -> str:
    return f"/{len(search)}" if isinstance(search, list) else ""


def _table(how: Scoring, results: list[dict[str, Any]], best: int | None, search: Search) -> str:
    """Format the points' scores as a table; the best is bold."""
    keys = list(results[0]["values"])
    rows = []
    for number, result in enumerate(results):
        cells = [*map(str, result["values"].values()), _outcome(result), f"{result.get('seconds', 0):.0f} s"]
        rows.append([f"**{cell}**" if number == best else cell for cell in cells])
    count = f"{len(results)} of {len(search)} points" if isinstance(search, list) else f"{len(results)} points"
    note = f"Accuracy in % with its 95 % interval on {how.rows}; {count}, a single run each."
    return f"{note}\n\n{markdown_table(([*keys, 'accuracy', 'took'], rows))}"


def _best(argv: list[str], trial: Trial, result: dict[str, Any], how: Scoring, output_dir: str) -> str:
    """Write the recipe of the best point."""
    path, values, origin, _ = resolve([*argv, *overrides(trial.values)], PreferenceArguments, ModelArguments, BMCConfig)
    given = {key.split(".")[0] for key, source in origin.items() if source == COMMAND_LINE or path is None}
    mine = {key: values[key] for key in values if key in given - PreferenceArguments.NON_IDENTITY_KEYS}
    if path is not None:
        mine = {"extends": os.path.relpath(path, trial.folder.parent), **mine}
        if load_recipe(path)[0].get("sweep"):
            mine["sweep"] = None
    said = f"# The best point of a sweep: {accuracy_cell(result)} % on {how.rows}.\n"
    return said + yaml.safe_dump({**mine, "output_dir": output_dir}, sort_keys=False)


def _search(arguments: PreferenceArguments, config: BMCConfig) -> Search:
    """Return a grid's points, the last key's values changing fastest, or where a line search starts."""
    if arguments.sweep == "small":
        return _start(config)
    grid = arguments.sweep if isinstance(arguments.sweep, dict) else table_7(config)
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _trials(argv: list[str], search: Search, folder: Path, evaluate: list[str]) -> list[Trial]:
    """Make the trials that are known beforehand: a grid's, or the first of a line search.

    Raises:
        UserErrors: A point can't be trained, or its folder holds another run.
    """
    points = search if isinstance(search, list) else [search]
    return trials(argv, points, [folder / label(values) for values in points], evaluate, "sweep")


def describe_sweep(argv: list[str], arguments: PreferenceArguments, config: BMCConfig) -> str:
    """Say how many points of which grid a sweep would train.

    Raises:
        UserErrors: A point can't be trained, or its folder holds another run.
    """
    folder, search = Path(f"{config.output_dir}-sweep"), _search(arguments, config)
    made = _trials(argv, search, folder, [])
    within = f", within {arguments.sweep_hours:g} hours" if arguments.sweep_hours else ""
    if not isinstance(search, list):
        return f"line search over {' and '.join(search)} from {label(search)}{within}, in {folder}"
    return f"{len(made)} points of {' × '.join(made[0].values)}{within}, in {folder}"


@dataclass(frozen=True)
class Scoring:
    """How a sweep's trainings are scored."""

    # arguments of `scripts/evaluate.py`; none where reward accuracy on the pairs that the training holds out decides,
    # since no answer can be compared
    evaluate: list[str]
    rows: str  # what they are scored on, in words

    def score(self, trial: Trial) -> dict[str, Any]:
        """Return `accuracy`, its 95 % `interval` and `n`."""
        metrics = read_json(trial.metrics)
        if self.evaluate:
            return average(metrics["results"]) or {}
        n = metrics["eval_rows"]
        hits = round(metrics[REWARDS] * n)
        return accuracy([True] * hits + [False] * (n - hits))


def scoring(argv: list[str], arguments: PreferenceArguments) -> Scoring:
    """Choose the score: accuracy on the validation rows where they have answers, else on rewards of validation pairs.

    Raises:
        UserErrors: There is neither.
    """
    path = eval_recipe(argv, arguments)
    (evaluation,) = parse([str(path)], EvaluateConfig)
    try:
        files = evaluation.validation_files()
    except UserErrors:
        raise user_error(str(path), "evaluates no test.jsonl of prepared data; name another by --eval_recipe") from None
    evaluate = [str(path), *(f"--dataset_mixture.datasets.{place}.id={file}" for place, file in enumerate(files))]
    if has_answers(files):
        return Scoring(evaluate, ", ".join(files))
    mixture = arguments.dataset_mixture
    if not mixture.test_datasets and not mixture.test_split_size:
        raise user_error(
            str(path), "its rows have no answers to compare; hold out pairs (dataset_mixture.test_split_size: 0.05)"
        )
    return Scoring([], "validation pairs, by reward accuracy")
