"""What a trained model says of held-out pairs, token by token: the numbers of a training step, by its own code."""

from __future__ import annotations

import gc
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device, tqdm
from datasets import Dataset
from tokenizers.decoders import DecodeStream

from ..config import AnalyzeConfig, ModelArguments
from ..data.loading import RowStream, to_dataset
from ..data.schema import PAIR, Row
from ..data.tokenization import check_offsets
from ..errors import fail
from ..models import check_model, load_model, load_tokenizer
from ..runs import RECIPE_FILE
from ..training.config import BMCConfig
from ..training.token_weights import DIFF_COLUMNS, RESPONSES
from ..training.trainer import BMCTrainer
from .trained import Run

KEPT = ("beta", "token_weighting", "bmc_delta", "diff_algorithm", "ignore_stop_words", "max_length")
COLUMNS = ("id", "prompt", "chosen", "rejected", "tools", "chat_template_kwargs")  # what a trainer tokenises
KINDS = ("bridged ", "original ")


@dataclass(frozen=True)
class Side:
    """One response, a value a token, as far as `max_length` leaves it.

    Attributes:
        tokens: Their texts, which together are the response with what the template puts after it.
        logps: log π_θ.
        ref_logps: log π_ref.
        weights: λ.
        kl: KL(π_θ ‖ π_ref) of the distribution that each was drawn from, over the whole vocabulary.
        differs: Whether the token is in no common part of the two responses.
    """

    tokens: list[str]
    logps: list[float]
    ref_logps: list[float]
    weights: list[float]
    kl: list[float]
    differs: list[bool]

    def rewards(self, beta: float) -> list[float]:
        """β log π_θ/π_ref of each token (§5.3)."""
        return [beta * (ours - theirs) for ours, theirs in zip(self.logps, self.ref_logps, strict=True)]


Scores = dict[str, tuple[Side, Side]]  # id → winner and loser


@dataclass(frozen=True)
class Scored:
    """A run's scores of the held-out pairs.

    Attributes:
        run: The run.
        beta: β of its recipe.
        delta: δ of its recipe; None where all its tokens weigh 1.
        bridged: The pairs (ỹ_w, y_l).
        originals: The same before bridging, (y_w, y_l).
        saved: Step, and the same two, of each model that was saved before the last step.
    """

    run: Run
    beta: float
    delta: float | None
    bridged: Scores
    originals: Scores
    saved: list[tuple[int, Scores, Scores]]


