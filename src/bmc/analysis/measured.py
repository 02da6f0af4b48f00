"""The number of a run that a figure draws, with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import fail
from .cells import read_json
from .numbers import Estimate
from .seeds import FILE as SEEDS
from .seeds import interval
from .tables import KEYS, average, gradient_norms


def number(folder: Path, metric: str) -> Estimate | None:
    """What was measured of a run; None where nothing was.

    Args:
        folder: The run's.
        metric: `accuracy`, in %: the macro average over the benchmarks, or over seeds its mean, with their t interval;
            `grad_norm`: the mean of those that were logged; `judged.BENCHMARK_lc` or `_wr`: a win rate in %.

    Raises:
        Faults: A file of the run is damaged.
    """
    read = {"accuracy": _accuracy, "grad_norm": _gradient_norm}.get(metric)
    try:
        return read(folder) if read else _judged(folder, metric.removeprefix("judged."))
    except (AttributeError, KeyError, TypeError, ValueError, StopIteration) as error:
        raise fail(str(folder), f"{metric} can't be read from its files ({error!r}); evaluate it again") from None


def _accuracy(folder: Path) -> Estimate | None:
    if (folder / SEEDS).is_file():
        results = read_json(folder / SEEDS)["results"]
        result = results.get("average") or next(iter(results.values()))
        return _estimate(100, result["mean"], interval(result), result["n"])
    if not (folder / "eval/metrics.json").is_file():
        return None
    found = average(read_json(folder / "eval/metrics.json")["results"])
    return None if found is None else _estimate(100, found["accuracy"], found["interval"], found["n"])


def _gradient_norm(folder: Path) -> Estimate | None:
    if not (folder / "trainer_state.json").is_file():
        return None
    norms = gradient_norms(read_json(folder / "trainer_state.json"))
    return Estimate(sum(norms) / len(norms), None, None, len(norms)) if norms else None


def _judged(folder: Path, name: str) -> Estimate | None:
    benchmark, _, kind = name.rpartition("_")
    for path in sorted(folder.rglob("judged.json")):
        said = read_json(path)
        value, interval = KEYS[kind]
        if said["benchmark"] == benchmark and said.get(value) is not None:
            return _estimate(1, said[value], said.get(interval or ""), said["n"])
    return None


def _estimate(scale: float, value: float, interval: Any, n: int) -> Estimate:
    low, high = (None, None) if interval is None else (scale * end for end in interval)
    return Estimate(scale * value, low, high, n)
