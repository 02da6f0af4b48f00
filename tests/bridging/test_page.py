from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmc.bridging.editor import bridged_pair
from bmc.bridging.edits import EditError
from bmc.bridging.stats import LIMIT, Statistics, diff, escape, write_page

SCRIPT = '<script>alert(1)</script> "><img src=x onerror=alert(1)> </div></details> &amp;'


class Reader(HTMLParser):
    """What a browser makes of a page: its tags, and the words in them."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags, self.words, self.open = list[tuple[str, dict[str, Any]]](), "", list[str]()
        self.marked = {"ins": list[str](), "del": list[str]()}
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)
        if tag in self.marked:
            self.marked[tag].append("")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data
        if self.open and self.open[-1] in self.marked:
            self.marked[self.open[-1]][-1] += data


def run(mode: Any, edit: str, row: dict[str, Any]) -> Statistics:
    statistics = Statistics(mode)
    statistics.add(row, bridged_pair(row, edit, mode))
    statistics.add({**row, "id": "dropped"}, EditError(f"refusal {SCRIPT}"))
    return statistics


def written(folder: Path, statistics: Statistics, **more: Any) -> tuple[str, Reader]:
    path = write_page(folder, statistics.summary() | more, statistics.examples)
    assert path == folder / "stats.html"
    text = path.read_text(encoding="utf-8")
    return text, Reader(text)


ROW = {"id": "r <i>", "prompt": "Where is money kept?", "chosen": "A bank keeps it.", "rejected": "A river keeps it."}


def test_hostile_texts_are_shown_and_not_run(tmp_path: Path) -> None:
    row = {"id": SCRIPT, "prompt": SCRIPT, "chosen": f"w {SCRIPT}", "rejected": f"l {SCRIPT} \x00\ud800\u202e"}
    text, seen = written(tmp_path, run("targeted", f"new {SCRIPT}", row))
    assert not {"script", "link", "iframe", "i"} & {tag for tag, _ in seen.tags}
    assert seen.open == []
    assert seen.words.count(SCRIPT) >= 5  # the id, x, the edit, y_w, the reason
    assert "␀?[U+202E]" in seen.words
    names = {name for _, attributes in seen.tags for name in attributes}
    assert not {name for name in names if name.startswith("on")} | names & {"href"}
    assert all(found["src"].startswith("data:image/svg+xml;") for _, found in seen.tags if "src" in found)
    assert "url(" not in text
    (policy,) = [found["content"] for _, found in seen.tags if found.get("http-equiv")]
    assert re.fullmatch(r"default-src 'none'; style-src 'sha256-\S+'; script-src 'none'; img-src data:; .*", policy)


@pytest.mark.parametrize(
    ("mode", "edit", "removed", "added", "beside"),
    [
        ("targeted", "A bank keeps it.", ["river ", "Struck through"], ["bank ", "Underlined"], "y_w"),
        ("degrade", "A river keeps it.", ["bank ", "Struck through"], ["river ", "Underlined"], "y_l"),
    ],
)
def test_what_is_shown(mode: str, edit: str, removed: list[str], added: list[str], beside: str, tmp_path: Path) -> None:
    answers = {"completions": 1204, "prompt_tokens": 1234567, "completion_tokens": 9, "dollars": 2.5}
    this_run = {
        "requests": 8, "retries": {"429": 3, "500": 4}, "completions": 1, "dollars": None, "rows_per_second": 160.25
    }  # fmt: skip
    _, seen = written(tmp_path, run(mode, edit, ROW), usage=answers, this_run=this_run, seconds=2.0)
    assert "1 of 2 pairs kept" in seen.words
    for words in ("Responses1,204", "Prompt tokens1,234,567", "Dollars2.50", "Dollars–", "Requests8",
                  "after a failure7", "Rows a second160.2", "2.0 seconds", f"refusal {SCRIPT}1"):  # fmt: skip
        assert words in seen.words, words
    assert sorted(seen.marked["del"]) == sorted(removed)
    assert sorted(seen.marked["ins"]) == sorted(added)
    boxes = [attributes for tag, attributes in seen.tags if attributes.get("class") == "text"]
    assert [box["aria-label"] for box in boxes] == ["x", "edit", beside]
    assert all(box["tabindex"] == "0" for box in boxes)
    charts = [attributes for tag, attributes in seen.tags if tag == "img"]
    assert len(charts) == 3
    assert all("histogram of 1 pairs" in chart["alt"] for chart in charts)
    assert all(chart["src"].startswith("data:image/svg+xml;base64,") for chart in charts)


def test_a_run_without_edits_or_spending(tmp_path: Path) -> None:
    statistics = Statistics("token_scores")
    statistics.add(ROW, EditError("x"))
    _, seen = written(tmp_path, statistics)
    assert "0 of 1 pairs kept" in seen.words
    assert "No pair was bridged." in seen.words
    assert "Spent" not in seen.words


def test_a_page_stays_whole_when_it_is_written_again(tmp_path: Path) -> None:
    first, _ = written(tmp_path, run("targeted", "A bank keeps it.", ROW))
    again, _ = written(tmp_path, run("targeted", "A bank keeps it.", ROW))
    assert first == again
    assert [file.name for file in tmp_path.iterdir()] == ["stats.html"]


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_diff_holds_both_texts(before: str, after: str) -> None:
    markup = diff(before, after)
    seen = Reader(f"<div>{markup}</div>")
    plain = Reader(f"<div>{escape(after)}</div>").words
    kept = Reader(f"<div>{re.sub('<del>.*?</del>', '', markup, flags=re.DOTALL)}</div>").words
    assert kept.replace("↵", "") == plain.replace("↵", "")
    kept = Reader(f"<div>{re.sub('<ins>.*?</ins>', '', markup, flags=re.DOTALL)}</div>").words
    assert kept.replace("↵", "") == Reader(f"<div>{escape(before)}</div>").words.replace("↵", "")
    assert {tag for tag, _ in seen.tags} <= {"div", "ins", "del"}


def test_a_new_line_is_seen_and_huge_texts_are_cut() -> None:
    assert diff("a b", "a\nb") == "<del>a </del><ins>a↵\n</ins>b"
    huge = "word " * LIMIT
    assert len(diff(huge, huge + "x")) < LIMIT + 100
    assert escape(huge).endswith(f"<small> … {4 * LIMIT:,} more characters</small>")
