"""Render and tokenise prompts and responses as TRL's trainers do, and map tokens to characters.

One rendering of a prompt serves training, sampling and evaluation. For SFT the tokens that the assistant wrote are
masked, with or without {% generation %} markers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError
from rapidfuzz.distance import Prefix

from ..errors import UserError, UserErrors, user_error
from .schema import Row, Text, assistant, content, digest, tools_of, user

Span = tuple[int, int]
# puts an empty system turn before messages that have none; part of the template, so that it is saved with the tokenizer
_EMPTY_SYSTEM = (
    "{% if messages and messages[0]['role'] != 'system' %}"
    "{% set messages = [{'role': 'system', 'content': ''}] + messages %}{% endif %}"
)


def read_template(chat_template: str | None) -> str | None:
    """Read the Jinja text that a recipe's `chat_template` names; None for the tokenizer's own.

    Raises:
        UserErrors: It is a path, and there is no such file.
    """
    if chat_template is None or not chat_template.endswith(".jinja"):
        return chat_template
    try:
        return Path(chat_template).read_text(encoding="utf-8")
    except OSError as error:
        raise user_error("chat_template", f"{chat_template} cannot be read: {error.strerror}") from None


def with_empty_system(template: str) -> str:
    """Add an empty system turn to a chat template for messages that don't begin with a system turn.

    This is `auto_insert_empty_system_msg` of the alignment-handbook: only templates that know system turns are changed.
    As a part of the template it holds for training, sampling, evaluation and users of the saved tokenizer.
    """
    knows_system = "system" in template or "<|im_start|>" in template
    return template if not knows_system or template.startswith(_EMPTY_SYSTEM) else _EMPTY_SYSTEM + template


def template_options(row: Row) -> dict[str, Any]:
    """Return the arguments that a row passes to its chat template besides the messages, as TRL's trainers do."""
    return {"tools": tools_of(row), **(row.get("chat_template_kwargs") or {})}


def encode_prompt(tokenizer: Any, row: Row) -> list[int]:
    """Tokenise a row's prompt as TRL's trainers put it before a response.

    Messages go through the chat template, with its generation prompt; a string gets the tokenizer's special tokens.
    """
    prompt = row["prompt"]
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"]
    return tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, tokenize=True, return_dict=True, **template_options(row)
    )["input_ids"]


def turn_end(tokenizer: Any) -> int | None:
    """Find the token with which the chat template ends an assistant's turn; None if there is none.

    It is the first EOS or added token after the assistant's words (ChatML's <|im_end|>, Llama 3's <|eot_id|>).
    """
    ids = tokenizer.encode(_closing(tokenizer), add_special_tokens=False)
    ends = {tokenizer.eos_token_id, *tokenizer.get_added_vocab().values()}
    return next((token for token in ids if token in ends), None)


def _closing(tokenizer: Any) -> str:
    """Return what the chat template writes after the assistant's last words."""
    mark = "0b5e3c9a"
    conversation = [*user("Hello"), *assistant(mark)]
    if not tokenizer.chat_template:
        return ""
    try:
        _, found, closing = tokenizer.apply_chat_template(conversation, tokenize=False).rpartition(mark)
        return closing if found else ""
    except (TemplateError, ValueError, TypeError, KeyError):  # `check_template` reports it
        return ""


def check_turn_end(tokenizer: Any) -> None:
    """Check that a chat template teaches a token to stop at.

    Raises:
        UserErrors: No special token follows the assistant's words.
    """
    if turn_end(tokenizer) is not None:
        return
    eos, closing = tokenizer.eos_token, _closing(tokenizer)
    if closing.strip():
        what = f"ends the assistant's turn with {closing!r}, in which there is no special token of the tokenizer"
    else:
        what = "ends the assistant's turn without a special token of the tokenizer"
    raise user_error(
        "chat_template",
        f"{what}, so that a model trained with it would never stop; write {{{{ eos_token }}}} after the assistant's "
        f"content (eos_token is {eos!r}), or name a tokenizer that has the token",
    )


