"""What SFT and preference training share: loading data, the trainer's arguments, running and saving."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import trl
from accelerate.utils import DistributedType
from datasets import Dataset
from trl.chat_template_utils import is_chat_template_stop_token_trained

from ..adapters import adopt_adapter_settings, load_adapter, merge_command, read_adapter
from ..config import names
from ..data.loading import load_split, to_dataset
from ..data.schema import SIDES, Row, check_rows
from ..data.tokenization import (
    AlignmentError,
    MaskError,
    align_response,
    check_offsets,
    check_template,
    check_turn_end,
    has_markers,
    mark_assistant,
    response_start,
    turn_end,
)
from ..distributed import world_size
from ..errors import did_you_mean, raise_all, user_error
from ..generation.backends import stop_ids
from ..models import check_model, has_apple_gpu, load_tokenizer, refuse_typo
from ..pipeline import producer
from ..planning.describe import batch_warning, describe_data, print_plan, training_facts
from ..planning.hardware import is_launched, read_launch
from ..precision import HALF, mixed_precision, training_dtype
from ..preflight import launch_faults, machine_faults, recipe_faults
from ..recipe import parse
from ..runs import (
    EXIT_PREEMPTED,
    RECIPE_FILE,
    check_output_dir,
    claim_output_dir,
    elapsed,
    is_main_process,
    report_disk_errors,
    run_fingerprint,
    set_fields,
    write_json,
)
from .config import ModelArguments, TrainingArguments
from .fault_tolerance import find_start
from .token_weights import RESPONSES, check_token_weights

logger = logging.getLogger(__name__)

# what an evaluation measures, by which a best checkpoint can be chosen
METRICS = ("loss", "entropy", "mean_token_accuracy", "num_tokens")
PAIR_METRICS = (
    "rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected",
    "kl/chosen", "diff/share", "diff/weight",
)  # fmt: skip
SFT = ("prompt", "completion")


def parse_training(argv: list[str], arguments: type, config: type, description: str) -> tuple[Any, ...]:
    """Parse a training recipe into `(arguments, model arguments, trainer's config)`.

    A dry run on a machine without a GPU judges the recipe as if it were run on one.
    """
    given: dict[str, Any] = {}

    def as_it_will_run(values: dict[str, Any]) -> None:
        if "LOCAL_RANK" not in os.environ:  # a single process, of which accelerate would ask whom to join
            values.pop("ddp_backend", None)
        if is_launched() and values.get("bf16") is False and not values.get("fp16"):
            os.environ["ACCELERATE_MIXED_PRECISION"] = "no"  # the recipe's word counts, not the launcher's
        if values.get("dry_run") is True and not has_gpu():
            given.update(use_cpu=values.get("use_cpu") is True, tf32=values.get("tf32"))
            if not given["use_cpu"]:
                given["dataloader_pin_memory"] = values.get("dataloader_pin_memory", True)
            values.update(use_cpu=True, tf32=None)

    parsed = parse(
        argv, arguments, ModelArguments, config, description=description, adjust=as_it_will_run, across=_across
    )
    os.environ.update(parsed[0].environment)
    for key, value in given.items():
        setattr(parsed[2], key, value)
    return parsed


def has_gpu() -> bool:
    """Return whether this machine trains on a GPU, perhaps Apple's."""
    return torch.cuda.is_available() or has_apple_gpu()


def _across(arguments: TrainingArguments, model_args: ModelArguments, config: Any) -> Iterator[tuple[str, str]]:
    """Yield faults between the keys of the data and those of the trainer."""
    mixture = arguments.dataset_mixture
    evaluates = {"eval_strategy": config.eval_strategy != "no", "eval_on_start": config.eval_on_start}
    if not mixture.test_datasets and mixture.test_split_size is None:
        for key in (key for key, is_so in evaluates.items() if is_so):
            what = "there is nothing to evaluate on; write dataset_mixture.test_datasets, or its test_split_size: 0.05"
            yield key, what
    best = config.load_best_model_at_end or config.save_strategy == "best"
    if best and config.eval_strategy == "no":
        key = "load_best_model_at_end" if config.load_best_model_at_end else "save_strategy"
        yield key, "nothing is evaluated; write eval_strategy: steps or epoch too"
    metric = str(config.metric_for_best_model or "loss").removeprefix("eval_")
    known = [*METRICS, *(PAIR_METRICS if hasattr(config, "token_weighting") else ())]
    if best and metric not in known:
        what = f"'{metric}' isn't measured{did_you_mean(metric, known)}; choose from {', '.join(known)}"
        yield "metric_for_best_model", what


