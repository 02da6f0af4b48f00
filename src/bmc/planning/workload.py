"""How many rows and tokens a recipe reads: counted in the data where they are at hand, else by the paper's counts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any

from ..config import DatasetConfig
from ..data.loading import files_of
from ..data.registry import DATASETS, GENERATORS
from ..data.schema import Row, content, split_prompt
from .chain import OUTPUTS, upstream

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
FILTERED = {"qa": 0.31, "math": 0.43}  # pairs that bridging drops, y_l being good enough (§4, A.2)
# Tokens of a prompt and of a response, where no row is at hand. Ours, rounded: ECQA's, QASC's, GSM8K's and
# alpaca_eval's rows in SmolLM2's tokens, with the plain template's words; the paper has no such counts.
TOKENS = {"qa": (60, 60), "math": (80, 180), "chat": (180, 320)}
CHARACTERS = 4.0  # a token of English text, where no tokenizer is at hand
SAMPLE = 200  # rows that are looked at for the mean lengths


@dataclass(frozen=True)
class Workload:
    """Rows, and the mean tokens of one.

    Attributes:
        rows: How many.
        prompt: Tokens of a prompt.
        response: Tokens of a response; of each of a pair's two.
        common: Tokens that a pair's responses begin with alike.
        task: `qa`, `math` or `chat`; None for data of several tasks, or of one that isn't known.
        counted: Whether rows and tokens were counted in the data.
    """

    rows: int
    prompt: float
    response: float
    common: float = 0.0
    task: str | None = None
    counted: bool = False

    def tokens(self, pairs: bool, shared: bool, max_length: int | None) -> float:
        """Tokens that a model sees of one row.

        Args:
            pairs: Whether a row is a pair.
            shared: Whether prefixes go through the model once.
            max_length: Tokens that a sequence may have.
        """
        most = max_length or float("inf")
        sequence = min(self.prompt + self.response, most)
        if not pairs:
            return sequence
        return 2 * sequence - (min(self.prompt + self.common, most) if shared else 0)


def workload(datasets: Iterable[DatasetConfig], tokenizer: Any = None) -> Workload | None:
    """All data sets of a mixture together; None where nothing is known of one of them.

    Args:
        datasets: The mixture's.
        tokenizer: With `encode(text)`; None counts characters.
    """
    parts = [_part(dataset, tokenizer) for dataset in datasets]
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    rows = sum(part.rows for part in known)

    def mean(field: str) -> float:
        return sum(part.rows * getattr(part, field) for part in known) / max(rows, 1)

    tasks = {part.task for part in known}
    task = tasks.pop() if len(tasks) == 1 else None
    return Workload(rows, mean("prompt"), mean("response"), mean("common"), task, all(part.counted for part in known))


def _part(dataset: DatasetConfig, tokenizer: Any) -> Workload | None:
    files = files_of(dataset.id, dataset.split, dataset.source) if dataset.id else []
    whole = _measured(files, tokenizer) if files else _expected(dataset, tokenizer)
    if whole is None:
        return None
    rows = whole.rows
    if dataset.edit_split is not None:
        rows //= int(dataset.edit_split.partition("/")[2])
    return replace(whole, rows=min(round(dataset.weight * rows), dataset.num_rows or rows))


def _measured(files: list[Path], tokenizer: Any) -> Workload | None:
    """Rows of a data set's files, and the lengths of the first ones."""
    counted = [_counted(path) for path in files]
    return _mean(counted[0][0], sum(count for _, count in counted), tokenizer)


