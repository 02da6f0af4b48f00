"""Pairs in, bridged pairs out: `train.jsonl`, `dropped.jsonl`, `stats.json`; every input row is in one of the first
two."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from rapidfuzz.distance import Levenshtein

from ..config import BridgeConfig, names
from ..data.mixture import load_mixture
from ..data.schema import PAIR, Row, check, content, share, split_prompt, with_content
from ..errors import fail
from ..runtime import claim, elapsed, recipe_of, write_json
from .edit import Case, Edit, EditError, Editor
from .editors import make_editor
from .validate import objection

logger = logging.getLogger(__name__)


def bridge(config: BridgeConfig) -> dict[str, Any]:
    """Runs the stage and returns what it writes to `stats.json`.

    Raises:
        Faults: The data, the folder or the editor can't be used, or no pair is kept. Answers that the editor has given
            are kept in any case.
    """
    rows = load_mixture(config.dataset_mixture.datasets, config.dataset_mixture.seed)
    if config.limit:
        rows = rows.select(range(min(config.limit, len(rows))))
    check(map(split_prompt, rows), PAIR, names(config.dataset_mixture.datasets))
    editor = make_editor(config)
    folder = claim(config.output_dir, recipe_of(config))
    with closing(editor):
        stats = asyncio.run(_write(map(split_prompt, rows), len(rows), editor, config, folder))
    stats["seconds"] = elapsed()
    write_json(folder / "stats.json", stats)
    if not stats["kept"]:
        reasons = "; ".join(f"{count} × {reason}" for reason, count in stats["reasons"].items())
        raise fail(str(folder / "dropped.jsonl"), f"all {stats['rows']} pairs were dropped: {reasons}")
    return stats


async def _write(rows: Iterable[Row], total: int, editor: Editor, config: BridgeConfig, folder: Path) -> dict[str, Any]:
    """Streams the results into both files, which appear only when they are whole."""
    from tqdm import tqdm

    names = ("train.jsonl", "dropped.jsonl")
    reasons: Counter[str] = Counter()
    ratios: dict[str, float] = {"edit_ratio": 0.0, "original_edit_ratio": 0.0}
    counts = Counter(rows=total)
    files = {name: (folder / f"{name}.tmp").open("w", encoding="utf-8") for name in names}
    try:
        with tqdm(total=total, unit="pair", desc="Bridging") as bar:
            async for row, outcome in edited(rows, editor, config.max_concurrency):
                bar.update()
                if isinstance(outcome, EditError) or outcome.text is None:
                    reason = str(outcome) if isinstance(outcome, EditError) else "y_l is good enough"
                    reasons[reason] += 1
                    print(json.dumps({**row, "reason": reason}, ensure_ascii=False), file=files["dropped.jsonl"])
                    continue
                pair = bridged_pair(row, outcome.text, share(row["id"]) < config.proportion)
                counts["kept"] += 1
                counts["bridged"] += pair["bridged"]
                ratios["edit_ratio"] += pair["edit_ratio"]
                ratios["original_edit_ratio"] += _edit_ratio(content(row["chosen"]), content(row["rejected"]))
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


async def edited(rows: Iterable[Row], editor: Editor, width: int) -> AsyncIterator[tuple[Row, Edit | EditError]]:
    """Each row with its edit, in their order, at most `width` under way at once and little more in memory."""
    gate = asyncio.Semaphore(width)
    under_way: deque[tuple[Row, asyncio.Task[Edit | EditError]]] = deque()

    async def one(row: Row) -> Edit | EditError:
        async with gate:
            return await _checked(editor, row)

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


async def _checked(editor: Editor, row: Row) -> Edit | EditError:
    """The edit, or the reason why there is none that may be trained on."""
    case = Case(
        id=row["id"],
        task=row.get("task") or "chat",
        prompt=content(row["prompt"]),
        chosen=content(row["chosen"]),
        rejected=content(row["rejected"]),
        answer=None if row.get("answer") is None else str(row["answer"]),
    )
    try:
        edit = await editor.edit(case)
    except EditError as error:
        return error
    reason = None if edit.text is None else objection(edit.text, case)
    return EditError(reason) if reason else edit


def bridged_pair(row: Row, text: str, bridged: bool) -> Row:
    """The row with ỹ_w as `chosen`, or with y_w where it is to stay unbridged (Figure 3)."""
    chosen = with_content(row["chosen"], text) if bridged else row["chosen"]
    return {
        **{key: value for key, value in row.items() if value is not None},
        "chosen": chosen,
        "original_chosen": row["chosen"],
        "bridged": bridged,
        "edit_ratio": round(_edit_ratio(content(chosen), content(row["rejected"])), 4),
    }


def _edit_ratio(a: str, b: str) -> float:
    """Levenshtein distance over the longer length, in characters."""
    return Levenshtein.normalized_distance(a, b)
