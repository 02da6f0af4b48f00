"""Tokens per second and MFU (model FLOPs utilisation): the least FLOPs of a step over what the cards could do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import TrainerCallback
from transformers.pytorch_utils import Conv1D

from ..planning.hardware import GPUS


@dataclass(frozen=True)
class Work:
    """What a micro-batch puts through a model.

    Attributes:
        tokens: Of all rows, padding left out.
        visible: Pairs of a token and a token that it attends to, itself included; windows aside.
        scored: Tokens whose log-prob is computed.
        pushed: Tokens of all rows, padding included.
        plain: Tokens of two padded sequences a pair.
    """

    tokens: int
    visible: int
    scored: int
    pushed: int
    plain: int


def count_visible(segments: Sequence[tuple[int, int]]) -> int:
    """Count the pairs of a query and a key that it sees, where the last of the keys are the queries' own.

    Args:
        segments: Queries and keys of each.
    """
    return sum(queries * keys - queries * (queries - 1) // 2 for queries, keys in segments)


class MatmulSize(NamedTuple):
    """What of a causal language model costs FLOPs.

    Attributes:
        trained: Inputs × outputs of the linear modules whose weights are trained, but for the head.
        frozen: The same of those whose weights aren't.
        attention: Width of all query heads of all layers.
        head: Hidden size × vocabulary.
        head_trained: Whether the head's weight is trained.
    """

    trained: int
    frozen: int
    attention: int
    head: int
    head_trained: bool


def matmul_size(model: Any) -> MatmulSize | None:
    """Measure a causal language model, perhaps with an adapter; None for a mixture of experts, whose tokens differ."""
    config, head = model.config.get_text_config(), model.get_output_embeddings()
    experts = ("num_experts", "num_local_experts", "n_routed_experts")
    if head is None or any(getattr(config, name, None) for name in experts):
        return None
    sizes = {True: 0, False: 0}
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module.weight is not head.weight:
            sizes[module.weight.requires_grad] += module.in_features * module.out_features
        elif isinstance(module, Conv1D):
            sizes[module.weight.requires_grad] += module.nx * module.nf
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = config.num_hidden_layers * config.num_attention_heads * width
    of_head = config.hidden_size * config.vocab_size
    return MatmulSize(sizes[True], sizes[False], attention, of_head, head.weight.requires_grad)


def least_flops(size: MatmulSize, work: Work) -> int:
    """Count the operations of matrix products that a training step needs at the least, nothing computed twice.

    A multiplication and an addition are two. Each weight costs one product forward, one for the gradient of its input,
    and one for its own where it is trained; attention costs two forward (scores, values) and four backward.
    """
    linear = work.tokens * (3 * size.trained + 2 * size.frozen)
    head = work.scored * (3 if size.head_trained else 2) * size.head
    attention = 3 * 2 * size.attention * work.visible
    return 2 * (linear + head + attention)


def peak_flops(device: torch.device) -> float | None:
    """Return the dense bf16 peak of a device in FLOP/s, by its data sheet; None where it isn't known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device).replace(" ", "")
    return next((1e12 * gpu.teraflops for card, gpu in GPUS.items() if card.split("-")[0] in name), None)


class ThroughputCallback(TrainerCallback):
    """Clock of the training steps, from the loading of their batches to the optimizer's step.

    Logging, evaluation and checkpoints aren't counted.

    Attributes:
        seconds: Since `take`.
        steps: Since `take`.
        pushed: Tokens pushed through the model by this process.
        flops: Least FLOPs of this process.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.mark, self.peak = device, 0.0, peak_flops(device)
        self.size: MatmulSize | None = None
        self._clear()

    def _clear(self) -> None:
        self.seconds, self.steps, self.pushed, self.flops = 0.0, 0, 0, 0

    def _start(self, *_: Any, **__: Any) -> None:
        self.mark = time.perf_counter()

    on_train_begin = on_log = on_evaluate = on_save = _start

    def add(self, work: Work) -> None:
        """Count a micro-batch."""
        self.pushed += work.pushed
        self.flops += least_flops(self.size, work) if self.size else 0

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds, self.steps, self.mark = self.seconds + now - self.mark, self.steps + 1, now

    def take(self, accelerator: Any) -> dict[str, float]:
        """Return `tokens_per_second` of all processes, and `mfu` on a known card, and start again."""
        if not self.steps or self.seconds <= 0:
            return {}
        totals = torch.tensor([self.pushed, self.flops / 1e12], device=self.device)
        pushed, teraflops = accelerator.reduce(totals).tolist()
        found = {"tokens_per_second": pushed / self.seconds}
        if self.peak and self.size:
            found["mfu"] = 1e12 * teraflops / (self.seconds * self.peak * accelerator.num_processes)
        self._clear()
        return found
