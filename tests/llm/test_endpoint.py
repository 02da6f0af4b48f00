"""A model behind an endpoint: what it is sent, what its failures mean, and that the key is nowhere."""

import asyncio
import logging
import sqlite3
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from server import HANGS_UP, NO_JSON, ChatServer, Reply, Script, half_sent, refuses, says

from bmc.config import LLMArguments, Price
from bmc.errors import UserErrors
from bmc.llm import errors
from bmc.llm.cache import ResponseCache
from bmc.llm.client import CachedClient
from bmc.llm.cost import UsageTracker
from bmc.llm.errors import RequestFailed
from bmc.llm.openai_client import HttpTransport, OpenAIClient

KEY = "sk-test-57c1"
MESSAGES = [{"role": "system", "content": "Mend."}, {"role": "user", "content": "é 2 + 2 = 5"}]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(errors, "FIRST_WAIT", 0.001)


def recipe(url: str | None, **settings: Any) -> LLMArguments:
    given = {"api_key_env": "MODEL_KEY", "max_retries": 0, "model": "m", "timeout": 5.0}
    return LLMArguments(**{**given, "base_url": url, **settings})


def complete(
    folder: Path, config: LLMArguments, *conversations: Any, usage: UsageTracker | None = None, version: int = 1
) -> Any:
    """The response to one conversation, or those to many at once, errors among them."""

    async def run() -> Any:
        counts = usage or UsageTracker(config.prices.get(config.model))
        cache = ResponseCache(folder / "responses.sqlite")
        client = CachedClient(OpenAIClient(config, counts, cache), config, version, cache, counts)
        try:
            if not conversations:
                return await client.complete(MESSAGES)
            return await asyncio.gather(*map(client.complete, conversations), return_exceptions=True)
        finally:
            await client.aclose()
            cache.close()

    return asyncio.run(run())


