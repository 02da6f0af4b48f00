"""The plan of a stage, in the words that `--dry_run` prints."""

from __future__ import annotations

import contextlib
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import OFFLINE, AnalyzeConfig, BridgeConfig, DatasetConfig, EvaluateConfig, SampleConfig
from ..precision import HALF, mixed_precision, training_dtype
from . import memory, work
from .architecture import Architecture, find, origin
from .chain import upstream
from .hardware import GPUS, Gpu, Launch, is_launched
from .memory import GIB, Adapter, Memory
from .workload import Workload, workload

UNKNOWN = "unknown: neither the model's config nor a table has it"
Facts = dict[str, Any]
Remedies = list[tuple[str, Memory]]  # what to write in a recipe, and what a process would need then


def tokenizer_of(name: str) -> Any:
    """The tokenizer of a model that is at hand as a folder, or of the one that it is trained from; None without one."""
    from tokenizers import Tokenizer

    for place in (name, origin(name)):
        if (path := Path(place, "tokenizer.json")).is_file():
            return _Counting(Tokenizer.from_file(str(path)))
    return None


class _Counting:
    """A tokenizer of 🤗 tokenizers whose `encode` gives ids alone."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def encode(self, text: str) -> list[int]:
        return list(self.inner.encode(text, add_special_tokens=False).ids)


def rows_fact(load: Workload | None, pairs: bool = False) -> str:
    """How many rows there are, how long, and how that is known."""
    if load is None:
        return "unknown: the data aren't at hand and no recipe or table says how many"
    kind = "pairs" if pairs else "rows"
    lengths = f"{load.prompt:,.0f} + {'2 × ' if pairs else ''}{load.response:,.0f} tokens each"
    how = "counted" if load.counted else "rows by the paper's counts, tokens assumed"
    return f"{load.rows:,} {kind} of about {lengths} ({how})"


def parameters_fact(found: tuple[Architecture, str] | None, adapter: Adapter | None = None) -> str:
    """How large the model is."""
    if found is None:
        return UNKNOWN
    model, where = found
    trained = f", of which {adapter.trained(model) / 1e6:,.1f} M are trained" if adapter else ""
    return f"{model.parameters / 1e9:.2f} B{trained} ({where})"


def gibibytes(count: float) -> str:
    return f"{count / GIB:.1f} GiB"


def fit_facts(need: Memory, card: Gpu | None, gpu: str, processes: int, pairs: bool, remedies: Remedies) -> Facts:
    """What is needed, of what it is made up, and whether it fits. Without a card the host's memory counts, whole.

    Args:
        need: Of a process.
        card: Its card.
        gpu: The card's name.
        processes: How many there are.
        pairs: Whether a row is a pair.
        remedies: What could be changed, and what a process would need then.
    """
    parts = {
        "weights, gradients, optimizer": need.states,
        "activations": need.activations,
        "head": need.head,
        "reference": need.reference,
        "CUDA and fragmentation": need.overhead,
    }
    made_of = " + ".join(
        f"{count / GIB:.1f} {name}" for name, count in parts.items() if count or (pairs and name == "reference")
    )
    if card is None:
        there, wanted = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), processes * need.total
        where = f"this machine's {gibibytes(there)}"
    else:
        there, wanted = int(card.memory_gib * GIB), need.total
        where = f"{processes} × {gpu}" if processes > 1 else f"one {gpu}"
    spare = there - wanted
    each = " a card" if card and processes > 1 else ""
    answer = f"yes, {gibibytes(spare)}{each} to spare" if spare >= 0 else f"NO, {gibibytes(-spare)}{each} too much"
    if spare < 0:
        room = there if card else there / processes
        answer += f"; {_what_would_fit(remedies, room)}"
    elif spare < there / 10:
        answer += "; that is tight, and a smaller per_device_train_batch_size is the first remedy"
    return {
        "memory a process": f"{gibibytes(need.total)} = {made_of}",
        "host memory": f"{gibibytes(need.host)} a machine, DeepSpeed's estimate" if need.host else None,
        f"fits {where}": answer,
    }


def _what_would_fit(remedies: Remedies, room: float) -> str:
    """Which remedies suffice, each alone, and which don't."""

    def named(found: Remedies) -> str:
        return "; ".join(f"{name}: {gibibytes(need.total)}" for name, need in found)

    enough = [remedy for remedy in remedies if remedy[1].total <= room]
    others = [remedy for remedy in remedies if remedy not in enough]
    parts = {"what would fit": enough, "not enough alone": others}
    return "; ".join(f"{what}: {named(found)}" for what, found in parts.items() if found)


