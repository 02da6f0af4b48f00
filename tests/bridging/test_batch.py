"""The Batch API: submitted once, resumed by later processes, at half the price."""

import json
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forks
import pytest
from batch_server import BatchServer
from server import HANGS_UP, ChatServer, Reply, part, refuses, revises, says

from bmc.bridging.run import bridge
from bmc.config import BridgeConfig, DatasetConfig, DatasetMixture, Price
from bmc.errors import UserErrors
from bmc.llm import batch, errors

pytestmark = pytest.mark.slow

KEY = "sk-test-22"
CHAT = "A river runs to the sea, and it never comes back to its spring."


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR_KEY", KEY)
    monkeypatch.setattr(errors, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(batch, "FIRST_POLL", 0.001)


def recipe(folder: Path, url: str, rows: int = 6, **settings: Any) -> BridgeConfig:
    path = folder / "pairs.jsonl"
    pair = {"prompt": "Rivers?", "chosen": CHAT}
    texts = [pair | {"id": f"r{i}", "rejected": f"{i} {CHAT[:-8]} \u2028 hill."} for i in range(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in texts))
    given = {"output_dir": str(folder / "out"), "api_key_env": "EDITOR_KEY", "model": "m", "template": "instruction"}
    mixture = DatasetMixture(datasets=[DatasetConfig(id=str(path))])
    more = {"base_url": url, "batch_api": True, "prices": {"m": Price(input=1000.0, output=1000.0)}, "max_retries": 3}
    return BridgeConfig(dataset_mixture=mixture, **{**given, **more, **settings})


def edits(request: dict[str, Any], number: int = 0) -> Reply:
    return revises(request, part(request, "draft").replace("hill", "lake"))


def ids(folder: Path, name: str = "train") -> list[str]:
    with (folder / "out" / f"{name}.jsonl").open() as lines:  # not splitlines(): it cuts at U+2028, too
        return [json.loads(line)["id"] for line in lines]


def asked(server: BatchServer) -> Counter[str]:
    """How often each request was submitted."""
    return Counter(line["custom_id"] for line in server.requests)


def test_a_batch_gives_what_chat_completions_give_at_half_the_price(tmp_path: Path) -> None:
    with BatchServer(edits, looks=3) as server:
        stats = bridge(recipe(tmp_path, server.url))
    assert ids(tmp_path) == [f"r{i}" for i in range(6)]
    first = json.loads((tmp_path / "out" / "train.jsonl").read_text().split("\n")[0])
    assert first["chosen"] == f"0 {CHAT[:-8]} \u2028 lake."
    assert stats["usage"]["dollars"] == pytest.approx(6 * 0.012 / 2)
    (line, *_) = server.requests
    assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
    assert set(line["body"]) == {"model", "messages", "temperature", "max_tokens"}
    kinds = Counter((method, path.split("/")[1]) for method, path in server.calls)
    assert kinds == {("POST", "files"): 1, ("POST", "batches"): 1, ("GET", "batches"): 4, ("GET", "files"): 1}
    assert set(server.keys) == {f"Bearer {KEY}"}
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"pairs.jsonl", "out", "responses.sqlite", "responses.sqlite.lock"}
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_second_tries_and_failures_go_into_later_batches(tmp_path: Path) -> None:
    """r0 is silent first, r1 fails at first, r2 always, r3 is refused, r4 is too long for the model."""
    seen = Counter[str]()

    def script(request: dict[str, Any], number: int) -> Reply:
        draft = part(request, "draft")
        seen[draft[0]] += 1
        if draft[0] == "0" and len(request["messages"]) == 2:
            return says("")
        if draft[0] == "2" or (draft[0] == "1" and seen["1"] == 1):
            return refuses(500)
        if draft[0] == "3":
            return refuses(400, "", "content_filter")
        return edits(request)

    with BatchServer(script) as server:
        stats = bridge(recipe(tmp_path, server.url))
    assert ids(tmp_path) == ["r0", "r1", "r4", "r5"]
    assert stats["reasons"] == {
        "endpoint failed: HTTP 500": 1,
        "endpoint refuses the request (400: no reason given)": 1,
    }
    assert seen == {"0": 2, "1": 2, "2": 3, "3": 1, "4": 1, "5": 1}
    assert len(server.batches) == 3


