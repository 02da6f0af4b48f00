"""What an endpoint's failures mean: wait and try again, give up the row, or stop the run."""

from __future__ import annotations

import json
import math
import random
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ..errors import Faults, fail
from .replies import NoReply

KEPT = "every answer so far is kept; run the same command again to go on"
TRANSIENT = {408, 409, 425, 429}  # and 5xx
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
# A refusal that is about one row: too long for the model, or stopped by a content filter.
_ROW_FAULT = re.compile(r"context|too long|content.?(filter|policy|management)|invalid_prompt", re.IGNORECASE)
# A 429 that no waiting mends.
_NO_CREDIT = re.compile(r"insufficient_quota|insufficient.?balance|billing|credit", re.IGNORECASE)


class Transient(Exception):
    """A failure that may be over soon.

    Attributes:
        after: Seconds that the endpoint asks to wait, if it says so.
    """

    def __init__(self, kind: str, after: float | None = None) -> None:
        super().__init__(kind)
        self.after = after


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
                date = parsedate_to_datetime(headers[name])
            except ValueError:
                continue
            seconds = date.timestamp() - (time.time() if now is None else now)
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


def place(base_url: str | None) -> str:
    """The endpoint, as messages name it: without a user, password or query."""
    parts = urlsplit(base_url or "https://api.openai.com")
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")) if base_url else parts.netloc


def without(key: str, text: str) -> str:
    """A text without the key, which some endpoints repeat."""
    return text.replace(key, "…") if key else text


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
        `Transient`, `NoReply` or `Faults`.
    """
    said, code = _said(body)
    said = without(key, said)[:200]
    if status == 402 or (status in (400, 403, 429) and _NO_CREDIT.search(code)):
        return fail(where, f"the account has no credit left ({status}: {said}); add some: {KEPT}")
    if status in TRANSIENT or status >= 500:
        return Transient(f"HTTP {status}", retry_after(headers))
    if status == 413 or (status in (400, 422) and _ROW_FAULT.search(f"{code} {said}")):
        return NoReply("endpoint refuses the request: too long, or filtered")
    if status == 401:
        return fail(where, f"refuses the key in {key_env}; set a valid one")
    return fail(where, f"refuses the request ({status}: {said}); mend the recipe")


def _said(body: Any) -> tuple[str, str]:
    """`(message, code and type)` of an error's body."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return (" ".join(str(error or "").split()) or "no reason given"), ""
    message = error.get("message") or error.get("detail") or "no reason given"
    return str(message), f"{error.get('code')} {error.get('type')}"


def read_completion(text: str, where: str, key: str, reached: bool) -> dict[str, Any] | Exception:
    """A completion's `content`, `finish_reason` and `usage`, or what is wrong with it.

    Args:
        text: Body of a reply with status 200.
        where: The endpoint, for a fault.
        key: The key, which no kept text may show.
        reached: Whether the endpoint has answered as it should before.
    """
    try:
        body = json.loads(text)
    except ValueError:
        if text.lstrip().startswith("<") and not reached:
            return not_the_protocol(where)
        return Transient("invalid JSON")
    return completion(body, key)


def completion(body: Any, key: str) -> dict[str, Any] | Exception:
    """The same of a body that is read."""
    try:
        choice = body["choices"][0]
        content = choice["message"]["content"] or ""
    except (KeyError, IndexError, TypeError):
        return Transient("a reply without choices")
    if not isinstance(content, str):
        return Transient("a reply that is no text")
    # A word of the language as a key ("none", for a server without keys) is no secret, and may stand in a text.
    secret = key if len(key) >= 8 and not key.isalpha() else ""
    usage = body.get("usage")
    first = _first_token(choice)
    return {
        "content": without(secret, _whole_characters(content)),
        "finish_reason": choice.get("finish_reason"),
        "usage": usage if isinstance(usage, dict) else None,
        **({} if first is None else {"first_token": first}),
    }


def _first_token(choice: Any) -> list[dict[str, Any]] | None:
    """What might have stood in the place of an answer's first token, where the endpoint tells."""
    try:
        likely = choice["logprobs"]["content"][0]["top_logprobs"]
        return [{"token": str(one["token"]), "logprob": float(one["logprob"])} for one in likely]
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _whole_characters(text: str) -> str:
    """A text with U+FFFD for half a surrogate pair, which no file takes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def not_the_protocol(where: str) -> Faults:
    """The endpoint speaks something else."""
    return fail(where, "answers with something else than a chat completion; does base_url lack its /v1?")
