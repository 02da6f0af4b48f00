"""Statistics of a bridging run, as a stream over its rows: reasons, edit ratios, lengths, similarities, cost."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ..config import BridgeMode
from ..data.schema import Row, content, digest, transcript, unbridged
from ..errors import user_error
from .editor import BridgedPair, edited_side
from .edits import EditError
from .validators import edit_ratio

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
    """Mean similarities of the bridged pairs, in [−1, 1]; a batch of pairs is in memory at a time.

    Args:
        model: With `encode` as `SentenceTransformer` has it.
        pairs: Rows of `train.jsonl`.
        mode: What kind of edits they hold.

    Returns:
        Those of (y_w, edit), `y_w_edit`, and (edit, y_l), `edit_y_l`.
    """
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
    """Counts of values by bins [edge, next edge); the last bin is closed, or open to infinity.

    Args:
        edges: Ascending.
        unbounded: Whether a bin follows the last edge.
    """

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

    Args:
        mode: What kind of edits they are. The edit is ỹ_w, or ỹ_l for `degrade`.
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
        """Count one row.

        Args:
            row: (x, y_w, y_l).
            outcome: The pair, or why there is none.
        """
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
            **({"rationale": self._rationale_summary()} if self.rationales.count else {}),
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

    def _rationale_summary(self) -> dict[str, Any]:
        return {"rows": self.rationales.count, "length": self.rationales.rounded(), "unit": "characters"}


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
