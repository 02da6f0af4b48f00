"""Cache of reference log-probs, one for each response token.

Per token, where TRL keeps one sum a response: λ changes while the policy trains, so Σ_t λ log π_ref does too.

They lie in Arrow files under `reference_cache`, in a folder named after the model (its weights, its configuration, the
precision it runs in), each under a digest of the token ids that the model saw: tokenizer, template, truncation and text
decide those. A response is thus found again whatever the method, the seed, the order or the rest of the data, and one
whose model or tokens are others is never found.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import datasets
import pyarrow as pa
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object, is_peft_model, send_to_device, tqdm
from torch import Tensor

from ..errors import UserErrors, user_error
from ..runs import Preempted, on_sigterm
from .collator import REF_COLUMNS, Batch
from .fault_tolerance import any_process
from .token_weights import RESPONSES

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 60  # the most work that a killed run loses
SHARED_SECONDS = 10  # until a new file is seen on a network's disk
SCHEMA = pa.schema([("key", pa.binary(16)), ("logps", pa.list_(pa.float32()))])


def default_cache() -> Path:
    """Return the folder beside the cached data sets of 🤗 datasets."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "bmc-reference"


def model_digest(model: Any, weights: str, accelerator: Accelerator) -> str:
    """Hash a reference model: its `weights_digest`, configuration and precision. All ranks call this together. Where
    the weights are sharded the digest depends on the number of processes too."""
    shards = dict.fromkeys(gather_object([weights]))  # replicas say the same
    ignored = ("_name_or_path", "transformers_version", "use_cache", "architectures")
    config = {key: value for key, value in model.config.to_dict().items() if key not in ignored}
    facts = json.dumps([*shards, config, accelerator.mixed_precision], sort_keys=True, default=str)
    return hashlib.blake2b(facts.encode(), digest_size=16).hexdigest()


def weights_digest(model: Any) -> str:
    """Hash a reference model's weights, as far as this rank holds them.

    Of a policy with an adapter it is the frozen part that counts, which is the reference, and TRL's copy `ref` of an
    adapter, which PEFT doesn't freeze under prompt learning.
    """
    digest = hashlib.blake2b(digest_size=16)
    for tensor in _weights(model):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()


def _weights(model: Any) -> Iterator[Tensor]:
    """Yield parameters and saved buffers, each as far as this rank holds it."""
    adapter = is_peft_model(model)
    saved = model.state_dict().keys()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name in saved and not (adapter and tensor.requires_grad and ".ref." not in name):
            if hasattr(tensor, "ds_tensor"):  # ZeRO-3
                yield _without_padding(tensor)
            else:
                yield tensor.to_local() if hasattr(tensor, "to_local") else tensor  # FSDP2


def _without_padding(weight: Any) -> Tensor:
    """Cut this rank's part of a weight that ZeRO-3 shards in equal parts; the last ones may lie past its end, where
    memory holds anything."""
    part = weight.ds_tensor
    start = part.numel() * torch.distributed.get_rank(weight.ds_process_group)
    return part[: max(weight.ds_numel - start, 0)]


def sequence_key(prompt: list[int], response: list[int], max_length: int | None) -> bytes:
    """Hash the tokens that a model sees, and where the response begins."""
    ids = (prompt + response)[:max_length]
    return hashlib.blake2b(f"{len(prompt)}|{ids}".encode(), digest_size=16).digest()


class ReferenceCache:
    """Log-probs of response tokens by key, on disk; processes write files of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def table(self) -> pa.Table:
        """Read all that is cached, memory-mapped; leave out a file that can't be read, with a warning."""
        parts = [SCHEMA.empty_table()]
        for path in sorted(self.folder.glob("*.arrow")):
            try:
                part = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
                if part.schema != SCHEMA:
                    raise pa.ArrowInvalid("other columns")
                parts.append(part)
            except pa.ArrowInvalid as error:
                logger.warning("reference_cache: %s is damaged (%s); its log-probs are computed again", path, error)
        return pa.concat_tables(parts)

    def add(self, entries: list[tuple[bytes, Any]]) -> None:
        """Write a file of `(key, log-probs)`, whole or not at all."""
        keys, logps = zip(*entries, strict=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{uuid4().hex}.arrow"
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            with pa.ipc.new_file(file, SCHEMA) as writer:
                writer.write_table(pa.table({"key": list(keys), "logps": list(logps)}, SCHEMA))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)