def check_template(tokenizer: Any, rows: Any, responses: tuple[str, ...], where: str, most: int = 5) -> None:
    """Render every conversation once, so that a template that refuses one is found before any work is done.

    Raises:
        UserErrors: The template refuses a row, or there are messages but no template.
    """
    faults: list[UserError] = []
    for number, row in enumerate(rows, start=1):
        for conversation in _conversations(row, responses):
            if tokenizer.chat_template is None:
                raise user_error("chat_template", "the tokenizer has none; name one in the recipe")
            prompted = conversation is row.get("prompt")  # alone, as before a response
            try:
                tokenizer.apply_chat_template(
                    conversation, add_generation_prompt=prompted, tokenize=False, **template_options(row)
                )
            except TemplateSyntaxError as error:
                raise user_error(
                    "chat_template", f"is no Jinja template (line {error.lineno}: {error.message})"
                ) from None
            except (TemplateError, ValueError, TypeError, KeyError) as error:
                roles = ", ".join(message.get("role", "none") for message in conversation)
                faults.append(
                    UserError(
                        f"{where}: row {number}", f"the chat template refuses its messages (roles {roles}): {error}"
                    )
                )
                break
        if len(faults) >= most:
            break
    if faults:
        raise UserErrors(*faults)


def _conversations(row: Row, responses: tuple[str, ...]) -> list[list[dict[str, str]]]:
    if row.get("messages"):
        return [row["messages"]]
    if not isinstance(row.get("prompt"), list):
        return []
    whole = [row["prompt"] + row[name] for name in responses if isinstance(row.get(name), list)]
    return [*whole, row["prompt"]]


class AlignmentError(Exception):
    """Report that a response can't be found in its tokens; the message is a `reason` in `dropped.jsonl`."""


@dataclass(frozen=True)
class AlignedTokens:
    """Hold prompt and response as a model is trained on them."""

    ids: list[int]  # token ids of both
    # for each token, the characters [start, end) of `content(response)` that it stands for; (0, 0) for tokens of the
    # prompt and the template, and EOS
    spans: list[Span]


def check_offsets(tokenizer: Any) -> None:
    """Check that a tokenizer can map tokens to characters.

    Raises:
        UserErrors: It can't.
    """
    if not tokenizer.is_fast:
        what = f"{type(tokenizer).__name__} can't tell which characters its tokens stand for"
        raise user_error("tokenizer_name_or_path", f"{what}; name a model with a tokenizer.json")


def align_response(tokenizer: Any, row: Row, response: Text) -> AlignedTokens:
    """Tokenise prompt and response together, and map each token to characters of the response.

    As in `trl.DPOTrainer._prepare_dataset`, messages go through the chat template, with the row's `tools` and
    `chat_template_kwargs`; strings end with EOS.

    Raises:
        AlignmentError: The chat template changes the response's words, beyond the whitespace around them.
    """
    if isinstance(response, str):
        words = response.removesuffix(tokenizer.eos_token or "")
        rendered, places = row["prompt"] + words + (tokenizer.eos_token or ""), [(len(row["prompt"]), 0, len(words))]
    else:
        rendered, places = _render(tokenizer, row, response)
    origin: list[int | None] = [None] * len(rendered)  # place in the response of each rendered character
    for place, start, length in places:
        origin[place : place + length] = range(start, start + length)
    special = isinstance(response, str)  # a template writes the special tokens itself
    encoded = tokenizer(rendered, add_special_tokens=special, return_offsets_mapping=True)
    spans = []
    for start, end in encoded["offset_mapping"]:
        inside = [place for place in origin[start:end] if place is not None]
        spans.append((inside[0], inside[-1] + 1) if inside else (0, 0))
    return AlignedTokens(encoded["input_ids"], spans)


