"""Prefix sharing: the two responses of a pair in one sequence, what they have in common only once.

A pair with prompt and common response prefix c₁ … cₙ and rests w₁ … and l₁ … becomes the row

    index      0 … n−2   n−1    n …      n+|w|   n+|w|+1 …
    token      c₁ … cₙ₋₁  cₙ     w₁ …     cₙ      l₁ …
    branch     TRUNK     FORK   CHOSEN   REJECTED …
    position   0 … n−2   n−1    n …      n−1     n …

The copy of cₙ lets the usual shift of labels predict both w₁ and l₁. An attention mask hides each branch from the
other, and cₙ from the branch that has its own copy. Every token thus sees what it would see in a sequence of its own,
and its log-probability is the same up to rounding.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor
from trl.data_utils import common_prefix_length

TRUNK, FORK, CHOSEN, REJECTED, PAD = range(5)
# which branch (row) sees which (column); padding sees itself, since a row of no True at all would be NaN
VISIBLE = torch.tensor(
    [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ],
    dtype=torch.bool,
)


class SharedPair(NamedTuple):
    """One row; one entry a token, but for `places`.

    Attributes:
        ids: Token ids.
        positions: Position ids.
        branch: TRUNK, FORK, CHOSEN or REJECTED.
        labels: The token's id if it belongs to a response, else −100.
        places: Index of each token of the losing sequence; that of the winner's is its place there.
    """

    ids: list[int]
    positions: list[int]
    branch: list[int]
    labels: list[int]
    places: list[int]


def share_prefix(chosen: list[int], rejected: list[int], prompt: int) -> SharedPair:
    """Folds two sequences of token ids that begin with the same prompt of at least one token.

    Args:
        chosen: Prompt and winning response.
        rejected: Prompt and losing response.
        prompt: Tokens of the prompt.
    """
    fork = common_prefix_length(chosen, rejected)
    rest_w, rest_l = len(chosen) - fork, len(rejected) - fork
    return SharedPair(
        ids=chosen + rejected[fork - 1 :],
        positions=[*range(len(chosen)), *range(fork - 1, len(rejected))],
        branch=[TRUNK] * (fork - 1) + [FORK] + [CHOSEN] * rest_w + [REJECTED] * (1 + rest_l),
        labels=[-100] * prompt + chosen[prompt:] + [-100] + rejected[fork:],
        places=[*range(fork), *range(len(chosen) + 1, len(chosen) + 1 + rest_l)],
    )


def branch_mask(branch: Tensor) -> Tensor:
    """Who may attend to whom.

    Args:
        branch: Branches of the tokens, int64 (B, T).

    Returns:
        Bool (B, 1, T, T), True where the query (third axis) sees the key (fourth).
    """
    visible = VISIBLE.to(branch.device)[branch[:, :, None], branch[:, None, :]]
    return (visible & torch.ones(visible.shape[-2:], dtype=torch.bool, device=branch.device).tril())[:, None]


def unfold(values: Tensor, places: Tensor, responses: Tensor) -> Tensor:
    """Per-token values of shared rows → those of sequences of their own.

    Args:
        values: (B, S − 1), of every token of the rows but the first.
        places: Index in its row of each token but the first, int64 (2B, T − 1), winners first.
        responses: Which tokens belong to a response, bool (2B, T − 1).

    Returns:
        (2B, T − 1), zero outside the responses.
    """
    return values.repeat(2, 1).gather(1, places - 1) * responses


def obstacle(model: Any, max_length: int | None) -> str | None:
    """Why a model can't take shared rows; None if it can."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if config._attn_implementation != "sdpa":
        return f"{config._attn_implementation} attention takes no mask of its own; sdpa does"
    if kinds - {"full_attention", "sliding_attention"} or not _takes_positions(model):
        return "the model's layers don't go by mask and position ids alone"
    if window is not None and (max_length is None or window < max_length):
        return f"the attention window ({window}) is shorter than max_length"
    if getattr(model, "active_peft_config", None) and model.active_peft_config.is_prompt_learning:
        return "prompt learning puts tokens in front"
    return None


def _takes_positions(model: Any) -> bool:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "position_ids" in inspect.signature(type(base).forward).parameters
