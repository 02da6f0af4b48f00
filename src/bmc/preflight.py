"""Checks before a training, by the libraries' own constructors: faults that it would meet after claiming its folder.

The model is built on the meta device, without weights. What depends on this machine (packages, a GPU) is kept apart
from what is wrong everywhere, since a dry run may plan for another machine.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .adapters import adapter_faults
from .errors import UserError, did_you_mean
from .models import empty_model, has_apple_gpu, lacks_bfloat16, read_config

LOADING = (
    "attn_implementation", "dtype", "torch_dtype", "device_map", "max_memory", "offload_folder", "offload_buffers",
    "quantization_config", "subfolder", "variant", "trust_remote_code", "use_kernels", "tp_plan", "tp_size",
    "key_mapping", "gguf_file", "proxies", "low_cpu_mem_usage", "experts_implementation", "device_mesh",
    "distributed_config", "commit_hash", "adapter_kwargs", "adapter_name", "output_loading_info", "state_dict",
)  # fmt: skip
CHECKPOINTING = {"use_reentrant", "context_fn", "determinism_check", "debug", "preserve_rng_state", "early_stop"}


def recipe_faults(model_args: Any, config: Any) -> Iterator[UserError]:
    """Find what is wrong with a recipe on any machine."""
    yield from writable(config.output_dir)
    yield from _scheduler(config)
    yield from adapter_faults(model_args, config.trust_remote_code)
    try:
        model = _empty_model(model_args, config.trust_remote_code)
    except (ValueError, ImportError) as error:
        yield attention_fault(error, model_args.attn_implementation)
        return
    for name in sorted(set(config.gradient_checkpointing_kwargs or {}) - CHECKPOINTING):
        what = f"'{name}' is unknown{did_you_mean(name, [*CHECKPOINTING])}; torch's checkpoint has use_reentrant, …"
        yield UserError("gradient_checkpointing_kwargs", what)
    accelerator = config.accelerator_config
    if accelerator.dispatch_batches:
        yield UserError(
            "accelerator_config", "dispatch_batches: a batch of pairs can't be dealt out by rows; leave it out"
        )
    if config.torch_compile_backend:
        yield from _compiler(config.torch_compile_backend)
    if model is not None:
        yield from _adapter(model_args, model)
        yield from _loading(config.model_init_kwargs or {}, model)
        yield from _liger(config, model)
        if config.router_aux_loss_coef and not hasattr(model.config.get_text_config(), "output_router_logits"):
            yield UserError("router_aux_loss_coef", f"{type(model).__name__} isn't a mixture of experts; leave it out")


def machine_faults(model_args: Any, config: Any) -> Iterator[UserError]:
    """Find what a recipe needs that this machine lacks: packages, a GPU, a token."""
    if has_apple_gpu() and not config.use_cpu:
        yield from _apple(model_args, config)
        return
    yield from _attention(model_args.attn_implementation)
    yield from _quantisation(model_args)
    yield from _optimizer(config)
    yield from _reporting(config.report_to)
    if config.use_liger_kernel and not importlib.util.find_spec("liger_kernel"):
        yield UserError("use_liger_kernel", "liger-kernel isn't installed; pip install liger-kernel, or leave it out")
    elif config.use_liger_kernel and not torch.accelerator.is_available():
        yield UserError("use_liger_kernel", "its kernels need a GPU, and there is none; leave it out")
    if config.activation_offloading and not torch.accelerator.is_available():
        yield UserError("activation_offloading", "needs a GPU, and there is none; leave it out")
    if config.push_to_hub and not config.hub_token:
        from huggingface_hub import get_token

        if get_token() is None or os.environ.get("HF_HUB_OFFLINE") == "1":
            what = "the Hub can't be written to from here; `hf auth login`, or write push_to_hub: false"
            yield UserError("push_to_hub", what)


def _apple(model_args: Any, config: Any) -> Iterator[UserError]:
    """Find what a training asks for that there is no code for on Apple's GPU (MPS)."""
    where, optim = "on Apple's GPU", str(getattr(config.optim, "value", config.optim))
    attention = model_args.attn_implementation or "sdpa"
    if attention not in ("sdpa", "eager"):
        yield UserError("attn_implementation", f"there is no {attention} {where}; write attn_implementation: sdpa")
    for key in ("load_in_4bit", "load_in_8bit"):
        if getattr(model_args, key):
            yield UserError(key, f"bitsandbytes doesn't run {where}; leave it out: LoRA with dtype: bfloat16")
    if any(word in optim for word in ("bnb", "8bit", "paged", "4bit", "fused", "lion", "ademamix")):
        yield UserError("optim", f"there is no {optim} {where}; write optim: adamw_torch")
    for key, name in (("deepspeed", "DeepSpeed"), ("fsdp", "FSDP")):
        if getattr(config, key) or os.environ.get(f"ACCELERATE_USE_{name.upper()}") == "true":
            yield UserError(key, f"{name} doesn't run {where}; start one process: python scripts/… RECIPE.yaml")
    if config.world_size > 1:
        yield UserError("accelerate launch", f"there is one process {where}; start python scripts/… RECIPE.yaml")
    if config.use_liger_kernel:
        yield UserError("use_liger_kernel", f"there is no Triton {where}; leave it out")
    if config.fp16:
        yield UserError("fp16", f"isn't supported {where}; write bf16: true (from macOS 14 on), or bf16: false")
    yield from _reporting(config.report_to)


