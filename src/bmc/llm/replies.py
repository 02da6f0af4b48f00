"""What a model that was asked says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Result = TypeVar("Result")
LONG = 2_000  # characters; below, work on a text takes no more than a millisecond


class NoReply(Exception):
    """There is no reply to this request, and another try won't mend that; the message says why."""


@dataclass(frozen=True)
class Reply:
    """What a model said.

    Attributes:
        text: Its words; empty where it said nothing.
        finish_reason: Why it stopped, in the words of the chat-completions protocol: `stop`, `length`, …
        prompt_tokens: Tokens that it read.
        completion_tokens: Tokens that it wrote.
        first_token: What might have stood in the place of its first token, as `{"token": …, "logprob": …}` each; None
            where the request asks for no log-probabilities.
    """

    text: str
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    first_token: list[dict[str, Any]] | None = None


async def off_loop(size: int, work: Callable[..., Result], *arguments: Any) -> Result:
    """Do work on long texts in a thread: while the event loop stands still, requests in flight time out although they
    are answered, and are paid for twice.

    Args:
        size: Characters.
        work: What to do.
        arguments: Its arguments.
    """
    return work(*arguments) if size < LONG else await asyncio.to_thread(work, *arguments)
