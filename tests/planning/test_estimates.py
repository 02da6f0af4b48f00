"""Sizes, memory, operations and time, worked out by hand; and against transformers, PEFT and a measured peak."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bmc.config import Price
from bmc.planning import estimates
from bmc.planning.describe import duration
from bmc.planning.estimates import (
    KNOWN,
    Adapter,
    StepCount,
    StepShape,
    base_model,
    count_parameters,
    model_size,
    state_bytes,
)
from bmc.planning.hardware import Gpu, LaunchConfig

ROOT = Path(__file__).parents[2]
LLAMA2 = KNOWN["meta-llama/Llama-2-7b-hf"]
# of a layer: q 8 × 8, k and v 8 × 4, o 8 × 8, gate, up and down 8 × 20; two norms of 8
LINEAR, LAYER = 64 + 32 + 32 + 64 + 3 * 160, 688
PARAMETERS = 3 * LAYER + 2 * 800 + 8
N = PARAMETERS - 800  # all but the embedding
ZERO2, ZERO3 = LaunchConfig(4, 1, "deepspeed", 2), LaunchConfig(4, 1, "deepspeed", 3)


def configuration(kind: str = "LlamaConfig", **changes: Any) -> Any:
    import transformers

    values = {
        "vocab_size": 100, "hidden_size": 8, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }  # fmt: skip
    return getattr(transformers, kind)(**(changes if "n_embd" in changes else values | changes))


def states(
    model: Any, launch: LaunchConfig, weight_width: int, width: int, adapter: Any = None, optimizer: str = "adamw_torch"
) -> tuple[int, int]:
    return state_bytes(model, launch, StepShape(10, width, weight_width, adapter=adapter, optimizer=optimizer))


@pytest.fixture(scope="module")
def small() -> estimates.ModelSize:
    return count_parameters(configuration())


def test_the_table_of_known_models_is_what_their_configs_build(subtests: pytest.Subtests) -> None:
    for name, parameters in [  # as the repositories' safetensors say
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
        ("princeton-nlp/Llama-3-Base-8B-SFT", 8_030_261_248),
        ("alignment-handbook/zephyr-7b-sft-full", 7_241_732_096),
        ("Qwen/Qwen2.5-14B", 14_770_033_664),
        ("HuggingFaceTB/SmolLM2-135M", 134_515_008),
    ]:
        with subtests.test(name=name, parameters=parameters):
            known = KNOWN[name]
            assert known.parameters == parameters
            counted = estimates._count(known.config)
            assert replace(known, positions=0, config="") == replace(counted, positions=0, config="")


def test_any_architecture_is_counted(subtests: pytest.Subtests) -> None:
    for kind, changes, mlp, width in [
        ("LlamaConfig", {}, 20, 8),
        ("Qwen3Config", {"head_dim": 6, "tie_word_embeddings": True}, 20, 12),
        ("GemmaConfig", {"head_dim": 6}, 20, 12),
        ("GPT2Config", {"vocab_size": 100, "n_embd": 8, "n_layer": 3, "n_head": 2}, 32, 8),
        ("OPTConfig", {"ffn_dim": 20, "word_embed_proj_dim": 8}, 20, 8),
    ]:
        with subtests.test(kind=kind, changes=changes):
            import torch
            from transformers import AutoModelForCausalLM

            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(configuration(kind, **changes))
            found = count_parameters(configuration(kind, **changes))
            assert found.parameters == model.num_parameters()
            assert (found.layers, found.hidden, found.intermediate, found.attention_width) == (3, 8, mlp, width)
            tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
            assert found.matmul == model.num_parameters() - (0 if tied else 100 * 8)
            blocks = [weight for name, weight in model.named_parameters() if weight.dim() == 2 and ".0." in name]
            assert sum(a * b for _, a, b in found.matrices) == 3 * sum(weight.numel() for weight in blocks)


def test_a_token_goes_through_some_of_the_experts() -> None:
    """Of 4 experts of 3 × 8 × 20 weights a token takes 2."""
    found = count_parameters(configuration("MixtralConfig", num_local_experts=4, num_experts_per_tok=2))
    assert found.intermediate == 40
    assert found.idle == 3 * 2 * 3 * 160
    assert found.matmul == found.parameters - 800 - found.idle


def test_a_model_of_ours_is_followed_to_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_dir: Path
) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    assert base_model("outputs/llama2-7b/qa/sft") == "meta-llama/Llama-2-7b-hf"
    assert base_model("outputs/nobody/knows") == "outputs/nobody/knows"
    assert model_size("outputs/llama2-7b/qa/sft") == (LLAMA2, "the table of meta-llama/Llama-2-7b-hf's public config")
    assert model_size("outputs/nobody/knows") is model_size("nobody/knows") is None
    found, where = model_size(str(model_dir))
    assert (found.hidden, found.layers, where) == (32, 2, f"{model_dir}/config.json")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model_dir)}))
    assert model_size("adapter")[0] == found


def test_states_by_deepspeeds_estimator() -> None:
    """ZeRO-3: 18 bytes a parameter over the shards, and the largest layer in 4 bytes; ZeRO-2: 2 on each GPU."""
    largest, each = 32_000 * 4096, 6_738_415_616

    def bytes_(launch: LaunchConfig) -> tuple[int, int]:
        return estimates._deepspeed_bytes(LLAMA2.parameters, LLAMA2.embedding, launch)

    assert bytes_(ZERO3)[1] == 4 * largest + 18 * each // 4
    assert bytes_(LaunchConfig(16, 2, "deepspeed", 3))[1] == 4 * largest + 18 * each // 16
    assert bytes_(ZERO2)[1] == 2 * each + 18 * each // 4
    assert bytes_(replace(ZERO3, offload_optimizer=True)) == (int(each * 16 * 1.5), 4 * largest + 2 * each // 4)


def test_states_of_the_other_engines(small: estimates.ModelSize) -> None:
    assert (small.parameters, small.layer) == (PARAMETERS, LAYER + 8 // 3)
    assert states(small, LaunchConfig(), 4, 4) == (16 * PARAMETERS, 0)
    assert states(small, LaunchConfig(2, 1, "ddp"), 4, 2) == (20 * PARAMETERS, 0)
    fsdp = 16 * PARAMETERS // 4 + 2 * small.layer * 2
    assert states(small, LaunchConfig(4, 1, "fsdp"), 2, 2) == (fsdp, 0)
    # 8-bit Adam keeps 2 bytes a parameter where Adam keeps 8; bitsandbytes' 8 for the embedding's 800
    assert states(small, LaunchConfig(), 4, 2, optimizer="adamw_torch_8bit") == (10 * PARAMETERS, 0)
    assert states(small, LaunchConfig(), 4, 2, optimizer="adamw_bnb_8bit") == (10 * PARAMETERS + 6 * 800, 0)
    whole, eight_bits = (states(LLAMA2, ZERO3, 2, 2, optimizer=name)[0] for name in ("adamw_torch", "paged_adamw_8bit"))
    assert whole - eight_bits == 6 * (LLAMA2.parameters - 32_000 * 4096) // 4


def test_paged_states_may_leave_the_card(small: estimates.ModelSize) -> None:
    """Adam's 8 bytes a parameter, all of which may be in host memory; ZeRO has no paged states."""
    need, other = (
        estimates.training_memory(small, launch, StepShape(10, 2, 2, optimizer="paged_adamw_32bit"))
        for launch in (LaunchConfig(), ZERO3)
    )
    assert (need.paged, need.host, need.total - need.resident) == (8 * PARAMETERS,) * 3
    assert (other.paged, other.resident) == (0, other.total)


