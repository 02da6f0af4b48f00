"""What bridging asks for each pair, to be quoted or sent by files."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator

from ..config import BridgeConfig
from ..data.schema import SIDES, Row, content, transcript
from ..llm.client import CachedClient, CacheMiss, PendingRequest
from .edit import EditError
from .prompts import PROMPTS, score_request

MARK = "3f0a91"  # of no request: six hexadecimal digits, as marks are
Make = Callable[[Row], Awaitable[Row]]  # raises EditError where a pair is to be dropped


def jobs(rows: Iterable[Row], config: BridgeConfig, making: Callable[[CachedClient], Make]) -> Iterator[PendingRequest]:
    """What each row asks.

    Args:
        rows: (x, y_w, y_l).
        config: The recipe.
        making: An client → what makes a pair with it.
    """
    for row in rows:
        yield _job(row, config, making)


def _job(row: Row, config: BridgeConfig, making: Callable[[CachedClient], Make]) -> PendingRequest:
    async def ask(client: CachedClient) -> None:
        if config.mode == "token_scores":  # the second response's scores don't wait for the first's
            for side in SIDES:
                messages, _ = score_request(transcript(row["prompt"]), content(row[side]))
                with contextlib.suppress(CacheMiss):
                    await client.prefetch(messages)
        with contextlib.suppress(EditError):
            await making(client)(row)

    return PendingRequest(ask, _like(row, config))


def _like(row: Row, config: BridgeConfig) -> str:
    """A reply as the prompt asks for it, with the text that it is about in place of the edit."""
    if config.mode == "token_scores":
        return content(row["chosen"])
    subject = content(row["chosen" if config.mode in ("degrade", "polish", "fresh") else "rejected"])
    prompt = PROMPTS[config.mode, config.template]
    verdict = "<verdict>edit</verdict>\n" if prompt.judges else ""
    return f"{verdict}<{prompt.tag} {MARK}>\n{subject}\n</{prompt.tag} {MARK}>"
