"""What both backends make of a prompt: the model's own tokens, up to the same ends, by each row's own seed."""

import copy
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vllm_double import Calls, SamplingParams, vllm_double

from bmc.config import Decoding, EvaluateConfig, GenerationArguments
from bmc.data.tokenization import ContinuationDecoder
from bmc.errors import UserErrors
from bmc.generation import decoding
from bmc.generation.backends import batches, load_backend, stop_ids
from bmc.generation.decoding import GumbelNoise, decode
from bmc.recipe import parse

PROMPTS = [[10 + n, *range(20, 20 + n)] for n in (1, 30, 4, 9, 2, 17, 3, 3)]


@pytest.fixture(scope="module")
def model(model_dir: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()


def alone(model: Any, prompt: list[int], new: int, eos: list[int]) -> list[int]:
    """The most likely tokens, each by a forward pass of its own over the whole sequence."""
    ids = list(prompt)
    while len(ids) < len(prompt) + new and (len(ids) == len(prompt) or ids[-1] not in eos):
        with torch.no_grad():
            ids.append(model(torch.tensor([ids])).logits[0, -1].argmax().item())
    return ids[len(prompt) :]


@pytest.mark.parametrize("head", [0, 25])
def test_rows_that_end_and_leave_change_nothing(head: int, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding, attention mask, a head that is computed once, and a cache that is made smaller several times."""
    prompts = [[*range(60, 60 + head), *prompt] for prompt in PROMPTS]
    whole = [alone(model, prompt, 12, []) for prompt in prompts]
    eos = sorted({tokens[place] for tokens, place in zip(whole, (0, 3, 5, 8), strict=False)})
    sizes = []
    generate = type(model).generate

    def noted(self: Any, input_ids: Any, **rest: Any) -> Any:
        sizes.append(len(input_ids))
        return generate(self, input_ids=input_ids, **rest)

    monkeypatch.setattr(type(model), "generate", noted)
    settings = GenerationArguments(max_new_tokens=12)
    forward, widths = type(model.model).forward, []

    def seen(self: Any, input_ids: Any, **rest: Any) -> Any:
        widths.append(tuple(input_ids.shape))
        return forward(self, input_ids=input_ids, **rest)

    monkeypatch.setattr(type(model.model), "forward", seen)
    found = dict(decode(model, prompts, [0] * len(prompts), settings, eos, pad=0))
    assert widths[: 2 if head else 1] == ([(1, 25), (8, 31)] if head else [(8, 31)])
    assert [found[place] for place in range(len(prompts))] == [alone(model, prompt, 12, eos) for prompt in prompts]
    assert len({len(tokens) for tokens in found.values()}) > 2
    assert sizes[0] == len(PROMPTS)
    assert sizes == sorted(set(sizes), reverse=True)
    assert len(sizes) > 2


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=5))
def test_padding_stands_between_the_head_and_the_rest(prompts: list[list[int]]) -> None:
    head = decoding._head(prompts)
    alike = [len(set(tokens)) == 1 for tokens in zip(*prompts, strict=False)]
    assert head == min([*alike, False].index(False), min(map(len, prompts)) - 1)
    ids, mask = decoding._padded(prompts, head, 9, "cpu")
    assert [row[seen.bool()].tolist() for row, seen in zip(ids, mask, strict=True)] == prompts
    assert bool((ids[mask == 0] == 9).all())
    assert bool(mask[:, :head].all())
    assert all(seen[head:] == sorted(seen[head:]) for seen in mask.tolist())


@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1, max_size=6), st.integers(1, 2))
def test_a_cache_with_room_holds_what_was_put_into_it(steps: list[tuple[int, bool]], heads: int) -> None:
    kept, expected = torch.tensor([]), torch.empty(3, heads, 0, 4)
    for count, leaves in steps:
        new = torch.rand(len(expected), heads, count, 4)
        kept, expected = decoding.appended(kept, new), torch.cat([expected, new], -2)
        assert torch.equal(kept, expected)
        if leaves and len(expected) > 1:
            kept, expected = kept[[0, -1]], expected[[0, -1]]


def test_a_cache_with_room_stays_where_it_is() -> None:
    kept = decoding.appended(torch.tensor([]), torch.rand(2, 3, 5, 4))
    places = {kept.data_ptr()}
    for _ in range(decoding.ROOM):
        kept = decoding.appended(kept, torch.rand(2, 3, 1, 4))
        places.add(kept.data_ptr())
    assert len(places) == 1


def sampled(model: Any, order: list[int], size: int, **settings: Any) -> dict[int, list[int]]:
    """By prompt, what is drawn where prompts come in such an order and batches."""
    args = GenerationArguments(max_new_tokens=8, **{"temperature": 1.0, **settings})
    found = {}
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        for place, ids in decode(model, [PROMPTS[n] for n in batch], batch, args, list(range(40)), pad=0):
            found[batch[place]] = ids
    return found


def test_a_sample_depends_on_its_prompt_and_seed_alone(model: Any) -> None:
    order = list(range(8))
    whole = sampled(model, order, 8)
    assert whole == sampled(model, order[::-1], 3) == sampled(model, order, 1)
    assert whole != sampled(model, order, 8, temperature=3.0)
    assert PROMPTS[6] == PROMPTS[7]
    assert whole[6] != whole[7]  # their seeds differ


def test_samples_have_the_models_distribution(subtests: pytest.Subtests) -> None:
    """Pearson's χ² of 20,000 draws, one from each of so many seeds, against the softmax worked out here."""
    for temperature, top_p in [(1.0, 1.0), (2.0, 1.0), (1.0, 0.75)]:
        with subtests.test(temperature=temperature):
            shares = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05])
            args = GenerationArguments(temperature=temperature, top_p=top_p)
            noise = [torch.Generator().manual_seed(seed) for seed in range(20_000)]
            scores = decoding._sampler(args, noise)(torch.zeros(len(noise), 1), shares.log().repeat(len(noise), 1))
            counts = torch.bincount(scores.argmax(-1), minlength=5).double()
            expected = {1.0: shares, 2.0: shares.sqrt() / shares.sqrt().sum()}[temperature].double()
            if top_p == 0.75:  # 0.5 + 0.2 fall short of it, with 0.15 it is reached
                expected = torch.tensor([50, 20, 15, 0, 0]).double() / 85
            expected = expected * len(noise)
            there = expected > 0
            assert counts[~there].sum() == 0
            chi = ((counts - expected)[there] ** 2 / expected[there]).sum().item()
            assert chi < {5: 18.47, 3: 13.82}[int(there.sum())]  # the 0.999 quantiles for 4 and 2 degrees of freedom