def test_files_are_cut_where_they_are_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MOST_REQUESTS", 4)
    with BatchServer(edits) as server:
        bridge(recipe(tmp_path, server.url, rows=10))
    assert [one["request_counts"]["total"] for one in server.batches.values()] == [4, 4, 2]
    assert max(asked(server).values()) == 1
    assert len(ids(tmp_path)) == 10


KILLED = """
import sys
sys.path[:0] = {tests!r}
from pathlib import Path
import test_batch
from bmc.llm import batch
from bmc.bridging.run import bridge
batch.FIRST_POLL = 0.01
bridge(test_batch.recipe(Path({folder!r}), {url!r}))
"""


@pytest.mark.parametrize("moment", ["batches", "files", "batch-0", "content"])
def test_a_later_process_continues_what_was_submitted(tmp_path: Path, moment: str) -> None:
    """Killed when the file is uploaded, the batch is begun, is looked at, or its results are fetched."""
    running: list[forks.Fork] = []

    def kills(method: str, path: str, before: int) -> Reply | None:
        if running and path.endswith(moment) and (moment != "files" or method == "POST"):
            running.pop().send_signal(signal.SIGKILL)
            return {**HANGS_UP, "after": True}  # the server has done it, and no reply came
        return None

    with BatchServer(edits, breaks=kills) as server:
        code = KILLED.format(
            tests=[str(folder) for folder in Path(__file__).parents[:2]], folder=str(tmp_path), url=server.url
        )
        process = forks.Fork(["-c", code])
        running.append(process)
        assert process.wait(60) == -9
        assert not (tmp_path / "out" / "train.jsonl").exists()
        stats = bridge(recipe(tmp_path, server.url))
    assert stats["kept"] == 6
    assert len(server.batches) == 1
    assert set(asked(server).values()) == {1}


def test_a_lost_reply_begins_no_second_batch(tmp_path: Path) -> None:
    lost = {"status": 500, "body": {}, "after": True}
    with BatchServer(
        edits, breaks=lambda m, path, n: dict(lost) if (m, path, n) == ("POST", "/batches", 0) else None
    ) as s:
        bridge(recipe(tmp_path, s.url))
    assert len(s.batches) == 1
    assert len(ids(tmp_path)) == 6


def test_what_an_expired_batch_left_is_submitted_again(tmp_path: Path) -> None:
    with BatchServer(edits, ends=["expired"]) as server:
        bridge(recipe(tmp_path, server.url))
    assert sorted(asked(server).values()) == [1, 1, 1, 2, 2, 2]
    assert len(ids(tmp_path)) == 6


