"""Whole runs with every part on (shared prefixes, packing, cached reference) against the plain path."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tiny_pairs import logged, make

import bmc

pytestmark = pytest.mark.slow
PLAIN = {"prefix_sharing": False, "packing": False, "precompute_ref_log_probs": False}
PAIRS = [
    {
        "prompt": [{"role": "user", "content": f"Add {i} and {i % 7}."}],
        "chosen": [{"role": "assistant", "content": f"The sum {'of both ' * (i % 3)}is {i + i % 7}, I think."}],
        "rejected": [{"role": "assistant", "content": f"The sum {'of both ' * (i % 3)}is not {i}."}],
    }
    for i in range(24)
]


def train(model_dir: Path, tmp_path: Path, peft: bool = False, **changed: Any) -> Any:
    from peft import LoraConfig

    torch.manual_seed(0)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"]) if peft else None
    options = {
        "learning_rate": 1e-4, "max_steps": 4, "seed": 5, "token_weighting": "bmc", "lr_scheduler_type": "linear",
        "reference_cache": str(tmp_path / "cache"), "precompute_ref_log_probs": None,
    }  # fmt: skip
    evaluation = Dataset.from_list(PAIRS[:5])
    trainer = make(model_dir, tmp_path, PAIRS, peft_config=lora, eval_dataset=evaluation, **options | changed)
    trainer.train()
    return trainer


def test_twenty_steps_end_with_the_weights_of_the_plain_run(model_dir, tmp_path):
    whole = train(model_dir, tmp_path, max_steps=20)
    plain = train(model_dir, tmp_path, max_steps=20, **PLAIN)
    assert whole.data_collator.packing
    assert whole.ref_model is None
    started = bmc.BMCTrainer(str(model_dir), args=whole.args, train_dataset=Dataset.from_list(PAIRS)).model
    names = dict(plain.model.named_parameters())
    far = max((value - names[name]).abs().max().item() for name, value in whole.model.named_parameters())
    moved = max((value - names[name]).abs().max().item() for name, value in started.named_parameters())
    assert far < 1e-4
    assert moved > 1e-3


@pytest.mark.parametrize(
    ("changed", "tolerance"),
    [
        ({"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}, 1e-4),
        ({"peft": True, "learning_rate": 1e-2}, 1e-4),
        ({"peft": True, "learning_rate": 1e-2, "gradient_checkpointing": True}, 1e-4),
        ({"bf16": True, "gradient_checkpointing": True}, 5e-3),
        ({"max_length": 60, "dataset_num_proc": 2}, 1e-4),
        ({"gradient_accumulation_steps": 2, "max_steps": 3, "dataloader_num_workers": 1}, 1e-4),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_it_works_with(model_dir, tmp_path, changed, tolerance):
    """Training's and evaluation's curves are the plain path's."""
    whole = train(model_dir, tmp_path, **changed)
    plain = train(model_dir, tmp_path, **changed, **PLAIN)
    for key in ("loss", "rewards/margins", "logps/chosen", "entropy", "num_tokens", "diff/weight"):
        curves = [logged(run, key) for run in (whole, plain)]
        assert curves[0] == pytest.approx(curves[1], rel=tolerance, abs=tolerance), key
    assert whole.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"], rel=tolerance)


def test_attention_that_takes_no_mask_has_two_sequences_and_says_so_once(model_dir, tmp_path, caplog):
    trainer = train(model_dir, tmp_path, model_init_kwargs={"attn_implementation": "eager"}, max_steps=2)
    (said,) = [record.message for record in caplog.records if "two padded sequences" in record.message]
    assert said.startswith("prefix_sharing and packing: two padded sequences a pair, since eager can't hide one branch")
    assert not trainer.data_collator.prefix_sharing
    caplog.clear()
    options = {"prefix_sharing": False, "packing": False, "model_init_kwargs": {"attn_implementation": "eager"}}
    train(model_dir, tmp_path, **options, max_steps=1)
    assert "two padded sequences" not in caplog.text
