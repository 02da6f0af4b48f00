"""Answers by OpenAI's Batch API: files of requests, answered within a day at half the price.

A batch that is under way is noted in the store, so that a later process, tomorrow, goes on where this one was: it polls
what was submitted and submits nothing twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from ..config import AskingArguments
from ..errors import Faults, fail
from .asker import StoredAsker
from .cost import NONE_PAID, Messages, Meter, Paid, approximate_tokens, dollars, prompt_text
from .endpoint import Line, Result, metered, over_budget, tried
from .quoting import Job, Notes, note_requests
from .replies import NoReply
from .store import ReplyStore
from .trouble import KEPT, Transient, completion, place, refusal

logger = logging.getLogger(__name__)
URL: Final = "/v1/chat/completions"
MOST_REQUESTS, MOST_BYTES = 50_000, 190_000_000  # of a file; OpenAI takes 50,000 and 200 MB
ROUNDS = 3  # in which a request may fail
FIRST_POLL, LONGEST_POLL = 1.0, 60.0  # seconds between two looks
OVER = ("completed", "expired", "cancelled", "failed")
CHUNK = 500  # answers to a commit


class Batches:
    """A `Model` whose answers are all fetched beforehand (`fill`).

    Args:
        settings: The recipe's.
        meter: Counts tokens and dollars.
        paid: For answers of earlier runs, which counts towards `max_cost_usd`.

    Raises:
        Faults: There is no key.
    """

    def __init__(self, settings: AskingArguments, meter: Meter, paid: Paid = NONE_PAID) -> None:
        self.settings, self.meter, self.paid = settings, meter, paid
        self.line = Line(settings)
        self.failed: dict[str, str] = {}  # request → why it has no answer
        self.failures = Counter[str]()
        self.outcomes = 0  # requests of which something was told

    async def answer(self, messages: Messages, key: str) -> dict[str, Any]:
        """There is none beyond those in the store."""
        raise NoReply(self.failed.get(key, "the Batch API gave no answer"))

    def stop(self) -> None:
        pass

    async def aclose(self) -> None:
        await self.line.client.close()

    async def fill(self, jobs: Callable[[], Iterable[Job]], asker: StoredAsker) -> None:
        """Has everything answered that the rows ask, second tries included.

        Args:
            jobs: What each row asks; called several times.
            asker: Whose store gets the answers.

        Raises:
            Faults: The run can't go on; what was submitted stays noted.
        """
        store = asker.store
        assert isinstance(store, ReplyStore)
        await self._collect(store)
        while await self._submit(jobs(), asker, store):
            before = self.outcomes
            await self._collect(store)
            if self.outcomes == before:
                raise fail(self.line.where, f"its Batch API told nothing of what it was asked; {KEPT}")

    async def _submit(self, jobs: Iterable[Job], asker: StoredAsker, store: ReplyStore) -> bool:
        """Submits what the rows ask and the store doesn't have; whether there was anything.

        A file is submitted as soon as it is full.
        """
        batch, asked = _File(store.path.with_name(f"{store.path.name}.requests")), set[bytes]()
        left, skipped = self._left(), False

        def note(messages: Messages, key: str) -> None:
            nonlocal left, skipped
            name = bytes.fromhex(key)
            cost = self._guess(messages)
            if key in self.failed or name in asked:
                return
            if cost > left:
                skipped = True
                return
            left -= cost
            asked.add(name)
            body = self.settings.request(messages)
            batch.add({"custom_id": key, "method": "POST", "url": URL, "body": body})

        noting = StoredAsker(Notes(note), self.settings, asker.version, store, Meter(None))
        try:
            for job in jobs:
                await note_requests(job, noting)
                if batch.full:
                    await self._send(batch, store)
            if batch.count:
                await self._send(batch, store)
        finally:
            batch.remove()
        if skipped and not asked:
            raise over_budget(float(self.settings.max_cost_usd or 0), self._spent())
        return bool(asked)

    def _guess(self, messages: Messages) -> float:
        """Dollars that an answer will cost, rather too much than too little."""
        read, known = approximate_tokens(prompt_text(messages)), self.meter.spent
        mean = known["completion_tokens"] / known["replies"] if known["replies"] else 0.0
        return dollars(self.meter.price, read, max(mean, min(read, self.settings.max_tokens)), batch=True)

    def _spent(self) -> float:
        return self.paid.dollars + self.meter.spent["dollars"]

    def _left(self) -> float:
        return float("inf") if self.settings.max_cost_usd is None else self.settings.max_cost_usd - self._spent()

    async def _send(self, batch: _File, store: ReplyStore) -> None:
        """Uploads a file, notes it, and has it worked on."""
        path = batch.close()
        uploaded = await self._tried(lambda: self._upload(path))
        name, state = uploaded.id, {"at": place(self.settings.base_url), "batch": None, "requests": batch.count}
        store.keep_batch(name, state)
        store.keep_batch(name, state | {"batch": await self._begun(name, False)})
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
            known = await self.line.send(self._found(file_id)) if again else None
            if known:
                return known
            again = True
            begun = client.batches.create(input_file_id=file_id, endpoint=URL, completion_window="24h")
            return (await self.line.send(begun)).id

        return await self._tried(once)

    async def _found(self, file_id: str) -> str | None:
        async for batch in self.line.client.batches.list(limit=100):
            if batch.input_file_id == file_id:
                return batch.id
        return None

    async def _collect(self, store: ReplyStore) -> None:
        """Waits for the batches under way, and keeps their answers."""
        for name, state in store.batches().items():
            if state["at"] != place(self.settings.base_url):
                what = f"a batch is under way at {state['at']}; run with that base_url first, or give other `replies`"
                raise fail(str(store.path), what)
            if state["batch"] is None:
                state["batch"] = await self._begun(name, True)
                store.keep_batch(name, state)
            batch = await self._over(state["batch"], state["requests"])
            for file_id in (batch.output_file_id, batch.error_file_id):
                if file_id:
                    await self._fetch(file_id, store)
            store.keep_batch(name, None)
            if batch.status in ("failed", "cancelled"):
                errors = "; ".join(str(error.message) for error in (batch.errors and batch.errors.data) or [])
                told = f"batch {batch.id} was {batch.status}{f' ({errors[:200]})' if errors else ''}"
                raise fail(self.line.where, f"{told}; {KEPT}, with what it left")

    async def _over(self, batch_id: str, requests: int) -> Any:
        """A batch that nothing more comes of."""
        seconds, told = FIRST_POLL, None
        while True:
            batch = await self._tried(lambda: self.line.send(self.line.client.batches.retrieve(batch_id)))
            answered = batch.request_counts.completed if batch.request_counts else 0
            now = f"batch {batch_id}: {batch.status}, {answered:,} of {requests:,} requests answered"
            if now != told:
                logger.info(now)
                told = now
            if batch.status in OVER:
                return batch
            await asyncio.sleep(seconds)
            seconds = min(LONGEST_POLL, 1.5 * seconds)

    async def _fetch(self, file_id: str, store: ReplyStore) -> None:
        """Keeps the answers of a file of results, and notes the failures."""
        path, stop = store.path.with_name(f"{store.path.name}.results"), None
        try:
            await self._tried(lambda: self.line.send(self._download(file_id, path), timed=False))
            answers: dict[str, dict[str, Any]] = {}
            for line in _lines(path):
                outcome, key = self._outcome(line), str(line.get("custom_id"))
                self.outcomes += 1
                if isinstance(outcome, Faults):
                    stop = outcome
                elif isinstance(outcome, Transient):
                    self.failures[key] += 1
                    if self.failures[key] >= ROUNDS:
                        self.failed[key] = f"endpoint failed: {outcome}"
                elif isinstance(outcome, Exception):
                    self.failed[key] = str(outcome)
                else:
                    if store.get(key) is None:
                        self.meter.pay(outcome)
                    if lacking := self.settings.lacks(outcome):
                        self.failed[key] = lacking
                    else:
                        answers[key] = outcome
                if len(answers) >= CHUNK:
                    await store.put_all(answers)
                    answers = {}
            await store.put_all(answers)
        finally:
            path.unlink(missing_ok=True)
        if stop:
            raise stop

    async def _download(self, file_id: str, path: Path) -> None:
        async with self.line.client.files.with_streaming_response.content(file_id) as content:
            with path.open("wb") as file:
                async for piece in content.iter_bytes():
                    file.write(piece)

    def _outcome(self, line: dict[str, Any]) -> dict[str, Any] | Exception:
        """What became of a request."""
        response = line.get("response") or {}
        if line.get("error") and not response:
            return Transient(str(line["error"].get("code") or "batch failed"))
        status, body = int(response.get("status_code") or 0), response.get("body")
        if status != 200:
            return refusal(status or 500, body, {}, self.line.where, self.line.key, self.settings.api_key_env)
        outcome = completion(body, self.line.key)
        if isinstance(outcome, Exception):
            return outcome
        return metered(outcome, 0) | {"batch": True}

    async def _tried(self, once: Callable[[], Awaitable[Result]]) -> Result:
        """What `once` gives, at the first or a later try."""
        try:
            return await tried(once, self.settings, self.meter)
        except Transient as error:
            raise fail(self.line.where, f"failed again and again ({error}); {KEPT}") from None


class _File:
    """A file of requests, a line each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start()

    def start(self) -> None:
        """Begins anew."""
        self.file = self.path.open("w", encoding="utf-8")
        self.count = self.size = 0

    @property
    def full(self) -> bool:
        return self.count >= MOST_REQUESTS or self.size >= MOST_BYTES

    def add(self, request: dict[str, Any]) -> None:
        line = json.dumps(request) + "\n"
        self.file.write(line)
        self.count, self.size = self.count + 1, self.size + len(line)

    def close(self) -> Path:
        self.file.close()
        return self.path

    def remove(self) -> None:
        self.file.close()
        self.path.unlink(missing_ok=True)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)
