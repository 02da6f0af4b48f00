"""One sequence a pair gives the numbers of two."""

from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import bmc
from bmc.training.collator import DataCollatorForBMC
from bmc.training.prefix_sharing import (
    Segment,
    Tree,
    attention_arguments,
    pack_sequences,
    segments,
    tree_mask_mod,
    unsupported_reason,
    use_tree_attention,
)


def test_a_row_by_hand():
    # prompt 1 2; y_w = 3 4 5; y_l = 3 6; and a second prompt 1 7 with the responses 8 and 8 9
    row = pack_sequences([[1, 2, 3, 4, 5], [1, 2, 3, 6], [1, 7, 8], [1, 7, 8, 9]], share=True)
    assert row.ids == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert row.positions == [0, 1, 2, 3, 4, 3, 1, 2, 3]
    assert row.tree == Tree(sizes=(1, 2, 2, 1, 2, 1), parents=(-1, 0, 1, 1, 0, 4))
    assert row.places == [[0, 1, 2, 3, 4], [0, 1, 2, 5], [0, 6, 7], [0, 6, 7, 8]]
    # 1 2 3 4 5 lie together, so do 7 8 9, whose path begins with the root
    assert segments(row.tree) == (Segment(5, (0, 1, 2)), Segment(1, (0, 1, 3)), Segment(3, (0, 4, 5)))


def test_without_sharing_sequences_stand_one_after_another():
    row = pack_sequences([[1, 2], [1, 2, 3]], share=False)
    assert (row.ids, row.positions) == ([1, 2, 1, 2, 3], [0, 1, 0, 1, 2])
    assert row.tree == Tree(sizes=(2, 3), parents=(-1, -1))
    assert row.places == [[0, 1], [2, 3, 4]]


def test_who_sees_whom_by_hand():
    row = pack_sequences([[1, 2, 3], [1, 2, 4, 5]], share=True)
    tree, positions = row.tree.padded(1), torch.tensor([[*row.positions, 0]])
    index = torch.arange(6)
    query, key = index[:, None], index[None, :]
    zero = torch.zeros((), dtype=torch.long)
    assert tree_mask_mod((tree,), positions)(zero, zero, query, key).int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],  # the winner's branch sees the trunk and itself
        [1, 1, 0, 1, 0, 0],  # the loser's branch sees the trunk and itself
        [1, 1, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],  # padding sees itself
    ]
    # a window of two tokens is counted along the path, not along the row
    assert tree_mask_mod((tree,), positions, window=2)(zero, zero, query, key).int().tolist() == [
        [1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0, 1, 0, 1, 0, 0], [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1]
    ]  # fmt: skip


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


def family(name: str, attention: str = "sdpa") -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "vocab_size": 259, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    }  # fmt: skip
    windows = {  # all shorter than most sequences; Qwen2's second layer has one, its first has none
        "mistral": {"sliding_window": 5},
        "qwen2": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    }
    torch.manual_seed(1)
    config = AutoConfig.for_model(name, **sizes, **windows.get(name, {}), attn_implementation=attention)
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module", params=["llama", "mistral", "qwen2"])
def trainer(request: Any, tokenizer: Any, tmp_path_factory: Any) -> Any:
    args = bmc.BMCConfig(
        output_dir=str(tmp_path_factory.mktemp("packing")), use_cpu=True, bf16=False, report_to="none",
        gradient_checkpointing=False, token_weighting="bmc", max_length=24, precompute_ref_log_probs=False,
    )  # fmt: skip
    rows = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    policy, reference = family(request.param), family(request.param)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    trainer = bmc.BMCTrainer(policy, reference, args, train_dataset=rows, processing_class=tokenizer)
    assert trainer.data_collator.prefix_sharing
    assert trainer.data_collator.packing
    return trainer


def measure(
    trainer: Any, examples: list[dict[str, Any]], sharing: bool, packing: bool
) -> tuple[Any, dict[str, Any], list[Any]]:
    trainer.data_collator.prefix_sharing, trainer.data_collator.packing = sharing, packing
    trainer.model.train()
    trainer.model.zero_grad()
    trainer._metrics["train"].clear()
    trainer._total_train_tokens = 0
    batch = trainer.data_collator(examples)
    assert ("trees" in batch) == (sharing or packing)
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    gradients = [parameter.grad.clone() for parameter in trainer.model.parameters()]
    metrics = dict(trainer._metrics["train"])
    metrics.pop("tokens_saved")  # the point of it
    found = {"num_tokens": metrics.pop("num_tokens")[-1]}
    found |= {name: total / max(count, 1) for name, ((total, count),) in metrics.items()}
    return loss.detach(), found, gradients


