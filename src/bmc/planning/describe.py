"""The plan of a stage, as `--dry_run` prints it: one fact a line."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ..config import (
    OFFLINE,
    AnalyzeConfig,
    BridgeConfig,
    DatasetConfig,
    EvaluateConfig,
    GenerationArguments,
    Price,
    SampleConfig,
)
from ..data.files import SUFFIXES
from ..data.registry import DATASETS, REPOSITORY
from ..data.schema import UNUSABLE, Row
from ..errors import did_you_mean, user_error
from ..pipeline import producer
from ..precision import HALF, mixed_precision, training_dtype
from ..runs import is_main_process
from . import estimates
from .dataset_stats import DatasetStats, dataset_stats
from .estimates import GIB, Adapter, Memory, ModelSize, StepCount, StepShape, StepTime, base_model, model_size
from .hardware import GPUS, LaunchConfig, is_launched

UNKNOWN = "unknown: neither the model's config nor a table has it"
Facts = dict[str, Any]


def print_plan(title: str, facts: Facts) -> None:
    """Print a plan, on rank 0; facts that are None are left out."""
    if not is_main_process():
        return
    facts = {name: value for name, value in facts.items() if value is not None}
    width = max(map(len, facts))
    print("\n".join([f"Plan: {title}", *(f"  {name:<{width}}  {value}" for name, value in facts.items())]))


# data


def describe_data(datasets: list[DatasetConfig]) -> str:
    """Name the data sets, and say which of them aren't there yet.

    Raises:
        UserErrors: A file isn't there, but one of nearly its name.
    """
    for dataset in filter(_missing, datasets):
        path = Path(dataset.id or "")
        there = [file.stem for file in path.parent.glob(f"*{path.suffix}")]
        if hint := did_you_mean(path.stem, there):
            raise user_error(str(path), f"no such file{hint}; paths are relative to {Path.cwd()}")
    return ", ".join(map(_describe, datasets))


def _describe(dataset: DatasetConfig) -> str:
    name = dataset.id or dataset.source or ""
    part = "" if dataset.edit_split is None else f", split {dataset.edit_split} by edit distance"
    weight = "" if dataset.weight == 1 else f" × {dataset.weight:g}"
    most = "" if dataset.num_rows is None else f", at most {dataset.num_rows:,} rows"
    how = f"git clone {REPOSITORY} {dataset.id}" if _is_cloned(dataset) else "`make` builds it"
    review = f", {dataset.use_review.replace('_', ' ')} in review" if dataset.use_review else ""
    missing = f" (not there yet; {how})" if _missing(dataset) else ""
    return f"{name}[{dataset.split}]{part}{weight}{most}{review}{missing}"


def _is_cloned(dataset: DatasetConfig) -> bool:
    return bool(dataset.id and dataset.source and DATASETS[dataset.source].folder)


def missing_data(datasets: list[DatasetConfig]) -> bool:
    """Return whether a file that a stage reads isn't there yet."""
    return any(map(_missing, datasets))


def _missing(dataset: DatasetConfig) -> bool:
    name = dataset.id or ""
    return (_is_cloned(dataset) or name.endswith(SUFFIXES)) and not Path(name).exists()


def data_facts(datasets: list[DatasetConfig], tests: list[DatasetConfig]) -> Facts:
    """Describe the rows of a preparing stage."""
    stats = rows_fact(dataset_stats(datasets))
    return {"rows": stats, "test rows": rows_fact(dataset_stats(tests)) if tests else None}


def rows_fact(data: DatasetStats | None, pairs: bool = False) -> str:
    """Say how many rows there are, how long, and how that is known."""
    if data is None:
        return "unknown: the data aren't at hand and no recipe or table says how many"
    lengths = f"{data.prompt:,.0f} + {'2 × ' if pairs else ''}{data.response:,.0f} tokens each"
    how = "counted" if data.counted else "rows by the paper's counts, tokens assumed"
    return f"{data.rows:,} {'pairs' if pairs else 'rows'} of about {lengths} ({how})"