def generation_facts(config: SampleConfig | EvaluateConfig) -> Facts:
    """Parameters, rows, memory and time of a stage that generates."""
    found = find(config.model_name_or_path, config.model_revision)
    load = workload(config.dataset_mixture.datasets, tokenizer_of(config.model_name_or_path))
    facts: Facts = {"parameters": parameters_fact(found), "rows": rows_fact(load)}
    if found is None or load is None:
        return facts
    model, card = found[0], GPUS[config.gpu]
    width = 4 if config.dtype == "float32" else 2
    most = max(config.decoding(name).max_new_tokens for name in (None, *getattr(config, "benchmarks", ())))
    longest = int(load.prompt) + most
    shared, cards = config.tensor_parallel_size, config.tensor_parallel_size * config.data_parallel_size
    if config.backend == "transformers":
        need = memory.generating(model, config.batch_size, longest, width, on_gpu=True)
        facts |= {"memory a process": f"{gibibytes(need.total)}, {gibibytes(need.activations)} of it keys and values"}
        facts |= {f"fits one {config.gpu}": "yes" if need.total <= card.memory_gib * GIB else "NO; lower batch_size"}
    else:  # vLLM takes what is left of the card for keys and values
        weights = model.parameters * width / shared
        fits = "yes" if weights <= work.VLLM_SHARE * card.memory_gib * GIB else "NO; raise tensor_parallel_size"
        facts |= {"memory a card": f"{gibibytes(weights)} of weights", f"fits {shared} × {config.gpu}": fits}
    new = min(load.response or most, most)
    seconds = work.generating_seconds(model, load.rows, load.prompt, new, config.batch_size, card) / cards
    where = f"{cards} × {config.gpu}" if cards > 1 else f"one {config.gpu}"
    assumed = f"{work.EFFICIENCY:.0%} of its peak and bandwidth"
    return facts | {"time": f"{work.duration(seconds)} on {where} at {assumed}, {new:.0f} new tokens a row"}


def bridging_facts(config: BridgeConfig) -> Facts:
    """Rows, tokens and dollars of a bridging run, roughly."""
    load = workload(config.dataset_mixture.datasets)
    facts: Facts = {"rows": rows_fact(load, pairs=True)}
    if load is None or config.editor != "openai":
        return facts | ({"cost": "none: the rules run here"} if config.editor in OFFLINE else {})
    price = config.prices.get(config.model)
    if price is None:
        return facts | {"cost": f"the recipe's `prices` has none for {config.model}"}
    rows = round(min(load.rows, config.limit or load.rows) * config.proportion)
    dollars = work.bridging_dollars(price, rows, load.prompt, load.response, config.template)
    cost = f"about ${dollars * (0.5 if config.batch_api else 1):,.0f} for {rows:,} requests"
    return facts | {"cost": cost, "paid once": _shared_cache(config)}


def _shared_cache(config: BridgeConfig) -> str | None:
    """Where responses are kept that recipes in other folders find too, and how many there are; None for a recipe's own
    cache."""
    from ..llm.cache import CachedResponses, replies_path

    path = replies_path(config.replies, config.output_dir)
    if path == replies_path(None, config.output_dir):
        return None
    with contextlib.closing(CachedResponses(path)) as cache:
        return f"equal requests of other recipes share {path}, which holds {len(cache):,} responses"


def data_facts(datasets: list[DatasetConfig], tests: list[DatasetConfig]) -> Facts:
    """Rows of a preparing stage."""
    return {"rows": rows_fact(workload(datasets)), "test rows": rows_fact(workload(tests)) if tests else None}


def analysis_facts(config: AnalyzeConfig) -> Facts:
    """Runs, reference, pairs and memory of an analysis."""
    folders = {name: Path(config.setting, name) for name in config.runs}
    recipes = [found for folder in folders.values() if (found := upstream(str(folder)))]
    reference = next((found["model_name_or_path"] for found in recipes if "model_name_or_path" in found), None)
    given = config.dataset_mixture
    load = workload(given.datasets, tokenizer_of(reference or "")) if given else None
    model = find(reference) if reference else None
    width = {"bfloat16": 2, "float16": 2}.get(config.dtype, 4)
    absent = [name for name, folder in folders.items() if not (folder / "metrics.json").is_file()]
    return {
        "runs": ", ".join(name for name in folders if name not in absent) or None,
        "not there yet": f"{', '.join(absent)}; `make` builds them" if absent else None,
        "reference": reference,
        "pairs": rows_fact(load, pairs=True) if given else "those that the runs' own recipes hold out",
        "parameters": parameters_fact(model),
        "memory": f"{gibibytes(2 * width * model[0].parameters)}, the reference and one run's model" if model else None,
        "figures 3 to 5": f"show {config.metric}",
        "output": config.output_dir,
    }


