"""What sampling and evaluation share: prompts of a recipe → the model's responses."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeGuard

from .config import EvaluateConfig, SampleConfig, names
from .data.mixture import load_mixture
from .data.pairs import winner
from .data.schema import Row, check, split_prompt
from .data.templates import check_template, encode_prompt
from .data.tokens import Continuing, Untraceable, check_offsets, prefix
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
    pairs = [row | ({"chosen": chosen} if (chosen := winner(row)) else {}) for row in rows]
    check(pairs, ("prompt", "chosen") if isinstance(config, SampleConfig) else ("prompt",), where)
    check_model(config.model_name_or_path, config.model_revision, config.trust_remote_code, config.allow_pickle)
    name = config.tokenizer_name_or_path or config.model_name_or_path
    tokenizer = load_tokenizer(name, config.model_revision, config.trust_remote_code, config.chat_template)
    check_template(tokenizer, pairs, ("chosen",) if _continues(config) else (), where)
    if _continues(config):
        check_offsets(tokenizer)
    return rows, tokenizer


def _continues(config: SampleConfig | EvaluateConfig) -> TypeGuard[SampleConfig]:
    return isinstance(config, SampleConfig) and config.mode == "continue_prefix"


def respond(config: SampleConfig | EvaluateConfig) -> tuple[list[Row], list[Response], Path]:
    """One response to the prompt of each of the recipe's rows, or one continuation of the beginning of its y_w; goes on
    where an earlier run of it was killed.

    Returns:
        `(rows, responses, output folder)`; whoever has written the results removes `KEEP` from the folder.

    Raises:
        Faults: The rows, the template or the model can't be used, or the folder is another recipe's.
    """
    rows, tokenizer = load_prompts(config)
    folder = claim(config.output_dir, recipe_of(config), config, rows=rows)
    if _continues(config):
        return rows, _continuations(config, rows, tokenizer, folder), folder
    prompts = [encode_prompt(tokenizer, row["prompt"]) for row in rows]
    responses = generate(prompts, backend(config, config, tokenizer), config.batch_size, folder / KEEP)
    return rows, responses, folder


def _continuations(config: SampleConfig, rows: list[Row], tokenizer: Any, folder: Path) -> list[Response]:
    """DPO (CW): what the model adds to the beginning of each y_w, with that beginning as the response's `prefix`.

    A y_w without such a beginning gets an empty response with the `reason`.
    """
    beginnings: list[tuple[list[int], str] | Untraceable] = []
    for row in rows:
        try:
            beginnings.append(prefix(tokenizer, row, winner(row) or "", config.prefix_fraction))
        except Untraceable as error:
            beginnings.append(error)
    prompts = [beginning[0] for beginning in beginnings if isinstance(beginning, tuple)]
    generated = iter(
        generate(prompts, backend(config, config, Continuing(tokenizer)), config.batch_size, folder / KEEP)
    )
    return [
        {**next(generated), "prefix": beginning[1]}
        if isinstance(beginning, tuple)
        else {"text": "", "tokens": 0, "finished": True, "reason": str(beginning)}
        for beginning in beginnings
    ]