def describe_run(title: str, arguments: TrainingArguments, model_args: ModelArguments, config: Any, facts: Row) -> None:
    """Print the plan of a training recipe."""
    mixture, launch = arguments.dataset_mixture, read_launch(arguments.accelerate_config, arguments.num_processes)
    print_plan(
        title,
        {
            "model": model_args.model_name_or_path,
            "training data": describe_data(mixture.datasets),
            "evaluation data": describe_data(mixture.test_datasets) or None,
            **facts,
            **training_facts(arguments, model_args, config, launch, config.use_cpu),
            "epochs": config.num_train_epochs if config.max_steps < 1 else f"{config.max_steps} steps",
            "learning rate": f"{config.learning_rate:g}, {config.lr_scheduler_type.value}",
            "warm-up": f"{config.warmup_steps:g} (a share of the steps if below 1)",
            "max length": config.max_length,
            "output": config.output_dir,
        },
    )


def prepare_run(
    arguments: TrainingArguments,
    model_args: ModelArguments,
    config: Any,
    columns: tuple[str, ...],
    chosen_column: str = "chosen",
) -> tuple[Any, Dataset, Dataset | None]:
    """Check model, template, rows and checkpoint, then claim the output folder.

    Returns:
        `(tokenizer, training rows, evaluation rows or None)`.

    Raises:
        UserErrors: There is no such model, the folder or the checkpoint to go on from is another recipe's, the data are
            wrong, or this machine or its processes won't do. Nothing has been written.
    """
    raise_all([*launch_faults(config)])
    _check_engine(config)
    adopt_adapter_settings(model_args)
    training_dtype(model_args, config, read_launch(None).engine)
    recipe = recipe_fingerprint(arguments, model_args, config)
    check_output_dir(config.output_dir, recipe, writes_rows=False)
    name, revision = model_args.model_name_or_path, model_args.model_revision
    check_model(name, revision, config.trust_remote_code, model_args.allow_pickle)
    if reference := getattr(config, "ref_model_name_or_path", None):
        check_reference(reference, config.trust_remote_code, model_args.allow_pickle)
    raise_all([*machine_faults(model_args, config), *recipe_faults(model_args, config)])
    tokenizer, train, evaluation = _open_data(arguments, model_args, config, columns, chosen_column)
    start = find_start(config.output_dir, config.resume_from_checkpoint, recipe)
    with report_disk_errors(config.output_dir):
        claim_output_dir(config.output_dir, recipe, arguments, model_args, config, rows=train, writes_rows=False)
    config.resume_from_checkpoint = start
    return tokenizer, train, evaluation


def _open_data(
    arguments: TrainingArguments,
    model_args: ModelArguments,
    config: Any,
    columns: tuple[str, ...],
    chosen_column: str,
) -> tuple[Any, Dataset, Dataset | None]:
    """Load the tokenizer and the rows, and check them."""
    name = arguments.tokenizer_name_or_path or model_args.model_name_or_path
    template, system = arguments.chat_template, arguments.auto_insert_empty_system_msg
    tokenizer = load_tokenizer(name, model_args.model_revision, config.trust_remote_code, template, system)
    _set_eos(tokenizer, config)
    train, evaluation = load_rows(arguments, tokenizer, columns, chosen_column)
    _check_loss(config, tokenizer, train, evaluation)
    if getattr(config, "token_weighting", None) == "external":
        for part, rows in (("train", train), ("eval", evaluation)):
            if rows is not None:
                check_token_weights(_tokenised(tokenizer, rows), rows.column_names, part)
    _check_batches(arguments, config, len(train))
    return tokenizer, train, evaluation


