"""Record what made an output folder in `provenance.json`: command, recipe, versions, commit, data and host.

The record decides nothing; whether a run may continue depends on `recipe.json` alone. Secrets, user names and machine
names never enter it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .data.loading import files_of, review_file
from .distributed import world_size
from .program import shown

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
    """Describe a run as it starts: command, recipe, versions, commit, model, data and host.

    Secrets are masked, and paths are relative to the working directory or the home directory. The seed is by default
    the mixture's; rows are hashed if they don't come from files.
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
    """Merge the records of a resumed run: the first start in full, of later ones time, command and what changed."""
    if not earlier or "started" not in earlier:
        return now
    changed = {key: value for key, value in now.items() if key in ("started", "command") or earlier.get(key) != value}
    return earlier | {"resumed": [*earlier.get("resumed", []), changed]}


def read_provenance(folder: Path) -> dict[str, Any] | None:
    """Read the record of a folder; None if there is none, or it can't be read."""
    try:
        return dict(json.loads((folder / PROVENANCE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def redact_command(argv: list[str]) -> str:
    """Write a command line with its secrets masked."""
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
    """Tell whether a key holds a secret: hub_token, api_key, …, but not the name of a variable (api_key_env)."""
    name = key.rpartition(".")[2]
    return bool(_SECRET_KEY.search(name)) and name not in _NO_SECRET


def redact(value: Any) -> Any:
    """Remove secrets, user names and absolute paths of the working or home directory from a JSON value."""
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
    """Return the commit of this library's code and whether it was changed since; None outside a checkout."""
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
    """Describe the kind of machine, without its name."""
    facts: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }
    torch = sys.modules.get("torch")  # imported only by stages that need it
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
    """Return name and commit of a Hub model, or a hash of a local model's configuration and file sizes."""
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
    except ValueError:  # not a Hub id
        cached = None
    return {"name": name, "commit": Path(cached).parent.name if isinstance(cached, str) else None}


def _data(recipe: dict[str, Any], rows: Iterable[dict[str, Any]] | None) -> Iterable[dict[str, Any]]:
    """Hash the files that a mixture names; or the rows as read where there are no such files."""
    mixture, whole = recipe.get("dataset_mixture") or {}, True
    parts = [mixture.get("datasets", []), mixture.get("test_datasets", []), recipe.get("validation_datasets") or []]
    for dataset in itertools.chain(*parts):
        name = str(dataset.get("id") or dataset.get("source"))
        files = files_of(name, dataset.get("split", "train"), dataset.get("source"))
        whole &= bool(files)
        if dataset.get("use_review") and (review := review_file(name)).is_file():
            files = [*files, review]
        for path in files:
            yield {"file": str(path), "bytes": path.stat().st_size, "sha256": file_digest(path)}
    if not whole and rows is not None:
        digest, count = hashlib.sha256(), 0
        for row in rows:
            digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
            count += 1
        yield {"rows": count, "sha256": digest.hexdigest()}


def file_digest(path: Path) -> str:
    """Compute the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