def add_reference_logps(
    dataset: datasets.Dataset,
    cache: ReferenceCache,
    forward: Callable[[Batch], Tensor],
    collator: Any,
    accelerator: Accelerator,
    batch_size: int,
    name: str,
) -> datasets.Dataset:
    """Add `ref_chosen_logps` and `ref_rejected_logps`: one float32 for each response token that is kept.

    What the cache lacks is computed first, by all processes, the longest first, and kept as it comes: a run that is
    killed goes on where it was.

    Raises:
        UserErrors: A process can't see what the others write.
        Preempted: SIGTERM came. What was computed until then is kept.
    """
    keys, lengths = [], []
    for row in dataset.select_columns(["prompt_ids", *RESPONSES]):
        keys.append([sequence_key(row["prompt_ids"], row[side], collator.max_length) for side in RESPONSES])
        lengths.append(sum(map(len, row.values())))
    missing = broadcast_object_list([_missing(keys, lengths, cache)])[0]
    if missing:
        _check_shared(cache.folder, accelerator)
        _compute(dataset, missing, cache, forward, collator, accelerator, 2 * batch_size, name)
        accelerator.wait_for_everyone()
    table = cache.table()
    place = {key: index for index, key in enumerate(table["key"].to_pylist())}
    if any(key not in place for pair in keys for key in pair):
        raise _not_shared(cache.folder)
    columns = {
        column: table["logps"].take(pa.array([place[pair[side]] for pair in keys]))
        for side, column in enumerate(REF_COLUMNS)
    }
    return datasets.concatenate_datasets([dataset, datasets.Dataset(pa.table(columns))], axis=1)


def _check_shared(folder: Path, accelerator: Accelerator) -> None:
    """Check, before the work is done, that each process sees a file that the first one writes.

    Raises:
        UserErrors: One doesn't, in every process.
    """
    if accelerator.num_processes == 1:
        return
    probe = folder / broadcast_object_list([f"{uuid4().hex}.probe"])[0]
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
    accelerator.wait_for_everyone()
    patience = time.monotonic() + SHARED_SECONDS
    while not (seen := probe.exists()) and time.monotonic() < patience:
        time.sleep(0.2)
    everyone = all(gather_object([seen]))
    if accelerator.is_main_process:
        probe.unlink()
    if not everyone:
        raise _not_shared(folder)


def _not_shared(folder: Path) -> UserErrors:
    return user_error("reference_cache", f"{folder} lacks what other processes wrote; give a disk that all share")


def _missing(keys: list[list[bytes]], lengths: list[int], cache: ReferenceCache) -> list[tuple[bytes, int, int]]:
    """List (key, row, side) of each response that isn't cached, the longest pairs first; a pair's are neighbours."""
    there = set(cache.table()["key"].to_pylist())
    missing: dict[bytes, tuple[bytes, int, int]] = {}
    for row in sorted(range(len(keys)), key=lambda row: -lengths[row]):
        for side, key in enumerate(keys[row]):
            if key not in there:
                missing.setdefault(key, (key, row, side))
    return list(missing.values())


def _compute(
    dataset: datasets.Dataset,
    missing: list[tuple[bytes, int, int]],
    cache: ReferenceCache,
    forward: Callable[[Batch], Tensor],
    collator: Any,
    accelerator: Accelerator,
    batch_size: int,
    name: str,
) -> None:
    """Compute missing log-probs; ranks take batches in turn, and one without a batch repeats the last (for ZeRO-3).

    Raises:
        Preempted: SIGTERM came to one of them; all leave after the same batch.
    """
    terminated: list[int] = []
    batches = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]
    waiting: list[tuple[bytes, Any]] = []
    flushed = time.monotonic()
    description = f"Reference log-probs of the {name} pairs"
    with on_sigterm(lambda number, _: terminated.append(number)):
        for start in tqdm(range(0, len(batches), accelerator.num_processes), desc=description):
            batch = batches[min(start + accelerator.process_index, len(batches) - 1)]
            rows = [(dataset[row], RESPONSES[side]) for _, row, side in batch]
            layout = collator.lay_out([(row["prompt_ids"], row[side]) for row, side in rows])
            logps = forward(send_to_device(layout, accelerator.device)).float().cpu()
            for (key, _, _), values, mask in zip(batch, logps, layout["response_mask"], strict=True):
                waiting.append((key, values[mask].numpy()))
            leave, last = any_process(bool(terminated), accelerator), start + accelerator.num_processes >= len(batches)
            if leave or last or time.monotonic() - flushed >= FLUSH_SECONDS:
                cache.add(waiting)
                waiting, flushed = [], time.monotonic()
            if leave:
                raise Preempted