def check_run(
    arguments: TrainingArguments,
    model_args: ModelArguments,
    config: Any,
    columns: tuple[str, ...],
    chosen_column: str = "chosen",
) -> Row:
    """Find the faults that the run would meet, as far as what it reads is on this machine.

    Where this machine has no GPU and the recipe wants one, the run is planned for another machine, and what is missing
    here is a line of the plan.

    Returns:
        Lines for the plan.

    Raises:
        UserErrors: As `prepare_run`.
    """
    elsewhere = not has_gpu() and not config.use_cpu
    adopt_adapter_settings(model_args)
    recipe = recipe_fingerprint(arguments, model_args, config)
    check_output_dir(config.output_dir, recipe, writes_rows=False)
    name, revision = model_args.model_name_or_path, model_args.model_revision
    if Path(name).is_dir():
        check_model(name, revision, config.trust_remote_code, model_args.allow_pickle)
    elif producer(name) is None:  # no recipe makes it
        refuse_typo("model_name_or_path", name)
    reference = getattr(config, "ref_model_name_or_path", None)
    if reference and Path(reference).is_dir():
        check_reference(reference, config.trust_remote_code, model_args.allow_pickle)
    elif reference and producer(reference) is None:
        refuse_typo("ref_model_name_or_path", reference)
    missing = [*machine_faults(model_args, config)]
    raise_all([*([] if elsewhere else missing), *recipe_faults(model_args, config)])
    mixture = arguments.dataset_mixture
    files = [Path(dataset.id or "") for dataset in (*mixture.datasets, *mixture.test_datasets)]
    if Path(arguments.tokenizer_name_or_path or name).is_dir() and all(file.exists() for file in files):
        _open_data(arguments, model_args, config, columns, chosen_column)
    find_start(config.output_dir, config.resume_from_checkpoint, recipe)
    return {"not on this machine": "; ".join(map(str, missing)) if elsewhere and missing else None}


def check_reference(name: str, trust_remote_code: bool, allow_pickle: bool) -> None:
    """Check the model that `ref_model_name_or_path` names.

    Raises:
        UserErrors: It doesn't exist, or is an adapter.
    """
    if read_adapter(name):
        raise user_error("ref_model_name_or_path", f"{name} is an adapter; merge it first: {merge_command(name)}")
    check_model(name, "main", trust_remote_code, allow_pickle)


def _check_engine(config: Any) -> None:
    """Check that the launched engine is used: without a GPU accelerate drops engines silently."""
    engine = config.distributed_state.distributed_type
    wanted = {name for name in ("DEEPSPEED", "FSDP") if os.environ.get(f"ACCELERATE_USE_{name}") == "true"}
    if "FSDP" in wanted and engine in (DistributedType.NO, DistributedType.MULTI_CPU):
        raise user_error(
            "accelerate launch", "has FSDP for GPUs alone; take accelerate_configs/zero3_cpu.yaml, or cpu.yaml"
        )
    if "DEEPSPEED" in wanted and engine != DistributedType.DEEPSPEED:
        raise user_error("use_cpu", "accelerate then leaves DeepSpeed out; set it to false, and DS_ACCELERATOR=cpu")
    if engine == DistributedType.NO and world_size() > 1:
        what = f"started {world_size()} processes, and there is no GPU to join them on"
        raise user_error("accelerate launch", f"{what}; for a CPU add --use_cpu true --bf16 false --ddp_backend gloo")


def _set_eos(tokenizer: Any, config: Any) -> None:
    """Give the tokenizer the `eos_token` of an SFT recipe."""
    eos = getattr(config, "eos_token", None)
    if eos is None:
        return
    if eos not in tokenizer.get_vocab():
        hint = did_you_mean(eos, list(tokenizer.get_added_vocab()))
        raise user_error(
            "eos_token", f"'{eos}' is no token of the tokenizer{hint}; name one that it has, or leave it out"
        )
    tokenizer.eos_token = eos


