"""The files of the official evaluators, and the prompts that the responses answer."""

import json
from pathlib import Path
from typing import Any

import pytest

from bmc.data.tokenization import encode_prompt
from bmc.evaluation.comparisons import model_name, write_outputs


def asked(source: str, words: str, **more: str) -> dict[str, Any]:
    return {"source": source, "task": "chat", "prompt": [{"role": "user", "content": words}], **more}


ROWS = [
    asked("alpaca_eval", "Hi?", dataset="koala"),
    asked("arena_hard", "ABC?", question_id="q7"),
    asked("alpaca_eval", "Ho?"),
]
RESPONSES = [
    {"text": " Yes. \n", "tokens": 3, "finished": True},
    {"text": "X:1 ", "tokens": 4, "finished": True},
    {"text": "", "tokens": 1, "finished": True},
]


def test_what_the_evaluators_read(tmp_path: Path) -> None:
    write_outputs(tmp_path, ROWS, RESPONSES, "outputs/llama3-8b/ultrafeedback/dpo")
    name = "llama3-8b-ultrafeedback-dpo"
    assert json.loads((tmp_path / "model_outputs.json").read_text()) == [
        {"instruction": "Hi?", "output": "Yes.", "generator": name, "dataset": "koala"},
        {"instruction": "Ho?", "output": "", "generator": name},
    ]
    (line,) = (tmp_path / f"model_answer/{name}.jsonl").read_text().splitlines()
    answer = json.loads(line)
    assert answer.pop("answer_id")
    assert answer == {
        "question_id": "q7",
        "model_id": name,
        "choices": [{"index": 0, "turns": [{"content": "X:1 ", "token_len": 4}]}],
        "tstamp": 0.0,
    }
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json*")}
    write_outputs(tmp_path, ROWS, RESPONSES, "outputs/llama3-8b/ultrafeedback/dpo")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json*")} == before


def test_other_benchmarks_leave_no_such_files(tmp_path: Path) -> None:
    write_outputs(tmp_path, [{"source": "ecqa", "prompt": "x"}], RESPONSES[:1], "m")
    assert list(tmp_path.iterdir()) == []


def test_model_names_are_file_names(subtests: pytest.Subtests) -> None:
    for path, name in [
        ("outputs/llama3-8b/ultrafeedback/dpo", "llama3-8b-ultrafeedback-dpo"),
        ("owner/Model-1", "Model-1"),
        ("/home/me/outputs/dpo/", "dpo"),
        ("/home/me/model", "model"),
    ]:
        with subtests.test(path=path):
            assert model_name(path) == name


def test_a_prompt_begins_with_one_bos(tokenizer: Any) -> None:
    """Llama's tokenizers put a BOS before every text, and Llama's templates write one too."""
    from copy import deepcopy

    from tokenizers.processors import TemplateProcessing

    eager = deepcopy(tokenizer)
    bos = eager.bos_token_id
    eager.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    assert eager("Hi?")["input_ids"][0] == bos
    messages = [{"role": "user", "content": "Hi?"}]
    assert encode_prompt(eager, {"prompt": messages}) == encode_prompt(tokenizer, {"prompt": messages})
    for prompt in (messages, "Hi?"):
        assert encode_prompt(eager, {"prompt": prompt}).count(bos) == 1
