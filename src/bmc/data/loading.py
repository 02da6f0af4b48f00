"""Load the data sets of a recipe and mix them: from files, the Hub or a generator to the rows of a stage.

Each data set is read once. Its rows are converted to ours, get ids, are drawn and renamed, and the prompt is split from
the responses. The results are kept in memory or, if they are large, in an unnamed temporary file, and can be read again
and again, in any order. No column is forced into one type.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import random
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..errors import UserError, UserErrors, did_you_mean, user_error
from .files import SUFFIXES, file_rows, local_files, plain_row, split_files
from .human_feedback import rated_pairs, renamed
from .registry import DATASETS, GENERATORS, REPOSITORY, DatasetSpec
from .schema import (
    ORIGINALS,
    UNUSABLE,
    WEIGHTS,
    Row,
    UnnamedColumns,
    chat_messages,
    digest,
    edit_split,
    split_prompt,
    tools_of,
)

if TYPE_CHECKING:
    from datasets import Dataset

    from ..config import DatasetConfig, DatasetMixture

logger = logging.getLogger(__name__)
TEXT_COLUMNS = ("prompt", "completion", "messages", "chosen", "rejected")
# columns that go to a trainer where they exist: TRL hands two to the chat template, two are token weights, and ids name
# rows in messages
EXTRA_COLUMNS = ("tools", "chat_template_kwargs", *WEIGHTS, "id")
REVIEW = "review.jsonl"  # people's decisions on the rows of a bridging run, in its folder
MEMORY = 64 * 2**20  # bytes of stored rows to keep in memory; more go to a temporary file
_UNKNOWN_SHAPE = (KeyError, ValueError, TypeError, AttributeError, IndexError)


class RowStream:
    """Store rows to be read many times, one at a time, in little memory."""

    def __init__(self, rows: Iterable[Row]) -> None:
        """Store the rows.

        Raises:
            UserErrors: The temporary folder is full.
        """
        columns: dict[str, None] = {}
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._ends = array("Q", [0])
        self._order: Sequence[int] | None = None
        self._function: Callable[[Row], Row] | None = None
        try:
            for row in rows:
                columns |= dict.fromkeys(row)
                self._append(pickle.dumps(row))
            if self._file is not None:
                self._file.flush()
        except OSError as error:
            where = tempfile.gettempdir()
            raise user_error(where, f"can't be written ({error.strerror}); make room, or set TMPDIR") from error
        self.columns = [*columns]  # those that any row has; a row may lack some

    def _append(self, data: bytes) -> None:
        self._ends.append(self._ends[-1] + len(data))
        if self._file is None and self._ends[-1] > MEMORY:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the rows)
            self._file.write(self._memory)
            self._memory = bytearray()
        if self._file is None:
            self._memory += data
        else:
            self._file.write(data)

    def __len__(self) -> int:
        return len(self._ends) - 1 if self._order is None else len(self._order)

    def __getitem__(self, place: int) -> Row:
        if self._order is not None:
            place = self._order[place]
        start, end = self._ends[place], self._ends[place + 1]
        if self._file is None:
            row = pickle.loads(memoryview(self._memory)[start:end])
        else:
            row = pickle.loads(
                os.pread(self._file.fileno(), end - start, start)
            )  # forks would share a position to seek
        return row if self._function is None else self._function(row)

    def __iter__(self) -> Iterator[Row]:
        return (self[place] for place in range(len(self)))

    def _copy(self, **changes: Any) -> RowStream:
        copy = RowStream.__new__(RowStream)
        copy.__dict__ |= self.__dict__ | changes
        return copy

    @property
    def order(self) -> Sequence[int] | None:
        """Return the places of the rows in `in_file_order`; None for all of them in that order."""
        return self._order

    def in_file_order(self) -> RowStream:
        """Return all the rows that this stream was selected from, in their first order."""
        return self._copy(_order=None)

    def select(self, places: Sequence[int]) -> RowStream:
        """Return the rows at these places, in this order."""
        return self._copy(_order=places if self._order is None else [self._order[place] for place in places])

    def first(self, count: int | None) -> RowStream:
        """Return the first `count` rows; all for None."""
        return self if count is None else self.select(range(min(count, len(self))))

    def map(self, function: Callable[[Row], Row]) -> RowStream:
        """Return the rows with a function applied to each as it is read."""
        inner = self._function
        return self._copy(_function=function if inner is None else lambda row: function(inner(row)))


def load_mixture(datasets: Sequence[DatasetConfig], seed: int, keep_unusable: bool = False) -> RowStream:
    """Load data sets one after another, with `id`s that are unique in the whole.

    Of a data set with a weight below 1, or with more rows than `num_rows`, the first rows of a seeded shuffle are
    taken, so that a smaller draw is part of a larger one; they keep the order of the file. `edit_split` comes first.
    Rows of which no pair can be made (`UNUSABLE`) are left out, with a warning that counts them, or kept.

    Raises:
        UserErrors: A data set can't be read or lacks a column, or no row is left. The faults of all data sets at once.
    """
    parts: list[_Part] = []
    faults: list[UserError] = []
    for config in datasets:
        try:
            parts.append(_load_part(config, seed, keep_unusable))
        except UserErrors as error:
            faults += error.faults
    if faults:
        raise UserErrors(*faults)
    if not any(part.places for part in parts):
        names = ", ".join(map(part_name, datasets))
        raise user_error(names, "no rows are left; look at the files, `edit_split`, `weight` and `num_rows`")
    ids = iter(unique_ids(part.ids[place] for part in parts for place in part.places))
    return RowStream(part.row(place, next(ids)) for part in parts for place in part.places)


def load_split(mixture: DatasetMixture) -> tuple[RowStream, RowStream | None]:
    """Load the rows to train on and those to evaluate on.

    Training rows are shuffled if the mixture has several data sets or a weight below 1; otherwise they keep the order
    of the file. Evaluation rows are neither shuffled nor weighted.

    Returns:
        The training rows; `test_datasets`, the rows that `test_split_size` holds out, or None.

    Raises:
        UserErrors: As `load_mixture`; or both kinds of evaluation are given, or `test_split_size` leaves no rows.
    """
    if mixture.test_datasets and mixture.test_split_size is not None:
        raise user_error("dataset_mixture.test_split_size", "there are test_datasets already; give one of the two")
    train = load_mixture(mixture.datasets, mixture.seed)
    evaluation: RowStream | None = None
    if mixture.test_datasets:
        evaluation = load_mixture([replace(config, weight=1.0) for config in mixture.test_datasets], mixture.seed)
    elif mixture.test_split_size is not None:
        order = _permutation(len(train), mixture.seed)
        cut = _validation_rows(mixture.test_split_size, len(train))
        train, evaluation = train.select(sorted(order[cut:])), train.select(sorted(order[:cut]))
    if len(mixture.datasets) > 1 or any(config.weight < 1 for config in mixture.datasets):
        train = train.select(_permutation(len(train), mixture.seed))
    return train, evaluation


def _validation_rows(size: float, rows: int) -> int:
    """Count the rows to hold out: `size` itself from 1 on, that share of the rows below 1, but at least one."""
    where = "dataset_mixture.test_split_size"
    if size >= 1 and size != int(size):
        raise user_error(where, f"is {size}; give a whole number of rows, or a share below 1")
    cut = int(size) if size >= 1 else max(1, round(size * rows))
    if cut >= rows:
        raise user_error(where, f"would hold out {cut} of {rows} rows and leave none to train on; make it smaller")
    return cut


def _permutation(length: int, seed: int) -> list[int]:
    order = list(range(length))
    random.Random(seed).shuffle(order)
    return order


@dataclass
class _Part:
    """One data set of a mixture: its rows as they were read, an id for each, and which of them are taken."""

    rows: RowStream
    ids: list[str]
    places: Sequence[int]
    columns: dict[str, str] | None  # our names → the file's; None keeps all
    has_source: bool

    def row(self, place: int, id: str) -> Row:
        """Return a row as the stages get it."""
        row = {**self.rows[place], "id": id}
        if self.columns is not None:
            named = {ours: id if ours == "id" else row[key] for ours, key in self.columns.items() if key in row}
            row = named | ({UNUSABLE: row[UNUSABLE]} if UNUSABLE in row else {})
        if self.has_source:
            return row
        texts = (*TEXT_COLUMNS, *ORIGINALS)
        return split_prompt({key: chat_messages(value) if key in texts else value for key, value in row.items()})


def _load_part(config: DatasetConfig, seed: int, keep_unusable: bool) -> _Part:
    where, name = config.id or part_name(config), part_name(config)
    has_source = config.source is not None
    raw = open_dataset(config, seed)
    rows = RowStream(map(split_prompt, raw) if has_source else raw)
    if UNUSABLE in rows.columns and has_source:
        rows = _usable(rows, where, keep_unusable and config.edit_split is None)
    named = None if renames(config) else config.columns
    columns = kept_columns(named, [*(column for column in rows.columns if column != "id"), "id"], where)
    # ids depend neither on the columns that are kept nor on the rows that are drawn
    texts, id_column = id_columns(rows.columns), (columns or {}).get("id", "id")
    ids = unique_ids(row_id(row, texts, name, id_column) for row in rows)
    places: Sequence[int] = range(len(rows))
    if config.edit_split is not None:
        with_ids = RowStream({**row, "id": id} for row, id in zip(rows, ids, strict=True))
        places = edit_split(with_ids, config.edit_split, where)
    if (drawn := drawn_rows(config, len(places), seed)) is not None:
        places = [places[place] for place in drawn]
    return _Part(rows, ids, places, columns, has_source)


def _usable(rows: RowStream, where: str, keep: bool) -> RowStream:
    """Leave out rows of which no pair can be made, unless they are to be kept."""
    reasons = Counter(row[UNUSABLE] for row in rows if UNUSABLE in row)
    count, listed = reasons.total(), "; ".join(f"{count:,} × {reason}" for reason, count in reasons.most_common())
    if count == len(rows):
        raise user_error(where, f"no pair can be made of any row: {listed}; look at the file and at `columns`")
    if keep:
        return rows
    logger.warning("%s: %s of %s rows give no pair: %s", where, f"{count:,}", f"{len(rows):,}", listed)
    return rows.select([place for place, row in enumerate(rows) if UNUSABLE not in row])


def renames(config: DatasetConfig) -> bool:
    """Tell whether a data set's `columns` name the raw columns that its source reads."""
    return isinstance(config.columns, dict) and config.source in DATASETS and bool(DATASETS[config.source].kind)