def assistant_only(config: Any, rows: Dataset) -> bool:
    """Return whether the loss is on the assistant's messages alone: by default where rows are whole conversations."""
    given = getattr(config, "assistant_only_loss", None)
    return "messages" in rows.column_names if given is None else given


def _check_loss(config: Any, tokenizer: Any, train: Dataset, evaluation: Dataset | None, most: int = 200) -> None:
    """Check that the loss teaches a token to stop at and, in the first rows, finds the assistant's messages."""
    text = train.column_names[0]
    if isinstance(train[0][text], str):
        if assistant_only(config, train):
            raise user_error("assistant_only_loss", f"is for messages, and {text} is a string; leave it out")
        return
    check_turn_end(tokenizer)
    if not assistant_only(config, train):
        return
    if has_markers(tokenizer.chat_template) and not is_chat_template_stop_token_trained(tokenizer):
        what = "its {% generation %} markers leave out the token that ends a turn, so that a model would never stop"
        raise user_error(
            "chat_template", f"{what}; put {{% endgeneration %}} behind eos_token, or take the markers out"
        )
    check_offsets(tokenizer)
    for rows in filter(None, (train, evaluation)):
        for row in islice(rows, most):
            try:
                mark_assistant(row, tokenizer)
            except MaskError as error:
                what = f"{error}; remove the row, or set assistant_only_loss: false to train on all of it"
                raise user_error(f"row {row['id']}", what) from None


def _tokenised(tokenizer: Any, rows: Dataset) -> Iterator[Row]:
    """Yield pairs with their tokens as the trainer will count them, as far as that is known before it exists."""
    for row in rows if tokenizer.is_fast else ():
        with contextlib.suppress(AlignmentError):
            sides = [align_response(tokenizer, row, row[side]).ids for side in SIDES]
            start = response_start(tokenizer, row, *sides)
            yield {**row, **{column: ids[start:] for column, ids in zip(RESPONSES, sides, strict=True)}}


def _check_batches(arguments: TrainingArguments, config: Any, rows: int) -> None:
    """Check that the ranks can share the rows and batches; warn of a batch that isn't the paper's."""
    processes, micro_batch = config.world_size, config.per_device_train_batch_size
    if rows < processes:
        what = f"{processes} processes can't share {rows} rows"
        raise user_error("accelerate launch", f"{what}; start at most {rows} (--num_processes), or give more data")
    if processes > 1 and not config.accelerator_config.even_batches:
        raise user_error(
            "accelerator_config.even_batches", "processes would wait for one that has no batch; leave it out"
        )
    if config.accelerator_config.split_batches and micro_batch % processes:
        what = f"{micro_batch} rows can't be split over {processes} processes (split_batches); make it a multiple"
        raise user_error("per_device_train_batch_size", what)
    batch = micro_batch * config.gradient_accumulation_steps * processes
    if (warning := batch_warning(batch, arguments.paper_batch_size)) and is_main_process():
        logger.warning("%s", warning)


def load_rows(
    arguments: TrainingArguments, tokenizer: Any, columns: tuple[str, ...], chosen_column: str = "chosen"
) -> tuple[Dataset, Dataset | None]:
    """Load training and evaluation rows, check them, and render each once to see that the template takes it.

    Rows for `SFT` may have `messages`, a whole conversation, instead of the columns. The `chosen_column` becomes
    `chosen`.

    Returns:
        `(train, evaluation or None)`, with `columns` (or `messages`) alone.
    """
    mixture = arguments.dataset_mixture
    parts: list[Dataset | None] = []
    sources = (mixture.datasets, mixture.test_datasets or mixture.datasets)
    for name, rows in zip(map(names, sources), load_split(mixture), strict=True):
        if rows is None:
            parts.append(None)
            continue
        whole = columns == SFT and "completion" not in rows.columns and "messages" in rows.columns
        wanted = ("messages",) if whole else columns
        if chosen_column not in (*rows.columns, "chosen"):
            raise user_error("chosen_column", f"'{chosen_column}' is no column of {name}; only bridged data has it")
        if chosen_column != "chosen":
            rows = rows.map(lambda row: {**row, "chosen": row.get(chosen_column)})
        check_rows(rows, wanted, name)
        check_template(tokenizer, rows, wanted[1:], name)
        parts.append(to_dataset(rows, wanted))
    return parts[0], parts[1]


