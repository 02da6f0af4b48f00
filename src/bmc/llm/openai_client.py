"""Requests to an OpenAI-compatible endpoint, within rate limits and a cost cap."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, TypeVar

from ..config import LLMArguments
from ..errors import UserErrors, user_error
from .address import address, endpoint_name
from .cache import ResponseCache
from .client import off_loop
from .cost import Messages, UsageTracker, characters, estimated_prompt, estimated_tokens, most_tokens, plausible_usage
from .errors import (
    CACHED,
    RequestFailed,
    RetryableError,
    RunAborted,
    UnusableResponse,
    classify_error,
    excerpt,
    not_the_protocol,
    read_completion,
    wait_before,
)

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
LEAST_PATIENCE = 50  # requests in a row that may fail for good before the run stops
NOT_SENT = {"ConnectError", "ConnectTimeout", "PoolTimeout"}  # what httpx raises before it sends a request
LATE = 0.1  # seconds by which a timer may be late on a machine that isn't overloaded
LONG_WAIT = 10.0  # seconds to wait that are worth a message


class TokenBucket:
    """Rate limit, first come, first served.

    Within any t seconds at most `rate · t + capacity` units pass, plus what a single taker takes beyond the capacity.
    """

    def __init__(self, per_minute: float, capacity: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.capacity, self.clock = per_minute / 60, capacity, clock
        self.level, self.updated = capacity, clock()

    def reserve(self, amount: float) -> float:
        """Take units, on credit if need be, and return the seconds to wait before using them."""
        now = self.clock()
        self.level = min(self.capacity, self.level + (now - self.updated) * self.rate)
        self.updated = now
        wait = max(0.0, (min(amount, self.capacity) - self.level) / self.rate)
        self.level -= amount
        return wait

    def refund(self, difference: float) -> None:
        """Return units that were taken and not used; take more if negative."""
        self.level += difference


class Budget:
    """Cost cap that is never exceeded: a request is sent only if its bound fits beside those in flight.

    Bounds rest on the request's token limit; if an endpoint bills more than a bound, later bounds grow by as much.
    """

    def __init__(self, most: float, spent: float = 0.0) -> None:
        self.most, self.spent = most, spent
        self.reserved, self.in_flight = 0.0, 0
        self.excess = 1.0
        self.changed = asyncio.Condition()

    async def reserve(self, bound: float) -> float:
        """Wait until a request of this bound may be sent, and return the dollars reserved for it.

        Raises:
            UserErrors: It doesn't fit, and nothing is in flight that could make room.
        """
        async with self.changed:
            while True:
                likely = bound * self.excess
                if self.spent + self.reserved + likely <= self.most and self.spent < self.most:
                    self.reserved += likely
                    self.in_flight += 1
                    return likely
                if not self.in_flight:
                    raise over_budget(self.most, self.spent, likely)
                await self.changed.wait()

    async def settle(self, reserved: float, bound: float, cost: float) -> None:
        """Replace a reservation by what the request has cost; 0 if it failed."""
        async with self.changed:
            self.reserved -= reserved
            self.in_flight -= 1
            self.spent += cost
            if bound:
                self.excess = max(self.excess, cost / bound)
            self.changed.notify_all()


def over_budget(most: float, spent: float, bound: float) -> UserErrors:
    """Return the fatal error of a run at its cost cap."""
    what = f"is reached: ${spent:,.4f} of ${most:,.2f} spent, and the next response may cost up to ${bound:,.4f}"
    return user_error(
        "max_cost_usd", f"{what}; raise it and run the same command again: every response so far is cached"
    )


class OpenAIClient:
    """`ChatModel` of an endpoint: within the recipe's limits, with retries.

    Raises:
        UserErrors: There is no API key.
    """

    def __init__(self, settings: LLMArguments, usage: UsageTracker, cache: ResponseCache, spent: float = 0.0) -> None:
        self.settings, self.usage, self.cache = settings, usage, cache
        self.transport = HttpTransport(settings)
        self.failures = 0  # requests that failed for good since the last completion
        self.stopping = asyncio.Event()
        self.long_wait_reported = False
        self.requests = self.tokens = None
        if settings.requests_per_minute:
            self.requests = TokenBucket(settings.requests_per_minute, 1)
        if settings.tokens_per_minute:
            self.tokens = TokenBucket(settings.tokens_per_minute, settings.tokens_per_minute / 60)
        self.budget = Budget(float("inf") if settings.max_cost_usd is None else settings.max_cost_usd, spent)
        self.completions = self.written = 0  # and their tokens, to estimate those of the next one

    async def complete(self, messages: Messages, key: str) -> dict[str, Any]:
        """Implement `ChatModel.complete`."""
        try:
            completion = await with_retries(lambda: self._once(messages, key), self.settings, self.usage, self._wait)
        except RetryableError as error:
            self.failures += 1
            if self.failures >= max(LEAST_PATIENCE, 3 * self.settings.max_concurrency):
                what = f"has failed {self.failures} requests in a row, each for good (now: {error})"
                raise user_error(self.transport.where, f"{what}; check the server: {CACHED}") from None
            raise RequestFailed(f"endpoint failed: {error}") from None
        self.failures = 0
        self.completions += 1
        self.written += completion["completion_tokens"]
        return completion

    async def _once(self, messages: Messages, key: str) -> dict[str, Any]:
        """Send a request once, if the budget has room for it.

        Raises:
            RetryableError, RequestFailed, RequestRefused, UserErrors: It failed.
            RunAborted: It wasn't sent.
        """
        read, most = await off_loop(characters(messages), self._count, messages)
        bound = self.usage.cost(most)
        reserved = await self.budget.reserve(bound)
        cost = 0.0
        try:
            outcome = await self._recorded(messages, key, read, most)
            cost = self.usage.cost(outcome)
        except RetryableError as error:
            cost = bound if error.sent else 0.0
            raise
        finally:
            await self.budget.settle(reserved, bound, cost)
        if "content" in outcome:
            return outcome
        if reason := self.cache.given_up(key, self.settings.max_unusable_responses):
            raise RequestFailed(reason)
        raise RetryableError(outcome["kind"])

    def _count(self, messages: Messages) -> tuple[int, dict[str, int]]:
        """Estimate the prompt's tokens, and bound what the request can cost."""
        return estimated_prompt(messages, self.settings.model), most_tokens(messages, self.settings.max_tokens)

    async def _recorded(self, messages: Messages, key: str, read: int, most: dict[str, int]) -> dict[str, Any]:
        """Send a request that stands in the ledger from before it is sent until its outcome is known."""
        written = self.written / self.completions if self.completions else min(read, self.settings.max_tokens)
        limits = ((self.requests, 1), (self.tokens, read + written))
        await self._pause(max((bucket.reserve(units) for bucket, units in limits if bucket), default=0.0))
        await self.cache.reserve({key: most})
        try:
            outcome = await self._send(messages, read, most)
        except Exception as error:
            if isinstance(error, RetryableError) and error.sent:
                await self._charge(key, {"kind": str(error), "lost": True, **most})
            else:
                await self.cache.release([key])
            raise
        if "content" not in outcome:
            await self._charge(key, outcome)
        elif self.tokens:
            self.tokens.refund(read + written - outcome["prompt_tokens"] - outcome["completion_tokens"])
        return outcome

    async def _charge(self, key: str, charge: dict[str, Any]) -> None:
        self.usage.pay_unusable(charge)
        await self.cache.charge(key, charge)

    async def _send(self, messages: Messages, read: int, most: dict[str, int]) -> dict[str, Any]:
        """Return a completion with its tokens, or a charge, which has `kind` instead of `content`."""
        self.usage.requests += 1
        transport, body = self.transport, self.settings.request(messages)
        # as `chat.completions.create` sends it, without its walk over the body and the response
        text = await transport.send(transport.client.post("/chat/completions", cast_to=str, body=body))
        outcome = read_completion(text, transport.where, transport.key, transport.understood)
        outcome = with_tokens(outcome, read, most, self.settings)
        if isinstance(outcome, Exception):
            raise outcome
        transport.understood = transport.understood or "content" in outcome
        return outcome

    async def _wait(self, seconds: float) -> None:
        """Wait before a retry; report the first long wait."""
        if seconds > LONG_WAIT and not self.long_wait_reported:
            self.long_wait_reported = True
            logger.warning("%s asks to wait %.0f s; continuing then (Ctrl-C stops, %s)",
                           self.transport.where, seconds, CACHED)  # fmt: skip
        await self._pause(seconds)

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not beyond the end of the run."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), seconds)
        if self.stopping.is_set():
            raise RunAborted

    def stop(self) -> None:
        self.stopping.set()

    async def aclose(self) -> None:
        await self.transport.client.close()