def drawn_rows(config: DatasetConfig, count: int, seed: int) -> list[int] | None:
    """Choose which of `count` rows a data set gives, ascending; None for all."""
    taken = min(round(config.weight * count), config.num_rows or count)
    return sorted(_permutation(count, seed)[:taken]) if taken < count else None


def kept_columns(columns: list[str] | dict[str, str] | None, there: list[str], where: str) -> dict[str, str] | None:
    """Map our names to the file's columns for those that a recipe keeps, and `id`; None for all.

    Raises:
        UserErrors: A column doesn't exist.
    """
    if columns is None:
        return None
    named = columns if isinstance(columns, dict) else dict(zip(columns, columns, strict=True))
    for column in named.values():
        if column not in there:
            raise user_error(
                where, f"has no column '{column}'{did_you_mean(column, there)}; there are {', '.join(there)}"
            )
    return named if "id" in named else {**named, "id": "id"}


def part_name(config: DatasetConfig) -> str:
    """Name a data set by its source, or by its file or Hub id without folders and ending."""
    name = Path(config.id or "").name
    return config.source or (Path(name.removesuffix(".gz")).stem if name.endswith(SUFFIXES) else name)


def id_columns(columns: Sequence[str]) -> list[str]:
    """List the columns that an id is computed from where a row has none: its texts, or all."""
    return [column for column in TEXT_COLUMNS if column in columns] or [column for column in columns if column != "id"]


