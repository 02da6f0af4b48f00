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
from ..data.human_feedback import last_turn
from ..data.loading import RowStream, load_mixture
from ..data.schema import EDIT, PAIR, SIDES, UNUSABLE, Row, check_rows, content, transcript, unbridged
from ..data.tokenization import check_offsets, check_template
from ..errors import UserError, raise_all, user_error
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
from .editor import PersonEditor, bridge_pair, edit_request, keep_unbridged, scored_pair
from .edits import EditError, Editor, NoEditNeeded, UnusableRow
from .ideal_editor import IdealEditor
from .prompts import VERSION, earlier_versions, edit_prompt, score_request
from .rule_editor import RuleEditor
from .stats import Statistics, cosine, load_embedder, write_page

logger = logging.getLogger(__name__)
WINDOW = 8  # rows in memory for each that may be under way: one that is slow doesn't hold up the rest
MARK = "3f0a91"  # of no request: six hexadecimal digits, as marks are
RATIONALE = (  # two sentences as an editor writes them, for the cost estimate
    "The draft takes the bank of the river for a bank that lends money, so the place that it names is wrong and its "
    "reasoning leads away from the question. It also leaves out why the answer fits, which the reader needs in order "
    "to follow the last step."
)
BridgeOne = Callable[[Row], Awaitable[Row]]  # raises EditError where a pair is to be dropped


def make_model(config: BridgeConfig, usage: UsageTracker, store: ResponseCache, paid: float = 0.0) -> ChatModel:
    """Make the client of a recipe's model.

    Raises:
        UserErrors: It needs a key and there is none, or there is no such model.
    """
    if config.editor == "vllm" or config.editor == "transformers":
        from ..llm.local import LocalClient

        return LocalClient(config, config.editor)
    return (BatchClient if config.batch_api else OpenAIClient)(config, usage, store, paid)


def offline_editor(config: BridgeConfig) -> Editor:
    """Make the recipe's editor, one of `OFFLINE`."""
    if config.editor == "person":
        return PersonEditor()
    if config.editor == "rules":
        return RuleEditor()
    return IdealEditor(config.editor_error_rate, config.editor_rewrite_rate)


def pending_requests(
    rows: Iterable[Row], config: BridgeConfig, bridge_with: Callable[[CachedClient], BridgeOne]
) -> Iterator[PendingRequest]:
    """List the requests of each row."""
    for row in rows:
        if UNUSABLE not in row:
            yield PendingRequest(partial(_send_requests, row, config.mode, bridge_with), _sample_reply(row, config))


async def _send_requests(row: Row, mode: str, bridge_with: Any, client: CachedClient) -> None:
    if mode == "token_scores":  # the second response's scores don't wait for the first's
        for side in SIDES:
            messages, _ = score_request(transcript(row["prompt"]), content(row[side]))
            with contextlib.suppress(CacheMiss):
                await client.prefetch(messages)
    with contextlib.suppress(EditError):
        await bridge_with(client)(row)


def _sample_reply(row: Row, config: BridgeConfig) -> str:
    """Write a reply as the prompt wants it, with the text that it is about in place of the edit."""
    if config.mode == "token_scores":
        return content(row["chosen"])
    subject = content(row["chosen" if config.mode in ("degrade", "polish", "fresh") else "rejected"])
    prompt = edit_prompt(config.mode, config.template, config.rationale, edit_request(row))
    before = f"<rationale {MARK}>{RATIONALE}</rationale {MARK}>\n" if config.rationale else ""
    before += "<verdict>edit</verdict>\n" if prompt.judges else ""
    return f"{before}<{prompt.tag} {MARK}>\n{subject}\n</{prompt.tag} {MARK}>"


def bridge(config: BridgeConfig) -> dict[str, Any]:
    """Run the stage and return what it writes to `stats.json`.

    Raises:
        UserErrors: The data, the folder or the editor can't be used, the cost is declined, or no pair is kept.
            Responses of the editor stay in the cache in any case.
    """
    pairs, bridge_with = load_pairs(config)
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
        write_page(folder, stats, statistics.examples)
        write_json(folder / "stats.json", stats)  # the last one: it says that the run is done
    if not stats["kept"]:
        reasons = "; ".join(f"{count} × {reason}" for reason, count in stats["reasons"].items())
        raise user_error(str(folder / "dropped.jsonl"), f"all {stats['rows']} pairs were dropped: {reasons}")
    return stats


