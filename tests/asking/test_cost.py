"""Tokens, dollars, minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bmc.asking.cost import Quote, TokenCounter, approximate_tokens, dollars
from bmc.config import AskingArguments, Price


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("abcd", 1), ("abcde", 2), ("é", 1), ("水水水", 3), ("\ud83d", 1)]
)
def test_four_bytes_a_token(text: str, tokens: int) -> None:
    assert approximate_tokens(text) == tokens


def test_dollars() -> None:
    assert dollars(Price(input=10, output=30), 1_000_000, 500_000) == 25.0
    assert dollars(Price(input=10, output=30), 1_000_000, 500_000, batch=True) == 12.5
    assert dollars(None, 5, 5) == 0.0


def test_the_papers_own_sum() -> None:
    """§4's prices; 61,135 pairs of 1,000 tokens to read and 300 to write: $611.35 + $550.215."""
    found = Quote(AskingArguments(model="g", prices={"g": Price(input=10, output=30)}))
    found.prompt_tokens, found.completion_tokens = 61_135 * 1000, 61_135 * 300
    assert found.dollars == pytest.approx(1161.565)
    found.settings.batch_api = True
    assert found.dollars == pytest.approx(580.7825)


@pytest.mark.parametrize(
    ("requests", "tokens", "minutes"), [(None, None, None), (50, None, 2.0), (None, 3000, 4.0), (50, 3000, 4.0)]
)
def test_minutes_at_the_limits(requests: float | None, tokens: float | None, minutes: float | None) -> None:
    found = Quote(AskingArguments(requests_per_minute=requests, tokens_per_minute=tokens))
    found.asked, found.prompt_tokens, found.completion_tokens = 100, 9000, 3000
    assert found.minutes == minutes


def test_a_tokenizer_on_this_machine_counts(model_dir: Path) -> None:
    count = TokenCounter(str(model_dir))
    assert count("abcdé") == 6  # a token a byte
    assert count.how == f"the tokenizer of {model_dir}"
    for _ in range(300):
        count("ab")
    assert count("abc") == pytest.approx(3)  # by the ratio of those before
    assert TokenCounter("gpt-4").how == TokenCounter("no/such-model").how == "four bytes a token"
