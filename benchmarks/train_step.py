"""A DPO-BMC step against trl.DPOTrainer's DPO step: time, memory, FLOPs, tokens.

    make bench                                        all of it, on the CPU (about an hour on 2 cores)
    python benchmarks/train_step.py --only qa tokens  some of it
    python benchmarks/train_step.py --device cuda     on a GPU: random weights of Qwen2.5-1.5B's dims, bf16, every peer
                                                      that is installed (TRL, + Liger, flash-pref)

Both train the same model on the same pairs with the same micro-batch. Within a figure the peers take turns, and a
figure is the median over the rounds of the ratio of two neighbouring steps, with the smallest and the largest in
brackets. A step is collating, forward, backward, clipping and AdamW.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import importlib.util
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from difflib import SequenceMatcher
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import torch
import transformers
import trl
from memory_plan import tokenizer as word_tokenizer
from pairs import SHAPES, draw, exact_length, tokenised
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers.integrations.liger import apply_liger_kernel

import bmc
from bmc.training.collator import REF_COLUMNS
from bmc.training.metrics import least_flops, matmul_size, peak_flops
from bmc.training.token_weights import DIFF_COLUMNS

IDS = ["prompt_ids", "chosen_ids", "rejected_ids"]
LAYOUTS = {  # name: (prefix_sharing, packing, cached reference)
    "BMCTrainer, two padded sequences": (False, False, False),
    "+ cached reference": (False, False, True),
    "+ packing": (False, True, True),
    "+ prefix sharing": (True, False, True),
    "+ both": (True, True, True),
}
Rows = list[dict[str, Any]]


class Contender(NamedTuple):
    """A way to train.

    Attributes:
        library: trl or bmc.
        cached: Whether with reference log-probs instead of a reference model.
        attention: Of the model.
        liger: Whether with Liger's norms, RoPE and MLPs.
        shared: Whether in flash-pref's `shared_prefix`.
        package: What must be installed.
        bar: What our pairs a second should be over its.
    """

    library: str
    cached: bool = False
    attention: str = "sdpa"
    liger: bool = False
    shared: bool = False
    package: str = "trl"
    bar: float | None = None


OURS = Contender("bmc", cached=True)
PEERS = {  # Liger's last, since it changes transformers' modules for good
    "TRL": Contender("trl", bar=3.0),
    "TRL, precomputed": Contender("trl", cached=True, bar=2.0),
    "TRL, flash_attention_2": Contender("trl", attention="flash_attention_2", package="flash_attn"),
    "flash-pref": Contender("trl", attention="flash_attention_2", shared=True, package="flash_pref"),
    "TRL + Liger": Contender("trl", liger=True, package="liger_kernel", bar=1.5),
}
# models with random weights
DIMS: dict[str, dict[str, Any]] = {
    "qwen2.5-1.5b": {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
        "num_key_value_heads": 2, "vocab_size": 151_936, "tie_word_embeddings": True,
    },
    "8b, 2 layers": {
        "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 2, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128_256, "tie_word_embeddings": False,
    },
    "tiny": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 500, "tie_word_embeddings": True,
    },
}  # fmt: skip
# pairs a step, tokens of a prompt and of a response, which share their first 40 %
PAIRS = {"chat": (8, 180, 320), "qa": (32, 60, 60)}
LONG = (4, 512, 1536)  # whose peak memory is measured


class Peers:
    """One model for each library, with a trainer that has a reference model and one that has its log-probs."""

    def __init__(self, options: argparse.Namespace, pairs: Rows, checkpointing: bool = False) -> None:
        self.options, self.device = options, options.device
        self.folder = tempfile.TemporaryDirectory(prefix="bmc-bench-")
        self.config = transformers.Qwen2Config(**DIMS[options.dims]) if options.dims else None
        if self.config:
            self.tokenizer: Any = word_tokenizer(self.config.vocab_size)
        else:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
        self.checkpointing, self.pairs = checkpointing, pairs
        self.models: dict[str, Any] = {}
        self.optimizers: dict[str, Any] = {}

    def model(self, library: str, name: str = "policy", attention: str = "sdpa") -> Any:
        if (library, name) not in self.models:
            options = {"dtype": getattr(torch, self.options.dtype), "attn_implementation": attention}
            if self.config:
                torch.manual_seed(0)
                with torch.device(self.device):
                    model = transformers.AutoModelForCausalLM.from_config(copy.deepcopy(self.config), **options)
            else:
                model = transformers.AutoModelForCausalLM.from_pretrained(self.options.model, **options)
            model.to(self.device)
            if name == "policy":
                if self.checkpointing:
                    model.gradient_checkpointing_enable({"use_reentrant": False})
                self.optimizers[library] = torch.optim.AdamW(model.parameters(), lr=1e-7)
            self.models[library, name] = model
        return self.models[library, name]

    def contender(self, way: Contender) -> Any:
        """Make the trainer of a way to train."""
        self.model(way.library, attention=way.attention)
        if not way.cached:
            self.model(way.library, "reference", way.attention)
        for (library, _), model in self.models.items():
            if library == way.library and way.liger:  # as trainers do when they begin
                apply_liger_kernel(model, {"fused_linear_cross_entropy": False})
        return self.trainer(way.library, way.cached)

    def trainer(self, library: str, cached: bool, **changed: Any) -> Any:
        """With the log-probs of a reference, or with a reference model."""
        kinds = {"trl": (trl.DPOTrainer, trl.DPOConfig), "bmc": (bmc.BMCTrainer, bmc.BMCConfig)}
        ours = {"token_weighting": "bmc", "reference_cache": f"{self.folder.name}/{time.monotonic_ns()}"}
        trainer, config = kinds[library]
        args = config(
            output_dir=self.folder.name, report_to="none", use_cpu=self.device == "cpu", bf16=self.options.bf16,
            per_device_train_batch_size=self.options.pairs, gradient_checkpointing=self.checkpointing, max_length=4096,
            precompute_ref_log_probs=cached, **(ours if library == "bmc" else {}), **changed,
        )  # fmt: skip
        reference = None if cached else self.model(library, "reference")
        rows = datasets.Dataset.from_list(self.pairs)
        return trainer(self.model(library), reference, args, train_dataset=rows, processing_class=self.tokenizer)

    def step(self, trainer: Any, rows: Rows, library: str, shared: bool = False) -> float:
        """Seconds of one optimizer step, perhaps in flash-pref's context."""
        model, optimizer = self.models[library, "policy"], self.optimizers[library]
        model.train()
        self.wait()
        start = time.perf_counter()
        inputs = trainer._prepare_inputs(trainer.data_collator(rows))
        with shared_prefix(model, inputs) if shared else contextlib.nullcontext():
            with trainer.accelerator.autocast():
                loss = trainer.compute_loss(trainer.model, inputs)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        self.wait()
        return time.perf_counter() - start

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def shared_prefix(model: Any, inputs: dict[str, Any]) -> Any:
    import flash_pref

    return flash_pref.shared_prefix(model, input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])


