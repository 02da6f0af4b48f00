"""The response cache: kept through kills, damage and full disks, one process at a time; work beside the event loop."""

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
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from billing_server import BillingServer, edits, recipe, says, write
from rapidfuzz.distance import Levenshtein
from server import Reply, part, revises

from bmc.bridging import run as pipeline
from bmc.bridging.run import bridge
from bmc.bridging.validators import edit_ratio
from bmc.errors import UserErrors
from bmc.llm.cache import CachedResponses, ResponseCache, request_key
from bmc.llm.client import off_loop

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR_KEY", "sk-test-4711")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def test_put_and_get_also_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "responses.sqlite"
    assert CachedResponses(path).get("k") is None
    assert not path.parent.exists()  # it isn't made by being read
    cache = ResponseCache(path)
    assert cache.get("k") is None
    asyncio.run(cache.put("k", {"content": "é\ud83d", "usage": None}))
    asyncio.run(cache.put("k", {"content": "later"}))
    asyncio.run(cache.put_all({f"k{number}": {"n": number} for number in range(300)}))
    assert cache.get("k") == {"content": "later"}
    assert [cache.get(f"k{number}") for number in range(300)] == [{"n": number} for number in range(300)]
    with pytest.raises(UserErrors, match="in use by this very process"):
        ResponseCache(path)
    with closing(CachedResponses(path)) as cached:
        assert cached.get("k") == {"content": "later"}  # anyone may read it
    cache.close()
    cached = CachedResponses(path)
    assert cached.get("k") == {"content": "later"}
    cached.close()
    assert {file.name for file in path.parent.iterdir()} == {"responses.sqlite", "responses.sqlite.lock"}
    ResponseCache(path).close()


def test_batches_are_recorded_and_forgotten(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "r")
    cache.keep_batch("f1", {"batch": None})
    cache.keep_batch("f2", {"batch": "b2"})
    cache.keep_batch("f1", {"batch": "b1"})
    assert cache.batches() == {"f2": {"batch": "b2"}, "f1": {"batch": "b1"}}
    cache.keep_batch("f2", None)
    cache.close()
    assert ResponseCache(tmp_path / "r").batches() == {"f1": {"batch": "b1"}}