def row_id(row: Row, texts: list[str], name: str, id_column: str = "id") -> str:
    """Return a row's own id, or one that depends on its texts only, not on its place or file."""
    if row.get(id_column) not in (None, ""):
        return str(row[id_column])
    values = {text: row.get(text) for text in texts}
    words = json.dumps(values, sort_keys=True, ensure_ascii=False, default=str) if texts else ""
    return f"{name}-{digest(words)}"


def unique_ids(ids: Iterable[str]) -> list[str]:
    """Make ids unique: append -2, -3, … to repeats."""
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


def has_answers(files: Sequence[str]) -> bool:
    """Return whether any row of some validation files has an answer to compare.

    Raises:
        UserErrors: A file holds no rows.
    """
    from ..config import DatasetConfig

    for file in files:
        if not Path(file).is_file() or not Path(file).stat().st_size:
            how = "set validation_datasets or validation_fraction where the data are prepared"
            raise user_error(file, f"holds no rows; {how}")
    return any(row.get("answer") is not None for file in files for row in open_dataset(DatasetConfig(id=file)))


def open_dataset(config: DatasetConfig, seed: int = 0) -> Iterator[Row]:
    """Find one data set and read its rows: converted to ours if it has a source, as they are if not.

    Raises:
        UserErrors: The data can't be found. While reading: the source doesn't know a row's shape, or it is no row.
    """
    if config.use_review is not None:
        from ..bridging.review import reviewed_pairs

        return reviewed_pairs(review_file(str(config.id)).parent, config.use_review)
    source = config.source
    if source is not None and source not in DATASETS:
        raise user_error("source", f"'{source}' is unknown{did_you_mean(source, list(DATASETS))}")
    spec = DATASETS[source] if source else None
    if source in GENERATORS and config.id is None:
        return _convert(GENERATORS[source](config.config, config.num_rows), spec, source, source)
    if spec is not None and spec.kind is not None:
        return _human_feedback(config, spec, seed)
    raw = _raw(config, spec)
    return chain.from_iterable(_convert(rows, spec, source, where) for where, rows in raw)


