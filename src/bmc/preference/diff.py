"""Which tokens differ between the two responses of a pair: diff(ỹ_w | y_l) and diff(y_l | ỹ_w) of Eqs. 7 and 10."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

from rapidfuzz.distance import Levenshtein

ALGORITHMS = ("levenshtein", "difflib")
DIFF_COLUMNS = ("chosen_diff", "rejected_diff")
RESPONSES = ("chosen_ids", "rejected_ids")


def token_diff(
    chosen_ids: Sequence[int], rejected_ids: Sequence[int], algorithm: str = "levenshtein"
) -> tuple[list[bool], list[bool]]:
    """Marks the tokens that an alignment of the two responses inserts, deletes or replaces (§3.2).

    Args:
        chosen_ids: Token ids of the winning response alone, without prompt and padding.
        rejected_ids: Token ids of the losing one.
        algorithm: `levenshtein`, the least number of edits (the paper's), or `difflib`, Python's
            `SequenceMatcher` with its defaults (the authors' released code).

    Returns:
        `(chosen_mask, rejected_mask)`, one bool a token, True where it differs.

    Raises:
        ValueError: The algorithm is unknown.

    Example:
        >>> token_diff([5, 6, 7], [5, 7])  # rejected → chosen inserts 6
        ([False, True, False], [False, False])
    """
    chosen_mask, rejected_mask = [False] * len(chosen_ids), [False] * len(rejected_ids)
    for tag, i1, i2, j1, j2 in _opcodes(rejected_ids, chosen_ids, algorithm):
        if tag != "equal":
            rejected_mask[i1:i2] = [True] * (i2 - i1)
            chosen_mask[j1:j2] = [True] * (j2 - j1)
    return chosen_mask, rejected_mask


def mark_differences(row: dict[str, Any], algorithm: str, ignored: list[int]) -> dict[str, Any]:
    """The masks of a pair, over the whole responses: they change with neither batch, padding nor cut.

    Args:
        row: With `prompt_ids`, `chosen_ids` and `rejected_ids`.
        algorithm: `levenshtein` over the responses; `difflib` over prompt and response, as in the released code.
        ignored: Token ids that never count as differing.
    """
    prompt = row["prompt_ids"] if algorithm == "difflib" else []
    masks = token_diff(prompt + row["chosen_ids"], prompt + row["rejected_ids"], algorithm)
    never = set(ignored)
    return {
        column: [marked and token not in never for marked, token in zip(mask[len(prompt) :], row[side], strict=True)]
        for column, side, mask in zip(DIFF_COLUMNS, RESPONSES, masks, strict=True)
    }


def _opcodes(source: Sequence[int], target: Sequence[int], algorithm: str) -> Any:
    if algorithm == "levenshtein":
        return Levenshtein.opcodes(source, target)
    if algorithm == "difflib":
        return SequenceMatcher(None, source, target).get_opcodes()
    raise ValueError(f"diff_algorithm must be one of {', '.join(ALGORITHMS)}, got '{algorithm}'")