def _counted(path: Path) -> tuple[list[Row], int]:
    """The first rows of a file, and how many there are."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        file = pyarrow.parquet.ParquetFile(path)
        return next(file.iter_batches(SAMPLE)).to_pylist(), file.metadata.num_rows
    if path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as lines:
            filled = (line for line in lines if line.strip())
            rows = [json.loads(line) for line in islice(filled, SAMPLE)]
            return rows, len(rows) + sum(1 for _ in filled)
    rows = json.loads(path.read_text(encoding="utf-8"))
    return rows[:SAMPLE], len(rows)


def _mean(rows: list[Row], count: int, tokenizer: Any) -> Workload | None:
    """A workload of so many rows that are as long as these."""
    lengths = [length for row in rows if (length := _lengths(row, tokenizer))]
    if not lengths:
        return None
    prompt, response, common = (fmean(column) for column in zip(*lengths, strict=True))
    return Workload(count, prompt, response, common, counted=True)


def _lengths(row: Row, tokenizer: Any) -> tuple[float, float, float] | None:
    """Tokens of a row's prompt, of its response (the mean of a pair's two), and of what a pair's begin with."""
    row = split_prompt(row)
    if (messages := row.get("messages")) and not row.get("rejected"):
        said = [content([message]) for message in messages if message["role"] == "assistant"]
        asked = [content([message]) for message in messages if message["role"] != "assistant"]
        return _length("\n".join(asked), tokenizer), _length("\n".join(said), tokenizer), 0.0
    if "prompt" not in row:
        return None
    prompt = _length(content(row["prompt"]), tokenizer)
    responses = [content(row[key]) for key in ("chosen", "rejected", "completion") if row.get(key)]
    if not responses:
        return prompt, 0.0, 0.0
    common = 0
    if len(responses) == 2:
        letters = zip_longest(*responses)
        common = next((place for place, (a, b) in enumerate(letters) if a != b), len(responses[0]))
    return (
        prompt,
        fmean(_length(text, tokenizer) for text in responses),
        _length(responses[0][:common], tokenizer) if len(responses) == 2 else 0.0,
    )


def _length(text: str, tokenizer: Any) -> float:
    return len(text) / CHARACTERS if tokenizer is None else len(tokenizer.encode(text))


def _expected(dataset: DatasetConfig, tokenizer: Any) -> Workload | None:
    """What a data set that isn't at hand will hold, by the recipes that lead to it."""
    source = dataset.source or next((name for name, known in DATASETS.items() if known.hub_id == dataset.id), None)
    if source in GENERATORS and dataset.num_rows:
        raws = GENERATORS[source](dataset.config, min(dataset.num_rows, SAMPLE))
        made = [DATASETS[source].to_row(raw) for raw in raws]
        return _mean(made, dataset.num_rows, tokenizer)
    if source is not None:
        return _assumed(ROWS.get((source, dataset.split.partition("_")[0])), DATASETS[source].task)
    name = Path(dataset.id or "")
    folder, split = (str(name.parent), name.stem) if name.suffix else (str(name), dataset.split)
    recipe = upstream(folder) if folder.startswith(OUTPUTS) else None
    return _made(recipe, split, tokenizer) if recipe else None


def _assumed(rows: int | None, task: str) -> Workload | None:
    return Workload(rows, *TOKENS[task], task=task) if rows else None


def _made(recipe: dict[str, Any], split: str, tokenizer: Any) -> Workload | None:
    """What a data stage's recipe will write."""
    mixture = recipe.get("dataset_mixture", {})
    given = mixture.get("test_datasets" if split == "test" else "datasets", [])
    apart = recipe.get("validation_datasets", []) if split == "validation" else []
    whole = workload(_configs(apart or given), tokenizer)
    if whole is None:
        return None
    rows = float(whole.rows)
    held_out = recipe.get("validation_fraction", 0.0)
    rows *= {"train": 1 - held_out, "validation": 1.0 if apart else held_out}.get(split, 1.0)
    drops = recipe.get("editor") == "openai" and recipe.get("template") == "closed"
    if drops and recipe.get("mode", "targeted") in ("targeted", "degrade"):
        rows *= 1 - FILTERED.get(whole.task or "", 0.0)
    return replace(whole, rows=round(rows))


def _configs(given: list[dict[str, Any]]) -> Iterator[DatasetConfig]:
    for values in given:
        yield DatasetConfig(**values)
