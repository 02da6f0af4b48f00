"""Models and tokenizers of a recipe: checked before they are loaded, loaded, or built without weights."""

from __future__ import annotations

import json
import logging
import os
import platform
from pathlib import Path
from typing import Any

from .data.tokenization import read_template, with_empty_system
from .errors import UserError, UserErrors, did_you_mean, user_error

logger = logging.getLogger(__name__)

SAFE = ("model.safetensors", "adapter_model.safetensors")
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"


def check_weight_files(name: str, revision: str = "main", allow_pickle: bool = False) -> None:
    """Check the weight files of a model without loading them.

    Raises:
        UserErrors: The weights are pickled and that isn't allowed; a file is missing, damaged or cut short.
    """
    folder = Path(name)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else _names_on_hub(name, revision)
    safe = [file for file in names if file.endswith(".safetensors")]
    pickled = [file for file in names if file.endswith(PICKLED) and "model" in file]
    if not safe and pickled and not allow_pickle:
        what = f"'{name}' has only pickled weights ({pickled[0]}), which may run any code when they are loaded"
        raise user_error("model_name_or_path", f"{what}; convert them to safetensors, or set allow_pickle: true")
    if not folder.is_dir():
        return
    faults = []
    if INDEX in names and SAFE[0] not in names:
        wanted = sorted(set(_index(folder / INDEX).values()))
        missing = [file for file in wanted if file not in names]
        faults += [UserError(str(folder / file), f"is missing, and {INDEX} names it; copy it too") for file in missing]
    else:
        wanted = [file for file in SAFE if file in names]
    for file in wanted:
        if file in names and (reason := find_file_damage(folder / file)):
            faults.append(UserError(str(folder / file), f"{reason}; copy or save the model again"))
    if faults:
        raise UserErrors(*faults)


def find_file_damage(path: Path) -> str | None:
    """Say why a safetensors file can't be opened (cut short, too long, a damaged header); None if it can."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            return None
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size
        return f"is damaged or cut short ({size:,} bytes; safetensors says: {str(error).rpartition('header: ')[2]})"


def _index(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError):
        raise user_error(str(path), "is no index of safetensors files; copy or save the model again") from None


def _names_on_hub(name: str, revision: str) -> list[str]:
    """List the files of a repository; none where the Hub can't be reached."""
    from huggingface_hub import list_repo_files

    try:
        return list_repo_files(name, revision=revision)
    except Exception:  # whatever the network's client raises
        return []


def adapter_base(name: str) -> str | None:
    """Read which model an adapter in a folder belongs to; None for anything else."""
    file = Path(name, ADAPTER)
    return str(json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]) if file.is_file() else None


def load_tokenizer(
    name: str, revision: str, trust_remote_code: bool, chat_template: str | None, empty_system: bool = False
) -> Any:
    """Load a tokenizer with its chat template and a padding token.

    `chat_template` is the path of a Jinja file, a template, or None for the tokenizer's own; `empty_system` gives
    conversations an empty system turn (`auto_insert_empty_system_msg`).

    Raises:
        UserErrors: There is no such model, or no such template.
    """
    from transformers import AutoTokenizer

    template = read_template(chat_template)
    if (base := adapter_base(name)) and not Path(name, "tokenizer_config.json").exists():
        name, revision = base, "main"
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except Exception as error:  # a damaged file raises whatever its reader does
        what = f"'{name}' has none that can be loaded ({_reason(name, error)}); give tokenizer_name_or_path"
        raise user_error("tokenizer", what) from None
    if template is not None:
        tokenizer.chat_template = template
    if empty_system and isinstance(tokenizer.chat_template, str):
        tokenizer.chat_template = with_empty_system(tokenizer.chat_template)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def check_model(name: str, revision: str, trust_remote_code: bool, allow_pickle: bool = False) -> None:
    """Check that a model, or an adapter, is there and its files are whole, without loading its weights.

    Raises:
        UserErrors: There is no such model, it wants to run code of its own, its weights are pickled and that isn't
            allowed, or a file of a local one is damaged.
    """
    from transformers import AutoConfig
    from transformers.utils.peft_utils import find_adapter_config_file

    refuse_typo("model_name_or_path", name)
    try:
        if find_adapter_config_file(name, revision=revision) is None:
            if not trust_remote_code and _wants_code(name, revision):
                what = f"'{name}' wants to run code of its own; read it, then set trust_remote_code: true, or choose"
                raise user_error("trust_remote_code", f"{what} a model that transformers has")
            AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from None
    check_weight_files(name, revision, allow_pickle)


