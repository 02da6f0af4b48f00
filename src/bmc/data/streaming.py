"""The rows of a mixture, read from their files anew each time they are gone through; little of them is ever held.

JSON Lines and local Parquet are read so. A part from the Hub is memory-mapped by `datasets`; a .json file, what a
generator makes, and a part with an `edit_split` are held.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, compress, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import fail
from .ids import named_by, own_id, unique
from .mixture import chosen_rows, filled_parts, kept_columns, local_file, our_row, parsed_lines, part_name, read_part
from .schema import Row
from .sources import SOURCES

if TYPE_CHECKING:
    from ..config import DatasetConfig


class Rows:
    """Rows that can be gone through again and again, and how many they are."""

    def __init__(self, read: Callable[[], Iterator[Row]], count: int) -> None:
        self.read, self.count = read, count

    def __iter__(self) -> Iterator[Row]:
        return self.read()

    def __len__(self) -> int:
        return self.count

    def first(self, count: int | None) -> Rows:
        """The first so many; all for None."""
        return self if count is None else Rows(lambda: islice(self.read(), count), min(count, self.count))


def stream_mixture(datasets: Sequence[DatasetConfig], seed: int) -> Rows:
    """The rows of `mixture.load_mixture`, in their order and with their ids; but columns that a row lacks stay out.

    Raises:
        Faults: As `load_mixture`.
    """
    parts: list[tuple[str, _Part]] = filled_parts(datasets, lambda config: _part(config, seed))
    _check_kinds([(name, part.kinds) for name, part in parts])

    def rows() -> Iterator[Row]:
        return chain.from_iterable(part.rows() for _, part in parts)

    count = sum(len(part) for _, part in parts)
    if _repeats(chain.from_iterable(part.hashes for _, part in parts)):
        ids = unique(row["id"] for row in rows())
        return Rows(lambda: ({**row, "id": id} for row, id in zip(rows(), ids, strict=True)), count)
    return Rows(rows, count)


class _Part:
    """A part of a mixture: its rows with ids, as often as they are wanted.

    Attributes:
        rows: Reads them.
        hashes: Of their ids, 8 bytes each.
        kinds: Column → kind of value → the first row that has one.
    """

    def __init__(self, rows: Callable[[], Iterator[Row]], hashes: array[int], kinds: dict[str, dict[str, int]]) -> None:
        self.rows, self.hashes, self.kinds = rows, hashes, kinds

    def __len__(self) -> int:
        return len(self.hashes)


def _part(config: DatasetConfig, seed: int) -> _Part:
    raw = _reader(config)
    if raw is None:
        held = read_part(config, seed)
        return _Part(lambda: iter(held), _hashes(held), _kinds(iter(held), part_name(config))[0])
    where, name = config.id or part_name(config), part_name(config)
    kinds, count = _kinds(raw(), where)
    texts = named_by([*kinds])

    def named() -> Iterator[Row]:
        return ({**row, "id": own_id(row, texts, name)} for row in raw())

    chosen = bytearray(b"\x01") * count
    if (taken := chosen_rows(config, count, seed)) is not None:
        chosen = bytearray(count)
        for index in taken:
            chosen[index] = 1
    every = named
    if _repeats(_hashes(named())):
        ids = unique(row["id"] for row in named())
        every = lambda: ({**row, "id": id} for row, id in zip(named(), ids, strict=True))  # noqa: E731
    keep = kept_columns(config.columns, [*(column for column in kinds if column != "id"), "id"], where)

    def rows() -> Iterator[Row]:
        for row in compress(every(), chosen):
            yield row if keep is None else {column: row[column] for column in keep if column in row}

    wanted = {column: kind for column, kind in kinds.items() if keep is None or column in keep}
    return _Part(rows, _hashes(rows()), wanted)


def _reader(config: DatasetConfig) -> Callable[[], Iterator[Row]] | None:
    """What reads a part's rows as a stream, as ours; None where they must be held.

    Raises:
        Faults: The file isn't there.
    """
    known = SOURCES.get(config.source) if config.source else None
    name = config.id or (known.hub_id if known else None)
    path = local_file(name, config.split) if name and config.edit_split is None else None
    if path is None or path.suffix == ".json" or (config.source and known is None):
        return None
    read = _parquet_rows if path.suffix == ".parquet" else _json_lines

    def rows() -> Iterator[Row]:
        for number, row in enumerate(read(path), start=1):
            yield our_row(row, known, config.source, f"{path}: row {number}")

    return rows


def _json_lines(path: Path) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            yield from parsed_lines(lines, path)
    except UnicodeDecodeError as error:
        raise fail(str(path), f"is not UTF-8 text ({error.reason})") from error
    except OSError as error:
        raise fail(str(path), f"can't be read ({error.strerror})") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    except (ArrowException, OSError) as error:
        raise fail(str(path), f"can't be read as Parquet ({error})") from error


def _kinds(rows: Iterator[Row], where: str) -> tuple[dict[str, dict[str, int]], int]:
    """What kinds of values each column holds and in which row first, and how many rows there are.

    Raises:
        Faults: A column holds several kinds.
    """
    kinds: dict[str, dict[str, int]] = {}
    count = 0
    for count, row in enumerate(rows, start=1):
        for column, value in row.items():
            seen = kinds.setdefault(column, {})
            if value is not None:
                seen.setdefault(type(value).__name__, count)
    for column, seen in kinds.items():
        if len(seen) > 1 and set(seen) != {"int", "float"}:
            holds = ", ".join(f"{kind} (row {row})" for kind, row in seen.items())
            raise fail(where, f"column '{column}' holds {holds}; give each column one type in all rows")
    return kinds, count


def _check_kinds(parts: list[tuple[str, dict[str, dict[str, int]]]]) -> None:
    """Says which column keeps parts from being joined, and where."""
    seen: dict[str, tuple[str, set[str]]] = {}
    for name, kinds in parts:
        for column, rows in kinds.items():
            first, other = seen.get(column, (name, set()))
            if rows and other and set(rows) != other and not {*rows, *other} <= {"int", "float"}:
                now, before = " or ".join(rows), " or ".join(sorted(other))
                raise fail(name, f"column '{column}' is {now}, but {before} in {first}; leave it out with `columns`")
            if rows and not other:
                seen[column] = name, set(rows)


def _hashes(rows: Any) -> array[int]:
    ids = (row["id"].encode(errors="surrogatepass") for row in rows)
    return array("Q", (int.from_bytes(hashlib.blake2b(id, digest_size=8).digest()) for id in ids))


def _repeats(hashes: Any) -> bool:
    import numpy

    values = numpy.fromiter(hashes, dtype="uint64")
    return numpy.unique(values).size < values.size