def test_noise_is_each_rows_own_and_finite() -> None:
    noise = GumbelNoise([torch.Generator().manual_seed(seed) for seed in (5, 6, 5)])
    first = noise(torch.zeros(3, 1), torch.zeros(3, 200_000))
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, noise(torch.zeros(3, 1), torch.zeros(3, 200_000)))
    assert first.isfinite().all()
    assert first.mean().item() == pytest.approx(0.5772, abs=0.01)  # Euler's constant


def test_the_recipe_alone_decides_how_tokens_are_chosen(model_dir: Path, tokenizer: Any, tmp_path: Path) -> None:
    """A model's own generation_config may want sampling and penalties; only what ends a response counts."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir)
    plain = alone(model, PROMPTS[1], 6, [])
    model.generation_config.update(do_sample=True, repetition_penalty=5.0, top_k=1, eos_token_id=[2, plain[3]])
    model.save_pretrained(tmp_path)
    settings = config(tmp_path)
    complete = load_backend(settings, settings, tokenizer)
    ((_, response),) = complete([PROMPTS[1]], [0], [settings])
    assert (response["tokens"], response["finished"]) == (4, True)
    assert response["text"] == tokenizer.decode(plain[:3], skip_special_tokens=True)


def config(model_dir: Path, **changed: Any) -> EvaluateConfig:
    return EvaluateConfig(
        output_dir="unused", model_name_or_path=str(model_dir), dtype="float32", max_new_tokens=6, **changed
    )


def test_each_benchmark_is_generated_in_its_own_way(model_dir: Path, tokenizer: Any) -> None:
    """Prompts of three benchmarks, mixed: what each gets is what it gets alone."""
    own = {"alpaca_eval": Decoding(temperature=0.9), "gsm8k": Decoding(max_new_tokens=3)}
    settings = config(model_dir, benchmarks=own, batch_size=2)
    sources = ["alpaca_eval", "arena_hard", "gsm8k", None] * 2
    ways = [settings.decoding(source) for source in sources]
    assert [(way.temperature, way.max_new_tokens) for way in ways[:4]] == [(0.9, 6), (0.0, 6), (0.0, 3), (0.0, 6)]
    assert [places for _, places in batches(ways, 2)] == [[0, 4], [1, 3], [5, 7], [2, 6]]
    complete = load_backend(settings, settings, tokenizer)
    mixed = dict(complete(PROMPTS, list(range(8)), ways))
    for place, source in enumerate(sources):
        given = {} if source is None else vars(own.get(source, Decoding()))
        alone = replace(settings, benchmarks={}, **{key: value for key, value in given.items() if value is not None})
        ((_, response),) = complete([PROMPTS[place]], [place], [alone])
        assert mixed[place] == response
    assert max(mixed[place]["tokens"] for place in (2, 6)) == 3


def test_settings_of_a_benchmark_are_judged(subtests: pytest.Subtests) -> None:
    table: list[tuple[Any, ...]] = [
        (
            "{alpaca_evil: {temperature: 1}}",
            r"benchmarks.alpaca_evil: is no known benchmark \(did you mean 'alpaca_eval'",
        ),
        ("{alpaca_eval: {temperature: -1}}", "benchmarks.alpaca_eval.temperature: must be 0 or more|temperature"),
        ("{alpaca_eval: {top_k: 3}}", "top_k"),
        ("{alpaca_eval: {}}", "benchmarks.alpaca_eval: is empty"),
    ]
    for words, what in table:
        with subtests.test(words=words, what=what):
            argv = [
                "--model_name_or_path", "m", "--output_dir", "o", "--dataset_mixture", "{datasets: [{source: gsm8k}]}"
            ]  # fmt: skip
            with pytest.raises(UserErrors, match=what) as caught:
                parse([*argv, "--benchmarks", words], EvaluateConfig)
            assert len(caught.value.faults) == 1


def test_stop_ids(subtests: pytest.Subtests) -> None:
    table: list[tuple[Any, ...]] = [((2, None), [2]), (([2, 5], 2), [2, 5]), ((None, [7, 7]), [7]), ((None, None), [])]
    for given_ids, expected in table:
        with subtests.test(given_ids=given_ids, expected=expected):
            assert stop_ids(*given_ids) == expected


@pytest.mark.parametrize("name", ["transformers", "vllm"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_response_ends_where_the_template_ends_a_turn(
    name: str, wrapped: bool, model_dir: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ChatML on a model whose eos is another token; so Llama 3's <|eot_id|>."""
    from transformers import AutoModelForCausalLM

    plain = alone(AutoModelForCausalLM.from_pretrained(model_dir), PROMPTS[1], 6, [])
    end, length = next((token, place) for place, token in enumerate(plain) if token > 2)
    chat = copy.deepcopy(tokenizer)
    chat.chat_template = (
        "{% for m in messages %}{{ m.role }}\n{{ m.content }}" + tokenizer.decode([end]) + "\n{% endfor %}"
    )
    monkeypatch.setattr(type(chat), "get_added_vocab", lambda self: {self.convert_ids_to_tokens(end): end})
    monkeypatch.setitem(sys.modules, "vllm", vllm_double(Calls(), lambda ids: plain))
    settings = config(model_dir, backend=name)
    complete = load_backend(settings, settings, ContinuationDecoder(chat) if wrapped else chat)
    ((_, response),) = complete([PROMPTS[1]], [0], [settings])
    assert (response["tokens"], response["finished"]) == (length + 1, True)
    chat.chat_template = None
    complete = load_backend(settings, settings, chat)
    ((_, response),) = complete([PROMPTS[1]], [0], [settings])
    assert response["tokens"] == len(alone(AutoModelForCausalLM.from_pretrained(model_dir), PROMPTS[1], 6, [2]))


