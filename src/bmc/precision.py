"""Numeric precision of training: what weights are loaded in, and who keeps float32 copies of them.

A bfloat16 number has 8 significant bits, so an update below 1/512 of a weight is rounded away. Weights that are trained
must therefore be float32, or have float32 copies that the optimizer updates ("master weights").
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from .errors import user_error
from .planning.hardware import Engine, read_launch

logger = logging.getLogger(__name__)

HALF = {"bf16": "bfloat16", "fp16": "float16"}  # what each kind of mixed precision computes in


def require_float32(**values: Any) -> None:
    """See that what a loss is made of has kept its digits.

    Σ log π is hundreds of nats, of which bfloat16 keeps 8 bits: rewards would move in steps of a nat.

    Raises:
        TypeError: One is of fewer than 32 bits, or whole numbers.
    """
    for name, value in values.items():
        if not value.is_floating_point() or value.dtype.itemsize < 4:
            dtype = str(value.dtype).removeprefix("torch.")
            raise TypeError(f"{name} must be float32 or more in the loss, got {dtype}")


def keeps_masters(engine: Engine, mixed_precision: str) -> bool:
    """Tell whether an engine trains float32 copies of 16-bit weights: DeepSpeed and FSDP do in mixed precision."""
    return engine in ("deepspeed", "fsdp") and mixed_precision in HALF


def mixed_precision(config: Any) -> str:
    """Find what a run computes in: `no`, `bf16` or `fp16`.

    A DeepSpeed config that names a precision itself is stronger than the recipe's keys.
    """
    kind = "bf16" if config.bf16 else "fp16" if config.fp16 else "no"
    if config.deepspeed_plugin is None:
        return kind
    settings = config.deepspeed_plugin.hf_ds_config
    named = [name for name in HALF if settings.is_true(f"{name}.enabled")]
    return named[0] if named else "no" if settings.is_false(f"{kind}.enabled") else kind


def training_dtype(model_args: Any, config: Any, engine: Engine) -> str:
    """Choose the dtype that a training recipe's models are loaded in; arguments and faults as of `weights_dtype`."""
    frozen = model_args.use_peft or model_args.load_in_4bit or model_args.load_in_8bit
    return weights_dtype(model_args.dtype, engine, mixed_precision(config), frozen)


def weights_dtype(dtype: str | None, engine: Engine, mixed_precision: str, frozen: bool) -> str:
    """Choose the dtype that policy and reference are loaded in.

    A `dtype` of None, where the key is absent or null, means float32. `frozen`: the model's own weights stay as they
    are (LoRA, QLoRA).

    Returns:
        `float32`, `bfloat16`, `float16`, or `auto` for the checkpoint's.

    Raises:
        UserErrors: 16-bit weights would be trained without float32 copies.
    """
    if engine == "deepspeed" and mixed_precision in HALF:
        return HALF[mixed_precision]  # DeepSpeed casts to it whatever it is given
    if dtype is None:
        return "float32"
    if frozen or keeps_masters(engine, mixed_precision):
        return dtype
    if dtype in HALF.values():
        computes = "bf16: true still computes in bfloat16" if dtype == "bfloat16" else "fp16: true computes in float16"
        raise user_error(
            "dtype",
            f"{dtype} weights without float32 copies hardly train, since small updates are rounded away; write dtype: "
            f"float32 ({computes}) or use_peft: true, or launch with recipes/accelerate_configs/zero3.yaml and "
            "bf16: true",
        )
    return "float32" if dtype == "auto" else dtype


def train_whole_in_float32(model: Any, config: Any) -> None:
    """Have a model that was given from Python, and is trained whole, be float32 where no engine keeps float32 copies.

    Changes the model in place, or where it is a name the config's `model_init_kwargs`.
    """
    import torch

    if keeps_masters(read_launch(None).engine, mixed_precision(config)):
        return
    if isinstance(model, str):
        given = config.model_init_kwargs or {}
        if given.get("dtype", "float32") in ("float32", torch.float32):  # float32 is TRL's default
            return
        config.model_init_kwargs = {**given, "dtype": "float32"}
    elif not train_in_float32(model):
        return
    logger.warning(
        "training in float32, with twice the memory, since 16-bit weights would lose small updates; load the model "
        "with dtype=torch.float32, or train it with DeepSpeed or FSDP and bf16=True"
    )


def train_in_float32(model: Any) -> int:
    """Make the weights that are trained float32, in place; return how many tensors were not.

    Frozen weights stay as they are.
    """
    import torch

    short = [w for w in model.parameters() if w.requires_grad and w.dtype in (torch.bfloat16, torch.float16)]
    for weight in short:
        weight.data = weight.data.float()
    return len(short)


def keep_differentiable(model: Any) -> None:
    """Keep bitsandbytes from packing 4-bit weights for a CPU, which it does when a model is first evaluated.

    Packed weights have no backward pass: adapters below them would be trained on a part of their gradient.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False


def keep_outputs(policy: Any) -> Any:
    """Change FSDP's mixed-precision policy so that it rounds neither results nor gradients.

    Accelerate has it cast what the model returns (log-probs, losses) to 16 bits and add up gradients there.
    """
    import torch

    changes = {"output_dtype": None, "buffer_dtype": torch.float32, "reduce_dtype": torch.float32}
    known = {field.name for field in dataclasses.fields(policy)}
    return dataclasses.replace(policy, **{key: value for key, value in changes.items() if key in known})
