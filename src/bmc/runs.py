"""Run a stage: its exit status and signals, its output folder, and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

from .data.loading import REVIEW, review_file
from .distributed import rank, world_size
from .errors import UserErrors, user_error
from .manual import default_of
from .provenance import PROVENANCE, describe_run, file_digest, merge_provenance, read_provenance
from .recipe import located

RECIPE_FILE = "recipe.json"
# What stages write beside `recipe.json`, under names that a user's own data may have, too.
WRITTEN = {"train.jsonl", "validation.jsonl", "test.jsonl", "dropped.jsonl", "predictions.jsonl"}
EXIT_USER_ERROR = 2
EXIT_PREEMPTED = 75  # EX_TEMPFAIL: what was written is whole; start the same command again
GRACE = 30  # seconds in which a launcher, even on a busy machine, ends the other ranks
PEER_LOST = (
    "Connection closed by peer", "Connection reset by peer", "Connection was likely closed", "Connection refused",
    "Broken pipe", "NCCL error", "Socket Timeout",
)  # fmt: skip
_started = time.monotonic()
_held: dict[Path, int] | None = None  # the folders that this command writes → descriptors that lock them


class Preempted(SystemExit):
    """End a stage after SIGTERM with status `EXIT_PREEMPTED`: the same command continues it."""

    def __init__(self) -> None:
        super().__init__(EXIT_PREEMPTED)


def run_main(main: Callable[[], None]) -> None:
    """Run a stage's main function and exit as users expect.

    User errors go to stderr, one a line, with exit status 2; any other exception keeps its traceback and status 1.
    SIGTERM ends a stage with `EXIT_PREEMPTED`. Only rank 0 reports user errors; other ranks, and those that have only
    lost a peer, wait so that the launcher can end them first.
    """
    level = logging.INFO if is_main_process() else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    warnings.filterwarnings("ignore", category=FutureWarning)  # libraries warning one another
    for chatty in ("httpx", "httpx2", "datasets", "filelock", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it advises on kernels to install
    alone = world_size() == 1
    status: Any = 0
    try:
        with on_sigterm(partial(_leave, os.getpid())), _holding_folders():
            main()
    except UserErrors as error:
        if not is_main_process():
            _wait_for_the_launcher()
        _end_progress()
        print(located(error), file=sys.stderr)
        status = EXIT_USER_ERROR
    except KeyboardInterrupt:
        _end_progress()
        print("stopped by Ctrl-C; the same command goes on with what is kept", file=sys.stderr)
        status = 130
    except Preempted as end:
        if is_main_process():
            _end_progress()
            print("stopped by SIGTERM; the same command goes on where it was", file=sys.stderr)
        status = end.code
    except SystemExit as end:
        status = end.code
    except Exception as error:
        if alone:
            raise
        if any(sign in str(error) for sign in PEER_LOST):
            _wait_for_the_launcher()
        traceback.print_exc()
        status = 1
    if not alone and isinstance(status, int):
        # a library's thread that outlives the interpreter sometimes aborts the process, and the launcher would report
        # a complete run as failed
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    if status:
        raise SystemExit(status)


@contextlib.contextmanager
def on_sigterm(handler: Callable[..., None]) -> Iterator[None]:
    """Handle SIGTERM by `handler`; does nothing outside the main thread, where Python forbids it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(process: int, *_: Any) -> None:
    if os.getpid() != process:  # a forked worker
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    raise Preempted