def numbered(count: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": f"row {number}"}] for number in range(count)]


def always(reply: Reply) -> Script:
    return lambda request, number: reply


def test_a_request_and_its_completion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_KEY", f"{KEY}\n")  # a key may end in a newline
    with ChatServer(always(says("4", "stop"))) as server:
        found = complete(tmp_path, recipe(server.url, temperature=0.5, max_tokens=9))
    assert (found.text, found.finish_reason, found.prompt_tokens, found.completion_tokens) == ("4", "stop", 7, 5)
    assert server.requests == [{"model": "m", "messages": MESSAGES, "temperature": 0.5, "max_tokens": 9}]
    assert server.keys == [f"Bearer {KEY}"]


def test_completions_of_any_kind(tmp_path: Path, subtests: pytest.Subtests) -> None:
    refusing = says(None)
    refusing["body"]["choices"][0]["message"]["refusal"] = "I can't help with that."
    rows = [
        (says(""), ("", "stop")),
        (says(None, "content_filter"), ("", "content_filter")),
        (says("half", "length"), ("half", "length")),
        (says("a\ud83db"), ("a\ufffdb", "stop")),
        (says(f"Your key is {KEY}."), ("Your key is ….", "stop")),
        (refusing, ("I can't help with that.", "stop")),
    ]
    for number, (reply, wanted) in enumerate(rows):
        with subtests.test(wanted=wanted), ChatServer(always(reply)) as server:
            for _ in range(2):  # sent, and cached
                found = complete(tmp_path / str(number), recipe(server.url))
                assert (found.text, found.finish_reason) == wanted
            assert len(server.requests) == 1


def test_an_endpoint_that_reports_no_usage(tmp_path: Path) -> None:
    reply = says("12345")
    del reply["body"]["usage"]
    usage = UsageTracker(Price(input=1.0, output=1.0))
    with ChatServer(always(reply)) as server:
        found = complete(tmp_path, recipe(server.url), usage=usage)
    # "Mend." is 1.8; "é" 0.92, three digits behind spaces 6, two signs 1.6; two messages 4 each, the start 3.
    # "12345" is two tokens.
    assert (found.prompt_tokens, found.completion_tokens, usage.guessed) == (21, 2, 1)


NO_TEXT = "a response that is no text"
RETRYABLE = {
    "HTTP 408": refuses(408), "HTTP 409": refuses(409), "HTTP 429": refuses(429), "HTTP 500": refuses(500),
    "HTTP 503": refuses(503, headers={}),
    "HTTP 529": {"status": 529, "body": "<html>overloaded"},
    "lost connection": HANGS_UP, "invalid JSON": NO_JSON,
    "an error in place of a response": {"body": {"error": {"message": "overloaded"}}},
    "a response without choices": {"body": {"choices": []}},
    NO_TEXT: {"body": {"choices": [{"message": {"content": [1]}}]}}
}  # fmt: skip


@pytest.mark.slow
def test_retryable_errors_are_retried_and_counted_until_retries_run_out(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for number, (kind, reply) in enumerate(RETRYABLE.items()):
        usage = UsageTracker(None)
        with subtests.test(kind), ChatServer(lambda _, n, reply=reply: reply if n < 2 else says("4")) as server:
            assert complete(tmp_path / f"a{number}", recipe(server.url, max_retries=2), usage=usage).text == "4"
            assert len(server.requests) == 3
            assert (usage.requests, usage.retries) == (3, {kind: 2})
        with subtests.test(kind, runs="out"), ChatServer(always(reply)) as server:
            with pytest.raises(RequestFailed, match=f"^endpoint failed: {kind}"):
                complete(tmp_path / f"b{number}", recipe(server.url, max_retries=3))
            # the first, and three more; of those that are paid for three in all
            paid = kind in ("invalid JSON", "a response without choices", NO_TEXT)
            assert len(server.requests) == (3 if paid else 4)
    with ChatServer(lambda request, number: half_sent(says("4")) if number < 2 else says("4")) as server:
        assert complete(tmp_path, recipe(server.url, max_retries=2)).text == "4"
    assert len(server.requests) == 3


def test_a_slow_endpoint(tmp_path: Path) -> None:
    slow = {**says("late"), "delay": 0.5}
    with ChatServer(lambda request, number: slow if number == 0 else says("4")) as server:
        assert complete(tmp_path, recipe(server.url, timeout=0.2, max_retries=1)).text == "4"
    with ChatServer(always(slow)) as server, pytest.raises(RequestFailed, match=r"no response in 0\.1 s"):
        complete(tmp_path / "b", recipe(server.url, timeout=0.1))


def test_a_wait_that_the_endpoint_asks_for_is_waited(tmp_path: Path) -> None:
    waits = refuses(429, headers={"Retry-After": "0.5"})
    with ChatServer(lambda request, number: waits if number == 0 else says("4")) as server:
        complete(tmp_path, recipe(server.url, max_retries=1))
    assert server.times[1] - server.times[0] >= 0.5


def test_a_refusal_of_one_row(tmp_path: Path, subtests: pytest.Subtests) -> None:
    rows = [
        refuses(400, "This model's maximum context length is 8 tokens."),
        refuses(400, "no", "content_filter"),
        refuses(413, "too large"),
        refuses(422, "prompt is too long"),
    ]
    for number, reply in enumerate(rows):
        with subtests.test(reply=reply), ChatServer(lambda _, n, reply=reply: says("4") if n else reply) as server:
            config = recipe(server.url, max_retries=3, max_concurrency=1)
            first, second = complete(tmp_path / str(number), config, *numbered(2))
            assert (str(first).startswith("endpoint refuses the request (4"), second.text) == (True, "4")
            assert len(server.requests) == 2


def test_a_fatal_error_stops_the_run(tmp_path: Path, subtests: pytest.Subtests) -> None:
    rows: list[tuple[Reply, str]] = [
        (refuses(401, f"bad key {KEY}"), "refuses the key in MODEL_KEY; set a valid one"),
        (refuses(403, f"{KEY} may not"), "refuses the request (403: … may not); fix the recipe"),
        (refuses(404, "no model m"), "refuses the request (404: no model m); fix the recipe"),
        (refuses(400, "no such\nsetting"), "refuses the request (400: no such setting); fix the recipe"),
        ({"status": 405, "body": ""}, "refuses the request (405: no reason given); fix the recipe"),
        (
            refuses(429, "You exceeded your current quota", "insufficient_quota"),
            "the account has no credit left (429: You exceeded your current quota); add credit: every response so "
            "far is cached; run the same command again to continue",
        ),
        (
            {"body": "<html>", "headers": {"Content-Type": "text/html"}},
            "sends something other than a chat completion; does base_url lack its /v1?",
        ),
    ]
    for number, (reply, words) in enumerate(rows):
        with subtests.test(words), ChatServer(always(reply)) as server:
            with pytest.raises(UserErrors) as raised:
                complete(tmp_path / str(number), recipe(server.url, max_retries=3))
            assert str(raised.value) == f"m at {server.url}: {words}"
            assert len(server.requests) == 1
            assert KEY not in str(raised.value)
    with pytest.raises(UserErrors, match="can't be reached; check base_url and that the server is up"):
        complete(tmp_path, recipe(server.url))  # which is down by now


def test_what_is_in_flight_is_cached_when_the_run_stops(tmp_path: Path) -> None:
    """One of four is refused; the three beside it succeed after that, and those behind them are never sent."""

    def script(request: dict[str, Any], number: int) -> Reply:
        return refuses(401) if request["messages"][0]["content"] == "row 1" else {**says("4"), "delay": 0.3}

    with ChatServer(script) as server:
        results = complete(tmp_path, recipe(server.url, max_concurrency=4), *numbered(12))
        assert [isinstance(result, UserErrors) for result in results] == [
            number not in (0, 2, 3) for number in range(12)
        ]
        assert len(server.requests) == 4
    connection = sqlite3.connect(tmp_path / "responses.sqlite")
    assert connection.execute("SELECT count(*) FROM replies").fetchone() == (3,)


def test_a_server_that_keeps_failing_stops_the_run(tmp_path: Path) -> None:
    with ChatServer(lambda request, number: says("4") if number < 9 else refuses(500)) as server:
        results = complete(tmp_path, recipe(server.url, max_concurrency=1), *numbered(99))
    assert len(server.requests) == 9 + 50
    assert sum(isinstance(result, RequestFailed) for result in results) == 49
    assert "has failed 50 requests in a row, each for good (now: HTTP 500)" in str(results[-1])


@pytest.mark.slow
def test_the_recipes_rates(tmp_path: Path) -> None:
    with ChatServer(always(says("4")), delay=0.03) as server:
        complete(tmp_path / "a", recipe(server.url, max_concurrency=3), *numbered(12))
    assert (len(server.requests), server.most) == (12, 3)
    with ChatServer(always(says("4"))) as server:
        complete(tmp_path / "b", recipe(server.url, requests_per_minute=600), *numbered(6))
    assert server.times[5] - server.times[0] >= 0.4  # five times 0.1 s, less what the first may take longer on its way
    with ChatServer(always(says("4"))) as server:  # 12 tokens each, by the usage: 6,000 a minute are 100 a second
        complete(tmp_path / "c", recipe(server.url, tokens_per_minute=6000, max_concurrency=1), *numbered(17))
    assert server.times[-1] - server.times[0] >= 0.8  # 16 · 12 tokens, 100 of them at once


def test_the_budget_stops_before_it_is_exceeded_and_caches_all(tmp_path: Path) -> None:
    """A response costs 7 · 1,000 + 5 · 1,000 dollars a million tokens. One might cost 3.8: "row 1", 5 bytes, 28
    of a chat template at most, and 5 written, so six are sent for 10 cents."""
    prices = {"m": Price(input=1000.0, output=1000.0)}
    usage = UsageTracker(prices["m"])
    with ChatServer(always(says("4")), delay=0.01) as server:
        config = recipe(server.url, prices=prices, max_cost_usd=0.1, max_concurrency=4, max_tokens=5)
        results = complete(tmp_path, config, *numbered(20), usage=usage)
        assert len(server.requests) == 6
    assert usage.spent["dollars"] == pytest.approx(6 * 0.012)
    assert sum(isinstance(result, UserErrors) for result in results) == 14
    words = "max_cost_usd: is reached: $0.0720 of $0.10 spent, and the next response may cost up to $0.0380; raise it"
    assert str(results[-1]).startswith(words)


def test_no_request_is_sent_twice(tmp_path: Path) -> None:
    with ChatServer(always(says("4")), delay=0.02) as server, ChatServer(always(says("4"))) as other:
        config = recipe(server.url)
        at_once = complete(tmp_path, config, MESSAGES, MESSAGES, MESSAGES)
        assert [found.text for found in at_once] == ["4"] * 3
        for unchanged in (
            config,
            replace(config, max_retries=1, yes=True),
            replace(config, base_url=other.url, max_concurrency=2, timeout=9.0, api_key_env="MODEL_KEY"),
        ):
            complete(tmp_path, unchanged)
        assert (len(server.requests), len(other.requests)) == (1, 0)
        changed = (replace(config, model="n"), replace(config, temperature=1.0), replace(config, max_tokens=7))
        for count, anew in enumerate(changed, start=2):
            complete(tmp_path, anew)
            complete(tmp_path, anew)
            assert len(server.requests) == count
        complete(tmp_path, config, MESSAGES[1:])
        complete(tmp_path, config, version=2)
        assert len(server.requests) == 6


def test_a_useless_completion_is_cached_and_an_error_is_not(tmp_path: Path) -> None:
    with ChatServer(lambda request, number: refuses(500) if number == 0 else says("")) as server:
        with pytest.raises(RequestFailed):
            complete(tmp_path, recipe(server.url))
        for _ in range(2):
            assert complete(tmp_path, recipe(server.url)).text == ""
    assert len(server.requests) == 2


def test_half_a_surrogate_pair_can_not_be_sent(tmp_path: Path) -> None:
    (failure,) = complete(tmp_path, recipe("http://127.0.0.1:9/v1"), [{"role": "user", "content": "\ud83d"}])
    assert isinstance(failure, RequestFailed)
    assert "surrogate" in str(failure)


def test_the_key_is_in_no_file_and_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    replies = [refuses(500, KEY), HANGS_UP, {"body": f"{KEY}{{"}, refuses(429, KEY), says(f"… {KEY}")]
    with ChatServer(lambda request, number: replies[number]) as server:
        complete(tmp_path, recipe(server.url, max_retries=9))
    with ChatServer(always(refuses(401, KEY, KEY))) as server, pytest.raises(UserErrors) as raised:
        complete(tmp_path, recipe(server.url, model="n"))
    assert any(record.name.startswith("httpcore") for record in caplog.records)
    assert KEY not in caplog.text
    assert KEY not in str(raised.value)
    files = list(tmp_path.iterdir())
    assert files
    assert not any(KEY.encode() in file.read_bytes() for file in files)


def test_no_key_is_a_fault(monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests) -> None:
    for value in (None, "", " ", "sk\u00e9", "sk\n1"):
        with subtests.test(value=value):
            monkeypatch.delenv("MODEL_KEY", raising=False)
            if value is not None:
                monkeypatch.setenv("MODEL_KEY", value)
            with pytest.raises(
                UserErrors, match=r"^environment variable MODEL_KEY: (is not set; export|holds characters)"
            ):
                HttpTransport(recipe("http://127.0.0.1:9/v1"))


def test_ctrl_c_says_how_many_requests_it_waits_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of ten, two are sent when it comes, and none after."""
    with ChatServer(always(says("4")), delay=0.3) as server:

        async def run() -> None:
            config, counts = recipe(server.url, max_concurrency=2), UsageTracker(None)
            cache = ResponseCache(tmp_path / "responses.sqlite")
            client = CachedClient(OpenAIClient(config, counts, cache), config, 1, cache, counts)
            rows = [asyncio.ensure_future(client.complete(row)) for row in numbered(10)]
            while len(server.requests) < 2:
                await asyncio.sleep(0.01)
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt:
                await client.aclose()
            cache.close()
            await asyncio.gather(*rows, return_exceptions=True)

        asyncio.run(run())
    assert len(server.requests) == 2
    assert "waiting for 2 requests" in capsys.readouterr().err


def test_a_stop_does_not_wait_for_a_long_back_off(tmp_path: Path) -> None:
    def script(request: dict[str, Any], number: int) -> Reply:
        if request["messages"][0]["content"] == "row 0":
            return refuses(429, headers={"Retry-After": "60"})
        return {**refuses(401), "delay": 0.2}

    begun = time.monotonic()
    with ChatServer(script) as server:
        results = complete(tmp_path, recipe(server.url, max_retries=3, max_concurrency=2), *numbered(2))
    assert all("refuses the key" in str(result) for result in results)
    assert time.monotonic() - begun < 30


def test_log_probabilities_of_the_first_token_are_cached(tmp_path: Path) -> None:
    """They are requested by whatever settings want them, and are then part of the request's key."""

    @dataclass(kw_only=True)
    class Weighted(LLMArguments):
        def request(self, messages: list[dict[str, str]]) -> dict[str, Any]:
            return super().request(messages) | {"logprobs": True, "top_logprobs": 2}

    reply = says("M")
    likely = [{"token": "M", "logprob": -0.1, "bytes": [77]}, {"token": "m", "logprob": -2.4, "bytes": None}]
    reply["body"]["choices"][0]["logprobs"] = {"content": [{"token": "M", "logprob": -0.1, "top_logprobs": likely}]}
    with ChatServer(always(reply)) as server:
        config = Weighted(base_url=server.url, api_key_env="MODEL_KEY", model="m")
        for _ in range(2):  # from the endpoint, then from the cache
            found = complete(tmp_path, config).first_token
            assert found == [{"token": "M", "logprob": -0.1}, {"token": "m", "logprob": -2.4}]
        assert server.requests[0]["top_logprobs"] == 2
        complete(tmp_path, recipe(server.url))
        assert len(server.requests) == 2
    with ChatServer(always(says("4"))) as server:
        assert complete(tmp_path, recipe(server.url, model="n")).first_token is None