def test_a_batch_that_fails_stops_the_run(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for end in ("failed", "cancelled"):
        folder = tmp_path / end
        folder.mkdir()
        with subtests.test(end), BatchServer(edits, ends=[end]) as server:
            with pytest.raises(UserErrors, match=f"batch batch-0 was {end}"):
                bridge(recipe(folder, server.url))
            bridge(recipe(folder, server.url))
            assert len(ids(folder)) == 6


def test_passing_trouble_of_the_endpoints_is_waited_out(tmp_path: Path) -> None:
    def breaks(method: str, path: str, before: int) -> Reply | None:
        return refuses(503) if before == 0 and not path.endswith("content") else None

    with BatchServer(edits, breaks=breaks) as server:
        bridge(recipe(tmp_path, server.url))
    assert len(server.batches) == 1


def test_a_key_that_is_refused_stops_the_run(tmp_path: Path) -> None:
    refused = pytest.raises(UserErrors, match="refuses the key in EDITOR_KEY; set a valid one")
    with BatchServer(edits, breaks=lambda *_: refuses(401, KEY)) as server, refused:
        bridge(recipe(tmp_path, server.url))


def test_the_budget_bounds_what_is_submitted(tmp_path: Path) -> None:
    """An answer costs 0.6 cents, and might cost 58 with a request of some 270 tokens, doubled, and 600 written."""
    with BatchServer(edits) as server:
        with pytest.raises(UserErrors, match="max_cost_usd: is reached"):
            bridge(recipe(tmp_path, server.url, max_cost_usd=0.58, max_tokens=600))
        assert len(server.requests) == 1
        bridge(recipe(tmp_path, server.url, max_cost_usd=1.3, max_tokens=600))
        assert [one["request_counts"]["total"] for one in server.batches.values()] == [1, 2, 2, 1]
    assert max(asked(server).values()) == 1
    assert len(ids(tmp_path)) == 6


def results(server: BatchServer, change: Any) -> None:
    """Has the first file of results changed before it is fetched, and no later one."""
    right, files = server._look, set[str]()

    def look(batch: dict[str, Any]) -> dict[str, Any]:
        told = right(batch)
        name = told.get("output_file_id")
        if name and not files:
            files.add(name)
            server.files[name] = change(server.files[name])
        return told

    server._look = look  # type: ignore[method-assign]


def line(custom_id: Any, content: str = "x") -> str:
    return json.dumps({"custom_id": custom_id, "response": {"status_code": 200, "body": says(content)["body"]}}) + "\n"


def six(custom_id: Any, **result: Any) -> str:
    return json.dumps({"custom_id": custom_id, "response": None, **result}) + "\n"


# What becomes of a file of six results, of which the last is lost: of its first five lines and the last id.
DAMAGE: dict[str, Callable[[str, str], str | bytes]] = {
    "cut off": lambda five, last: five + line(last)[:40],
    "no UTF-8": lambda five, last: five.encode() + b'{"custom_id": "\xff\xfe"}\n',
    "deep": lambda five, last: five + "[" * 50_000 + "\n",
    "digits": lambda five, last: five + "9" * 5000 + "\n",
    "no objects": lambda five, last: '"hello"\n[1]\n7\nnull\n' + five,
    "no ids": lambda five, last: five + line(None) + line(7) + line(["x"]) + line({}),
    "foreign ids": lambda five, last: five + line("0" * 64) + line("x") + line(""),
    "an id twice": lambda five, last: five + line(json.loads(five.split("\n")[0])["custom_id"]),
    "an error in words": lambda five, last: five + six(last, error="oops"),
    "a response in words": lambda five, last: five + six(last, response="oops"),
    "a status in words": lambda five, last: five + six(last, response={"status_code": "x"}),
}
FAILED = ("an error in words", "a response in words", "a status in words")  # by the file, so that nothing is billed


def test_good_lines_are_cached_and_the_rest_is_sent_once_more(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name, damage in DAMAGE.items():
        folder = tmp_path / name
        folder.mkdir()

        def damaged(text: str, damage: Any = damage) -> str | bytes:
            *five, last = [part + "\n" for part in text.split("\n") if part]
            return damage("".join(five), json.loads(last)["custom_id"])  # type: ignore[no-any-return]

        with subtests.test(name), BatchServer(edits) as server:
            results(server, damaged)
            stats = bridge(recipe(folder, server.url))
            assert sorted(asked(server).values()) == [1] * 5 + [2]
            assert (stats["kept"], stats["usage"]["completions"]) == (6, 6)
            seen, lost = (stats["usage"].get(key, 0.0) for key in ("dollars", "possibly_billed_dollars"))
            assert seen == pytest.approx(6 * 0.012 / 2)  # nothing for lines that were never requested
            # of the seven responses, that whose line is lost is possibly billed, unless the file says that it failed
            assert server.bill == 7 * 12
            assert (lost > 0.012 / 2) == (name not in FAILED)
            assert ids(folder) == [f"r{i}" for i in range(6)]


def test_a_batch_or_file_that_is_lost_is_sent_once_more(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for lost in ("batch-0", "content"):
        folder = tmp_path / lost
        folder.mkdir()

        def breaks(method: str, path: str, before: int, lost: str = lost) -> Reply | None:
            first = len(server.batches) == 1
            return refuses(404, "no such thing") if method == "GET" and path.endswith(lost) and first else None

        with subtests.test(lost), BatchServer(edits, breaks=breaks) as server:
            assert bridge(recipe(folder, server.url))["kept"] == 6
            assert set(asked(server).values()) == {2}
            assert len(server.batches) == 2


def test_what_never_comes_is_dropped_with_its_reason_and_not_asked_for_ever(tmp_path: Path) -> None:
    def breaks(method: str, path: str, before: int) -> Reply | None:
        return refuses(404, "gone") if path.endswith("content") and len(server.batches) < 3 else None

    with BatchServer(edits, breaks=breaks) as server:
        with pytest.raises(UserErrors, match="all 6 pairs were dropped: 6 × the Batch API never gave an outcome"):
            bridge(recipe(tmp_path, server.url))
        with pytest.raises(UserErrors, match="never gave an outcome"):
            bridge(recipe(tmp_path, server.url))
        assert set(asked(server).values()) == {2}
    assert stats_of(tmp_path)["usage"]["possibly_billed_dollars"] > 0


def stats_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "out" / "stats.json").read_text()))


