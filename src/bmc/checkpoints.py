"""Checkpoints that are whole or not there: written under another name, sealed with a list of their files, renamed."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import fail
from .runtime import differing_keys, write_json

logger = logging.getLogger(__name__)

SEAL = "checkpoint.json"
PARTIAL = ".checkpoint-partial"


def seal(folder: Path, recipe: dict[str, Any] | None = None) -> None:
    """Brings a checkpoint to the disk and lists its files, with their sizes, in `checkpoint.json`.

    Args:
        folder: The checkpoint.
        recipe: What decides the run's results, for `check_recipe`.
    """
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(_files(folder))}
    write_json(folder / SEAL, {"files": sizes, "recipe": recipe})
    for path in (*_files(folder), *(path for path in folder.rglob("*") if path.is_dir()), folder):
        _sync(path)


def publish(partial: Path, final: Path) -> None:
    """Gives a sealed checkpoint its name, in place of what stands there, which can only be torn or the same step's."""
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    _sync(final.parent)


def flaw(folder: Path) -> str | None:
    """What keeps a checkpoint from being used; None if it is whole."""
    try:
        sizes = json.loads((folder / SEAL).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        return f"it has no {SEAL}, which is written last"
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} of {size:,} bytes"
    return None


def last_checkpoint(output_dir: str) -> str | None:
    """The newest checkpoint of a run that is whole; those that are not are passed over with a warning."""
    found = {int(match[1]): path for path in Path(output_dir).glob("checkpoint-*") if (match := _numbered(path))}
    for step in sorted(found, reverse=True):
        reason = flaw(found[step])
        if reason is None:
            return str(found[step])
        logger.warning("%s is torn (%s); going back to the one before it", found[step], reason)
    return None


def check_checkpoint(folder: Path, recipe: dict[str, Any]) -> None:
    """Looks whether a run may go on from a checkpoint that its recipe names.

    Raises:
        Faults: It isn't there, is torn, or was written by another recipe.
    """
    if not folder.is_dir():
        raise fail("resume_from_checkpoint", f"{folder} is no folder; leave it out to start from the newest checkpoint")
    reason = flaw(folder)
    if reason:
        raise fail(str(folder), f"is torn ({reason}); without resume_from_checkpoint the newest whole one is taken")
    earlier = json.loads((folder / SEAL).read_text(encoding="utf-8"))["recipe"]
    changed = differing_keys(earlier or recipe, recipe)
    if changed:
        raise fail(
            str(folder),
            f"is a checkpoint of another recipe (it differs in {', '.join(changed)}); to go on from its weights alone, "
            "give it as model_name_or_path",
        )


def is_full_disk(error: BaseException) -> bool:
    """Whether a file couldn't be written: libraries hide the system's error in texts of their own."""
    return isinstance(error, OSError) or bool(
        re.search(r"No space left|os error 28|PytorchStreamWriter failed|File too large|os error 27", str(error))
    )


def _numbered(path: Path) -> re.Match[str] | None:
    return re.fullmatch(r"checkpoint-(\d+)", path.name) if path.is_dir() else None


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and path != folder / SEAL)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
