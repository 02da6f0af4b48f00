"""Sampled responses → preference pairs.

What sampling and evaluation share: prompts of a recipe → the model's responses.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

from ..config import EvaluateConfig, SampleConfig, names
from ..data.loading import load_mixture
from ..data.schema import BRIDGING, SIDES, Row, assistant, check_rows, chosen_response, content
from ..data.tokenization import (
    AlignmentError,
    ContinuationDecoder,
    check_offsets,
    check_template,
    encode_prompt,
    response_prefix,
)
from ..errors import raise_all
from ..launch import launch_workers
from ..models import check_context_length, check_model, load_tokenizer
from ..preflight import attention_faults
from ..runs import claim_output_dir, is_main_process, run_fingerprint
from .backends import load_backend
from .generate import Response, generate


def make_pairs(rows: list[Row], responses: list[Response]) -> tuple[list[Row], list[Row]]:
    """The ground truth as y_w, the model's response as y_l.

    Args:
        rows: With `prompt` and a `chosen_response` (the losers of pairs give way).
        responses: The model's, in the order of the rows; after a `prefix`, or with the `reason` why there is none.

    Returns:
        The pairs, and the rows that are none with their `reason`: an empty response, or one equal to y_w.
    """
    pairs, dropped = [], []
    for row, response in zip(rows, responses, strict=True):
        given: Any = chosen_response(row)
        rest = {key: value for key, value in row.items() if key not in ("completion", *SIDES, *BRIDGING)}
        text = response["text"].strip()
        if "prefix" in response:  # y_l begins as y_w does, to the last space
            text = (response["prefix"] + response["text"]).rstrip()
        loser = text if isinstance(given, str) else assistant(text)
        pair = {**rest, "chosen": given, "rejected": loser, "finished": response["finished"]}
        reason = response.get("reason") or ("" if text else "empty response")
        if not reason and text.strip() == content(given).strip():
            reason = "equal to y_w"
        if reason:
            dropped.append({**pair, "reason": reason})
        else:
            pairs.append(pair)
    return pairs, dropped


def load_prompts(config: SampleConfig | EvaluateConfig) -> tuple[list[Row], Any]:
    """The recipe's rows, checked, and its tokenizer.

    Raises:
        Faults: The rows, the template or the model can't be used.
    """
    mixture = config.dataset_mixture
    given = load_mixture(mixture.datasets, mixture.seed)
    rows = [{key: value for key, value in row.items() if value is not None} for row in given]
    where = names(mixture.datasets)
    pairs = [row | ({"chosen": chosen} if (chosen := chosen_response(row)) else {}) for row in rows]
    check_rows(pairs, ("prompt", "chosen") if isinstance(config, SampleConfig) else ("prompt",), where)
    check_model(config.model_name_or_path, config.model_revision, config.trust_remote_code, config.allow_pickle)
    raise_all([*attention_faults(config)])
    name = config.tokenizer_name_or_path or config.model_name_or_path
    template, system = config.chat_template, config.auto_insert_empty_system_msg
    tokenizer = load_tokenizer(name, config.model_revision, config.trust_remote_code, template, system)
    check_template(tokenizer, pairs, ("chosen",) if _continues(config) else (), where)
    if _continues(config):
        check_offsets(tokenizer)
    return rows, tokenizer


def _continues(config: SampleConfig | EvaluateConfig) -> TypeGuard[SampleConfig]:
    return isinstance(config, SampleConfig) and config.mode == "continue_prefix"


def generate_responses(config: SampleConfig | EvaluateConfig) -> tuple[list[Row], list[Response], Path]:
    """One response to the prompt of each of the recipe's rows, or one continuation of the beginning of its y_w; goes on
    where an earlier run of it was killed.

    Of several processes that share the rows out, the first returns and the others end here; where the recipe wants
    several and no launcher started them, this one does, and ends as they do.

    Returns:
        `(rows, responses, output folder)`; whoever has written the results removes `generation.KEEP` from the folder.

    Raises:
        Faults: The rows, the template or the model can't be used, or the folder is another recipe's.
    """
    launch_workers(config.data_parallel_size)
    rows, tokenizer = load_prompts(config)
    beginnings = [_beginning(config, tokenizer, row) for row in rows]
    prompts = {place: start[0] for place, start in enumerate(beginnings) if isinstance(start, tuple)}
    settings = {place: config.decoding(rows[place].get("source")) for place in prompts}
    check_context_length(config, prompts, settings, names(config.dataset_mixture.datasets))
    folder = claim_output_dir(config.output_dir, run_fingerprint(config), config, rows=rows)
    if _continues(config):
        tokenizer = ContinuationDecoder(tokenizer)
    longest = max((len(prompt) + settings[place].max_new_tokens for place, prompt in prompts.items()), default=0)
    load = partial(load_backend, config, config, tokenizer, longest)
    responses = generate([*prompts.values()], [*settings.values()], load, folder, config.seed)
    generated = dict(zip(prompts, responses, strict=True))
    if not is_main_process():
        raise SystemExit
    return rows, [_response(start, generated.get(place, {})) for place, start in enumerate(beginnings)], folder


Beginning = tuple[list[int], str | None] | AlignmentError


def _beginning(config: SampleConfig | EvaluateConfig, tokenizer: Any, row: Row) -> Beginning:
    """What the model is given of a row: the tokens, and the beginning of y_w that stands in them where it goes on from
    one (DPO (CW))."""
    if not _continues(config):
        return encode_prompt(tokenizer, row), None
    try:
        return response_prefix(tokenizer, row, chosen_response(row) or "", config.prefix_fraction)
    except AlignmentError as error:
        return error


def _response(beginning: Beginning, generated: Response) -> Response:
    """A row's response, with the `prefix` that it goes on from, or an empty one with the `reason`."""
    if isinstance(beginning, AlignmentError):
        return {"text": "", "tokens": 0, "finished": True, "reason": str(beginning)}
    return generated if beginning[1] is None else {**generated, "prefix": beginning[1]}
