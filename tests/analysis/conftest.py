"""A setting with two tiny trained runs, as the preference stage leaves them."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
HELD_OUT = 6


def message(words: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": words}]


def pair(number: int) -> dict[str, Any]:
    """A bridged pair; an é has two tokens of the tiny tokenizer."""
    total = number + number % 7
    return {
        "id": f"sum-{number}",
        "prompt": [{"role": "user", "content": f"Add {number} and {number % 7}."}],
        "chosen": message(f"The sum, voilà, is {total}."),
        "rejected": message(f"The sum, voilà, is not {number}."),
        "original_chosen": message(f"It makes {total}, I think"),
        "original_rejected": message(f"The sum, voilà, is not {number}."),
        "bridged": True,
        "edit_ratio": 0.2,
    }


def call(script: str, *arguments: str) -> None:
    """Runs a stage in this process, in the repository's root."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"scripts/{script}.py", *arguments])
        patch.chdir(ROOT)
        runpy.run_path(str(ROOT / f"scripts/{script}.py"), run_name="__main__")


@pytest.fixture(scope="session")
def setting(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    """`outputs/tiny/sums` with `dpo_bc`, `dpo` and `dpo_bmc`, trained for 3 steps, 6 of their 20 pairs held out."""
    folder = tmp_path_factory.mktemp("analysis") / "outputs/tiny/sums"
    (folder / "bridge").mkdir(parents=True)
    data = folder / "bridge/train.jsonl"
    data.write_text("".join(json.dumps(pair(number)) + "\n" for number in range(20)))
    base = {
        "model_name_or_path": str(model_dir), "dtype": "float32", "use_cpu": True, "bf16": False, "report_to": "none",
        "gradient_checkpointing": False, "max_length": 90, "max_steps": 3, "per_device_train_batch_size": 4,
        "learning_rate": 3e-3, "beta": 0.2, "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 1,
        "dataset_mixture": {"datasets": [{"id": str(data)}], "test_split_size": HELD_OUT},
        "reference_cache": str(folder / "references"),
    }  # fmt: skip
    checkpoints = {"save_strategy": "steps", "save_steps": 2, "save_only_model": True}
    runs: dict[str, dict[str, Any]] = {
        "dpo": {"chosen_column": "original_chosen", "save_strategy": "no"},
        "dpo_bc": {"save_strategy": "no"},
        "dpo_bmc": {"token_weighting": "bmc", "bmc_delta": 2.0, **checkpoints},
    }
    for name, changed in runs.items():
        recipe = folder / f"{name}.yaml"
        recipe.write_text(yaml.safe_dump({**base, **changed, "output_dir": str(folder / name)}))
        call("preference", str(recipe))
    return folder
