"""BMCTrainer against trl.DPOTrainer, and against itself under other batchings."""

import copy
from math import log
from typing import Any

import pytest
import torch
import trl
from datasets import Dataset
from tiny_pairs import PAIRS, logged, make, perturb, settings

import bmc
from bmc.errors import UserErrors
from bmc.training.collator import DataCollatorForBMC, no_signal


def loss_and_gradient(trainer: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """On the first four pairs, away from the reference."""
    perturb(trainer.model).train()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator([trainer.train_dataset[i] for i in range(4)]))
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


def history(trainer: Any, key: str = "loss") -> list[float]:
    trainer.train()
    return logged(trainer, key)


def test_unweighted_sigmoid_is_trls_dpo(model_dir, tmp_path):
    theirs = trl.DPOTrainer(
        str(model_dir), args=trl.DPOConfig(**settings(tmp_path)), train_dataset=Dataset.from_list(PAIRS)
    )
    loss, gradient = loss_and_gradient(make(model_dir, tmp_path))
    expected_loss, expected_gradient = loss_and_gradient(theirs)
    assert abs(loss - log(2)) > 1e-3  # the comparison isn't made where every loss is ln 2
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    assert gradient.keys() == expected_gradient.keys()
    for name, value in gradient.items():
        torch.testing.assert_close(value, expected_gradient[name], rtol=0, atol=1e-6)


def test_delta_0_is_dpo_and_delta_above_0_is_not(model_dir, tmp_path):
    trainer = make(model_dir, tmp_path, token_weighting="bmc", bmc_delta=3.0)
    perturb(trainer.model).train()
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    found = {}
    for weighting, delta in (("none", 3.0), ("bmc", 0.0), ("bmc", 1.0), ("bmc", 3.0)):
        trainer.args.token_weighting, trainer.args.bmc_delta = weighting, delta
        trainer._metrics["train"].clear()
        loss = trainer.compute_loss(trainer.model, batch).item()
        total, count = map(sum, zip(*trainer._metrics["train"]["diff/weight"], strict=True))
        found[weighting, delta] = loss, total / count
    assert found["bmc", 0.0][0] == pytest.approx(found["none", 3.0][0], abs=1e-7)
    assert abs(found["bmc", 3.0][0] - found["none", 3.0][0]) > 1e-4
    assert found["bmc", 1.0][1] == 2.0  # what differs weighs exactly 2


def test_a_step_equals_equation_4_computed_token_by_token(model_dir, tmp_path):
    """The whole path, from text to loss, against the model's raw logits and a loop over tokens."""
    trainer = make(model_dir, tmp_path, token_weighting="bmc", bmc_delta=2.5)
    loss, _ = loss_and_gradient(trainer)
    total = 0.0
    for row in trainer.train_dataset.select(range(4)):
        sums = []
        masks = bmc.token_diff(row["chosen_ids"], row["rejected_ids"])
        for response, differs in zip((row["chosen_ids"], row["rejected_ids"]), masks, strict=True):
            ids = torch.tensor([row["prompt_ids"] + response])
            with torch.no_grad():
                policy = trainer.model(input_ids=ids).logits[0].double().log_softmax(-1)
                reference = trainer.ref_model(input_ids=ids).logits[0].double().log_softmax(-1)
            start = len(row["prompt_ids"]) - 1
            value = 0.0
            for t, (token, marked) in enumerate(zip(response, differs, strict=True)):
                log_p, log_q = policy[start + t, token].item(), reference[start + t, token].item()
                value += (1 + min(1 / 2.718281828459045**log_p, 2.5) if marked else 1) * (log_p - log_q)
            sums.append(value)
        total += log(1 + 2.718281828459045 ** (-0.1 * (sums[0] - sums[1]))) / 4
    assert loss == pytest.approx(total, abs=1e-5)


@pytest.mark.slow
def test_precomputed_reference_gives_the_same_curve(model_dir, tmp_path):
    curves = [
        history(make(model_dir, tmp_path, token_weighting="bmc", precompute_ref_log_probs=p, max_steps=4))
        for p in (False, True)
    ]
    assert curves[0] == pytest.approx(curves[1], abs=1e-6)
    assert curves[0][0] == pytest.approx(log(2), abs=1e-6)
    assert curves[0][3] < curves[0][0]


@pytest.mark.slow
def test_batch_1_by_8_is_batch_8_by_1(model_dir, tmp_path):
    """One optimiser step of plain SGD: the weights' change is the gradient."""

    def gradient(batch: int, accumulation: int) -> dict[str, torch.Tensor]:
        trainer = make(
            model_dir, tmp_path, token_weighting="bmc", max_steps=1, optim="sgd", learning_rate=1.0,
            per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, max_grad_norm=1e9,
        )  # fmt: skip
        before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
        trainer.train()
        return {name: before[name] - p.detach() for name, p in trainer.model.named_parameters()}

    whole, accumulated = gradient(8, 1), gradient(1, 8)
    assert max(value.abs().max() for value in whole.values()) > 1e-4
    for name, value in whole.items():
        torch.testing.assert_close(value, accumulated[name], rtol=0, atol=1e-6)


def test_the_mask_of_a_pair_knows_neither_prompt_nor_batch(model_dir, tmp_path):
    longer = [{**PAIRS[0], "prompt": [{"role": "user", "content": "Something else entirely. " * 5}]}]
    alone = make(model_dir, tmp_path, rows=[PAIRS[0]])
    other = make(model_dir, tmp_path, rows=longer + PAIRS[1:])
    columns = ("chosen_diff", "rejected_diff")
    first, second = alone.train_dataset[0], other.train_dataset[0]
    assert [first[name] for name in columns] == [second[name] for name in columns]
    assert any(first["chosen_diff"])
    batches = (alone.data_collator([first]), other.data_collator([other.train_dataset[i] for i in range(8)]))
    placed = [batch["diff_mask"][0, 0][batch["response_mask"][0, 0]].tolist() for batch in batches]
    assert placed[0] == placed[1] == first["chosen_diff"]


