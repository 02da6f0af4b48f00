"""Run the bridging stage: read pairs, estimate cost, edit, write `train.jsonl`, `dropped.jsonl`, statistics."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..config import OFFLINE, BridgeConfig, names
from ..data.loading import RowStream, load_mixture
from ..data.schema import PAIR, SIDES, Row, check_rows, content, transcript, unbridged
from ..data.tokenization import check_offsets, check_template
from ..errors import user_error
from ..llm.batch import BatchClient
from ..llm.cache import CachedResponses, ResponseCache, cache_path
from ..llm.client import (
    CachedClient,
    CacheMiss,
    ChatModel,
    PendingRequest,
    confirm,
    estimate_cost,
    off_loop,
    open_client,
)
from ..llm.cost import CostEstimate, UsageTracker
from ..llm.openai_client import OpenAIClient, api_key
from ..models import load_tokenizer
from ..planning.describe import print_plan
from ..runs import (
    atomic_files,
    check_output_dir,
    claim_output_dir,
    elapsed,
    report_disk_errors,
    run_fingerprint,
    write_json,
)
from . import page
from .editor import bridge_pair, keep_unbridged, scored_pair
from .ideal_editor import IdealEditor
from .prompts import PROMPTS, VERSION, earlier_versions, score_request
from .rule_editor import RuleEditor
from .stats import Statistics, cosine, load_embedder
from .types import EditError, Editor, NoEditNeeded

logger = logging.getLogger(__name__)
WINDOW = 8  # rows in memory for each that may be under way: one that is slow doesn't hold up the rest
MARK = "3f0a91"  # of no request: six hexadecimal digits, as marks are
BridgeOne = Callable[[Row], Awaitable[Row]]  # raises EditError where a pair is to be dropped


def make_model(config: BridgeConfig, usage: UsageTracker, store: ResponseCache, paid: float = 0.0) -> ChatModel:
    """Make the client of a recipe's model.

    Args:
        config: The recipe; its editor is a model (not in `OFFLINE`).
        usage: Counts requests.
        store: Keeps responses, and what was paid for those that hold none.
        paid: Dollars that earlier runs have spent.

    Raises:
        UserErrors: It needs a key and there is none, or there is no such model.
    """
    if config.editor == "vllm" or config.editor == "transformers":
        from ..llm.local import LocalClient

        return LocalClient(config, config.editor)
    return (BatchClient if config.batch_api else OpenAIClient)(config, usage, store, paid)


def offline_editor(config: BridgeConfig) -> Editor:
    """BridgeOne the recipe's editor, one of `OFFLINE`."""
    if config.editor == "rules":
        return RuleEditor()
    return IdealEditor(config.editor_error_rate, config.editor_rewrite_rate)


def pending_requests(
    rows: Iterable[Row], config: BridgeConfig, bridge_with: Callable[[CachedClient], BridgeOne]
) -> Iterator[PendingRequest]:
    """List the requests of each row.

    Args:
        rows: (x, y_w, y_l).
        config: The recipe.
        bridge_with: A client → the function that bridges a row with it.
    """
    for row in rows:
        yield _pending_request(row, config, bridge_with)


def _pending_request(
    row: Row, config: BridgeConfig, bridge_with: Callable[[CachedClient], BridgeOne]
) -> PendingRequest:
    async def ask(client: CachedClient) -> None:
        if config.mode == "token_scores":  # the second response's scores don't wait for the first's
            for side in SIDES:
                messages, _ = score_request(transcript(row["prompt"]), content(row[side]))
                with contextlib.suppress(CacheMiss):
                    await client.prefetch(messages)
        with contextlib.suppress(EditError):
            await bridge_with(client)(row)

    return PendingRequest(ask, _sample_reply(row, config))


def _sample_reply(row: Row, config: BridgeConfig) -> str:
    """Write a reply as the prompt wants it, with the text that it is about in place of the edit."""
    if config.mode == "token_scores":
        return content(row["chosen"])
    subject = content(row["chosen" if config.mode in ("degrade", "polish", "fresh") else "rejected"])
    prompt = PROMPTS[config.mode, config.template]
    verdict = "<verdict>edit</verdict>\n" if prompt.judges else ""
    return f"{verdict}<{prompt.tag} {MARK}>\n{subject}\n</{prompt.tag} {MARK}>"


def bridge(config: BridgeConfig) -> dict[str, Any]:
    """Run the stage and return what it writes to `stats.json`.

    Raises:
        UserErrors: The data, the folder or the editor can't be used, the cost is declined, or no pair is kept.
            Responses of the editor stay in the cache in any case.
    """
    pairs, bridge_with = load(config)
    embedder = load_embedder(config.similarity_model) if config.similarity_model else None
    check_output_dir(config.output_dir, run_fingerprint(config))
    found = None
    if config.editor not in OFFLINE:
        found = estimate_for(config, pairs, bridge_with)
        if found.to_send and config.editor == "openai":
            api_key(config.api_key_env)
        print_plan(f"ask {config.model} about {found.rows:,} pairs", found.facts())
        if config.editor == "openai":
            confirm(config, found)
    with report_disk_errors(config.output_dir):
        folder = claim_output_dir(config.output_dir, run_fingerprint(config), config, rows=pairs)
        stats, statistics = asyncio.run(_run(config, pairs, bridge_with, folder, found))
        if embedder is not None:
            with (folder / "train.jsonl").open(encoding="utf-8") as lines:
                stats["similarity"]["cosine"] = cosine(embedder, map(json.loads, lines), config.mode)
        stats["seconds"] = elapsed()
        page.write(folder, stats, statistics.examples)
        write_json(folder / "stats.json", stats)  # the last one: it says that the run is done
    if not stats["kept"]:
        reasons = "; ".join(f"{count} × {reason}" for reason, count in stats["reasons"].items())
        raise user_error(str(folder / "dropped.jsonl"), f"all {stats['rows']} pairs were dropped: {reasons}")
    return stats


