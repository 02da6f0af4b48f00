"""Chat templates: one rendering of a prompt for training, sampling and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import Fault, Faults, fail
from .schema import Row


def read_template(chat_template: str | None) -> str | None:
    """The Jinja text that a recipe's `chat_template` means; None for the tokenizer's own.

    Raises:
        Faults: It is a path of no file.
    """
    if chat_template is None or not chat_template.endswith(".jinja"):
        return chat_template
    try:
        return Path(chat_template).read_text(encoding="utf-8")
    except OSError as error:
        raise fail("chat_template", f"{chat_template} cannot be read: {error.strerror}") from None


def encode_prompt(tokenizer: Any, prompt: Any) -> list[int]:
    """Token ids of a prompt as a model is given it: messages by the chat template with its generation prompt, a
    string as it stands with the tokenizer's special tokens.

    These are the ids that TRL's trainers put before a response.
    """
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"]
    return tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)[
        "input_ids"
    ]


def check_template(tokenizer: Any, rows: Any, responses: tuple[str, ...], where: str, most: int = 5) -> None:
    """Renders every conversation once, so that a template that refuses one says so before any work is done.

    Args:
        tokenizer: With its chat template set.
        rows: Rows with `prompt` and the columns in `responses`, or with `messages`.
        responses: Columns that follow the prompt.
        where: What to call the data in a fault.
        most: Faults to name at the most.

    Raises:
        Faults: A row is refused, or there are messages but no template.
    """
    from jinja2 import TemplateError, TemplateSyntaxError

    faults: list[Fault] = []
    for number, row in enumerate(rows, start=1):
        for conversation in _conversations(row, responses):
            if tokenizer.chat_template is None:
                raise fail("chat_template", "the tokenizer has none; name one in the recipe")
            try:
                tokenizer.apply_chat_template(conversation, tokenize=False)
            except TemplateSyntaxError as error:
                raise fail("chat_template", f"is no Jinja template (line {error.lineno}: {error.message})") from None
            except (TemplateError, ValueError, TypeError, KeyError) as error:
                roles = ", ".join(message.get("role", "none") for message in conversation)
                faults.append(
                    Fault(f"{where}: row {number}", f"the chat template refuses its messages (roles {roles}): {error}")
                )
                break
        if len(faults) >= most:
            break
    if faults:
        raise Faults(*faults)


def _conversations(row: Row, responses: tuple[str, ...]) -> list[list[dict[str, str]]]:
    if row.get("messages"):
        return [row["messages"]]
    if not isinstance(row.get("prompt"), list):
        return []
    return [row["prompt"] + row[name] for name in responses if isinstance(row.get(name), list)] or [row["prompt"]]
