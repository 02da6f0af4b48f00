"""LLM client: rate limits, a cost cap, a response cache and dry runs.

`CachedClient` returns responses from the cache, and sends each missing request once, by a `ChatModel`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ..config import LLMArguments
from ..errors import UserErrors, user_error
from .address import endpoint_name
from .cache import CachedResponses, ResponseCache, cache_path, request_key
from .cost import CostEstimate, Messages, TokenCounter, UsageTracker, characters
from .errors import CACHED, RefusalPolicy, RequestFailed, RequestRefused, RetryableError, RunAborted

Result = TypeVar("Result")
EarlierVersions = Callable[[Messages], list[tuple[int, Messages]]]  # messages → (version, messages) of older prompts
LONG = 2_000  # characters; work on shorter texts takes no more than a millisecond


@dataclass(frozen=True)
class Completion:
    """A model's response."""

    text: str  # may be empty
    finish_reason: str | None  # as the chat-completions protocol has it: `stop`, `length`, …
    prompt_tokens: int  # tokens of the request
    completion_tokens: int  # tokens of the response
    # likely first tokens, each `{"token": …, "logprob": …}`; None if the request asks for no log-probabilities
    first_token: list[dict[str, Any]] | None = None


class ChatModel(Protocol):
    """An LLM: `OpenAIClient`, `BatchClient`, `LocalClient` or `DryRunClient`."""

    async def complete(self, messages: Messages, key: str) -> dict[str, Any]:
        """Return `{"content": …, "finish_reason": …, "prompt_tokens": …, "completion_tokens": …}`.

        The last of the `messages` is the user's; `key` is the request's hash, the same in every run.

        Raises:
            RequestFailed: Row error.
            RequestRefused: Row error or fatal; `RefusalPolicy` decides.
            UserErrors: Fatal.
            RunAborted: The run ended before the request was sent.
        """
        ...

    def stop(self) -> None:
        """Send no further requests."""
        ...

    async def aclose(self) -> None:
        """Release its resources."""
        ...


async def off_loop(size: int, work: Callable[..., Result], *arguments: Any) -> Result:
    """Call `work(*arguments)`, for long texts in a thread.

    While the event loop stands still, requests in flight time out although their responses are there, and are paid for
    twice.
    """
    return work(*arguments) if size < LONG else await asyncio.to_thread(work, *arguments)