class _Counter:
    """A tokenizer whose `encode` gives ids alone, from a `tokenizer.json`, without transformers."""

    def __init__(self, file: Path) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(file))

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)


def token_counter(name: str) -> Any:
    """Load the tokenizer of a model that is at hand as a folder, or of the one that it is trained from; or None."""
    files = (Path(place, "tokenizer.json") for place in (name, base_model(name)))
    return next((_Counter(file) for file in files if file.is_file()), None)


# models and memory


def parameters_fact(found: tuple[ModelSize, str] | None, adapter: Adapter | None = None) -> str:
    """Say how large the model is."""
    if found is None:
        return UNKNOWN
    model, where = found
    trained = f", of which {adapter.trained(model) / 1e6:,.1f} M are trained" if adapter else ""
    return f"{model.parameters / 1e9:.2f} B{trained} ({where})"


def gibibytes(count: float) -> str:
    return f"{count / GIB:.1f} GiB"


def duration(seconds: float) -> str:
    """Format seconds: `50 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# generation, bridging, analysis


def describe_generation(config: SampleConfig | EvaluateConfig) -> Facts:
    """Describe model, decoding and output of a generating stage."""

    def decoding(settings: GenerationArguments) -> str:
        how = f"temperature {settings.temperature:g}, top-p {settings.top_p:g}" if settings.temperature else "greedy"
        return f"{how}, at most {settings.max_new_tokens} new tokens"

    processes = f"{config.data_parallel_size}, each with a model of its own" if config.data_parallel_size > 1 else "1"
    if config.tensor_parallel_size > 1:
        processes += f", on {config.tensor_parallel_size} GPUs"
    return {
        "model": config.model_name_or_path,
        "decoding": decoding(config),
        **{f"decoding of {name}": decoding(config.decoding(name)) for name in getattr(config, "benchmarks", ())},
        "backend": f"{config.backend}, batches of {config.batch_size}",
        "processes": None if processes == "1" else processes,
        "output": config.output_dir,
    }


def generation_facts(config: SampleConfig | EvaluateConfig) -> Facts:
    """Estimate parameters, rows, memory and time of a generating stage."""
    found = model_size(config.model_name_or_path, config.model_revision)
    data = dataset_stats(config.dataset_mixture.datasets, token_counter(config.model_name_or_path))
    facts: Facts = {"parameters": parameters_fact(found), "rows": rows_fact(data)}
    if found is None or data is None:
        return facts
    model, gpu = found[0], GPUS[config.gpu]
    width = 4 if config.dtype == "float32" else 2
    most = max(config.decoding(name).max_new_tokens for name in (None, *getattr(config, "benchmarks", ())))
    shared, gpus = config.tensor_parallel_size, config.tensor_parallel_size * config.data_parallel_size
    if config.backend == "transformers":
        need = estimates.generation_memory(model, config.batch_size, int(data.prompt) + most, width)
        facts |= {"memory a process": f"{gibibytes(need.total)}, {gibibytes(need.activations)} of it keys and values"}
        facts |= {f"fits one {config.gpu}": "yes" if need.total <= gpu.memory_gib * GIB else "NO; lower batch_size"}
    else:  # vLLM takes what is left of the GPU for keys and values
        weights = model.parameters * width / shared
        fits = "yes" if weights <= estimates.VLLM_SHARE * gpu.memory_gib * GIB else "NO; raise tensor_parallel_size"
        facts |= {"memory a card": f"{gibibytes(weights)} of weights", f"fits {shared} × {config.gpu}": fits}
    new = min(data.response or most, most)
    seconds = estimates.generation_seconds(model, data.rows, data.prompt, new, config.batch_size, gpu) / gpus
    where = f"{gpus} × {config.gpu}" if gpus > 1 else f"one {config.gpu}"
    assumed = f"{estimates.EFFICIENCY:.0%} of its peak and bandwidth"
    return facts | {"time": f"{duration(seconds)} on {where} at {assumed}, {new:.0f} new tokens a row"}


FREE = "none: no LLM is called"


def unpaid_facts(pairs: Iterable[Row]) -> Facts:
    """Count the pairs that an editor without an LLM edits, and the rows of which none can be made."""
    unusable = Counter(row.get(UNUSABLE) for row in pairs)
    usable = unusable.pop(None, 0)
    dropped = "; ".join(f"{count:,} × {reason}" for reason, count in unusable.most_common())
    return {"rows": f"{usable:,} pairs", "dropped at once": dropped or None, "cost": FREE}


def bridging_facts(config: BridgeConfig) -> Facts:
    """Estimate rows, tokens and dollars of a bridging run, roughly."""
    data = dataset_stats(config.dataset_mixture.datasets)
    facts: Facts = {"rows": rows_fact(data, pairs=True)}
    if data is None or config.editor != "openai":
        return facts | ({"cost": FREE} if config.editor in OFFLINE else {})
    price = config.prices.get(config.model)
    if price is None:
        return facts | {"cost": f"the recipe's `prices` has none for {config.model}"}
    rows, dollars = bridging_cost(config, price, data)
    return facts | {"cost": f"about ${dollars:,.0f} for {rows:,} requests", "paid once": _shared_cache(config)}


def bridging_cost(config: BridgeConfig, price: Price, data: DatasetStats) -> tuple[int, float]:
    """Estimate the requests and dollars of a bridging run, roughly, of the statistics of its pairs."""
    rows = round(min(data.rows, config.limit or data.rows) * config.proportion)
    dollars = estimates.bridging_dollars(price, rows, data.prompt, data.response, config.template, config.rationale)
    return rows, dollars * (0.5 if config.batch_api else 1)


def _shared_cache(config: BridgeConfig) -> str | None:
    """Name a response cache that recipes in other folders find too, and count its responses; None for an own one."""
    from ..llm.cache import CachedResponses, cache_path

    path = cache_path(config.response_cache, config.output_dir)
    if path == cache_path(None, config.output_dir):
        return None
    with contextlib.closing(CachedResponses(path)) as cache:
        return f"equal requests of other recipes share {path}, which holds {len(cache):,} responses"


def analysis_facts(config: AnalyzeConfig) -> Facts:
    """Describe runs, reference, pairs and memory of an analysis."""
    folders = {name: Path(config.setting, name) for name in config.runs}
    recipes = [found.values for folder in folders.values() if (found := producer(str(folder)))]
    reference = next((found["model_name_or_path"] for found in recipes if "model_name_or_path" in found), None)
    given = config.dataset_mixture
    data = dataset_stats(given.datasets, token_counter(reference or "")) if given else None
    model = model_size(reference) if reference else None
    width = {"bfloat16": 2, "float16": 2}.get(config.dtype, 4)
    absent = [name for name, folder in folders.items() if not (folder / "metrics.json").is_file()]
    return {
        "runs": ", ".join(name for name in folders if name not in absent) or None,
        "not there yet": f"{', '.join(absent)}; `make` builds them" if absent else None,
        "reference": reference,
        "pairs": rows_fact(data, pairs=True) if given else "those that the runs' own recipes hold out",
        "parameters": parameters_fact(model),
        "memory": f"{gibibytes(2 * width * model[0].parameters)}, the reference and one run's model" if model else None,
        "figures 3 to 5": f"show {config.metric}",
        "output": config.output_dir,
    }


# training


@dataclass(frozen=True)
class TrainingPlan:
    """What a training recipe needs of each process."""

    model: ModelSize
    launch: LaunchConfig
    shape: StepShape  # of its longest micro-batch
    gpu: str | None  # name of the card; None for a CPU
    rows: int  # rows of a micro-batch; of a step where there is a budget
    accumulation: int  # micro-batches of a step; 1 where there is a budget
    budget: int | None  # `micro_batch_tokens`
    length: int  # tokens of the longest sequence
    pairs: bool  # whether a row is a pair
    shared: bool
    data: DatasetStats | None  # rows and their tokens; None where nothing is known of them
    steps: StepCount | None  # how far it goes; None where nothing is known of the data
    reference: bool  # whether the loss reads a reference
    precomputes: bool  # whether that goes through all pairs beforehand, `reference_rows` at a time
    reference_rows: int  # rows of its micro-batches

    @property
    def one(self) -> int:
        """Return the tokens of the longest row."""
        return self.length * (2 if self.pairs else 1)

    @property
    def need(self) -> Memory:
        return estimates.training_memory(self.model, self.launch, self.shape)

    @property
    def tokens(self) -> tuple[float, float]:
        """Return the tokens that the policy sees in the whole run, and those that the reference does."""
        if self.data is None or self.steps is None:
            return 0.0, 0.0
        seen = self.data.rows if self.precomputes else self.steps.rows
        apart = self.data.tokens(self.pairs, False, self.length) * seen if self.reference else 0.0
        return self.steps.rows * self.data.tokens(self.pairs, self.shared, self.length), apart

    @property
    def micro_batches(self) -> float:
        """Return how many a process runs in an average step."""
        assert self.data
        assert self.steps
        rows = self.steps.rows / self.steps.steps / self.launch.processes
        each = self.data.tokens(self.pairs, self.shared, self.length)
        return estimates.count_micro_batches(rows, each, self.budget, self.rows)

    def with_micro_batches(self, rows: int | None = None, budget: int | None = None, **changes: Any) -> TrainingPlan:
        """Plan the same batch in other micro-batches: of some rows, or of some tokens.

        They have `rows` rows, or `budget` tokens; `changes` are of `length` or of fields of the shape.
        """
        length, step = changes.pop("length", self.length), self.rows * self.accumulation
        rows = rows or step
        found = replace(self, rows=rows, accumulation=step // rows, budget=budget, length=length)
        most = rows * found.one if budget is None else min(rows * found.one, max(budget, found.one))
        return replace(found, shape=replace(self.shape, tokens=most, **changes))

    def times(self) -> tuple[StepTime, StepTime]:
        """Estimate the seconds of the training on a GPU, and of the reference's pass before it."""
        assert self.gpu
        assert self.steps
        assert self.data
        policy, reference = (count / self.launch.processes for count in self.tokens)
        steps, gpu = self.steps.steps, GPUS[self.gpu]
        place = (self.model, self.launch, self.shape, gpu)
        in_step = 0.0 if self.precomputes else reference / steps
        step = estimates.step_time(*place, policy / steps, self.micro_batches, in_step)
        training = StepTime(steps * step.compute, steps * step.exchange, steps * step.after)
        if not (self.reference and self.precomputes):
            return training, StepTime(0.0, 0.0)
        batches = math.ceil(self.data.rows / self.launch.processes / self.reference_rows)
        return training, estimates.step_time(*place, 0, batches, reference, trains=False)

    @property
    def seconds(self) -> float:
        return sum(part.total for part in self.times())


