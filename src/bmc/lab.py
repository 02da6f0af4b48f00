"""The laboratory: methods trained and evaluated over seeds, on generated tasks, with models of a tenth of a million
parameters.

A unit is one SFT seed: its data, its SFT model, its pairs, and on those pairs each method at each point of its grid
with each preference seed. A unit runs all stages in one process, from recipes that also run alone; units run side by
side. What is finished is not run again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, stdev

from filelock import FileLock

from .config import LabConfig
from .data.schema import Row
from .errors import user_error
from .evaluation.summary import markdown_table
from .recipe_files import load_recipe
from .runs import read_json, restart_clock, write_json, write_text

# What is kept of a training: of each evaluation on held-out pairs, and of each logged step.
HELD_OUT = ("step", "eval_logps/chosen", "eval_logps/rejected", "eval_rewards/margins", "eval_rewards/accuracies")
STEPS = ("step", "loss", "grad_norm")
RECIPES = ("prepare", "model", "sft", "sample", "bridge", "base", "eval")
NOT_HELD_OUT = ["--dataset_mixture.test_datasets=[]", "--eval_strategy=no", "--eval_on_start=false"]
MADE_BY = "lab.json"  # beside what a stage writes: the values that made it
WEIGHTS = ("*.safetensors", "tokenizer*", "training_args.bin")


def run_study(config: LabConfig, argv: list[str]) -> list[Row]:
    """Run what is missing of a study, and write `results.json`.

    Args:
        config: The study.
        argv: Its command line, by which a unit is started.

    Returns:
        One row a model: SFT seed, preference seed, method, its values, accuracy, n, number of pairs, curves.

    Raises:
        UserErrors: A unit failed; the message names its log.
    """
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "bmc", "lab", *argv, "--unit"]

    def start(seed: int) -> int:
        with (folder / f"seed_{seed}.log").open("a") as log:
            environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
            return subprocess.run([*command, str(seed)], stdout=log, stderr=log, env=environment).returncode

    with ThreadPoolExecutor(config.workers) as pool:
        ended = dict(zip(config.sft_seeds, pool.map(start, config.sft_seeds), strict=True))
    if failed := [seed for seed, status in ended.items() if status]:
        raise user_error(str(folder), f"SFT seeds {failed} failed; see {folder}/seed_{failed[0]}.log")
    rows = [row for seed in config.sft_seeds for row in read_json(folder / f"seed_{seed}.json")["rows"]]
    write_results(folder / "results.json", _study(config), rows)
    return rows


def write_results(path: Path, study: Row, rows: list[Row]) -> None:
    """Write a study as JSON, one row a line."""
    lines = ",\n".join(map(json.dumps, rows))
    write_text(path, f'{{"study": {json.dumps(study)},\n"rows": [\n{lines}\n]}}')


def _study(config: LabConfig) -> Row:
    """Say what made the numbers: the study's values, and a digest of the recipes of its stages and methods."""
    digest = hashlib.sha256()
    for path in (Path(config.recipes, f"{name}.yaml") for name in (*RECIPES, *sorted(config.methods))):
        digest.update(path.read_bytes() if path.exists() else b"")
    keys = ("split", "sft_seeds", "seeds", "methods", "stages", "bridges")
    return {key: getattr(config, key) for key in keys} | {"recipes": config.recipes, "digest": digest.hexdigest()[:16]}


def run_unit(config: LabConfig, run_command: Callable[[str, list[str]], None]) -> list[Row]:
    """Run what is missing of one SFT seed in this process, and write its rows.

    `run_command` runs a command of `bmc` by its name and arguments.
    """
    unit = Unit(config, run_command)
    unit.make_pairs()
    rows = [unit.evaluated("sft", {}, None)]
    for method, values, number in trainings(config):
        rows.append(unit.evaluated(method, values, number))
        print(json.dumps({key: rows[-1][key] for key in ("method", "values", "seed", "accuracy")}), flush=True)
    write_json(Path(config.output_dir) / f"seed_{config.unit}.json", {"rows": rows})
    return rows


