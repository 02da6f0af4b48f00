"""Prefix sharing and packing: a batch of sequences as prefix trees in rows without padding.

Sequences that begin alike share their beginning. Laid down depth first, the responses w₁ w₂ and l₁ of a prompt p₁ p₂
whose common part is c₁, and a second prompt that begins with p₁, become the row

    token      p₁   p₂ c₁   w₁ w₂   l₁   q₂ q₃ …
    position   0    1  2    3  4    3    1  2  …
    node       0    1       2       3    4
    parent     −    0       1       1    0

A token sees its own node up to itself and the nodes above it: what it would see in a sequence of its own, so its hidden
state is the same up to rounding. No (prefix, token) is computed twice.

Each segment (tokens that lie together) attends causally to the path that leads to it: on a GPU all of them in one
launch (`bmc.training.varlen`), elsewhere by a call of SDPA each, or by flex_attention. There is no mask of row × row,
and nothing is computed between branches that don't see each other.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from accelerate.utils import is_peft_model
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from trl.data_utils import common_prefix_length

from . import varlen
from .trl_compat import attention_implementation, takes_attention_functions


@dataclass(frozen=True)
class Tree:
    """How the tokens of a row hang together."""

    sizes: tuple[int, ...]  # tokens of each node, in the order of the row
    # number of the node that each node follows on; −1 for one that begins a sequence. A node comes after its parent,
    # and all that hangs on a node before the next sibling
    parents: tuple[int, ...]

    def paths(self) -> list[tuple[int, ...]]:
        """List the nodes that lead to each node, itself included."""
        paths: list[tuple[int, ...]] = []
        for node, parent in enumerate(self.parents):
            paths.append((*paths[parent], node) if parent >= 0 else (node,))
        return paths

    def padded(self, tokens: int) -> Tree:
        """Append so many tokens of padding, as a root of their own."""
        return Tree((*self.sizes, tokens), (*self.parents, -1)) if tokens else self


class PackedRow(NamedTuple):
    """Several sequences in one."""

    ids: list[int]  # token ids
    positions: list[int]  # position ids, one a token
    tree: Tree  # how they hang together
    places: list[list[int]]  # for each sequence, the index in `ids` of each of its tokens


def pack_sequences(sequences: Sequence[list[int]], share: bool) -> PackedRow:
    """Pack sequences of token ids into one row; with `share` what several begin with is laid down once."""
    row = PackedRow([], [], Tree((), ()), [[] for _ in sequences])
    sizes: list[int] = []
    parents: list[int] = []

    def grow(members: list[int], depth: int, parent: int) -> None:
        """Append what the members have in common from `depth` on, then what differs, branch by branch."""
        texts = [sequences[member] for member in members]
        end = common_prefix_length(min(texts), max(texts)) if len(texts) > 1 else len(texts[0])
        if end > depth:
            start = len(row.ids)
            row.ids.extend(texts[0][depth:end])
            row.positions.extend(range(depth, end))
            for member in members:
                row.places[member].extend(range(start, len(row.ids)))
            sizes.append(end - depth)
            parents.append(parent)
            parent = len(sizes) - 1
        branches: dict[int, list[int]] = {}
        for member in members:
            if len(sequences[member]) > end:
                branches.setdefault(sequences[member][end], []).append(member)
        for branch in branches.values():
            grow(branch, end, parent)

    for members in [list(range(len(sequences)))] if share else [[member] for member in range(len(sequences))]:
        grow(members, 0, -1)
    return row._replace(tree=Tree(tuple(sizes), tuple(parents)))


TREE_ATTENTION = "bmc_tree"
KINDS = {"full_attention", "sliding_attention"}
# what a model may have been loaded with: tree attention takes its place, and computes the same without trees
REPLACED = ("sdpa", "flash_attention_2", "flash_attention_3")
# what models hand to their attention beside masks, and what changes no result here
HARMLESS = {
    "position_ids", "cache_position", "use_cache", "output_hidden_states", "output_router_logits", "return_dict",
}  # fmt: skip


class Segment(NamedTuple):
    """Tokens that lie together and whose keys are one path: `size` of them, at the end of the nodes `path`."""

    size: int
    path: tuple[int, ...]


@lru_cache(maxsize=64)
def segments(tree: Tree) -> tuple[Segment, ...]:
    """List the segments of a row, in its order: one ends where the next node doesn't follow on the last."""
    nodes, paths = len(tree.sizes), tree.paths()
    starts = [node for node, parent in enumerate(tree.parents) if parent < 0 or parent != node - 1]
    return tuple(Segment(sum(tree.sizes[start:end]), paths[end - 1]) for start, end in pairwise([*starts, nodes]))