def attention_faults(args: Any) -> Iterator[UserError]:
    """Find what is wrong with a generating stage's attention; vLLM has its own."""
    if args.backend != "transformers":
        return
    if has_apple_gpu() and (args.attn_implementation or "sdpa") not in ("sdpa", "eager"):
        what = f"there is no {args.attn_implementation} on Apple's GPU; write attn_implementation: sdpa"
        yield UserError("attn_implementation", what)
        return
    if lacks_bfloat16() and args.dtype == "bfloat16":
        yield UserError("dtype", "Apple's GPU has bfloat16 from macOS 14 on; write dtype: float32")
    yield from _attention(args.attn_implementation)
    try:
        _empty_model(args, args.trust_remote_code)
    except (ValueError, ImportError) as error:
        yield attention_fault(error, args.attn_implementation)


def launch_faults(config: Any) -> Iterator[UserError]:
    """Find engines that the recipe names and that only a launcher starts."""
    if "LOCAL_RANK" in os.environ:
        return
    if config.deepspeed:
        how = (
            "accelerate launch --num_processes 4 SCRIPT RECIPE, or leave it out and take accelerate_configs/zero3.yaml"
        )
        yield UserError("deepspeed", f"needs processes that a launcher starts: {how}")
    if config.fsdp:
        how = "accelerate launch --config_file recipes/accelerate_configs/fsdp2.yaml SCRIPT RECIPE, and leave it out"
        yield UserError("fsdp", f"needs processes that a launcher starts: {how}")


def _empty_model(model_args: Any, trust_remote_code: bool) -> Any:
    """Build the recipe's model without weights; None where its configuration isn't on this machine."""
    kernels = re.match(r"flash_attention|.*/", model_args.attn_implementation or "")  # `machine_faults` looks for them
    attention = None if kernels else model_args.attn_implementation
    name, revision = model_args.model_name_or_path, model_args.model_revision
    config = read_config(name, revision, trust_remote_code, attention)
    return None if config is None else empty_model(config, trust_remote_code)


def attention_fault(error: Exception, given: str | None) -> UserError:
    """Explain why transformers refuses an attention implementation."""
    words = re.findall(r"implementation=\W*([a-z_0-9]+)", str(error).partition("arguments are")[2])
    what = str(error).partition("\n")[0]
    if words:
        what = f"'{given}' is unknown{did_you_mean(str(given), words)}; choose from {', '.join(dict.fromkeys(words))}"
    return UserError("attn_implementation", what)


def writable(output_dir: str) -> Iterator[UserError]:
    """Check that a folder can be made."""
    there = next(path for path in (Path(output_dir).absolute(), *Path(output_dir).absolute().parents) if path.exists())
    if (there.is_dir() and not os.access(there, os.W_OK | os.X_OK)) or str(there).startswith(("/proc", "/sys")):
        yield UserError("output_dir", f"{output_dir} can't be written, since {there} can't; choose another one")


def _scheduler(config: Any) -> Iterator[UserError]:
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    given = config.lr_scheduler_kwargs or {}
    try:
        get_scheduler(config.lr_scheduler_type, optimizer, 1, 10, scheduler_specific_kwargs=dict(given))
    except (TypeError, ValueError, KeyError) as error:
        yield UserError("lr_scheduler_kwargs", f"don't suit {config.lr_scheduler_type.value}: {error}")


def _loading(given: dict[str, Any], model: Any) -> Iterator[UserError]:
    """Check that `from_pretrained` takes what it is given."""
    known = [*inspect.signature(model.from_pretrained).parameters, *LOADING]
    for name in given:
        if name not in known and not hasattr(model.config, name):
            what = f"'{name}' is nothing that from_pretrained takes{did_you_mean(name, known)}; leave it out"
            yield UserError("model_init_kwargs", what)


def _compiler(backend: str) -> Iterator[UserError]:
    from accelerate.utils import DynamoBackend

    words = [member.value.lower() for member in DynamoBackend]
    if backend.lower() not in words:
        what = f"'{backend}' is unknown{did_you_mean(backend, words)}; choose from {', '.join(words)}"
        yield UserError("torch_compile_backend", what)


