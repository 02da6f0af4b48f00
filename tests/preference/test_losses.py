"""Every objective against arithmetic, and TRL's against trl.DPOTrainer."""

from __future__ import annotations

from math import exp, log
from typing import Any

import pytest
import torch
import trl
from datasets import Dataset

import bmc
from bmc.preference.losses import Pairs, hyperparameters

# One pair: Δ_w = −1.0 + 1.5 = 0.5, Δ_l = −2.0 + 1.8 = −0.2, margin 0.7; Σλ 4 and 2; β = 0.5, so β·margin = 0.35,
# r_w = 0.25, r_l = −0.1; ε = 0.1; τ of DiscoPOP 0.5.
PAIR = Pairs(*(torch.tensor([value], dtype=torch.float64) for value in (-1.0, -2.0, -1.5, -1.8, 4.0, 2.0)))
VALUES = {"beta": 0.5, "label_smoothing": 0.1, "discopop_tau": 0.5}


def s(x: float) -> float:
    """σ(x)."""
    return 1 / (1 + exp(-x))


BY_HAND = {
    "sigmoid": -log(s(0.35)),
    "hinge": 1 - 0.35,
    "ipo": (0.5 / 4 + 0.2 / 2 - 1 / (2 * 0.5)) ** 2,  # (0.225 − 1)² = 0.600625
    "exo_pair": s(0.35) * (log(s(0.35)) - log(0.9)) + s(-0.35) * (log(s(-0.35)) - log(0.1)),
    "nca_pair": -log(s(0.25)) - 0.5 * log(s(-0.25)) - 0.5 * log(s(0.1)),
    "robust": (-0.9 * log(s(0.35)) + 0.1 * log(s(-0.35))) / 0.8,
    "bco_pair": -log(s(0.25)) - log(s(0.1)),
    "sppo_hard": (0.5 - 1) ** 2 + (-0.2 + 1) ** 2,  # 0.25 + 0.64
    "aot": -0.9 * log(s(0.35)) - 0.1 * log(s(-0.35)),  # log-ratios 1.0 and 0.3: margin 0.7
    "aot_unpaired": -0.9 * log(s(0.35)) - 0.1 * log(s(-0.35)),
    "apo_zero": 1 - s(0.25) + s(-0.1),
    "apo_down": s(0.25) + 1 - s(0.35),
    "discopop": -log(s(0.35)) * (1 - s(0.7)) + exp(-0.35) * s(0.7),
    "sigmoid_norm": -log(s(0.5 * (0.5 / 4 + 0.2 / 2))),
    "sft": 1.0 / 4,
}


def test_every_objective_has_its_arithmetic():
    assert BY_HAND.keys() == bmc.LOSSES.keys()


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name):
    loss = bmc.LOSSES[name](PAIR, **{key: VALUES[key] for key in hyperparameters(name)})
    assert loss.shape == (1,)
    assert loss.item() == pytest.approx(BY_HAND[name], abs=1e-12)


def test_sorting_losses_compare_across_the_batch():
    """Δ_w = (0, 1), Δ_l = (3, −1): sorted (0, 1) against (−1, 3), margins 1 and −2."""
    zero, one = torch.zeros(2), torch.ones(2)
    pairs = Pairs(torch.tensor([0.0, 1.0]), torch.tensor([3.0, -1.0]), zero, zero, one, one)
    loss = bmc.LOSSES["aot_unpaired"](pairs, beta=1.0, label_smoothing=0.0)
    assert loss.tolist() == pytest.approx([-log(s(1.0)), -log(s(-2.0))], abs=1e-6)


@pytest.fixture(scope="module")
def trainers(model_dir: Any, tmp_path_factory: Any) -> list[Any]:
    """Ours and TRL's, on the same rows, in float64, both moved away from the reference in the same way."""
    options = {
        "output_dir": str(tmp_path_factory.mktemp("losses")), "report_to": "none", "use_cpu": True, "bf16": False,
        "gradient_checkpointing": False, "beta": 0.3, "label_smoothing": 0.1, "precompute_ref_log_probs": False,
    }  # fmt: skip
    answers = [(f"{i + 2}, I think", "no idea" * (1 + i % 2)) for i in range(4)]
    rows = Dataset.from_list([{"prompt": "i + 2 = ", "chosen": y_w, "rejected": y_l} for y_w, y_l in answers])
    made = []
    for trainer, config in ((bmc.BMCTrainer, bmc.BMCConfig), (trl.DPOTrainer, trl.DPOConfig)):
        made.append(trainer(str(model_dir), args=config(**options), train_dataset=rows))
        made[-1].model.double()
        made[-1].ref_model.double()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in made[-1].model.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return made


@pytest.mark.parametrize("names", [*([name] for name in BY_HAND), ["sigmoid", "sft"]], ids="+".join)
def test_value_and_gradient_are_trls(trainers, names):
    measured = []
    for trainer in trainers:
        trainer.loss_types, trainer.loss_weights = names, [1.0, 0.3][: len(names)]
        trainer.model.zero_grad()
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset)))
        loss.backward()
        measured.append((loss.item(), [parameter.grad.clone() for parameter in trainer.model.parameters()]))
    (ours, gradient), (theirs, expected) = measured
    scale = max(value.abs().max().item() for value in expected)  # TRL's head works in float32 whatever the model's type
    assert scale > 1e-4
    assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6)
    for value, other in zip(gradient, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=1e-6 * max(1.0, scale))
