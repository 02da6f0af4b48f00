"""Which recipe writes which folder; the stages that a target still needs, in order; running them.

A target is a recipe's name below `recipes/` (`llama2-7b/qa/dpo_bmc`, `llama2-7b/qa/ablations/dpo_bmc_delta_1.5`) or its
path; a training is evaluated, too. NAME/judge has a judge compare its responses, MODEL/TASK/review opens the edits of
its bridging, MODEL/TASK/figure3 to figure5 are the runs of a figure, and the file that a stage writes last is a target
as well. A stage runs if that file isn't there; to run one again, remove its folder.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from .errors import UserErrors, did_you_mean, user_error
from .handbook import mixture
from .program import script_of
from .recipe import STAGES, stage_fault
from .recipe_files import ABLATIONS, ROUND_STAGES, Ablation, ablations, figures, find_ablation, load_recipe
from .runs import on_sigterm

RECIPES, OUTPUTS = Path("recipes"), "outputs"
TABLE = RECIPES / f"{ABLATIONS}.yaml"
LAST = {  # stage → the file that it writes last
    "prepare": "stats.json", "sample": "stats.json", "bridge": "stats.json",
    "tiny_model": "stats.json", "score_tokens": "stats.json", "rounds": "rounds.json",
    "sft": "metrics.json", "train": "metrics.json", "evaluate": "metrics.json", "judge": "judge_results.json",
}  # fmt: skip
TRAINING = ("sft", "train")
FETCHED = "models/smollm2-135m"  # a model that is downloaded by a script
COMPARED = ("dpo", "dpo_mc", "dpo_bc", "dpo_bmc")  # what an analysis compares, unless its recipe says


@dataclass(frozen=True)
class Recipe:
    """One recipe."""

    path: Path  # its file, or the path of an ablation
    stage: str
    values: dict[str, Any]  # its keys, with those of what it extends
    ablation: Ablation | None = None  # what it overrides, if it has no file

    @property
    def file(self) -> Path:
        """The file to give to the stage."""
        return self.ablation.recipe if self.ablation else self.path

    @property
    def output_dir(self) -> str:
        """Its output folder.

        Raises:
            UserErrors: It names none.
        """
        if not self.values.get("output_dir"):
            raise user_error(str(self.path), "output_dir: is missing; add it to the recipe")
        return str(self.values["output_dir"]).rstrip("/")

    def overrides(self) -> dict[str, Any]:
        """Return what to give on the command line besides the file."""
        return self.ablation.given(load_recipe(self.ablation.recipe)[0]) if self.ablation else {}

    def reads(self) -> Iterator[str]:
        """Yield the files and folders that it reads: data, then models."""
        if self.stage == "rounds":
            yield from self._rounds_read()
            return
        data = self.values.get("dataset_mixture") or {}
        for part in (data.get("datasets"), data.get("test_datasets"), self.values.get("validation_datasets")):
            yield from (str(entry["id"]) for entry in part or () if isinstance(entry, dict) and entry.get("id"))
        for key in ("model_name_or_path", "ref_model_name_or_path", "tokenizer_name_or_path"):
            if self.values.get(key):
                yield str(self.values[key])

    def _rounds_read(self) -> Iterator[str]:
        """Yield what the recipes of rounds read that no round makes: prompts, benchmarks, the first model."""
        for name in ROUND_STAGES:
            values = read_recipe(Path(str(self.values[name]))).values if self.values.get(name) else {}
            made: dict[str, Any] = {} if name == "sample" else {"model_name_or_path": None}
            if name in ("bridge", "train"):
                made["dataset_mixture"] = dict(values.get("dataset_mixture") or {}, datasets=[])
            yield from Recipe(self.path, name, values | made).reads()


def read_recipe(path: Path) -> Recipe:
    """Read a recipe that says which stage runs it.

    Raises:
        UserErrors: It can't be read, or its `stage` is missing or unknown.
    """
    values, origin = load_recipe(path)
    if values.get("stage") not in STAGES:
        raise user_error(origin.get("stage", str(path)), f"stage: {stage_fault(values.get('stage'))}")
    mixture(values, origin, [], ())  # the older ways to name the data
    return Recipe(path, values["stage"], values, find_ablation(path))


def producer(folder: str) -> Recipe | None:
    """Find the recipe that writes a folder; None if there is none that can be read.

    `outputs/NAME` is mostly written by `recipes/NAME.yaml`, so that is looked at first; what counts is `output_dir`.
    """
    folder = folder.rstrip("/")
    likely = RECIPES / f"{folder.removeprefix(f'{OUTPUTS}/')}.yaml"
    found = _readable(likely)
    if found and found.values.get("output_dir") == folder:
        return found
    return _by_output(RECIPES.resolve()).get(folder) if folder.startswith(f"{OUTPUTS}/") else None


def _readable(path: Path) -> Recipe | None:
    try:
        return read_recipe(path)
    except UserErrors:  # which it tells itself when it is run
        return None


@cache
def _by_output(root: Path) -> dict[str, Recipe]:
    """Index the recipes by their output folders."""
    found = filter(None, map(_readable, sorted(RECIPES.rglob("*.yaml"))))  # `root` by another name
    return {recipe.output_dir: recipe for recipe in found if recipe.values.get("output_dir")}


@dataclass(frozen=True)
class Step:
    """One command."""

    words: list[str]  # its words, without what starts it
    stage: str | None = None  # the stage that it runs; None for another script
    file: str | None = None  # what it leaves; None where it is always run


@dataclass
class Pipeline:
    """The commands that some targets still need."""

    outputs: str = OUTPUTS  # folder of the outputs, in place of the one that recipes name
    launcher: str | None = None  # command that starts the training stages
    # Seeds to train preference recipes with, `1,2,3`: mean and standard deviation instead of one run
    seeds: str | None = None
    steps: list[Step] = field(default_factory=list)
    _planned: set[str] = field(default_factory=set)
    _building: list[str] = field(default_factory=list)

    def add(self, target: str) -> None:
        """Plan what a target needs and isn't there yet.

        Raises:
            UserErrors: There is no such target, or nothing makes what one of its recipes reads.
        """
        if not RECIPES.is_dir():
            raise user_error(f"{RECIPES}/", f"isn't in {Path.cwd()}; run it from the repository's root")
        name = target.removeprefix(f"{self.outputs}/").removeprefix(f"{OUTPUTS}/").removesuffix(".yaml")
        name = name.removeprefix(f"{RECIPES}/") if target.endswith(".yaml") else name
        folder, _, last = name.rpartition("/")
        if target in (FETCHED, f"{FETCHED}/config.json"):
            self._fetch()
        elif last == "judge_results.json":
            run, _, benchmark = folder.rpartition("/")
            self._judge(run.removesuffix("/eval"), benchmark)
        elif last == "metrics.json" and folder.endswith("/eval"):
            self._evaluate(folder.removesuffix("/eval"))
        elif last in LAST.values():
            self._build(f"{OUTPUTS}/{folder}")
        elif last == "judge":
            for benchmark in self._benchmarks_to_judge(folder):
                self._judge(folder, benchmark)
        elif last == "review":
            self._review(folder)
        elif last in (drawn := figures(TABLE) if TABLE.is_file() else {}) and (RECIPES / folder).is_dir():
            self._figure(folder, drawn[last])
        else:
            self._recipe(name, Path(target) if target.endswith(".yaml") else RECIPES / f"{name}.yaml")

    def _recipe(self, name: str, path: Path) -> None:
        """Plan a recipe: a training with its evaluation, another stage alone."""
        try:
            recipe = read_recipe(path) if path.is_file() or path.parent.name == ABLATIONS else None
        except UserErrors:
            if path.is_file() or (TABLE.is_file() and path.stem in ablations(TABLE.resolve())):
                raise
            recipe = None
        if recipe is None:
            if producer(f"{OUTPUTS}/{name}/eval"):  # of a model that isn't trained here
                self._evaluate(name)
                return
            raise user_error(name, f"there is no such target{did_you_mean(name, _names())}; make help lists them")
        if recipe.stage == "analyze":
            self._analyze(recipe)
        elif recipe.stage == "rounds" or (recipe.stage == "train" and self.seeds):  # rounds go on where they were
            self._read(recipe)
            seeds = ["--seeds", str(self.seeds)] if recipe.stage == "train" else []
            self._step(recipe, {}, [*seeds, *self._launched()], always=True)
        elif recipe.stage in TRAINING:
            self._evaluate(name, recipe)
        elif recipe.stage in LAST:
            self._build(recipe.output_dir, recipe)
        else:  # a study, which goes on where it was
            self._step(recipe, {}, always=True)

    def _build(self, folder: str, recipe: Recipe | None = None) -> None:
        """Plan the recipe that writes a folder, unless it is there."""
        recipe = recipe or producer(folder)
        if recipe is None:
            hint = did_you_mean(folder, list(_by_output(RECIPES.resolve())))
            raise user_error(folder, f"isn't there, and no recipe in {RECIPES}/ writes it{hint}")
        if folder in self._building:
            circle = " → ".join([*self._building[self._building.index(folder) :], folder])
            raise user_error(str(recipe.path), f"reads what it makes in turn: {circle}; break the circle")
        file = f"{self._out(folder)}/{LAST[recipe.stage]}"
        if not self._is_there(file):
            self._building.append(folder)
            self._read(recipe)
            self._building.pop()
            self._step(recipe, recipe.overrides(), self._launched() if recipe.stage == "rounds" else None)

    def _launched(self) -> list[str]:
        """Return what tells a stage that starts trainings itself how to."""
        return [] if self.launcher in (None, "python") else ["--launcher", str(self.launcher)]

    def _read(self, recipe: Recipe, models: bool = True) -> None:
        """Plan what makes what a recipe reads."""
        for place in recipe.reads():
            is_data = Path(place).suffix in (".jsonl", ".json", ".csv", ".parquet", ".gz")
            if place == FETCHED:
                self._fetch()
            elif place.startswith(f"{OUTPUTS}/") and (models or is_data):
                folders = [str(folder) for folder in (Path(place), *Path(place).parents[:-2])]  # a checkpoint, too
                maker = next((folder for folder in folders if producer(folder)), None)
                if maker or not Path(place).exists():
                    self._build(maker or (str(Path(place).parent) if is_data else place))

    def _fetch(self) -> None:
        file = f"{FETCHED}/config.json"
        if not self._is_there(file):
            self._plan(Step(["scripts/fetch_smollm2.py", FETCHED], file=file))

    def _evaluate(self, name: str, recipe: Recipe | None = None) -> None:
        """Plan a run's evaluation, after its training."""
        folder = recipe.output_dir if recipe else f"{OUTPUTS}/{name}"
        if self._is_there(f"{self._out(folder)}/eval/{LAST['evaluate']}"):
            return
        recipe = recipe or producer(folder)
        if recipe is None:  # of a model that isn't trained here
            self._build(f"{folder}/eval")
            return
        self._build(folder, recipe)
        evaluation = evaluation_of(recipe)
        if evaluation is not None:
            self._read(evaluation, models=False)
            self._step(evaluation, {"model_name_or_path": folder, "output_dir": f"{folder}/eval"})

    def _analyze(self, recipe: Recipe) -> None:
        """Plan an analysis, which is always made anew, after the runs that it compares."""
        self._read(recipe)
        for run in recipe.values.get("runs") or COMPARED:
            self._build(f"{recipe.values['setting']}/{run}")
        self._step(recipe, {}, always=True)

    def _figure(self, task: str, runs: list[str]) -> None:
        """Plan the runs of a figure of a model/task; a judge comes last, where the figure shows win rates."""
        wanted = [run for run in runs if not _changes_nothing(RECIPES / task / f"{run}.yaml")]
        for run in wanted:
            self.add(f"{task}/{run}")
        analysis = _readable(RECIPES / task / "analyze.yaml")
        kind, _, metric = str(analysis.values.get("metric", "") if analysis else "").partition(".")
        for run in wanted if kind in ("judge", "judged") else ():
            self._judge(f"{task}/{run}", metric.rpartition("_")[0])

    def _judge(self, run: str, benchmark: str) -> None:
        """Plan a benchmark's judge on the responses of a run, after its evaluation."""
        folder = f"{OUTPUTS}/{run}/eval"
        if any(self._is_there(f"{self._out(folder)}/{benchmark}/{name}") for name in (LAST["judge"], "judged.json")):
            return
        self._evaluate(run)
        judge = next(recipe for recipe in judges() if recipe.values["benchmark"] == benchmark)
        task = f"{OUTPUTS}/{'/'.join(run.split('/')[:2])}"
        given = {"responses": folder, "output_dir": f"{folder}/{benchmark}", "response_cache": f"{task}/judge.sqlite"}
        self._step(judge, given)

    def _review(self, name: str) -> None:
        """Plan the review of a bridging: the recipe NAME, or the `bridge` of a model/task. It is opened every time.

        Raises:
            UserErrors: There is no such bridging.
        """
        made = [made for place in (name, f"{name}/bridge") if (made := producer(f"{OUTPUTS}/{place}"))]
        bridging = next((recipe for recipe in made if recipe.stage == "bridge"), None)
        if bridging is None:
            what = f"{name} has no bridging{did_you_mean(name, _names())}; write MODEL/TASK/review"
            raise user_error(f"{name}/review", what)
        self._build(bridging.output_dir, bridging)
        self._plan(Step(["-m", "bmc", "review", self._out(bridging.output_dir)]))

    def _benchmarks_to_judge(self, run: str) -> list[str]:
        """Return the benchmarks that a judge is for among those that a run is evaluated on."""
        recipe = producer(f"{OUTPUTS}/{run}")
        evaluation = evaluation_of(recipe) if recipe else producer(f"{OUTPUTS}/{run}/eval")
        if evaluation is None:
            raise user_error(f"{run}/judge", f"there is no such target{did_you_mean(run, _names())}")
        prepared = [producer(str(Path(place).parent)) for place in evaluation.reads()]
        mixtures = [made.values.get("dataset_mixture") or {} for made in prepared if made]
        tested = [entry.get("source") for mixture in mixtures for entry in mixture.get("test_datasets") or []]
        found = [judge.values["benchmark"] for judge in judges() if judge.values["benchmark"] in tested]
        if not found:
            raise user_error(f"{run}/judge", f"no judge is for its benchmarks ({', '.join(map(str, tested))})")
        return found

    def _step(
        self, recipe: Recipe, overrides: dict[str, Any], more: list[str] | None = None, always: bool = False
    ) -> None:
        """Plan the command of a recipe with overrides."""
        folder = self._out(str(overrides.get("output_dir") or recipe.output_dir))
        if recipe.ablation and not overrides:
            overrides = recipe.overrides()
        words = [f"scripts/{script_of(recipe.stage)}.py", str(recipe.file)]
        words += as_words(
            {key: self._out(value) if isinstance(value, str) else value for key, value in overrides.items()}
        )
        file = None if always else f"{folder}/{LAST[recipe.stage]}"
        self._plan(Step([*words, *(more or [])], None if more else recipe.stage, file))

    def _plan(self, step: Step) -> None:
        if step.file is not None:
            self._planned.add(step.file)
        if step not in self.steps:
            self.steps.append(step)

    def _is_there(self, file: str) -> bool:
        """Return whether a file is there, or will be."""
        return file in self._planned or Path(file).exists()

    def _out(self, place: str) -> str:
        """Return a place with the outputs' folder that is used."""
        inside = place == OUTPUTS or place.startswith(f"{OUTPUTS}/")
        return self.outputs + place.removeprefix(OUTPUTS) if inside else place

    def shown(self, step: Step) -> str:
        """Return a command as a person would type it."""
        start = (self.launcher if step.stage in TRAINING else None) or "python"
        return f"{start} {' '.join(map(_quoted, step.words))}"

    def run(self) -> int:
        """Run the commands, each shown first; return the status of the first one that fails, or 0."""
        for step in self.steps:
            print(self.shown(step), flush=True)
            launcher = self.launcher if step.stage in TRAINING else None
            start = shlex.split(launcher) if launcher and launcher != "python" else [sys.executable]
            if status := _run([*start, *step.words]):
                return status
        return 0


