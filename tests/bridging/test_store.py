from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bmc.bridging.store import ReplyStore, request_key


def test_what_is_put_is_got_also_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "replies.sqlite"
    store = ReplyStore(path)
    assert store.get("k") is None
    store.put("k", {"content": "é\ud83d", "usage": None})
    store.put("k", {"content": "later"})
    assert store.get("k") == {"content": "later"}
    store.close()
    assert ReplyStore(path).get("k") == {"content": "later"}


def test_a_reply_outlives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite"
    code = f"""
import os
from pathlib import Path
from bmc.bridging.store import ReplyStore
ReplyStore(Path({str(path)!r})).put("k", {{"content": "kept"}})
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert ReplyStore(path).get("k") == {"content": "kept"}


def test_two_stores_share_a_file(tmp_path: Path) -> None:
    one, other = ReplyStore(tmp_path / "r"), ReplyStore(tmp_path / "r")
    one.put("k", {"n": 1})
    assert other.get("k") == {"n": 1}


def test_a_key_names_all_of_a_request_in_any_order() -> None:
    assert request_key(model="m", messages=[{"a": "é"}]) == request_key(messages=[{"a": "é"}], model="m")
    keys = {request_key(model=m, temperature=t, text=x) for m in "mn" for t in (0.0, 1.0) for x in ("a", "a ")}
    assert len(keys) == 8
