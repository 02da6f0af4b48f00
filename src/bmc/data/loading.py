"""A name for every row, that changes with neither its place nor its file.

Which files a data set's `id` means: one file, or those of a split in a folder.

Rows as the `datasets.Dataset` that a trainer takes, with each value as it was.

Reads the data sets of a recipe, from files, the Hub or a generator, and mixes them.

Rows are plain dicts, read anew each time they are gone through, so that little of them is ever held: JSON Lines and
Parquet come from their files, a part from the Hub from the cache of 🤗 datasets. A .json file, and what a generator
makes, are held. No column is forced into one type.
"""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import json
import random
import re
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, compress, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from ..errors import Fault, Faults, did_you_mean, fail
from .registry import DATASETS, GENERATORS, REPOSITORY, DatasetSpec
from .schema import WEIGHTS, Row, digest, edit_split, tools_of

TEXTS = ("prompt", "completion", "messages", "chosen", "rejected")


def id_columns(columns: Sequence[str]) -> list[str]:
    """The columns that an id is made of where a row has none."""
    return [column for column in TEXTS if column in columns] or [column for column in columns if column != "id"]


def row_id(row: Row, texts: list[str], name: str) -> str:
    """A row's id: its own, or one that depends on its `texts` only."""
    if row.get("id") not in (None, ""):
        return str(row["id"])
    said = {text: row.get(text) for text in texts}
    words = json.dumps(said, sort_keys=True, ensure_ascii=False, default=str) if texts else ""
    return f"{name}-{digest(words)}"


def unique_ids(ids: Iterable[str]) -> list[str]:
    """The ids, with -2, -3, … after repeats."""
    ids = list(ids)
    taken, counts, unique = set(ids), dict.fromkeys(ids, 0), []
    for id in ids:
        counts[id] += 1
        name = id if counts[id] == 1 else f"{id}-{counts[id]}"
        while counts[id] > 1 and name in taken:
            counts[id] += 1
            name = f"{id}-{counts[id]}"
        taken.add(name)
        unique.append(name)
    return unique


SUFFIXES = (".jsonl", ".json", ".parquet", ".csv", ".jsonl.gz", ".json.gz", ".csv.gz")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(?:-[0-9a-f]{16})?")


