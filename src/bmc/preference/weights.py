"""λ, the weight of a token (Eqs. 7 and 10)."""

from __future__ import annotations

import torch
from torch import Tensor


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