def judges() -> list[Recipe]:
    """Return the recipes of the judges, which are of no model/task."""
    return [
        recipe for path in sorted(RECIPES.glob("*.yaml")) if (recipe := _readable(path)) and recipe.stage == "judge"
    ]


def evaluation_of(recipe: Recipe) -> Recipe | None:
    """Find the recipe that evaluates what another one trains: its `eval_recipe`, or the one beside it; None of none.

    Raises:
        UserErrors: There are several.
    """
    if named := recipe.values.get("eval_recipe"):
        return read_recipe(Path(named))
    folder = recipe.file.parent
    usual = _readable(folder / "eval.yaml")
    if usual and usual.stage == "evaluate":
        return usual
    beside = filter(None, map(_readable, sorted(folder.glob("*.yaml"))))
    found = [other for other in beside if other.stage == "evaluate"]
    if len(found) > 1:
        named = ", ".join(str(other.path) for other in found)
        raise user_error(str(recipe.path), f"eval_recipe: several could evaluate it; write one of {named}")
    return found[0] if found else None


def _changes_nothing(path: Path) -> bool:
    """Return whether an ablation gives its recipe the values that it has."""
    ablation = find_ablation(path)
    if ablation is None:
        return False
    values = load_recipe(ablation.recipe)[0]
    return all(values.get(key) == value for key, value in ablation.overrides.items())


def _names() -> list[str]:
    """Return all targets that are recipes with a file."""
    files = (recipe.path for recipe in _by_output(RECIPES.resolve()).values())
    return [file.relative_to(RECIPES).with_suffix("").as_posix() for file in files]


def as_words(values: dict[str, Any]) -> list[str]:
    """Write overrides as words of a command line."""
    written = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in values.items()
    }
    return [word for key, value in written.items() for word in (f"--{key}", value)]


def _quoted(word: str) -> str:
    return f'"{word}"' if " " in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def _run(command: list[str]) -> int:
    """Run a command, passing SIGTERM on to it; return its exit status."""
    try:
        running = subprocess.Popen(command)
    except OSError as error:
        raise user_error("launcher", f"'{command[0]}' can't be started ({error.strerror})") from None
    with running, on_sigterm(lambda number, frame: running.send_signal(number)):
        status = running.wait()
    return 128 - status if status < 0 else status