def data_suffix(path: Path) -> str:
    """Return a file's suffix, without that of its compression."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix


def split_files(folder: Path, config: str | None = None) -> dict[str, list[Path]]:
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
    known = DATASETS.get(source or "")
    inside = path / known.folder if known and known.folder else path
    return inside if inside.is_dir() else path


def files_of(name: str, split: str, source: str | None = None) -> list[Path]:
    """Return the files that are there; none for a Hub id, or where they are missing."""
    path = in_clone(name, source)
    if path.is_dir():
        return split_files(path).get(split, [])
    return [path] if path.name.endswith(SUFFIXES) and path.is_file() else []


if TYPE_CHECKING:
    from datasets import Dataset

# columns that go to a trainer if they are there: TRL hands two to the chat template, two are token weights, and ids
# name rows in messages
ALSO = ("tools", "chat_template_kwargs", *WEIGHTS, "id")


def to_dataset(rows: RowStream, texts: tuple[str, ...], ready: Callable[[Row], Row] = dict) -> Dataset:
    """Write rows to the cache of 🤗 datasets and open them there.

    The file's name and the fingerprint are a hash of the content: what a trainer computes from the rows is found again
    by the next run on the same ones. Columns whose values have no common type, such as the JSON schemas of different
    tools, are `Json()`: Arrow's structs would give each value the keys of all others.

    Args:
        rows: Rows that were checked.
        texts: The columns to train on; those in `ALSO` come with them.
        ready: What is done to each row first.
    """
    import datasets

    def made(columns: list[str]) -> Iterator[Row]:
        """The rows in the order of their files."""
        for row in rows.read():
            row = ready(row)
            options = {"tools": tools_of(row), "chat_template_kwargs": row.get("chat_template_kwargs") or {}}
            yield {column: options[column] if column in options else row.get(column) for column in columns}

    digest = hashlib.sha256()
    kinds: dict[str, set[str]] = {}
    for row in made([*texts, *(column for column in ALSO if column in rows.columns)]):
        digest.update(json.dumps(row, sort_keys=True).encode())
        for column, value in row.items():
            if value:
                kinds.setdefault(column, set()).add(_kind(value))
    features = datasets.Features({column: _feature(kind, datasets) for column, kind in kinds.items()})
    digest.update(repr(features).encode())
    whole = datasets.Dataset.from_generator(
        lambda: made([*features]),
        features=features,
        cache_dir=str(Path(datasets.config.HF_DATASETS_CACHE) / "bmc-rows"),
        fingerprint=digest.hexdigest()[:32],
    )
    return whole if rows.order is None else whole.select(rows.order)


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return "numbers"
    if isinstance(value, list) and all(isinstance(item, dict) and _is_plain(item) for item in value):
        return "messages"
    return "json"


def _is_plain(message: dict[str, Any]) -> bool:
    return message.keys() == {"role", "content"} and isinstance(message["content"], str)


def _feature(kinds: set[str], datasets: Any) -> Any:
    text = datasets.Value("string")
    known = {
        "text": text,
        "numbers": datasets.List(datasets.Value("float64")),
        "messages": datasets.List({"role": text, "content": text}),
    }
    return known.get("".join(kinds), datasets.Json())  # of several kinds there is none by that name


if TYPE_CHECKING:
    from ..config import DatasetConfig, DatasetMixture

Read = Callable[[], Iterator[Row]]
_WRONG = (KeyError, ValueError, TypeError, AttributeError, IndexError)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class RowStream:
    """Rows that can be gone through again and again.

    Attributes:
        read: Reads them from the beginning.
        columns: Names of the columns that any of them has; a row may lack some.
        order: Places of the rows to take, in the order to take them; all, as they are read, for None.
    """

    def __init__(self, read: Read, columns: Sequence[str], count: int, order: Sequence[int] | None = None) -> None:
        self.read, self.columns, self._count, self.order = read, list(columns), count, order

    def __iter__(self) -> Iterator[Row]:
        if self.order is None:
            return self.read()
        if all(a < b for a, b in zip(self.order, self.order[1:], strict=False)):
            return compress(self.read(), _marks(self.order, self._count))
        rows = list(self.read())
        return (rows[place] for place in self.order)

    def __len__(self) -> int:
        return self._count if self.order is None else len(self.order)

    def first(self, count: int | None) -> RowStream:
        """Return the first so many rows, all for None."""
        if count is None:
            return self
        return RowStream(lambda: islice(iter(self), count), self.columns, min(count, len(self)))

    def select(self, places: Sequence[int]) -> RowStream:
        """Return the rows at these places."""
        order = places if self.order is None else [self.order[place] for place in places]
        return RowStream(self.read, self.columns, self._count, order)


def _marks(places: Iterable[int], count: int) -> bytearray:
    """Return `count` bytes, 1 at the places."""
    marks = bytearray(count)
    for place in places:
        marks[place] = 1
    return marks


def open_dataset(config: DatasetConfig) -> Read:
    """Find one data set; its rows come as ours if it has a source, as they are if not.

    JSON is parsed here and not by `load_dataset("json")`, which turns texts that look like dates into timestamps and
    can't say which row is at fault.

    Args:
        config: `source`, `id` (by default the source's), `config`, `split` and, for a generator, `num_rows` are read.

    Raises:
        Faults: The data can't be found. While reading: a row isn't of a shape that the source knows, or is no row.
    """
    source = config.source
    if source is not None and source not in DATASETS:
        raise fail("source", f"'{source}' is unknown{did_you_mean(source, list(DATASETS))}")
    known = DATASETS[source] if source else None
    if source in GENERATORS and config.id is None:
        return _ours(GENERATORS[source](config.config, config.num_rows).__iter__, known, source, source)
    name = config.id or (known.hub_id if known else None)
    if known is not None and known.folder is not None:
        name = _cloned(config)
    if name is None:
        raise fail(f"{source}", "has no home on the Hub; give the path of its file as `id`")
    saved = _is_saved(name)
    files = None if saved else local_files(name, config.split, config.config)
    if files is None:
        raw = _from_disk(name, config.split) if saved else _from_hub(name, config.config, config.split, known)
        return _ours(lambda: map(_plain_row, raw), known, source, name)
    parts = [_ours(_file_rows(path), known, source, str(path)) for path in files]
    return lambda: chain.from_iterable(part() for part in parts)


def _file_rows(path: Path) -> Read:
    if data_suffix(path) == ".json":
        return read_json_file(path).__iter__
    lines = {".parquet": _parquet_rows, ".csv": _csv_rows, ".jsonl": _json_lines}[data_suffix(path)]
    return lambda: lines(path)


def _cloned(config: DatasetConfig) -> str:
    """Find a source's data in a clone of its authors' repository.

    Raises:
        Faults: `id` is missing, or no such clone, nor a folder or file of that data set.
    """
    if config.id is None:
        what = f"lies in its authors' repository; git clone {REPOSITORY} data/BMC, and give `id: data/BMC`"
        raise fail(f"{config.source}", what)
    path = in_clone(config.id, config.source)
    if not path.is_file() and not split_files(path):
        folder = DATASETS[str(config.source)].folder
        raise fail(config.id, f"holds no {folder}; git clone {REPOSITORY} {config.id}")
    return f"{path.parent}/{path.name}"  # with a slash, so that it is never taken for a Hub id


def _ours(raw: Read, known: DatasetSpec | None, source: str | None, where: str) -> Read:
    """Raw rows as ours."""

    def rows() -> Iterator[Row]:
        return (our_row(row, known, source, f"{where}: row {number}") for number, row in enumerate(raw(), start=1))

    return rows if known else raw


def load_mixture(datasets: Sequence[DatasetConfig], seed: int) -> RowStream:
    """The parts, one after another, with `id`s that are unique in the whole.

    Of a part with a weight below 1, or more rows than `num_rows`, the first rows of a seeded shuffle are taken, so
    that fewer rows lie within more; they come in the order of the file. Of a part with an `edit_split`, that split is
    the part.

    Args:
        datasets: The parts.
        seed: Decides which rows are taken.

    Raises:
        Faults: A part can't be read or lacks a column, or no row is left.
    """
    parts = _filled_parts(datasets, seed)
    columns = list(dict.fromkeys(column for part, _ in parts for column in part.columns))
    whole = RowStream(
        lambda: chain.from_iterable(part for part, _ in parts), columns, sum(len(part) for part, _ in parts)
    )
    return _uniquely_named(whole, [hashes for _, hashes in parts])


def _uniquely_named(rows: RowStream, hashes: list[array[int]]) -> RowStream:
    """Number ids that repeat; `hashes` are those of the ids, so that a mixture without any costs no memory."""
    import numpy

    values = numpy.concatenate([numpy.frombuffer(each, dtype="uint64") for each in hashes])
    if numpy.unique(values).size == values.size:
        return rows
    ids = unique_ids(row["id"] for row in rows)
    named = lambda: ({**row, "id": id} for row, id in zip(rows, ids, strict=True))  # noqa: E731
    return RowStream(named, rows.columns, len(ids))


def _filled_parts(datasets: Sequence[DatasetConfig], seed: int) -> list[tuple[RowStream, array[int]]]:
    """Each part that has rows, with the hashes of its ids; every part's faults at once.

    Raises:
        Faults: A part can't be read, or none has a row.
    """
    parts: list[tuple[RowStream, array[int]]] = []
    faults: list[Fault] = []
    for config in datasets:
        try:
            parts.append(_part(config, seed))
        except Faults as error:
            faults += error.faults
    if faults:
        raise Faults(*faults)
    if not any(len(part) for part, _ in parts):
        names = ", ".join(map(part_name, datasets))
        raise fail(names, "no rows are left; look at the files, `edit_split`, `weight` and `num_rows`")
    return [(part, hashes) for part, hashes in parts if len(part)]


def _part(config: DatasetConfig, seed: int) -> tuple[RowStream, array[int]]:
    """One part of a mixture: read, named, cut, and with the chosen columns; and the hashes of its ids."""
    where, name = config.id or part_name(config), part_name(config)
    raw = open_dataset(config)
    columns: dict[str, None] = {}
    count = 0
    for row in raw():
        columns |= dict.fromkeys(row)
        count += 1
    # Ids come first: they depend neither on the columns that are kept nor on the rows that are drawn.
    texts = id_columns([*columns])
    rows = RowStream(lambda: ({**row, "id": row_id(row, texts, name)} for row in raw()), [*columns], count)
    rows = _uniquely_named(rows, [_hashes(rows)])
    if config.edit_split is not None:
        rows = rows.select(edit_split(rows, config.edit_split, where))
    if (chosen := drawn_rows(config, len(rows), seed)) is not None:
        rows = rows.select(chosen)
    rows.columns = [*(column for column in columns if column != "id"), "id"]
    if (kept := kept_columns(config.columns, rows.columns, where)) is not None:
        whole = rows
        renamed = lambda row: {ours: row[key] for ours, key in kept.items() if key in row}  # noqa: E731
        rows = RowStream(lambda: map(renamed, whole), [*kept], len(whole))
    return rows, _hashes(rows)


def _hashes(rows: Iterable[Row]) -> array[int]:
    """8 bytes for each row's id."""
    ids = (row["id"].encode(errors="surrogatepass") for row in rows)
    return array("Q", (int.from_bytes(hashlib.blake2b(id, digest_size=8).digest()) for id in ids))


def load_split(mixture: DatasetMixture) -> tuple[RowStream, RowStream | None]:
    """What to train on and what to evaluate on.

    Training rows are shuffled where the mixture has several parts or a weight below 1, and in the order of the file
    otherwise. Evaluation rows are never shuffled or weighted.

    Returns:
        The training rows, and `test_datasets` or the rows that `test_split_size` holds out; None for neither.

    Raises:
        Faults: As `load_mixture`; or both kinds of evaluation are asked for, or `test_split_size` leaves no rows.
    """
    if mixture.test_datasets and mixture.test_split_size is not None:
        raise fail("dataset_mixture.test_split_size", "there are test_datasets already; give one of the two")
    train = load_mixture(mixture.datasets, mixture.seed)
    evaluation: RowStream | None = None
    if mixture.test_datasets:
        evaluation = load_mixture([replace(config, weight=1.0) for config in mixture.test_datasets], mixture.seed)
    elif mixture.test_split_size is not None:
        order = permutation(len(train), mixture.seed)
        cut = _cut(mixture.test_split_size, len(train))
        train, evaluation = train.select(sorted(order[cut:])), train.select(sorted(order[:cut]))
    if len(mixture.datasets) > 1 or any(config.weight < 1 for config in mixture.datasets):
        train = train.select(permutation(len(train), mixture.seed))
    return train, evaluation


def _cut(size: float, rows: int) -> int:
    """Rows to hold out: `size` itself from 1 on, that share of them below 1, but at least one."""
    where = "dataset_mixture.test_split_size"
    if size >= 1 and size != int(size):
        raise fail(where, f"is {size}; give a whole number of rows, or a share below 1")
    cut = int(size) if size >= 1 else max(1, round(size * rows))
    if cut >= rows:
        raise fail(where, f"would hold out {cut} of {rows} rows and leave none to train on; make it smaller")
    return cut


def drawn_rows(config: DatasetConfig, count: int, seed: int) -> list[int] | None:
    """Which of `count` rows a part takes, ascending; None for all."""
    taken = min(round(config.weight * count), config.num_rows or count)
    return sorted(permutation(count, seed)[:taken]) if taken < count else None


def kept_columns(columns: list[str] | dict[str, str] | None, there: list[str], where: str) -> dict[str, str] | None:
    """`columns` and the id, by what they are to be called; None for all.

    Raises:
        Faults: A column isn't there.
    """
    if columns is None:
        return None
    named = columns if isinstance(columns, dict) else dict(zip(columns, columns, strict=True))
    for column in named.values():
        if column not in there:
            raise fail(where, f"has no column '{column}'{did_you_mean(column, there)}; there are {', '.join(there)}")
    return named if "id" in named else {**named, "id": "id"}


def part_name(config: DatasetConfig) -> str:
    name = Path(config.id or "").name
    return config.source or (Path(name.removesuffix(".gz")).stem if name.endswith(SUFFIXES) else name)


def permutation(length: int, seed: int) -> list[int]:
    order = list(range(length))
    random.Random(seed).shuffle(order)
    return order


def our_row(raw: Row, known: DatasetSpec | None, source: str | None, where: str) -> Row:
    if known is None:
        return raw
    try:
        return known.to_row(raw)
    except _WRONG as error:
        why = str(error) if type(error) is ValueError else f"is of no shape that source '{source}' knows"
        raise fail(where, f"{why}; it has {', '.join(map(str, raw))}, and {source} wants {known.wants}") from error


def local_files(name: str, split: str, config: Any = None) -> list[Path] | None:
    """The files that an id means, in their order, or None for a data set on the Hub (or at a URL).

    Raises:
        Faults: It looks like a path and there is nothing, or a folder without that split, or no file that we read.
    """
    if "://" in name:
        return None
    path = Path(name).expanduser()
    if path.is_dir():
        return _in_folder(path, split, config if isinstance(config, str) else None)
    if path.is_file():
        if not path.name.endswith(SUFFIXES):
            raise fail(name, f"is no {', '.join(SUFFIXES)} file; convert it")
        return [path]
    if name.endswith(SUFFIXES) or name.startswith((".", "/", "~")) or name.count("/") > 1:
        there = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise fail(name, f"no such file{did_you_mean(path.name, there)}; paths are relative to {Path.cwd()}")
    beside = [*path.parent.iterdir()] if len(path.parts) > 1 and path.parent.is_dir() else []
    if hint := did_you_mean(path.name, [folder.name for folder in beside if folder.is_dir()]):
        hub = f"for a data set of the Hub first write: hf download --repo-type dataset {name} --local-dir {name}"
        raise fail(name, f"there is no such folder{hint}; {hub}")
    return None


def _in_folder(folder: Path, split: str, config: str | None) -> list[Path]:
    there = split_files(folder, config)
    if split not in there:
        what = f"there are {', '.join(sorted(there))}" if there else f"it holds no {', '.join(SUFFIXES)} file"
        raise fail(str(folder), f"has no split '{split}'{did_you_mean(split, list(there))}; {what}")
    if missing := missing_shard(there[split]):
        raise fail(str(folder), f"{missing} is missing; copy it too")
    return there[split]


def read_json_file(path: Path) -> list[Row]:
    """The objects of a JSONL file; or of a JSON file: a list, an object of objects (TabMWP), or JSONL all the same.

    Raises:
        Faults: It can't be read, or is no such file.
    """
    with _opened(path) as file:
        text = file.read()
    if data_suffix(path) == ".json":
        try:
            return _objects(_parsed(text), path)
        except json.JSONDecodeError as error:
            if not text.lstrip().startswith("{"):
                raise fail(f"{path}: line {error.lineno}", f"is not JSON ({error.msg})") from error
    return list(parse_json_lines(text.split("\n"), path))  # not splitlines(): it cuts at U+2028 and others, too


def _objects(value: Any, path: Path) -> list[Row]:
    if isinstance(value, dict):
        nested = bool(value) and all(isinstance(row, dict) for row in value.values())
        return list(value.values()) if nested else [value]
    if not isinstance(value, list):
        raise fail(str(path), "must hold a list of objects")
    for number, row in enumerate(value, start=1):
        if not isinstance(row, dict):
            raise fail(f"{path}: row {number}", 'is not an object; write {"column": value, …}')
    return value


def parse_json_lines(lines: Iterable[str], path: Path) -> Iterator[Row]:
    """The objects of JSON Lines, one at a time.

    Raises:
        Faults: A line is no JSON object.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _parsed(line.rstrip("\n"))
        except json.JSONDecodeError as error:
            what = f"is not JSON ({error.msg} at column {error.colno}); write one object a line"
            raise fail(f"{path}: row {number}", what) from error
        if not isinstance(row, dict):
            raise fail(f"{path}: row {number}", 'is not an object; write {"column": value, …}')
        yield row


def _parsed(text: str) -> Any:
    """Parse JSON; half of a surrogate pair, which is no text, becomes a question mark.

    Raises:
        JSONDecodeError: It is none, is nested too deeply, or holds a number of thousands of digits.
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


def _json_lines(path: Path) -> Iterator[Row]:
    with _opened(path) as lines:
        yield from parse_json_lines(lines, path)


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    """Open a text file, decompressed if it is compressed.

    Raises:
        Faults: It can't be read to its end.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            yield cast("IO[str]", file)
    except UnicodeDecodeError as error:
        raise fail(str(path), f"is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except (OSError, EOFError, zlib.error) as error:
        raise fail(str(path), f"can't be read ({getattr(error, 'strerror', None) or error})") from error


def _csv_rows(path: Path) -> Iterator[Row]:
    """Rows of texts under the names in the first line; no text is taken for a number, and an empty cell has none."""
    csv.field_size_limit(2**31 - 1)
    try:
        with _opened(path) as lines:
            table = csv.DictReader(lines, strict=True)
            names = table.fieldnames or []
            if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
                raise fail(str(path), f"has two columns '{twice}'; give each its own name in the first line")
            for number, row in enumerate(table, start=1):
                if None in row:
                    what = "has more cells than the first line has names; put texts with commas in quotes"
                    raise fail(f"{path}: row {number}", what)
                yield {column: text for column, text in row.items() if text}
    except csv.Error as error:
        raise fail(str(path), f"can't be read as CSV ({error})") from error


PARQUET_SLICE = 8  # of a Parquet file, as Python objects


def _parquet_rows(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        # A file of kilobytes may repeat a text of megabytes in every row: what repeats is held once.
        with ParquetFile(path) as file:
            texts = [column.path for column in map(file.schema.column, range(len(file.schema))) if _is_text(column)]
        with ParquetFile(path, read_dictionary=texts) as file:
            for batch in file.iter_batches(batch_size=256):
                for start in range(0, batch.num_rows, PARQUET_SLICE):
                    yield from map(_plain_row, batch.slice(start, PARQUET_SLICE).to_pylist())
    except (ArrowException, OSError) as error:
        raise fail(str(path), f"can't be read as Parquet ({error})") from error


def _is_text(column: Any) -> bool:
    return bool(column.physical_type == "BYTE_ARRAY" and column.logical_type.type == "STRING")


def _plain_row(row: Row) -> Row:
    return {column: _plain(value) for column, value in row.items()}


def _plain(value: Any) -> Any:
    """A value of an Arrow table as JSON could have it.

    Arrow gives all structs of a column the same keys; those without a value are left out again, so that a tool's
    schema doesn't get the names of other tools' parameters.
    """
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)


def _is_saved(name: str) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return any(Path(name, file).is_file() for file in ("dataset_dict.json", "state.json"))


def _from_disk(name: str, split: str) -> Iterable[Row]:
    import datasets

    whole = datasets.load_from_disk(name)
    if not isinstance(whole, datasets.DatasetDict):
        return whole
    if split not in whole:
        raise fail(name, f"has no split '{split}'{did_you_mean(split, [*whole])}; there are {', '.join(whole)}")
    return whole[split]


def _from_hub(name: str, config: Any, split: str, known: DatasetSpec | None) -> Iterable[Row]:
    """A Hub data set, or a single file at a URL (`hf://datasets/owner/name/file.json`)."""
    import datasets

    if config is not None and not isinstance(config, str):
        raise fail(f"{name}: config", "must be the name of a configuration; a mapping is for source: reasoning_gym")
    home = known is not None and name == known.hub_id
    if known is not None and home:
        config, split = config or known.hub_config, known.splits.get(split, split)
    if known is not None and home and known.hub_file:
        name = f"hf://datasets/{name}/{known.hub_file.format(config=config)}"
    try:
        if "://" in name:
            builder = "parquet" if name.endswith(".parquet") else "json"
            return datasets.load_dataset(builder, data_files=name, split="train")
        return datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the Hub's client fails in too many ways to list; each is the user's to mend
        raise fail(name, _mend(error, split)) from error


def _mend(error: Exception, split: str) -> str:
    """What to do about a Hub data set that didn't load."""
    import datasets

    said = f"({type(error).__name__}: {error})"
    if isinstance(error, datasets.exceptions.DatasetNotFoundError):
        return f"is neither a file here nor a data set on the Hub that you may read; check `id` {said}"
    if isinstance(error, ValueError) and "split" in str(error).lower():
        return f"has no split '{split}'; {error}"
    if isinstance(error, ValueError) and "config" in str(error).lower():
        return f"give another `config`; {error}"
    if isinstance(error, RuntimeError) and "script" in str(error):
        return f"needs a loading script, which `datasets` no longer runs; download it and give a file as `id` {said}"
    return (
        f"is no file here and can't be loaded from the Hub; check the network, or download it and give its path {said}"
    )
