"""The numbers of the figures, from token scores: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..evaluation import stats
from ..evaluation.stats import t95, wilson


class Estimate(NamedTuple):
    """A number with its 95 % interval, and how many pairs (or rows) it rests on; without an interval of fewer than 2.

    Attributes:
        value: The number.
        low: Where the interval begins; None where there is none.
        high: Where it ends.
        n: Pairs.
    """

    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def bars(self) -> tuple[float, float]:
        """Lengths of the error bar below and above; 0 where there is none."""
        if self.low is None or self.high is None:
            return 0.0, 0.0
        return max(self.value - self.low, 0.0), max(self.high - self.value, 0.0)


def span_places(differs: Sequence[bool]) -> list[int]:
    """Each token's place in its span of differing tokens that stand together: 1, 2, …; 0 for one that doesn't differ.

    Example:
        >>> span_places([True, True, False, True])
        [1, 2, 0, 1]
    """
    places, place = [], 0
    for different in differs:
        place = place + 1 if different else 0
        places.append(place)
    return places


def sums_by_place(values: Sequence[float], differs: Sequence[bool]) -> dict[str, tuple[float, int]]:
    """Sum and count of the values at `first` and `later` tokens of a response's differing spans (Figure 2)."""
    found = {"first": (0.0, 0), "later": (0.0, 0)}
    for value, place in zip(values, span_places(differs), strict=True):
        if place:
            name = "first" if place == 1 else "later"
            total, count = found[name]
            found[name] = total + value, count + 1
    return found


def ratio(sums: Sequence[float], counts: Sequence[float]) -> Estimate | None:
    """Σ sums / Σ counts over pairs, an average over tokens when a pair has several; None of no token.

    The tokens of a pair aren't independent, its pairs are: the interval is that of a ratio estimator, R ± t s with
    n − 1 degrees of freedom (`stats.ratio`). With counts of 1 it is a mean's.

    Args:
        sums: Of each pair.
        counts: Of each pair; pairs without a token count for nothing.
    """
    pairs = [(total, count) for total, count in zip(sums, counts, strict=True) if count]
    if not pairs:
        return None
    n = len(pairs)
    value, error = stats.ratio(*zip(*pairs, strict=True))
    if error is None:
        return Estimate(value, None, None, n)
    return Estimate(value, value - t95(n - 1) * error, value + t95(n - 1) * error, n)


def mean(values: Sequence[float]) -> Estimate | None:
    """A mean over pairs; None of nothing."""
    return ratio(values, [1] * len(values))


def accuracy(margins: Sequence[float]) -> Estimate | None:
    """The share in % of pairs whose winner has the larger reward (§5.3), with Wilson's interval; None of no pair."""
    if not margins:
        return None
    hits, n = sum(margin > 0 for margin in margins), len(margins)
    low, high = wilson(hits, n)
    return Estimate(100 * hits / n, 100 * low, 100 * high, n)
