"""Arena-Hard v0.1: two games a prompt, the answers' places swapped, and a verdict in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from ..llm.client import CachedClient
from ..llm.cost import Messages
from ..llm.errors import RequestFailed
from .comparisons import Comparison

STRONG = 3.0  # what a ">>" weighs, as published
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
    """One game.

    Attributes:
        verdict: One of `VERDICTS`; None where the judge gave none.
        judgement: All that the judge said.
        reason: Why there is no verdict.
    """

    verdict: str | None
    judgement: str
    reason: str | None = None


@cache
def prompts() -> dict[str, str]:
    """The published prompt: `system`, `user`, and `again` for a judgement without a verdict."""
    return yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def messages(comparison: Comparison, swapped: bool) -> Messages:
    """What the judge is asked; the reference is A in the first game and B in the second, swapped one."""
    first, second = (
        (comparison.response, comparison.reference) if swapped else (comparison.reference, comparison.response)
    )
    words = prompts()["user"].format(question_1=comparison.prompt, answer_1=first, answer_2=second)
    return [{"role": "system", "content": prompts()["system"]}, {"role": "user", "content": words}]


async def play(comparison: Comparison, swapped: bool, client: CachedClient) -> Game:
    """One game. A judgement without a label is to be continued, once, as published.

    Raises:
        Faults: The run can't go on.
    """
    asked, said, cut = messages(comparison, swapped), "", ""
    for _ in range(TRIES):
        try:
            reply = await client.complete(asked)
        except RequestFailed as error:
            return Game(None, said, str(error))
        said += "\n" + reply.text
        verdict, reason = read_verdict(said)
        if reason != NONE:
            return Game(verdict, said, reason)
        cut = f", {CUT}" if reply.finish_reason == "length" else ""
        asked = [*asked, {"role": "assistant", "content": reply.text}, {"role": "user", "content": prompts()["again"]}]
    return Game(None, said, f"{NONE}{cut}")


def read_verdict(judgement: str) -> tuple[str | None, str | None]:
    """The verdict of a judgement, or why there is none. One label that is repeated counts; two that differ don't."""
    labels = set(_LABEL.findall(judgement))
    if not labels:
        return None, NONE
    if len(labels) > 1:
        return None, UNCLEAR
    (label,) = labels
    return (label, None) if label in VERDICTS else (None, f"a verdict that is none of the five: {label}")


def outcome(verdicts: Sequence[str | None]) -> tuple[float, float] | None:
    """Compute the weighted wins and losses of the judged model over both games of a prompt.

    None where a game has no verdict: the other one alone would bring in the judge's liking of a place. (The published
    script counts it.)

    Args:
        verdicts: Of the first game, whose B is the model, and of the second, whose A it is.
    """
    if None in verdicts:
        return None
    (lost, won), (won_swapped, lost_swapped) = (VERDICTS[str(verdict)] for verdict in verdicts)
    return won + won_swapped, lost + lost_swapped
