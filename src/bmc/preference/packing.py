"""Prefix sharing and packing: a batch of sequences as a forest in rows without padding.

Sequences that begin alike share their beginning. Laid down depth first, the responses w₁ w₂ and l₁ of a prompt p₁ p₂
whose common part is c₁, and a second prompt that begins with p₁, become the row

    token      p₁   p₂ c₁   w₁ w₂   l₁   q₂ q₃ …
    position   0    1  2    3  4    3    1  2  …
    node       0    1       2       3    4
    parent     −    0       1       1    0

A token sees its own node up to itself and the nodes above it (`bmc.preference.attention`): just what it would see in a
sequence of its own, so its hidden state is the same up to rounding. No (prefix, token) is computed twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trl.data_utils import common_prefix_length


@dataclass(frozen=True)
class Tree:
    """How the tokens of a row hang together.

    Attributes:
        sizes: Tokens of each node, in the order of the row.
        parents: Number of the node that each node follows on; −1 for one that begins a sequence. A node comes after
            its parent, and all that hangs on a node before the next sibling.
    """

    sizes: tuple[int, ...]
    parents: tuple[int, ...]

    def paths(self) -> list[tuple[int, ...]]:
        """The nodes that lead to each node, itself included."""
        paths: list[tuple[int, ...]] = []
        for node, parent in enumerate(self.parents):
            paths.append((*paths[parent], node) if parent >= 0 else (node,))
        return paths

    def padded(self, tokens: int) -> Tree:
        """With that many tokens of padding after it, a root of their own."""
        return Tree((*self.sizes, tokens), (*self.parents, -1)) if tokens else self


class Row(NamedTuple):
    """Several sequences in one.

    Attributes:
        ids: Token ids.
        positions: Position ids, one a token.
        tree: How they hang together.
        places: For each sequence, the index in `ids` of each of its tokens.
    """

    ids: list[int]
    positions: list[int]
    tree: Tree
    places: list[list[int]]


def fold(sequences: Sequence[list[int]], share: bool) -> Row:
    """Lays sequences of token ids down in one row.

    Args:
        sequences: Token ids, at least one each.
        share: Whether what several begin with is laid down once; otherwise they stand one after another.
    """
    row = Row([], [], Tree((), ()), [[] for _ in sequences])
    sizes: list[int] = []
    parents: list[int] = []

    def grow(members: list[int], depth: int, parent: int) -> None:
        """Lays down what the members have in common from `depth` on, then what differs, branch by branch."""
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
