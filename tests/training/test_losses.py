"""Every objective against arithmetic, and TRL's against trl.DPOTrainer."""

from math import exp, expm1, log, log1p
from typing import Any

import pytest
import torch
import trl
from datasets import Dataset

import bmc
from bmc.training.losses import REFERENCE_FREE, PairLogps, hyperparameters, sum_weighted_logps

# One pair: Δ_w = −1.0 + 1.5 = 0.5, Δ_l = −2.0 + 1.8 = −0.2, margin 0.7; 3 tokens and 2, of which those that differ have
# −0.6 and −1.1; −0.9 without λ; β = 0.5, so β·margin = 0.35, r_w = 0.25, r_l = −0.1; ε = 0.1; τ of DiscoPOP 0.5.
NUMBERS = (-1.0, -2.0, -1.5, -1.8, 3.0, 2.0, -0.6, -1.1, -0.9)
PAIR = PairLogps(*(torch.tensor([value], dtype=torch.float64) for value in NUMBERS))
VALUES = {
    "beta": 0.5, "label_smoothing": 0.1, "discopop_tau": 0.5, "rdpo_alpha": 0.2, "simpo_gamma": 0.3, "orpo_lambda": 0.5,
    "figa_alpha": 1.5, "figa_beta": 0.5,
}  # fmt: skip


def s(x: float) -> float:
    """σ(x)."""
    return 1 / (1 + exp(-x))


BY_HAND = {
    "sigmoid": -log(s(0.35)),
    "hinge": 1 - 0.35,
    "ipo": (0.5 / 3 + 0.2 / 2 - 1 / (2 * 0.5)) ** 2,
    "rdpo": -log(s(0.35 + 0.2 * (3 - 2))),
    "simpo": -log(s(0.5 * (-1.0 / 3 + 2.0 / 2) - 0.3)),  # averages −1/3 and −1
    "orpo": 0.9 / 3 - 0.5 * log(s(-1 / 3 + 1 - log(1 - exp(-1 / 3)) + log(1 - exp(-1)))),
    "figa": 1.5 * 0.6 - 0.5 * 1.1,
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
    "sigmoid_norm": -log(s(0.5 * (0.5 / 3 + 0.2 / 2))),
    "sft": 1.0 / 3,
}


OURS = {"rdpo", "simpo", "orpo", "figa"}  # which trl.DPOTrainer doesn't have


def loss_of(name: str, pairs: PairLogps, **changed: float) -> torch.Tensor:
    return bmc.LOSSES[name](pairs, **{key: (VALUES | changed)[key] for key in hyperparameters(name)})


def test_by_hand():
    found = {name: loss_of(name, PAIR) for name in bmc.LOSSES}
    assert {loss.shape for loss in found.values()} == {(1,)}
    assert {name: loss.item() for name, loss in found.items()} == pytest.approx(BY_HAND, abs=1e-12)


def test_sorting_losses_compare_across_the_batch():
    """Δ_w = (0, 1), Δ_l = (3, −1): sorted (0, 1) against (−1, 3), margins 1 and −2."""
    zero, one = torch.zeros(2), torch.ones(2)
    pairs = PairLogps(torch.tensor([0.0, 1.0]), torch.tensor([3.0, -1.0]), *[zero] * 2, *[one] * 5)
    loss = bmc.LOSSES["aot_unpaired"](pairs, beta=1.0, label_smoothing=0.0)
    assert loss.tolist() == pytest.approx([-log(s(1.0)), -log(s(-2.0))], abs=1e-6)


