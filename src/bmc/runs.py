"""`provenance.json`: what made an output folder. It decides nothing; whether a run may go on is `recipe.json`'s.

What all scripts share: how a stage starts, ends, fails, and what it leaves beside its results.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import logging
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from .data.loading import files_of
from .distributed import rank, world_size
from .errors import Faults, fail
from .program import shown
from .recipe import located
from .wording import default_of

PROVENANCE = "provenance.json"
PACKAGES = ("bmc", "torch", "transformers", "trl", "datasets", "accelerate", "deepspeed", "peft", "vllm")
MASK = "***"
_SECRET_KEY = re.compile(r"(?:^|[_.-])(?:token|key|secret|password|passwd|credentials?)$", re.IGNORECASE)
_NO_SECRET = {"eos_token", "pad_token", "bos_token"}
_SECRET_VALUE = re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[\w-]{16,}|gh[pousr]_[A-Za-z0-9]{16,})")
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")
_SECRET_IN_QUERY = re.compile(
    r"(?<=[?&])([^=&#\s]*(?:key|token|secret|passw|credential|sig|auth|code)[^=&#\s]*=)[^&#\s\"']+", re.IGNORECASE
)
_HOME = re.compile(r"/(?:home|Users)/[^/\s\"']+|/root(?=/|\b)")
_FLAG = re.compile(r"--?([\w.-]+)(=.*)?", re.DOTALL)


def describe_run(
    recipe: dict[str, Any],
    seed: int | None = None,
    rows: Iterable[dict[str, Any]] | None = None,
    endpoint: str | None = None,
) -> dict[str, Any]:
    """What is known of a run as it starts: command, recipe, versions, commit, model, data and host.

    Secrets are masked, and paths are relative to the working directory or the home directory; no user's or machine's
    name is in it.

    Args:
        recipe: The resolved recipe.
        seed: Of the stage; the mixture's where it has none of its own.
        rows: The rows that the stage reads, where no file holds them as they are.
        endpoint: Where the stage's requests go, if it sends any.
    """
    return redact(
        {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": redact_command(shown(sys.argv)),
            "recipe": recipe,
            "seed": (recipe.get("dataset_mixture") or {}).get("seed", 0) if seed is None else seed,
            "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
            "git": git_state(),
            "model": _model(recipe),
            **({} if endpoint is None else {"endpoint": endpoint}),
            "data": list(_data(recipe, rows)),
            "processes": world_size(),
            "host": host_info(),
        }
    )


def merge_provenance(earlier: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """The record of a run that goes on: the first start whole, of later ones their time and what was different."""
    if not earlier or "started" not in earlier:
        return now
    changed = {key: value for key, value in now.items() if key in ("started", "command") or earlier.get(key) != value}
    return earlier | {"resumed": [*earlier.get("resumed", []), changed]}


def read_provenance(folder: Path) -> dict[str, Any] | None:
    """The record of a folder; None if it has none that can be read."""
    try:
        return dict(json.loads((folder / PROVENANCE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def redact_command(argv: list[str]) -> str:
    """A command line, with the values of keys that hold secrets masked."""
    words, mask = [], False
    for word in argv:
        flag = _FLAG.fullmatch(word)
        if mask and not word.startswith("--"):
            words.append(MASK)
        elif flag and is_secret(flag[1]) and flag[2]:
            words.append(f"--{flag[1]}={MASK}")
        else:
            words.append(word)
        mask = bool(flag and is_secret(flag[1]) and not flag[2])
    return redact(" ".join(f'"{word}"' if " " in word else word for word in words))


def is_secret(key: str) -> bool:
    """Whether a key's value is to stay unsaid: hub_token, api_key, …, but not the name of a variable (api_key_env)."""
    name = key.rpartition(".")[2]
    return bool(_SECRET_KEY.search(name)) and name not in _NO_SECRET


def redact(value: Any) -> Any:
    """A JSON-able value without secrets, user names and absolute paths of the working or home directory."""
    if isinstance(value, dict):
        return {
            key: MASK if is_secret(str(key)) and isinstance(item, str) else redact(item) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    if not isinstance(value, str):
        return value
    value = _USER_IN_URL.sub("", _SECRET_VALUE.sub(MASK, value))
    if "://" in value:
        value = _SECRET_IN_QUERY.sub(rf"\1{MASK}", value)
    for folder, below, itself in ((Path.cwd(), "", "."), (Path.home(), "~/", "~")):
        if str(folder) != "/":
            value = value.replace(f"{folder}/", below)
            value = re.sub(rf"{re.escape(str(folder))}(?![\w.-])", itself, value)
    return _HOME.sub("~", value)


def git_state() -> dict[str, Any] | None:
    """Commit of this library's code, and whether it was changed since; None outside a checkout."""
    here = Path(__file__)

    def ask(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here.parent), *arguments], capture_output=True, text=True, timeout=30
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if ask("ls-files", "--error-unmatch", here.name) is None:  # installed, perhaps in a folder of another checkout
        return None
    changes = ask("status", "--porcelain", "--untracked-files=no")
    return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(changes)}