def _human_feedback(config: DatasetConfig, spec: DatasetSpec, seed: int) -> Iterator[Row]:
    """Read corrections or ratings: the raw rows with our names for their columns, as pairs."""
    where = config.id or spec.hub_id or str(config.source)
    given = dict(config.columns) if isinstance(config.columns, dict) else {}
    parts = [(place, _renamed(rows, {**spec.names, **given}, given, where)) for place, rows in _raw(config, spec)]
    if spec.gather:
        parts = [(where, iter(spec.gather(chain.from_iterable(rows for _, rows in parts))))]
    rows: Iterator[Row] = chain.from_iterable(_convert(part, spec, config.source, place) for place, part in parts)
    if spec.kind == "ratings":
        rows = rated_pairs(RowStream(rows), config.pair_rule, seed)
    return ({**row, "source": config.source} for row in rows)


def _renamed(raw: Iterable[Row], names: dict[str, str], given: dict[str, str], where: str) -> Iterator[Row]:
    """Rename raw columns."""
    there: dict[str, None] = {}
    for row in raw:
        there |= dict.fromkeys(row)
        yield renamed(row, names)
    for theirs in given.values():
        if there and theirs not in there and theirs.partition(".")[0] not in there:
            hint = did_you_mean(theirs, [*there])
            raise user_error(where, f"has no column '{theirs}'{hint}; there are {', '.join(there)}")


def _raw(config: DatasetConfig, spec: DatasetSpec | None) -> list[tuple[str, Iterable[Row]]]:
    """Find the raw rows of a data set: for each of its files, a name for messages and the rows."""
    source = config.source
    name = config.id or (spec.hub_id if spec else None)
    if spec is not None and spec.folder is not None:
        name = _path_in_clone(config)
    if name is None:
        raise user_error(f"{source}", "has no home on the Hub; give the path of its file as `id`")
    if _is_saved(name):
        return [(name, map(plain_row, _from_disk(name, config.split)))]
    files = local_files(name, config.split, config.config)
    if files is None:
        return [(name, map(plain_row, _from_hub(name, config.config, config.split, spec)))]
    return [(str(path), file_rows(path)) for path in files]


def _convert(raw: Iterable[Row], spec: DatasetSpec | None, source: str | None, where: str) -> Iterator[Row]:
    for number, row in enumerate(raw, start=1):
        if spec is None:
            yield row
            continue
        try:
            made = spec.to_row(row)
            yield from made if isinstance(made, list) else [made]
        except UnnamedColumns as error:
            raise user_error(f"{where}: row {number}", str(error)) from error
        except _UNKNOWN_SHAPE as error:
            why = str(error) if type(error) is ValueError else f"is of no shape that source '{source}' knows"
            what = f"{why}; it has {', '.join(map(str, row))}, and {source} wants {spec.wants}"
            raise user_error(f"{where}: row {number}", what) from error


def in_clone(name: str, source: str | None) -> Path:
    """Return the folder of a source's data if `name` is a clone of its repository, else `name` itself."""
    path = Path(name).expanduser()
    spec = DATASETS.get(source or "")
    inside = path / spec.folder if spec and spec.folder else path
    return inside if inside.is_dir() else path


