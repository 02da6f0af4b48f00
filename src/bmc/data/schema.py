"""The rows that the stages hand to one another, and what must hold of them.

A text is a string, or a list of messages (`[{"role": "user", "content": "…"}]`), as in TRL. Rows of

- prompts: `prompt`, and where it is known `answer`;
- SFT: `prompt`, `completion`; or `messages`, a whole conversation;
- pairs: `prompt`, `chosen`, `rejected`; the prompt may also stand inside both responses, as in UltraFeedback.

Besides these, rows carry `id`, `source` and `task` (`qa`, `math`, `chat`).
"""

from __future__ import annotations

import hashlib
from typing import Any

from ..errors import Fault, Faults

Text = str | list[dict[str, str]]
Row = dict[str, Any]

PAIR = ("prompt", "chosen", "rejected")
TASKS = ("qa", "math", "chat")


def user(content: str) -> list[dict[str, str]]:
    """A prompt of one user message."""
    return [{"role": "user", "content": content}]


def assistant(content: str) -> list[dict[str, str]]:
    """A response of one assistant message."""
    return [{"role": "assistant", "content": content}]


def content(text: Text) -> str:
    """The words of a prompt or response, its messages joined by blank lines."""
    return text if isinstance(text, str) else "\n\n".join(message["content"] for message in text)


def with_content(text: Text, words: str) -> Text:
    """A response of the same form as `text` that says `words`."""
    return words if isinstance(text, str) else [*text[:-1], {**text[-1], "content": words}]


def digest(text: str) -> str:
    """A name for a text that doesn't change with its place, file or process."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def share(text: str) -> float:
    """A number in [0, 1) that belongs to a text: choosing those below p takes p of all texts, nested in p."""
    return int(hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:13], 16) / 16**13


def split_prompt(row: Row) -> Row:
    """A pair whose prompt is a list of its own if its responses are, as TRL's `extract_prompt` would have it.

    UltraFeedback gives `prompt` as a string and repeats it as the first message of both responses.
    """
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        return row
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    prompt = row.get("prompt")
    if not shared:
        return {**row, "prompt": user(prompt)} if isinstance(prompt, str) else row
    return {**row, "prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}


def check(rows: Any, columns: tuple[str, ...], where: str, most: int = 20) -> None:
    """Looks at every row before anything is spent on them.

    Args:
        rows: The rows, in the order of their file.
        columns: The texts that each must have and that must not be empty.
        where: What to call the data in a fault.
        most: Faults to name at the most.

    Raises:
        Faults: A column is missing, a text is empty or no text, a row mixes strings and messages, or the responses of
            a pair are equal.
    """
    faults: list[Fault] = []
    for number, row in enumerate(rows, start=1):
        faults += [Fault(f"{where}: row {number}", what) for what in _row_faults(row, columns)]
        if len(faults) >= most:
            faults = [*faults[:most], Fault(where, f"more rows may be at fault; these are the first {most}")]
            break
    if faults:
        raise Faults(*faults)


def _row_faults(row: Row, columns: tuple[str, ...]) -> list[str]:
    found = []
    for column in columns:
        text = row.get(column)
        if text is None:
            found.append(f"{column}: is missing; there are {', '.join(sorted(row))}")
        elif not _is_text(text) or (column == "messages" and isinstance(text, str)):
            kinds = "a list" if column == "messages" else "a string or a list"
            found.append(f"{column}: must be {kinds} of messages with `role` and `content`")
        elif not content(text).strip():
            found.append(f"{column}: is empty; write it or remove the row")
    mixed = sorted(column for column in columns if isinstance(row.get(column), str))
    if not found and mixed and len(mixed) < len(columns):
        found.append(f"{', '.join(mixed)}: a string, but the rest are messages; make them alike")
    if not found and "rejected" in columns and content(row["chosen"]) == content(row["rejected"]):
        found.append("rejected: equals chosen, so there is no preference; remove the row")
    return found


def _is_text(text: Any) -> bool:
    return isinstance(text, str) or (
        isinstance(text, list)
        and all(
            isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))
            for message in text
        )
    )