def test_activations_by_hand(small: estimates.ModelSize) -> None:
    """A token of a layer in float32: two norms of three numbers, attention's five, the MLP's four widths."""
    layer = 4 * (2 * 3 * 8 + 5 * 8 + 4 * 20)
    working, predictors = 4 * (3 * 20 + 2 * 8), 4 * 8

    def count(model: Any, tokens: int, width: int, checkpointing: bool, packed: bool = True) -> int:
        return estimates.activation_bytes(model, StepShape(tokens, width, width, checkpointing, packed))

    assert count(small, 10, 4, checkpointing=False) == 10 * (3 * layer + working + predictors)
    assert count(small, 10, 4, checkpointing=True) == 10 * (3 * 4 * 8 + layer + working + predictors)
    # in bfloat16 norms keep their input in float32, and the rest is half
    half = 2 * 8 * (4 + 2 + 2) + 2 * (5 * 8 + 4 * 20)
    assert count(small, 1, 2, checkpointing=False) == 3 * half + (working + predictors) // 2
    # without trees keys and values, 4 wide here, aren't repeated
    assert count(small, 1, 4, False, packed=False) == 3 * (layer - 4 * 2 * 4) + working + predictors


def test_activations_of_an_adapter_by_hand(small: estimates.ModelSize) -> None:
    """In bfloat16: two norms keep 4 bytes of 8; attention four numbers of 8, the MLP three of 20. q_proj and down_proj
    copy 8 and 20 inputs, with a byte each for dropout's mask, and 2 numbers. The copy of 20 in use is float32."""
    layer = 2 * 4 * 8 + 2 * (4 * 8 + 3 * 20)
    working = 2 * (3 * 20 + 2 * 8) + 4 * 20 + 2 * 8
    for dropout, bits, copies, unpacked in [
        (False, None, 2 * (8 + 20 + 4), 0),
        (True, 4, 3 * (8 + 20) + 8, 2 * 8 * 20),
    ]:
        adapter = Adapter(2, ["q_proj", "down_proj"], bits=bits, dropout=dropout)
        shape = StepShape(10, 2, 2, checkpointing=False, adapter=adapter)
        assert estimates.activation_bytes(small, shape) == 10 * (3 * (layer + copies) + working) + unpacked