# --- vLLM, by a double ---------------------------------------------------------------------------------------------


def test_vllm_is_given_the_same_tokens_ends_and_seeds(
    model_dir: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls()
    said = [[65, 66, 2], [65, 66], [65, 66, 7, 66]]
    monkeypatch.setitem(sys.modules, "vllm", vllm_double(calls, lambda ids: said[PROMPTS.index(ids)]))
    for path in model_dir.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 7]}))
    settings = config(tmp_path, backend="vllm", temperature=0.5, top_p=0.9, batch_size=4, tensor_parallel_size=2)
    complete = load_backend(settings, settings, tokenizer, longest=37)
    given = {key: calls.engine[key] for key in ("model", "tensor_parallel_size", "max_model_len", "max_num_seqs")}
    assert given == {"model": str(tmp_path), "tensor_parallel_size": 2, "max_model_len": 37, "max_num_seqs": 4}
    found = list(complete(PROMPTS[:3], [11, 12, 13], [settings, settings, replace(settings, temperature=0.0)]))
    assert [prompt for prompt, _ in calls.requests] == [{"prompt_token_ids": prompt} for prompt in PROMPTS[:3]]
    assert [params for _, params in calls.requests] == [
        SamplingParams(temperature, 0.9, 6, seed, [2, 7]) for temperature, seed in ((0.5, 11), (0.5, 12), (0.0, 13))
    ]
    text = tokenizer.decode([65, 66])
    ended, cut = ({"text": text, "tokens": n, "finished": n == 3} for n in (3, 2))
    expected = [(2, ended | {"ids": [65, 66, 7]}), (1, cut | {"ids": [65, 66]}), (0, ended | {"ids": [65, 66, 2]})]
    assert found == expected


