"""What must hold on a GPU, in eight minutes at most, on one card, without network.

    python benchmarks/gpu_check.py --out results              all of it
    python benchmarks/gpu_check.py --only kernel gradients    some of it
    python benchmarks/gpu_check.py --dry_run                  the same code on a CPU, with tiny sizes and no timings

Each check is a line `name | value | bar | PASS, FAIL or SKIP`, printed as it ends. The checks run in a process of their
own, which starts again after a crash and is ended when it hangs: either costs one line. The lines also stand in
`gpu_check.json`. They come in the order of their worth. The status is 1 where one failed.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import gc
import importlib.util
import json
import logging
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from memory_plan import tokenizer
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bmc.training import varlen
from bmc.training.lm_head import gather_response_tokens
from bmc.training.prefix_sharing import Tree, index_trees, pack_sequences, tree_attention, tree_mask_mod

ROOT = Path(__file__).parents[1]
MODULE = torch.nn.Module()
AGAIN = 3  # exit status of a worker whose device may be unusable: the rest of the checks need a new one


class Skip(Exception):
    """Why a check can't run here."""


@dataclass(frozen=True)
class Setup:
    """Where the checks run, and how large.

    Attributes:
        device: cuda, or cpu in a dry run.
        tiny: Whether sizes are tiny and speed isn't judged.
        model: Folder of SmolLM2's weights.
    """

    device: torch.device
    tiny: bool
    model: Path

    @property
    def kernel(self) -> str:
        """The fastest way to attend over trees here; in a dry run the plain stand-in for a kernel."""
        return "plain" if self.tiny else varlen.candidates(self.device.type)[0]

    @property
    def limit(self) -> float:
        """Seconds of a check; a CPU may be busy with other tests."""
        return 900.0 if self.tiny else 120.0

    @property
    def half(self) -> torch.dtype:
        return torch.bfloat16

    def sync(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def cuda_only(self) -> None:
        if self.device.type != "cuda":
            raise Skip("needs a GPU")


Result = tuple[str, str, bool]  # value, bar, passed
CHECKS: dict[str, Callable[[Setup], Result]] = {}


def check(function: Callable[[Setup], Result]) -> Callable[[Setup], Result]:
    CHECKS[function.__name__] = function
    return function


# attention over trees


def tree_of(pairs: int, prompt: int, response: int, shared: int, seed: int = 0) -> Tree:
    """Pairs whose prompts begin alike (a template's head) and whose responses share their first tokens."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> list[int]:
        return torch.randint(5, 30_000, (count,), generator=generator).tolist()

    head, sequences = draw(min(20, prompt // 2)), []
    for _ in range(pairs):
        start = head + draw(prompt - len(head)) + draw(shared)
        sequences += [start + draw(response - shared + int(torch.randint(0, 8, (), generator=generator))) for _ in "wl"]
    return pack_sequences(sequences, share=True).tree


def states_of(setup: Setup, tree: Tree, dtype: torch.dtype, heads: tuple[int, int, int]) -> list[Tensor]:
    """Query, key, value and the output's gradient, as projections hand them on."""
    generator, length = torch.Generator().manual_seed(1), sum(tree.sizes)
    found = [
        torch.randn(1, length, count, heads[2], generator=generator).to(setup.device, dtype)
        for count in (heads[0], heads[1], heads[1], heads[0])
    ]
    return [state.transpose(1, 2).requires_grad_() for state in found[:3]] + [found[3]]


@functools.lru_cache(maxsize=2)
def index_of(device: torch.device, tree: Tree) -> Any:
    """The index that the collator makes once a micro-batch, for all layers."""
    index = index_trees([tree])
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in index.items()}


def attend(setup: Setup, tree: Tree, states: list[Tensor], kernel: str, window: int | None = None) -> list[Tensor]:
    """Output and gradients."""
    index = index_of(setup.device, tree)
    options: dict[str, Any] = {"trees": (tree,), "tree_index": index, "sliding_window": window}
    output, _ = tree_attention(MODULE, states[0], states[1], states[2], None, tree_kernel=kernel, **options)
    return [output.detach(), *torch.autograd.grad(output, states[:3], states[3])]


