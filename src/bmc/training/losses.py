"""The objectives: `loss_type` in a recipe → `LOSSES[loss_type]`.

Each is a pure function of a batch of `PairLogps` and of its own hyperparameters, which are keys of `BMCConfig` by the
same name, and returns one loss for each pair, shape (B,). The trainer takes the mean. Δ is Σ_t λ log π_θ/π_ref.

Token weights have been applied before: a sum over the tokens of y is Σ_t λ(y^t) log π(y^t | y^{<t}, x), with λ ≡ 1
under `token_weighting: none`. Every objective thus has its BMC form (§5.4 of arXiv 2408.07471, Table 5). An average
divides that sum by |y|, the number of tokens, as Table 7 prints it and as the authors' code does: dividing by Σ_t λ
would cancel λ wherever all tokens of a response differ. Tokens with λ = 0 take no part, so an average is over the
others, as ConfPO's and SePO's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import log, log1p
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class PairLogps(NamedTuple):
    """What an objective may look at; all of shape (B,) and floating dtype."""

    chosen_logps: Tensor  # Σ_t λ log π_θ over the chosen response
    rejected_logps: Tensor  # Σ_t λ log π_θ over the rejected response
    ref_chosen_logps: Tensor  # Σ_t λ log π_ref over the chosen response, with the policy's λ
    ref_rejected_logps: Tensor  # Σ_t λ log π_ref over the rejected response, with the policy's λ
    chosen_lengths: Tensor  # |y_w|, tokens; 1 for an empty response, so that averages are finite
    rejected_lengths: Tensor  # |y_l|, tokens; 1 for an empty response
    chosen_diff_logps: Tensor  # Σ_t λ log π_θ over diff(y_w | y_l), the chosen tokens that differ
    rejected_diff_logps: Tensor  # Σ_t λ log π_θ over diff(y_l | y_w), the rejected tokens that differ
    chosen_plain_logps: Tensor  # Σ_t log π_θ over the chosen response, without λ
    chosen_counts: Tensor | None = None  # tokens of the chosen response with λ > 0, at least 1; None where that is all
    # tokens of the rejected response with λ > 0, at least 1; None where that is all
    rejected_counts: Tensor | None = None

    @property
    def chosen_logratios(self) -> Tensor:
        """Σ_t λ log π_θ/π_ref over the chosen response."""
        return self.chosen_logps - self.ref_chosen_logps

    @property
    def rejected_logratios(self) -> Tensor:
        """Σ_t λ log π_θ/π_ref over the rejected response."""
        return self.rejected_logps - self.ref_rejected_logps

    @property
    def margins(self) -> Tensor:
        """Δ_w − Δ_l."""
        return self.chosen_logratios - self.rejected_logratios

    @property
    def average_margins(self) -> Tensor:
        """Δ_w/|y_w| − Δ_l/|y_l|, over tokens with λ > 0."""
        chosen, rejected = self.counts
        return self.chosen_logratios / chosen - self.rejected_logratios / rejected

    @property
    def chosen_averages(self) -> Tensor:
        """Σ_t λ log π_θ / |y| over the chosen response's tokens with λ > 0."""
        return self.chosen_logps / self.counts[0]

    @property
    def rejected_averages(self) -> Tensor:
        """Σ_t λ log π_θ / |y| over the rejected response's tokens with λ > 0."""
        return self.rejected_logps / self.counts[1]

    @property
    def counts(self) -> tuple[Tensor, Tensor]:
        """What averages divide by: tokens with λ > 0 of the chosen and of the rejected response."""
        chosen = self.chosen_lengths if self.chosen_counts is None else self.chosen_counts
        return chosen, self.rejected_lengths if self.rejected_counts is None else self.rejected_counts


def sum_weighted_logps(
    logps: Tensor, ref_logps: Tensor, weights: Tensor, ref_weights: Tensor, responses: Tensor, differs: Tensor
) -> PairLogps:
    """Sum the weighted log-probs of each response (the two sums of Eq. 4).

    Args:
        logps: log π_θ of each token, (B, 2, T), chosen before rejected.
        ref_logps: log π_ref, (B, 2, T).
        weights: λ, (B, 2, T).
        ref_weights: What weighs log π_ref: λ, or as in the released code the reference's own.
        responses: Which are tokens of the response and no padding; bool, (B, 2, T).
        differs: Which of them differ, bool, (B, 2, T).

    Returns:
        The sums of the B pairs.
    """
    weighted, plain = weights * responses * logps, logps * responses
    lengths, counts = (
        tokens.sum(dim=-1).clamp(min=1).to(logps.dtype) for tokens in (responses, responses & (weights > 0))
    )
    sums = [values.sum(dim=-1) for values in (weighted, ref_weights * responses * ref_logps)]
    sums += [lengths, (weighted * differs).sum(dim=-1)]
    sides = [side for values in sums for side in values.unbind(1)]
    return PairLogps(*[*sides, plain[:, 0].sum(dim=-1), *counts.unbind(1)])