class CachedClient:
    """Returns responses from a cache, and has a model complete, once, what isn't there.

    A response is in the cache before it counts, and before the next request takes its place: a run that is killed loses
    `max_concurrency` responses at most.

    `version` is that of the prompts: another one makes all requests new, but a response to what `earlier` returns, the
    requests as older versions worded them, counts too. `succeeded_before` says whether requests of this recipe
    succeeded in an earlier run.
    """

    def __init__(
        self,
        model: ChatModel,
        settings: LLMArguments,
        version: int,
        cache: CachedResponses,
        usage: UsageTracker,
        succeeded_before: bool = False,
        earlier: EarlierVersions = lambda messages: [],
    ) -> None:
        self.model, self.settings, self.version, self.cache, self.usage = model, settings, version, cache, usage
        self.earlier = earlier
        self.slots = asyncio.Semaphore(settings.max_concurrency)
        self.refusals = RefusalPolicy(succeeded_before)
        self.in_flight: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self.stopped: UserErrors | None = None
        self.any_complete = False  # whether a response had all that the recipe needs of it

    def keys(self, messages: Messages) -> list[str]:
        """Return a request's key, and those under which older prompt versions may have cached its response."""
        versions = [(self.version, messages), *self.earlier(messages)]
        return [request_key(version=version, **self.settings.request(worded)) for version, worded in versions]

    def cached(self, keys: list[str]) -> dict[str, Any] | None:
        """Return the cached completion of a request, if there is one.

        Usage is counted for all of its keys, but for the first one's charges, of which more may come.
        """
        for key in keys[1:]:
            self._use(key, None)
        for key in keys:
            if completion := self._get(key):
                self._use(key, completion)
                return completion
        return None

    def _get(self, key: str) -> dict[str, Any] | None:
        """Return the completion cached under a key, if it has all that the recipe needs of it."""
        completion = self.cache.get(key)
        if completion is None:
            return None
        if not _is_completion(completion):
            self.cache.report_damage(key)
            return None
        if self.settings.lacks(completion):
            return None
        self.any_complete = True
        return completion

    def _use(self, key: str, completion: dict[str, Any] | None) -> None:
        self.usage.use(key, completion, self.cache.charges.get(key, []))

    async def complete(self, messages: Messages) -> Completion:
        """Return the response to a conversation, from the cache or from the model.

        Raises:
            RequestFailed: Row error: too long, filtered, failed for good.
            UserErrors: Fatal: no such model, an invalid key, the cost cap.
        """
        keys = await off_loop(characters(messages), self.keys, messages)
        key, found = keys[0], self.cached(keys)
        if found is not None:
            self.refusals.cached = messages
        else:
            try:
                found = await asyncio.shield(self._task(messages, key))  # a caller that goes doesn't waste its price
            finally:
                self._use(key, found)
        return Completion(
            text=found["content"],
            finish_reason=found["finish_reason"],
            prompt_tokens=found["prompt_tokens"],
            completion_tokens=found["completion_tokens"],
            first_token=found.get("first_token"),
        )

    async def prefetch(self, messages: Messages) -> None:
        """Have a request completed if it isn't cached; its completion doesn't count as used."""
        keys = self.keys(messages)
        self._use(keys[0], None)
        if not any(map(self._get, keys)) and not self._given_up(keys[0]):
            await self.model.complete(messages, keys[0])

    def _given_up(self, key: str) -> str | None:
        return self.cache.given_up(key, self.settings.max_unusable_responses)

    def _task(self, messages: Messages, key: str) -> asyncio.Task[dict[str, Any]]:
        """Return the request in flight; equal ones share it."""
        task = self.in_flight.get(key)
        if task is None:
            if reason := self._given_up(key):
                raise RequestFailed(reason)
            task = self.in_flight[key] = asyncio.create_task(self._completed(messages, key))
            task.add_done_callback(lambda done: self._finished(key, done))
        return task

    async def _completed(self, messages: Messages, key: str) -> dict[str, Any]:
        async with self.refusals.request():
            try:
                return await self._sent(messages, key)
            except RequestRefused as refused:
                outcome = await self.refusals.outcome(refused, self._still_succeeds)
                if isinstance(outcome, UserErrors):
                    self.stop(outcome)
                raise outcome from None

    async def _sent(self, messages: Messages, key: str) -> dict[str, Any]:
        async with self.slots:
            try:
                async with self.refusals.sending(messages):
                    if self.stopped:
                        raise self.stopped
                    completion = await self.model.complete(messages, key)
                if lacking := self.settings.lacks(completion):
                    raise await self._incomplete(key, completion, lacking)
                self.any_complete = True
                self.usage.pay(completion)
                if isinstance(self.cache, ResponseCache):
                    await self.cache.put(key, completion)
            except RunAborted:
                raise (self.stopped or user_error("the run", "was stopped")) from None
            except UserErrors as error:
                self.stop(error)  # before the next request takes the slot
                raise
            return completion

    async def _incomplete(self, key: str, completion: dict[str, Any], lacking: str) -> Exception:
        """Charge a billed response that lacks something: a row error if others had it, else fatal."""
        await self._charge(key, completion, {"kind": lacking})
        if self.any_complete:
            return RequestFailed(lacking)
        where = f"{self.settings.model} at {endpoint_name(self.settings.base_url)}"
        return user_error(where, f"{lacking}; the response was not cached: use a server and a model that provide it")

    async def _charge(self, key: str, completion: dict[str, Any], charge: dict[str, Any]) -> None:
        charge |= {name: completion[name] for name in ("prompt_tokens", "completion_tokens")}
        self.usage.pay_unusable(charge)
        if isinstance(self.cache, ResponseCache):
            await self.cache.charge(key, charge)

    async def _still_succeeds(self, messages: Messages) -> bool:
        """Send a request that succeeded again, to see whether the model still accepts anything."""
        key = self.keys(messages)[0]
        try:
            completion = await self.model.complete(messages, key)
        except RequestRefused:
            return False
        except (RequestFailed, RetryableError, RunAborted):
            return True  # other failures have a patience of their own
        await self._charge(key, completion, {"kind": "sent again", "again": True})
        self._use(key, None)
        return True

    def _finished(self, key: str, task: asyncio.Task[dict[str, Any]]) -> None:
        del self.in_flight[key]
        if not task.cancelled():
            task.exception()  # read, so that asyncio doesn't report it as never retrieved

    def stop(self, why: UserErrors) -> None:
        """Send no further requests."""
        self.stopped = self.stopped or why
        self.model.stop()

    async def aclose(self) -> None:
        """Wait for the requests in flight, cache their responses, and close the model; the cache stays open."""
        interrupted = isinstance(sys.exception(), asyncio.CancelledError | KeyboardInterrupt)
        self.stop(user_error("the run", "was stopped"))
        if self.in_flight:
            if interrupted:
                what = f"stopping: waiting for {self.refusals.sent:,} requests that are in flight and paid for"
                print(f"\n{what} (Ctrl-C again abandons them); {CACHED}", file=sys.stderr, flush=True)
            await asyncio.gather(*self.in_flight.values(), return_exceptions=True)
        await self.model.aclose()