@pytest.fixture(scope="module")
def trainers(model_dir: Any, tmp_path_factory: Any) -> list[Any]:
    """Ours and TRL's, on the same rows, in float64, both moved away from the reference in the same way."""
    options = {
        "output_dir": str(tmp_path_factory.mktemp("losses")), "report_to": "none", "use_cpu": True, "bf16": False,
        "gradient_checkpointing": False, "beta": 0.3, "precompute_ref_log_probs": False,
    }  # fmt: skip
    answers = [(f"{i + 2}, I think", "no idea" * (1 + i % 2)) for i in range(4)]
    rows = Dataset.from_list([{"prompt": "i + 2 = ", "chosen": y_w, "rejected": y_l} for y_w, y_l in answers])
    made = []
    for trainer, config in ((bmc.BMCTrainer, bmc.BMCConfig), (trl.DPOTrainer, trl.DPOConfig)):
        made.append(trainer(str(model_dir), args=config(**options), train_dataset=rows))
        made[-1].label_smoothing = made[-1].args.label_smoothing = 0.1  # of the losses that read it
        made[-1].model.double()
        made[-1].ref_model.double()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in made[-1].model.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return made


def test_value_and_gradient_are_trls(subtests: pytest.Subtests, trainers) -> None:
    for names in [*([name] for name in BY_HAND if name not in OURS), ["sigmoid", "sft"]]:
        with subtests.test(names=names):
            measured = []
            for trainer in trainers:
                trainer.loss_types, trainer.loss_weights = names, [1.0, 0.3][: len(names)]
                trainer.model.zero_grad()
                loss = trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset)))
                loss.backward()
                measured.append((loss.item(), [parameter.grad.clone() for parameter in trainer.model.parameters()]))
            (ours, gradient), (theirs, expected) = measured
            scale = max(
                value.abs().max().item() for value in expected
            )  # TRL's head works in float32 whatever the model's type
            assert scale > 1e-4
            assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6)
            for value, other in zip(gradient, expected, strict=True):
                torch.testing.assert_close(value, other, rtol=0, atol=1e-6 * max(1.0, scale))


def test_a_longer_winner_gains_less_under_rdpo():
    """−log σ(β m + α (|y_w| − |y_l|)): two more tokens than the loser leave a smaller gradient on the margin."""
    slopes = []
    for length in (2.0, 4.0):
        margin = torch.tensor([0.7], requires_grad=True)
        zero, two = torch.zeros(1), torch.full((1,), 2.0)
        pairs = PairLogps(margin, zero, zero, zero, torch.tensor([length]), two, zero, zero, zero)
        bmc.LOSSES["rdpo"](pairs, beta=0.5, rdpo_alpha=0.2).sum().backward()
        slopes.append(margin.grad.item())
    assert slopes == pytest.approx([-0.5 * s(-0.35), -0.5 * s(-0.75)], abs=1e-6)


def test_a_negative_alpha_is_the_sign_of_table_7_and_of_the_released_code():
    """With m = 0.7 and |y_w| − |y_l| = 1: β m − α as printed; β (m − 1) as released, which is α = −β."""
    rdpo = bmc.LOSSES["rdpo"]
    assert rdpo(PAIR, beta=0.5, rdpo_alpha=-0.2).item() == pytest.approx(-log(s(0.35 - 0.2)), abs=1e-12)
    assert rdpo(PAIR, beta=0.5, rdpo_alpha=-0.5).item() == pytest.approx(-log(s(0.5 * (0.7 - 1))), abs=1e-12)
    assert bmc.BMCConfig("out", loss_type="rdpo", rdpo_alpha=-0.5, use_cpu=True, bf16=False).rdpo_alpha == -0.5


def test_orpo_keeps_its_digits(subtests: pytest.Subtests) -> None:
    """log(1 − eˣ) at x → 0 and x → −∞, in float32, against mpmath-free arithmetic in float64."""
    for average in [-1e-7, -0.5, -40.0]:
        with subtests.test(average=average):
            one, mean = torch.ones(1), torch.tensor([average])
            pairs = PairLogps(mean, -one, *[one] * 6, mean)
            exact = average + 1 - log(-expm1(average)) + log1p(-exp(-1))
            expected = -average - 0.5 * log(s(exact))
            assert bmc.LOSSES["orpo"](pairs, orpo_lambda=0.5).item() == pytest.approx(expected, rel=1e-5)


def test_who_reads_the_reference():
    missing = PAIR._replace(ref_chosen_logps=PAIR.chosen_logps * float("nan"))
    assert {name for name in bmc.LOSSES if loss_of(name, missing).isfinite()} == REFERENCE_FREE