def _liger(config: Any, model: Any) -> Iterator[UserError]:
    """Check that Liger has kernels for the model, and that it knows their names: it ignores what it doesn't know."""
    if not config.use_liger_kernel or not importlib.util.find_spec("liger_kernel"):
        return
    from liger_kernel.transformers.monkey_patch import (  # type: ignore[import-not-found,unused-ignore]
        MODEL_TYPE_TO_APPLY_LIGER_FN,
    )

    apply = MODEL_TYPE_TO_APPLY_LIGER_FN.get(model.config.model_type)
    if apply is None:
        yield UserError("use_liger_kernel", f"Liger has no kernels for {model.config.model_type} models; leave it out")
        return
    known = [name for name in inspect.signature(apply).parameters if name != "model"]
    for name in sorted(set(config.liger_kernel_config or {}) - {*known}):
        what = f"'{name}' is unknown{did_you_mean(name, known)}; choose from {', '.join(known)}"
        yield UserError("liger_kernel_config", what)


def _adapter(model_args: Any, model: Any) -> Iterator[UserError]:
    """Check that PEFT finds the modules to adapt, and those to train beside them."""
    if not model_args.use_peft:
        return
    import trl
    from peft import get_peft_model

    modules = [name for name, _ in model.named_modules() if name]
    linear = [name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)]
    known = list(dict.fromkeys(linear))
    parameters = [name for name, _ in model.named_parameters()]
    wanted = model_args.lora_target_modules
    head = model.get_output_embeddings()
    heads = {name.rpartition(".")[2] for name, part in model.named_modules() if part is head}
    found = False
    for key, there in (
        ("lora_target_modules", modules),
        ("lora_modules_to_save", modules),
        ("lora_target_parameters", parameters),
    ):
        names = getattr(model_args, key)
        for name in names if isinstance(names, list) else []:
            if not any(one == name or one.endswith(f".{name}") for one in there):
                what = f"'{name}' is in no layer of the model{did_you_mean(name, known)}; there are {', '.join(known)}"
                yield UserError(key, what)
                found = True
    if isinstance(wanted, list) and heads & set(wanted):
        what = f"{', '.join(heads & set(wanted))} can't have an adapter, since log-probs come from its weight; write"
        yield UserError("lora_target_modules", f"{what} it in lora_modules_to_save, which trains it whole")
        found = True
    if found:
        return
    try:
        with torch.device("meta"):
            get_peft_model(model, trl.get_peft_config(model_args))
    except Exception as error:  # PEFT has an exception of its own for each way in which modules don't suit
        said = " ".join(str(error).split())
        said = said if len(said) <= 120 else f"{said[:117]}…"
        what = f"PEFT refuses {wanted} ({said}); there are {', '.join(known)}, and all-linear"
        yield UserError("lora_target_modules", what)


def _attention(name: str | None) -> Iterator[UserError]:
    packages = {"flash_attention_2": ("flash_attn", "flash-attn"), "flash_attention_3": ("flash_attn_interface", "")}
    if name in packages:
        module, package = packages[name]
        if not importlib.util.find_spec(module):
            how = f"pip install {package} --no-build-isolation, or " if package else ""
            yield UserError("attn_implementation", f"{name} isn't installed; {how}write attn_implementation: sdpa")
    elif name and "/" in name and not importlib.util.find_spec("kernels"):
        yield UserError("attn_implementation", f"{name} needs the package kernels; pip install kernels, or write sdpa")


def _quantisation(model_args: Any) -> Iterator[UserError]:
    from transformers.utils import is_bitsandbytes_available

    for key in ("load_in_4bit", "load_in_8bit"):
        if getattr(model_args, key) and not is_bitsandbytes_available():
            yield UserError(key, "needs bitsandbytes, which isn't there; pip install '.[qlora]', or leave it out")


def _optimizer(config: Any) -> Iterator[UserError]:
    from transformers import Trainer

    name = str(getattr(config.optim, "value", config.optim))
    try:
        Trainer.get_optimizer_cls_and_kwargs(config, torch.nn.Linear(1, 1))
    except (ImportError, ValueError, AssertionError) as error:
        what = str(error).partition("\n")[0].rstrip(".")
        yield UserError("optim", f"{name} can't be used here ({what}); or write optim: adamw_torch")


def _reporting(report_to: list[str]) -> Iterator[UserError]:
    from transformers.integrations import get_reporting_integration_callbacks

    for name in report_to:
        try:
            for callback in get_reporting_integration_callbacks([name]):
                callback()
        except ValueError as error:  # no such integration
            yield UserError("report_to", f"{str(error).rstrip('.')}; or set it to none")
        except (ImportError, RuntimeError) as error:
            reason = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
            yield UserError(
                "report_to", f"{name} can't be used here ({reason}); pip install {name}, or set report_to: none"
            )
