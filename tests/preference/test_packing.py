"""One sequence a pair gives the numbers of two."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import bmc
from bmc.preference.batching import DataCollatorForBMC
from bmc.preference.packing import CHOSEN, FORK, REJECTED, TRUNK, branch_mask, obstacle, share_prefix


def test_a_row_by_hand():
    # prompt 1 2; y_w = 3 4 5; y_l = 3 6: they share 1 2 3, and 3 is copied in front of 6
    row = share_prefix([1, 2, 3, 4, 5], [1, 2, 3, 6], prompt=2)
    assert row.ids == [1, 2, 3, 4, 5, 3, 6]
    assert row.positions == [0, 1, 2, 3, 4, 2, 3]
    assert row.branch == [TRUNK, TRUNK, FORK, CHOSEN, CHOSEN, REJECTED, REJECTED]
    assert row.labels == [-100, -100, 3, 4, 5, -100, 6]
    assert row.places == [0, 1, 2, 6]


def test_who_sees_whom_by_hand():
    mask = branch_mask(torch.tensor([[TRUNK, FORK, CHOSEN, REJECTED, REJECTED, 4]]))[0, 0].int().tolist()
    assert mask == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],  # the winner's branch sees the trunk and itself
        [1, 0, 0, 1, 0, 0],  # the copy sees what the fork sees, and itself in its place
        [1, 0, 0, 1, 1, 0],  # the loser's branch sees the copy, not the fork
        [0, 0, 0, 0, 0, 1],  # padding sees itself
    ]


IDS = st.lists(st.integers(5, 250), min_size=1, max_size=8)


@st.composite
def pairs(draw: Any) -> dict[str, Any]:
    """Pairs of every kind: nothing in common, one the other's beginning, all but the last token, a single token."""
    common = draw(st.one_of(st.just([]), IDS))
    ends = draw(st.sampled_from(["both", "prefix", "last", "single"]))
    chosen, rejected = {
        "both": lambda: (common + draw(IDS), common + draw(IDS)),
        "prefix": lambda: (common + draw(IDS), common or [7]),
        "last": lambda: ([*common, 8], [*common, 9]),
        "single": lambda: ([draw(st.integers(5, 250))], [draw(st.integers(5, 250))]),
    }[ends]()
    assume(chosen != rejected)  # no preference, and a reward accuracy that rounding decides
    return {"prompt_ids": draw(IDS), "chosen_ids": chosen, "rejected_ids": rejected}


def family(name: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "vocab_size": 259, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    }  # fmt: skip
    torch.manual_seed(1)
    window = {"sliding_window": 64} if name == "mistral" else {}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **sizes, **window)).float()


@pytest.fixture(scope="module", params=["llama", "mistral", "qwen2"])
def trainer(request: Any, tokenizer: Any, tmp_path_factory: Any) -> Any:
    args = bmc.BMCConfig(
        output_dir=str(tmp_path_factory.mktemp("packing")), use_cpu=True, bf16=False, report_to="none",
        gradient_checkpointing=False, token_weighting="bmc", max_length=24,
    )  # fmt: skip
    rows = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    policy, reference = family(request.param), family(request.param)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    trainer = bmc.BMCTrainer(policy, reference, args, train_dataset=rows, processing_class=tokenizer)
    assert trainer.data_collator.prefix_sharing
    return trainer


def measure(trainer: Any, examples: list[dict[str, Any]], sharing: bool) -> tuple[Any, dict[str, Any], list[Any]]:
    trainer.data_collator.prefix_sharing = sharing
    trainer.model.train()
    trainer.model.zero_grad()
    trainer._metrics["train"].clear()
    trainer._total_train_tokens = 0
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(examples))
    loss.backward()
    gradients = [parameter.grad.clone() for parameter in trainer.model.parameters()]
    return loss.detach(), {name: values[-1] for name, values in trainer._metrics["train"].items()}, gradients


@hypothesis_settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(pairs(), min_size=1, max_size=8))
def test_loss_metrics_and_gradients_are_those_of_two_sequences(trainer: Any, batch: list[dict[str, Any]]) -> None:
    for pair in batch:
        masks = bmc.token_diff(pair["chosen_ids"], pair["rejected_ids"])
        pair["chosen_diff"], pair["rejected_diff"] = masks
    loss, metrics, gradients = measure(trainer, batch, sharing=True)
    plain_loss, plain_metrics, plain_gradients = measure(trainer, batch, sharing=False)
    torch.testing.assert_close(loss, plain_loss, rtol=1e-5, atol=1e-6)
    assert metrics == pytest.approx(plain_metrics, rel=1e-5, abs=1e-5)
    scale = max(gradient.abs().max() for gradient in plain_gradients)
    for gradient, plain in zip(gradients, plain_gradients, strict=True):
        torch.testing.assert_close(gradient, plain, rtol=1e-4, atol=1e-5 * max(1.0, scale.item()))


def test_what_keeps_a_model_from_sharing():
    llama, mistral = family("llama"), family("mistral")
    assert obstacle(llama, 1024) is None
    assert obstacle(mistral, 64) is None
    assert "window (64)" in obstacle(mistral, 65)
    llama.config._attn_implementation = "flash_attention_2"
    assert "flash_attention_2" in obstacle(llama, 1024)


@pytest.mark.parametrize("multiple", [None, 64])
def test_places_lie_within_the_rows(multiple: int | None) -> None:
    pair: dict[str, Any] = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3, 4]}
    pair |= {"chosen_diff": [True], "rejected_diff": [True, True]}
    batch = DataCollatorForBMC(pad_token_id=0, pad_to_multiple_of=multiple, prefix_sharing=True)([pair])
    assert batch["shared_places"].max() < batch["shared_ids"].size(1)
