"""The stage score_tokens: weights of the pairs' response tokens, from the log-probs of two models.

The log-probs are computed by the trainer that will read the weights, so that tokens, template and cut are its own, and
kept in its cache of reference log-probs: a stage that is stopped goes on, and a second method on the same models runs
none.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from ..config import ScoreTokensConfig, names
from ..data.loading import RowStream, load_mixture, to_dataset
from ..data.schema import PAIR, WEIGHTS, Row, check_rows
from ..data.tokenization import check_template
from ..errors import UserError, raise_all, user_error
from ..models import check_model, load_model, load_tokenizer, refuse_typo
from ..pipeline import producer
from ..planning.describe import missing_data
from ..runs import (
    atomic_files,
    check_output_dir,
    claim_output_dir,
    elapsed,
    is_main_process,
    report_disk_errors,
    run_fingerprint,
    write_json,
)
from .collator import REF_COLUMNS
from .config import BMCConfig
from .token_weights import RESPONSES, sepo_weights, tgdpo_weights, tis_weights
from .trainer import BMCTrainer

MODELS = ("model_name_or_path", "ref_model_name_or_path")
COLUMNS = (*PAIR, "tools", "chat_template_kwargs")  # what a trainer tokenises
UNSCORED = "without a preference once tokenised (equal responses, or cut off by max_length)"
Weigh = Callable[[torch.Tensor, int], torch.Tensor]  # log-ratios of a response and its sign → λ


def score_tokens(config: ScoreTokensConfig) -> Row:
    """Run the stage, on every rank, and return what it writes to `stats.json`.

    Raises:
        UserErrors: The pairs, a model, a tokenizer or the folder can't be used.
        Preempted: SIGTERM came; what was computed is kept.
    """
    rows, tokenizer = check(config)
    with report_disk_errors(config.output_dir):
        folder = claim_output_dir(config.output_dir, run_fingerprint(config), config, rows=rows)
        numbered = (
            {key: row.get(key) for key in COLUMNS} | {"id": str(number)} for number, row in enumerate(rows or ())
        )
        pairs = to_dataset(RowStream(numbered), PAIR)
        ours, theirs = (_scored(config, key, pairs, tokenizer) for key in MODELS)
        if not is_main_process():
            return {}
        stats: Row = {"method": config.method, **_write(folder, rows, _weights(ours, theirs, weighting(config)))}
        stats["seconds"] = elapsed()
        write_json(folder / "stats.json", stats)
    return stats


def check(config: ScoreTokensConfig, dry_run: bool = False) -> tuple[RowStream | None, Any]:
    """Load and check pairs and tokenizers, and check the models, before anything is claimed.

    Returns rows and tokenizer, each None where a dry run doesn't find it yet.
    """
    check_output_dir(config.output_dir, run_fingerprint(config))
    there = [key for key in MODELS if not dry_run or Path(getattr(config, key)).is_dir()]
    for key in MODELS:
        name = getattr(config, key)
        if producer(name) is None:  # no recipe makes it
            refuse_typo(key, name)
        if key in there:
            check_model(name, _revision(config, key), config.trust_remote_code, config.allow_pickle)
    named = config.tokenizer_name_or_path or config.model_name_or_path
    tokenizer = None
    if not dry_run or Path(named).is_dir():
        template, system = config.chat_template, config.auto_insert_empty_system_msg
        revision = _revision(config, MODELS[0])
        tokenizer = load_tokenizer(named, revision, config.trust_remote_code, template, system)
        raise_all([*_other_tokenizers(config, there, named, tokenizer)])
    mixture = config.dataset_mixture
    if dry_run and missing_data(mixture.datasets):
        return None, tokenizer
    rows, where = load_mixture(mixture.datasets, mixture.seed), names(mixture.datasets)
    check_rows(rows, PAIR, where)
    if tokenizer is not None:
        check_template(tokenizer, rows, PAIR[1:], where)
    return rows, tokenizer


def _revision(config: ScoreTokensConfig, key: str) -> str:
    return config.model_revision if key == MODELS[0] else "main"


def _other_tokenizers(config: ScoreTokensConfig, keys: list[str], named: str, tokenizer: Any) -> Iterator[UserError]:
    """Yield models whose tokenizer isn't the one whose tokens get weights."""
    for key in keys:
        model = getattr(config, key)
        vocabulary = load_tokenizer(model, _revision(config, key), config.trust_remote_code, None).get_vocab()
        if vocabulary != tokenizer.get_vocab():
            what = f"'{model}' has another tokenizer than '{named}' ({len(vocabulary):,} tokens, {len(tokenizer):,})"
            yield UserError(key, f"{what}; weights are of one tokenizer's tokens, give a model that has it")