class Unit:
    """One SFT seed of a study, and the folder of what it makes."""

    def __init__(self, config: LabConfig, run_command: Callable[[str, list[str]], None]) -> None:
        assert config.unit is not None
        self.config, self.seed, self.run_command = config, config.unit, run_command
        self.folder = Path(config.units or config.output_dir) / f"seed_{self.seed}"
        self.train = self.folder / "prepare" / "train.jsonl"
        self.split = self.folder / "prepare" / f"{config.split}.jsonl"
        self.held_out = self.folder / "bridge_held_out" / "train.jsonl"

    def make_pairs(self) -> None:
        """Run the stages up to bridging."""
        seed = f"--seed={self.seed}"
        self.stage("prepare", f"--dataset_mixture.datasets.0.config.seed={1000 + self.seed}")
        untrained = []
        if Path(self.config.recipes, "model.yaml").exists():  # else SFT starts from the model that its recipe names
            self.stage("model", _data(self.train), seed)
            untrained = [f"--model_name_or_path={self.folder / 'model'}"]
        self.stage("sft", _data(self.train), *untrained, seed)
        sampled = [f"--model_name_or_path={self.folder / 'sft'}", f"--dataset_mixture.seed={self.seed}"]
        self.stage("sample", _data(self.train), *sampled)
        if number := self.config.held_out_rows:
            rows = _data(self.folder / "prepare" / "validation.jsonl")
            values = {"dataset_mixture.datasets.0.num_rows": number}
            self.stage("sample", rows, *sampled, folder="sample_held_out", values=values)
            self.stage("bridge", _data(self.folder / "sample_held_out" / "train.jsonl"), folder="bridge_held_out")
        for name, values in self.config.bridges.items():
            self.stage("bridge", _data(self.folder / "sample" / "train.jsonl"), folder=name, values=values)

    def stage(self, name: str, *own: str, folder: str | None = None, values: Row | None = None) -> None:
        """Run a stage by its recipe unless it is done."""
        output = self.folder / (folder or name)
        values = self.config.stages.get(name, {}) | (values or {})
        made_by = self.made_by(name, values)
        with _one_at_a_time(output):
            if not _is_done(output, "metrics.json" if name == "sft" else "stats.json", made_by):
                shutil.rmtree(output, ignore_errors=True)
                command = "tiny_model" if name == "model" else name
                self.run(command, name, *_given(values), *own, f"--output_dir={output}")
                write_json(output / MADE_BY, made_by)

    def made_by(self, recipe: str, values: Row) -> Row:
        """Return what makes a folder: the keys of a recipe, and the study's values over them."""
        return {recipe: load_recipe(Path(self.config.recipes, f"{recipe}.yaml"))[0] | values}

    def run(self, command: str, recipe: str, *own: str) -> None:
        """Run a command of `bmc` in this process, as if it were called alone."""
        before, sys.argv = sys.argv, ["bmc", command, f"{self.config.recipes}/{recipe}.yaml", *own]
        print(*sys.argv, flush=True)
        restart_clock()
        try:
            self.run_command(command, sys.argv[2:])
        finally:
            sys.argv = before

    def train_method(self, method: str, folder: Path, pairs: Path, own: list[str]) -> None:
        """Train a method by its recipe from the SFT model."""
        shutil.rmtree(folder, ignore_errors=True)
        held_out = NOT_HELD_OUT
        if self.config.held_out_rows:
            held_out = [f"--dataset_mixture.test_datasets.0.id={self.held_out}"]
        sft = f"--model_name_or_path={self.folder / 'sft'}"
        self.run("train", method, _data(pairs / "train.jsonl"), sft, *held_out, *own, f"--output_dir={folder}")

    def evaluated(self, method: str, values: Row, number: int | None) -> Row:
        """Train a method unless that is done, evaluate it, and return its row."""
        values = dict(values)
        pairs = self.folder / values.pop("pairs", "bridge")
        label = ",".join(f"{key}={value}" for key, value in {"pairs": pairs.name, **values, "seed": number}.items())
        folder = self.folder / method / label if method != "sft" else self.folder / "sft"
        scores = folder / ("eval" if method != "sft" else f"eval_{self.config.split}")
        trained, evaluation = self.config.stages.get("base", {}) | values, self.config.stages.get("eval", {})
        made_by = self.made_by("eval", evaluation) | {"split": self.config.split}
        if method != "sft":
            made_by |= self.made_by(method, trained)
        with _one_at_a_time(folder):
            if not _is_done(scores, "metrics.json", made_by):
                if method != "sft":
                    self.train_method(method, folder, pairs, [f"--seed={number}", *_given(trained)])
                given = [*_given(evaluation), f"--model_name_or_path={folder}", _data(self.split)]
                self.run("evaluate", "eval", *given, f"--output_dir={scores}")
                write_json(scores / MADE_BY, made_by)
                if method != "sft":
                    for path in itertools.chain.from_iterable(map(folder.glob, WEIGHTS)):
                        path.unlink()
        (result,) = read_json(scores / "metrics.json")["results"].values()
        row = {"sft_seed": self.seed, "seed": number, "method": method, "values": values, "pairs": pairs.name}
        row |= {"accuracy": result["accuracy"], "n": result["n"]}
        row |= {"writers": writers_followed(scores / "predictions.jsonl", self.split)}
        if method == "sft":
            return row | ({"spans": span_log_probs(folder, self.held_out)} if self.config.held_out_rows else {})
        history = read_json(folder / "trainer_state.json")["log_history"]
        row |= {"held_out": _curve(history, HELD_OUT), "steps": _curve(history, STEPS)}
        return row | {"trained_on": read_json(folder / "metrics.json")["rows"]}


