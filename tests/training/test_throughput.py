"""The least FLOPs of a step against PyTorch's counter, and what is logged of them."""

import dataclasses
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.utils.flop_counter import FlopCounterMode

import bmc
from bmc.training.collator import DataCollatorForBMC
from bmc.training.metrics import MatmulSize, ThroughputCallback, Work, count_visible, least_flops, matmul_size

ROWS = [
    {"prompt": f"What is {n} and 2? ", "chosen": f"The sum is {n + 2}.", "rejected": f"The sum is {n + 3}, or {n}."}
    for n in range(6)
]


def test_work_by_hand():
    # 1 2 3 4 5 in a row, and 6 after 1 2 3: 5 + 1 tokens, the responses begin at 3; padded to a multiple of 4
    pair = ([1, 2], [3, 4, 5]), ([1, 2], [3, 6])
    collator = DataCollatorForBMC(pad_token_id=0, pad_to_multiple_of=4, prefix_sharing=True, packing=True)
    shared = Work(tokens=6, visible=15 + 4, scored=4, pushed=8, plain=10)
    assert collator.lay_out(pair)["work"] == shared
    padded = dataclasses.replace(collator, prefix_sharing=False, packing=False, pad_to_multiple_of=None)
    assert padded.lay_out(pair)["work"] == Work(tokens=9, visible=15 + 10, scored=5, pushed=10, plain=10)
    assert count_visible([(5, 5), (1, 4)]) == 19


def test_flops_by_hand():
    size, work = MatmulSize(100, 10, 8, 40, True), Work(tokens=3, visible=6, scored=2, pushed=4, plain=8)
    assert least_flops(size, work) == 2 * (3 * (300 + 20) + 2 * 3 * 40 + 6 * 8 * 6)
    assert least_flops(size._replace(head_trained=False), work) == 2 * (3 * 320 + 2 * 2 * 40 + 6 * 8 * 6)


def trainer_of(tokenizer: Any, tmp_path: Any, kind: str = "llama", lora: bool = False, **changed: Any) -> Any:
    from peft import LoraConfig
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "vocab_size": 259, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    }  # fmt: skip
    if kind == "gpt2":
        sizes = {"vocab_size": 259, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes), attn_implementation="sdpa")
    args = bmc.BMCConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False,
        token_weighting="bmc", reference_cache=str(tmp_path / "reference"), logging_steps=1, save_strategy="no",
        per_device_train_batch_size=3, **{"precompute_ref_log_probs": True} | changed,
    )  # fmt: skip
    adapter = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM") if lora else None
    rows = Dataset.from_list(ROWS)
    return bmc.BMCTrainer(model, args=args, train_dataset=rows, processing_class=tokenizer, peft_config=adapter)


@pytest.mark.parametrize(("kind", "lora"), [("llama", False), ("qwen2", False), ("mistral", False), ("llama", True)])
@pytest.mark.slow
def test_the_least_flops_are_those_that_pytorch_counts(
    kind: str, lora: bool, tokenizer: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where attention goes to all keys of a segment, seen or not. Of the head it counts three products as well: it sees
    the logits computed again for the gradient, but not the weight's gradient, which is an addmm_ in place."""
    monkeypatch.setattr("bmc.training.trainer.candidates", lambda device: ("plain",))
    trainer = trainer_of(tokenizer, tmp_path, kind, lora)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    with FlopCounterMode(display=False) as counter:
        trainer.compute_loss(trainer.model, batch).backward()
    size, work, index = matmul_size(trainer.model), batch["work"], batch["tree_index"]
    assert size is not None
    dense = int((index["cu_queries"].diff() * index["cu_keys"].diff()).sum())
    assert work.visible < dense
    wanted = least_flops(size, dataclasses.replace(work, visible=dense))
    if not lora:
        assert counter.get_total_flops() == wanted
        return
    # the logits again; less the gradients of the first layer's inputs, since the embedding is frozen
    assert 0.9 * wanted < counter.get_total_flops() - 2 * work.scored * size.head <= wanted
    assert size.trained == 2 * 4 * ((32 + 32) + (64 + 32))
    assert size.frozen == 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64)


def test_a_mixture_of_experts_and_mamba_have_no_size() -> None:
    from transformers import MambaConfig, MambaForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM

    config = Qwen2MoeConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, num_experts=4,
        moe_intermediate_size=16, shared_expert_intermediate_size=16, intermediate_size=16,
    )  # fmt: skip
    assert matmul_size(Qwen2MoeForCausalLM(config)) is None
    mamba = MambaConfig(vocab_size=99, hidden_size=32, num_hidden_layers=1, state_size=4)
    assert matmul_size(MambaForCausalLM(mamba)) is None


@pytest.mark.slow
def test_each_logged_line_has_throughput(tokenizer: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a card whose peak is 1 MFLOP/s."""
    monkeypatch.setattr("bmc.training.metrics.peak_flops", lambda device: 1e6)
    trainer = trainer_of(tokenizer, tmp_path)
    works: list[Work] = []
    add = trainer._throughput.add
    monkeypatch.setattr(trainer._throughput, "add", lambda work: (works.append(work), add(work)))
    start = time.perf_counter()
    trainer.train()
    took = time.perf_counter() - start
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert len(lines) == len(works) == 6
    size = matmul_size(trainer.model)
    assert size is not None
    for line, work in zip(lines, works, strict=True):
        assert line["tokens_saved"] == pytest.approx(1 - work.pushed / work.plain, rel=1e-6)
        assert 0.2 < line["tokens_saved"] < 0.8
        seconds = work.pushed / line["tokens_per_second"]
        assert 0 < seconds < took
        assert line["mfu"] == pytest.approx(least_flops(size, work) / (seconds * 1e6), rel=1e-5)
    assert sum(work.pushed / line["tokens_per_second"] for line, work in zip(lines, works, strict=True)) < took
    assert "tokens_per_second" not in trainer.state.log_history[-1]


def test_a_repeated_micro_batch_is_no_work(tokenizer: Any, tmp_path: Any) -> None:
    trainer = trainer_of(tokenizer, tmp_path)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(2)])
    trainer.model.train()
    for weights, pushed in (([0.0, 0.0], 0), ([1.0, 0.0], batch["work"].pushed)):
        trainer.compute_loss(trainer.model, batch | {"pair_weights": torch.tensor(weights)})
        assert trainer._throughput.pushed == pushed
        assert (trainer._throughput.flops > 0) == (pushed > 0)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A800-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("Other", None),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GeForce RTX 4090 D", None),
    ],
)
def test_a_card_is_known_by_its_name(name: str, peak: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert ThroughputCallback(SimpleNamespace(type="cuda")).peak == peak  # type: ignore[arg-type]
    assert ThroughputCallback(torch.device("cpu")).peak is None
