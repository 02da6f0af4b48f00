"""`stats.html`: what a bridging run made of its rows, to be read; one file, no scripts, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..runs import write_text
from ..web.page import document, escape, facts
from .diffing import diff
from .statistics import Example

Section = tuple[str, str]  # a title and the markup below it
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 360, 200, 44, 40, 12


def write(folder: Path, summary: Mapping[str, Any], examples: Sequence[Example]) -> Path:
    """Writes the page and returns its path.

    Args:
        folder: Where `stats.html` goes.
        summary: The content of `stats.json`.
        examples: Bridged pairs to show.
    """
    path = folder / "stats.html"
    body = [f"<h1>{_kept(summary)}</h1>", f"<p>{escape(str(folder))}</p>"]
    body += [f"<h2>{title}</h2>\n{text}" if title else text for title, text in sections(summary, examples)]
    write_text(path, document(f"Bridging: {folder.name}", "<main>\n{}\n</main>".format("\n".join(body))))
    return path


def sections(summary: Mapping[str, Any], examples: Sequence[Example]) -> list[Section]:
    """What a run's `stats.json` and examples have to tell, under whatever headings; the first has no title."""
    mode = summary.get("mode", "")
    degrades = mode == "degrade"
    tries = summary["second_tries"]["reasons"]
    found = [
        ("", _counts(summary)),
        ("Dropped, by reason", _reasons(summary["reasons"])),
        ("Kept as they were, the edit having failed, by reason", _reasons(summary["kept_original"])),
        ("First replies turned down and asked for again, by reason", _reasons(tries)),
        ("Edit ratio", _edit_ratios(summary, degrades)),
        ("Length", _lengths(summary, degrades)),
        ("Similarity", _similarity(summary, degrades)),
        ("Spent", _spent(summary)),
        ("Examples", _examples(examples, degrades, mode == "polish")),
    ]
    return [section for section in found if section[1]]


def _kept(summary: Mapping[str, Any]) -> str:
    return f"{summary['kept']:,} of {summary['rows']:,} pairs kept"


def _counts(summary: Mapping[str, Any]) -> str:
    tries = summary["second_tries"]
    rows = {
        "Rows": summary["rows"],
        "Kept and bridged": summary["bridged"],
        "Kept as they were": summary["kept"] - summary["bridged"],
        "Dropped": summary["dropped"],
        "Asked for a second time": tries["rows"],
        "Kept on the second try": tries["kept"],
    }
    return facts("", {name: f"{count:,}" for name, count in rows.items()})


def _reasons(reasons: Mapping[str, int]) -> str:
    return facts("", {reason: f"{count:,}" for reason, count in reasons.items()}) if reasons else ""


def _edit_ratios(summary: Mapping[str, Any], degrades: bool) -> str:
    histograms, edit = summary["histograms"], _edit(degrades)
    pair = f"y_w and {edit}" if degrades else f"{edit} and y_l"
    ratios = [
        ("original_edit_ratio", f"Before: y_w and y_l, mean {summary['original_edit_ratio']:.2f}"),
        ("edit_ratio", f"After: {pair}, mean {summary['edit_ratio']:.2f}"),
    ]
    top = max(max(histograms[name]["counts"]) for name, _ in ratios)
    charts = [_histogram(title, "edit ratio", histograms[name], top) for name, title in ratios]
    return (
        "<p>Levenshtein distance over the longer length, in characters, of the kept pairs: 0 where the responses are "
        f'equal, 1 where they have nothing in common.</p>\n<div class="charts">{"".join(charts)}</div>'
    )


def _lengths(summary: Mapping[str, Any], degrades: bool) -> str:
    base, edit, shape = _name(summary["length"]["compared_to"]), _edit(degrades), summary["histograms"]["length_ratio"]
    length = _histogram(f"Length of {edit} over that of {base}", "times as long", shape, max(shape["counts"]))
    lengths = {_name(name, degrades): _number(summary["length"][name], 0) for name in ("y_w", "y_l", "edit")}
    return f'<div class="charts">{length}{facts("Mean characters, bridged pairs", lengths)}</div>'