@check
def kernel(setup: Setup) -> Result:
    """Which kernel computes a tree's attention."""
    tree, heads = tree_of(4, 60, 60, 20), (8, 2, 64)
    states = states_of(setup, tree, setup.half, heads)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if setup.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    attend(setup, tree, states, setup.kernel)
    with torch.profiler.profile(activities=activities) as profile:
        attend(setup, tree, states, setup.kernel)
        setup.sync()
    names = {event.key for event in profile.key_averages()}
    flash = sorted(name for name in names if "flash" in name.lower())
    softmax = sorted(name for name in names if name in ("aten::_softmax", "aten::softmax", "aten::baddbmm"))
    passed = setup.tiny or (bool(flash) and not softmax)
    return f"{setup.kernel}: {(flash or softmax or ['?'])[0][:60]}", "flash, not math", passed


def taken(setup: Setup) -> int:
    """Bytes of the card that are in use, those aside that PyTorch keeps for later tensors."""
    gc.collect()
    if setup.device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return total - free


@check
def new_shapes(setup: Setup) -> Result:
    """The first call of a shape against the second, and memory that many shapes leave taken (a kernel's plans)."""
    heads, count = ((4, 2, 16), 3) if setup.tiny else ((32, 8, 128), 20)

    def seconds(number: int) -> list[float]:
        tree = tree_of(4, 40 + 3 * number, 60 + 5 * number, 20 + number, number)
        states, found = states_of(setup, tree, setup.half, heads), []
        index_of(setup.device, tree)
        for _ in range(2):
            setup.sync()
            start = time.perf_counter()
            attend(setup, tree, states, setup.kernel)
            setup.sync()
            found.append(time.perf_counter() - start)
        return found

    seconds(count)
    before = taken(setup)
    seconds(count)  # the largest: later ones find memory that PyTorch has already taken
    ratios = [first / second for first, second in map(seconds, reversed(range(count)))]
    median, grown = statistics.median(ratios), (taken(setup) - before) / 2**20
    return f"{median:.2f}×, {grown:.0f} MiB", "≤ 2×, ≤ 100 MiB", setup.tiny or (median <= 2 and grown <= 100)


@check
def gradients(setup: Setup) -> Result:
    """Output and gradients of each way against float64, with grouped heads and windows."""
    worst: dict[str, float] = {}
    # the second: a template's head that 64 responses share
    for heads, shape in (((4, 4, 64), (3, 150, 300, 120)), ((8, 2, 128), (32, 60, 60, 24))):
        tree = tree_of(*((2, 20, 20, 8) if setup.tiny else shape))
        for window in (None, 9 if setup.tiny else 100):
            states = states_of(setup, tree, setup.half, heads)
            exact_states = [state.detach().double().requires_grad_() for state in states]
            exact = attend(setup, tree, exact_states, "plain", window)
            for name in dict.fromkeys((setup.kernel, *varlen.LOOPS)):
                for own, other in zip(attend(setup, tree, states, name, window), exact, strict=True):
                    error = ((own.double() - other).norm() / other.norm()).item()
                    worst[name] = max(worst.get(name, 0.0), error if error == error else math.inf)
    value = ", ".join(f"{name} {error:.4f}" for name, error in worst.items())
    return value, "≤ 0.01 (bf16, relative)", max(worst.values()) <= 0.01


def milliseconds(setup: Setup, run: Callable[[], Any], rounds: int) -> float:
    found = []
    for number in range(rounds + 2):
        setup.sync()
        start = time.perf_counter()
        run()
        setup.sync()
        if number >= 2:
            found.append(1000 * (time.perf_counter() - start))
    return statistics.median(found)


@check
def attention_speed(setup: Setup) -> Result:
    """A layer's attention, forward and backward, against plain flash on the padded sequences."""
    value, passed = [], True
    shapes = {"qa": (2, 60, 60, 24)} if setup.tiny else {"qa": (32, 60, 60, 24), "chat": (4, 180, 320, 128)}
    heads = (4, 2, 16) if setup.tiny else (32, 8, 128)
    for name, shape in shapes.items():
        tree, rows, longest = tree_of(*shape), 2 * shape[0], shape[1] + shape[2] + 8
        states = states_of(setup, tree, setup.half, heads)
        found = {
            way: milliseconds(setup, functools.partial(attend, setup, tree, states, way), 2 if setup.tiny else 10)
            for way in dict.fromkeys((setup.kernel, *varlen.LOOPS))
        }
        *inputs, slope = (
            torch.randn(rows, heads[0], longest, heads[2], device=setup.device, dtype=setup.half, requires_grad=True)
            for _ in range(4)
        )

        def padded(inputs: list[Tensor] = inputs, slope: Tensor = slope) -> None:
            output = F.scaled_dot_product_attention(*inputs, is_causal=True)
            torch.autograd.grad(output, inputs, slope.detach())

        flash = contextlib.nullcontext() if setup.tiny else sdpa_kernel(SDPBackend.FLASH_ATTENTION)
        with flash:
            plain = milliseconds(setup, padded, 2 if setup.tiny else 10)
        ratio = min(found.values()) / plain
        passed &= setup.tiny or ratio <= 1.0
        value.append(f"{name} {ratio:.2f}× ({', '.join(f'{way} {ms:.2f}' for way, ms in found.items())} ms)")
    return "; ".join(value), "≤ 1.0× padded flash", passed


