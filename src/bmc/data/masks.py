"""Which tokens of a conversation the assistant wrote, whether or not its chat template marks them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

from jinja2 import TemplateError
from trl.data_utils import common_prefix_length

from .schema import Row, digest
from .tokenization import template_options, turn_end

Span = tuple[int, int]


class MaskError(Exception):
    """The assistant's turns can't be found in a rendered conversation; the message says which one."""


def has_markers(template: str | None) -> bool:
    """Return whether a chat template has {% generation %} markers."""
    return template is not None and "endgeneration" in template


def mark_assistant(row: Row, tokenizer: Any) -> Row:
    """Tokenise a row as `trl.SFTTrainer` does, with the masks that its loss is confined to.

    Args:
        row: With `messages`, or `prompt` and `completion`, and what the chat template reads.
        tokenizer: With its chat template.

    Returns:
        `input_ids`; `assistant_masks`, 1 for a token of the assistant's turns; and for a `completion`,
        `completion_mask`, 1 behind the prompt.

    Raises:
        Unmarkable: The assistant's turns can't be found, or there are none.
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
        start = common_prefix_length(ids["input_ids"], made["input_ids"])
        made["completion_mask"] = [int(place >= start) for place in range(len(made["input_ids"]))]
    return made


def assistant_spans(tokenizer: Any, messages: list[dict[str, Any]], options: dict[str, Any]) -> tuple[str, list[Span]]:
    """Render a conversation and find the assistant's turns in it, as characters.

    A turn starts where the rendered messages before it, with a generation prompt, end: where the model would begin to
    write. It ends behind the last token that ends a turn before the next message's words, with the white space that
    follows; or where the rendered messages up to it stop to agree with the whole.

    Args:
        tokenizer: With its chat template.
        messages: The conversation.
        options: What else the chat template reads.

    Returns:
        The text, and [start, end) of each turn.

    Raises:
        Unmarkable: A turn isn't found.
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
    """Messages, what renders them, and the text that it makes of them."""

    render: Any
    messages: list[dict[str, Any]]
    whole: str

    def turn_start(self, place: int) -> int | None:
        """Return where a turn starts; None where it can't be told.

        The messages before it may end differently alone (a generation prompt that opens a thought), but must not begin
        differently: where a template moves tools or a system message to the last user's turn, the words tell instead.
        """
        alone = self._rendered(place, add_generation_prompt=True) if place else None
        if alone is not None:
            agrees = common_prefix_length(alone, self.whole)
            if agrees == len(alone) or agrees >= common_prefix_length(self._rendered(place) or "", alone):
                return agrees
        found = self._words(place)
        return found[0] if found else None

    def turn_stop(self, place: int, start: int, ends: tuple[str, str] | None) -> int:
        """Return where a turn that starts at `start` ends.

        Args:
            place: The message's.
            start: As `turn_start` has it.
            ends: The token that ends the last turn, and a pattern of those that may end another one; None for none.
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
        """Render the first messages alone; None where the template refuses them, as Qwen3.5 does without a user."""
        try:
            return self.render(self.messages[:count], **options)
        except TemplateError:
            return None

    def _words(self, place: int) -> Span | None:
        """Return where a message's words are: where the conversation changes with them; None where it doesn't."""
        other = {**self.messages[place], "content": digest(self.whole)}
        changed = self.render([*self.messages[:place], other, *self.messages[place + 1 :]])
        if changed == self.whole:
            return None
        return common_prefix_length(changed, self.whole), len(self.whole) - common_prefix_length(
            changed[::-1], self.whole[::-1]
        )


def _blank_after(text: str, start: int, end: int) -> int:
    """Return where the white space that begins at `start` ends."""
    return start + len(text[start:end]) - len(text[start:end].lstrip())
