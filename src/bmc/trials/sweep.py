"""Hyperparameters chosen on held-out rows: every point of a grid trained and scored, the best one left as a recipe."""

from __future__ import annotations

import itertools
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..analysis.cells import accuracy_cell, markdown_table, read_json
from ..analysis.tables import average
from ..config import DatasetConfig, EvaluateConfig
from ..data.mixture import read
from ..errors import fail
from ..evaluation.stats import accuracy
from ..recipe import COMMAND_LINE, load, parse, resolve
from ..runtime import write_json
from ..training_config import BMCConfig, ModelArguments, PreferenceArguments
from .trial import Trial, TrialFailed, drop_weights, eval_recipe, label, overrides, refuse_launcher, run, trials

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
    """The ranges that the paper searches for an objective (Table 7, A.3).

    Only DPO-BMC's row has a range for δ; IPO-BMC and its kin (§5.4), which have none, keep the recipe's.

    Raises:
        Faults: The table doesn't have the objective.
    """
    names = [config.loss_type] if isinstance(config.loss_type, str) else config.loss_type
    if len(names) > 1 or names[0] not in RANGES:
        raise fail("sweep", f"Table 7 has no ranges for {' + '.join(names)}; write them: `sweep: {{beta: [0.1, 0.5]}}`")
    deltas = {"bmc_delta": DELTAS} if names == ["sigmoid"] and config.token_weighting == "bmc" else {}
    return {"learning_rate": LEARNING_RATES, **RANGES[names[0]], **deltas}


def sweep(argv: list[str], arguments: PreferenceArguments, config: BMCConfig) -> str:
    """Trains and scores the points of a recipe's grid, one after the other, in `OUTPUT_DIR-sweep`.

    That folder gets `sweep.json` and `sweep.md`, after each point anew, and `best.yaml`, the recipe with the best
    point's values; of points that score alike, the first. Data, masks and the reference's log-probs are made by the
    first point and found by the others. Only the best point keeps its weights. Started again, it goes on, and tries
    again what failed.

    Returns:
        The table, as Markdown.

    Raises:
        Faults: The grid, the folder or the validation rows can't be used, or every point failed.
    """
    refuse_launcher()
    how = scoring(argv, arguments)
    folder = Path(f"{config.output_dir}-sweep")
    made = _points(argv, arguments, config, folder, how.evaluate)
    results: list[dict[str, Any]] = []
    best: int | None = None
    for number, trial in enumerate(made):
        try:
            run(trial, arguments.launcher)
            results.append({"values": trial.values, **how.score(trial), "seconds": _seconds(trial)})
            ahead = best is None or results[number]["accuracy"] > results[best]["accuracy"]
            if (loser := best if ahead else number) is not None:
                drop_weights(made[loser].folder)
            best = number if ahead else best
        except TrialFailed as error:
            results.append({"values": trial.values, "failed": str(error)})
        print(f"[{number + 1}/{len(made)}] {trial.name}: {_outcome(results[number])}", file=sys.stderr)
        write_json(folder / "sweep.json", {"scored_on": how.rows, "best": best, "points": results})
        (folder / "sweep.md").write_text(_table(how, results, best, len(made)) + "\n", encoding="utf-8")
    if best is None:
        raise fail(str(folder), f"no point could be trained; the last said: {results[-1]['failed']}")
    (folder / "best.yaml").write_text(_best(argv, made[best], results[best], how, config.output_dir), encoding="utf-8")
    return f"{_table(how, results, best, len(made))}\n\nbest: {folder / 'best.yaml'}; its weights: {made[best].folder}"


def _seconds(trial: Trial) -> float:
    return round(sum(read_json(path)["seconds"] for path in {trial.folder / "metrics.json", trial.metrics}), 1)


def _outcome(result: dict[str, Any]) -> str:
    return f"failed: {result['failed']}" if "failed" in result else accuracy_cell(result)


