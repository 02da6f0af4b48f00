"""Liger's layers and TRL's Triton head with ours: which of Liger's patches are applied, and, where Triton and Liger are
installed, the kernels themselves in Triton's interpreter:

    TRITON_INTERPRET=1 python -m pytest tests/training/test_triton.py
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import MethodType, ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_pairs import logged, make

from bmc.preflight import machine_faults, recipe_faults
from bmc.training.config import BMCConfig, ModelArguments

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and all(
    map(importlib.util.find_spec, ("triton", "liger_kernel"))
)
installed = pytest.mark.skipif(not INTERPRETED, reason="needs triton, liger-kernel and TRITON_INTERPRET=1")
if INTERPRETED:
    import triton
    import triton.language as tl

    @triton.jit
    def rsqrt(x):  # type: ignore[no-untyped-def]
        return tl.rsqrt(x)


SHARED = {"token_weighting": "bmc", "max_steps": 3, "learning_rate": 1e-2}


def twice_the_norm(self: Any, states: torch.Tensor) -> torch.Tensor:
    scale = (states.pow(2).mean(-1, keepdim=True) + self.variance_epsilon).rsqrt()
    return 2 * self.weight * states * scale


@pytest.fixture
def liger(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """A Liger that doubles the last norm and nothing else; what it was asked to patch, and how."""
    calls: list[tuple[Any, dict[str, Any]]] = []

    def apply(model: Any, **options: Any) -> None:
        calls.append((model, options))
        model.model.norm.forward = MethodType(twice_the_norm, model.model.norm)

    def of_llama(rope: bool = True, rms_norm: bool = True, swiglu: bool = True, model: Any = None) -> None:
        """As Liger's functions, which each list what they can patch."""

    package = ModuleType("liger_kernel.transformers")
    package._apply_liger_kernel_to_instance = apply  # type: ignore[attr-defined]
    patches = ModuleType("liger_kernel.transformers.monkey_patch")
    patches.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": of_llama}  # type: ignore[attr-defined]
    root = ModuleType("liger_kernel")
    root.__spec__ = SimpleNamespace(origin="here")  # type: ignore[assignment]
    for module in (root, package, patches):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("transformers.integrations.liger.is_liger_kernel_available", lambda: True)
    return calls


@pytest.mark.parametrize("precomputed", [True, False])
def test_policy_and_reference_get_liger_before_either_runs_and_keep_their_head(
    precomputed: bool, liger: list[Any], model_dir: Path, tmp_path: Path
) -> None:
    options = {"precompute_ref_log_probs": precomputed, "reference_cache": str(tmp_path / "cache")}
    trainer = make(model_dir, tmp_path, use_liger_kernel=True, **options, **SHARED)
    patched = [model for model, _ in liger]
    assert patched == [trainer.model] if precomputed else patched == [trainer.model, trainer.ref_model]
    forward = trainer.model.forward
    trainer.train()
    assert logged(trainer)[0] == pytest.approx(0.6931472, abs=1e-6)  # of a doubled policy and a doubled reference
    assert logged(trainer)[-1] < 0.68
    assert trainer.model.forward == forward
    assert all(options["fused_linear_cross_entropy"] is False for _, options in liger)