def _is_completion(cached: dict[str, Any]) -> bool:
    """Return whether a cached row has all fields of a completion."""
    counts = (cached.get("prompt_tokens"), cached.get("completion_tokens"))
    return (
        isinstance(cached.get("content"), str)
        and isinstance(cached.get("finish_reason"), str | None)
        and "finish_reason" in cached
        and all(type(count) is int and 0 <= count < 2**53 for count in counts)
    )


class CacheMiss(Exception):
    """Raised in a dry run by a request that isn't cached."""


class DryRunClient:
    """`ChatModel` that records requests instead of sending them."""

    def __init__(self, record: Callable[[Messages, str], None] = lambda *_: None) -> None:
        self.record = record

    async def complete(self, messages: Messages, key: str) -> dict[str, Any]:
        self.record(messages, key)
        raise CacheMiss

    def stop(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


@dataclass(frozen=True)
class PendingRequest:
    """What one row requests."""

    # sends it by a client; raises no other exception of the row's than `CacheMiss`
    send: Callable[[CachedClient], Awaitable[object]]
    like: str  # a text about as long as the expected response


async def collect_requests(pending: PendingRequest, client: CachedClient) -> None:
    """Have the `DryRunClient` of a client record a row's requests that aren't cached, some perhaps twice."""
    with contextlib.suppress(CacheMiss):
        await pending.send(client)


class _EstimatingClient(CachedClient):
    """A client of a `DryRunClient` that reports the tokens of cached responses."""

    learn: Callable[[Messages, Completion], None]

    async def complete(self, messages: Messages) -> Completion:
        completion = await super().complete(messages)
        self.learn(messages, completion)
        return completion


async def estimate_cost(
    pending: Iterable[PendingRequest],
    settings: LLMArguments,
    version: int,
    cache: CachedResponses,
    earlier: EarlierVersions = lambda messages: [],
) -> CostEstimate:
    """Estimate the cost of the requests that aren't cached, by a dry run over the rows."""
    count = TokenCounter(settings.model)
    estimate = CostEstimate(settings, count.how, seen=cache.size())
    expected, recorded = 0.0, set[str]()

    def record(messages: Messages, key: str) -> None:
        if key in recorded:
            return
        recorded.add(key)
        estimate.to_send += 1
        estimate.prompt_tokens += count.prompt(messages)
        estimate.completion_tokens += min(expected, settings.max_tokens)

    def learn(messages: Messages, completion: Completion) -> None:
        estimates = count.prompt(messages), min(expected, settings.max_tokens)
        estimate.learn(estimates, (completion.prompt_tokens, completion.completion_tokens))

    usage = UsageTracker(estimate.price)
    client = _EstimatingClient(DryRunClient(record), settings, version, cache, usage, earlier=earlier)
    client.learn = learn
    for row in pending:
        estimate.rows += 1
        expected = count(row.like)
        recorded.clear()
        await collect_requests(row, client)
    estimate.cached, estimate.cached_dollars = int(usage.used["completions"]), usage.used["dollars"]
    estimate.possibly_billed = usage.lost_dollars
    estimate.correct()
    return estimate


@contextlib.asynccontextmanager
async def open_client(
    settings: LLMArguments,
    version: int,
    pending: Callable[[], Iterable[PendingRequest]],
    estimate: CostEstimate,
    make_model: Callable[[UsageTracker, ResponseCache, float], ChatModel],
    earlier: EarlierVersions = lambda messages: [],
) -> AsyncIterator[CachedClient]:
    """Open the cache and a client on it; the cache is locked for writing if anything is to be sent.

    Prior spend is read again if another process has added to the cache since the estimate.
    """
    path = cache_path(settings.response_cache, settings.output_dir)  # type: ignore[attr-defined]
    usage = UsageTracker(settings.prices.get(settings.model))
    if not estimate.to_send:  # so that a cache that can't be written will do
        with contextlib.closing(CachedResponses(path)) as cached:
            yield CachedClient(DryRunClient(), settings, version, cached, usage, earlier=earlier)
        return
    with contextlib.closing(ResponseCache(path, settings.batch_api)) as cache:
        if cache.size() != estimate.seen:
            estimate = await estimate_cost(pending(), settings, version, cache, earlier)
        model = make_model(usage, cache, estimate.prior_spend)
        client = CachedClient(model, settings, version, cache, usage, estimate.cached > 0, earlier)
        try:
            yield client
        finally:
            await client.aclose()
            print(usage)


def confirm(settings: LLMArguments, estimate: CostEstimate) -> None:
    """Ask on a terminal before anything is paid for.

    Raises:
        UserErrors: The estimate is declined.
    """
    if settings.yes or not estimate.to_send or not sys.stdin.isatty():
        return
    if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise user_error("the cost estimate", "was declined, and nothing was sent; --yes continues without a question")