def training_facts(arguments: Any, model_args: Any, config: Any, launch: Launch, on_cpu: bool) -> Facts:
    """Parameters, steps, tokens, batch, memory, time and disk of a training stage.

    Args:
        arguments: The recipe's `TrainingArguments`.
        model_args: Its `ModelArguments`.
        config: The trainer's config, TRL's or ours.
        launch: How it is launched.
        on_cpu: Whether the recipe runs on a CPU.
    """
    name = model_args.model_name_or_path
    adapter, pairs = adapter_of(model_args), hasattr(config, "token_weighting")
    found, load = find(name, model_args.model_revision), _load(arguments, name)
    facts: Facts = {
        "parameters": parameters_fact(found, adapter),
        "rows": rows_fact(load, pairs),
        "launched with": f"{launch} ({_launcher(arguments.accelerate_config)})",
    }
    size = config.per_device_train_batch_size, config.gradient_accumulation_steps
    batch = size[0] * size[1] * launch.processes
    facts["batch"] = f"{batch} = {size[0]} × {size[1]} accumulation × {_processes(launch.processes)}"
    if warning := batch_warning(batch, arguments.paper_batch_size):
        facts["WARNING"] = warning
    run = work.steps(load.rows, *size, launch.processes, config.num_train_epochs, config.max_steps) if load else None
    if run:
        facts["steps"] = f"{run.steps:,}"
    if found is None:
        return facts
    model, checkpointing = found[0], bool(config.gradient_checkpointing)
    shared, packed, reference = _layout(config, model_args, pairs)
    loads_reference = reference and not adapter and not _precomputes(config, run, load)
    width, weight_width = _widths(config, model_args, launch)
    length = config.max_length or model.positions
    shape: dict[str, Any] = {
        "tokens": size[0] * (2 if pairs else 1) * length,
        "width": width,
        "weight_width": weight_width,
        "checkpointing": checkpointing,
        "packed": packed,
        "reference": loads_reference,
        "on_gpu": not on_cpu,
        "lean": pairs,
        "adapter": adapter,
        "moments": work.moment_bytes(config.optim),
    }
    need = memory.training(model, launch, **shape)
    card = None if on_cpu else GPUS[arguments.gpu]
    remedies = _remedies(model, launch, shape, size[0], mixed_precision(config))
    facts |= fit_facts(need, card, arguments.gpu, launch.processes, pairs, remedies)
    facts["memory assumes"] = _assumptions(pairs, size[0], length, checkpointing, loads_reference, reference)
    if run and load:
        each = load.tokens(pairs, shared, config.max_length)
        seen = load.tokens(pairs, False, config.max_length) * load.rows if reference else 0.0
        seen = seen * config.num_train_epochs if loads_reference else seen
        facts["tokens"] = f"{run.rows * each:,.0f}" + (f", and {seen:,.0f} by the reference" if reference else "")
        flops = work.training_flops(model, run.rows * each, checkpointing, seen, bool(adapter))
        facts["time"] = _time(flops, card, arguments.gpu, launch.processes)
    return facts | {"disk": _disk(model, adapter, config, run, launch)}


def _launcher(config: str | None) -> str:
    """Where the launcher is known from, as `read_launch` finds it."""
    if is_launched():
        return "this accelerate launch"
    return os.path.normpath(config) if config else "this process"


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def adapter_of(model_args: Any) -> Adapter | None:
    """LoRA by the recipe's keys."""
    if not model_args.use_peft:
        return None
    bits = 4 if model_args.load_in_4bit else 8 if model_args.load_in_8bit else None
    saved = model_args.lora_modules_to_save or ()
    return Adapter(model_args.lora_r, model_args.lora_target_modules, saved, bits)


def batch_warning(batch: int, wanted: int | None) -> str | None:
    """What to say of a batch that isn't the paper's."""
    if wanted is None or batch == wanted:
        return None
    mend = "change gradient_accumulation_steps so that micro-batch × accumulation × processes is the paper's"
    return f"the batch is {batch}, the paper's {wanted}; {mend}"


def _load(arguments: Any, name: str) -> Workload | None:
    load = workload(arguments.dataset_mixture.datasets, tokenizer_of(arguments.tokenizer_name_or_path or name))
    held_out = arguments.dataset_mixture.test_split_size
    if load is None or held_out is None:
        return load
    return replace(load, rows=load.rows - round(held_out if held_out >= 1 else held_out * load.rows))


def _layout(config: Any, model_args: Any, pairs: bool) -> tuple[bool, bool, bool]:
    """Whether prefixes are shared, whether attention goes by trees, and whether the objective reads a reference."""
    if not pairs:
        return False, False, False
    takes_trees = model_args.attn_implementation in (None, "sdpa", "flex_attention")
    shared = takes_trees and config.prefix_sharing is not False
    packed = takes_trees and (shared or config.packing is not False)
    return shared, packed, config.reads_reference


