"""Check prefix sharing on the model itself: the log-probs of a small tree against those of its sequences alone.

What a model's code does with masks, windows and positions can't be read off its configuration. The sequences are as
long as the longest that are trained on, so that every window is reached that training will reach.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow.compute as pc
import torch
from torch import Tensor

from .collator import Batch, DataCollatorForBMC
from .token_weights import RESPONSES

ROUNDING = 1e-3  # nats a token; float32 leaves about 1e-5
NOISE = 3  # in lower precision, how many times the difference between two plain layouts may be exceeded
WRONG = 0.3  # nats a token that no precision excuses


class Outcome(NamedTuple):
    """How far log-probs lie apart, as a mean over tokens.

    Attributes:
        error: Between the tree and its sequences alone; infinite where the model can't run a tree.
        noise: Between the sequences padded to a batch and alone: rounding.
        reason: The model's own words where it can't run a tree.
    """

    error: float
    noise: float
    reason: str = ""

    @property
    def passed(self) -> bool:
        return self.error <= max(ROUNDING, min(WRONG, NOISE * self.noise))


def sequences(length: int, vocabulary: int) -> list[tuple[list[int], list[int]]]:
    """Make prompts and responses of random tokens with all that a tree has: a shared beginning that ends within a
    prompt, one that ends within a response, and a sequence that shares nothing.

    Args:
        length: Tokens of the longest, at least 8.
        vocabulary: Number of token ids to draw from.
    """
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(vocabulary, (count,), generator=generator).tolist()

    prompt, common = tokens(length // 4), tokens(length // 4)
    rest = length - len(prompt) - len(common)
    chosen, rejected = common + tokens(rest), common + tokens(max(2, rest - 3))
    return [
        (prompt, chosen),
        (prompt, rejected),
        (prompt[: length // 8] + tokens(2), tokens(4)),
        (tokens(2), tokens(4)),
    ]


def compare(
    pairs: list[tuple[list[int], list[int]]],
    collator: DataCollatorForBMC,
    plain: Callable[[Batch], Tensor],
    with_trees: Callable[[Batch], Tensor],
) -> Outcome:
    """Compare the log-probs of sequences alone, padded, and laid out as the collator does.

    Args:
        pairs: Token ids of prompts and responses.
        collator: The trainer's, which shares prefixes or packs.
        plain: A batch of padded sequences → log π of their response tokens, (N, T), 0 at padding.
        with_trees: The same of a batch with trees. What it raises is the outcome.
    """
    padded = dataclasses.replace(collator, prefix_sharing=False, packing=False)
    alone = [plain(padded.lay_out([pair]))[0] for pair in pairs]

    def apart(logps: Tensor) -> float:
        differences = [(row[: len(own)] - own).abs() for row, own in zip(logps.float(), alone, strict=True)]
        return torch.cat(differences).mean().item()

    noise = apart(plain(padded.lay_out(pairs)))
    try:
        error = apart(with_trees(collator.lay_out(pairs)))
    except Exception as reason:  # a model's code raises whatever it does when it meets what it doesn't know
        return Outcome(float("inf"), noise, f"{type(reason).__name__}: {str(reason).strip().partition(chr(10))[0]}")
    return Outcome(error if error == error else float("inf"), noise)


def longest(dataset: Any) -> int:
    """Count the tokens of the longest sequence of tokenised pairs; fast, for it reads no tokens."""
    prompt, *responses = (pc.list_value_length(dataset.data[column]) for column in ("prompt_ids", *RESPONSES))
    return pc.max(pc.add(prompt, pc.max_element_wise(*responses))).as_py() or 0