def test_liger_is_refused_where_it_would_do_nothing_or_take_the_heads_place(
    liger: list[Any], model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"^liger_kernel_config: fused_linear_cross_entropy takes the place of the "):
        BMCConfig(output_dir="o", use_cpu=True, liger_kernel_config={"fused_linear_cross_entropy": True})
    model = ModelArguments(model_name_or_path=str(model_dir))
    config = BMCConfig(
        output_dir=str(tmp_path), use_cpu=True, report_to="none", use_liger_kernel=True,
        liger_kernel_config={"swiglu": False, "rmsnorm": True},
    )  # fmt: skip
    said = "liger_kernel_config: 'rmsnorm' is unknown (did you mean 'rms_norm'?); choose from rope, rms_norm, swiglu"
    assert [str(fault) for fault in recipe_faults(model, config)] == [said]
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert "use_liger_kernel: its kernels need a GPU, and there is none; leave it out" in map(
        str, machine_faults(model, config)
    )
    sys.modules["liger_kernel.transformers.monkey_patch"].MODEL_TYPE_TO_APPLY_LIGER_FN = {}  # type: ignore[attr-defined]
    assert [str(fault) for fault in recipe_faults(model, config)] == [
        "use_liger_kernel: Liger has no kernels for llama models; leave it out"
    ]


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter knows neither the methods of a float that is handed to a kernel nor CUDA's rsqrt."""
    import numpy as np
    from liger_kernel.ops import rms_norm
    from transformers.models.llama import modeling_llama
    from triton.runtime import interpreter as runtime

    convert = runtime._implicit_cvt

    def with_floats(value: Any) -> Any:
        if not isinstance(value, float):
            return convert(value)
        return tl.tensor(runtime.TensorHandle(np.array([value], dtype=np.float32), tl.float32), tl.float32)

    monkeypatch.setattr(runtime, "_implicit_cvt", with_floats)
    monkeypatch.setattr(rms_norm, "rsqrt", rsqrt)
    for name in ("apply_rotary_pos_emb", "LlamaRMSNorm", "LlamaMLP"):  # which Liger replaces for good
        monkeypatch.setattr(modeling_llama, name, getattr(modeling_llama, name))


@installed
def test_a_training_with_ligers_kernels_is_one_without(interpreter: None, model_dir: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}+2?", "chosen": f"{n + 2}.", "rejected": f"{n + 2}!?"} for n in range(2)]  # it is slow
    shared = SHARED | {"rows": rows, "max_steps": 2, "per_device_train_batch_size": 2}
    plain, liger = (make(model_dir, tmp_path / str(on), use_liger_kernel=on, **shared) for on in (False, True))
    plain.train()
    liger.train()
    layer = liger.model.model.layers[0]
    patched = [module.forward.__func__.__qualname__ for module in (layer.mlp, layer.input_layernorm)]
    assert patched == ["LigerSwiGLUMLP.forward", "LigerRMSNorm.forward"]
    assert liger.data_collator.prefix_sharing
    assert liger.data_collator.packing
    for key in ("loss", "grad_norm", "rewards/margins", "diff/weight"):
        assert logged(liger, key) == pytest.approx(logged(plain, key), rel=1e-4, abs=1e-5)


@installed
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("vocabulary", "softcap", "scale"), [(97, None, 1.0), (2100, None, 1.0), (1500, 5.0, 0.5)])
def test_trls_triton_head_is_ours(
    dtype: torch.dtype, vocabulary: int, softcap: Any, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl.kernels import chunked_logprob

    from bmc.training.lm_head import TiledLogProbs

    monkeypatch.setattr(chunked_logprob, "_use_triton", lambda device: True)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(40, 64, generator=generator).to(dtype) / 4
    weight = torch.randn(vocabulary, 64, generator=generator).to(dtype)
    targets = torch.randint(vocabulary, (40,), generator=generator)
    found = []
    for function in (chunked_logprob.ChunkedLogProbFunction, TiledLogProbs):
        states, matrix = (value.detach().requires_grad_() for value in (hidden, weight))
        options = (1.0, 1024, softcap, scale, ("entropy", "mean_logits", "is_top1"))
        logps, entropy, _, means, top = function.apply(states, matrix, None, targets, *options)
        found.append([logps, entropy, means, top.float(), *torch.autograd.grad(logps.sum(), (states, matrix))])
    for number, (theirs, ours) in enumerate(zip(*found, strict=True)):
        rounded = dtype == torch.bfloat16 and number >= 4  # the gradients
        torch.testing.assert_close(theirs, ours, rtol=2e-2 if rounded else 1e-5, atol=2e-2 if rounded else 1e-5)
