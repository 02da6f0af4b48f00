"""Make a training recipe fit a card: `bmc plan RECIPE --fit CARD`.

What changes results least is tried first: gradient checkpointing and the size of micro-batches change none, then the
rank of an adapter goes down, then `max_length`. The batch stays what it is.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import did_you_mean, user_error
from ..models import ADAPTER
from ..precision import mixed_precision
from ..program import script_of
from .describe import Facts, TrainingPlan, duration, fit_facts, gibibytes, read_training, remedies
from .estimates import GIB
from .hardware import GPUS, LaunchConfig, read_launch

SHORTEST, LEAST_RANK = 256, 8  # neither max_length nor lora_r goes below
ENOUGH = 8192  # tokens that keep a card busy: where two plans take equally long, the one nearest to it is taken


def fit(recipe: str, argv: list[str], card: str) -> tuple[Facts, str]:
    """Search what of a training recipe fits a card: one process, unless `argv` says how many.

    Returns:
        The plan's facts, and the command that runs it.

    Raises:
        UserErrors: There is no such card, the recipe trains nothing, or nothing fits, with what would.
    """
    from ..pipeline import read_recipe

    if card not in GPUS:
        raise user_error("--fit", f"'{card}' is no card known here{did_you_mean(card, [*GPUS])}; {', '.join(GPUS)}")
    read = read_recipe(Path(recipe))
    stage = read.stage
    if stage not in ("sft", "train"):
        raise user_error("--fit", f"{recipe} is of stage {stage}, which trains nothing; give a recipe of sft or train")
    given = [recipe, *argv, "--dry_run", "--gpu", card, "--use_cpu", "false"]
    arguments, model_args, config = _parse(stage, given)
    own = read_launch(arguments.accelerate_config, arguments.num_processes)
    launch = own if arguments.num_processes else LaunchConfig()
    start = read_training(arguments, model_args, config, launch, on_cpu=False)
    if start is None:
        what = (
            f"the size of {model_args.model_name_or_path} isn't known; put its config.json into a folder of that name"
        )
        raise user_error("--fit", what)
    batch = arguments.paper_batch_size or start.rows * start.accumulation * own.processes
    start = _share_batch(start, batch)
    adapts_rank = start.shape.adapter is not None and not Path(model_args.model_name_or_path, ADAPTER).is_file()
    found = search(start, adapts_rank)
    if found is None:
        raise user_error("--fit", _nothing(start, mixed_precision(config), adapts_rank))
    changed = _changes(found, start, model_args)
    if read.values.get("use_cpu"):
        changed["use_cpu"] = "false"
    return _facts(found, changed, batch, mixed_precision(config)), _command(
        recipe, argv, stage, found, changed, arguments
    )


def _parse(stage: str, argv: list[str]) -> tuple[Any, ...]:
    from ..training.config import BMCConfig, PreferenceArguments, SFTConfig, TrainingArguments
    from ..training.run import parse_training

    if stage == "sft":
        return parse_training(argv, TrainingArguments, SFTConfig, "")
    return parse_training(argv, PreferenceArguments, BMCConfig, "")


def _share_batch(plan: TrainingPlan, batch: int) -> TrainingPlan:
    """Give each process its share of the batch."""
    share, rest = divmod(batch, plan.launch.processes)
    if rest or not share:
        what = f"{plan.launch.processes} processes can't share a batch of {batch}; give a number that divides it"
        raise user_error("num_processes", what)
    rows = plan.rows if share % plan.rows == 0 else 1
    if plan.budget is not None:
        return replace(plan, rows=share, accumulation=1).with_micro_batches(budget=plan.budget)
    return replace(plan, rows=rows, accumulation=share // rows).with_micro_batches(rows)


def search(start: TrainingPlan, adapts_rank: bool) -> TrainingPlan | None:
    """Find the fastest plan that fits with the least change of results; None where nothing fits.

    A tenth of the card stays free where that costs no results.
    """
    card = GPUS[start.gpu or ""].memory_gib * GIB
    for length in _lengths(start):
        for rank in _ranks(start, adapts_rank):
            plans = [*_micro_batches(start, length, rank)]
            for room in (0.9 * card, card):
                if fitting := [plan for plan in plans if plan.need.resident <= room]:
                    return min(fitting, key=_preference)
    return None


def _preference(plan: TrainingPlan) -> tuple[float, float]:
    """Order plans by their time, to two digits, and by how busy a micro-batch keeps the card."""
    known = plan.data is not None and plan.steps is not None
    seconds = plan.seconds if known else 8.0 if plan.shape.checkpointing else 6.0
    return float(f"{seconds:.1e}"), abs(math.log2(plan.shape.tokens / ENOUGH))


def _lengths(plan: TrainingPlan) -> Iterator[int]:
    """Yield max_length and shorter ones, none shorter than the mean row."""
    mean = plan.data.prompt + plan.data.response if plan.data else 0
    yield plan.length
    for eighths in (6, 4, 3, 2, 1):
        if (length := plan.length * eighths // 8) >= max(SHORTEST, mean):
            yield length


def _ranks(plan: TrainingPlan, adapts: bool) -> Iterator[int | None]:
    rank = plan.shape.adapter.rank if plan.shape.adapter else None
    yield rank
    while adapts and rank and (rank := rank // 2) >= LEAST_RANK:
        yield rank


def _micro_batches(start: TrainingPlan, length: int, rank: int | None) -> Iterator[TrainingPlan]:
    """Yield micro-batches of one row, two, four, …, with gradient checkpointing and without."""
    adapter, step = start.shape.adapter, start.rows * start.accumulation
    changes: dict[str, Any] = {"length": length}
    if adapter and rank:
        changes["adapter"] = replace(adapter, rank=rank)
    for count in (2**power for power in range(step.bit_length())):
        one = length * (2 if start.pairs else 1)
        if count * one > 2 * ENOUGH and count > 1:
            return
        for checkpointing in (False, True):
            size = {"budget": count * one} if start.budget is not None else {"rows": count}
            if start.budget is not None or step % count == 0:
                yield start.with_micro_batches(**size, **changes, checkpointing=checkpointing)


def _changes(found: TrainingPlan, start: TrainingPlan, model_args: Any) -> dict[str, Any]:
    """List what is written over the recipe: key → value."""
    step = found.rows * found.accumulation
    most = max(1, (found.budget or 0) // found.one)  # rows of a reference's batch
    rows = found.rows if found.budget is None else max(count for count in range(1, most + 1) if step % count == 0)
    changed: dict[str, Any] = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": step // rows}
    if found.budget is not None:
        changed["micro_batch_tokens"] = found.budget
    if found.shape.checkpointing != start.shape.checkpointing:
        changed["gradient_checkpointing"] = str(found.shape.checkpointing).lower()
    if found.length != start.length:
        changed["max_length"] = found.length
    before, after = start.shape.adapter, found.shape.adapter
    if before and after and before.rank != after.rank:  # α/r stays
        changed |= {"lora_r": after.rank, "lora_alpha": max(1, model_args.lora_alpha * after.rank // before.rank)}
    return changed


def _facts(found: TrainingPlan, changed: dict[str, Any], batch: int, mixed: str) -> Facts:
    size, steps, n = (
        changed["per_device_train_batch_size"],
        changed["gradient_accumulation_steps"],
        found.launch.processes,
    )
    shown = ", ".join(f"{key} {value}" for key, value in changed.items())
    took = duration(found.seconds) if found.data and found.steps else None
    return {
        "batch": f"{batch} = {size} × {steps} accumulation × {n} process{'' if n == 1 else 'es'}",
        "set": shown,
        **fit_facts(found, found.gpu or "", mixed),
        "time": took,
    }


def _command(
    recipe: str, argv: list[str], stage: str, found: TrainingPlan, changed: dict[str, Any], arguments: Any
) -> str:
    """Write the command; what it sets takes the place of the same keys in `argv`."""
    changed = {**changed, "gpu": found.gpu}
    if found.launch.processes == 1:
        changed["accelerate_config"] = "null"
    kept, drops = [], False
    for word in argv:
        if word.startswith("--"):
            drops = word[2:].partition("=")[0] in changed
        if not drops:
            kept.append(word)
    given = [word for key, value in changed.items() for word in (f"--{key}", str(value))]
    if found.launch.processes == 1:
        return shlex.join(["bmc", stage, recipe, *kept, *given])
    launcher = ["accelerate", "launch", "--config_file", arguments.accelerate_config or "CONFIG"]
    launcher += ["--num_processes", str(found.launch.processes)]
    return shlex.join([*launcher, f"scripts/{script_of(stage)}.py", recipe, *kept, *given])


def _nothing(start: TrainingPlan, mixed: str, adapts_rank: bool) -> str:
    """Say what the least takes, and what would fit."""
    *_, length = _lengths(start)
    *_, rank = _ranks(start, adapts_rank)
    least = next(plan for plan in _micro_batches(start, length, rank) if plan.shape.checkpointing)
    one = start.with_micro_batches(rows=1, checkpointing=True)
    card, n = GPUS[start.gpu or ""].memory_gib * GIB, start.launch.processes
    where = f"one {start.gpu}" if n == 1 else f"{n} × {start.gpu}"
    helps = [f"{name}: {gibibytes(need.total)}" for name, need in remedies(one, mixed).items() if need.resident <= card]
    larger = [name for name, gpu in GPUS.items() if one.need.resident <= 0.9 * gpu.memory_gib * GIB]
    helps += [f"a larger card ({larger[0]}): {gibibytes(one.need.total)}"] if larger else []
    hint = f"what would fit: {'; '.join(helps)}" if helps else "take a smaller model, or more cards (--num_processes 8)"
    kind = "pair of two sequences" if start.pairs else "sequence"
    what = f"nothing fits {where}: one {kind} of {length} tokens with gradient checkpointing takes"
    return f"{what} {gibibytes(least.need.total)} of {gibibytes(card)}; {hint}"
