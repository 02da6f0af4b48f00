"""What a model that was asked says."""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    text: str
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
