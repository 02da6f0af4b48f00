"""A setting with three tiny trained runs, as the preference stage leaves them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from made import MAX_LENGTH, VALIDATION, call, pair


@pytest.fixture(scope="session")
def setting(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    """`outputs/tiny/sums` with `dpo_bc`, `dpo` and `dpo_bmc`, trained for 3 steps, 6 of their 20 pairs held out."""
    folder = tmp_path_factory.mktemp("analysis") / "outputs/tiny/sums"
    (folder / "bridge").mkdir(parents=True)
    data = folder / "bridge/train.jsonl"
    data.write_text("".join(json.dumps(pair(number)) + "\n" for number in range(20)))
    base = {
        "model_name_or_path": str(model_dir), "dtype": "float32", "use_cpu": True, "bf16": False, "report_to": "none",
        "gradient_checkpointing": False, "max_length": MAX_LENGTH, "max_steps": 3, "per_device_train_batch_size": 4,
        "learning_rate": 3e-3, "beta": 0.2, "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 1,
        "dataset_mixture": {"datasets": [{"id": str(data)}], "test_split_size": VALIDATION},
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
