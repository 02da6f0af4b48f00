"""Response cache and spend ledger of an LLM, in SQLite: no request is paid for twice."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import socket
import sqlite3
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import UserErrors, user_error
from .errors import parse_json

logger = logging.getLogger(__name__)
# `replies` are the completions, `charges` the ledger: names that files from before have, too.
SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS batches (name TEXT PRIMARY KEY, state TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS charges (key TEXT NOT NULL, charge TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS holder (one INTEGER PRIMARY KEY, process TEXT NOT NULL);
"""
BATCH_TRIES = 2  # of a request that the Batch API gives no outcome of, in all runs
NO_OUTCOME = "the Batch API never gave an outcome"
IN_FLIGHT = "no response was recorded before the run ended"
Statement = tuple[str, tuple[Any, ...]]


def request_key(**request: Any) -> str:
    """Hash everything that the response to a request depends on."""
    text = json.dumps(request, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def cache_path(given: str | None, output_dir: str) -> Path:
    """Return a recipe's response cache: the file that it names, else `responses.sqlite` beside its output folder."""
    folder = Path(output_dir).parent
    earlier = folder / "replies.sqlite"  # its name before 0.2
    return Path(given or (earlier if earlier.is_file() else folder / "responses.sqlite"))


class CachedResponses:
    """A cache that is only read, while another process may write it; an empty one if there is no file.

    Attributes:
        charges: The spend ledger: request key → what was paid for responses without a completion, each `{"kind",
            "prompt_tokens", "completion_tokens", …}`. With `lost`, the request was possibly billed: the tokens are the
            most that it can have cost.
        last: Number of the ledger's last row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged: set[str] = set()
        self.charges: dict[str, list[dict[str, Any]]] = {}
        self.last = 0
        self.reading = self._open()
        self._read_charges()

    def _open(self) -> sqlite3.Connection:
        reason: sqlite3.Error | None = None
        # writable if possible, since only a writer can clear away the write-ahead log
        for mode in ("mode=rw", "mode=ro", "immutable=1") if self.path.exists() else ():
            reading = sqlite3.connect(f"{self.path.absolute().as_uri()}?{mode}", uri=True, timeout=30)
            try:
                found = reading.execute("SELECT 1 FROM sqlite_master WHERE name = 'replies'").fetchone()
            except sqlite3.Error as error:
                reading.close()
                reason = error
                continue
            if found:
                reading.text_factory = bytes  # a flipped bit may leave invalid UTF-8
                return reading
            reading.close()
            break
        else:
            if reason:
                raise self._fault(reason)
        empty = sqlite3.connect(":memory:")
        empty.executescript(SCHEMA)
        return empty

    def _read_charges(self) -> None:
        with contextlib.suppress(sqlite3.OperationalError):  # an older cache has no such table
            for row, key, text in self.reading.execute("SELECT rowid, key, charge FROM charges ORDER BY rowid"):
                self.last = row
                with contextlib.suppress(ValueError, TypeError):
                    self._read_charge(row, bytes(key).decode(), dict(parse_json(text)))

    def _read_charge(self, row: int, key: str, charge: dict[str, Any]) -> None:
        self.charges.setdefault(key, []).append(charge)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the completion of a request, if a readable one is cached.

        Raises:
            UserErrors: The file is damaged beyond single rows.
        """
        try:
            row = self.reading.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise self._fault(error) from None
        if row is None:
            return None
        try:
            return dict(parse_json(row[0]))
        except (ValueError, TypeError):
            self.report_damage(key)
            return None

    def report_damage(self, key: str) -> None:
        """Warn, once, that the row of a request is damaged."""
        if key not in self.damaged:
            self.damaged.add(key)
            logger.warning("%s: the row with key %s… is damaged; its request is sent again", self.path, key[:16])

    def given_up(self, key: str, most: int) -> str | None:
        """Return why a request isn't sent any more: it was paid for `most` times without a completion."""
        charges = self.charges.get(key, [])
        no_outcome = [charge for charge in charges if charge.get("never")]
        if len(no_outcome) >= BATCH_TRIES:
            return str(no_outcome[-1]["kind"])
        unusable = [charge for charge in charges if not (charge.get("lost") or charge.get("again"))]
        if len(unusable) < most:
            return None
        return f"endpoint failed: {unusable[-1]['kind']}, {len(unusable)} times paid for (max_unusable_responses)"

    def __len__(self) -> int:
        return int(self.reading.execute("SELECT count(*) FROM replies").fetchone()[0])

    def size(self) -> tuple[int, int]:
        """Count completions and charges, to see whether another process has added any."""
        return len(self), sum(map(len, self.charges.values()))

    def close(self) -> None:
        self.reading.close()

    def _fault(self, error: Exception) -> UserErrors:
        if "malformed" in str(error):
            what = f"is damaged ({error}); save what is in it by `sqlite3 {self.path} .recover | sqlite3 NEW`, and set"
            return user_error(
                str(self.path), f"{what} response_cache: NEW, or move it away: then every request is sent again"
            )
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            return user_error(str(self.path), f"is no response cache ({error}); give another file as `response_cache`")
        what = "make room there or give another file as `response_cache`, then run the same command again"
        return user_error(str(self.path), f"can't be used ({error}); {what}: the responses in it stay")


class ResponseCache(CachedResponses):
    """A cache that one process writes at a time; another one waits.

    A response is on disk (fsync) when `put` returns. Those that come while others are being written share the next
    commit, so that a slow disk costs no throughput.

    A request stands in the ledger at its maximum before it is sent (`reserve`), until the commit of its response: what
    was in flight when a process died is possibly billed, in every later run.
    """

    def __init__(self, path: Path, batches: bool = False) -> None:
        """Open the file, and wait for it if another process writes it.

        With `batches` this process collects those that an earlier one submitted: their requests are still in flight;
        otherwise they are possibly billed.

        Raises:
            UserErrors: The file can't be written, or is no response cache.
        """
        self.path, self.collects = path, batches
        self.in_flight: dict[str, int] = {}  # request key → number of its row in the ledger
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.lock = _lock(path)
        except OSError as error:
            raise self._fault(error) from None
        try:
            # only the owner may read prompts; SQLite gives its files beside it the same mode
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self.writing = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self.writing.execute("PRAGMA journal_mode=WAL")  # a kill or a full disk leaves what was committed
            self.writing.executescript(SCHEMA)
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            self.writing.execute("INSERT OR REPLACE INTO holder VALUES (1, ?)", (json.dumps(holder),))
            super().__init__(path)  # reads by a connection of its own, so that reads don't wait for the disk
        except (sqlite3.Error, OSError) as error:
            self.lock.release()
            raise self._fault(error) from None
        except UserErrors:
            self.lock.release()
            raise
        self.pending: list[Statement] = []
        self.committing = asyncio.Lock()
        self.next_commit: asyncio.Task[None] | None = None
        self.thread = ThreadPoolExecutor(1)  # its own, so that no other work delays a commit

    def _read_charge(self, row: int, key: str, charge: dict[str, Any]) -> None:
        if self.collects and charge.get("batch") and charge.get("kind") == IN_FLIGHT:
            self.in_flight[key] = row
        else:
            super()._read_charge(row, key, charge)

    async def reserve(self, bounds: dict[str, dict[str, Any]]) -> None:
        """Enter requests in the ledger before they are sent.

        Raises:
            UserErrors: The file can't be written (as in all methods that write).
        """
        entries = []
        for key, most in bounds.items():
            entries.append(self._entry(key, {"kind": IN_FLIGHT, "lost": True, **most}))
            self.in_flight[key] = self.last
        await self._write(entries)

    async def put(self, key: str, completion: dict[str, Any]) -> None:
        """Cache a completion, which settles its request."""
        put = ("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, json.dumps(completion)))
        await self._write([put, *self._settle(key)])

    async def put_all(self, completions: dict[str, dict[str, Any]]) -> None:
        """Cache many completions, in few commits."""
        await asyncio.gather(*(self.put(key, completion) for key, completion in completions.items()))

    async def charge(self, key: str, charge: dict[str, Any]) -> None:
        """Record what was, or may have been, paid for a request without a completion, which settles it."""
        self.charges.setdefault(key, []).append(charge)
        await self._write([*self._settle(key), self._entry(key, charge)])

    async def release(self, keys: Iterable[str]) -> None:
        """Settle requests that weren't billed."""
        await self._write([statement for key in keys for statement in self._settle(key)])

    def _entry(self, key: str, charge: dict[str, Any]) -> Statement:
        self.last += 1
        return "INSERT INTO charges (rowid, key, charge) VALUES (?, ?, ?)", (self.last, key, json.dumps(charge))

    def _settle(self, key: str) -> list[Statement]:
        row = self.in_flight.pop(key, None)
        return [] if row is None else [("DELETE FROM charges WHERE rowid = ?", (row,))]

    async def _write(self, statements: list[Statement]) -> None:
        """Wait until the statements are committed, together with all that come before the commit begins."""
        if not statements:
            return
        self.pending += statements
        if self.next_commit is None:
            self.next_commit = asyncio.create_task(self._commit_pending())
        await asyncio.shield(self.next_commit)

    async def _commit_pending(self) -> None:
        async with self.committing:
            statements, self.pending, self.next_commit = self.pending, [], None
            try:
                await asyncio.get_running_loop().run_in_executor(self.thread, self._commit, statements)
            except sqlite3.Error as error:
                raise self._fault(error) from None

    def _commit(self, statements: list[Statement]) -> None:
        self.writing.execute("BEGIN")
        try:
            for statement, values in statements:
                self.writing.execute(statement, values)
            self.writing.execute("COMMIT")
        except sqlite3.Error:
            if self.writing.in_transaction:
                self.writing.execute("ROLLBACK")
            raise

    def batches(self) -> dict[str, dict[str, Any]]:
        """Return the submitted batches: name → state."""
        rows = self.writing.execute("SELECT name, state FROM batches ORDER BY rowid").fetchall()
        return {name: json.loads(state) for name, state in rows}

    def keep_batch(self, name: str, state: dict[str, Any] | None) -> None:
        """Record the state of a batch, or forget the batch if it is None."""
        try:
            if state is None:
                self.writing.execute("DELETE FROM batches WHERE name = ?", (name,))
            else:
                self.writing.execute("INSERT OR REPLACE INTO batches VALUES (?, ?)", (name, json.dumps(state)))
        except sqlite3.Error as error:
            raise self._fault(error) from None

    def close(self) -> None:
        """Close the file; the write-ahead log is merged into it."""
        super().close()
        self.thread.shutdown()
        self.writing.close()
        self.lock.release()


def _lock(path: Path) -> FileLock:
    """Lock a file for this process; if another one holds it, log which, and wait."""
    lock = FileLock(f"{path}.lock", thread_local=False)
    try:
        lock.acquire(timeout=0.2, poll_interval=0.05)
    except Timeout:
        holder = _holder(path)
        if (holder.get("pid"), holder.get("host")) == (os.getpid(), socket.gethostname()):
            raise user_error(str(path), "is in use by this very process; close it first") from None
        logger.warning(
            "%s: waiting for process %s on %s, which has held it since %s (Ctrl-C gives up)",
            path, holder.get("pid"), holder.get("host"), holder.get("since"),
        )  # fmt: skip
        lock.acquire(poll_interval=0.2)
    return lock


def _holder(path: Path) -> dict[str, Any]:
    """Return the process that last opened a cache for writing."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=5)) as reading:
            return dict(json.loads(reading.execute("SELECT process FROM holder").fetchone()[0]))
    except (sqlite3.Error, TypeError, ValueError):
        return {}
