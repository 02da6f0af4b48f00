from __future__ import annotations

import asyncio
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from server import ChatServer, Reply, Script, part, refuses, revises, says

from bmc.bridging import editors
from bmc.bridging.edit import Case, Edit, EditError
from bmc.bridging.editors import OpenAIEditor, make_editor
from bmc.bridging.rules import RulesEditor
from bmc.config import BridgeConfig
from bmc.errors import Faults

KEY = "sk-test-57c1"
CASE = Case("1", "qa", "Where?", "In a river.\nThe answer is river", "In a bank.\nThe answer is bank", "river")
MENDED = "In a river bank.\nThe answer is river"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def recipe(url: str, **settings: Any) -> BridgeConfig:
    given = {"output_dir": "unused", "api_key_env": "EDITOR_KEY", "max_retries": 0, "model": "m", "timeout": 5.0}
    return BridgeConfig(**{**given, "base_url": url, **settings})


def ask(folder: Path, config: BridgeConfig, case: Case = CASE) -> Edit:
    with closing(make_editor(replace(config, replies=str(folder / "replies.sqlite")))) as editor:
        return asyncio.run(editor.edit(case))


def always(reply: Reply) -> Script:
    return lambda request, number: reply


def test_a_good_draft_and_what_the_endpoint_is_asked(tmp_path: Path) -> None:
    with ChatServer(always(says("<verdict>good</verdict>"))) as server:
        assert ask(tmp_path, recipe(server.url, temperature=0.5, max_tokens=9)) == Edit(None)
    (request,) = server.requests
    assert {name: request[name] for name in ("model", "temperature", "max_tokens")} == {
        "model": "m",
        "temperature": 0.5,
        "max_tokens": 9,
    }
    assert [part(request, name) for name in ("question", "reference", "draft")] == [
        CASE.prompt,
        CASE.chosen,
        CASE.rejected,
    ]
    assert server.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize("template", ["closed", "instruction"])
def test_a_revised_draft(tmp_path: Path, template: str) -> None:
    with ChatServer(lambda request, number: revises(request, MENDED)) as server:
        assert ask(tmp_path, recipe(server.url, template=template)) == Edit(MENDED)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (says("<verdict>edit</verdict>\n<revised", "length"), "cut off: the reply reached max_tokens"),
        (says("<verdict>good</verdict>", "length"), "cut off: the reply reached max_tokens"),
        (says(""), "empty reply"),
        (says(None, "content_filter"), "empty reply"),
        (says("I can't help with that."), "unreadable reply: no revised draft between the tags"),
        ({"body": {"error": {"message": "overloaded"}}}, "endpoint failed: no choices in its reply"),
        ({"body": {"choices": []}}, "endpoint failed: no choices in its reply"),
        ({"body": {"choices": [{"finish_reason": "stop"}]}}, "endpoint failed: no choices in its reply"),
        ({"body": "{"}, "endpoint failed: "),
        ({"hangs up": True}, "endpoint failed: APIConnectionError"),
        (refuses(500), "endpoint failed: InternalServerError"),
        (refuses(429), "endpoint failed: RateLimitError"),
        (refuses(400, "maximum context length is 8"), "endpoint refuses the pair: too long, or filtered"),
        (refuses(400, "no", "content_filter"), "endpoint refuses the pair: too long, or filtered"),
    ],
)
def test_a_reply_that_is_of_no_use_drops_the_pair(tmp_path: Path, reply: Reply, reason: str) -> None:
    with ChatServer(always(reply)) as server, pytest.raises(EditError) as raised:
        ask(tmp_path, recipe(server.url))
    assert str(raised.value).startswith(reason)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (refuses(401, f"bad key {KEY}"), "refuses the key in EDITOR_KEY; set a valid one"),
        (refuses(403, f"{KEY} may not"), "refuses the request (403: … may not); mend the recipe"),
        (refuses(404, "no model m"), "refuses the request (404: no model m); mend the recipe"),
        (refuses(400, "no such\nsetting"), "refuses the request (400: no such setting); mend the recipe"),
        (
            {"body": "<html>", "headers": {"Content-Type": "text/html"}},
            "answers with something else than a chat completion; does base_url lack its /v1?",
        ),
    ],
)
def test_a_request_that_can_never_do_stops_the_run(tmp_path: Path, reply: Reply, words: str) -> None:
    with ChatServer(always(reply)) as server, pytest.raises(Faults) as raised:
        ask(tmp_path, recipe(server.url, max_retries=3))
    assert str(raised.value) == f"editor at {server.url}: {words}"
    assert len(server.requests) == 1
    assert KEY not in str(raised.value)


