"""Find the files of a data set and read their raw rows: JSON Lines, JSON, CSV and Parquet.

JSON is parsed here, not by `datasets.load_dataset("json")`, which turns texts that look like dates into timestamps,
forces a column into one type and can't say which row is at fault.
"""

from __future__ import annotations

import base64
import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from ..errors import did_you_mean, user_error
from .schema import Row

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv", ".jsonl.gz", ".json.gz", ".csv.gz")
PARQUET_SLICE = 8  # rows that are Python objects at a time
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(?:-[0-9a-f]{16})?")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def local_files(name: str, split: str, config: Any = None) -> list[Path] | None:
    """List the files that an `id` names, in order; None for a data set on the Hub or at a URL.

    Of a folder these are the files of a split, perhaps in a folder named after the `config`.

    Raises:
        UserErrors: The name looks like a path, but there is no such file, no such split, or no file of a known format.
    """
    if "://" in name:
        return None
    path = Path(name).expanduser()
    if path.is_dir():
        return _files_in_folder(path, split, config if isinstance(config, str) else None)
    if path.is_file():
        if not path.name.endswith(SUFFIXES):
            raise user_error(name, f"is no {', '.join(SUFFIXES)} file; convert it")
        return [path]
    if name.endswith(SUFFIXES) or name.startswith((".", "/", "~")) or name.count("/") > 1:
        there = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise user_error(name, f"no such file{did_you_mean(path.name, there)}; paths are relative to {Path.cwd()}")
    beside = [*path.parent.iterdir()] if len(path.parts) > 1 and path.parent.is_dir() else []
    if hint := did_you_mean(path.name, [folder.name for folder in beside if folder.is_dir()]):
        hub = f"for a data set of the Hub first write: hf download --repo-type dataset {name} --local-dir {name}"
        raise user_error(name, f"there is no such folder{hint}; {hub}")
    return None


def _files_in_folder(folder: Path, split: str, config: str | None) -> list[Path]:
    there = split_files(folder, config)
    if split not in there:
        what = f"there are {', '.join(sorted(there))}" if there else f"it holds no {', '.join(SUFFIXES)} file"
        raise user_error(str(folder), f"has no split '{split}'{did_you_mean(split, list(there))}; {what}")
    if missing := _missing_shard(there[split]):
        raise user_error(str(folder), f"{missing} is missing; copy it too")
    return there[split]