def test_head_by_hand(small: estimates.ModelSize) -> None:
    gradient = 4 * 800

    def head(model: Any, tokens: int, on_gpu: bool, tiled: bool) -> int:
        return estimates.head_bytes(model, StepShape(tokens, 2, 2, on_gpu=on_gpu, tiled=tiled))

    assert head(small, 1000, on_gpu=False, tiled=True) == 2 * 4 * 128 * 100 + gradient
    assert head(small, 50, on_gpu=False, tiled=True) == 2 * 4 * 50 * 100 + gradient
    assert head(small, 1000, on_gpu=False, tiled=False) == 6 * 4 * 1000 * 100 + gradient
    assert head(LLAMA2, 8192, on_gpu=True, tiled=True) == 2 * 4 * 4096 * 32_000 + 4 * 32_000 * 4096
    # a frozen head has no gradient
    for saved, trained in [((), 0), (("lm_head",), gradient)]:
        shape = StepShape(50, 2, 2, on_gpu=False, adapter=Adapter(2, saved=saved))
        assert estimates.head_bytes(small, shape) == 2 * 4 * 50 * 100 + trained


def test_a_process_as_a_whole(small: estimates.ModelSize) -> None:
    """The reference is whole, sharded or absent; autocast keeps a copy of float32 weights; a CPU has no CUDA."""

    def plan(launch: LaunchConfig = LaunchConfig(), **changes: Any) -> estimates.Memory:  # noqa: B008 - frozen
        return estimates.training_memory(small, launch, replace(StepShape(10, 2, 2), **changes))

    assert plan().reference == 0
    assert plan(reference=True).reference == plan(ZERO2, reference=True).reference == 2 * PARAMETERS
    assert plan(ZERO3, reference=True).total - plan(ZERO3).total == 2 * PARAMETERS // 4
    assert plan(weight_width=4).states == (16 + 2) * PARAMETERS
    assert plan(width=4, weight_width=4).states == 16 * PARAMETERS
    assert (plan().overhead, plan(on_gpu=False).overhead) == (2 * 2**30, 0)


def test_lora_trains_what_peft_trains(subtests: pytest.Subtests) -> None:
    for kind, targets, saved in [
        ("LlamaConfig", None, ()),
        ("LlamaConfig", ["q_proj", "down_proj"], ()),
        ("LlamaConfig", "all-linear", ("lm_head",)),
        ("GPT2Config", None, ()),
    ]:
        with subtests.test(kind=kind, targets=targets):
            from peft import LoraConfig, get_peft_model
            from transformers import AutoModelForCausalLM

            config = configuration(kind)
            lora = LoraConfig(r=3, target_modules=targets, modules_to_save=[*saved] or None)
            model = get_peft_model(AutoModelForCausalLM.from_config(config), lora)
            assert Adapter(3, targets, saved).trained(count_parameters(config)) == model.num_parameters(
                only_trainable=True
            )


