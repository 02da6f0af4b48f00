"""LoRA and QLoRA by the handbook's keys."""

import math
from pathlib import Path

import pytest
import torch
from tiny_pairs import LORA, logged, opened, parsed, write_recipe

from bmc.errors import UserErrors
from bmc.planning.describe import adapter_of
from bmc.planning.estimates import model_size
from bmc.training.config import BMCConfig
from bmc.training.run import trainer_arguments


@pytest.fixture
def recipe(tmp_path: Path, model_dir: Path) -> Path:
    return write_recipe(tmp_path, model_dir, **LORA)


@pytest.mark.slow
def test_the_policy_without_its_adapter_is_the_reference(recipe: Path, tmp_path: Path, model_dir: Path) -> None:
    from transformers import AutoModelForCausalLM

    model_args = parsed(recipe)[1]
    trainer = opened(recipe)
    assert trainer.ref_model is None
    trained = trainer.model.num_parameters(only_trainable=True)
    found = model_size(str(model_dir))
    assert found is not None
    assert trained == adapter_of(model_args).trained(found[0]) == 2 * 4 * ((32 + 32) + (64 + 32))
    trainer.train()
    losses = logged(trainer)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)  # an adapter begins as nothing
    assert losses[1] < losses[0]
    trainer.save_model(str(tmp_path / "adapter"))
    assert not (tmp_path / "adapter/model.safetensors").exists()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert any("lora" in name for name, _ in loaded.named_parameters())


def test_all_linear_is_a_word(recipe: Path) -> None:
    _, model_args, _ = parsed(recipe, "--lora_target_modules", "all-linear")
    assert model_args.lora_target_modules == "all-linear"
    assert trainer_arguments(model_args, BMCConfig(output_dir="o", use_cpu=True, bf16=False))["peft_config"].r == 4


def test_qlora_is_understood_and_wants_its_package(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers.utils
    import trl

    argv = ["--load_in_4bit", "--bnb_4bit_quant_type", "nf4", "--use_bnb_nested_quant"]
    _, model_args, _ = parsed(recipe, *argv)
    quantisation = trl.get_quantization_config(model_args)
    assert (quantisation.load_in_4bit, quantisation.bnb_4bit_use_double_quant) == (True, True)
    assert adapter_of(model_args).bits == 4
    monkeypatch.setattr(transformers.utils, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(UserErrors) as caught:
        opened(recipe, *argv)
    assert (
        str(caught.value)
        == "load_in_4bit: needs bitsandbytes, which isn't there; pip install '.[qlora]', or leave it out"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_qlora_trains_on_a_cpu(recipe: Path, bits: int) -> None:
    pytest.importorskip("bitsandbytes")
    flags = ["--load_in_4bit", "--bnb_4bit_quant_type", "nf4"] if bits == 4 else ["--load_in_8bit"]
    keys = [*flags, "--dtype", "bfloat16", "--bf16", "true", "--max_steps", "3", "--gradient_checkpointing", "true"]
    trainer = opened(recipe, *keys)
    kinds = {name.rsplit(".", 2)[-2]: weight.dtype for name, weight in trainer.model.named_parameters()}
    assert kinds["v_proj"] == (torch.uint8 if bits == 4 else torch.int8)
    assert {weight.dtype for weight in trainer.model.parameters() if weight.requires_grad} == {torch.float32}
    trainer.train()
    losses = logged(trainer)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[2] < losses[1] < losses[0]


@pytest.mark.slow
def test_an_evaluation_leaves_the_gradients_of_qlora_as_they_were(recipe: Path) -> None:
    """bitsandbytes packs weights for a CPU when it first evaluates them, and packed ones pass no gradient on."""
    pytest.importorskip("bitsandbytes")
    keys = ["--load_in_4bit", "--bnb_4bit_quant_type", "nf4", "--dtype", "bfloat16", "--bf16", "true"]
    found = []
    for evaluates in (False, True):
        trainer = opened(recipe, *keys)
        if evaluates:
            trainer.evaluate(trainer.train_dataset)
        batch = trainer._prepare_inputs(trainer.data_collator([*trainer.train_dataset]))
        for name, weight in trainer.model.named_parameters():
            if "lora_B" in name:
                weight.data.fill_(0.01)
        trainer.compute_loss(trainer.model, batch).backward()
        lowest = next(
            w.grad for name, w in trainer.model.named_parameters() if "layers.0." in name and "lora_B" in name
        )
        found.append(lowest)
    assert (found[1] - found[0]).norm() < 0.01 * found[0].norm()


def test_quantised_weights_are_trained_by_an_adapter_alone(recipe: Path) -> None:
    with pytest.raises(
        UserErrors, match="load_in_4bit: quantised weights can't be trained themselves; set use_peft: true"
    ):
        opened(recipe, "--load_in_4bit", "--use_peft", "false")


def test_packages_that_training_is_to_report_to(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.integrations import integration_utils

    class Missing:
        def __init__(self) -> None:
            raise RuntimeError("WandbCallback requires wandb to be installed. Run `pip install wandb`.")

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "wandb", Missing)
    with pytest.raises(UserErrors) as caught:
        opened(recipe, "--report_to", "wandb")
    assert str(caught.value) == (
        "report_to: wandb can't be used here (WandbCallback requires wandb to be installed); pip install wandb, or set "
        "report_to: none"
    )
    with pytest.raises(
        UserErrors, match=r"^report_to: nothing is not supported, only .* are supported; or set it to none"
    ):
        opened(recipe, "--report_to", "nothing")
    assert not (tmp_path / "run").exists()


def test_report_to_is_passed_on(recipe: Path) -> None:
    for name in ("tensorboard", "wandb", "trackio"):
        config = parsed(recipe, "--report_to", name)[2]
        assert (config.report_to, config.push_to_hub) == ([name], False)


def test_more_processes_than_rows(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BMCConfig, "world_size", property(lambda self: 8))
    with pytest.raises(UserErrors) as caught:
        opened(recipe)
    assert str(caught.value) == (
        "accelerate launch: 8 processes can't share 4 rows; start at most 4 (--num_processes), or give more data"
    )
    monkeypatch.setattr(BMCConfig, "world_size", property(lambda self: 3))
    with pytest.raises(UserErrors) as caught:
        opened(recipe, "--accelerator_config", "{split_batches: true}")
    assert str(caught.value) == (
        "per_device_train_batch_size: 4 rows can't be split over 3 processes (split_batches); make it a multiple"
    )
    monkeypatch.setattr(BMCConfig, "world_size", property(lambda self: 2))
    with pytest.raises(
        UserErrors, match=r"^accelerator_config.even_batches: processes would wait for one that has no batch"
    ):
        opened(recipe, "--accelerator_config", "{even_batches: false}")
    assert not (tmp_path / "run").exists()


def test_a_run_warns_of_another_batch_than_the_papers(recipe: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened(recipe, "--paper_batch_size", "128")
    assert "the batch is 4, the paper's 128" in caplog.text
