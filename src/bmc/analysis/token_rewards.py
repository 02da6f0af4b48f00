"""Score every token of validation pairs with the trained models, by the code of a training step."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.utils import send_to_device, tqdm
from datasets import Dataset
from pydantic import TypeAdapter
from tokenizers.decoders import DecodeStream

from ..config import AnalyzeConfig, DatasetMixture, InferenceModelArguments, names
from ..data.loading import RowStream, load_mixture, load_split, to_dataset
from ..data.schema import PAIR, Row, check_rows, content, digest, transcript, unbridged
from ..data.tokenization import check_offsets
from ..errors import UserErrors, user_error
from ..evaluation.stats import wilson
from ..evaluation.summary import Estimate
from ..models import check_model, load_model, load_tokenizer
from ..runs import RECIPE_FILE
from ..training.config import BMCConfig
from ..training.token_weights import DIFF_COLUMNS, RESPONSES
from ..training.trainer import BMCTrainer
from .results import Run

logger = logging.getLogger(__name__)

KEPT = (
    "beta", "token_weighting", "bmc_delta", "entropy_share", "position_decay", "rejected_weight", "diff_algorithm",
    "ignore_stop_words", "max_length",
)  # fmt: skip
COLUMNS = ("id", "prompt", "chosen", "rejected", "tools", "chat_template_kwargs")  # what a trainer tokenises
FORMS = ("bridged ", "original ")
NO_VALIDATION = "the runs held no pairs out; name some here, or train with dataset_mixture.test_split_size"


# Validation pairs


class EvalPairs(NamedTuple):
    """Bridged pairs that the runs weren't trained on."""

    rows: list[Row]  # with `id`, and the prompt in a column of its own; as bridging left them
    origin: str  # where they are from, in words
    left_out: int  # how many more there were, whose prompts a run was trained on

    @property
    def prompts(self) -> dict[str, str]:
        """Map id → prompt as plain text."""
        return {row["id"]: transcript(row["prompt"]) for row in self.rows}


def load_eval_pairs(config: AnalyzeConfig, runs: list[Run]) -> EvalPairs:
    """Load the pairs that the recipe names, or else those that the runs' own recipes evaluate on or hold out.

    A pair whose prompt stands in the training data of a run is left out.

    Raises:
        UserErrors: There are none, or they are no bridged pairs.
    """
    mixtures = [mixture_of(run) for run in runs]
    if config.dataset_mixture is not None:
        given = config.dataset_mixture
        found: Iterable[Row] = load_mixture(given.datasets, given.seed)
        origin = names(given.datasets)
    else:
        holding = [mixture for mixture in mixtures if mixture.test_datasets or mixture.test_split_size]
        if not holding:
            raise user_error("dataset_mixture", NO_VALIDATION)
        found, origin = load_split(holding[0])[1] or (), names(holding[0].test_datasets)
        origin = origin or f"{holding[0].test_split_size:g} of {names(holding[0].datasets)}, not trained on"
    rows = [*found]
    check_rows(rows, (*PAIR, "original_chosen"), origin)
    trained = _trained(mixtures)
    kept = [row for row in rows if _key(row) not in trained]
    if not kept:
        raise user_error(
            "validation pairs", f"the prompts of all {len(rows)} pairs of {origin} were trained on; give others"
        )
    if len(kept) < len(rows):
        logger.warning(
            "validation pairs: left out %d of %d, whose prompts were trained on", len(rows) - len(kept), len(rows)
        )
    return EvalPairs(kept, origin, len(rows) - len(kept))


def mixture_of(run: Run) -> DatasetMixture:
    """Return the data that a run was trained on.

    Raises:
        UserErrors: Its `recipe.json` doesn't say.
    """
    try:
        return TypeAdapter(DatasetMixture).validate_python(run.recipe["dataset_mixture"])
    except (KeyError, ValueError):
        raise user_error(str(run.trained / "recipe.json"), "names no dataset_mixture; train the run again") from None


def _trained(mixtures: list[DatasetMixture]) -> set[str]:
    """Return digests of the prompts of all training rows, as far as these are at hand."""
    prompts: set[str] = set()
    for number, mixture in enumerate(mixtures):
        if mixture in mixtures[:number]:
            continue
        try:
            train = load_split(mixture)[0]
        except UserErrors as error:
            logger.warning("validation pairs: can't tell whether they were trained on: %s", error)
            continue
        prompts |= {_key(row) for row in train}
    return prompts


