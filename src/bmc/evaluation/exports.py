"""Responses in the files that the official evaluators of AlpacaEval 2 and Arena-Hard read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ..data.schema import Row, content, digest
from ..runs import write_json, write_jsonl

ALPACA_EVAL, ARENA_HARD = "alpaca_eval", "arena_hard"
MODEL_OUTPUTS, MODEL_ANSWER = "model_outputs.json", "model_answer"


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
