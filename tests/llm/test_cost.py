"""Tokens, dollars, minutes."""

from __future__ import annotations

import pytest

from bmc.config import LLMArguments, Price
from bmc.llm.cost import CostEstimate, dollars


def test_dollars() -> None:
    assert dollars(Price(input=10, output=30), 1_000_000, 500_000) == 25.0
    assert dollars(Price(input=10, output=30), 1_000_000, 500_000, batch=True) == 12.5
    assert dollars(None, 5, 5) == 0.0


def test_the_papers_own_sum() -> None:
    """§4's prices; 61,135 pairs of 1,000 tokens to read and 300 to write: $611.35 + $550.215."""
    found = CostEstimate(LLMArguments(model="g", prices={"g": Price(input=10, output=30)}))
    found.prompt_tokens, found.completion_tokens = 61_135 * 1000, 61_135 * 300
    assert found.dollars == pytest.approx(1161.565)
    found.settings.batch_api = True
    assert found.dollars == pytest.approx(580.7825)


@pytest.mark.parametrize(
    ("requests", "tokens", "minutes"), [(None, None, None), (50, None, 2.0), (None, 3000, 4.0), (50, 3000, 4.0)]
)
def test_minutes_at_the_limits(requests: float | None, tokens: float | None, minutes: float | None) -> None:
    found = CostEstimate(LLMArguments(requests_per_minute=requests, tokens_per_minute=tokens))
    found.to_send, found.prompt_tokens, found.completion_tokens = 100, 9000, 3000
    assert found.minutes == minutes
