"""Responses come in the order of their prompts, whatever the batches, and a killed run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bmc.config import EvaluateConfig
from bmc.generation import backend, batches_by_length, generate, stop_ids


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 7))
def test_batches_hold_every_index_once_longest_first(lengths: list[int], size: int) -> None:
    batches = batches_by_length(lengths, size)
    flat = [index for batch in batches for index in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[index] for index in flat] == sorted(lengths, reverse=True)
    assert all(len(batch) == size for batch in batches[:-1])


def echo(calls: list[int]) -> Any:
    """A backend that answers each prompt with its length."""

    def complete(prompts: list[list[int]], number: int) -> list[dict[str, Any]]:
        calls.append(number)
        return [{"text": str(len(prompt)), "tokens": 1, "finished": True} for prompt in prompts]

    return complete


PROMPTS = [[0] * length for length in (3, 9, 1, 5, 7, 2)]


def test_responses_are_in_the_order_of_the_prompts(tmp_path: Path) -> None:
    calls: list[int] = []
    responses = generate(PROMPTS, echo(calls), 2, tmp_path / "kept.jsonl")
    assert [response["text"] for response in responses] == ["3", "9", "1", "5", "7", "2"]
    assert calls == [0, 1, 2]


def test_a_killed_run_does_only_what_is_missing(tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    whole = generate(PROMPTS, echo([]), 2, kept)
    first, second, _ = kept.read_text().splitlines(keepends=True)
    kept.write_text(first + second[:20])  # killed while it wrote the second batch
    calls: list[int] = []
    assert generate(PROMPTS, echo(calls), 2, kept) == whole
    assert calls == [1, 2]
    assert [json.loads(line)[0] for line in kept.read_text().splitlines()] == [0, 1, 2]


def config(model_dir: Path, **changed: Any) -> EvaluateConfig:
    return EvaluateConfig(
        output_dir="unused", model_name_or_path=str(model_dir), dtype="float32", max_new_tokens=6, **changed
    )


def test_greedy_batches_equal_prompts_alone(model_dir: Path, tokenizer: Any, tmp_path: Path) -> None:
    """Left padding and attention mask: a prompt's response doesn't depend on its batch."""
    from transformers import AutoModelForCausalLM

    prompts = [tokenizer(text)["input_ids"] for text in ("a", "some longer words", "2 + 2 = ")]
    settings = config(model_dir)
    together = generate(prompts, backend(settings, settings, tokenizer), 3, tmp_path / "kept.jsonl")
    model = AutoModelForCausalLM.from_pretrained(model_dir).eval()
    for prompt, response in zip(prompts, together, strict=True):
        ids = list(prompt)
        for _ in range(6):
            with torch.no_grad():
                ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
            if ids[-1] == tokenizer.eos_token_id:
                break
        alone = [token for token in ids[len(prompt) :] if token != tokenizer.eos_token_id]
        assert response["text"] == tokenizer.decode(alone, skip_special_tokens=True)
        assert response["tokens"] == len(ids) - len(prompt)
        assert response["finished"] == (ids[-1] == tokenizer.eos_token_id)


def test_sampling_is_a_function_of_the_seed(model_dir: Path, tokenizer: Any) -> None:
    prompt = [tokenizer("a b")["input_ids"]]
    settings = config(model_dir, temperature=1.0, seed=1)
    complete = backend(settings, settings, tokenizer)
    assert complete(prompt, 0) == complete(prompt, 0)
    assert complete(prompt, 0) != complete(prompt, 1)


@pytest.mark.parametrize(
    ("given_ids", "expected"), [((2, None), [2]), (([2, 5], 2), [2, 5]), ((None, [7, 7]), [7]), ((None, None), [])]
)
def test_stop_ids(given_ids: Any, expected: list[int]) -> None:
    assert stop_ids(*given_ids) == expected
