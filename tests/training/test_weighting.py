"""Where token weights come from: the policy, each model, the data; and which tokens differ, as in the released code."""

import json
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest
import tiny_pairs
import torch
from datasets import Dataset
from tiny_pairs import opened, perturb, write_recipe

import bmc
from bmc import commands
from bmc.errors import UserErrors
from bmc.training.losses import sum_weighted_logps
from bmc.training.token_weights import STOP_WORDS, mark_differences, stop_word_ids

ROWS = [{"prompt": f"{i} + 1 = ", "chosen": f"{i + 1}.", "rejected": f"not {i}"} for i in range(4)]


def make(model_dir: Path, tmp_path: Path, rows: list[dict[str, Any]] = ROWS, **changed: Any) -> Any:
    return tiny_pairs.make(model_dir, tmp_path, rows, reference_cache=str(tmp_path / "cache"), **changed)


def weighted(weights: Any) -> list[dict[str, Any]]:
    """Byte-level tokens: one a character, and the end."""
    return [
        {**row, "chosen_weights": weights(row["chosen"]), "rejected_weights": weights(row["rejected"])} for row in ROWS
    ]


def first_loss(trainer: Any) -> float:
    perturb(trainer.model)
    return trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset))).item()


@pytest.mark.slow
def test_external_weights_of_1_are_no_weights_and_others_are_some(model_dir, tmp_path):
    names = ["sigmoid", "ipo", "simpo", "orpo", "figa", "rdpo", "aot"]
    ones, mixed = weighted(lambda text: [1.0] * (len(text) + 1)), weighted(lambda text: [3.0] + [1.0] * len(text))
    found = []
    for rows, weighting in ((ROWS, "none"), (ones, "external"), (mixed, "external")):
        trainer = make(model_dir, tmp_path, rows, token_weighting=weighting)
        perturb(trainer.model)
        batch = trainer.data_collator(list(trainer.train_dataset))
        found.append([])
        for name in names:
            trainer.loss_types = [name]
            found[-1].append(trainer.compute_loss(trainer.model, batch).item())
    assert found[1] == pytest.approx(found[0], abs=1e-6)
    assert all(abs(one - other) > 1e-5 for one, other in zip(found[2], found[0], strict=True))


def test_external_weights_stand_at_their_tokens(model_dir, tmp_path):
    rows = weighted(lambda text: [1.0 + i for i in range(len(text) + 1)])
    trainer = make(model_dir, tmp_path, rows, token_weighting="external")
    weights = trainer.data_collator(list(trainer.train_dataset))["token_weights"]
    assert weights[0].tolist() == [[1, 2, 3, 0, 0, 0], [1, 2, 3, 4, 5, 6]]  # "1." and "not 0", each with its end


def test_external_weights_that_are_missing_or_wrong_are_faults(model_dir, tmp_path):
    with pytest.raises(UserErrors, match="external needs chosen_weights and rejected_weights in the train data"):
        make(model_dir, tmp_path, token_weighting="external")
    rows = weighted(lambda text: [1.0] * (len(text) + 1))
    rows[1]["chosen_weights"] = [1.0]
    rows[2]["rejected_weights"][0] = -1.0
    with pytest.raises(UserErrors) as caught:
        make(model_dir, tmp_path, rows, token_weighting="external")
    first, second = map(str, caught.value.faults)
    assert "row 2" in first
    assert "chosen_weights: has 1 weights for 3 tokens" in first
    assert "row 3" in second
    assert "rejected_weights: has a weight below 0" in second


@pytest.mark.slow
def test_a_loss_without_reference_loads_and_runs_none(model_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(bmc.BMCTrainer, "_reference_logps", None)  # a call would fail
    for loss in (["simpo"], ["figa"], ["orpo", "sft"]):
        options = {"loss_type": loss, "loss_weights": [1.0] * len(loss), "token_weighting": "bmc"}
        trainer = make(model_dir, tmp_path, max_steps=2, **options)
        assert trainer.ref_model is None
        trainer.train()
        log = trainer.state.log_history[0]
        batch = trainer.data_collator(list(trainer.train_dataset))
        assert "ref_logps" not in batch
        assert {"loss", "rewards/margins", "diff/weight"} <= log.keys()
        assert trainer.evaluate(Dataset.from_list(ROWS[:2]))["eval_loss"] < 100
    trainer = make(model_dir, tmp_path, loss_type=["simpo"], beta=2.0)
    trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset)))
    (metrics,) = trainer._metrics.values() if len(trainer._metrics) == 1 else (trainer._metrics["eval"],)
    (reward, pairs), (logp, _) = (metrics[name][0] for name in ("rewards/chosen", "logps/chosen"))
    assert pairs == 4
    assert reward == pytest.approx(2.0 * logp / 3, rel=1e-3)  # "1." and its end: 3 tokens


def test_each_model_weighs_the_reference_by_its_own_confidence(model_dir, tmp_path):
    """As released: Σ λ_θ log π_θ − Σ λ_ref log π_ref, λ_ref = 1 + min(1/π_ref, δ)."""
    trainer = make(
        model_dir, tmp_path, token_weighting="bmc", bmc_delta=300.0, weight_source="each_model",
        precompute_ref_log_probs=False
    )  # fmt: skip
    loss = first_loss(trainer)
    batch = trainer.data_collator(list(trainer.train_dataset))
    with torch.no_grad():
        logps = trainer._reference_logps(trainer.model, {**batch})
        reference, trainer.ref_model = trainer.ref_model, None
        policy = trainer._reference_logps(trainer.model, batch)
        trainer.ref_model = reference
    sums = []
    for values in (policy, logps):
        weights = torch.where(batch["diff_mask"], 1 + torch.exp(-values).clamp(max=300.0), torch.ones(()))
        sums.append((weights * values * batch["response_mask"]).sum(-1))
    margins = (sums[0] - sums[1])[:, 0] - (sums[0] - sums[1])[:, 1]
    assert loss == pytest.approx(torch.log1p(torch.exp(-0.1 * margins)).mean().item(), abs=1e-5)


