"""Pairs and SFT rows as authors published them: the BMC paper's own, and CLAIR's."""

from __future__ import annotations

from collections.abc import Callable

from ..schema import Row, split_prompt
from .chat import messages

REPOSITORY = "https://github.com/YJiangcm/BMC"


def pairs(source: str, task: str) -> Callable[[Row], Row]:
    """Return a loader of pairs whose `chosen` is a bridged response.

    A raw row is `{"chosen": [{"role": "user", …}, {"role": "assistant", …}], "rejected": [...], …}`; the prompt may
    also stand in `prompt`, as text or messages. y_w, before it was bridged, isn't there.
    """

    def to_row(raw: Row) -> Row:
        pair: Row = {"chosen": messages(raw, "chosen"), "rejected": messages(raw, "rejected")}
        if raw.get("prompt") is not None:
            pair["prompt"] = raw["prompt"] if isinstance(raw["prompt"], str) else messages(raw, "prompt")
        row = {"source": source, "task": task, **split_prompt(pair)}
        if not row.get("prompt"):
            raise ValueError("chosen, rejected: begin with different messages, and there is no prompt")
        return row

    return to_row


def sft(source: str, task: str) -> Callable[[Row], Row]:
    """Return a loader of `{"prompt_id": "qa_0", "messages": [{"role": "user", …}, {"role": "assistant", …}]}`."""

    def to_row(raw: Row) -> Row:
        *prompt, response = messages(raw, "messages")
        if not prompt or response["role"] != "assistant":
            raise ValueError("messages: must be a prompt and an assistant's response")
        return {"source": source, "task": task, "prompt": prompt, "completion": [response]}

    return to_row
