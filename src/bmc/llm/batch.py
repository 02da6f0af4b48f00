"""OpenAI's Batch API: files of requests, completed within a day at half the price.

The cache records submitted batches, so that a later process continues: it polls what was submitted and submits nothing
twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from ..config import LLMArguments
from ..errors import UserErrors, user_error
from .address import endpoint_name
from .cache import NO_OUTCOME, ResponseCache
from .client import CachedClient, DryRunClient, PendingRequest, collect_requests
from .cost import Messages, UsageTracker, estimated_prompt, most_tokens
from .errors import (
    CACHED,
    EXCERPT,
    RequestFailed,
    RequestRefused,
    RetryableError,
    classify_error,
    completion_of,
    excerpt,
    parse_json,
)
from .openai_client import HttpTransport, Result, over_budget, with_retries, with_tokens

logger = logging.getLogger(__name__)
URL: Final = "/v1/chat/completions"
MOST_REQUESTS, MOST_BYTES = 50_000, 190_000_000  # of a file; OpenAI takes 50,000 and 200 MB
ROUNDS = 3  # in which a request may fail
FIRST_POLL, LONGEST_POLL = 1.0, 60.0  # seconds between two polls
ENDED = ("completed", "expired", "cancelled", "failed")
CANCELLING = 900.0  # seconds that a cancelled batch may take to end
CHUNK = 500  # completions per commit
BATCH = {"batch": True}  # marks what is paid at the Batch API's price
Tokens = dict[str, int]  # `read`: estimate of the prompt; `prompt_tokens`, `completion_tokens`: the most of each
Requests = dict[str, Tokens]  # by key


class BatchClient:
    """`ChatModel` whose responses are all fetched beforehand (`run_batches`).

    Raises:
        UserErrors: There is no API key.
    """

    def __init__(self, settings: LLMArguments, usage: UsageTracker, cache: ResponseCache, spent: float = 0.0) -> None:
        self.settings, self.usage, self.cache, self.spent_before = settings, usage, cache, spent
        self.transport = HttpTransport(settings)
        self.failed: dict[str, str] = {}  # request key → why it has no completion
        self.failures = Counter[str]()
        self.any_success = False

    async def complete(self, messages: Messages, key: str) -> dict[str, Any]:
        """Refuse a request whose response isn't cached."""
        raise RequestFailed(self.failed.get(key, "the Batch API gave no response"))

    def stop(self) -> None:
        pass

    async def aclose(self) -> None:
        await self.transport.client.close()

    async def run_batches(self, pending: Callable[[], Iterable[PendingRequest]], client: CachedClient) -> None:
        """Have all requests of the rows completed, second tries included.

        Raises:
            UserErrors: Fatal; what was submitted stays recorded.
        """
        self.any_success = client.refusals.succeeded_before
        await self._collect()
        while await self._submit(pending(), client):
            await self._collect()

    async def _submit(self, pending: Iterable[PendingRequest], client: CachedClient) -> bool:
        """Submit the requests that aren't cached, each file as soon as it is full; return whether there were any."""
        file, submitted = _RequestFile(self._beside("requests")), set[bytes]()
        left, too_much = float("inf"), 0.0
        if self.settings.max_cost_usd is not None:
            left = self.settings.max_cost_usd - self._spent()

        def record(messages: Messages, key: str) -> None:
            nonlocal left, too_much
            name = bytes.fromhex(key)
            if key in self.failed or name in submitted:
                return
            most = most_tokens(messages, self.settings.max_tokens)
            bound = self.usage.cost(most | BATCH)
            if bound > left:
                too_much = bound
                return
            left -= bound
            submitted.add(name)
            body = self.settings.request(messages)
            read = estimated_prompt(messages, self.settings.model)
            file.add(key, {"read": read, **most}, {"custom_id": key, "method": "POST", "url": URL, "body": body})

        dry_run = CachedClient(
            DryRunClient(record), self.settings, client.version, self.cache, UsageTracker(None), earlier=client.earlier
        )
        try:
            for row in pending:
                await collect_requests(row, dry_run)
                if len(file.requests) >= MOST_REQUESTS or file.size >= MOST_BYTES:
                    await self._send(file)
            if file.requests:
                await self._send(file)
        finally:
            file.remove()
        if too_much and not submitted:
            raise over_budget(float(self.settings.max_cost_usd or 0), self._spent(), too_much)
        return bool(submitted)

    def _spent(self) -> float:
        return self.spent_before + self.usage.spent["dollars"] + self.usage.lost_now

    def _beside(self, name: str) -> Path:
        return self.cache.path.with_name(f"{self.cache.path.name}.{name}")

    async def _send(self, file: _RequestFile) -> None:
        """Upload a file, record it, create its batch, and begin a new one."""
        file.lines.close()
        uploaded = await self._retried(lambda: self._upload(file.path))
        name = str(uploaded.id)
        state = {"at": endpoint_name(self.settings.base_url), "batch": None, "requests": file.requests}
        self.cache.keep_batch(name, state)
        await self.cache.reserve({key: _bound(tokens) for key, tokens in file.requests.items()})
        try:
            self.cache.keep_batch(name, state | {"batch": await self._create(name, False), "since": time.time()})
        except UserErrors:
            self.cache.keep_batch(name, None)  # it was refused: nothing of it is in progress
            await self.cache.release(file.requests)
            raise
        file.begin()

    async def _upload(self, path: Path) -> Any:
        with path.open("rb") as file:
            return await self.transport.send(
                self.transport.client.files.create(file=file, purpose="batch"), timed=False
            )

    async def _create(self, file_id: str, again: bool) -> str:
        """Return the batch of an uploaded file; create it unless it exists, unrecorded because of a kill or a lost
        response.
        """
        client = self.transport.client

        async def existing() -> str | None:
            async for batch in client.batches.list(limit=100):
                if batch.input_file_id == file_id:
                    return str(batch.id)
            return None

        async def once() -> str:
            nonlocal again
            if again and (found := await self.transport.send(existing())):
                return found
            again = True
            created = client.batches.create(input_file_id=file_id, endpoint=URL, completion_window="24h")
            return str((await self.transport.send(created)).id)

        return await self._retried(once)

    async def _collect(self) -> None:
        """Wait for the submitted batches, and cache their responses."""
        for name, state in self.cache.batches().items():
            if state["at"] != endpoint_name(self.settings.base_url):
                what = f"a batch is in progress at {state['at']}: finish it there first, or give another response_cache"
                raise user_error(str(self.cache.path), what)
            wanted: Requests = state["requests"]
            fatal: list[Exception] = []
            reason = await self._results(name, state, wanted, fatal)
            for key, tokens in wanted.items():
                if key not in self.seen:  # it is sent once more, and then given up, in later runs too
                    charge = {"kind": reason or NO_OUTCOME, "never": True, "lost": True, **_bound(tokens)}
                    await self._charge(key, charge)
            self.cache.keep_batch(name, None)
            if fatal:
                raise fatal[0]

    async def _results(self, name: str, state: dict[str, Any], wanted: Requests, fatal: list[Exception]) -> str | None:
        """Wait for one batch and cache its responses; return why the other requests have no outcome, if that is known.

        `fatal` gets the errors that end the run once the responses are cached.
        """
        self.seen = set[str]()
        try:
            if state["batch"] is None:
                state |= {"batch": await self._create(name, True), "since": time.time()}
                self.cache.keep_batch(name, state)
            batch = await self._wait(state, len(wanted))
        except Lost as error:
            logger.warning("%s: a batch is lost (%s); its requests are sent again", self.transport.where, error.reason)
            return None
        refused: dict[str, RequestRefused] = {}
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id:
                try:
                    await self._fetch(str(file_id), wanted, refused, fatal)
                except Lost as error:
                    logger.warning("%s: a file of results is lost (%s)", self.transport.where, error.reason)
        self.failed |= {key: error.row for key, error in refused.items()}
        if refused and not self.any_success:
            fatal.append(next(iter(refused.values())).fault)
        if state.get("timed out"):
            return f"its batch had not ended after {self.settings.batch_timeout:g} hours (batch_timeout)"
        if batch.status in ("failed", "cancelled"):
            # what it doesn't list was never processed: it is neither paid for nor lost
            await self.cache.release(key for key in wanted if key not in self.seen)
            self.seen.update(wanted)
            fatal.append(user_error(self.transport.where, f"{self._why(batch)}; {CACHED}, with what it left"))
        return None

    def _why(self, batch: Any) -> str:
        """Return what the endpoint says about a batch that failed."""
        key, errors = self.transport.key, getattr(batch, "errors", None)
        listed = getattr(errors, "data", None)
        texts = [excerpt(getattr(error, "message", None) or error, key)
                 for error in (listed if isinstance(listed, list) else [errors] if errors else [])]  # fmt: skip
        why = f" ({'; '.join(texts)[:EXCERPT]})" if texts else ""
        return f"batch {excerpt(batch.id, key)} was {batch.status}{why}"

    async def _charge(self, key: str, charge: dict[str, Any]) -> None:
        self.usage.pay_unusable(charge)
        await self.cache.charge(key, charge)

    async def _wait(self, state: dict[str, Any], requests: int) -> Any:
        """Poll a batch until it ends; one that takes too long is cancelled, which leaves its responses.

        Its `state` is then marked `timed out`.
        """
        seconds, reported, key = FIRST_POLL, None, self.transport.key
        limit = state.setdefault("since", time.time()) + 3600 * self.settings.batch_timeout
        while True:
            batch = await self._retried(lambda: self._retrieve(state["batch"]))
            completed = getattr(batch.request_counts, "completed", 0) or 0
            now = f"batch {state['batch']}: {batch.status}, {completed:,} of {requests:,} requests completed"
            if now != reported:
                logger.info(excerpt(now, key))
                reported = now
            if batch.status in ENDED or (state.get("timed out") and time.time() > limit):
                return batch
            if not state.get("timed out") and time.time() > limit:
                state["timed out"], limit = True, time.time() + CANCELLING
                logger.warning("%s: %s after %g hours (batch_timeout); it is cancelled, its responses are cached",
                               self.transport.where, excerpt(now, key), self.settings.batch_timeout)  # fmt: skip
                with contextlib.suppress(UserErrors):  # it may have ended, or be unknown: the next poll tells
                    await self._retried(
                        lambda: self.transport.send(self.transport.client.batches.cancel(state["batch"]))
                    )
                continue
            await asyncio.sleep(seconds)
            seconds = min(LONGEST_POLL, 1.5 * seconds)

    async def _retrieve(self, batch_id: str) -> Any:
        batch = await self.transport.send(self.transport.client.batches.retrieve(batch_id))
        if not isinstance(getattr(batch, "status", None), str):
            raise RetryableError("no batch in the response")
        return batch

    async def _fetch(
        self, file_id: str, wanted: Requests, refused: dict[str, RequestRefused], fatal: list[Exception]
    ) -> None:
        """Cache the completions of a file of results, and record the failures.

        Lines that can't be read, and those of requests that this batch doesn't have, are ignored.
        """
        path = self._beside("results")
        try:
            await self._retried(lambda: self.transport.send(self._download(file_id, path), timed=False))
            completions: dict[str, dict[str, Any]] = {}
            for line in _lines(path):
                key = line.get("custom_id")
                if not isinstance(key, str) or key in self.seen or key not in wanted:
                    continue
                self.seen.add(key)
                outcome = self._outcome(line, wanted[key])
                if isinstance(outcome, Exception):
                    await self.cache.release([key])
                    if isinstance(outcome, RequestRefused):
                        refused[key] = outcome
                    else:
                        self._failed(key, outcome, fatal)
                elif charge := self._unusable(key, outcome):
                    await self._charge(key, charge)
                elif self.cache.get(key) is None:
                    completions[key] = outcome
                    self.usage.pay(outcome)
                if len(completions) >= CHUNK:
                    await self.cache.put_all(completions)
                    completions = {}
            await self.cache.put_all(completions)
        finally:
            path.unlink(missing_ok=True)

    def _unusable(self, key: str, outcome: dict[str, Any]) -> dict[str, Any] | None:
        """Return the charge for a response that isn't cached: it has no completion, lacks something, or came twice."""
        if "content" not in outcome:
            return outcome
        self.any_success = True
        tokens = {name: outcome[name] for name in ("prompt_tokens", "completion_tokens")}
        if lacking := self.settings.lacks(outcome):
            self.failed[key] = lacking
            return {"kind": lacking, **tokens, **BATCH}
        if key in self.cache.in_flight and self.cache.get(key) is not None:
            return {"kind": "completed twice", "again": True, **tokens, **BATCH}
        return None

    def _failed(self, key: str, outcome: Exception, fatal: list[Exception]) -> None:
        if isinstance(outcome, UserErrors):
            fatal.append(outcome)
            return
        self.failures[key] += 1
        if self.failures[key] >= ROUNDS:
            self.failed[key] = f"endpoint failed: {outcome}"

    async def _download(self, file_id: str, path: Path) -> None:
        async with self.transport.client.files.with_streaming_response.content(file_id) as content:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                async for piece in content.iter_bytes():
                    file.write(piece)

    def _outcome(self, line: dict[str, Any], tokens: Tokens) -> dict[str, Any] | Exception:
        """Return a request's completion or charge, as `OpenAIClient._send` does, or what is wrong."""
        transport, response, error = self.transport, line.get("response"), line.get("error")
        if not isinstance(response, dict):
            code = error.get("code") if isinstance(error, dict) else error
            return RetryableError(excerpt(code or "batch failed", transport.key))
        status, body = response.get("status_code"), response.get("body")
        if isinstance(status, str) and status.isdecimal():
            status = int(status)
        if status != 200:
            status = status if type(status) is int and 300 <= status < 600 else 500
            return classify_error(status, body, {}, transport.where, transport.key, self.settings.api_key_env)
        completion = completion_of(body, transport.key)
        outcome = with_tokens(completion, tokens["read"], _bound(tokens), self.settings)
        return outcome if isinstance(outcome, Exception) else outcome | BATCH

    async def _retried(self, once: Callable[[], Awaitable[Result]]) -> Result:
        """Call `once` with retries.

        Raises:
            Lost: The endpoint has no such object.
            UserErrors: The last try failed.
        """
        try:
            return await with_retries(once, self.settings, self.usage)
        except RetryableError as error:
            raise user_error(self.transport.where, f"failed repeatedly ({error}); {CACHED}") from None
        except RequestRefused as error:
            raise Lost(error.row, error.fault) from None