def test_lora_and_qlora_by_hand(small: estimates.ModelSize) -> None:
    trained = 3 * 2 * ((8 + 8) + (8 + 4))
    adapter, four_bits = Adapter(2), Adapter(2, bits=4)
    assert adapter.trained(small) == trained
    assert states(small, LaunchConfig(), 2, 2, adapter) == (2 * PARAMETERS + 16 * trained, 0)
    # ZeRO-3 shards the frozen part; the estimator's 18 bytes are for what is trained
    sharded = 2 * PARAMETERS // 4 + 4 * 800 + 18 * trained // 4
    assert states(small, ZERO3, 2, 2, adapter)[0] == sharded
    frozen = int(3 * LINEAR * (0.5 + 1 / 16)) + 2 * (PARAMETERS - 3 * LINEAR)
    assert states(small, LaunchConfig(), 2, 2, four_bits) == (frozen + 16 * trained, 0)
    rows = 8 + 4 + 4 + 8 + 20 + 20 + 8
    assert Adapter(2, bits=8).frozen_bytes(small, 2) == 3 * (LINEAR + 4 * rows) + 2 * (PARAMETERS - 3 * LINEAR)
    # nested: of 64 weights' scale a byte is left, and of 256 such a float32
    nested = int(3 * LINEAR * (0.5 + 1 / 64 + 4 / (64 * 256))) + 2 * (PARAMETERS - 3 * LINEAR)
    assert Adapter(2, bits=4, nested=True).frozen_bytes(small, 2) == nested


def llama2(size: str) -> estimates.ModelSize:
    hidden, intermediate, layers, heads = {"7b": (4096, 11008, 32, 32), "13b": (5120, 13824, 40, 40)}[size]
    config = configuration(
        vocab_size=32_000, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads,
    )  # fmt: skip
    return count_parameters(config)


def test_published_measurements_of_lora_and_qlora(subtests: pytest.Subtests) -> None:
    """LitGPT's tutorials/resource-tables.md: Llama 2 on one A100, LoRA of rank 8 on queries and values with dropout,
    bf16, sequences of 1,304 tokens, no checkpointing. GB that PyTorch reserves, to which 0.5 GB of CUDA's own is added.
    """
    for size, rows, bits, nested, measured in [
        ("7b", 1, None, False, 21.30), ("7b", 2, None, False, 29.07), ("7b", 1, 4, False, 14.14),
        ("7b", 1, 4, True, 13.84), ("13b", 1, None, False, 38.12), ("13b", 1, 4, False, 23.14),
        ("13b", 1, 4, True, 22.55)
    ]:  # fmt: skip
        with subtests.test(size=size):
            model = llama2(size)
            adapter = Adapter(8, ["q_proj", "v_proj"], bits=bits, nested=nested, dropout=True)
            assert adapter.trained(model) == {"7b": 4_194_304, "13b": 6_553_600}[size]  # as theirs
            shape = StepShape(1304 * rows, 2, 2, checkpointing=False, packed=False, tiled=False, adapter=adapter)
            need = estimates.training_memory(model, LaunchConfig(), shape)
            assert 0.85 * (measured + 0.5) <= need.total / 1e9 <= 1.1 * (measured + 0.5)


def test_published_sizes_of_quantised_weights() -> None:
    """LitGPT: nested scales save 0.30 GB of 7 B and 0.59 GB of 13 B while training. A model card of Qwen2.5-7B in nf4:
    get_memory_footprint says 5.44 GB, which counts no scales."""
    for size, saved in (("7b", 0.30), ("13b", 0.59)):
        plain, nested = (Adapter(8, bits=4, nested=nested).frozen_bytes(llama2(size), 2) for nested in (False, True))
        assert (plain - nested) / 1e9 == pytest.approx(saved, abs=0.01)
    qwen = count_parameters(
        configuration(
            "Qwen2Config", vocab_size=152_064, hidden_size=3584, intermediate_size=18_944, num_hidden_layers=28,
            num_attention_heads=28, num_key_value_heads=4, tie_word_embeddings=False,
        )
    )  # fmt: skip
    quantised = sum(a * b for _, a, b in qwen.matrices)
    footprint = Adapter(8, bits=4).frozen_bytes(qwen, 2) - quantised // 16
    assert footprint / 1e9 == pytest.approx(5.44, abs=0.01)


