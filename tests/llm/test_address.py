"""Where requests go, told without secrets."""

from __future__ import annotations

import pytest

from bmc.llm.address import address, address_fault, endpoint_name, where


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def test_an_address_without_secrets() -> None:
    assert endpoint_name(None) == "api.openai.com"
    assert endpoint_name("http://localhost:8000/v1") == "http://localhost:8000/v1"
    assert endpoint_name("https://me:secret@host:8/v1?api-key=secret#x") == "https://host:8/v1"


def test_a_query_goes_with_every_request() -> None:
    found = address("https://host/openai/v1?api-version=2024-10-21&api-key=s%2Fx&flag")
    assert found[:2] == ("https://host/openai/v1", {"api-version": "2024-10-21", "api-key": "s/x", "flag": ""})


def test_the_environment_names_an_endpoint_where_the_recipe_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example/v1?key=secret")
    assert address(None).url == "https://gateway.example/v1"
    assert where(None) == "https://gateway.example/v1 (by the environment variable OPENAI_BASE_URL)"
    assert where("http://localhost:8000/v1") == "http://localhost:8000/v1"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://localhost:8000/v1", None),
        ("https://host/v1?api-version=1", None),
        ("localhost:8000", "no address of a server"),
        ("ftp://host/v1", "no address of a server"),
        ("http://host:80000/v1", "port is no number"),
        ("https://me:hunter2@host/v1", "write https://host/v1, and put the key into"),
        ("https://hunter2@host/v1", "write https://host/v1, and put the key into"),
    ],
)
def test_faults_of_an_address(url: str, words: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (words in str(address_fault(url))) if words else address_fault(url) is None
    assert "hunter2" not in str(address_fault(url))
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    assert ("OPENAI_BASE_URL" in str(address_fault(None))) == (words is not None)
    assert address_fault("http://localhost:8000/v1") is None
