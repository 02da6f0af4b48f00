"""The recipe of every stage that needs no trainer, as dataclasses. No torch here.

The training stages' recipes build on TRL's configs and live in `bmc.training.config`, so that the stages below
answer `--help` and recipe errors at once.

A class may define `faults()`, which yields `(key, what is wrong)` for whatever must hold beyond its fields' types.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from .llm import address

GpuName = Literal[
    "A800-80GB", "A100-80GB", "A100-40GB", "H100-80GB", "H200-141GB", "L40S-48GB", "RTX4090-24GB", "RTX3090-24GB"
]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
STRICT: Any = {"extra": "forbid"}


def seed_numbers(given: list[int] | int | str | None) -> list[int]:
    """Read seeds as a recipe or a command line has them: `[1, 2, 3]`, 1, `1,2,3`.

    Raises:
        ValueError: They aren't whole numbers from 0, each once; the message says so.
    """
    try:
        numbers = list(map(int, given if isinstance(given, list) else str(given).split(",")))
    except (ValueError, TypeError):
        numbers = []
    if not numbers or min(numbers) < 0:
        raise ValueError(f"must be whole numbers from 0, as in 1,2,3, got {given}")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"each once, got {given}")
    return numbers


@dataclass(kw_only=True)
class DatasetConfig:
    """One data set of a mixture; the handbook's keys, plus `source` and `num_rows`.

    Attributes:
        id: Hub id, or path of a JSONL, JSON, CSV or Parquet file (`.gz` too) or of a folder with a split's files, as
            `train.jsonl` or as the Hub lays them out (`data/train-00000-of-00001.parquet`).
        source: A loader of `bmc.data.registry` that turns raw rows into ours; none for rows that are ours already.
        config: The Hub data set's configuration, or a generator's parameters (`source: reasoning_gym`).
        split: Split to read.
        columns: Columns to keep, all of them by default; or what to call them here, `{prompt: question, chosen: …}`.
            With corrections and ratings, what the source is to read, `{prompt: question, answer: …, correction: …}`;
            others stay.
        pair_rule: Which pairs to make of rated or ranked responses: the best and the worst (`largest_gap`), a worse
            one drawn with the mixture's seed (`random`), each worse one (`all`). Responses of the same score make no
            pair; where several are the best, the first is y_w.
        edit_split: "k/n": only the k-th of n equal splits of the pairs by rising edit distance (Figure 5).
        weight: Share of the rows to take, after `edit_split`, drawn with the mixture's seed.
        num_rows: Rows to take at the most, after `weight`; for a generator, the rows to generate.
        use_review: What the decisions of `bmc review` leave of a bridging run's `train.jsonl`: pairs that were
            `accepted` or corrected; or those that were `not_rejected`, with corrections. A row that one of several
            reviewers rejects is rejected.
    """

    id: str | None = None
    source: str | None = None
    config: str | dict[str, Any] | None = None
    split: str = "train"
    columns: list[str] | dict[str, str] | None = None
    pair_rule: Literal["largest_gap", "random", "all"] = "largest_gap"
    edit_split: str | None = None
    weight: Fraction = 1.0
    num_rows: Positive | None = None
    use_review: Literal["accepted", "not_rejected"] | None = None

    __pydantic_config__ = STRICT

    def faults(self) -> Iterator[tuple[str, str]]:
        from .data.registry import DATASETS
        from .errors import did_you_mean

        if self.id is None and self.source is None:
            yield "id", "is missing; give a Hub id, a file, or a `source`"
        if self.source is not None and self.source not in DATASETS:
            hint = did_you_mean(self.source, list(DATASETS))
            yield "source", f"'{self.source}' is unknown{hint}; choose from {', '.join(DATASETS)}"
        elif self.pair_rule != "largest_gap" and (self.source is None or DATASETS[self.source].kind != "ratings"):
            rated = ", ".join(name for name, spec in DATASETS.items() if spec.kind == "ratings")
            yield "pair_rule", f"only ratings are read by it; leave it out, or set source to one of {rated}"
        split = re.fullmatch(r"([1-9][0-9]*)/([1-9][0-9]*)", "1/1" if self.edit_split is None else self.edit_split)
        if not split or int(split[1]) > int(split[2]):
            yield "edit_split", f"'{self.edit_split}' is no split; write k/n with 1 ≤ k ≤ n, as in 2/6"
        if self.use_review is not None and (
            self.source is not None
            or self.split != "train"
            or Path(self.id or "train.jsonl").suffix not in ("", ".jsonl")
        ):
            what = "is for the train.jsonl of a bridging run; leave it out, or give that file alone as `id`"
            yield "use_review", what


def names(datasets: list[DatasetConfig]) -> str:
    """Say what to call data sets in a message."""
    return ", ".join(dataset.id or dataset.source or "" for dataset in datasets)


@dataclass(kw_only=True)
class DatasetMixture:
    """Data sets to read and concatenate, shuffled with `seed`.

    Attributes:
        datasets: The parts.
        test_datasets: Data to evaluate on; never mixed, weighted or shuffled.
        test_split_size: Rows (1 or more) or share (below 1) of `datasets` held out for evaluation while training.
        seed: Decides which rows `weight`, `num_rows` and `test_split_size` take, and their order.
    """

    datasets: list[DatasetConfig] = field(default_factory=list)
    test_datasets: list[DatasetConfig] = field(default_factory=list)
    test_split_size: Annotated[float, Field(gt=0)] | None = None
    seed: int = 0

    __pydantic_config__ = STRICT

    def faults(self) -> Iterator[tuple[str, str]]:
        if not self.datasets:
            yield "datasets", "is empty; list at least one data set"
        size = self.test_split_size
        if size is not None and self.test_datasets:
            yield "test_split_size", "there are test_datasets already; give one of the two"
        if size is not None and size >= 1 and size != int(size):
            yield "test_split_size", f"is {size:g}; give a whole number of rows, or a share below 1"
        for name in ("datasets", "test_datasets"):
            for index, dataset in enumerate(getattr(self, name)):
                for key, what in dataset.faults():
                    yield f"{name}[{index}].{key}", what


@dataclass(kw_only=True)
class DataArguments:
    """What every stage that reads data shares.

    Attributes:
        dataset_mixture: The data to read.
        chat_template: Path of a Jinja file, relative to the recipe that names it; a template itself; or the
            tokenizer's own.
        auto_insert_empty_system_msg: Begin conversations without a system turn with an empty one, where the chat
            template speaks of the system, as the handbook did. A recipe with `dataset_mixer` has it by default.
    """

    dataset_mixture: DatasetMixture = field(default_factory=DatasetMixture)
    chat_template: str | None = None
    auto_insert_empty_system_msg: bool = False


@dataclass(kw_only=True)
class InferenceModelArguments:
    """Which model a stage runs; names as in `trl.ModelConfig`.

    Attributes:
        model_name_or_path: A Hub id or a folder.
        model_revision: Branch, tag or commit of a Hub model.
        tokenizer_name_or_path: Tokenizer, if not the model's own.
        dtype: In which the model runs; `auto`: as it is stored.
        attn_implementation: Attention kernel, as transformers name it; its choice by default.
        trust_remote_code: Let code from the model's repository run; a model that wants it is refused otherwise.
        allow_pickle: Load weights that are pickled (`pytorch_model.bin`), which may run any code; safetensors alone by
            default.
        gpu: Card that the plan of a dry run is for.
    """

    NON_IDENTITY_KEYS: ClassVar = {"allow_pickle", "gpu"}

    model_name_or_path: str
    model_revision: str = "main"
    tokenizer_name_or_path: str | None = None
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False
    gpu: GpuName = "A800-80GB"


@dataclass(kw_only=True)
class GenerationArguments:
    """How responses are generated; names as in transformers' `GenerationConfig`.

    Attributes:
        backend: `transformers`, or `vllm` (extra `vllm`).
        max_new_tokens: Tokens a response may have; one that is cut off there counts as it stands.
        temperature: 0 is greedy.
        top_p: Nucleus sampling's p.
        batch_size: Prompts a batch, of similar length; for vLLM, the most that are under way at once.
        seed: Seed of the sampling.
        data_parallel_size: Processes that share the rows out, each with a model (and GPUs) of its own. The stage starts
            them, where no launcher has; a launcher's number holds.
        tensor_parallel_size: GPUs that share one of vLLM's models.
    """

    NON_IDENTITY_KEYS: ClassVar = {"batch_size", "data_parallel_size", "tensor_parallel_size"}

    backend: Literal["transformers", "vllm"] = "transformers"
    max_new_tokens: Positive = 512
    temperature: Annotated[float, Field(ge=0.0)] = 0.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    batch_size: Positive = 32
    seed: int = 42
    data_parallel_size: Positive = 1
    tensor_parallel_size: Positive = 1

    def decoding(self, source: str | None) -> GenerationArguments:
        """Return how responses to the prompts of a data set are generated: all alike, but in an evaluation."""
        return self

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.tensor_parallel_size > 1 and self.backend != "vllm":
            yield "tensor_parallel_size", "only backend: vllm reads it; leave it out, or set that backend"


@dataclass(kw_only=True)
class StageArguments:
    """What every stage shares.

    Attributes:
        output_dir: Folder that the stage writes.
        dry_run: Check everything that can be checked without weights or money, print the plan and stop.
    """

    output_dir: str
    dry_run: bool = False


@dataclass(kw_only=True)
class TinyModelConfig(StageArguments, DataArguments):
    """Recipe of `scripts/tiny_model.py`: a randomly initialised Llama and a tokenizer trained on the rows.

    Attributes:
        vocab_size: Tokens of the tokenizer at the most; each digit is one.
        hidden_size: Width of the model.
        intermediate_size: Width of its feed-forward layers; four times hidden_size by default.
        num_hidden_layers: Layers.
        num_attention_heads: Attention heads.
        max_position_embeddings: Context in tokens.
        seed: Of the weights.
    """

    STAGE: ClassVar = "tiny_model"

    vocab_size: Annotated[int, Field(ge=300)] = 512
    hidden_size: Positive = 128
    intermediate_size: Positive | None = None
    num_hidden_layers: Positive = 4
    num_attention_heads: Positive = 4
    max_position_embeddings: Positive = 512
    seed: int = 0


@dataclass(kw_only=True)
class LabConfig(StageArguments):
    """Recipe of `scripts/lab.py`: which methods are trained on which generated task, with which seeds.

    Attributes:
        recipes: Folder of the recipes of the task's stages and methods.
        sft_seeds: One SFT model each, with data, weights and samples of its own.
        seeds: Each method is trained once with each of these on the pairs of each SFT model.
        methods: Recipe names, and values over the recipe's: lists of values span a grid; several grids stand in a
            list. `pairs` names the bridging whose pairs are trained on (`bridge` by default).
        stages: Values over the recipes of prepare, model, sft, sample and eval, and over those of all methods (`base`).
        bridges: Bridgings by name, and values over the recipe bridge.yaml.
        split: Rows that are scored: `validation` to choose hyperparameters, `test` to report.
        held_out_rows: Validation rows that held-out pairs are sampled from; 0 for none.
        units: Folder of the models and pairs, which studies may share; output_dir by default.
        workers: Units that run side by side.
        unit: Run only this SFT seed, in this process.
    """

    STAGE: ClassVar = "lab"

    recipes: str
    sft_seeds: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    seeds: list[int] = field(default_factory=lambda: [1, 2])
    methods: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    bridges: dict[str, dict[str, Any]] = field(default_factory=lambda: {"bridge": {}})
    split: Literal["validation", "test"] = "test"
    held_out_rows: Annotated[int, Field(ge=0)] = 400
    units: str | None = None
    workers: Positive = 2
    unit: int | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        for key in ("sft_seeds", "seeds", "bridges"):
            if not getattr(self, key):
                yield key, "is empty; give at least one"
        for key, names in (("methods", list(self.methods)), ("stages", list(self.stages))):
            for name in names:
                if not Path(self.recipes, f"{name}.yaml").is_file():
                    yield f"{key}.{name}", f"has no recipe {self.recipes}/{name}.yaml; write one, or leave it out"
        for name, grids in self.methods.items():
            for grid in grids if isinstance(grids, list) else [grids]:
                if not isinstance(grid, dict):
                    yield f"methods.{name}", "must be a mapping of keys to values, as in {beta: [0.1, 1.0]}"
                    continue
                pairs = grid.get("pairs", next(iter(self.bridges), ""))
                for bridging in pairs if isinstance(pairs, list) else [pairs]:
                    if bridging not in self.bridges:
                        yield f"methods.{name}.pairs", f"'{bridging}' is none of bridges: {', '.join(self.bridges)}"


@dataclass(kw_only=True)
class PrepareConfig(StageArguments, DataArguments):
    """Recipe of `scripts/prepare.py`: raw data → `train.jsonl`, `validation.jsonl`, `test.jsonl`.

    `dataset_mixture.test_datasets` are the benchmarks; a training row whose prompt stands in one of them is left out.

    Attributes:
        validation_fraction: Share of the training prompts held out, chosen by the hash of the prompt.
        validation_datasets: Data sets to validate on instead, so that no training row is held out; rows whose prompt
            stands in the training data or in a benchmark are left out.
    """

    STAGE: ClassVar = "prepare"

    validation_fraction: Fraction = 0.0
    validation_datasets: list[DatasetConfig] = field(default_factory=list)

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.validation_datasets and self.validation_fraction:
            yield "validation_fraction", "there are validation_datasets already; give one of the two"
        for index, dataset in enumerate(self.validation_datasets):
            for key, what in dataset.faults():
                yield f"validation_datasets[{index}].{key}", what


@dataclass(kw_only=True)
class SampleConfig(GenerationArguments, StageArguments, DataArguments, InferenceModelArguments):
    """Recipe of `scripts/sample.py`: the SFT model's own outputs as y_l, the ground truth as y_w (§4).

    y_w is a row's `completion`, or its chosen response (`original_chosen` where the data are bridged, else `chosen`).

    Attributes:
        mode: `respond` to the prompt; or `continue_prefix`, DPO (CW): y_l is the beginning of y_w and what the model
            makes of it.
        prefix_fraction: Share of y_w's tokens that `continue_prefix` leaves as the beginning.
    """

    STAGE: ClassVar = "sample"

    mode: Literal["respond", "continue_prefix"] = "respond"
    prefix_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5

    @staticmethod
    def value_faults(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        if "prefix_fraction" in values and values.get("mode", "respond") != "continue_prefix":
            yield "prefix_fraction", "only mode: continue_prefix reads it; leave it out, or set that mode"


@dataclass(kw_only=True)
class Price:
    """What a model's tokens cost.

    Attributes:
        input: Dollars per million tokens of requests.
        output: Dollars per million tokens of responses.
    """

    input: Annotated[float, Field(ge=0.0)]
    output: Annotated[float, Field(ge=0.0)]

    __pydantic_config__ = STRICT


@dataclass(kw_only=True)
class LLMArguments:
    """How requests are sent to an LLM, and what they may cost (`bmc.llm`).

    Attributes:
        model: Model name at the endpoint; for a model in this process its Hub id or folder.
        base_url: Endpoint; by default that of the environment variable OPENAI_BASE_URL, or OpenAI's own. A query in it
            (`?api-version=…`) goes with every request.
        api_key_env: Environment variable that holds the API key, which never stands in a recipe.
        temperature: Sampling temperature; null leaves it out of the request, for models that accept only their own.
        max_tokens: Most tokens of a response.
        max_tokens_parameter: The endpoint's name for that limit; newer OpenAI models accept only
            `max_completion_tokens`.
        max_concurrency: Requests in flight at once; for a model in this process, the largest batch.
        requests_per_minute: Most requests per minute.
        tokens_per_minute: Most tokens per minute, prompt and completion together.
        max_retries: Retries after a retryable error of the endpoint.
        max_retry_wait: Seconds; an endpoint that asks to wait longer (`Retry-After`) ends the run.
        max_unusable_responses: Billed responses to one request without a completion (no choices, no JSON), in earlier
            runs too, after which it is given up.
        timeout: Most seconds of a request.
        prices: Model → dollars per million tokens, `{input: …, output: …}`.
        max_cost_usd: Cost cap in dollars of the run's rows, earlier runs included. A request is sent only if its
            longest possible response fits beside those in flight, so the cap is never exceeded; the run stops there
            with every response cached.
        batch_api: Use OpenAI's Batch API: half the price, within a day.
        batch_timeout: Hours after which a batch that hasn't ended is cancelled; its responses are cached, the rest is
            sent once more.
        yes: Don't ask on a terminal whether to go on after the cost estimate.
        response_cache: An SQLite file; by default `responses.sqlite` beside output_dir, so that all runs of a
            model/task share it.
    """

    model: str = "gpt-4-0125-preview"
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = 0.0
    max_tokens: Positive = 2048
    max_tokens_parameter: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    max_concurrency: Positive = 16
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    tokens_per_minute: Annotated[float, Field(gt=0)] | None = None
    max_retries: Annotated[int, Field(ge=0)] = 6
    max_retry_wait: Annotated[float, Field(ge=0)] = 600.0
    max_unusable_responses: Positive = 3
    timeout: Annotated[float, Field(gt=0)] = 120.0
    prices: dict[str, Price] = field(default_factory=dict)
    max_cost_usd: Annotated[float, Field(ge=0)] | None = None
    batch_api: bool = False
    batch_timeout: Annotated[float, Field(gt=0)] = 30.0
    yes: bool = False
    response_cache: str | None = None

    NON_IDENTITY_KEYS: ClassVar = {
        "base_url", "api_key_env", "max_concurrency", "requests_per_minute", "tokens_per_minute", "max_retries",
        "max_retry_wait", "max_unusable_responses", "timeout", "prices", "max_cost_usd", "batch_api", "batch_timeout",
        "yes", "response_cache",
    }  # fmt: skip

    def request(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        """Return a request of the chat-completions protocol; with the prompts' version it is the cache key, too."""
        sampling = {} if self.temperature is None else {"temperature": self.temperature}
        return {"model": self.model, "messages": messages, **sampling, self.max_tokens_parameter: self.max_tokens}

    @property
    def endpoint(self) -> str | None:
        """The endpoint without secrets; None for a model in this process."""
        return address.endpoint_name(self.base_url)

    def lacks(self, response: dict[str, Any]) -> str | None:
        """Say what a response to such a request lacks, if anything."""
        return None

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.endpoint is not None and (wrong := address.address_fault(self.base_url)):
            yield "base_url", wrong
        if self.max_cost_usd is not None and self.model not in self.prices:
            what = f"has no price for {self.model}, which max_cost_usd needs; give input and output, in dollars"
            yield "prices", f"{what} a million tokens"


