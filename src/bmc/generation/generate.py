"""Generate a response to each prompt of a recipe, resumably; make preference pairs of them.

Prompts go to a backend longest first, so that a batch holds prompts of similar length and memory peaks in the first
batch. Each response is appended to a file beside the results as soon as it is complete, under a hash of its prompt: a
killed run continues with what is missing, with any batch size and any number of processes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeGuard

from ..config import EvaluateConfig, SampleConfig, names
from ..data.loading import load_mixture
from ..data.schema import BRIDGING, SIDES, Row, assistant, check_rows, chosen_response, content
from ..data.tokenization import (
    AlignmentError,
    ContinuationDecoder,
    check_offsets,
    check_template,
    encode_prompt,
    response_prefix,
)
from ..distributed import all_gather, rank, world_size
from ..errors import raise_all
from ..launch import launch_workers
from ..models import check_context_length, check_model, load_tokenizer
from ..preflight import attention_faults
from ..runs import claim_output_dir, is_main_process, report_disk_errors, run_fingerprint, write_jsonl
from .backends import Complete, Prompts, Response, Settings, load_backend

PARTIAL = "responses.partial.jsonl"
Start = tuple[list[int], str | None] | AlignmentError  # token ids, and the prefix of y_w that ends them


def generate_responses(config: SampleConfig | EvaluateConfig) -> tuple[list[Row], list[Response], Path]:
    """Generate a response to the prompt of each row of a recipe, or a continuation of the beginning of its y_w.

    Continues where an earlier run was killed. If the recipe wants several processes and no launcher started them, this
    function starts them and exits as they do. Only the first process returns; the others exit here.

    Returns:
        `(rows, responses, output folder)`. Once the results are written, remove `PARTIAL` from the folder.

    Raises:
        UserErrors: The rows, the template or the model can't be used, or the folder is another recipe's.
    """
    launch_workers(config.data_parallel_size)
    rows, tokenizer = load_prompts(config)
    starts = [_start(config, tokenizer, row) for row in rows]
    prompts = {place: start[0] for place, start in enumerate(starts) if isinstance(start, tuple)}
    settings = {place: config.decoding(rows[place].get("source")) for place in prompts}
    check_context_length(config, prompts, settings, names(config.dataset_mixture.datasets))
    folder = claim_output_dir(config.output_dir, run_fingerprint(config), config, rows=rows)
    if _continues(config):
        tokenizer = ContinuationDecoder(tokenizer)
    longest = max((len(prompt) + settings[place].max_new_tokens for place, prompt in prompts.items()), default=0)
    load = partial(load_backend, config, config, tokenizer, longest)
    responses = generate([*prompts.values()], [*settings.values()], load, folder, config.seed)
    generated = dict(zip(prompts, responses, strict=True))
    if not is_main_process():
        raise SystemExit
    return rows, [_response(start, generated.get(place, {})) for place, start in enumerate(starts)], folder


def load_prompts(config: SampleConfig | EvaluateConfig) -> tuple[list[Row], Any]:
    """Load and check a recipe's rows and its tokenizer.

    Raises:
        UserErrors: The rows, the template or the model can't be used.
    """
    mixture = config.dataset_mixture
    loaded = load_mixture(mixture.datasets, mixture.seed)
    rows = [{key: value for key, value in row.items() if value is not None} for row in loaded]
    where = names(mixture.datasets)
    pairs = [row | ({"chosen": chosen} if (chosen := chosen_response(row)) else {}) for row in rows]
    check_rows(pairs, ("prompt", "chosen") if isinstance(config, SampleConfig) else ("prompt",), where)
    check_model(config.model_name_or_path, config.model_revision, config.trust_remote_code, config.allow_pickle)
    raise_all([*attention_faults(config)])
    name = config.tokenizer_name_or_path or config.model_name_or_path
    template, system = config.chat_template, config.auto_insert_empty_system_msg
    tokenizer = load_tokenizer(name, config.model_revision, config.trust_remote_code, template, system)
    check_template(tokenizer, pairs, ("chosen",) if _continues(config) else (), where)
    if _continues(config):
        check_offsets(tokenizer)
    return rows, tokenizer


def _continues(config: SampleConfig | EvaluateConfig) -> TypeGuard[SampleConfig]:
    return isinstance(config, SampleConfig) and config.mode == "continue_prefix"


def _start(config: SampleConfig | EvaluateConfig, tokenizer: Any, row: Row) -> Start:
    """Return what the model gets of a row: its prompt, and the beginning of y_w in `continue_prefix` (DPO (CW))."""
    if not _continues(config):
        return encode_prompt(tokenizer, row), None
    try:
        return response_prefix(tokenizer, row, chosen_response(row) or "", config.prefix_fraction)
    except AlignmentError as error:
        return error


def _response(start: Start, generated: Response) -> Response:
    """Add the `prefix` that a response continues, or return an empty response with the `reason`."""
    if isinstance(start, AlignmentError):
        return {"text": "", "tokens": 0, "finished": True, "reason": str(start)}
    return generated if start[1] is None else {**generated, "prefix": start[1]}


def make_pairs(rows: list[Row], responses: list[Response]) -> tuple[list[Row], list[Row]]:
    """Make preference pairs: the ground truth is y_w, the model's response y_l, in place of a pair's own.

    Returns:
        The pairs; and the rows that make no pair, with their `reason`: an empty response, or one equal to y_w.
    """
    pairs, dropped = [], []
    for row, response in zip(rows, responses, strict=True):
        given: Any = chosen_response(row)
        rest = {key: value for key, value in row.items() if key not in ("completion", *SIDES, *BRIDGING)}
        text = response["text"].strip()
        if "prefix" in response:  # y_l begins as y_w does, to the last space
            text = (response["prefix"] + response["text"]).rstrip()
        rejected = text if isinstance(given, str) else assistant(text)
        pair = {**rest, "chosen": given, "rejected": rejected, "finished": response["finished"]}
        reason = response.get("reason") or ("" if text else "empty response")
        if not reason and text.strip() == content(given).strip():
            reason = "equal to y_w"
        if reason:
            dropped.append({**pair, "reason": reason})
        else:
            pairs.append(pair)
    return pairs, dropped


def generate(
    prompts: Prompts, settings: Settings, load: Callable[[], Complete], folder: Path, seed: int = 0
) -> list[Response]:
    """Generate one response to each prompt; every process returns all of them, in order.

    Complete responses are kept in the folder's `PARTIAL`; the backend is loaded only if one is missing. A response
    depends on the seed, on the prompt, and on the number of equal prompts before it.

    Raises:
        UserErrors: The folder can't be written.
    """
    keys = cache_keys(prompts)
    kept = {key: response for found in all_gather(_read_partial(folder)) for key, response in found.items()}
    todo = shard([len(prompt) for prompt in prompts], [key in kept for key in keys], rank(), world_size())
    new = _complete(prompts, settings, keys, todo, load, folder, seed) if todo else {}
    for theirs in all_gather(new):
        kept |= theirs
    if is_main_process():
        with report_disk_errors(folder):
            write_jsonl(folder / PARTIAL, ({"key": key, **response} for key, response in kept.items()))
            for path in folder.glob(f"*.{PARTIAL}"):
                path.unlink()
    return [kept[key] for key in keys]


def cache_keys(prompts: Prompts) -> list[str]:
    """Compute a key for each prompt: a hash of the token ids plus an occurrence counter."""
    seen: Counter[str] = Counter()
    keys = []
    for prompt in prompts:
        digest = hashlib.sha256(json.dumps(prompt).encode()).hexdigest()[:24]
        seen[digest] += 1
        keys.append(f"{digest}-{seen[digest]}")
    return keys


def shard(lengths: list[int], done: list[bool], rank: int, world_size: int) -> list[int]:
    """List the prompts that a process handles: those left, longest first, dealt out in turn."""
    left = [place for place, ended in enumerate(done) if not ended]
    return sorted(left, key=lambda place: -lengths[place])[rank::world_size]


def response_seed(seed: int, key: str) -> int:
    """Derive a seed for one response, below 2⁶³."""
    return int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:8], "big") >> 1


def _complete(
    prompts: Prompts,
    settings: Settings,
    keys: list[str],
    todo: list[int],
    load: Callable[[], Complete],
    folder: Path,
    seed: int,
) -> dict[str, Response]:
    """Generate this process's responses and keep each as it completes; rank 0 shows the progress of its own part."""
    from tqdm import tqdm

    new: dict[str, Response] = {}
    complete, tokens = load(), 0
    total = len(todo) if world_size() > 1 else len(prompts)
    what = f"Generating (process 1 of {world_size()})" if world_size() > 1 else "Generating"
    with (
        _open_partial(folder) as file,
        tqdm(total=total, initial=total - len(todo), unit="row", desc=what, disable=not is_main_process()) as bar,
    ):
        seeds = [response_seed(seed, keys[place]) for place in todo]
        for number, response in complete(
            [prompts[place] for place in todo], seeds, [settings[place] for place in todo]
        ):
            key = keys[todo[number]]
            new[key] = response
            with report_disk_errors(folder):
                file.write(json.dumps({"key": key, **response}, ensure_ascii=False) + "\n")
                file.flush()
            tokens += response["tokens"]
            bar.update()
            if not bar.disable:
                bar.set_postfix_str(f"{tokens / max(bar.format_dict['elapsed'], 1e-9):.0f} tokens/s", refresh=False)
    return new


def _open_partial(folder: Path) -> IO[str]:
    """Open this process's file of responses, without a last line that was cut off by a kill."""
    path = folder / (f"{rank()}.{PARTIAL}" if rank() else PARTIAL)
    with report_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            os.truncate(path, _whole_lines(path)[1])
        return path.open("a", encoding="utf-8")


def _read_partial(folder: Path) -> dict[str, Response]:
    """Read what earlier runs have kept, however many processes they had."""
    paths = sorted(folder.glob(f"*{PARTIAL}"))
    return {key: response for path in paths for key, response in _whole_lines(path)[0].items()}


def _whole_lines(path: Path) -> tuple[dict[str, Response], int]:
    """Return a file's responses, and its length in bytes up to a line that was cut off."""
    kept: dict[str, Response] = {}
    size = 0
    with path.open("rb") as file:
        for line in file:
            try:
                response = json.loads(line if line.endswith(b"\n") else b"")
                kept[response.pop("key")] = response
            except (ValueError, KeyError, TypeError, AttributeError):
                break
            size += len(line)
    return kept, size
