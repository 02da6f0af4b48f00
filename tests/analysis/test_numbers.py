"""The numbers of the figures, worked out by hand."""

from __future__ import annotations

from math import log, sqrt

import pytest
import torch

from bmc.analysis.numbers import Estimate, accuracy, mean, ratio, span_places, sums_by_place
from bmc.training.lm_head import Head, exact_kl


def test_places_in_spans() -> None:
    assert span_places([False, True, True, True, False, True, False]) == [0, 1, 2, 3, 0, 1, 0]
    assert span_places([True, True]) == [1, 2]
    assert span_places([]) == []


def test_sums_at_first_and_later_tokens() -> None:
    values = [9.0, 1.0, 2.0, 4.0, 9.0, 8.0]
    differs = [False, True, True, True, False, True]
    assert sums_by_place(values, differs) == {"first": (9.0, 2), "later": (6.0, 2)}
    assert sums_by_place([3.0], [False]) == {"first": (0.0, 0), "later": (0.0, 0)}


def test_a_mean_has_its_t_interval() -> None:
    """1, 2, 6: mean 3, deviations −2, −1, 3, variance 14/2 = 7, standard error √(7/3)."""
    found = mean([1.0, 2.0, 6.0])
    assert found is not None
    half = 4.302652729749464 * sqrt(7 / 3)  # t with 2 degrees of freedom
    assert found == pytest.approx(Estimate(3.0, 3 - half, 3 + half, 3))
    assert found.bars == pytest.approx((half, half))


def test_an_average_over_tokens_counts_pairs_as_one() -> None:
    """Two tokens of sum 4 and six of sum 20: R = 3; residuals −2 and 2, s² = 2/1 · 8 / 8² = 1/4."""
    found = ratio([4.0, 20.0, 0.0], [2, 6, 0])
    assert found == pytest.approx(Estimate(3.0, 3 - 0.5 * 12.706204736174694, 3 + 0.5 * 12.706204736174694, 2))


def test_of_one_pair_there_is_no_interval() -> None:
    assert ratio([4.0], [2]) == Estimate(2.0, None, None, 1)
    assert Estimate(2.0, None, None, 1).bars == (0.0, 0.0)
    assert ratio([0.0], [0]) is None
    assert mean([]) is None


def test_accuracy_wants_a_larger_reward() -> None:
    """3 of 4, a tie being no win; Wilson's interval of 3 of 4 is [30.06, 95.44] %."""
    found = accuracy([0.5, 0.1, 0.0, 2.0])
    assert found is not None
    assert found.value == 75
    assert (found.low, found.high) == pytest.approx((30.0642, 95.4413), abs=1e-3)
    assert accuracy([]) is None


def test_exact_kl() -> None:
    """π = (½, ¼, ¼) against π_ref = (¼, ½, ¼): ½ log 2 − ¼ log 2 = ¼ log 2; the same distribution has none."""
    policy = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]).log()
    reference = torch.tensor([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]).log() + 3
    one, two = (Head(logits / 2, torch.eye(3), None, None, 2.0, torch.float32) for logits in (policy, reference))
    assert exact_kl(one, two).tolist() == pytest.approx([0.25 * log(2), 0, 0], abs=1e-6)
    many = [head._replace(hidden=head.hidden[:1].expand(300, 3)) for head in (one, two)]  # more than a tile
    assert exact_kl(*many).tolist() == pytest.approx([0.25 * log(2)] * 300, abs=1e-6)
