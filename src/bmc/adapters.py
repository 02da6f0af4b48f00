"""Use adapters (LoRA) as models: find the base model, continue training, merge into the base."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .config import MergeConfig
from .errors import UserError, user_error
from .models import ADAPTER, check_model, load_tokenizer
from .runs import claim_output_dir, refuse_in_place, run_fingerprint

logger = logging.getLogger(__name__)

# keys of a recipe → those of PEFT's LoraConfig
LORA = {
    "lora_r": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout", "use_rslora": "use_rslora",
    "use_dora": "use_dora", "lora_target_modules": "target_modules", "lora_modules_to_save": "modules_to_save",
}  # fmt: skip


def read_adapter(name: str, revision: str = "main") -> dict[str, Any] | None:
    """Read the configuration of an adapter; None for a full model, or if the Hub can't be reached."""
    from transformers.utils.peft_utils import find_adapter_config_file

    try:
        path = find_adapter_config_file(name, revision=revision)
    except (OSError, ValueError):
        return None
    return None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))


def merge_command(name: str) -> str:
    """Return the command that merges an adapter into its base model."""
    return f"python scripts/merge.py --model_name_or_path {name} --output_dir {name.rstrip('/')}-merged"


def check_base(name: str, adapter: dict[str, Any], trust_remote_code: bool, allow_pickle: bool) -> str:
    """Check an adapter's base model without loading it, and return its name.

    Raises:
        UserErrors: The base model doesn't exist, or can't be loaded.
    """
    base = str(adapter.get("base_model_name_or_path") or "")
    where = Path(name, ADAPTER)
    if not base:
        raise user_error(str(where), "names no base_model_name_or_path; write there which model the adapter belongs to")
    if read_adapter(base):
        raise user_error(str(where), f"its base {base} is an adapter itself; merge that first: {merge_command(base)}")
    try:
        check_model(base, adapter.get("revision") or "main", trust_remote_code, allow_pickle)
    except Exception as error:
        raise user_error(str(where), f"its base_model_name_or_path: {error}") from None
    return base


def adapter_faults(model_args: Any, trust_remote_code: bool) -> Iterator[UserError]:
    """Find what prevents training from continuing with the adapter that a recipe names as its model."""
    name = model_args.model_name_or_path
    adapter = read_adapter(name, model_args.model_revision)
    if adapter is None:
        return
    if adapter.get("peft_type") != "LORA":
        yield UserError(
            "model_name_or_path", f"{name} is an adapter of kind {adapter.get('peft_type')}; LoRA is supported"
        )
    elif not model_args.use_peft:
        how = f"write use_peft: true to train it on, or merge it into its model first: {merge_command(name)}"
        yield UserError("use_peft", f"{name} is an adapter; {how}")
    check_base(name, adapter, trust_remote_code, model_args.allow_pickle)


def adopt_adapter_settings(model_args: Any) -> None:
    """Set LoRA's keys from the adapter that training continues with, and warn of those that differ."""
    name = model_args.model_name_or_path
    adapter = read_adapter(name, model_args.model_revision) if model_args.use_peft else None
    if adapter is None:
        return
    changed = []
    for key, theirs in LORA.items():
        value, given = adapter.get(theirs), getattr(model_args, key)
        if (sorted(given) if isinstance(given, list) else given) == (
            sorted(value) if isinstance(value, list) else value
        ):
            continue
        value = sorted(value) if isinstance(value, list | set) else value  # PEFT keeps a set, whose order varies
        setattr(model_args, key, value)
        if key not in ("lora_target_modules", "lora_modules_to_save") or given is not None:
            changed.append(f"{key} {value} (the recipe: {given})")
    if changed:
        how = f"for a new adapter merge this one first: {merge_command(name)}"
        logger.warning("training goes on with the adapter %s, which has %s; %s", name, ", ".join(changed), how)


def load_adapter(model_args: Any, config: Any, quantization: Any) -> Any:
    """Load base model and adapter to continue training; DPOTrainer's reference is then a frozen copy of the adapter."""
    from peft import PeftModel
    from trl.trainer.utils import create_model_from_path

    name, revision = model_args.model_name_or_path, model_args.model_revision
    adapter = read_adapter(name, revision) or {}
    options = {**config.model_init_kwargs, "revision": adapter.get("revision") or "main"}
    if quantization is not None:
        options["quantization_config"] = quantization
    if config.distributed_state.distributed_type in ("MULTI_GPU", "DEEPSPEED"):
        options["device_map"] = None
    model = create_model_from_path(
        adapter["base_model_name_or_path"], trust_remote_code=config.trust_remote_code, **options
    )
    # as in TRL: ZeRO-3 gathers parameters of one dtype
    zero3 = config.deepspeed_plugin is not None and config.deepspeed_plugin.zero_stage == 3
    kept = zero3 and quantization is None
    return PeftModel.from_pretrained(model, name, revision=revision, is_trainable=True, autocast_adapter_dtype=not kept)


def merge_adapter(config: MergeConfig) -> Path:
    """Merge an adapter into its base model, and save that with the adapter's tokenizer.

    Returns:
        The output folder.

    Raises:
        UserErrors: The model is no adapter, its base doesn't exist, or the folder is another recipe's.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    name, revision = config.model_name_or_path, config.model_revision
    adapter = read_adapter(name, revision)
    if adapter is None:
        raise user_error("model_name_or_path", f"{name} is no adapter (it has no {ADAPTER}); there is nothing to merge")
    refuse_in_place(config.output_dir, name)
    base = check_base(name, adapter, config.trust_remote_code, config.allow_pickle)
    check_model(name, revision, config.trust_remote_code, config.allow_pickle)
    tokenizer = load_tokenizer(config.tokenizer_name_or_path or name, revision, config.trust_remote_code, None)
    if config.dry_run:
        return Path(config.output_dir)
    folder = claim_output_dir(config.output_dir, run_fingerprint(config), config)
    model = AutoModelForCausalLM.from_pretrained(
        base,
        revision=adapter.get("revision") or "main",
        trust_remote_code=config.trust_remote_code,
        dtype=config.dtype,
        use_safetensors=None if config.allow_pickle else True,
    )
    merged = PeftModel.from_pretrained(model, name, revision=revision).merge_and_unload()
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
