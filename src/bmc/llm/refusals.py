"""Whether a 4xx is about one row or about every request: told by what other requests got, not by words."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from .replies import NoReply
from .tokens import Messages
from .trouble import Refused

FIRST_REFUSALS = 8  # requests that may be refused before any is answered; then it is the recipe's fault
PATIENCE = 50  # refusals one after another, before a request that was answered is sent again to see


class Refusals:
    """Decides on refused requests.

    One that is refused while others are answered, now or in an earlier run, is its row's affair. If none was answered
    yet, it waits for the fate of the others.

    Args:
        answered_before: Whether requests of this recipe were answered in an earlier run.
    """

    def __init__(self, answered_before: bool = False) -> None:
        self.answered_before = answered_before
        self.last_answered: Messages | None = None
        self.known: Messages | None = None  # answered in an earlier run
        self.in_a_row = 0
        self.busy = self.sent = self.waiting = 0
        self.hopeless = False
        self.changed = asyncio.Condition()

    async def begun(self) -> None:
        """Notes that a request is to be sent."""
        await self._note(busy=1)

    async def ended(self) -> None:
        """Notes that nothing more comes of a request."""
        await self._note(busy=-1)

    @contextlib.asynccontextmanager
    async def sending(self, messages: Messages) -> AsyncIterator[None]:
        """Sends a request; while too many were refused and none answered, it is held back until the others are back."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.waiting < FIRST_REFUSALS or self._decided())
            self.sent += 1
        try:
            yield
            self.last_answered, self.in_a_row = messages, 0
        finally:
            await self._note(sent=-1)

    async def _note(self, busy: int = 0, sent: int = 0) -> None:
        async with self.changed:
            self.busy += busy
            self.sent += sent
            self.changed.notify_all()

    async def outcome(self, refused: Refused, again: Callable[[Messages], Awaitable[bool]]) -> Exception:
        """`NoReply` if the refusal is about the row, else the fault.

        Args:
            refused: What a request got that has `begun`.
            again: Sends a request that was answered once more; returns whether it is answered again.
        """
        self.in_a_row += 1
        answered = self.last_answered or self.known
        if self.in_a_row >= PATIENCE and answered is not None:
            self.in_a_row = 0
            if not await again(answered):
                return refused.fault
        async with self.changed:
            self.waiting += 1
            self.changed.notify_all()
            await self.changed.wait_for(self._decided)
            self.waiting -= 1
        if self._about_rows():
            return NoReply(refused.row)
        self.hopeless = True
        return refused.fault

    def _about_rows(self) -> bool:
        return self.last_answered is not None or self.answered_before

    def _decided(self) -> bool:
        enough = self.waiting >= FIRST_REFUSALS and not self.sent
        return self._about_rows() or self.hopeless or enough or self.busy == self.waiting
