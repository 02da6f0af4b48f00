"""Every recipe in the repository loads, and says what the paper says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bmc.config import BridgeConfig, EvaluateConfig, PrepareConfig, SampleConfig
from bmc.recipe import load, parse

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("recipes/*/*/*.yaml"))
STAGES = {"prepare": PrepareConfig, "sample": SampleConfig, "bridge": BridgeConfig, "eval": EvaluateConfig}
SCRIPTS = {"prepare": "prepare", "sft": "sft", "sample": "sample", "bridge": "bridge", "eval": "evaluate"}
PAPER = {  # β, δ and learning rate of DPO-BMC (Table 8)
    "llama2-7b/qa": (0.05, 3.0, 5e-7),
    "llama2-7b/math": (0.05, 2.5, 5e-7),
    "llama3-8b/ultrafeedback": (0.01, 1.5, 5e-7),
    "mistral-7b/ultrafeedback": (0.01, 2.0, 5e-7),
    "qwen2.5-14b/ultrafeedback": (0.01, 1.5, 5e-7),
}
METHODS = {  # chosen column, token weighting
    "dpo": ("original_chosen", "none"),
    "dpo_bc": ("chosen", "none"),
    "dpo_mc": ("original_chosen", "bmc"),
    "dpo_bmc": ("chosen", "bmc"),
}


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def training(recipe: str) -> tuple[Any, Any, Any]:
    from bmc.training import parse_training
    from bmc.training_config import BMCConfig, PreferenceArguments, SFTConfig, TrainingArguments

    sft = recipe.endswith("/sft.yaml")
    kinds = (TrainingArguments, SFTConfig) if sft else (PreferenceArguments, BMCConfig)
    return parse_training([recipe, "--dry_run"], *kinds, "")


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_passes_a_dry_run(recipe: str) -> None:
    stage = Path(recipe).stem
    parts = parse([recipe, "--dry_run"], STAGES[stage]) if stage in STAGES else training(recipe)
    assert all(part is not None for part in parts)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_begins_with_its_command(recipe: str) -> None:
    first = Path(recipe).read_text().splitlines()[0]
    script = SCRIPTS.get(Path(recipe).stem, "preference")
    assert first.startswith("# ")
    assert f"scripts/{script}.py {recipe}" in first


@pytest.mark.parametrize("setting", PAPER)
@pytest.mark.parametrize("method", METHODS)
def test_methods_differ_in_what_they_are(setting: str, method: str) -> None:
    arguments, model_args, config = training(f"recipes/{setting}/{method}.yaml")
    beta, delta, learning_rate = PAPER[setting]
    assert (arguments.chosen_column, config.token_weighting) == METHODS[method]
    assert (config.beta, config.learning_rate, config.loss_type) == (beta, learning_rate, ["sigmoid"])
    assert config.token_weighting == "none" or config.bmc_delta == delta
    assert 4 * config.per_device_train_batch_size * config.gradient_accumulation_steps == 128
    assert (config.num_train_epochs, config.max_length, config.seed, config.warmup_steps) == (1, 2048, 42, 0.1)
    assert config.bf16
    assert model_args.dtype == "bfloat16"
    assert arguments.dataset_mixture.datasets[0].id == f"outputs/{setting}/bridge/train.jsonl"
    assert config.output_dir == f"outputs/{setting}/{method}"


@pytest.mark.parametrize(("setting", "epochs"), [("llama2-7b/qa", 1), ("llama2-7b/math", 2)])
def test_sft_is_the_papers(setting: str, epochs: int) -> None:
    _, model_args, config = training(f"recipes/{setting}/sft.yaml")
    assert model_args.model_name_or_path == "meta-llama/Llama-2-7b-hf"
    assert (config.learning_rate, config.num_train_epochs, config.max_length) == (2e-5, epochs, 2048)
    assert 4 * config.per_device_train_batch_size * config.gradient_accumulation_steps == 128


@pytest.mark.parametrize("recipe", RECIPES)
def test_stages_read_what_an_earlier_one_wrote(recipe: str) -> None:
    """Inputs below outputs/ belong to the same setting and to a stage that comes before."""
    setting, stage = "/".join(recipe.split("/")[1:3]), Path(recipe).stem
    values, _ = load(Path(recipe))
    assert values["output_dir"].startswith(f"outputs/{setting}/")
    before = {"sft": "prepare", "sample": "prepare", "bridge": "sample prepare", "eval": "prepare"}.get(stage, "bridge")
    for dataset in values["dataset_mixture"]["datasets"]:
        if str(dataset.get("id")).startswith("outputs/"):
            place = dataset["id"].split("/")
            assert "/".join(place[1:3]) == setting
            assert place[3] in before.split()


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/accelerate_configs/*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_config(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.num_processes == yaml.safe_load(path.read_text())["num_processes"]


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/**/*.yaml")), ids=lambda path: path.name)
def test_no_template_stands_in_a_recipe(path: Path) -> None:
    template = (yaml.safe_load(path.read_text()) or {}).get("chat_template")
    assert template is None or (path.parent / template).is_file()
