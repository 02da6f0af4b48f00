"""Token credit besides BMC's: each weighting by hand, and against numbers of its public code on the same log-probs."""

import json
from math import exp
from typing import Any

import pytest
import tiny_pairs
import torch
from tiny_pairs import perturb
from transformers import AutoModelForCausalLM, AutoTokenizer

import bmc
from bmc import commands
from bmc.errors import UserErrors
from bmc.training.lm_head import gather_response_tokens
from bmc.training.losses import sum_weighted_logps
from bmc.training.token_weights import (
    confpo_weights,
    entropy_weights,
    position_weights,
    sepo_weights,
    shift_weights,
    tgdpo_weights,
    tis_weights,
)


def tokens(*lengths: tuple[int, int], width: int) -> torch.Tensor:
    return torch.arange(width) < torch.tensor(lengths)[..., None]


def test_confpo_takes_what_is_less_likely_than_the_mean_probability() -> None:
    """Mean of 0.9, 0.5, 0.1, 0.9: 0.6. The mean of log-probs, e^-0.80 = 0.45, would leave 0.5 out."""
    p = torch.tensor([[[0.9, 0.5, 0.1, 0.9], [0.2, 0.8, 1.0, 1.0]]])
    responses = tokens((4, 2), width=4)  # of the second response two tokens, whose mean is 0.5
    assert confpo_weights(p.log(), responses).tolist() == [[[0, 1, 1, 0], [1, 0, 0, 0]]]


def test_where_no_token_is_below_the_mean_the_pair_counts_nothing(subtests: pytest.Subtests) -> None:
    """One token, or equal ones, whatever rounding does to their mean; neither side moves then, as in ConfPO's code."""
    for p in [[1.0], [0.3], [0.7, 0.7, 0.7], [0.1] * 7]:
        with subtests.test(p=p):
            logps = torch.zeros(1, 2, 8)
            logps[0, 0, : len(p)], logps[0, 1] = torch.tensor(p).log(), torch.linspace(-3, 0, 8)
            assert confpo_weights(logps, tokens((len(p), 8), width=8)).sum() == 0


