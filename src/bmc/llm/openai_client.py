"""Requests to an OpenAI-compatible endpoint, within rate limits and a cost cap."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, TypeVar

from ..config import LLMArguments
from ..errors import Faults, fail
from .address import address, endpoint_name
from .cache import ResponseCache
from .client import RunAborted, off_loop
from .cost import (
    Messages,
    UsageTracker,
    characters,
    estimated_prompt,
    estimated_tokens,
    longest_prompt,
    plausible_usage,
)
from .errors import (
    KEPT,
    RequestFailed,
    RetryableError,
    UnusableResponse,
    not_the_protocol,
    read_completion,
    refusal,
    told,
    wait_before,
)


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


class BudgetExceeded(Exception):
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
            BudgetExceeded: It doesn't fit, and nothing is under way that might make room.
        """
        async with self.changed:
            while True:
                likely = bound * self.excess
                if self.spent + self.reserved + likely <= self.most and self.spent < self.most:
                    self.reserved += likely
                    self.under_way += 1
                    return likely
                if not self.under_way:
                    raise BudgetExceeded(likely)
                await self.changed.wait()

    async def settle(self, reserved: float, bound: float, cost: float) -> None:
        """Note what a request has cost: 0 where it failed."""
        async with self.changed:
            self.reserved -= reserved
            self.under_way -= 1
            self.spent += cost
            if bound:
                self.excess = max(self.excess, cost / bound)
            self.changed.notify_all()


logger = logging.getLogger(__name__)
Result = TypeVar("Result")
LEAST_PATIENCE = 50  # requests that may fail for good, one after another, before the run stops
NOT_SENT = {"ConnectError", "ConnectTimeout", "PoolTimeout"}  # what httpx raises before a request is on its way
LATE = 0.1  # seconds by which a timer may be late on a machine that isn't overloaded
WORTH_SAYING = 10.0  # seconds that an endpoint asks to wait