def split_files(folder: Path, config: str | None = None) -> dict[str, list[Path]]:
    """List the files of each split in a folder: `train.jsonl`, or `train-00000-of-00002.parquet` and so on.

    The files may also lie in `data`, as in a clone of a Hub data set, in `train/0000.parquet`, as the Hub converts
    them, or in a folder named after the configuration. A split that exists in several formats is read from one.
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


def _missing_shard(files: list[Path]) -> str | None:
    for number, file in enumerate(files):
        shard = _SHARD.match(file.name)
        if shard and int(shard[2]) != number:
            return f"{shard[1]}-{number:05}-of-{shard[3]}{file.suffix}"
        if shard and number == len(files) - 1 and len(files) < int(shard[3]):
            return f"{shard[1]}-{number + 1:05}-of-{shard[3]}{file.suffix}"
    return None


def file_rows(path: Path) -> Iterator[Row]:
    """Read the raw rows of one file, one at a time.

    Raises:
        UserErrors: The file can't be read, or a row is no object.
    """
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix
    return {".parquet": _parquet_rows, ".csv": _csv_rows, ".json": _json_rows, ".jsonl": _json_lines}[suffix](path)


def _json_lines(path: Path) -> Iterator[Row]:
    with _open_text(path) as lines:
        yield from _parse_lines(lines, path)


def _json_rows(path: Path) -> Iterator[Row]:
    """Read a JSON file: a list of objects, an object of objects (TabMWP), or JSON Lines all the same."""
    with _open_text(path) as file:
        text = file.read()
    try:
        yield from _objects(parse_json(text), path)
    except json.JSONDecodeError as error:
        if not text.lstrip().startswith("{"):
            raise user_error(f"{path}: line {error.lineno}", f"is not JSON ({error.msg})") from error
        yield from _parse_lines(text.split("\n"), path)  # not splitlines(), which also cuts at U+2028


def _objects(value: Any, path: Path) -> list[Row]:
    if isinstance(value, dict):
        nested = bool(value) and all(isinstance(row, dict) for row in value.values())
        return list(value.values()) if nested else [value]
    if not isinstance(value, list):
        raise user_error(str(path), "must hold a list of objects")
    for number, row in enumerate(value, start=1):
        if not isinstance(row, dict):
            raise user_error(f"{path}: row {number}", 'is not an object; write {"column": value, …}')
    return value


def _parse_lines(lines: Iterable[str], path: Path) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line.rstrip("\n"))
        except json.JSONDecodeError as error:
            what = f"is not JSON ({error.msg} at column {error.colno}); write one object a line"
            raise user_error(f"{path}: row {number}", what) from error
        if not isinstance(row, dict):
            raise user_error(f"{path}: row {number}", 'is not an object; write {"column": value, …}')
        yield row


def parse_json(text: str) -> Any:
    """Parse JSON; half of a surrogate pair, which is no text, becomes a question mark.

    Raises:
        JSONDecodeError: It is no JSON, is nested too deeply, or holds a number of thousands of digits.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", text, 0) from None
    except ValueError:
        raise json.JSONDecodeError("a number of thousands of digits", text, 0) from None
    if _SURROGATE.search(text):
        value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return value


@contextmanager
def _open_text(path: Path) -> Iterator[IO[str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            yield cast("IO[str]", file)
    except UnicodeDecodeError as error:
        raise user_error(str(path), f"is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except (OSError, EOFError, zlib.error) as error:
        raise user_error(str(path), f"can't be read ({getattr(error, 'strerror', None) or error})") from error


def _csv_rows(path: Path) -> Iterator[Row]:
    """Read CSV as texts, under the names in its first line: no text becomes a number, an empty cell is left out."""
    csv.field_size_limit(2**31 - 1)
    try:
        with _open_text(path) as lines:
            table = csv.DictReader(lines, strict=True)
            names = table.fieldnames or []
            if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
                raise user_error(str(path), f"has two columns '{twice}'; give each its own name in the first line")
            for number, row in enumerate(table, start=1):
                if None in row:
                    what = "has more cells than the first line has names; put texts with commas in quotes"
                    raise user_error(f"{path}: row {number}", what)
                yield {column: text for column, text in row.items() if text}
    except csv.Error as error:
        raise user_error(str(path), f"can't be read as CSV ({error})") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        # A file of kilobytes may repeat a text of megabytes in every row: dictionaries hold such a text once.
        with ParquetFile(path) as file:
            texts = [column.path for column in map(file.schema.column, range(len(file.schema))) if _is_text(column)]
        with ParquetFile(path, read_dictionary=texts) as file:
            for batch in file.iter_batches(batch_size=256):
                for start in range(0, batch.num_rows, PARQUET_SLICE):
                    yield from map(plain_row, batch.slice(start, PARQUET_SLICE).to_pylist())
    except (ArrowException, OSError) as error:
        raise user_error(str(path), f"can't be read as Parquet ({error})") from error


def _is_text(column: Any) -> bool:
    return bool(column.physical_type == "BYTE_ARRAY" and column.logical_type.type == "STRING")


def plain_row(row: Row) -> Row:
    """Turn the values of an Arrow row into values that JSON has.

    Arrow gives all structs of a column the same keys. Keys without a value are left out again, so that a tool's schema
    doesn't get the names of other tools' parameters.
    """
    return {column: _plain(value) for column, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)
