"""Which files a data set's `id` means: one file, or those of a split in a folder."""

from __future__ import annotations

import re
from pathlib import Path

from .sources import SOURCES

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv", ".jsonl.gz", ".json.gz", ".csv.gz")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(?:-[0-9a-f]{16})?")


def kind(path: Path) -> str:
    """Return a file's suffix, without that of its compression."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix


def splits(folder: Path, config: str | None = None) -> dict[str, list[Path]]:
    """Return the files of each split in a folder: `train.jsonl`, or `train-00000-of-00002.parquet` and its like.

    They may also lie in `data`, as in a clone of a Hub data set, in `train/0000.parquet`, as the Hub converts them, or
    either in the configuration's folder. What several kinds of files hold is read from one.
    """
    found: dict[str, list[Path]] = {}
    inner = folder / config if config and (folder / config).is_dir() else folder
    for place in (inner / "data", inner):
        for suffix in reversed(SUFFIXES):
            files: dict[str, list[Path]] = {}
            for file in sorted(place.glob(f"*{suffix}")):
                shard = _SHARD.fullmatch(file.name.removesuffix(suffix))
                files.setdefault(shard[1] if shard else file.name.removesuffix(suffix), []).append(file)
            found |= files
        for file in sorted(place.glob("*/*.parquet")):
            if re.fullmatch(r"\d{4,}", file.stem):
                found.setdefault(file.parent.name, []).append(file)
    return found


def missing_shard(files: list[Path]) -> str | None:
    """Return the name of a file that is missing among the shards of a split."""
    for number, file in enumerate(files):
        shard = _SHARD.match(file.name)
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
    return [path] if path.name.endswith(SUFFIXES) and path.is_file() else []