def tree_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    trees: tuple[Tree, ...] | None = None,
    tree_index: varlen.VarlenIndex | None = None,
    tree_kernel: str = "loop",
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend over trees, or as SDPA does where there are none; transformers' attention interface.

    `query` is (R, heads, S, head size), `key` and `value` (R, key heads, S, head size); the result is
    `((R, S, heads, head size), None)`. With `trees`, one a row, the mask isn't looked at. `tree_kernel` is one of
    `varlen.KERNELS`, which needs `tree_index`, or of `varlen.LOOPS`, which also serve where a kernel can't take the
    states. `sliding_window` are the tokens that a token sees of its path, itself included.

    Raises:
        RuntimeError: The model gave no trees where its mask says that there are some.
        NotImplementedError: The model wants something of its attention that trees don't have (a soft cap, sinks).
    """
    if trees is None:
        if attention_mask is not None and attention_mask.numel() == 1:
            raise RuntimeError(f"{type(module).__name__} was given no trees; set prefix_sharing and packing to false")
        kwargs |= {} if is_causal is None else {"is_causal": is_causal}
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    _refuse_unknown(module, kwargs, is_causal)
    kind = query.device.type
    if torch.is_autocast_enabled(kind):  # as SDPA does by itself
        query, key, value = (states.to(torch.get_autocast_dtype(kind)) for states in (query, key, value))
    if tree_index is not None and tree_kernel in varlen.KERNELS and varlen.takes(tree_kernel, query, value, dropout):
        kernel = varlen.KERNELS[tree_kernel]
        return varlen.attend_segments(kernel, query, key, value, tree_index, sliding_window, scaling), None
    key, value = (repeat_kv(states, query.size(1) // states.size(1)) for states in (key, value))
    rows = zip(query.split(1), key.split(1), value.split(1), trees, strict=True)
    by_name = tree_kernel != "loop"
    # cuDNN, which PyTorch may prefer, builds a plan for each new shape, and nearly all shapes are new
    with sdpa_kernel(BACKENDS) if query.is_cuda else contextlib.nullcontext():
        output = torch.cat([_attend(*row, sliding_window, dropout, scaling, by_name) for row in rows])
    return output.transpose(1, 2).contiguous(), None


def _refuse_unknown(module: Any, options: dict[str, Any], is_causal: bool | None) -> None:
    """Raise NotImplementedError where a model hands its attention something that trees don't have."""
    given = {name for name, value in options.items() if value is not None and value is not False}
    unknown = sorted(given - HARMLESS)
    if is_causal is False:
        unknown.append("is_causal=False")
    if unknown:
        raise NotImplementedError(f"{type(module).__name__} asks its attention for {', '.join(unknown)}")


BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tree: Tree,
    window: int | None,
    dropout: float,
    scaling: float | None,
    by_name: bool,
) -> Tensor:
    """Attend over one row, a segment at a time; (1, heads, S, head size).

    `by_name`: a causal mask is named to SDPA, where one will do, so that it may run FlashAttention.
    """
    queries = query.split([segment.size for segment in segments(tree)], dim=2)
    keys, values = key.split(tree.sizes, dim=2), value.split(tree.sizes, dim=2)
    outputs = []
    for own, segment in zip(queries, segments(tree), strict=True):
        seen, said = (torch.cat([nodes[node] for node in segment.path], dim=2) for nodes in (keys, values))
        sizes, mask = (own.size(2), seen.size(2)), None
        whole = window is None or sizes[1] <= window
        plain = whole and sizes[0] == sizes[1]
        if not plain:
            mask = causal_lower_right(*sizes) if whole and by_name else _band(*sizes, window, own.device)
        outputs.append(F.scaled_dot_product_attention(own, seen, said, mask, dropout, is_causal=plain, scale=scaling))
    return torch.cat(outputs, dim=2)


def _band(queries: int, keys: int, window: int | None, device: torch.device) -> Tensor:
    """Mask a segment whose keys end with the queries' own; bool (queries, keys), True where a query sees a key."""
    distance = torch.arange(keys - queries, keys, device=device)[:, None] - torch.arange(keys, device=device)
    return (distance >= 0) & (distance < (window or keys))


# Without trees (generation, other callers) it is SDPA, masks and all.
AttentionInterface.register(TREE_ATTENTION, tree_attention)
AttentionMaskInterface.register(TREE_ATTENTION, sdpa_mask)