def test_entropy_takes_a_share_of_each_response_and_of_equal_ones_the_earlier() -> None:
    entropy = torch.tensor([[[0.1, 2.0, 0.3, 2.0, 1.0], [0.5, 0.4, 9.0, 9.0, 9.0]]])
    responses = tokens((5, 2), width=5)
    assert entropy_weights(entropy, responses, 0.5).tolist() == [[[0, 1, 0, 1, 0], [1, 0, 0, 0, 0]]]  # ⌊2.5⌋, ⌊1⌋
    assert entropy_weights(entropy, responses, 0.2).tolist() == [[[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]]  # at least one
    assert entropy_weights(torch.rand(100), torch.ones(100, dtype=torch.bool), 0.29).sum() == 29


def test_position_decays_from_the_first_difference_of_the_pair() -> None:
    """The chosen response has a token more at t = 1; γ = ½: 1, ½⁰, ½¹ … on both sides."""
    differs = torch.tensor([[[False, True, False, False], [False, False, False, True]]])
    expected = [1, 1, 0.5, 0.25]
    assert position_weights(differs, 0.5).tolist() == [[expected, expected]]
    assert position_weights(torch.zeros(1, 2, 3, dtype=torch.bool), 0.5).tolist() == [[[1, 1, 1]] * 2]


RATIO = torch.tensor([0.25, -0.8, 2.0, -0.5])  # log π₊/π₋ of four tokens


def test_weights_of_models_by_hand() -> None:
    """TIS clips to [−0.5, 1.5]; SePO takes ⌊0.5 · 4⌋ from the top or the bottom; TGDPO has r = 0.1 · ratio, α = 0.5."""
    chosen, rejected = tis_weights(RATIO, 1, -0.5, 1.5), tis_weights(RATIO, -1, -0.5, 1.5)
    assert chosen.tolist() == pytest.approx([exp(0.25), exp(-0.5), exp(1.5), exp(-0.5)])
    assert rejected.tolist() == pytest.approx([exp(-0.25), exp(0.5), exp(-1.5), exp(0.5)])
    assert sepo_weights(RATIO, 1, 0.5).tolist() == [1, 0, 1, 0]
    assert sepo_weights(RATIO, -1, 0.5).tolist() == [0, 1, 0, 1]
    assert tgdpo_weights(RATIO, 1, 0.5, 0.1).tolist() == pytest.approx([1.0125, 0.96, 1.1, 0.975])
    assert tgdpo_weights(RATIO, -1, 0.5, 0.1).tolist() == pytest.approx([0.9875, 1.04, 0.9, 1.025])
    assert tgdpo_weights(torch.tensor([-30.0, 30.0]), 1, 0.5, 0.1).tolist() == [0, 2.5]  # 1 − 1.5 would push it down


# What the public code of each paper computes from these log-probs: 6 and 4 tokens, a policy, a reference, a DPO model
POLICY = [[-0.11, -2.3, -0.7, -0.02, -1.9, -0.4], [-1.2, -0.05, -3.1, -0.6]]
REFERENCE = [[-0.2, -2.0, -0.9, -0.03, -2.4, -0.5], [-1.0, -0.07, -2.2, -0.8]]
REWARD = [[-0.05, -1.1, -0.8, -0.01, -3.0, -0.45], [-1.6, -0.06, -4.9, -0.5]]


def padded(rows: list[list[float]]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)[None]


def loss_of(weights: torch.Tensor, name: str, **hyperparameters: float) -> float:
    pairs = sum_weighted_logps(padded(POLICY), padded(REFERENCE), weights, weights, RESPONSES, RESPONSES)
    return bmc.LOSSES[name](pairs, **hyperparameters).item()


def by_model(function: Any, *rest: float) -> torch.Tensor:
    ratio = padded(REWARD) - padded(REFERENCE)
    rows = [function(ratio[0, side, :count], sign, *rest) for side, (count, sign) in enumerate([(6, 1), (4, -1)])]
    return padded([row.tolist() for row in rows])


RESPONSES = tokens((6, 4), width=6)
ALL_DIFFER = torch.ones(1, 2, 6, dtype=torch.bool)
# λ as a function of nothing, objective with its hyperparameters, and the loss that the paper's own code gives, run on
# these numbers: hee-suk-yoon/ConfPO, dvlab-research/TGDPO, SteveKGYang/SePO (its selection and its loss),
# LotuSrc/D2PO (γ¹ for the first token), Meaquadddd/DPO-Shift; exlaw/TIS-DPO's `threshold` weights, which are the
# logarithms of ours where the clipping is symmetric
PUBLIC = {
    "confpo": (
        lambda: confpo_weights(padded(POLICY), RESPONSES), ("simpo", {"beta": 1.5, "simpo_gamma": 1.6}), 1.188417
    ),
    "tgdpo": (lambda: by_model(tgdpo_weights, 0.5, 0.1), ("sigmoid", {"beta": 0.1}), 0.617083),
    "sepo": (lambda: by_model(sepo_weights, 0.5), ("simpo", {"beta": 1.0, "simpo_gamma": 0.0}), 0.284022),
    "position": (lambda: 0.98 * position_weights(ALL_DIFFER, 0.98), ("sigmoid", {"beta": 0.1}), 0.626643),
    "shift": (lambda: shift_weights(padded(POLICY), 0.75), ("sigmoid", {"beta": 0.1}), 0.632130),
    "tis": (
        lambda: by_model(lambda ratio, sign: tis_weights(ratio, sign, -1.0, 1.0).log()),
        ("sigmoid", {"beta": 0.1}), 0.666079,
    ),
}  # fmt: skip


def test_the_papers_code_gives_the_same_loss(subtests: pytest.Subtests) -> None:
    for name in PUBLIC:
        with subtests.test(name=name):
            weights, (objective, hyperparameters), public = PUBLIC[name]
            assert loss_of(weights(), objective, **hyperparameters) == pytest.approx(public, abs=1e-5)


LAYOUTS = [{"prefix_sharing": share, "packing": pack} for share in (True, False) for pack in (True, False)]
IN_STEP = {"confpo": {}, "entropy": {"entropy_share": 0.3}, "position": {"position_decay": 0.9}, "shift": {}}


@pytest.mark.parametrize("weighting", IN_STEP)
def test_weights_are_the_same_in_every_layout_and_carry_no_gradient(
    model_dir: Any, tmp_path: Any, weighting: str
) -> None:
    """Shared prefixes, packed rows and padding; other pairs in the batch; and entropy from the whole logits."""
    trainer = tiny_pairs.make(model_dir, tmp_path, token_weighting=weighting, **IN_STEP[weighting])
    perturb(trainer.model)
    rows = list(trainer.train_dataset)
    found = []
    for layout in LAYOUTS:
        for name, value in layout.items():
            setattr(trainer.data_collator, name, value)
        for batch in (rows, rows[:1]):
            inputs = trainer.data_collator(batch)
            scores = trainer._score(trainer.model, inputs)
            logps = gather_response_tokens(scores.logps, inputs)
            weights = trainer._weights(scores, logps, inputs)
            assert (weights.dtype, weights.requires_grad) == (torch.float32, False)
            found.append([weights[0, side, :count] for side, count in enumerate(inputs["response_mask"][0].sum(-1))])
    for weights in found[1:]:
        torch.testing.assert_close(weights, found[0], rtol=0, atol=1e-6)
    assert len(torch.cat(found[0]).unique()) > 1
    if weighting == "entropy":
        ids = [rows[0]["prompt_ids"] + rows[0][side] for side in ("chosen_ids", "rejected_ids")]
        for row, response, weights in zip(ids, ("chosen_ids", "rejected_ids"), found[0], strict=True):
            count = len(rows[0][response])
            logp = trainer.model(torch.tensor([row])).logits[0, -count - 1 : -1].log_softmax(-1)
            uncertain = -(logp.exp() * logp).sum(-1)
            assert weights.nonzero()[:, 0].tolist() == sorted(uncertain.topk(int(0.3 * count)).indices.tolist())


def test_keys_belong_to_their_weighting(tmp_path: Any) -> None:
    for values, message in [
        (
            {"entropy_share": 0.5},
            "entropy_share: token_weighting: none doesn't read it; write token_weighting: entropy",
        ),
        ({"token_weighting": "bmc", "position_decay": 0.5}, "position_decay: token_weighting: bmc doesn't read it"),
        ({"token_weighting": "entropy", "entropy_share": 0.0}, "entropy_share: must be greater than 0"),
        ({"token_weighting": "confpo", "diff_algorithm": "difflib"}, "diff_algorithm: without λ no loss reads"),
        ({"token_weighting": "tis"}, "token_weighting: must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            bmc.BMCConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **values)
    bmc.BMCConfig(
        output_dir=str(tmp_path), token_weighting="position", diff_algorithm="difflib", use_cpu=True, bf16=False
    )


# The stage score_tokens


@pytest.fixture
def scoring(model_dir: Any, tmp_path: Any) -> list[str]:
    """The command line of a scoring: three pairs, of which training drops one; a model moved from another."""
    moved = AutoModelForCausalLM.from_pretrained(model_dir)
    perturb(moved, scale=0.05).save_pretrained(tmp_path / "dpo")
    AutoTokenizer.from_pretrained(model_dir).save_pretrained(tmp_path / "dpo")
    rows = [
        {"id": "a", "prompt": "1 + 1 = ", "chosen": "2, of course", "rejected": "3", "note": "kept"},
        {"id": "b", "prompt": "x" * 90, "chosen": "2", "rejected": "3"},  # its prompt fills max_length
        {"id": "c", "prompt": "2 + 2 = ", "chosen": "4", "rejected": "not four, says the author of this row, but five"},
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "dataset_mixture.datasets": [{"id": str(tmp_path / "pairs.jsonl")}],
        "model_name_or_path": str(tmp_path / "dpo"), "ref_model_name_or_path": str(model_dir), "max_length": 40,
        "reference_cache": str(tmp_path / "cache"), "output_dir": str(tmp_path / "scored"), "method": "tis"
    }  # fmt: skip
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]


@pytest.mark.slow
def test_the_stage_writes_the_weights_of_each_response_token(
    model_dir: Any, tmp_path: Any, scoring: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.score_tokens(scoring)
    first, last = (json.loads(line) for line in (tmp_path / "scored/train.jsonl").read_text().splitlines())
    assert (first["note"], last["id"]) == ("kept", "c")
    (dropped,) = (json.loads(line) for line in (tmp_path / "scored/dropped.jsonl").read_text().splitlines())
    assert (dropped["id"], dropped["reason"][:20]) == ("b", "without a preference")
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    models = [AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (tmp_path / "dpo", model_dir)]
    for row, side, sign in ((first, "chosen", 1), (first, "rejected", -1), (last, "chosen", 1), (last, "rejected", -1)):
        prompt, response = (
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in (row["prompt"], row[side])
        )
        ids = torch.tensor([[*prompt, *response, tokenizer.eos_token_id]])
        with torch.no_grad():
            ours, theirs = (
                model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0] for model in models
            )
        expected = torch.exp(sign * (ours - theirs)[len(prompt) - 1 :].clamp(-0.5, 1.5))
        expected[40 - len(prompt) :] = 1.0  # cut off by max_length
        assert row[f"{side}_weights"] == pytest.approx(expected.tolist(), abs=1e-5)
    assert last["rejected_weights"][-1] == 1.0
    assert len(set(first["chosen_weights"])) > 3
    stats = json.loads((tmp_path / "scored/stats.json").read_text())
    assert (stats["rows"], stats["pairs"], stats["dropped"]) == (3, 2, 1)

    monkeypatch.setattr(bmc.BMCTrainer, "_reference_logps", None)  # the log-probs are kept: no model runs again
    commands.score_tokens([*scoring[:-2], "--method=sepo", f"--output_dir={tmp_path / 'sepo'}"])
    monkeypatch.undo()
    rows = [json.loads(line) for line in (tmp_path / "sepo/train.jsonl").read_text().splitlines()]
    assert sum(rows[0]["chosen_weights"]) == 3  # ⌊0.3 · 13⌋
    trainer = tiny_pairs.make(model_dir, tmp_path / "run", rows, token_weighting="external", loss_type=["simpo"])
    assert trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset))).isfinite()


