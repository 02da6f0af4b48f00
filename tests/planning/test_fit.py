"""`bmc plan RECIPE --fit CARD`: what fits, with the same batch, as a command whose own plan fits."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from bmc.commands import plan as plan_command
from bmc.errors import UserErrors
from bmc.planning import describe
from bmc.planning.estimates import GIB
from bmc.planning.fit import fit
from bmc.planning.hardware import GPUS, read_launch
from bmc.training.config import BMCConfig, PreferenceArguments
from bmc.training.run import parse_training

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)


def plan_of(command: str) -> tuple[dict[str, Any], Any]:
    """The plan of a command that `--fit` printed, and its trainer's config."""
    words = shlex.split(command)
    argv = words[next(place for place, word in enumerate(words) if word.endswith("dpo_bmc.yaml")) :]
    arguments, model_args, config = parse_training([*argv, "--dry_run"], PreferenceArguments, BMCConfig, "")
    launch = read_launch(arguments.accelerate_config, arguments.num_processes)
    return describe.training_facts(arguments, model_args, config, launch, on_cpu=False), config


def test_what_is_printed_fits_and_keeps_the_batch(subtests: pytest.Subtests) -> None:
    for recipe, argv, card, said in [
        ("llama2-7b/qa/qlora", [], "RTX4090-24GB", {}),
        ("llama2-7b/qa/lora", ["--micro_batch_tokens", "null"], "RTX4090-24GB", {"per_device_train_batch_size": 1}),
        ("llama3-8b/ultrafeedback/lora", [], "RTX4090-24GB", {"lora_r": 64, "lora_alpha": 64}),
        ("llama3-8b/ultrafeedback/lora", [], "H200-141GB", {"gradient_checkpointing": False}),
        ("mistral-7b/ultrafeedback/qlora", ["--max_length", "8192"], "RTX3090-24GB", {}),
        ("qwen2.5-14b/ultrafeedback/", ["--num_processes", "8"], "A800-80GB", {}),
    ]:
        with subtests.test(recipe=recipe):
            _, command = fit(f"recipes/{recipe}{'' if recipe.endswith('/') else '_'}dpo_bmc.yaml", argv, card)
            found, config = plan_of(command)
            processes = 8 if "--num_processes" in argv else 1
            assert found[f"fits {'8 ×' if processes == 8 else 'one'} {card}"].startswith("yes")
            assert float(found["memory a process"].split()[0]) <= GPUS[card].memory_gib
            assert found["batch"].startswith("128 = ")
            assert found["WARNING"] is None
            assert {key: getattr(config, key, None) for key in said if not key.startswith("lora")} == {
                key: value for key, value in said.items() if not key.startswith("lora")
            }
            assert all(f"--{key} {value}" in command for key, value in said.items() if key.startswith("lora"))


def test_rank_goes_down_before_length_and_nothing_more_than_it_must() -> None:
    """Llama 3 8B in bf16 is 15 GiB; 335 M numbers of rank 128 in 16 bytes are 5 GiB, too much on 24; half fit."""
    recipe = "recipes/llama3-8b/ultrafeedback/lora_dpo_bmc.yaml"
    facts, command = fit(recipe, [], "RTX4090-24GB")
    assert "max_length" not in command
    assert "--lora_r 64 --lora_alpha 64" in command
    assert facts["batch"] == "128 = 1 × 128 accumulation × 1 process"
    assert "lora_r" not in fit(recipe, [], "L40S-48GB")[1]


def test_a_value_given_is_not_given_twice() -> None:
    argv = ["--gradient_accumulation_steps", "2", "--beta", "0.1"]
    _, command = fit("recipes/llama2-7b/qa/qlora_dpo_bmc.yaml", argv, "RTX4090-24GB")
    assert command.count("--gradient_accumulation_steps") == 1
    assert "--beta 0.1" in command


def test_a_recipe_for_a_cpu_is_put_on_the_card() -> None:
    facts, command = fit("recipes/smollm2-135m/math/dpo_bmc.yaml", [], "RTX3090-24GB")
    assert "--use_cpu false" in command
    assert facts["fits one RTX3090-24GB"].startswith("yes")


def test_nothing_fits(capsys: pytest.CaptureFixture[str]) -> None:
    """18 bytes of 6.7 B parameters are 113 GiB."""
    with pytest.raises(UserErrors) as caught:
        plan_command(["recipes/llama2-7b/qa/dpo_bmc.yaml", "--fit", "RTX4090-24GB"])
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith("--fit: nothing fits one RTX4090-24GB: one pair of two sequences of 256 tokens")
    what = said.partition("what would fit: ")[2]
    assert "QLoRA (use_peft: true, lora_target_modules: all-linear, dtype: bfloat16, load_in_4bit: true" in what
    assert "a larger card (H200-141GB): " in what
    assert "ZeRO-3" not in what  # on 4 cards of 24 GiB it needs 34
    needs = [float(entry.split(": ")[-1].split()[0]) for entry in what.split("; ")]
    assert all(need <= 24 for need in needs[:-1])
    assert 24 < needs[-1] <= GPUS["H200-141GB"].memory_gib
    assert GIB == 2**30
    assert capsys.readouterr().out == ""


def test_faults() -> None:
    for argv, what in [
        (["recipes/llama2-7b/qa/dpo.yaml", "--fit", "RTX4090"], r"'RTX4090' is no card .*did you mean 'RTX4090-24GB'"),
        (["recipes/llama2-7b/qa/dpo.yaml", "--fit"], r"--fit: '' is no card known here; A800-80GB, "),
        (["recipes/llama2-7b/qa/bridge.yaml", "--fit=A800-80GB"], r"is of stage bridge, which trains nothing"),
        (["--fit", "A800-80GB"], r"command line: names no recipe"),
        (
            ["recipes/llama2-7b/qa/dpo.yaml", "--fit", "A800-80GB", "--num_processes", "3"],
            r"num_processes: 3 processes can't share a batch of 128",
        ),
        (["recipes/llama2-7b/qa/dpo.yaml", "--bta", "1", "--fit", "A800-80GB"], r"bta: unknown key.*beta"),
    ]:
        with pytest.raises(UserErrors, match=what):
            plan_command(argv)
