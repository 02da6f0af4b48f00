"""Find the tokens that differ between two responses, and compute their weights lambda (Eqs. 7 and 10)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from ..data.schema import WEIGHTS as WEIGHT_COLUMNS
from ..errors import UserError, UserErrors, user_error

ALGORITHMS = ("levenshtein", "difflib")
DIFF_COLUMNS = ("chosen_diff", "rejected_diff")
RESPONSES = ("chosen_ids", "rejected_ids")


def token_diff(
    chosen_ids: Sequence[int], rejected_ids: Sequence[int], algorithm: str = "levenshtein"
) -> tuple[list[bool], list[bool]]:
    """Mark the tokens that an alignment of the two responses inserts, deletes or replaces (§3.2).

    Args:
        chosen_ids: Token ids of the chosen response alone, without prompt and padding.
        rejected_ids: Token ids of the rejected one.
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
    """Mark the differing tokens of a pair, over the whole responses: whatever the batch, padding or cut.

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


def bmc_weights(logps: Tensor, diff_mask: Tensor, delta: float) -> Tensor:
    """Compute λ = 1 + min(sg(1/π_θ), δ) for a token that differs, else 1 (§3.2, Eqs. 7 and 10).

    1/π ≥ 1, so a differing token weighs in [2, 1 + δ] for δ ≥ 1; δ = 1 is the fixed weight 2, and δ = 0 leaves DPO.

    Args:
        logps: log π_θ of each token; any shape, any floating dtype.
        diff_mask: Whether the token differs; bool, the shape of `logps`.
        delta: δ ≥ 0, the most that is added to 1.

    Returns:
        Weights of the shape and dtype of `logps`, detached.
    """
    # min(1/π, δ): an inverse probability that overflows becomes inf, and inf is clamped to δ like any large one
    added = torch.exp(-logps.detach()).clamp(max=delta)
    return torch.where(diff_mask, 1.0 + added, torch.ones_like(added))


def check_token_weights(dataset: Any, name: str) -> None:
    """Check that the tokenised pairs have a weight for each response token.

    Raises:
        UserErrors: They lack the columns, or rows have another number of weights, or one below 0 or not finite.
    """
    missing = [column for column in WEIGHT_COLUMNS if column not in (dataset.column_names or WEIGHT_COLUMNS)]
    if missing:
        how = "scripts/bridge.py with mode: token_scores writes them"
        raise user_error("token_weighting", f"external needs {' and '.join(missing)} in the {name} data; {how}")
    faults = []
    for number, row in enumerate(dataset, start=1):
        for column, side in zip(WEIGHT_COLUMNS, RESPONSES, strict=True):
            given, wanted = row[column] or [], len(row[side])
            if len(given) != wanted:
                what = f"has {len(given)} weights for {wanted} tokens; make them with this tokenizer and template"
            elif not all(math.isfinite(value) and value >= 0 for value in given):
                what = "has a weight below 0 or that is no number; fix or drop the row"
            else:
                continue
            faults.append(UserError(f"{name} row {row.get('id') or number}", f"{column}: {what}"))
    if faults:
        raise UserErrors(*faults[:10])


STOP_WORDS = """
i me my myself we our ours ourselves you you're you've you'll you'd your yours yourself yourselves he him his himself
she she's her hers herself it it's its itself they them their theirs themselves what which who whom this that that'll
these those am is are was were be been being have has had having do does did doing a an the and but if or because as
until while of at by for with about against between into through during before after above below to from up down in out
on off over under again further then once here there when where why how all any both each few more most other some such
no nor not only own same so than too very s t can will just don don't should should've now d ll m o re ve y ain aren
aren't couldn couldn't didn didn't doesn doesn't hadn hadn't hasn hasn't haven haven't isn isn't ma mightn mightn't
mustn mustn't needn needn't shan shan't shouldn shouldn't wasn wasn't weren weren't won won't wouldn wouldn't
""".split()  # noqa: SIM905 - a list of 179 strings would take 20 lines more


def stop_word_ids(tokenizer: Any) -> list[int]:
    """Look up the stop words and their capitalised forms that are one token, alone or after a space; sorted ids."""
    words = [form for word in STOP_WORDS for form in (word, word.capitalize())]
    encoded = tokenizer([text for word in words for text in (word, f" {word}")], add_special_tokens=False)["input_ids"]
    return sorted({ids[0] for ids in encoded if len(ids) == 1})