def is_path(name: str) -> bool:
    """Return whether a model's name can only be a folder's."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def refuse_typo(key: str, name: str) -> None:
    """Refuse the path of a folder that isn't there beside one of nearly its name, before the Hub is asked for it.

    Raises:
        UserErrors: It is such a path, and the Hub's cache has no model of that name.
    """
    path = Path(name)
    near = None if path.exists() else _near(path)
    if near is None or not (is_path(name) or len(path.parts) > 1) or _is_cached(name):
        return
    what = f"there is no folder {name} (did you mean '{near}'?)"
    hub = "" if is_path(name) else f"; for a model of the Hub first write: hf download {name} --local-dir {name}"
    raise user_error(key, what + hub)


def _near(path: Path) -> Path | None:
    """Find a folder with a model beside a path, of nearly its name."""
    files = ("config.json", "adapter_config.json", "tokenizer_config.json")
    there = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    names = [folder.name for folder in there if any((folder / file).is_file() for file in files)]
    hint = did_you_mean(path.name, names)
    return path.parent / hint.split("'")[1] if hint else None


def _is_cached(name: str, revision: str = "main") -> bool:
    from huggingface_hub import try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)
    except ValueError:  # no name that the Hub could have
        return False


def _wants_code(name: str, revision: str) -> bool:
    """Return whether a model's configuration names a class of its own, and transformers has none for it."""
    from transformers import CONFIG_MAPPING, PretrainedConfig

    config, _ = PretrainedConfig.get_config_dict(name, revision=revision)
    return "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING


def read_config(
    name: str, revision: str = "main", trust_remote_code: bool = False, attn_implementation: str | None = None
) -> Any:
    """Read a model's configuration, or that of an adapter's base model; None where it isn't on this machine."""
    if base := adapter_base(name):
        name, revision = base, "main"
    if not (Path(name, "config.json").is_file() or _is_cached(name, revision)):
        return None
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(
            name,
            revision=revision,
            trust_remote_code=trust_remote_code,
            attn_implementation=attn_implementation,
            local_files_only=True,
        )
    except (OSError, ValueError):
        return None


def empty_model(config: Any, trust_remote_code: bool = False) -> Any:
    """Build a causal language model without weights, on the meta device.

    Raises:
        ValueError: transformers has no such model, or not with this attention.
    """
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

    with torch.device("meta"):
        if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and not trust_remote_code:
            # its own constructor: `from_config` would shard weights that aren't there under ZeRO-3
            return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)


def load_model(args: Any) -> Any:
    """Load the causal language model of a recipe for inference, on this process's GPU if there is one, or on Apple's.

    Raises:
        UserErrors: There is no such model, or no GPU for this process.
    """
    from transformers import AutoModelForCausalLM

    gpus = local_gpus()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            args.model_name_or_path,
            revision=args.model_revision,
            trust_remote_code=args.trust_remote_code,
            attn_implementation=args.attn_implementation,
            dtype=args.dtype,
            use_safetensors=None if args.allow_pickle else True,
        )
    except (OSError, ValueError) as error:
        raise _unreadable(args.model_name_or_path, error) from None
    device = f"cuda:{gpus[0]}" if gpus else "mps" if has_apple_gpu() else "cpu"
    warn_if_slow(device, str(model.dtype).removeprefix("torch."), "dtype", "float32")
    return model.to(device).eval()


def has_apple_gpu() -> bool:
    """Return whether models run on Apple's GPU (MPS)."""
    import torch

    return not torch.cuda.is_available() and torch.backends.mps.is_available()


