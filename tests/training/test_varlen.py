"""One launch a layer gives what a call for each segment gives, and what sequences of their own give."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.utils._python_dispatch import TorchDispatchMode

import bmc
from bmc.training import varlen
from bmc.training.prefix_sharing import (
    TREE_ATTENTION,
    Tree,
    attention_without_trees,
    index_trees,
    pack_sequences,
    tree_attention,
    unsupported_reason,
    use_tree_attention,
)
from bmc.training.tree_check import KERNEL_ERROR, kernel_error
from bmc.training.varlen import plain_varlen_attn

MODULE = torch.nn.Module()


def test_an_index_by_hand():
    # prompt 1 2; the responses 3 4 5 and 3 6; a second prompt 1 7 with the responses 8 and 8 9; then a row of its own
    trees = [pack_sequences([[1, 2, 3, 4, 5], [1, 2, 3, 6], [1, 7, 8], [1, 7, 8, 9]], share=True).tree]
    trees.append(pack_sequences([[1] * 9], share=True).tree)
    index = index_trees(trees)
    first, second, third = [0, 1, 2, 3, 4], [0, 1, 2, 5], [0, 6, 7, 8]
    assert index["keys"].tolist() == [*first, *second, *third, *range(9, 18)]
    assert index["cu_queries"].tolist() == [0, 5, 6, 9, 18]
    assert index["cu_keys"].tolist() == [0, 5, 9, 13, 22]
    assert (index["max_queries"], index["max_keys"]) == (9, 9)
    assert index["cu_queries"].dtype == index["cu_keys"].dtype == torch.int32


def starts(counts: list[int]) -> Tensor:
    return torch.tensor([0, *counts]).cumsum(0).int()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), min_size=1, max_size=5),
    left=st.sampled_from([-1, 0, 2]),
    heads=st.sampled_from([(2, 2), (4, 2), (3, 1)]),
)
def test_the_plain_kernel_is_a_masked_softmax(sizes: Any, left: int, heads: tuple[int, int]) -> None:
    """Against SDPA with a mask made here, forward and gradients; segments may be empty, or have fewer keys."""
    torch.manual_seed(0)
    counts = [[q for q, _ in sizes], [k for _, k in sizes]]
    shapes = [(sum(counts[0]), heads[0], 8), (sum(counts[1]), heads[1], 8), (sum(counts[1]), heads[1], 8)]
    states = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    cu = [starts(each) for each in counts]
    output = plain_varlen_attn(*states, *cu, max(counts[0]), max(counts[1]), window_size=(left, 0), enable_gqa=True)
    assert output.shape == shapes[0]
    expected = []
    pieces = zip(
        *(each.split(n) for each, n in zip(states, (counts[0], counts[1], counts[1]), strict=True)), strict=True
    )
    for q, k, v in pieces:
        offset = len(k) - len(q)
        seen = [
            [i + offset - j >= 0 and (left < 0 or i + offset - j <= left) for j in range(len(k))] for i in range(len(q))
        ]
        blind = torch.tensor([not any(row) for row in seen], dtype=torch.bool)
        mask = torch.tensor(seen, dtype=torch.bool).view(len(q), len(k))
        if blind.all():
            expected.append(torch.zeros_like(q))
            continue
        mask = mask | blind[:, None]
        found = F.scaled_dot_product_attention(
            *(each.transpose(0, 1)[None] for each in (q, k, v)), mask, enable_gqa=True
        )[0].transpose(0, 1)
        expected.append(found * ~blind[:, None, None])
    want = torch.cat(expected)
    torch.testing.assert_close(output, want)
    slope = torch.randn_like(output)
    if want.requires_grad:
        theirs = torch.autograd.grad(want, states, slope, allow_unused=True)
        for own, other in zip(torch.autograd.grad(output, states, slope, allow_unused=True), theirs, strict=True):
            if other is not None:
                torch.testing.assert_close(own, other)


SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=10), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.lists(SEQUENCES, min_size=1, max_size=3), share=st.booleans(), window=st.sampled_from([None, 0, 1, 3, 50]),
    key_heads=st.sampled_from([1, 2, 4]), scaling=st.sampled_from([None, 0.3])
)  # fmt: skip
@pytest.mark.slow
def test_a_launch_is_the_loop_and_each_sequence_alone(
    rows: Any, share: bool, window: int | None, key_heads: int, scaling: float | None
) -> None:
    torch.manual_seed(0)
    packed = [pack_sequences(sequences, share) for sequences in rows]
    width = max(len(row.ids) for row in packed) + 2
    trees = tuple(row.tree.padded(width - len(row.ids)) for row in packed)
    states = [
        torch.randn(len(rows), heads, width, 8, dtype=torch.float64, requires_grad=True)
        for heads in (4, key_heads, key_heads)
    ]
    options: dict[str, Any] = {"trees": trees, "sliding_window": window, "scaling": scaling}
    slope = torch.randn(len(rows), width, 4, 8, dtype=torch.float64)

    def run(kernel: str) -> list[Tensor]:
        output, _ = tree_attention(MODULE, *states, None, tree_index=index_trees(trees), tree_kernel=kernel, **options)
        return [output, *torch.autograd.grad(output, states, slope)]

    launch = run("plain")
    for kernel in ("loop", "lower_right"):
        for own, other in zip(launch, run(kernel), strict=True):
            torch.testing.assert_close(own, other)
    for number, (row, sequences) in enumerate(zip(packed, rows, strict=True)):
        for places, ids in zip(row.places, sequences, strict=True):
            query, key, value = (state[number : number + 1, :, places] for state in states)
            far = torch.arange(len(ids))[:, None] - torch.arange(len(ids))
            mask = (far >= 0) & (far < (window or len(ids)))
            alone = F.scaled_dot_product_attention(query, key, value, mask, scale=scaling, enable_gqa=True)
            torch.testing.assert_close(launch[0][number, places], alone[0].transpose(0, 1))


def wrong(name: str) -> Any:
    """The plain kernel with a mistake of a kernel's kind."""

    def kernel(query: Tensor, key: Tensor, value: Tensor, *rest: Any, window_size: Any, **options: Any) -> Tensor:
        dtype = query.dtype
        if name == "window":  # off by one
            window_size = (window_size[0] if window_size[0] < 0 else window_size[0] + 1, window_size[1])
        if name == "not causal":
            window_size = (window_size[0], -1)
        if name == "no gradient of the values":
            value = value.detach() + 0 * value
        if name == "infinite":
            query = query * float("inf")
        if name == "scale":  # seen only where a model has a scale of its own
            options["scale"] = None
            query, key, value = (states.float() for states in (query, key, value))
        if name == "raises":
            raise RuntimeError("CUDA error: no kernel image is available")
        return plain_varlen_attn(query, key, value, *rest, window_size=window_size, **options).to(dtype)

    return kernel


