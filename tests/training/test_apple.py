"""Apple's GPU (MPS), as far as a machine without one can tell: what is refused, and where models go."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_pairs import parsed, write_recipe

from bmc.config import EvaluateConfig
from bmc.errors import UserErrors
from bmc.preflight import attention_faults, machine_faults
from bmc.training.config import trainer_value_faults


@pytest.fixture(params=[14, 13])
def macos(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.backends.mps, "is_macos_or_newer", lambda major, minor: (request.param, 9) >= (major, minor)
    )
    return request.param


def faults(**changes: Any) -> dict[str, str]:
    """What is wrong with a recipe on this machine, by key."""
    model = {"attn_implementation": None, "load_in_4bit": False, "load_in_8bit": False}
    config = {
        "use_cpu": False, "optim": "adamw_torch", "deepspeed": None, "fsdp": [], "world_size": 1, "report_to": [],
        "use_liger_kernel": False, "fp16": False, "activation_offloading": False, "push_to_hub": False,
    }  # fmt: skip
    given = [
        SimpleNamespace(**{key: changes.get(key, value) for key, value in kind.items()}) for kind in (model, config)
    ]
    return dict(str(fault).split(": ", 1) for fault in machine_faults(*given))


def test_what_has_no_code_there_is_refused(macos: int, subtests: pytest.Subtests) -> None:
    assert faults() == {}
    for key, value, what in [
        ("attn_implementation", "flash_attention_2", "there is no flash_attention_2 on Apple's GPU; write attn_implem"),
        ("attn_implementation", "flex_attention", "there is no flex_attention on Apple's GPU"),
        ("load_in_4bit", True, "bitsandbytes doesn't run on Apple's GPU; leave it out"),
        ("load_in_8bit", True, "bitsandbytes doesn't run on Apple's GPU"),
        ("optim", "paged_adamw_32bit", "there is no paged_adamw_32bit on Apple's GPU; write optim: adamw_torch"),
        ("optim", "adamw_bnb_8bit", "there is no adamw_bnb_8bit"),
        ("deepspeed", {"zero_optimization": {}}, "DeepSpeed doesn't run on Apple's GPU"),
        ("fsdp", ["full_shard"], "FSDP doesn't run on Apple's GPU"),
        ("use_liger_kernel", True, "there is no Triton on Apple's GPU"),
        ("fp16", True, "isn't supported on Apple's GPU"),
    ]:
        with subtests.test(key=key, value=value):
            found = faults(**{key: value})
            assert list(found) == [key]
            assert found[key].startswith(what)
    assert list(faults(world_size=2)) == ["accelerate launch"]


def test_bfloat16_needs_macos_14(macos: int) -> None:
    found = dict(trainer_value_faults({"bf16": True}))
    assert ("bf16" in found) == (macos == 13)
    assert (
        dict(trainer_value_faults({"bf16": False})) == dict(trainer_value_faults({"bf16": True, "use_cpu": True})) == {}
    )
    config = EvaluateConfig(output_dir="o", model_name_or_path="nobody/knows", dtype="bfloat16")
    assert any("dtype" in str(fault) for fault in attention_faults(config)) == (macos == 13)
    flash = EvaluateConfig(output_dir="o", model_name_or_path="nobody/knows", attn_implementation="flash_attention_2")
    assert [str(fault) for fault in attention_faults(flash)] == [
        "attn_implementation: there is no flash_attention_2 on Apple's GPU; write attn_implementation: sdpa"
    ]


def test_a_recipe_says_so_in_one_line(macos: int, tmp_path: Path, model_dir: Path) -> None:
    """As it is parsed: transformers' own check speaks of use_cpu alone."""
    if macos == 13:
        with pytest.raises(UserErrors, match=r"bf16: Apple's GPU has bfloat16 from macOS 14 on; write bf16: false"):
            parsed(write_recipe(tmp_path, model_dir, use_cpu=False, bf16=True))
