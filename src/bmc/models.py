"""Tokenizers and models of a recipe."""

from __future__ import annotations

from typing import Any

from .data.templates import read_template
from .errors import fail


def load_tokenizer(name: str, revision: str, trust_remote_code: bool, chat_template: str | None) -> Any:
    """A tokenizer with its chat template and a padding token.

    Args:
        name: Hub id or folder.
        revision: Branch, tag or commit.
        trust_remote_code: Whether code from the model's repository may run.
        chat_template: As in the recipe: the path of a Jinja file, a template, or None for the tokenizer's own.

    Raises:
        Faults: There is no such model, or no such template.
    """
    from transformers import AutoTokenizer

    template = read_template(chat_template)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise _unreadable("model_name_or_path", name, error) from None
    if template is not None:
        tokenizer.chat_template = template
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def check_model(name: str, revision: str, trust_remote_code: bool) -> None:
    """Looks for a model, or an adapter, without loading its weights.

    Raises:
        Faults: There is no such model.
    """
    from transformers import AutoConfig
    from transformers.utils.peft_utils import find_adapter_config_file

    try:
        if find_adapter_config_file(name, revision=revision) is None:
            AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise _unreadable("model_name_or_path", name, error) from None


def load_model(args: Any) -> Any:
    """The causal language model of a recipe for inference, on the GPU if there is one.

    Raises:
        Faults: There is no such model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(
            args.model_name_or_path,
            revision=args.model_revision,
            trust_remote_code=args.trust_remote_code,
            attn_implementation=args.attn_implementation,
            dtype=args.dtype,
        )
    except (OSError, ValueError) as error:
        raise _unreadable("model_name_or_path", args.model_name_or_path, error) from None
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _unreadable(key: str, name: str, error: Exception) -> Exception:
    reason = str(error).strip().splitlines()[0]
    return fail(
        key, f"'{name}' is no model that can be loaded ({reason}); give a Hub id or the folder of a saved model"
    )
