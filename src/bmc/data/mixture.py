"""Reads the data sets of a recipe, from files, the Hub or a generator, and mixes them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import Fault, Faults, did_you_mean, fail
from .ids import named_by, own_id, unique
from .pairs import edit_split
from .schema import Row
from .sources import GENERATOR, SOURCES, Source, generate

if TYPE_CHECKING:
    from datasets import Dataset

    from ..config import DatasetConfig, DatasetMixture

SUFFIXES = (".jsonl", ".json", ".parquet")
Part = TypeVar("Part", bound=Sized)
_WRONG = (KeyError, ValueError, TypeError, AttributeError, IndexError)


def read(
    *,
    source: str | None = None,
    id: str | None = None,
    config: str | dict[str, Any] | None = None,
    split: str = "train",
    num_rows: int | None = None,
) -> Dataset:
    """One data set, as our rows if it has a source, as it is if not.

    JSON is parsed here and not by `load_dataset("json")`, which turns texts that look like dates into timestamps and
    can't say which row is at fault.

    Args:
        source: Name in `SOURCES`.
        id: A .jsonl, .json or .parquet file; a folder with `{split}.jsonl` (…); a Hub id; by default the source's.
        config: The Hub's configuration, or the generator's parameters.
        split: Split of the folder or of the Hub; a single file is read whatever it says.
        num_rows: Rows to generate; nothing else looks at it.

    Raises:
        Faults: The data can't be found or read, or a row isn't of a shape that the source knows.
    """
    if source is not None and source not in SOURCES:
        raise fail("source", f"'{source}' is unknown{did_you_mean(source, list(SOURCES))}")
    known = SOURCES[source] if source else None
    if source == GENERATOR and id is None:
        return _tabular(_rows(generate(config, num_rows), known, source, GENERATOR), GENERATOR)
    name = id or (known.hub_id if known else None)
    if name is None:
        raise fail(f"{source}", "has no home on the Hub; give the path of its file as `id`")
    path = local_file(name, split)
    if path is None:
        return _converted(_from_hub(name, config, split, known), known, source, name)
    if path.suffix == ".parquet":
        return _converted(_from_parquet(path), known, source, str(path))
    return _tabular(_rows(parsed_file(path), known, source, str(path)), str(path))


def load_mixture(datasets: Sequence[DatasetConfig], seed: int) -> Dataset:
    """The parts, one after another, with `id`s that are unique in the whole.

    Of a part with a weight below 1, or more rows than `num_rows`, the first rows of a seeded shuffle are taken, so
    that fewer rows lie within more; they come in the order of the file. Of a part with an `edit_split`, that split is
    the part. Columns that a part lacks are None.

    Args:
        datasets: The parts.
        seed: Decides which rows are taken.

    Raises:
        Faults: A part can't be read or lacks a column, the parts' columns differ in type, or no row is left.
    """
    from datasets import concatenate_datasets

    parts = filled_parts(datasets, lambda config: read_part(config, seed))
    _check_types(parts)
    whole = concatenate_datasets([part for _, part in parts])
    ids = whole["id"][:]
    return whole if len(set(ids)) == len(ids) else _with_ids(whole, unique(ids))


def filled_parts(datasets: Sequence[DatasetConfig], make: Callable[[DatasetConfig], Part]) -> list[tuple[str, Part]]:
    """Name and rows of each part that has any; every part's faults at once.

    Raises:
        Faults: A part can't be made, or none has a row.
    """
    parts: list[tuple[str, Part]] = []
    faults: list[Fault] = []
    for config in datasets:
        try:
            parts.append((part_name(config), make(config)))
        except Faults as error:
            faults += error.faults
    if faults:
        raise Faults(*faults)
    if not any(len(part) for _, part in parts):
        names = ", ".join(name for name, _ in parts)
        raise fail(names, "no rows are left; look at the files, `edit_split`, `weight` and `num_rows`")
    return [(name, part) for name, part in parts if len(part)]


def load_split(mixture: DatasetMixture) -> tuple[Dataset, Dataset | None]:
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
    train, evaluation = load_mixture(mixture.datasets, mixture.seed), None
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


def read_part(config: DatasetConfig, seed: int) -> Dataset:
    """One part of a mixture: read, named, cut, and with the chosen columns."""
    rows = read(source=config.source, id=config.id, config=config.config, split=config.split, num_rows=config.num_rows)
    # Ids come first: they depend neither on the columns that are kept nor on the rows that are drawn.
    rows = _with_ids(rows, _ids(rows, part_name(config)))
    if config.edit_split is not None:
        rows = rows.select(edit_split(rows, config.edit_split, config.id or part_name(config)))
    if (chosen := chosen_rows(config, len(rows), seed)) is not None:
        rows = rows.select(chosen)
    kept = kept_columns(config.columns, rows.column_names, config.id or part_name(config))
    return rows if kept is None else rows.select_columns(kept)


def chosen_rows(config: DatasetConfig, count: int, seed: int) -> list[int] | None:
    """Which of `count` rows a part takes, ascending; None for all."""
    taken = min(round(config.weight * count), config.num_rows or count)
    return sorted(permutation(count, seed)[:taken]) if taken < count else None


def kept_columns(columns: list[str] | None, there: list[str], where: str) -> list[str] | None:
    """`columns` and the id, or None for all.

    Raises:
        Faults: A column isn't there.
    """
    if columns is None:
        return None
    for column in columns:
        if column not in there:
            raise fail(where, f"has no column '{column}'{did_you_mean(column, there)}; there are {', '.join(there)}")
    return list(dict.fromkeys([*columns, "id"]))


def part_name(config: DatasetConfig) -> str:
    name = Path(config.id or "").name
    return config.source or (Path(name).stem if name.endswith(SUFFIXES) else name)


def permutation(length: int, seed: int) -> list[int]:
    order = list(range(length))
    random.Random(seed).shuffle(order)
    return order


def _ids(rows: Dataset, name: str) -> list[str]:
    """An id for every row: its own, or one that depends on its texts only."""
    texts = named_by(rows.column_names)
    columns = [*texts, *(["id"] if "id" in rows.column_names else [])]
    return unique(own_id(row, texts, name) for row in rows.select_columns(columns))


def _with_ids(rows: Dataset, ids: list[str]) -> Dataset:
    rows = rows.remove_columns("id") if "id" in rows.column_names else rows
    return rows.add_column("id", ids) if ids else rows


def _check_types(parts: list[tuple[str, Dataset]]) -> None:
    """Says which column keeps parts from being joined, and where."""
    from datasets import Value

    seen: dict[str, tuple[str, Any]] = {}
    for name, part in parts:
        for column, kind in part.features.items():
            first, other = seen.setdefault(column, (name, kind))
            if kind != other and Value("null") not in (kind, other):
                raise fail(name, f"column '{column}' is {kind}, but {other} in {first}; leave it out with `columns`")
            if other == Value("null"):
                seen[column] = name, kind


def _rows(raw: Iterable[Row], known: Source | None, source: str | None, where: str) -> list[Row]:
    """Raw rows as ours."""
    return [our_row(row, known, source, f"{where}: row {number}") for number, row in enumerate(raw, start=1)]


def our_row(raw: Row, known: Source | None, source: str | None, where: str) -> Row:
    if known is None:
        return raw
    try:
        return known.to_row(raw)
    except _WRONG as error:
        why = str(error) if type(error) is ValueError else f"is of no shape that source '{source}' knows"
        raise fail(where, f"{why}; it has {', '.join(map(str, raw))}, and {source} wants {known.wants}") from error


def _converted(rows: Dataset, known: Source | None, source: str | None, where: str) -> Dataset:
    """A Hub's or Parquet's rows as ours, on disk as they are."""
    if known is None:
        return rows
    # `map` would write a column under the schema of the raw column of that name, dropped message keys and all.
    aside = {column: f"raw {column}" for column in rows.column_names}
    return rows.rename_columns(aside).map(
        lambda raw, index: our_row(
            {column: raw[name] for column, name in aside.items()}, known, source, f"{where}: row {index + 1}"
        ),
        with_indices=True,
        remove_columns=list(aside.values()),
        load_from_cache_file=False,  # the cache would not notice that a loader has changed
        desc=f"Converting {source}",
    )


def _tabular(rows: list[Row], where: str) -> Dataset:
    """Rows as a Dataset; columns that only some have are None in the others."""
    from datasets import Dataset

    columns = dict.fromkeys(column for row in rows for column in row)
    try:
        return Dataset.from_dict({column: [row.get(column) for row in rows] for column in columns})
    except (ValueError, TypeError, OverflowError) as error:  # Arrow's errors are among these
        raise fail(where, f"{_mixed(rows, list(columns))}give each column one type in all rows ({error})") from error


def _mixed(rows: list[Row], columns: list[str]) -> str:
    """Names the first column whose rows hold values of several kinds, for a fault."""
    for column in columns:
        kinds: dict[str, int] = {}
        for number, row in enumerate(rows, start=1):
            if row.get(column) is not None:
                kinds.setdefault(type(row[column]).__name__, number)
        if len(kinds) > 1 and set(kinds) != {"int", "float"}:
            return f"column '{column}' holds {', '.join(f'{kind} (row {row})' for kind, row in kinds.items())}; "
    return ""


def local_file(name: str, split: str) -> Path | None:
    """The file that an id means, or None for one on the Hub (or at a URL).

    Raises:
        Faults: It looks like a path and there is nothing, or a folder without that split, or no file that we read.
    """
    if "://" in name:
        return None
    path = Path(name).expanduser()
    if path.is_dir():
        return _in_folder(path, split)
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise fail(name, f"is no {', '.join(SUFFIXES)} file; convert it")
        return path
    if name.endswith(SUFFIXES) or name.startswith((".", "/", "~")) or name.count("/") > 1:
        there = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise fail(name, f"no such file{did_you_mean(path.name, there)}; paths are relative to {Path.cwd()}")
    return None


def _in_folder(folder: Path, split: str) -> Path:
    files = {file.stem: file for file in sorted(folder.iterdir(), reverse=True) if file.suffix in SUFFIXES}
    if split not in files:
        there = f"there are {', '.join(sorted(files))}" if files else f"it holds no {', '.join(SUFFIXES)} file"
        raise fail(str(folder), f"has no split '{split}'{did_you_mean(split, list(files))}; {there}")
    return files[split]


def parsed_file(path: Path) -> list[Row]:
    """The objects of a JSONL file; or of a JSON file: a list, an object of objects (TabMWP), or JSONL all the same.

    Raises:
        Faults: It can't be read, or is no such file.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise fail(str(path), f"is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise fail(str(path), f"can't be read ({error.strerror})") from error
    if path.suffix == ".json":
        try:
            return _objects(json.loads(text), path)
        except json.JSONDecodeError as error:
            if not text.lstrip().startswith("{"):
                raise fail(f"{path}: line {error.lineno}", f"is not JSON ({error.msg})") from error
    return list(parsed_lines(text.split("\n"), path))  # not splitlines(): it cuts at U+2028 and others, too


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


def parsed_lines(lines: Iterable[str], path: Path) -> Iterator[Row]:
    """The objects of JSON Lines, one at a time.

    Raises:
        Faults: A line is no JSON object.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.rstrip("\n"))
        except json.JSONDecodeError as error:
            what = f"is not JSON ({error.msg} at column {error.colno}); write one object a line"
            raise fail(f"{path}: row {number}", what) from error
        if not isinstance(row, dict):
            raise fail(f"{path}: row {number}", 'is not an object; write {"column": value, …}')
        yield row


def _from_parquet(path: Path) -> Dataset:
    from datasets import load_dataset

    try:
        return load_dataset("parquet", data_files=str(path), split="train")
    except Exception as error:  # whatever the builder meets, the mend is the same
        raise fail(str(path), f"can't be read as Parquet ({error.__cause__ or error})") from error


def _from_hub(name: str, config: Any, split: str, known: Source | None) -> Dataset:
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
