from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmc.errors import UserErrors
from bmc.llm.openai_client import Budget, TokenBucket


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_requests_come_evenly() -> None:
    bucket = TokenBucket(120, 1, Clock())  # two a second, one at once
    assert [bucket.reserve(1) for _ in range(4)] == [0.0, 0.5, 1.0, 1.5]


def test_a_pause_saves_no_more_than_the_capacity() -> None:
    clock = Clock()
    bucket = TokenBucket(60, 3, clock)
    assert [bucket.reserve(1) for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]
    clock.now = 100.0
    assert [bucket.reserve(1) for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]


def test_what_is_larger_than_the_bucket_goes_when_it_is_full_and_is_paid_after() -> None:
    clock = Clock()
    bucket = TokenBucket(600, 10, clock)  # 10 a second
    assert bucket.reserve(50) == 0.0
    assert bucket.reserve(10) == 5.0  # 40 to pay back, then 10 to gather
    clock.now = 2.0
    assert bucket.reserve(1) == pytest.approx(3.1)


def test_what_was_reserved_and_not_used_is_given_back() -> None:
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
        assert not second.done()  # 0.4 spent and 0.3 set aside
        await budget.settle(first, 0.3, 0.1)
        assert await second == 0.4
        await budget.settle(0.4, 0.4, 0.0)  # it failed and has cost nothing
        with pytest.raises(UserErrors):
            await budget.reserve(0.6)
        await budget.settle(await budget.reserve(0.1), 0.1, 0.2)  # twice what was thought to be the most
        assert await budget.reserve(0.1) == pytest.approx(0.2)
        assert budget.spent == pytest.approx(0.7)
        third = asyncio.create_task(budget.reserve(0.1))
        await asyncio.sleep(0)
        assert not third.done()
        await budget.settle(0.2, 0.1, 0.2)
        with pytest.raises(UserErrors):
            await third

    asyncio.run(run())


@pytest.mark.parametrize(("most", "spent"), [(0.0, 0.0), (1.0, 1.0), (1.0, 2.0)])
def test_nothing_is_asked_of_a_budget_that_is_spent(most: float, spent: float) -> None:
    with pytest.raises(UserErrors):
        asyncio.run(Budget(most, spent).reserve(0.0001))