def _one_at_a_time(folder: Path) -> FileLock:
    """Return a lock for what makes a folder, since studies that run side by side may share units."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{folder}.lock")


def _is_done(output: Path, last: str, made_by: Row) -> bool:
    """Tell whether a folder has its last file.

    Raises:
        UserErrors: It has, and other values made it.
    """
    if not (output / last).exists():
        return False
    wanted = json.loads(json.dumps(made_by))
    if (output / MADE_BY).exists() and read_json(output / MADE_BY) != wanted:
        raise user_error(str(output), "was made by other values; give another output_dir or units, or delete it")
    return True


def writers_followed(predictions: Path, rows: Path) -> list[list[int]]:
    """Count the responses that begin as each writer does, and the right ones among them.

    Args:
        predictions: File of an evaluation.
        rows: File of its rows. Their `solutions` are in the order of the writers.

    Returns:
        `[number, right]` for each writer, and last for responses whose first step is no writer's. Left out are rows
        in which two writers write the same. A step with which several begin counts for the first of them.
    """
    solutions = [row.get("solutions") or [] for row in map(json.loads, rows.read_text(encoding="utf-8").splitlines())]
    writers = max(map(len, solutions), default=0)
    counts = [[0, 0] for _ in range(writers + 1)]
    for line, right in zip(predictions.read_text(encoding="utf-8").splitlines(), solutions, strict=True):
        if len(right) < writers:
            continue
        found = json.loads(line)
        starts = [_first_step(solution) for solution in right]
        begun = _first_step(found["prediction"])
        count = counts[starts.index(begun) if begun in starts else -1]
        count[0] += 1
        count[1] += found["correct"]
    return counts


def _first_step(solution: str) -> str:
    """Return what stands between the opening line and the second step."""
    return next(iter(solution.splitlines()[1:]), "").split(" ; ")[0].strip()


def span_log_probs(model_dir: Path, pairs: Path) -> Row:
    """Average −log p (nats a token) at the first and later tokens of the spans in which pairs differ (Figure 2).

    Args:
        model_dir: The model's.
        pairs: File of bridged pairs.

    Returns:
        `{"chosen": {"first": …, "later": …}, "rejected": …}`.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from .analysis.token_rewards import sums_by_position
    from .data.tokenization import align_response, encode_prompt
    from .training.token_weights import token_diff

    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_dir), AutoTokenizer.from_pretrained(model_dir)
    sides = ("chosen", "rejected")
    totals = {side: {"first": [0.0, 0], "later": [0.0, 0]} for side in sides}
    for row in map(json.loads, pairs.read_text(encoding="utf-8").splitlines()):
        prompt = len(encode_prompt(tokenizer, row))
        ids = {side: align_response(tokenizer, row, row[side]).ids for side in sides}
        differs = token_diff(ids["chosen"][prompt:], ids["rejected"][prompt:])
        for side, mask in zip(sides, differs, strict=True):
            tokens = torch.tensor([ids[side]])
            with torch.inference_mode():
                logps = model(tokens).logits[0, prompt - 1 : -1].float().log_softmax(-1)
            values = -logps.gather(1, tokens[0, prompt:, None])[:, 0]
            for place, (total, count) in sums_by_position(values.tolist(), mask).items():
                totals[side][place][0] += total
                totals[side][place][1] += count
    return {side: {place: round(total / count, 5) for place, (total, count) in totals[side].items()} for side in sides}


def trainings(config: LabConfig) -> Iterator[tuple[str, Row, int]]:
    """Go through methods, the points of their grids, and preference seeds."""
    for method, grids in config.methods.items():
        for grid in grids if isinstance(grids, list) else [grids]:
            lists = {key: value if isinstance(value, list) else [value] for key, value in grid.items()}
            for point in itertools.product(*lists.values()):
                for number in config.seeds:
                    yield method, dict(zip(lists, point, strict=True)), number


def _given(values: Row) -> list[str]:
    return [f"--{key}={json.dumps(value)}" for key, value in values.items()]


def _data(path: Path) -> str:
    return f"--dataset_mixture.datasets.0.id={path}"


def _curve(history: list[Row], keys: tuple[str, ...]) -> list[list[float]]:
    return [[round(line[key], 5) for key in keys] for line in history if keys[1] in line]


def summary(rows: list[Row]) -> str:
    """Return a Markdown table, a line for each method and point: mean, standard deviation, what the training moved."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        values = {"pairs": row["pairs"], **row["values"]} if row["pairs"] != "bridge" else row["values"]
        groups.setdefault(" ".join([row["method"], *(f"{key}={value}" for key, value in values.items())]), []).append(
            row
        )
    lines = []
    for name, group in groups.items():
        scores = [100 * row["accuracy"] for row in group]
        line = [name, f"{fmean(scores):.1f}", f"{stdev(scores):.1f}" if len(scores) > 1 else "–", str(len(scores))]
        curves = [row["held_out"] for row in group if row.get("held_out")]
        if curves:
            moved = [fmean(curve[-1][place] - curve[0][place] for curve in curves) for place in (1, 2)]
            line += [f"{moved[0]:+.2f}", f"{moved[1]:+.2f}", f"{100 * fmean(curve[-1][4] for curve in curves):.0f}"]
        else:
            line += [""] * 3
        lines.append(line)
    head = ["method", "accuracy", "sd", "models", "Δ log π(chosen)", "Δ log π(rejected)", "reward accuracy"]
    return markdown_table((head, lines))