def test_a_failed_batchs_words_hold_no_key_and_no_terminal_codes(tmp_path: Path) -> None:
    with BatchServer(edits, ends=["failed"]) as server:
        right = server._look

        def look(batch: dict[str, Any]) -> dict[str, Any]:
            told = right(batch)
            if "errors" in told:
                told["errors"]["data"] = [{"message": f"\x1b[31mkey {KEY}-4711-secret is bad\x1b]0;x\x07"}]
            return told

        server._look = look  # type: ignore[method-assign]
        config = recipe(tmp_path, server.url)
        with pytest.raises(UserErrors) as raised:
            bridge(config)
    assert "batch batch-0 was failed (key …-4711-secret is bad); every response" in str(raised.value)


def test_batches_and_their_bill_agree_to_the_cent(tmp_path: Path) -> None:
    """Second tries, failures, responses without an answer, and without usage that can be, over two runs."""
    odd: dict[str, Any] = {
        "0": lambda request: {"body": says("x")["body"] | {"choices": []}},  # three times
        "1": lambda request: refuses(500),
        "2": lambda request: says("") if len(request["messages"]) == 2 else edits(request),
        "3": lambda request: refuses(400, "no"),
        "4": lambda request: {"body": says("x")["body"] | {"choices": [{"message": {"content": [7]}}]}},
    }

    def script(request: dict[str, Any], number: int) -> Reply:
        return odd.get(part(request, "draft")[0], edits)(request)

    with BatchServer(script) as server:
        for _ in range(2):
            stats = bridge(recipe(tmp_path, server.url, rows=9))
    assert stats["usage"] == {
        "completions": 6, "prompt_tokens": 7 * 12, "completion_tokens": 5 * 12, "dollars": server.bill / 2000
    }  # fmt: skip
    assert server.bill == 12 * 12  # 6 answers and 6 responses without one


@pytest.mark.parametrize("cancels", [True, False])
def test_a_batch_that_never_ends_is_cancelled_and_its_answers_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cancels: bool
) -> None:
    """After 0.2 s; half of its requests are answered then, or none if it doesn't even end when it is cancelled."""
    monkeypatch.setattr(batch, "CANCELLING", 0.1)
    with BatchServer(edits, ends=["never"]) as server:
        server.cancels = cancels
        right = server._begin

        def begin(asked: dict[str, Any]) -> Reply:
            if server.batches:
                server.ends = []  # the second batch is all right
            return right(asked)

        server._begin = begin  # type: ignore[method-assign]
        stats = bridge(recipe(tmp_path, server.url, batch_timeout=0.2 / 3600))
        assert sorted(asked(server).values()) == ([1] * 3 + [2] * 3 if cancels else [2] * 6)
    assert server.calls.count(("POST", "/batches/batch-0/cancel")) == 1
    assert stats["kept"] == 6
    # what the expired half lists as failed isn't billed; of what it says nothing about, all may be
    assert ("possibly_billed_dollars" in stats["usage"]) == (not cancels)


def test_a_run_without_batches_counts_those_under_way(tmp_path: Path) -> None:
    """The process ends while a batch is under way, and the next run asks otherwise; then the batch is collected."""
    with BatchServer(edits, breaks=lambda method, path, n: refuses(401) if path == "/batches/batch-0" else None) as s:
        config = recipe(tmp_path, s.url)
        with pytest.raises(UserErrors, match="refuses the key"):
            bridge(config)
        with ChatServer(edits) as chat:
            stats = bridge(recipe(tmp_path, chat.url, batch_api=False))
            assert stats["usage"]["dollars"] == pytest.approx(6 * 0.012)
            assert stats["usage"]["possibly_billed_dollars"] > 6 * 0.012 / 2
