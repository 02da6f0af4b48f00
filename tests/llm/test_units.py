"""Parts of the LLM client by themselves: rate limits, budget, waits, tokens, dollars, addresses."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmc.config import LLMArguments, Price
from bmc.errors import UserErrors
from bmc.llm.address import address, address_fault, endpoint_name, where
from bmc.llm.cost import (
    CostEstimate,
    TokenCounter,
    dollars,
    estimated_prompt,
    estimated_tokens,
    most_tokens,
    plausible_usage,
)
from bmc.llm.errors import retry_after, wait_before
from bmc.llm.openai_client import Budget, TokenBucket


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_token_bucket_by_hand() -> None:
    bucket = TokenBucket(120, 1, Clock())  # two a second, one at once
    assert [bucket.reserve(1) for _ in range(4)] == [0.0, 0.5, 1.0, 1.5]
    clock = Clock()
    bucket = TokenBucket(60, 3, clock)
    for clock.now in (0.0, 100.0):  # a pause saves no more than the capacity
        assert [bucket.reserve(1) for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]
    clock = Clock()
    bucket = TokenBucket(600, 10, clock)  # 10 a second
    assert bucket.reserve(50) == 0.0  # goes when the bucket is full, and is paid back after
    assert bucket.reserve(10) == 5.0  # 40 to pay back, then 10 to gather
    clock.now = 2.0
    assert bucket.reserve(1) == pytest.approx(3.1)
    bucket = TokenBucket(600, 10, Clock())
    bucket.reserve(50)
    bucket.refund(40)
    assert bucket.reserve(5) == 0.5  # 0 left of 10
    bucket.refund(-10)
    assert bucket.reserve(5) == 2.0  # 15 short, 5 to gather


@given(
    st.floats(1, 1e4),
    st.integers(1, 20),
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 20)), min_size=1, max_size=40),
)
def test_no_window_holds_more_than_it_may(per_minute: float, capacity: int, takes: list[tuple[float, int]]) -> None:
    """Within any t seconds: rate · t + capacity, and what the last one takes beyond the capacity."""
    clock = Clock()
    bucket = TokenBucket(per_minute, capacity, clock)
    used: list[tuple[float, int]] = []
    for pause, amount in takes:
        clock.now += pause
        used.append((clock.now + bucket.reserve(amount), amount))
    assert [when for when, _ in used] == sorted(when for when, _ in used)
    for first in range(len(used)):
        for last in range(first, len(used)):
            seconds, total = used[last][0] - used[first][0], sum(amount for _, amount in used[first : last + 1])
            beyond = max(0, used[last][1] - capacity)
            assert total <= per_minute / 60 * seconds + capacity + beyond + 1e-6 * total + 1e-6


def test_a_budget_holds_room_for_the_most_that_requests_may_cost() -> None:
    async def run() -> None:
        budget = Budget(1.0, 0.4)
        first = await budget.reserve(0.3)
        second = asyncio.create_task(budget.reserve(0.4))
        await asyncio.sleep(0)
        assert not second.done()  # 0.4 spent and 0.3 reserved
        await budget.settle(first, 0.3, 0.1)
        assert await second == 0.4
        await budget.settle(0.4, 0.4, 0.0)  # it failed and has cost nothing
        with pytest.raises(UserErrors):
            await budget.reserve(0.6)
        await budget.settle(await budget.reserve(0.1), 0.1, 0.2)  # twice its bound
        assert await budget.reserve(0.1) == pytest.approx(0.2)
        assert budget.spent == pytest.approx(0.7)
        third = asyncio.create_task(budget.reserve(0.1))
        await asyncio.sleep(0)
        assert not third.done()
        await budget.settle(0.2, 0.1, 0.2)
        with pytest.raises(UserErrors):
            await third

    asyncio.run(run())
    for most, spent in ((0.0, 0.0), (1.0, 1.0), (1.0, 2.0)):  # nothing is left
        with pytest.raises(UserErrors):
            asyncio.run(Budget(most, spent).reserve(0.0001))


def test_what_headers_ask_to_wait(subtests: pytest.Subtests) -> None:
    now = datetime(2026, 10, 21, 7, 28, tzinfo=UTC).timestamp()
    rows: list[tuple[dict[str, str], float | None]] = [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT"}, 0.0),  # gone by
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "3"}, 3.0),
    ]
    for headers, seconds in rows:
        with subtests.test(headers=headers):
            assert retry_after(headers, now) == seconds


def test_waits_grow_and_are_jittered() -> None:
    for retry, longest in enumerate([0.5, 1, 2, 4, 8, 16, 32, 60, 60]):
        waits = {wait_before(retry, None) for _ in range(50)}
        assert len(waits) > 1
        assert all(longest / 2 <= wait <= longest for wait in waits)
    for after, most in ((0.001, 0.002), (3.0, 4.0), (600.0, 601.0)):  # no shorter than the endpoint asks for
        assert all(after <= wait_before(5, after) <= most for _ in range(50))
    assert 0.25 <= wait_before(0, 0.0) <= 0.5  # 0 s don't help against a rate that is too high


def test_dollars_and_minutes() -> None:
    assert dollars(Price(input=10, output=30), 1_000_000, 500_000) == 25.0
    assert dollars(Price(input=10, output=30), 1_000_000, 500_000, batch=True) == 12.5
    assert dollars(None, 5, 5) == 0.0
    # §4's prices; 61,135 pairs of 1,000 tokens to read and 300 to write: $611.35 + $550.215
    estimate = CostEstimate(LLMArguments(model="g", prices={"g": Price(input=10, output=30)}))
    estimate.prompt_tokens, estimate.completion_tokens = 61_135 * 1000, 61_135 * 300
    assert estimate.dollars == pytest.approx(1161.565)
    estimate.settings.batch_api = True
    assert estimate.dollars == pytest.approx(580.7825)
    for requests, tokens, minutes in ((None, None, None), (50, None, 2.0), (None, 3000, 4.0), (50, 3000, 4.0)):
        estimate = CostEstimate(LLMArguments(requests_per_minute=requests, tokens_per_minute=tokens))
        estimate.to_send, estimate.prompt_tokens, estimate.completion_tokens = 100, 9000, 3000
        assert estimate.minutes == minutes


# With the tokens that tiktoken 0.14 counts in each, by cl100k_base (gpt-4) and by o200k_base (gpt-4o).
COUNTED = {
    "A river runs to the sea, and it never comes back to its spring. Towns grew on both of its banks, because boats "
    "were the cheapest way to carry grain, timber and stone.": (39, 39),
    "Tom has 14 boxes with 36 pencils each, and sells 127 of them.\n14 * 36 = 504\n504 - 127 = 377\nThe answer is 377"
    "": (39, 39),
    "\\[\\frac{x^2 - 9}{x + 3} = x - 3\\] for $x \\ne -3$, so the limit is $\\boxed{-6}$.": (40, 40),
    "河流奔向大海，再也不会回到它的源头。两岸兴起了许多城镇，因为船只是运送粮食、木材和石料最便宜的方式。": (63, 44),
    "Река бежит к морю и никогда не возвращается к своему истоку. На обоих берегах выросли города.": (46, 27),
    "แม่น้ำไหลลงสู่ทะเลและไม่เคยไหลย้อนกลับไปยังต้นน้ำ เมืองหลายแห่งเกิดขึ้นสองฝั่งแม่น้ำเพราะเรือเป็นวิธีขนส่งข้าวที่ถูกที่สุด": (116, 49),
    "नदी समुद्र की ओर बहती है और कभी अपने स्रोत पर वापस नहीं आती। उसके दोनों किनारों पर नगर बसे, क्योंकि नाव से अनाज ले जाना "
    "सबसे सस्ता था।": (128, 39),
    "川は海へ流れ、二度と源には戻りません。両岸には町が育ちました。": (36, 26),
}


def test_the_estimate_is_within_15_percent(subtests: pytest.Subtests) -> None:
    older = ("gpt-4-0125-preview", "openai/gpt-4", "gpt-3.5-turbo", "meta-llama/Llama-2-7b-chat-hf")
    newer = ("gpt-4o-mini", "gpt-4.1", "gpt-5", "o3", "claude-sonnet-5", "my-deployment", "")
    for text, counts in COUNTED.items():
        for models, count in zip((older, newer), counts, strict=True):
            for model in models:
                with subtests.test(text=text, model=model):
                    assert estimated_tokens(text, model) == pytest.approx(count, rel=0.15)


def test_estimates_and_bounds_by_hand() -> None:
    # two words, a comma, three digits and one behind a space, a line: 2 + 0.8 + 1 + 2 + 0.9
    assert estimated_tokens("Hello,world123 4\n") == pytest.approx(6.7)
    assert estimated_tokens("") == 0.0
    assert estimated_tokens("\ud83d") == 1.6
    assert estimated_prompt([{"role": "user", "content": "Hello"}]) == 1 + 4 + 3
    # no prompt is longer than its bytes, or twice the estimate, and four templates
    template = 4 * (4 + 3)
    bound = {"prompt_tokens": 5 + template, "completion_tokens": 9}  # 2 · 2 · 1.17, rounded up
    assert most_tokens([{"role": "user", "content": "水水"}], 9) == bound
    assert most_tokens([{"role": "user", "content": "!?"}], 9)["prompt_tokens"] == 2 + template


def test_plausible_usage(subtests: pytest.Subtests) -> None:
    rows: list[tuple[Any, tuple[int, int] | None]] = [
        ({"prompt_tokens": 100, "completion_tokens": 20}, (100, 20)),
        ({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}, (100, 20)),
        ({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 900}, (100, 800)),  # reasoning, as Gemini's
        ({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 10**12}, (100, 20)),
        ({"prompt_tokens": 100.0, "completion_tokens": 20.0}, (100, 20)),
        ({"prompt_tokens": 100, "completion_tokens": 0}, (100, 0)),
        (None, None),
        ("free", None),
        ({}, None),
        ({"prompt_tokens": 100}, None),
        ({"prompt_tokens": -100, "completion_tokens": 20}, None),
        ({"prompt_tokens": 100, "completion_tokens": -20}, None),
        ({"prompt_tokens": True, "completion_tokens": 20}, None),
        ({"prompt_tokens": "100", "completion_tokens": "20"}, None),
        ({"prompt_tokens": float("nan"), "completion_tokens": 20}, None),
        ({"prompt_tokens": float("inf"), "completion_tokens": 20}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0}, None),
        ({"prompt_tokens": 10**9, "completion_tokens": 20}, None),
        ({"prompt_tokens": 100, "completion_tokens": 10**9}, None),
        ({"prompt_tokens": 100, "completion_tokens": 10**400}, None),
    ]
    for usage, counts in rows:
        with subtests.test(usage=str(usage)[:80]):
            found = plausible_usage(usage, 90, 1000)
            assert (tuple(found.values()) if found else None) == counts


def test_a_tokenizer_on_this_machine_counts(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    count = TokenCounter(str(tmp_path))
    assert count("abcdé") == 6  # a token a byte
    assert count.how == f"the tokenizer of {tmp_path}"
    for _ in range(300):
        count("ab")
    assert count("cd") == pytest.approx(2, rel=0.02)  # by the ratio of those before
    assert TokenCounter("gpt-4").how == TokenCounter("no/such-model").how == "an estimate by script"


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert endpoint_name(None) == "api.openai.com"
    assert endpoint_name("http://localhost:8000/v1") == "http://localhost:8000/v1"
    assert endpoint_name("https://me:secret@host:8/v1?api-key=secret#x") == "https://host:8/v1"
    found = address("https://host/openai/v1?api-version=2024-10-21&api-key=s%2Fx&flag")
    assert found[:2] == ("https://host/openai/v1", {"api-version": "2024-10-21", "api-key": "s/x", "flag": ""})
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example/v1?key=secret")
    assert address(None).url == "https://gateway.example/v1"
    assert where(None) == "https://gateway.example/v1 (by the environment variable OPENAI_BASE_URL)"
    assert where("http://localhost:8000/v1") == "http://localhost:8000/v1"


def test_faults_of_an_address(monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests) -> None:
    rows = [
        ("http://localhost:8000/v1", None),
        ("https://host/v1?api-version=1", None),
        ("localhost:8000", "no address of a server"),
        ("ftp://host/v1", "no address of a server"),
        ("http://host:80000/v1", "port is no number"),
        ("https://me:hunter2@host/v1", "write https://host/v1, and put the key into"),
        ("https://hunter2@host/v1", "write https://host/v1, and put the key into"),
    ]
    for url, words in rows:
        with subtests.test(url=url):
            monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
            assert (words in str(address_fault(url))) if words else address_fault(url) is None
            assert "hunter2" not in str(address_fault(url))
            monkeypatch.setenv("OPENAI_BASE_URL", url)
            assert ("OPENAI_BASE_URL" in str(address_fault(None))) == (words is not None)
            assert address_fault("http://localhost:8000/v1") is None
