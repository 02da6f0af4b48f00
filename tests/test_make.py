"""What `make SETTING/RECIPE` would run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def chain(*arguments: str, out: Path) -> list[str]:
    """`script recipe` of each command that make prints, in order."""
    run = subprocess.run(
        ["make", "--no-print-directory", "DRY_RUN=1", f"OUT={out}", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return run.stdout.splitlines()


def test_the_whole_chain_in_order(tmp_path: Path) -> None:
    lines = chain("llama2-7b/qa/dpo_bmc", out=tmp_path)
    stages = ["prepare", "sft", "sample", "bridge", "preference", "evaluate"]
    recipes = ["prepare", "sft", "sample", "bridge", "dpo_bmc", "eval"]
    wanted = [f"scripts/{s}.py recipes/llama2-7b/qa/{r}.yaml" for s, r in zip(stages, recipes, strict=True)]
    assert [" ".join(line.split()[1:3]) for line in lines] == wanted


def test_released_sft_models_need_no_sft(tmp_path: Path) -> None:
    lines = chain("mistral-7b/ultrafeedback/dpo", out=tmp_path)
    assert [line.split()[1] for line in lines] == [
        f"scripts/{stage}.py" for stage in ("prepare", "bridge", "preference", "evaluate")
    ]


def test_what_is_there_is_not_built_again(tmp_path: Path) -> None:
    for name in ("prepare/stats.json", "sft/metrics.json", "sample/stats.json", "bridge/stats.json"):
        path = tmp_path / "llama2-7b/math" / name
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    lines = chain("llama2-7b/math/dpo", out=tmp_path)
    assert [line.split()[1] for line in lines] == ["scripts/preference.py", "scripts/evaluate.py"]


def test_the_launcher_starts_training_stages_only(tmp_path: Path) -> None:
    launcher = "accelerate launch --config_file recipes/accelerate_configs/zero3.yaml"
    lines = chain("llama2-7b/qa/dpo_bmc", f"LAUNCHER={launcher}", out=tmp_path)
    assert [line.startswith(launcher) for line in lines] == [False, True, False, False, True, False]


@pytest.mark.parametrize("target", ["demo", "test", "quality", "style", "install", "help"])
def test_target_is_there(target: str) -> None:
    assert subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True).returncode == 0