def read_training(
    arguments: Any, model_args: Any, config: Any, launch: LaunchConfig, on_cpu: bool
) -> TrainingPlan | None:
    """Read what a training recipe needs; arguments as of `training_facts`. None if its model isn't known."""
    name, pairs, adapter = model_args.model_name_or_path, hasattr(config, "token_weighting"), adapter_of(model_args)
    found, data = model_size(name, model_args.model_revision), _training_data(arguments, name)
    if found is None:
        return None
    model, rows, accumulation = found[0], config.per_device_train_batch_size, config.gradient_accumulation_steps
    steps = _count_steps(config, data, launch)
    shared, packed, reference = _layout(config, model_args, pairs)
    precomputes = reference and _precomputes(config, steps, data)
    weight_width = 4 if training_dtype(model_args, config, launch.engine) == "float32" else 2
    shape = StepShape(
        tokens=0,
        width=2 if mixed_precision(config) in HALF else weight_width,
        weight_width=weight_width,
        checkpointing=bool(config.gradient_checkpointing),
        packed=packed,
        reference=reference and not adapter and not precomputes,
        on_gpu=not on_cpu,
        tiled=pairs,
        adapter=adapter,
        optimizer=str(getattr(config.optim, "value", config.optim)),
    )
    return TrainingPlan(
        model, launch, shape, None if on_cpu else arguments.gpu, rows, accumulation, None,
        config.max_length or model.positions, pairs, shared, data, steps, reference, precomputes,
        getattr(config, "precompute_ref_batch_size", None) or rows,
    ).with_micro_batches(rows, getattr(config, "micro_batch_tokens", None))  # fmt: skip