def experimental(model_dir: Any, tmp_path: Any, name: str, rows: Dataset) -> Any:
    """TRL's trainer for an objective that DPOTrainer doesn't have."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    options = {
        "output_dir": str(tmp_path), "report_to": "none", "use_cpu": True, "bf16": False,
        "remove_unused_columns": False,
    }  # fmt: skip
    if name == "orpo":
        trainer, args = ORPOTrainer, ORPOConfig(beta=0.5, **options)
    else:
        trainer, args = CPOTrainer, CPOConfig(beta=2.0, simpo_gamma=0.3, loss_type="simpo", cpo_alpha=0.0, **options)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(model_dir), AutoTokenizer.from_pretrained(model_dir)
    return trainer(model, args=args, train_dataset=rows, processing_class=tokenizer)


def sides(batch: dict[str, Any]) -> Any:
    """(token ids, labels) of each winner and of each loser, without padding; TRL's own tokens."""
    for side in ("chosen", "rejected"):
        columns = (batch[f"{side}_{name}"] for name in ("input_ids", "labels", "attention_mask"))
        yield [
            (ids[mask == 1].tolist(), labels[mask == 1].tolist()) for ids, labels, mask in zip(*columns, strict=True)
        ]


def tokens(winner: Any, loser: Any) -> dict[str, Any]:
    """An example for our collator."""
    start = winner[1].count(-100)
    chosen, rejected = winner[0][start:], loser[0][start:]
    masks = bmc.token_diff(chosen, rejected)
    return {
        "prompt_ids": winner[0][:start], "chosen_ids": chosen, "rejected_ids": rejected,
        "chosen_diff": masks[0], "rejected_diff": masks[1],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options"), [("simpo", {"beta": 2.0, "simpo_gamma": 0.3}), ("orpo", {"orpo_lambda": 0.5})]
)
def test_value_and_gradient_are_those_of_trls_experimental_trainer(model_dir, tmp_path, name, options):
    answers = [(f"{i + 2}, I think", "no idea" * (1 + i % 2)) for i in range(4)]
    rows = Dataset.from_list([{"prompt": "i + 2 = ", "chosen": y_w, "rejected": y_l} for y_w, y_l in answers])
    theirs = experimental(model_dir, tmp_path, name, rows)
    args = bmc.BMCConfig(
        output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
        loss_type=name, **options,
    )  # fmt: skip
    ours = bmc.BMCTrainer(str(model_dir), args=args, train_dataset=rows)
    assert ours.ref_model is None

    batch = theirs.data_collator([theirs.train_dataset[i] for i in range(4)])
    loss = ours.compute_loss(ours.model, ours.data_collator(list(map(tokens, *sides(batch)))))
    loss.backward()
    expected, _ = theirs.get_batch_loss_metrics(theirs.model, batch, train_eval="train")
    if name == "orpo":  # TRL's first term is over the prompt too and over the batch's tokens; the paper's is not
        outputs = theirs.concatenated_forward(theirs.model, batch)
        expected = expected - outputs[4] - outputs[0].mean()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    for value, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(value.grad, other.grad, rtol=1e-5, atol=1e-6)


def test_weights_of_1_leave_an_objective_as_it_is_and_others_do_not():
    """Through `sum_weighted_logps`, on random tokens."""
    generator = torch.Generator().manual_seed(4)
    logps, ref_logps = -torch.rand(2, 3, 2, 5, generator=generator, dtype=torch.float64)
    responses = torch.arange(5) < torch.tensor([[[3], [5]], [[4], [2]], [[5], [5]]])
    differs = responses & (torch.rand(3, 2, 5, generator=generator) < 0.5)
    logps, ref_logps = logps * responses, ref_logps * responses

    def weighted(weights: Any) -> PairLogps:
        return sum_weighted_logps(logps, ref_logps, weights, weights, responses, differs)

    sums = (logps, ref_logps, responses, logps * differs)
    plain = PairLogps(*(side for values in sums for side in values.sum(-1).unbind(1)), logps[:, 0].sum(-1))
    ones, others = weighted(torch.ones_like(logps)), weighted(bmc.bmc_weights(logps, differs, 3.0))
    for name in bmc.LOSSES:
        expected = loss_of(name, plain)
        torch.testing.assert_close(loss_of(name, ones), expected)
        assert not torch.allclose(loss_of(name, others), expected), name


