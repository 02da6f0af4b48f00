"""What sampling and evaluation share: prompts of a recipe → the model's responses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .config import EvaluateConfig, SampleConfig, names
from .data.mixture import load_mixture
from .data.schema import Row, check, split_prompt
from .data.templates import check_template, encode_prompt
from .generation import Response, backend, generate
from .models import check_model, load_tokenizer

KEEP = "responses.partial.jsonl"


def load_prompts(config: SampleConfig | EvaluateConfig) -> tuple[list[Row], Any]:
    """The recipe's rows, checked, and its tokenizer.

    Raises:
        Faults: The rows, the template or the model can't be used.
    """
    mixture = config.dataset_mixture
    given = map(split_prompt, load_mixture(mixture.datasets, mixture.seed))
    rows = [{key: value for key, value in row.items() if value is not None} for row in given]
    where = names(mixture.datasets)
    check(rows, ("prompt",), where)
    check_model(config.model_name_or_path, config.model_revision, config.trust_remote_code)
    name = config.tokenizer_name_or_path or config.model_name_or_path
    tokenizer = load_tokenizer(name, config.model_revision, config.trust_remote_code, config.chat_template)
    check_template(tokenizer, rows, (), where)
    return rows, tokenizer


def respond(config: SampleConfig | EvaluateConfig, rows: list[Row], tokenizer: Any, folder: Path) -> list[Response]:
    """One response to each row's prompt; goes on where an earlier run of the recipe was killed."""
    prompts = [encode_prompt(tokenizer, row["prompt"]) for row in rows]
    return generate(prompts, backend(config, config, tokenizer), config.batch_size, folder / KEEP)
