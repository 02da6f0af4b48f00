"""Micro-batches of any number of pairs take the steps of those of a fixed number."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

import bmc
from bmc.training.collator import DataCollatorForBMC, MicroBatchCollator, split_by_tokens


def test_a_split_by_hand():
    assert split_by_tokens([], 10) == []
    assert split_by_tokens([3, 4, 3, 1], 10) == [slice(0, 3), slice(3, 4)]
    assert split_by_tokens([3, 50, 2, 2], 10) == [slice(0, 1), slice(1, 2), slice(2, 4)]
    assert split_by_tokens([3, 4, 3, 1], 10, padded=True) == [slice(0, 2), slice(2, 4)]  # 2 × 4, 3 × 4 is too much


@given(costs=st.lists(st.integers(1, 12), max_size=12), budget=st.integers(1, 20), padded=st.booleans())
def test_a_split_is_the_shortest(costs: list[int], budget: int, padded: bool) -> None:
    """Against all ways to cut, by dynamic programming; order and rows stay."""

    def size(start: int, end: int) -> int:
        run = costs[start:end]
        return max(run) * len(run) if padded else sum(run)

    runs = split_by_tokens(costs, budget, padded)
    assert [cost for run in runs for cost in costs[run]] == costs
    assert all(size(run.start, run.stop) <= budget or run.stop - run.start == 1 for run in runs)
    fewest = [0]
    for end in range(1, len(costs) + 1):
        cuts = [start for start in range(end) if end - start == 1 or size(start, end) <= budget]
        fewest.append(1 + min(fewest[start] for start in cuts))
    assert len(runs) == fewest[-1]


def test_what_a_pair_costs():
    pair = {"prompt_ids": [1, 2, 3], "chosen_ids": [4, 5], "rejected_ids": [4, 6, 7]}
    layouts = {(True, True): 7, (False, True): 11, (True, False): 7, (False, False): 12}
    for (sharing, packing), tokens in layouts.items():
        collator = DataCollatorForBMC(pad_token_id=0, prefix_sharing=sharing, packing=packing)
        assert MicroBatchCollator(collator, 8)._cost(pair) == tokens
    cut = DataCollatorForBMC(pad_token_id=0, max_length=5, prefix_sharing=True, packing=True)
    assert MicroBatchCollator(cut, 8)._cost(pair) == 6


ROWS = [
    {"id": f"r{i}", "prompt": f"Add {i} and 2.", "chosen": f"The sum is {i + 2}{'!' * (i % 7)}", "rejected": f"{i}."}
    for i in range(21)
]


def run(model_dir: Path, folder: Path, resume: str | None = None, **changed: Any) -> tuple[Any, list[list[list[str]]]]:
    """Two epochs of 21 pairs by 8; the ids of each micro-batch of each step."""
    steps: dict[int, list[list[str]]] = {}

    class Observed(bmc.BMCTrainer):
        def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
            if self.model.training:
                steps.setdefault(self.state.global_step, []).append(inputs["ids"])
            return super()._compute_loss(model, inputs, return_outputs)

    settings = {
        "output_dir": str(folder), "report_to": "none", "use_cpu": True, "bf16": False, "logging_steps": 1, "seed": 5,
        "save_strategy": "no", "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "optim": "sgd",
        "learning_rate": 1e-2, "num_train_epochs": 2, "token_weighting": "bmc", "gradient_checkpointing": False,
        "reference_cache": str(folder / "reference"), "eval_strategy": "steps", "eval_steps": 3,
        "per_device_eval_batch_size": 5,
    } | changed  # fmt: skip
    rows = Dataset.from_list(ROWS)
    args = bmc.BMCConfig(**settings)
    trainer = Observed(str(model_dir), args=args, train_dataset=rows, eval_dataset=rows.select(range(11)))
    trainer.train(resume_from_checkpoint=resume)
    return trainer, list(steps.values())


KEYS = ("loss", "grad_norm", "rewards/margins", "logps/chosen", "diff/share", "entropy", "num_tokens", "eval_loss",
        "eval_rewards/margins")  # fmt: skip


def curves(trainer: Any) -> dict[str, list[float]]:
    return {key: [line[key] for line in trainer.state.log_history if key in line] for key in KEYS}


def close(one: dict[str, list[float]], other: dict[str, list[float]]) -> None:
    for key in KEYS:
        rounding = 1e-6 if "loss" in key else 1e-5
        assert one[key] == pytest.approx(other[key], rel=rounding, abs=1e-6), key


@pytest.fixture(scope="module")
def fixed(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return run(model_dir, tmp_path_factory.mktemp("fixed"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budget", "changed"),
    [(1, {}), (150, {}), (10_000, {}), (150, {"packing": False}), (150, {"prefix_sharing": False, "packing": False})],
)
def test_a_budget_changes_no_step(budget: int, changed: dict[str, Any], model_dir: Path, tmp_path: Path, fixed: Any):
    """The last step of an epoch has five rows; batches of the evaluation have five, five and one."""
    trainer, steps = run(model_dir, tmp_path, micro_batch_tokens=budget, **changed)
    assert [[id for batch in step for id in batch] for step in steps] == [
        [id for batch in step for id in batch] for step in fixed[1]
    ]
    counts = [len(step) for step in steps]
    if budget == 1:
        assert counts == [8, 8, 5] * 2
    elif budget == 10_000:
        assert counts == [1] * 6
    else:
        assert 1 < min(counts) <= max(counts) < 8
    close(curves(trainer), curves(fixed[0]))
    for own, other in zip(trainer.model.parameters(), fixed[0].model.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_a_resumed_run_takes_the_same_steps(model_dir: Path, tmp_path: Path) -> None:
    keys = {"micro_batch_tokens": 150, "save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch"}
    whole, steps = run(model_dir, tmp_path, **keys)
    again, rest = run(model_dir, tmp_path, str(tmp_path / "checkpoint-4"), **keys)
    assert rest == steps[4:]
    for own, other in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=0)


def test_a_step_is_one_batch_of_the_loader(tmp_path: Path) -> None:
    options: dict[str, Any] = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False}
    args = bmc.BMCConfig(
        **options, per_device_train_batch_size=2, gradient_accumulation_steps=16, micro_batch_tokens=8192
    )
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (32, 1)
    assert args.precompute_ref_batch_size == 2
    for loss_type in ("aot", "aot_unpaired", ["sigmoid", "sft"]):
        with pytest.raises(ValueError, match=r"micro_batch_tokens: .* depends on which pairs share a micro-batch"):
            bmc.BMCConfig(**options, micro_batch_tokens=9, loss_type=loss_type)
    with pytest.raises(ValueError, match="micro_batch_tokens: must be greater than or equal to 1"):
        bmc.BMCConfig(**options, micro_batch_tokens=0)


def test_others_still_get_one_batch(model_dir: Path, tmp_path: Path) -> None:
    """An analysis, and a prediction of logits."""
    args = bmc.BMCConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", micro_batch_tokens=50,
        precompute_ref_log_probs=True, reference_cache=str(tmp_path / "reference"), per_device_eval_batch_size=4,
    )  # fmt: skip
    rows = Dataset.from_list(ROWS[:6])
    trainer = bmc.BMCTrainer(str(model_dir), args=args, train_dataset=rows)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(6)])
    assert batch["diff_mask"].shape[:2] == (6, 2)
    assert "micro_batches" in next(iter(trainer.get_train_dataloader()))
    assert trainer.predict(trainer.train_dataset).predictions is not None
