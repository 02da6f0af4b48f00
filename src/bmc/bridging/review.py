"""Review a bridging run: people's decisions on its rows, in `review.jsonl`, and the pairs that they leave.

Rows are numbered through `train.jsonl` and then `dropped.jsonl`: a row's place. A decision is one line that names
reviewer, UTC time, file and line of the row and a digest of it, so that decisions on another run's rows are noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import random
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from itertools import chain, combinations, islice
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from ..config import ValidatorSettings
from ..data.files import parse_json
from ..data.loading import REVIEW
from ..data.schema import Row, content, transcript, unbridged
from ..errors import user_error
from ..runs import RECIPE_FILE, atomic_files, read_json
from ..web import shown
from .editor import bridged_pair, check_editable, edit_request, edited_side
from .edits import EditError
from .stats import diff_pieces
from .validators import VALIDATORS, EditCandidate

FILES = ("train.jsonl", "dropped.jsonl")
DECISIONS = ("accept", "reject", "correct")
UNDO = "undo"
REJECTED, UNDECIDED = "rejected in review", "not accepted in review"
Use = Literal["accepted", "not_rejected"]


class BridgingRun:
    """The rows of a bridging run, found by their byte offsets and read one at a time."""

    def __init__(self, folder: Path) -> None:
        """Index the files.

        Raises:
            UserErrors: The folder is no bridging run's, or its rows hold no edits.
        """
        self.folder = folder
        if not (folder / RECIPE_FILE).is_file() or not (folder / FILES[0]).is_file():
            what = f"is no finished bridging run: {FILES[0]} or {RECIPE_FILE} is missing; give the output_dir of one"
            raise user_error(str(folder), what)
        recipe = read_json(folder / RECIPE_FILE)
        self.mode = recipe.get("mode", "targeted")
        if self.mode == "token_scores":
            raise user_error(str(folder), "mode: token_scores has made no edits; there is nothing to review")
        self.limits = ValidatorSettings(**recipe.get("validators", {}))
        stats = folder / "stats.json"
        counted = read_json(stats).get("rationale") if stats.is_file() else None
        self.rationales = int(counted["rows"]) if counted else 0
        self._files = [(folder / name).open("rb") for name in FILES if (folder / name).is_file()]
        self._spans = [_spans(file) for file in self._files]
        self.counts = [len(spans) // 2 for spans in self._spans]

    def __len__(self) -> int:
        return sum(self.counts)

    def is_dropped(self, place: int) -> bool:
        """Tell whether a row is of `dropped.jsonl`."""
        return place >= self.counts[0]

    def line(self, place: int) -> bytes:
        """Read a row's line."""
        file = int(self.is_dropped(place))
        number = place - file * self.counts[0]
        start, end = self._spans[file][2 * number : 2 * number + 2]
        return os.pread(self._files[file].fileno(), end - start, start)  # threads would share a position to seek

    def row(self, place: int) -> Row:
        """Read a row.

        Raises:
            UserErrors: It is not JSON.
        """
        try:
            return dict(parse_json(self.line(place).decode()))
        except ValueError:
            name = self.name(place)
            raise user_error(
                f"{self.folder / name['file']}: line {name['line']}", "is not JSON; bridge again"
            ) from None

    def name(self, place: int) -> Row:
        """Name a row as decisions do: its file, its line there (of those that aren't blank), and a digest of it."""
        file = int(self.is_dropped(place))
        return {"file": FILES[file], "line": place - file * self.counts[0] + 1, "row": _digest(self.line(place))}

    def find(self, record: Row) -> int | None:
        """Return the place of the row that a decision is on; None where this run has no such row."""
        file = FILES.index(record["file"])
        if file >= len(self.counts) or not 1 <= record["line"] <= self.counts[file]:
            return None
        place = file * self.counts[0] + record["line"] - 1
        return place if _digest(self.line(place)) == record["row"] else None


def _spans(file: Any) -> array[int]:
    """List start and end of each line that isn't blank."""
    spans, start = array("Q"), 0
    size = os.fstat(file.fileno()).st_size
    if not size:
        return spans
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        while start < size:
            end = memory.find(b"\n", start) + 1 or size
            if end - start > 2 or memory[start:end].strip():
                spans.extend((start, end))
            start = end
    return spans