def host_info() -> dict[str, Any]:
    """What kind of machine this is; neither its name nor its users'."""
    facts: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }
    torch = sys.modules.get("torch")  # a stage that has no use for it hasn't imported it
    if torch is not None and torch.cuda.is_available():
        gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        facts["gpus"] = [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus]
    return facts


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _model(recipe: dict[str, Any]) -> dict[str, Any] | None:
    """Name and commit of a model of the Hub, or the digest of a local one's configuration and sizes."""
    name = recipe.get("model_name_or_path")
    if not name:
        return None
    folder = Path(name)
    if folder.is_dir():
        digest = hashlib.sha256()
        for path in sorted(folder.iterdir()):
            if path.suffix == ".json" and "config" in path.name:
                digest.update(path.read_bytes())
            elif path.suffix == ".safetensors":
                digest.update(f"{path.name} {path.stat().st_size}".encode())
        return {"name": name, "sha256": digest.hexdigest()}
    from huggingface_hub import try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(name, "config.json", revision=recipe.get("model_revision", "main"))
    except ValueError:  # no name of the Hub's
        cached = None
    return {"name": name, "commit": Path(cached).parent.name if isinstance(cached, str) else None}


def _data(recipe: dict[str, Any], rows: Iterable[dict[str, Any]] | None) -> Iterable[dict[str, Any]]:
    """Digests of the files that a mixture names; of the rows as read where there are no such files."""
    mixture, whole = recipe.get("dataset_mixture") or {}, True
    parts = [mixture.get("datasets", []), mixture.get("test_datasets", []), recipe.get("validation_datasets") or []]
    for dataset in itertools.chain(*parts):
        name = str(dataset.get("id") or dataset.get("source"))
        files = files_of(name, dataset.get("split", "train"), dataset.get("source"))
        whole &= bool(files)
        for path in files:
            yield {"file": str(path), "bytes": path.stat().st_size, "sha256": file_digest(path)}
    if not whole and rows is not None:
        digest, count = hashlib.sha256(), 0
        for row in rows:
            digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
            count += 1
        yield {"rows": count, "sha256": digest.hexdigest()}


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


RECIPE_FILE = "recipe.json"
EXIT_USER_ERROR = 2
EXIT_PREEMPTED = 75  # EX_TEMPFAIL, the exit status that says: what was kept is whole, start me again
GRACE = 30  # seconds; more than a launcher on a busy machine takes
LOST = (
    "Connection closed by peer", "Connection reset by peer", "Connection was likely closed", "Connection refused",
    "Broken pipe", "NCCL error", "Socket Timeout",
)  # fmt: skip
_STARTED = time.monotonic()


class Preempted(SystemExit):
    """SIGTERM ended a stage that the same command goes on with; the exit status is `EXIT_PREEMPTED`."""

    def __init__(self) -> None:
        super().__init__(EXIT_PREEMPTED)


