"""`stats.html`: what a bridging run made of its rows, as a page; one file, no scripts, nothing fetched."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import regex
from markupsafe import Markup
from rapidfuzz.distance import Levenshtein

from ..runs import write_text
from ..web.page import LIMIT, TEMPLATES, data_uri, escape, render
from .stats import Example
from .words import UNSPACED

RATIO_NOTE = (
    "Levenshtein distance over the longer length, in characters, of the kept pairs: 0 where the responses are equal, 1 "
    "where they have nothing in common."
)
COSTS = {
    "requests": "Requests",
    "retries": "Requests repeated after a failure",
    "completions": "Responses",
    "prompt_tokens": "Prompt tokens",
    "completion_tokens": "Completion tokens",
}
SPEEDS = {"rows_per_second": "Rows a second", "responses_per_second": "Responses a second"}
_WORD = regex.compile(rf"{UNSPACED}\p{{M}}*\s*|(?:(?!{UNSPACED})\w)+\s*|[^\w\s]\s*|\s+")


@dataclass(frozen=True)
class Chart:
    """A histogram: its counts by bin, and its picture as a data URI."""

    title: str
    counts: list[int]
    rows: dict[str, str]
    picture: str


@dataclass(frozen=True)
class Section:
    """A part of the page: a note, then charts and tables, then examples."""

    title: str
    note: str | Markup = ""
    charts: list[Chart] = field(default_factory=list)
    tables: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)


def write(folder: Path, summary: Mapping[str, Any], examples: Sequence[Example]) -> Path:
    """Write the page and return its path.

    Args:
        folder: Where `stats.html` goes.
        summary: The content of `stats.json`.
        examples: Bridged pairs to show.
    """
    path, heading = folder / "stats.html", f"{summary['kept']:,} of {summary['rows']:,} pairs kept"
    values: dict[str, Any] = {"folder": str(folder), "heading": heading, "sections": sections(summary, examples)}
    write_text(path, render(TEMPLATES / "bridging.html.jinja", title=f"Bridging: {folder.name}", **values))
    return path


def sections(summary: Mapping[str, Any], examples: Sequence[Example]) -> list[Section]:
    """Collect what a run's `stats.json` and examples say; the first section has no title."""
    mode, tries = summary.get("mode", ""), summary["second_tries"]
    edit = "ỹ_l" if mode == "degrade" else "ỹ_w"
    counts = {
        "Rows": summary["rows"],
        "Kept and bridged": summary["bridged"],
        "Kept as they were": summary["kept"] - summary["bridged"],
        "Dropped": summary["dropped"],
        "Requested a second time": tries["rows"],
        "Kept on the second try": tries["kept"],
    }
    if summary.get("feedback"):
        counts["With feedback"] = summary["feedback"]
    if summary.get("rationale"):
        counts["With the editor's rationale"] = summary["rationale"]["rows"]
    found = [
        ("", counts),
        ("Dropped, by reason", summary["reasons"]),
        ("Kept as they were, the edit having failed, by reason", summary["kept_original"]),
        ("First edits rejected and requested again, by reason", tries["reasons"]),
    ]
    parts = [Section(title, tables=[("", _thousands(counts))]) for title, counts in found if counts]
    parts += [_edit_ratios(summary, edit), _lengths(summary, edit)]
    for part in (_similarity(summary, edit), _spent(summary)):
        parts += [part] if part.tables or part.note else []
    return [*parts, _examples(examples, edit, "y_w" if mode in ("degrade", "polish") else "y_l")]


def _thousands(counts: Mapping[str, int]) -> dict[str, str]:
    return {name: f"{count:,}" for name, count in counts.items()}


def _edit_ratios(summary: Mapping[str, Any], edit: str) -> Section:
    histograms, pair = summary["histograms"], "y_w and ỹ_l" if edit == "ỹ_l" else "ỹ_w and y_l"
    ratios = {
        "original_edit_ratio": f"Before: y_w and y_l, mean {summary['original_edit_ratio']:.2f}",
        "edit_ratio": f"After: {pair}, mean {summary['edit_ratio']:.2f}",
    }
    top = max(max(histograms[name]["counts"]) for name in ratios)
    charts = [_histogram(title, "edit ratio", histograms[name], top) for name, title in ratios.items()]
    return Section("Edit ratio", RATIO_NOTE, charts)


def _lengths(summary: Mapping[str, Any], edit: str) -> Section:
    names = {"y_w": "y_w", "y_l": "y_l", "edit": edit}
    title, shape = f"Length of {edit} over that of {names[summary['length']['compared_to']]}", summary["histograms"]
    chart = _histogram(title, "times as long", shape["length_ratio"], max(shape["length_ratio"]["counts"]))
    lengths = {shown: _number(summary["length"][name], 0) for name, shown in names.items()}
    return Section("Length", charts=[chart], tables=[("Mean characters, bridged pairs", lengths)])