CONFIG: Any = type("Config", (), {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16})()


class Sums(TorchDispatchMode):
    """Note the dtype of sums over an index: on a GPU each of their additions is rounded to it."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: list[torch.dtype] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "index_add" in func.name():
            self.dtypes.append(args[0].dtype)
        return func(*args, **(kwargs or {}))


def test_shared_keys_add_up_their_gradients_in_float32() -> None:
    """A template's head before 200 prompts."""
    tree = pack_sequences([[1, 2, 3, 10 + n, 300 + n] for n in range(200)], share=True).tree
    states = [torch.randn(1, heads, sum(tree.sizes), 16) for heads in (4, 2, 2)]
    slope = 1 + torch.rand(1, sum(tree.sizes), 4, 16)

    def of_values(dtype: torch.dtype) -> Tensor:
        inputs = [state.bfloat16().to(dtype).requires_grad_() for state in states]
        index, options = index_trees([tree]), {"trees": (tree,), "tree_kernel": "plain"}
        output, _ = tree_attention(MODULE, *inputs, None, tree_index=index, **options)
        return torch.autograd.grad(output, inputs[2], slope.bfloat16().to(dtype))[0]

    with Sums() as sums:
        found = of_values(torch.bfloat16)
    assert sums.dtypes == [torch.float32]
    assert found.dtype == torch.bfloat16
    exact = of_values(torch.float64)
    assert (found.double() - exact).norm() / exact.norm() < 4e-3


