"""λ, the weight of a token: Eqs. 7 and 10, or numbers that came with the data."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..data.pairs import WEIGHTS as WEIGHT_COLUMNS
from ..errors import Fault, Faults, fail
from .diff import RESPONSES


def bmc_weights(logps: Tensor, diff_mask: Tensor, delta: float) -> Tensor:
    """λ = 1 + min(sg(1/π_θ), δ) for a token that differs, else 1 (§3.2, Eqs. 7 and 10).

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


def check_weights(dataset: Any, name: str) -> None:
    """Whether the tokenised pairs have a weight for each response token.

    Raises:
        Faults: They lack the columns, or rows have another number of weights, or one below 0 or not finite.
    """
    missing = [column for column in WEIGHT_COLUMNS if column not in (dataset.column_names or WEIGHT_COLUMNS)]
    if missing:
        how = "scripts/bridge.py with mode: token_scores writes them"
        raise fail("token_weighting", f"external needs {' and '.join(missing)} in the {name} data; {how}")
    faults = []
    for number, row in enumerate(dataset, start=1):
        for column, side in zip(WEIGHT_COLUMNS, RESPONSES, strict=True):
            given, wanted = row[column] or [], len(row[side])
            if len(given) != wanted:
                what = f"has {len(given)} weights for {wanted} tokens; make them with this tokenizer and template"
            elif not all(math.isfinite(value) and value >= 0 for value in given):
                what = "has a weight below 0 or that is no number; mend or drop the row"
            else:
                continue
            faults.append(Fault(f"{name} row {row.get('id') or number}", f"{column}: {what}"))
    if faults:
        raise Faults(*faults[:10])