class OpenAIClient:
    """Asks by chat completions, within the limits of a recipe, and tries again what may go better then.

    Args:
        settings: The recipe's.
        usage: Counts requests and retries.
        store: Keeps what was paid for replies without an answer.
        paid: Dollars for replies of earlier runs, which count towards `max_cost_usd`.

    Raises:
        Faults: There is no key.
    """

    def __init__(self, settings: LLMArguments, usage: UsageTracker, store: ResponseCache, paid: float = 0.0) -> None:
        self.settings, self.usage, self.store = settings, usage, store
        self.line = HttpTransport(settings)
        self.failures = 0  # requests that failed for good since the last answer
        self.stopping = asyncio.Event()
        self.waiting_told = False
        self.requests = self.tokens = None
        if settings.requests_per_minute:
            self.requests = TokenBucket(settings.requests_per_minute, 1)
        if settings.tokens_per_minute:
            self.tokens = TokenBucket(settings.tokens_per_minute, settings.tokens_per_minute / 60)
        self.budget = None if settings.max_cost_usd is None else Budget(settings.max_cost_usd, paid)
        self.answers = self.written = 0  # and tokens that they had, to guess what the next one will have

    async def complete(self, messages: Messages, key: str) -> dict[str, Any]:
        """As `client.Model.complete`."""
        try:
            answer = await with_retries(lambda: self._once(messages, key), self.settings, self.usage, self._wait)
        except RetryableError as error:
            raise self._given_up(str(error)) from None
        self.failures = 0
        self.answers += 1
        self.written += answer["completion_tokens"]
        return answer

    def _given_up(self, kind: str) -> Exception:
        self.failures += 1
        if self.failures >= max(LEAST_PATIENCE, 3 * self.settings.max_concurrency):
            what = f"has failed {self.failures} requests one after another, each for good (now: {kind})"
            return fail(self.line.where, f"{what}; see to the server: {KEPT}")
        return RequestFailed(f"endpoint failed: {kind}")

    async def _once(self, messages: Messages, key: str) -> dict[str, Any]:
        """One request, if the budget has room for it.

        Raises:
            RetryableError, RequestFailed, RequestRefused, Faults: It failed.
            RunAborted: It wasn't sent.
        """
        read, most = await off_loop(characters(messages), self._tokens, messages)
        bound = self.usage.cost(most)
        reserved = await self._reserve(bound)
        cost = 0.0
        try:
            outcome = await self._recorded(messages, key, read, most)
            cost = self.usage.cost(outcome)
        except RetryableError as error:
            cost = bound if error.sent else 0.0
            raise
        finally:
            if self.budget:
                await self.budget.settle(reserved, bound, cost)
        if "content" in outcome:
            return outcome
        if reason := self.store.given_up(key, self.settings.max_unusable_replies):
            raise RequestFailed(reason)
        raise RetryableError(outcome["kind"])

    def _tokens(self, messages: Messages) -> tuple[int, dict[str, int]]:
        """Estimate the prompt's tokens, and bound all that a request can cost."""
        return estimated_prompt(messages, self.settings.model), most_tokens(messages, self.settings)

    async def _recorded(self, messages: Messages, key: str, read: int, most: dict[str, int]) -> dict[str, Any]:
        """The response to one request, which stands in the ledger from before it is sent until its outcome is known."""
        written = self.written / self.answers if self.answers else min(read, self.settings.max_tokens)
        await self._pace(read + written)
        await self.store.reserve({key: most})
        try:
            outcome = await self._sent(messages, read, most)
        except RetryableError as error:
            if error.sent:
                await self._charge(key, {"kind": str(error), "lost": True, **most})
            else:
                await self.store.release([key])
            raise
        except Exception:
            await self.store.release([key])
            raise
        if "content" not in outcome:
            await self._charge(key, outcome)
        elif self.tokens:
            self.tokens.settle(read + written - outcome["prompt_tokens"] - outcome["completion_tokens"])
        return outcome

    async def _charge(self, key: str, charge: dict[str, Any]) -> None:
        self.usage.pay_unusable(charge)
        await self.store.charge(key, charge)

    async def _sent(self, messages: Messages, read: int, most: dict[str, int]) -> dict[str, Any]:
        """The response to one request, with its tokens: an answer, or `kind` instead of `content` for one without."""
        self.usage.requests += 1
        line = self.line
        body = self.settings.request(messages)
        response = await line.send(line.client.chat.completions.with_raw_response.create(**body))
        outcome = read_completion(response.text, line.where, line.key, line.understood)
        if isinstance(outcome, UnusableResponse):
            return unusable_response(outcome, read, most, self.settings)
        if isinstance(outcome, Exception):
            raise outcome
        line.understood = True
        return outcome | token_usage(outcome.pop("usage"), read, outcome["content"], self.settings)

    async def _reserve(self, bound: float) -> float:
        if self.budget is None:
            return 0.0
        try:
            return await self.budget.reserve(bound)
        except BudgetExceeded as error:
            raise over_budget(self.budget.most, self.budget.spent, error.bound) from None

    async def _pace(self, tokens: float) -> None:
        """Waits for the recipe's rates."""
        waits = [bucket.reserve(units) for bucket, units in ((self.requests, 1), (self.tokens, tokens)) if bucket]
        await self._pause(max(waits, default=0.0))

    async def _wait(self, seconds: float) -> None:
        """Waits before a retry; says so, once, if it is long."""
        if seconds > WORTH_SAYING and not self.waiting_told:
            self.waiting_told = True
            logger.warning("%s asks to wait %.0f s; going on then (Ctrl-C stops, %s)", self.line.where, seconds, KEPT)
        await self._pause(seconds)

    async def _pause(self, seconds: float) -> None:
        """Sleeps, but not through the end of the run."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), seconds)
        if self.stopping.is_set():
            raise RunAborted

    def stop(self) -> None:
        self.stopping.set()

    async def aclose(self) -> None:
        await self.line.client.close()


class HttpTransport:
    """The official client, and what its failures mean. It retries nothing itself: what is sent must be counted.

    It follows no redirect, which would send prompts to another host than the plan and the records name.

    Attributes:
        where: The endpoint, for a fault.
        reached: Whether it ever replied.
        understood: Whether it ever gave a completion.

    Raises:
        Faults: There is no key.
    """

    def __init__(self, settings: LLMArguments) -> None:
        self.settings, self.key = settings, api_key(settings.api_key_env)
        self.where = f"{settings.model} at {endpoint_name(settings.base_url)}"
        self.reached = self.understood = False
        import openai

        at = address(settings.base_url)
        self.client = openai.AsyncOpenAI(
            api_key=self.key,
            base_url=at.url,
            default_query=at.query or None,
            max_retries=0,
            timeout=2 * settings.timeout + LATE,  # `in_time` is first, and tells a busy machine from a slow server
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),
        )

    async def send(self, request: Awaitable[Result], timed: bool = True) -> Result:
        """What the endpoint says to a request of the client's.

        Args:
            request: The call.
            timed: Whether `timeout` is for all of it, and not just for each of the waits in it (files).

        Raises:
            RetryableError, RequestFailed, RequestRefused, Faults: It failed.
        """
        import openai

        try:
            reply = await (in_time(request, self.settings.timeout) if timed else request)
        except (TimeoutError, openai.APITimeoutError):
            raise RetryableError(f"no answer in {self.settings.timeout:g} s", sent=True) from None
        except openai.APIStatusError as error:
            self.reached = True
            status, headers = error.status_code, error.response.headers
            raise refusal(status, error.body, headers, self.where, self.key, self.settings.api_key_env) from None
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__
            if cause == "ConnectError" and not self.reached:
                raise fail(self.where, "can't be reached; check base_url and that the server is up") from None
            raise RetryableError("lost connection", sent=cause not in NOT_SENT) from None
        except UnicodeEncodeError:
            raise RequestFailed("half a surrogate pair in its text, which no request can carry") from None
        except (ValueError, RecursionError) as error:  # a body that the client itself can't read
            raise RetryableError(f"unreadable: {told(error, self.key)}", sent=True) from None
        except openai.APIError:
            raise not_the_protocol(self.where) from None
        self.reached = True
        return reply


async def in_time(request: Awaitable[Result], seconds: float) -> Result:
    """What a request gives within so many seconds.

    Where the event loop stood still when they were over, the reply may be here and unread: it gets as long again.

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
    """What `once` gives, at the first or a later try.

    Raises:
        RetryableError: It failed `max_retries` times more.
        Faults: The endpoint asks to wait longer than `max_retry_wait`.
    """
    for retry in count():
        try:
            return await once()
        except RetryableError as error:
            if error.after is not None and error.after > settings.max_retry_wait:
                raise too_long_a_wait(error, settings) from None
            if retry == settings.max_retries:
                raise
            usage.retry(str(error))
            await pause(wait_before(retry, error.after))
    raise AssertionError