def test_values_stand_at_their_tokens():
    example = {
        "prompt_ids": [1, 2, 3], "chosen_ids": [4, 5], "rejected_ids": [6],
        "chosen_diff": [False, True], "rejected_diff": [True],
        "ref_chosen_logps": [-0.5, -1.5], "ref_rejected_logps": [-2.5],
    }  # fmt: skip
    batch = DataCollatorForBMC(pad_token_id=0)([example])
    assert batch["response_mask"].int().tolist() == [[[1, 1], [1, 0]]]
    assert batch["diff_mask"].int().tolist() == [[[0, 1], [1, 0]]]
    assert batch["ref_logps"].tolist() == [[[-0.5, -1.5], [-2.5, 0]]]
    cut = DataCollatorForBMC(pad_token_id=0, max_length=4)([example])
    assert cut["diff_mask"].int().tolist() == [[[0], [1]]]


def test_pairs_without_a_difference_or_room_are_dropped_and_counted(model_dir, tmp_path, caplog, tokenizer):
    """Two differ behind max_length alone, one not at all once the template has trimmed it, one has a long prompt."""

    def pair(chosen: str, rejected: str, prompt: str = "?") -> dict[str, Any]:
        texts = {"prompt": ("user", prompt), "chosen": ("assistant", chosen), "rejected": ("assistant", rejected)}
        return {key: [{"role": role, "content": text}] for key, (role, text) in texts.items()}

    late = [pair("x" * 60 + "a", "x" * 60 + "b")] * 2
    rows = [pair("yes", "yes \n"), *late, pair("a", "b", prompt="x" * 100), *PAIRS]
    trims = copy.deepcopy(tokenizer)
    trims.chat_template = tokenizer.chat_template.replace("message.content", "message.content | trim")
    trainer = make(model_dir, tmp_path, rows, max_length=64, processing_class=trims)
    assert len(trainer.train_dataset) == 8
    assert "max_length: dropped 2 of 12 train pairs, whose responses are equal within its 64 tokens" in caplog.text
    assert "max_length: dropped 1 of 12 train pairs, whose prompts alone fill its 64 tokens" in caplog.text
    assert "dropped 1 of 12 train pairs, whose responses are equal once tokenised" in caplog.text
    with pytest.raises(UserErrors, match="train data: no pair is left: chosen and rejected are equal once tokenised"):
        make(model_dir, tmp_path, rows[:1], processing_class=trims)
    with pytest.raises(UserErrors, match="max_length: no train pair is left under 8 tokens"):
        make(model_dir, tmp_path, max_length=8)


def test_which_pairs_hold_a_preference(subtests: pytest.Subtests) -> None:
    for chosen, rejected, max_length, reason in [
        ([5, 6], [5, 7], None, None),
        ([5, 6], [5, 7], 4, "cut"),
        ([5, 6], [5, 7], 5, None),
        ([5], [5, 7], 4, "cut"),
        ([5], [5, 7], 5, None),  # one is the other's beginning, and its end is seen
        ([5, 6], [5, 6], None, "equal"),
        ([5, 6], [5, 7], 3, "prompt"),
        ([], [], None, "equal"),
    ]:
        with subtests.test(chosen=chosen, rejected=rejected):
            row = {"prompt_ids": [1, 2, 3], "chosen_ids": chosen, "rejected_ids": rejected}
            assert no_signal(row, max_length) == reason


@pytest.mark.slow
def test_strings_evaluation_and_adapters(model_dir, tmp_path):
    from peft import LoraConfig

    rows = [{"prompt": "2 + 2 = ", "chosen": "4", "rejected": "5"}] * 4
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    options = {"eval_dataset": Dataset.from_list(rows[:2]), "peft_config": lora, "learning_rate": 1e-2}
    trainer = make(model_dir, tmp_path, rows, token_weighting="bmc", max_steps=3, **options)
    assert trainer.ref_model is None
    assert history(trainer)[0] == pytest.approx(log(2), abs=1e-6)
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] < log(2)
    assert metrics["eval_rewards/margins"] > 0


def test_config_refuses(subtests: pytest.Subtests, tmp_path) -> None:
    for key, value, message in [
        ("loss_type", "sigmod", "'sigmod' is unknown"),
        ("bmc_delta", -1.0, "bmc_delta: must be greater than or equal to 0, got -1.0"),
        ("beta", 0.0, "beta: must be greater than 0, got 0.0"),
        ("token_weighting", "bcm", "token_weighting: must be 'none', 'bmc', 'confpo'"),
        ("ld_alpha", 0.5, "ld_alpha: BMCTrainer doesn't have it"),
    ]:
        with subtests.test(key=key, value=value), pytest.raises(ValueError, match=message):
            bmc.BMCConfig(**settings(tmp_path, **{key: value}))


@pytest.mark.parametrize("key", ["torch_compile", "torch_compile_backend"])
def test_a_compiler_is_refused_since_no_two_trees_are_alike(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = True if key == "torch_compile" else "eager"
    with pytest.raises(ValueError, match=r"^torch_compile: compiles again for almost every batch"):
        bmc.BMCConfig(output_dir="o", use_cpu=True, **{key: value})
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    with pytest.raises(ValueError, match=r"^torch_compile: .* \(of the accelerate config: dynamo_backend: 'no'\)$"):
        bmc.BMCConfig(output_dir="o", use_cpu=True)
