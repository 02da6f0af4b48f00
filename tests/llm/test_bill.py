"""What an endpoint bills and what the runs report agree, over reruns, kills, and with two runs at once."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import forks
import pytest
from billing_server import BillingServer, edit_of, edits, in_parts, raw, recipe, says, tells, without_choices, write
from server import HANGS_UP, Reply, gzipped, half_sent, part, refuses

from bmc.bridging.run import bridge
from bmc.errors import UserErrors
from bmc.llm import errors
from bmc.llm.cache import CachedResponses

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CENT = Decimal("0.005")
MOST = Decimal("0.015")  # more than a request of `recipe` can cost: 200 tokens to write, fewer than 900 to read


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR_KEY", "sk-test-4711")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(errors, "FIRST_WAIT", 0.001)


def row_of(request: dict[str, Any]) -> int:
    return int(part(request, "draft").split(":")[0].removeprefix("Row "))


def spent(printed: str) -> Decimal:
    """Dollars that all runs say they have spent."""
    return sum((Decimal(money) for money in re.findall(r"spent in this run: \$([\d.]+);", printed)), Decimal(0))


Kind = Callable[[dict[str, Any]], Reply]
TEXT = {"type": "text"}
NEVER_OF_USE: dict[str, Kind] = {
    "no choices": lambda request: without_choices(),
    "choices: null": lambda request: says("x") | {"choices": None},
    "no message": lambda request: says("x" * 400) | {"choices": [{"index": 0}]},
    "an image": lambda request: in_parts({"type": "image_url", "image_url": {"url": "x"}}),
    "an error at the end": lambda request: says("x" * 90, finish_reason="error"),
    "deep JSON": lambda request: raw(says("x"), "[" * 100_000),
    "gzip cut off": lambda request: gzipped(edits(request), lambda stream: stream[:40]),
    "cut JSON": lambda request: raw(says("x" * 40), '{"choices": [{"message": {"content": "xxxxxxxxxxxxxxxxx'),
    "5,000 digits": lambda request: raw(says("x"), '{"usage": {"prompt_tokens": ' + "9" * 5000 + "}}"),
}
UNKNOWN = ("deep JSON", "cut JSON", "5,000 digits", "gzip cut off")
OF_USE: dict[str, Kind] = {
    "gzip": lambda request: gzipped(edits(request)),
    "parts": lambda request: in_parts(*(TEXT | {"text": text} for text in re.split("(?<= )", edit_of(request)))),
    "thoughts and a text": lambda request: in_parts(
        {"type": "thinking", "text": ""}, TEXT | {"text": edit_of(request)}
    ),
    "no usage": lambda request: tells(None, edits(request)),
    "usage of null": lambda request: tells({"prompt_tokens": None, "completion_tokens": None}, edits(request)),
    "negative usage": lambda request: tells({"prompt_tokens": -9000, "completion_tokens": -9}, edits(request)),
    "absurd usage": lambda request: tells({"prompt_tokens": 10**9, "completion_tokens": 10**300}, edits(request)),
    "usage in words": lambda request: tells("none of your business", edits(request)),
}
LOST: dict[str, Kind] = {
    "half a reply": lambda request: half_sent(edits(request)),
    "too late": lambda request: edits(request) | {"delay": 0.8},
    "hung up on": lambda request: edits(request) | HANGS_UP,
    "a gateway's time-out": lambda request: edits(request) | {"lost": True, "status": 504},
    "an error instead": lambda request: raw(edits(request), '{"error": "overloaded"}') | {"lost": True},
    "gzip damaged": lambda request: (
        gzipped(edits(request), lambda stream: stream[:20] + b"\0\xff" * 9 + stream[38:]) | {"lost": True}
    ),
    "no gzip": lambda request: gzipped(edits(request), lambda stream: b"plain") | {"lost": True},
}


def folders(parent: Path, table: dict[str, Any]) -> Iterator[tuple[str, Any, Path]]:
    """Each row of a table, with a folder of its own."""
    for number, (name, row) in enumerate(table.items()):
        folder = parent / str(number)
        folder.mkdir()
        yield name, row, folder


def test_unusable_responses_are_paid_three_times_at_most_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    for name, kind, folder in folders(tmp_path, NEVER_OF_USE):
        script = lambda request, number, kind=kind: (kind if row_of(request) == 3 else edits)(request)  # noqa: E731
        with subtests.test(name), BillingServer(script) as server:
            for _ in range(3):
                stats = bridge(recipe(folder, server.url, rows=5))
            assert stats["dropped"] == 1
            assert sorted(server.asked.values()) == [1] * 4 + [3]
            (row,) = (folder / "out" / "dropped.jsonl").read_text().splitlines()
            assert re.search(r"^endpoint failed: .*, 3 times paid for", json.loads(row)["reason"])
            # what isn't even JSON has no usage: it counts as three responses that are as long as they may be
            beyond = CENT if name not in UNKNOWN else 3 * MOST
            counted = Decimal(stats["usage"]["dollars"])
            assert -CENT < counted - server.bill < beyond
            assert abs(spent(capsys.readouterr().out) - counted) < CENT


def test_odd_responses_are_read_and_counted(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name, kind, folder in folders(tmp_path, OF_USE):
        script = lambda request, number, kind=kind: (kind if row_of(request) % 2 else edits)(request)  # noqa: E731
        with subtests.test(name), BillingServer(script) as server:
            stats = bridge(recipe(folder, server.url))
            assert set(server.asked.values()) == {1}
            assert (stats["kept"], stats["dropped"]) == (12, 0)
            assert abs(Decimal(stats["usage"]["dollars"]) - server.bill) < CENT
            assert abs(Decimal(stats["this_run"]["dollars"]) - server.bill) < CENT


def test_a_page_of_html_for_one_row_stops_no_run(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """Not as the first response of all, nor as the only one of a rerun."""
    page = {"body": "<html>Blocked</html>", "headers": {"Content-Type": "text/html"}}
    for name, place, folder in folders(tmp_path, {"first": 0, "later": 5}):
        script = lambda request, number, place=place: page if row_of(request) == place else edits(request)  # noqa: E731
        with subtests.test(name), BillingServer(script) as server:
            config = recipe(folder, server.url, max_concurrency=1)
            assert [bridge(config)["dropped"] for _ in range(2)] == [1, 1]
            (row,) = (folder / "out" / "dropped.jsonl").read_text().splitlines()
            assert "a page of HTML" in json.loads(row)["reason"]


def test_lost_responses_count_at_their_maximum_in_later_runs_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    for name, kind, folder in folders(tmp_path, LOST):
        script = lambda request, number, kind=kind: (kind if number in (1, 4) else edits)(request)  # noqa: E731
        with subtests.test(name), BillingServer(script) as server:
            config = recipe(folder, server.url, rows=6, timeout=0.4, max_concurrency=1)
            runs = [bridge(config) for _ in range(2)]
            assert runs[0]["kept"] == 6
            assert runs[0]["this_run"]["lost_responses"] == 2
            for stats in runs:
                assert abs(Decimal(stats["usage"]["dollars"]) - server.bill) < CENT
                assert 2 * Decimal("0.006") < Decimal(stats["usage"]["possibly_billed_dollars"]) < 2 * MOST
                assert stats["usage"]["possibly_billed_dollars"] > server.lost > 0
            printed = capsys.readouterr().out.partition("Plan: ask m about 6 pairs")[2]
            assert re.search(r"2 responses lost \(possibly billed in all runs: up to \$0\.0\d+\)", printed)
            assert re.search(r"; up to \$0\.0\d+ more possibly billed", printed)


def test_the_cap_holds_when_every_response_is_lost(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """Three runs; each request costs 0.4 cents unseen, and counts as about 1.2 of the 6 cents."""
    table = {name: LOST[name] for name in ("too late", "gzip damaged")}
    for name, kind, folder in folders(tmp_path, table):
        with subtests.test(name), BillingServer(lambda request, number, kind=kind: kind(request)) as server:
            for _ in range(3):
                with pytest.raises(UserErrors, match="max_cost_usd: is reached"):
                    bridge(recipe(folder, server.url, timeout=0.4, max_cost_usd=0.06, max_concurrency=4))
            assert 0 < server.lost <= Decimal("0.06")
            assert 4 <= len(server.requests) <= 9


KILLED = """
import sys
sys.path[:0] = {tests!r}
from pathlib import Path
from billing_server import recipe
from bmc.bridging.run import bridge
bridge(recipe(Path({folder!r}), {url!r}, rows=40, max_cost_usd=0.3, max_concurrency=8))
"""


def test_what_was_in_flight_at_a_kill_is_possibly_billed(tmp_path: Path) -> None:
    """Killed after 5, 6, 7 more responses, with others on their way; the server bills all that it has answered."""
    code = KILLED.format(
        tests=[str(folder) for folder in Path(__file__).parents[:2]], folder=str(tmp_path), url="{url}"
    )
    with BillingServer(lambda request, number: edits(request), delay=0.05) as server:
        for more in (5, 6, 7):
            wanted = server.answered + more
            process = forks.Fork(["-c", code.replace("{url}", server.url)])
            while server.answered < wanted:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.1)
        killed, billed = len(server.requests), server.bill
        with closing(CachedResponses(tmp_path / "responses.sqlite")) as cached:
            in_flight = sum(map(len, cached.charges.values()))
            assert len(cached) + in_flight >= killed  # each that was sent is there, as a response or in the ledger
            assert in_flight <= 3 * 8
        stats = bridge(recipe(tmp_path, server.url, rows=40))
    assert stats["kept"] == 40
    answered = Decimal(stats["usage"]["dollars"])
    assert answered <= server.bill + CENT
    assert server.bill <= answered + Decimal(stats["usage"]["possibly_billed_dollars"])
    assert billed <= Decimal("0.3")


def test_the_cap_holds_over_reruns_whatever_the_endpoint_sends(tmp_path: Path) -> None:
    """Every second row gets nothing for its money; the cap is 4 cents."""
    kinds = [kind for name, kind in (NEVER_OF_USE | OF_USE).items() if name not in UNKNOWN]

    def script(request: dict[str, Any], number: int) -> Reply:
        row = row_of(request)
        return (kinds[row // 2 % len(kinds)] if row % 2 else edits)(request)

    with BillingServer(script) as server:
        for _ in range(6):
            with pytest.raises(UserErrors, match="max_cost_usd: is reached"):
                bridge(recipe(tmp_path, server.url, rows=60, max_cost_usd=0.04))
        assert Decimal("0.025") < server.bill <= Decimal("0.04")
        stats = bridge(recipe(tmp_path, server.url, rows=60, max_cost_usd=10.0))
        assert max(server.asked.values()) <= 3
    assert abs(Decimal(stats["usage"]["dollars"]) - server.bill) < 2 * CENT  # 12 of 60 tell no usage


def test_the_cap_holds_when_replies_grow_at_64_at_once(tmp_path: Path) -> None:
    """A reply of 40 tokens costs 0.4 cents with its request; from the 64th on they have 1,000, for 3 cents."""

    def script(request: dict[str, Any], number: int) -> Reply:
        return edits(request) if number < 64 else says("x" * 4000)

    with BillingServer(script, delay=0.02) as server:
        config = recipe(tmp_path, server.url, rows=300, max_cost_usd=1.0, max_concurrency=64, max_tokens=1000)
        with pytest.raises(UserErrors, match="max_cost_usd: is reached"):
            bridge(config)
    assert Decimal("0.95") < server.bill <= 1


def test_two_processes_at_once_share_one_cap(tmp_path: Path) -> None:
    """Each has rows enough for 20 cents, and both use one store; the cap is 6 cents."""
    environment = dict(os.environ, EDITOR_KEY="sk-test-4711", PYTHONPATH=str(ROOT / "src"))
    with BillingServer(lambda request, number: edits(request), delay=0.01) as server:
        running = []
        for out in ("one", "other"):
            config = {
                "dataset_mixture": {"datasets": [{"id": str(write(tmp_path, 60))}]},
                "output_dir": str(tmp_path / out),
                "response_cache": str(tmp_path / "shared.sqlite"),
                "prices": {"m": {"input": 10, "output": 30}},
                "max_cost_usd": 0.06, "max_tokens": 200, "api_key_env": "EDITOR_KEY", "model": "m",
                "template": "instruction", "base_url": server.url,
            }  # fmt: skip
            (tmp_path / f"{out}.yaml").write_text(json.dumps(config))
            command = [sys.executable, "scripts/bridge.py", str(tmp_path / f"{out}.yaml")]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            running.append(subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes))  # type: ignore[call-overload]
        told = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [2, 2], told
    assert all("max_cost_usd: is reached" in err for _, err in told)
    assert Decimal("0.04") < server.bill <= Decimal("0.06")
    assert abs(spent("".join(out for out, _ in told)) - server.bill) < CENT


# How endpoints word that one row is too long, or not to their taste.
ROW_ERRORS = {
    "OpenAI": refuses(400, "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001"
                      " tokens.", "context_length_exceeded"),
    "TGI": {"status": 422, "body": {"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: "
                                    "1100", "error_type": "validation"}},
    "Gemini": {"status": 400, "body": [{"error": {"code": 400, "message": "The input token count exceeds the maximum "
                                                  "number of tokens allowed 1048576.", "status": "INVALID_ARGUMENT"}}]},
    "DeepSeek": refuses(400, "Content Exists Risk", "invalid_request_error"),
    "DashScope": refuses(400, "Input data may contain inappropriate content.", "data_inspection_failed"),
    "OpenRouter": {"status": 403, "body": {"error": {"code": 403, "message": "Input was flagged by moderation",
                                                     "metadata": {"reasons": ["violence"]}}}},
    "Zhipu": {"status": 400, "body": {"error": {"code": "1301", "message": "输入内容可能包含不安全内容。"}}},
    "a word": {"status": 400, "body": "Bad Request", "headers": {"Content-Type": "text/plain"}},
    "nothing": {"status": 422, "body": ""},
    "a page": {"status": 413, "body": "<html>Too Large</html>", "headers": {"Content-Type": "text/html"}},
    "of no shape": {"status": 400, "body": {"detail": [{"loc": ["body", "messages"], "msg": "value error"}]}},
}  # fmt: skip


def test_one_refused_row_is_dropped_with_the_endpoints_message(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """The first of all, or one in the midst; and the only one that a second run sends."""
    table = {f"{vendor}, row {place}": (reply, place) for vendor, reply in ROW_ERRORS.items() for place in (0, 2)}
    for name, row, folder in folders(tmp_path, table):
        script = lambda request, number, row=row: row[0] if row_of(request) == row[1] else edits(request)  # noqa: E731
        with subtests.test(name), BillingServer(script) as server:
            for _ in range(2):
                stats = bridge(recipe(folder, server.url, rows=4, max_concurrency=1))
            assert sorted(server.asked.values()) == [1] * 3 + [2]
            assert stats["dropped"] == 1
            (reason,) = stats["reasons"]
            assert reason.startswith(f"endpoint refuses the request ({row[0]['status']}: ")
            assert abs(Decimal(stats["usage"]["dollars"]) - server.bill) < CENT


def test_what_every_request_gets_is_the_recipes_fault(tmp_path: Path, subtests: pytest.Subtests) -> None:
    table = {
        "refuses the request (400: Unknown header: context_id); fix": refuses(400, "Unknown header: context_id"),
        "refuses the request (403: Your region is not supported); fix": refuses(403, "Your region is not supported"),
        "set max_tokens_parameter: max_completion_tokens": refuses(
            400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        ),
        "set temperature: null to leave it out": refuses(400, "Unsupported value: 'temperature' does not support 0.0"),
    }
    for words, reply, folder in folders(tmp_path, table):
        with subtests.test(words), BillingServer(lambda request, number, reply=reply: reply) as server:
            with pytest.raises(UserErrors, match=re.escape(words)):
                bridge(recipe(folder, server.url, max_concurrency=2))
            assert len(server.requests) <= 10
            assert not (folder / "out" / "train.jsonl").exists()


def test_the_recipe_names_the_limit_and_leaves_the_temperature_out(tmp_path: Path) -> None:
    with BillingServer(lambda request, number: edits(request)) as server:
        bridge(recipe(tmp_path, server.url, 1, temperature=None, max_tokens_parameter="max_completion_tokens"))
    (request,) = server.requests
    assert set(request) == {"model", "messages", "max_completion_tokens"}
    assert request["max_completion_tokens"] == 200


def test_a_server_that_turns_refuses_everything_after_a_while(tmp_path: Path) -> None:
    """Rows are dropped at first; then a request that was answered is sent again, and refused, too."""
    with BillingServer(
        lambda request, number: edits(request) if number < 5 else refuses(404, "no such model")
    ) as server:
        with pytest.raises(UserErrors, match="no such model"):
            bridge(recipe(tmp_path, server.url, rows=200, max_concurrency=4))
        assert 50 <= len(server.requests) - 5 <= 60


def test_many_refused_rows_after_one_another_are_dropped(tmp_path: Path) -> None:
    def script(request: dict[str, Any], number: int) -> Reply:
        return edits(request) if row_of(request) in (0, 119) else refuses(400, "no")

    with BillingServer(script) as server:
        stats = bridge(recipe(tmp_path, server.url, rows=120, max_concurrency=4))
        assert len(server.requests) == 120 + 118 // 50
    assert (stats["kept"], stats["dropped"]) == (2, 118)
    assert abs(Decimal(stats["usage"]["dollars"]) - server.bill) < CENT


def test_a_wait_beyond_the_bound_ends_the_run_with_everything_cached(tmp_path: Path, subtests: pytest.Subtests) -> None:
    words = r"asks to wait .*longer than max_retry_wait, 600 s; every response so far is cached"
    waits = {wait: wait for wait in ("86400", "1e308", "Fri, 31 Dec 2100 23:59:59 GMT", "nan")}
    for name, wait, folder in folders(tmp_path, waits):
        limited = refuses(429, headers={"Retry-After": wait})
        script = lambda request, number, limited=limited: limited if number == 4 else edits(request)  # noqa: E731
        with subtests.test(name), BillingServer(script) as server:
            config = recipe(folder, server.url, max_concurrency=1)
            if wait != "nan":
                with pytest.raises(UserErrors, match=words):
                    bridge(config)
            assert bridge(config)["kept"] == 12
            assert max(server.asked.values()) == 2
            assert len(server.requests) == 13


def test_a_key_that_is_refused_on_the_way_stops_the_run(tmp_path: Path) -> None:
    with BillingServer(lambda request, number: refuses(401) if number == 4 else edits(request)) as server:
        config = recipe(tmp_path, server.url, max_concurrency=1)
        with pytest.raises(UserErrors, match="refuses the key in EDITOR_KEY"):
            bridge(config)
        assert len(server.requests) == 5
        stats = bridge(config)
    assert abs(Decimal(stats["usage"]["dollars"]) - server.bill) < CENT


def test_prompts_go_to_no_other_host(tmp_path: Path) -> None:
    with BillingServer(lambda request, number: edits(request)) as other:
        moved = {"status": 307, "body": "", "headers": {"Location": f"{other.url}/chat/completions?token=secret"}}
        with BillingServer(lambda request, number: moved) as server, pytest.raises(UserErrors) as raised:
            bridge(recipe(tmp_path, server.url))
    assert other.requests == []
    told = f"redirects requests to {other.url}/chat/completions (307), which are not sent there"
    assert str(raised.value) == f"m at {server.url}: {told}; if that is right, set base_url: {other.url}"


def test_a_query_and_the_environments_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests carry the query; the records say where they went, and keep no secret of it."""
    with BillingServer(lambda request, number: edits(request)) as server:
        bridge(recipe(tmp_path, f"{server.url}?api-version=7&api-key=abc123xyz", 1))
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}?sig=abc123xyz")
        bridge(recipe(tmp_path, None, 2, out="by_environment"))  # type: ignore[arg-type]
    assert server.paths[0] == "/v1/chat/completions?api-version=7&api-key=abc123xyz"
    assert server.paths[1] == "/v1/chat/completions?sig=abc123xyz"
    for folder in ("out", "by_environment"):
        assert json.loads((tmp_path / folder / "provenance.json").read_text())["endpoint"] == server.url
        assert not any(b"abc123xyz" in path.read_bytes() for path in (tmp_path / folder).iterdir())


def test_an_endpoint_can_not_steer_the_terminal(tmp_path: Path) -> None:
    with (
        BillingServer(
            lambda request, number: refuses(400, "\x1b]0;owned\x07\x1b[2Jno\u202e such\x9b31m thing\r\n!")
        ) as server,
        pytest.raises(UserErrors) as raised,
    ):
        bridge(recipe(tmp_path, server.url, 1))
    assert str(raised.value) == f"m at {server.url}: refuses the request (400: no such thing !); fix the recipe"


def test_a_short_key_garbles_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR_KEY", "e")
    with (
        BillingServer(lambda request, number: refuses(400, "the key word")) as server,
        pytest.raises(UserErrors) as raised,
    ):
        bridge(recipe(tmp_path, server.url, 1))
    assert "(400: the key word)" in str(raised.value)
