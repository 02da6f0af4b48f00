"""What a training logs: rewards, weights, tokens per second, MFU; and a warning when both rewards keep falling.

MFU (model FLOPs utilisation) is the least FLOPs of a step over what the cards could do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import TrainerCallback
from transformers.pytorch_utils import Conv1D

from ..planning.hardware import GPUS

logger = logging.getLogger(__name__)

Metrics = dict[str, tuple[Tensor, Tensor]]  # name → (sum, count) of each pair, (B,) each; the metric is Σ sum / Σ count
WEIGHT_EDGES = (0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
FALLING_STEPS = 20


def reward_metrics(rewards: Tensor, logps: Tensor) -> Metrics:
    """Compute rewards (given as (B, 2), chosen before rejected), their margin and accuracy, and log π(y).

    `logps` are log π_θ of the response tokens, (B, 2, T), 0 beside them.
    """
    (chosen, rejected), sums = rewards.unbind(1), logps.sum(dim=-1)
    values = {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": (chosen > rejected).float(),
        "logps/chosen": sums[:, 0],
        "logps/rejected": sums[:, 1],
    }
    return {name: (value, torch.ones_like(value)) for name, value in values.items()}


def token_metrics(values: dict[str, tuple[Tensor, Tensor]]) -> Metrics:
    """Average over tokens: each `(values, mask)` of shape (B, …)."""
    return {
        name: ((value * mask).flatten(1).sum(dim=1).float(), mask.flatten(1).sum(dim=1).float())
        for name, (value, mask) in values.items()
    }


def k3(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """Compute k3 at each token of a given text: r − 1 − log r with r = π_ref/π_θ, at least 0.

    Its mean over tokens that π_θ has sampled estimates KL(π_θ ‖ π_ref). Over others' texts, such as chosen responses,
    it tells how far the policy has moved on them and may be many times the divergence.
    """
    ratio = ref_logps - logps
    return ratio.exp() - 1 - ratio


def weight_shares(weights: Tensor, diff_mask: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Bin λ of the differing tokens, as `token_metrics` takes it; the last bin is open."""
    bins = [(low, high, f"weights/{low:g}-{high:g}") for low, high in pairwise(WEIGHT_EDGES)]
    bins.append((WEIGHT_EDGES[-1], float("inf"), f"weights/{WEIGHT_EDGES[-1]:g}-"))
    return {name: ((weights >= low) & (weights < high), diff_mask) for low, high, name in bins}


class RewardCollapseWarning(TrainerCallback):
    """Warns once when both rewards have fallen from one logged line to the next for `FALLING_STEPS` steps."""

    def __init__(self) -> None:
        self.last: tuple[float, float] | None = None
        self.since: int | None = None
        self.warned = False

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if not logs or "rewards/chosen" not in logs:
            return
        now = (logs["rewards/chosen"], logs["rewards/rejected"])
        falling = self.last is not None and now[0] < self.last[0] and now[1] < self.last[1]
        if not falling:
            self.since = state.global_step
        if self.since is not None and state.global_step - self.since >= FALLING_STEPS and not self.warned:
            self.warned = True
            logger.warning(
                "the rewards of chosen and rejected responses have both fallen for %d steps (to %.3f and %.3f): the "
                "policy moves probability away from both, to responses that are in no pair. A lower learning_rate, a "
                "larger beta, or loss_type: [sigmoid, sft] holds the chosen ones up",
                *(state.global_step - self.since, *now),
            )
        self.last = now


@dataclass(frozen=True)
class Work:
    """What a micro-batch puts through a model."""

    tokens: int  # of all rows, padding left out
    visible: int  # pairs of a token and a token that it attends to, itself included; windows aside
    scored: int  # tokens whose log-prob is computed
    pushed: int  # tokens of all rows, padding included
    plain: int  # tokens of two padded sequences a pair


def count_visible(segments: Sequence[tuple[int, int]]) -> int:
    """Count the pairs of a query and a key that it sees, where the last of the keys are the queries' own."""
    return sum(queries * keys - queries * (queries - 1) // 2 for queries, keys in segments)


class MatmulSize(NamedTuple):
    """What of a causal language model costs FLOPs."""

    trained: int  # inputs × outputs of the linear modules whose weights are trained, but for the head
    frozen: int  # the same of those whose weights aren't
    attention: int  # width of all query heads of all layers
    head: int  # hidden size × vocabulary
    head_trained: bool  # whether the head's weight is trained


def matmul_size(model: Any) -> MatmulSize | None:
    """Measure a causal language model, perhaps with an adapter; None for a mixture of experts, whose tokens differ, and
    for layers without attention (Mamba)."""
    config, head = model.config.get_text_config(), model.get_output_embeddings()
    experts, heads = ("num_experts", "num_local_experts", "n_routed_experts"), getattr(config, "num_attention_heads", 0)
    if head is None or not heads or any(getattr(config, name, None) for name in experts):
        return None
    sizes = {True: 0, False: 0}
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module.weight is not head.weight:
            sizes[module.weight.requires_grad] += module.in_features * module.out_features
        elif isinstance(module, Conv1D):
            sizes[module.weight.requires_grad] += module.nx * module.nf
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    attention = config.num_hidden_layers * heads * width
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


OTHER_PEAKS = ("H100PCIe", "NVL", "MIG", "Laptop", "4090D", "3090Ti")  # in names of cards like those of `GPUS`


def peak_flops(device: torch.device) -> float | None:
    """Return the dense bf16 peak of a device in FLOP/s, by its data sheet; None where it isn't known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device).replace(" ", "")
    if any(part in name for part in OTHER_PEAKS):
        return None
    return next((1e12 * gpu.teraflops for card, gpu in GPUS.items() if card.split("-")[0] in name), None)


class ThroughputCallback(TrainerCallback):
    """Clock of the training steps, from the loading of their batches to the optimizer's step.

    Logging, evaluation and checkpoints aren't counted.
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
