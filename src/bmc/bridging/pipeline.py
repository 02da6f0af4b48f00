"""Pairs in, bridged or weighted pairs out: `train.jsonl`, `dropped.jsonl`, `stats.json`; every input row is in one of
the first two."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from ..config import BridgeConfig, names
from ..data.mixture import load_mixture
from ..data.pairs import unbridged
from ..data.schema import PAIR, Row, check, content, split_prompt
from ..data.templates import check_template
from ..data.tokens import check_offsets
from ..errors import fail
from ..models import load_tokenizer
from ..runtime import claim, elapsed, recipe_of, write_json
from .edit import EditError
from .editors import OpenAIEditor, make_editor
from .making import edit_ratio, edited_pair, scored_pair

logger = logging.getLogger(__name__)
Make = Callable[[Row], Awaitable[Row]]  # raises EditError where a pair is to be dropped


def bridge(config: BridgeConfig) -> dict[str, Any]:
    """Runs the stage and returns what it writes to `stats.json`.

    Raises:
        Faults: The data, the folder or the editor can't be used, or no pair is kept. Answers that the editor has given
            are kept in any case.
    """
    rows = load_mixture(config.dataset_mixture.datasets, config.dataset_mixture.seed)
    if config.limit:
        rows = rows.select(range(min(config.limit, len(rows))))
    where = names(config.dataset_mixture.datasets)
    check(map(_pair, rows), PAIR, where)
    tokenizer = _tokenizer(config, map(_pair, rows), where) if config.mode == "token_scores" else None
    editor = make_editor(config)
    make: Make = partial(edited_pair, editor=editor, mode=config.mode, proportion=config.proportion)
    if isinstance(editor, OpenAIEditor) and tokenizer is not None:
        make = partial(scored_pair, scorer=editor, tokenizer=tokenizer)
    folder = claim(config.output_dir, recipe_of(config), config, rows=rows)
    with closing(editor):
        stats = asyncio.run(_write(map(_pair, rows), len(rows), make, config.max_concurrency, folder))
    stats["seconds"] = elapsed()
    write_json(folder / "stats.json", stats)
    if not stats["kept"]:
        reasons = "; ".join(f"{count} × {reason}" for reason, count in stats["reasons"].items())
        raise fail(str(folder / "dropped.jsonl"), f"all {stats['rows']} pairs were dropped: {reasons}")
    return stats


def _pair(row: Row) -> Row:
    """(x, y_w, y_l), whatever an earlier bridging made of it."""
    return split_prompt(unbridged(row))


def _tokenizer(config: BridgeConfig, rows: Iterable[Row], where: str) -> Any:
    """The tokenizer whose tokens are to be weighed; the rows' conversations are rendered once before any is paid for.

    Raises:
        Faults: There is no such tokenizer or template, or they can't do that.
    """
    tokenizer = load_tokenizer(str(config.tokenizer_name_or_path), "main", False, config.chat_template)
    check_offsets(tokenizer)
    check_template(tokenizer, rows, ("chosen", "rejected"), where)
    return tokenizer


async def _write(rows: Iterable[Row], total: int, make: Make, width: int, folder: Path) -> dict[str, Any]:
    """Streams the results into both files, which appear only when they are whole."""
    from tqdm import tqdm

    names = ("train.jsonl", "dropped.jsonl")
    reasons: Counter[str] = Counter()
    ratios: dict[str, float] = {"edit_ratio": 0.0, "original_edit_ratio": 0.0}
    counts = Counter(rows=total)
    files = {name: (folder / f"{name}.tmp").open("w", encoding="utf-8") for name in names}
    try:
        with tqdm(total=total, unit="pair", desc="Bridging") as bar:
            async for row, pair in made(rows, make, width):
                bar.update()
                if isinstance(pair, EditError):
                    reasons[str(pair)] += 1
                    print(json.dumps({**row, "reason": str(pair)}, ensure_ascii=False), file=files["dropped.jsonl"])
                    continue
                counts["kept"] += 1
                counts["bridged"] += pair["bridged"]
                ratios["edit_ratio"] += pair["edit_ratio"]
                ratios["original_edit_ratio"] += edit_ratio(content(row["chosen"]), content(row["rejected"]))
                print(json.dumps(pair, ensure_ascii=False), file=files["train.jsonl"])
    except BaseException:
        for name in names:
            (folder / f"{name}.tmp").unlink()
        raise
    finally:
        for file in files.values():
            file.close()
    for name in names:
        os.replace(folder / f"{name}.tmp", folder / name)
    kept = max(counts["kept"], 1)
    return {
        "rows": total,
        "kept": counts["kept"],
        "bridged": counts["bridged"],
        "dropped": sum(reasons.values()),
        "reasons": dict(reasons.most_common()),
        "edit_ratio_unit": "characters",
        **{name: round(ratio / kept, 4) for name, ratio in ratios.items()},
    }


async def made(rows: Iterable[Row], make: Make, width: int) -> AsyncIterator[tuple[Row, Row | EditError]]:
    """Each row with the pair made of it, in their order, at most `width` under way at once and little more in memory.

    Instead of a pair there may be the reason why there is none.
    """
    gate = asyncio.Semaphore(width)
    under_way: deque[tuple[Row, asyncio.Task[Row | EditError]]] = deque()

    async def one(row: Row) -> Row | EditError:
        async with gate:
            try:
                return await make(row)
            except EditError as error:
                return error

    try:
        for row in rows:
            under_way.append((row, asyncio.create_task(one(row))))
            if len(under_way) >= 4 * width:
                first, task = under_way.popleft()
                yield first, await task
        while under_way:
            first, task = under_way.popleft()
            yield first, await task
    finally:
        for _, task in under_way:
            task.cancel()  # which keeps asyncio from reporting their faults too
