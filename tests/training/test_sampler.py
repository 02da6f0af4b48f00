"""The seed alone decides which rows make a step, and all of them count alike."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from tiny_pairs import logged, settings
from torch.utils.data import BatchSampler

import bmc
from bmc.training.fault_tolerance import SeededLengthSampler, last_step_weights, mask_repeated_rows

ROWS = [
    {"id": f"r{i}", "prompt": f"Add {i} and 2.", "chosen": f"The sum is {i + 2}{'!' * (i % 5)}", "rejected": f"{i}."}
    for i in range(21)
]


@given(rows=st.integers(1, 60), size=st.integers(1, 4), ranks=st.integers(1, 4), batches=st.integers(1, 4))
def test_an_epochs_rows_count_once_and_alike(rows: int, size: int, ranks: int, batches: int) -> None:
    """Of the batches that accelerate deals out: what is left of them after weighting, against each row once."""
    if rows < ranks:
        return
    batched = BatchSampler(range(rows), size, drop_last=False)
    dealt = [list(BatchSamplerShard(batched, ranks, rank) if ranks > 1 else batched) for rank in range(ranks)]
    seen: list[int] = []
    for start in range(0, len(dealt[0]), batches):
        count = len(dealt[0][start : start + batches])
        last = start + count == len(dealt[0])
        step: dict[int, float] = {}
        for rank in range(ranks):
            mine = dealt[rank][start : start + count]
            found = last_step_weights(rows, size, ranks, rank, count) if last else None
            for number, batch in enumerate(mine, 1):
                own, weight = found or (len(batch), 1 / len(batch))
                for row in batch[: own if number == count else size]:
                    assert row not in step
                    step[row] = weight / count / ranks  # averaged over micro-batches and processes
        assert list(step.values()) == pytest.approx([1 / len(step)] * len(step))
        assert sorted(step) == list(range(start * size * ranks, min((start + count) * size * ranks, rows)))
        seen += step
    assert len(seen) == rows


def test_an_order_by_length_is_of_seed_and_epoch() -> None:
    lengths = [i * 7 % 50 for i in range(200)]
    order, again = SeededLengthSampler(lengths, 8, seed=3), SeededLengthSampler(lengths, 8, seed=3)
    first = list(order)
    torch.manual_seed(99)  # the process's generator has no part in it
    assert list(again) == first
    assert sorted(first) == list(range(200))
    assert list(SeededLengthSampler(lengths, 8, seed=4)) != first
    order.epoch = again.epoch = 1
    assert list(order) == list(again) != first
    spread = [
        max(lengths[i] for i in step) - min(lengths[i] for i in step) for step in zip(*[iter(first)] * 8, strict=True)
    ]
    assert sum(spread[1:]) / len(spread[1:]) < 15  # rows by chance: 40


def test_repeated_rows_lose_their_labels() -> None:
    batch = {"labels": torch.arange(6).view(3, 2)}
    mask_repeated_rows(batch, 2, 3)
    assert batch["labels"].tolist() == [[0, 1], [2, 3], [-100, -100]]
    flat = {"labels": torch.arange(6)[None], "position_ids": torch.tensor([[0, 1, 0, 1, 2, 0]])}
    mask_repeated_rows(flat, 1, 3)
    assert flat["labels"].tolist() == [[0, 1, -100, -100, -100, -100]]
    mask_repeated_rows(flat, 3, 3)
    packed = {"labels": torch.arange(6)[None], "position_ids": torch.tensor([[0, 1, 0, 1, 2, 0]])}
    mask_repeated_rows(packed, 1, 2)
    assert packed["labels"].tolist() == [[0, 1, 2, 3, 4, 5]]


def run(
    model_dir: Path, folder: Path, size: int, steps: int, resume: str | None = None, **changed: Any
) -> tuple[list[list[str]], Any]:
    """Two epochs of 21 pairs by 8; the ids of each step's rows."""
    seen: dict[int, list[str]] = {}

    class Observed(bmc.BMCTrainer):
        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            seen.setdefault(self.state.global_step, []).extend(inputs["ids"])
            return super().training_step(model, inputs, *args, **kwargs)

    options = {
        "per_device_train_batch_size": size, "gradient_accumulation_steps": steps, "num_train_epochs": 2, "seed": 5
    }  # fmt: skip
    own = {"token_weighting": "bmc", "reference_cache": str(folder / "reference"), "precompute_ref_log_probs": None}
    args = bmc.BMCConfig(**settings(folder, lr_scheduler_type="linear") | options | own | changed)
    rows = Dataset.from_list(ROWS)
    trainer = Observed(str(model_dir), args=args, train_dataset=rows, eval_dataset=rows)
    trainer.train(resume_from_checkpoint=resume)
    return [sorted(ids) for ids in seen.values()], trainer


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "splits"), [("random", [(1, 8, 0), (2, 4, 2)]), ("group_by_length", [(2, 4, 0)])])
def test_a_step_is_the_same_however_it_is_split(
    model_dir: Path, tmp_path: Path, strategy: str, splits: list[tuple[int, int, int]]
) -> None:
    """1 × 8, 2 × 4 and 8 × 1; the last step of an epoch has five rows, by 2 they are two batches and a half."""
    steps, whole = run(model_dir, tmp_path, 8, 1, train_sampling_strategy=strategy)
    assert list(map(len, steps)) == [8, 8, 5, 8, 8, 5]
    for epoch in (steps[:3], steps[3:]):
        assert sorted(id for step in epoch for id in step) == sorted(row["id"] for row in ROWS)
    assert steps[:3] != steps[3:]
    for size, accumulation, workers in splits:
        found, split = run(
            model_dir, tmp_path, size, accumulation, train_sampling_strategy=strategy, dataloader_num_workers=workers
        )
        assert found == steps
        for key in ("loss", "rewards/margins", "logps/chosen", "diff/share", "entropy"):
            assert logged(split, key) == pytest.approx(logged(whole, key), abs=1e-4)
        assert logged(split, "num_tokens") == logged(whole, "num_tokens")


@pytest.mark.slow
def test_a_resumed_epoch_goes_on_in_its_order(model_dir: Path, tmp_path: Path) -> None:
    keys = {"train_sampling_strategy": "group_by_length", "save_strategy": "steps", "save_steps": 4}
    steps, _ = run(model_dir, tmp_path, 4, 2, **keys)
    assert run(model_dir, tmp_path, 4, 2, str(tmp_path / "checkpoint-4"), **keys)[0] == steps[4:]


@pytest.mark.slow
def test_another_seed_is_another_order_and_no_number_of_a_batch_is_rounded(model_dir: Path, tmp_path: Path) -> None:
    steps, _ = run(model_dir, tmp_path, 8, 1, max_steps=1)
    other, trainer = run(model_dir, tmp_path, 8, 1, max_steps=1, seed=6)
    assert other != steps
    trainer.is_deepspeed_enabled = True  # transformers' trainer then asks its plugin for a dtype
    batch = trainer._prepare_inputs({"ref_logps": torch.tensor([-1.2345678]), "ids": ["r1"]})
    assert batch["ref_logps"].dtype == torch.float32


def test_pairs_are_never_dealt_out_by_their_cost() -> None:
    with pytest.raises(ValueError, match="train_sampling_strategy: batch_rebalance weighs pairs unequally"):
        bmc.BMCConfig(output_dir="o", use_cpu=True, bf16=False, train_sampling_strategy="batch_rebalance")
