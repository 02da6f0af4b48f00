import json
from math import comb, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, norm

from bmc.evaluation.stats import (
    accuracy,
    holm,
    mcnemar,
    paired_difference,
    ratio,
    score_interval,
    t95,
    wilson,
    win_rate,
)


def test_wilson_as_in_tables(subtests: pytest.Subtests) -> None:
    for correct, n, low, high in [
        (0, 10, 0.0, 0.2775),  # z²/(n + z²) = 3.8415/13.8415
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (1, 1, 0.2065, 1.0),  # 1/(1 + 3.8415)
        (81, 263, 0.2553, 0.3662),  # Newcombe (1998), Table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        with subtests.test(correct=correct):
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
    assert json.loads(json.dumps(accuracy(list(np.array([True, False]))))) == accuracy([True, False])
    assert wilson(np.int32(5_000_000), np.int32(10_000_000)) == wilson(5_000_000, 10_000_000)


def outcomes(better: int, worse: int, same: int) -> tuple[list[bool], list[bool]]:
    return [True] * better + [False] * worse + [True] * same, [False] * better + [True] * worse + [True] * same


def test_mcnemar_is_the_sign_test_on_discordant_rows(subtests: pytest.Subtests) -> None:
    for better, worse, p in [
        (5, 5, 1.0),
        (0, 0, 1.0),
        (6, 0, 2 / 64),
        (8, 1, 2 * (1 + 9) / 512),
        (59, 6, 2 * sum(comb(65, k) for k in range(7)) / 2**65),
    ]:
        with subtests.test(better=better):
            ours, theirs = outcomes(better, worse, 40)
            assert mcnemar(ours, theirs) == mcnemar(theirs, ours) == pytest.approx(p)


def test_mcnemar_takes_numpy_and_many_rows() -> None:
    """60 against 40: 2 P(Bin(100, ½) ≥ 60) = 0.0569, whatever the type; 20,000 discordant rows take no time."""
    ours, theirs = (np.array(rows) for rows in outcomes(60, 40, 9_900))
    assert mcnemar(ours, theirs) == pytest.approx(0.05689, abs=5e-6)
    many = [np.array(rows) for rows in outcomes(10_100, 9_900, 0)]
    assert mcnemar(*many) == pytest.approx(2 * norm.sf(199 / 20_000**0.5), rel=1e-3)


def score_at(delta: float, better: int, worse: int, n: int) -> float:
    """Tango's statistic, the nuisance share by numerical maximum likelihood."""

    def loss(q: float) -> float:
        cells = ((better, q + delta), (worse, q), (n - better - worse, 1 - 2 * q - delta))
        return -sum(count * log(max(share, 1e-300)) for count, share in cells if count)

    low, high = max(0.0, -delta), (1 - delta) / 2
    q = float(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x)
    return float((better - worse - n * delta) / sqrt(n * (2 * q + delta - delta**2)))


def test_score_interval_inverts_the_score_test(subtests: pytest.Subtests) -> None:
    for better, worse, n in [(12, 2, 50), (120, 80, 1000), (7, 3, 20), (0, 5, 10), (3, 1, 12), (1, 30, 60), (6, 0, 20)]:
        with subtests.test(better=better):
            low, high = score_interval(better, worse, n)
            assert score_at(low, better, worse, n) == pytest.approx(1.95996, abs=2e-3)
            assert score_at(high, better, worse, n) == pytest.approx(-1.95996, abs=2e-3)


def test_score_interval_does_not_collapse() -> None:
    """Without discordant rows it is ± z²/(n + z²); one row tells next to nothing."""
    assert score_interval(0, 0, 10) == pytest.approx((-0.2775, 0.2775), abs=5e-5)
    assert score_interval(0, 0, 500) == pytest.approx((-0.0076, 0.0076), abs=5e-5)
    assert score_interval(10, 0, 10) == pytest.approx((0.4449, 1.0), abs=5e-5)  # (n − z²)/(n + z²)
    low, high = score_interval(0, 1, 1)
    assert low == -1.0
    assert high > 0.5


def coverage(seeds: tuple[int, int], sd: float, rows: int, times: int = 1000) -> float:
    """How often the interval holds the true difference, 3 points: seeds move all rows by `sd` points, and rows have
    their own difficulty, and their own liking of each method."""
    generator = np.random.default_rng(seeds[0] * 1000 + int(100 * sd) + rows)
    hit = 0
    for _ in range(times):
        easy = generator.uniform(0.2, 0.8, rows)
        methods = []
        for k, level in zip(seeds, (0.03, 0.0), strict=True):
            chance = easy + level + generator.uniform(-0.1, 0.1, rows) + generator.normal(0, sd / 100, (k, 1))
            methods.append(generator.random((k, rows)) < chance)
        _, (low, high), _ = paired_difference(*methods)
        hit += low <= 0.03 <= high
    return hit / times


@pytest.mark.parametrize("sd", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("seeds", [(3, 3), (5, 5), (10, 10), (3, 10)])
@pytest.mark.slow
def test_intervals_over_seeds_cover(seeds: tuple[int, int], sd: float) -> None:
    assert coverage(seeds, sd, rows=400) >= 0.93


def test_intervals_of_single_runs_cover_the_chance_in_rows() -> None:
    assert coverage((1, 1), 0.0, rows=400) >= 0.93


def test_one_method_with_one_run_borrows_the_others_spread() -> None:
    assert coverage((1, 5), 2.0, rows=400) >= 0.93


def test_p_and_interval_of_seeds_agree() -> None:
    """p = 0.05 where the interval ends at 0, and less where it doesn't reach it."""
    generator = np.random.default_rng(3)
    for _ in range(50):
        ours, theirs = generator.random((3, 200)) < 0.55, generator.random((4, 200)) < 0.5
        _, (low, high), p = paired_difference(ours, theirs)
        assert (p < 0.05) == (low > 0 or high < 0)


def test_seeds_that_agree_on_all_rows_are_not_certain() -> None:
    same = np.ones((3, 20), bool)
    gain, (low, high), p = paired_difference(same, same)
    assert (gain, p) == (0.0, 1.0)
    assert (low, high) == pytest.approx((-0.1611, 0.1611), abs=5e-5)
    assert paired_difference(np.ones((2, 0), bool), np.ones((2, 0), bool)) == (0.0, (-1.0, 1.0), 1.0)


def test_ratio_of_one_pair_has_no_error() -> None:
    assert ratio([3.0], [2.0]) == (1.5, None)
    # R = 10/5; (4 − 2·1)² + (2 − 2·2)² + (4 − 2·2)² = 8; √(3/2 · 8)/5
    assert ratio([4, 2, 4], [1, 2, 2]) == pytest.approx((2.0, sqrt(12) / 5))
    assert t95(2) == pytest.approx(4.3027, abs=5e-5)


def test_win_rates_of_few_or_one_sided_games_are_exact(subtests: pytest.Subtests) -> None:
    for won, low, high in [
        ([0.5], 0.0004, 0.9996),  # a single tie tells nothing
        ([1] * 5, 0.4782, 1.0),  # 0.025^(1/5)
        ([0] * 20, 0.0, 0.1684),  # 1 − 0.025^(1/20)
        ([1] * 2 + [0] * 18, 0.0123, 0.3170),  # of a table of exact intervals
    ]:
        with subtests.test(won=won):
            assert win_rate(won, [1] * len(won)) == pytest.approx((sum(won) / len(won), low, high), abs=5e-5)


def test_win_rate_of_many_prompts_is_near_its_normal_interval() -> None:
    """Strong verdicts weigh 3, and the two games of a prompt go together: the ratio estimator's ± t s."""
    generator = np.random.default_rng(5)
    played = generator.choice([2.0, 4.0, 6.0], 500)
    won = played * generator.choice([0.0, 0.5, 1.0], 500, p=[0.5, 0.1, 0.4])
    rate, low, high = win_rate(won, played)
    _, error = ratio(won, played)
    assert error is not None
    assert (low, high) == pytest.approx((rate - 1.965 * error, rate + 1.965 * error), abs=2e-3)


def test_win_rate_covers(subtests: pytest.Subtests) -> None:
    """The binomial distribution summed up: never below 95 %."""
    for chance, n in [(0.5, 12), (0.1, 30), (0.3, 60), (0.02, 200)]:
        with subtests.test(chance=chance):
            covered = 0.0
            for wins in range(n + 1):
                _, low, high = win_rate([1.0] * wins + [0.0] * (n - wins), [1.0] * n)
                covered += binom.pmf(wins, n, chance) * (low <= chance <= high)
            assert covered >= 0.95


def test_holm(subtests: pytest.Subtests) -> None:
    for p_values, adjusted in [
        ([], []),
        ([0.2], [0.2]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # Holm's procedure by hand
        ([0.5, 0.9, 0.4], [1.0, 1.0, 1.0]),
    ]:
        with subtests.test(p_values=p_values):
            assert holm(p_values) == pytest.approx(adjusted)
