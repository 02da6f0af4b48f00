"""What a trainer gets of rows: TRL's own preparation is the oracle."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import trl
from test_masks import TRL, byte_tokenizer

from bmc.data.loading import RowStream, to_dataset
from bmc.data.schema import assistant, user
from bmc.data.tokenization import encode_prompt

PAIR = ("prompt", "chosen", "rejected")
ADD, WEATHER = (
    {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": {key: {"type": kind}}}},
    }
    for name, key, kind in [("add", "a", "integer"), ("weather", "city", "string")]
)
PLAIN: dict[str, Any] = {"prompt": user("q"), "chosen": assistant("w"), "rejected": assistant("l"), "meta": {"x": 1}}
ROWS = [
    PLAIN | {"tools": [ADD], "id": "0"},
    PLAIN | {"tools": [WEATHER], "chat_template_kwargs": {"enable_thinking": False}, "id": "1", "meta": "y"},
    PLAIN | {"tools": None, "chat_template_kwargs": None, "id": "2"},
    PLAIN | {"tools": '[{"type": "function", "function": {"name": "text"}}]', "id": "3"},
    PLAIN | {"tools": [], "id": "4", "meta": 2**80},
    PLAIN | {"id": "5", "chosen": [{"role": "assistant", "content": "", "tool_calls": [{"function": {
        "name": "add", "arguments": {"a": 1}}}]}]},
    PLAIN | {"id": "6", "chosen": [{"role": "assistant", "content": "", "tool_calls": [{"function": {
        "name": "weather", "arguments": {"city": "Bonn", "days": [1, "two"]}}}]}]},
]  # fmt: skip


def rows_of(given: list[dict[str, Any]], order: list[int] | None = None) -> RowStream:
    rows = RowStream(given)
    return rows if order is None else rows.select(order)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)


def prepared(rows: Any, tokenizer: Any) -> list[dict[str, Any]]:
    """The tokens of pairs by DPOTrainer's own code."""
    args = SimpleNamespace(dataset_num_proc=None, max_length=None, truncation_mode="keep_start")
    trainer = SimpleNamespace(_tokenizer=tokenizer)
    return list(trl.DPOTrainer._prepare_dataset(trainer, rows, tokenizer, args, "train"))


def test_each_row_is_rendered_with_its_own_tools_and_arguments() -> None:
    tokenizer = byte_tokenizer((TRL / "qwen3.jinja").read_text())
    together = to_dataset(rows_of(ROWS), PAIR)
    assert "meta" not in together.column_names
    for row, ids, given in zip(together, prepared(together, tokenizer), ROWS, strict=True):
        (alone,) = prepared(to_dataset(rows_of([given]), PAIR), tokenizer)
        text = tokenizer.decode(ids["prompt_ids"])
        for key in ("prompt_ids", "chosen_ids", "rejected_ids"):
            assert ids[key] == alone[key]
        assert ids["prompt_ids"] == encode_prompt(tokenizer, given)[: len(ids["prompt_ids"])]
        assert encode_prompt(tokenizer, given) == encode_prompt(tokenizer, row)
        assert ("null" not in text, "weather" in text) == (True, given["id"] == "1")
    texts = [tokenizer.decode(encode_prompt(tokenizer, row)) for row in ROWS]
    assert ["<think>\n\n</think>" in text for text in texts] == [number == 1 for number in range(7)]
    assert ["<tools>" in text for text in texts] == [True, True, False, True, False, False, False]
    assert '{"city": "Bonn", "days": [1, "two"]}' in tokenizer.decode(prepared(together, tokenizer)[6]["chosen_ids"])


def test_columns_without_a_value_are_left_out() -> None:
    rows = rows_of([PLAIN | {"tools": [], "chat_template_kwargs": {}, "id": "0"}])
    assert to_dataset(rows, PAIR).column_names == [*PAIR, "id"]


def test_the_same_rows_are_the_same_table(tmp_path: Path) -> None:
    first, other = to_dataset(rows_of(ROWS), PAIR), to_dataset(rows_of(ROWS[:6]), PAIR)
    again = to_dataset(rows_of([{**row, "meta": 0} for row in ROWS]), PAIR)
    assert again._fingerprint == first._fingerprint != other._fingerprint
    assert first.cache_files == again.cache_files
    assert to_dataset(rows_of(ROWS, [5, 2, 3]), PAIR)["id"][:] == ["5", "2", "3"]


def test_strings_and_weights() -> None:
    given = [
        {"prompt": "5", "chosen": "1e3", "rejected": "null", "chosen_weights": [1.0, 2], "rejected_weights": [1.5]}
    ]
    assert list(to_dataset(rows_of(given), PAIR)) == given
