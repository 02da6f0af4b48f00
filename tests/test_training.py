"""What both kinds of training share: rows that were read and compared once, and engines that do what was asked."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.utils import DistributedType

import bmc
from bmc.errors import Faults
from bmc.preference import diff
from bmc.recipe import parse
from bmc.training import _check_engine, load_rows
from bmc.training_config import BMCConfig, ModelArguments, PreferenceArguments


def test_masks_are_made_once_for_the_same_rows(
    tmp_path: Path, model_dir: Path, tokenizer: Any, monkeypatch: Any
) -> None:
    file = tmp_path / "pairs.jsonl"
    pair = {"prompt": "2 + 2 = ", "chosen": "4, I am sure", "rejected": "5, I think"}
    file.write_text("".join(json.dumps({**pair, "prompt": f"{i} {pair['prompt']}"}) + "\n" for i in range(6)))
    recipe = tmp_path / "dpo_bmc.yaml"
    recipe.write_text(f"{{model_name_or_path: {model_dir}, dataset_mixture: {{datasets: [{{id: {file}}}]}}}}")

    def columns() -> Any:
        overrides = ["--use_cpu", "--bf16=false", f"--output_dir={tmp_path / 'run'}", "--report_to=none"]
        arguments, _, config = parse(
            [str(recipe), *overrides], PreferenceArguments, ModelArguments, BMCConfig, description=""
        )
        rows, _ = load_rows(arguments, tokenizer, ("prompt", "chosen", "rejected"))
        made = bmc.BMCTrainer(str(model_dir), args=config, train_dataset=rows, processing_class=tokenizer)
        return made.train_dataset["chosen_diff"][:]

    first = columns()
    monkeypatch.setattr(diff, "token_diff", None)  # a call would fail
    assert columns() == first
    file.write_text(file.read_text().replace("sure", "certain"))
    with pytest.raises(TypeError):
        columns()


@pytest.mark.parametrize(
    ("asked", "engine", "said"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, DistributedType.MULTI_CPU, "accelerate launch: has FSDP for GPUs alone"),
        (
            {"ACCELERATE_USE_DEEPSPEED": "true"},
            DistributedType.MULTI_CPU,
            "use_cpu: accelerate then leaves DeepSpeed",
        ),
        ({"WORLD_SIZE": "2"}, DistributedType.NO, "accelerate launch: started 2 processes, and there is no GPU"),
        ({"ACCELERATE_USE_FSDP": "true"}, DistributedType.MULTI_GPU, None),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, DistributedType.DEEPSPEED, None),
        ({"WORLD_SIZE": "2"}, DistributedType.MULTI_CPU, None),
        ({}, DistributedType.NO, None),
    ],
)
def test_engines_that_accelerate_would_leave_out_in_silence(
    asked: dict[str, str], engine: DistributedType, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "WORLD_SIZE"):
        monkeypatch.delenv(key, raising=False)
    for key, value in asked.items():
        monkeypatch.setenv(key, value)
    config = SimpleNamespace(distributed_state=SimpleNamespace(distributed_type=engine))
    if said is None:
        _check_engine(config)
        return
    with pytest.raises(Faults, match=f"^{said}"):
        _check_engine(config)
