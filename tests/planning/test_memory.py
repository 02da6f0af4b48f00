"""Memory, worked out by hand; and against a measured peak."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bmc.planning import memory
from bmc.planning.architecture import KNOWN, Architecture
from bmc.planning.hardware import Launch
from bmc.planning.memory import Adapter

ROOT = Path(__file__).parents[2]
SMALL = Architecture(hidden=8, intermediate=20, layers=3, heads=2, key_value_heads=1, vocabulary=100)
LLAMA2 = KNOWN["meta-llama/Llama-2-7b-hf"]
# of a layer: q 8 × 8, k and v 8 × 4, o 8 × 8, gate, up and down 8 × 20; two norms of 8
LINEAR, LAYER = 64 + 32 + 32 + 64 + 3 * 160, 688
PARAMETERS = 3 * LAYER + 2 * 800 + 8


def test_states_by_deepspeeds_estimator() -> None:
    """ZeRO-3: 18 bytes a parameter over the shards, and the largest layer in 4 bytes; ZeRO-2: 2 on each card."""
    largest = 32_000 * 4096
    _, zero3 = memory._deepspeed(LLAMA2.parameters, LLAMA2.embedding, Launch(4, 1, "deepspeed", 3))
    assert zero3 == 4 * largest + 18 * 6_738_415_616 // 4
    _, two_machines = memory._deepspeed(LLAMA2.parameters, LLAMA2.embedding, Launch(16, 2, "deepspeed", 3))
    assert two_machines == 4 * largest + 18 * 6_738_415_616 // 16
    _, zero2 = memory._deepspeed(LLAMA2.parameters, LLAMA2.embedding, Launch(4, 1, "deepspeed", 2))
    assert zero2 == 2 * 6_738_415_616 + 18 * 6_738_415_616 // 4
    host, offloaded = memory._deepspeed(LLAMA2.parameters, LLAMA2.embedding, Launch(4, 1, "deepspeed", 3, True))
    assert offloaded == 4 * largest + 2 * 6_738_415_616 // 4
    assert host == int(6_738_415_616 * 16 * 1.5)


def test_states_of_the_other_engines() -> None:
    assert SMALL.parameters == PARAMETERS
    assert memory.states(SMALL, Launch(), 4, 4) == (16 * PARAMETERS, 0)
    assert memory.states(SMALL, Launch(2, 1, "ddp"), 4, 2) == (20 * PARAMETERS, 0)
    assert memory.states(SMALL, Launch(4, 1, "fsdp"), 2, 2) == (16 * PARAMETERS // 4 + 2 * LAYER * 2, 0)


def test_8_bit_adam_keeps_2_bytes_a_parameter_where_adam_keeps_8() -> None:
    assert memory.states(SMALL, Launch(), 4, 2, moments=2) == (10 * PARAMETERS, 0)
    zero3 = Launch(4, 1, "deepspeed", 3)
    whole, eight_bits = (memory.states(LLAMA2, zero3, 2, 2, moments=moments)[0] for moments in (8, 2))
    assert whole - eight_bits == 6 * LLAMA2.parameters // 4


def test_activations_by_hand() -> None:
    """A token of a layer in float32: two norms of three numbers, attention's five, the MLP's four widths."""
    layer = 4 * (2 * 3 * 8 + 5 * 8 + 4 * 20)
    working, predictors = 4 * (3 * 20 + 2 * 8), 4 * 8
    assert memory.activations(SMALL, 10, 4, checkpointing=False) == 10 * (3 * layer + working + predictors)
    assert memory.activations(SMALL, 10, 4, checkpointing=True) == 10 * (3 * 4 * 8 + layer + working + predictors)
    # in bfloat16 norms keep their input in float32, and the rest is half
    half = 2 * 8 * (4 + 2 + 2) + 2 * (5 * 8 + 4 * 20)
    assert memory.activations(SMALL, 1, 2, checkpointing=False) == 3 * half + (working + predictors) // 2
    # without trees keys and values, 4 wide here, aren't repeated
    assert memory.activations(SMALL, 1, 4, False, packed=False) == 3 * (layer - 4 * 2 * 4) + working + predictors


def test_head_by_hand() -> None:
    gradient = 4 * 800
    assert memory.head(SMALL, 1000, on_gpu=False, lean=True) == 2 * 4 * 128 * 100 + gradient
    assert memory.head(SMALL, 50, on_gpu=False, lean=True) == 2 * 4 * 50 * 100 + gradient
    assert memory.head(SMALL, 1000, on_gpu=False, lean=False) == 6 * 4 * 1000 * 100 + gradient
    assert memory.head(LLAMA2, 8192, on_gpu=True, lean=True) == 2 * 4 * 4096 * 32_000 + 4 * 32_000 * 4096


def plan(launch: Launch = Launch(), **changes: object) -> memory.Memory:  # noqa: B008 - frozen
    settings: dict[str, object] = {
        "tokens": 10, "width": 2, "weight_width": 2, "checkpointing": True, "packed": True, "reference": False,
        "on_gpu": True,
    }  # fmt: skip
    return memory.training(SMALL, launch, **(settings | changes))  # type: ignore[arg-type]


def test_the_reference_is_whole_or_sharded_or_not_there() -> None:
    zero3 = Launch(4, 1, "deepspeed", 3)
    assert plan().reference == 0
    assert plan(reference=True).reference == 2 * PARAMETERS
    assert plan(Launch(4, 1, "deepspeed", 2), reference=True).reference == 2 * PARAMETERS
    assert plan(zero3, reference=True).reference == 2 * PARAMETERS // 4
    assert plan(zero3, reference=True).total - plan(zero3).total == 2 * PARAMETERS // 4


def test_autocast_keeps_a_copy_of_float32_weights() -> None:
    assert plan(weight_width=4).states == (16 + 2) * PARAMETERS
    assert plan(width=4, weight_width=4).states == 16 * PARAMETERS


def test_a_process_on_a_cpu_has_no_overhead_of_a_gpu() -> None:
    assert plan().overhead == 2 * 2**30
    assert plan(on_gpu=False).overhead == 0


def test_lora_trains_what_peft_trains() -> None:
    """By default q_proj and v_proj; r · (inputs + outputs) each; the rest is frozen."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=100, hidden_size=8, intermediate_size=20, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    for targets, saved in ((None, ()), (["q_proj", "down_proj"], ()), ("all-linear", ("lm_head",))):
        model = get_peft_model(
            LlamaForCausalLM(config), LoraConfig(r=3, target_modules=targets, modules_to_save=list(saved) or None)
        )
        assert Adapter(3, targets, saved).trained(SMALL) == model.num_parameters(only_trainable=True)


