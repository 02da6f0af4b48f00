"""Which files a data set's `id` means: one file, or those of a split in a folder."""

from __future__ import annotations

import re
from pathlib import Path

from .sources import SOURCES

SUFFIXES = (".jsonl", ".json", ".parquet")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})")


def splits(folder: Path) -> dict[str, list[Path]]:
    """Return the files of each split in a folder: `train.jsonl`, or `train-00000-of-00002.parquet` and its like.

    They may also lie in `data`, as in a clone of a Hub data set. What several kinds of files hold is read from one.
    """
    found: dict[str, list[Path]] = {}
    for place in (folder / "data", folder):
        for suffix in (".parquet", ".jsonl", ".json"):
            files: dict[str, list[Path]] = {}
            for file in sorted(place.glob(f"*{suffix}")):
                shard = _SHARD.fullmatch(file.stem)
                files.setdefault(shard[1] if shard else file.stem, []).append(file)
            found |= files
    return found


def missing_shard(files: list[Path]) -> str | None:
    """Return the name of a file that is missing among the shards of a split."""
    for number, file in enumerate(files):
        shard = _SHARD.fullmatch(file.stem)
        if shard and int(shard[2]) != number:
            return f"{shard[1]}-{number:05}-of-{shard[3]}{file.suffix}"
        if shard and number == len(files) - 1 and len(files) < int(shard[3]):
            return f"{shard[1]}-{number + 1:05}-of-{shard[3]}{file.suffix}"
    return None


def in_clone(name: str, source: str | None) -> Path:
    """Return the folder of a source's data where `name` is a clone of its repository, else `name` itself."""
    path = Path(name).expanduser()
    known = SOURCES.get(source or "")
    inside = path / known.folder if known and known.folder else path
    return inside if inside.is_dir() else path


def files_of(name: str, split: str, source: str | None = None) -> list[Path]:
    """Return the files that are there; none for a Hub id, or where they are missing."""
    path = in_clone(name, source)
    if path.is_dir():
        return splits(path).get(split, [])
    return [path] if path.suffix in SUFFIXES and path.is_file() else []
