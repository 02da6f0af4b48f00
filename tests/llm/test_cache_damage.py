"""Caches that are damaged, empty, read-only or nobody else's; what is slow beside the event loop; Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from billing_server import BillingServer, edits, recipe, says, write
from rapidfuzz.distance import Levenshtein
from server import Reply, part, revises

from bmc.bridging import pipeline
from bmc.bridging.pipeline import bridge
from bmc.bridging.validate import edit_ratio
from bmc.errors import UserErrors
from bmc.llm.cache import CachedResponses
from bmc.llm.client import off_loop

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR_KEY", "sk-test-4711")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


DAMAGE = {
    "no JSON": b'{"content": "half of it',
    "no text": b"\xff\xfe\x00{",
    "deep": b"[" * 50_000,
    "digits": b'{"content": "x", "finish_reason": null, "completion_tokens": 1, "prompt_tokens": ' + b"9" * 5000 + b"}",
    "a list": b"[1, 2]",
    "null": b"null",
    "a field less": b'{"content": "x", "finish_reason": "stop", "prompt_tokens": 3}',
    "another type": b'{"content": ["x"], "finish_reason": "stop", "prompt_tokens": 3, "completion_tokens": 3}',
    "a negative count": b'{"content": "x", "finish_reason": "stop", "prompt_tokens": -3, "completion_tokens": 3}',
}


def test_damaged_rows_are_named_and_asked_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with BillingServer(lambda request, number: edits(request)) as server:
        config = recipe(tmp_path, server.url)
        bridge(config)
        connection = sqlite3.connect(tmp_path / "replies.sqlite")
        keys = [key for (key,) in connection.execute("SELECT key FROM replies LIMIT ?", (len(DAMAGE),))]
        for key, value in zip(keys, DAMAGE.values(), strict=True):
            connection.execute("UPDATE replies SET reply = CAST(? AS TEXT) WHERE key = ?", (value, key))
        connection.commit()
        connection.close()
        assert bridge(config)["kept"] == 12
        assert len(server.requests) == 12 + len(DAMAGE)
        assert all(f"the row with key {key[:16]}… is damaged" in caplog.text for key in keys)
        bridge(config)
        assert len(server.requests) == 12 + len(DAMAGE)


def test_an_empty_file_is_an_empty_cache(tmp_path: Path) -> None:
    (tmp_path / "replies.sqlite").touch()
    assert len(CachedResponses(tmp_path / "replies.sqlite")) == 0
    with BillingServer(lambda request, number: edits(request)) as server:
        assert bridge(recipe(tmp_path, server.url))["kept"] == 12


def test_a_cache_is_for_its_owner_alone(tmp_path: Path) -> None:
    with BillingServer(lambda request, number: edits(request)) as server:
        bridge(recipe(tmp_path, server.url))
    assert stat.S_IMODE((tmp_path / "replies.sqlite").stat().st_mode) == 0o600


def test_a_full_cache_needs_no_key_no_lock_and_no_right_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BillingServer(lambda request, number: edits(request)) as server:
        bridge(recipe(tmp_path, server.url))
    monkeypatch.delenv("EDITOR_KEY")
    path = tmp_path / "replies.sqlite"
    path.with_name("replies.sqlite.lock").unlink()
    monkeypatch.setattr("bmc.llm.client.ResponseCache", lambda path: pytest.fail("it is opened to be written"))
    assert bridge(recipe(tmp_path, server.url, out="again"))["kept"] == 12
    assert not path.with_name("replies.sqlite.lock").exists()


def test_the_event_loop_is_free_for_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 rows of 60 kB: the loop's own thread never works for long at a time, whatever else the machine does."""
    rng = random.Random(3)
    words = ["".join(rng.choices("abcdefgh", k=rng.randint(2, 9))) for _ in range(3000)]

    def row(number: int) -> str:
        text = f"{number} {' '.join(rng.choices(words, k=9_500))} up to the"
        texts = {"prompt": "Rivers?", "chosen": f"{text} lake", "rejected": f"{text} hills"}
        return json.dumps({"id": f"r{number}", **texts}) + "\n"

    blocked: list[float] = []
    writes = pipeline._write

    async def beats() -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.002)
            blocked.append(time.thread_time() - before)

    async def watched(*arguments: Any) -> None:
        heart = asyncio.create_task(beats())
        await writes(*arguments)
        heart.cancel()

    monkeypatch.setattr(pipeline, "_write", watched)
    with BillingServer(lambda request, number: edits(request)) as server:
        config = recipe(tmp_path, server.url, max_concurrency=40, timeout=60.0, max_tokens=50_000)
        (tmp_path / "pairs.jsonl").write_text("".join(map(row, range(20))))
        assert bridge(config)["kept"] == 20
    assert max(blocked) < 0.2