def sigmoid(pairs: PairLogps, *, beta: float) -> Tensor:
    """DPO (Rafailov et al., 2023, arXiv 2305.18290, Eq. 7): −log σ(β (Δ_w − Δ_l)), Δ = Σ_t λ log π_θ/π_ref.

    With λ ≡ 1 it is Eq. 2 of the BMC paper, with the λ of Eqs. 7 and 10 its Eq. 4 (DPO-BMC). Needs a reference.
    """
    return -F.logsigmoid(beta * pairs.margins)


def hinge(pairs: PairLogps, *, beta: float) -> Tensor:
    """Hinge loss on the reward margin (SLiC, Zhao et al., 2023, arXiv 2305.10425; with DPO's reward as in RSO,
    arXiv 2309.06657): max(0, 1 − β (Δ_w − Δ_l)). Needs a reference.
    """
    return torch.relu(1 - beta * pairs.margins)


def ipo(pairs: PairLogps, *, beta: float) -> Tensor:
    """IPO (Azar et al., 2023, arXiv 2310.12036, Eq. 17): (Δ_w/|y_w| − Δ_l/|y_l| − 1/(2τ))², τ = `beta`.

    The paper writes sums of log-ratios; its authors averaged over tokens, and so do TRL, the released code of BMC and
    this. Needs a reference.
    """
    return (pairs.average_margins - 1 / (2 * beta)) ** 2


def rdpo(pairs: PairLogps, *, beta: float, rdpo_alpha: float) -> Tensor:
    """R-DPO (Park et al., 2024, arXiv 2403.19159): −log σ(β (Δ_w − Δ_l) + α (|y_w| − |y_l|)), α = `rdpo_alpha`.

    For α > 0 the sign is that paper's: a reward r − α|y| makes r_w − r_l = β (Δ_w − Δ_l) + α (|y_w| − |y_l|), so a
    chosen response that is longer has less left to gain. Table 7 of the BMC paper, like SimPO's code, prints
    −α (|y_w| − |y_l|), which pushes longer chosen responses harder: a negative α reproduces it. The released code of
    BMC has −log σ(β (Δ_w − Δ_l − (|y_w| − |y_l|))), which is α = −β. Lengths are tokens and carry no λ. Needs a
    reference.
    """
    return -F.logsigmoid(beta * pairs.margins + rdpo_alpha * (pairs.chosen_lengths - pairs.rejected_lengths))


def simpo(pairs: PairLogps, *, beta: float, simpo_gamma: float) -> Tensor:
    """SimPO (Meng et al., 2024, arXiv 2405.14734, Eq. 6): −log σ(β/|y_w| log π_θ(y_w) − β/|y_l| log π_θ(y_l) − γ),
    γ = `simpo_gamma`, the margin itself as in the paper (not the ratio γ/β that its code takes). Needs no reference.
    """
    return -F.logsigmoid(beta * (pairs.chosen_averages - pairs.rejected_averages) - simpo_gamma)


def orpo(pairs: PairLogps, *, orpo_lambda: float) -> Tensor:
    """ORPO (Hong et al., 2024, arXiv 2403.07691, Eqs. 6 and 7): −log p(y_w) − λ log σ(log odds(y_w) − log odds(y_l)),
    odds = p/(1 − p), p(y) = exp(log π_θ(y)/|y|), λ = `orpo_lambda` (TRL's ORPOTrainer calls it beta).

    The first term, the likelihood, carries no λ, as in the released code of BMC; it is the ORPO paper's, over the
    response's tokens and a mean a pair, where TRL takes it over prompt and response and over the batch's tokens. Needs
    no reference.
    """
    chosen, rejected = pairs.chosen_averages, pairs.rejected_averages
    log_odds_ratio = chosen - rejected - _log1mexp(chosen) + _log1mexp(rejected)
    return -pairs.chosen_plain_logps / pairs.chosen_lengths - orpo_lambda * F.logsigmoid(log_odds_ratio)


