"""The store of answers: kept through kills and full disks, one process at a time, nothing asked twice."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bmc.errors import UserErrors
from bmc.llm.cache import CachedResponses, ResponseCache, request_key


def put(store: ResponseCache, key: str, reply: dict[str, Any]) -> None:
    asyncio.run(store.put(key, reply))


def test_what_is_put_is_got_also_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "replies.sqlite"
    store = ResponseCache(path)
    assert store.get("k") is None
    put(store, "k", {"content": "é\ud83d", "usage": None})
    put(store, "k", {"content": "later"})
    assert store.get("k") == {"content": "later"}
    store.close()
    kept = CachedResponses(path)
    assert kept.get("k") == {"content": "later"}
    kept.close()
    assert {file.name for file in path.parent.iterdir()} == {"replies.sqlite", "replies.sqlite.lock"}


def test_a_store_that_is_not_there_is_empty_and_stays_away(tmp_path: Path) -> None:
    assert CachedResponses(tmp_path / "r").get("k") is None
    assert list(tmp_path.iterdir()) == []


def test_many_at_once_are_all_kept(tmp_path: Path) -> None:
    store = ResponseCache(tmp_path / "r")
    asyncio.run(store.put_all({f"k{number}": {"n": number} for number in range(300)}))
    assert [store.get(f"k{number}") for number in range(300)] == [{"n": number} for number in range(300)]


def run(code: str, path: Path) -> subprocess.Popen[str]:
    head = "import asyncio, os, sys, time\nfrom pathlib import Path\nfrom bmc.llm.cache import ResponseCache\n"
    head += f"path = Path({str(path)!r})\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


KILLED = """
store = ResponseCache(path)
asyncio.run(store.put("k", {"content": "kept"}))
os.kill(os.getpid(), 9)
"""


def test_a_reply_outlives_a_kill_and_so_does_no_lock(tmp_path: Path) -> None:
    assert run(KILLED, tmp_path / "r").wait() == -9
    store = ResponseCache(tmp_path / "r")  # at once, though the dead one's name stands in the lock
    assert store.get("k") == {"content": "kept"}


HOLDS = """
store = ResponseCache(path)
print(os.getpid(), flush=True)
sys.stdin = open(0)
time.sleep(float("{seconds}"))
asyncio.run(store.put("first", {{"n": 1}}))
store.close()
"""


def test_a_second_process_waits_and_says_for_whom(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = run(HOLDS.format(seconds=0.7), tmp_path / "r")
    assert other.stdout
    pid = other.stdout.readline().strip()
    begun = time.monotonic()
    store = ResponseCache(tmp_path / "r")
    assert time.monotonic() - begun > 0.2
    assert store.get("first") == {"n": 1}
    assert f"waiting for process {pid} on " in caplog.text
    assert other.wait() == 0


def test_a_store_is_opened_once_in_a_process(tmp_path: Path) -> None:
    store = ResponseCache(tmp_path / "r")
    with pytest.raises(UserErrors, match="in use by this very process"):
        ResponseCache(tmp_path / "r")
    assert CachedResponses(tmp_path / "r").get("k") is None  # to be read by anyone
    store.close()
    ResponseCache(tmp_path / "r").close()


FULL = """
import resource, signal
store = ResponseCache(path)
asyncio.run(store.put("before", {"n": 1}))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    for number in range(100):
        asyncio.run(store.put(f"k{number}", {"content": "x" * 50_000}))
        print(number, flush=True)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_full_disk_is_a_fault_and_loses_nothing(tmp_path: Path) -> None:
    """Files that may not grow beyond 200 kB stand for a disk that is full."""
    out, err = run(FULL, tmp_path / "r").communicate()
    *kept, last = out.splitlines()
    assert last.startswith(f"UserErrors {tmp_path / 'r'}: can't be used ("), err
    assert last.endswith("make room there or give another file as `replies`, then run the same command again: "
                         "the responses in it stay")  # fmt: skip
    store = ResponseCache(tmp_path / "r")
    assert store.get("before") == {"n": 1}
    assert len(kept) > 0
    assert all(store.get(f"k{number}") for number in kept)
    assert store.get(f"k{len(kept)}") is None
    assert store.writing.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    put(store, "after", {"n": 2})


def test_what_is_no_store_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("no database " * 100)
    for kind in (ResponseCache, CachedResponses):
        with pytest.raises(UserErrors, match=f"{tmp_path / 'r'}: is no response cache"):
            kind(tmp_path / "r")
    with pytest.raises(UserErrors, match="can't be used"):
        ResponseCache(Path("/proc/none/r"))
    assert (tmp_path / "r").read_text() == "no database " * 100


def test_batches_are_noted_and_done_with(tmp_path: Path) -> None:
    store = ResponseCache(tmp_path / "r")
    store.keep_batch("f1", {"batch": None})
    store.keep_batch("f2", {"batch": "b2"})
    store.keep_batch("f1", {"batch": "b1"})
    assert store.batches() == {"f2": {"batch": "b2"}, "f1": {"batch": "b1"}}
    store.keep_batch("f2", None)
    store.close()
    assert ResponseCache(tmp_path / "r").batches() == {"f1": {"batch": "b1"}}


def test_an_older_store_gets_what_it_lacks(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "r")
    connection.execute("CREATE TABLE replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
    connection.execute("INSERT INTO replies VALUES ('k', '{\"n\": 1}')")
    connection.commit()
    connection.close()
    store = ResponseCache(tmp_path / "r")
    assert (store.get("k"), store.batches()) == ({"n": 1}, {})


def test_a_key_names_all_of_a_request_in_any_order() -> None:
    assert request_key(model="m", messages=[{"a": "é"}]) == request_key(messages=[{"a": "é"}], model="m")
    keys = {
        request_key(model=m, temperature=t, text=x) for m in "mn" for t in (0.0, 1.0) for x in ("a", "a ", "\ud83d")
    }
    assert len(keys) == 12
