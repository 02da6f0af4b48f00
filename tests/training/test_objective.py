"""Eqs. 4, 7 and 10 and the gradient of Appendix C, against arithmetic in plain floats."""

from math import exp, log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bmc
from bmc.training.losses import hyperparameters, sum_weighted_logps


def test_weights_of_equations_7_and_10():
    # π = 0.5 → 1 + min(2, 3) = 3; π = 0.1 → 1 + min(10, 3) = 4; π = 0.9 → 1 + 1/0.9 = 2.111…; not differing → 1
    logps = torch.tensor([0.5, 0.1, 0.9, 0.1], dtype=torch.float64).log()
    weights = bmc.bmc_weights(logps, torch.tensor([True, True, True, False]), delta=3.0)
    torch.testing.assert_close(weights, torch.tensor([3.0, 4.0, 1 + 1 / 0.9, 1.0], dtype=torch.float64))


def test_small_deltas_are_fixed_weights(subtests: pytest.Subtests) -> None:
    for delta, differing in [(0.0, 1.0), (0.5, 1.5), (1.0, 2.0)]:
        with subtests.test(delta=delta):
            logps = torch.tensor([-0.001, -2.0, -50.0, -1000.0])  # e^1000 overflows
            weights = bmc.bmc_weights(logps, torch.tensor([True, True, True, True]), delta)
            assert weights.tolist() == [differing] * 4


@given(st.lists(st.floats(-200, 0), min_size=1, max_size=8), st.floats(1, 5))
def test_a_differing_token_weighs_from_2_to_1_plus_delta(values, delta):
    logps = torch.tensor(values, dtype=torch.float64)
    weights = bmc.bmc_weights(logps, torch.ones_like(logps, dtype=torch.bool), delta)
    assert ((weights >= 2.0) & (weights <= 1 + delta)).all()


def test_weights_carry_no_gradient():
    logps = torch.tensor([-1.0], requires_grad=True)
    assert not bmc.bmc_weights(logps, torch.tensor([True]), 3.0).requires_grad


# One pair of three-token responses, the last token of the loser being padding.
POLICY = {"w": [0.5, 0.2, 0.8], "l": [0.5, 0.4]}
REFERENCE = {"w": [0.4, 0.3, 0.8], "l": [0.4, 0.5]}
DIFFERS = {"w": [False, True, True], "l": [False, True]}
BETA, DELTA = 0.1, 3.0


def by_hand() -> tuple[float, dict[str, list[float]], float]:
    """Loss of Eq. 4, λ of each token, and σ(Δ₂) of Appendix C, without torch."""
    weights = {
        side: [1 + min(1 / p, DELTA) if d else 1.0 for p, d in zip(POLICY[side], DIFFERS[side], strict=True)]
        for side in "wl"
    }
    sums = {
        side: sum(
            weight * log(p / q) for weight, p, q in zip(weights[side], POLICY[side], REFERENCE[side], strict=True)
        )
        for side in "wl"
    }
    logit = BETA * (sums["w"] - sums["l"])
    return log(1 + exp(-logit)), weights, 1 / (1 + exp(logit))


def tensors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    def rows(table, fill, dtype=torch.float64):
        return torch.tensor([[table["w"], [*table["l"], fill]]], dtype=dtype)

    logps = rows(POLICY, 1.0).log().requires_grad_()
    responses = torch.tensor([[[True, True, True], [True, True, False]]])
    return logps, rows(REFERENCE, 1.0).log(), rows(DIFFERS, False, torch.bool), responses


def test_loss_of_equation_4():
    loss, expected, _ = by_hand()
    # the numbers themselves: λ = (1, 4, 2.25) and (1, 3.5), so that
    # logit = 0.1 (ln 1.25 + 4 ln 2/3 + 2.25 ln 1 − ln 1.25 − 3.5 ln 0.8) = 0.1 (−1.621860 + 0.781002) = −0.0840858
    assert expected == {"w": [1.0, 4.0, 2.25], "l": [1.0, 3.5]}
    assert loss == pytest.approx(0.7360737, abs=1e-7)

    logps, ref_logps, differs, responses = tensors()
    weights = bmc.bmc_weights(logps, differs, DELTA)
    pairs = sum_weighted_logps(logps, ref_logps, weights, weights, responses, differs)
    torch.testing.assert_close(
        bmc.LOSSES["sigmoid"](pairs, beta=BETA), torch.tensor([loss], dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_gradient_of_appendix_c():
    """∂L/∂log π(y_w^t) = −β σ(Δ₂) λ and ∂L/∂log π(y_l^t) = +β σ(Δ₂) λ: the plain term and the (λ − 1) term."""
    _, by_side, slope = by_hand()
    logps, ref_logps, differs, responses = tensors()
    weights = bmc.bmc_weights(logps, differs, DELTA)
    pairs = sum_weighted_logps(logps, ref_logps, weights, weights, responses, differs)
    bmc.LOSSES["sigmoid"](pairs, beta=BETA).mean().backward()
    plain, added = [-BETA * slope] * 3, [-BETA * slope * (weight - 1) for weight in by_side["w"]]
    expected = [
        [a + b for a, b in zip(plain, added, strict=True)],
        [*(BETA * slope * weight for weight in by_side["l"]), 0.0],
    ]
    torch.testing.assert_close(logps.grad[0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_gradient_agrees_with_finite_differences():
    logps, ref_logps, differs, responses = tensors()
    weights = bmc.bmc_weights(logps, differs, DELTA)  # stop-gradient: held while log π moves

    def loss(logps):
        return bmc.LOSSES["sigmoid"](
            sum_weighted_logps(logps, ref_logps, weights, weights, responses, differs), beta=BETA
        ).sum()

    assert torch.autograd.gradcheck(loss, (logps,))


def test_delta_0_is_dpo():
    logps, ref_logps, differs, responses = tensors()
    one, zero = torch.ones_like(logps), bmc.bmc_weights(logps, differs, 0.0)
    assert torch.equal(one, zero)
    dpo = sum_weighted_logps(logps, ref_logps, one, one, responses, differs)
    assert dpo.chosen_logratios.item() == pytest.approx(log(0.5 / 0.4) + log(0.2 / 0.3), abs=1e-12)


def test_an_objective_names_its_hyperparameters():
    assert hyperparameters("sigmoid") == ["beta"]