@pytest.mark.parametrize(("sharing", "packing"), [(True, True), (True, False), (False, True)])
@hypothesis_settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(batch=st.lists(pairs(), min_size=1, max_size=8), side=st.sampled_from(["left", "right"]))
def test_loss_metrics_and_gradients_are_those_of_two_padded_sequences(
    trainer: Any, batch: list[dict[str, Any]], sharing: bool, packing: bool, side: str
) -> None:
    trainer.processing_class.padding_side = side
    for pair in batch:
        masks = bmc.token_diff(pair["chosen_ids"], pair["rejected_ids"])
        pair["chosen_diff"], pair["rejected_diff"] = masks
    loss, metrics, gradients = measure(trainer, batch, sharing, packing)
    plain_loss, plain_metrics, plain_gradients = measure(trainer, batch, sharing=False, packing=False)
    torch.testing.assert_close(loss, plain_loss, rtol=1e-5, atol=0)
    assert metrics == pytest.approx(plain_metrics, rel=1e-5, abs=1e-6)
    whole = torch.cat([plain.flatten() for plain in plain_gradients]).norm()
    for gradient, plain in zip(gradients, plain_gradients, strict=True):
        # of a prompt of one token the queries' gradient is 0 but for rounding, hence the floor
        assert (gradient - plain).norm() <= 1e-5 * plain.norm() + 1e-7 * whole


@pytest.mark.slow
def test_flex_attention_sees_what_sdpa_sees(subtests: pytest.Subtests) -> None:
    """The same trees as a BlockMask. On a CPU flex_attention has no backward, so the hidden states are compared."""
    for name in ["llama", "mistral", "qwen2"]:
        with subtests.test(name=name):
            row = pack_sequences([[7, *range(20)], [7, *range(12), *range(40, 60)], [7, 99, 5, 6]], share=True)
            positions, trees = torch.tensor([row.positions]), (row.tree,)
            states = []
            for attention in ("sdpa", "flex_attention"):
                model = family(name, attention).eval()
                use_tree_attention(model)
                arguments = attention_arguments(model.config, trees, positions)
                with torch.no_grad():
                    ids = torch.tensor([row.ids])
                    states.append(model.model(input_ids=ids, position_ids=positions, use_cache=False, **arguments)[0])
            torch.testing.assert_close(*states, rtol=1e-5, atol=1e-5)


def test_without_trees_the_model_is_as_it_was(tokenizer: Any) -> None:
    """Padded batches and generation go through transformers' own masks."""
    before, after = family("mistral").eval(), family("mistral").eval()
    use_tree_attention(after)
    ids = torch.tensor([[0, 0, 5, 6, 7, 8, 9, 10], [4, 5, 6, 7, 8, 9, 10, 11]])
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    torch.testing.assert_close(before(**inputs).logits, after(**inputs).logits)
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    assert before.generate(**inputs, **options).tolist() == after.generate(**inputs, **options).tolist()


def test_what_keeps_a_model_from_trees():
    model = family("llama")
    assert unsupported_reason(model) is None
    for attention in ("eager", "kernels-community/flash-attn2"):
        model.config._attn_implementation = attention
        assert attention in unsupported_reason(model)


def test_a_model_that_loses_the_trees_on_the_way_is_stopped():
    """A model whose code doesn't hand its keyword arguments on would train on nonsense otherwise."""
    model = family("llama")
    use_tree_attention(model)
    with pytest.raises(RuntimeError, match="prefix_sharing and packing to false"):
        model(input_ids=torch.tensor([[5, 6]]), attention_mask=torch.ones(1, 1, 1, 1))


@pytest.mark.parametrize("packing", [False, True])
def test_rows_are_padded_to_a_multiple_and_places_lie_within(packing: bool) -> None:
    pair: dict[str, Any] = {"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3, 4]}
    pair |= {"chosen_diff": [True], "rejected_diff": [True, True]}
    collator = DataCollatorForBMC(pad_token_id=0, pad_to_multiple_of=64, prefix_sharing=True, packing=packing)
    batch = collator([pair, pair])
    assert batch["input_ids"].shape == (1, 64)
    assert batch["trees"][0].sizes == (1, 1, 2, 60)
    assert batch["num_tokens"].tolist() == [5, 5]
    assert batch["predictors"].tolist() == [[0, 0, 0], [-64, -64, -62]]
    assert batch["labels"].tolist() == [2, 3, 4]
    assert batch["places"].tolist() == [[[0, 0], [1, 2]]] * 2


def test_a_first_token_that_nothing_predicts_is_not_scored():
    """Without a prompt the first token of a response isn't scored, and values beside the tokens keep their places."""
    pair: dict[str, Any] = {"prompt_ids": [], "chosen_ids": [5, 6], "rejected_ids": [5, 7, 8]}
    pair |= {"chosen_diff": [False, True], "rejected_diff": [False, True, False]}
    pair |= {"ref_chosen_logps": [-2.0], "ref_rejected_logps": [-3.0, -4.0]}  # of the tokens that are scored
    batch = DataCollatorForBMC(pad_token_id=0, max_length=2, prefix_sharing=True, packing=True)([pair])
    assert batch["labels"].tolist() == [6, 7]
    assert batch["diff_mask"].tolist() == [[[True], [True]]]
    assert batch["ref_logps"].tolist() == [[[-2.0], [-3.0]]]
