"""Figures, bridging and origins, as the page shows them."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest
from made import write, write_rows

from bmc.analysis.differences import Difference
from bmc.analysis.page import sections
from bmc.bridging import page
from bmc.bridging.making import bridged_pair
from bmc.bridging.statistics import EXAMPLES, Statistics, examples_of

FILES = {"svg": "figures/f.svg", "csv": "figures/f.csv"}


def test_figures_stand_in_the_page_with_their_numbers(tmp_path: Path) -> None:
    figure = {"name": "f", "title": "Figure 2", "caption": "of <n>", **FILES}
    missing = {"name": "g<", "why": "no run.", "command": "make figure5"}
    write(tmp_path / "analysis.json", {"figures": [figure], "missing": [missing]})
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/f.svg").write_text("<svg/>")
    (tmp_path / "figures/f.csv").write_text('what,value\n"first, <b>",1\nlater,2\n')
    said: list[str] = []
    markup = sections.figures(tmp_path, said)
    assert said == []
    assert f'src="data:image/svg+xml;base64,{base64.b64encode(b"<svg/>").decode()}"' in markup
    assert 'alt="Figure 2. of &lt;n&gt;"' in markup
    assert '<th scope="row">first, &lt;b&gt;</th><td>1</td>' in markup
    assert '<a download="f.csv" href="data:text/csv;base64,' in markup
    assert "<li><b>g&lt;</b>: no run. Make it with <code>make figure5</code></li>" in markup


def test_a_figure_whose_file_is_gone_is_named(tmp_path: Path) -> None:
    write(
        tmp_path / "analysis.json",
        {"figures": [{"name": "f", **FILES}, {"name": "g"}], "missing": [{"name": "h", "why": "w"}]},
    )
    said: list[str] = []
    assert sections.figures(tmp_path, said) == '<h3>Not made</h3><ul class="missing"><li><b>h</b>: w</li></ul>'
    where = tmp_path / "analysis.json"
    assert said == [
        f"{where}: f: isn't shown, {tmp_path}/figures/f.svg can't be read; analyze again",
        f"{where}: g: isn't shown, it has no 'png'; analyze again",
    ]


@pytest.mark.parametrize("mode", ["targeted", "degrade"])
def test_the_examples_are_those_of_the_bridging_page(mode: Any, tmp_path: Path) -> None:
    statistics, made = Statistics(mode), []
    for number in range(3 * EXAMPLES):
        row = {"id": f"r{number}", "prompt": "x", "chosen": f"right {number}", "rejected": f"wrong {number}"}
        made.append(bridged_pair(row, f"edit {number}" if number % 2 else None, mode))
        statistics.add(row, made[-1])
    assert examples_of(made, mode) == statistics.examples
    write(tmp_path / "stats.json", statistics.summary())
    write_rows(tmp_path / "train.jsonl", [dict(row) for row in made])
    said: list[str] = []
    markup = sections.bridging(tmp_path, said)
    assert said == []
    theirs = page.write(tmp_path, statistics.summary(), statistics.examples).read_text()
    for _, text in page.sections(statistics.summary(), statistics.examples):
        assert text in markup
        assert text in theirs


RECORD: dict[str, Any] = {
    "command": "scripts/evaluate.py <e>.yaml", "recipe": {"beta": 0.05, "note": "<b>"}, "seed": 42,
    "git": {"commit": "0123456789abcdef", "dirty": True}, "data": [{"file": "t.jsonl", "sha256": "fedcba9876543210"}],
    "versions": {"torch": "2.13.0", "vllm": None}, "started": "2026-11-25T10:00:00+00:00", "model": {"name": "m"},
}  # fmt: skip


def test_the_record_of_a_run(tmp_path: Path) -> None:
    write(tmp_path / "a/provenance.json", RECORD)
    markup = sections.origins({"a <1>": tmp_path / "a", "b": tmp_path / "b"})
    assert "a &lt;1&gt; <small>commit 0123456 and changes, data fedcba9, 2026-11-25</small>" in markup
    assert "<code>scripts/evaluate.py &lt;e&gt;.yaml</code>" in markup
    assert "0123456789abcdef, with changes that weren&#x27;t committed" in markup.replace("'", "&#x27;")
    assert "SHA-256 fedcba9876543210" in markup
    assert "beta: 0.05\nnote: &lt;b&gt;\n" in markup
    assert re.search(r"b <small>no record</small></summary><p>There is no provenance", markup)
    assert "vllm" not in markup


@pytest.mark.parametrize("record", [{}, {"git": None, "data": [3], "recipe": None, "model": 1, "versions": []}])
def test_a_record_that_says_little(record: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path / "provenance.json", record)
    assert "Recipe" in sections.origins({"a": tmp_path}) or record == {}


def test_differences_stand_beside_the_line_of_none() -> None:
    """The scale goes from 0, at 4, to 10, at 96: 2, 5 and 10 lie at 22.4, 50 and 96."""
    rows = [Difference("b<", "ecqa", (5.0, 2.0, 10.0), 20, 0.03125, 0.5), Difference("c", "ecqa")]
    markup = sections.differences(("dpo", rows))
    assert "<td>+5.0 [+2.0, +10.0] (n = 20)</td>" in markup
    assert '<line class="zero" x1="4.0" y1="0" x2="4.0" y2="8"/><line x1="22.4" y1="4" x2="96.0" y2="4"/>' in markup
    assert '<circle cx="50.0" cy="4" r="3"/>' in markup
    assert "<td>0.0312</td><td>0.5</td>" in markup
    assert '<tr data-run="b&lt;"><th scope="row">b&lt;</th>' in markup
    assert "<td>other rows</td><td></td><td></td><td></td>" in markup
    assert sections.differences(None) == ""