def _digest(line: bytes) -> str:
    return hashlib.sha256(line.strip()).hexdigest()[:16]


class Decisions:
    """Decisions that weren't undone."""

    def __init__(self) -> None:
        # reviewer → (number of the decision, place, decision), in their order
        self.made: dict[str, list[tuple[int, int, Row]]] = {}
        self._count = 0

    def add(self, place: int, record: Row) -> None:
        """Add a decision, or undo the reviewer's last one on that row."""
        made = self.made.setdefault(record["reviewer"], [])
        self._count += 1
        if record["decision"] != UNDO:
            made.append((self._count, place, record))
            return
        last = next((index for index in reversed(range(len(made))) if made[index][1] == place), None)
        if last is not None:
            del made[last]

    def standing(self, reviewer: str) -> dict[int, Row]:
        """Return a reviewer's last decision on each row."""
        return {place: record for _, place, record in self.made.get(reviewer, [])}

    def verdicts(self) -> dict[int, Row]:
        """Return what all reviewers together say of each row: it is rejected if the last decision of any of them
        rejects it; else the latest correction counts, if there is one."""
        found: dict[int, list[tuple[int, Row]]] = {}
        for made in self.made.values():
            for place, last in {place: (number, record) for number, place, record in made}.items():
                found.setdefault(place, []).append(last)
        rank = {"accept": 0, "correct": 1, "reject": 2}
        return {
            place: max(given, key=lambda one: (rank[one[1]["decision"]], one[0]))[1] for place, given in found.items()
        }


def read_decisions(run: BridgingRun) -> Decisions:
    """Read a run's review file; a torn last line, of a process that was killed, doesn't count.

    Raises:
        UserErrors: A line is no decision, or its row isn't this run's.
    """
    path, decisions = run.folder / REVIEW, Decisions()
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if (record := _record(line)) is None:
            if number == len(lines):
                break
            raise user_error(f"{path}: line {number}", "is no decision; remove that line")
        if (place := run.find(record)) is None:
            what = f"decides on row {record['id']}, which this bridging run has not or has otherwise"
            raise user_error(f"{path}: line {number}", f"{what}; move {REVIEW} to the run that it is of")
        decisions.add(place, record)
    return decisions


def _record(line: bytes) -> Row | None:
    """Read a line of a review file; None if it is no decision."""
    try:
        record = parse_json(line.decode())
    except ValueError:
        return None
    if not isinstance(record, dict) or not all(isinstance(record.get(key), str) for key in ("reviewer", "id", "row")):
        return None
    decided = record.get("decision")
    known = decided in (*DECISIONS, UNDO) and record.get("file") in FILES and isinstance(record.get("line"), int)
    return record if known and (decided != "correct" or isinstance(record.get("text"), str)) else None


def cohen_kappa(pairs: list[tuple[str, str]]) -> float | None:
    """Compute Cohen's κ = (p_o − p_e) / (1 − p_e) of two raters' labels; None where chance alone agrees always.

    Source: Cohen (1960), A coefficient of agreement for nominal scales.
    """
    count = len(pairs)
    one, other = (Counter(labels) for labels in zip(*pairs, strict=True)) if pairs else (Counter(), Counter())
    chance = sum(one[label] * other[label] for label in one)  # · 1 / count²
    same = sum(a == b for a, b in pairs)
    return None if chance == count**2 else (same * count - chance) / (count**2 - chance)


def agreement(decisions: Decisions) -> list[Row]:
    """Compare each two reviewers on the rows that both decided: accept, reject or correct."""
    standing = {name: decisions.standing(name) for name in sorted(decisions.made)}
    found = []
    for one, other in combinations(standing, 2):
        both = [places for places in standing[one] if places in standing[other]]
        pairs = [(standing[one][place]["decision"], standing[other][place]["decision"]) for place in both]
        if pairs:
            found.append({"reviewers": [one, other], "n": len(pairs), "kappa": cohen_kappa(pairs)})
    return found


