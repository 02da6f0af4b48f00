"""What a recipe would do, before it does it: the lines that `--dry_run` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .config import DatasetConfig, EvaluateConfig, GenerationArguments, SampleConfig
from .data.loading import SUFFIXES
from .data.registry import DATASETS, REPOSITORY
from .errors import did_you_mean, fail
from .runs import is_main_process


def show(title: str, facts: dict[str, Any]) -> None:
    """Prints a plan, a fact a line, in one process; what is None is left out."""
    if not is_main_process():
        return
    facts = {name: value for name, value in facts.items() if value is not None}
    width = max(map(len, facts))
    print(f"Plan: {title}")
    for name, value in facts.items():
        print(f"  {name:<{width}}  {value}")


def describe_data(datasets: list[DatasetConfig]) -> str:
    """The data sets, and which of them aren't there yet.

    Raises:
        Faults: A file isn't there, but one of nearly its name.
    """
    for dataset in filter(_missing, datasets):
        path = Path(dataset.id or "")
        there = [file.stem for file in path.parent.glob(f"*{path.suffix}")]
        if hint := did_you_mean(path.stem, there):
            raise fail(str(path), f"no such file{hint}; paths are relative to {Path.cwd()}")
    return ", ".join(map(_describe, datasets))


def _describe(dataset: DatasetConfig) -> str:
    name = dataset.id or dataset.source or ""
    share = "" if dataset.weight == 1 else f" × {dataset.weight:g}"
    most = "" if dataset.num_rows is None else f", at most {dataset.num_rows:,} rows"
    missing = f" (not there yet; {_how(dataset)})" if _missing(dataset) else ""
    part = "" if dataset.edit_split is None else f", split {dataset.edit_split} by edit distance"
    return f"{name}[{dataset.split}]{part}{share}{most}{missing}"


def _how(dataset: DatasetConfig) -> str:
    return f"git clone {REPOSITORY} {dataset.id}" if _is_cloned(dataset) else "`make` builds it"


def _is_cloned(dataset: DatasetConfig) -> bool:
    return bool(dataset.id and dataset.source and DATASETS[dataset.source].folder)


def missing_data(datasets: list[DatasetConfig]) -> bool:
    """Whether a file that is to be read isn't there yet."""
    return any(map(_missing, datasets))


def _missing(dataset: DatasetConfig) -> bool:
    name = dataset.id or ""
    return (_is_cloned(dataset) or name.endswith(SUFFIXES)) and not Path(name).exists()


def _processes(config: SampleConfig | EvaluateConfig) -> str | None:
    """Who shares the work, where it isn't one process on one GPU."""
    several = f"{config.data_parallel_size}, each with a model of its own" if config.data_parallel_size > 1 else "1"
    if config.tensor_parallel_size > 1:
        return f"{several}, on {config.tensor_parallel_size} GPUs"
    return several if config.data_parallel_size > 1 else None


def _decoding(settings: GenerationArguments) -> str:
    how = f"temperature {settings.temperature:g}, top-p {settings.top_p:g}" if settings.temperature else "greedy"
    return f"{how}, at most {settings.max_new_tokens} new tokens"


def describe_generation(config: SampleConfig | EvaluateConfig) -> dict[str, Any]:
    """Model, decoding and output of a generating stage."""
    own = {name: _decoding(config.decoding(name)) for name in getattr(config, "benchmarks", {})}
    return {
        "model": config.model_name_or_path,
        "decoding": _decoding(config),
        **{f"decoding of {name}": what for name, what in own.items()},
        "backend": f"{config.backend}, batches of {config.batch_size}",
        "processes": _processes(config),
        "output": config.output_dir,
    }
