"""What a model that was asked says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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
