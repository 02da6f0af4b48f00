"""lm-evaluation-harness on a model of ours: its command, and what its result file says."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import HarnessConfig
from ..data.schema import Row
from ..errors import user_error
from ..runs import write_json

RAW = "lm_eval"  # folder of the harness's own files
PREFERRED = ("acc_norm", "exact_match", "acc")  # what is reported of ARC and OpenBookQA, of GSM8k, of the rest


def command(config: HarnessConfig) -> list[str]:
    """Return the harness's command line."""
    model = {
        "pretrained": config.model_name_or_path,
        "revision": config.model_revision,
        "dtype": config.dtype,
        "trust_remote_code": config.trust_remote_code,
        **({"tokenizer": config.tokenizer_name_or_path} if config.tokenizer_name_or_path else {}),
    }
    given = {
        "model": "hf",
        "model_args": ",".join(f"{key}={value}" for key, value in model.items()),
        "tasks": ",".join(config.task_names),
        "batch_size": config.batch_size,
        "seed": config.seed,
        "output_path": Path(config.output_dir) / RAW,
        "limit": config.limit,
        "include_path": config.include_path,
    }
    arguments = [word for key, value in given.items() if value is not None for word in (f"--{key}", str(value))]
    template = ["--apply_chat_template"] if config.apply_chat_template else []
    return [sys.executable, "-m", "lm_eval", "run", *arguments, *template]


def measure(config: HarnessConfig) -> Row:
    """Run the harness and return what it writes to `lm_eval.json`.

    Raises:
        UserErrors: The harness isn't installed, fails, or leaves no result.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise user_error("lm_eval", "lm-evaluation-harness is not installed; pip install '.[eval]'")
    raw = Path(config.output_dir) / RAW
    before = set(raw.rglob("results_*.json"))
    status = subprocess.run(command(config)).returncode
    if status:
        raise user_error("lm_eval", f"ended with status {status}; what it says above tells why")
    made = sorted(set(raw.rglob("results_*.json")) - before)
    if not made:
        raise user_error(str(raw), "lm_eval left no result there")
    folded = fold(_read(made[-1]), str(made[-1])) | {"results": str(made[-1].relative_to(config.output_dir))}
    write_json(Path(config.output_dir) / "lm_eval.json", folded)
    return folded


def fold(found: Mapping[str, Any], where: str) -> Row:
    """Return the tasks of a result file: metric, value, standard error and n of each, and the harness's version.

    A task's metric is the first of `PREFERRED` that it has, or else its first; one with several filters has its first
    filter's.

    Args:
        found: `{"results": {task: {"acc,none": …, "acc_stderr,none": …}}, "n-samples": …, "lm_eval_version": …}`.
        where: The file, for a fault.

    Raises:
        UserErrors: It isn't of that shape.
    """
    try:
        counts = found["n-samples"]
        tasks = {task: _task(found["results"][task], int(counts[task]["effective"])) for task in counts}
        return {"tasks": tasks, "version": str(found["lm_eval_version"])}
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration):
        raise user_error(where, "is no result file of lm-evaluation-harness 0.4") from None


def _task(scores: Mapping[str, Any], n: int) -> Row:
    numbers = {name: value for name, value in scores.items() if "," in name and isinstance(value, int | float)}
    values = {name: value for name, value in numbers.items() if not name.partition(",")[0].endswith("_stderr")}
    ranked = sorted(values, key=lambda name: (*(name.partition(",")[0] != metric for metric in PREFERRED),))
    name = next(iter(ranked))
    metric, _, kind = name.partition(",")
    error = numbers.get(f"{metric}_stderr,{kind}")
    return {"metric": metric if kind == "none" else name, "value": values[name], "stderr": error, "n": n}


def _read(path: Path) -> Any:
    import json

    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise user_error(str(path), "is not JSON; run lm_eval again") from None


def describe(folded: Row) -> str:
    """Return a line for each task."""
    return "\n".join(
        f"{task}: {100 * score['value']:.1f} % ({score['metric']}, n = {score['n']}"
        + ("" if score["stderr"] is None else f", standard error {100 * score['stderr']:.1f}")
        + ")"
        for task, score in folded["tasks"].items()
    )