def _wait_for_the_launcher() -> None:
    """Give the launcher time to end this process because another one has failed."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # training's handler would only note it
    time.sleep(GRACE)


def _end_progress() -> None:
    """Close open progress bars, so that a message gets its own line."""
    if "tqdm" in sys.modules:
        for bar in list(sys.modules["tqdm"].tqdm._instances):
            bar.close()


def is_main_process() -> bool:
    """Tell whether this process writes files and messages: rank 0."""
    return rank() == 0


def run_fingerprint(*parts: Any) -> dict[str, Any]:
    """Collect the recipe fields that affect results: those that differ from their defaults.

    Left out are a class's `NON_IDENTITY_KEYS`, and where and whether it runs. A key that a later version adds thus
    leaves older runs theirs.
    """
    recipe: dict[str, Any] = {}
    for part in parts:
        own = (vars(cls).get("NON_IDENTITY_KEYS", ()) for cls in type(part).__mro__)
        ignored = {"dry_run", "output_dir"}.union(*own)
        recipe |= {key: value for key, value in set_fields(part).items() if key not in ignored}
        recipe |= _reviews(part)
    return recipe


def _reviews(part: Any) -> dict[str, Any]:
    """Hash the review files that decide which rows a stage reads; empty where it reads none."""
    mixture = getattr(part, "dataset_mixture", None)
    parts = [*mixture.datasets, *mixture.test_datasets] if mixture else []
    files = {str(path): path for one in parts if one.use_review and (path := review_file(str(one.id))).is_file()}
    return {REVIEW: {name: file_digest(path) for name, path in files.items()}} if files else {}


def set_fields(value: Any) -> Any:
    """Turn a dataclass into a dict of the fields that differ from their defaults, recursively."""
    if isinstance(value, list):
        return [set_fields(item) for item in value]
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    given = ((field, getattr(value, field.name)) for field in dataclasses.fields(value) if field.init)
    return {field.name: set_fields(item) for field, item in given if item != default_of(field)}


def check_output_dir(output_dir: str, recipe: dict[str, Any], writes_rows: bool = True) -> None:
    """Check that a recipe may write to a folder; writes nothing.

    `recipe` are the fields that affect results (`run_fingerprint`); `writes_rows` says that the stage writes rows,
    under the names `WRITTEN`.

    Raises:
        UserErrors: The folder holds results of another recipe or a file that the recipe reads and would overwrite, or
            is a file.
    """
    folder, manifest = Path(output_dir), Path(output_dir) / RECIPE_FILE
    if any(path.is_file() for path in (folder, *folder.parents)):
        raise user_error(output_dir, "is a file, or lies in one; choose another output_dir")
    for file in _data_files(recipe) if writes_rows else ():
        if file.name in WRITTEN and file.resolve() == (folder / file.name).resolve():
            what = f"holds {file.name}, which the recipe reads and would overwrite; choose another output_dir"
            raise user_error(output_dir, what)
    if not manifest.exists():
        return
    try:
        earlier = dict(json.loads(manifest.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise user_error(
            str(manifest), "is no record of a run; choose another output_dir or remove the folder"
        ) from None
    changed = differing_keys(earlier, recipe)
    if changed and holds_results(folder):
        raise user_error(
            str(folder),
            f"holds a run of another recipe (it differs in {', '.join(changed)}); "
            "choose another output_dir or remove the folder",
        )


def _data_files(recipe: dict[str, Any]) -> Iterator[Path]:
    """Yield the local files of a recipe's data sets."""
    mixture = recipe.get("dataset_mixture") or {}
    entries = (*mixture.get("datasets", ()), *mixture.get("test_datasets", ()), *recipe.get("validation_datasets", ()))
    yield from (path for entry in entries if (path := Path(str(entry.get("id") or ""))).is_file())


def refuse_in_place(output_dir: str, model: str) -> None:
    """Refuse to write a model into the folder that it is read from.

    Raises:
        UserErrors: It is the same folder.
    """
    if Path(output_dir).resolve() == Path(model).resolve():
        raise user_error(output_dir, "is the folder of the model that is read; choose another output_dir")


def holds_results(folder: Path) -> bool:
    """Tell whether a folder holds more than records and temporary files."""
    notes = {RECIPE_FILE, PROVENANCE}
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return any(file.parts[0] not in (*notes, "runs") and file.suffix != ".tmp" for file in files)


def differing_keys(earlier: dict[str, Any], recipe: dict[str, Any]) -> list[str]:
    """List the keys in which a recipe differs from the recorded one."""
    recipe = json.loads(json.dumps(recipe, default=str))
    return sorted(key for key in earlier | recipe if _comparable(earlier.get(key)) != _comparable(recipe.get(key)))


def _comparable(value: Any) -> Any:
    """Return a value without what doesn't matter: how the path of a chat template or recipe is spelled."""
    is_path = isinstance(value, str) and value.endswith((".jinja", ".yaml"))
    return os.path.normpath(value) if is_path else value


