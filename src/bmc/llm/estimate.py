"""Cost estimate of a run: the very work of the run, with a model that only notes what it is asked."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..config import AskingArguments
from ..errors import fail
from .cache import CachedResponses, ResponseCache, replies_path
from .client import CachedClient, Earlier, Model, Reply
from .cost import CostEstimate, Meter
from .tokens import Messages, TokenCounter


class Unanswered(Exception):
    """The row waits for an answer."""


class DryRunModel:
    """A `Model` that hands on what it would be asked, and answers nothing."""

    def __init__(self, note: Callable[[Messages, str], None]) -> None:
        self.note = note

    async def answer(self, messages: Messages, key: str) -> dict[str, Any]:
        self.note(messages, key)
        raise Unanswered

    def stop(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


@dataclass(frozen=True)
class Job:
    """What one row asks.

    Attributes:
        ask: Asks it, of the asker that it is given; may raise `Unanswered`, and nothing else that is the row's.
        like: A text about as long as an answer.
    """

    ask: Callable[[CachedClient], Awaitable[object]]
    like: str


async def note_requests(job: Job, asker: CachedClient) -> None:
    """Have a client of a `DryRunModel` note what a row asks beyond what is kept, some of it perhaps twice."""
    with contextlib.suppress(Unanswered):
        await job.ask(asker)


class _Quoting(CachedClient):
    """A client of a `DryRunModel` that tells what kept replies had in tokens."""

    learn: Callable[[Messages, Reply], None]

    async def ask(self, messages: Messages) -> Reply:
        reply = await super().ask(messages)
        self.learn(messages, reply)
        return reply


async def quote(
    jobs: Iterable[Job],
    settings: AskingArguments,
    version: int,
    store: CachedResponses,
    earlier: Earlier = lambda messages: [],
) -> CostEstimate:
    """What the rows would ask, beyond what the store has.

    Args:
        jobs: One a row.
        settings: How the model is asked.
        version: Of the prompts.
        store: Of the answers.
        earlier: As `CachedClient` has it.
    """
    count = TokenCounter(settings.model)
    found = CostEstimate(settings, count.how, seen=store.size())
    expected, noted = 0.0, set[str]()

    def note(messages: Messages, key: str) -> None:
        if key in noted:
            return
        noted.add(key)
        found.asked += 1
        found.prompt_tokens += count.prompt(messages)
        found.completion_tokens += min(expected, settings.max_tokens)

    def learn(messages: Messages, reply: Reply) -> None:
        estimates = count.prompt(messages), min(expected, settings.max_tokens)
        found.learn(estimates, (reply.prompt_tokens, reply.completion_tokens))

    meter = Meter(found.price)
    asker = _Quoting(DryRunModel(note), settings, version, store, meter, earlier=earlier)
    asker.learn = learn
    for job in jobs:
        found.rows += 1
        expected = count(job.like)
        noted.clear()
        await note_requests(job, asker)
    found.kept, found.kept_dollars = int(meter.used["replies"]), meter.used["dollars"]
    found.possibly_billed = meter.lost_dollars
    found.correct()
    return found


@contextlib.asynccontextmanager
async def asker_for(
    settings: AskingArguments,
    version: int,
    jobs: Callable[[], Iterable[Job]],
    found: CostEstimate,
    make_model: Callable[[Meter, ResponseCache, float], Model],
    earlier: Earlier = lambda messages: [],
) -> AsyncIterator[CachedClient]:
    """Opens the store, to be written by this process alone if anything is to be asked, and asks on it.

    What earlier runs have spent is read once the store is locked: another process may have added to it since the quote.

    Args:
        settings: How the model is asked.
        version: Of the prompts.
        jobs: What each row asks; may be called several times.
        found: The quote.
        make_model: Makes the model of a meter, the store, and the dollars that are spent already.
        earlier: As `CachedClient` has it.
    """
    path = replies_path(settings.replies, settings.output_dir)  # type: ignore[attr-defined]
    meter = Meter(settings.prices.get(settings.model))
    if not found.asked:  # so that a store that can't be written will do
        with contextlib.closing(CachedResponses(path)) as kept:
            yield CachedClient(DryRunModel(lambda *_: None), settings, version, kept, meter, earlier=earlier)
        return
    with contextlib.closing(ResponseCache(path, settings.batch_api)) as store:
        if store.size() != found.seen:
            found = await quote(jobs(), settings, version, store, earlier)
        model = make_model(meter, store, found.prior_spend)
        asker = CachedClient(model, settings, version, store, meter, found.kept > 0, earlier)
        try:
            yield asker
        finally:
            await asker.aclose()
            print(meter)


def confirm(settings: AskingArguments, found: CostEstimate) -> None:
    """Asks on a terminal before anything is paid for.

    Raises:
        Faults: The quote is declined.
    """
    if settings.yes or not found.asked or not sys.stdin.isatty():
        return
    if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise fail("the quote", "was declined, and nothing was asked; --yes goes on without a question")
