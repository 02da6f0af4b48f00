"""Pairs to measure on: text of words from the model's vocabulary, with edits where a bridge would make them.

What costs time is how many tokens there are and where the first edit lies. A rejected response is drawn, and one to
three edits make the chosen one of it, the first somewhere between a quarter of the response and its end. The two then
share 60 % of their tokens from the start; bridged pairs of the SmolLM2 recipes share 55 % (math, 104 pairs) to 72 %
(qa, 300 pairs).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

Row = dict[str, Any]


class Shape(NamedTuple):
    """Ranges, in words, of what is drawn."""

    prompt: tuple[int, int]
    response: tuple[int, int]
    edit: tuple[int, int]


SHAPES = {
    "qa": Shape(prompt=(35, 75), response=(35, 65), edit=(1, 5)),  # an ECQA question, its explanation and answer
    "long": Shape(prompt=(35, 75), response=(620, 780), edit=(5, 30)),
}


def draw(shape: Shape, tokenizer: Any, seed: int) -> Iterator[Row]:
    """Endless pairs in TRL's conversational format."""
    rng = random.Random(seed)
    words = [
        token[1:] for token in tokenizer.get_vocab() if token.startswith("Ġ") and token[1:].isalpha() and len(token) > 2
    ]
    words.sort()

    def text(count: int) -> list[str]:
        return rng.choices(words, k=count)

    while True:
        rejected = text(rng.randint(*shape.response))
        chosen, start = list(rejected), int(rng.uniform(0.25, 0.95) * len(rejected))
        for _ in range(rng.randint(1, 3)):
            chosen[start : start + rng.randint(*shape.edit)] = text(rng.randint(*shape.edit))
            start = rng.randint(start, len(chosen))
        prompt = " ".join(text(rng.randint(*shape.prompt)))
        yield {
            "prompt": [{"role": "user", "content": prompt}],
            "chosen": [{"role": "assistant", "content": " ".join(chosen)}],
            "rejected": [{"role": "assistant", "content": " ".join(rejected)}],
        }


def exact_length(tokens: int, share: float, seed: int, vocabulary: int) -> Row:
    """A tokenised pair of two sequences of `tokens` tokens, a quarter prompt; `share` of the response is common."""
    return tokenised(tokens // 4, tokens - tokens // 4, share, seed, vocabulary)


def tokenised(prompt_tokens: int, response_tokens: int, share: float, seed: int, vocabulary: int) -> Row:
    """A pair of random tokens; the responses begin with the same `share` of their tokens."""
    rng = random.Random(seed)

    def ids(count: int) -> list[int]:
        return [rng.randrange(100, vocabulary) for _ in range(count)]

    prompt, common = ids(prompt_tokens), ids(int(share * response_tokens))
    chosen, rejected = (common + ids(response_tokens - len(common)) for _ in range(2))
    return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