class Scorer:
    """Scores pairs with one reference and one trained model after another.

    Args:
        config: The analysis'.
        runs: With their models, which have the reference in common.

    Raises:
        Faults: A model can't be loaded, or a run's weights λ came with its data.
    """

    def __init__(self, config: AnalyzeConfig, runs: list[Run]) -> None:
        recipe = runs[0].recipe
        if "model_name_or_path" not in recipe:
            raise fail(str(runs[0].folder / RECIPE_FILE), "names no model_name_or_path; train the run again")
        self.config = config
        self.arguments = ModelArguments(
            model_name_or_path=recipe["model_name_or_path"],
            model_revision=recipe.get("model_revision", "main"),
            trust_remote_code=recipe.get("trust_remote_code", False),
            dtype=config.dtype,
        )
        for run in runs:
            trainer_config(config, run)
            check_model(str(run.folder), "main", self.arguments.trust_remote_code)
        self.reference = self._load(self.arguments)
        self.tokenizer = load_tokenizer(str(runs[0].folder), "main", self.arguments.trust_remote_code, None)
        check_offsets(self.tokenizer)

    def score(self, run: Run, rows: list[Row], originals: list[Row]) -> Scored:
        """All that is needed of a run.

        Args:
            run: The run.
            rows: Bridged pairs. Those whose prompt fills `max_length` are left out, as in training.
            originals: The same before bridging.
        """
        settings = trainer_config(self.config, run)
        saved = [
            (step, *self._scores(run, rows, originals, folder)) for step, folder in run.saved() if step != run.steps
        ]
        delta = settings.bmc_delta if settings.token_weighting == "bmc" else None
        return Scored(run, settings.beta, delta, *self._scores(run, rows, originals), saved)

    def _scores(
        self, run: Run, rows: list[Row], originals: list[Row], folder: Path | None = None
    ) -> tuple[Scores, Scores]:
        """By the run's model, or by the one that was saved in `folder`."""
        gc.collect()  # the model before this one: a trainer is a cycle of references
        where = str(folder or run.folder)
        model = self._load(replace(self.arguments, model_name_or_path=where, model_revision="main"))
        trainer = BMCTrainer(
            model,
            self.reference,
            trainer_config(self.config, run),
            train_dataset=_pairs(rows, originals),
            processing_class=self.tokenizer,
        )
        name = run.name if folder is None else f"{run.name}/{folder.name}"
        found = self._batches(trainer, name)
        bridged, before = (
            {id.removeprefix(kind): sides for id, sides in found.items() if id.startswith(kind)} for kind in KINDS
        )
        return bridged, before

    def _load(self, arguments: ModelArguments) -> Any:
        check_model(arguments.model_name_or_path, arguments.model_revision, arguments.trust_remote_code)
        return load_model(arguments)

    def _batches(self, trainer: BMCTrainer, name: str) -> Scores:
        """Batches of pairs of like length, the longest first, so that memory is known to suffice at once. The two forms
        of a pair are neighbours, so that what they have in common goes through the models once."""
        dataset: Any = trainer.train_dataset
        size, found = self.config.batch_size, {}
        lengths = [_length(example) for example in dataset]
        order = sorted(
            range(len(dataset)), key=lambda place: (-max(lengths[place // 2 * 2 : place // 2 * 2 + 2]), place)
        )
        for start in tqdm(range(0, len(order), size), desc=f"Scoring pairs with {name}"):
            examples = [dataset[place] for place in order[start : start + size]]
            inputs = send_to_device(trainer.data_collator(examples), trainer.accelerator.device)
            values = {key: value.float().cpu() for key, value in trainer.token_scores(inputs).items()}
            counts = inputs["response_mask"].sum(dim=-1).tolist()
            for number, example in enumerate(examples):
                winner, loser = (
                    self._side(example, side, {key: value[number, side] for key, value in values.items()}, count)
                    for side, count in enumerate(counts[number])
                )
                found[example["id"]] = winner, loser
        return {id: found[id] for id in dataset["id"]}

    def _side(self, example: Row, side: int, values: dict[str, torch.Tensor], count: int) -> Side:
        unscored = 0 if example["prompt_ids"] else 1  # nothing predicts the first token of a sequence
        kept = slice(unscored, unscored + count)
        return Side(
            tokens=texts(self.tokenizer, example[RESPONSES[side]][kept]),
            differs=example[DIFF_COLUMNS[side]][kept],
            **{key: value[:count].tolist() for key, value in values.items()},
        )


def trainer_config(config: AnalyzeConfig, run: Run) -> BMCConfig:
    """A trainer's settings that score a run's tokens as its training did.

    Raises:
        Faults: The run's weights λ came with its data.
    """
    if run.recipe.get("token_weighting") == "external":
        what = f"{run.name}'s λ are scores that an LLM gave the training pairs, and held-out pairs have none"
        raise fail("runs", f"{what}; leave it out")
    return BMCConfig(
        **{key: run.recipe[key] for key in KEPT if key in run.recipe},
        output_dir=config.output_dir,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        precompute_ref_log_probs=False,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,  # no autocast: the models run as they were loaded
        report_to="none",
    )


def texts(tokenizer: Any, ids: list[int]) -> list[str]:
    """What each token adds to the decoded text; a character of several tokens is the last one's."""
    stream, whole = DecodeStream(skip_special_tokens=False), tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    pieces = [stream.step(tokenizer.backend_tokenizer, token) or "" for token in ids]
    rest = whole[len("".join(pieces)) :]  # of a character that max_length cut
    return [*pieces[:-1], pieces[-1] + rest] if pieces else []


def token_row(row_id: str, prompt: str, sides: tuple[Side, Side], beta: float) -> Row:
    """A line of `tokens/RUN.jsonl`; numbers to five digits."""
    winner, loser = (
        {
            "tokens": side.tokens,
            "rewards": _rounded(side.rewards(beta)),
            "probabilities": _rounded([math.exp(logp) for logp in side.logps]),
            "weights": _rounded(side.weights),
            "differs": side.differs,
        }
        for side in sides
    )
    return {"id": row_id, "prompt": prompt, "chosen": winner, "rejected": loser}


def _rounded(values: list[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def _pairs(rows: list[Row], originals: list[Row]) -> Dataset:
    """Both forms of each pair, one after the other, with a mark before the id."""
    forms = [form for both in zip(rows, originals, strict=True) for form in zip(KINDS, both, strict=True)]
    named = [{key: row.get(key) for key in COLUMNS} | {"id": f"{kind}{row['id']}"} for kind, row in forms]
    return to_dataset(RowStream(named), PAIR)


def _length(example: Row) -> int:
    return len(example["prompt_ids"]) + max(len(example[side]) for side in RESPONSES)
