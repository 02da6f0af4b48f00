"""Training that goes on with an adapter, and adapters that become whole models."""

import json
import logging
import math
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_pairs import COLUMNS, LORA, logged, opened, parsed, write_recipe
from transformers import AutoModelForCausalLM, AutoTokenizer

from bmc.adapters import merge_adapter, merge_command
from bmc.config import MergeConfig
from bmc.errors import UserErrors
from bmc.planning.describe import adapter_of
from bmc.planning.estimates import model_size
from bmc.training.run import check_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def adapter(tmp_path: Path, model_dir: Path) -> Path:
    """An adapter that changes what its base says, with its tokenizer."""
    torch.manual_seed(7)
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    made = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    made.save_pretrained(tmp_path / "sft")
    AutoTokenizer.from_pretrained(model_dir).save_pretrained(tmp_path / "sft")
    return tmp_path / "sft"


@pytest.fixture
def recipe(tmp_path: Path, adapter: Path) -> Path:
    steps = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "precompute_ref_log_probs": None}
    return write_recipe(tmp_path, adapter, 8, dtype="float32", lr_scheduler_type="linear", **LORA, **steps)


def logps(model: Any, row: dict[str, Any], side: str) -> list[float]:
    """log π of a response's tokens, from the whole logits."""
    ids = torch.tensor([row["prompt_ids"] + row[side]])
    with torch.no_grad():
        scores = model.eval()(input_ids=ids).logits[0].log_softmax(-1)
    first = len(row["prompt_ids"])
    return [scores[place - 1, ids[0, place]].item() for place in range(first, ids.size(1))]


@pytest.mark.parametrize("precompute", ["true", "false"])
@pytest.mark.slow
def test_the_reference_is_the_base_with_the_adapter(
    recipe: Path, adapter: Path, model_dir: Path, precompute: str, tmp_path: Path
) -> None:
    trainer = opened(recipe, "--precompute_ref_log_probs", precompute, "--reference_cache", str(tmp_path / "cache"))
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    plain = [logps(base, row, "chosen_ids") for row in trainer.train_dataset]
    expected = [logps(PeftModel.from_pretrained(base, adapter), row, "chosen_ids") for row in trainer.train_dataset]
    assert abs(plain[0][0] - expected[0][0]) > 1e-2
    if precompute == "true":
        assert trainer.train_dataset["ref_chosen_logps"][0] == pytest.approx(expected[0], abs=1e-5)
    trained = {name for name, value in trainer.model.named_parameters() if value.requires_grad}
    assert trained
    assert all(".default." in name for name in trained)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert lines[-1]["loss"] < 0.692
    batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[0]]))
    after = trainer._reference_logps(trainer.model, batch)[0, 0]
    assert after.tolist() == pytest.approx(expected[0], abs=1e-5)


@pytest.mark.slow
def test_a_resumed_adapter_ends_where_one_that_was_never_stopped_does(recipe: Path, tmp_path: Path) -> None:
    whole = opened(recipe)
    whole.train()
    resumed = opened(recipe)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-2"))
    assert resumed.state.global_step == 4
    for (name, value), other in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(value, other), name


def test_what_a_recipe_says_of_lora_gives_way_to_the_adapter(recipe: Path, caplog: Any) -> None:
    """And the plan counts the adapter's parameters."""
    with caplog.at_level(logging.WARNING):
        trainer = opened(recipe, "--lora_r", "16", "--lora_target_modules", "[q_proj, v_proj]")
    assert trainer.model.peft_config["default"].r == 4
    (said,) = [text for text in caplog.messages if "goes on with the adapter" in text]
    assert "lora_r 4 (the recipe: 16), lora_target_modules ['down_proj', 'q_proj']" in said
    assert "for a new adapter merge this one first: python scripts/merge.py" in said


