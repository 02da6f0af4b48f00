"""The Bradley-Terry model (1952) of verdicts, and how sure its win rate is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def bradley_terry(wins: npt.ArrayLike, rounds: int = 10_000, tolerance: float = 1e-12) -> Array:
    """Maximum-likelihood strengths, by the algorithm of Zermelo (1929; Hunter, 2004).

    Without a regulariser a model that never wins gets 0 and one that always wins all, where a logistic regression would
    diverge.

    Args:
        wins: (k, k), how often the row's model won against the column's; ties half for each. The diagonal is ignored.
        rounds: At the most.
        tolerance: A round that changes no strength by more ends it.

    Returns:
        (k,), adding up to 1: the chance that i wins against j is strength i over the sum of both.
    """
    given = np.array(wins, float)
    np.fill_diagonal(given, 0.0)
    won, games = given.sum(axis=1), given + given.T
    strengths = np.full(len(given), 1.0 / len(given))
    for _ in range(rounds):
        sums = strengths[:, None] + strengths
        expected = np.divide(games, sums, out=np.zeros_like(games), where=sums > 0).sum(axis=1)
        after = np.divide(won, expected, out=np.zeros_like(won), where=expected > 0)
        after /= after.sum()
        if np.abs(after - strengths).max() < tolerance:
            return after
        strengths = after
    return strengths


def win_rate(strengths: Array, model: int = 0, against: int = 1) -> float:
    """The chance that one model wins against another."""
    return float(strengths[model] / (strengths[model] + strengths[against]))


def bootstrap_win_rate(
    outcomes: Sequence[tuple[float, float]], draws: int = 1_000, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """The win rate of a model against one reference, and its 95 % percentile interval, prompts being drawn again with
    replacement.

    The two games of a prompt, and the copies of a strong verdict, are drawn together. (Arena-Hard's own code draws them
    one by one, as if they were independent, which makes its intervals too narrow.)

    Args:
        outcomes: Weighted wins and losses of the model at each prompt; a tie is half of each.
        draws: Resamples.
        seed: Of the draws.
    """
    given = np.asarray(outcomes, float)

    def rate(counts: Array) -> float:
        won, lost = counts @ kinds
        return win_rate(bradley_terry([[0.0, won], [lost, 0.0]]))

    kinds, counts = np.unique(given, axis=0, return_counts=True)
    resampled = np.random.default_rng(seed).multinomial(len(given), counts / len(given), size=draws)
    low, high = np.percentile([rate(draw.astype(float)) for draw in resampled], [2.5, 97.5])
    return rate(counts.astype(float)), (float(low), float(high))