def tree_mask_mod(trees: tuple[Tree, ...], positions: Tensor, window: int | None = None) -> Any:
    """Make flex_attention's `mask_mod(row, head, query, key) -> bool` of the trees."""
    device, nodes = positions.device, max(len(tree.sizes) for tree in trees)
    node_of = torch.stack(
        [torch.arange(len(tree.sizes)).repeat_interleave(torch.tensor(tree.sizes)) for tree in trees]
    ).to(device)
    above = torch.zeros(len(trees), nodes, nodes, dtype=torch.bool)
    for row, tree in enumerate(trees):
        for node, path in enumerate(tree.paths()):
            above[row, node, list(path)] = True
    above = above.to(device)

    def mask_mod(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = above[row, node_of[row, query], node_of[row, key]] & (key <= query)
        return seen if window is None else seen & (positions[row, query] - positions[row, key] < window)

    return mask_mod


def index_trees(trees: Sequence[Tree]) -> varlen.VarlenIndex:
    """Index the keys of each segment of a batch's rows, all of the same number of tokens."""
    return varlen.index_segments([(tree.sizes, segments(tree)) for tree in trees])


def attention_arguments(
    config: Any,
    trees: tuple[Tree, ...],
    positions: Tensor,
    index: varlen.VarlenIndex | None = None,
    kernel: str = "loop",
) -> dict[str, Any]:
    """Make the arguments that a model's forward needs, beside ids and positions (R, S), to see the trees, one a row.

    `index` (`index_trees`) is for a kernel of `varlen.KERNELS`.
    """
    if attention_implementation(config) == TREE_ATTENTION:
        # a mask of four axes is handed on as it is; without one the model would make its own, as large as row × row
        mask = positions.new_ones(1, 1, 1, 1)
        return {"trees": trees, "tree_index": index, "tree_kernel": kernel, "attention_mask": mask}
    from torch.nn.attention.flex_attention import create_block_mask

    rows, length = positions.shape
    window, kinds = getattr(config, "sliding_window", None), set(getattr(config, "layer_types", None) or ())

    def block_mask(seen: int | None) -> Any:
        mask_mod = tree_mask_mod(trees, positions, seen)
        return create_block_mask(mask_mod, rows, None, length, length, device=str(positions.device))

    if "sliding_attention" in kinds:
        return {"attention_mask": {"full_attention": block_mask(None), "sliding_attention": block_mask(window)}}
    return {"attention_mask": block_mask(None if kinds else window)}  # without kinds, all layers have the window


def unsupported_reason(model: Any) -> str | None:
    """Say why a causal language model, perhaps with an adapter, can't take trees; None where only a trial can tell
    (`bmc.training.tree_check`)."""
    lm = causal_lm(model)
    config = lm.config.get_text_config()
    attention, kinds = attention_implementation(config), set(getattr(config, "layer_types", None) or ["full_attention"])
    if attention not in (*REPLACED, TREE_ATTENTION, "flex_attention"):
        return f"{attention} can't hide one branch from another; sdpa, flash_attention_2 and flex_attention can"
    takes_positions = "position_ids" in inspect.signature(type(lm).forward).parameters
    if kinds - KINDS or not takes_positions or not takes_attention_functions(lm):
        return "the model's layers don't go by mask and position ids alone"
    if lm is not model and model.active_peft_config.is_prompt_learning:
        return "prompt learning puts tokens in front"
    return None


def has_dropout(model: Any) -> bool:
    """Return whether a model drops numbers at random while it is trained; what sequences share would be dropped
    alike in all of them."""
    rate = getattr(causal_lm(model).config.get_text_config(), "attention_dropout", None)
    return bool(rate) or any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())


def use_tree_attention(model: Any, wanted: bool = True) -> None:
    """Have a model see trees where they are given, or no longer; without trees it computes what it did before."""
    lm = causal_lm(model)
    now = attention_implementation(lm.config.get_text_config())
    if wanted and now in REPLACED:
        lm._attention_before_trees = now
        lm.set_attn_implementation(TREE_ATTENTION)
    elif not wanted and now == TREE_ATTENTION:
        lm.set_attn_implementation(attention_without_trees(lm))


def attention_without_trees(model: Any) -> str:
    """Name the attention that a model has, or had before trees were set up."""
    lm = causal_lm(model)
    now = attention_implementation(lm.config.get_text_config())
    return getattr(lm, "_attention_before_trees", "sdpa") if now == TREE_ATTENTION else now


def causal_lm(model: Any) -> Any:
    """Return the language model under an adapter."""
    return model.get_base_model() if is_peft_model(model) else model
