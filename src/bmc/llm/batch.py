"""Answers by OpenAI's Batch API: files of requests, answered within a day at half the price.

A batch that is under way is noted in the store, so that a later process, tomorrow, goes on where this one was: it polls
what was submitted and submits nothing twice.
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
from typing import Any, Final

from ..config import LLMArguments
from ..errors import Faults, fail
from .address import endpoint_name
from .cache import NEVER, ResponseCache
from .client import CachedClient, DryRunClient, PendingRequest, collect_requests
from .cost import Messages, UsageTracker, estimated_prompt
from .errors import (
    KEPT,
    SAID,
    RequestFailed,
    RequestRefused,
    RetryableError,
    UnusableResponse,
    completion,
    parsed,
    refusal,
    told,
)
from .openai_client import HttpTransport, Result, most_tokens, over_budget, token_usage, unusable_response, with_retries

logger = logging.getLogger(__name__)
URL: Final = "/v1/chat/completions"
MOST_REQUESTS, MOST_BYTES = 50_000, 190_000_000  # of a file; OpenAI takes 50,000 and 200 MB
ROUNDS = 3  # in which a request may fail
FIRST_POLL, LONGEST_POLL = 1.0, 60.0  # seconds between two looks
OVER = ("completed", "expired", "cancelled", "failed")
CANCELLING = 900.0  # seconds that a cancelled batch may take to end
CHUNK = 500  # answers to a commit
BATCH = {"batch": True}  # marks what is paid at the Batch API's price
Tokens = dict[str, int]  # `read`, an estimate of the prompt; `prompt_tokens`, `completion_tokens`, the most of each
Requests = dict[str, Tokens]  # by their keys
UNKNOWN: Tokens = {"read": 0, "prompt_tokens": 0, "completion_tokens": 0}


class BatchClient:
    """A `ChatModel` whose answers are all fetched beforehand (`run_batches`).

    Args:
        settings: The recipe's.
        usage: Counts tokens and dollars.
        store: Keeps the answers, what is under way, and what was paid for in vain.
        paid: Dollars for replies of earlier runs, which count towards `max_cost_usd`.

    Raises:
        Faults: There is no key.
    """

    def __init__(self, settings: LLMArguments, usage: UsageTracker, store: ResponseCache, paid: float = 0.0) -> None:
        self.settings, self.usage, self.store, self.paid = settings, usage, store, paid
        self.line = HttpTransport(settings)
        self.failed: dict[str, str] = {}  # request → why it has no answer
        self.failures = Counter[str]()
        self.answered = False  # whether any request ever was

    async def complete(self, messages: Messages, key: str) -> dict[str, Any]:
        """There is none beyond those in the store."""
        raise RequestFailed(self.failed.get(key, "the Batch API gave no answer"))

    def stop(self) -> None:
        pass

    async def aclose(self) -> None:
        await self.line.client.close()

    async def run_batches(self, jobs: Callable[[], Iterable[PendingRequest]], client: CachedClient) -> None:
        """Has everything answered that the rows ask, second tries included.

        Args:
            jobs: What each row asks; called several times.
            client: Whose store gets the answers.

        Raises:
            Faults: The run can't go on; what was submitted stays noted.
        """
        self.answered = client.refusals.answered_before
        await self._collect()
        while await self._submit(jobs(), client):
            await self._collect()

    async def _submit(self, jobs: Iterable[PendingRequest], client: CachedClient) -> bool:
        """Submits what the rows ask and the store doesn't have; whether there was anything.

        A file is submitted as soon as it is full.
        """
        batch, asked = _File(self.store.path.with_name(f"{self.store.path.name}.requests")), set[bytes]()
        left, too_much = self._left(), 0.0

        def note(messages: Messages, key: str) -> None:
            nonlocal left, too_much
            name = bytes.fromhex(key)
            if key in self.failed or name in asked:
                return
            most = most_tokens(messages, self.settings)
            bound = self.usage.cost(most | BATCH)
            if bound > left:
                too_much = bound
                return
            left -= bound
            asked.add(name)
            body = self.settings.request(messages)
            read = estimated_prompt(messages, self.settings.model)
            batch.add(key, {"read": read, **most}, {"custom_id": key, "method": "POST", "url": URL, "body": body})

        noting = CachedClient(
            DryRunClient(note), self.settings, client.version, self.store, UsageTracker(None), earlier=client.earlier
        )
        try:
            for job in jobs:
                await collect_requests(job, noting)
                if batch.full:
                    await self._send(batch)
            if batch.requests:
                await self._send(batch)
        finally:
            batch.remove()
        if too_much and not asked:
            raise over_budget(float(self.settings.max_cost_usd or 0), self._spent(), too_much)
        return bool(asked)

    def _spent(self) -> float:
        return self.paid + self.usage.spent["dollars"] + self.usage.lost_now

    def _left(self) -> float:
        return float("inf") if self.settings.max_cost_usd is None else self.settings.max_cost_usd - self._spent()

    async def _send(self, batch: _File) -> None:
        """Uploads a file, notes it, and has it worked on."""
        path = batch.close()
        uploaded = await self._tried(lambda: self._upload(path))
        name = str(uploaded.id)
        state = {"at": endpoint_name(self.settings.base_url), "batch": None, "requests": batch.requests}
        self.store.keep_batch(name, state)
        await self.store.reserve({key: _most(tokens) for key, tokens in batch.requests.items()})
        try:
            self.store.keep_batch(name, state | {"batch": await self._begun(name, False), "since": time.time()})
        except Faults:
            self.store.keep_batch(name, None)  # it was refused: nothing of it is under way
            await self.store.release(batch.requests)
            raise
        batch.start()

    async def _upload(self, path: Path) -> Any:
        with path.open("rb") as file:
            return await self.line.send(self.line.client.files.create(file=file, purpose="batch"), timed=False)

    async def _begun(self, file_id: str, again: bool) -> str:
        """The batch of an uploaded file, which is begun unless it is there: a kill or a lost reply may have left it
        unnoted.
        """
        client = self.line.client

        async def once() -> str:
            nonlocal again
            known = await self._found(file_id) if again else None
            if known:
                return known
            again = True
            begun = client.batches.create(input_file_id=file_id, endpoint=URL, completion_window="24h")
            return str((await self.line.send(begun)).id)

        return await self._tried(once)

    async def _found(self, file_id: str) -> str | None:
        async def look() -> str | None:
            async for batch in self.line.client.batches.list(limit=100):
                if batch.input_file_id == file_id:
                    return str(batch.id)
            return None

        return await self.line.send(look())

    async def _collect(self) -> None:
        """Waits for the batches under way, and keeps their answers."""
        for name, state in self.store.batches().items():
            if state["at"] != endpoint_name(self.settings.base_url):
                what = f"a batch is under way at {state['at']}; run with that base_url first, or give other `replies`"
                raise fail(str(self.store.path), what)
            wanted = _requests(state["requests"])
            ended: list[Exception] = []
            reason = await self._results(name, state, wanted, ended)
            for key, tokens in (wanted or {}).items():
                if key not in self.seen:
                    await self._never_came(key, tokens, reason or NEVER)
            self.store.keep_batch(name, None)
            if ended:
                raise ended[0]

    async def _results(
        self, name: str, state: dict[str, Any], wanted: Requests | None, ended: list[Exception]
    ) -> str | None:
        """Wait for one batch and keep its answers.

        Args:
            name: Of its file of requests.
            state: What is known of it.
            wanted: Its requests → their tokens; None if these aren't known.
            ended: Gets what stops the run once the answers are kept.

        Returns:
            Why the rest has no outcome, if that is known.
        """
        self.seen = set[str]()
        try:
            if state["batch"] is None:
                state |= {"batch": await self._begun(name, True), "since": time.time()}
                self.store.keep_batch(name, state)
            batch = await self._over(state, len(wanted or ()))
        except Lost as error:
            logger.warning("%s: a batch is lost (%s); its requests are sent anew", self.line.where, error.reason)
            return None
        refused: dict[str, RequestRefused] = {}
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id:
                try:
                    await self._fetch(str(file_id), wanted, refused, ended)
                except Lost as error:
                    logger.warning("%s: a file of results is lost (%s)", self.line.where, error.reason)
        for key, refusal_ in refused.items():
            self.failed[key] = refusal_.row
        if refused and not self.answered:
            ended.append(next(iter(refused.values())).fault)
        if state.get("timed out"):
            return f"its batch had not ended after {self.settings.batch_timeout:g} hours (batch_timeout)"
        if batch.status in ("failed", "cancelled"):
            # what it doesn't list was never worked on: it is neither paid for nor lost
            await self.store.release(key for key in wanted or () if key not in self.seen)
            self.seen.update(wanted or ())
            ended.append(fail(self.line.where, f"{self._why(batch)}; {KEPT}, with what it left"))
        return None

    def _why(self, batch: Any) -> str:
        """What the endpoint says of a batch that came to nothing."""
        listed = getattr(getattr(batch, "errors", None), "data", None)
        errors = listed if isinstance(listed, list) else [batch.errors] if getattr(batch, "errors", None) else []
        said = "; ".join(told(getattr(error, "message", None) or error, self.line.key) for error in errors)
        shown = told(batch.id, self.line.key)
        return f"batch {shown} was {batch.status}{f' ({said[:SAID]})' if said else ''}"

    async def _never_came(self, key: str, tokens: Tokens, reason: str) -> None:
        """Note that a request has no outcome; it is sent once more, and then given up, in later runs too."""
        await self._charge(key, {"kind": reason, "never": True, "lost": True, **_most(tokens)})

    async def _charge(self, key: str, charge: dict[str, Any]) -> None:
        self.usage.pay_unusable(charge)
        await self.store.charge(key, charge)

    async def _over(self, state: dict[str, Any], requests: int) -> Any:
        """Wait for a batch that nothing more comes of; one that takes too long is cancelled, which leaves its answers.

        Args:
            state: What is known of it; gets `timed out` where it is cancelled.
            requests: How many it has.
        """
        seconds, said = FIRST_POLL, None
        limit = state.setdefault("since", time.time()) + 3600 * self.settings.batch_timeout
        while True:
            batch = await self._tried(lambda: self._looked_at(state["batch"]))
            answered = getattr(batch.request_counts, "completed", 0) or 0
            now = f"batch {state['batch']}: {batch.status}, {answered:,} of {requests:,} requests answered"
            if now != said:
                logger.info(told(now, self.line.key))
                said = now
            if batch.status in OVER or (state.get("timed out") and time.time() > limit):
                return batch
            if not state.get("timed out") and time.time() > limit:
                state["timed out"], limit = True, time.time() + CANCELLING
                logger.warning("%s: %s after %g hours (batch_timeout); it is cancelled, its answers are kept",
                               self.line.where, told(now, self.line.key), self.settings.batch_timeout)  # fmt: skip
                with contextlib.suppress(Faults):  # it may be over by now, or unknown: the next look tells
                    await self._tried(lambda: self.line.send(self.line.client.batches.cancel(state["batch"])))
                continue
            await asyncio.sleep(seconds)
            seconds = min(LONGEST_POLL, 1.5 * seconds)

    async def _looked_at(self, batch_id: str) -> Any:
        batch = await self.line.send(self.line.client.batches.retrieve(batch_id))
        if not isinstance(getattr(batch, "status", None), str):
            raise RetryableError("no batch in its reply")
        return batch

    async def _fetch(
        self, file_id: str, wanted: Requests | None, refused: dict[str, RequestRefused], ended: list[Exception]
    ) -> None:
        """Keeps the answers of a file of results, and notes the failures.

        Lines that can't be read, and those of requests that this batch doesn't have, count for nothing.
        """
        path = self.store.path.with_name(f"{self.store.path.name}.results")
        try:
            await self._tried(lambda: self.line.send(self._download(file_id, path), timed=False))
            answers: dict[str, dict[str, Any]] = {}
            for line in _lines(path):
                key = line.get("custom_id")
                if not isinstance(key, str) or key in self.seen or (wanted is not None and key not in wanted):
                    continue
                self.seen.add(key)
                outcome = self._outcome(line, (wanted or {}).get(key) or UNKNOWN)
                if isinstance(outcome, Exception):
                    await self.store.release([key])
                    if isinstance(outcome, RequestRefused):
                        refused[key] = outcome
                    else:
                        self._failed(key, outcome, ended)
                elif "content" not in outcome:
                    await self._charge(key, outcome)
                else:
                    self.answered = True
                    if charge := self._no_answer(key, outcome):
                        await self._charge(key, charge)
                    elif self.store.get(key) is None:
                        answers[key] = outcome
                        self.usage.pay(outcome)
                if len(answers) >= CHUNK:
                    await self.store.put_all(answers)
                    answers = {}
            await self.store.put_all(answers)
        finally:
            path.unlink(missing_ok=True)

    def _no_answer(self, key: str, outcome: dict[str, Any]) -> dict[str, Any] | None:
        """The charge for a response that isn't kept: it lacks something, or the cache has got another one meanwhile."""
        tokens = {name: outcome[name] for name in ("prompt_tokens", "completion_tokens")}
        if lacking := self.settings.lacks(outcome):
            self.failed[key] = lacking
            return {"kind": lacking, **tokens, **BATCH}
        if key in self.store.in_flight and self.store.get(key) is not None:
            return {"kind": "answered twice", "again": True, **tokens, **BATCH}
        return None

    def _failed(self, key: str, outcome: Exception, ended: list[Exception]) -> None:
        """Note what went wrong with a request."""
        if isinstance(outcome, Faults):
            ended.append(outcome)
            return
        self.failures[key] += 1
        if self.failures[key] >= ROUNDS:
            self.failed[key] = f"endpoint failed: {outcome}"

    async def _download(self, file_id: str, path: Path) -> None:
        async with self.line.client.files.with_streaming_response.content(file_id) as content:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                async for piece in content.iter_bytes():
                    file.write(piece)

    def _outcome(self, line: dict[str, Any], tokens: Tokens) -> dict[str, Any] | Exception:
        """What became of a request: as `OpenAIClient._sent` has it, or what is wrong."""
        response, error = line.get("response"), line.get("error")
        if not isinstance(response, dict):
            code = error.get("code") if isinstance(error, dict) else error
            return RetryableError(told(code or "batch failed", self.line.key))
        status, body = response.get("status_code"), response.get("body")
        if isinstance(status, str) and status.isdecimal():
            status = int(status)
        if status != 200:
            status = status if type(status) is int and 300 <= status < 600 else 500
            return refusal(status, body, {}, self.line.where, self.line.key, self.settings.api_key_env)
        outcome = completion(body, self.line.key)
        if isinstance(outcome, UnusableResponse):
            return unusable_response(outcome, tokens["read"], _most(tokens), self.settings) | BATCH
        if isinstance(outcome, Exception):
            return outcome
        return outcome | token_usage(outcome.pop("usage"), tokens["read"], outcome["content"], self.settings) | BATCH

    async def _tried(self, once: Callable[[], Awaitable[Result]]) -> Result:
        """What `once` gives, at the first or a later try.

        Raises:
            Lost: The endpoint has no such thing.
        """
        try:
            return await with_retries(once, self.settings, self.usage)
        except RetryableError as error:
            raise fail(self.line.where, f"failed again and again ({error}); {KEPT}") from None
        except RequestRefused as error:
            raise Lost(error.row, error.fault) from None


