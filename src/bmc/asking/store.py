"""Replies of a model that costs money or time, kept in SQLite: what was answered is never asked again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from ..errors import Faults, fail
from .locks import Lock

SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS batches (name TEXT PRIMARY KEY, state TEXT NOT NULL);
"""


def request_key(**request: Any) -> str:
    """A name for a request: the hash of everything that the reply depends on."""
    said = json.dumps(request, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(said.encode(errors="surrogatepass")).hexdigest()


def replies_path(replies: str | None, output_dir: str) -> Path:
    """Where a recipe's answers are kept: beside its folder, unless it says otherwise."""
    return Path(replies or Path(output_dir).parent / "replies.sqlite")


class KeptReplies:
    """A store as it is, to be read while anyone may write it; an empty one where there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            self.reading = sqlite3.connect(":memory:")
            self.reading.executescript(SCHEMA)
            return
        # as one who may write, if possible, since only those can tidy the write-ahead log away
        for mode in ("mode=rw", "mode=ro", "immutable=1"):
            self.reading = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=30)
            try:
                self.get("")
                return
            except sqlite3.Error as error:
                self.reading.close()
                reason = error
        raise self._unusable(reason)

    def get(self, key: str) -> dict[str, Any] | None:
        """The reply to a request, if there is one."""
        row = self.reading.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def __len__(self) -> int:
        return int(self.reading.execute("SELECT count(*) FROM replies").fetchone()[0])

    def close(self) -> None:
        self.reading.close()

    def _unusable(self, error: Exception) -> Faults:
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            return fail(str(self.path), f"is no store of replies ({error}); give another file as `replies`")
        what = "make room there or give another file as `replies`, then run the same command again"
        return fail(str(self.path), f"can't be used ({error}); {what}: answers that are in it stay")


class ReplyStore(KeptReplies):
    """A table of key → reply, for one process at a time; another one waits.

    A reply is on disk (fsync) when `put` is done. Those that come in while others are being written share the next
    commit, so that a slow disk costs no throughput.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            Faults: The file can't be written, or isn't a store.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.lock = Lock(path)
        except OSError as error:
            raise self._unusable(error) from None
        try:
            self.writing = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self.writing.execute("PRAGMA journal_mode=WAL")  # a kill or a full disk leaves what was committed
            self.writing.executescript(SCHEMA)
            super().__init__(path)  # reads over a connection of its own, so that they don't wait for the disk
        except sqlite3.Error as error:
            self.lock.release()
            raise self._unusable(error) from None
        self.queue: list[tuple[str, str, asyncio.Future[None]]] = []
        self.writer: asyncio.Task[None] | None = None

    async def put(self, key: str, reply: dict[str, Any]) -> None:
        """Keeps a reply.

        Raises:
            Faults: It can't be written.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.queue.append((key, json.dumps(reply), done))
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
                await asyncio.to_thread(self._commit, [(key, reply) for key, reply, _ in batch])
            except sqlite3.Error as error:
                outcome: Exception | None = self._unusable(error)
            else:
                outcome = None
            for _, _, done in batch:
                if done.cancelled():
                    continue
                if outcome:
                    done.set_exception(outcome)
                else:
                    done.set_result(None)

    def _commit(self, replies: list[tuple[str, str]]) -> None:
        self.writing.execute("BEGIN")
        try:
            self.writing.executemany("INSERT OR REPLACE INTO replies VALUES (?, ?)", replies)
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
        """Notes what is known of a batch; with None, that it is done with.

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
        self.writing.close()
        self.lock.release()