def run_main(main: Callable[[], None]) -> None:
    """Runs a script: faults go to stderr, one a line, with exit status 2; anything else keeps its traceback and 1.

    Of several processes one says what all have found, and none speaks that has only lost another. SIGTERM ends a stage
    with `EXIT_PREEMPTED`, wherever it is: what it has written is whole, and the same command goes on from there.
    """
    level = logging.INFO if is_main_process() else logging.ERROR
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    warnings.filterwarnings("ignore", category=FutureWarning)  # the libraries' notes to one another
    for chatty in ("httpx", "httpx2", "datasets", "filelock", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # kernels that it could do with
    alone = world_size() == 1
    status: Any = 0
    try:
        with on_sigterm(partial(_leave, os.getpid())):
            main()
    except Faults as error:
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
        if any(sign in str(error) for sign in LOST):
            _wait_for_the_launcher()
        traceback.print_exc()
        status = 1
    if not alone and isinstance(status, int):
        # a library's thread that still runs when the interpreter ends aborts the process now and then, and the launcher
        # would call a run failed that has written all it had to
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    if status:
        raise SystemExit(status)


@contextlib.contextmanager
def on_sigterm(handler: Callable[..., None]) -> Iterator[None]:
    """Handle SIGTERM by `handler`, in the main thread; no other one may set it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(process: int, *_: Any) -> None:
    if os.getpid() != process:  # a worker that was forked from it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    raise Preempted


def _wait_for_the_launcher() -> None:
    """Gives the launcher time to end this process, which it does when another one has ended with a fault."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # training's own handler would only take note of it
    time.sleep(GRACE)


def _end_progress() -> None:
    """Closes the progress bars that are open, so that a message stands on a line of its own, and is the last."""
    if "tqdm" in sys.modules:
        for bar in list(sys.modules["tqdm"].tqdm._instances):
            bar.close()


def is_main_process() -> bool:
    """Whether this is the process that writes, under `accelerate launch` or alone."""
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
    return recipe


def set_fields(value: Any) -> Any:
    """A dataclass as a dict of the fields that aren't at their defaults; so for those within it, and in lists."""
    if isinstance(value, list):
        return [set_fields(item) for item in value]
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    given = ((field, getattr(value, field.name)) for field in dataclasses.fields(value) if field.init)
    return {field.name: set_fields(item) for field, item in given if item != default_of(field)}


def check_output_dir(output_dir: str, recipe: dict[str, Any]) -> None:
    """Looks whether `claim_output_dir` will succeed; writes nothing.

    Raises:
        Faults: The folder holds a run of another recipe, or is a file.
    """
    folder, manifest = Path(output_dir), Path(output_dir) / RECIPE_FILE
    if any(path.is_file() for path in (folder, *folder.parents)):
        raise fail(output_dir, "is a file, or lies in one; choose another output_dir")
    if not manifest.exists():
        return
    try:
        earlier = dict(json.loads(manifest.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise fail(str(manifest), "is no record of a run; choose another output_dir or remove the folder") from None
    changed = differing_keys(earlier, recipe)
    if changed and holds_results(folder):
        raise fail(
            str(folder),
            f"holds a run of another recipe (it differs in {', '.join(changed)}); "
            "choose another output_dir or remove the folder",
        )


def holds_results(folder: Path) -> bool:
    """Whether a stage has left anything in its folder besides the notes of who it is: a run that failed at once doesn't
    keep the folder from another recipe."""
    notes = {RECIPE_FILE, PROVENANCE}
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return any(file.parts[0] not in (*notes, "runs") and file.suffix != ".tmp" for file in files)


def differing_keys(earlier: dict[str, Any], recipe: dict[str, Any]) -> list[str]:
    """The keys in which a recipe differs from one that was written down."""
    recipe = json.loads(json.dumps(recipe, default=str))
    return sorted(key for key in earlier | recipe if earlier.get(key) != recipe.get(key))


def claim_output_dir(
    output_dir: str, recipe: dict[str, Any], *parts: Any, rows: Iterable[dict[str, Any]] | None = None
) -> Path:
    """Makes the output folder this recipe's, and notes in it what made it (`bmc.runs`).

    A folder that the same recipe wrote may be written again (that is how a run resumes); one of another recipe may
    not, once it holds results.

    Args:
        output_dir: The folder.
        recipe: What decides the results, as JSON-able values.
        parts: The dataclasses of the recipe, for the record.
        rows: What the stage reads, for the record; looked at where no file holds it.

    Raises:
        Faults: The folder holds a run of another recipe, or is a file.
    """
    check_output_dir(output_dir, recipe)
    folder = Path(output_dir)
    if is_main_process():
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
def report_disk_errors(folder: str | Path) -> Iterator[None]:
    """Tells of a full disk or a folder that can't be written as a fault.

    Args:
        folder: Named where the system names no file.
    """
    try:
        yield
    except (ConnectionError, TimeoutError):
        raise
    except OSError as error:
        what = f"can't be written ({error.strerror or error}); make room or choose another output_dir"
        raise fail(str(error.filename or folder), what) from None


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all."""
    _replace(path, [json.dumps(value, indent=2, ensure_ascii=False)])


def write_text(path: Path, text: str) -> None:
    """Writes a text whole or not at all."""
    _replace(path, [text])


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Writes rows as JSONL, whole or not at all; returns how many."""
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
    """Files that appear together when they are whole, or not at all."""
    temporary = [path.with_name(f"{path.name}.tmp") for path in paths]
    with contextlib.ExitStack() as stack:
        try:
            opened = [stack.enter_context(_opened(path)) for path in temporary]
            yield opened
            for file in opened:
                file.close()  # what is left in a buffer may not fit on the disk
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
    # half a surrogate pair, which JSON allows and UTF-8 doesn't, is written as JSON's escape
    return path.open("w", encoding="utf-8", errors="backslashreplace")


def elapsed() -> float:
    """Seconds since this process's stage began."""
    return round(time.monotonic() - _STARTED, 1)