def _key(row: Row) -> str:
    return digest(content(row["prompt"]))


# Token scores


@dataclass(frozen=True)
class TokenScores:
    """The scores of a response, a value a token, as far as `max_length` leaves it."""

    tokens: list[str]  # their texts, which together are the response with what the template puts after it
    logps: list[float]  # log π_θ
    ref_logps: list[float]  # log π_ref
    weights: list[float]  # λ
    kl: list[float]  # KL(π_θ ‖ π_ref) of the distribution that each was drawn from, over the whole vocabulary
    differs: list[bool]  # whether the token is in no common part of the two responses

    def rewards(self, beta: float) -> list[float]:
        """Compute β log π_θ/π_ref of each token (§5.3)."""
        return [beta * (ours - theirs) for ours, theirs in zip(self.logps, self.ref_logps, strict=True)]


PairScores = dict[str, tuple[TokenScores, TokenScores]]  # id → of the chosen and of the rejected response


@dataclass(frozen=True)
class ScoredRun:
    """A run's scores of the validation pairs."""

    run: Run
    beta: float  # β of its recipe
    delta: float | None  # δ of its recipe; None where all its tokens weigh 1
    bridged: PairScores  # the pairs (ỹ_w, y_l)
    originals: PairScores  # the same before bridging, (y_w, y_l)
    # step, and the same two, of each model that was saved before the last step
    saved: list[tuple[int, PairScores, PairScores]]


class Scorer:
    """Score pairs with one reference and one trained model after another.

    Raises:
        UserErrors: A model can't be loaded, or a run's weights λ came with its data.
    """

    def __init__(self, config: AnalyzeConfig, runs: list[Run]) -> None:
        recipe = runs[0].recipe
        if "model_name_or_path" not in recipe:
            raise user_error(str(runs[0].trained / RECIPE_FILE), "names no model_name_or_path; train the run again")
        named = recipe.get("ref_model_name_or_path")
        self.config = config
        self.arguments = InferenceModelArguments(
            model_name_or_path=named or recipe["model_name_or_path"],
            model_revision="main" if named else recipe.get("model_revision", "main"),
            trust_remote_code=recipe.get("trust_remote_code", False),
            dtype=config.dtype,
        )
        for run in runs:
            trainer_config(config, run)
            check_model(str(run.trained), "main", self.arguments.trust_remote_code)
        self.reference = self._load(self.arguments)
        self.tokenizer = load_tokenizer(str(runs[0].trained), "main", self.arguments.trust_remote_code, None)
        check_offsets(self.tokenizer)

    def score(self, run: Run, rows: list[Row]) -> ScoredRun:
        """Score the pairs, before and after bridging, with a run's model and its checkpoints.

        Pairs whose prompt fills `max_length` are left out, as in training.
        """
        settings, originals = trainer_config(self.config, run), [unbridged(row) for row in rows]
        saved = [
            (step, *self._scores(run, rows, originals, folder))
            for step, folder in run.checkpoints()
            if step != run.steps
        ]
        delta = settings.bmc_delta if settings.token_weighting == "bmc" else None
        return ScoredRun(run, settings.beta, delta, *self._scores(run, rows, originals), saved)

    def _scores(
        self, run: Run, rows: list[Row], originals: list[Row], folder: Path | None = None
    ) -> tuple[PairScores, PairScores]:
        """Score with the run's model, or with the one saved in `folder`."""
        gc.collect()  # the model before this one: a trainer is a cycle of references
        where = str(folder or run.trained)
        model = self._load(replace(self.arguments, model_name_or_path=where, model_revision="main"))
        trainer = BMCTrainer(
            model,
            self.reference,
            trainer_config(self.config, run),
            train_dataset=_both_forms(rows, originals),
            processing_class=self.tokenizer,
        )
        name = run.name if folder is None else f"{run.name}/{folder.name}"
        found = self._batches(trainer, name)
        bridged, before = (
            {id.removeprefix(kind): sides for id, sides in found.items() if id.startswith(kind)} for kind in FORMS
        )
        return bridged, before

    def _load(self, arguments: InferenceModelArguments) -> Any:
        check_model(arguments.model_name_or_path, arguments.model_revision, arguments.trust_remote_code)
        return load_model(arguments)

    def _batches(self, trainer: BMCTrainer, name: str) -> PairScores:
        """Score batches of pairs of like length, the longest first, so that a lack of memory shows at once.

        The two forms of a pair are neighbours, so that what they have in common goes through the models once.
        """
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
                chosen, rejected = (
                    self._token_scores(
                        example, side, {key: value[number, side] for key, value in values.items()}, count
                    )
                    for side, count in enumerate(counts[number])
                )
                found[example["id"]] = chosen, rejected
        return {id: found[id] for id in dataset["id"]}

    def _token_scores(self, example: Row, side: int, values: dict[str, torch.Tensor], count: int) -> TokenScores:
        unscored = 0 if example["prompt_ids"] else 1  # nothing predicts the first token of a sequence
        kept = slice(unscored, unscored + count)
        return TokenScores(
            tokens=token_strings(self.tokenizer, example[RESPONSES[side]][kept]),
            differs=example[DIFF_COLUMNS[side]][kept],
            **{key: value[:count].tolist() for key, value in values.items()},
        )


