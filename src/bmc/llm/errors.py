"""API errors: retryable, one row's, or fatal; and how a response is read."""

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

from ..errors import Faults, fail, printable
from .address import without_secrets
from .cost import Messages

KEPT = "every answer so far is kept; run the same command again to go on"
TRANSIENT = {408, 409, 425, 429}  # and 5xx
# From gateways that waited in vain or lost their connection: the server behind may have answered, and billed.
MAYBE_BILLED = {408, 502, 504, 520, 524}
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
SAID = 200  # characters of an endpoint's words that a message repeats
# An error code or type that no waiting and no other row mends.
_NO_CREDIT = re.compile(r"insufficient_quota|insufficient.?balance|billing|credit|arrear", re.IGNORECASE)
# What to write into the recipe where an endpoint takes a parameter by another name, or not at all.
_HINTS = (
    (re.compile("max_completion_tokens"), "set max_tokens_parameter: max_completion_tokens"),
    (re.compile("temperature"), "set temperature: null to leave it out"),
)


class RequestFailed(Exception):
    """There is no reply to this request, and another try won't change that; the message says why."""


class RetryableError(Exception):
    """A failure that may be over soon.

    Attributes:
        after: Seconds that the endpoint asks to wait, if it says so.
        sent: Whether the request may have been answered, and billed, all the same.
    """

    def __init__(self, kind: str, after: float | None = None, sent: bool = False) -> None:
        super().__init__(kind)
        self.after, self.sent = after, sent


class UnusableResponse(Exception):
    """A paid reply that holds no answer.

    Attributes:
        usage: The endpoint's, if it tells any.
    """

    def __init__(self, kind: str, usage: Any = None) -> None:
        super().__init__(kind)
        self.usage = usage


class RequestRefused(Exception):
    """A 4xx that may be about this one row, or about everything that the recipe would ask (`RefusalPolicy`).

    Attributes:
        row: The row's reason, in the first case.
        fault: The fault that stops the run, in the second.
    """

    def __init__(self, row: str, fault: Faults) -> None:
        super().__init__(row)
        self.row, self.fault = row, fault


def wait_before(retry: int, after: float | None) -> float:
    """Seconds before a retry (from 0 on): what the endpoint asks for and a little more, or else exponentially longer
    ones. Both are jittered, so that requests that failed together don't come back together.
    """
    if after:
        return after + random.random() * min(after, 1.0)
    return min(LONGEST_WAIT, FIRST_WAIT * 2**retry) * random.uniform(0.5, 1.0)


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that a reply's headers ask to wait: `retry-after-ms`, or `Retry-After` in seconds or as an HTTP date."""
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


def without(key: str, text: str) -> str:
    """Return a text without the key, which some endpoints repeat. A word as a key ("none", "x") is no secret, and
    taking it out would garble the text.
    """
    return text.replace(key, "…") if len(key) >= 8 and not key.isalpha() else text


def told(text: Any, key: str) -> str:
    """Return an endpoint's words as a message may repeat them: one short line without the key or control codes."""
    return printable(without(key, str(text)))[:SAID]


def refusal(status: int, body: Any, headers: Mapping[str, str], where: str, key: str, key_env: str) -> Exception:
    """What a reply with an error status means.

    Args:
        status: HTTP's.
        body: Its JSON, or whatever else it holds.
        headers: Its headers.
        where: The endpoint, for a fault.
        key: The key, which no message may show.
        key_env: The variable that holds it.

    Returns:
        `RetryableError`, `RequestRefused` or `Faults`.
    """
    message, code = _said(body)
    said = told(message, key)
    if 300 <= status < 400:
        return _redirected(status, headers, where, key)
    if status == 402 or (status in (400, 403, 429) and _NO_CREDIT.search(code)):
        return fail(where, f"the account has no credit left ({status}: {said}); add some: {KEPT}")
    if status in TRANSIENT or status >= 500:
        return RetryableError(f"HTTP {status}", retry_after(headers), sent=status in MAYBE_BILLED)
    if status == 401:
        return fail(where, f"refuses the key in {key_env}; set a valid one")
    hint = next((text for pattern, text in _HINTS if pattern.search(said)), "mend the recipe")
    # numbers and request ids differ from row to row, and the reasons of dropped rows are counted
    reason = re.sub(r"[\w-]*\d[\w-]*", "…", said)
    row = f"endpoint refuses the request ({status}: {reason})"
    return RequestRefused(row, fail(where, f"refuses the request ({status}: {said}); {hint}"))


