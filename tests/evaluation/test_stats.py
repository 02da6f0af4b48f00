from __future__ import annotations

import random
from math import comb, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmc.evaluation.stats import accuracy, mcnemar, paired_bootstrap, wilson


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),  # z²/(n + z²) = 3.8415/13.8415
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (1, 1, 0.2065, 1.0),  # 1/(1 + 3.8415)
        (81, 263, 0.2553, 0.3662),  # Newcombe (1998), Table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_as_in_tables(correct: int, n: int, low: float, high: float) -> None:
    assert wilson(correct, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 5000), st.data())
def test_wilson_solves_the_quadratic(n: int, data: st.DataObject) -> None:
    """Its ends are the p with (p̂ − p)² = z² p(1 − p)/n: the roots of (n + z²)p² − (2np̂ + z²)p + np̂²."""
    hits, z2 = data.draw(st.integers(0, n)), 1.959963984540054**2
    a, b, c = n + z2, -(2 * hits + z2), hits * hits / n
    root = sqrt(max(b * b - 4 * a * c, 0.0))
    low, high = wilson(hits, n)
    assert (low, high) == pytest.approx(((-b - root) / (2 * a), (-b + root) / (2 * a)), abs=1e-7)
    assert 0 <= low <= hits / n + 1e-12
    assert hits / n - 1e-12 <= high <= 1


def test_nothing_tried_nothing_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert accuracy([]) == {"n": 0, "correct": 0, "accuracy": 0.0, "interval": [0.0, 1.0]}


def test_accuracy() -> None:
    result = accuracy([True, False, True, False, False, True, True, False, True, False])
    assert (result["n"], result["correct"], result["accuracy"]) == (10, 5, 0.5)
    assert result["interval"] == pytest.approx([0.2366, 0.7634], abs=5e-5)


def outcomes(better: int, worse: int, same: int) -> tuple[list[bool], list[bool]]:
    return [True] * better + [False] * worse + [True] * same, [False] * better + [True] * worse + [True] * same


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [
        (5, 5, 1.0),
        (0, 0, 1.0),
        (6, 0, 2 / 64),
        (8, 1, 2 * (1 + 9) / 512),
        (59, 6, 2 * sum(comb(65, k) for k in range(7)) / 2**65),
    ],
)
def test_mcnemar_is_the_sign_test_on_discordant_rows(better: int, worse: int, p: float) -> None:
    ours, theirs = outcomes(better, worse, 40)
    assert mcnemar(ours, theirs) == mcnemar(theirs, ours) == pytest.approx(p)


def test_paired_bootstrap_against_its_normal_approximation() -> None:
    """120 better, 80 worse of 1000: difference 0.04, variance (0.2 − 0.04²)/1000, so 0.04 ± 1.96 · 0.01409."""
    ours, theirs = outcomes(120, 80, 800)
    assert paired_bootstrap(ours, theirs) == pytest.approx((0.0124, 0.0676), abs=1.1e-3)
    assert paired_bootstrap(theirs, ours) == pytest.approx((-0.0676, -0.0124), abs=1.1e-3)


def test_paired_bootstrap_draws_rows_not_methods() -> None:
    """Methods that agree on every row have no difference at all, however far from 0 or 1 their accuracy is."""
    rows = [True, False] * 50
    assert paired_bootstrap(rows, rows) == (0.0, 0.0)
    assert paired_bootstrap([], []) == (-1.0, 1.0)


def test_paired_bootstrap_is_that_of_resampled_rows() -> None:
    """Against a loop over rows."""
    ours, theirs = outcomes(7, 3, 10)
    generator = random.Random(1)
    gains = [int(a) - int(b) for a, b in zip(ours, theirs, strict=True)]
    drawn = sorted(sum(generator.choices(gains, k=20)) / 20 for _ in range(20_000))
    assert paired_bootstrap(ours, theirs) == pytest.approx((drawn[500], drawn[-501]), abs=0.051)


def test_paired_bootstrap_takes_the_means_of_rows_over_seeds() -> None:
    """Of 100 rows 40 gain 1/2 and 60 nothing: mean 0.2, variance (0.4 · 0.25 − 0.04)/100, so 0.2 ± 1.96 · 0.0245."""
    ours, theirs = [1.0] * 40 + [0.5] * 60, [0.5] * 100
    assert paired_bootstrap(ours, theirs) == pytest.approx((0.152, 0.248), abs=6e-3)
