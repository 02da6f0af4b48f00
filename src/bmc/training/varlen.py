"""Attention over a batch of prefix trees in one kernel launch, by kernels for sequences of any length.

A segment of a tree is a "sequence" whose queries are its own tokens and whose keys are the whole path that leads to it,
so it has more keys than queries. Queries of all segments already lie end to end in the rows. Keys and values are
gathered by an index that is computed once a micro-batch (`index_segments`); tokens that several segments share are
repeated there, as keys and values only.

Kernels with a causal mask aligned at the end, where the last query sees the last key, then compute what is wanted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)


class VarlenIndex(TypedDict):
    """Where the segments of a batch begin, and which tokens are their keys."""

    keys: Tensor  # index of each key among the tokens of all rows; int64 (K,)
    cu_queries: Tensor  # queries before each segment, and after the last; int32 (segments + 1,)
    cu_keys: Tensor  # the same of keys
    max_queries: int  # queries of the largest segment
    max_keys: int  # keys of the one with the most


def index_segments(rows: Sequence[tuple[Sequence[int], Sequence[tuple[int, Sequence[int]]]]]) -> VarlenIndex:
    """Index the keys of each segment.

    A row is the tokens of its nodes, and its segments in their order: tokens, and nodes of the path, whose last tokens
    are the segment's own. All rows have the same number of tokens.
    """
    keys, queries, counts, start = [np.empty(0, dtype=np.int64)], [0], [0], 0
    for sizes, segments in rows:
        bounds = start + np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        for size, path in segments:
            spans = [np.arange(bounds[node], bounds[node + 1]) for node in path]
            keys += spans
            queries.append(size)
            counts.append(sum(map(len, spans)))
        start = int(bounds[-1])
    return {
        "keys": torch.from_numpy(np.concatenate(keys)),
        "cu_queries": torch.tensor(np.cumsum(queries), dtype=torch.int32),
        "cu_keys": torch.tensor(np.cumsum(counts), dtype=torch.int32),
        "max_queries": max(queries),
        "max_keys": max(counts),
    }


class Gather(torch.autograd.Function):
    """Gather rows; their gradients are added up in float32. Every segment of a batch may share a token, and a sum of
    a hundred bfloat16 numbers, rounded after each, is wrong in its first digits."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.count = len(rows)
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Sum the gradient of each row over the places that it was gathered to."""
        (index,) = ctx.saved_tensors
        wide = torch.promote_types(slope.dtype, torch.float32)
        total = slope.new_zeros((ctx.count, *slope.shape[1:]), dtype=wide)
        return total.index_add_(0, index, slope.to(wide)).to(slope.dtype), None


def attend_segments(
    kernel: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    index: VarlenIndex,
    window: int | None = None,
    scaling: float | None = None,
) -> Tensor:
    """Attend over all segments of all R rows of S tokens in one call of a kernel (`KERNELS`); (R, S, heads, head size).

    `query` is (R, heads, S, head size), `key` and `value` (R, key heads, S, head size). `window` are the tokens that a
    token sees of its path, itself included; `scaling`, of the scores, is by default 1/√(head size).
    """
    rows, heads, length, size = query.shape
    queries, keys, values = (states.transpose(1, 2).reshape(-1, *states.shape[1::2]) for states in (query, key, value))
    output = kernel(
        queries,
        Gather.apply(keys, index["keys"]),
        Gather.apply(values, index["keys"]),
        index["cu_queries"],
        index["cu_keys"],
        index["max_queries"],
        index["max_keys"],
        scale=scaling,
        # kernels count the tokens to the left of a token's own
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=key.size(1) != heads,
    )
    return output.view(rows, length, heads, size)


def plain_varlen_attn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    """Compute what `torch.nn.attention.varlen.varlen_attn` does, in plain PyTorch: slow, on any device, in any dtype.

    `query` is (queries of all sequences, heads, head size), and so is the result, 0 for a query that sees no key; `key`
    and `value` are (keys of all sequences, key heads, head size). `cu_seq_q` are the queries before each sequence, and
    after the last, (sequences + 1,), `cu_seq_k` the same of keys. `window_size` are the tokens that a query sees to the
    left and right of its own place, where the last query's place is that of the last key; −1 for all.
    """
    if key.size(1) != query.size(1):
        if not enable_gqa:
            raise ValueError(f"{query.size(1)} heads for {key.size(1)} key heads need enable_gqa")
        key, value = (states.repeat_interleave(query.size(1) // key.size(1), dim=1) for states in (key, value))
    scale = query.size(-1) ** -0.5 if scale is None else scale
    left, right = (float("inf") if side < 0 else side for side in window_size)
    queries, keys, values = (
        states.split(cu.diff().tolist()) for states, cu in ((query, cu_seq_q), (key, cu_seq_k), (value, cu_seq_k))
    )
    outputs = []
    for q, k, v in zip(queries, keys, values, strict=True):
        places = torch.arange(len(q), device=q.device)[:, None] + len(k) - len(q)
        distance = places - torch.arange(len(k), device=q.device)
        seen = (distance <= left) & (-distance <= right)
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        # a finite floor: the softmax of a row of −∞ would be nan, here it is uniform and then 0
        weights = scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(dim=-1) * seen
        outputs.append(torch.einsum("hqk,khd->qhd", weights, v))
    return torch.cat(outputs)


def torch_varlen_attn(*args: Any, enable_gqa: bool, **options: Any) -> Tensor:
    """Call PyTorch's own kernel, FlashAttention-2; CUDA, 16 bits. Its early versions take grouped heads unasked."""
    from torch.nn.attention.varlen import varlen_attn

    grouped = {"enable_gqa": enable_gqa} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
    return varlen_attn(*args, **grouped, **options)


def flash_attn_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """Call the package flash-attn, whose causal mask is aligned at the end since its version 2.1."""
    from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found,unused-ignore]

    sizes = {"softmax_scale": scale, "causal": True, "window_size": window_size}
    return flash_attn_varlen_func(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, **sizes)


# name → a function of varlen_attn's arguments
KERNELS: dict[str, Callable[..., Tensor]] = {
    "varlen_attn": torch_varlen_attn,
    "flash_attn": flash_attn_varlen,
    "plain": plain_varlen_attn,
}
LOOPS = ("lower_right", "loop")  # a call of SDPA for each segment: with a causal mask by name, or a mask of bools


@cache
def candidates(device: str) -> tuple[str, ...]:
    """Name the ways to attend over trees on a kind of device, the fastest first; the last needs nothing."""
    if device != "cuda":
        return LOOPS[-1:]
    kernels = [name for name in ("varlen_attn", "flash_attn") if _is_there(name)]
    return (*kernels[:1], *LOOPS)


def _is_there(name: str) -> bool:
    try:
        if name == "varlen_attn":
            from torch.nn.attention.varlen import varlen_attn

            return {"window_size", "scale"} <= inspect.signature(varlen_attn).parameters.keys()
        from flash_attn import flash_attn_varlen_func

        return "window_size" in inspect.signature(flash_attn_varlen_func).parameters
    except ImportError:
        return False


def takes(name: str, query: Tensor, value: Tensor, dropout: float) -> bool:
    """Tell whether a kernel can compute with these states, (R, heads, S, head size); those of a GPU have limits."""
    if name == "plain":
        return not dropout
    size = query.size(-1)
    fits = query.is_cuda and query.dtype in HALF and size == value.size(-1) and size % 8 == 0 and size <= 256
    return fits and not dropout
