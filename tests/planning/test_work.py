from __future__ import annotations

import pytest

from bmc.config import Price
from bmc.planning import work
from bmc.planning.architecture import Architecture
from bmc.planning.hardware import Gpu
from bmc.planning.work import Steps

MODEL = Architecture(hidden=8, intermediate=20, layers=3, heads=2, key_value_heads=1, vocabulary=100)
N = 3 * 688 + 800 + 8  # all but the embedding


def test_steps() -> None:
    """10,638 pairs at 128: 83 whole batches and one of 14."""
    assert work.steps(10_638, 2, 16, 4, 1.0, -1) == Steps(128, 84, 10_638)
    assert work.steps(10_638, 2, 16, 4, 2.0, -1) == Steps(128, 168, 21_276)
    assert work.steps(10_638, 2, 16, 4, 1.0, 5) == Steps(128, 5, 640)


def test_operations_of_training() -> None:
    assert MODEL.multiplied == N
    assert work.training_flops(MODEL, 10, checkpointing=False) == 6 * N * 10
    assert work.training_flops(MODEL, 10, checkpointing=True) == 8 * N * 10
    assert work.training_flops(MODEL, 10, checkpointing=True, reference=7) == (80 + 14) * N
    assert work.training_flops(MODEL, 10, checkpointing=False, frozen=True) == 4 * N * 10


def test_time_of_generation_is_bound_by_bandwidth_or_by_arithmetic() -> None:
    slow_memory = Gpu(memory_gib=1, teraflops=1e6, bandwidth=1e-6)  # 1,000 bytes a second
    passes = 3 * 5  # of 10 rows in batches of 4, 5 tokens each
    expected = passes * 2 * MODEL.parameters / 1000 / work.EFFICIENCY
    assert work.generating_seconds(MODEL, 10, 0, 5, 4, slow_memory) == pytest.approx(expected)
    slow_products = Gpu(memory_gib=1, teraflops=1e-9, bandwidth=1e6)  # 1,000 FLOP/s
    expected = (2 * N * 10 * 7 + passes * 2 * N * 4) / 1000 / work.EFFICIENCY
    assert work.generating_seconds(MODEL, 10, 7, 5, 4, slow_products) == pytest.approx(expected)


def test_dollars_of_bridging() -> None:
    """100 requests of 600 + 100 + 2 × 50 tokens at $0.01 a thousand, and replies of 50 at $0.03."""
    price = Price(input=10, output=30)
    assert work.bridging_dollars(price, 100, 100, 50, "closed") == pytest.approx(0.8 + 0.15)


def test_checkpoints() -> None:
    assert work.checkpoint_bytes(100, 200, only_model=False, copies=True, moments=8) == 200 + 1200
    assert work.checkpoint_bytes(100, 400, only_model=False, copies=False, moments=8) == 400 + 800
    assert work.checkpoint_bytes(100, 200, only_model=True, copies=True, moments=8) == 200


@pytest.mark.parametrize(
    ("optim", "bytes_"),
    [("adamw_torch_fused", 8), ("adamw_bnb_8bit", 2), ("paged_adamw_8bit", 2), ("lion_32bit", 4), ("lion_8bit", 1),
     ("adafactor", 0), ("sgd", 0)],
)  # fmt: skip
def test_optimizer_states(optim: str, bytes_: int) -> None:
    from transformers.training_args import OptimizerNames

    assert work.moment_bytes(optim) == work.moment_bytes(OptimizerNames(optim)) == bytes_


@pytest.mark.parametrize(("seconds", "said"), [(50, "50 s"), (720, "12 min"), (12_240, "3.4 h")])
def test_durations(seconds: float, said: str) -> None:
    assert work.duration(seconds) == said
