"""Rows and tokens of a recipe's data: counted where the data are at hand, else estimated by the paper's counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from rapidfuzz.distance import Prefix

from ..config import DatasetConfig
from ..data.loading import files_of, load_mixture, open_dataset
from ..data.registry import DATASETS, GENERATORS
from ..data.schema import Row, content
from ..pipeline import producer

# Rows of each split: Table 6 of arXiv 2408.07471, and the Hub's pages where it has none
ROWS: dict[tuple[str, str], int] = {
    ("ecqa", "train"): 7_598, ("ecqa", "test"): 2_194, ("ecqa", "validation"): 1_090,
    ("qasc", "train"): 8_134, ("qasc", "test"): 926,
    ("openbookqa", "test"): 500, ("openbookqa", "validation"): 500, ("strategyqa", "test"): 687,
    ("arc_easy", "test"): 2_376, ("arc_challenge", "test"): 1_172,
    ("metamathqa", "train"): 40_000, ("gsm8k", "test"): 1_319, ("math", "test"): 5_000,
    ("mawps", "test"): 2_065, ("tabmwp", "test"): 1_000, ("tabmwp", "validation"): 1_000,
    ("math_500", "test"): 500, ("svamp", "test"): 300, ("svamp", "train"): 700, ("asdiv", "test"): 2_305,
    ("ultrachat_200k", "train"): 207_865, ("ultrafeedback", "train"): 61_135, ("ultrafeedback", "test"): 2_000,
    ("bmc_released_qa_sft", "train"): 15_345,  # counted there
    ("alpaca_eval", "eval"): 805, ("arena_hard", "test"): 500,
}  # fmt: skip
FILTERED = {"qa": 0.31, "math": 0.43}  # pairs that bridging drops, since y_l needs no edit (§4, A.2)
# Tokens of a prompt and of a response, where no row is at hand. Ours, rounded: ECQA's, QASC's, GSM8K's and
# alpaca_eval's rows in SmolLM2's tokens, with the plain template's words; the paper has no such counts.
TOKENS = {"qa": (60, 60), "math": (80, 180), "chat": (180, 320)}
CHARACTERS = 4.0  # a token of English text, where no tokenizer is at hand
SAMPLE = 200  # rows that are measured for the mean lengths


@dataclass(frozen=True)
class DatasetStats:
    """Rows, and the mean tokens of one."""

    rows: int
    prompt: float  # tokens of a prompt
    response: float  # tokens of a response; of each of a pair's two
    common: float = 0.0  # tokens that a pair's responses begin with alike
    task: str | None = None  # `qa`, `math` or `chat`; None for data of several tasks, or of one that isn't known
    counted: bool = False  # whether rows and tokens were counted in the data

    def tokens(self, pairs: bool, shared: bool, max_length: int | None) -> float:
        """Count the tokens that a model sees of one row."""
        most = max_length or float("inf")
        sequence = min(self.prompt + self.response, most)
        if not pairs:
            return sequence
        return 2 * sequence - (min(self.prompt + self.common, most) if shared else 0)


def dataset_stats(datasets: Iterable[DatasetConfig], tokenizer: Any = None) -> DatasetStats | None:
    """Count the rows and tokens of a mixture; None where nothing is known of one of its data sets.

    Without a tokenizer (`encode(text)`) characters are counted.
    """
    parts = [_part(dataset, tokenizer) for dataset in datasets]
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    rows = sum(part.rows for part in known)

    def mean(key: str) -> float:
        return sum(part.rows * getattr(part, key) for part in known) / max(rows, 1)

    tasks = {part.task for part in known}
    task = tasks.pop() if len(tasks) == 1 else None
    counted = all(part.counted for part in known)
    return DatasetStats(rows, mean("prompt"), mean("response"), mean("common"), task, counted)


def _part(dataset: DatasetConfig, tokenizer: Any) -> DatasetStats | None:
    if dataset.id and files_of(dataset.id, dataset.split, dataset.source):
        return _measured(iter(load_mixture([dataset], seed=0)), tokenizer)
    whole = _expected(dataset, tokenizer)
    if whole is None:
        return None
    rows = whole.rows
    if dataset.edit_split is not None:
        rows //= int(dataset.edit_split.partition("/")[2])
    return replace(whole, rows=min(round(dataset.weight * rows), dataset.num_rows or rows))


def _measured(rows: Iterator[Row], tokenizer: Any, count: int | None = None) -> DatasetStats | None:
    """Count rows, all of them unless their `count` is given, and measure the first ones."""
    first = list(islice(rows, SAMPLE))
    lengths = [length for row in first if (length := _lengths(row, tokenizer))]
    if not lengths:
        return None
    prompt, response, common = (fmean(column) for column in zip(*lengths, strict=True))
    return DatasetStats(count or len(first) + sum(1 for _ in rows), prompt, response, common, counted=True)


def _lengths(row: Row, tokenizer: Any) -> tuple[float, float, float] | None:
    """Count the tokens of a row's prompt, of its response (the mean of a pair's two), and of a pair's common prefix."""

    def length(text: str) -> float:
        return len(text) / CHARACTERS if tokenizer is None else len(tokenizer.encode(text))

    if (messages := row.get("messages")) and not row.get("rejected"):
        assistant = [content([message]) for message in messages if message["role"] == "assistant"]
        others = [content([message]) for message in messages if message["role"] != "assistant"]
        return length("\n".join(others)), length("\n".join(assistant)), 0.0
    if "prompt" not in row:
        return None
    responses = [content(row[key]) for key in ("chosen", "rejected", "completion") if row.get(key)]
    common = responses[0][: Prefix.similarity(*responses)] if len(responses) == 2 else ""
    return length(content(row["prompt"])), fmean(map(length, responses)) if responses else 0.0, length(common)


def _expected(dataset: DatasetConfig, tokenizer: Any) -> DatasetStats | None:
    """Estimate a data set that isn't at hand, by the recipes that lead to it."""
    source = dataset.source or next((name for name, known in DATASETS.items() if known.hub_id == dataset.id), None)
    if source in GENERATORS and dataset.num_rows:
        few = replace(dataset, id=None, source=source, num_rows=min(dataset.num_rows, SAMPLE))
        return _measured(open_dataset(few), tokenizer, dataset.num_rows)
    if source is not None:
        task, rows_of_split = DATASETS[source].task, ROWS.get((source, dataset.split.partition("_")[0]))
        return DatasetStats(rows_of_split, *TOKENS[task], task=task) if rows_of_split else None
    name = Path(dataset.id or "")
    folder, split = (str(name.parent), name.stem) if name.suffix else (str(name), dataset.split)
    recipe = producer(folder)
    return _produced(recipe.values, split, tokenizer) if recipe else None


def _produced(recipe: dict[str, Any], split: str, tokenizer: Any) -> DatasetStats | None:
    """Estimate what a data stage's recipe will write."""
    mixture = recipe.get("dataset_mixture", {})
    given = mixture.get("test_datasets" if split == "test" else "datasets", [])
    apart = recipe.get("validation_datasets", []) if split == "validation" else []
    whole = dataset_stats([DatasetConfig(**values) for values in apart or given], tokenizer)
    if whole is None:
        return None
    held_out = recipe.get("validation_fraction", 0.0)
    rows = whole.rows * {"train": 1 - held_out, "validation": 1.0 if apart else held_out}.get(split, 1.0)
    drops = recipe.get("editor") == "openai" and recipe.get("template") == "closed"
    if drops and recipe.get("mode", "targeted") in ("targeted", "degrade"):
        rows *= 1 - FILTERED.get(whole.task or "", 0.0)
    return replace(whole, rows=round(rows))