def _render(tokenizer: Any, row: Row, response: Any) -> tuple[str, list[tuple[int, int, int]]]:
    """Render a conversation; for each message of the response return (place there, place in its content, length)."""
    render = partial(tokenizer.apply_chat_template, tokenize=False, **template_options(row))
    rendered = render([*row["prompt"], *response])
    mark = digest(rendered)  # occurs nowhere else, so it shows where a template puts a message's words
    pieces = render([*row["prompt"], *({**message, "content": mark} for message in response)]).split(mark)
    given = [message.get("content") or "" for message in response]
    for texts in (given, [text.strip() for text in given]):  # many templates trim
        if len(pieces) == len(texts) + 1 and "".join(map(str.__add__, pieces, [*texts, ""])) == rendered:
            break
    else:
        raise AlignmentError("the chat template changes the response")
    places, place, start = [], 0, 0
    for piece, whole, text in zip(pieces[:-1], given, texts, strict=True):
        place += len(piece)
        places.append((place, start + whole.index(text), len(text)))
        place, start = place + len(text), start + len(whole) + len("\n\n")  # as `content` joins messages
    return rendered, places


def response_start(tokenizer: Any, row: Row, *sequences: list[int]) -> int:
    """Return the token at which the responses to a prompt begin, as the trainer counts.

    It is the length of the common prefix of the prompt's own tokens and all the sequences: tokens that merge prompt and
    response belong to the response.
    """
    prompt = row["prompt"]
    if isinstance(prompt, str):
        ids = tokenizer(prompt)["input_ids"]
    else:
        rendered = tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, tokenize=False, **template_options(row)
        )
        ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    together = 0
    while all(together < len(other) and ids[together : together + 1] == [other[together]] for other in sequences):
        together += 1
    return together


def response_prefix(tokenizer: Any, row: Row, response: Text, fraction: float) -> tuple[list[int], str]:
    """Cut a share of the tokens off the beginning of a response, at least one and not all, for a model to continue.

    Returns the token ids of prompt and beginning, and the text of the beginning. No character is cut in two.

    Raises:
        AlignmentError: There is no such beginning.
    """
    if not isinstance(response, str) and len(response) > 1:
        raise AlignmentError("y_w is several messages")
    tokens = align_response(tokenizer, row, response)
    first = response_start(tokenizer, row, tokens.ids)
    places = [place for place in range(first, len(tokens.ids)) if tokens.spans[place] != (0, 0)]
    ends = [tokens.spans[place][1] for place in places]
    starts = [tokens.spans[place][0] for place in places]
    cuts = [count for count in range(1, len(places)) if ends[count - 1] <= starts[count]]
    if not cuts:
        raise AlignmentError("y_w has no tokens between which to cut it")
    count = min(cuts, key=lambda count: abs(count - fraction * len(places)))
    return tokens.ids[: places[count - 1] + 1], content(response)[: ends[count - 1]]


