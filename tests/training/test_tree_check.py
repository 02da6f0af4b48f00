"""Architectures whose code treats trees otherwise than their sequences get two padded sequences, and all train."""

from math import log
from typing import Any

import pytest
import torch
from datasets import Dataset

import bmc
from bmc.training.prefix_sharing import TREE_ATTENTION, Tree, tree_attention
from bmc.training.tree_check import HALF_ROUNDING, Outcome, longest, sequences

SIZES = {
    "vocab_size": 259, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "router_aux_loss_coef": 0.0}
ROWS = [
    {"prompt": f"What is {n} and 2? ", "chosen": f"The sum is {n + 2}.", "rejected": f"The sum is {n + 3}, or {n}."}
    for n in range(4)
]


def family(kind: str, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    known = CONFIG_MAPPING[kind]()
    names = {**known.to_dict(), **getattr(type(known), "attribute_map", {})}
    sizes = {key: value for key, value in SIZES.items() if key in names}
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(type(known)(**sizes, **options), attn_implementation="sdpa")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.to(dtype)


def trainer_of(kind: str, tokenizer: Any, tmp_path: Any, options: dict[str, Any], **changed: Any) -> Any:
    args = bmc.BMCConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False,
        token_weighting="bmc", precompute_ref_log_probs=False, router_aux_loss_coef=0.0, **changed,
    )  # fmt: skip
    dtype = options.pop("dtype", torch.float32)
    policy, reference = (family(kind, dtype, **options) for _ in range(2))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return bmc.BMCTrainer(policy, reference, args, train_dataset=Dataset.from_list(ROWS), processing_class=tokenizer)


SLIDING = {"use_sliding_window": True, "layer_types": ["sliding_attention"] * 2, **EXPERTS}
WINDOWS = [  # windows and sparse masks, all shorter than the pairs, that reach attention by its mask alone
    ("doge", {"keep_window_size": 8}),
    ("qwen2_moe", {"sliding_window": 8, **SLIDING}),
    ("phimoe", {"sliding_window": 8, "num_local_experts": 4, "router_aux_loss_coef": 0.0}),
]
OTHERS = [
    ("llama", {}), ("gpt_neox", {}), ("gpt2", {"n_positions": 512}),
    ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.0}),
    ("persimmon", {}), ("modernbert-decoder", {"local_attention": 8}), ("nemotron", {}), ("stablelm", {})
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "options"), [*WINDOWS, *OTHERS], ids=[kind for kind, _ in [*WINDOWS, *OTHERS]])
def test_every_architecture_trains_on_the_numbers_of_padded_sequences(kind, options, tokenizer, tmp_path, caplog):
    found: list[tuple[float, float]] = []
    for changed in ({}, {"prefix_sharing": False, "packing": False}):
        trainer = trainer_of(kind, tokenizer, tmp_path, {**options}, **changed)
        batch = trainer.data_collator(list(trainer.train_dataset))
        trainer.model.eval()  # PhiMoE's router draws noise while it trains
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        found.append((loss.item(), trainer.model.get_input_embeddings().weight.grad.norm().item()))
    assert abs(found[0][0] - log(2)) > 1e-3
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    said = [record.message for record in caplog.records if "two padded sequences" in record.message]
    if (kind, options) in WINDOWS:
        assert len(said) == 1
        assert "ForCausalLM has other log-probs (" in said[0]
        assert trainer.model.config._attn_implementation == "sdpa"
    if kind in ("llama", "gpt_neox"):
        assert not said


def test_a_window_that_no_sequence_reaches_is_no_obstacle(tokenizer, tmp_path):
    """The pairs have fewer than 60 tokens."""
    options = {"sliding_window": 60, **SLIDING}
    trainer = trainer_of("qwen2_moe", tokenizer, tmp_path, options)
    assert longest(trainer.train_dataset) < 60
    assert trainer.data_collator.prefix_sharing
    assert trainer.model.config._attn_implementation == TREE_ATTENTION


@pytest.mark.parametrize(("kind", "options", "shares"), [("llama", {}, True), (*WINDOWS[0], False)])
def test_lower_precision_is_no_excuse(kind, options, shares, tokenizer, tmp_path):
    trainer = trainer_of(kind, tokenizer, tmp_path, {**options, "dtype": torch.bfloat16})
    assert trainer.data_collator.prefix_sharing == shares


def test_a_sharded_policy_is_checked_when_training_begins(tokenizer, tmp_path, monkeypatch, caplog):
    """DeepSpeed and FSDP prepare the policy then; before, it can't run."""
    monkeypatch.setattr(bmc.BMCTrainer, "_sharded", property(lambda self: True))
    kind, options = WINDOWS[0]
    trainer = trainer_of(kind, tokenizer, tmp_path, {**options}, loss_type="simpo", beta=2.0, max_steps=1)
    assert not caplog.messages
    trainer.train()
    assert "DogeForCausalLM has other log-probs (" in caplog.text


def test_what_a_model_wants_of_its_attention_beside_trees_is_refused(subtests: pytest.Subtests) -> None:
    for name in ["softcap", "s_aux", "position_bias", "sinks"]:
        with subtests.test(name=name):
            states = torch.randn(1, 2, 4, 8)
            trees = (Tree((4,), (-1,)),)
            tree_attention(
                torch.nn.Module(), states, states, states, None, trees=trees, **{name: None}, position_ids=states
            )
            with pytest.raises(NotImplementedError, match=f"Module asks its attention for {name}"):
                tree_attention(torch.nn.Module(), states, states, states, None, trees=trees, **{name: torch.ones(2)})


def test_an_outcome_by_hand():
    """A mean of 1e-3 nats a token is rounding; in lower precision three times the noise is, up to 0.3."""
    assert Outcome(9e-4, 0.0).passed
    assert not Outcome(2e-3, 1e-5).passed
    assert Outcome(0.14, 0.05).passed
    assert not Outcome(0.4, 0.5).passed
    assert not Outcome(float("inf"), 0.0).passed
    assert Outcome(9e-3, 0.0, rounding=HALF_ROUNDING).passed
    assert not Outcome(1.1e-2, 0.0, rounding=HALF_ROUNDING).passed


def test_the_sequences_of_a_check_share_what_a_tree_can_share():
    (p, a), (q, b), (r, _), (other, _) = sequences(40, 1000)
    assert max(len(p + a), len(q + b)) == 40
    assert p == q
    assert a[:10] == b[:10]
    assert a[10:12] != b[10:12]
    assert r[:5] == p[:5]
    assert r[5:] != p[5:7]
    assert other[:1] != p[:1]