def test_lora_and_qlora_by_hand() -> None:
    trained = 3 * 2 * ((8 + 8) + (8 + 4))
    adapter = Adapter(2)
    assert adapter.trained(SMALL) == trained
    assert memory.states(SMALL, Launch(), 2, 2, adapter) == (2 * PARAMETERS + 16 * trained, 0)
    # ZeRO-3 shards the frozen part; the estimator's 18 bytes are for what is trained
    assert memory.states(SMALL, Launch(4, 1, "deepspeed", 3), 2, 2, adapter)[0] == (
        2 * PARAMETERS // 4 + 4 * 800 + 18 * trained // 4
    )
    four_bits = Adapter(2, bits=4)
    frozen = int(3 * LINEAR * (0.5 + 1 / 16)) + 2 * (PARAMETERS - 3 * LINEAR)
    assert memory.states(SMALL, Launch(), 2, 2, four_bits) == (frozen + 16 * trained, 0)
    assert Adapter(2, bits=8).frozen_bytes(SMALL, 2) == 3 * LINEAR + 2 * (PARAMETERS - 3 * LINEAR)


def test_generation_keeps_keys_and_values() -> None:
    need = memory.generating(SMALL, sequences=5, tokens=30, width=2, on_gpu=False)
    assert need.states == 2 * PARAMETERS
    assert need.activations == 2 * 3 * 4 * 2 * 5 * 30


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads peaks from Linux's /proc")
@pytest.mark.parametrize(("size", "mode"), [("30m", "off"), ("135m", "on")])
def test_the_plan_is_within_a_fifth_of_the_measured_peak(size: str, mode: str) -> None:
    command = [
        sys.executable,
        str(ROOT / "benchmarks/memory_plan.py"),
        "--only",
        size,
        "--checkpointing",
        mode,
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    ((planned, measured),) = json.loads(done.stdout)
    assert planned == pytest.approx(measured, rel=0.2)