def too_long_a_wait(error: RetryableError, settings: LLMArguments) -> Faults:
    """The endpoint asks for a pause that is longer than the recipe allows."""
    what = f"asks to wait {error.after:,.0f} s ({error})" if (error.after or 0) < 1e9 else f"asks to wait ({error})"
    bound = f"longer than max_retry_wait, {settings.max_retry_wait:g} s"
    return fail(
        f"{settings.model} at {endpoint_name(settings.base_url)}", f"{what}, {bound}; {KEPT} then, or raise the bound"
    )


def over_budget(most: float, spent: float, bound: float) -> Faults:
    """The run has spent what it may."""
    what = f"is reached: ${spent:,.4f} of ${most:,.2f} spent, and the next answer may cost up to ${bound:,.4f}"
    return fail("max_cost_usd", f"{what}; raise it and run the same command again: every answer so far is kept")


def token_usage(usage: Any, read: float, text: str, settings: LLMArguments) -> dict[str, Any]:
    """Return the tokens of an answer: the endpoint's count, or an estimate where it tells none that can be.

    Args:
        usage: What the endpoint tells.
        read: An estimate of the request's tokens.
        text: The answer's.
        settings: The recipe's.
    """
    if counts := plausible_usage(usage, read, settings.max_tokens):
        return {"prompt_tokens": counts[0], "completion_tokens": counts[1]}
    written = round(estimated_tokens(text, settings.model))
    return {"prompt_tokens": round(read), "completion_tokens": written, "guessed": True}


def unusable_response(
    found: UnusableResponse, read: float, most: dict[str, int], settings: LLMArguments
) -> dict[str, Any]:
    """Return the charge for a response without an answer; where it tells no usage, the most that it can have cost."""
    if counts := plausible_usage(found.usage, read, settings.max_tokens):
        return {"kind": str(found), "prompt_tokens": counts[0], "completion_tokens": counts[1]}
    return {"kind": str(found), **most, "guessed": True}


def most_tokens(messages: Messages, settings: LLMArguments) -> dict[str, int]:
    """Bound the tokens of a request and its response."""
    longest = math.ceil(longest_prompt(messages))
    return {"prompt_tokens": longest, "completion_tokens": settings.max_tokens}


def api_key(variable: str) -> str:
    """The key that an environment variable holds.

    Raises:
        Faults: It holds none, or what can't be one.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        what = "is not set; export the endpoint's key (a server without keys takes any word), or name another variable"
        raise fail(f"environment variable {variable}", f"{what} with api_key_env")
    if not key.isascii() or not key.isprintable():
        raise fail(f"environment variable {variable}", "holds characters that no key has; set it again")
    return key
