"""The objectives: `loss_type` in a recipe → `LOSSES[loss_type]`.

Each is a pure function of a batch of `Pairs` and of its own hyperparameters, which are keys of `BMCConfig` by the same
name, and returns one loss for each pair, shape (B,). The trainer takes the mean.

Token weights have been applied before: a sum over the tokens of y is Σ_t λ(y^t) log π(y^t | y^{<t}, x), with λ ≡ 1
under `token_weighting: none`. Every objective thus has its BMC form (§5.4 of arXiv 2408.07471, Table 5).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class Pairs(NamedTuple):
    """What an objective may look at; all of shape (B,) and floating dtype.

    Attributes:
        chosen_logps: Σ_t λ log π_θ over the winning response.
        rejected_logps: Σ_t λ log π_θ over the losing response.
        ref_chosen_logps: Σ_t λ log π_ref over the winning response, with the policy's λ.
        ref_rejected_logps: Σ_t λ log π_ref over the losing response, with the policy's λ.
    """

    chosen_logps: Tensor
    rejected_logps: Tensor
    ref_chosen_logps: Tensor
    ref_rejected_logps: Tensor

    @property
    def chosen_logratios(self) -> Tensor:
        """Σ_t λ log π_θ/π_ref over the winning response."""
        return self.chosen_logps - self.ref_chosen_logps

    @property
    def rejected_logratios(self) -> Tensor:
        """Σ_t λ log π_θ/π_ref over the losing response."""
        return self.rejected_logps - self.ref_rejected_logps


def sigmoid(pairs: Pairs, *, beta: float) -> Tensor:
    """DPO (Rafailov et al., 2023, arXiv 2305.18290, Eq. 7): −log σ(β (Δ_w − Δ_l)), Δ = Σ_t λ log π_θ/π_ref.

    With λ ≡ 1 it is Eq. 2 of the BMC paper, with the λ of Eqs. 7 and 10 its Eq. 4 (DPO-BMC). Needs a reference.
    """
    return -F.logsigmoid(beta * (pairs.chosen_logratios - pairs.rejected_logratios))


LOSSES: dict[str, Callable[..., Tensor]] = {
    "sigmoid": sigmoid,
}


def hyperparameters(loss_type: str) -> list[str]:
    """Names of the keys of `BMCConfig` that an objective reads."""
    return [name for name in inspect.signature(LOSSES[loss_type]).parameters if name != "pairs"]
