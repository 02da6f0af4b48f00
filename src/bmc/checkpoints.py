"""Checkpoints that are whole or not there: written under another name, sealed with a list of their files, renamed.

Those of other trainers (trl.DPOTrainer, trl.SFTTrainer) have no seal. They can be resumed from and are never
overwritten.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from .errors import fail
from .runtime import differing_keys, write_json
from .weight_files import damage

logger = logging.getLogger(__name__)

SEAL = "checkpoint.json"
PARTIAL = ".checkpoint-partial"
NONE_THERE = "true, and {} holds no whole checkpoint; leave it out to start from the beginning where there is none"


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
    """Give a sealed checkpoint its name, in place of an older one of ours; what others wrote is moved aside."""
    if final.exists() and not (final / SEAL).exists():
        aside = next(path for n in count(1) if not (path := final.with_name(f"replaced-{n}-{final.name}")).exists())
        logger.warning("%s isn't of this trainer; it is now %s", final, aside.name)
        os.replace(final, aside)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    _sync(final.parent)


def flaw(folder: Path) -> str | None:
    """What keeps a checkpoint from being used; None if it is whole."""
    if not (folder / SEAL).exists():
        return _flaw_without_seal(folder)
    try:
        sizes = json.loads((folder / SEAL).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        return f"{SEAL}, which is written last, can't be read"
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} of {size:,} bytes"
    return None


def _flaw_without_seal(folder: Path) -> str | None:
    """The same for a checkpoint of another trainer. transformers writes `trainer_state.json` last."""
    try:
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"it has neither {SEAL} nor a trainer_state.json that can be read, one of which is written last"
    weights = sorted(folder.glob("*.safetensors"))
    return next((f"{path.name} {reason}" for path in weights if (reason := damage(path))), None)


def is_foreign(folder: Path) -> bool:
    """Whether another trainer wrote a checkpoint that can be used."""
    return not (folder / SEAL).exists() and flaw(folder) is None


def check_start(output_dir: str, start: str | None) -> None:
    """See that a training overwrites no checkpoint of another trainer.

    Args:
        output_dir: Where it will save.
        start: The checkpoint that it resumes from; None to start from the beginning.

    Raises:
        Faults: There are some that it would come to.
    """
    done = (
        int(match[1]) if start and Path(start).parent == Path(output_dir) and (match := _numbered(Path(start))) else 0
    )
    steps = {int(match[1]): path for path in Path(output_dir).glob("checkpoint-*") if (match := _numbered(path))}
    ahead = [path.name for step, path in sorted(steps.items()) if step > done and is_foreign(path)]
    if ahead:
        what = f"holds {', '.join(ahead)} of another trainer, which this one would overwrite"
        raise fail(output_dir, f"{what}; resume_from_checkpoint: true goes on from it, another output_dir starts anew")


def find_start(output_dir: str, given: bool | str | None, recipe: dict[str, Any]) -> str | None:
    """Find the checkpoint that a recipe's run starts from; None for the beginning. It writes nothing.

    Args:
        output_dir: The run's.
        given: `resume_from_checkpoint` of the recipe.
        recipe: What decides the run's results.

    Raises:
        Faults: There is no such checkpoint, or it is another recipe's; or the run would overwrite another trainer's.
    """
    if isinstance(given, str):
        check_checkpoint(Path(given), recipe)
        start: str | None = given
    else:
        start = None if given is False else last_checkpoint(output_dir)
        if given is None and start and is_foreign(Path(start)):
            start = None  # which check_start then refuses: the recipe that made it isn't known
    if given is True and start is None:
        raise fail("resume_from_checkpoint", NONE_THERE.format(output_dir))
    check_start(output_dir, start)
    return start


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
    if is_foreign(folder):
        return  # what made it isn't known
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
