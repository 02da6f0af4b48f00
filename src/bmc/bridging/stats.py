"""Statistics of a bridging run, as a stream over its rows, and their page.

`stats.json` has reasons, edit ratios, lengths, similarities and cost; `stats.html` shows them with examples, in one
file without scripts that fetches nothing.
"""

from __future__ import annotations

import heapq
import io
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import regex
from markupsafe import Markup
from rapidfuzz.distance import Levenshtein

from ..config import BridgeMode
from ..data.schema import Row, content, digest, transcript, unbridged
from ..errors import user_error
from ..runs import write_text
from ..web import LIMIT, TEMPLATES, data_uri, escape, render
from .editor import BridgedPair, edited_side
from .edits import EditError
from .validators import edit_ratio
from .words import UNSPACED

_BATCH = 32  # pairs, with three texts each


def load_embedder(name: str) -> Any:
    """Return the model, a `SentenceTransformer`; loaded before anything is paid for.

    Raises:
        UserErrors: The extra isn't installed, or there is no such model.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        what = "needs the extra `embeddings`; pip install -e '.[embeddings]', or leave the key out"
        raise user_error("similarity_model", what) from None
    try:
        return SentenceTransformer(name)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise user_error(
            "similarity_model", f"'{name}' can't be loaded ({reason}); give a Hub id or a folder"
        ) from None


def cosine(model: Any, pairs: Iterable[Row], mode: BridgeMode) -> dict[str, float | None]:
    """Compute the mean similarities, in [−1, 1], of (y_w, edit), `y_w_edit`, and (edit, y_l), `edit_y_l`, of the
    bridged pairs; a batch of pairs is in memory at a time."""
    means = {"y_w_edit": Mean(), "edit_y_l": Mean()}
    bridged = (pair for pair in pairs if pair["bridged"])
    while batch := list(islice(bridged, _BATCH)):
        before = [unbridged(pair) for pair in batch]
        texts = [content(pair["chosen"]) for pair in before]  # the edit itself where there is no y_w
        texts += [content(pair[edited_side(mode)]) for pair in batch]
        texts += [content(pair["rejected"]) for pair in before]
        vectors = model.encode(texts, batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False)
        count = len(batch)
        for row in range(count):
            means["y_w_edit"].add(float(vectors[row] @ vectors[count + row]))
            means["edit_y_l"].add(float(vectors[count + row] @ vectors[2 * count + row]))
    return {name: mean.rounded() for name, mean in means.items()}


EXAMPLES = 20
RATIO_EDGES = [round(0.05 * step, 2) for step in range(21)]
LENGTH_EDGES = [0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1.05, 1.1, 1.2, 1.4, 2.0, 4.0]
_MOST_REASONS = 100  # distinct ones; what comes after them is counted together
_OTHER = "other reasons"


class Histogram:
    """Counts of values by bins [edge, next edge); the last bin is closed, or open to infinity."""

    def __init__(self, edges: Sequence[float], unbounded: bool = False) -> None:
        self.edges, self.unbounded = list(edges), unbounded
        self.counts = [0] * (len(self.edges) - (not unbounded))

    def add(self, value: float) -> None:
        self.counts[min(bisect_right(self.edges, value), len(self.counts)) - 1] += 1

    def summary(self) -> dict[str, Any]:
        """Return edges and counts; `counts[i]` is from `edges[i]` to `edges[i + 1]`, and null stands for no bound."""
        return {"edges": [*self.edges, *([None] if self.unbounded else [])], "counts": self.counts}


class Mean:
    """The mean of what was added."""

    def __init__(self) -> None:
        self.count, self.total = 0, 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value

    def rounded(self) -> float | None:
        """Round the mean to four places; None of nothing."""
        return round(self.total / self.count, 4) if self.count else None


@dataclass(frozen=True)
class Example:
    """A bridged pair to look at; data with feedback in place of y_w have no `chosen`."""

    id: str
    prompt: str
    chosen: str | None
    rejected: str
    edit: str
    rationale: str | None = None


class Statistics:
    """Gather a run's rows. What comes out depends on the rows alone, not on when or how often the run was resumed.

    The edit is ỹ_w, or ỹ_l for `mode: degrade`.
    """

    def __init__(self, mode: BridgeMode) -> None:
        self.mode = mode
        self.counts = Counter[str]()
        self.reasons, self.failures, self.rejected_edit = Counter[str](), Counter[str](), Counter[str]()
        self.notes = Counter[str]()
        self.ratios = {name: Mean() for name in ("edit_ratio", "original_edit_ratio")}
        self.histograms = {name: Histogram(RATIO_EDGES) for name in self.ratios}
        self.lengths = {name: Mean() for name in ("y_w", "y_l", "edit")}
        self.rationales = Mean()
        self.growth = Histogram(LENGTH_EDGES, unbounded=True)
        self.similarity = {name: Mean() for name in ("y_w_edit", "edit_y_l")}
        self._drawn: list[tuple[int, int, Example]] = []  # a heap; the largest number on top, negated

    def add(self, row: Row, outcome: Row | EditError) -> None:
        """Count one row (x, y_w, y_l): its pair, or why there is none."""
        self.counts["rows"] += 1
        first = getattr(outcome, "rejected_edit", None)
        if first:
            _count(self.rejected_edit, first)
            self.counts["kept on second try"] += not isinstance(outcome, EditError) and not _failure(outcome)
        if isinstance(outcome, EditError):
            _count(self.reasons, str(outcome))
            return
        self.counts["kept"] += 1
        self.counts["bridged"] += outcome["bridged"]
        if failure := _failure(outcome):
            _count(self.failures, failure)
        self.notes.update(outcome.notes if isinstance(outcome, BridgedPair) else ())
        self.counts["feedback"] += row.get("feedback") is not None and self.mode == "targeted"
        ratios = {"edit_ratio": outcome["edit_ratio"]}
        if "chosen" in row:
            ratios["original_edit_ratio"] = edit_ratio(content(row["chosen"]), content(row["rejected"]))
        for name, ratio in ratios.items():
            self.ratios[name].add(ratio)
            self.histograms[name].add(ratio)
        if outcome["bridged"]:
            self._add_edit(row, content(outcome[edited_side(self.mode)]), outcome.get("rationale"))

    def _add_edit(self, row: Row, edit: str, rationale: str | None) -> None:
        chosen, rejected = (content(row[side]) if side in row else None for side in ("chosen", "rejected"))
        assert rejected is not None  # every row has it
        for name, text in (("y_w", chosen), ("y_l", rejected), ("edit", edit)):
            if text is not None:
                self.lengths[name].add(len(text))
        self.growth.add(len(edit) / max(len(chosen if chosen and self.base == "y_w" else rejected), 1))
        if chosen is not None:
            self.similarity["y_w_edit"].add(1 - edit_ratio(chosen, edit))
        self.similarity["edit_y_l"].add(1 - edit_ratio(edit, rejected))
        if rationale:
            self.rationales.add(len(rationale))
        # The rows whose ids have the smallest hashes: a random choice that is the same however the rows arrive.
        place = (-_draw(row), -self.counts["rows"])
        if len(self._drawn) < EXAMPLES or place > self._drawn[0][:2]:
            drawn = (*place, Example(str(row["id"]), transcript(row["prompt"]), chosen, rejected, edit, rationale))
            (heapq.heappush if len(self._drawn) < EXAMPLES else heapq.heappushpop)(self._drawn, drawn)

    @property
    def base(self) -> str:
        """Name the response that an edit takes the place of or was made of, to which its length is compared."""
        return "y_w" if self.mode in ("degrade", "polish") else "y_l"

    @property
    def examples(self) -> list[Example]:
        """Return bridged pairs drawn at random."""
        return [example for *_, example in sorted(self._drawn, reverse=True, key=lambda drawn: drawn[:2])]

    def summary(self) -> dict[str, Any]:
        """Return the content of `stats.json`, as far as it depends on the rows.

        Ratios are of the kept rows, lengths and similarities (1 − edit ratio) of the bridged ones; means are null, and
        those of ratios 0, where there are none.
        """
        counts = self.counts
        rationale = {"rows": self.rationales.count, "length": self.rationales.rounded(), "unit": "characters"}
        return {
            "mode": self.mode,
            "rows": counts["rows"],
            "kept": counts["kept"],
            "bridged": counts["bridged"],
            "dropped": sum(self.reasons.values()),
            "reasons": dict(self.reasons.most_common()),
            "kept_original": dict(self.failures.most_common()),
            "second_tries": {
                "rows": sum(self.rejected_edit.values()),
                "kept": counts["kept on second try"],
                "reasons": dict(self.rejected_edit.most_common()),
            },
            "rule_edits": dict(self.notes.most_common()),
            **({"feedback": counts["feedback"]} if counts["feedback"] else {}),
            **({"rationale": rationale} if rationale["rows"] else {}),
            "edit_ratio_unit": "characters",
            **{name: mean.rounded() or 0.0 for name, mean in self.ratios.items()},
            "length": {
                "unit": "characters",
                **{name: mean.rounded() for name, mean in self.lengths.items()},
                "compared_to": self.base,
            },
            "similarity": {"levenshtein": {name: mean.rounded() for name, mean in self.similarity.items()}},
            "histograms": {
                **{name: histogram.summary() for name, histogram in self.histograms.items()},
                "length_ratio": self.growth.summary(),
            },
        }


def examples_of(pairs: Iterable[Row], mode: BridgeMode) -> list[Example]:
    """Draw the same examples as `Statistics`, from the pairs that a run left in `train.jsonl`."""
    bridged = (row for row in pairs if row.get("bridged"))
    return [
        Example(
            id=str(row["id"]),
            prompt=transcript(row["prompt"]),
            chosen=content(row["original_chosen"]) if "original_chosen" in row else None,
            rejected=content(row.get("original_rejected") or row["rejected"]),
            edit=content(row[edited_side(mode)]),
            rationale=row.get("rationale"),
        )
        for row in heapq.nsmallest(EXAMPLES, bridged, key=_draw)
    ]


def _draw(row: Row) -> int:
    """Hash a row's id to a number, for a random choice that repeats."""
    return int(digest(f"example {row['id']}"), 16)


def _failure(outcome: Row) -> str | None:
    return outcome.failure if isinstance(outcome, BridgedPair) else None


def _count(counts: Counter[str], reason: str) -> None:
    counts[reason if reason in counts or len(counts) < _MOST_REASONS else _OTHER] += 1


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


def write_page(folder: Path, summary: Mapping[str, Any], examples: Sequence[Example]) -> Path:
    """Write the page and return its path."""
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