class ContinuationDecoder:
    """Decode tokens as the continuation of a text.

    A tokenizer like Llama 2's drops the space at the beginning of a text, which here separates two words.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._before = tokenizer("a", add_special_tokens=False)["input_ids"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def decode(self, ids: list[int], **options: Any) -> str:
        """Decode ids that follow other text."""
        before = self._tokenizer.decode(self._before, **options)
        return self._tokenizer.decode([*self._before, *ids], **options)[len(before) :]


class MaskError(Exception):
    """Report that an assistant's turn can't be found in a rendered conversation; the message says which one."""


def has_markers(template: str | None) -> bool:
    """Tell whether a chat template has {% generation %} markers."""
    return template is not None and "endgeneration" in template


def mark_assistant(row: Row, tokenizer: Any) -> Row:
    """Tokenise a row as `trl.SFTTrainer` does, with the masks of the tokens that count in its loss.

    `assistant_masks` is 1 for tokens of the assistant's turns; `completion_mask`, for a row with a `completion`, 1
    after the prompt.

    Raises:
        MaskError: The assistant's turns can't be found, or there are none.
    """
    options = template_options(row)
    prompt = row.get("prompt") or []
    messages = row["messages"] if "messages" in row else [*prompt, *row["completion"]]
    made: Row = {}
    if has_markers(tokenizer.chat_template):
        encoded = tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **options
        )
        made = {"input_ids": encoded["input_ids"], "assistant_masks": encoded["assistant_masks"]}
    else:
        text, spans = assistant_spans(tokenizer, messages, options)
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        offsets = encoded["offset_mapping"]
        mask = [int(any(start < last and end > first for first, last in spans)) for start, end in offsets]
        made = {"input_ids": encoded["input_ids"], "assistant_masks": mask}
    if 1 not in made["assistant_masks"]:
        raise MaskError("there is no message of the assistant's")
    if prompt:
        ids = tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, tokenize=True, return_dict=True, **options
        )
        start = Prefix.similarity(ids["input_ids"], made["input_ids"])
        made["completion_mask"] = [int(place >= start) for place in range(len(made["input_ids"]))]
    return made


def assistant_spans(tokenizer: Any, messages: list[dict[str, Any]], options: dict[str, Any]) -> tuple[str, list[Span]]:
    """Render a conversation and find the characters [start, end) of the assistant's turns in it.

    A turn starts where the messages before it, rendered with a generation prompt, end: where the model would begin to
    write. It ends after the last end-of-turn token before the next message's words, with the white space that follows;
    or else where the messages up to it, rendered alone, end.

    Raises:
        MaskError: A turn isn't found.
    """
    render = partial(tokenizer.apply_chat_template, tokenize=False, **options)
    conversation = _Conversation(render, messages, render(messages))
    stop = turn_end(tokenizer)
    ends = None if stop is None else (tokenizer.decode([stop]), "|".join(map(re.escape, tokenizer.get_added_vocab())))
    spans: list[Span] = []
    for place, message in enumerate(messages):
        if message["role"] == "assistant":
            start = conversation.turn_start(place)
            end = -1 if start is None else conversation.turn_stop(place, start, ends)
            if start is None or end <= start or (spans and start < spans[-1][1]):
                what = f"the assistant's message {place + 1} can't be found in what the chat template makes of it"
                raise MaskError(what)
            spans.append((start, end))
    return conversation.whole, spans


@dataclass(frozen=True)
class _Conversation:
    """Hold messages, the function that renders them, and the rendered text."""

    render: Any
    messages: list[dict[str, Any]]
    whole: str

    def turn_start(self, place: int) -> int | None:
        """Return where a turn starts; None if that can't be found.

        Rendered alone, the messages before it may end differently (a generation prompt that opens a thought) but must
        not begin differently. If a template moves tools or a system message to the last user's turn, the place of the
        message's words decides.
        """
        alone = self._rendered(place, add_generation_prompt=True) if place else None
        if alone is not None:
            agrees = Prefix.similarity(alone, self.whole)
            if agrees == len(alone) or agrees >= Prefix.similarity(self._rendered(place) or "", alone):
                return agrees
        found = self._words(place)
        return found[0] if found else None

    def turn_stop(self, place: int, start: int, ends: tuple[str, str] | None) -> int:
        """Return where a turn that starts at `start` ends.

        `ends` is the token that ends one, and a pattern of all tokens that may; None if there is none.
        """
        whole = self.whole
        later = (self._words(number) for number in range(place + 1, len(self.messages)))
        bound = next((found[0] for found in later if found), None)
        if bound is None:
            return len(whole)
        alone = self._rendered(place + 1)
        least = len(alone) if alone and whole.startswith(alone) and len(alone) <= bound else start
        if ends and (found := whole.rfind(ends[0], start, bound)) >= 0:
            return max(least, _blank_after(whole, found + len(ends[0]), bound))
        words = self._words(place)
        if words is None or least > start:
            return least
        closing = re.compile(rf"\s*(?:{ends[1]})").match(whole, words[1], bound) if ends else None
        return _blank_after(whole, closing.end(), bound) if closing else words[1]

    def _rendered(self, count: int, **options: Any) -> str | None:
        """Render the first messages alone; None if the template refuses them, as Qwen3.5 does without a user turn."""
        try:
            return self.render(self.messages[:count], **options)
        except TemplateError:
            return None

    def _words(self, place: int) -> Span | None:
        """Find a message's words: where the rendered text changes with them; None if it doesn't."""
        other = {**self.messages[place], "content": digest(self.whole)}
        changed = self.render([*self.messages[:place], other, *self.messages[place + 1 :]])
        if changed == self.whole:
            return None
        return Prefix.similarity(changed, self.whole), len(self.whole) - Prefix.similarity(
            changed[::-1], self.whole[::-1]
        )


def _blank_after(text: str, start: int, end: int) -> int:
    """Return the end of the white space at `start`."""
    return start + len(text[start:end]) - len(text[start:end].lstrip())