def load(config: BridgeConfig) -> tuple[RowStream, Any]:
    """Load and check a recipe's pairs; also return the function that, given an editor, bridges rows with it.

    Raises:
        UserErrors: The pairs can't be used; or the tokenizer that `token_scores` needs.
    """
    mixture = config.dataset_mixture
    rows, where = load_mixture(mixture.datasets, mixture.seed).first(config.limit), names(mixture.datasets)
    pairs = rows.map(unbridged)  # (x, y_w, y_l), whatever an earlier bridging made of it
    check_rows(pairs, PAIR, where)
    tokenizer = _tokenizer(config, pairs, where) if config.mode == "token_scores" else None

    def bridge_with(editor: Editor | CachedClient) -> BridgeOne:
        if tokenizer is None:
            return partial(bridge_pair, editor=editor, settings=config)
        return partial(scored_pair, editor=editor, tokenizer=tokenizer, settings=config)

    return pairs, bridge_with


def estimate_for(config: BridgeConfig, pairs: Iterable[Row], bridge_with: Any) -> CostEstimate:
    """Estimate the cost of the requests whose responses aren't in the cache."""
    with contextlib.closing(CachedResponses(cache_path(config.response_cache, config.output_dir))) as store:
        return asyncio.run(
            estimate_cost(pending_requests(pairs, config, bridge_with), config, VERSION, store, earlier_versions)
        )


def _tokenizer(config: BridgeConfig, rows: Iterable[Row], where: str) -> Any:
    """Load the tokenizer whose tokens get weights, and render the rows' conversations once before any is paid for.

    Raises:
        UserErrors: There is no such tokenizer or template, or they can't do that.
    """
    template, system = config.chat_template, config.auto_insert_empty_system_msg
    tokenizer = load_tokenizer(str(config.tokenizer_name_or_path), "main", False, template, system)
    check_offsets(tokenizer)
    check_template(tokenizer, rows, ("chosen", "rejected"), where)
    return tokenizer


async def _run(
    config: BridgeConfig, pairs: RowStream, bridge_with: Any, folder: Path, found: CostEstimate | None
) -> tuple[dict[str, Any], Statistics]:
    """Bridge the pairs, write them, and return the statistics."""
    statistics = Statistics(config.mode)
    if found is None:
        await _write(pairs, bridge_with(offline_editor(config)), config, folder, statistics)
        return statistics.summary(), statistics

    def todo() -> Iterable[PendingRequest]:
        return pending_requests(pairs, config, bridge_with)

    async with open_client(config, VERSION, todo, found, partial(make_model, config), earlier_versions) as client:
        if isinstance(client.model, BatchClient):
            await client.model.run_batches(todo, client)
        await _write(pairs, bridge_with(client), config, folder, statistics)
    usage = client.usage
    stats = {"usage": usage.all_runs(), "this_run": usage.this_run(len(pairs), elapsed())}
    return statistics.summary() | stats, statistics


async def _write(
    pairs: RowStream, bridge_one: BridgeOne, config: BridgeConfig, folder: Path, statistics: Statistics
) -> None:
    """Stream the results into both files, which appear only when they are whole."""
    from tqdm import tqdm

    width = WINDOW * config.max_concurrency
    bar = tqdm(total=len(pairs), unit="pair", desc="Bridging")
    with atomic_files(folder / "train.jsonl", folder / "dropped.jsonl") as (train, dropped), bar:
        async with contextlib.aclosing(bridge_all(pairs, bridge_one, width)) as outcomes:
            async for row, outcome in outcomes:
                bar.update()
                if isinstance(outcome, EditError) and _keeps(config, outcome):
                    outcome = keep_unbridged(row, outcome, config.mode)
                await off_loop(
                    len(content(row["chosen"])) + len(content(row["rejected"])), statistics.add, row, outcome
                )
                if isinstance(outcome, EditError):
                    print(json.dumps({**row, "reason": str(outcome)}, ensure_ascii=False), file=dropped)
                else:
                    print(json.dumps(outcome, ensure_ascii=False), file=train)


def _keeps(config: BridgeConfig, failure: EditError) -> bool:
    return config.on_failure == "keep_original" and not isinstance(failure, NoEditNeeded)


async def bridge_all(
    rows: Iterable[Row], bridge_one: BridgeOne, width: int
) -> AsyncGenerator[tuple[Row, Row | EditError]]:
    """Yield each row with its pair, or the reason why there is none, in their order, at most `width` in memory."""
    under_way: deque[tuple[Row, asyncio.Task[Row | EditError]]] = deque()

    async def one(row: Row) -> Row | EditError:
        try:
            return await bridge_one(row)
        except EditError as error:
            return error

    try:
        for row in rows:
            under_way.append((row, asyncio.create_task(one(row))))
            if len(under_way) >= width:
                first, task = under_way.popleft()
                yield first, await task
        while under_way:
            first, task = under_way.popleft()
            yield first, await task
    finally:
        for _, task in under_way:
            task.cancel()
        await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)
