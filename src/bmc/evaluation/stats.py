"""Confidence intervals, and tests of whether two methods differ on the same rows.

scipy.stats is imported where it is used: it takes a second to load, and `--help` shouldn't wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
import numpy.typing as npt

Z95 = 1.959963984540054  # the normal distribution's 97.5 % point
FEW = 10  # wins or losses, below which a variance says too little
Rows = Sequence[float] | npt.NDArray[np.float64]


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Compute the 95 % interval of a share (Wilson, 1927).

    Returns:
        `(low, high)`, within [0, 1]; (0, 1) for n = 0.
    """
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    interval = binomtest(int(correct), int(n)).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def accuracy(correct: list[bool]) -> dict[str, float | int | list[float]]:
    """Compute `n`, `correct`, `accuracy` and its 95 % Wilson `interval`."""
    n, hits = len(correct), int(sum(correct))  # numpy's numbers are no JSON
    return {"n": n, "correct": hits, "accuracy": hits / n if n else 0.0, "interval": list(wilson(hits, n))}


def t95(degrees: float) -> float:
    """Return Student's t at 97.5 %, for 95 % intervals."""
    from scipy.stats import t

    return float(t.ppf(0.975, degrees))


def ratio(sums: Rows, counts: Rows) -> tuple[float, float | None]:
    """Compute Σ sums / Σ counts over independent units, and its standard error.

    The ratio estimator of Cochran (1977, §6.4): s² = n/(n − 1) · Σ (sum − R · count)² / (Σ counts)². With counts of 1
    it is a mean. For an interval multiply the error by `t95(n − 1)`.

    Returns:
        `(ratio, standard error)`; no error for a single unit.
    """
    totals, sizes = np.asarray(sums, float), np.asarray(counts, float)
    n, whole = len(totals), sizes.sum()
    value = float(totals.sum() / whole)
    if n < 2:
        return value, None
    return value, float(np.sqrt(n / (n - 1) * np.sum((totals - value * sizes) ** 2)) / whole)


def clopper_pearson(successes: float, trials: float) -> tuple[float, float]:
    """Compute the exact 95 % interval of a share (Clopper & Pearson, 1934); it takes fractions of successes, too."""
    from scipy.stats import beta

    low = 0.0 if successes <= 0 else float(beta.ppf(0.025, successes, trials - successes + 1))
    high = 1.0 if successes >= trials else float(beta.ppf(0.975, successes + 1, trials - successes))
    return low, high


def win_rate(won: Rows, played: Rows) -> tuple[float, float, float]:
    """Compute a win rate over independent prompts, with a 95 % interval that few or one-sided games don't collapse.

    `won` are the wins at each prompt, ties as halves; `played` what could be won there.

    Returns:
        `(rate, low, high)`, within [0, 1].
    """
    rate, error = ratio(won, played)
    return rate, *share_interval(rate, error, len(won))


def share_interval(share: float, error: float | None, n: int) -> tuple[float, float]:
    """Compute the 95 % interval of a share whose standard error is known.

    Clopper and Pearson's interval for as many trials as have that error (Korn & Graubard, 1998). With fewer than `FEW`
    successes or failures, or without an error, each unit counts as one trial.
    """
    trials = float(n)
    if error and min(share, 1 - share) * n >= FEW:
        trials = share * (1 - share) / error**2 * (Z95 / t95(n - 1)) ** 2
    return clopper_pearson(share * trials, trials)


def mcnemar(ours: Rows | Sequence[bool], theirs: Rows | Sequence[bool]) -> float:
    """Compute the exact two-sided p-value of McNemar's test (1947).

    It asks whether the rows that only one of two methods gets right are as often the one's as the other's.
    """
    from scipy.stats import binomtest

    better, worse = _discordant(ours, theirs)
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def score_interval(better: int, worse: int, n: int) -> tuple[float, float]:
    """Compute the 95 % score interval of a difference of paired shares (Tango, 1998).

    Its ends are the differences Δ that the data just don't contradict: those whose score statistic, with the variance
    under Δ, is ±1.96. It doesn't collapse where the methods agree on all rows. `better` rows only the first method gets
    right, `worse` only the second, of n in all.

    Returns:
        `(low, high)`, within [−1, 1].
    """
    return -_score_end(worse, better, n), _score_end(better, worse, n)


