"""What a run would ask: the very work of the run, with a model that only notes what it is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from ..config import BridgeConfig
from ..data.schema import Row, content
from .asking import StoredAsker
from .cost import Messages, Meter, Quote, TokenCounter, prompt_text
from .edit import EditError
from .prompts import VERSION
from .store import KeptReplies

Make = Callable[[Row], Awaitable[Row]]  # raises EditError where a pair is to be dropped


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


async def go_through(rows: Iterable[Row], make: Make) -> None:
    """Makes of every row what can be made of it without new answers."""
    for row in rows:
        try:
            await make(row)
        except (EditError, Unanswered):
            pass


async def quote(
    rows: Iterable[Row], config: BridgeConfig, making: Callable[[StoredAsker], Make], store: KeptReplies
) -> Quote:
    """What bridging the rows would ask, beyond what the store has.

    Args:
        rows: (x, y_w, y_l).
        config: The recipe.
        making: An asker → what makes a pair with it.
        store: Of the answers.
    """
    count = TokenCounter(config.model)
    found = Quote(config, count.how)
    expected = 0.0

    def note(messages: Messages, key: str) -> None:
        found.asked += 1
        found.prompt_tokens += count(prompt_text(messages))
        found.completion_tokens += min(expected, config.max_tokens)

    meter = Meter(found.price)
    make = making(StoredAsker(Notes(note), config, VERSION, store, meter))
    for row in rows:
        found.rows += 1
        expected = count(content(row[_subject(config)]))
        await go_through([row], make)
    found.kept, found.kept_dollars = int(meter.used["replies"]), meter.used["dollars"]
    return found


def _subject(config: BridgeConfig) -> str:
    """The text that an answer is about, and about as long as."""
    return "chosen" if config.mode in ("degrade", "polish", "fresh", "token_scores") else "rejected"