def _histogram(title: str, unit: str, histogram: Mapping[str, Any], top: int) -> str:
    """Bars of equal width, a bin each; the edges stand below, the counts in the table behind."""
    edges, counts = histogram["edges"], histogram["counts"]
    step = (_WIDTH - _LEFT - 4) / len(counts)
    floor = _HEIGHT - _BOTTOM
    scale = (floor - _TOP) / max(top, 1)
    names = ["and more" if edge is None else f"{edge:g}" for edge in edges]
    bins = [f"{low} to {high}" if high != "and more" else f"{low} and more" for low, high in pairwise(names)]
    bars = "".join(
        f'<rect x="{_LEFT + place * step + 1:.1f}" y="{floor - count * scale:.1f}" width="{step - 2:.1f}" '
        f'height="{count * scale:.1f}"><title>{name}: {count:,}</title></rect>'
        for place, (name, count) in enumerate(zip(bins, counts, strict=True))
        if count
    )
    every = 4 if len(counts) > 15 else 2
    ticks = "".join(
        f'<text x="{_LEFT + place * step:.1f}" y="{floor + 15}" text-anchor="middle">{name}</text>'
        for place, name in enumerate(names)
        if place % every == 0 and name != "and more"
    )
    axes = (
        f'<line x1="{_LEFT}" y1="{floor}" x2="{_WIDTH - 4}" y2="{floor}"/>'
        f'<line x1="{_LEFT}" y1="{_TOP}" x2="{_WIDTH - 4}" y2="{_TOP}"/>'
        f'<text x="{_LEFT - 6}" y="{_TOP + 4}" text-anchor="end">{top:,}</text>'
        f'<text x="{_LEFT - 6}" y="{floor + 4}" text-anchor="end">0</text>'
        f'<text x="12" y="{(floor + _TOP) / 2}" text-anchor="middle" '
        f'transform="rotate(-90 12 {(floor + _TOP) / 2})">pairs</text>'
        f'<text x="{(_WIDTH + _LEFT) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{unit}</text>'
    )
    table = facts("", {name: f"{count:,}" for name, count in zip(bins, counts, strict=True)})
    return (
        f'<figure><figcaption>{title}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{title}: histogram of {sum(counts):,} pairs">{axes}{bars}{ticks}</svg>'
        f"<details><summary>Counts</summary>{table}</details></figure>"
    )


def _similarity(summary: Mapping[str, Any], degrades: bool) -> str:
    kinds = {"levenshtein": "Levenshtein (1 − edit ratio)", "cosine": "cosine of sentence embeddings"}
    pairs = {"y_w_edit": f"(y_w, {_edit(degrades)})", "edit_y_l": f"({_edit(degrades)}, y_l)"}
    rows = {
        f"{pairs[pair]}, {kinds[kind]}": _number(value, 3)
        for kind, values in summary["similarity"].items()
        for pair, value in values.items()
    }
    return facts("Means of the bridged pairs", rows)


def _spent(summary: Mapping[str, Any]) -> str:
    """What the answers in use cost, whenever they were given, and what this run asked for."""
    run = dict(summary.get("this_run") or {})
    run["retries"] = sum((run.get("retries") or {}).values())
    tables = [
        _costs("All answers in use", summary.get("answers") or {}),
        _costs("This run", run) if len(run) > 1 else "",
    ]
    seconds = f"<p>{summary['seconds']:,.1f} seconds</p>" if summary.get("seconds") is not None else ""
    return f'<div class="charts">{"".join(tables)}</div>\n{seconds}' if any(tables) else ""


def _costs(caption: str, costs: Mapping[str, Any]) -> str:
    names = {
        "requests": "Requests",
        "retries": "Requests repeated after a failure",
        "replies": "Answers",
        "prompt_tokens": "Prompt tokens",
        "completion_tokens": "Completion tokens",
    }
    rows = {words: f"{costs[name]:,}" for name, words in names.items() if costs.get(name) is not None}
    if "dollars" in costs:
        rows["Dollars"] = _number(costs["dollars"], 2 if (costs["dollars"] or 0) >= 0.1 else 4)
    speeds = {"rows_per_second": "Rows a second", "answers_per_second": "Answers a second"}
    rows |= {words: f"{costs[name]:,.1f}" for name, words in speeds.items() if costs.get(name) is not None}
    return facts(caption, rows) if rows else ""


def _examples(examples: Sequence[Example], degrades: bool, polishes: bool) -> str:
    if not examples:
        return "<p>No pair was bridged.</p>"
    base = "y_w" if degrades or polishes else "y_l"
    other = "y_l" if degrades or polishes else "y_w"
    shown = []
    for example in examples:
        texts = {"y_w": example.chosen, "y_l": example.rejected}
        shown.append(
            f"<details open><summary>{escape(example.id)}</summary>\n"
            f'<p class="label">x</p>{_text(escape(example.prompt), "x")}\n'
            f'<div class="sides"><div><p class="label">{base} → {_edit(degrades)}</p>'
            f"{_text(diff(texts[base], example.edit), 'edit')}</div>\n"
            f'<div><p class="label">{other}</p>{_text(escape(texts[other]), other)}</div></div></details>'
        )
    return (
        f"<p>{len(examples)} bridged pairs drawn at random, by the hashes of their ids. "
        f"<del>Struck through</del>: in {base} only. <ins>Underlined</ins>: in {_edit(degrades)} only. "
        "↵ is a line break.</p>\n" + "\n".join(shown)
    )


def _text(markup: str, label: str) -> str:
    """A text in a box, which scrolls by keyboard too."""
    return f'<div class="text" dir="auto" tabindex="0" role="group" aria-label="{label}">{markup}</div>'


def _edit(degrades: bool) -> str:
    return "ỹ_l" if degrades else "ỹ_w"


def _name(name: str, degrades: bool = False) -> str:
    return _edit(degrades) if name == "edit" else name


def _number(value: float | None, places: int) -> str:
    return "–" if value is None else f"{value:,.{places}f}"
