"""Responses of an endpoint: completions, and errors that are retryable, one row's, or fatal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from ..errors import UserErrors, printable, user_error
from .address import without_secrets
from .cost import Messages

CACHED = "every response so far is cached; run the same command again to continue"
RETRYABLE = {408, 409, 425, 429}  # and 5xx
# Sent by gateways that timed out or lost their connection: the server behind may have responded, and billed.
MAYBE_BILLED = {408, 502, 504, 520, 524}
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds
EXCERPT = 200  # characters of an endpoint's message that our messages repeat
# Error codes or types that neither waiting nor another row changes.
_NO_CREDIT = re.compile(r"insufficient_quota|insufficient.?balance|billing|credit|arrear", re.IGNORECASE)
# What to write into the recipe if an endpoint has another name for a parameter, or doesn't have it.
_HINTS = (
    (re.compile("max_completion_tokens"), "set max_tokens_parameter: max_completion_tokens"),
    (re.compile("temperature"), "set temperature: null to leave it out"),
)


class RequestFailed(Exception):
    """A row error: this request failed for good, and the message says why."""


class RetryableError(Exception):
    """An error that a later try may not have.

    The endpoint may ask to wait (`after`, seconds), and may have processed and billed the request (`sent`).
    """

    def __init__(self, kind: str, after: float | None = None, sent: bool = False) -> None:
        super().__init__(kind)
        self.after, self.sent = after, sent


class UnusableResponse(Exception):
    """A billed response without a completion; `usage` is as the endpoint reports it, if it does."""

    def __init__(self, kind: str, usage: Any = None) -> None:
        super().__init__(kind)
        self.usage = usage


class RunAborted(Exception):
    """The run ends; nothing more is sent."""


class RequestRefused(Exception):
    """A 4xx that may concern this row only (`row` says why) or, as a fatal error (`fault`), every request of a recipe.

    `RefusalPolicy` decides.
    """

    def __init__(self, row: str, fault: UserErrors) -> None:
        super().__init__(row)
        self.row, self.fault = row, fault


def wait_before(retry: int, after: float | None) -> float:
    """Return the seconds to wait before a retry (counted from 0): what the endpoint asks for, or exponentially more.

    Both are jittered, so that requests that failed together don't come back together.
    """
    if after:
        return after + random.random() * min(after, 1.0)
    return min(LONGEST_WAIT, FIRST_WAIT * 2**retry) * random.uniform(0.5, 1.0)


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Read the seconds to wait from `retry-after-ms`, or from `Retry-After` in seconds or as an HTTP date."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "nan")) / unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(headers[name]).timestamp() - (time.time() if now is None else now)
            except (ValueError, TypeError, OverflowError):
                continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


def redact(key: str, text: str) -> str:
    """Remove the API key from a text. A word as a key ("none", "x") is no secret, and removing it would garble text."""
    return text.replace(key, "…") if len(key) >= 8 and not key.isalpha() else text


def excerpt(text: Any, key: str) -> str:
    """Return an endpoint's message as one short line without the API key and control codes."""
    return printable(redact(key, str(text)))[:EXCERPT]


def classify_error(status: int, body: Any, headers: Mapping[str, str], where: str, key: str, key_env: str) -> Exception:
    """Classify a response with an error status: `RetryableError`, `RequestRefused`, or `UserErrors` (fatal).

    No message shows the API key, of the variable `key_env`.
    """
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        message = error.get("message") or error.get("detail") or "no reason given"
        code = f"{error.get('code')} {error.get('type')}"
    else:
        message, code = str(error or "").strip() or "no reason given", ""
    text = excerpt(message, key)
    if 300 <= status < 400:
        return _redirected(status, headers, where, key)
    if status == 402 or (status in (400, 403, 429) and _NO_CREDIT.search(code)):
        return user_error(where, f"the account has no credit left ({status}: {text}); add credit: {CACHED}")
    if status in RETRYABLE or status >= 500:
        return RetryableError(f"HTTP {status}", retry_after(headers), sent=status in MAYBE_BILLED)
    if status == 401:
        return user_error(where, f"refuses the key in {key_env}; set a valid one")
    hint = next((hint for pattern, hint in _HINTS if pattern.search(text)), "fix the recipe")
    # numbers and request ids differ between rows, and the reasons of dropped rows are counted
    reason = re.sub(r"[\w-]*\d[\w-]*", "…", text)
    row = f"endpoint refuses the request ({status}: {reason})"
    return RequestRefused(row, user_error(where, f"refuses the request ({status}: {text}); {hint}"))


def _redirected(status: int, headers: Mapping[str, str], where: str, key: str) -> UserErrors:
    target = excerpt(without_secrets(headers.get("location", "")), key)
    what = f"redirects requests to {target or 'another address'} ({status}), which are not sent there"
    base = target.removesuffix("/").removesuffix("/chat/completions")
    return user_error(where, f"{what}; if that is right, set base_url: {base}" if base else f"{what}; fix base_url")