def _precomputes(config: Any, run: work.Steps | None, load: Workload | None) -> bool:
    """Whether the reference goes through all pairs beforehand, as BMCTrainer decides it."""
    if config.precompute_ref_log_probs is not None:
        return bool(config.precompute_ref_log_probs)
    return config.max_steps < 1 or not (run and load) or run.rows >= load.rows


def _widths(config: Any, model_args: Any, launch: Launch) -> tuple[int, int]:
    """Bytes of a number in the forward pass, and of a weight as it is loaded."""
    weights = 4 if training_dtype(model_args, config, launch.engine) == "float32" else 2
    return (2 if mixed_precision(config) in HALF else weights), weights


def _remedies(model: Architecture, launch: Launch, shape: dict[str, Any], micro_batch: int, mixed: str) -> Remedies:
    """What could be changed in a run that doesn't fit.

    Args:
        model: The policy.
        launch: The launcher.
        shape: The keyword arguments of `memory.training`.
        micro_batch: Rows of it.
        mixed: What the run computes in.
    """
    found: list[tuple[str, Launch, dict[str, Any]]] = []
    if micro_batch > 1:
        found.append(("per_device_train_batch_size: 1", launch, {"tokens": shape["tokens"] // micro_batch}))
    if shape["adapter"] is None:
        lora = {"adapter": Adapter(16, "all-linear"), "weight_width": 2, "reference": False}
        found.append(("LoRA (use_peft: true, lora_target_modules: all-linear, dtype: bfloat16)", launch, lora))
    if shape["moments"] > 2:
        found.append(("8-bit Adam (optim: adamw_bnb_8bit)", launch, {"moments": 2}))
    if launch.engine == "deepspeed" and not launch.offload_optimizer:
        found.append(("offload_optimizer_device: cpu", replace(launch, offload_optimizer=True), {}))
    if shape["on_gpu"] and mixed in HALF:
        cards = max(4, launch.processes * (2 if launch.zero_stage == 3 else 1))
        zero3 = replace(launch, processes=cards, machines=-(-cards // 8), engine="deepspeed", zero_stage=3)
        found.append((f"ZeRO-3 on {cards} cards (accelerate_configs/zero3.yaml)", zero3, {"weight_width": 2}))
    return [(name, memory.training(model, where, **(shape | changes))) for name, where, changes in found]


def _assumptions(pairs: bool, size: int, length: int, checkpointing: bool, loads: bool, reads: bool) -> str:
    kind = "pairs of two sequences" if pairs else "sequences"
    reference = "in memory" if loads else "computed beforehand" if reads else None
    said = [f"{size} {kind} of {length:,} tokens", f"gradient checkpointing {'on' if checkpointing else 'off'}"]
    return ", ".join(said + ([f"the reference's log-probs {reference}"] if reference and pairs else []))


def _time(flops: float, card: Gpu | None, gpu: str, processes: int) -> str:
    peak = card.teraflops if card else _measured_teraflops()
    share = work.EFFICIENCY if card else work.CPU_EFFICIENCY
    took = work.duration(flops / (share * peak * 1e12 * (processes if card else 1)))
    where = f"{processes} × {gpu}" if card else "this CPU"
    how = f"{peak:g} TFLOP/s peak each" if card else f"{1000 * peak:,.0f} GFLOP/s in a matrix product"
    return f"{took} on {where} at {share:.0%} of {how} ({flops:.2g} FLOP)"


def _measured_teraflops() -> float:
    """What this CPU reaches in a matrix product, the best of five."""
    import time

    import torch

    size, best = 1024, float("inf")
    a = torch.rand(size, size)
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e12


def _disk(model: Architecture, adapter: Adapter | None, config: Any, run: work.Steps | None, launch: Launch) -> str:
    """The model, and the checkpoints that are kept."""
    trained = adapter.trained(model) if adapter else model.parameters
    width = 2 if launch.engine == "deepspeed" and mixed_precision(config) in HALF and not adapter else 4
    saved = width * trained
    if config.save_strategy == "no":
        return f"{gibibytes(saved)}, the model"
    every = config.save_steps if config.save_strategy == "steps" else None
    made = math.ceil(run.steps / every) if run and every and every >= 1 else math.ceil(config.num_train_epochs)
    kept = min(made, config.save_total_limit or made)
    kept_apart = launch.engine == "deepspeed"
    each = work.checkpoint_bytes(trained, saved, config.save_only_model, kept_apart, work.moment_bytes(config.optim))
    # one more while the next is written and the oldest not yet removed
    most = saved + each * (kept + (1 if made > kept else 0))
    return f"{gibibytes(most)} at the most: the model and {kept} of {made} checkpoints of {gibibytes(each)}"
