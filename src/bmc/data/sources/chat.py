"""Conversations, pairs, and prompts of instructions."""

from __future__ import annotations

from ..schema import Row, split_prompt, user


def messages(raw: Row, column: str) -> list[dict[str, str]]:
    """A column's messages with nothing but role and content.

    Raises:
        KeyError: The column, or a message's role or content, is missing.
        ValueError: The column holds no list of messages.
    """
    if not isinstance(raw[column], list) or not all(isinstance(message, dict) for message in raw[column]):
        raise ValueError(f"{column}: must be a list of messages with `role` and `content`")
    return [{"role": message["role"], "content": message["content"]} for message in raw[column]]


def ultrachat_200k(raw: Row) -> Row:
    """`{"prompt": "…", "prompt_id": "…", "messages": [{"role": "user", "content": "…"}, …]}`"""
    return {"source": "ultrachat_200k", "task": "chat", "messages": messages(raw, "messages")}


def ultrafeedback(raw: Row) -> Row:
    """`{"prompt": "…", "chosen": [{"role": "user", …}, {"role": "assistant", …}], "rejected": [...], …}`"""
    pair = {"prompt": raw["prompt"], "chosen": messages(raw, "chosen"), "rejected": messages(raw, "rejected")}
    return {"source": "ultrafeedback", "task": "chat", **split_prompt(pair)}


def alpaca_eval(raw: Row) -> Row:
    """`{"dataset": "helpful_base", "instruction": "…?", "output": "…", "generator": "text_davinci_003"}`"""
    row = {"source": "alpaca_eval", "task": "chat", "prompt": user(raw["instruction"])}
    extra = {"reference": raw.get("output"), "dataset": raw.get("dataset")}
    return row | {column: value for column, value in extra.items() if value is not None}


def arena_hard(raw: Row) -> Row:
    """`{"question_id": "328c…", "category": "…", "cluster": "…", "turns": [{"content": "Use ABC notation …"}]}`"""
    if not raw["turns"]:
        raise ValueError("turns: is empty")
    row = {"source": "arena_hard", "task": "chat", "prompt": user(raw["turns"][0]["content"])}
    return row | ({} if raw.get("question_id") is None else {"question_id": str(raw["question_id"])})
