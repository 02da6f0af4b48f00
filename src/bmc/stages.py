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
from .runtime import claim, recipe_of

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


def respond(config: SampleConfig | EvaluateConfig) -> tuple[list[Row], list[Response], Path]:
    """One response to the prompt of each of the recipe's rows; goes on where an earlier run of it was killed.

    Returns:
        `(rows, responses, output folder)`; whoever has written the results removes `KEEP` from the folder.

    Raises:
        Faults: The rows, the template or the model can't be used, or the folder is another recipe's.
    """
    rows, tokenizer = load_prompts(config)
    folder = claim(config.output_dir, recipe_of(config))
    prompts = [encode_prompt(tokenizer, row["prompt"]) for row in rows]
    responses = generate(prompts, backend(config, config, tokenizer), config.batch_size, folder / KEEP)
    return rows, responses, folder