def _count_steps(config: Any, data: DatasetStats | None, launch: LaunchConfig) -> StepCount | None:
    batch = config.per_device_train_batch_size * config.gradient_accumulation_steps * launch.processes
    return estimates.count_steps(data.rows, batch, config.num_train_epochs, config.max_steps) if data else None


def training_facts(arguments: Any, model_args: Any, config: Any, launch: LaunchConfig, on_cpu: bool) -> Facts:
    """Estimate parameters, steps, tokens, batch, memory, time and disk of a training stage."""
    name, adapter = model_args.model_name_or_path, adapter_of(model_args)
    data, pairs = _training_data(arguments, name), hasattr(config, "token_weighting")
    steps = _count_steps(config, data, launch)
    launcher = arguments.accelerate_config or "this process"
    size, accumulation = config.per_device_train_batch_size, config.gradient_accumulation_steps
    batch, budget = size * accumulation * launch.processes, getattr(config, "micro_batch_tokens", None)
    processes = "1 process" if launch.processes == 1 else f"{launch.processes} processes"
    split = f"{accumulation} accumulation × " if budget is None else ""
    facts: Facts = {
        "parameters": parameters_fact(model_size(name, model_args.model_revision), adapter),
        "rows": rows_fact(data, pairs),
        "launched with": f"{launch} ({'this accelerate launch' if is_launched() else launcher})",
        "batch": f"{batch} = {size} × {split}{processes}"
        + ("" if budget is None else f", in micro-batches of at most {budget:,} tokens"),
        "WARNING": batch_warning(batch, arguments.paper_batch_size),
        "steps": f"{steps.steps:,}" if steps else None,
    }
    plan = read_training(arguments, model_args, config, launch, on_cpu)
    if plan is None:
        return facts
    facts |= fit_facts(plan, arguments.gpu, mixed_precision(config))
    facts["memory assumes"] = _memory_assumptions(plan)
    if steps and data:
        policy, reference = plan.tokens
        facts["tokens"] = f"{policy:,.0f}" + (f", and {reference:,.0f} by the reference" if plan.reference else "")
        facts |= _time_facts(plan)
        facts["micro_batch_tokens"] = _budget_fact(plan) if pairs and _takes_budget(config) else None
    return facts | {"disk": _disk(plan.model, adapter, config, steps, launch)}