class HttpTransport:
    """The official client, with its errors classified.

    It retries nothing itself, since every request must be counted, and follows no redirect, which would send prompts
    to another host than the plan and the records name.

    Raises:
        UserErrors: There is no API key.
    """

    def __init__(self, settings: LLMArguments) -> None:
        self.settings, self.key = settings, api_key(settings.api_key_env)
        self.where = f"{settings.model} at {endpoint_name(settings.base_url)}"
        self.reached = self.understood = False  # whether it ever responded, and ever sent a completion
        import openai

        at = address(settings.base_url)
        self.client = openai.AsyncOpenAI(
            api_key=self.key,
            base_url=at.url,
            default_query=at.query or None,
            max_retries=0,
            timeout=2 * settings.timeout + LATE,  # `in_time` comes first; it tells a busy machine from a slow server
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),
        )

    async def send(self, request: Awaitable[Result], timed: bool = True) -> Result:
        """Return the client's result of a request.

        `timed`: whether `timeout` holds for the whole call, not just for each wait in it (files).

        Raises:
            RetryableError, RequestFailed, RequestRefused, UserErrors: It failed.
        """
        import openai

        try:
            response = await (in_time(request, self.settings.timeout) if timed else request)
        except (TimeoutError, openai.APITimeoutError):
            raise RetryableError(f"no response in {self.settings.timeout:g} s", sent=True) from None
        except openai.APIStatusError as error:
            self.reached = True
            status, headers = error.status_code, error.response.headers
            raise classify_error(status, error.body, headers, self.where, self.key, self.settings.api_key_env) from None
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__
            if cause == "ConnectError" and not self.reached:
                raise user_error(self.where, "can't be reached; check base_url and that the server is up") from None
            raise RetryableError("lost connection", sent=cause not in NOT_SENT) from None
        except UnicodeEncodeError:
            raise RequestFailed("half a surrogate pair in its text, which no request can carry") from None
        except (ValueError, RecursionError) as error:  # a body that the client itself can't read
            raise RetryableError(f"unreadable: {excerpt(error, self.key)}", sent=True) from None
        except openai.APIError:
            raise not_the_protocol(self.where) from None
        self.reached = True
        return response