def trainer_config(config: AnalyzeConfig, run: Run) -> BMCConfig:
    """Return a trainer's settings that score a run's tokens as its training did.

    Raises:
        UserErrors: The run's weights λ came with its data.
    """
    if run.recipe.get("token_weighting") == "external":
        what = f"{run.name}'s λ are scores that the training pairs were given, and validation pairs have none"
        raise user_error("runs", f"{what}; leave it out")
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


def token_strings(tokenizer: Any, ids: list[int]) -> list[str]:
    """Return what each token adds to the decoded text; a character of several tokens is the last one's."""
    stream, whole = DecodeStream(skip_special_tokens=False), tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    pieces = [stream.step(tokenizer.backend_tokenizer, token) or "" for token in ids]
    rest = whole[len("".join(pieces)) :]  # of a character that max_length cut
    return [*pieces[:-1], pieces[-1] + rest] if pieces else []


def token_row(row_id: str, prompt: str, sides: tuple[TokenScores, TokenScores], beta: float) -> Row:
    """Format a line of `tokens/RUN.jsonl`; numbers to five digits."""
    chosen, rejected = (
        {
            "tokens": side.tokens,
            "rewards": _rounded(side.rewards(beta)),
            "probabilities": _rounded([math.exp(logp) for logp in side.logps]),
            "weights": _rounded(side.weights),
            "differs": side.differs,
        }
        for side in sides
    )
    return {"id": row_id, "prompt": prompt, "chosen": chosen, "rejected": rejected}


def _rounded(values: list[float]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def _both_forms(rows: list[Row], originals: list[Row]) -> Dataset:
    """Tokenise both forms of each pair, one after the other, with a mark before the id."""
    forms = [form for both in zip(rows, originals, strict=True) for form in zip(FORMS, both, strict=True)]
    named = [{key: row.get(key) for key in COLUMNS} | {"id": f"{kind}{row['id']}"} for kind, row in forms]
    return to_dataset(RowStream(named), PAIR)


def _length(example: Row) -> int:
    return len(example["prompt_ids"]) + max(len(example[side]) for side in RESPONSES)


# Estimates from token scores


def positions_in_span(differs: Sequence[bool]) -> list[int]:
    """Count the tokens within each span of neighbouring differing tokens: 1, 2, …; 0 for one that doesn't differ.

    Example:
        >>> positions_in_span([True, True, False, True])
        [1, 2, 0, 1]
    """
    positions, position = [], 0
    for different in differs:
        position = position + 1 if different else 0
        positions.append(position)
    return positions


def sums_by_position(values: Sequence[float], differs: Sequence[bool]) -> dict[str, tuple[float, int]]:
    """Sum and count the values at `first` and `later` tokens of a response's differing spans (Figure 2)."""
    found = {"first": (0.0, 0), "later": (0.0, 0)}
    for value, position in zip(values, positions_in_span(differs), strict=True):
        if position:
            name = "first" if position == 1 else "later"
            total, count = found[name]
            found[name] = total + value, count + 1
    return found


def reward_accuracy(margins: Sequence[float]) -> Estimate | None:
    """Compute the share in % of pairs whose chosen response has the larger reward (§5.3), with Wilson's interval."""
    if not margins:
        return None
    hits, n = sum(margin > 0 for margin in margins), len(margins)
    low, high = wilson(hits, n)
    return Estimate(100 * hits / n, 100 * low, 100 * high, n)
