"""The official evaluators' files of AlpacaEval 2 and Arena-Hard: responses written, references read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import JudgeConfig
from ..data.files import file_rows, local_files
from ..data.schema import Row, content, digest
from ..errors import user_error
from ..runs import write_json, write_jsonl
from .stats import win_rate

ALPACA_EVAL, ARENA_HARD = "alpaca_eval", "arena_hard"
MODEL_OUTPUTS, MODEL_ANSWER = "model_outputs.json", "model_answer"
PREDICTIONS, HUB = "predictions.jsonl", "hf://datasets/"


# Responses as the official evaluators read them


def model_name(name_or_path: str) -> str:
    """Return what a model is called where a name is a file's too: `outputs/llama3-8b/ultrafeedback/dpo` →
    `llama3-8b-ultrafeedback-dpo`, `owner/Model` → `Model`."""
    parts = Path(name_or_path).parts
    return "-".join(parts[parts.index("outputs") + 1 :] if "outputs" in parts else parts[-1:])


def write_outputs(folder: Path, rows: list[Row], responses: list[Row], model: str) -> None:
    """Write `model_outputs.json` (of alpaca_eval 0.6.6) and `model_answer/MODEL.jsonl` (of Arena-Hard-Auto at v0.1),
    each where there are rows of its benchmark.
    """
    name = model_name(model)
    given = list(zip(rows, responses, strict=True))
    of_alpaca = [pair for pair in given if pair[0].get("source") == ALPACA_EVAL]
    of_arena = [pair for pair in given if pair[0].get("source") == ARENA_HARD and "question_id" in pair[0]]
    if of_alpaca:
        write_json(folder / MODEL_OUTPUTS, list(_model_outputs(of_alpaca, name)))
    if of_arena:
        write_jsonl(folder / MODEL_ANSWER / f"{name}.jsonl", _model_answers(of_arena, name))


def _model_outputs(given: Iterable[tuple[Row, Row]], name: str) -> Iterator[Row]:
    for row, response in given:
        output = response["text"].strip()  # as alpaca_eval does with what it generates itself
        known = {"dataset": row["dataset"]} if row.get("dataset") else {}
        yield {"instruction": content(row["prompt"]), "output": output, "generator": name, **known}


def _model_answers(given: Iterable[tuple[Row, Row]], name: str) -> Iterator[Row]:
    for row, response in given:
        turn = {"content": response["text"], "token_len": response["tokens"]}  # in the model's own tokens
        yield {
            "question_id": row["question_id"],
            "answer_id": digest(f"{name} {row['question_id']}"),
            "model_id": name,
            "choices": [{"index": 0, "turns": [turn]}],
            "tstamp": 0.0,  # the same answers make the same file
        }


# A model's responses beside a reference's, checked before a judge is paid for


@dataclass(frozen=True)
class Comparison:
    """One prompt with two responses."""

    id: str  # the response's, as in `predictions.jsonl`
    name: str  # the benchmark's name of the prompt: the instruction itself, or `question_id`
    prompt: str
    response: str  # of the evaluated model
    reference: str  # of the model that it is compared with
    tokens: int = 0  # of the response; 0 if unknown


def load_comparisons(config: JudgeConfig) -> tuple[list[Comparison], str]:
    """Load the recipe's comparisons, in the reference's order, and the reference's name.

    Raises:
        UserErrors: There are no responses of the benchmark, no reference, or prompts that only one of them has.
    """
    path = Path(config.responses) / PREDICTIONS
    if not path.is_file():
        raise user_error(str(path), "there is none; evaluate first, or give the evaluation's folder as `responses`")
    rows = [row for row in file_rows(path) if row.get("source") == config.benchmark]
    if not rows:
        raise user_error(str(path), f"holds no responses to {config.benchmark}'s prompts; evaluate them first")
    given = {_name(row, config.benchmark, f"{path}: row of {row.get('id')}"): row for row in rows}
    answers = list(_reference(config))[: config.limit]
    for name, _, _ in answers:
        if name not in given:
            what = f"lacks the response to {name[:80]!r}, which the reference has; evaluate every prompt"
            raise user_error(str(path), f"{what}, or set `limit`")
    known = {name for name, _, _ in answers}
    if config.limit is None and (other := next((name for name in given if name not in known), None)):
        raise user_error(
            config.reference, f"has no response to {other[:80]!r} ({path}: row of {given[other].get('id')})"
        )
    strip = config.benchmark == "alpaca_eval"  # as alpaca_eval does with what it generates itself
    comparisons = []
    for name, answer, _ in answers:
        row = given[name]
        response = row["prediction"].strip() if strip else row["prediction"]
        comparisons.append(Comparison(str(row.get("id")), name, row["prompt"], response, answer, row.get("tokens", 0)))
    return comparisons, answers[0][2]


def _name(row: Row, benchmark: str, where: str) -> str:
    column = "prompt" if benchmark == "alpaca_eval" else "question_id"
    if not isinstance(row.get(column), str):
        raise user_error(where, f"has no {column}; take the prompts from `source: {benchmark}` and evaluate again")
    return row[column]


def _reference(config: JudgeConfig) -> Iterator[tuple[str, str, str]]:
    """Yield the prompt's name, the response and the model of each row of the reference."""
    rows = [*file_rows(_local(config.reference))]
    if not rows:
        raise user_error(config.reference, "is empty")
    read = _alpaca_answer if config.benchmark == "alpaca_eval" else _arena_answer
    for number, row in enumerate(rows, start=1):
        try:
            yield read(row)
        except (KeyError, IndexError, TypeError, StopIteration):
            what = f"isn't of the shape of {config.benchmark}'s reference responses; it has {', '.join(map(str, row))}"
            raise user_error(f"{config.reference}: row {number}", what) from None


def _alpaca_answer(row: Row) -> tuple[str, str, str]:
    """Read `{"instruction": …, "output": …, "generator": …}`"""
    return row["instruction"], row["output"], row["generator"]


def _arena_answer(row: Row) -> tuple[str, str, str]:
    """Read `{"question_id", "model_id", "choices": [{"turns": [{"content": …}]}]}`, or the form of Arena-Hard v2,
    `{"uid", "model", "messages": [{"role": "user", …}, {"role": "assistant", "content": {"answer": …}}]}`."""
    if "messages" not in row:
        return row["question_id"], row["choices"][0]["turns"][0]["content"], row["model_id"]
    answer: Any = next(message["content"] for message in row["messages"] if message["role"] == "assistant")
    return row["uid"], answer if isinstance(answer, str) else answer["answer"], row["model"]


def _local(reference: str) -> Path:
    """Return the reference's file on this machine, downloaded from the Hub if need be."""
    if not reference.startswith(HUB):
        if files := local_files(reference, ""):
            return files[0]
        raise user_error(reference, f"no such file; give a file, or {HUB}OWNER/NAME/FILE")
    import huggingface_hub

    owner, name, *file = reference.removeprefix(HUB).split("/")
    try:
        return Path(huggingface_hub.hf_hub_download(f"{owner}/{name}", os.path.join(*file), repo_type="dataset"))
    except Exception as error:  # the Hub's client fails in too many ways to list
        why = f"({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        raise user_error(reference, f"can't be loaded from the Hub; download it and give its path {why}") from None


def win_rate_in_percent(won: Sequence[float], played: Sequence[float]) -> Row:
    """Compute the win rate over prompts, with its 95 % interval.

    For one reference and one model, Bradley and Terry's estimate is wins over games.
    """
    rate, low, high = win_rate(won, played)
    return {"win_rate": 100 * rate, "interval": [100 * low, 100 * high]}