def figa(pairs: PairLogps, *, figa_alpha: float, figa_beta: float) -> Tensor:
    """FIGA (Guo et al., 2023, arXiv 2311.04072) as in Table 7 of the BMC paper: −α Σ log π_θ over the chosen
    tokens that differ + β Σ log π_θ over the rejected ones, α = `figa_alpha`, β = `figa_beta`; sums, as printed. Where
    β > 0 it has no lower bound. Needs no reference.
    """
    return -figa_alpha * pairs.chosen_diff_logps + figa_beta * pairs.rejected_diff_logps


def exo_pair(pairs: PairLogps, *, beta: float, label_smoothing: float) -> Tensor:
    """EXO for pairs (Ji et al., 2024, arXiv 2402.00856, Eq. 16): KL(p_θ ‖ p) with p_θ = softmax(β Δ_w, β Δ_l) and
    p = (1 − ε, ε), ε = `label_smoothing` > 0 (the paper: 1e-3). Needs a reference.
    """
    log_p_w, log_p_l = F.logsigmoid(beta * pairs.margins), F.logsigmoid(-beta * pairs.margins)
    chosen = log_p_w.exp() * (log_p_w - log1p(-label_smoothing))
    return chosen + log_p_l.exp() * (log_p_l - log(label_smoothing))


def nca_pair(pairs: PairLogps, *, beta: float) -> Tensor:
    """NCA for pairs (Chen et al., 2024, arXiv 2402.05369): −log σ(r_w) − ½ log σ(−r_w) − ½ log σ(−r_l), r = β Δ.

    It holds the chosen likelihood up, where DPO looks at the margin alone. Needs a reference.
    """
    chosen, rejected = beta * pairs.chosen_logratios, beta * pairs.rejected_logratios
    return -F.logsigmoid(chosen) - 0.5 * (F.logsigmoid(-chosen) + F.logsigmoid(-rejected))


def robust(pairs: PairLogps, *, beta: float, label_smoothing: float) -> Tensor:
    """Robust DPO (Chowdhury et al., 2024, arXiv 2403.00409): unbiased when a share ε = `label_smoothing` < ½ of
    the preferences is flipped: (−(1 − ε) log σ(β m) + ε log σ(−β m)) / (1 − 2ε), m = Δ_w − Δ_l. Needs a reference.
    """
    logits, flipped = beta * pairs.margins, label_smoothing
    return (-(1 - flipped) * F.logsigmoid(logits) + flipped * F.logsigmoid(-logits)) / (1 - 2 * flipped)


def bco_pair(pairs: PairLogps, *, beta: float) -> Tensor:
    """BCO for pairs (Jung et al., 2024, arXiv 2404.04656): −log σ(r_w) − log σ(−r_l), r = β Δ: a binary classifier
    whose logit is the reward. As in TRL's DPOTrainer without the paper's reward shift δ. Needs a reference.
    """
    return -F.logsigmoid(beta * pairs.chosen_logratios) - F.logsigmoid(-beta * pairs.rejected_logratios)


def sppo_hard(pairs: PairLogps, *, beta: float) -> Tensor:
    """SPPO with hard labels (Wu et al., 2024, arXiv 2405.00675, Eq. 4.7 with P = 1 for chosen and 0 for rejected):
    (Δ_w − 1/(2β))² + (Δ_l + 1/(2β))². Needs a reference.
    """
    return (pairs.chosen_logratios - 0.5 / beta) ** 2 + (pairs.rejected_logratios + 0.5 / beta) ** 2


def aot(pairs: PairLogps, *, beta: float, label_smoothing: float) -> Tensor:
    """AOT, paired (Melnyk et al., 2024, arXiv 2406.05882): the logistic loss between the batch's sorted log-ratios
    log π(y_w)/π(y_l), the policy's against the reference's. Sorting makes it a loss of the batch. Needs a reference.
    """
    policy = (pairs.chosen_logps - pairs.rejected_logps).sort().values
    reference = (pairs.ref_chosen_logps - pairs.ref_rejected_logps).sort().values
    return _smoothed_logistic(beta * (policy - reference), label_smoothing)


def aot_unpaired(pairs: PairLogps, *, beta: float, label_smoothing: float) -> Tensor:
    """AOT, unpaired (Melnyk et al., 2024, arXiv 2406.05882): the logistic loss between the batch's sorted Δ_w and its
    sorted Δ_l. Needs a reference.
    """
    margins = pairs.chosen_logratios.sort().values - pairs.rejected_logratios.sort().values
    return _smoothed_logistic(beta * margins, label_smoothing)