def test_versions_of_pytorchs_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first ones have no `enable_gqa`, and take grouped heads without."""
    called: list[dict[str, Any]] = []

    def early(*args: Any, scale: float | None = None, window_size: tuple[int, int] = (-1, -1)) -> Tensor:
        called.append({"scale": scale, "window_size": window_size})
        return plain_varlen_attn(*args, scale=scale, window_size=window_size, enable_gqa=True)

    def first(*args: Any, is_causal: bool = False) -> Tensor:
        raise AssertionError

    index, states = index_trees([Tree((2, 1), (-1, 0))]), [torch.randn(1, heads, 3, 8) for heads in (4, 2, 2)]
    want = varlen.attend_segments(plain_varlen_attn, *states, index, window=2)
    for function in (early, varlen_attn, first):
        monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", function)
        varlen.candidates.cache_clear()
        assert ("varlen_attn" in varlen.candidates("cuda")) == (function is not first)
        if function is early:
            torch.testing.assert_close(varlen.attend_segments(varlen.torch_varlen_attn, *states, index, window=2), want)
    varlen.candidates.cache_clear()
    assert called == [{"scale": None, "window_size": (1, 0)}]


MISTAKES = ["window", "not causal", "no gradient of the values", "infinite", "raises"]


def test_a_kernel_is_checked_on_its_own(subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch) -> None:
    for mistake in ["none", *MISTAKES]:
        with subtests.test(mistake=mistake):
            monkeypatch.setitem(varlen.KERNELS, "other", wrong(mistake))
            monkeypatch.setattr(varlen, "takes", lambda *_: True)
            error = kernel_error("other", CONFIG, torch.bfloat16, torch.device("cpu"))
            assert error < KERNEL_ERROR / 2 if mistake == "none" else error > KERNEL_ERROR


def test_without_a_gpu_the_loop_is_used():
    assert varlen.candidates("cpu") == ("loop",)
    assert varlen.candidates("cuda") == ("varlen_attn", "lower_right", "loop")
    states = torch.zeros(1, 2, 4, 8, dtype=torch.bfloat16)
    assert not varlen.takes("varlen_attn", states, states, 0.0)
    assert varlen.takes("plain", states, states, 0.0)
    assert not varlen.takes("plain", states, states, 0.1)


def model(attention: str = "sdpa") -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=259, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, attn_implementation="sdpa",
    )  # fmt: skip
    made = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    made.config._attn_implementation_internal = attention
    return made


def trained(tokenizer: Any, folder: Any, policy: Any, **changed: Any) -> Any:
    args = bmc.BMCConfig(
        output_dir=str(folder), use_cpu=True, report_to="none", gradient_checkpointing=True, seed=3,
        token_weighting="bmc", precompute_ref_log_probs=False, logging_steps=1, learning_rate=1e-3,
        per_device_train_batch_size=4, save_strategy="no", **{"bf16": False, "max_steps": 3} | changed,
    )  # fmt: skip
    rows = [
        {"prompt": f"What is {n} and 2? ", "chosen": f"The sum is {n + 2}.", "rejected": f"The sum is {n + 3}, or {n}."}
        for n in range(12)
    ]
    trainer = bmc.BMCTrainer(policy, model(), args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.train()
    return trainer


def losses(trainer: Any) -> list[float]:
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


@pytest.mark.slow
def test_a_training_by_one_launch_is_that_of_the_loop(
    tokenizer: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(*args: Any, **options: Any) -> Tensor:
        calls.append("plain")
        return plain_varlen_attn(*args, **options)

    loop = trained(tokenizer, tmp_path / "loop", model())
    assert not calls
    monkeypatch.setitem(varlen.KERNELS, "plain", counted)
    monkeypatch.setattr("bmc.training.trainer.candidates", lambda device: ("plain", "loop"))
    launch = trained(tokenizer, tmp_path / "plain", model())
    assert launch._tree_kernels[0] == "plain"
    # policy and reference are checked once each; then two layers, of the policy twice since it checkpoints, 3 steps
    assert len(calls) == 2 * 2 + 3 * (2 * 2 + 2)
    assert losses(launch) == pytest.approx(losses(loop), rel=1e-5)  # Adam's first steps magnify rounding


@pytest.mark.parametrize(
    ("kernels", "mistake", "used"),
    [(("other", "loop"), "not causal", "loop"), (("other",), "not causal", None), (("other",), "raises", None)],
)
@pytest.mark.slow
def test_a_kernel_that_is_wrong_on_the_model_gives_way(
    kernels: Any, mistake: str, used: str | None, tokenizer: Any, tmp_path: Any, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setitem(varlen.KERNELS, "other", wrong(mistake))
    monkeypatch.setattr(varlen, "takes", lambda *_: True)
    monkeypatch.setattr("bmc.training.trainer.candidates", lambda device: kernels)
    trainer = trained(tokenizer, tmp_path, model())
    assert trainer.data_collator.prefix_sharing == (used is not None)
    if used:
        assert trainer._tree_kernels == (used,)
        assert caplog.messages.count("prefix_sharing: other gives other numbers here; using loop") == 1
    else:
        assert "two padded sequences" in caplog.text
    plain = trained(tokenizer, tmp_path / "padded", model(), prefix_sharing=False, packing=False)
    assert losses(trainer) == pytest.approx(losses(plain), rel=1e-4)


@pytest.mark.slow
def test_a_kernel_of_16_bits_is_tried_on_a_model_in_float32(
    tokenizer: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """A step runs it under autocast; on its own it makes no mistake."""
    monkeypatch.setitem(varlen.KERNELS, "other", wrong("scale"))
    monkeypatch.setattr(varlen, "takes", lambda name, query, *_: query.dtype in varlen.HALF)
    monkeypatch.setattr("bmc.training.trainer.candidates", lambda device: ("other", "loop"))
    assert kernel_error("other", CONFIG, torch.bfloat16, torch.device("cpu")) < KERNEL_ERROR
    assert trained(tokenizer, tmp_path, model(), bf16=True, max_steps=1)._tree_kernels == ("other", "loop")
    scaled = model()
    for layer in scaled.model.layers:
        layer.self_attn.scaling *= 4
    assert trained(tokenizer, tmp_path, scaled, bf16=True, max_steps=1)._tree_kernels == ("loop",)
    assert "prefix_sharing: other gives other numbers here; using loop" in caplog.messages


def test_flash_attention_shares_prefixes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tree attention takes its place while there are trees, and gives it back."""
    given = model("flash_attention_2")
    monkeypatch.setattr(
        type(given), "_check_and_adjust_attn_implementation", lambda self, name, *_, **__: name
    )  # which looks for flash-attn
    assert unsupported_reason(given) is None
    use_tree_attention(given)
    use_tree_attention(given)
    assert given.config._attn_implementation == TREE_ATTENTION
    assert attention_without_trees(given) == "flash_attention_2"
    use_tree_attention(given, False)
    assert given.config._attn_implementation == attention_without_trees(given) == "flash_attention_2"
