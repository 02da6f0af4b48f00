"""Intervals, and whether two methods differ on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, sqrt

import numpy as np

Z95 = 1.959963984540054  # the normal distribution's 97.5 % point


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927).

    Args:
        correct: Successes, 0 … n.
        n: Trials.

    Returns:
        `(low, high)`, within [0, 1]; (0, 1) for n = 0.
    """
    if n == 0:
        return 0.0, 1.0
    p, z2 = correct / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return (0.0 if correct == 0 else centre - half), (1.0 if correct == n else centre + half)  # 0 and 1 exactly


def accuracy(correct: list[bool]) -> dict[str, float | int | list[float]]:
    """`n`, `correct`, `accuracy` and its 95 % Wilson `interval`."""
    n, hits = len(correct), sum(correct)
    return {"n": n, "correct": hits, "accuracy": hits / n if n else 0.0, "interval": list(wilson(hits, n))}


def paired_bootstrap(
    ours: Sequence[float], theirs: Sequence[float], draws: int = 100_000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile interval of mean(ours) − mean(theirs), rows being drawn again with replacement.

    The differences of rows take few values, so a resample of the rows is a draw from a multinomial distribution.

    Args:
        ours: Whether each row is right, or how often over several seeds.
        theirs: The same rows, in the same order.
        draws: Resamples.
        seed: Of the draws.
    """
    n = len(ours)
    if n == 0:
        return -1.0, 1.0
    differences = np.subtract(np.asarray(ours, float), np.asarray(theirs, float))
    values, counts = np.unique(differences.round(12), return_counts=True)
    means = np.random.default_rng(seed).multinomial(n, counts / n, size=draws) @ values / n
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def mcnemar(ours: Sequence[bool], theirs: Sequence[bool]) -> float:
    """Exact two-sided p-value of McNemar's test (1947): were rows that only one gets right as often ours as theirs?"""
    better, worse = _discordant(ours, theirs)
    tail = sum(comb(better + worse, k) for k in range(min(better, worse) + 1)) / 2 ** (better + worse)
    return min(1.0, 2 * tail)


def _discordant(ours: Sequence[bool], theirs: Sequence[bool]) -> tuple[int, int]:
    """Rows that only ours gets right, and rows that only theirs does."""
    pairs = list(zip(ours, theirs, strict=True))
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
