"""A model's weight files: safetensors, all there, and whole; judged by their headers, before anything is loaded."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from .errors import Fault, Faults, fail

SAFE = ("model.safetensors", "adapter_model.safetensors")
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
INDEX = "model.safetensors.index.json"
LARGEST_HEADER = 100_000_000  # bytes; safetensors' own limit


def check_weights(name: str, revision: str = "main", allow_pickle: bool = False) -> None:
    """Looks at the weight files of a model without loading them.

    Args:
        name: Folder, or Hub id, of which only the names of the files are asked for.
        revision: Branch, tag or commit of the Hub.
        allow_pickle: Whether pickled weights, which may run any code, will do.

    Raises:
        Faults: The weights are pickled and that isn't allowed; a file is missing, damaged or cut short.
    """
    folder = Path(name)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else _names_on_hub(name, revision)
    safe = [file for file in names if file.endswith(".safetensors")]
    pickled = [file for file in names if file.endswith(PICKLED) and "model" in file]
    if not safe and pickled and not allow_pickle:
        what = f"'{name}' has only pickled weights ({pickled[0]}), which may run any code when they are loaded"
        raise fail("model_name_or_path", f"{what}; convert them to safetensors, or set allow_pickle: true")
    if not folder.is_dir():
        return
    faults = []
    if INDEX in names and SAFE[0] not in names:
        wanted = sorted(set(_index(folder / INDEX).values()))
        missing = [file for file in wanted if file not in names]
        faults += [Fault(str(folder / file), f"is missing, and {INDEX} names it; copy it too") for file in missing]
    else:
        wanted = [file for file in SAFE if file in names]
    for file in wanted:
        if file in names and (reason := damage(folder / file)):
            faults.append(Fault(str(folder / file), f"{reason}; copy or save the model again"))
    if faults:
        raise Faults(*faults)


def damage(path: Path) -> str | None:
    """What is wrong with a safetensors file: its header against its size; None if they agree.

    The file is 8 bytes with the header's length n, n bytes of JSON, and the tensors end to end, each with its place in
    the header (safetensors' format).
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            return f"is no safetensors file ({size} bytes)"
        (length,) = struct.unpack("<Q", start)
        if length > min(LARGEST_HEADER, size - 8):
            return f"is damaged or cut short (its header is to have {length:,} bytes, the file has {size:,})"
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
            wanted = 8 + length + max(ends, default=0)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return "is damaged (its header can't be read)"
    if size != wanted:
        return f"is {'cut short' if size < wanted else 'damaged'} ({size:,} bytes, its header says {wanted:,})"
    return None


def _index(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError):
        raise fail(str(path), "is no index of safetensors files; copy or save the model again") from None


def _names_on_hub(name: str, revision: str) -> list[str]:
    """Names of a repository's files; none where the Hub can't be asked, and then loading judges them."""
    from huggingface_hub import list_repo_files

    try:
        return list_repo_files(name, revision=revision)
    except Exception:  # whatever the network's client raises
        return []