def test_lora_of_a_published_long_context() -> None:
    """LongLoRA (arXiv 2309.12307, Table 12): Llama 2 7B, LoRA, 8,192 tokens, checkpointing: 25.7 GB of an A100 with
    ZeRO-2 on eight. Theirs keep the logits of all 8,192 positions."""
    adapter = Adapter(8, ["q_proj", "k_proj", "v_proj", "o_proj"])
    shape = StepShape(8192, 2, 2, adapter=adapter, packed=False)
    need = estimates.training_memory(LLAMA2, LaunchConfig(8, 1, "deepspeed", 2), shape)
    assert 0.8 * 25.7 <= need.total / 1e9 <= 1.1 * 25.7


def test_what_is_exchanged(subtests: pytest.Subtests, small: estimates.ModelSize) -> None:
    """Of four processes each receives three quarters; LoRA of rank 2 trains 2 · 3 · (8 + 8 + 8 + 4) = 168 numbers."""
    share = 0.75 * PARAMETERS
    lora = Adapter(2, ["q_proj", "v_proj"])
    for launch, adapter, expected in [
        (ZERO3, None, (2 * share, 2 * share, 0)),
        (LaunchConfig(4, 1, "fsdp"), None, (2 * share, 0, 4 * share)),
        (ZERO2, None, (0, 2 * share, 2 * share)),
        (LaunchConfig(4, 1, "ddp"), None, (0, 0, 2 * 4 * share)),
        (LaunchConfig(), None, (0, 0, 0)),
        (ZERO3, lora, (2 * share, 2 * 0.75 * 168, 0)),
        (ZERO3, replace(lora, bits=4), (2 * 0.75 * 168, 2 * 0.75 * 168, 0)),  # quantised weights aren't sharded
    ]:
        with subtests.test(launch=launch, adapter=adapter):
            found = estimates.traffic(small, launch, StepShape(10, 2, 2, adapter=adapter))
            assert (found.gather, found.reduce, found.step) == expected


def test_micro_batches_of_a_step() -> None:
    """32 pairs of 180 tokens: 16 of two pairs; of 5,760 tokens a budget of 8,192 takes all, one of 1,000 about 910 at a
    time, one of 100 a pair at a time."""
    given = [(None, 2), (8192, 2), (1000, 2), (100, 2)]
    assert [estimates.count_micro_batches(32, 180, budget, each) for budget, each in given] == [16, 1, 7, 32]


def test_the_time_of_a_step(small: estimates.ModelSize) -> None:
    """What is exchanged beside the computation counts where it takes longer; a pass reads all weights at least once."""
    slow = Gpu(1, teraflops=1e-9, bandwidth=1e9, link=1e-6, network=1e-6)  # 1,000 FLOP/s, 1,000 bytes/s of link
    shape, rate = StepShape(10, 2, 2), 1000 * estimates.LINK_EFFICIENCY
    took = estimates.step_time(small, ZERO3, shape, slow, tokens=10, micro_batches=2)
    assert took.compute == pytest.approx(8 * N * 10 / 400)
    assert took.exchange == pytest.approx(2 * 3 * 2 * 0.75 * PARAMETERS / rate)
    assert (took.after, took.total) == (0, took.compute)
    ddp = estimates.step_time(small, LaunchConfig(4, 1, "ddp"), shape, slow, tokens=10, micro_batches=2)
    assert ddp.total == pytest.approx(took.compute + 2 * 4 * 0.75 * PARAMETERS / rate)
    # a reference in the step costs another gather and 2ND, its own pass one gather and nothing else
    with_reference = estimates.step_time(small, ZERO3, shape, slow, 10, 2, seen=5)
    assert with_reference.compute == pytest.approx((8 * 10 + 2 * 5) * N / 400)
    assert with_reference.exchange == pytest.approx(took.exchange * 4 / 3)
    alone = estimates.step_time(small, ZERO3, shape, slow, 0, 2, seen=5, trains=False)
    assert (alone.compute, alone.exchange) == (pytest.approx(2 * 5 * N / 400), pytest.approx(took.exchange / 3))
    # where reading weights takes longer: three passes of 2 bytes; of 4 bits it is 0.5 + 2 + 2, besides the products
    narrow = replace(slow, teraflops=1e6, bandwidth=1e-6)
    assert estimates.step_time(small, LaunchConfig(), shape, narrow, 10, 2).compute == pytest.approx(
        2 * 3 * 2 * N / 1000
    )
    four_bits = replace(shape, adapter=Adapter(2, bits=4))
    both = estimates.step_time(small, LaunchConfig(), four_bits, replace(narrow, teraflops=1e-9), 10, 2).compute
    assert both == pytest.approx(2 * 3 * 4.5 * N / 1000 + 6 * N * 10 / 400)