def weighting(config: ScoreTokensConfig) -> Weigh:
    """Return the method of a recipe, with its hyperparameters."""
    if config.method == "tis":
        return partial(tis_weights, low=config.tis_low, high=config.tis_high)
    if config.method == "sepo":
        return partial(sepo_weights, share=config.sepo_share)
    return partial(tgdpo_weights, alpha=config.tgdpo_alpha, beta=config.beta)


def _scored(config: ScoreTokensConfig, key: str, pairs: Dataset, tokenizer: Any) -> Dataset:
    """Tokenise the pairs as a training does and add a model's log-probs, `REF_COLUMNS`."""
    settings = BMCConfig(
        output_dir=config.output_dir,
        max_length=config.max_length,
        per_device_train_batch_size=config.batch_size,
        precompute_ref_log_probs=True,
        reference_cache=config.reference_cache,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,  # no autocast: a model runs as it was loaded
        report_to="none",
    )
    gc.collect()  # the model before this one: a trainer is a cycle of references
    named = replace(config, model_name_or_path=getattr(config, key), model_revision=_revision(config, key))
    trainer = BMCTrainer(load_model(named), args=settings, train_dataset=pairs, processing_class=tokenizer)
    found: Any = trainer.train_dataset
    return found.select_columns(["id", "prompt_ids", *RESPONSES, *REF_COLUMNS])


def _weights(ours: Dataset, theirs: Dataset, weigh: Weigh) -> Iterator[Row]:
    """Yield `id` and the weights of each pair: one a response token, 1 for those that no model scored."""
    for one, other in zip(ours, theirs, strict=True):
        found = {"id": one["id"]}
        for column, side, logps, sign in zip(WEIGHTS, RESPONSES, REF_COLUMNS, (1, -1), strict=True):
            ratio = torch.tensor(one[logps]) - torch.tensor(other[logps])
            if not ratio.isfinite().all():
                raise user_error(
                    f"row {int(one['id']) + 1}", "a model gives a token no finite log-prob; take another one"
                )
            first = 0 if one["prompt_ids"] else 1  # nothing predicts the first token of a sequence
            scored = [*[1.0] * first, *weigh(ratio, sign).tolist()]
            found[column] = scored + [1.0] * (len(one[side]) - len(scored))
        yield found


def _write(folder: Path, rows: Any, weights: Iterator[Row]) -> Row:
    """Write the pairs with their weights, and those that training would drop, together; return the counts.

    `weights` are of the pairs that are scored, in their order.
    """
    counts = {"rows": len(rows), "pairs": 0, "dropped": 0}
    sums = {column: [0.0, 0, 0] for column in WEIGHTS}  # Σ λ, tokens with λ = 0, tokens
    scored = next(weights, None)
    with atomic_files(folder / "train.jsonl", folder / "dropped.jsonl") as (train, dropped):
        for number, row in enumerate(rows):
            if scored is None or scored["id"] != str(number):
                counts["dropped"] += 1
                print(json.dumps({**row, "reason": UNSCORED}, ensure_ascii=False), file=dropped)
                continue
            counts["pairs"] += 1
            given = {column: [float(f"{value:.6g}") for value in scored[column]] for column in WEIGHTS}
            print(json.dumps({**row, **given}, ensure_ascii=False), file=train)
            for column, values in given.items():
                found = (sum(values), values.count(0.0), len(values))
                sums[column] = [old + new for old, new in zip(sums[column], found, strict=True)]
            scored = next(weights, None)
    shares = {
        column: {"mean": round(total / count, 4), "zero": round(zero / count, 4)}
        for column, (total, zero, count) in sums.items()
    }
    return counts | shares
