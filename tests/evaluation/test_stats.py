from __future__ import annotations

from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmc.evaluation.stats import accuracy, wilson


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
