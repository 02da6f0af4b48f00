"""Estimate the KL divergence of a model from a reference on the responses that the model generated."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import EvaluateConfig
from ..data.schema import Row
from ..data.tokenization import encode_prompt
from ..errors import user_error
from ..models import check_model, load_model, load_tokenizer
from ..pipeline import producer
from .summary import mean_estimate, ratio_estimate


def check_kl_reference(config: EvaluateConfig) -> None:
    """Check the model that `kl_reference` names, as far as both models are on this machine.

    Raises:
        UserErrors: It doesn't exist, or has other tokens than the model.
    """
    name = config.kl_reference
    if name is None or (config.dry_run and producer(name) is not None and not Path(name).is_dir()):
        return
    check_model(name, "main", config.trust_remote_code, config.allow_pickle)
    own = config.tokenizer_name_or_path or config.model_name_or_path
    if name != own and (not config.dry_run or Path(own).is_dir()):
        vocabularies = [
            load_tokenizer(place, revision, config.trust_remote_code, None).get_vocab()
            for place, revision in ((name, "main"), (own, config.model_revision))
        ]
        if vocabularies[0] != vocabularies[1]:
            what = f"{name} has other tokens than {own}"
            raise user_error("kl_reference", f"{what}; name a model with the same tokenizer")


def estimate_kl(config: EvaluateConfig, rows: list[Row], responses: list[Row], predictions: list[Row]) -> Row:
    """Estimate KL(π ‖ π_ref) as the mean over the responses of Σ_t log π − log π_ref, at temperature 1, in nats.

    That is unbiased for responses sampled at temperature 1; of greedy ones, it is the log-ratio of the likeliest text.
    Each prediction gets its `log_ratio`.

    Returns:
        `per_response` and `per_token`: each the estimate and the ends of its 95 % interval over responses (t; per token
        that of a ratio, `ratio_estimate`), null of a single one.
    """
    name = config.tokenizer_name_or_path or config.model_name_or_path
    template, system = config.chat_template, config.auto_insert_empty_system_msg
    tokenizer = load_tokenizer(name, config.model_revision, config.trust_remote_code, template, system)
    given = zip(rows, responses, strict=True)
    sequences = [(encode_prompt(tokenizer, row), response["ids"]) for row, response in given]
    reference = replace(config, model_name_or_path=str(config.kl_reference), model_revision="main")
    logps = [sequence_logps(model, sequences, tokenizer.pad_token_id) for model in (config, reference)]
    ratios = [ours - theirs for ours, theirs in zip(*logps, strict=True)]
    for prediction, ratio in zip(predictions, ratios, strict=True):
        prediction["log_ratio"] = round(ratio, 6)
    counts = [len(response) for _, response in sequences]
    found = {"per_response": mean_estimate(ratios), "per_token": ratio_estimate(ratios, counts)}
    return {
        "reference": config.kl_reference,
        "unit": "nats",
        "n": len(ratios),
        **{key: _rounded(estimate[:3]) if estimate else None for key, estimate in found.items()},
    }


def _rounded(values: tuple[float | None, ...]) -> list[float | None]:
    return [None if value is None else round(value, 6) for value in values]


def sequence_logps(
    config: EvaluateConfig, sequences: list[tuple[list[int], list[int]]], pad: int | None
) -> list[float]:
    """Compute Σ log π of each response, given its prompt, with the model of a recipe.

    `batch_size` sequences (token ids of prompt and response) go through the model at once, the longest first.
    """
    import torch
    from accelerate.utils import send_to_device
    from trl.trainer.utils import add_fused_lm_head

    from ..training.collator import DataCollatorForBMC
    from ..training.lm_head import gather_response_tokens, score_tokens, slice_hidden_states

    gc.collect()  # the model before this one
    model: Any = load_model(config)
    add_fused_lm_head(model)
    slice_hidden_states(model)
    collator = DataCollatorForBMC(pad_token_id=pad or 0)
    sums = [0.0] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda place: -sum(map(len, sequences[place])))
    for start in range(0, len(order), config.batch_size):
        places = order[start : start + config.batch_size]
        layout = send_to_device(collator.lay_out([sequences[place] for place in places]), model.device)
        rows = {key: layout[key] for key in ("input_ids", "attention_mask")}
        with torch.no_grad():
            scores = score_tokens(model, layout["predictors"], layout["labels"], **rows)
        for place, logps in zip(places, gather_response_tokens(scores.logps, layout), strict=True):
            sums[place] = float(logps.double().sum())
    return sums
