"""Arena-Hard's scheme, with verdicts worked out by hand."""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from bmc.evaluation.arena_hard import messages, outcome, play, prompts, read_verdict
from bmc.evaluation.comparisons import Comparison
from bmc.llm.client import Completion
from bmc.llm.errors import RequestFailed

PAIR = Comparison("r1", "q1", "Use {braces}?", "ours {x}", "theirs")


class Judge:
    """Responds as the script says to (conversation, its number)."""

    def __init__(self, script: Callable[[Any, int], str]) -> None:
        self.script = script
        self.seen: list[Any] = []

    async def complete(self, messages: Any) -> Completion:
        self.seen.append(messages)
        return Completion(self.script(messages, len(self.seen)), "stop", 1, 1)


def test_the_prompt_is_the_published_one() -> None:
    """Digests of the texts in Arena-Hard-Auto's files; who changes a prompt can't compare results any more."""
    digests = {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in prompts().items()}
    assert digests == {"system": "03f68010febd7a64", "user": "b0260904bc964e0d", "again": "b563c9a80bd3c968"}


def test_the_reference_is_a_first_and_b_second() -> None:
    for swapped, answers in ((False, ("theirs", "ours {x}")), (True, ("ours {x}", "theirs"))):
        system, user = messages(PAIR, swapped)
        assert system == {"role": "system", "content": prompts()["system"]}
        wanted = "<|User Prompt|>\nUse {braces}?\n\n"
        for letter, answer in zip("AB", answers, strict=True):
            wanted += (
                f"<|The Start of Assistant {letter}'s Answer|>\n{answer}\n<|The End of Assistant {letter}'s Answer|>"
            )
            wanted += "\n\n" if letter == "A" else ""
        assert user == {"role": "user", "content": wanted}


def test_verdicts(subtests: pytest.Subtests) -> None:
    rows = [
        ("My final verdict is tie: [[A=B]].", "A=B", None), ("[[A>>B]] … I say [[A>>B]]", "A>>B", None),
        ("[[B>A]]", "B>A", None), ("[[B>>A]]", "B>>A", None), ("[[A>B]]", "A>B", None), ("A>B", None, "no verdict"),
        ("", None, "no verdict"),
        ("[[A>B]] or [[B>A]]", None, "several verdicts that differ"),
        ("[[A<B]]", None, "a verdict that is none of the five: A<B"),
        ("[[A]]", None, "a verdict that is none of the five: A")
    ]  # fmt: skip
    for judgment, verdict, reason in rows:
        with subtests.test(judgment):
            assert read_verdict(judgment) == (verdict, reason)


def test_what_two_games_are_worth(subtests: pytest.Subtests) -> None:
    rows = [
        (("B>A", "A>B"), 2.0, 0.0),  # the model is B, then A
        (("B>>A", "A>>B"), 6.0, 0.0),
        (("A>>B", "B>A"), 0.0, 4.0),
        (("A>B", "A>B"), 1.0, 1.0),  # the first one wins, whoever it is
        (("A=B", "A=B"), 1.0, 1.0),
        (("A=B", "A>>B"), 3.5, 0.5),
    ]
    for verdicts, won, lost in rows:
        with subtests.test(verdicts=verdicts):
            assert outcome(verdicts) == (won, lost)
            # one game alone tells of the judge's position bias
            assert outcome((None, verdicts[1])) is outcome((verdicts[0], None)) is None


def test_a_judgment_without_verdict_is_continued_once() -> None:
    judge = Judge(lambda messages, number: "Hm." if number == 1 else "So [[B>A]].")
    game = asyncio.run(play(PAIR, False, judge))
    assert (game.verdict, game.judgment, game.reason) == ("B>A", "\nHm.\nSo [[B>A]].", None)
    assert judge.seen[1] == [
        *messages(PAIR, False),
        {"role": "assistant", "content": "Hm."},
        {"role": "user", "content": "continue your judgment and finish by outputting a final verdict label"},
    ]


def test_nonsense_is_no_verdict() -> None:
    judge = Judge(lambda messages, number: "Banana.")
    assert asyncio.run(play(PAIR, True, judge)).reason == "no verdict"
    assert len(judge.seen) == 2
    judge = Judge(lambda messages, number: "[[A>B]] [[B>A]]")
    assert asyncio.run(play(PAIR, True, judge)).reason == "several verdicts that differ"
    assert len(judge.seen) == 1


def test_a_row_error_is_no_verdict() -> None:
    def refuses(messages: Any, number: int) -> str:
        raise RequestFailed("endpoint refuses the request: too long, or filtered")

    game = asyncio.run(play(PAIR, False, Judge(refuses)))
    assert (game.verdict, game.reason) == (None, "endpoint refuses the request: too long, or filtered")