def not_the_protocol(where: str) -> UserErrors:
    """Return the fatal error for an endpoint that doesn't speak the chat-completions protocol."""
    return user_error(where, "sends something other than a chat completion; does base_url lack its /v1?")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON from outside.

    Raises:
        ValueError: It is invalid, nested too deeply, or holds a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_completion(text: str, where: str, key: str, understood: bool) -> dict[str, Any] | Exception:
    """Read `content`, `finish_reason` and `usage` of a completion (status 200), or return what is wrong with it.

    `understood` says whether the endpoint has sent a completion before.
    """
    try:
        body = parse_json(text)
    except ValueError:
        if not text.lstrip().startswith("<"):
            return UnusableResponse("invalid JSON")
        page = "a page of HTML"
        return RetryableError(page) if understood else RequestRefused(page, not_the_protocol(where))
    return completion_of(body, key)


def completion_of(body: Any, key: str) -> dict[str, Any] | Exception:
    """Do the same for a parsed body: `RetryableError` for an error without usage, `UnusableResponse` without text."""
    usage = body.get("usage") if isinstance(body, dict) else None
    if isinstance(body, dict) and body.get("error") and not usage:
        return RetryableError("an error in place of a response", sent=True)
    try:
        choice = body["choices"][0]
        message = choice["message"]
        content = _text(message["content"])
        if not content and isinstance(message.get("refusal"), str):  # where OpenAI's models put one
            content = message["refusal"]
    except (KeyError, IndexError, TypeError):
        return UnusableResponse("a response without choices", usage)
    if content is None:
        return UnusableResponse("a response that is no text", usage)
    reason, first = choice.get("finish_reason"), _first_token(choice)
    if reason == "error":
        return UnusableResponse("a response that ends in an error", usage)
    # half a surrogate pair, which no file takes, becomes U+FFFD
    content = content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return {
        "content": redact(key, content),
        "finish_reason": reason if isinstance(reason, str) else None,
        "usage": usage,
        **({} if first is None else {"first_token": first}),
    }


def _text(content: Any) -> str | None:
    """Return a message's text, with text parts joined and a reasoning model's thoughts left out; None without text."""
    if not isinstance(content, list):
        return content or "" if isinstance(content, str | None) else None
    parts = [part if isinstance(part, dict) else {"text": part} for part in content]
    found = [part.get("text") for part in parts if part.get("type") in ("text", "output_text", None)]
    texts = [text for text in found if isinstance(text, str)]
    return "".join(texts) if texts or not content else None


def _first_token(choice: Any) -> list[dict[str, Any]] | None:
    """Read the likely first tokens with their log-probabilities, if the endpoint sends them."""
    try:
        likely = choice["logprobs"]["content"][0]["top_logprobs"]
        return [{"token": str(one["token"]), "logprob": float(one["logprob"])} for one in likely]
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        return None


FIRST_REFUSALS = 8  # requests that may be refused before any succeeds; then every request is
PATIENCE = 50  # refusals in a row, before a request that succeeded is sent again as a probe


class RefusalPolicy:
    """Decides whether a refused request is a row error or fatal.

    It is a row error if other requests succeed, in this run or an earlier one. Before any has succeeded, the decision
    waits for the requests in flight.
    """

    def __init__(self, succeeded_before: bool = False) -> None:
        self.succeeded_before = succeeded_before
        self.last_success: Messages | None = None
        self.cached: Messages | None = None  # a request that succeeded in an earlier run
        self.in_a_row = 0
        self.busy = self.sent = self.waiting = 0
        self.hopeless = False
        self.changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Enclose a request from before it is sent until its outcome is decided."""
        await self._count(busy=1)
        try:
            yield
        finally:
            await self._count(busy=-1)

    @contextlib.asynccontextmanager
    async def sending(self, messages: Messages) -> AsyncIterator[None]:
        """Enclose the sending; after too many refusals without a success, hold it until those in flight are back."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.waiting < FIRST_REFUSALS or self._decided())
            self.sent += 1
        try:
            yield
            self.last_success, self.in_a_row = messages, 0
        finally:
            await self._count(sent=-1)

    async def _count(self, busy: int = 0, sent: int = 0) -> None:
        async with self.changed:
            self.busy += busy
            self.sent += sent
            self.changed.notify_all()

    async def outcome(self, refused: RequestRefused, probe: Callable[[Messages], Awaitable[bool]]) -> Exception:
        """Return `RequestFailed` for a row error, else the fatal error; called inside `request`.

        `probe` sends a request that succeeded again, and returns whether it still does.
        """
        self.in_a_row += 1
        succeeded = self.last_success or self.cached
        if self.in_a_row >= PATIENCE and succeeded is not None:
            self.in_a_row = 0
            if not await probe(succeeded):
                return refused.fault
        async with self.changed:
            self.waiting += 1
            self.changed.notify_all()
            await self.changed.wait_for(self._decided)
            self.waiting -= 1
        if self._any_success():
            return RequestFailed(refused.row)
        self.hopeless = True
        return refused.fault

    def _any_success(self) -> bool:
        return self.last_success is not None or self.succeeded_before

    def _decided(self) -> bool:
        enough = self.waiting >= FIRST_REFUSALS and not self.sent
        return self._any_success() or self.hopeless or enough or self.busy == self.waiting
