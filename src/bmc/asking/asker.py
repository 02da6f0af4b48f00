"""Asking a model for what it hasn't answered yet."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from ..config import AskingArguments
from ..errors import Faults, fail
from .cost import Messages, Meter
from .replies import NoReply, Reply
from .store import KeptReplies, ReplyStore, request_key
from .trouble import place


class Stopped(Exception):
    """The run stops; nothing more is asked."""


class Asker(Protocol):
    """A model that answers messages, from what was kept or by being asked now."""

    async def ask(self, messages: Messages) -> Reply:
        """The reply to a conversation.

        Args:
            messages: `role` and `content` of each turn, the last one the user's.

        Raises:
            NoReply: The endpoint has no reply for this row (too long, filtered, failed for good).
            Faults: The run can't go on (no such model, a refused key).
        """
        ...

    def close(self) -> None:
        """Lets go of what it holds."""
        ...


class Model(Protocol):
    """What gives the answers: `endpoint.Endpoint`, `local.Local`, or one that only notes what it would be asked."""

    async def answer(self, messages: Messages, key: str) -> dict[str, Any]:
        """`{"content": …, "finish_reason": …, "prompt_tokens": …, "completion_tokens": …}`.

        Args:
            messages: `role` and `content` of each turn.
            key: The request's name, the same in every run.

        Raises:
            NoReply: There is none for this row.
            Faults: The run can't go on.
            Stopped: It was stopped before it asked.
        """
        ...

    def stop(self) -> None:
        """Has it begin nothing more."""
        ...

    async def aclose(self) -> None:
        """Lets go of what it holds."""
        ...


class StoredAsker:
    """An `Asker` that answers from a store, and has the model answer, once, what isn't there.

    An answer is in the store before it counts, and before the next request takes its place: a run that is killed loses
    `max_concurrency` answers at the most.

    Args:
        model: Gives the answers.
        settings: How it is asked.
        version: Of the prompts; another one asks everything anew.
        store: Of the answers.
        meter: Counts tokens and dollars.
    """

    def __init__(self, model: Model, settings: AskingArguments, version: int, store: KeptReplies, meter: Meter) -> None:
        self.model, self.settings, self.version, self.store, self.meter = model, settings, version, store, meter
        self.slots = asyncio.Semaphore(settings.max_concurrency)
        self.under_way: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self.stopped: Faults | None = None
        self.whole = False  # whether a reply had all that was asked for

    def key(self, messages: Messages) -> str:
        """The request's name: all that its answer depends on."""
        return request_key(version=self.version, **self.settings.request(messages))

    async def ask(self, messages: Messages) -> Reply:
        """The reply to a conversation, now or as it was when it was first asked."""
        key = self.key(messages)
        reply = self._kept(key)
        if reply is None:
            task = self.under_way.get(key)
            if task is None:
                task = self.under_way[key] = asyncio.create_task(self._answer(messages, key))
                task.add_done_callback(lambda done: self._finished(key, done))
            reply = await asyncio.shield(task)  # whoever stops waiting doesn't lose an answer that is paid for
        self.meter.use(reply)
        return Reply(
            text=reply["content"],
            finish_reason=reply["finish_reason"],
            prompt_tokens=reply["prompt_tokens"],
            completion_tokens=reply["completion_tokens"],
            first_token=reply.get("first_token"),
        )

    async def look(self, messages: Messages) -> None:
        """Has a request answered if it isn't yet, and counts nothing."""
        key = self.key(messages)
        if self._kept(key) is None:
            await self.model.answer(messages, key)

    def _kept(self, key: str) -> dict[str, Any] | None:
        """The cached reply, unless it lacks what is asked for."""
        reply = self.store.get(key)
        if reply is None or self.settings.lacks(reply):
            return None
        self.whole = True
        return reply

    async def _answer(self, messages: Messages, key: str) -> dict[str, Any]:
        async with self.slots:
            if self.stopped:
                raise self.stopped
            try:
                reply = await self.model.answer(messages, key)
                self.meter.pay(reply)
                if lacking := self.settings.lacks(reply):
                    raise self._unusable(lacking)
                self.whole = True
                if isinstance(self.store, ReplyStore):
                    await self.store.put(key, reply)
            except Stopped:
                raise (self.stopped or fail("the run", "was stopped")) from None
            except Faults as error:
                self.stop(error)  # before the next request takes the slot
                raise
            return reply

    def _unusable(self, lacking: str) -> Exception:
        """A reply that lacks something: a fault of the row where others had it, and else of the endpoint."""
        if self.whole:
            return NoReply(lacking)
        where = f"{self.settings.model} at {place(self.settings.base_url)}"
        return fail(where, f"{lacking}; nothing was kept of it: use a server and a model that give it")

    def _finished(self, key: str, task: asyncio.Task[dict[str, Any]]) -> None:
        del self.under_way[key]
        if not task.cancelled():
            task.exception()  # whoever asked may have gone, and asyncio would report it

    def stop(self, why: Faults) -> None:
        """Has nothing more asked."""
        self.stopped = self.stopped or why
        self.model.stop()

    async def aclose(self) -> None:
        """Waits for the answers under way, keeps them, and lets go of the model; the store stays open."""
        self.stop(fail("the run", "was stopped"))
        if self.under_way:
            await asyncio.gather(*self.under_way.values(), return_exceptions=True)
        await self.model.aclose()

    def close(self) -> None:
        """Closes the store."""
        self.store.close()