def test_models_and_tokenizers_that_cannot_score_are_faults_before_anything_is_written(
    subtests: pytest.Subtests, model_dir: Any, tmp_path: Any, scoring: list[str]
) -> None:
    AutoModelForCausalLM.from_pretrained(model_dir).save_pretrained(tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(tmp_path / "other")
    for changed, message in [
        (["--model_name_or_path=null"], "model_name_or_path: must be text"),
        (["--ref_model_name_or_path={dpo}/"], "ref_model_name_or_path: is model_name_or_path itself"),
        (["--ref_model_name_or_path={dpo}2"], "there is no folder"),
        (["--ref_model_name_or_path={other}"], "has another tokenizer than"),
        (["--tokenizer_name_or_path={other}"], "has another tokenizer than"),
        (["--tis_low=2.0"], "tis_low: is above tis_high"),
        (["--sepo_share=0.2"], "sepo_share: only method: sepo reads it"),
        (["--method=confpo"], "method: must be"),
    ]:
        with subtests.test(changed=changed):
            changed = [value.format(dpo=tmp_path / "dpo", other=tmp_path / "other") for value in changed]
            for more in ([], ["--dry_run"]):
                with pytest.raises(UserErrors, match=message):
                    commands.score_tokens([*scoring, *changed, *more])
            assert not (tmp_path / "scored").exists()


def test_an_external_weighting_without_its_columns_is_a_fault_of_the_dry_run(tmp_path: Any, model_dir: Any) -> None:
    recipe = tiny_pairs.write_recipe(tmp_path, model_dir, token_weighting="external")
    for more in ([], ["--dry_run"]):
        with pytest.raises(UserErrors, match="external needs chosen_weights and rejected_weights in the train data"):
            commands.train([str(recipe), *more])
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    rows = [{**row, "chosen_weights": [1.0] * 3, "rejected_weights": [1.0] * 8} for row in rows]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserErrors, match="has 3 weights for 8 tokens; make them with this tokenizer and template"):
        commands.train([str(recipe), "--dry_run"])
    assert not (tmp_path / "run").exists()