def _table(how: Scoring, results: list[dict[str, Any]], best: int | None, total: int) -> str:
    """What the points scored; the best is bold."""
    keys = list(results[0]["values"])
    rows = []
    for number, result in enumerate(results):
        cells = [*map(str, result["values"].values()), _outcome(result), f"{result.get('seconds', 0):.0f} s"]
        rows.append([f"**{cell}**" if number == best else cell for cell in cells])
    note = f"Accuracy in % with its 95 % interval on {how.rows}; {len(results)} of {total} points, a single run each."
    return f"{note}\n\n{markdown_table(([*keys, 'accuracy', 'took'], rows))}"


def _best(argv: list[str], trial: Trial, result: dict[str, Any], how: Scoring, output_dir: str) -> str:
    """The recipe of the best point."""
    path, values, origin, _ = resolve([*argv, *overrides(trial.values)], PreferenceArguments, ModelArguments, BMCConfig)
    given = {key.split(".")[0] for key, source in origin.items() if source == COMMAND_LINE or path is None}
    mine = {key: values[key] for key in values if key in given - PreferenceArguments.PASSING}
    if path is not None:
        mine = {"extends": os.path.relpath(path, trial.folder.parent), **mine}
        if load(path)[0].get("sweep"):
            mine["sweep"] = None
    said = f"# The best point of a sweep: {accuracy_cell(result)} % on {how.rows}.\n"
    return said + yaml.safe_dump({**mine, "output_dir": output_dir}, sort_keys=False)


def _points(
    argv: list[str], arguments: PreferenceArguments, config: BMCConfig, folder: Path, evaluate: list[str]
) -> list[Trial]:
    """The grid's points, the last key's values changing fastest.

    Raises:
        Faults: A point can't be trained, or its folder holds another run.
    """
    grid = arguments.sweep if isinstance(arguments.sweep, dict) else table_7(config)
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return trials(argv, points, [folder / label(values) for values in points], evaluate, "sweep")


def describe_sweep(argv: list[str], arguments: PreferenceArguments, config: BMCConfig) -> str:
    """How many points of which grid a sweep would train.

    Raises:
        Faults: A point can't be trained, or its folder holds another run.
    """
    folder = Path(f"{config.output_dir}-sweep")
    made = _points(argv, arguments, config, folder, [])
    return f"{len(made)} points of {' × '.join(made[0].values)}, in {folder}"


@dataclass(frozen=True)
class Scoring:
    """How a sweep's trainings are scored.

    Attributes:
        evaluate: Arguments of `scripts/evaluate.py`; none where reward accuracy on the pairs that the training holds
            out decides, since no answer can be compared.
        rows: What they are scored on, in words.
    """

    evaluate: list[str]
    rows: str

    def score(self, trial: Trial) -> dict[str, Any]:
        """`accuracy`, its 95 % `interval` and `n`."""
        metrics = read_json(trial.metrics)
        if self.evaluate:
            return average(metrics["results"]) or {}
        n = metrics["eval_rows"]
        hits = round(metrics[REWARDS] * n)
        return accuracy([True] * hits + [False] * (n - hits))


def scoring(argv: list[str], arguments: PreferenceArguments) -> Scoring:
    """By answers to the validation rows where they have answers, else by rewards of held-out pairs.

    Raises:
        Faults: There is neither.
    """
    path = eval_recipe(argv, arguments)
    (evaluation,) = parse([str(path)], EvaluateConfig)
    evaluate, files = [str(path)], []
    for number, dataset in enumerate(evaluation.dataset_mixture.datasets):
        file = Path(dataset.id or "")
        if file.stem == "test":
            file = file.with_stem("validation")
            evaluate.append(f"--dataset_mixture.datasets.{number}.id={file}")
        if file.stem != "validation":
            raise fail(str(path), "evaluates no test.jsonl of prepared data; name another by --eval_recipe")
        if not file.is_file() or not file.stat().st_size:
            raise fail(
                str(file), "holds no rows; set validation_datasets or validation_fraction where the data are prepared"
            )
        files.append(str(file))
    if any(row.get("answer") is not None for file in files for row in read(DatasetConfig(id=file))()):
        return Scoring(evaluate, ", ".join(files))
    mixture = arguments.dataset_mixture
    if not mixture.test_datasets and not mixture.test_split_size:
        raise fail(
            str(path), "its rows have no answers to compare; hold out pairs (dataset_mixture.test_split_size: 0.05)"
        )
    return Scoring([], "the pairs held out from training, by reward accuracy")