def _path_in_clone(config: DatasetConfig) -> str:
    """Find a source's data in a clone of its authors' repository."""
    if config.id is None:
        what = f"lies in its authors' repository; git clone {REPOSITORY} data/BMC, and give `id: data/BMC`"
        raise user_error(f"{config.source}", what)
    path = in_clone(config.id, config.source)
    if not path.is_file() and not split_files(path):
        folder = DATASETS[str(config.source)].folder
        raise user_error(config.id, f"holds no {folder}; git clone {REPOSITORY} {config.id}")
    return f"{path.parent}/{path.name}"  # with a slash, so that it is never taken for a Hub id


def review_file(name: str) -> Path:
    """Return the review file of a bridging run that a data set names by its folder or its `train.jsonl`."""
    path = Path(name).expanduser()
    return (path if path.is_dir() else path.parent) / REVIEW


def files_of(name: str, split: str, source: str | None = None) -> list[Path]:
    """List the files of a data set that exist; none for a Hub id, or where they are missing."""
    path = in_clone(name, source)
    if path.is_dir():
        return split_files(path).get(split, [])
    return [path] if path.name.endswith(SUFFIXES) and path.is_file() else []


def _is_saved(name: str) -> bool:
    """Tell whether a folder was written by `save_to_disk`."""
    return any(Path(name, file).is_file() for file in ("dataset_dict.json", "state.json"))


def _from_disk(name: str, split: str) -> Iterable[Row]:
    import datasets

    whole = datasets.load_from_disk(name)
    if not isinstance(whole, datasets.DatasetDict):
        return whole
    if split not in whole:
        raise user_error(name, f"has no split '{split}'{did_you_mean(split, [*whole])}; there are {', '.join(whole)}")
    return whole[split]


def _from_hub(name: str, config: Any, split: str, spec: DatasetSpec | None) -> Iterable[Row]:
    """Load a Hub data set, or a single file at a URL (`hf://datasets/owner/name/file.json`)."""
    import datasets

    if config is not None and not isinstance(config, str):
        raise user_error(
            f"{name}: config", "must be the name of a configuration; a mapping is for source: reasoning_gym"
        )
    if spec is not None and name == spec.hub_id:
        config, split = config or spec.hub_config, spec.splits.get(split, split)
        if spec.hub_file:
            name = f"hf://datasets/{name}/{spec.hub_file.format(config=config)}"
    try:
        if "://" in name:
            builder = "parquet" if name.endswith(".parquet") else "json"
            return datasets.load_dataset(builder, data_files=name, split="train")
        return datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the Hub's client fails in too many ways to list; each is the user's to fix
        raise user_error(name, _hub_advice(error, split)) from error


def _hub_advice(error: Exception, split: str) -> str:
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


def to_dataset(rows: RowStream, texts: tuple[str, ...]) -> Dataset:
    """Write rows to the cache of 🤗 datasets and open them there, as a trainer takes them.

    The file's name and the fingerprint are a hash of the content: what a trainer computes from the rows is found again
    by the next run on the same ones. Columns whose values have no common type, such as the JSON schemas of different
    tools, are `Json()`: Arrow's structs would give each value the keys of all others.
    """
    import datasets

    def rows_with(columns: list[str]) -> Iterator[Row]:
        for row in rows.in_file_order():
            options = {"tools": tools_of(row), "chat_template_kwargs": row.get("chat_template_kwargs") or {}}
            yield {column: options[column] if column in options else row.get(column) for column in columns}

    content_hash = hashlib.sha256()
    kinds: dict[str, set[str]] = {}
    for row in rows_with([*texts, *(column for column in EXTRA_COLUMNS if column in rows.columns)]):
        content_hash.update(json.dumps(row, sort_keys=True).encode())
        for column, value in row.items():
            if value:
                kinds.setdefault(column, set()).add(_kind(value))
    features = datasets.Features({column: _feature(kind, datasets) for column, kind in kinds.items()})
    content_hash.update(repr(features).encode())
    whole = datasets.Dataset.from_generator(
        lambda: rows_with([*features]),
        features=features,
        cache_dir=str(Path(datasets.config.HF_DATASETS_CACHE) / "bmc-rows"),
        fingerprint=content_hash.hexdigest()[:32],
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
    return known.get("".join(kinds), datasets.Json())  # several kinds joined have no entry