def test_an_older_cache_gets_what_it_lacks(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "r")
    connection.execute("CREATE TABLE replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
    connection.execute("INSERT INTO replies VALUES ('k', '{\"n\": 1}')")
    connection.commit()
    connection.close()
    cache = ResponseCache(tmp_path / "r")
    assert (cache.get("k"), cache.batches()) == ({"n": 1}, {})


def test_a_key_is_of_all_of_a_request_in_any_order() -> None:
    assert request_key(model="m", messages=[{"a": "é"}]) == request_key(messages=[{"a": "é"}], model="m")
    keys = {
        request_key(model=m, temperature=t, text=x) for m in "mn" for t in (0.0, 1.0) for x in ("a", "a ", "\ud83d")
    }
    assert len(keys) == 12


def test_another_file_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("no database " * 100)
    for kind in (ResponseCache, CachedResponses):
        with pytest.raises(UserErrors, match=f"{tmp_path / 'r'}: is no response cache"):
            kind(tmp_path / "r")
    with pytest.raises(UserErrors, match="can't be used"):
        ResponseCache(Path("/proc/none/r"))
    assert (tmp_path / "r").read_text() == "no database " * 100


def run(code: str, path: Path) -> subprocess.Popen[str]:
    head = "import asyncio, os, sys, time\nfrom pathlib import Path\nfrom bmc.llm.cache import ResponseCache\n"
    head += f"path = Path({str(path)!r})\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_response_outlives_a_kill_and_the_lock_does_not(tmp_path: Path) -> None:
    code = 'cache = ResponseCache(path)\nasyncio.run(cache.put("k", {"n": 1}))\nos.kill(os.getpid(), 9)'
    assert run(code, tmp_path / "r").wait() == -9
    cache = ResponseCache(tmp_path / "r")  # at once, though the dead one's name stands in the lock
    assert cache.get("k") == {"n": 1}


HOLDS = """
cache = ResponseCache(path)
print(os.getpid(), flush=True)
time.sleep(0.7)
asyncio.run(cache.put("first", {"n": 1}))
cache.close()
"""


@pytest.mark.slow
def test_a_second_process_waits_and_says_for_whom(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = run(HOLDS, tmp_path / "r")
    assert other.stdout
    pid = other.stdout.readline().strip()
    begun = time.monotonic()
    cache = ResponseCache(tmp_path / "r")
    assert time.monotonic() - begun > 0.2
    assert cache.get("first") == {"n": 1}
    assert f"waiting for process {pid} on " in caplog.text
    assert other.wait() == 0


FULL = """
import resource, signal
cache = ResponseCache(path)
asyncio.run(cache.put("before", {"n": 1}))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    for number in range(100):
        asyncio.run(cache.put(f"k{number}", {"content": "x" * 50_000}))
        print(number, flush=True)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_full_disk_is_a_fault_and_loses_nothing(tmp_path: Path) -> None:
    """Files that may not grow beyond 200 kB stand for a disk that is full."""
    out, err = run(FULL, tmp_path / "r").communicate()
    *cached, last = out.splitlines()
    assert last.startswith(f"UserErrors {tmp_path / 'r'}: can't be used ("), err
    assert last.endswith("make room there or give another file as `response_cache`, then run the same command again: "
                         "the responses in it stay")  # fmt: skip
    cache = ResponseCache(tmp_path / "r")
    assert cache.get("before") == {"n": 1}
    assert len(cached) > 0
    assert all(cache.get(f"k{number}") for number in cached)
    assert cache.get(f"k{len(cached)}") is None
    assert cache.writing.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    asyncio.run(cache.put("after", {"n": 2}))


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


@pytest.mark.slow
def test_damaged_rows_are_named_and_sent_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "responses.sqlite"
    path.touch()  # an empty file is an empty cache
    assert len(CachedResponses(path)) == 0
    with BillingServer(lambda request, number: edits(request)) as server:
        config = recipe(tmp_path, server.url)
        bridge(config)
        connection = sqlite3.connect(path)
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

    # a full cache needs no key, no lock and no right to write
    monkeypatch.delenv("EDITOR_KEY")
    path.with_name("responses.sqlite.lock").unlink()
    monkeypatch.setattr("bmc.llm.client.ResponseCache", lambda path: pytest.fail("it is opened to be written"))
    assert bridge(recipe(tmp_path, server.url, out="again"))["kept"] == 12
    assert not path.with_name("responses.sqlite.lock").exists()


def test_a_cache_is_for_its_owner_alone(tmp_path: Path) -> None:
    ResponseCache(tmp_path / "r").close()
    assert stat.S_IMODE((tmp_path / "r").stat().st_mode) == 0o600


@pytest.mark.slow
def test_the_event_loop_is_free_for_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 rows of 60 kB: the loop's own thread never works for long at a time, whatever else the machine does."""
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
        (tmp_path / "pairs.jsonl").write_text("".join(map(row, range(8))))
        assert bridge(config)["kept"] == 8
    assert max(blocked) < 0.2


@pytest.mark.slow
def test_a_long_comparison_delays_no_other_request(tmp_path: Path) -> None:
    """Six responses of 30,000 characters come at once and are compared for seconds; none is taken for lost."""
    rng = random.Random(3)
    texts = ["".join(rng.choices("abcdefgh ", k=30_000)) for _ in range(12)]
    rows = ({"id": f"r{i}", "prompt": "p", "chosen": texts[i], "rejected": texts[6 + i]} for i in range(6))

    def reverses(request: dict[str, Any], number: int) -> Reply:
        return says(str(revises(request, part(request, "draft")[::-1])["body"]["choices"][0]["message"]["content"]))

    with BillingServer(reverses, delay=0.3) as server:
        config = recipe(tmp_path, server.url, timeout=2.5)
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(UserErrors, match="all 6 pairs were dropped: 6 × a rewrite"):
            bridge(config)
        assert set(server.asked.values()) == {1}
        assert len(server.requests) == 12  # each has a second try, for the rewrite


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


@pytest.mark.slow
def test_ctrl_c_says_at_once_that_responses_are_cached(tmp_path: Path) -> None:
    environment = dict(os.environ, EDITOR_KEY="sk-test-4711", PYTHONPATH=str(ROOT / "src"))
    with BillingServer(lambda request, number: edits(request), delay=2.0) as server:
        config = {
            "dataset_mixture": {"datasets": [{"id": str(write(tmp_path, 12))}]}, "base_url": server.url, "model": "m",
            "output_dir": str(tmp_path / "out"), "api_key_env": "EDITOR_KEY", "template": "instruction",
            "max_concurrency": 4,
        }  # fmt: skip
        (tmp_path / "bridge.yaml").write_text(json.dumps(config))
        command = [sys.executable, "scripts/bridge.py", str(tmp_path / "bridge.yaml")]
        pipes: dict[str, Any] = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
        while not server.requests:
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            time.sleep(0.05)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.stderr
        printed = b""
        while b"every response so far is cached" not in printed:
            part = os.read(process.stderr.fileno(), 4096)
            assert part, printed.decode()
            printed += part
        assert time.monotonic() - begun < 1.5  # and not only when the responses are there
        printed += process.stderr.read()
        assert process.wait(30) == 130
    assert "stopping: waiting for 4 requests that are in flight" in printed.decode()
    assert "Traceback" not in printed.decode()
    assert "stopped by Ctrl-C; the same command" in printed.decode().splitlines()[-1]
    assert len(CachedResponses(tmp_path / "responses.sqlite")) == 4