def test_a_dry_run_plans_the_adapter(recipe: Path, tmp_path: Path) -> None:
    arguments, model_args, config = parsed(recipe, "--dry_run", "--lora_r", "16")
    check_run(arguments, model_args, config, COLUMNS)
    found = model_size(str(model_args.model_name_or_path))
    assert found is not None
    # 2 layers of rank 4: q_proj 32 → 32, down_proj 64 → 32
    assert adapter_of(model_args).trained(found[0]) == 2 * 4 * (32 + 32 + 64 + 32)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("look", [opened, lambda recipe, *argv: rehearsed(recipe, *argv)], ids=["run", "dry run"])
def test_faults_of_an_adapter_come_before_the_claim(look: Any, recipe: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UserErrors) as caught:
        look(recipe, "--use_peft", "false")
    assert str(caught.value) == (
        f"use_peft: {adapter} is an adapter; write use_peft: true to train it on, or merge it into its model first: "
        f"python scripts/merge.py --model_name_or_path {adapter} --output_dir {adapter}-merged"
    )
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "./gone"}))
    with pytest.raises(UserErrors) as caught:
        look(recipe)
    assert str(caught.value).startswith(f"{adapter}/adapter_config.json: its base_model_name_or_path: ")
    assert "'./gone' is no model that can be loaded (there is no such folder" in str(caught.value)
    assert not (tmp_path / "run").exists()


def rehearsed(recipe: Path, *argv: str) -> Any:
    return check_run(*parsed(recipe, "--dry_run", *argv), COLUMNS)


def test_a_merged_adapter_is_a_whole_model_that_says_the_same(adapter: Path, model_dir: Path, tmp_path: Path) -> None:
    script = str(ROOT / "scripts/merge.py")
    sys.argv = [script, "--model_name_or_path", str(adapter), "--output_dir", str(tmp_path / "whole")]
    runpy.run_path(script, run_name="__main__")
    folder = tmp_path / "whole"
    assert not (folder / "adapter_config.json").exists()
    ids = torch.arange(3, 40)[None]
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    plain = base(input_ids=ids).logits
    expected = PeftModel.from_pretrained(base, adapter).eval()(input_ids=ids).logits
    found = AutoModelForCausalLM.from_pretrained(folder)(input_ids=ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (plain - expected).abs().max() > 1e-2
    assert AutoTokenizer.from_pretrained(folder).chat_template == AutoTokenizer.from_pretrained(adapter).chat_template
    assert json.loads((folder / "provenance.json").read_text())


def test_what_cannot_be_merged(adapter: Path, model_dir: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "whole")
    with pytest.raises(UserErrors, match=r"is no adapter \(it has no adapter_config.json\); there is nothing to merge"):
        merge_adapter(MergeConfig(model_name_or_path=str(model_dir), output_dir=out))
    merge_adapter(MergeConfig(model_name_or_path=str(adapter), output_dir=out, dry_run=True))
    assert not Path(out).exists()


def test_the_fault_of_vllm_names_the_command(adapter: Path, monkeypatch: Any) -> None:
    from bmc.config import EvaluateConfig
    from bmc.generation import backends

    monkeypatch.setattr(backends, "check_vllm", lambda key: None)
    config = EvaluateConfig(model_name_or_path=str(adapter), output_dir="out", backend="vllm")
    with pytest.raises(UserErrors) as caught:
        backends._vllm(config, config, None, None)
    assert merge_command(str(adapter)) in str(caught.value)


@pytest.mark.slow
def test_training_goes_on_with_an_adapter_on_a_quantised_base(recipe: Path) -> None:
    """The handbook's QLoRA: SFT with an adapter, then DPO with the same on the 4-bit base; the reference is a copy."""
    pytest.importorskip("bitsandbytes")
    keys = ["--load_in_4bit", "--bnb_4bit_quant_type", "nf4", "--dtype", "bfloat16", "--bf16", "true"]
    trainer = opened(recipe, *keys, "--max_steps", "3")
    assert torch.uint8 in {weight.dtype for weight in trainer.model.parameters()}
    trainer.train()
    losses = logged(trainer)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[2] < losses[0]
