"""The browser of predictions: what each run answered to each test row, right or wrong, side by side.

The rows' names and verdicts stand in the page as they are. Prompts, and each run's responses, are compressed (gzip in
base64), and unpacked when they are shown: the page opens at once, whatever it holds.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...web.page import data
from .tokens import chosen_runs

MOST = 20_000  # rows that the page holds
RIGHT, WRONG, UNSCORED, ABSENT = "1", "0", "?", "-"
_PAGE = Path(__file__).with_name("predictions.html")


def browser(files: dict[str, Path], notices: list[str]) -> str:
    """Make the browser's markup and data; nothing where no file has a row.

    Args:
        files: Name of a run → its `predictions.jsonl`.
        notices: Gets what isn't shown.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    found: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    left_out = 0
    for run, path in files.items():
        mine: dict[tuple[str, str], dict[str, Any]] = {}
        for row in _rows(path):
            key = str(row.get("source") or "data"), str(row.get("id"))
            if key not in rows and len(rows) >= MOST:
                left_out += 1
                continue
            rows.setdefault(key, {"prompt": _text(row.get("prompt")), "gold": _text(row.get("gold"))})
            mine[key] = row
        if mine:
            found[run] = mine
    if not rows:
        return ""
    if left_out:
        notices.append(
            f"the browser of predictions holds the first {MOST:,} rows; {left_out:,} predictions are left out"
        )
    head = {
        "runs": list(found),
        "shown": chosen_runs(list(found)),
        "ids": [id for _, id in rows],
        "sources": [source for source, _ in rows],
        "verdicts": ["".join(_verdict(mine.get(key)) for key in rows) for mine in found.values()],
    }
    packed = [_packed([[row["prompt"], row["gold"]] for row in rows.values()])]
    packed += [_packed([_response(mine.get(key), row) for key, row in rows.items()]) for mine in found.values()]
    return "\n".join(
        [_PAGE.read_text(encoding="utf-8"), data("predictions-index", [head]), data("predictions-texts", packed)]
    )


def _verdict(row: dict[str, Any] | None) -> str:
    """One character for a row: right, wrong, not scored, or not there."""
    if row is None:
        return ABSENT
    return UNSCORED if row.get("correct") is None else RIGHT if row["correct"] else WRONG


def _response(row: dict[str, Any] | None, known: dict[str, str]) -> list[str]:
    """Response and extracted answer; the prompt too, where it isn't the one that the page has."""
    if row is None:
        return []
    prompt = _text(row.get("prompt"))
    answer = _text(row.get("answer"))
    response = _text(row.get("prediction"))
    return [response, "" if answer == response else answer, *([prompt] if prompt != known["prompt"] else [])]


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _packed(rows: list[Any]) -> str:
    """JSON, compressed; half a surrogate pair, which UTF-8 lacks, as a question mark."""
    text = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return base64.b64encode(gzip.compress(text, 6, mtime=0)).decode()


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows that can be read; those that can't have stopped the report already."""
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                row = json.loads(line)
                if isinstance(row, dict):
                    yield row