def test_a_long_comparison_holds_up_no_other_request(tmp_path: Path) -> None:
    """Twelve replies of 30,000 characters come at once and are compared for seconds; none is taken for lost."""
    rng = random.Random(3)
    texts = ["".join(rng.choices("abcdefgh ", k=30_000)) for _ in range(24)]
    rows = ({"id": f"r{i}", "prompt": "p", "chosen": texts[i], "rejected": texts[12 + i]} for i in range(12))

    def reverses(request: dict[str, Any], number: int) -> Reply:
        return says(str(revises(request, part(request, "draft")[::-1])["body"]["choices"][0]["message"]["content"]))

    with BillingServer(reverses, delay=0.3) as server:
        config = recipe(tmp_path, server.url, timeout=2.5)
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(UserErrors, match="all 12 pairs were dropped: 12 × a rewrite"):
            bridge(config)
        assert set(server.asked.values()) == {1}
        assert len(server.requests) == 24  # each is asked once more, for the rewrite


def test_the_event_loop_runs_while_texts_are_compared() -> None:
    a, b = ("".join(random.Random(seed).choices("abcdefgh ", k=80_000)) for seed in (1, 2))

    async def gaps() -> float:
        work = asyncio.create_task(off_loop(len(a), edit_ratio, a, b))
        longest, last = 0.0, time.monotonic()
        while not work.done():
            await asyncio.sleep(0.005)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        assert work.result() == Levenshtein.normalized_distance(a, b)
        return longest

    begun = time.monotonic()
    assert asyncio.run(gaps()) < max(0.1, (time.monotonic() - begun) / 4)


def test_ctrl_c_says_at_once_that_answers_are_kept(tmp_path: Path) -> None:
    environment = dict(os.environ, EDITOR_KEY="sk-test-4711", PYTHONPATH=str(ROOT / "src"))
    with BillingServer(lambda request, number: edits(request), delay=2.0) as server:
        config = {"dataset_mixture": {"datasets": [{"id": str(write(tmp_path, 12))}]}, "base_url": server.url}
        more = {
            "output_dir": str(tmp_path / "out"),
            "api_key_env": "EDITOR_KEY",
            "template": "instruction",
            "model": "m",
        }
        (tmp_path / "bridge.yaml").write_text(json.dumps(config | more | {"max_concurrency": 4}))
        command = [sys.executable, "scripts/bridge.py", str(tmp_path / "bridge.yaml")]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        while not server.requests:
            time.sleep(0.05)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.stderr
        told = b""
        while b"every response so far is cached" not in told:
            told += os.read(process.stderr.fileno(), 4096)
        assert time.monotonic() - begun < 1.5  # and not only when the answers are there
        told += process.stderr.read()
        assert process.wait(30) == 130
    assert "stopping: waiting for 4 requests that are in flight" in told.decode()
    assert "Traceback" not in told.decode()
    assert told.decode().rstrip().endswith("stopped by Ctrl-C; the same command goes on with what is kept")
    assert len(CachedResponses(tmp_path / "replies.sqlite")) == 4
