"""LLM client: rate limits, a cost cap, a response cache and dry runs.

`CachedClient` answers from the cache and sends each missing request once, by a `ChatModel`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ..config import LLMArguments
from ..errors import Faults, fail
from .address import endpoint_name
from .cache import CachedResponses, ResponseCache, cache_path, request_key
from .cost import CostEstimate, Messages, TokenCounter, UsageTracker, characters
from .errors import RefusalPolicy, RequestFailed, RequestRefused, RetryableError

Result = TypeVar("Result")
LONG = 2_000  # characters; below, work on a text takes no more than a millisecond


@dataclass(frozen=True)
class Completion:
    """What a model said.

    Attributes:
        text: Its words; empty where it said nothing.
        finish_reason: Why it stopped, in the words of the chat-completions protocol: `stop`, `length`, …
        prompt_tokens: Tokens that it read.
        completion_tokens: Tokens that it wrote.
        first_token: What might have stood in the place of its first token, as `{"token": …, "logprob": …}` each; None
            where the request asks for no log-probabilities.
    """

    text: str
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    first_token: list[dict[str, Any]] | None = None


async def off_loop(size: int, work: Callable[..., Result], *arguments: Any) -> Result:
    """Do work on long texts in a thread: while the event loop stands still, requests in flight time out although they
    are answered, and are paid for twice.

    Args:
        size: Characters.
        work: What to do.
        arguments: Its arguments.
    """
    return work(*arguments) if size < LONG else await asyncio.to_thread(work, *arguments)


Earlier = Callable[[Messages], list[tuple[int, Messages]]]  # messages → (version, messages) of earlier prompts


class RunAborted(Exception):
    """The run stops; nothing more is asked."""


class ChatModel(Protocol):
    """An LLM: `OpenAIClient`, `BatchClient`, `LocalClient`, or `DryRunClient`."""

    async def complete(self, messages: Messages, key: str) -> dict[str, Any]:
        """`{"content": …, "finish_reason": …, "prompt_tokens": …, "completion_tokens": …}`.

        Args:
            messages: `role` and `content` of each turn.
            key: The request's name, the same in every run.

        Raises:
            RequestFailed: There is none for this row.
            RequestRefused: The endpoint refuses it; whether that is about the row isn't known.
            Faults: The run can't go on.
            RunAborted: It was stopped before it asked.
        """
        ...

    def stop(self) -> None:
        """Has it begin nothing more."""
        ...

    async def aclose(self) -> None:
        """Lets go of what it holds."""
        ...


class CachedClient:
    """An `CachedClient` that answers from a store, and has the model answer, once, what isn't there.

    An answer is in the store before it counts, and before the next request takes its place: a run that is killed loses
    `max_concurrency` answers at the most.

    Args:
        model: Gives the answers.
        settings: How it is asked.
        version: Of the prompts; another one asks everything anew.
        store: Of the answers.
        usage: Counts tokens and dollars.
        answered_before: Whether the model answered requests of this recipe in an earlier run.
        earlier: Returns how a request was worded in earlier versions, with these; what was answered to it then counts.
    """

    def __init__(
        self,
        model: ChatModel,
        settings: LLMArguments,
        version: int,
        store: CachedResponses,
        usage: UsageTracker,
        answered_before: bool = False,
        earlier: Earlier = lambda messages: [],
    ) -> None:
        self.earlier = earlier
        self.model, self.settings, self.version, self.store, self.usage = model, settings, version, store, usage
        self.slots = asyncio.Semaphore(settings.max_concurrency)
        self.refusals = RefusalPolicy(answered_before)
        self.under_way: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self.stopped: Faults | None = None
        self.whole = False  # whether a reply had all that was asked for

    def key(self, messages: Messages) -> str:
        """The request's name: all that its answer depends on."""
        return request_key(version=self.version, **self.settings.request(messages))

    def keys(self, messages: Messages) -> list[str]:
        """Return the request's name, and those under which earlier versions may have cached its response."""
        older = self.earlier(messages)
        return [self.key(messages), *(request_key(version=old, **self.settings.request(said)) for old, said in older)]

    def cached(self, keys: list[str]) -> dict[str, Any] | None:
        """The cached response to a request by any of its names, if there is one that is whole.

        The usage of all of them is counted, but for that of responses to the first, which may still come.
        """
        for key in keys[1:]:
            self.usage.use(key, None, self.store.charges.get(key, []))
        for key in keys:
            if reply := self.kept(key):
                self.usage.use(key, reply, self.store.charges.get(key, []))
                return reply
        return None

    def kept(self, key: str) -> dict[str, Any] | None:
        """The cached response of that name, if there is one that is whole."""
        reply = self.store.get(key)
        if reply is None:
            return None
        if not _is_whole(reply):
            self.store.damage(key)
            return None
        if self.settings.lacks(reply):
            return None
        self.whole = True
        return reply

    async def complete(self, messages: Messages) -> Completion:
        """The reply to a conversation, now or as it was when it was first asked."""
        keys = await off_loop(characters(messages), self.keys, messages)
        key, reply = keys[0], self.cached(keys)
        if reply is not None:
            self.refusals.known = messages
        else:
            try:
                reply = await asyncio.shield(self._task(messages, key))  # what is paid for isn't lost with who waits
            finally:
                self.usage.use(key, reply, self.store.charges.get(key, []))
        return Completion(
            text=reply["content"],
            finish_reason=reply["finish_reason"],
            prompt_tokens=reply["prompt_tokens"],
            completion_tokens=reply["completion_tokens"],
            first_token=reply.get("first_token"),
        )

    async def prefetch(self, messages: Messages) -> None:
        """Has a request answered if it isn't yet, and counts no answer."""
        keys = self.keys(messages)
        key = keys[0]
        self.usage.use(key, None, self.store.charges.get(key, []))
        if not any(map(self.kept, keys)) and not self.store.given_up(key, self.settings.max_unusable_replies):
            await self.model.complete(messages, key)

    def _task(self, messages: Messages, key: str) -> asyncio.Task[dict[str, Any]]:
        """The request under way; two that are equal share one."""
        task = self.under_way.get(key)
        if task is None:
            if reason := self.store.given_up(key, self.settings.max_unusable_replies):
                raise RequestFailed(reason)
            task = self.under_way[key] = asyncio.create_task(self._answer(messages, key))
            task.add_done_callback(lambda done: self._finished(key, done))
        return task

    async def _answer(self, messages: Messages, key: str) -> dict[str, Any]:
        await self.refusals.begun()
        try:
            return await self._sent(messages, key)
        except RequestRefused as refused:
            outcome = await self.refusals.outcome(refused, self._answers_again)
            if isinstance(outcome, Faults):
                self.stop(outcome)
            raise outcome from None
        finally:
            await self.refusals.ended()

    async def _sent(self, messages: Messages, key: str) -> dict[str, Any]:
        async with self.slots:
            try:
                async with self.refusals.sending(messages):
                    if self.stopped:
                        raise self.stopped
                    reply = await self.model.complete(messages, key)
                if lacking := self.settings.lacks(reply):
                    raise await self._unusable(key, reply, lacking)
                self.whole = True
                self.usage.pay(reply)
                if isinstance(self.store, ResponseCache):
                    await self.store.put(key, reply)
            except RunAborted:
                raise (self.stopped or fail("the run", "was stopped")) from None
            except Faults as error:
                self.stop(error)  # before the next request takes the slot
                raise
            return reply

    async def _unusable(self, key: str, reply: dict[str, Any], lacking: str) -> Exception:
        """A paid reply that lacks something: a fault of the row where others had it, and else of the endpoint."""
        await self._charge(key, reply, {"kind": lacking})
        if self.whole:
            return RequestFailed(lacking)
        where = f"{self.settings.model} at {endpoint_name(self.settings.base_url)}"
        return fail(where, f"{lacking}; nothing was kept of it: use a server and a model that give it")

    async def _charge(self, key: str, reply: dict[str, Any], charge: dict[str, Any]) -> None:
        """Counts and keeps what a reply has cost that is no answer."""
        charge |= {name: reply[name] for name in ("prompt_tokens", "completion_tokens")}
        self.usage.pay_unusable(charge)
        if isinstance(self.store, ResponseCache):
            await self.store.charge(key, charge)

    async def _answers_again(self, messages: Messages) -> bool:
        """Sends a request that was answered once more, to see whether the model still answers anything."""
        key = self.key(messages)
        try:
            reply = await self.model.complete(messages, key)
        except RequestRefused:
            return False
        except (RequestFailed, RetryableError, RunAborted):
            return True  # that is another failure, with a patience of its own
        await self._charge(key, reply, {"kind": "sent again", "again": True})
        self.usage.use(key, None, self.store.charges.get(key, []))
        return True

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
        interrupted = isinstance(sys.exception(), asyncio.CancelledError | KeyboardInterrupt)
        self.stop(fail("the run", "was stopped"))
        if self.under_way:
            if interrupted:
                what = f"stopping: waiting for {self.refusals.sent:,} answers that are under way and paid for"
                print(f"\n{what} (Ctrl-C again leaves them); every answer so far is kept", file=sys.stderr, flush=True)
            await asyncio.gather(*self.under_way.values(), return_exceptions=True)
        await self.model.aclose()

    def close(self) -> None:
        """Closes the store."""
        self.store.close()


