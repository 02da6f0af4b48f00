"""Rounds: sample → bridge → train → evaluate, again from the trained model; and a control without rounds.

Each stage is its own command, in a folder of its own, and runs unless its last file is there. So the same command
goes on wherever it was stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from . import program
from .analysis.rounds import KEYS, summary, write_page
from .bridging.run import estimate_for, load_pairs
from .config import OFFLINE, BridgeConfig, EvaluateConfig, RoundsConfig, SampleConfig
from .data.files import file_rows
from .data.loading import has_answers, load_mixture
from .data.schema import Row, digest, transcript
from .distributed import world_size
from .errors import UserError, UserErrors, user_error
from .evaluation.summary import average
from .llm.cache import cache_path
from .llm.cost import CostEstimate
from .pipeline import LAST, Pipeline, Step, as_words
from .planning.dataset_stats import dataset_stats
from .planning.describe import bridging_cost, describe_data, missing_data, print_plan
from .recipe import parse
from .runs import (
    check_output_dir,
    claim_output_dir,
    read_json,
    report_disk_errors,
    run_fingerprint,
    set_fields,
    write_json,
    write_jsonl,
)

EMPTY = "raise the sample recipe's temperature, or give it other prompts"


def fresh_parts(rows: Iterable[Row], count: int, seed: int) -> list[list[Row]]:
    """Deal rows into disjoint parts by their prompts, whose numbers differ by one at most.

    The order of dealing is that of a hash of seed and prompt. Rows with the same prompt stay together; within a part
    rows keep their order.
    """
    rows = list(rows)
    prompts = {transcript(row["prompt"]): 0 for row in rows}
    for place, prompt in enumerate(sorted(prompts, key=lambda prompt: digest(f"{seed} {prompt}"))):
        prompts[prompt] = place % count
    return [[row for row in rows if prompts[transcript(row["prompt"])] == part] for part in range(count)]


def best_round(accuracies: list[float]) -> int:
    """Return the place of the highest accuracy; of equal ones the first."""
    return accuracies.index(max(accuracies))


class Rounds:
    """A rounds recipe with the recipes of its stages.

    Raises:
        UserErrors: Some of them are no good; all faults at once.
    """

    def __init__(self, config: RoundsConfig) -> None:
        if world_size() > 1:
            raise user_error(
                "command line", 'run it by python; `--launcher "accelerate launch …"` starts the trainings'
            )
        self.config, self.folder = config, Path(config.output_dir)
        self.faults: list[UserError] = []
        self.sample: SampleConfig = self._read(lambda: parse([config.sample], SampleConfig)[0])
        self.evaluation: EvaluateConfig = self._read(lambda: parse([config.evaluate], EvaluateConfig)[0])
        self.bridge: BridgeConfig = self._read(self._read_bridge)
        self.train: Any = self._read(self._read_training)
        self._read(self._check)
        if self.faults:
            raise UserErrors(*dict.fromkeys(self.faults))
        self.first = self.sample.model_name_or_path
        self.fingerprint = self._fingerprint()
        check_output_dir(config.output_dir, self.fingerprint)
        self.results: list[Row] = []  # of the first model, then of each round
        self.stopped: str | None = None
        self.control: Row | None = None

    # the recipes, and their faults

    def _read(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except UserErrors as error:
            self.faults += error.faults
            return None

    def _read_bridge(self) -> BridgeConfig:
        most, path = self.config.max_cost_usd, self.config.bridge
        (config,) = parse([path], BridgeConfig)
        if most is not None and config.editor in OFFLINE:
            raise user_error("max_cost_usd", f"editor: {config.editor} of {path} costs nothing; leave it out")
        if most is not None:  # which needs a price
            (config,) = parse([path, *as_words({"max_cost_usd": most})], BridgeConfig)
        self._one_dataset(path, config)
        return config

    def _read_training(self) -> Any:
        """Read and check the training recipe; return its arguments, model arguments and trainer's config."""
        from .training.config import BMCConfig, PreferenceArguments
        from .training.run import check_run, parse_training

        path, given = self.config.train, {"output_dir": str(self.folder / "round_1" / "model")}
        if self.sample:
            given["model_name_or_path"] = self.sample.model_name_or_path
        words = [path, *as_words(given), *(["--dry_run"] if self.config.dry_run else [])]
        arguments, model_args, config = parse_training(words, PreferenceArguments, BMCConfig, "")
        for key in ("sweep", "seeds"):
            if getattr(arguments, key):
                raise user_error(path, f"{key}: a round is one training; leave it out, or name another recipe")
        if model_args.use_peft and "vllm" in (
            self.sample and self.sample.backend,
            self.evaluation and self.evaluation.backend,
        ):
            what = "rounds sample from the adapter that it trains, which vLLM doesn't load"
            raise user_error(path, f"use_peft: {what}; set backend: transformers in the sample and evaluate recipes")
        self._one_dataset(path, arguments)
        entry = set_fields(arguments.dataset_mixture.datasets[0])
        as_round = replace(arguments.dataset_mixture.datasets[0], id=str(self._pairs(self._home(1))))
        checked = replace(arguments, dataset_mixture=replace(arguments.dataset_mixture, datasets=[as_round]))
        check_run(checked, model_args, config, ("prompt", "chosen", "rejected"), arguments.chosen_column)
        self.entry, self.reads_reference = entry, config.reads_reference
        return arguments, model_args, config

    def _one_dataset(self, path: str, config: Any) -> None:
        count = len(config.dataset_mixture.datasets)
        if count > 1:
            what = f"lists {count} data sets, and the pairs of rounds take the place of one; keep one"
            raise user_error(path, f"dataset_mixture.datasets: {what}")

    def _check(self) -> None:
        """Check what holds between the recipes, as far as the data are there."""
        config = self.config
        if self.sample and self.sample.model_revision != "main":
            what = "is of the first round's model alone; download that revision, and name its folder as the model"
            raise user_error(config.sample, f"model_revision: {what}")
        if self.sample and config.prompts == "fresh" and not missing_data(self.sample.dataset_mixture.datasets):
            prompts = {transcript(row["prompt"]) for row in self._prompts()}
            if len(prompts) < config.rounds:
                what = f"{len(prompts)} prompts can't be dealt to {config.rounds} rounds"
                raise user_error("prompts", f"{what}; write prompts: same, or fewer rounds")
        if self.evaluation and config.early_stop:
            try:
                files = self.evaluation.validation_files()
            except UserErrors as error:
                what = "; evaluate prepared data, or set early_stop: false"
                raise user_error("early_stop", f"{config.evaluate} reads {error}{what}") from None
            there = all(Path(file).exists() for file in files)
            if (there or not config.dry_run) and not has_answers(files):
                raise user_error("early_stop", f"the rows of {', '.join(files)} have no answers; set it to false")

    def _prompts(self) -> Iterable[Row]:
        mixture = self.sample.dataset_mixture
        return load_mixture(mixture.datasets, mixture.seed)

    def _fingerprint(self) -> dict[str, Any]:
        from .training.run import recipe_fingerprint

        own = run_fingerprint(self.config)
        if self.config.prompts == "same":
            own.pop("rounds", None)  # more rounds may be added
        stages = {"sample": self.sample, "bridge": self.bridge, "evaluate": self.evaluation}
        train = {key: value for key, value in recipe_fingerprint(*self.train).items() if key != "model_name_or_path"}
        return own | {name: run_fingerprint(stage) for name, stage in stages.items()} | {"train": train}

    # folders and commands

    def _home(self, number: int) -> Path:
        return self.folder / (f"round_{number}" if number else "first")

    def _pairs(self, home: Path) -> Path:
        return home / "bridge" / "train.jsonl"

    def model(self, number: int) -> str:
        """Return the model that a round makes; for 0 the first."""
        return str(self._home(number) / "model") if number else self.first

    def _step(self, stage: str, folder: Path, **given: Any) -> Step:
        recipe = getattr(self.config, stage)
        words = [*program.start(stage), recipe, *as_words(given | {"output_dir": str(folder)})]
        return Step(words, stage, f"{folder}/{LAST[stage]}")

    def _named(self, config: Any, model: str) -> dict[str, Any]:
        """Return what overrides the model of a stage's recipe."""
        return {"model_name_or_path": model} | ({"model_revision": "main"} if config.model_revision != "main" else {})

    def _sampling(self, home: Path, number: int, model: str) -> Step:
        """Return the command that samples the prompts of a round; the control goes through them again."""
        given = self._named(self.sample, model) | {"seed": self.sample.seed + number - 1}
        if self.config.prompts == "fresh":
            part = (number - 1) % self.config.rounds + 1
            given["dataset_mixture.datasets"] = [{"id": str(self.folder / "prompts" / f"part_{part}.jsonl")}]
        return self._step("sample", home / "sample", **given)

    def _bridging_values(self, home: Path, cap: float | None) -> dict[str, Any]:
        entry = set_fields(self.bridge.dataset_mixture.datasets[0])
        given: dict[str, Any] = {"dataset_mixture.datasets": [entry | {"id": str(home / "sample" / "train.jsonl")}]}
        if self.bridge.editor in OFFLINE:
            return given
        if self.bridge.response_cache is None:
            given["response_cache"] = str(cache_path(None, str(self.folder / "bridge")))
        return given | ({} if cap is None else {"max_cost_usd": cap, "yes": True})

    def _bridging(self, home: Path, cap: float | None) -> Step:
        return self._step("bridge", home / "bridge", **self._bridging_values(home, cap))

    def _training(self, folder: Path, number: int, entries: list[Row]) -> Step:
        """Return the command of a training that goes on from the model of a round."""
        given = self._named(self.train[1], self.model(number)) | {"dataset_mixture.datasets": entries}
        if self.config.reference == "first" and number and self.reads_reference:
            given["ref_model_name_or_path"] = self.first
        return self._step("train", folder, **given)

    def _round_training(self, number: int) -> Step:
        homes = [self._home(k) for k in range(1 if self.config.pairs == "all" else number, number + 1)]
        entries = [self.entry | {"id": str(self._pairs(home))} for home in homes]
        return self._training(Path(self.model(number)), number - 1, entries)

    def _evaluations(self, folder: Path, model: str) -> list[Step]:
        """Return the commands that evaluate a model, in `FOLDER/eval`, and on validation rows if they decide."""
        named = self._named(self.evaluation, model)
        distance = {"kl_reference": self.first} if model != self.first else {}
        steps = [self._step("evaluate", folder / "eval", **named, **distance)]
        if self.config.early_stop:
            files = enumerate(self.evaluation.validation_files())
            rows = {f"dataset_mixture.datasets.{place}.id": file for place, file in files}
            steps.append(self._step("evaluate", folder / "eval_validation", **named, **rows))
        return steps

    def _do(self, *steps: Step) -> None:
        """Run the commands whose last file isn't there."""
        pipeline = Pipeline(launcher=self.config.launcher)
        pipeline.steps = [step for step in steps if not Path(str(step.file)).exists()]
        if status := pipeline.run():
            raise SystemExit(status)

    # the plan

    def describe(self) -> None:
        """Print the plan, the estimated cost, and the commands that are left."""
        config, count = self.config, self.config.rounds
        data = describe_data(self.sample.dataset_mixture.datasets)
        fresh = f"one of {count} disjoint parts of {data} a round" if config.prompts == "fresh" else data
        steps = self._evaluations(self._home(0), self.first)
        for number in range(1, count + 1):
            home = self._home(number)
            steps += [self._sampling(home, number, self.model(number - 1)), self._bridging(home, config.max_cost_usd)]
            steps += [self._round_training(number), *self._evaluations(Path(self.model(number)), self.model(number))]
        if config.control:
            homes = [self._control_home(number) for number in range(1, count + 1)]
            for number, home in enumerate(homes[1:], start=2):
                steps += [self._sampling(home, number, self.first), self._bridging(home, config.max_cost_usd)]
            folder = self.folder / "control" / "model"
            entries = [self.entry | {"id": str(self._pairs(home))} for home in homes]
            steps += [self._training(folder, 0, entries), *self._evaluations(folder, str(folder))]
        facts = {
            "first model": self.first,
            "prompts": f"{fresh} ({config.prompts})",
            "reference": f"the {config.reference} model",
            "pairs": config.pairs.replace("_", " "),
            "early stop": "when validation accuracy falls" if config.early_stop else "none",
            "control": "as many pairs of the first model, one training" if config.control else "none",
            "cost": self._cost(),
            "output": config.output_dir,
        }
        print_plan(f"run {count} rounds", facts)
        pipeline = Pipeline(launcher=config.launcher)
        for step in steps:
            if not Path(str(step.file)).exists():
                print(pipeline.shown(step))

    def _cost(self) -> str:
        """Estimate the dollars of all rounds, as if every prompt made a pair."""
        config, bridge = self.config, self.bridge
        if bridge.editor != "openai":
            return f"none: editor {bridge.editor} runs here"
        price, data = bridge.prices.get(bridge.model), dataset_stats(self.sample.dataset_mixture.datasets)
        if price is None:
            return f"unknown: `prices` of {config.bridge} has none for {bridge.model}"
        if data is None:
            return "unknown: the prompts aren't at hand, and no recipe or table says how many there are"
        each_rows = -(-data.rows // config.rounds) if config.prompts == "fresh" else data.rows
        requests, each = bridging_cost(bridge, price, replace(data, rows=each_rows))
        text = f"about ${each:,.2f} a round ({requests:,} requests at the most), ${each * config.rounds:,.2f} for all"
        if config.control:
            text += f", ${each * (2 * config.rounds - 1):,.2f} with the control"
        if spent := self._spent():
            text += f"; ${spent:,.2f} spent so far"
        return text if config.max_cost_usd is None else f"{text}; stops at max_cost_usd, ${config.max_cost_usd:,.2f}"

    # the work

    def run(self) -> None:
        """Run what is left of the rounds and the control; write `rounds.html` after each round, `rounds.json` last.

        Raises:
            UserErrors: A round is left without a pair.
            SystemExit: A stage fails; its status.
        """
        with report_disk_errors(self.folder):
            claim_output_dir(self.config.output_dir, self.fingerprint, self.config)
            self._write_prompts()
        self._do(*self._evaluations(self._home(0), self.first))
        self.results = [self._result(self._home(0), self.first)]
        for number in range(1, self.config.rounds + 1):
            self.stopped = self._round(number)
            self._report()
            if self.stopped:
                break
        if self.config.control and len(self.results) > 2:  # after one round it would be that round
            self._run_control()
        self._report(whole=True)

    def _write_prompts(self) -> None:
        """Write the parts of the prompts, once."""
        count, folder = self.config.rounds, self.folder / "prompts"
        if self.config.prompts == "fresh" and not (folder / f"part_{count}.jsonl").exists():
            parts = fresh_parts(self._prompts(), count, self.sample.dataset_mixture.seed)
            for number, rows in enumerate(parts, start=1):
                write_jsonl(folder / f"part_{number}.jsonl", rows)

    def _round(self, number: int) -> str | None:
        """Run what is left of a round; return why it is the last, if it is."""
        home, before = self._home(number), [self._home(k) for k in range(1, number)]
        if over := self._make_pairs(home, number, self.model(number - 1), before):
            if number == 1:
                raise user_error("max_cost_usd", f"{over}; raise it")
            return f"round {number} was not begun: {over}"
        model = self.model(number)
        self._do(self._round_training(number), *self._evaluations(Path(model), model))
        self.results.append(self._result(Path(model), model, [home]))
        if self.config.early_stop:
            was, now = (result["validation"]["accuracy"] for result in self.results[-2:])
            if now < was:
                return f"validation accuracy fell in round {number}, from {100 * was:.1f} to {100 * now:.1f} %"
        return None

    def _make_pairs(self, home: Path, number: int, model: str, before: list[Path]) -> str | None:
        """Sample and bridge; return why the budget doesn't allow it, if so.

        `home` gets `sample` and `bridge`; `before` are the folders of the bridgings before.
        """
        self._do(self._sampling(home, number, model))
        sampled = read_json(home / "sample" / "stats.json")
        if not sampled["pairs"]:
            file = home / "sample" / "dropped.jsonl"
            what = f"no pair is left of {sampled['rows']} responses of {model} ({_counted(_dropped(home))})"
            raise user_error(str(file), f"{what}; {EMPTY}")
        cap = self.config.max_cost_usd
        if cap is not None and not (home / "bridge" / "stats.json").exists():
            last, spent = self._estimate([*before, home])
            need = last.prior_spend + (last.dollars or 0.0)
            if spent + need > cap:
                return f"it would cost about ${need:,.4f} after ${spent:,.4f}, and max_cost_usd is ${cap:,.4f}"
            cap -= spent
        self._do(self._bridging(home, cap))
        bridged = read_json(home / "bridge" / "stats.json")
        if not bridged["kept"]:
            what = f"no pair is left of {bridged['rows']} ({_counted(bridged['reasons'])})"
            raise user_error(str(home / "bridge" / "dropped.jsonl"), f"{what}; {EMPTY}")
        return None

    def _estimate(self, homes: list[Path]) -> tuple[CostEstimate, float]:
        """Estimate the last of some bridgings, and sum up what the requests of the others alone have cost."""
        configs = [
            parse([self.config.bridge, *as_words(self._bridging_values(home, None))], BridgeConfig)[0] for home in homes
        ]
        loaded = [load_pairs(config) for config in configs]
        bridge_with = loaded[-1][1]
        last = estimate_for(configs[-1], loaded[-1][0], bridge_with)
        together = estimate_for(configs[-1], chain.from_iterable(pairs for pairs, _ in loaded), bridge_with)
        return last, together.prior_spend - last.prior_spend

    def _spent(self) -> float | None:
        """Sum up the dollars of all bridgings so far, each request once; None without an LLM, a price or a bridging."""
        homes = [path.parent for path in sorted(self.folder.rglob("bridge")) if (path / "stats.json").exists()]
        if not homes or self.bridge.editor in OFFLINE or self.bridge.model not in self.bridge.prices:
            return None
        last, others = self._estimate(homes)
        return last.prior_spend + others

    def _control_home(self, number: int) -> Path:
        """Return the folder of a pass of the control; the first is round 1, whose pairs the first model made."""
        return self._home(1) if number == 1 else self.folder / "control" / f"pass_{number}"

    def _run_control(self) -> None:
        """Train once on as many pairs of the first model as the rounds had, as far as it yields them."""
        done = len(self.results) - 1
        wanted = sum(result["kept"] for result in self.results[1:])
        homes: list[Path] = []
        entries: list[Row] = []
        left = wanted
        before = [self._home(k) for k in range(1, done + 1)]
        while left and len(homes) < 2 * done:
            home = self._control_home(len(homes) + 1)
            if over := self._make_pairs(home, len(homes) + 1, self.first, [*before, *homes[1:]]):
                self.stopped = "; ".join(filter(None, [self.stopped, f"the control was left out: {over}"]))
                return
            kept = read_json(home / "bridge" / "stats.json")["kept"]
            some = {"num_rows": left} if kept > left else {}
            entries.append(self.entry | {"id": str(self._pairs(home))} | some)
            homes.append(home)
            left -= min(kept, left)
        folder = self.folder / "control" / "model"
        self._do(self._training(folder, 0, entries), *self._evaluations(folder, str(folder)))
        self.control = self._result(folder, str(folder), homes) | {"kept": wanted - left, "wanted": wanted}

    # the results

    def _result(self, folder: Path, model: str, homes: list[Path] | None = None) -> Row:
        """Collect what the stages wrote of a model and, for a trained one, of its pairs (`analysis.rounds.KEYS`)."""
        metrics = read_json(folder / "eval" / "metrics.json")
        stats = [metrics]
        result: Row = dict.fromkeys(KEYS) | {"model": model, "accuracy": average(metrics["results"])}
        if self.config.early_stop:
            validation = read_json(folder / "eval_validation" / "metrics.json")
            result["validation"] = average(validation["results"])
            stats.append(validation)
        if homes:
            training = read_json(Path(model) / "metrics.json")
            sampled, bridged = (
                [read_json(home / name / "stats.json") for home in homes] for name in ("sample", "bridge")
            )
            reasons: Counter[str] = Counter()
            for home, made in zip(homes, bridged, strict=True):
                reasons += Counter(_dropped(home)) + Counter(made["reasons"])
            stats += [training, *sampled, *bridged]
            kept = sum(made["kept"] for made in bridged)
            costs: list[Any] = [(made.get("usage") or {}).get("dollars") for made in bridged]
            result |= {
                "kl": metrics.get("kl"),
                "prompts": sum(made["rows"] for made in sampled),
                "sampled": sum(made["pairs"] for made in sampled),
                "kept": kept,
                "trained_on": training["rows"],
                "edit_ratio": sum(made["kept"] * made["edit_ratio"] for made in bridged) / kept,
                "reasons": dict(reasons.most_common()),
                "dollars": None if None in costs else sum(costs),
            }
        return result | {"seconds": round(sum(made["seconds"] for made in stats), 1)}

    def _report(self, whole: bool = False) -> None:
        """Write the page, and where all is done `rounds.json`; print the table."""
        best = None
        if self.config.early_stop:
            best = best_round([result["validation"]["accuracy"] for result in self.results])
        found = {
            "settings": {
                key: getattr(self.config, key) for key in ("rounds", "prompts", "reference", "pairs", "early_stop")
            },
            "decoding": {key: getattr(self.evaluation, key) for key in ("temperature", "top_p")},
            "first_model": self.first,
            "rounds": self.results,
            "control": self.control,
            "wants_control": self.config.control,
            "best": None if best is None else {"round": best, "model": self.results[best]["model"]},
            "stopped": self.stopped,
            "max_cost_usd": self.config.max_cost_usd,
            "dollars": self._spent(),
        }
        with report_disk_errors(self.folder):
            write_page(self.folder, found)
            if whole:
                write_json(self.folder / LAST["rounds"], found)
                print(summary(found))


def _dropped(home: Path) -> dict[str, int]:
    """Count the reasons why responses that were sampled made no pair."""
    return Counter(row["reason"] for row in file_rows(home / "sample" / "dropped.jsonl"))


def _counted(reasons: dict[str, int]) -> str:
    return "; ".join(f"{count} × {reason}" for reason, count in reasons.items())
