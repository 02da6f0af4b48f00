from __future__ import annotations

from math import sqrt
from statistics import stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmc.judging.bradley_terry import bootstrap_win_rate, bradley_terry, win_rate


@given(st.floats(0, 1000), st.floats(0, 1000))
def test_of_two_models_it_is_the_share_of_the_wins(won: float, lost: float) -> None:
    if won + lost > 1e-6:
        assert win_rate(bradley_terry([[0, won], [lost, 0]])) == pytest.approx(won / (won + lost), abs=1e-9)


@given(st.lists(st.integers(1, 30), min_size=12, max_size=12))
def test_the_model_wins_as_often_as_it_did(counts: list[int]) -> None:
    """At the maximum of the likelihood each model's expected wins are those that it had."""
    wins = np.zeros((4, 4))
    wins[~np.eye(4, dtype=bool)] = counts
    strengths = bradley_terry(wins)
    chance = strengths[:, None] / (strengths[:, None] + strengths)
    expected = ((wins + wins.T) * chance).sum(axis=1)
    assert strengths.sum() == pytest.approx(1)
    assert expected == pytest.approx(wins.sum(axis=1), rel=1e-6)


def test_strengths_of_three_models_by_newtons_method() -> None:
    wins = np.array([[0, 7, 9.5], [3, 0, 6], [0.5, 4, 0]])
    logits = np.zeros(2)  # of the first two against the third, by a logistic regression
    design = {(0, 1): [1, -1], (0, 2): [1, 0], (1, 2): [0, 1]}
    for _ in range(50):
        gradient, hessian = np.zeros(2), np.zeros((2, 2))
        for (i, j), signs in design.items():
            x = np.array(signs, float)
            p, n = 1 / (1 + np.exp(-x @ logits)), wins[i, j] + wins[j, i]
            gradient += x * (wins[i, j] - n * p)
            hessian += np.outer(x, x) * n * p * (1 - p)
        logits += np.linalg.solve(hessian, gradient)
    weights = np.exp([*logits, 0.0])
    assert bradley_terry(wins) == pytest.approx(weights / weights.sum(), rel=1e-8)


def test_one_that_never_wins() -> None:
    assert bradley_terry([[0, 5], [0, 0]]).tolist() == [1.0, 0.0]
    assert bootstrap_win_rate([(0.0, 2.0)] * 5) == (0.0, (0.0, 0.0))
    assert bootstrap_win_rate([(3.0, 0.0)] * 5) == (1.0, (1.0, 1.0))


def test_the_interval_is_that_of_a_mean_over_prompts() -> None:
    """Where every prompt weighs alike the rate is a mean, and its standard error s/√n."""
    outcomes = [(2.0, 0.0)] * 120 + [(1.0, 1.0)] * 150 + [(0.0, 2.0)] * 230
    rate, (low, high) = bootstrap_win_rate(outcomes)
    assert rate == pytest.approx((120 + 75) / 500)
    error = stdev([won / 2 for won, _ in outcomes]) / sqrt(500)
    assert (rate - low) / 1.96 == pytest.approx(error, rel=0.1)
    assert (high - rate) / 1.96 == pytest.approx(error, rel=0.1)
    assert bootstrap_win_rate(outcomes) == (rate, (low, high))  # seeded