def claim_output_dir(
    output_dir: str,
    recipe: dict[str, Any],
    *parts: Any,
    rows: Iterable[dict[str, Any]] | None = None,
    writes_rows: bool = True,
) -> Path:
    """Make an output folder this recipe's, and record there what made it (`bmc.provenance`).

    The same recipe may write the folder again, though not at the same time: that is how a run resumes. Another recipe
    may not, once the folder holds results. `parts` are the recipe's dataclasses, for the record; `rows` those that the
    stage reads, hashed if they don't come from files.

    Raises:
        UserErrors: As `check_output_dir`; or another run is writing the folder.
    """
    check_output_dir(output_dir, recipe, writes_rows)
    folder = Path(output_dir)
    if is_main_process():
        _hold(folder)
        manifest = folder / RECIPE_FILE
        if not manifest.exists() or differing_keys(json.loads(manifest.read_text(encoding="utf-8")), recipe):
            (folder / PROVENANCE).unlink(missing_ok=True)
            write_json(manifest, json.loads(json.dumps(recipe, default=str)))
        resolved = {key: value for part in parts for key, value in set_fields(part).items()} or recipe
        seed = next((part.seed for part in parts if hasattr(part, "seed")), None)
        endpoint = next((part.endpoint for part in parts if hasattr(part, "endpoint")), None)
        now = describe_run(json.loads(json.dumps(resolved, default=str)), seed, rows, endpoint)
        write_json(folder / PROVENANCE, merge_provenance(read_provenance(folder), now))
    return folder


@contextlib.contextmanager
def _holding_folders() -> Iterator[None]:
    """Let a command hold the folders that it claims until it ends."""
    global _held
    _held = {}
    try:
        yield
    finally:
        _release()
        _held = None


def _hold(folder: Path) -> None:
    """Lock a folder against other runs; the lock ends with the process, whatever ends that."""
    if _held is None or folder.resolve() in _held:
        return
    with report_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    _held[folder.resolve()] = descriptor
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        what = "another run is writing this folder; wait until it has ended, or choose another output_dir"
        raise user_error(str(folder), what) from None
    except OSError:  # a file system without locks
        pass


def _release() -> None:
    while _held:
        os.close(_held.popitem()[1])


os.register_at_fork(after_in_child=_release)  # a worker that outlives a killed run holds nothing


@contextlib.contextmanager
def report_disk_errors(folder: str | Path) -> Iterator[None]:
    """Report a full disk, or a folder that can't be written, as a user error.

    `folder` is named if the system names no file.
    """
    try:
        yield
    except (ConnectionError, TimeoutError):
        raise
    except OSError as error:
        what = f"can't be written ({error.strerror or error}); make room or choose another output_dir"
        raise user_error(str(error.filename or folder), what) from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that a stage wrote.

    Raises:
        UserErrors: It is no JSON object, or can't be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise user_error(str(path), f"can't be read ({error.strerror}); run its stage again") from None
    except ValueError:
        raise user_error(str(path), "is not JSON; remove it and run its stage again") from None
    if not isinstance(found, dict):
        raise user_error(str(path), "is not a JSON object; remove it and run its stage again")
    return found


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    _replace(path, [json.dumps(value, indent=2, ensure_ascii=False)])


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all."""
    _replace(path, [text])


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows as JSON Lines, whole or not at all; returns their number."""
    return _replace(path, (json.dumps(row, ensure_ascii=False) for row in rows))


def _replace(path: Path, lines: Iterable[str]) -> int:
    count = 0
    with atomic_files(path) as (file,):
        for line in lines:
            file.write(line + "\n")
            count += 1
    return count


@contextlib.contextmanager
def atomic_files(*paths: Path) -> Iterator[list[IO[str]]]:
    """Open files that appear under their names together when they are whole, or not at all."""
    temporary = [path.with_name(f"{path.name}.tmp") for path in paths]
    with contextlib.ExitStack() as stack:
        try:
            opened = [stack.enter_context(_opened(path)) for path in temporary]
            yield opened
            for file in opened:
                file.close()  # the rest of a buffer may not fit on the disk
        except BaseException:
            with contextlib.suppress(OSError):
                stack.close()
            for path in temporary:
                path.unlink(missing_ok=True)
            raise
    for path, name in zip(temporary, paths, strict=True):
        os.replace(path, name)


def _opened(path: Path) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    # half a surrogate pair, which JSON allows and UTF-8 doesn't, becomes JSON's escape
    return path.open("w", encoding="utf-8", errors="backslashreplace")


def restart_clock() -> None:
    """Count `elapsed` from now on, for a process that runs one stage after another."""
    global _started
    _started = time.monotonic()


def elapsed() -> float:
    """Return the seconds since this process or, after `restart_clock`, its stage started."""
    return round(time.monotonic() - _started, 1)