def test_weigh_takes_the_references_weights():
    logps, ref_logps = torch.tensor([[[-1.0], [-2.0]]]), torch.tensor([[[-3.0], [-4.0]]])
    yes = torch.ones(1, 2, 1, dtype=torch.bool)
    pairs = sum_weighted_logps(logps, ref_logps, torch.full_like(logps, 2.0), torch.full_like(logps, 5.0), yes, yes)
    assert (pairs.chosen_logps.item(), pairs.ref_chosen_logps.item(), pairs.ref_rejected_logps.item()) == (-2, -15, -20)


def test_difflib_is_run_over_prompt_and_response():
    """With its defaults: a token that makes up more than 1 % of 200 or more counts as junk, prompts included."""
    row = {"prompt_ids": [7] * 250, "chosen_ids": [7, 1, 2], "rejected_ids": [7, 1, 3]}
    masks = mark_differences(row, "difflib", [])
    whole = [row["prompt_ids"] + row[side] for side in ("rejected_ids", "chosen_ids")]
    expected = [False] * 253
    for tag, _, _, start, end in SequenceMatcher(None, *whole).get_opcodes():
        if tag != "equal":
            expected[start:end] = [True] * (end - start)
    assert masks["chosen_diff"] == expected[250:]
    assert mark_differences(row, "levenshtein", [])["chosen_diff"] == [False, False, True]


def test_stop_words_never_differ():
    row = {"prompt_ids": [], "chosen_ids": [1, 2, 3], "rejected_ids": [1, 4, 5]}
    assert mark_differences(row, "levenshtein", [2, 5]) == {
        "chosen_diff": [False, False, True],
        "rejected_diff": [False, True, False],
    }


def test_the_list_is_nltks_and_its_ids_are_single_tokens(tokenizer):
    assert len(STOP_WORDS) == len(set(STOP_WORDS)) == 179
    assert {"not", "won't", "the", "y"} <= set(STOP_WORDS)
    # byte-level tokens: only the words of one letter are one token, as they are and capitalised
    letters = sorted(tokenizer.convert_tokens_to_ids([form for word in "iastdmoy" for form in (word, word.upper())]))
    assert stop_word_ids(tokenizer) == letters


def test_a_hyperparameter_belongs_to_its_loss(subtests: pytest.Subtests, tmp_path) -> None:
    for values, message in [
        ({"simpo_gamma": 0.3}, r"simpo_gamma: sigmoid doesn't read it; leave it out \(it is of simpo\)"),
        ({"loss_type": ["orpo"], "beta": 0.2}, "beta: orpo doesn't read it"),
        ({"loss_type": ["simpo"], "rdpo_alpha": 0.2}, "rdpo_alpha: simpo doesn't read it"),
        ({"loss_type": ["rdpo"], "rdpo_alpha": float("nan")}, "rdpo_alpha: must be a finite number"),
        (
            {"weight_source": "each_model"},
            "weight_source: token_weighting: none doesn.t read it; write token_weighting: bmc",
        ),
    ]:
        with subtests.test(values=values, message=message), pytest.raises(ValueError, match=message):
            bmc.BMCConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **values)


def test_what_a_person_corrected_gets_more_weight(model_dir: Path, tmp_path: Path) -> None:
    """From a log of corrections to two steps of DPO-BMC; one token a character, so the masks are counted by hand."""
    log = [
        {"prompt": "When?", "answer": "At 8 am.", "correction": "At 10 am."},  # 8 → 10: a substitution, an insertion
        {"prompt": "Which?", "answer": "It is red.", "correction": "It is tan."},  # three substitutions
        {"prompt": "Why?", "answer": "It just is.", "correction": None},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    mixture = {"datasets": [{"id": str(tmp_path / "log.jsonl"), "source": "corrections"}]}
    (tmp_path / "bridge.yaml").write_text(json.dumps({"stage": "bridge", "dataset_mixture": mixture}))
    commands.bridge([str(tmp_path / "bridge.yaml"), "--output_dir", str(tmp_path / "bridge")])
    recipe = write_recipe(tmp_path, model_dir, bmc_delta=3.0)
    trainer = opened(recipe, f"--dataset_mixture.datasets.0.id={tmp_path}/bridge/train.jsonl")
    weights, seen = trainer._weights, []
    trainer._weights = lambda *given: seen.append(weights(*given)) or seen[-1]
    trainer.train()
    assert len(seen) == trainer.state.global_step == 2
    for step in seen:
        heavy = {tuple(tuple((side > 1).nonzero().flatten().tolist()) for side in pair) for pair in step}
        assert heavy == {((3, 4), (3,)), ((6, 7, 8), (6, 7, 8))}  # of "At 10 am." and "At 8 am."; "tan" and "red"
        assert set(step[step <= 1].tolist()) <= {0.0, 1.0}  # padding and the tokens that both have