class Lost(UserErrors):
    """The endpoint doesn't have a batch or a file (404, 410, …), or refuses to create it."""

    def __init__(self, reason: str, fault: UserErrors) -> None:
        self.reason = reason
        super().__init__(*fault.faults)


class _RequestFile:
    """A file of requests, one per line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begin()

    def begin(self) -> None:
        """Empty the file."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        self.lines: IO[str] = open(os.open(self.path, flags, 0o600), "w", encoding="utf-8")  # noqa: SIM115
        self.requests: Requests = {}
        self.size = 0

    def add(self, key: str, tokens: Tokens, request: dict[str, Any]) -> None:
        """Add the line of a request."""
        self.size += self.lines.write(json.dumps(request) + "\n")
        self.requests[key] = tokens

    def remove(self) -> None:
        self.lines.close()
        self.path.unlink(missing_ok=True)


def _bound(tokens: Tokens) -> dict[str, Any]:
    """Return the most that a request can cost, for the ledger."""
    return {name: tokens[name] for name in ("prompt_tokens", "completion_tokens")} | BATCH


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file of results that hold a JSON object."""
    unreadable = 0
    with path.open("rb") as lines:
        for line in filter(bytes.strip, lines):
            try:
                value = parse_json(line)
            except ValueError:
                value = None
            if isinstance(value, dict):
                yield value
            else:
                unreadable += 1
    if unreadable:
        logger.warning("%s lines of a batch's results can't be read; their requests are sent again", unreadable)
