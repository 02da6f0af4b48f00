"""Intervals."""

from __future__ import annotations

from math import sqrt

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
