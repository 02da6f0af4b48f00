"""Editors in this process: transformers on a tiny model, and a double of vLLM's interface."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from vllm_double import Calls, vllm_double

from bmc.bridging.run import bridge, estimate_for, load_pairs, make_model
from bmc.config import BridgeConfig, DatasetConfig, DatasetMixture
from bmc.errors import UserErrors
from bmc.llm.cache import ResponseCache
from bmc.llm.client import CachedClient, Completion
from bmc.llm.cost import UsageTracker
from bmc.llm.errors import RequestFailed

MESSAGES = [[{"role": "user", "content": f"{'more ' * n}of {n}?"}] for n in range(7)]


def recipe(folder: Path, model: Path, **settings: Any) -> BridgeConfig:
    given = {"output_dir": str(folder / "out"), "editor": "transformers", "model": str(model), "max_tokens": 12}
    return BridgeConfig(**{**given, "max_concurrency": 4, **settings})


def complete(config: BridgeConfig, conversations: Any, usage: UsageTracker | None = None) -> list[Any]:
    async def run() -> list[Any]:
        counts = usage or UsageTracker(None)
        store = ResponseCache(Path(config.output_dir).parent / "responses.sqlite")
        editor = CachedClient(make_model(config, counts, store), config, 1, store, counts)
        try:
            return await asyncio.gather(*map(editor.complete, conversations), return_exceptions=True)
        finally:
            await editor.aclose()
            store.close()

    return asyncio.run(run())


def alone(model_dir: Path, messages: list[dict[str, str]]) -> tuple[str, str, int, int]:
    """What transformers itself generates, greedily, for one prompt."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    size = prompt["input_ids"].shape[1]
    ids = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, size:].tolist()
    ended = tokenizer.eos_token_id in ids
    text = tokenizer.decode(ids, skip_special_tokens=True)
    return text, "stop" if ended else "length", size, len(ids)


@pytest.mark.slow
def test_transformers_generates_as_it_does_alone_and_responses_are_cached(tmp_path: Path, model_dir: Path) -> None:
    usage = UsageTracker(None)
    replies = complete(recipe(tmp_path, model_dir), MESSAGES, usage)
    assert replies == [Completion(*alone(model_dir, messages)) for messages in MESSAGES]
    assert usage.spent["completions"] == 7
    again = UsageTracker(None)
    assert complete(recipe(tmp_path, model_dir), MESSAGES, again) == replies
    assert again.spent["completions"] == 0


@pytest.mark.slow
def test_sampling_is_seeded(tmp_path: Path, model_dir: Path) -> None:
    runs = (recipe(tmp_path / name, model_dir, temperature=1.0) for name in ("one", "other"))
    one, other = (complete(run, MESSAGES[:4]) for run in runs)
    assert one == other
    assert len({reply.text for reply in one}) > 1


def test_what_is_too_long_for_the_model_drops_the_row(tmp_path: Path, model_dir: Path) -> None:
    (error,) = complete(recipe(tmp_path, model_dir), [[{"role": "user", "content": "x" * 600}]])  # it takes 512
    assert isinstance(error, RequestFailed)
    assert str(error) == "too long for the model"


def test_a_run_with_a_model_in_process(tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model's prompts don't fit, so each pair is dropped for that, or kept as it was."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    data = tmp_path / "pairs.jsonl"
    rows = [{"id": f"r{n}", "prompt": "p", "chosen": "c", "rejected": f"r {n}"} for n in range(3)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = recipe(tmp_path, model_dir, on_failure="keep_original")
    config.dataset_mixture = DatasetMixture(datasets=[DatasetConfig(id=str(data))])
    found = estimate_for(config, *load_pairs(config))
    assert (found.to_send, found.how) == (3, f"the tokenizer of {model_dir}")
    stats = bridge(config)
    assert (stats["kept"], stats["bridged"], stats["kept_original"]) == (3, 0, {"too long for the model": 3})


@pytest.mark.parametrize("editor", ["transformers", "vllm"])
def test_no_such_model(tmp_path: Path, editor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", vllm_double(Calls(), list))
    with pytest.raises(UserErrors, match="there is no such folder"):
        make_model(
            recipe(tmp_path, tmp_path / "none", editor=editor), UsageTracker(None), ResponseCache(tmp_path / "r")
        )


def test_vllm_must_be_installed(tmp_path: Path, model_dir: Path) -> None:
    if "vllm" in sys.modules:
        pytest.skip("vLLM is installed")
    with pytest.raises(UserErrors, match="vLLM is not installed; pip install"):
        make_model(recipe(tmp_path, model_dir, editor="vllm"), UsageTracker(None), ResponseCache(tmp_path / "r"))


def test_vllm_by_its_double(tmp_path: Path, model_dir: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says each prompt's length, and ends where that is odd."""

    def say(prompt: list[int]) -> list[int]:
        ids = tokenizer(str(len(prompt)), add_special_tokens=False)["input_ids"]
        return [*ids, tokenizer.eos_token_id] if len(prompt) % 2 else ids

    calls = Calls()
    monkeypatch.setitem(sys.modules, "vllm", vllm_double(calls, say))
    replies = complete(recipe(tmp_path, model_dir, editor="vllm", temperature=0.5), MESSAGES)
    for reply, messages in zip(replies, MESSAGES, strict=True):
        # <s><user> … \n<assistant> , a token a byte
        size = len(f"x<user> {messages[0]['content']}\n<assistant> ")
        assert reply.text == str(size)
        assert reply.prompt_tokens == size
        assert reply.finish_reason == ("stop" if size % 2 else "length")
        assert reply.completion_tokens == len(str(size)) + size % 2
    assert calls.engine["max_num_seqs"] == 4
    assert {(params.temperature, params.top_p, params.max_tokens) for _, params in calls.requests} == {(0.5, 1.0, 12)}
    assert len({params.seed for _, params in calls.requests}) == len(MESSAGES)


def test_an_error_of_the_model_reaches_the_caller(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = vllm_double(Calls(), list)
    monkeypatch.setattr(module.LLM, "add_request", lambda *_: 1 / 0)
    monkeypatch.setitem(sys.modules, "vllm", module)
    results = complete(recipe(tmp_path, model_dir, editor="vllm"), MESSAGES)
    assert [type(result) for result in results] == [ZeroDivisionError] * 7
