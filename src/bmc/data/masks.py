"""Mask the tokens of a conversation that the assistant wrote, with or without {% generation %} markers."""

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
    """Report that an assistant's turn can't be found in a rendered conversation; the message says which one."""


def has_markers(template: str | None) -> bool:
    """Tell whether a chat template has {% generation %} markers."""
    return template is not None and "endgeneration" in template


def mark_assistant(row: Row, tokenizer: Any) -> Row:
    """Tokenise a row as `trl.SFTTrainer` does, with the masks of the tokens that count in its loss.

    Args:
        row: A row with `messages`, or `prompt` and `completion`.
        tokenizer: With its chat template.

    Returns:
        `input_ids`; `assistant_masks`, 1 for tokens of the assistant's turns; and for a `completion`,
        `completion_mask`, 1 after the prompt.

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
        start = common_prefix_length(ids["input_ids"], made["input_ids"])
        made["completion_mask"] = [int(place >= start) for place in range(len(made["input_ids"]))]
    return made


def assistant_spans(tokenizer: Any, messages: list[dict[str, Any]], options: dict[str, Any]) -> tuple[str, list[Span]]:
    """Render a conversation and find the assistant's turns in it.

    A turn starts where the messages before it, rendered with a generation prompt, end: where the model would begin to
    write. It ends after the last end-of-turn token before the next message's words, with the white space that follows;
    or else where the messages up to it, rendered alone, end.

    Args:
        tokenizer: With its chat template.
        messages: The conversation.
        options: Other arguments of the chat template.

    Returns:
        The text, and the characters [start, end) of each turn.

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
            agrees = common_prefix_length(alone, self.whole)
            if agrees == len(alone) or agrees >= common_prefix_length(self._rendered(place) or "", alone):
                return agrees
        found = self._words(place)
        return found[0] if found else None

    def turn_stop(self, place: int, start: int, ends: tuple[str, str] | None) -> int:
        """Return where a turn that starts at `start` ends.

        Args:
            place: Number of the message.
            start: Result of `turn_start`.
            ends: The token that ends a turn, and a pattern of all that may; None if there is none.
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
        return common_prefix_length(changed, self.whole), len(self.whole) - common_prefix_length(
            changed[::-1], self.whole[::-1]
        )


def _blank_after(text: str, start: int, end: int) -> int:
    """Return the end of the white space at `start`."""
    return start + len(text[start:end]) - len(text[start:end].lstrip())
