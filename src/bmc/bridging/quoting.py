"""What a run would ask: the very work of the run, with a model that only notes what it is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from ..bridge_config import BridgeConfig, BridgeMode
from ..data.pairs import SIDES
from ..data.schema import Row, content
from .asking import StoredAsker
from .cost import Messages, Meter, Quote, TokenCounter, prompt_text
from .edit import EditError
from .prompts import VERSION, score_request
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


async def note_requests(row: Row, make: Make, asker: StoredAsker, mode: BridgeMode) -> None:
    """Has an asker of `Notes` note what a row asks beyond what is kept, some of it perhaps twice."""
    if mode == "token_scores":  # the second response's scores don't wait for the first's
        for side in SIDES:
            messages, _ = score_request(content(row["prompt"]), content(row[side]))
            with contextlib.suppress(Unanswered):
                await asker.look(messages)
    with contextlib.suppress(EditError, Unanswered):
        await make(row)


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
    expected, noted = 0.0, set[str]()

    def note(messages: Messages, key: str) -> None:
        if key in noted:
            return
        noted.add(key)
        found.asked += 1
        found.prompt_tokens += count(prompt_text(messages))
        found.completion_tokens += min(expected, config.max_tokens)

    meter = Meter(found.price)
    asker = StoredAsker(Notes(note), config, VERSION, store, meter)
    make = making(asker)
    for row in rows:
        found.rows += 1
        expected = count(content(row[_subject(config)]))
        noted.clear()
        await note_requests(row, make, asker, config.mode)
    found.kept, found.kept_dollars = int(meter.used["replies"]), meter.used["dollars"]
    return found


def _subject(config: BridgeConfig) -> str:
    """The text that an answer is about, and about as long as."""
    return "chosen" if config.mode in ("degrade", "polish", "fresh", "token_scores") else "rejected"