def _redirected(status: int, headers: Mapping[str, str], where: str, key: str) -> Faults:
    target = told(without_secrets(headers.get("location", "")), key)
    what = f"redirects requests to {target or 'another address'} ({status}), which are not sent there"
    base = target.removesuffix("/").removesuffix("/chat/completions")
    return fail(where, f"{what}; if that is right, set base_url: {base}" if base else f"{what}; mend base_url")


def _said(body: Any) -> tuple[str, str]:
    """`(message, code and type)` of an error's body."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return str(error or "").strip() or "no reason given", ""
    message = error.get("message") or error.get("detail") or "no reason given"
    return str(message), f"{error.get('code')} {error.get('type')}"


def parsed(text: str | bytes) -> Any:
    """Parse JSON from outside.

    Raises:
        ValueError: It is none, or nested too deeply, or holds a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_completion(text: str, where: str, key: str, reached: bool) -> dict[str, Any] | Exception:
    """A completion's `content`, `finish_reason` and `usage`, or what is wrong with it.

    Args:
        text: Body of a reply with status 200.
        where: The endpoint, for a fault.
        key: The key, which no kept text may show.
        reached: Whether the endpoint has answered as it should before.
    """
    try:
        body = parsed(text)
    except ValueError:
        if not text.lstrip().startswith("<"):
            return UnusableResponse("invalid JSON")
        return (
            RetryableError("a page of HTML") if reached else RequestRefused("a page of HTML", not_the_protocol(where))
        )
    return completion(body, key)


def completion(body: Any, key: str) -> dict[str, Any] | Exception:
    """The same of a body that is read: `RetryableError` of an error without usage, `UnusableResponse` without text."""
    usage = body.get("usage") if isinstance(body, dict) else None
    if isinstance(body, dict) and body.get("error") and not usage:
        return RetryableError("an error in place of a reply", sent=True)
    try:
        choice = body["choices"][0]
        message = choice["message"]
        content = _text(message["content"])
        if not content and isinstance(message.get("refusal"), str):  # where OpenAI's models put one
            content = message["refusal"]
    except (KeyError, IndexError, TypeError):
        return UnusableResponse("a reply without choices", usage)
    if content is None:
        return UnusableResponse("a reply that is no text", usage)
    reason, first = choice.get("finish_reason"), _first_token(choice)
    if reason == "error":
        return UnusableResponse("a reply that ends in an error", usage)
    return {
        "content": without(key, _whole_characters(content)),
        "finish_reason": reason if isinstance(reason, str) else None,
        "usage": usage,
        **({} if first is None else {"first_token": first}),
    }


def _text(content: Any) -> str | None:
    """The text of a message: itself, or its text parts joined; None where it has none."""
    if not isinstance(content, list):
        return content or "" if isinstance(content, str | None) else None
    parts = [part if isinstance(part, str) else _part_text(part) for part in content]
    texts = [part for part in parts if part is not None]
    return "".join(texts) if texts or not content else None


def _part_text(part: Any) -> str | None:
    """The text of a part, but not of a reasoning model's thoughts."""
    if not isinstance(part, dict) or part.get("type") not in ("text", "output_text", None):
        return None
    text = part.get("text")
    return text if isinstance(text, str) else None


def _first_token(choice: Any) -> list[dict[str, Any]] | None:
    """What might have stood in the place of an answer's first token, where the endpoint tells."""
    try:
        likely = choice["logprobs"]["content"][0]["top_logprobs"]
        return [{"token": str(one["token"]), "logprob": float(one["logprob"])} for one in likely]
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        return None


def _whole_characters(text: str) -> str:
    """A text with U+FFFD for half a surrogate pair, which no file takes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def not_the_protocol(where: str) -> Faults:
    """The endpoint speaks something else."""
    return fail(where, "answers with something else than a chat completion; does base_url lack its /v1?")


FIRST_REFUSALS = 8  # requests that may be refused before any is answered; then it is the recipe's fault
PATIENCE = 50  # refusals one after another, before a request that was answered is sent again to see


class RefusalPolicy:
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
        """Note that a request is to be sent."""
        await self._note(busy=1)

    async def ended(self) -> None:
        """Note that nothing more comes of a request."""
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

    async def outcome(self, refused: RequestRefused, again: Callable[[Messages], Awaitable[bool]]) -> Exception:
        """`RequestFailed` if the refusal is about the row, else the fault.

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
            return RequestFailed(refused.row)
        self.hopeless = True
        return refused.fault

    def _about_rows(self) -> bool:
        return self.last_answered is not None or self.answered_before

    def _decided(self) -> bool:
        enough = self.waiting >= FIRST_REFUSALS and not self.sent
        return self._about_rows() or self.hopeless or enough or self.busy == self.waiting
