"""Response cache and spend ledger of an LLM, in SQLite: what was answered is never asked again."""

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

from ..errors import Faults, fail
from .errors import parsed

logger = logging.getLogger(__name__)
SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS batches (name TEXT PRIMARY KEY, state TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS charges (key TEXT NOT NULL, charge TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS holder (one INTEGER PRIMARY KEY, process TEXT NOT NULL);
"""


SENDINGS = 2  # of a request that the Batch API gives no outcome of, in all runs
NEVER = "the Batch API never gave an outcome"
IN_FLIGHT = "no response was recorded before the run ended"
_REPLY = "INSERT OR REPLACE INTO replies VALUES (?, ?)"
_CHARGE = "INSERT INTO charges (rowid, key, charge) VALUES (?, ?, ?)"
_SETTLED = "DELETE FROM charges WHERE rowid = ?"
Statement = tuple[str, tuple[Any, ...]]


def request_key(**request: Any) -> str:
    """A name for a request: the hash of everything that the reply depends on."""
    said = json.dumps(request, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(said.encode(errors="surrogatepass")).hexdigest()


def cache_path(replies: str | None, output_dir: str) -> Path:
    """Where a recipe's answers are kept: beside its folder, unless it says otherwise."""
    return Path(replies or Path(output_dir).parent / "replies.sqlite")


class CachedResponses:
    """A store as it is, to be read while anyone may write it; an empty one where there is none.

    Attributes:
        charges: The spend ledger: request key → what was paid for responses without an answer, each `{"kind",
            "prompt_tokens", "completion_tokens", …}`. With `lost`, the request was possibly billed: the tokens are the
            most that it can have cost.
        last: Number of the ledger's last row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged: set[str] = set()
        self.charges: dict[str, list[dict[str, Any]]] = {}
        self.last = 0
        self.reading = self._opened()
        self._read_charges()

    def _opened(self) -> sqlite3.Connection:
        """A connection to read by; to an empty database where the file holds no table yet."""
        reason: sqlite3.Error | None = None
        # as one who may write, if possible, since only those can tidy the write-ahead log away
        for mode in ("mode=rw", "mode=ro", "immutable=1") if self.path.exists() else ():
            reading = sqlite3.connect(f"{self.path.absolute().as_uri()}?{mode}", uri=True, timeout=30)
            try:
                found = reading.execute("SELECT 1 FROM sqlite_master WHERE name = 'replies'").fetchone()
            except sqlite3.Error as error:
                reading.close()
                reason = error
                continue
            if found:
                reading.text_factory = bytes  # a flipped bit may leave no UTF-8
                return reading
            reading.close()
            break
        else:
            if reason:
                raise self._unusable(reason)
        empty = sqlite3.connect(":memory:")
        empty.executescript(SCHEMA)
        return empty

    def _read_charges(self) -> None:
        with contextlib.suppress(sqlite3.OperationalError):  # an older store has no such table
            for row, key, text in self.reading.execute("SELECT rowid, key, charge FROM charges ORDER BY rowid"):
                self.last = row
                with contextlib.suppress(ValueError, TypeError):
                    self._read_charge(row, bytes(key).decode(), dict(parsed(text)))

    def _read_charge(self, row: int, key: str, charge: dict[str, Any]) -> None:
        self.charges.setdefault(key, []).append(charge)

    def get(self, key: str) -> dict[str, Any] | None:
        """The reply to a request, if there is one that can be read.

        Raises:
            Faults: The file is damaged beyond single rows.
        """
        try:
            row = self.reading.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from None
        if row is None:
            return None
        try:
            return dict(parsed(row[0]))
        except (ValueError, TypeError):
            self.damage(key)
            return None

    def damage(self, key: str) -> None:
        """Says, once, that the row of a request can't be read and is asked anew."""
        if key not in self.damaged:
            self.damaged.add(key)
            logger.warning("%s: the row with key %s… is damaged; its request is sent anew", self.path, key[:16])

    def unusable(self, key: str) -> list[dict[str, Any]]:
        """What was paid for replies to a request that came, and hold no answer."""
        return [charge for charge in self.charges.get(key, []) if not (charge.get("lost") or charge.get("again"))]

    def given_up(self, key: str, most: int) -> str | None:
        """Why a request isn't sent any more, if it was paid for so often without an answer."""
        charges = self.unusable(key)
        never = [charge for charge in self.charges.get(key, []) if charge.get("never")]
        if len(never) >= SENDINGS:
            return str(never[-1]["kind"])
        if len(charges) < most:
            return None
        return f"endpoint failed: {charges[-1]['kind']}, {len(charges)} times paid for (max_unusable_replies)"

    def __len__(self) -> int:
        return int(self.reading.execute("SELECT count(*) FROM replies").fetchone()[0])

    def size(self) -> tuple[int, int]:
        """How many answers and how many charges there are: whether another process has added any."""
        return len(self), sum(map(len, self.charges.values()))

    def close(self) -> None:
        self.reading.close()

    def _unusable(self, error: Exception) -> Faults:
        if "malformed" in str(error):
            what = f"is damaged ({error}); save what is in it by `sqlite3 {self.path} .recover | sqlite3 NEW`, and give"
            return fail(str(self.path), f"{what} NEW as `replies`, or move it away: then everything is asked anew")
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            return fail(str(self.path), f"is no store of replies ({error}); give another file as `replies`")
        what = "make room there or give another file as `replies`, then run the same command again"
        return fail(str(self.path), f"can't be used ({error}); {what}: answers that are in it stay")


class ResponseCache(CachedResponses):
    """A table of key → reply, for one process at a time; another one waits.

    A reply is on disk (fsync) when `put` is done. Those that come in while others are being written share the next
    commit, so that a slow disk costs no throughput.

    A request stands in the ledger at its maximum before it is sent (`reserve`), and until the commit that keeps its
    response: what was in flight when a process died is possibly billed, in every later run.

    Attributes:
        in_flight: Request key → number of its row in the ledger.
    """

    def __init__(self, path: Path, batches: bool = False) -> None:
        """
        Args:
            path: The file.
            batches: Whether this process collects the batches that an earlier one submitted. Their requests are then
                still in flight; otherwise they are possibly billed.

        Raises:
            Faults: The file can't be written, or isn't a store.
        """
        self.path, self.collects = path, batches
        self.in_flight: dict[str, int] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.lock = _locked(path)
        except OSError as error:
            raise self._unusable(error) from None
        try:
            # only their owner may read prompts; SQLite gives its files beside it the same mode
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self.writing = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self.writing.execute("PRAGMA journal_mode=WAL")  # a kill or a full disk leaves what was committed
            self.writing.executescript(SCHEMA)
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            self.writing.execute("INSERT OR REPLACE INTO holder VALUES (1, ?)", (json.dumps(holder),))
            super().__init__(path)  # reads over a connection of its own, so that they don't wait for the disk
        except (sqlite3.Error, OSError) as error:
            self.lock.release()
            raise self._unusable(error) from None
        except Faults:
            self.lock.release()
            raise
        self.queue: list[tuple[list[Statement], asyncio.Future[None]]] = []
        self.writer: asyncio.Task[None] | None = None
        self.thread = ThreadPoolExecutor(1)  # its own, so that no other work beside the loop delays a commit

    def _read_charge(self, row: int, key: str, charge: dict[str, Any]) -> None:
        if self.collects and charge.get("batch") and charge.get("kind") == IN_FLIGHT:
            self.in_flight[key] = row
        else:
            super()._read_charge(row, key, charge)

    async def reserve(self, charges: dict[str, dict[str, Any]]) -> None:
        """Enter requests in the ledger before they are sent.

        Args:
            charges: Request key → the tokens that it can cost at most.

        Raises:
            Faults: It can't be written.
        """
        await self._queued([self._entry(key, {"kind": IN_FLIGHT, "lost": True, **most}, True)
                            for key, most in charges.items()])  # fmt: skip

    async def put(self, key: str, reply: dict[str, Any]) -> None:
        """Keep a response, which settles its request.

        Raises:
            Faults: It can't be written.
        """
        await self._queued([(_REPLY, (key, json.dumps(reply))), *self._settled(key)])

    async def charge(self, key: str, charge: dict[str, Any]) -> None:
        """Keep what was, or may have been, paid for a request without an answer, which settles it.

        Raises:
            Faults: It can't be written.
        """
        self.charges.setdefault(key, []).append(charge)
        await self._queued([*self._settled(key), self._entry(key, charge, False)])

    async def release(self, keys: Iterable[str]) -> None:
        """Settle requests that weren't billed.

        Raises:
            Faults: It can't be written.
        """
        await self._queued([statement for key in keys for statement in self._settled(key)])

    def _entry(self, key: str, charge: dict[str, Any], in_flight: bool) -> Statement:
        self.last += 1
        if in_flight:
            self.in_flight[key] = self.last
        return _CHARGE, (self.last, key, json.dumps(charge))

    def _settled(self, key: str) -> list[Statement]:
        row = self.in_flight.pop(key, None)
        return [] if row is None else [(_SETTLED, (row,))]

    async def _queued(self, statements: list[Statement]) -> None:
        if not statements:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.queue.append((statements, done))
        if self.writer is None or self.writer.done():
            self.writer = asyncio.create_task(self._write())
        await done

    async def put_all(self, replies: dict[str, dict[str, Any]]) -> None:
        """Keeps many, in one commit or few."""
        await asyncio.gather(*(self.put(key, reply) for key, reply in replies.items()))

    async def _write(self) -> None:
        while self.queue:
            batch, self.queue = self.queue, []
            try:
                statements = [statement for wanted, _ in batch for statement in wanted]
                await asyncio.get_running_loop().run_in_executor(self.thread, self._commit, statements)
            except sqlite3.Error as error:
                outcome: Exception | None = self._unusable(error)
            else:
                outcome = None
            for _, done in batch:
                if done.cancelled():
                    continue
                if outcome:
                    done.set_exception(outcome)
                else:
                    done.set_result(None)

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
        """The batches under way: name → what is known of them."""
        rows = self.writing.execute("SELECT name, state FROM batches ORDER BY rowid").fetchall()
        return {name: json.loads(state) for name, state in rows}

    def keep_batch(self, name: str, state: dict[str, Any] | None) -> None:
        """Note what is known of a batch; with None, that it is done with.

        Raises:
            Faults: It can't be written.
        """
        try:
            if state is None:
                self.writing.execute("DELETE FROM batches WHERE name = ?", (name,))
            else:
                self.writing.execute("INSERT OR REPLACE INTO batches VALUES (?, ?)", (name, json.dumps(state)))
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def close(self) -> None:
        """Leaves one file, with the write-ahead log in it."""
        super().close()
        self.thread.shutdown()
        self.writing.close()
        self.lock.release()


def _locked(path: Path) -> FileLock:
    """Lock a file for this process until it ends; if another one holds it, say which, and wait.

    Raises:
        Faults: This very process holds it.
        OSError: The lock can't be written.
    """
    lock = FileLock(f"{path}.lock", thread_local=False)
    try:
        lock.acquire(timeout=0.2, poll_interval=0.05)
    except Timeout:
        holder = _holder(path)
        if (holder.get("pid"), holder.get("host")) == (os.getpid(), socket.gethostname()):
            raise fail(str(path), "is in use by this very process; close it first") from None
        logger.warning(
            "%s: waiting for process %s on %s, which has held it since %s (Ctrl-C gives up)",
            path, holder.get("pid"), holder.get("host"), holder.get("since"),
        )  # fmt: skip
        lock.acquire(poll_interval=0.2)
    return lock


def _holder(path: Path) -> dict[str, Any]:
    """Return the process that last opened a cache to write."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=5)) as reading:
            return dict(json.loads(reading.execute("SELECT process FROM holder").fetchone()[0]))
    except (sqlite3.Error, TypeError, ValueError):
        return {}
