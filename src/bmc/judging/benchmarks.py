"""What is asked of each benchmark's judge, and what its answers say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from ..asking.quoting import Job
from ..asking.replies import Reply
from ..data.schema import Row
from ..evaluation.stats import win_rate
from ..runtime import write_json
from . import alpaca, arena_hard
from .cases import Case


class Benchmark(Protocol):
    """One benchmark's scheme."""

    def jobs(self) -> Iterator[Job]:
        """What is asked, a request or a conversation each."""
        ...

    def judgements(self, answers: Sequence[Any]) -> list[Row]:
        """A line of `judgements.jsonl` for each case, with `id`, and `reason` where a verdict can't be read.

        Args:
            answers: What each job gave.
        """
        ...

    def summary(self, judgements: Sequence[Row]) -> Row:
        """Return n (cases that are scored), verdicts, how many of these can't be read (`unreadable`), win rate in %
        with its 95 % interval, and mean length; of no case that is scored, no win rate."""
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
        self.replies: dict[str, Reply | str] = {}

    def jobs(self) -> Iterator[Job]:
        for prompt in self.prompts:
            yield Job(partial(alpaca.ask, prompt), "m")

    def judgements(self, answers: Sequence[Any]) -> list[Row]:
        self.replies = dict(zip(self.prompts, answers, strict=True))
        self.annotations = alpaca.annotate(self.cases, self.names, self.replies)
        rows: list[Row] = []
        for case, annotation in zip(self.cases, self.annotations, strict=True):
            row = {"id": case.id, "instruction": case.name, "preference": annotation["preference"]}
            rows.append(row | ({"reason": self._reason(case)} if annotation["preference"] is None else {}))
        return rows

    def _reason(self, case: Case) -> str:
        """Why a case has no verdict; alpaca_eval doesn't say which prompt was whose."""
        texts = (case.prompt, case.response, case.reference)
        asked = (prompt for prompt in self.replies if all(text in prompt for text in texts))
        return next((alpaca.reason(self.replies[prompt]) for prompt in asked), "no verdict")

    def summary(self, judgements: Sequence[Row]) -> Row:
        won = [row["preference"] - 1 for row in judgements if row["preference"] is not None]
        counts = {"n": len(won), "verdicts": len(self.prompts), "unreadable": len(judgements) - len(won)}
        if not won:
            return counts
        controlled = alpaca.length_controlled(self.annotations)
        if isinstance(controlled, str):
            print(f"no length-controlled win rate: {controlled}")
        rate, error = (None, None) if isinstance(controlled, str) else controlled
        return {
            **counts,
            **_win_rate(won, [1.0] * len(won)),
            "length_controlled_win_rate": rate,
            "lc_standard_error": error,  # alpaca_eval's own, of predictions: no interval can be made of it
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
        verdicts = [verdict for games in scored for verdict in games]
        outcomes = [outcome for games in scored if (outcome := arena_hard.outcome(games))]
        counts = {"n": len(outcomes), "verdicts": len(verdicts), "unreadable": verdicts.count(None)}
        if not outcomes:
            return counts
        return {
            **counts,
            **_win_rate([won for won, _ in outcomes], [won + lost for won, lost in outcomes]),
            "length_controlled_win_rate": None,
            "length": fmean(case.tokens for case in self.cases),
        }

    def write(self, folder: Path) -> None:
        pass


def _win_rate(won: Sequence[float], played: Sequence[float]) -> Row:
    """A win rate over prompts in %, with its interval. Of one reference and one model, Bradley and Terry's estimate is
    wins over games."""
    rate, low, high = win_rate(won, played)
    return {"win_rate": 100 * rate, "interval": [100 * low, 100 * high]}


def lost(judged: Mapping[str, Any]) -> str | None:
    """Say which part of the verdicts and rows is lost; None where nothing is, or where the file doesn't count it."""
    counts = [judged.get(key) for key in ("unreadable", "verdicts", "rows", "n")]
    whole = [count for count in counts if isinstance(count, int)]
    if len(whole) < len(counts) or not judged["unreadable"] or not judged["rows"]:
        return None
    unreadable, verdicts, rows, n = whole
    return (
        f"{unreadable} of {verdicts} verdicts can't be read, so {rows - n} of {rows} rows "
        f"({100 * (rows - n) / rows:.1f} %) are not scored: the win rate is that of the others"
    )
