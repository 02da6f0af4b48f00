"""How fast a model may be asked, and how much that may cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class TokenBucket:
    """Lets so much through a minute, in the order of asking.

    What is let through within any t seconds is at most `rate · t + capacity`, plus what a single taker takes beyond the
    capacity.
    """

    def __init__(self, per_minute: float, capacity: float, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            per_minute: Units a minute.
            capacity: Units that may go at once after a pause.
            clock: Seconds.
        """
        self.rate, self.capacity, self.clock = per_minute / 60, capacity, clock
        self.level, self.looked = capacity, clock()

    def reserve(self, amount: float) -> float:
        """Takes units, which may have to be paid back by those that come later.

        Returns:
            Seconds to wait before using them.
        """
        now = self.clock()
        self.level = min(self.capacity, self.level + (now - self.looked) * self.rate)
        self.looked = now
        wait = max(0.0, (min(amount, self.capacity) - self.level) / self.rate)
        self.level -= amount
        return wait

    def settle(self, difference: float) -> None:
        """Gives back what was reserved and not used; takes more where it is negative."""
        self.level += difference


class OverBudget(Exception):
    """The next request could cost more than is left.

    Attributes:
        bound: What it could cost.
    """

    def __init__(self, bound: float) -> None:
        super().__init__(f"${bound:,.4f}")
        self.bound = bound


class Budget:
    """Dollars that may be spent. A request gets through if the most that it can cost fits beside what is under way, so
    that the sum is never exceeded.

    Bounds rest on the request's limit on tokens; where an endpoint bills more than a bound, later ones grow by as much.

    Args:
        most: Dollars.
        spent: Dollars that were spent before.
    """

    def __init__(self, most: float, spent: float = 0.0) -> None:
        self.most, self.spent = most, spent
        self.reserved, self.under_way = 0.0, 0
        self.excess = 1.0
        self.changed = asyncio.Condition()

    async def reserve(self, bound: float) -> float:
        """Waits until a request that costs this at the most may be sent.

        Returns:
            What was set aside for it, for `settle`.

        Raises:
            OverBudget: It doesn't fit, and nothing is under way that might make room.
        """
        async with self.changed:
            while True:
                likely = bound * self.excess
                if self.spent + self.reserved + likely <= self.most and self.spent < self.most:
                    self.reserved += likely
                    self.under_way += 1
                    return likely
                if not self.under_way:
                    raise OverBudget(likely)
                await self.changed.wait()

    async def settle(self, reserved: float, bound: float, cost: float) -> None:
        """Notes what a request has cost: 0 where it failed."""
        async with self.changed:
            self.reserved -= reserved
            self.under_way -= 1
            self.spent += cost
            if bound:
                self.excess = max(self.excess, cost / bound)
            self.changed.notify_all()
