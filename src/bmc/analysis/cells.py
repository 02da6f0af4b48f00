"""Numbers as words: what the tables of reports, seeds and the paper share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import fail

Table = tuple[list[str], list[list[str]]]


class Named(NamedTuple):
    """A table with a title and a sentence on what it shows."""

    title: str
    note: str
    cells: Table


def accuracy_cell(result: dict[str, Any] | None) -> str:
    """A share in %, with its interval and n: `50.0 [20.0, 80.0] (n = 10)`."""
    if result is None:
        return "not run"
    low, high = result["interval"]
    return f"{100 * result['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}] (n = {result['n']})"


def read_json(path: Path) -> dict[str, Any]:
    """What a stage wrote.

    Raises:
        Faults: It is no JSON object, or can't be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise fail(str(path), f"can't be read ({error.strerror}); run its stage again") from None
    except ValueError:
        raise fail(str(path), "is not JSON; remove it and run its stage again") from None
    if not isinstance(found, dict):
        raise fail(str(path), "is not a JSON object; remove it and run its stage again")
    return found


def markdown_table(table: Table) -> str:
    """A table in GitHub's Markdown, numbers to the right."""
    header, rows = table
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def listed(names: list[str], most: int = 5) -> str:
    """`a, b and c`; of many the first: `a, b, c, d, e and 7 more`."""
    shown = names[:most] if len(names) > most + 1 else names
    rest = [f"{len(names) - len(shown)} more"] if len(shown) < len(names) else []
    *first, last = [*shown, *rest]
    return f"{', '.join(first)} and {last}" if first else last
