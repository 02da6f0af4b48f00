"""Replies of an editor that costs money or time, kept in SQLite: what was answered is never asked again."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any


class ReplyStore:
    """A table of key → reply. A reply is on disk before `put` returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.connection = sqlite3.connect(path, timeout=30, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=WAL")  # readers don't wait for a writer, nor the reverse
        self.connection.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")

    def get(self, key: str) -> dict[str, Any] | None:
        """The reply to a request, if there is one."""
        row = self.connection.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def put(self, key: str, reply: dict[str, Any]) -> None:
        """Keeps a reply."""
        self.connection.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, json.dumps(reply)))

    def close(self) -> None:
        """Leaves one file, with the write-ahead log in it."""
        self.connection.close()


def request_key(**request: Any) -> str:
    """A name for a request: the hash of everything that the reply depends on."""
    return hashlib.sha256(json.dumps(request, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