def _memory_assumptions(plan: TrainingPlan) -> str:
    """Say what batch the memory is planned for."""
    kind, shape = "pairs of two sequences" if plan.pairs else "sequences", plan.shape
    if plan.budget is None:
        assumed = [f"{plan.rows} {kind} of {plan.length:,} tokens"]
    else:
        assumed = [f"{shape.tokens:,} tokens at once, and {kind} of at most {plan.length:,}"]
    assumed.append(f"gradient checkpointing {'on' if shape.checkpointing else 'off'}")
    if plan.reference:
        where = "in memory" if shape.reference else "computed beforehand" if plan.precomputes else "by the base model"
        assumed.append(f"the reference log-probs {where}")
    return ", ".join(assumed)


def adapter_of(model_args: Any) -> Adapter | None:
    """Read LoRA from the recipe's keys."""
    if not model_args.use_peft:
        return None
    bits = 4 if model_args.load_in_4bit else 8 if model_args.load_in_8bit else None
    saved = model_args.lora_modules_to_save or ()
    nested, dropout = bool(model_args.use_bnb_nested_quant), model_args.lora_dropout > 0
    return Adapter(model_args.lora_r, model_args.lora_target_modules, saved, bits, nested, dropout)


def batch_warning(batch: int, wanted: int | None) -> str | None:
    """Warn of a batch that isn't the paper's."""
    if wanted is None or batch == wanted:
        return None
    how = "change gradient_accumulation_steps so that micro-batch × accumulation × processes is the paper's"
    return f"the batch is {batch}, the paper's {wanted}; {how}"