def load_pairs(config: BridgeConfig) -> tuple[RowStream, Any]:
    """Load and check a recipe's pairs; also return the function that, given an editor, bridges rows with it.

    Raises:
        UserErrors: The pairs can't be used; or the tokenizer that `token_scores` needs.
    """
    mixture = config.dataset_mixture
    rows, where = load_mixture(mixture.datasets, mixture.seed, True).first(config.limit), names(mixture.datasets)
    # (x, y_w, y_l), whatever an earlier bridging made of it; y_w of a person is the edit that a rationale speaks of
    dropped = () if config.editor == "person" else EDIT
    pairs = rows.map(lambda row: {key: value for key, value in unbridged(row).items() if key not in dropped})
    check_pairs(pairs, config, where)
    pairs = pairs.map(_last_turn_apart)
    tokenizer = _tokenizer(config, pairs, where) if config.mode == "token_scores" else None

    def bridge_with(editor: Editor | CachedClient) -> BridgeOne:
        if tokenizer is None:
            one: BridgeOne = partial(bridge_pair, editor=editor, settings=config)
        else:
            one = partial(scored_pair, editor=editor, tokenizer=tokenizer, settings=config)

        async def usable(row: Row) -> Row:
            if UNUSABLE in row:
                raise UnusableRow(row[UNUSABLE])
            return await one(row)

        return usable

    return pairs, bridge_with


def check_pairs(pairs: RowStream, config: BridgeConfig, where: str) -> None:
    """Check the rows to be bridged: (x, y_w, y_l), or (x, y_l) with feedback on it (`mode: targeted`).

    Raises:
        UserErrors: A row can't be used.
    """
    noted = config.mode == "targeted" and "feedback" in pairs.columns
    without = noted and not {"chosen", "original_chosen"} & {*pairs.columns}
    if without and config.editor in OFFLINE:
        raise user_error("editor", f"{config.editor} needs y_w; name it in columns, or set editor: openai")
    if without and (config.proportion < 1 or config.on_failure != "drop"):
        key = "proportion" if config.proportion < 1 else "on_failure"
        raise user_error(key, "leaves pairs (y_w, y_l) as they were, but these data have no y_w; leave it out")
    if noted:
        raise_all([UserError(f"{where}: row {number}", what) for number, what in _feedback_faults(pairs, without)][:20])
    columns = (*PAIR[:1], "rejected") if without else PAIR
    turns = without and "messages" in pairs.columns and "rejected" not in pairs.columns
    check_rows(pairs, ("messages",) if turns else columns, where)
    if turns:
        check_rows(pairs.map(_last_turn_apart), columns, where)


def _feedback_faults(pairs: Iterable[Row], needed: bool) -> Iterator[tuple[int, str]]:
    """Yield the rows whose feedback says nothing; where it stands in place of y_w, those without any, too."""
    for number, row in enumerate(pairs, start=1):
        given = row.get("feedback")
        texts = given if isinstance(given, list) else [given]
        if given is None and not needed:
            continue
        if given is None or not any(text.strip() if isinstance(text, str) else text for text in texts):
            yield number, "feedback: is empty; write what is wrong with the response, or remove the row"
        elif not all(isinstance(text, str) for text in texts):
            yield number, "feedback: must be a text, or a list of texts"


def _last_turn_apart(row: Row) -> Row:
    """Take the last turn of a conversation for y_l where a row has no other."""
    if row.get("rejected") is not None or not row.get("messages") or UNUSABLE in row:
        return row
    try:
        prompt, response = last_turn(row)
    except ValueError as error:
        raise user_error(f"row {row['id']}", str(error)) from None
    return {key: value for key, value in row.items() if key != "messages"} | {"prompt": prompt, "rejected": response}


def estimate_for(config: BridgeConfig, pairs: Iterable[Row], bridge_with: Any) -> CostEstimate:
    """Estimate the cost of the requests whose responses aren't in the cache."""
    with contextlib.closing(CachedResponses(cache_path(config.response_cache, config.output_dir))) as store:
        return asyncio.run(
            estimate_cost(pending_requests(pairs, config, bridge_with), config, VERSION, store, earlier_versions)
        )


def _tokenizer(config: BridgeConfig, rows: Iterable[Row], where: str) -> Any:
    """Load the tokenizer whose tokens get weights, and render the rows' conversations once before any is paid for."""
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
                final = isinstance(outcome, NoEditNeeded | UnusableRow)  # dropped in any case
                if isinstance(outcome, EditError) and config.on_failure == "keep_original" and not final:
                    outcome = keep_unbridged(row, outcome, config.mode)
                size = sum(len(content(row[side])) for side in SIDES if side in row)
                await off_loop(size, statistics.add, row, outcome)
                if isinstance(outcome, EditError):
                    row = {key: value for key, value in row.items() if key != UNUSABLE}
                    print(json.dumps({**row, "reason": str(outcome)}, ensure_ascii=False), file=dropped)
                else:
                    print(json.dumps(outcome, ensure_ascii=False), file=train)


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
