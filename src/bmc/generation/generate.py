"""Responses to prompts, for sampling and evaluation alike: in what order, by which process, and what is kept.

Prompts go to a backend longest first, so that batches hold prompts of similar length and memory is at its peak in the
first. A response is kept in a file beside the results as soon as it ends, under a digest of its prompt: a run that was
killed goes on with what is missing, whatever its batches and however many processes there are then.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from ..config import GenerationArguments
from ..distributed import all_gather, rank, world_size
from ..runs import is_main_process, report_disk_errors, write_jsonl

Response = dict[str, Any]  # {"text": str, "tokens": int, "finished": bool}
Prompts = list[list[int]]
Settings = list[GenerationArguments]  # how each prompt's response is generated
Complete = Callable[[Prompts, list[int], Settings], Iterator[tuple[int, Response]]]
PARTIAL = "responses.partial.jsonl"


def generate(
    prompts: Prompts, settings: Settings, load: Callable[[], Complete], folder: Path, seed: int = 0
) -> list[Response]:
    """One response to each prompt, in their order, in every process.

    Args:
        prompts: Token ids.
        settings: How the response to each is generated.
        load: Loads the model and gives a backend, `(prompts, a seed each, settings) → (place of a prompt, its
            response), …` as they end; called where there is anything to do.
        folder: Where finished responses are kept, in `PARTIAL`; it is removed by whoever has written the results.
        seed: Of the sampling. A response depends on it, the prompt, and how many equal prompts stand before it.

    Raises:
        Faults: The folder can't be written.
    """
    keys = cache_keys(prompts)
    kept = {key: response for found in all_gather(_read(folder)) for key, response in found.items()}
    todo = shard([len(prompt) for prompt in prompts], [key in kept for key in keys], rank(), world_size())
    new = _complete(prompts, settings, keys, todo, load, folder, seed) if todo else {}
    for theirs in all_gather(new):
        kept |= theirs
    if is_main_process():
        with report_disk_errors(folder):
            _fold(folder, kept)
    return [kept[key] for key in keys]


def cache_keys(prompts: Prompts) -> list[str]:
    """A name for each prompt: the digest of its tokens, and the how manieth of its like it is."""
    seen: Counter[str] = Counter()
    keys = []
    for prompt in prompts:
        digest = hashlib.sha256(json.dumps(prompt).encode()).hexdigest()[:24]
        seen[digest] += 1
        keys.append(f"{digest}-{seen[digest]}")
    return keys


def shard(lengths: list[int], done: list[bool], rank: int, processes: int) -> list[int]:
    """The places of the prompts that a process is to answer: those left, longest first, dealt out in turns."""
    left = [place for place, ended in enumerate(done) if not ended]
    return sorted(left, key=lambda place: -lengths[place])[rank::processes]


def response_seed(seed: int, key: str) -> int:
    """A seed for one response, below 2⁶³."""
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
    """This process's part, each response kept as it ends. The bar is the first process's, and of its own part."""
    from tqdm import tqdm

    new: dict[str, Response] = {}
    complete, tokens = load(), 0
    total = len(todo) if world_size() > 1 else len(prompts)
    what = f"Generating (process 1 of {world_size()})" if world_size() > 1 else "Generating"
    with (
        _opened(folder) as file,
        tqdm(total=total, initial=total - len(todo), unit="row", desc=what, disable=not is_main_process()) as bar,
    ):
        seeds = [response_seed(seed, keys[place]) for place in todo]
        ours = [prompts[place] for place in todo], seeds, [settings[place] for place in todo]
        for number, response in complete(*ours):
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


def _opened(folder: Path) -> IO[str]:
    """The file that this process keeps its responses in, without a line that an earlier one was killed over."""
    path = folder / (f"{rank()}.{PARTIAL}" if rank() else PARTIAL)
    with report_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            os.truncate(path, _whole(path)[1])
        return path.open("a", encoding="utf-8")


def _read(folder: Path) -> dict[str, Response]:
    """What earlier runs have kept, however many processes they had."""
    return {key: response for path in sorted(folder.glob(f"*{PARTIAL}")) for key, response in _whole(path)[0].items()}


def _whole(path: Path) -> tuple[dict[str, Response], int]:
    """A file's responses, and its bytes up to a line that a process was killed over."""
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


def _fold(folder: Path, kept: dict[str, Response]) -> None:
    """One file of everything, in place of one of each process."""
    write_jsonl(folder / PARTIAL, ({"key": key, **response} for key, response in kept.items()))
    for path in folder.glob(f"*.{PARTIAL}"):
        path.unlink()