OFFLINE = ("rules", "ideal", "sloppy", "person")  # editors that ask no model
BridgeMode = Literal["targeted", "without_reference", "degrade", "fresh", "polish", "token_scores"]


@dataclass(kw_only=True)
class ValidatorSettings:
    """What an edit must be before it is trained on (`bmc.bridging.validators`). "Made of" is y_l, or y_w for `degrade`
    and `polish`; lengths and distances are in characters, edit ratios as in the data (0: equal, 1: nothing in common).

    Attributes:
        min_chars: Characters that an edit has at the least, whitespace around it aside.
        min_edit_ratio: An edit this close to the response that it is to stand against (0: equal) is the same; white
            space doesn't count.
        max_edit_ratio: An edit further than this from what it was made of is a rewrite, unless no more than this
            share of the words that it was made of is lost; 1 allows everything.
        copy_edit_ratio: An edit this close to the response that it was to learn from is a copy of it, …
        copy_min_original_ratio: … where y_w and y_l differ by more than this; where they differ by less, editing a few
            words may well end there. 1 allows copies.
        short_words: What was made of so few words may be replaced whole: no rewrite, copy or drift there. In scripts
            without spaces each character is a word.
        min_length_ratio: Length of an edit over that of the shorter of what it was made of and what it was to learn
            from, at the least; 0 allows everything.
        max_length_ratio: The same over the longer, at the most; null allows everything.
        refusal_window: Characters at the start in which a refusal ("I'm sorry, but I can't help …") counts; 0 allows
            refusals. Where y_w or y_l refuses, an edit may.
        meta_window: Characters at the start and at the end in which talk about the edit ("Here is the revised
            response") counts; 0 allows it. What y_w or y_l says is no such talk.
        cut_off: Reject responses that reached `max_tokens`.
        final_answer: Check the final answer of QA and math rows against `answer`; where the verdict is "good", y_l's.
        delimiters: Reject the prompt's own tags, special tokens of chat templates and diff marks (`~~old~~`) that are
            in none of x, y_w, y_l.
    """

    min_chars: Positive = 1
    min_edit_ratio: Fraction = 0.0
    max_edit_ratio: Fraction = 0.6
    copy_edit_ratio: Fraction = 0.02
    copy_min_original_ratio: Fraction = 0.3
    short_words: Annotated[int, Field(ge=0)] = 3
    min_length_ratio: Fraction = 0.5
    max_length_ratio: Annotated[float, Field(ge=1.0)] | None = 2.0
    refusal_window: Annotated[int, Field(ge=0)] = 200
    meta_window: Annotated[int, Field(ge=0)] = 200
    cut_off: bool = True
    final_answer: bool = True
    delimiters: bool = True

    __pydantic_config__ = STRICT


