"""Two real processes on the CPU see what one sees."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture
def recipe(tmp_path: Path, model_dir: Path) -> Path:
    with (tmp_path / "pairs.jsonl").open("w") as file:
        for i in range(16):
            texts = {"prompt": f"Add {i} and 2.", "chosen": f"The sum is {i + 2}.", "rejected": f"It is {i + 3}."}
            print(json.dumps(texts), file=file)
    settings = {
        "model_name_or_path": str(model_dir), "dtype": "float32", "bf16": False, "report_to": "none",
        "dataset_mixture": {"datasets": [{"id": str(tmp_path / "pairs.jsonl")}]}, "token_weighting": "bmc",
        "precompute_ref_log_probs": True, "max_steps": 3, "logging_steps": 1, "save_strategy": "no",
        "learning_rate": 1e-3, "gradient_checkpointing": False, "per_device_train_batch_size": 4,
    }  # fmt: skip
    path = tmp_path / "dpo_bmc.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def losses(recipe: Path, name: str, command: list[str], *arguments: str, **environment: str) -> list[float]:
    output = recipe.parent / name
    run: Any = subprocess.run(
        [
            *command, str(ROOT / "scripts/preference.py"), str(recipe), "--output_dir", str(output),
            "--reference_cache", str(output / "reference"),  # its own, so that each runs the reference
            *arguments,
        ],
        capture_output=True, text=True, timeout=400, env={**os.environ, **environment},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    assert re.search(r"trained on 16 pairs", run.stdout)
    return [line["loss"] for line in history if "loss" in line]


def launch(config: str) -> list[str]:
    accelerate = [sys.executable, "-m", "accelerate.commands.launch"]
    return [*accelerate, "--config_file", str(ROOT / f"recipes/accelerate_configs/{config}.yaml")]


@pytest.mark.slow
def test_two_processes_and_zero3_follow_one_process(recipe: Path) -> None:
    """Data parallel, and sharded by DeepSpeed ZeRO-3, at the same global batch of 4 pairs."""
    alone = losses(recipe, "one", [sys.executable], "--use_cpu")
    halves = ("--per_device_train_batch_size", "2")
    data_parallel = losses(recipe, "two", launch("cpu"), "--use_cpu", "--ddp_backend", "gloo", *halves)
    sharded = losses(recipe, "zero3", launch("zero3_cpu"), "--ddp_backend", "gloo", *halves, DS_ACCELERATOR="cpu")
    assert alone[2] < alone[0]
    assert data_parallel == pytest.approx(alone, abs=1e-4)
    assert sharded == pytest.approx(alone, abs=1e-4)
    # the reference's pass was shared out: each process wrote what it computed
    written = [len([*(recipe.parent / name / "reference").rglob("*.arrow")]) for name in ("one", "two", "zero3")]
    assert written == [1, 2, 2]