def test_each_process_has_an_engine_on_gpus_of_its_own(
    model_dir: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM would take a launcher's variables for its own; whoever asks afterwards still finds them."""
    calls = Calls()
    monkeypatch.setitem(sys.modules, "vllm", vllm_double(calls, list))
    launched = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "a"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    settings = config(model_dir, backend="vllm", tensor_parallel_size=2)
    load_backend(settings, settings, tokenizer)
    seen = calls.environment
    assert not set(launched) & set(seen)
    assert seen["CUDA_VISIBLE_DEVICES"] == "6,7"
    assert seen["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
    assert {name: os.environ[name] for name in launched} == launched
    monkeypatch.setenv("LOCAL_RANK", "2")
    for refused in (settings, config(model_dir)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        with pytest.raises(UserErrors, match=r"^GPUs: 3 × \d GPUs are wanted, and there are 2; lower"):
            load_backend(refused, refused, tokenizer)


def test_vllm_takes_no_adapter(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", vllm_double(Calls(), list))
    (tmp_path / "adapter_config.json").write_text("{}")
    settings = config(tmp_path, backend="vllm")
    with pytest.raises(UserErrors, match=r"model_name_or_path: .* is an adapter"):
        load_backend(settings, settings, tokenizer)


def test_vllm_must_be_installed(model_dir: Path, tokenizer: Any) -> None:
    if "vllm" in sys.modules:
        pytest.skip("vLLM is installed")
    settings = config(model_dir, backend="vllm")
    with pytest.raises(UserErrors, match=r"backend: vllm: vLLM is not installed; pip install '.\["):
        load_backend(settings, settings, tokenizer)


def test_keys_of_vllm_are_refused_without_it() -> None:
    assert [key for key, _ in GenerationArguments(tensor_parallel_size=2).faults()] == ["tensor_parallel_size"]
    assert not [*GenerationArguments(tensor_parallel_size=2, backend="vllm").faults()]