# a training step


def config_of(setup: Setup, kind: str = "small") -> Any:
    from transformers import LlamaConfig, Qwen2Config

    if setup.tiny:
        return LlamaConfig(
            vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, tie_word_embeddings=True, max_position_embeddings=8192,
        )  # fmt: skip
    if kind == "small":
        return LlamaConfig(
            vocab_size=8192, hidden_size=512, intermediate_size=1536, num_hidden_layers=4, num_attention_heads=8,
            num_key_value_heads=2, max_position_embeddings=8192,
        )  # fmt: skip
    hidden, inner, heads, key_heads, vocabulary, cls = {
        "7B": (4096, 11008, 32, 32, 32_000, LlamaConfig),
        "8B": (4096, 14336, 32, 8, 128_256, LlamaConfig),
        "14B": (5120, 13824, 40, 8, 152_064, Qwen2Config),
    }[kind]
    return cls(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=2,
        num_attention_heads=heads, num_key_value_heads=key_heads, tie_word_embeddings=False,
    )  # fmt: skip


def rows_of(count: int, prompt: int, response: int, words: int = 250) -> list[dict[str, str]]:
    """Pairs whose responses share their first 40 %."""
    generator = torch.Generator().manual_seed(2)

    def text(length: int) -> str:
        return "".join(f" w{n}" for n in torch.randint(3, words, (length,), generator=generator).tolist())

    rows = []
    for _ in range(count):
        start = text(2 * response // 5)
        rest = response - 2 * response // 5
        rows.append({"prompt": text(prompt), "chosen": start + text(rest), "rejected": start + text(rest)})
    return rows


def model_of(setup: Setup, config: Any) -> Any:
    """A random model whose weights are numbers of bfloat16, so that rounding moves none."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    with torch.device(setup.device):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.bfloat16())
    return model


def language_model(setup: Setup) -> tuple[str, Any]:
    """SmolLM2 where its weights are there, else a small random model, in float32 on the CPU; with its name."""
    from transformers import AutoModelForCausalLM

    if setup.model.exists() and not setup.tiny:
        return setup.model.name, AutoModelForCausalLM.from_pretrained(setup.model, dtype=torch.float32)
    return "a random model", model_of(setup, config_of(setup)).cpu()


def trainer_of(setup: Setup, folder: str, config: Any, rows: list[dict[str, str]], **changed: Any) -> Any:
    import datasets

    import bmc

    model = changed.pop("model", None) or model_of(setup, config)
    settings = {
        "output_dir": folder, "report_to": "none", "bf16": True, "use_cpu": setup.device.type == "cpu", "seed": 4,
        "token_weighting": "bmc", "reference_cache": f"{folder}/reference", "logging_steps": 1, "max_length": None,
        "save_strategy": "no", "disable_tqdm": True, "per_device_train_batch_size": 4, "max_steps": 4,
        "precompute_ref_log_probs": True, "gradient_checkpointing": False, "learning_rate": 1e-5,
    } | changed  # fmt: skip
    return bmc.BMCTrainer(
        model, args=bmc.BMCConfig(**settings), train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer(config.vocab_size),
    )  # fmt: skip


def losses(trainer: Any) -> list[float]:
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


@check
def first_loss(setup: Setup) -> Result:
    """ln 2 through the real reference cache, whose batches have other shapes than the step's; the chosen kernel."""
    name, model = language_model(setup)
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of(8, 12, 12) if setup.tiny else rows_of(32, 60, 120)
        trainer = trainer_of(
            setup, folder, model.config, rows, model=model, max_steps=1, per_device_train_batch_size=len(rows)
        )
        trainer.train()  # which refuses log-probs, λ, sums or a loss of fewer than 32 bits
        apart, chosen = abs(losses(trainer)[0] - math.log(2)), trainer._tree_kernels[0]
        shares = trainer.data_collator.prefix_sharing and (setup.tiny or chosen == setup.kernel)
    value = f"{apart:.1e} of {len(rows)} pairs, {name}, {chosen}, sharing {trainer.data_collator.prefix_sharing}"
    return value, "≤ 2e-3 from ln 2, prefixes shared by the fastest kernel", apart <= 2e-3 and shares


@check
def against_cpu(setup: Setup) -> Result:
    """Log-probs as a step computes them, on a tree, against padded sequences in float32 on the CPU."""
    name, model = language_model(setup)
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of(4, 12, 12) if setup.tiny else rows_of(4, 60, 140)
        trainer = trainer_of(setup, folder, model.config, rows, model=copy.deepcopy(model))
    batch = trainer.data_collator([*trainer.train_dataset])

    @torch.no_grad()
    def alone(row: dict[str, Any], side: str) -> Tensor:
        ids = torch.tensor([row["prompt_ids"] + row[side]])
        logps = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        return logps[len(row["prompt_ids"]) - 1 :]

    exact = torch.cat([alone(row, side) for row in trainer.train_dataset for side in ("chosen_ids", "rejected_ids")])
    inputs = trainer._prepare_inputs(batch)

    @torch.no_grad()
    def apart() -> Tensor:
        logps = gather_response_tokens(trainer._score(trainer.model.eval(), inputs).logps, inputs)
        return logps[inputs["response_mask"]].cpu() - exact

    single = apart().abs().max().item()
    with trainer.accelerator.autocast():
        half = apart().square().mean().sqrt().item()
    value = f"{single:.1e}, {half:.3f}, {name}, {trainer._tree_kernels[0]}"
    return value, "float32 ≤ 2e-4, bf16 rms ≤ 0.06", single <= 2e-4 and half <= 0.06


@check
def head(setup: Setup) -> Result:
    """TRL's fused head as it runs here against ours, log-probs and the gradient of the hidden states."""
    import trl.trainer.utils

    from bmc.training.lm_head import TiledLogProbs

    worst = 0.0
    for vocabulary in (97, 200) if setup.tiny else (49_152, 128_256, 152_064):
        hidden = torch.randn(40, 64 if setup.tiny else 512, device=setup.device, dtype=setup.half) / 4
        weight = torch.randn(vocabulary, hidden.size(1), device=setup.device, dtype=setup.half) / 4
        targets = torch.randint(vocabulary, (40,), device=setup.device)
        rest = (None, targets, 1.0, 256, None, 1.0, ("mean_logits",))
        found = []
        for function in (trl.trainer.utils._ChunkedLogProbFunction, TiledLogProbs):
            states = hidden.detach().requires_grad_()
            logps = function.apply(states, weight, *rest)[0]
            found.append((logps.detach().float(), *torch.autograd.grad(logps.float().sum(), states)))
        for own, other in zip(*found, strict=True):
            worst = max(worst, ((own.float() - other.float()).norm() / other.float().norm()).item())
    return f"{worst:.1e}", "≤ 1e-2, relative", worst <= 1e-2


Weights = dict[str, Tensor]


def weights_of(model: torch.nn.Module) -> Weights:
    """A copy of the matrices but for the embeddings, whose rows of other tokens stay."""
    named = model.named_parameters()
    return {name: weight.detach().clone() for name, weight in named if weight.dim() == 2 and "embed" not in name}


def moved(trainer: Any, before: Weights) -> float:
    """The share of the weights that a training changed."""
    changed, after = 0, dict(trainer.accelerator.unwrap_model(trainer.model).named_parameters())
    for name, old in before.items():
        new = after[name]
        if trainer.is_deepspeed_enabled:
            from deepspeed.utils import safe_get_full_fp32_param

            new = safe_get_full_fp32_param(new)
        elif hasattr(new, "full_tensor"):
            new = new.full_tensor()
        changed += int((new.to(old.device) != old).sum())
    return changed / sum(old.numel() for old in before.values())


@check
def weights_move(setup: Setup) -> Result:
    """At the paper's learning rate nearly every trained weight changes, under each optimizer."""
    shares = {}
    for optimizer in ("adamw_torch", "adamw_torch_fused"):
        with tempfile.TemporaryDirectory() as folder:
            trainer = trainer_of(
                setup, folder, config_of(setup), rows_of(8, 12, 12), learning_rate=5e-7, optim=optimizer, max_steps=2
            )
            before = weights_of(trainer.model)
            trainer.train()
            shares[optimizer] = moved(trainer, before)
    return ", ".join(f"{name} {share:.3f}" for name, share in shares.items()), "≥ 0.9", min(shares.values()) >= 0.9


def last_line(command: list[str], limit: float, **environment: str) -> str:
    """Run a command, and return the last line that it prints; raise RuntimeError with its last error."""
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=limit)
    if ran.returncode:
        lines = ran.stderr.strip().splitlines()
        errors = [line for line in lines if re.match(r"(\[\w+\]: ?)?[\w.]*(Error|Exception): ", line)]
        raise RuntimeError([f"status {ran.returncode}", *lines[-1:], *errors[:1]][-1])
    return ran.stdout.strip().splitlines()[-1]


