"""Find the tokens that differ between two responses, and compute token weights λ: BMC's (Eqs. 7 and 10) and others'.

`bmc`, `confpo`, `entropy`, `position` and `shift` are computed in each step, from tensors (B, 2, T), chosen before
rejected. `tis`, `sepo` and `tgdpo` are computed once, by the stage score_tokens, from the log-ratio of two models at
each token of a response. λ ≥ 0 says how much a token counts on either side: chosen ones are pushed up, rejected ones
down.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
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

    `difflib` compares prompt and response, as in the released code; tokens in `ignored` never count as differing.
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


def confpo_weights(logps: Tensor, responses: Tensor) -> Tensor:
    """Compute λ = 1 for tokens that the policy finds less likely than the response's mean, else 0 (ConfPO, Yoon et al.,
    2025, arXiv 2506.08712): π_θ(y^t) < 1/|y| Σ_t π_θ(y^t), a mean of probabilities.

    With `loss_type: simpo` it is that paper's loss, since averages count tokens with λ > 0. As in its code the
    comparison is strict (the paper: ≤), and a pair of which one response has no such token has no gradient; here its
    λ are 0, and its loss is that of two empty responses, where the code's is 0.

    Args:
        logps: log π_θ, (B, 2, T).
        responses: Which are tokens and no padding; bool, (B, 2, T).
    """
    p = logps.detach().exp().masked_fill(~responses, 0.0)
    below_top = (p - p.amax(dim=-1, keepdim=True)) * responses  # exactly 0 for all tokens where all are equal
    critical = responses & (below_top < below_top.sum(-1, keepdim=True) / responses.sum(-1, keepdim=True).clamp(min=1))
    return (critical & critical.any(dim=-1, keepdim=True).all(dim=-2, keepdim=True)).to(logps.dtype)


def entropy_weights(entropy: Tensor, responses: Tensor, share: float) -> Tensor:
    """Compute λ = 1 for the share of a response's tokens of which the policy is most uncertain, else 0 (Wang et al.,
    2025, arXiv 2506.01939, for policy gradients: 20 % carry the gain). Uncertain is the entropy of π_θ(· | y^{<t}, x).

    That paper takes the share of a batch. Here it is of each response: a batch's would depend on micro-batches.

    Args:
        entropy: Of the distribution that each token is drawn from, (…, T).
        responses: Which are tokens and no padding; bool, (…, T).
        share: Of the tokens, in (0, 1].
    """
    return highest(entropy.detach(), responses, share).to(entropy.dtype)


def position_weights(diff_mask: Tensor, decay: float) -> Tensor:
    """Compute λ = γ^(t − t₀) from the first difference t₀ of the pair on, 1 before (D²PO, Shao et al., 2025,
    arXiv 2502.14340, whose t₀ is the response's first token; its code begins with γ¹ instead of γ⁰).

    What stands before t₀ is the same in both responses and cancels in DPO.

    Args:
        diff_mask: Whether a token differs; bool, (B, 2, T).
        decay: γ in (0, 1].
    """
    place = torch.arange(diff_mask.size(-1), device=diff_mask.device)
    first = place.expand_as(diff_mask).masked_fill(~diff_mask, len(place)).amin(dim=(-2, -1), keepdim=True)
    return torch.pow(decay, (place - first).clamp(min=0).float()).expand(diff_mask.shape)


def shift_weights(logps: Tensor, rejected_weight: float) -> Tensor:
    """Compute λ = 1 for chosen and f for rejected tokens (DPO-Shift, Yang et al., 2025, arXiv 2502.07599, with a fixed
    f(λ)): below 1 less is gained by pushing the rejected response down, and the chosen one falls less with it.

    The code's f that rises or falls over the training isn't here.

    Args:
        logps: log π_θ, (B, 2, T), of which shape and dtype count.
        rejected_weight: f ≥ 0.
    """
    weights = torch.ones_like(logps)
    weights[:, 1] = rejected_weight
    return weights


def highest(scores: Tensor, responses: Tensor, share: float) -> Tensor:
    """Mark the ⌊share · n⌋ of a response's n tokens with the highest scores, at least one; of equal ones the earlier.

    Args:
        scores: (…, T).
        responses: Which are tokens and no padding; bool, (…, T).
        share: In (0, 1].
    """
    counts = (share * responses.sum(dim=-1, keepdim=True) + 1e-3).floor().clamp(min=1)  # 0.29 · 100 is 28.999…
    order = scores.masked_fill(~responses, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    return responses & (order.argsort(dim=-1) < counts)


def tis_weights(log_ratio: Tensor, sign: int, low: float, high: float) -> Tensor:
    """Compute λ = exp(μ · clamp(log π₊/π₋, L, U)), μ = 1 for the chosen and −1 for the rejected response (TIS-DPO, Liu
    et al., 2024, arXiv 2410.04350, with k = 1), π₊ trained by DPO, π₋ by DPO with the two responses exchanged.

    The paper's loss has a difference of weighted KL divergences besides, which its code leaves out by default and so
    do we. The code's own weights aren't exponentials: it rounds log π₋/π₊ to two digits and ranks or rescales it.

    Args:
        log_ratio: log π₊/π₋ at each token.
        sign: μ.
        low: L.
        high: U.
    """
    return torch.exp(sign * log_ratio.clamp(low, high))


def sepo_weights(log_ratio: Tensor, sign: int, share: float) -> Tensor:
    """Compute λ = 1 for the share of a chosen response's tokens with the highest reward log π_oracle/π_ref, and of a
    rejected one's with the lowest, else 0 (SePO, Yang et al., 2024, arXiv 2408.13518), the oracle trained by DPO.

    With `loss_type: simpo`, beta: 1 and simpo_gamma: 0 it is the loss of its code, which averages over the selected
    tokens. That code never selects a response's first token; here any may be.

    Args:
        log_ratio: log π_oracle/π_ref at each token, (T,).
        sign: 1 for the chosen, −1 for the rejected response.
        share: k, of the tokens.
    """
    return highest(sign * log_ratio, torch.ones_like(log_ratio, dtype=torch.bool), share).to(log_ratio.dtype)


def tgdpo_weights(log_ratio: Tensor, sign: int, alpha: float, beta: float) -> Tensor:
    """Compute λ = 1 ± α r, + for the chosen and − for the rejected response, r = β log π_DPO/π_ref the token reward of
    an earlier DPO model (TGDPO, Zhu et al., 2025, arXiv 2506.14574; its code has the same with α = 0.5).

    Below 0, which the code allows, a chosen token would be pushed down; here λ is then 0.

    Args:
        log_ratio: log π_DPO/π_ref at each token.
        sign: 1 for the chosen, −1 for the rejected response.
        alpha: α.
        beta: β of the training.
    """
    return (1 + sign * alpha * beta * log_ratio).clamp(min=0)


def check_token_weights(rows: Iterable[dict[str, Any]], columns: Sequence[str], name: str) -> None:
    """Check that tokenised pairs have a weight for each response token.

    Raises:
        UserErrors: They lack the columns, or rows have another number of weights, or one below 0 or not finite.
    """
    missing = [column for column in WEIGHT_COLUMNS if column not in columns]
    if missing:
        how = "scripts/score_tokens.py writes them, or scripts/bridge.py with mode: token_scores"
        raise user_error("token_weighting", f"external needs {' and '.join(missing)} in the {name} data; {how}")
    faults = []
    for number, row in enumerate(rows, start=1):
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