async def in_time(request: Awaitable[Result], seconds: float) -> Result:
    """Return a request's result within so many seconds.

    If the event loop stood still when they were over, the response may be here and unread: it gets as long again.

    Raises:
        TimeoutError: Nothing came.
    """
    task, loop = asyncio.ensure_future(request), asyncio.get_running_loop()
    try:
        while True:
            due = loop.time() + seconds
            done, _ = await asyncio.wait({task}, timeout=seconds)
            if done:
                return task.result()
            if (late := loop.time() - due) < LATE:
                raise TimeoutError
            seconds = max(late, 10 * LATE)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def with_retries(
    once: Callable[[], Awaitable[Result]],
    settings: LLMArguments,
    usage: UsageTracker,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Result:
    """Call `once` until it succeeds, at most `max_retries` more times.

    Raises:
        RetryableError: The last try failed.
        UserErrors: The endpoint asks to wait longer than `max_retry_wait`.
    """
    for retry in count():
        try:
            return await once()
        except RetryableError as error:
            after = error.after or 0.0
            if after > settings.max_retry_wait:
                what = f"asks to wait {after:,.0f} s ({error})" if after < 1e9 else f"asks to wait ({error})"
                what = f"{what}, longer than max_retry_wait, {settings.max_retry_wait:g} s"
                where = f"{settings.model} at {endpoint_name(settings.base_url)}"
                raise user_error(where, f"{what}; {CACHED} then, or raise the bound") from None
            if retry == settings.max_retries:
                raise
            usage.retry(str(error))
            await pause(wait_before(retry, error.after))
    raise AssertionError


def with_tokens(
    outcome: dict[str, Any] | Exception, read: float, most: dict[str, int], settings: LLMArguments
) -> dict[str, Any] | Exception:
    """Add the tokens to a completion, or turn an unusable response into a charge; other exceptions stay.

    Where the reported usage isn't plausible, a completion counts with `read`, the estimate of its prompt's tokens, and
    an unusable response with `most`, the most tokens that the request can cost.
    """
    if isinstance(outcome, UnusableResponse):
        charge = {"kind": str(outcome)}
        return charge | (plausible_usage(outcome.usage, read, settings.max_tokens) or {**most, "guessed": True})
    if isinstance(outcome, Exception):
        return outcome
    if tokens := plausible_usage(outcome.pop("usage"), read, settings.max_tokens):
        return outcome | tokens
    written = round(estimated_tokens(outcome["content"], settings.model))
    return outcome | {"prompt_tokens": round(read), "completion_tokens": written, "guessed": True}


def api_key(variable: str) -> str:
    """Read the API key from an environment variable.

    Raises:
        UserErrors: It holds none, or something that can't be one.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        what = "is not set; export the endpoint's key (a server without keys takes any word), or name another variable"
        raise user_error(f"environment variable {variable}", f"{what} with api_key_env")
    if not key.isascii() or not key.isprintable():
        raise user_error(f"environment variable {variable}", "holds characters that no key has; set it again")
    return key