@dataclass(kw_only=True)
class BridgeConfig(LLMArguments, StageArguments, DataArguments):
    """Recipe of `scripts/bridge.py`: (x, y_w, y_l) → (x, ỹ_w, y_l) (§3.1, Eq. 1), or what it is compared with.

    Pairs that were bridged before are taken as they were then: (x, y_w, y_l).

    Attributes:
        editor: `openai` (any OpenAI-compatible endpoint), `vllm` (extra `vllm`) or `transformers` (a model in this
            process), or `rules` (offline, closed tasks; `targeted` and `token_scores` only). `ideal` takes the right
            response nearest to y_l from the column `solutions`, and `sloppy` does so with the two faults below
            (`targeted` only; for experiments with generated data). `person`: y_w is what a person made of y_l, and is
            validated like an LLM's edit; so it is with `source: corrections` whatever else is left out.
        editor_error_rate: Share of the pairs in which `sloppy` edits only half of what is wrong. Its final answers
            are wrong then: set `validators.final_answer` to false to keep them.
        editor_rewrite_rate: Share of the pairs in which `sloppy` takes the farthest right response instead.
        mode: What the editor does. `targeted`: y_l → ỹ_w with y_w as reference, the method. Table 3:
            `without_reference`, y_l → ỹ_w without y_w; `degrade`, y_w → ỹ_l, where y_l is wrong, for (y_w, ỹ_l).
            Controls: `fresh`, the editor's own answer to x as ỹ_w; `polish`, y_w → ỹ_w. DPO (EW): `token_scores`, no
            edit, but a weight for each token of (y_w, y_l), by the editor's scores of its words. `targeted` shows a
            row's column `feedback`, a note on what is wrong with y_l: beside y_w, or in its place where the data have
            no `chosen`.
        template: Prompt of a model: `closed` is for QA and math and asks first whether y_l needs an edit,
            where the editor sees both y_l and y_w; `instruction` does not.
        proportion: Share of the pairs to bridge, chosen by the hash of the id, so that 20 % lies within 40 %
            (Figure 3); the rest keep (y_w, y_l).
        on_failure: What becomes of a pair that the editor failed: `drop` it with the reason, or `keep_original`, (y_w,
            y_l) with `bridged` false. A pair that needs no edit is dropped either way.
        rationale: Ask for two sentences on what is wrong with y_l before the edit, as CLAIR does (arXiv 2408.06266).
            They are kept in the column `rationale` and never trained on.
        limit: Try only the first so many pairs.
        tokenizer_name_or_path: Tokenizer of the model to be trained, whose tokens `token_scores` weighs (by
            `chat_template`, if that is not the tokenizer's own).
        validators: What an edit must be before it is trained on.
        similarity_model: Sentence-embedding model (a Hub id or a folder; extra `embeddings`) by which `stats.json`
            tells the cosine similarity of (y_w, ỹ_w) and (ỹ_w, y_l) too.
    """

    STAGE: ClassVar = "bridge"

    NON_IDENTITY_KEYS: ClassVar = LLMArguments.NON_IDENTITY_KEYS | {"similarity_model"}

    editor: Literal["openai", "vllm", "transformers", "rules", "ideal", "sloppy", "person"] = "openai"
    editor_error_rate: Fraction = 0.0
    editor_rewrite_rate: Fraction = 0.0
    mode: BridgeMode = "targeted"
    template: Literal["closed", "instruction"] = "closed"
    proportion: Fraction = 1.0
    on_failure: Literal["drop", "keep_original"] = "drop"
    rationale: bool = False
    limit: Positive | None = None
    tokenizer_name_or_path: str | None = None
    validators: ValidatorSettings = field(default_factory=ValidatorSettings)
    similarity_model: str | None = None

    def __post_init__(self) -> None:
        if self.editor == "openai" and all(self._corrected()) and self._corrected():
            self.editor = "person"

    def _corrected(self) -> list[bool]:
        """Tell of each data set whether it holds a person's corrections."""
        from .data.registry import DATASETS

        sources = [DATASETS.get(dataset.source or "") for dataset in self.dataset_mixture.datasets]
        return [source is not None and source.kind == "corrections" for source in sources]

    @property
    def endpoint(self) -> str | None:
        return super().endpoint if self.editor == "openai" else None

    @staticmethod
    def value_faults(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        named = values.get("editor", "person")
        datasets = getattr(values.get("dataset_mixture"), "datasets", [])
        if named != "person" and any(dataset.source == "corrections" for dataset in datasets):
            instead = "for an LLM's edits leave out `source`, with columns: {prompt: …, chosen: …, rejected: …}"
            yield "editor", f"is {named}, but corrections are a person's edits; leave it out, or {instead}"

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        if self.temperature is None and self.editor in ("transformers", "vllm"):
            yield "temperature", f"is null, which editor: {self.editor} can't leave out; write 0.0"
        if self.batch_api and self.editor != "openai":
            yield "batch_api", f"editor: {self.editor} has no Batch API; leave it out, or set editor: openai"
        if self.editor != "person" and any(self._corrected()):
            what = "holds corrections and other pairs; bridge the corrections in a recipe of their own"
            yield "dataset_mixture", f"{what}, and train on both train.jsonl"
        if self.editor == "person" and self.proportion < 1:
            yield "proportion", "editor: person has only bridged pairs; leave it out"
        if self.rationale and (self.editor in OFFLINE or self.mode in ("fresh", "token_scores")):
            what = f"editor: {self.editor}" if self.editor in OFFLINE else f"mode: {self.mode}"
            yield "rationale", f"{what} can't say what is wrong with y_l; leave it out"
        if self.editor in ("ideal", "sloppy", "person") and self.mode != "targeted":
            yield "mode", f"editor: {self.editor} can't do {self.mode}; choose mode: targeted"
        for key in ("editor_error_rate", "editor_rewrite_rate"):
            if getattr(self, key) and self.editor != "sloppy":
                yield key, f"editor: {self.editor} doesn't read it; leave it out, or set editor: sloppy"
        if self.editor == "rules" and self.mode not in ("targeted", "token_scores"):
            yield "mode", f"editor: rules can't do {self.mode}; choose mode: targeted, or editor: openai"
        scores = self.mode == "token_scores"
        if scores and self.tokenizer_name_or_path is None:
            yield "tokenizer_name_or_path", "is missing; token_scores weighs the tokens of the model to be trained"
        if not scores and self.tokenizer_name_or_path is not None:
            yield "tokenizer_name_or_path", f"mode: {self.mode} doesn't read it; leave it out"
        if scores and self.proportion < 1:
            yield "proportion", "token_scores bridges no pairs; leave it out"


@dataclass(kw_only=True)
class ScoreTokensConfig(StageArguments, DataArguments, InferenceModelArguments):
    """Recipe of `scripts/score_tokens.py`: pairs → the same with `chosen_weights` and `rejected_weights`, λ of each
    response token, from the log-probs of two models; for `token_weighting: external`.

    Attributes:
        method: `tis` (the clipped exponential of the log-ratio of a DPO and a reverse-DPO model), `sepo` (1 for the
            tokens of highest reward of a chosen, of lowest of a rejected response, else 0) or `tgdpo` (1 ± α times the
            token reward of an earlier DPO model).
        model_name_or_path: The model that DPO has trained: π₊ of `tis`, the oracle of `sepo`.
        ref_model_name_or_path: What it is compared with: for `tis` π₋, trained with the two responses exchanged; else
            the model that its DPO began with.
        tokenizer_name_or_path: Tokenizer of the model to be trained, whose tokens get weights; both models must have
            it. By default that of model_name_or_path.
        dtype: In which the models run.
        tis_low: L, to which `tis` clips log-ratios from below.
        tis_high: U, to which `tis` clips them from above.
        sepo_share: k, the share of a response's tokens that `sepo` takes.
        tgdpo_alpha: α of `tgdpo`.
        beta: β of the training, which scales the reward of `tgdpo`.
        max_length: Tokens of prompt and response that are scored, as in the training; those after it weigh 1.
        batch_size: Pairs a batch.
        reference_cache: Folder of the models' log-probs, as in training recipes.
    """

    STAGE: ClassVar = "score_tokens"

    NON_IDENTITY_KEYS: ClassVar = {"batch_size", "reference_cache"}

    method: Literal["tis", "sepo", "tgdpo"]
    ref_model_name_or_path: str
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "float32"
    tis_low: Annotated[float, Field(allow_inf_nan=False)] = -0.5
    tis_high: Annotated[float, Field(allow_inf_nan=False)] = 1.5
    sepo_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3
    tgdpo_alpha: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.5
    beta: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 0.1
    max_length: Positive | None = None
    batch_size: Positive = 8
    reference_cache: str | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.ref_model_name_or_path.rstrip("/") == self.model_name_or_path.rstrip("/"):
            yield "ref_model_name_or_path", "is model_name_or_path itself, so no token would stand out; name the other"
        if self.tis_low > self.tis_high:
            yield "tis_low", f"is above tis_high ({self.tis_low:g} > {self.tis_high:g}); exchange them"

    @staticmethod
    def value_faults(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        of = {"tis_low": "tis", "tis_high": "tis", "sepo_share": "sepo", "tgdpo_alpha": "tgdpo", "beta": "tgdpo"}
        for key, method in of.items():
            if key in values and values.get("method", method) != method:
                yield key, f"only method: {method} reads it; leave it out, or set that method"


@dataclass(kw_only=True)
class JudgeConfig(LLMArguments, StageArguments):
    """Recipe of `scripts/judge.py`: an evaluation's responses against a reference's, by the judge of the benchmark.

    Attributes:
        benchmark: `alpaca_eval` (AlpacaEval 2; extra `eval`) or `arena_hard` (Arena-Hard v0.1); decides the prompt.
        responses: Folder of the evaluation.
        reference: The reference's answers in the benchmark's own form: a file, or `hf://datasets/OWNER/NAME/FILE`.
        limit: Judge only the first so many of the reference's rows.
    """

    STAGE: ClassVar = "judge"

    benchmark: Literal["alpaca_eval", "arena_hard"]
    responses: str
    reference: str
    limit: Positive | None = None

    def lacks(self, response: dict[str, Any]) -> str | None:
        """AlpacaEval needs log-probabilities, which some servers silently leave out."""
        if self.benchmark == "alpaca_eval" and not response.get("first_token"):
            return "the response has no `logprobs`, by which AlpacaEval weighs a verdict"
        return None

    def request(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        """AlpacaEval weights its judge's verdict by the log-probabilities of its first token."""
        weighed = {"logprobs": True, "top_logprobs": 5} if self.benchmark == "alpaca_eval" else {}
        return super().request(messages) | weighed


@dataclass(kw_only=True)
class Decoding:
    """How one benchmark's responses are generated, where that differs; names as in `GenerationArguments`.

    Attributes:
        temperature: 0 is greedy.
        top_p: Nucleus sampling's p.
        max_new_tokens: Tokens that a response may have.
    """

    temperature: Annotated[float, Field(ge=0.0)] | None = None
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    max_new_tokens: Positive | None = None

    __pydantic_config__ = STRICT


@dataclass(kw_only=True)
class EvaluateConfig(GenerationArguments, StageArguments, DataArguments, InferenceModelArguments):
    """Recipe of `scripts/evaluate.py`: responses to the test rows, greedy by default, scored.

    Attributes:
        benchmarks: Benchmark (a row's `source`) → `temperature`, `top_p`, `max_new_tokens` where they differ from the
            recipe's.
        kl_reference: Model (a Hub id or a folder) from which the KL divergence is estimated on the responses, in nats:
            `metrics.json` gets `kl`, a row of `predictions.jsonl` its `log_ratio`, Σ log π − log π_ref.
    """

    STAGE: ClassVar = "evaluate"

    benchmarks: dict[str, Decoding] = field(default_factory=dict)
    kl_reference: str | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        from .data.registry import DATASETS
        from .errors import did_you_mean

        yield from super().faults()
        for name, own in self.benchmarks.items():
            if name not in DATASETS:
                hint = did_you_mean(name, list(DATASETS))
                yield f"benchmarks.{name}", f"is no known benchmark{hint}; choose from {', '.join(DATASETS)}"
            elif own == Decoding():
                yield f"benchmarks.{name}", "is empty; give temperature, top_p or max_new_tokens, or remove it"

    def validation_files(self) -> list[str]:
        """Return the data sets' files, with `validation.jsonl` of prepared data in place of its `test.jsonl`.

        Raises:
            UserErrors: One is neither.
        """
        from .errors import user_error

        files = [Path(dataset.id or dataset.source or "") for dataset in self.dataset_mixture.datasets]
        for file in files:
            if file.stem not in ("test", "validation"):
                raise user_error(str(file), "is neither test.jsonl nor validation.jsonl of prepared data")
        return [str(file.with_stem("validation")) for file in files]

    def decoding(self, source: str | None) -> GenerationArguments:
        """Return how responses to a benchmark's prompts are generated."""
        own = self.benchmarks.get(source or "")
        given = {} if own is None else {key: value for key, value in vars(own).items() if value is not None}
        return replace(self, **given)


@dataclass(kw_only=True)
class RoundsConfig(StageArguments):
    """Recipe of `scripts/rounds.py`: sample → bridge → train → evaluate, again from the trained model.

    The recipes that it names may stand beside it. Their data, models and folders are those of the round, but for the
    prompts and the first model, which are the sample recipe's, and the evaluation's data.

    Attributes:
        sample: Recipe of the sampling. Round k has its seed + k − 1.
        bridge: Recipe of the bridging; all rounds share its response cache, by default `responses.sqlite` in
            output_dir.
        train: Recipe of the training, which goes on from the model of the round before.
        evaluate: Recipe of the evaluation.
        rounds: Rounds at the most.
        prompts: Which prompts a round samples: the `same`, all of the sample recipe's; or `fresh` ones, one of as many
            disjoint parts of equal size as there are rounds, dealt by a hash of the mixture's seed and the prompt.
        reference: π_ref of a round's training: the `first` model, or that of the `previous` round.
        pairs: What a round trains on: the pairs of `this_round`, or of `all` rounds so far.
        early_stop: Evaluate on `validation.jsonl` too (where the evaluation reads `test.jsonl`), stop after the first
            round whose accuracy there is below the one before, and name the model that is best there.
        max_cost_usd: Cost cap in dollars over all rounds and the control, earlier runs included. A round whose bridging
            is estimated to exceed it isn't begun; within one the bridge recipe's cap is what is left.
        control: Also train once, from the first model, on as many pairs as all rounds had, all sampled from that model
            (with prompts and seeds as the rounds), and evaluate it.
        launcher: Command that starts the trainings; python by default.
    """

    STAGE: ClassVar = "rounds"

    NON_IDENTITY_KEYS: ClassVar = {"early_stop", "max_cost_usd", "control", "launcher"}

    sample: str
    bridge: str
    train: str
    evaluate: str
    rounds: Positive = 3
    prompts: Literal["same", "fresh"] = "same"
    reference: Literal["first", "previous"] = "first"
    pairs: Literal["this_round", "all"] = "this_round"
    early_stop: bool = True
    max_cost_usd: Annotated[float, Field(ge=0)] | None = None
    control: bool = False
    launcher: str | None = None


@dataclass(kw_only=True)
class MergeConfig(StageArguments, InferenceModelArguments):
    """Arguments of `scripts/merge.py`: an adapter and its base model → a whole model.

    Attributes:
        output_dir: The whole model's folder.
        dtype: Of the weights that are written; the base model's own by default.
    """


@dataclass(kw_only=True)
class ExportConfig:
    """Arguments of `bmc export`: a whole model → a folder that another program reads.

    Attributes:
        model_name_or_path: Output folder of a training, or of a merge.
        to: The program: `ollama`, which gets the weights and a Modelfile.
        output_dir: Folder that is written; beside the model's, with `-ollama`, by default.
        tokenizer_name_or_path: Tokenizer, if not the model's own.
        chat_template: As in a recipe, if not the model's own.
        temperature: That responses are sampled at; 0 is greedy, as QA and math are evaluated.
        dry_run: Check that the model can be exported, and write nothing.
    """

    model_name_or_path: str
    to: Literal["ollama"]
    output_dir: str | None = None
    tokenizer_name_or_path: str | None = None
    chat_template: str | None = None
    temperature: Annotated[float, Field(ge=0.0)] = 0.0
    dry_run: bool = False


@dataclass(kw_only=True)
class HarnessConfig(StageArguments, InferenceModelArguments):
    """Arguments of `scripts/harness.py`: tasks of lm-evaluation-harness (extra `eval`) on a model.

    Attributes:
        output_dir: The evaluation's folder, which gets `lm_eval.json` and, in `lm_eval`, the harness's own files.
        tasks: Names of tasks, separated by commas.
        batch_size: Requests a batch.
        seed: Of the harness.
        limit: Rows of each task at the most.
        include_path: Folder with tasks of one's own.
        apply_chat_template: Put the tokenizer's chat template around the prompts.
    """

    tasks: str | list[str] = "gsm8k,arc_easy,arc_challenge,openbookqa"
    batch_size: Positive = 8
    seed: int = 42
    limit: Positive | None = None
    include_path: str | None = None
    apply_chat_template: bool = False

    @property
    def task_names(self) -> list[str]:
        return [name.strip() for name in self.tasks.split(",")] if isinstance(self.tasks, str) else self.tasks


@dataclass(kw_only=True)
class ReportConfig:
    """Arguments of `scripts/report.py`.

    Attributes:
        runs: Folder below which every trained or evaluated model is a run.
        output_dir: Folder that gets `report.md` and `report.html`; `runs` by default.
    """

    runs: str
    output_dir: str | None = None


@dataclass(kw_only=True)
class ReviewConfig:
    """Arguments of `bmc review`: a page on this machine to review a bridging run's edits, kept in its `review.jsonl`.

    Attributes:
        folder: The bridging run's output_dir.
        reviewer: Your initials, kept with each decision; on a terminal you are asked for them.
        port: Port of the page; 0 takes a free one.
        apply: Open no page, but write what the decisions leave of the run to `reviewed/train.jsonl`, and its other rows
            with their reasons to `reviewed/dropped.jsonl`. Which pairs are kept, as with `use_review`.
    """

    folder: str
    reviewer: str | None = None
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    apply: Literal["accepted", "not_rejected"] | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.reviewer is not None and not re.fullmatch(r"[\w.-]{1,20}", self.reviewer):
            yield "reviewer", f"'{self.reviewer}' are no initials; write up to 20 letters and digits, as in AB"
        if self.apply is not None and self.reviewer is not None:
            yield "apply", "decides nothing anew; leave out --reviewer, or --apply to open the page"


@dataclass(kw_only=True)
class AnalyzeConfig(StageArguments):
    """Recipe of `scripts/analyze.py`: runs of a setting → token scores of validation pairs, and the paper's figures.

    Attributes:
        setting: Folder of the setting's runs, with `bridge` and `ablations` in it.
        runs: Which of them to score pairs with and to compare, by their folders' names.
        dataset_mixture: Validation pairs; by default those that the runs' own recipes evaluate on or hold out.
        metric: What Figures 3, 4 and 5 show of a run, as in `recipes/reported.yaml`: `accuracy`, or a judge's win rate,
            `judge.BENCHMARK_lc` or `judge.BENCHMARK_wr`.
        pair: Id of the pair in Figure 6; by default one that fits the picture, chosen by the hash of its id.
        dtype: In which the models run.
        batch_size: Pairs a batch; batches hold pairs of similar length.
    """

    STAGE: ClassVar = "analyze"

    NON_IDENTITY_KEYS: ClassVar = {"runs", "metric", "pair", "batch_size"}  # all is written anew each time

    setting: str
    runs: list[str] = field(default_factory=lambda: ["dpo", "dpo_mc", "dpo_bc", "dpo_bmc"])
    dataset_mixture: DatasetMixture | None = None
    metric: str = "accuracy"
    pair: str | None = None
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "float32"
    batch_size: Positive = 8

    def faults(self) -> Iterator[tuple[str, str]]:
        if not self.runs:
            yield "runs", "is empty; name a folder in setting"
        for name in {name for name in self.runs if self.runs.count(name) > 1}:
            yield "runs", f"{name} stands twice; keep one"
        if not re.fullmatch(r"accuracy|judged?\.\w+_(lc|wr)", self.metric):
            yield "metric", f"must be accuracy, judge.BENCHMARK_lc or judge.BENCHMARK_wr, got {self.metric}"
