"""What tests of training share: pairs, settings and trainers of a tiny Llama."""

import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

import bmc
from bmc.training.config import BMCConfig, PreferenceArguments
from bmc.training.run import parse_training, prepare_run, trainer_arguments

PAIRS = [
    {
        "prompt": [{"role": "user", "content": f"Add {i} and 2."}],
        "chosen": [{"role": "assistant", "content": f"The sum of both is {i + 2}."}],
        "rejected": [{"role": "assistant", "content": f"It is not {'really ' * (i % 3)}{i + 3}."}],
    }
    for i in range(8)
]


def settings(folder: Any, **changed: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder), "report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
        "per_device_train_batch_size": 4, "learning_rate": 1e-3, "lr_scheduler_type": "constant", "logging_steps": 1,
        "save_strategy": "no", "seed": 3, "precompute_ref_log_probs": False, **changed,
    }  # fmt: skip


def make(model: Any, folder: Any, rows: list[dict[str, Any]] = PAIRS, **changed: Any) -> Any:
    """Make a BMCTrainer; arguments of the trainer's go to it, the others to its config."""
    names = ("eval_dataset", "peft_config", "processing_class", "ref_model")
    given = {name: changed.pop(name) for name in names if name in changed}
    model = model if isinstance(model, torch.nn.Module) else str(model)
    args = bmc.BMCConfig(**settings(folder, **changed))
    return bmc.BMCTrainer(model, args=args, train_dataset=Dataset.from_list(rows), **given)


def perturb(model: Any, scale: float = 0.02, seed: int = 0) -> Any:
    """Move a model away from the reference, so that nothing is zero by symmetry."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(scale * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
    return model


def logged(trainer: Any, key: str = "loss") -> list[float]:
    return [line[key] for line in trainer.state.log_history if key in line]


COLUMNS = ("prompt", "chosen", "rejected")
LORA = {
    "use_peft": True, "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0,
    "lora_target_modules": ["q_proj", "down_proj"]
}  # fmt: skip


def write_recipe(folder: Path, model: Path, rows: int = 4, **changed: Any) -> Path:
    """Write pairs and a recipe that trains on them, in `FOLDER/run`."""
    pairs = [{"prompt": f"{i} + 2?", "chosen": f"It is {i + 2}", "rejected": f"It is {i}"} for i in range(rows)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    values = settings(folder / "run", token_weighting="bmc", max_steps=2, learning_rate=1e-2) | changed
    mixture = {"datasets": [{"id": str(folder / "pairs.jsonl")}]}
    (folder / "dpo.yaml").write_text(
        json.dumps(values | {"model_name_or_path": str(model), "dataset_mixture": mixture})
    )
    return folder / "dpo.yaml"


def parsed(recipe: Path, *argv: str) -> tuple[Any, Any, Any]:
    return parse_training([str(recipe), *argv], PreferenceArguments, BMCConfig, "")


def opened(recipe: Path, *argv: str) -> Any:
    """Make the trainer of a recipe, as its stage does."""
    arguments, model_args, config = parsed(recipe, *argv)
    tokenizer, train, _ = prepare_run(arguments, model_args, config, COLUMNS)
    given = trainer_arguments(model_args, config)
    return bmc.BMCTrainer(args=config, train_dataset=train, processing_class=tokenizer, **given)