class Lost(Faults):
    """The endpoint doesn't have a batch or a file (404, 410, …), or refuses to make it."""

    def __init__(self, reason: str, fault: Faults) -> None:
        self.reason = reason
        super().__init__(*fault.faults)


class _File:
    """A file of requests, a line each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start()

    def start(self) -> None:
        """Begins anew."""
        self.file = open(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8")  # noqa: SIM115
        self.requests: Requests = {}
        self.size = 0

    @property
    def full(self) -> bool:
        return len(self.requests) >= MOST_REQUESTS or self.size >= MOST_BYTES

    def add(self, key: str, tokens: Tokens, request: dict[str, Any]) -> None:
        """Add a request.

        Args:
            key: Its name.
            tokens: An estimate of those that it reads, and the most that it can cost.
            request: Its line.
        """
        line = json.dumps(request) + "\n"
        self.file.write(line)
        self.requests[key] = tokens
        self.size += len(line)

    def close(self) -> Path:
        self.file.close()
        return self.path

    def remove(self) -> None:
        self.file.close()
        self.path.unlink(missing_ok=True)


def _requests(noted: Any) -> Requests | None:
    """A batch's requests as they were noted, by older versions as a number or with an estimate alone."""
    if not isinstance(noted, dict):
        return None
    return {key: tokens if isinstance(tokens, dict) else UNKNOWN | {"read": tokens, "prompt_tokens": tokens}
            for key, tokens in noted.items()}  # fmt: skip


def _most(tokens: Tokens) -> dict[str, Any]:
    """The most that a request can cost, as the ledger has it."""
    return {name: tokens[name] for name in ("prompt_tokens", "completion_tokens")} | BATCH


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of results that hold a JSON object."""
    unreadable = 0
    with path.open("rb") as lines:
        for line in lines:
            try:
                value = parsed(line) if line.strip() else None
            except ValueError:
                value = 0
            if isinstance(value, dict):
                yield value
            elif value is not None:
                unreadable += 1
    if unreadable:
        logger.warning("%s lines of a batch's results can't be read; their requests are sent anew", unreadable)