def _histogram(title: str, unit: str, histogram: Mapping[str, Any], top: int) -> Chart:
    """Draw bars of equal width, a bin each, up to the count `top`; transparent, in colours for light and dark pages."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    counts = histogram["counts"]
    names = ["and more" if edge is None else f"{edge:g}" for edge in histogram["edges"]]
    bins = [f"{low} to {high}" if high != "and more" else f"{low} and more" for low, high in pairwise(names)]
    quiet, file = "#7d8590", io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "bmc", "font.size": 9, "text.color": quiet}):
        figure = Figure(figsize=(3.75, 2.1), layout="constrained")
        panel = figure.subplots()
        panel.bar([place + 0.5 for place in range(len(counts))], counts, width=0.9, color="#4c86c6")
        every = 4 if len(counts) > 15 else 2
        panel.set_xticks(range(0, len(names), every), [n if n != "and more" else "" for n in names[::every]])
        panel.set(xlim=(0, len(counts)), ylim=(0, max(top, 1)), yticks=(0, max(top, 1)), xlabel=unit, ylabel="pairs")
        panel.tick_params(colors=quiet)
        for axis in (panel.xaxis, panel.yaxis):
            axis.label.set_color(quiet)
        for name, spine in panel.spines.items():
            spine.set(visible=name in ("left", "bottom"), color=quiet)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": "bmc"})
    rows = _thousands(dict(zip(bins, counts, strict=True)))
    return Chart(title, counts, rows, data_uri("image/svg+xml", file.getvalue()))


def _similarity(summary: Mapping[str, Any], edit: str) -> Section:
    kinds = {"levenshtein": "Levenshtein (1 − edit ratio)", "cosine": "cosine of sentence embeddings"}
    pairs = {"y_w_edit": f"(y_w, {edit})", "edit_y_l": f"({edit}, y_l)"}
    rows = {
        f"{pairs[pair]}, {kinds[kind]}": _number(value, 3)
        for kind, values in summary["similarity"].items()
        for pair, value in values.items()
    }
    return Section("Similarity", tables=[("Means of the bridged pairs", rows)])


def _spent(summary: Mapping[str, Any]) -> Section:
    """Collect what the responses in use cost, whenever they were given, and what this run requested."""
    run = dict(summary.get("this_run") or {})
    run["retries"] = sum((run.get("retries") or {}).values())
    found = {"All responses in use": summary.get("usage") or {}, "This run": run if len(run) > 1 else {}}
    tables = [(caption, rows) for caption, costs in found.items() if (rows := _costs(costs))]
    seconds = summary.get("seconds")
    return Section("Spent", f"{seconds:,.1f} seconds" if tables and seconds is not None else "", tables=tables)


def _costs(costs: Mapping[str, Any]) -> dict[str, str]:
    rows = {words: f"{costs[name]:,}" for name, words in COSTS.items() if costs.get(name) is not None}
    if "dollars" in costs:
        rows["Dollars"] = _number(costs["dollars"], 2 if (costs["dollars"] or 0) >= 0.1 else 4)
    return rows | {words: f"{costs[name]:,.1f}" for name, words in SPEEDS.items() if costs.get(name) is not None}


def _examples(examples: Sequence[Example], edit: str, base: str) -> Section:
    if not examples:
        return Section("Examples", "No pair was bridged.")
    note = Markup(
        f"{len(examples)} bridged pairs drawn at random, by the hashes of their ids. <del>Struck through</del>: in "
        f"{base} only. <ins>Underlined</ins>: in {edit} only. ↵ is a line break."
    )
    other, shown = "y_l" if base == "y_w" else "y_w", []
    for one in examples:
        responses = {"y_w": one.chosen, "y_l": one.rejected}
        texts = {"diff": diff(responses[base] or "", one.edit), "beside": responses[other], "rationale": one.rationale}
        shown.append({"id": one.id, "prompt": one.prompt, "base": base, "edit": edit, "other": other, **texts})
    return Section("Examples", note, examples=shown)


def _number(value: float | None, places: int) -> str:
    return "–" if value is None else f"{value:,.{places}f}"


def diff(before: str, after: str) -> Markup:
    """Show `after` as an edit of `before`, word by word: what was removed in `<del>`, what was added in `<ins>`.

    >>> diff("It is a bank.", "It is a river.")
    Markup('It is a <del>bank</del><ins>river</ins>.')
    """
    pieces = [escape(text) if tag == "equal" else _changed(tag, text) for tag, text in diff_pieces(before, after)]
    more = max(len(before), len(after)) - LIMIT
    return Markup("".join(pieces) + (f"<small> … {more:,} more characters</small>" if more > 0 else ""))


def diff_pieces(before: str, after: str) -> list[tuple[str, str]]:
    """Split an edit, up to `LIMIT` characters, into pieces that are `equal`, or in one text alone: `del`, `ins`.

    >>> diff_pieces("It is a bank.", "It is a river.")
    [('equal', 'It is a '), ('del', 'bank'), ('ins', 'river'), ('equal', '.')]
    """
    old, new = (_WORD.findall(text[:LIMIT]) for text in (before, after))
    pieces: list[tuple[str, str]] = []
    for step in Levenshtein.opcodes(old, new):
        removed, added = "".join(old[step.src_start : step.src_end]), "".join(new[step.dest_start : step.dest_end])
        pieces += [("equal", added)] if step.tag == "equal" else [("del", removed), ("ins", added)]
    return [(tag, text) for tag, text in pieces if text]


def _changed(tag: str, text: str) -> str:
    """Mark a piece that was removed or added; its line breaks are made visible."""
    return f"<{tag}>{escape(text).replace(chr(10), '↵' + chr(10))}</{tag}>"