def under_engine(setup: Setup, engine: str) -> Result:
    """Weights move at the paper's learning rate, and the first loss is ln 2, under an engine of one rank."""
    if engine != "fsdp2" and not importlib.util.find_spec("deepspeed"):
        raise Skip("deepspeed isn't installed")
    config = ROOT / f"recipes/accelerate_configs/{engine}.yaml"
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(config), "--num_processes", "1"]
    port = ["--main_process_port", str(20_000 + os.getpid() % 10_000)]
    own = [__file__, "--engine", *(["--dry_run"] if setup.tiny else [])]
    environment = {"DS_ACCELERATOR": "cpu"} if setup.tiny else {}
    share, first = json.loads(last_line([sys.executable, *launcher, *port, *own], setup.limit, **environment))
    passed = share >= 0.9 and abs(first - math.log(2)) <= 2e-3
    return f"{share:.3f}, first loss {first:.4f}", "≥ 0.9, ln 2", passed


def train_under_engine(setup: Setup) -> None:
    """Train in a process that a launcher started, and print what `under_engine` reads."""
    settings: dict[str, Any] = {}
    if setup.tiny:
        sys.path.insert(0, str(ROOT / "tests"))
        import ranks

        ranks.let_engines_compute_in_bf16_on_a_cpu()
        if os.environ.get("ACCELERATE_USE_FSDP") == "true":
            ranks.let_fsdp_run_on_a_cpu()
        settings = {"use_cpu": False, "ddp_backend": "gloo"}
    with tempfile.TemporaryDirectory() as folder:
        config, model = config_of(setup), f"{folder}/model"
        whole = model_of(setup, config)
        before = weights_of(whole)
        whole.save_pretrained(model)
        settings |= {"learning_rate": 5e-7, "max_steps": 2, "model_init_kwargs": {"dtype": "float32"}}
        trainer = trainer_of(setup, folder, config, rows_of(8, 12, 12), model=model, **settings)
        trainer.train()
        print(json.dumps([moved(trainer, before), losses(trainer)[0]]), flush=True)
    torch.distributed.destroy_process_group()