def apo_zero(pairs: PairLogps, *, beta: float) -> Tensor:
    """APO-zero (D'Oosterlinck et al., 2024, arXiv 2408.06266, Eq. 7): 1 − σ(β Δ_w) + σ(β Δ_l): chosen up, rejected
    down; for chosen responses better than the model's own. Needs a reference.
    """
    return torch.sigmoid(-beta * pairs.chosen_logratios) + torch.sigmoid(beta * pairs.rejected_logratios)


def apo_down(pairs: PairLogps, *, beta: float) -> Tensor:
    """APO-down (D'Oosterlinck et al., 2024, arXiv 2408.06266, Eq. 8): σ(β Δ_w) + 1 − σ(β (Δ_w − Δ_l)): both down, the
    rejected one further; for chosen responses worse than the model's own. Needs a reference.
    """
    return torch.sigmoid(beta * pairs.chosen_logratios) + torch.sigmoid(-beta * pairs.margins)


def discopop(pairs: PairLogps, *, beta: float, discopop_tau: float) -> Tensor:
    """DiscoPOP, "LRML" (Lu et al., 2024, arXiv 2406.08414, Eq. 5): (1 − s) · −log σ(z) + s · e^{−z} with
    z = β (Δ_w − Δ_l) and s = σ(z/τ), τ = `discopop_tau`. Needs a reference.
    """
    logits = beta * pairs.margins
    logistic = -F.logsigmoid(logits) * torch.sigmoid(-logits / discopop_tau)
    return logistic + torch.exp(F.logsigmoid(logits / discopop_tau) - logits)  # as a product, 0 · ∞ where z is small


def sigmoid_norm(pairs: PairLogps, *, beta: float) -> Tensor:
    """DPO with averaged log-ratios (as in Tülu 3, arXiv 2411.15124): −log σ(β (Δ_w/|y_w| − Δ_l/|y_l|)). Needs a
    reference.
    """
    return -F.logsigmoid(beta * pairs.average_margins)


def sft(pairs: PairLogps) -> Tensor:
    """Negative log-likelihood of the chosen responses, the mean over the batch's tokens: −Σ λ log π_θ / Σ |y_w|;
    the same for each pair. An additive term, as in MPO (arXiv 2411.10442): `loss_type: [sigmoid, sft]` with
    `loss_weights`. Needs no reference.
    """
    return (-pairs.chosen_logps.sum() / pairs.counts[0].sum()).expand_as(pairs.chosen_logps)


def _log1mexp(x: Tensor) -> Tensor:
    """Compute log(1 − eˣ) for x ≤ 0 without losing digits at either end, finite at 0, as is its gradient.

    Each branch sees only arguments at which it is finite: `torch.where` multiplies the gradient of the branch that it
    doesn't take by 0, and 0 · ∞ is no number. The slope, about 1/x, is cut off where its square would overflow; the
    mean of float32 log-probs comes no closer to 0 unless it is 0.
    """
    x = x.clamp(max=-(torch.finfo(x.dtype).eps ** 2))
    near = x > -log(2)
    far = x.masked_fill(near, -1.0)
    return torch.where(near, torch.log(-torch.expm1(x.masked_fill(~near, -log(2)))), torch.log1p(-torch.exp(far)))


def _smoothed_logistic(logits: Tensor, label_smoothing: float) -> Tensor:
    return -F.logsigmoid(logits) * (1 - label_smoothing) - F.logsigmoid(-logits) * label_smoothing


LOSSES: dict[str, Callable[..., Tensor]] = {
    "sigmoid": sigmoid,
    "hinge": hinge,
    "ipo": ipo,
    "rdpo": rdpo,
    "simpo": simpo,
    "orpo": orpo,
    "figa": figa,
    "exo_pair": exo_pair,
    "nca_pair": nca_pair,
    "robust": robust,
    "bco_pair": bco_pair,
    "sppo_hard": sppo_hard,
    "aot": aot,
    "aot_unpaired": aot_unpaired,
    "apo_zero": apo_zero,
    "apo_down": apo_down,
    "discopop": discopop,
    "sigmoid_norm": sigmoid_norm,
    "sft": sft,
}

REFERENCE_FREE = frozenset({"simpo", "orpo", "figa", "sft"})
OF_A_BATCH = frozenset({"aot", "aot_unpaired", "sft"})  # a pair's loss depends on the others of its micro-batch


def hyperparameters(loss_type: str) -> list[str]:
    """Return the names of the keys of `BMCConfig` that an objective reads."""
    return [name for name in inspect.signature(LOSSES[loss_type]).parameters if name != "pairs"]
