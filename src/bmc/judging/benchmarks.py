"""What is asked of each benchmark's judge, and what its answers say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from ..asking.quoting import Job
from ..data.schema import Row
from ..evaluation.stats import Z95, paired_bootstrap
from ..runtime import write_json
from . import alpaca, arena_hard
from .bradley_terry import bootstrap_win_rate
from .cases import Case

DRAWS = 10_000
UNREADABLE = "the judge's answer is neither m nor M, or there is none"


class Benchmark(Protocol):
    """One benchmark's scheme."""

    def jobs(self) -> Iterator[Job]:
        """What is asked, a request or a conversation each."""
        ...

    def judgements(self, answers: Sequence[Any]) -> list[Row]:
        """A line of `judgements.jsonl` for each case, with `id`, and `reason` where it can't be read.

        Args:
            answers: What each job gave.
        """
        ...

    def summary(self, judgements: Sequence[Row]) -> Row:
        """n, win rate in % with its 95 % interval, and mean length. Of no case that was read, n = 0 alone."""
        ...

    def write(self, folder: Path) -> None:
        """Writes what else the official evaluator reads."""
        ...


class AlpacaEval:
    """AlpacaEval 2: one question a case, whose answer is weighed by the log-probabilities of its token.

    Args:
        cases: The cases.
        names: Of the reference and of the model.
    """

    def __init__(self, cases: Sequence[Case], names: tuple[str, str]) -> None:
        self.cases, self.names = cases, names
        self.prompts = alpaca.prompts_of(cases, names)
        self.annotations: list[Row] = []

    def jobs(self) -> Iterator[Job]:
        for prompt in self.prompts:
            yield Job(partial(alpaca.ask, prompt), "m")

    def judgements(self, answers: Sequence[Any]) -> list[Row]:
        replies = dict(zip(self.prompts, answers, strict=True))
        self.annotations = alpaca.annotate(self.cases, self.names, replies)
        rows: list[Row] = []
        for case, annotation in zip(self.cases, self.annotations, strict=True):
            row = {"id": case.id, "instruction": case.name, "preference": annotation["preference"]}
            rows.append(row | ({"reason": UNREADABLE} if annotation["preference"] is None else {}))
        return rows

    def summary(self, judgements: Sequence[Row]) -> Row:
        won = [row["preference"] - 1 for row in judgements if row["preference"] is not None]
        if not won:
            return {"n": 0}
        low, high = paired_bootstrap(won, [0.0] * len(won), DRAWS)
        controlled = alpaca.length_controlled(self.annotations)
        if isinstance(controlled, str):
            print(f"no length-controlled win rate: {controlled}")
            told: Row = {"length_controlled_win_rate": None}
        else:
            rate, error = controlled
            told = {
                "length_controlled_win_rate": rate,
                "interval_length_controlled": [rate - Z95 * error, rate + Z95 * error],
            }
        return {
            "n": len(won),
            "win_rate": 100 * fmean(won),
            "interval": [100 * low, 100 * high],
            **told,
            "length": fmean(len(case.response) for case in self.cases),
        }

    def write(self, folder: Path) -> None:
        write_json(folder / "annotations.json", self.annotations)


class ArenaHard:
    """Arena-Hard v0.1: two games a case, whose verdicts a Bradley-Terry model turns into a win rate.

    Args:
        cases: The cases.
        names: Of the reference and of the model.
        judge: The judge's name, for the official files.
    """

    def __init__(self, cases: Sequence[Case], names: tuple[str, str], judge: str) -> None:
        self.cases, self.names, self.judge = cases, names, judge

    def jobs(self) -> Iterator[Job]:
        for case in self.cases:
            for swapped in (False, True):
                yield Job(partial(arena_hard.play, case, swapped), max(case.response, case.reference, key=len))

    def judgements(self, answers: Sequence[Any]) -> list[Row]:
        rows = []
        for number, case in enumerate(self.cases):
            games: Sequence[arena_hard.Game] = answers[2 * number : 2 * number + 2]
            reasons = "; ".join(game.reason for game in games if game.reason)
            row = {
                "id": case.id,
                "question_id": case.name,
                "model": self.names[1],
                "judge": self.judge,
                "games": [{"judgment": game.judgement, "score": game.verdict} for game in games],
            }
            rows.append(row | ({"reason": reasons} if reasons else {}))
        return rows

    def summary(self, judgements: Sequence[Row]) -> Row:
        scored = [[game["score"] for game in row["games"]] for row in judgements]
        outcomes = [arena_hard.outcome(verdicts) for verdicts in scored if any(verdicts)]
        if not outcomes:
            return {"n": 0}
        rate, (low, high) = bootstrap_win_rate(outcomes)
        return {
            "n": len(outcomes),
            "win_rate": 100 * rate,
            "interval": [100 * low, 100 * high],
            "length_controlled_win_rate": None,
            "length": fmean(case.tokens for case in self.cases),
        }

    def write(self, folder: Path) -> None:
        pass
