"""Chat templates: one rendering of a prompt for training, sampling and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import Fault, Faults, fail
from .schema import Row, assistant, tools_of, user


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


def with_empty_system(template: str) -> str:
    """Return a chat template that begins with an empty system turn where the messages begin with another one.

    This is `auto_insert_empty_system_msg` of the alignment-handbook: a template that doesn't speak of the system (or is
    ChatML) stays as it is. As a part of the template it holds for training, sampling and evaluation alike, and for
    whoever uses the tokenizer that is saved with the model.
    """
    speaks = "system" in template or "<|im_start|>" in template
    return template if not speaks or template.startswith(_EMPTY_SYSTEM) else _EMPTY_SYSTEM + template


_EMPTY_SYSTEM = (
    "{% if messages and messages[0]['role'] != 'system' %}"
    "{% set messages = [{'role': 'system', 'content': ''}] + messages %}{% endif %}"
)


def template_options(row: Row) -> dict[str, Any]:
    """Return what a row hands to its chat template besides the messages, as TRL's trainers do."""
    return {"tools": tools_of(row), **(row.get("chat_template_kwargs") or {})}


def encode_prompt(tokenizer: Any, row: Row) -> list[int]:
    """Return the token ids of a row's prompt as a model is given it: messages by the chat template with its generation
    prompt, a string as it stands with the tokenizer's special tokens.

    These are the ids that TRL's trainers put before a response.
    """
    prompt = row["prompt"]
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"]
    return tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, tokenize=True, return_dict=True, **template_options(row)
    )["input_ids"]


def turn_end(tokenizer: Any) -> int | None:
    """Return the token that the chat template writes after an assistant's words, and so ends a response: the first
    that is eos or an added token (ChatML's <|im_end|>, Llama 3's <|eot_id|>). None where there is no such token.
    """
    ids = tokenizer.encode(_closing(tokenizer), add_special_tokens=False)
    ends = {tokenizer.eos_token_id, *tokenizer.get_added_vocab().values()}
    return next((token for token in ids if token in ends), None)


def _closing(tokenizer: Any) -> str:
    """Return what the chat template writes after the assistant's last words; nothing where there is no template."""
    from jinja2 import TemplateError

    mark = "0b5e3c9a"
    conversation = [*user("Hello"), *assistant(mark)]
    if not tokenizer.chat_template:
        return ""
    try:
        _, found, closing = tokenizer.apply_chat_template(conversation, tokenize=False).rpartition(mark)
        return closing if found else ""
    except (TemplateError, ValueError, TypeError, KeyError):  # as `check_template` will tell
        return ""


def check_turn_end(tokenizer: Any) -> None:
    """Refuse a chat template that teaches no token to stop at.

    Raises:
        Faults: What follows the assistant's words holds no such token.
    """
    if turn_end(tokenizer) is not None:
        return
    eos, closing = tokenizer.eos_token, _closing(tokenizer)
    if closing.strip():
        what = f"ends the assistant's turn with {closing!r}, in which there is no special token of the tokenizer"
    else:
        what = "ends the assistant's turn without a special token of the tokenizer"
    raise fail(
        "chat_template",
        f"{what}, so that a model trained with it would never stop; write {{{{ eos_token }}}} after the assistant's "
        f"content (eos_token is {eos!r}), or name a tokenizer that has the token",
    )


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
            prompted = conversation is row.get("prompt")  # as it stands before a response
            try:
                tokenizer.apply_chat_template(
                    conversation, add_generation_prompt=prompted, tokenize=False, **template_options(row)
                )
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
    whole = [row["prompt"] + row[name] for name in responses if isinstance(row.get(name), list)]
    return [*whole, row["prompt"]]