def test_steps_and_operations(small: estimates.ModelSize) -> None:
    """10,638 pairs at 128: 83 whole batches and one of 14."""
    assert estimates.count_steps(10_638, 128, 1.0, -1) == StepCount(84, 10_638)
    assert estimates.count_steps(10_638, 128, 2.0, -1) == StepCount(168, 21_276)
    assert estimates.count_steps(10_638, 128, 1.0, 5) == StepCount(5, 640)
    assert estimates.training_flops(small, 10, checkpointing=False) == 6 * N * 10
    assert estimates.training_flops(small, 10, checkpointing=True) == 8 * N * 10
    assert estimates.training_flops(small, 10, checkpointing=True, reference=7) == (80 + 14) * N
    assert estimates.training_flops(small, 10, checkpointing=False, frozen=True) == 4 * N * 10


def test_generation(small: estimates.ModelSize) -> None:
    need = estimates.generation_memory(small, sequences=5, tokens=30, width=2)
    assert (need.states, need.activations) == (2 * PARAMETERS, 2 * 3 * 4 * 2 * 5 * 30)
    slow_memory = Gpu(1, teraflops=1e6, bandwidth=1e-6, link=1, network=1)  # 1,000 bytes a second
    passes = 3 * 5  # of 10 rows in batches of 4, 5 tokens each
    expected = passes * 2 * PARAMETERS / 1000 / estimates.EFFICIENCY
    assert estimates.generation_seconds(small, 10, 0, 5, 4, slow_memory) == pytest.approx(expected)
    slow_products = Gpu(1, teraflops=1e-9, bandwidth=1e6, link=1, network=1)  # 1,000 FLOP/s
    expected = (2 * N * 10 * 7 + passes * 2 * N * 4) / 1000 / estimates.EFFICIENCY
    assert estimates.generation_seconds(small, 10, 7, 5, 4, slow_products) == pytest.approx(expected)


def test_dollars_disk_and_durations() -> None:
    """100 requests of 600 + 100 + 2 × 50 tokens at $0.01 a thousand, and responses of 50 at $0.03."""
    price = Price(input=10, output=30)
    assert estimates.bridging_dollars(price, 100, 100, 50, "closed") == pytest.approx(0.8 + 0.15)
    assert estimates.checkpoint_bytes(100, 200, only_model=False, copies=True, moments=8) == 200 + 1200
    assert estimates.checkpoint_bytes(100, 400, only_model=False, copies=False, moments=8) == 400 + 800
    assert estimates.checkpoint_bytes(100, 200, only_model=True, copies=True, moments=8) == 200
    assert [duration(seconds) for seconds in (50, 720, 12_240)] == ["50 s", "12 min", "3.4 h"]


def test_optimizer_states(subtests: pytest.Subtests) -> None:
    for optim, bytes_ in [
        ("adamw_torch_fused", 8), ("adamw_bnb_8bit", 2), ("paged_adamw_8bit", 2), ("lion_32bit", 4), ("lion_8bit", 1),
        ("paged_adamw_32bit", 8), ("ademamix_8bit", 3), ("rmsprop_bnb", 4), ("adamw_torch_4bit", 1), ("adalomo", 0),
        ("adafactor", 0), ("sgd", 0)
    ]:  # fmt: skip
        with subtests.test(optim=optim, bytes_=bytes_):
            from transformers.training_args import OptimizerNames

            assert estimates.moment_bytes(optim) == estimates.moment_bytes(OptimizerNames(optim)) == bytes_


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads peaks from Linux's /proc")
def test_the_plan_is_near_the_measured_peak() -> None:
    """LoRA of 30 M parameters, a fifth more; benchmarks/README.md has the other cases, which take minutes."""
    argv = ["--only", "30m", "--checkpointing", "off", "--lora"]
    command = [sys.executable, str(ROOT / "benchmarks/memory_plan.py"), *argv]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    ((planned, measured),) = json.loads(done.stdout)
    assert 0.8 * measured <= planned <= 1.25 * measured
