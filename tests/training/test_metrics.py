"""What is logged of a batch, against arithmetic by hand."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bmc.training.metrics import Metrics, RewardCollapseWarning, k3, reward_metrics, token_metrics, weight_shares


def value(metrics: Metrics, name: str) -> float:
    total, count = metrics[name]
    return (total.sum() / count.sum()).item()


def test_rewards_of_two_pairs() -> None:
    rewards = torch.tensor([[1.0, 0.5], [-1.0, 0.0]])
    logps = torch.tensor([[[-1.0, -2.0], [-4.0, 0.0]], [[-1.0, 0.0], [-2.0, -2.0]]])
    metrics = reward_metrics(rewards, logps)
    assert value(metrics, "rewards/chosen") == 0.0
    assert value(metrics, "rewards/rejected") == 0.25
    assert value(metrics, "rewards/margins") == -0.25
    assert value(metrics, "rewards/accuracies") == 0.5
    assert value(metrics, "logps/chosen") == -2.0
    assert value(metrics, "logps/rejected") == -4.0


def test_a_token_counts_alike_whichever_pair_it_is_in() -> None:
    """3 tokens of one pair and 1 of the other: (1 + 2 + 3 + 10)/4."""
    values = torch.tensor([[1.0, 2.0, 3.0], [10.0, 50.0, 60.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert value(token_metrics({"x": (values, mask)}), "x") == 4.0


def test_k3() -> None:
    """π_θ = 1/2 and π_ref = 1/4: r = 1/2, r − 1 − ln r = −0.5 + 0.6931."""
    found = k3(torch.tensor([0.5, 0.3]).log(), torch.tensor([0.25, 0.3]).log())
    assert found.tolist() == pytest.approx([0.193147, 0.0], abs=1e-6)


def test_shares_of_weights_are_of_differing_tokens_and_add_up() -> None:
    """Of four differing tokens one weighs 2, one 2.4 and two the most, 4; a common token weighs 1."""
    weights = torch.tensor([[1.0, 2.0, 2.4, 4.0, 4.0]])
    metrics = token_metrics(weight_shares(weights, weights > 1))
    assert value(metrics, "weights/2-2.5") == 0.5
    assert value(metrics, "weights/4-") == 0.5
    assert value(metrics, "weights/1-1.5") == 0.0
    assert sum(value(metrics, name) for name in metrics) == 1.0


def log(watch: RewardCollapseWarning, step: int, chosen: float, rejected: float) -> None:
    logs = {"rewards/chosen": chosen, "rewards/rejected": rejected}
    watch.on_log(None, SimpleNamespace(global_step=step), None, logs=logs)


def test_one_warning_when_both_rewards_fall_for_20_steps(caplog: Any) -> None:
    watch = RewardCollapseWarning()
    with caplog.at_level(logging.WARNING):
        for step in range(0, 20, 5):
            log(watch, step, -step, -2.0 * step)
        assert not caplog.messages
        for step in range(20, 60, 5):
            log(watch, step, -step, -2.0 * step)
    (message,) = caplog.messages
    assert message.startswith(
        "the rewards of chosen and rejected responses have both fallen for 20 steps (to -20.000 and -40.000)"
    )


def test_no_warning_while_winners_rise(caplog: Any) -> None:
    watch = RewardCollapseWarning()
    for step in range(0, 100, 5):
        log(watch, step, -step if step % 15 else step, -2.0 * step)
    watch.on_log(None, SimpleNamespace(global_step=100), None, logs={"train_runtime": 1.0})
    assert not caplog.messages