def _training_data(arguments: Any, name: str) -> DatasetStats | None:
    data = dataset_stats(arguments.dataset_mixture.datasets, token_counter(arguments.tokenizer_name_or_path or name))
    held_out = arguments.dataset_mixture.test_split_size
    if data is None or held_out is None:
        return data
    return replace(data, rows=data.rows - round(held_out if held_out >= 1 else held_out * data.rows))


def _layout(config: Any, model_args: Any, pairs: bool) -> tuple[bool, bool, bool]:
    """Return whether prefixes are shared, whether attention goes by trees, and whether the loss reads a reference."""
    if not pairs:
        return False, False, False
    attention = model_args.attn_implementation
    takes_trees = attention in (None, "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
    shared = takes_trees and config.prefix_sharing is not False
    return shared, takes_trees and (shared or config.packing is not False), config.reads_reference


def _precomputes(config: Any, steps: StepCount | None, data: DatasetStats | None) -> bool:
    """Return whether the reference goes through all pairs beforehand, as BMCTrainer decides it."""
    if config.precompute_ref_log_probs is not None:
        return bool(config.precompute_ref_log_probs)
    return config.max_steps < 1 or not (steps and data) or steps.rows >= data.rows


def fit_facts(plan: TrainingPlan, gpu: str, mixed: str) -> Facts:
    """Say what memory is needed, what it is made of, and whether it fits: a GPU, or for a CPU the host's memory."""
    need, launch, shape = plan.need, plan.launch, plan.shape
    parts = {
        "weights, gradients, optimizer": need.states,
        "activations": need.activations,
        "head": need.head,
        "reference": need.reference,
        "CUDA and fragmentation": need.overhead,
    }
    shown = {name: count for name, count in parts.items() if count or (plan.pairs and name == "reference")}
    if shape.on_gpu:
        there, wanted = int(GPUS[gpu].memory_gib * GIB), need.resident
        where = f"{launch.processes} × {gpu}" if launch.processes > 1 else f"one {gpu}"
    else:
        there, wanted = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), launch.processes * need.total
        where = f"this machine's {gibibytes(there)}"
    spare, each = there - wanted, " a card" if shape.on_gpu and launch.processes > 1 else ""
    answer = f"yes, {gibibytes(spare)}{each} to spare"
    if spare < 0:
        room = there if shape.on_gpu else there / launch.processes
        answer = f"NO, {gibibytes(-spare)}{each} too much; {_what_would_fit(remedies(plan, mixed), room)}"
    elif spare < there / 10:
        key = "per_device_train_batch_size" if plan.budget is None else "micro_batch_tokens"
        answer += f"; that is tight, and a smaller {key} is the first remedy"
    if shape.on_gpu and need.total > there >= need.resident:
        answer += f", as paged optimizer states ({gibibytes(need.paged)}) move to host memory"
    host = "DeepSpeed's estimate" if need.host > need.paged else "if all paged optimizer states move there"
    return {
        "memory a process": f"{gibibytes(need.total)} = "
        + " + ".join(f"{count / GIB:.1f} {name}" for name, count in shown.items()),
        "host memory": f"{gibibytes(need.host)} a machine, {host}" if need.host and shape.on_gpu else None,
        f"fits {where}": answer,
    }