def outcomes(folder: Path, use: Use) -> Iterator[tuple[Row, str | None]]:
    """Yield every row of a bridging run as the review leaves it, and why it is dropped; None where it is kept.

    A corrected pair, from either file, is bridged by a person; its edit ratio is computed anew. `use`: `not_rejected`
    keeps undecided pairs, `accepted` doesn't.

    Raises:
        UserErrors: As `BridgingRun` and `read_decisions`; or there is no review file.
    """
    if not (folder / REVIEW).is_file():
        what = f"there are no decisions yet; make them first: bmc review {folder} --reviewer AB"
        raise user_error(str(folder / REVIEW), what)
    run = BridgingRun(folder)
    verdicts = read_decisions(run).verdicts()
    for place in range(len(run)):
        row, verdict = run.row(place), verdicts.get(place, {})
        reason = row.pop("reason", None) if run.is_dropped(place) else None
        decided = verdict.get("decision")
        if decided == "correct":
            yield {**bridged_pair(unbridged(row), verdict["text"], run.mode), "editor": "person"}, None
        elif reason is not None:
            yield row, reason
        elif decided == "reject":
            yield row, REJECTED
        else:
            yield row, UNDECIDED if decided is None and use == "accepted" else None


def reviewed_pairs(folder: Path, use: Use) -> Iterator[Row]:
    """Yield the pairs of a bridging run that a review leaves, for `use_review`; as `outcomes`."""
    return (row for row, reason in outcomes(folder, use) if reason is None)


def apply(folder: Path, use: Use) -> tuple[Path, Counter[str]]:
    """Write what a review leaves to `reviewed/train.jsonl`, and the other rows with their reasons to
    `reviewed/dropped.jsonl`; both or none. The run's own files stay, so that a decision can still be undone.

    Returns the folder, and the rows by reason; "" for the pairs that are kept.
    """
    into, counts = folder / "reviewed", Counter[str]()
    found = outcomes(folder, use)
    first = list(islice(found, 1))  # a fault comes before anything is written
    with atomic_files(*(into / name for name in FILES)) as (train, dropped):
        for row, reason in chain(first, found):
            counts[reason or ""] += 1
            line = row if reason is None else {**row, "reason": reason}
            print(json.dumps(line, ensure_ascii=False), file=train if reason is None else dropped)
    return into, counts


@dataclass(frozen=True)
class Filter:
    """Which rows to show, and in which order."""

    reason: str | None = None  # of the dropped rows; "" for those that were kept, None for all
    low: float = 0.0  # least edit ratio
    high: float = 1.0  # largest edit ratio; dropped rows have none
    decision: str | None = None  # the reviewer's own: one of `DECISIONS`, `undecided`, or None for all
    seed: int | None = None  # of a random order; None for the files' own


