"""The stages as commands: each reads its recipe, prints the plan of a dry run or does the work.

`bmc STAGE …` and `scripts/STAGE.py …` call the same functions. What is slow to import is imported where it is used,
so that `--help` and the faults of a recipe come at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from . import config as recipes
from . import program
from .errors import user_error
from .llm.address import where
from .manual import markdown
from .pipeline import Pipeline, Step, read_recipe
from .planning import describe as planning
from .planning.fit import fit
from .recipe import STAGES, parse, take_option
from .recipe_files import load_recipe
from .runs import elapsed, is_main_process, report_disk_errors, write_json, write_jsonl


def _first(key: str, argv: list[str]) -> list[str]:
    """Give a key the first word of a command line, unless that is a key itself or a recipe."""
    is_value = argv and not argv[0].startswith("-") and not argv[0].endswith((".yaml", ".yml"))
    return [f"--{key}", *argv] if is_value else argv


def prepare(argv: list[str]) -> None:
    """Turn raw data into SFT data, a validation part and benchmarks.

    bmc prepare recipes/smollm2-135m/math/prepare.yaml
    """
    (config,) = parse(argv, recipes.PrepareConfig, description=prepare.__doc__ or "")
    if config.dry_run:
        mixture, share = config.dataset_mixture, f"{config.validation_fraction:.1%} of the training prompts"
        facts = {
            "training data": planning.describe_data(mixture.datasets),
            "benchmarks": planning.describe_data(mixture.test_datasets) or "none",
            "validation": planning.describe_data(config.validation_datasets) or share,
            **planning.data_facts(mixture.datasets, mixture.test_datasets),
            "output": config.output_dir,
        }
        planning.print_plan("prepare data", facts)
        return
    from .data.prepare import prepare as run

    stats = run(config)
    counts = ", ".join(f"{stats[name]:,} {name}" for name in ("train", "validation", "test"))
    print(f"prepared {counts} rows: {config.output_dir}")


def sft(argv: list[str]) -> None:
    """Fine-tune on responses, with the loss on the response only (TRL's SFTTrainer).

    accelerate launch --config_file recipes/accelerate_configs/zero3.yaml scripts/sft.py recipes/llama2-7b/qa/sft.yaml
    """
    from .training.config import SFTConfig, TrainingArguments
    from .training.run import SFT, assistant_only, check_run, describe_run, parse_training, prepare_run

    arguments, model_args, config = parse_training(argv, TrainingArguments, SFTConfig, sft.__doc__ or "")
    if arguments.dry_run:
        missing = check_run(arguments, model_args, config, SFT)
        describe_run("supervised fine-tuning", arguments, model_args, config, missing)
        return
    from .training.fault_tolerance import SFTTrainer

    tokenizer, train_rows, evaluation = prepare_run(arguments, model_args, config, SFT)
    config.assistant_only_loss = assistant_only(config, train_rows)
    _train(SFTTrainer, tokenizer, train_rows, evaluation, model_args, config, "rows")


def _train(trainer: Any, tokenizer: Any, rows: Any, evaluation: Any, model_args: Any, config: Any, unit: str) -> None:
    """Train, save, and write the model card; `trainer` is a class, `unit` what its rows are called."""
    from .training import model_card as card
    from .training.run import run_training, trainer_arguments

    options = trainer_arguments(model_args, config)
    data = {"train_dataset": rows, "eval_dataset": evaluation, "processing_class": tokenizer}
    metrics = run_training(card.with_card(trainer)(args=config, **data, **options), tokenizer)
    if is_main_process():
        card.write(Path(config.output_dir))
        print(f"trained on {metrics['rows']:,} {unit} in {metrics['seconds']:.0f} s: {config.output_dir}")


def sample(argv: list[str]) -> None:
    """Sample the SFT model's own outputs as rejected responses y_l; the ground truth is the chosen one, y_w (§4).

    bmc sample recipes/smollm2-135m/math/sample.yaml
    """
    (config,) = parse(argv, recipes.SampleConfig, description=sample.__doc__ or "")
    if config.dry_run:
        data = planning.describe_data(config.dataset_mixture.datasets)
        share = f"the first {config.prefix_fraction:.0%} of y_w's tokens, continued"
        rejected = {"rejected": share if config.mode == "continue_prefix" else None}
        facts = {"prompts": data} | rejected | planning.describe_generation(config) | planning.generation_facts(config)
        planning.print_plan("sample rejected responses", facts)
        return
    from .generation.generate import PARTIAL, generate_responses, make_pairs

    rows, responses, folder = generate_responses(config)
    pairs, dropped = make_pairs(rows, responses)
    write_jsonl(folder / "train.jsonl", pairs)
    write_jsonl(folder / "dropped.jsonl", dropped)
    stats = {
        "rows": len(rows),
        "pairs": len(pairs),
        "dropped": len(dropped),
        "cut_off": sum(not response["finished"] for response in responses),
        "tokens": sum(response["tokens"] for response in responses),
        "seconds": elapsed(),
    }
    write_json(folder / "stats.json", stats)
    (folder / PARTIAL).unlink()
    print(f"sampled {len(pairs):,} pairs ({len(dropped):,} dropped) in {elapsed():.0f} s: {folder}")


def bridge(argv: list[str]) -> None:
    """Edit y_l where it is wrong, with y_w as reference: (x, y_w, y_l) → (x, ỹ_w, y_l) (§3.1); or another `mode`.

    OPENAI_API_KEY=… bmc bridge recipes/llama2-7b/qa/bridge.yaml
    """
    (config,) = parse(argv, recipes.BridgeConfig, description=bridge.__doc__ or "")
    if config.dry_run:
        _plan_bridging(config)
        return
    from .bridging.run import bridge as run

    stats = run(config)
    print(
        f"kept {stats['kept']:,} of {stats['rows']:,} pairs ({stats['bridged']:,} bridged, {stats['dropped']:,} "
        f"dropped) in {stats['seconds']:.0f} s: {config.output_dir}"
    )
    for reason, count in stats["reasons"].items():
        print(f"  dropped {count:,}: {reason}")


def _plan_bridging(config: Any) -> None:
    """Print what would be done and what it would cost; needs no key."""

    scores, asks = config.mode == "token_scores", config.editor not in recipes.OFFLINE
    endpoint = f"{config.model} at {where(config.base_url)}, key from {config.api_key_env}"
    editor = "a person, whose edits the data hold" if config.editor == "person" else config.editor
    facts = {
        "pairs": planning.describe_data(config.dataset_mixture.datasets),
        "editor": endpoint if config.editor == "openai" else f"{editor}{f', {config.model}' if asks else ''}",
        "mode": config.mode,
        "prompt": f"{config.template} template" if asks and not scores else None,
        "tokenizer": config.tokenizer_name_or_path,
        "bridged": None if scores else f"{config.proportion:.0%} of the pairs that are kept",
        "output": config.output_dir,
    }
    if planning.missing_data(config.dataset_mixture.datasets):
        facts |= {"estimate": "none before the pairs are there; roughly:"} if asks else {}
        facts |= planning.bridging_facts(config)
    else:
        from .bridging.run import estimate_for, load_pairs

        pairs, bridge_with = load_pairs(config)
        facts |= estimate_for(config, pairs, bridge_with).facts() if asks else planning.unpaid_facts(pairs)
    planning.print_plan("bridge pairs", facts)


def review(argv: list[str]) -> None:
    """Review a bridging run's edits in a browser: accept, reject, correct by hand. Ctrl-C ends it; nothing is lost.

    bmc review outputs/smollm2-135m/math/bridge --reviewer AB
    bmc review outputs/smollm2-135m/math/bridge --apply not_rejected
    """
    argv, usage = _first("folder", argv), "FOLDER [--key value …]"
    (config,) = parse(argv, recipes.ReviewConfig, description=review.__doc__ or "", usage=usage)
    if config.apply is None:
        from .bridging.review_server import serve

        serve(config)
        return
    from .bridging.review import apply

    with report_disk_errors(config.folder):
        folder, counts = apply(Path(config.folder), config.apply)
    print(f"kept {counts.pop('', 0):,} pairs: {folder}")
    for reason, count in counts.most_common():
        print(f"  dropped {count:,}: {reason}")


def score_tokens(argv: list[str]) -> None:
    """Add token weights λ to pairs, from the log-probs of two models: TIS-DPO's, SePO's or TGDPO's.

    bmc score_tokens recipes/smollm2-135m/math/score_tis.yaml
    """
    (config,) = parse(argv, recipes.ScoreTokensConfig, description=score_tokens.__doc__ or "")
    from .training.score_tokens import check
    from .training.score_tokens import score_tokens as run

    if config.dry_run:
        check(config, dry_run=True)
        models = {"model": config.model_name_or_path, "compared with": config.ref_model_name_or_path}
        data = {"pairs": planning.describe_data(config.dataset_mixture.datasets), "method": config.method}
        planning.print_plan("score tokens", data | models | {"output": config.output_dir})
    elif stats := run(config):
        dropped = f" ({stats['dropped']:,} dropped)" if stats["dropped"] else ""
        print(f"scored {stats['pairs']:,} pairs{dropped} in {stats['seconds']:.0f} s: {config.output_dir}")


def train(argv: list[str]) -> None:
    """Train on pairs: DPO-BMC, DPO and the other objectives (BMCTrainer).

    accelerate launch --config_file recipes/accelerate_configs/zero3.yaml \\
        scripts/preference.py recipes/llama2-7b/qa/dpo_bmc.yaml
    bmc train recipes/llama2-7b/qa/dpo.yaml --sweep --launcher "accelerate launch …"
    bmc train recipes/llama2-7b/qa/dpo.yaml --seeds 1,2,3 --launcher "accelerate launch …"
    """
    from .training.config import BMCConfig, PreferenceArguments
    from .training.losses import hyperparameters
    from .training.run import check_run, describe_run, parse_training, prepare_run
    from .training.sweep import describe_sweep, seeds, sweep

    columns = ("prompt", "chosen", "rejected")
    arguments, model_args, config = parse_training(argv, PreferenceArguments, BMCConfig, train.__doc__ or "")
    if arguments.dry_run:
        names = config.loss_type if isinstance(config.loss_type, list) else [config.loss_type]
        weights = {
            "none": "λ = 1",
            "bmc": f"λ = 1 + min(1/π, {config.bmc_delta:g}) on differing tokens",
            "confpo": "λ = 1 for tokens less likely than their response's mean, else 0",
            "entropy": f"λ = 1 for the {config.entropy_share:.0%} of a response of highest entropy, else 0",
            "position": f"λ = {config.position_decay:g}^t from the first difference",
            "shift": f"λ = {config.rejected_weight:g} for rejected tokens, else 1",
            "external": "λ from the columns chosen_weights and rejected_weights",
        }
        own = {key: getattr(config, key) for name in names for key in hyperparameters(name)}
        facts = {"objective": " + ".join(names), **own, "weights": weights[config.token_weighting]}
        if arguments.sweep:
            facts["sweep"] = describe_sweep(argv, arguments, config)
        facts |= check_run(arguments, model_args, config, columns, arguments.chosen_column)
        describe_run("preference training", arguments, model_args, config, facts)
        return
    if arguments.sweep or arguments.seeds is not None:
        print((sweep if arguments.sweep else seeds)(argv, arguments, config))
        return
    from .training.trainer import BMCTrainer

    tokenizer, train_rows, evaluation = prepare_run(arguments, model_args, config, columns, arguments.chosen_column)
    _train(BMCTrainer, tokenizer, train_rows, evaluation, model_args, config, "pairs")


def evaluate(argv: list[str]) -> None:
    """Generate responses to the benchmarks (greedy by default) and score them: n, accuracy, 95 % Wilson interval.

    bmc evaluate recipes/smollm2-135m/math/eval.yaml --model_name_or_path outputs/smollm2-135m/math/dpo_bmc
    """
    (config,) = parse(argv, recipes.EvaluateConfig, description=evaluate.__doc__ or "")
    from .evaluation.kl import check_kl_reference, estimate_kl

    check_kl_reference(config)
    if config.dry_run:
        data = {"benchmarks": planning.describe_data(config.dataset_mixture.datasets), "KL from": config.kl_reference}
        planning.print_plan("evaluate", data | planning.describe_generation(config) | planning.generation_facts(config))
        return
    from .evaluation.comparisons import write_outputs
    from .evaluation.scoring import describe, predict, summarise
    from .generation.generate import PARTIAL, generate_responses
    from .training import model_card as card

    rows, responses, folder = generate_responses(config)
    given = zip(rows, responses, strict=True)
    predictions = [predict(row, response["text"]) | {"tokens": response["tokens"]} for row, response in given]
    kl = {"kl": estimate_kl(config, rows, responses, predictions)} if config.kl_reference else {}
    write_jsonl(folder / "predictions.jsonl", predictions)
    write_outputs(folder, rows, responses, config.model_name_or_path)
    metrics = {
        "model": config.model_name_or_path,
        **summarise(predictions),
        **kl,
        "tokens": sum(response["tokens"] for response in responses),
        "seconds": elapsed(),
    }
    write_json(folder / "metrics.json", metrics)
    (folder / PARTIAL).unlink()
    if folder.parent == Path(config.model_name_or_path):  # results of a model of ours, beside it
        card.write(folder.parent)
    print(describe(metrics))


def judge(argv: list[str]) -> None:
    """Have a judge compare responses with a reference's: AlpacaEval 2's win rates, or Arena-Hard v0.1's.

    bmc judge recipes/judge_arena_hard.yaml --responses outputs/dpo/eval --output_dir outputs/dpo/judge
    """
    (config,) = parse(argv, recipes.JudgeConfig, description=judge.__doc__ or "")
    if config.dry_run:
        _plan_judging(config)
        return
    from .evaluation.judges import judge as run
    from .evaluation.judges import lost

    results = run(config)
    low, high = results["interval"]
    print(
        f"{config.benchmark}: win rate {results['win_rate']:.1f} % against {results['reference']} "
        f"(n = {results['n']}; 95 % interval {low:.1f} to {high:.1f})"
    )
    if results["length_controlled_win_rate"] is not None:
        print(f"  length-controlled: {results['length_controlled_win_rate']:.1f} %")
    if results["unreadable"]:
        named = ", ".join(results["unreadable_ids"][:5]) + (", …" if len(results["unreadable_ids"]) > 5 else "")
        print(f"  {lost(results)} ({named})")


def _plan_judging(config: Any) -> None:
    """Print what would be done and what it would cost; needs no key."""

    facts = {
        "benchmark": config.benchmark,
        "responses": config.responses,
        "reference": config.reference,
        "judge": f"{config.model} at {where(config.base_url)}, key from {config.api_key_env}",
        "output": config.output_dir,
    }
    if Path(config.responses).is_dir():
        from .evaluation.judges import estimate_for, load_benchmark

        facts |= estimate_for(config, load_benchmark(config)[0]).facts()
    else:
        facts |= {"estimate": "none before the responses are there"}
    planning.print_plan("judge responses", facts)


def analyze(argv: list[str]) -> None:
    """Draw the paper's figures from the runs of a model/task, and write the reward of every token of validation pairs.

    bmc analyze recipes/smollm2-135m/math/analyze.yaml
    """
    (config,) = parse(argv, recipes.AnalyzeConfig, description=analyze.__doc__ or "")
    if config.dry_run:
        named = config.dataset_mixture
        data = {"validation pairs": planning.describe_data(named.datasets) if named else None}
        planning.print_plan("analyze", data | planning.analysis_facts(config))
        return
    from .analysis.analyze import analyze as run

    summary = run(config)
    for gap in summary["missing"]:
        print(f"{gap['name']}: {gap['why']}; {gap['command']}")
    pairs = f"{summary['pairs']['n']:,} validation pairs by {len(summary['runs'])} runs, " if summary["pairs"] else ""
    print(f"{pairs}{len(summary['figures'])} figures in {summary['seconds']:.0f} s: {config.output_dir}")


def rounds(argv: list[str]) -> None:
    """Run sample → bridge → train → evaluate several times, each from the model of the round before.

    bmc rounds recipes/smollm2-135m/math/rounds.yaml --launcher "accelerate launch …"
    """
    (config,) = parse(argv, recipes.RoundsConfig, description=rounds.__doc__ or "")
    from .rounds import Rounds

    study = Rounds(config)
    if config.dry_run:
        study.describe()
    else:
        study.run()


def report(argv: list[str]) -> None:
    """Compare all runs below a folder: `report.html` for the browser, `report.md` as text.

    bmc report outputs/smollm2-135m/math
    """
    argv, usage = _first("runs", argv), "RUNS [--key value …]"
    (config,) = parse(argv, recipes.ReportConfig, description=report.__doc__ or "", usage=usage)
    from .analysis.report import report as run

    print(run(config))


def table(argv: list[str]) -> None:
    """Print a table or figure of the paper, its numbers beside ours. `make table1` builds what it needs first.

    bmc table table1 [--model smollm2-135m]
    """
    from .analysis.tables import TableConfig, targets
    from .analysis.tables import table as run

    if not argv:
        raise user_error("command line", "names no table; give table1, figure4, …, or --help for the keys")
    argv, usage = _first("table", argv), "TABLE [--key value …]"
    (config,) = parse(argv, TableConfig, description=table.__doc__ or "", usage=usage)
    print("\n".join(targets(config)) if config.targets else run(config))


def merge(argv: list[str]) -> None:
    """Merge an adapter (LoRA) into its base model, as vLLM and full fine-tuning need it.

    bmc merge --model_name_or_path outputs/mine/dpo_bmc --output_dir outputs/mine/dpo_bmc-merged
    """
    (config,) = parse(argv, recipes.MergeConfig, description=merge.__doc__ or "")
    from .adapters import merge_adapter as run

    folder = run(config)
    print(f"{'would merge' if config.dry_run else 'merged'} {config.model_name_or_path} into {folder}")


def export(argv: list[str]) -> None:
    """Export a model for Ollama: weights and a Modelfile.

    bmc export outputs/mine/dpo_bmc-merged --to ollama
    """
    argv, usage = _first("model_name_or_path", argv), "MODEL --to ollama [--key value …]"
    (config,) = parse(argv, recipes.ExportConfig, description=export.__doc__ or "", usage=usage)
    from .export import export as run

    folder = run(config)
    print(f"{'would export' if config.dry_run else 'exported'} {config.model_name_or_path} to {folder}")
    print(f"ollama create {folder.name.lower()} -f {shlex.quote(str(folder / 'Modelfile'))}")


def lm_eval(argv: list[str]) -> None:
    """Run lm-evaluation-harness on a trained model; `lm_eval.json` goes beside the evaluation's `metrics.json`.

    bmc lm_eval --model_name_or_path outputs/llama2-7b/qa/dpo --output_dir outputs/llama2-7b/qa/dpo/eval
    """
    (config,) = parse(argv, recipes.HarnessConfig, description=lm_eval.__doc__ or "", usage="--key value …")
    from .evaluation.lm_eval import command, describe, measure

    if config.dry_run:
        print(shlex.join(command(config)))
        return
    print(describe(measure(config)))


def tiny_model(argv: list[str]) -> None:
    """Make a small Llama with random weights, and a tokenizer trained on the recipe's rows: no download.

    bmc tiny_model recipes/lab/model.yaml
    """
    (config,) = parse(argv, recipes.TinyModelConfig, description=tiny_model.__doc__ or "")
    if config.dry_run:
        data = planning.describe_data(config.dataset_mixture.datasets)
        size = f"{config.num_hidden_layers} layers of {config.hidden_size}"
        planning.print_plan("make a model", {"tokenizer trained on": data, "model": size, "output": config.output_dir})
        return
    from .tiny_model import make_model

    stats = make_model(config)
    print(f"{stats['parameters']:,} parameters, {stats['vocabulary']} tokens: {config.output_dir}")


def lab(argv: list[str]) -> None:
    """Run a study of the laboratory: methods × seeds on a generated task, on a laptop.

    bmc lab recipes/lab/core.yaml
    """
    (config,) = parse(argv, recipes.LabConfig, description=lab.__doc__ or "")
    from .lab import run_study, run_unit, summary, trainings

    if config.dry_run:
        count = len(list(trainings(config)))
        facts = {"SFT models": len(config.sft_seeds), "trainings on each": count, "output": config.output_dir}
        planning.print_plan("run a study", facts | {"scored on": f"{config.split} rows"})
    elif config.unit is not None:
        run_unit(config, lambda command, words: globals()[command](words))
    else:
        print(summary(run_study(config, argv)))


def run(argv: list[str]) -> None:
    """Build what targets need, then the targets; what is there already is skipped.

    bmc run llama2-7b/qa/dpo_bmc --dry_run
    bmc run table1 --model smollm2-135m
    """
    from .analysis.tables import TableConfig, targets

    options = _run_options(argv)
    if options.seeds is not None:
        try:
            recipes.seed_numbers(options.seeds)
        except ValueError as error:
            raise user_error("--seeds", str(error)) from None
    pipeline = Pipeline(options.outputs, options.launcher, options.seeds)
    numbers = Path(TableConfig.numbers)
    tables = load_recipe(numbers)[0] if numbers.is_file() else {}
    after = []
    for target in options.targets:
        if target not in tables:
            pipeline.add(target)
            continue
        given = ["--table", target, *(["--model", options.model] if options.model else []), "--runs", options.outputs]
        (config,) = parse(given, TableConfig)
        for needed in targets(dataclasses.replace(config, dry_run=options.dry_run)):
            pipeline.add(needed)
        after.append(["scripts/table.py", *given[1:]])
    pipeline.steps += [Step(words) for words in after]
    if options.dry_run:
        for step in pipeline.steps:
            print(pipeline.shown(step))
    elif not pipeline.steps:
        print(f"{' '.join(options.targets)}: everything is there; to run a stage again, remove its folder")
    elif status := pipeline.run():
        raise SystemExit(status)


def _run_options(argv: list[str]) -> argparse.Namespace:
    """Read the command line of `bmc run`."""

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> Any:
            raise user_error("command line", message)

    parser = Parser(
        prog=program.name(),
        description=run.__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="MODEL/TASK/RECIPE, a recipe's path, table1, …")
    parser.add_argument("--dry_run", "--dry-run", action="store_true", help="print the commands only")
    parser.add_argument("--seeds", help="train preference recipes with each of these seeds: 1,2,3")
    parser.add_argument("--launcher", help='what starts training stages: "accelerate launch …"')
    parser.add_argument("--model", help="of a table: the model at whose scale to build it, as smollm2-135m")
    parser.add_argument("--outputs", default="outputs", help="folder of the outputs")
    return parser.parse_args(argv)


def plan(argv: list[str]) -> None:
    """Print what recipes would do, need and cost (each stage's dry run), or make a training fit a card.

    bmc plan recipes/llama2-7b/qa/dpo_bmc.yaml [--key value …]
    bmc plan recipes/llama2-7b/qa/qlora_dpo_bmc.yaml --fit RTX4090-24GB   the command that fits, with the same batch
    """
    if {"-h", "--help"} & set(argv) or not argv:
        print(inspect.cleandoc(plan.__doc__ or ""))
        return
    card, argv = take_option(argv, "fit")
    count = next((place for place, word in enumerate(argv) if word.startswith("--")), len(argv))
    paths, rest = argv[:count], argv[count:]
    if not paths:
        raise user_error("command line", "names no recipe; give its path first: bmc plan RECIPE [--fit CARD]")
    for path in paths:
        if card is None:
            globals()[read_recipe(Path(path)).stage]([path, *rest, "--dry_run"])
            continue
        facts, command = fit(path, rest, card)
        planning.print_plan(f"{path} on {card}", facts)
        print(command)


def show(argv: list[str]) -> None:
    """Print a recipe as it will be read, with the origin of each value.

    bmc show recipes/llama2-7b/qa/dpo_bmc.yaml [--beta 0.1]      every value: which file, the command line, or a default
    bmc show recipes/llama2-7b/qa/dpo_bmc.yaml --flat > my.yaml  a recipe that stands alone, to edit
    bmc show recipes/llama2-7b/qa/bridge.yaml --prompt --row 3   what the editor would be sent for a row
    """
    from .show import flat, prompt
    from .show import show as values

    if not argv or {"-h", "--help"} & set(argv):
        print(inspect.cleandoc(show.__doc__ or ""))
        return
    row, argv = take_option(argv, "row")
    rest = [word for word in argv if word not in ("--flat", "--prompt")]
    if row == "":
        raise user_error("command line", "--row: give a row's number, from 0, or its id")
    if row is not None and "--prompt" not in argv:
        raise user_error("command line", "--row: goes with --prompt")
    lines = [flat(rest)] if "--flat" in argv else prompt(rest, row) if "--prompt" in argv else values(rest)
    try:
        for line in lines:
            print(line, flush=True)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def keys(argv: list[str]) -> None:
    """Print every key of every stage's recipe as Markdown: bmc keys > docs/recipes.md"""
    from .analysis.tables import TableConfig
    from .show import classes_of

    others = {
        "report": recipes.ReportConfig,
        "table": TableConfig,
        "merge": recipes.MergeConfig,
        "export": recipes.ExportConfig,
    }
    others |= {"lm_eval": recipes.HarnessConfig, "review": recipes.ReviewConfig}
    sections = {stage: classes_of(stage) for stage in STAGES} | {name: (cls,) for name, cls in others.items()}
    print(markdown(sections), end="")