def test_averages_divide_the_weighted_sum_by_the_number_of_tokens(subtests: pytest.Subtests) -> None:
    """λ ≡ 1, 2 and 4 on the three tokens of y_w and the two of y_l: averages grow with λ, ORPO's likelihood does not.

    Σ log π_θ: −0.9 and −1.2; Σ log π_ref: −1.5 and −0.8. So Δ_w/|y_w| = λ·0.2, Δ_l/|y_l| = −λ·0.2, and the averages
    are −λ·0.3 and −λ·0.6.
    """
    for scale in [1.0, 2.0, 4.0]:
        with subtests.test(scale=scale):
            logps = torch.tensor([[[-0.2, -0.3, -0.4], [-0.5, -0.7, -9.0]]], dtype=torch.float64)
            ref_logps = torch.tensor([[[-0.5, -0.5, -0.5], [-0.3, -0.5, -9.0]]], dtype=torch.float64)
            responses = torch.tensor([[[True, True, True], [True, True, False]]])
            weights = torch.full_like(logps, scale)
            pairs = sum_weighted_logps(logps, ref_logps, weights, weights, responses, responses)
            winner, loser = -0.3 * scale, -0.6 * scale
            expected = {
                "ipo": (0.4 * scale - 1) ** 2,
                "sigmoid_norm": -log(s(0.5 * 0.4 * scale)),
                "simpo": -log(s(0.5 * (winner - loser) - 0.3)),
                "orpo": 0.3 - 0.5 * log(s(winner - log(1 - exp(winner)) - loser + log(1 - exp(loser)))),
                "sft": 0.3 * scale,
            }
            for name, value in expected.items():
                loss = loss_of(name, pairs)
                assert loss.item() == pytest.approx(value, abs=1e-12), name


def test_an_empty_response_has_finite_averages():
    logps, nothing = torch.zeros(1, 2, 1, requires_grad=True), torch.zeros(1, 2, 1, dtype=torch.bool)
    pairs = sum_weighted_logps(logps, logps.detach(), torch.ones(1, 2, 1), torch.ones(1, 2, 1), nothing, nothing)
    for name in bmc.LOSSES:
        loss = loss_of(name, pairs)
        (gradient,) = torch.autograd.grad(loss.sum(), logps, retain_graph=True)
        assert loss.isfinite().all(), name
        assert gradient.isfinite().all(), name


EXTREMES = [0.0, -0.0, -1e-45, -1e-38, -1e-20, -6e-8, -1.19e-7, -0.5, -88.0, -104.0, -1e3, -1e5]


def test_loss_and_gradient_are_finite_at_the_ends_of_the_range(subtests: pytest.Subtests) -> None:
    """Responses of ten tokens, of which the first has a probability of 1, of almost 1 or of almost 0, in float32."""
    for rest in [0.0, -0.7]:
        with subtests.test(rest=rest):
            first = torch.tensor([[chosen, rejected] for chosen in EXTREMES for rejected in EXTREMES])
            logps = torch.cat([first[..., None], torch.full((len(first), 2, 9), rest)], dim=-1).requires_grad_()
            ref_logps = torch.full_like(logps, -0.1)
            everywhere = torch.ones_like(logps, dtype=torch.bool)
            for name in bmc.LOSSES:
                for weights in (torch.ones_like(logps), bmc.bmc_weights(logps, everywhere, 3.0)):
                    pairs = sum_weighted_logps(logps, ref_logps, weights, weights, everywhere, everywhere)
                    loss = loss_of(name, pairs, discopop_tau=0.05)
                    (gradient,) = torch.autograd.grad(loss.sum(), logps)
                    for found in (loss, gradient, gradient.norm()):
                        assert found.isfinite().all(), name