@pytest.mark.parametrize("trouble", [refuses(429), refuses(500), refuses(503)])
def test_passing_trouble_is_waited_out(tmp_path: Path, trouble: Reply) -> None:
    with ChatServer(lambda request, number: trouble if number < 2 else says("<verdict>good</verdict>")) as server:
        assert ask(tmp_path, recipe(server.url, max_retries=2)) == Edit(None)
    assert len(server.requests) == 3


def test_tries_run_out(tmp_path: Path) -> None:
    with ChatServer(always(refuses(500))) as server, pytest.raises(EditError):
        ask(tmp_path, recipe(server.url, max_retries=3))
    assert len(server.requests) == 4  # the first, and three more


def test_a_slow_endpoint(tmp_path: Path) -> None:
    with ChatServer(always(says("late")), delay=0.5) as server, pytest.raises(EditError, match="APITimeoutError"):
        ask(tmp_path, recipe(server.url, timeout=0.1))


def test_what_was_answered_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(lambda request, number: revises(request, MENDED)) as server:
        config = recipe(server.url)
        for _ in range(2):
            assert ask(tmp_path, config) == Edit(MENDED)
            assert ask(tmp_path, replace(config, proportion=0.5, max_retries=1, output_dir="b")) == Edit(MENDED)
        assert len(server.requests) == 1
        for anew in (
            replace(config, model="other"),
            replace(config, template="instruction"),
            replace(config, temperature=1.0),
            replace(config, max_tokens=7),
        ):
            before = len(server.requests)
            ask(tmp_path, anew)
            ask(tmp_path, anew)
            assert len(server.requests) == before + 1
        before = len(server.requests)
        ask(tmp_path, config, replace(CASE, rejected="Other."))
        monkeypatch.setattr(editors, "VERSION", 2)
        ask(tmp_path, config)
        assert len(server.requests) == before + 2


def test_a_useless_reply_is_kept_and_trouble_is_not(tmp_path: Path) -> None:
    with ChatServer(lambda request, number: refuses(500) if number == 0 else says("")) as server:
        for _ in range(3):
            with pytest.raises(EditError):
                ask(tmp_path, recipe(server.url))
    assert len(server.requests) == 2


def test_the_key_is_in_no_file(tmp_path: Path) -> None:
    with ChatServer(lambda request, number: revises(request, MENDED)) as server:
        ask(tmp_path, recipe(server.url))
    files = list(tmp_path.iterdir())
    assert files
    assert not any(KEY.encode() in file.read_bytes() for file in files)


@pytest.mark.parametrize("value", [None, ""])
def test_no_key_is_a_fault_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("EDITOR_KEY")
    if value is not None:
        monkeypatch.setenv("EDITOR_KEY", value)
    with pytest.raises(Faults, match="environment variable EDITOR_KEY: is not set; export"):
        make_editor(recipe("http://127.0.0.1:9/v1", output_dir=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_rules_needs_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDITOR_KEY")
    assert isinstance(make_editor(recipe("", editor="rules")), RulesEditor)
    assert not isinstance(RulesEditor(), OpenAIEditor)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_down_stops_the_run(tmp_path: Path) -> None:
    with ChatServer(always(says("<verdict>good</verdict>"))) as server:
        url = server.url
    with pytest.raises(Faults, match="can't be reached; check base_url and that the server is up"):
        ask(tmp_path, recipe(url))