def _score_end(better: int, worse: int, n: int) -> float:
    """Return the largest Δ within 1.96 standard errors."""
    from scipy.optimize import brentq

    def excess(delta: float) -> float:
        linear = (2 * n - better + worse) * delta - better - worse
        root = sqrt(max(linear**2 + 8 * n * worse * delta * (1 - delta), 0.0))
        rare = (root - linear) / (4 * n)  # the share of rows that only the second gets right, most likely under Δ
        return better - worse - n * delta + Z95 * sqrt(max(n * (2 * rare + delta * (1 - delta)), 0.0))

    start = (better - worse) / n + 1e-9  # right of the root at the estimate itself, if there are no discordant rows
    return float(brentq(excess, start, 1.0)) if start < 1 and excess(1.0) < 0 < excess(start) else 1.0


def _discordant(ours: Rows | Sequence[bool], theirs: Rows | Sequence[bool]) -> tuple[int, int]:
    """Return rows that only the first gets right, and rows that only the second does."""
    mine, other = np.asarray(ours, bool), np.asarray(theirs, bool)
    if mine.shape != other.shape:
        raise ValueError(f"{len(mine)} rows against {len(other)}")
    return int(np.sum(mine & ~other)), int(np.sum(other & ~mine))


def paired_difference(
    ours: npt.NDArray[np.bool_], theirs: npt.NDArray[np.bool_]
) -> tuple[float, tuple[float, float], float]:
    """Compare two methods, each trained with one or more seeds, on the same rows.

    A single run of each: the score interval and McNemar's test; both know of the chance in the rows alone. With more
    seeds, a t interval and test whose variance adds up what rows and seeds contribute, as in a crossed design; where
    only one method has several seeds, the other's are taken to vary as much. Both arrays are (seeds, rows), whether
    each row is right; the rows are the same.

    Returns:
        `(difference of the mean accuracies, its 95 % interval, two-sided p-value)`.
    """
    if ours.shape[1] == 0:
        return 0.0, (-1.0, 1.0), 1.0
    if len(ours) == len(theirs) == 1:
        better, worse = _discordant(ours[0], theirs[0])
        n = ours.shape[1]
        return (better - worse) / n, score_interval(better, worse, n), mcnemar(ours[0], theirs[0])
    from scipy.stats import t

    gain = float(ours.mean() - theirs.mean())
    variance, degrees = _crossed_variance(ours, theirs)
    times, n = t95(degrees), ours.shape[1]
    half = max(times * sqrt(variance), Z95**2 / (n + Z95**2))  # at least that of n rows that all agree
    p = 2 * float(t.sf(abs(gain) / half * times, degrees))
    return gain, (max(-1.0, gain - half), min(1.0, gain + half)), p


def _crossed_variance(ours: npt.NDArray[np.bool_], theirs: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return the variance of a difference of means over seeds × rows, and its degrees of freedom (Satterthwaite, 1946).

    Rows: s²(difference of the row means)/n. Seeds: s²(accuracy of a seed)/k for each method. Both contain the
    interaction of rows and seeds, which is taken out once.
    """
    n = ours.shape[1]
    rows = float((ours.mean(axis=0) - theirs.mean(axis=0)).var(ddof=1)) / n if n > 1 else 0.0
    several = [method for method in (ours, theirs) if len(method) > 1]
    shares = [1 / len(ours) + 1 / len(theirs)] if len(several) == 1 else [1 / len(method) for method in several]
    seeds = [share * float(method.mean(axis=1).var(ddof=1)) for share, method in zip(shares, several, strict=True)]
    common = sum(share * _interaction(method) / n for share, method in zip(shares, several, strict=True))
    variance = max(rows + sum(seeds) - common, rows, sum(seeds))
    parts = [(rows, n - 1), *zip(seeds, (len(method) - 1 for method in several), strict=True)]
    spread = sum(part**2 / degrees for part, degrees in parts if part)
    return variance, max(variance**2 / spread, 1.0) if spread else float(n)


def _interaction(method: npt.NDArray[np.bool_]) -> float:
    """Return the variance that neither the rows' means nor the seeds' explain."""
    k, n = method.shape
    rest = method - method.mean(axis=1, keepdims=True) - method.mean(axis=0) + method.mean()
    return float((rest**2).sum()) / ((k - 1) * max(n - 1, 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for being several (Holm, 1979): each is still at most 1, and in the given order.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = worst
    return adjusted