def lacks_bfloat16() -> bool:
    """Return whether models run on Apple's GPU under a macOS that has no bfloat16 there."""
    import torch

    return has_apple_gpu() and not torch.backends.mps.is_macos_or_newer(14, 0)


def warn_if_slow(device: str, dtype: str, key: str, faster: str) -> None:
    """Warn of a model that runs on a processor in a 16-bit dtype for which that has no instructions.

    There bfloat16 takes six times as long as float32, and float16 five times (measured with AVX2).

    Args:
        device: Where the model runs.
        dtype: What it computes in.
        key: The recipe's key that decides it.
        faster: The value to give the key instead.
    """
    if device == "cpu" and is_slow_here(dtype):
        what = f"{dtype} is several times slower than float32 on this processor"
        logger.warning("%s: %s; write %s: %s", key, what, key, faster)


def is_slow_here(dtype: str) -> bool:
    """Return whether oneDNN lacks kernels for a dtype on this x86 processor, so that PyTorch takes plain loops."""
    import torch

    checks = {"bfloat16": "_is_mkldnn_bf16_supported", "float16": "_is_mkldnn_fp16_supported"}
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    if dtype not in checks or not is_x86 or not torch.backends.mkldnn.is_available():
        return False
    return not getattr(torch.ops.mkldnn, checks[dtype])()


def local_gpus(each: int = 1) -> range:
    """List the GPUs that are this process's, of those on this machine that it may see; none where there are none.

    Raises:
        UserErrors: There are too few.
    """
    import torch

    if not torch.cuda.is_available():
        return range(0)
    first, there = int(os.environ.get("LOCAL_RANK", "0")) * each, torch.cuda.device_count()
    if first + each > there:
        what = f"{first // each + 1} × {each} GPUs are wanted, and there are {there}"
        raise user_error("GPUs", f"{what}; lower the number of processes (data_parallel_size) or tensor_parallel_size")
    return range(first, first + each)


def check_context_length(args: Any, prompts: dict[int, list[int]], settings: dict[int, Any], where: str) -> None:
    """Check that prompts and their responses fit the model's context.

    `prompts` are token ids by their rows' places, from 0; `settings` say how many tokens the response to each may have.

    Raises:
        UserErrors: Some don't fit; the longest is named.
    """
    from transformers import AutoConfig
    from transformers.utils.peft_utils import find_adapter_config_file

    name, revision = args.model_name_or_path, args.model_revision
    if adapter := find_adapter_config_file(name, revision=revision):
        name, revision = json.loads(Path(adapter).read_text(encoding="utf-8"))["base_model_name_or_path"], "main"
    config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=args.trust_remote_code)
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    if context is None or not prompts:
        return
    place = max(prompts, key=lambda place: len(prompts[place]))
    longest = len(prompts[place])
    if longest >= context:
        over = sum(len(ids) >= context for ids in prompts.values())
        what = f"the prompt has {longest:,} tokens, the model's context {context:,}"
        more = f" ({over:,} rows are too long)" if over > 1 else ""
        how = "shorten or remove it, or take a model with a longer context"
        raise user_error(f"{where}: row {place + 1}", f"{what}{more}; {how}")
    place = max(prompts, key=lambda place: len(prompts[place]) + settings[place].max_new_tokens)
    longest, new = len(prompts[place]), settings[place].max_new_tokens
    if longest + new > context:
        what = f"{new:,} more than the {longest:,} tokens of row {place + 1}'s prompt exceed the model's context of"
        raise user_error("max_new_tokens", f"{what} {context:,}; {context - longest:,} are the most")


def _unreadable(name: str, error: Exception) -> Exception:
    what = f"'{name}' is no model that can be loaded ({_reason(name, error)})"
    return user_error("model_name_or_path", f"{what}; give a Hub id or the folder of a saved model")


def _reason(name: str, error: Exception) -> str:
    near = None if Path(name).exists() else _near(Path(name))
    if is_path(name) and not Path(name).is_dir():
        return f"there is no such folder{f', but {near}' if near else ''}; paths are relative to {Path.cwd()}"
    if near:
        return f"there is no folder of that name, but '{near}', and no such model on the Hub that can be reached"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
