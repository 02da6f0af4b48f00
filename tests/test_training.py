"""Rows that were read, tokenised and compared once are not read, tokenised and compared again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bmc
from bmc.preference import diff
from bmc.recipe import parse
from bmc.training import load_rows
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
