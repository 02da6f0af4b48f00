"""Pairs as they were before they were bridged, and how far apart their responses are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rapidfuzz.distance import Levenshtein

from ..errors import fail
from .schema import Row, Text, check, content

SIDES = ("chosen", "rejected")
WEIGHTS = ("chosen_weights", "rejected_weights")  # λ of each response token, as an LLM scored them
ORIGINALS = ("original_chosen", "original_rejected")
BRIDGING = (*ORIGINALS, "bridged", "edit_ratio", *WEIGHTS)  # the columns that bridging adds


def unbridged(row: Row) -> Row:
    """A row with y_w and y_l as its responses, without what bridging added to it; any other row as it is."""
    given = zip(SIDES, ORIGINALS, strict=True)
    responses = {side: row[original] for side, original in given if row.get(original) is not None}
    return {key: value for key, value in row.items() if key not in BRIDGING} | responses


def winner(row: Row) -> Text | None:
    """y_w: the `completion`, or the winner of a pair as it was before it was bridged; None if there is neither."""
    return row.get("completion") or unbridged(row).get("chosen")


def edit_split(rows: Iterable[Row], part: str, where: str) -> list[int]:
    """The rows of one of n equal splits of a data set by rising edit distance (Figure 5).

    The distance is Levenshtein's over characters, between y_w (`original_chosen`, or `chosen` where there is none)
    and `rejected`; pairs of one distance stand in the order of their ids. Every row is in one split, and the splits'
    sizes differ by one at the most.

    Args:
        rows: Pairs with `id`s that are unique; they are gone through three times.
        part: "k/n", 1 ≤ k ≤ n.
        where: What to call the data in a fault.

    Returns:
        Indices of the k-th split's rows, ascending.

    Raises:
        Faults: The rows are no pairs.
    """
    number, count = map(int, part.split("/"))
    return sorted(index for _, index in _split(_by_distance(rows, where), number, count))


def split_distances(rows: Iterable[Row], count: int, where: str) -> list[list[int]]:
    """Return the edit distances of the pairs in each of `edit_split`'s splits, ascending."""
    ranked = _by_distance(rows, where)
    return [[distance for distance, _ in _split(ranked, number, count)] for number in range(1, count + 1)]


def _split(ranked: list[tuple[int, int]], number: int, count: int) -> list[tuple[int, int]]:
    start, end = (len(ranked) * bound // count for bound in (number - 1, number))
    return ranked[start:end]


def _by_distance(rows: Iterable[Row], where: str) -> list[tuple[int, int]]:
    """Edit distance and index of each pair, by rising distance and then by id."""
    ids: list[str] = []
    there: dict[str, None] = {}
    for row in rows:
        ids.append(row["id"])
        there |= dict.fromkeys(key for key, value in row.items() if value is not None)
    if ids and ("rejected" not in there or not there.keys() & {"chosen", "original_chosen"}):
        raise fail(where, f"edit_split: is for pairs with `chosen` and `rejected`; there are {', '.join(there)}")

    def pairs() -> Iterator[Row]:
        return (
            {"chosen": row.get("original_chosen") or row.get("chosen"), "rejected": row.get("rejected")} for row in rows
        )

    check(pairs(), SIDES, where)
    distances = (Levenshtein.distance(content(pair["chosen"]), content(pair["rejected"])) for pair in pairs())
    ranked = sorted(zip(distances, ids, range(len(ids)), strict=True))
    return [(distance, index) for distance, _, index in ranked]