def remedies(plan: TrainingPlan, mixed: str) -> dict[str, Memory]:
    """Map what could be written in the recipe of a run that doesn't fit to what a process would then need."""
    launch, shape = plan.launch, plan.shape
    found: dict[str, tuple[LaunchConfig, dict[str, Any]]] = {}
    if shape.tokens > plan.one:
        key = "per_device_train_batch_size: 1" if plan.budget is None else f"micro_batch_tokens: {plan.one}"
        found[key] = launch, {"tokens": plan.one}
    lora = {"adapter": Adapter(16, "all-linear"), "weight_width": 2, "reference": False}
    if shape.adapter is None:
        found["LoRA (use_peft: true, lora_target_modules: all-linear, dtype: bfloat16)"] = launch, lora
    if shape.on_gpu and (shape.adapter is None or shape.adapter.bits is None) and launch.shards == 1:
        small = replace(shape.adapter or Adapter(16, "all-linear"), bits=4, nested=True)
        more = "" if shape.adapter else "use_peft: true, lora_target_modules: all-linear, dtype: bfloat16, "
        found[f"QLoRA ({more}load_in_4bit: true, use_bnb_nested_quant: true)"] = launch, lora | {"adapter": small}
    if estimates.moment_bytes(shape.optimizer) > 2:
        found["8-bit Adam (optim: adamw_bnb_8bit)"] = launch, {"optimizer": "adamw_bnb_8bit"}
    if launch.engine == "deepspeed" and not launch.offload_optimizer:
        found["offload_optimizer_device: cpu"] = replace(launch, offload_optimizer=True), {}
    if shape.on_gpu and mixed in HALF:
        gpus = max(4, launch.processes * (2 if launch.zero_stage == 3 else 1))
        zero3 = replace(launch, processes=gpus, machines=-(-gpus // 8), engine="deepspeed", zero_stage=3)
        found[f"ZeRO-3 on {gpus} cards (accelerate_configs/zero3.yaml)"] = zero3, {"weight_width": 2}
    return {
        name: estimates.training_memory(plan.model, where, replace(shape, **changes))
        for name, (where, changes) in found.items()
    }


def _what_would_fit(found: dict[str, Memory], room: float) -> str:
    """Say which remedies suffice, each alone, and which don't."""
    listed: dict[str, list[str]] = {"what would fit": [], "not enough alone": []}
    for name, need in found.items():
        fits = "what would fit" if need.resident <= room else "not enough alone"
        listed[fits].append(f"{name}: {gibibytes(need.total)}")
    return "; ".join(f"{what}: {'; '.join(names)}" for what, names in listed.items() if names)


def _time_facts(plan: TrainingPlan) -> Facts:
    """Say how long the run takes, and what of it is communication."""
    policy, reference = plan.tokens
    flops = estimates.training_flops(plan.model, policy, plan.shape.checkpointing, reference, bool(plan.shape.adapter))
    if plan.gpu is None:
        peak = _measured_teraflops()
        took = duration(flops / (estimates.CPU_EFFICIENCY * peak * 1e12))
        how = f"{estimates.CPU_EFFICIENCY:.0%} of {1000 * peak:,.0f} GFLOP/s in a matrix product"
        return {"time": f"{took} on this CPU at {how} ({flops:.2g} FLOP)"}
    gpu, n = GPUS[plan.gpu], plan.launch.processes
    how = f"{n} × {plan.gpu} at {estimates.EFFICIENCY:.0%} of {gpu.teraflops:g} TFLOP/s peak each ({flops:.2g} FLOP)"
    training, before = plan.times()
    facts = {"time": f"{duration(training.total + before.total)} on {how}"}
    if n == 1:
        return facts
    beside = f"{duration(training.exchange + before.exchange)} beside {duration(training.compute + before.compute)} of"
    after = f", and {duration(training.after)} between steps" if training.after >= 1 else ""
    rate = f"{estimates.LINK_EFFICIENCY:.0%} of {plan.launch.bandwidth(gpu):g} GB/s"
    return facts | {"communication": f"{beside} computation, the longer of which counts{after} ({rate})"}


def _takes_budget(config: Any) -> bool:
    """Return whether a pair's loss is its own, whatever micro-batch it is in."""
    from ..training.losses import OF_A_BATCH

    return OF_A_BATCH.isdisjoint([config.loss_type] if isinstance(config.loss_type, str) else config.loss_type)


def recommend_budget(plan: TrainingPlan) -> TrainingPlan | None:
    """Choose `micro_batch_tokens`: what memory is planned for, and more, up to nine tenths of the card, where doubling
    it saves 2 % of the time. None where not even one pair fits."""
    assert plan.gpu
    room, best = 0.9 * GPUS[plan.gpu].memory_gib * GIB, None
    budget = max(plan.one, plan.shape.tokens if plan.need.resident <= room else 0)
    while (tried := plan.with_micro_batches(budget=budget)).need.resident <= room:
        if best is not None and tried.seconds > 0.98 * best.seconds:
            break
        best, budget = tried, 2 * budget
    return best


def _budget_fact(plan: TrainingPlan) -> str | None:
    """Say what `micro_batch_tokens` a preference training on GPUs should have, and what it saves."""
    if plan.gpu is None:
        return None
    best = recommend_budget(plan)
    if best is None:
        return None
    if plan.budget == best.budget:
        return f"{plan.budget}, as recommended: a step is {micro_batches(plan)}"
    count = f"a step is {micro_batches(best)} instead of {plan.micro_batches:.0f}"
    took = f"{duration(best.seconds)} instead of {duration(plan.seconds)}"
    return f"{best.budget} is recommended: {count}, {took}, {gibibytes(best.need.total)} a process"


def micro_batches(plan: TrainingPlan) -> str:
    """Say into how many micro-batches a step is split."""
    count = round(plan.micro_batches)
    return f"about {count} micro-batch{'' if count == 1 else 'es'}"


@cache
def _measured_teraflops() -> float:
    """Measure what this CPU reaches in a matrix product, the best of five."""
    import torch

    size, best = 1024, float("inf")
    a = torch.rand(size, size)
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e12


def _disk(model: ModelSize, adapter: Adapter | None, config: Any, steps: StepCount | None, launch: LaunchConfig) -> str:
    """Add up the model and the checkpoints that are kept."""
    trained = adapter.trained(model) if adapter else model.parameters
    width = 2 if launch.engine == "deepspeed" and mixed_precision(config) in HALF and not adapter else 4
    saved = width * trained
    if config.save_strategy == "no":
        return f"{gibibytes(saved)}, the model"
    every = config.save_steps if config.save_strategy == "steps" else None
    made = math.ceil(steps.steps / every) if steps and every and every >= 1 else math.ceil(config.num_train_epochs)
    kept = min(made, config.save_total_limit or made)
    moments, copies = estimates.moment_bytes(config.optim), launch.engine == "deepspeed"
    each = estimates.checkpoint_bytes(trained, saved, config.save_only_model, copies, moments)
    # one more while the next is written and the oldest not yet removed
    most = saved + each * (kept + (1 if made > kept else 0))
    return f"{gibibytes(most)} at the most: the model and {kept} of {made} checkpoints of {gibibytes(each)}"
