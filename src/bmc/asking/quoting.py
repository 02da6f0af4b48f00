"""What a run would ask: the very work of the run, with a model that only notes what it is asked."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..config import AskingArguments
from ..errors import fail
from .asker import StoredAsker
from .cost import Messages, Meter, Quote, TokenCounter, prompt_text
from .store import KeptReplies


class Unanswered(Exception):
    """The row waits for an answer."""


class Notes:
    """A `Model` that hands on what it would be asked, and answers nothing."""

    def __init__(self, note: Callable[[Messages, str], None]) -> None:
        self.note = note

    async def answer(self, messages: Messages, key: str) -> dict[str, Any]:
        self.note(messages, key)
        raise Unanswered

    def stop(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


@dataclass(frozen=True)
class Job:
    """What one row asks.

    Attributes:
        ask: Asks it, of the asker that it is given; may raise `Unanswered`, and nothing else that is the row's.
        like: A text about as long as an answer.
    """

    ask: Callable[[StoredAsker], Awaitable[object]]
    like: str


async def note_requests(job: Job, asker: StoredAsker) -> None:
    """Has an asker of `Notes` note what a row asks beyond what is kept, some of it perhaps twice."""
    with contextlib.suppress(Unanswered):
        await job.ask(asker)


async def quote(jobs: Iterable[Job], settings: AskingArguments, version: int, store: KeptReplies) -> Quote:
    """What the rows would ask, beyond what the store has.

    Args:
        jobs: One a row.
        settings: How the model is asked.
        version: Of the prompts.
        store: Of the answers.
    """
    count = TokenCounter(settings.model)
    found = Quote(settings, count.how)
    expected, noted = 0.0, set[str]()

    def note(messages: Messages, key: str) -> None:
        if key in noted:
            return
        noted.add(key)
        found.asked += 1
        found.prompt_tokens += count(prompt_text(messages))
        found.completion_tokens += min(expected, settings.max_tokens)

    meter = Meter(found.price)
    asker = StoredAsker(Notes(note), settings, version, store, meter)
    for job in jobs:
        found.rows += 1
        expected = count(job.like)
        noted.clear()
        await note_requests(job, asker)
    found.kept, found.kept_dollars = int(meter.used["replies"]), meter.used["dollars"]
    return found


def confirm(settings: AskingArguments, found: Quote) -> None:
    """Asks on a terminal before anything is paid for.

    Raises:
        Faults: The quote is declined.
    """
    if settings.yes or not found.asked or not sys.stdin.isatty():
        return
    if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise fail("the quote", "was declined, and nothing was asked; --yes goes on without a question")
