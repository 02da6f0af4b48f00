"""Arena-Hard v0.1: two games per prompt with the responses swapped, and a verdict in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import fmean

import yaml

from ..data.schema import Row
from ..llm.client import CachedClient, PendingRequest
from ..llm.cost import Messages
from ..llm.errors import RequestFailed
from .comparisons import Comparison, win_rate_in_percent

STRONG = 3.0  # weight of a ">>", as published
VERDICTS = {  # → weighted wins of A and of B
    "A>>B": (STRONG, 0.0),
    "A>B": (1.0, 0.0),
    "A=B": (0.5, 0.5),
    "B>A": (0.0, 1.0),
    "B>>A": (0.0, STRONG),
}
_LABEL = re.compile(r"\[\[([AB<>=]+)\]\]")
TRIES = 2
UNCLEAR = "several verdicts that differ"
NONE = "no verdict"
CUT = "cut off at max_tokens"


@dataclass(frozen=True)
class Game:
    """One game."""

    verdict: str | None  # one of `VERDICTS`; None if the judge gave none
    judgment: str
    reason: str | None = None  # why there is no verdict


class ArenaHard:
    """Arena-Hard v0.1: two games per comparison, whose verdicts a Bradley-Terry model turns into a win rate.

    `names` are those of the reference and of the model.
    """

    def __init__(self, comparisons: Sequence[Comparison], names: tuple[str, str], judge: str) -> None:
        self.comparisons, self.names, self.judge = comparisons, names, judge

    def pending(self) -> Iterator[PendingRequest]:
        for one in self.comparisons:
            for swapped in (False, True):
                yield PendingRequest(partial(play, one, swapped), max(one.response, one.reference, key=len))

    def verdicts(self, answers: Sequence[Game]) -> list[Row]:
        rows = []
        for number, one in enumerate(self.comparisons):
            games = answers[2 * number : 2 * number + 2]
            reasons = "; ".join(game.reason for game in games if game.reason)
            row = {
                "id": one.id,
                "question_id": one.name,
                "model": self.names[1],
                "judge": self.judge,
                "games": [{"judgment": game.judgment, "score": game.verdict} for game in games],
            }
            rows.append(row | ({"reason": reasons} if reasons else {}))
        return rows

    def summary(self, verdicts: Sequence[Row]) -> Row:
        scored = [[game["score"] for game in row["games"]] for row in verdicts]
        labels = [label for games in scored for label in games]
        outcomes = [found for games in scored if (found := outcome(games))]
        counts = {"n": len(outcomes), "verdicts": len(labels), "unreadable": labels.count(None)}
        if not outcomes:
            return counts
        return {
            **counts,
            **win_rate_in_percent([won for won, _ in outcomes], [won + lost for won, lost in outcomes]),
            "length_controlled_win_rate": None,
            "length": fmean(one.tokens for one in self.comparisons),
        }

    def write(self, folder: Path) -> None:
        pass


@cache
def prompts() -> dict[str, str]:
    """Load the published prompts: `system`, `user`, and `again` for a judgment without a verdict."""
    return yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def messages(comparison: Comparison, swapped: bool) -> Messages:
    """Return the judge's prompt; the reference is A in the first game, and B in the second, swapped one."""
    answers = (comparison.reference, comparison.response)
    first, second = answers[::-1] if swapped else answers
    text = prompts()["user"].format(question_1=comparison.prompt, answer_1=first, answer_2=second)
    return [{"role": "system", "content": prompts()["system"]}, {"role": "user", "content": text}]


async def play(comparison: Comparison, swapped: bool, client: CachedClient) -> Game:
    """Play one game. A judgment without a label is continued once, as published.

    Raises:
        UserErrors: Fatal error.
    """
    conversation, judgment, cut = messages(comparison, swapped), "", ""
    for _ in range(TRIES):
        try:
            response = await client.complete(conversation)
        except RequestFailed as error:
            return Game(None, judgment, str(error))
        judgment += "\n" + response.text
        verdict, reason = read_verdict(judgment)
        if reason != NONE:
            return Game(verdict, judgment, reason)
        cut = f", {CUT}" if response.finish_reason == "length" else ""
        again = [{"role": "assistant", "content": response.text}, {"role": "user", "content": prompts()["again"]}]
        conversation = [*conversation, *again]
    return Game(None, judgment, f"{NONE}{cut}")


def read_verdict(judgment: str) -> tuple[str | None, str | None]:
    """Read the verdict, or say why there is none. One label that is repeated counts; two that differ don't."""
    labels = set(_LABEL.findall(judgment))
    if not labels:
        return None, NONE
    if len(labels) > 1:
        return None, UNCLEAR
    (label,) = labels
    return (label, None) if label in VERDICTS else (None, f"a verdict that is none of the five: {label}")


def outcome(verdicts: Sequence[str | None]) -> tuple[float, float] | None:
    """Compute the weighted wins and losses of the judged model over both games of a prompt.

    None if a game has no verdict: the other one alone would bring in the judge's position bias. (The published script
    counts it.) In the first game the model is B, in the second A.
    """
    if None in verdicts:
        return None
    (lost, won), (won_swapped, lost_swapped) = (VERDICTS[str(verdict)] for verdict in verdicts)
    return won + won_swapped, lost + lost_swapped
