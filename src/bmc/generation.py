"""Responses to prompts, by transformers or vLLM; for sampling and evaluation alike.

Prompts are batched by length, longest first, so that little is padded and memory is at its peak in the first batch.
Finished batches are kept in a file beside the results, so that a killed run goes on where it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .config import GenerationArguments

Response = dict[str, Any]  # {"text": str, "tokens": int, "finished": bool}
Batch = list[int]


def generate(
    prompts: list[list[int]], complete: Callable[[list[list[int]], int], list[Response]], batch_size: int, keep: Path
) -> list[Response]:
    """One response to each prompt, in their order.

    Args:
        prompts: Token ids.
        complete: `(prompts of a batch, number of the batch) → responses`: a backend below.
        batch_size: Prompts a batch.
        keep: File of the finished batches; it is removed by whoever has written the results.
    """
    from tqdm import tqdm

    batches = batches_by_length([len(prompt) for prompt in prompts], batch_size)
    finished = _finished(keep)
    responses: list[Response | None] = [None] * len(prompts)
    keep.parent.mkdir(parents=True, exist_ok=True)
    tokens = 0
    with keep.open("a", encoding="utf-8") as file, tqdm(total=len(prompts), unit="row", desc="Generating") as bar:
        for number, batch in enumerate(batches):
            outputs = finished.get(number)
            if outputs is None:
                outputs = complete([prompts[index] for index in batch], number)
                file.write(json.dumps([number, outputs], ensure_ascii=False) + "\n")
                file.flush()
                tokens += sum(output["tokens"] for output in outputs)
            for index, output in zip(batch, outputs, strict=True):
                responses[index] = output
            bar.update(len(batch))
            if bar.format_dict["elapsed"]:
                bar.set_postfix_str(f"{tokens / bar.format_dict['elapsed']:.0f} tokens/s")
    return [response for response in responses if response is not None]


def batches_by_length(lengths: list[int], batch_size: int) -> list[Batch]:
    """Indices in batches of similar length, longest first; ties in their order."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _finished(keep: Path) -> dict[int, list[Response]]:
    """The batches that an earlier run finished; a line that it was killed over is cut off."""
    if not keep.exists():
        return {}
    done: dict[int, list[Response]] = {}
    whole = 0
    with keep.open("rb") as file:
        for line in file:
            try:
                number, outputs = json.loads(line)
            except ValueError:
                break
            done[number], whole = outputs, whole + len(line)
    os.truncate(keep, whole)
    return done


def backend(args: GenerationArguments, model_args: Any, tokenizer: Any) -> Callable[..., list[Response]]:
    """The recipe's backend, its model loaded."""
    return (_vllm if args.backend == "vllm" else _transformers)(args, model_args, tokenizer)


def _transformers(args: GenerationArguments, model_args: Any, tokenizer: Any) -> Callable[..., list[Response]]:
    import torch
    from transformers import set_seed

    from .models import load_model

    model = load_model(model_args)
    eos = stop_ids(model.generation_config.eos_token_id, tokenizer.eos_token_id)
    sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if args.temperature > 0:
        sampling = {"do_sample": True, "temperature": args.temperature, "top_p": args.top_p, "top_k": 0}

    def complete(prompts: list[list[int]], number: int) -> list[Response]:
        set_seed(args.seed + number)  # a resumed run samples what it would have sampled
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=args.max_new_tokens,
                eos_token_id=eos,
                pad_token_id=tokenizer.pad_token_id,
                **sampling,
            )
        return [_response(row, eos, tokenizer) for row in output[:, width:].tolist()]

    return complete


def _vllm(args: GenerationArguments, model_args: Any, tokenizer: Any) -> Callable[..., list[Response]]:
    from vllm import LLM, SamplingParams

    model = LLM(
        model_args.model_name_or_path,
        tokenizer=model_args.tokenizer_name_or_path,
        revision=model_args.model_revision,
        trust_remote_code=model_args.trust_remote_code,
        dtype=model_args.dtype,
    )

    def complete(prompts: list[list[int]], number: int) -> list[Response]:
        sampling = SamplingParams(
            temperature=args.temperature,
            top_p=args.top_p,
            max_tokens=args.max_new_tokens,
            seed=args.seed + number,
            stop_token_ids=stop_ids(tokenizer.eos_token_id),
        )
        outputs = model.generate([{"prompt_token_ids": prompt} for prompt in prompts], sampling)
        return [_response(list(output.outputs[0].token_ids), sampling.stop_token_ids, tokenizer) for output in outputs]

    return complete


def stop_ids(*ids: int | list[int] | None) -> list[int]:
    """Every id that ends a response, once."""
    flat: Iterator[int] = (
        i for entry in ids if entry is not None for i in (entry if isinstance(entry, list) else [entry])
    )
    return list(dict.fromkeys(flat))


def _response(ids: list[int], eos: list[int], tokenizer: Any) -> Response:
    """What stands before the first end-of-sequence token, and whether there was one."""
    end = next((place for place, token in enumerate(ids) if token in eos), None)
    text = tokenizer.decode(ids[:end], skip_special_tokens=True)
    return {"text": text, "tokens": len(ids) if end is None else end + 1, "finished": end is not None}