class Review:
    """One reviewer at work on a bridging run. Methods may be called from several threads; decisions of other reviewers
    aren't shown, so that agreement means something."""

    def __init__(self, folder: Path, reviewer: str) -> None:
        """Open a run for review, as the only process.

        Raises:
            UserErrors: As `BridgingRun` and `read_decisions`; or another process reviews it.
        """
        self.run, self.reviewer = BridgingRun(folder), reviewer
        self._threads = threading.RLock()
        self._lock = FileLock(f"{folder / REVIEW}.lock", thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise user_error(str(folder), "is under review by another process; end that one first") from None
        try:
            self.decisions = read_decisions(self.run)
            self._file = _open_to_append(folder / REVIEW)
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Let other processes review the run."""
        self._file.close()
        self._lock.release()

    def progress(self) -> Row:
        """Count this reviewer's decisions, and tell how two reviewers agree."""
        with self._threads:
            counts = Counter(record["decision"] for record in self.decisions.standing(self.reviewer).values())
            files = dict(zip(("pairs", "dropped"), (*self.run.counts, 0), strict=False))
            made = {decision: counts[decision] for decision in DECISIONS}
            who = {"reviewer": self.reviewer, "rows": len(self.run), "decided": counts.total()}
            files["rationale"] = self.run.rationales
            return {**who, **files, **made, "agreement": agreement(self.decisions)}

    def page(self, chosen: Filter, at: int | None = None, step: int = 0, count: int = 1) -> Row:
        """Return at most `count` rows that pass a filter, and how many do.

        `step` 1 takes rows after the place `at`, −1 rows before it, 0 rows from it on.
        """
        with self._threads:
            order = _order(len(self.run), chosen.seed)
            start = 0 if at is None else order.index(at)
            standing = self.decisions.standing(self.reviewer)
            found = [position for position, place in enumerate(order) if self._passes(place, chosen, standing)]
            if step < 0:
                end = bisect_left(found, start)
                first = max(end - count, 0)
            else:
                first = (bisect_right if step else bisect_left)(found, start)
                end = min(first + count, len(found))
            rows = [self.show(order[found[index]]) | {"number": index + 1} for index in range(first, end)]
            return {"total": len(found), "rows": rows}

    def _passes(self, place: int, chosen: Filter, standing: dict[int, Row]) -> bool:
        decided = standing.get(place, {}).get("decision", "undecided")
        if chosen.decision is not None and decided != chosen.decision:
            return False
        if chosen.reason is not None and self._reasons.get(place, "") != chosen.reason:
            return False
        if (chosen.low, chosen.high) == (0.0, 1.0):
            return True
        ratio = standing.get(place, {}).get("edit_ratio", self._ratios[place] if place < len(self._ratios) else None)
        return ratio is not None and chosen.low <= ratio <= chosen.high

    @cached_property
    def _ratios(self) -> array[float]:
        """Edit ratios of the pairs; every row is read once, when a filter first wants them."""
        return array("d", (self.run.row(place).get("edit_ratio", 0.0) for place in range(self.run.counts[0])))

    @cached_property
    def _reasons(self) -> dict[int, str]:
        kept = self.run.counts[0]
        return {place: str(self.run.row(place).get("reason", "")) for place in range(kept, len(self.run))}

    def reasons(self) -> list[str]:
        """List the reasons of dropped rows, the most frequent first."""
        with self._threads:
            return [reason for reason, _ in Counter(self._reasons.values()).most_common()]

    def show(self, place: int) -> Row:
        """Describe a row, with texts as a page prints them; `text` is the edit as it is, for a person to go on from."""
        with self._threads:
            row, decision = self.run.row(place), self.decisions.standing(self.reviewer).get(place)
            pair = unbridged(row)
            base, edit, other = self._names
            responses = {"y_w": _text(pair, "chosen"), "y_l": _text(pair, "rejected")}
            original = content(row[edited_side(self.run.mode)]) if row.get("bridged") else responses[base] or ""
            text = (decision or {}).get("text", original)
            facts = self.judge(place, text) if text != original else {
                "pieces": _shown(diff_pieces(responses[base] or "", text)),
                "edit_ratio": row.get("edit_ratio"),
                "findings": [row["reason"]] if self.run.is_dropped(place) else [],
            }  # fmt: skip
            named = {"place": place, "id": shown(str(row.get("id"))), "base": base, "edit": edit, "other": other}
            texts = {"prompt": transcript(row.get("prompt") or ""), "beside": responses[other]}
            notes = {key: str(row[key]) for key in ("rationale", "feedback", "answer") if row.get(key) is not None}
            state = "dropped" if self.run.is_dropped(place) else "bridged" if row.get("bridged") else "not bridged"
            printed = {key: None if value is None else shown(value) for key, value in (texts | notes).items()}
            return {
                **named,
                **printed,
                **facts,
                "text": text,
                "state": state,
                "decision": (decision or {}).get("decision"),
            }

    @property
    def _names(self) -> tuple[str, str, str]:
        """Name the response that an edit was made of, the edit, and the other response."""
        base, other = ("y_w", "y_l") if self.run.mode in ("degrade", "polish") else ("y_l", "y_w")
        return base, "ỹ_l" if self.run.mode == "degrade" else "ỹ_w", other

    def judge(self, place: int, text: str) -> Row:
        """Compare a text with what it would be an edit of: the differences, the edit ratio and what validators find."""
        with self._threads:
            pair = unbridged(self.run.row(place))
            if missing := [side for side in ("prompt", "rejected") if pair.get(side) is None]:
                raise user_error("correct", f"this row has no {missing[0]}, so no edit makes it a pair")
            made = bridged_pair(pair, text, self.run.mode)
            base = _text(pair, "chosen" if self._names[0] == "y_w" else "rejected") or ""
            edit = EditCandidate(text, edit_request(pair), self.run.mode)
            findings = [found.reason for check in VALIDATORS if (found := check(edit, self.run.limits))]
            return {
                "pieces": _shown(diff_pieces(base, text)),
                "edit_ratio": made["edit_ratio"],
                "findings": findings,
            }

    def decide(self, place: int, decision: str, text: str | None = None) -> None:
        """Record a decision, on the disk before this returns.

        Raises:
            UserErrors: It can't be made of this row; or the disk is full, and nothing is recorded.
        """
        with self._threads:
            row = self.run.row(place)
            more = self._correction(place, row, text or "") if decision == "correct" else {}
            if decision == "accept" and self.run.is_dropped(place):
                raise user_error("accept", "this row was dropped and has no edit; write one (e), or reject it")
            self._append(place, str(row.get("id")), decision, more)

    def _correction(self, place: int, row: Row, text: str) -> Row:
        """Check a correction as an LLM's edit is checked, and return what is recorded of it."""
        facts = self.judge(place, text)
        try:
            check_editable(unbridged(row))
        except EditError as error:
            raise user_error("correct", str(error)) from None
        if row.get("bridged") and text == content(row[edited_side(self.run.mode)]):
            raise user_error("correct", "this is the edit as it was; accept it, or change it")
        if facts["findings"]:
            raise user_error("correct", f"{facts['findings'][0]}; change the text, or reject the edit")
        return {"text": text, "edit_ratio": facts["edit_ratio"]}

    def undo(self) -> int | None:
        """Undo this reviewer's last decision and return the place of its row; None if there is none."""
        with self._threads:
            made = self.decisions.made.get(self.reviewer)
            if not made:
                return None
            _, place, record = made[-1]
            self._append(place, record["id"], UNDO, {})
            return place

    def _append(self, place: int, id: str, decision: str, more: Row) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        who = {"reviewer": self.reviewer, "time": now, "id": id, **self.run.name(place)}
        record = {**who, "decision": decision, **more}
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(json.dumps(record).encode() + b"\n")
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            raise user_error(str(self.run.folder / REVIEW), f"can't be written ({error.strerror}); make room") from None
        self.decisions.add(place, record)


def _text(pair: Row, side: str) -> str | None:
    """Return a response's words; None where the data have no such response."""
    return None if pair.get(side) is None else content(pair[side])


def _shown(pieces: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(tag, shown(text)) for tag, text in pieces]


@lru_cache(maxsize=4)
def _order(count: int, seed: int | None) -> list[int]:
    return list(range(count)) if seed is None else random.Random(seed).sample(range(count), count)


def _open_to_append(path: Path) -> Any:
    """Open a review file behind its last whole line; a line that a killed process left torn is removed."""
    new = not path.exists()
    file = path.open("a+b", buffering=0)
    file.seek(0)
    lines = file.read().split(b"\n")
    if lines[-1] and _record(lines[-1]) is None:
        file.truncate(sum(len(line) + 1 for line in lines[:-1]))
    elif lines[-1]:
        file.write(b"\n")
    if new:
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # the file's name, too, must outlive a crash
        os.close(folder)
    return file


def summary(progress: Row) -> str:
    """Say in a few lines how far a review is and how two reviewers agree."""
    made = ", ".join(f"{progress[decision]:,} {decision}ed" for decision in DECISIONS)
    lines = [f"{progress['reviewer']}: {progress['decided']:,} of {progress['rows']:,} rows decided ({made})"]
    if progress["rationale"]:
        lines[0] += f", {progress['rationale']:,} with the editor's rationale"
    for found in progress["agreement"]:
        kappa = "undefined" if found["kappa"] is None else f"{found['kappa']:.2f}"
        lines.append(f"{' and '.join(found['reviewers'])}: Cohen's κ {kappa} (n = {found['n']:,})")
    return "\n".join(lines)