for one in ("zero2", "zero3", "fsdp2"):
    CHECKS[one] = functools.partial(under_engine, engine=one)


@check
def memory(setup: Setup) -> Result:
    """Peak memory against the plan, tokens per second and MFU, at the dims of large models with two layers."""
    from bmc.planning import estimates
    from bmc.planning.hardware import LaunchConfig

    value, passed = [], True
    for kind in ("7B",) if setup.tiny else ("7B", "8B", "14B"):
        config, pairs, length = config_of(setup, kind), 2, 64 if setup.tiny else 2048
        if setup.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with tempfile.TemporaryDirectory() as folder:
            rows = rows_of(4 * pairs, length // 4, 3 * length // 4)
            options = {"per_device_train_batch_size": pairs, "max_length": length, "gradient_checkpointing": True}
            trainer = trainer_of(setup, folder, config, rows, **options)
            trainer.train()
            line = [line for line in trainer.state.log_history if "loss" in line][-1]
            tokens = trainer.data_collator([trainer.train_dataset[i] for i in range(pairs)])["work"].pushed
        shape = estimates.StepShape(tokens, width=2, weight_width=4, checkpointing=True, on_gpu=True)
        size = estimates.count_parameters(config)
        planned = estimates.training_memory(size, LaunchConfig(), shape).total - estimates.GPU_OVERHEAD
        speed = f"{line['tokens_per_second']:,.0f} tokens/s, MFU {line.get('mfu', math.nan):.2f}"
        if setup.device.type == "cuda":
            ratio = planned / torch.cuda.max_memory_allocated()
            passed &= 0.9 <= ratio <= 1.3
            speed += f", plan {ratio:.2f}× the peak"
        value.append(f"{kind} {speed}")
        del trainer
        gc.collect()
    return "; ".join(value), "plan 0.9 to 1.3× the peak", passed


@check
def against_trl(setup: Setup) -> Result:
    """Pairs a second over trl.DPOTrainer's, and over its with Liger, at the dims of 8B with two layers."""
    import train_step

    dims, shape = ("tiny", (2, 8, 10)) if setup.tiny else ("8b, 2 layers", (8, 180, 320))
    options = argparse.Namespace(
        device=setup.device.type, dims=dims, dtype="float32", bf16=True, pairs=shape[0], rounds=2 if setup.tiny else 5
    )
    value, passed = [], True
    for name, bar in (("TRL", 2.0), ("TRL + Liger", 1.5)):
        if not importlib.util.find_spec(train_step.PEERS[name].package):
            value.append(f"{name}: not installed")
            continue
        found = train_step.duel(options, train_step.PEERS[name], shape)
        ours, theirs = (statistics.median(found.seconds[side]) for side in ("ours", "theirs"))
        passed &= setup.tiny or theirs / ours >= bar
        speed = f"{found.pushed / ours:,.0f} tokens/s, MFU {found.mfu(setup.device.type):.2f}"
        value.append(f"{name} {theirs / ours:.2f}× ({speed})")
        train_step.free()
    return "; ".join(value), "≥ 2× TRL, ≥ 1.5× TRL + Liger", passed


@check
def liger(setup: Setup) -> Result:
    """Three steps with Liger's norms, RoPE and MLPs against three without."""
    setup.cuda_only()
    if not importlib.util.find_spec("liger_kernel"):
        raise Skip("liger-kernel isn't installed")
    found = []
    for on in (False, True):  # Liger changes transformers' modules for good
        with tempfile.TemporaryDirectory() as folder:
            options = {"max_steps": 3, "bf16": False, "use_liger_kernel": on}
            trainer = trainer_of(setup, folder, config_of(setup), rows_of(16, 40, 60), **options)
            trainer.train()
            found.append(losses(trainer))
    worst = max(abs(a - b) for a, b in zip(*found, strict=True))
    shared = trainer.data_collator.prefix_sharing
    return f"losses {worst:.1e} apart, sharing {shared}", "≤ 1e-3, prefixes shared", worst <= 1e-3 and shared


@check
def flex_attention(setup: Setup) -> Result:
    """flex_attention over a tree against ours, forward and, on a GPU, backward."""
    from torch.nn.attention.flex_attention import create_block_mask
    from torch.nn.attention.flex_attention import flex_attention as flex

    tree, heads = tree_of(2, 40, 60, 24), (4, 4, 64)
    states = states_of(setup, tree, setup.half if setup.device.type == "cuda" else torch.float32, heads)
    length = sum(tree.sizes)
    positions = torch.zeros(1, length, dtype=torch.int64, device=setup.device)
    mask = create_block_mask(tree_mask_mod((tree,), positions), 1, None, length, length, device=str(setup.device))
    wanted = attend(setup, tree, states, "loop")
    backward = setup.device.type == "cuda"  # it has none on a CPU
    run: Any = torch.compile(flex) if backward else flex
    output = run(*(state if backward else state.detach() for state in states[:3]), block_mask=mask).transpose(1, 2)
    found = [output.detach()]
    if backward:
        found += torch.autograd.grad(output, states[:3], states[3])
    pairs = zip(found, wanted, strict=False)
    worst = max(((own.float() - other.float()).norm() / other.float().norm()).item() for own, other in pairs)
    return f"{worst:.1e} over {len(found)} tensors", "≤ 1e-2, relative", worst <= 1e-2


@check
def preemption(setup: Setup) -> Result:
    """SIGTERM ends a training with a checkpoint, and the resumed one ends where an unstopped one does."""
    from transformers import TrainerCallback

    class Terminate(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    rows = rows_of(24, 12, 12)
    with tempfile.TemporaryDirectory() as folder:
        whole = trainer_of(setup, f"{folder}/whole", config_of(setup), rows, learning_rate=1e-4)
        whole.train()
        stopped = trainer_of(
            setup, f"{folder}/again", config_of(setup), rows, learning_rate=1e-4, save_strategy="steps"
        )
        stopped.add_callback(Terminate())
        stopped.train()
        resumed = trainer_of(setup, f"{folder}/again", config_of(setup), rows, learning_rate=1e-4)
        resumed.train(resume_from_checkpoint=True)
        apart = max(abs(a - b) for a, b in zip(losses(whole), losses(resumed), strict=True))
    passed = stopped.preempted and stopped.state.global_step == 3 and apart <= 1e-3
    return f"stopped at step {stopped.state.global_step}, losses {apart:.1e} apart", "step 3, ≤ 1e-3", passed


@check
def status_75(setup: Setup) -> Result:
    """The stage itself: SIGTERM ends it with status 75, and the same command ends it with 0, every step logged once."""
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(setup)
        model_of(setup, config).save_pretrained(f"{folder}/model")
        tokenizer(config.vocab_size).save_pretrained(f"{folder}/model")
        rows = [json.dumps(row) + "\n" for row in rows_of(64, 12, 12)]
        Path(folder, "pairs.jsonl").write_text("".join(rows))
        steps = 40 if setup.tiny else 400
        recipe = {
            "stage": "train", "model_name_or_path": f"{folder}/model", "output_dir": f"{folder}/out", "bf16": True,
            "dataset_mixture": {"datasets": [{"id": f"{folder}/pairs.jsonl"}]}, "token_weighting": "bmc",
            "max_steps": steps, "save_steps": steps // 4, "logging_steps": 1, "report_to": "none", "max_length": 128,
            "per_device_train_batch_size": 4, "use_cpu": setup.tiny, "reference_cache": f"{folder}/reference",
            "gradient_checkpointing": False, "learning_rate": 1e-5,
        }  # fmt: skip
        Path(folder, "recipe.yaml").write_text(json.dumps(recipe))
        command = [sys.executable, str(ROOT / "scripts/preference.py"), f"{folder}/recipe.yaml"]
        codes = []
        for stop in (True, False):
            with Path(folder, "log").open("w") as log:
                stage = subprocess.Popen(command, stdout=log, stderr=log)
                while stop and stage.poll() is None and not [*Path(folder).glob("out/checkpoint-*")]:
                    time.sleep(0.05)
                if stop:
                    stage.terminate()
                codes.append(stage.wait(setup.limit))
        history = json.loads(Path(folder, "out/trainer_state.json").read_text())["log_history"]
        logged = [line["step"] for line in history if "loss" in line]
    return (
        f"{codes}, {len(logged)} steps",
        "[75, 0], every step once",
        codes == [75, 0] and logged == [*range(1, steps + 1)],
    )


@check
def qlora(setup: Setup) -> Result:
    """A step of an adapter on a model in 4 bits."""
    setup.cuda_only()
    import importlib.util

    if not importlib.util.find_spec("bitsandbytes"):
        raise Skip("bitsandbytes isn't installed")
    import datasets
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    import bmc

    with tempfile.TemporaryDirectory() as folder:
        AutoModelForCausalLM.from_config(config_of(setup)).save_pretrained(f"{folder}/model")
        bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
        model = AutoModelForCausalLM.from_pretrained(f"{folder}/model", quantization_config=bits, device_map={"": 0})
        args = bmc.BMCConfig(
            output_dir=folder, report_to="none", bf16=True, token_weighting="bmc", max_steps=3, logging_steps=1,
            learning_rate=1e-3, save_strategy="no", precompute_ref_log_probs=False, disable_tqdm=True,
        )  # fmt: skip
        rows = datasets.Dataset.from_list(rows_of(24, 12, 12))
        adapter = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
        trainer = bmc.BMCTrainer(
            model, args=args, train_dataset=rows, processing_class=tokenizer(8192), peft_config=adapter
        )
        trainer.train()
        found = losses(trainer)
    passed = abs(found[0] - math.log(2)) <= 2e-3 and found[-1] != found[0]
    return ", ".join(f"{loss:.4f}" for loss in found), "ln 2 first, then another", passed


@check
def long_pair(setup: Setup) -> Result:
    """A pair of two long responses."""
    length = 128 if setup.tiny else 4096
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of(2, length // 8, 7 * length // 8)
        trainer = trainer_of(setup, folder, config_of(setup), rows, per_device_train_batch_size=1, max_steps=2)
        trainer.train()
        found = losses(trainer)
    return f"loss {found[-1]:.4f}", "finite", all(map(math.isfinite, found))


# running them


def run_checks(setup: Setup, names: list[str], seconds: float) -> Iterator[dict[str, Any]]:
    """Run checks one after another until the time is over, in this process; end it after a crash on a GPU."""
    start = time.perf_counter()
    for name in names:
        began, crashed = time.perf_counter(), False
        try:
            if began - start > seconds:
                raise Skip("no time was left")
            value, bar, passed = CHECKS[name](setup)
            verdict = "PASS" if passed else "FAIL"
        except Skip as reason:
            value, bar, verdict = str(reason), "", "SKIP"
        except Exception as error:  # a crash costs one line
            words = " ".join(f"{type(error).__name__}: {error}".split())
            value, bar, verdict, crashed = words[:300], "", "FAIL", True
        took = time.perf_counter() - began
        yield {"name": name, "value": value, "bar": bar, "verdict": verdict, "seconds": round(took, 1)}
        if crashed and setup.device.type == "cuda":
            sys.exit(AGAIN)  # an illegal memory access leaves no later call a chance
        gc.collect()
        if setup.device.type == "cuda":
            torch.cuda.empty_cache()


def run_workers(command: list[str], names: list[str], seconds: float, limit: float) -> Iterator[dict[str, Any]]:
    """Run checks in a worker process; start another one after one that crashed or hung.

    Args:
        command: Of a worker, which takes `--only NAME…` and prints a JSON object a check.
        names: Of the checks.
        seconds: In all, from now on.
        limit: Of a check, and of starting a worker.
    """
    end, left = time.perf_counter() + seconds, list(names)
    while left:
        began = time.perf_counter()
        if began > end:
            for name in left:
                yield {"name": name, "value": "no time was left", "bar": "", "verdict": "SKIP", "seconds": 0.0}
            return
        worker = subprocess.Popen(
            [*command, "--only", *left, "--seconds", str(end - time.perf_counter())],
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        kill = functools.partial(os.killpg, worker.pid, signal.SIGKILL)  # and the processes that it started
        try:
            assert worker.stdout
            while line := read_in_time(
                worker.stdout, max(0.01, min(began + limit, end + 5) - time.perf_counter()), kill
            ):
                if line.startswith('{"name"'):  # libraries print, too
                    found, began = json.loads(line), time.perf_counter()
                    left.remove(found["name"])
                    yield found
            code = worker.wait()
        finally:
            if worker.poll() is None:
                kill()
        if left and code != AGAIN:
            what = "hung, or was killed" if code == -signal.SIGKILL else f"ended with status {code}"
            yield {"name": left.pop(0), "value": f"the process {what}", "bar": "", "verdict": "FAIL", "seconds": 0.0}


def read_in_time(stream: Any, seconds: float, kill: Callable[[], None]) -> str:
    """Read a line; have the writer killed when none has come in time."""
    timer = threading.Timer(seconds, kill)
    timer.start()
    try:
        return str(stream.readline())
    finally:
        timer.cancel()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default=".", help="folder of gpu_check.json")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS), metavar="CHECK")
    parser.add_argument("--seconds", type=float, default=480, help="no check starts after them")
    parser.add_argument("--model", type=Path, default=Path("models/smollm2-135m"))
    parser.add_argument("--dry_run", action="store_true", help="on a CPU, tiny")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--engine", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if not options.dry_run and not torch.cuda.is_available():
        print("no GPU here; --dry_run runs the same code on a CPU", file=sys.stderr)
        return 2
    device = torch.device("cpu" if options.dry_run else "cuda")
    setup = Setup(device, options.dry_run, options.model)
    if options.engine:
        train_under_engine(setup)
        return 0
    if options.worker:
        for line in run_checks(setup, options.only, options.seconds):
            print(json.dumps(line), flush=True)
        return 0
    card = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, tiny sizes: nothing is proven of a GPU"
    print(f"{card}; torch {torch.__version__}", flush=True)
    lines: list[dict[str, Any]] = []
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--worker", "--model", str(options.model)]
    command += ["--dry_run"] if options.dry_run else []
    seconds = 10 * options.seconds if options.dry_run else options.seconds
    for line in run_workers(command, options.only, seconds, setup.limit):
        print(" | ".join([line["name"], line["value"], line["bar"], line["verdict"]]), flush=True)
        lines.append(line)
        report = {"card": card, "torch": torch.__version__, "checks": lines}
        (out / "gpu_check.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(any(line["verdict"] == "FAIL" for line in lines))


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    sys.exit(main())
