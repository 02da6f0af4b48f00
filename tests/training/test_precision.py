"""What trained weights are loaded in, under each launcher; and that nothing is trained in 16 bits alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tiny_pairs import make, opened, parsed, write_recipe

import bmc
from bmc import models
from bmc.cli import main
from bmc.config import InferenceModelArguments
from bmc.errors import UserErrors
from bmc.planning.describe import training_facts
from bmc.planning.hardware import LaunchConfig, read_launch
from bmc.precision import keep_outputs, weights_dtype
from bmc.training.config import BMCConfig

ROOT = Path(__file__).parents[2]
FAULT = None


def test_what_weights_are_loaded_in(subtests: pytest.Subtests) -> None:
    for dtype, engine, mixed, frozen, loaded in [
        (None, "none", "bf16", False, "float32"),
        (None, "ddp", "no", False, "float32"),
        (None, "fsdp", "bf16", False, "float32"),
        (None, "none", "bf16", True, "float32"),
        ("float32", "ddp", "bf16", False, "float32"),
        ("auto", "none", "bf16", False, "float32"),
        ("bfloat16", "none", "bf16", False, FAULT),
        ("bfloat16", "ddp", "no", False, FAULT),
        ("float16", "none", "fp16", False, FAULT),
        ("float16", "ddp", "bf16", False, FAULT),
        ("bfloat16", "fsdp", "no", False, FAULT),
        ("bfloat16", "deepspeed", "no", False, FAULT),
        ("bfloat16", "fsdp", "bf16", False, "bfloat16"),
        ("auto", "fsdp", "bf16", False, "auto"),
        ("bfloat16", "none", "bf16", True, "bfloat16"),
        ("auto", "ddp", "no", True, "auto"),
        ("float16", "none", "fp16", True, "float16"),
        # DeepSpeed casts whatever it is given, and keeps copies of it in float32
        (None, "deepspeed", "bf16", False, "bfloat16"),
        ("float32", "deepspeed", "bf16", False, "bfloat16"),
        ("bfloat16", "deepspeed", "fp16", False, "float16"),
        (None, "deepspeed", "no", False, "float32"),
    ]:
        with subtests.test(dtype=dtype, engine=engine):
            if loaded is not None:
                assert weights_dtype(dtype, engine, mixed, frozen) == loaded
                continue
            with pytest.raises(UserErrors) as caught:
                weights_dtype(dtype, engine, mixed, frozen)
            assert str(caught.value).startswith(f"dtype: {dtype} weights without float32 copies hardly train")
            assert "write dtype: float32" in str(caught.value)


@pytest.fixture
def recipe(tmp_path: Path, model_dir: Path) -> Path:
    return write_recipe(tmp_path, model_dir, bf16=True, max_steps=1)


def test_the_fault_comes_before_anything_is_written_and_in_a_dry_run_too(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = []
    for flags in ([], ["--dry_run"]):
        with pytest.raises(SystemExit) as caught:
            main(["train", str(recipe), "--torch_dtype", "bfloat16", *flags])
        assert caught.value.code == 2
        messages.append(capsys.readouterr().err.splitlines()[-1])
    assert messages[0] == messages[1]
    assert "dtype: bfloat16 weights without float32 copies hardly train" in messages[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("keys", [[], ["--dtype", "null"], ["--dtype", "auto"]])
def test_a_recipe_without_a_dtype_trains_float32(
    recipe: Path, model_dir: Path, tmp_path: Path, keys: list[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    AutoTokenizer.from_pretrained(model_dir).save_pretrained(tmp_path / "half")
    trainer = opened(recipe, "--model_name_or_path", str(tmp_path / "half"), *keys)
    assert {weight.dtype for weight in trainer.model.parameters()} == {torch.float32}


@pytest.mark.slow
def test_modules_beside_an_adapter_are_trained_in_float32(recipe: Path) -> None:
    trainer = opened(recipe, "--use_peft", "--dtype", "bfloat16", "--lora_modules_to_save", "[lm_head]")
    trained = {name: weight.dtype for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert any("lm_head" in name for name in trained)
    assert set(trained.values()) == {torch.float32}
    assert {weight.dtype for weight in trainer.model.parameters() if not weight.requires_grad} == {torch.bfloat16}
    trainer.train()


@pytest.mark.parametrize("named", [True, False])
def test_from_python_a_16_bit_model_is_trained_in_float32_with_a_warning(
    named: bool, model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = str(model_dir) if named else AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16)
    config = BMCConfig(
        output_dir=str(tmp_path), use_cpu=True, report_to="none", precompute_ref_log_probs=False,
        model_init_kwargs={"dtype": "bfloat16"} if named else None,
    )  # fmt: skip
    rows = Dataset.from_list([{"prompt": "1 + 1?", "chosen": "2", "rejected": "3"}])
    tokenizer = None if named else AutoTokenizer.from_pretrained(model_dir)
    trainer: Any = bmc.BMCTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
    assert {weight.dtype for weight in trainer.model.parameters()} == {torch.float32}
    assert {weight.dtype for weight in trainer.ref_model.parameters()} == {torch.float32}
    assert caplog.text.count("16-bit weights would lose small updates") == 1


def test_log_probs_below_float32_are_refused(model_dir: Path, tmp_path: Path) -> None:
    config = BMCConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none", bf16=False, max_steps=1)
    rows = Dataset.from_list([{"prompt": "1 + 1?", "chosen": "2", "rejected": "3"}])
    trainer: Any = bmc.BMCTrainer(model=str(model_dir), args=config, train_dataset=rows)

    def rounded(module: Any, args: Any, output: Any) -> Any:
        output.log_probs = output.log_probs.bfloat16()
        return output

    trainer.model.register_forward_hook(rounded)
    with pytest.raises(TypeError, match="log-probs must be float32 or more, the model returned"):
        trainer.train()


def test_fsdp_rounds_no_result_and_no_gradient() -> None:
    from torch.distributed.fsdp import MixedPrecision, MixedPrecisionPolicy

    half = torch.bfloat16
    two = keep_outputs(MixedPrecisionPolicy(param_dtype=half, reduce_dtype=half, output_dtype=half))
    assert (two.param_dtype, two.reduce_dtype, two.output_dtype) == (half, torch.float32, None)
    one = keep_outputs(MixedPrecision(param_dtype=half, reduce_dtype=half, buffer_dtype=half))
    assert (one.param_dtype, one.reduce_dtype, one.buffer_dtype) == (half, torch.float32, torch.float32)


def test_the_recipes_precision_is_stronger_than_the_launchers(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert parsed(recipe, "--bf16", "false")[2].mixed_precision == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert parsed(recipe)[2].mixed_precision == "bf16"


def planned(recipe: str, launch: LaunchConfig, *argv: str) -> dict[str, Any]:
    arguments, model_args, config = parsed(Path(recipe), *argv, "--dry_run")
    return training_facts(arguments, model_args, config, launch, False)


def test_an_8b_model_does_not_fit_one_card_and_the_plan_says_what_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """8.03 B parameters: 16 bytes each are 119.7 GiB, and their bf16 copies under autocast 15.0."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    recipe = "recipes/llama3-8b/ultrafeedback/dpo_bmc.yaml"
    found = planned(recipe, LaunchConfig())
    assert f"= {8_030_261_248 * 18 / 2**30:.1f} weights, gradients, optimizer" in found["memory a process"]
    assert found["fits one A800-80GB"].startswith("NO, ")
    fits, _, short = found["fits one A800-80GB"].partition("not enough alone: ")
    assert "what would fit: LoRA (use_peft: true, lora_target_modules: all-linear, dtype: bfloat16)" in fits
    assert "ZeRO-3 on 4 cards" in fits
    assert "8-bit Adam (optim: adamw_bnb_8bit)" in short  # 8.03 B × 12 bytes are 89.7 GiB
    roomy = planned(recipe, LaunchConfig(), "--gpu", "H200-141GB")["fits one H200-141GB"]
    assert "8-bit Adam (optim: adamw_bnb_8bit)" in roomy
    assert planned(recipe, LaunchConfig(), "--optim", "adamw_bnb_8bit", "--gpu", "H200-141GB")[
        "fits one H200-141GB"
    ].startswith("yes")
    lora = ["--use_peft", "--lora_target_modules", "all-linear", "--dtype", "bfloat16"]
    assert planned(recipe, LaunchConfig(), *lora)["fits one A800-80GB"].startswith("yes")
    ddp = planned(recipe, read_launch("recipes/accelerate_configs/ddp.yaml"))
    assert f"= {8_030_261_248 * 22 / 2**30:.1f} weights, gradients, optimizer" in ddp["memory a process"]


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs Linux's list of a processor's instructions")
def test_a_processor_is_fast_in_bfloat16_if_it_has_the_instructions() -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    if "sse2" not in flags:
        pytest.skip("not an x86 processor")
    assert models.is_slow_here("bfloat16") == (not flags & {"avx512bw", "avx_ne_convert"})
    assert not models.is_slow_here("float32")


@pytest.mark.parametrize("slow", [True, False])
def test_a_dtype_that_is_slow_on_this_processor_gets_a_warning(
    slow: bool, model_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "is_slow_here", lambda dtype: slow and dtype != "float32")
    for dtype in ("float32", "bfloat16"):
        models.load_model(InferenceModelArguments(model_name_or_path=str(model_dir), dtype=dtype))
    for kind in ({"bf16": False}, {"bf16": True}):
        make(model_dir, tmp_path, **kind)
    slower = "bfloat16 is several times slower than float32 on this processor"
    wanted = [f"dtype: {slower}; write dtype: float32", f"bf16: {slower}; write bf16: false"]
    assert [line.getMessage() for line in caplog.records if "slower" in line.getMessage()] == (wanted if slow else [])
