"""Training metrics, and a warning when both rewards keep falling."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

logger = logging.getLogger(__name__)

Metrics = dict[str, tuple[Tensor, Tensor]]  # name → (sum, count) of each pair, (B,) each; the metric is Σ sum / Σ count
WEIGHT_EDGES = (0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
FALLING_STEPS = 20


def reward_metrics(rewards: Tensor, logps: Tensor) -> Metrics:
    """Compute rewards, their margin and accuracy, and log π(y).

    Args:
        rewards: (B, 2), chosen before rejected.
        logps: log π_θ of the response tokens, (B, 2, T), 0 beside them.
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

    Args:
        logps: log π_θ, any shape.
        ref_logps: log π_ref, of the same shape.
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
