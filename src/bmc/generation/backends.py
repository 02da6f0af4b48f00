"""Backends that generate: transformers or vLLM, from the same token ids, with the same end tokens."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ..config import GenerationArguments
from ..data.tokenization import turn_end
from ..errors import user_error
from .engine_guard import MARK, engine_guard

Response = dict[str, Any]  # {"text": str, "ids": list[int], "tokens": int, "finished": bool}
Prompts = list[list[int]]  # token ids
Settings = list[GenerationArguments]  # how to decode the response to each prompt
# (prompts, a seed each, settings) → (place of a prompt, its response), … as they complete
Complete = Callable[[Prompts, list[int], Settings], Iterator[tuple[int, Response]]]

# A launcher's variables; vLLM's engines, which start processes of their own, must not take them for theirs.
_LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK")


def load_backend(args: GenerationArguments, model_args: Any, tokenizer: Any, longest: int | None = None) -> Complete:
    """Load the model of a recipe into its backend.

    `longest` are the tokens of the longest prompt with its response, vLLM's `max_model_len`.

    Raises:
        UserErrors: There is no such model, or vLLM can't run it.
    """
    if args.backend == "vllm":
        return _vllm(args, model_args, tokenizer, longest)
    return _transformers(args, model_args, tokenizer)


def _transformers(args: GenerationArguments, model_args: Any, tokenizer: Any) -> Complete:
    from transformers import GenerationConfig

    from ..models import load_model
    from .decoding import decode

    model = load_model(model_args)
    eos = stop_ids(model.generation_config.eos_token_id, tokenizer.eos_token_id, turn_end(tokenizer))
    model.generation_config = GenerationConfig()  # only the recipe decides how to decode, as with vLLM

    def complete(prompts: Prompts, seeds: list[int], settings: Settings) -> Iterator[tuple[int, Response]]:
        for own, batch in batches(settings, args.batch_size):
            ids, noise = [prompts[place] for place in batch], [seeds[place] for place in batch]
            for place, new in decode(model, ids, noise, own, eos, tokenizer.pad_token_id):
                yield batch[place], response_of(new, eos, tokenizer)

    return complete


def batches(settings: Settings, size: int) -> Iterator[tuple[GenerationArguments, list[int]]]:
    """Group prompts into batches with equal settings, in order: `(settings, places of the prompts)`."""
    groups: list[tuple[GenerationArguments, list[int]]] = []
    for place, own in enumerate(settings):
        group = next((places for known, places in groups if known == own), None)
        if group is None:
            groups.append((own, group := []))
        group.append(place)
    for own, places in groups:
        for start in range(0, len(places), size):
            yield own, places[start : start + size]


def _vllm(args: GenerationArguments, model_args: Any, tokenizer: Any, longest: int | None) -> Complete:
    from transformers.utils.peft_utils import find_adapter_config_file

    from ..adapters import merge_command
    from ..models import local_gpus

    check_vllm("backend")
    if find_adapter_config_file(model_args.model_name_or_path, revision=model_args.model_revision):
        name = model_args.model_name_or_path
        how = f"merge it into its model ({merge_command(name)}), or choose backend: transformers"
        raise user_error("model_name_or_path", f"{name} is an adapter, which vLLM doesn't load by itself; {how}")
    with _engine_environment(local_gpus(args.tensor_parallel_size), engine_guard().mark):
        from vllm import LLM, SamplingParams

        model = LLM(
            model=model_args.model_name_or_path,
            tokenizer=model_args.tokenizer_name_or_path,
            revision=model_args.model_revision,
            trust_remote_code=model_args.trust_remote_code,
            dtype=model_args.dtype,
            tensor_parallel_size=args.tensor_parallel_size,
            max_model_len=longest,
            max_num_seqs=args.batch_size,
            use_tqdm_on_load=False,
        )
    eos = stop_ids(_model_eos(model_args), tokenizer.eos_token_id, turn_end(tokenizer))

    def complete(prompts: Prompts, seeds: list[int], settings: Settings) -> Iterator[tuple[int, Response]]:
        engine = model.llm_engine
        for place, (prompt, seed, own) in enumerate(zip(prompts, seeds, settings, strict=True)):
            sampling = SamplingParams(
                temperature=own.temperature,
                top_p=own.top_p,
                max_tokens=own.max_new_tokens,
                seed=seed,
                stop_token_ids=eos,
            )
            engine.add_request(str(place), {"prompt_token_ids": prompt}, sampling)
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    yield int(output.request_id), response_of(list(output.outputs[0].token_ids), eos, tokenizer)

    return complete


def check_vllm(key: str) -> None:
    """Check that vLLM is installed; `key` is the recipe's key that asks for it.

    Raises:
        UserErrors: It isn't.
    """
    if "vllm" not in sys.modules and importlib.util.find_spec("vllm") is None:
        what = "vLLM is not installed; pip install '.[vllm]', or choose"
        raise user_error(f"{key}: vllm", f"{what} {key}: transformers")


@contextlib.contextmanager
def _engine_environment(gpus: range, guard: str) -> Iterator[None]:
    """Set the environment in which an engine starts: its own GPUs, no launcher's variables, the guard's mark, and
    only error messages unless VLLM_LOGGING_LEVEL says otherwise."""
    given = dict(os.environ)
    os.environ[MARK] = guard
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if gpus:
        visible = given.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus.stop)))
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible.split(",")[gpus.start : gpus.stop])
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"  # a fork would inherit our process group
    for name in given:
        if name in _LAUNCHERS or name.startswith("TORCHELASTIC_"):
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in given.items() if name != "CUDA_VISIBLE_DEVICES"})


def _model_eos(model_args: Any) -> int | list[int] | None:
    """Return the end tokens that the model's own configuration names."""
    from transformers import AutoConfig, GenerationConfig

    where = {"revision": model_args.model_revision}
    try:
        return GenerationConfig.from_pretrained(model_args.model_name_or_path, **where).eos_token_id
    except OSError:
        config = AutoConfig.from_pretrained(
            model_args.model_name_or_path, trust_remote_code=model_args.trust_remote_code, **where
        )
        return getattr(config.get_text_config(), "eos_token_id", None)


def stop_ids(*ids: int | list[int] | None) -> list[int]:
    """List every id that ends a response, once."""
    flat = (i for entry in ids if entry is not None for i in (entry if isinstance(entry, list) else [entry]))
    return list(dict.fromkeys(flat))


def response_of(ids: list[int], eos: list[int], tokenizer: Any) -> Response:
    """Decode a response up to its first end token, which its ids include."""
    end = next((place for place, token in enumerate(ids) if token in eos), None)
    text = tokenizer.decode(ids[:end], skip_special_tokens=True)
    kept = ids if end is None else ids[: end + 1]
    return {"text": text, "ids": kept, "tokens": len(kept), "finished": end is not None}
