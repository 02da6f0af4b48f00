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
    """The next request could cost more than is left."""


class Budget:
    """Dollars that may be spent. A request gets through if its likely cost fits beside what is under way.

    The likely cost is the guess of whoever asks, times the most by which a guess has fallen short so far; until the
    first cost is known one request goes alone. So a stop comes with nothing under way, and nothing paid for is lost.

    Args:
        most: Dollars.
        spent: Dollars that were spent before.
        answers: Answers that were given for those; as much as one of them cost, the first must fit too.
    """

    def __init__(self, most: float, spent: float = 0.0, answers: int = 0) -> None:
        self.most, self.spent = most, spent
        self.typical = spent / answers if answers else 0.0
        self.reserved, self.under_way = 0.0, 0
        self.factor: float | None = None
        self.changed = asyncio.Condition()

    async def reserve(self, guess: float) -> float:
        """Waits until a request of about this cost may be sent.

        Returns:
            What was set aside for it, for `settle`.

        Raises:
            OverBudget: It doesn't fit, and nothing is under way that might make room.
        """
        async with self.changed:
            while True:
                likely = guess * (self.factor or 1.0)
                fits = self.spent + self.reserved + likely <= self.most and self.factor is not None
                first = self.factor is None and self.spent < self.most and self.spent + self.typical <= self.most
                if fits or (first and not self.under_way):
                    self.reserved += likely
                    self.under_way += 1
                    return likely
                if not self.under_way:
                    raise OverBudget
                await self.changed.wait()

    async def settle(self, reserved: float, guess: float, cost: float | None) -> None:
        """Notes what a request has cost; None where it failed."""
        async with self.changed:
            self.reserved -= reserved
            self.under_way -= 1
            if cost is not None:
                self.spent += cost
                self.factor = max(self.factor or 0.0, cost / guess if guess else 1.0)
            self.changed.notify_all()