def only(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> Rows:
    return [{column: row[column] for column in columns if column in row} for row in rows]


def interleave(contenders: dict[str, Callable[[int], float]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each contender in each round; the first rounds don't count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(-warm_up, rounds):
        for name, run in contenders.items():
            took = run(max(number, 0))
            if number >= 0:
                seconds[name].append(took)
    return seconds


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}]"


def report(figure: str, bar: str, value: str, note: str = "") -> None:
    print(f"| {figure} | {bar} | {value} | {note} |", flush=True)


def seconds_each(values: dict[str, list[float]]) -> str:
    return ", ".join(f"{name} {statistics.median(took):.2f} s" for name, took in values.items())


def steps(options: argparse.Namespace, kind: str, checkpointing: bool) -> None:
    """The bars on time."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    size = options.pairs if kind == "qa" else options.long_pairs
    peers = Peers(options, list(islice(draw(SHAPES[kind], tokenizer, seed=0), options.rounds * size)), checkpointing)
    plain, cached = peers.trainer("trl", cached=False), peers.trainer("trl", cached=True)
    start = time.perf_counter()
    ours = peers.trainer("bmc", cached=True)
    once = time.perf_counter() - start
    batches = {
        name: [only(rows, columns) for rows in chunks(list(trainer.train_dataset), size)]
        for name, trainer, columns in (
            ("plain", plain, IDS),
            ("cached", cached, [*IDS, *REF_COLUMNS]),
            ("ours", ours, [*IDS, *DIFF_COLUMNS, *REF_COLUMNS]),
        )
    }
    seconds = interleave(
        {
            "TRL": lambda i: peers.step(plain, batches["plain"][i], "trl"),
            "TRL, precomputed": lambda i: peers.step(cached, batches["cached"][i], "trl"),
            "ours": lambda i: peers.step(ours, batches["ours"][i], "bmc"),
        },
        options.rounds,
    )
    name = f"{kind}, checkpointing {'on' if checkpointing else 'off'}"
    flops = [count(peers, *run) for run in ((ours, batches["ours"][0], "bmc"), (plain, batches["plain"][0], "trl"))]
    bar = f"≤ {1.1 * flops[0] / flops[1]:.3f} (1.1 × FLOPs)"
    report(f"{name}: DPO-BMC over TRL's DPO", bar, ratio(seconds["ours"], seconds["TRL"]), seconds_each(seconds))
    value = ratio(seconds["ours"], seconds["TRL, precomputed"])
    report(f"{name}: over TRL with its own precomputed reference", "≤ 0.40" if kind == "qa" else "", value)
    share = once / options.rounds
    epoch = ratio([took + share for took in seconds["ours"]], seconds["TRL"])
    note = f"{once:.2f} s for {options.rounds * size} pairs, tokenising and hashing the weights included"
    report(f"{name}: counting the reference pass into one epoch", "≤ 0.38" if kind == "qa" else "", epoch, note)
    report(f"{name}: FLOPs over TRL's", "", f"{flops[0] / flops[1]:.3f}", "matrix products and attention, one step")


class VocabularyRows(TorchDispatchMode):
    """Find the tallest tensor with an axis of the vocabulary, weights and their gradients aside.

    Attributes:
        rows: Its numbers over the vocabulary's size.
    """

    def __init__(self, vocabulary: int, model: Any) -> None:
        super().__init__()
        self.vocabulary, self.rows = vocabulary, 0
        self.weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        self.shapes = {weight.shape for weight in model.parameters()} | {w.t().shape for w in model.parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if not isinstance(tensor, torch.Tensor) or self.vocabulary not in tensor.shape:
                continue
            if tensor.shape not in self.shapes and tensor.untyped_storage().data_ptr() not in self.weights:
                self.rows = max(self.rows, tensor.numel() // self.vocabulary)
        return out


class Duel(NamedTuple):
    """What a step of ours and one of a peer took, in turns.

    Attributes:
        seconds: Of each round; ours and theirs.
        pushed: Tokens of our rows.
        flops: Least FLOPs of our step.
    """

    seconds: dict[str, list[float]]
    pushed: int
    flops: int

    def mfu(self, device: str) -> float:
        """Return the share of a card's peak; nan where that isn't known."""
        return self.flops / statistics.median(self.seconds["ours"]) / (peak_flops(torch.device(device)) or float("nan"))


def duel(options: argparse.Namespace, way: Contender, shape: tuple[int, int, int]) -> Duel:
    """Train in turns on the same pairs of random tokens, ours with Liger where the peer has it."""
    size, vocabulary = shape[0], DIMS[options.dims]["vocab_size"]
    peers = Peers(options, [tokenised_text(vocabulary)] * 2)
    ours, theirs = peers.contender(OURS._replace(liger=way.liger)), peers.contender(way)
    batches = [
        [complete(tokenised(*shape[1:], 0.4, size * number + row, vocabulary)) for row in range(size)]
        for number in range(options.rounds)
    ]
    # TRL has one reference log-prob a response
    summed = dict.fromkeys(REF_COLUMNS, -1.0) if way.cached else {}
    plain = [[row | summed for row in only(rows, IDS)] for rows in batches]
    seconds = interleave(
        {
            "ours": lambda i: peers.step(ours, batches[i], "bmc"),
            "theirs": lambda i: peers.step(theirs, plain[i], "trl", way.shared),
        },
        options.rounds,
        warm_up=1 if options.dims == "tiny" else 3,
    )
    work = ours.data_collator(batches[0])["work"]
    found = Duel(seconds, work.pushed, least_flops(matmul_size(peers.models["bmc", "policy"]), work))
    peers.folder.cleanup()
    return found


def complete(row: dict[str, Any]) -> dict[str, Any]:
    """Add which tokens differ, and made-up reference log-probs: time doesn't depend on them."""
    row |= dict(zip(DIFF_COLUMNS, bmc.token_diff(row["chosen_ids"], row["rejected_ids"]), strict=True))
    return row | {column: [-1.0] * len(row[side]) for column, side in zip(REF_COLUMNS, IDS[1:], strict=True)}


def tokenised_text(vocabulary: int) -> dict[str, str]:
    """A pair for the trainers' own preparation, which steps on other rows don't read."""
    return {"prompt": "w3", "chosen": "w4 w5", "rejected": f"w{vocabulary - 1}"}


def cards(options: argparse.Namespace) -> None:
    """Ours against every peer that is installed; peak memory; MFU; and no logits of a whole batch."""
    options.dims = options.dims or "qwen2.5-1.5b"
    options.bf16 = options.device == "cuda"
    tiny = options.dims == "tiny"
    for kind, shape in PAIRS.items():
        for name, way in PEERS.items():
            figure = f"{kind}: our pairs a second over {name}'s"
            bar = f"≥ {way.bar:g}" if way.bar else ""
            if not importlib.util.find_spec(way.package):
                report(figure, bar, "", f"{way.package} isn't installed")
                continue
            try:
                found = duel(options, way, (2, 8, 10) if tiny else shape)
            except Exception as error:  # a peer that doesn't run here costs one line
                report(figure, bar, "", " ".join(f"{type(error).__name__}: {error}".split())[:200])
            else:
                report(figure, bar, ratio(found.seconds["theirs"], found.seconds["ours"]), seconds_each(found.seconds))
                if name == "TRL":
                    speed = f"{found.pushed / statistics.median(found.seconds['ours']):,.0f} tokens/s"
                    report(f"{kind}: MFU of least FLOPs", "≥ 0.5", f"{found.mfu(options.device):.2f}", speed)
            free()
    peers = Peers(options, [tokenised_text(DIMS[options.dims]["vocab_size"])] * 2)
    ours = peers.contender(OURS)
    size, *lengths = (16, 8, 20) if tiny else PAIRS["chat"]
    rows = [complete(tokenised(*lengths, 0.4, row, peers.config.vocab_size)) for row in range(size)]  # type: ignore[union-attr]
    with VocabularyRows(peers.config.vocab_size, peers.models["bmc", "policy"]) as tallest:  # type: ignore[union-attr]
        peers.step(ours, rows, "bmc")
    scored = ours.data_collator(rows)["work"].scored
    report("tallest tensor × vocabulary, in tokens", f"< {scored} scored", str(tallest.rows))
    del peers, ours
    free()
    peaks = {name: card_peak(options, name) for name in ("ours", "TRL", "TRL + Liger")}
    for name, bar in (("TRL", 0.5), ("TRL + Liger", 0.8)):
        if peaks[name] and peaks["ours"]:
            note = f"{peaks['ours'] / 2**30:.2f} and {peaks[name] / 2**30:.2f} GiB"
            report(
                f"pairs of 2 × 2,048: peak memory over {name}'s", f"≤ {bar}", f"{peaks['ours'] / peaks[name]:.3f}", note
            )


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def card_peak(options: argparse.Namespace, name: str) -> int:
    """Peak bytes of two steps in a process of its own; 0 where it can't run."""
    way = OURS if name == "ours" else PEERS[name]
    if not importlib.util.find_spec(way.package):
        return 0
    command = [sys.executable, __file__, "--device", options.device, "--dims", options.dims, "--card_peak", name]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        report(f"peak memory of {name}", "", "", ran.stderr.strip().splitlines()[-1][:200])
        return 0
    return int(ran.stdout.splitlines()[-1])


def measure_card_peak(options: argparse.Namespace, name: str) -> int:
    options.bf16 = options.device == "cuda"
    way, vocabulary = OURS if name == "ours" else PEERS[name], DIMS[options.dims]["vocab_size"]
    peers = Peers(options, [tokenised_text(vocabulary)] * 2, checkpointing=True)
    trainer = peers.contender(way)
    size, *lengths = (2, 8, 10) if options.dims == "tiny" else LONG
    columns = [*IDS, *([*DIFF_COLUMNS, *REF_COLUMNS] if way.library == "bmc" else [])]
    for step in range(2):
        rows = [complete(tokenised(*lengths, 0.4, size * step + row, vocabulary)) for row in range(size)]
        peers.step(trainer, only(rows, columns), way.library)
    return torch.cuda.max_memory_allocated() if options.device == "cuda" else resident_peak()


def chunks(rows: Rows, size: int) -> list[Rows]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def count(peers: Peers, trainer: Any, rows: Rows, library: str) -> float:
    with FlopCounterMode(display=False) as counter:
        peers.step(trainer, rows, library)
    return counter.get_total_flops()


def parts(options: argparse.Namespace) -> None:
    """What each part gives alone, and what λ and the masks cost."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    for kind, size in (("qa", options.pairs), ("long", options.long_pairs)):
        peers = Peers(options, list(islice(draw(SHAPES[kind], tokenizer, seed=1), options.rounds * size)))
        theirs, with_model, ours = (
            peers.trainer("trl", cached=False), peers.trainer("bmc", cached=False), peers.trainer("bmc", cached=True)
        )  # fmt: skip
        batches = chunks(list(ours.train_dataset), size)
        run = partial(laid_out, peers, (with_model, ours), batches)
        contenders: dict[str, Any] = {"TRL": partial(laid_out, peers, (theirs,), batches, "TRL")}
        seconds = interleave(contenders | {name: partial(run, name) for name in LAYOUTS}, min(options.rounds, 5))
        for name in LAYOUTS:
            report(f"{kind}: {name}", "", ratio(seconds[name], seconds["TRL"]), f"{min(seconds[name]):.2f} s")


def laid_out(peers: Peers, trainers: Sequence[Any], batches: Sequence[Rows], name: str, i: int) -> float:
    """A step of TRL's trainer, or of ours, with a reference model or with its log-probs, in a layout."""
    if name == "TRL":
        return peers.step(trainers[0], only(batches[i], IDS), "trl")
    sharing, packing, cached = LAYOUTS[name]
    trainer = trainers[cached]
    trainer.data_collator.prefix_sharing, trainer.data_collator.packing = sharing, packing
    return peers.step(trainer, only(batches[i], [*IDS, *DIFF_COLUMNS, *(REF_COLUMNS if cached else [])]), "bmc")


def weighting(options: argparse.Namespace) -> None:
    """λ and masks: our BMC step over our DPO step."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    rounds, size = 3 * options.rounds, options.pairs
    peers = Peers(options, list(islice(draw(SHAPES["qa"], tokenizer, seed=2), rounds * size)))
    ours = peers.trainer("bmc", cached=True)
    batches = [only(rows, [*IDS, *DIFF_COLUMNS, *REF_COLUMNS]) for rows in chunks(list(ours.train_dataset), size)]

    def run(weights: str, i: int) -> float:
        ours.args.token_weighting = weights
        return peers.step(ours, batches[i], "bmc")

    seconds = interleave({"bmc": lambda i: run("bmc", i), "none": lambda i: run("none", i)}, rounds)
    inputs = ours.data_collator(batches[0])
    logps = -torch.rand(inputs["diff_mask"].shape)
    start = time.perf_counter()
    for _ in range(1000):
        bmc.bmc_weights(logps, inputs["diff_mask"], 3.0)
    alone = (time.perf_counter() - start) / 1000
    note = f"λ alone: {1e6 * alone:.0f} µs, {alone / statistics.median(seconds['none']):.6f} of a step"
    report("qa: DPO-BMC over DPO, same path", "≤ 1.005", ratio(seconds["bmc"], seconds["none"]), note)


def memory(options: argparse.Namespace) -> None:
    """Peak memory of a whole process that trains two steps, each peer in a process of its own."""
    for kind in SHAPES:
        for checkpointing in (False, True):
            peaks = []
            for library in ("bmc", "trl"):
                command = [sys.executable, __file__, *sys.argv[1:], "--peak", library, kind, str(int(checkpointing))]
                ran = subprocess.run(command, capture_output=True, text=True, check=True)
                peaks.append(json.loads(ran.stdout.splitlines()[-1]))
            name = f"{kind}, checkpointing {'on' if checkpointing else 'off'}: peak memory over TRL's"
            note = " and ".join(f"{peak / 2**30:.2f} GiB" for peak in peaks)
            report(name, "≤ 0.75", f"{peaks[0] / peaks[1]:.3f}", note)


def peak(options: argparse.Namespace, library: str, kind: str, checkpointing: bool) -> int:
    """Bytes."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    size = options.pairs if kind == "qa" else options.long_pairs
    peers = Peers(options, list(islice(draw(SHAPES[kind], tokenizer, seed=0), 2 * size)), checkpointing)
    trainer = peers.trainer(library, cached=library == "bmc")
    columns = [*IDS, *DIFF_COLUMNS, *REF_COLUMNS]
    for rows in chunks(only(trainer.train_dataset, columns), size):
        peers.step(trainer, rows, library)
    if options.device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resident_peak()


def resident_peak() -> int:
    """Bytes; not getrusage's ru_maxrss, in which a child starts with its parent's."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def masks(options: argparse.Namespace) -> None:
    """Pairs a second of `token_diff` over difflib's SequenceMatcher."""
    for tokens in (100, 400, 1000):
        pairs = [edited(exact_length(tokens * 4 // 3, 1.0, seed, 40_000)["chosen_ids"], seed) for seed in range(20)]

        def ours(_: int, pairs: Any = pairs) -> float:
            start = time.perf_counter()
            for chosen, rejected in pairs:
                bmc.token_diff(chosen, rejected)
            return time.perf_counter() - start

        def theirs(_: int, pairs: Any = pairs) -> float:
            start = time.perf_counter()
            for chosen, rejected in pairs:
                SequenceMatcher(None, rejected, chosen).get_opcodes()
            return time.perf_counter() - start

        seconds = interleave({"ours": ours, "difflib": theirs}, options.rounds)
        note = f"{1000 * statistics.median(seconds['ours']) / len(pairs):.3f} ms a pair"
        value = ratio(seconds["difflib"], seconds["ours"])
        report(f"masks of {tokens} tokens: pairs a second over difflib's", "≥ 5", value, note)


def edited(rejected: list[int], seed: int) -> tuple[list[int], list[int]]:
    """A chosen response that differs in a tenth of the tokens, and the rejected one."""
    changed = exact_length(len(rejected) * 4 // 3, 1.0, seed + 1000, 40_000)["chosen_ids"]
    return [b if i % 10 == 0 else a for i, (a, b) in enumerate(zip(rejected, changed, strict=False))], rejected


def tokens(options: argparse.Namespace) -> None:
    """Tokens pushed through the model over the least possible: each distinct (prefix, token) of a batch once."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    for kind in SHAPES:
        peers = Peers(options, list(islice(draw(SHAPES[kind], tokenizer, seed=0), 8 * options.pairs)))
        trainer = peers.trainer("bmc", cached=False)
        pushed, least, padded = [], [], []
        for rows in chunks(list(trainer.train_dataset), options.pairs):
            pushed.append(trainer.data_collator(rows)["input_ids"].numel())
            sequences = [row["prompt_ids"] + row[side] for row in rows for side in IDS[1:]]
            least.append(len({tuple(ids[:end]) for ids in sequences for end in range(1, len(ids) + 1)}))
            padded.append(len(sequences) * max(map(len, sequences)))
        note = f"two padded sequences: {sum(padded) / sum(least):.3f}"
        report(f"{kind}: tokens over the least possible", "≤ 1.05", ratio(pushed, least), note)


def growth(options: argparse.Namespace) -> None:
    """Step time against tokens, a pair a step; the responses part after a third of their length."""
    lengths = (128, 512, 2048)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    peers = Peers(options, list(islice(draw(SHAPES["qa"], tokenizer, seed=0), 1)))
    theirs, ours = peers.trainer("trl", cached=False), peers.trainer("bmc", cached=True)
    took: dict[str, dict[int, float]] = {"ours": {}, "TRL": {}}
    for length in lengths:
        row = exact_length(length, 1 / 3, length, 40_000)
        row |= dict(zip(DIFF_COLUMNS, bmc.token_diff(row["chosen_ids"], row["rejected_ids"]), strict=True))
        row |= {column: [-1.0] * len(row[side]) for column, side in zip(REF_COLUMNS, IDS[1:], strict=True)}
        seconds = interleave(
            {
                "ours": lambda i, row=row: peers.step(ours, [row], "bmc"),
                "TRL": lambda i, row=row: peers.step(theirs, only([row], IDS), "trl"),
            },
            3,
        )
        for name, values in seconds.items():
            took[name][length] = statistics.median(values)
    grown = {name: times[2048] / times[128] for name, times in took.items()}
    note = "; ".join(f"{name} " + ", ".join(f"{time:.2f} s" for time in times.values()) for name, times in took.items())
    value = f"{grown['ours']:.1f} against {grown['TRL']:.1f}"
    report("step time at 2,048 tokens over 128", "no more than TRL's", value, f"at 128, 512, 2,048: {note}")


def main(argv: list[str] | None = None) -> None:
    sections: dict[str, Callable[[argparse.Namespace], None]] = {
        "masks": masks, "tokens": tokens,
        "qa": lambda options: [steps(options, "qa", on) for on in (False, True)] and None,
        "long": lambda options: [steps(options, "long", on) for on in (False, True)] and None,
        "weighting": weighting, "memory": memory, "growth": growth, "parts": parts,
        "cards": cards,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/smollm2-135m")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--dims", choices=DIMS, help="random weights of these sizes, for cards")
    parser.add_argument("--pairs", type=int, default=4, help="micro-batch of the QA pairs")
    parser.add_argument("--long_pairs", type=int, default=1, help="micro-batch of the long pairs")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=sections, help="all but cards on a CPU, cards alone on a GPU")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--card_peak", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.bf16 = False
    options.only = options.only or [name for name in sections if (name == "cards") == (options.device == "cuda")]
    if options.card_peak:
        print(measure_card_peak(options, options.card_peak))
        return
    if options.only != ["cards"] and not Path(options.model).exists():
        sys.exit(f"there is no {options.model}; python scripts/fetch_smollm2.py makes it, or give --model")
    if options.peak:
        library, kind, checkpointing = options.peak
        print(peak(options, library, kind, checkpointing == "1"))
        return
    card = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, trl {trl.__version__}"
    sizes = f"micro-batch {options.pairs} (qa), {options.long_pairs} (long)"
    model = options.model if options.only != ["cards"] else f"random {options.dims or 'qwen2.5-1.5b'}"
    print(f"{card}; {versions}; {model}, {options.dtype}; {sizes}\n")
    print("| figure | bar | measured | |\n| --- | --- | --- | --- |")
    for name in options.only:
        sections[name](options)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    main()