def _is_whole(reply: dict[str, Any]) -> bool:
    """Whether a kept reply has all that is read of it."""
    counts = (reply.get("prompt_tokens"), reply.get("completion_tokens"))
    return (
        isinstance(reply.get("content"), str)
        and isinstance(reply.get("finish_reason"), str | None)
        and "finish_reason" in reply
        and all(type(count) is int and 0 <= count < 2**53 for count in counts)
    )


class CacheMiss(Exception):
    """The row waits for an answer."""


class DryRunClient:
    """A `ChatModel` that hands on what it would be asked, and answers nothing."""

    def __init__(self, note: Callable[[Messages, str], None]) -> None:
        self.note = note

    async def complete(self, messages: Messages, key: str) -> dict[str, Any]:
        self.note(messages, key)
        raise CacheMiss

    def stop(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


@dataclass(frozen=True)
class PendingRequest:
    """What one row asks.

    Attributes:
        send: Sends its requests by a client; may raise `CacheMiss`, and nothing else that is the row's.
        like: A text about as long as an answer.
    """

    send: Callable[[CachedClient], Awaitable[object]]
    like: str


async def collect_requests(job: PendingRequest, client: CachedClient) -> None:
    """Have a client of a `DryRunClient` note what a row asks beyond what is kept, some of it perhaps twice."""
    with contextlib.suppress(CacheMiss):
        await job.send(client)


class _Quoting(CachedClient):
    """A client of a `DryRunClient` that tells what kept replies had in tokens."""

    learn: Callable[[Messages, Completion], None]

    async def complete(self, messages: Messages) -> Completion:
        reply = await super().complete(messages)
        self.learn(messages, reply)
        return reply


async def estimate_cost(
    jobs: Iterable[PendingRequest],
    settings: LLMArguments,
    version: int,
    store: CachedResponses,
    earlier: Earlier = lambda messages: [],
) -> CostEstimate:
    """What the rows would ask, beyond what the store has.

    Args:
        jobs: One a row.
        settings: How the model is asked.
        version: Of the prompts.
        store: Of the answers.
        earlier: As `CachedClient` has it.
    """
    count = TokenCounter(settings.model)
    found = CostEstimate(settings, count.how, seen=store.size())
    expected, noted = 0.0, set[str]()

    def note(messages: Messages, key: str) -> None:
        if key in noted:
            return
        noted.add(key)
        found.asked += 1
        found.prompt_tokens += count.prompt(messages)
        found.completion_tokens += min(expected, settings.max_tokens)

    def learn(messages: Messages, reply: Completion) -> None:
        estimates = count.prompt(messages), min(expected, settings.max_tokens)
        found.learn(estimates, (reply.prompt_tokens, reply.completion_tokens))

    usage = UsageTracker(found.price)
    client = _Quoting(DryRunClient(note), settings, version, store, usage, earlier=earlier)
    client.learn = learn
    for job in jobs:
        found.rows += 1
        expected = count(job.like)
        noted.clear()
        await collect_requests(job, client)
    found.kept, found.kept_dollars = int(usage.used["replies"]), usage.used["dollars"]
    found.possibly_billed = usage.lost_dollars
    found.correct()
    return found


@contextlib.asynccontextmanager
async def open_client(
    settings: LLMArguments,
    version: int,
    jobs: Callable[[], Iterable[PendingRequest]],
    found: CostEstimate,
    make_model: Callable[[UsageTracker, ResponseCache, float], ChatModel],
    earlier: Earlier = lambda messages: [],
) -> AsyncIterator[CachedClient]:
    """Opens the store, to be written by this process alone if anything is to be asked, and asks on it.

    What earlier runs have spent is read once the store is locked: another process may have added to it since the quote.

    Args:
        settings: How the model is asked.
        version: Of the prompts.
        jobs: What each row asks; may be called several times.
        found: The quote.
        make_model: Makes the model of a usage, the store, and the dollars that are spent already.
        earlier: As `CachedClient` has it.
    """
    path = cache_path(settings.replies, settings.output_dir)  # type: ignore[attr-defined]
    usage = UsageTracker(settings.prices.get(settings.model))
    if not found.asked:  # so that a store that can't be written will do
        with contextlib.closing(CachedResponses(path)) as kept:
            yield CachedClient(DryRunClient(lambda *_: None), settings, version, kept, usage, earlier=earlier)
        return
    with contextlib.closing(ResponseCache(path, settings.batch_api)) as store:
        if store.size() != found.seen:
            found = await estimate_cost(jobs(), settings, version, store, earlier)
        model = make_model(usage, store, found.prior_spend)
        client = CachedClient(model, settings, version, store, usage, found.kept > 0, earlier)
        try:
            yield client
        finally:
            await client.aclose()
            print(usage)


def confirm(settings: LLMArguments, found: CostEstimate) -> None:
    """Asks on a terminal before anything is paid for.

    Raises:
        Faults: The quote is declined.
    """
    if settings.yes or not found.asked or not sys.stdin.isatty():
        return
    if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise fail("the quote", "was declined, and nothing was asked; --yes goes on without a question")