def trainer_arguments(model_args: ModelArguments, config: Any) -> dict[str, Any]:
    """Make a TRL trainer's arguments for the model: name, quantisation, adapter; set in `config` how to load it."""
    dtype = training_dtype(model_args, config, read_launch(None).engine)
    multiplied_in = HALF.get(mixed_precision(config), "float32") if dtype == "auto" else dtype
    as_loaded = copy.copy(model_args)
    as_loaded.dtype = multiplied_in
    quantization = trl.get_quantization_config(as_loaded)
    config.model_init_kwargs = {
        **(config.model_init_kwargs or {}),
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": dtype,
        **({} if model_args.allow_pickle else {"use_safetensors": True}),
    }
    if read_adapter(model_args.model_name_or_path, model_args.model_revision):
        model = load_adapter(model_args, config, quantization)
        config.model_init_kwargs = None  # which are of a model's name
        return {"model": model}
    return {
        "model": model_args.model_name_or_path,
        "quantization_config": quantization,
        "peft_config": trl.get_peft_config(model_args),
    }


def recipe_fingerprint(arguments: TrainingArguments, model_args: ModelArguments, config: Any) -> dict[str, Any]:
    """Collect the recipe fields that affect results, for `claim_output_dir` (not logging or saving)."""
    passing = (
        "output_dir", "resume_from_checkpoint", "log", "save", "report_to", "run_name", "hub", "push", "use_cpu",
        "reference_cache", "ddp",
    )  # fmt: skip
    decisive = {key: value for key, value in set_fields(config).items() if not key.startswith(passing)}
    return run_fingerprint(arguments, model_args) | decisive


def run_training(trainer: Any, tokenizer: Any) -> dict[str, Any]:
    """Train, from the checkpoint that `prepare_run` has found; save model, tokenizer, history and `metrics.json`.

    Raises:
        UserErrors: The disk is full, or a number isn't finite.
        SystemExit: `EXIT_PREEMPTED`, after SIGTERM.
    """
    config = trainer.args
    trainer.recipe = json.loads((Path(config.output_dir) / RECIPE_FILE).read_text(encoding="utf-8"))
    _end_turns(trainer.accelerator.unwrap_model(trainer.model), tokenizer)
    result = trainer.train(resume_from_checkpoint=config.resume_from_checkpoint)
    if trainer.preempted:
        _leave(trainer)
        if is_main_process():
            step, folder = trainer.state.global_step, config.output_dir
            print(f"stopped by SIGTERM after step {step}: {folder}/checkpoint-{step}; the same command goes on")
        raise SystemExit(EXIT_PREEMPTED)
    trainer.save_model(config.output_dir)
    seconds = round(trainer.seconds_before + elapsed(), 1)
    metrics = {**result.metrics, "rows": len(trainer.train_dataset), "seconds": seconds}
    if config.do_eval and trainer.eval_dataset is not None:
        metrics |= {**trainer.evaluate(), "eval_rows": len(trainer.eval_dataset)}
    if is_main_process():
        tokenizer.save_pretrained(config.output_dir)
        trainer.state.save_to_json(f"{config.output_dir}/trainer_state.json")
        write_json(Path(config.output_dir) / "metrics.json", metrics)
    if config.push_to_hub:
        trainer.push_to_hub()
    _leave(trainer)
    return metrics


def _end_turns(model: Any, tokenizer: Any) -> None:
    """Have the saved model stop where its chat template ends a turn, whatever generates with it."""
    if (end := turn_end(tokenizer)) is not None:
        ids = stop_ids(model.generation_config.eos_token_id, end)
        model.generation_config.eos_token_id = ids if len(ids) > 1 else end


def _leave(trainer: Any) -> None:
    trainer.accelerator.end_training()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # without it a rank aborts at exit
