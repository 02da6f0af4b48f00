"""A model behind an OpenAI-compatible endpoint: OpenAI, vLLM, `transformers serve`, llama.cpp, Ollama."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, TypeVar

from ..config import AskingArguments
from ..errors import Faults, fail
from .asker import Stopped
from .cost import NONE_PAID, Messages, Meter, Paid, approximate_tokens, dollars, prompt_text
from .limits import Budget, OverBudget, TokenBucket
from .replies import NoReply
from .trouble import KEPT, Transient, not_the_protocol, place, read_completion, refusal, wait_before

Result = TypeVar("Result")
LEAST_PATIENCE = 50  # requests that may fail for good, one after another, before the run stops


class Endpoint:
    """Asks by chat completions, within the limits of a recipe, and tries again what may go better then.

    Args:
        settings: The recipe's.
        meter: Counts requests and retries.
        paid: For answers of earlier runs, which counts towards `max_cost_usd`.

    Raises:
        Faults: There is no key.
    """

    def __init__(self, settings: AskingArguments, meter: Meter, paid: Paid = NONE_PAID) -> None:
        self.settings, self.meter = settings, meter
        self.line = Line(settings)
        self.failures = 0  # requests that failed for good since the last answer
        self.stopping = asyncio.Event()
        self.requests = self.tokens = None
        if settings.requests_per_minute:
            self.requests = TokenBucket(settings.requests_per_minute, 1)
        if settings.tokens_per_minute:
            self.tokens = TokenBucket(settings.tokens_per_minute, settings.tokens_per_minute / 60)
        self.budget = None if settings.max_cost_usd is None else Budget(settings.max_cost_usd, *paid)
        self.answers = self.written = 0  # and tokens that they had, to guess what the next one will have

    async def answer(self, messages: Messages, key: str) -> dict[str, Any]:
        """As `asker.Model.answer`."""
        read = approximate_tokens(prompt_text(messages))
        written = self.written / self.answers if self.answers else min(read, self.settings.max_tokens)
        guess = dollars(self.meter.price, read, min(read, self.settings.max_tokens))
        reserved, cost = await self._reserve(guess), None
        try:
            answer = await self._tried(messages, read, read + written)
            cost = self.meter.cost(answer)
        finally:
            if self.budget:
                await self.budget.settle(reserved, guess, cost)
        self.answers += 1
        self.written += answer["completion_tokens"]
        return answer

    async def _reserve(self, guess: float) -> float:
        if self.budget is None:
            return 0.0
        try:
            return await self.budget.reserve(guess)
        except OverBudget:
            raise over_budget(self.budget.most, self.budget.spent) from None

    async def _tried(self, messages: Messages, read: int, tokens: float) -> dict[str, Any]:
        """An answer, at the first or a later try."""
        try:
            answer = await tried(lambda: self._once(messages, read, tokens), self.settings, self.meter, self._pause)
        except Transient as error:
            raise self._given_up(str(error)) from None
        self.failures = 0
        return answer

    def _given_up(self, kind: str) -> Exception:
        self.failures += 1
        if self.failures >= max(LEAST_PATIENCE, 3 * self.settings.max_concurrency):
            told = f"has failed {self.failures} requests one after another, each for good (now: {kind})"
            return fail(self.line.where, f"{told}; see to the server: {KEPT}")
        return NoReply(f"endpoint failed: {kind}")

    async def _once(self, messages: Messages, read: int, tokens: float) -> dict[str, Any]:
        """One request.

        Raises:
            Transient, NoReply, Faults: It failed.
            Stopped: It wasn't sent.
        """
        waits = [bucket.reserve(units) for bucket, units in ((self.requests, 1), (self.tokens, tokens)) if bucket]
        await self._pause(max(waits, default=0.0))
        self.meter.requests += 1
        line, body = self.line, self.settings.request(messages)
        response = await line.send(line.client.chat.completions.with_raw_response.create(**body))
        outcome = read_completion(response.text, line.where, line.key, line.understood)
        if isinstance(outcome, Exception):
            raise outcome
        line.understood = True
        answer = metered(outcome, read)
        if self.tokens:
            self.tokens.settle(tokens - answer["prompt_tokens"] - answer["completion_tokens"])
        return answer

    async def _pause(self, seconds: float) -> None:
        """Sleeps, but not through the end of the run."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), seconds)
        if self.stopping.is_set():
            raise Stopped

    def stop(self) -> None:
        self.stopping.set()

    async def aclose(self) -> None:
        await self.line.client.close()


class Line:
    """The official client, and what its failures mean. It retries nothing itself: what is sent must be counted.

    Attributes:
        where: The endpoint, for a fault.
        reached: Whether it ever replied.
        understood: Whether it ever gave a completion.

    Raises:
        Faults: There is no key.
    """

    def __init__(self, settings: AskingArguments) -> None:
        self.settings, self.key = settings, api_key(settings.api_key_env)
        self.where = f"{settings.model} at {place(settings.base_url)}"
        self.reached = self.understood = False
        import openai

        self.client = openai.AsyncOpenAI(
            api_key=self.key, base_url=settings.base_url, max_retries=0, timeout=settings.timeout
        )

    async def send(self, request: Awaitable[Result], timed: bool = True) -> Result:
        """What the endpoint says to a request of the client's.

        Args:
            request: The call.
            timed: Whether `timeout` is for all of it, and not just for each of the waits in it (files).

        Raises:
            Transient, NoReply, Faults: It failed.
        """
        import openai

        try:
            async with asyncio.timeout(self.settings.timeout if timed else None):
                reply = await request
        except (TimeoutError, openai.APITimeoutError):
            raise Transient(f"no answer in {self.settings.timeout:g} s") from None
        except openai.APIStatusError as error:
            self.reached = True
            status, headers = error.status_code, error.response.headers
            raise refusal(status, error.body, headers, self.where, self.key, self.settings.api_key_env) from None
        except openai.APIConnectionError as error:
            if type(error.__cause__).__name__ == "ConnectError" and not self.reached:
                raise fail(self.where, "can't be reached; check base_url and that the server is up") from None
            raise Transient("lost connection") from None
        except UnicodeEncodeError:
            raise NoReply("half a surrogate pair in its text, which no request can carry") from None
        except openai.APIError:
            raise not_the_protocol(self.where) from None
        self.reached = True
        return reply


async def tried(
    once: Callable[[], Awaitable[Result]],
    settings: AskingArguments,
    meter: Meter,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Result:
    """What `once` gives, at the first or a later try.

    Raises:
        Transient: It failed `max_retries` times more.
    """
    for retry in count():
        try:
            return await once()
        except Transient as error:
            if retry == settings.max_retries:
                raise
            meter.retry(str(error))
            await pause(wait_before(retry, error.after))
    raise AssertionError


def over_budget(most: float, spent: float) -> Faults:
    """The run has spent what it may."""
    what = f"is reached: ${spent:,.4f} of ${most:,.2f} spent, and the next answer may not fit"
    return fail("max_cost_usd", f"{what}; raise it and run the same command again: every answer so far is kept")


def metered(outcome: dict[str, Any], read: int) -> dict[str, Any]:
    """A completion with its tokens: the endpoint's count, or a guess where it gives none.

    Args:
        outcome: As `trouble.read_completion` has it.
        read: A guess at the request's tokens.
    """
    usage = outcome.pop("usage") or {}
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    if all(isinstance(number, int) for number in counts):
        return outcome | {"prompt_tokens": counts[0], "completion_tokens": counts[1]}
    written = approximate_tokens(outcome["content"])
    return outcome | {"prompt_tokens": read, "completion_tokens": written, "guessed": True}


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
