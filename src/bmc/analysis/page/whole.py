"""`report.html`: its sections in the order in which a reader wants them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...web.page import breakable, document, escape, table
from ..cells import Named, listed
from ..differences import Compared
from ..overview import Column
from ..runs import ANALYSIS, STATE, Run, dict_of, find, name_of, readable
from . import sections
from .curves import curves
from .predictions import browser
from .tokens import viewer

CURVES = "What was logged during training, a line each run. Rewards are the plain DPO rewards, whatever the objective."
PREDICTIONS = "What each run answered to the test rows. Tick runs to read them side by side; press a row for its texts."
BRIDGING = "What the editor made of the pairs, and which were dropped."
ORIGINS = "The record of each run as it started: recipe, commit, data, command."
NOT_ANALYSED = "Nothing is analysed yet; scripts/analyze.py makes the figures and the tokens' numbers."
SCRIPTS = ("runs.js", "predictions.js", "viewer.js")
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Found:
    """What there is to report.

    Attributes:
        root: Folder of the runs.
        runs: The evaluations, by name.
        trained: Folders of the trained models, by name, evaluated or not.
        analyses: The `analysis.json` files.
    """

    root: Path
    runs: dict[str, Run]
    trained: dict[str, Path]
    analyses: list[Path]

    @property
    def names(self) -> list[str]:
        """All runs, the evaluated ones first."""
        return [*self.runs, *(name for name in self.trained if name not in self.runs)]


@dataclass(frozen=True)
class Section:
    """A title, what it is about, and its markup; shown where there is some."""

    title: str
    note: str
    markup: str


def page(found: Found, columns: list[Column], compared: Compared, tables: list[Named], notices: list[str]) -> str:
    """The whole page.

    Args:
        found: The runs.
        columns: Their scores.
        compared: What they gain over the baseline.
        tables: Those of `report.md`.
        notices: What a reader must know; gets what can't be shown.
    """
    drawn = {"Scores": sections.scores(found.names, columns), "Differences": sections.differences(compared)}
    *results, stages = [Section(one.title, one.note, drawn.get(one.title) or _table(one)) for one in tables]
    parts = [
        *results,
        Section("Predictions", PREDICTIONS, _predictions(found, notices)),
        Section("Training", CURVES, _curves(found, notices)),
        Section("Tokens", *_tokens(found, notices)),
        Section("Figures", "", _figures(found, notices)),
        Section("Bridging", BRIDGING, _bridging(found, notices)),
        stages,
        Section("Origins", ORIGINS, sections.origins(_folders(found))),
    ]
    shown = [(part.title.lower(), part) for part in parts if part.markup]
    links = "".join(f'<li><a href="#{name}">{part.title}</a></li>' for name, part in shown)
    body = "\n".join(
        f'<section aria-labelledby="{name}"><h2 id="{name}">{part.title}</h2>'
        f"{f'<p>{escape(part.note)}</p>' if part.note else ''}\n{part.markup}</section>"
        for name, part in shown
    )
    title = f"Runs in {found.root}"
    return document(
        title,
        f'<a class="skip" href="#main">Skip to the results</a>\n<header><h1>{escape(title)}</h1>'
        f'<nav aria-label="sections"><ul>{links}</ul></nav></header>\n<main id="main" tabindex="-1">\n'
        f"{sections.notices(notices)}\n{body}\n</main>",
        [(_HERE / "report.css").read_text(encoding="utf-8")],
        [(_HERE / name).read_text(encoding="utf-8") for name in SCRIPTS],
    )


def _table(named: Named) -> str:
    header, rows = named.cells
    words = (2,) if named.title == "Stages" else ()  # columns that hold no numbers
    lines = [[breakable(row[0]), *map(escape, row[1:])] for row in rows]
    return table(f"table of {named.title.lower()}", [*map(escape, header)], lines, words) if rows else ""


def _curves(found: Found, notices: list[str]) -> str:
    states: dict[str, dict[str, Any]] = {}
    for name, folder in found.trained.items():
        state = readable(folder / STATE, notices) if (folder / STATE).exists() else None
        if state is not None:
            states[name] = state
    return curves(states)


def _predictions(found: Found, notices: list[str]) -> str:
    return browser({name: run.folder / "predictions.jsonl" for name, run in found.runs.items()}, notices)


def _tokens(found: Found, notices: list[str]) -> tuple[str, str]:
    """Where the pairs are from, and the viewer of them."""
    folders = [path.parent for path in found.analyses if (path.parent / "tokens").is_dir()]
    if not folders:
        return "", ""
    if len(folders) > 1:
        others = listed([str(folder.parent) for folder in folders[1:]])
        notices.append(f"the tokens shown are those of {folders[0].parent}; report {others} alone to see theirs")
    home = folders[0] / "tokens"
    files = {str(path.relative_to(home).with_suffix("")): path for path in sorted(home.rglob("*.jsonl"))}
    pairs = dict_of((readable(folders[0] / ANALYSIS, []) or {}).get("pairs"))
    note = f"Pairs: {pairs['from']}." if "from" in pairs else ""
    return note, viewer(files, notices)


def _figures(found: Found, notices: list[str]) -> str:
    if not found.analyses:
        return f"<p>{NOT_ANALYSED}</p>"
    shown = {name_of(path.parent, found.root): sections.figures(path.parent, notices) for path in found.analyses}
    if len(shown) == 1:
        return next(iter(shown.values()))
    return "".join(f"<h3>{escape(name)}</h3>{markup}" for name, markup in shown.items())


def _bridging(found: Found, notices: list[str]) -> str:
    shown = {folder: sections.bridging(folder, notices) for folder in _bridged(found)}
    return "".join(f"<h3>{escape(name_of(folder, found.root))}</h3>{text}" for folder, text in shown.items() if text)


def _bridged(found: Found) -> list[Path]:
    return [path.parent for path in find(found.root, "stats.json") if "kept" in (readable(path, []) or {})]


def _folders(found: Found) -> dict[str, Path]:
    """Every folder that a run's numbers come from."""
    return (
        {f"{name}: evaluation": run.folder for name, run in found.runs.items()}
        | {f"{name}: {key}": one.path.parent for name, run in found.runs.items() for key, one in run.judged.items()}
        | {f"{name}: training": folder for name, folder in found.trained.items()}
        | {f"{name_of(folder, found.root)}: bridging": folder for folder in _bridged(found)}
    )
