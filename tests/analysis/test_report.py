"""The tables and the page over all runs below a folder, whatever stands in their files."""

import base64
import hashlib
import html
import json
import logging
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import evaluated, result, side, write, write_rows

from bmc.analysis import report as module
from bmc.analysis.report import (
    color_scale,
    curves,
    logged_metrics,
    predictions_data,
    report,
    runs_shown_first,
    token_data,
)
from bmc.bridging.editor import bridged_pair
from bmc.bridging.stats import EXAMPLES, Statistics, examples_of, write_page
from bmc.config import ReportConfig
from bmc.errors import UserErrors
from bmc.web import data


def made(root: Path) -> str:
    return report(ReportConfig(runs=str(root)))


def html_of(root: Path) -> str:
    """The page without the white space between its tags."""
    made(root)
    return re.sub(r">\s+|\s+(?=<)", lambda found: found[0].strip(), (root / "report.html").read_text(encoding="utf-8"))


# Tables


def test_tables(tmp_path: Path) -> None:
    write(tmp_path / "dpo/metrics.json", {"rows": 64, "seconds": 90.2})
    write(tmp_path / "bridge/stats.json", {"rows": 9, "kept": 6, "bridged": 5, "dropped": 3, "seconds": 1.0})
    two = {"ecqa": result(5, 10), "qasc": result(3, 4)}  # the average: 62.5 − √(30² + 55²)/2, 62.5 + √(30² + 5²)/2
    write(tmp_path / "dpo/eval/metrics.json", {"n": 14, "results": two, "average": 0.625, "seconds": 9})
    write(tmp_path / "<sft>/eval/metrics.json", {"n": 10, "results": {"ecqa": result(4, 10)}, "seconds": 8})
    markdown = made(tmp_path)
    for line in (
        "| run | ecqa | qasc | average |",
        "| dpo | 50.0 [20.0, 80.0] (n = 10) | 75.0 [20.0, 80.0] (n = 4) | 62.5 [31.2, 77.7] (n = 14) |",
        "| <sft> | 40.0 [20.0, 80.0] (n = 10) | not run | – |",
        "| bridge | 1 s | 6 of 9 pairs kept (5 bridged), 3 dropped |",
        "| dpo | 90 s | a model, from 64 rows |",
    ):
        assert line in markdown
    assert markdown in (tmp_path / "report.md").read_text()
    page = html_of(tmp_path)
    assert '<th scope="row">&lt;sft&gt;</th>' in page
    assert "<sft>" not in page


def test_a_run_without_scores_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "dpo/metrics.json", {"train_loss": 0.5})
    assert "## Scores" not in made(tmp_path)
    how = "scripts/evaluate.py RECIPE --model_name_or_path MODEL --output_dir MODEL/eval"
    said = f"dpo: trained and not evaluated; run {how}"
    assert caplog.messages == [said]
    assert f"- {said}" in (tmp_path / "report.md").read_text()
    assert f"<li>{said}</li>" in html_of(tmp_path)
    evaluated(tmp_path / "sft/eval", {"r": True})
    assert "| dpo | not run |" in made(tmp_path)


def test_verdicts_that_cannot_be_read_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    judged = {"benchmark": "mine", "judge": "j", "n": 7, "win_rate": 50.0, "interval": [20.0, 80.0]}
    write(tmp_path / "dpo/eval/mine/judge_results.json", judged | {"unreadable": 3})
    write(tmp_path / "sft/eval/mine/judge_results.json", judged | {"unreadable": 0})
    assert "| run | mine WR |" in made(tmp_path)
    assert caplog.messages == ["dpo/eval/mine: mine: 3 of the verdicts can't be read; they are not scored"]
    write(tmp_path / "dpo/eval/mine/judge_results.json", judged | {"unreadable": 15, "verdicts": 220, "rows": 110})
    made(tmp_path)
    assert caplog.messages[-1].startswith(
        "dpo/eval/mine: mine: 15 of 220 verdicts can't be read, so 103 of 110 rows (93.6 %)"
    )


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({"prepare/stats.json": {"train": 1, "leaked": 0}}, "holds no run; train one"),
        ({"metrics.json": []}, r"metrics\.json: is not a JSON object"),
        (
            {f"{folder}/metrics.json": {"results": {"ecqa": result(1, 1)}} for folder in ("dpo", "dpo/eval")},
            r"two runs are called dpo: \S+/dpo/eval/metrics.json and \S+/dpo/metrics.json; move or remove one",
        ),
        (
            {"b/metrics.json": {"results": {"ecqa": result(1, 1)}}, "b/predictions.jsonl": {}},
            r"b/predictions\.jsonl: row 1: is no prediction",
        ),
    ],
)
def test_faults(files: dict[str, Any], what: str, tmp_path: Path) -> None:
    for file, value in files.items():
        write(tmp_path / file, value)
    with pytest.raises(UserErrors, match=what):
        made(tmp_path)
    assert not (tmp_path / "report.md").exists()


def test_differences_are_row_by_row_and_adjusted(tmp_path: Path) -> None:
    """b is right on six rows that dpo gets wrong, never the reverse: p = 2/2⁶; a on three: 2/2³. Holm doubles b's."""
    theirs = {f"r{i}": i < 10 for i in range(20)}
    for run, right in (("dpo", 10), ("a", 13), ("b", 16)):
        evaluated(tmp_path / run / "eval", {row: int(row[1:]) < right for row in theirs})
    evaluated(tmp_path / "other/eval", {"x": True})
    markdown = made(tmp_path)
    assert "points above dpo" in markdown
    assert "| b | ecqa | +30.0 [+9.1, +51.9] (n = 20) | 0.0312 | 0.0625 |" in markdown
    assert re.search(r"\| a \| ecqa \| \+15.0 \[.*\] \(n = 20\) \| 0.25 \| 0.25 \|", markdown)
    assert "| other | ecqa | other rows |  |  |" in markdown
    page = html_of(tmp_path)  # the line of no difference, and the interval from 9.1 to 51.9 on one scale
    assert re.search(
        r'<tr data-run="b">.*?<line class="zero" x1="[\d.]+" y1="0".*?<td>0.0312</td><td>0.0625</td>', page
    )
    assert "<td>other rows</td><td></td><td></td><td></td>" in page


def test_seeds(tmp_path: Path) -> None:
    """Of 20 rows dpo gets 10 with either seed; dpo_bmc gets 16 with seed 1 and 12 with seed 2, those 10 among them:
    (6 + 2)/2/20 = 20 points. Two seeds tell little: t with few degrees of freedom."""
    ten = {f"r{i}": i < 10 for i in range(20)}
    for seed, right in ((1, 16), (2, 12)):
        evaluated(tmp_path / f"dpo/seed_{seed}/eval", ten)
        evaluated(tmp_path / f"dpo_bmc/seed_{seed}/eval", {row: int(row[1:]) < right for row in ten})
    found = {"ecqa": {"mean": 0.5, "sd": 0.02, "accuracies": [0.48, 0.5, 0.52], "n": 100}}
    write(tmp_path / "dpo/seeds.json", {"seeds": [1, 2, 3], "results": found})
    evaluated(tmp_path / "dpo-sweep/beta=0.1/eval", {"v": True})
    write(tmp_path / "dpo-sweep/sweep.json", {})  # whose points are no runs
    markdown = made(tmp_path)
    (line,) = [line for line in markdown.splitlines() if line.startswith("| dpo_bmc | ecqa |")]
    assert re.match(r"\| dpo_bmc \| ecqa \| \+20.0 \[.*\] \(n = 20, 2 against 2 seeds\) \|", line)
    assert float(line.split("|")[-3]) > 0.05
    assert "| dpo_bmc/seed_2 | 60.0 [" in markdown
    assert "| dpo | 50.0 ± 2.0 [45.0, 55.0] (3 seeds, n = 100) |" in markdown
    assert "sweep" not in markdown.split("## Stages")[0]


# The page


def test_scores_have_intervals_and_marks(tmp_path: Path) -> None:
    """35 to 65 is the whole scale, from 4 to 96: 40 lies at 4 + 92 × 5/30."""
    write(tmp_path / "a/eval/metrics.json", {"results": {"ecqa": result(60, 100, (0.55, 0.65))}})
    write(tmp_path / "b/eval/metrics.json", {"results": {"ecqa": result(40, 100, (0.35, 0.45))}})
    write(tmp_path / "c/metrics.json", {"rows": 3})
    page = html_of(tmp_path)
    assert '<b>60.0</b><span class="mark">best</span><br><small>55.0 to 65.0</small>' in page
    assert "ecqa<br><small>n = 100</small>" in page
    assert '<th scope="row">c</th><td><span class="none">not run</span></td>' in page
    assert '<line x1="4.0" y1="4" x2="34.7" y2="4"/><circle cx="19.3"' in page


def test_the_policy_allows_the_pages_own_scripts_and_no_others(tmp_path: Path) -> None:
    evaluated(tmp_path / "dpo/eval", {"r": True})
    made(tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)

    def sources(tag: str) -> str:
        digests = [
            hashlib.sha256(text.encode()).digest() for text in re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        ]
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

    rules = dict(rule.split(" ", 1) for rule in html.unescape(policy).split("; "))
    none = dict.fromkeys(["default-src", "connect-src", "base-uri", "form-action"], "'none'")
    assert rules == none | {"style-src": sources("style"), "script-src": sources("script"), "img-src": "data:"}


@given(st.lists(st.text(max_size=30), max_size=4))
@pytest.mark.slow
def test_data_cannot_end_their_element(texts: list[str]) -> None:
    inside = data("d", texts).removeprefix('<script type="application/json" id="d">').removesuffix("</script>")
    assert not set(inside) & set("<>&\u2028\u2029")
    assert [json.loads(line) for line in inside.split("\n") if line] == texts
    assert '"\\ud800"' in data("d", ["\ud800"])  # half a surrogate pair


def test_training_curves() -> None:
    """What was logged, without what is no number; a table of it; no line of SFT beside preference training."""
    history = [
        {"step": 1, "loss": 0.7, "learning_rate": 1e-6},
        {"step": 2, "loss": float("nan"), "grad_norm": float("inf"), "k3/chosen": 0.5},
        {"loss": 3.0}, {"step": 3, "loss": "0.1"}, "torn",
    ]  # fmt: skip
    sft = {"log_history": history}
    assert logged_metrics(sft) == {"loss": [(1, 0.7)], "k3/chosen": [(2, 0.5)]}
    assert logged_metrics({}) == logged_metrics({"log_history": 3}) == {}
    dpo = {"log_history": [{"step": 10, "rewards/margins": 0.123456}, {"step": 20, "loss": 1.0}]}
    found = curves({"dpo": dpo, "sft": sft, "b": {"log_history": [{"step": 20, "rewards/margins": 1}]}})
    assert found["runs"] == ["dpo", "b"]
    assert [panel["title"] for panel in found["panels"]] == ["Loss", "Reward margin"]
    assert found["panels"][1]["rows"] == [["10", "0.1235", ""], ["20", "", "1"]]
    assert found["drawn"]["panels"][1]["lines"] == [(0, [(10, 0.123456)]), (1, [(20, 1)])]
    assert curves({"sft": sft})["runs"] == ["sft"]
    assert curves({"none": {}})["panels"] == []


FILES = {"svg": "figures/f.svg", "csv": "figures/f.csv"}


def test_figures_stand_in_the_page_with_their_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    figures = [
        {"name": "f", "title": "Figure 2", "caption": "of <n>", **FILES},
        {"name": "g", "csv": "x"},
        {"name": "h"},
    ]
    missing = [{"name": "i<", "why": "no run.", "command": "make figure5"}, {"name": "j", "why": "w"}]
    write(tmp_path / "analysis.json", {"figures": [*figures, {"name": "k", "svg": "none.svg"}], "missing": missing})
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/f.svg").write_text("<svg/>")
    (tmp_path / "figures/f.csv").write_text('what,value\n"first, <b>",1\nlater,2\n')
    page = html_of(tmp_path)
    assert f'src="data:image/svg+xml;base64,{base64.b64encode(b"<svg/>").decode()}"' in page
    assert 'alt="Figure 2. of &lt;n&gt;"' in page
    assert '<th scope="row">first, &lt;b&gt;</th><td>1</td>' in page
    assert '<a download="f.csv" href="data:text/csv;base64,' in page
    assert "<li><b>i&lt;</b>: no run. Make it with<code>make figure5</code></li><li><b>j</b>: w</li>" in page
    where = tmp_path / "analysis.json"
    assert caplog.messages == [
        f"{where}: g: isn't shown, it has no 'png'; analyze again",
        f"{where}: h: isn't shown, it has no 'png'; analyze again",
        f"{where}: k: isn't shown, {tmp_path}/none.svg can't be read; analyze again",
    ]


@pytest.mark.parametrize("mode", ["targeted", "degrade"])
@pytest.mark.slow
def test_the_report_shows_what_the_bridging_page_shows(mode: Any, tmp_path: Path) -> None:
    statistics, rows = Statistics(mode), []
    for number in range(3 * EXAMPLES):
        row = {"id": f"r{number}", "prompt": "x", "chosen": f"right {number}", "rejected": f"wrong {number}"}
        rows.append(bridged_pair(row, f"edit {number}" if number % 2 else None, mode))
        statistics.add(row, rows[-1])
    assert examples_of(rows, mode) == statistics.examples
    write(tmp_path / "bridge/stats.json", statistics.summary())
    write_rows(tmp_path / "bridge/train.jsonl", [dict(row) for row in rows])
    evaluated(tmp_path / "dpo/eval", {"r": True})
    page = html_of(tmp_path)
    theirs = write_page(tmp_path / "bridge", statistics.summary(), statistics.examples).read_text()
    theirs = re.sub(r">\s+|\s+(?=<)", lambda found: found[0].strip(), theirs)
    for tag in ("figure", "table", "details open"):
        found = re.findall(f"<{tag}>.*?</{tag.split()[0]}>", theirs)
        assert found
        assert all(part in page for part in found)


RECORD: dict[str, Any] = {
    "command": "scripts/evaluate.py <e>.yaml", "recipe": {"beta": 0.05, "note": "<b>"}, "seed": 42,
    "git": {"commit": "0123456789abcdef", "dirty": True}, "data": [{"file": "t.jsonl", "sha256": "fedcba9876543210"}],
    "versions": {"torch": "2.13.0", "vllm": None}, "started": "2026-11-25T10:00:00+00:00", "model": {"name": "m"},
}  # fmt: skip


def test_provenance(tmp_path: Path) -> None:
    for run, record in (
        ("a <1>", RECORD),
        ("c", {"git": None, "data": [3], "recipe": None, "model": 1, "versions": []}),
    ):
        evaluated(tmp_path / run, {"r": True})
        write(tmp_path / run / "provenance.json", record)
    evaluated(tmp_path / "b", {"r": True})
    (tmp_path / "b/provenance.json").unlink()
    page = html.unescape(html_of(tmp_path))
    assert "a <1>: evaluation<small>commit 0123456 and changes, data fedcba9, 2026-11-25</small>" in page
    assert "scripts/evaluate.py <e>.yaml" in page
    assert "0123456789abcdef, with changes that weren't committed" in page
    assert "SHA-256 fedcba9876543210" in page
    assert "beta: 0.05\nnote: <b>" in page
    assert "b: evaluation<small>no record</small></summary><p>There is no provenance" in page
    assert "vllm" not in page


# Predictions and tokens


def test_rows_that_the_page_leaves_out_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 10)
    evaluated(tmp_path, {f"r{n}": True for n in range(16)})
    notices: list[str] = []
    assert predictions_data({"dpo": tmp_path / "predictions.jsonl"}, notices)
    assert notices == ["the browser of predictions holds the first 10 rows; 6 predictions are left out"]
    assert predictions_data({"dpo": tmp_path / "none.jsonl"}, notices) == ""


def test_dpo_and_dpo_bmc_are_shown_first(subtests: pytest.Subtests) -> None:
    for runs, shown in [
        (["dpo", "dpo_bc", "dpo_bmc"], ["dpo", "dpo_bmc"]),
        (["dpo_bmc", "sft", "x/dpo"], ["x/dpo", "dpo_bmc"]),
        (["a", "dpo_bmc", "b"], ["dpo_bmc", "a"]),
        (["only"], ["only"]),
    ]:
        with subtests.test(runs=runs):
            assert runs_shown_first(runs) == shown


def block(markup: str, name: str) -> list[Any]:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', markup, re.DOTALL)
    assert found
    return [json.loads(line) for line in found[1].split("\n")]


def row(name: str, words: list[str], rewards: list[float], weight: float) -> dict[str, Any]:
    chosen = side(words, rewards, [weight] * len(words), [True, False][: len(words)])
    return {"id": name, "prompt": "x", "chosen": chosen, "rejected": side(["c"], [-0.00004], [1.0], [False])}


def test_pairs_stand_once_and_numbers_for_each_run(tmp_path: Path) -> None:
    write_rows(tmp_path / "dpo.jsonl", [row("1", ["a", " b"], [0.12345, -0.5], 1.0), row("2", ["a"], [0.1], 1.0)])
    write_rows(tmp_path / "dpo_bmc.jsonl", [row("1", ["a", " b"], [0.2, -1.0], 2.5)])
    write_rows(tmp_path / "own.jsonl", [row("1", ["a b"], [0.3], 1.0)])
    notices: list[str] = []
    markup = token_data({name: tmp_path / f"{name}.jsonl" for name in ("dpo", "dpo_bmc", "own")}, notices)
    assert notices == []
    first, second = block(markup, "pairs")
    texts = {"chosen": {"tokens": ["a", " b"], "differs": "10"}, "rejected": {"tokens": ["c"], "differs": "0"}}
    assert first == {"id": "1", "prompt": "x", **texts}
    assert second["id"] == "2"
    # ten-thousandths; without weights where every λ is 1; the sum is −0.37655 before rounding
    rejected = {"rewards": [0], "probabilities": [5000], "reward": 0}
    numbers = {"rewards": [1234, -5000], "probabilities": [5000, 2500], "reward": -3766}
    assert block(markup, "run-0")[0] == {"chosen": numbers, "rejected": rejected}
    weighed = {"rewards": [2000, -10000], "probabilities": [5000, 2500], "weights": [25000, 25000], "reward": -8000}
    assert block(markup, "run-1") == [{"chosen": weighed, "rejected": rejected}, None]
    own = block(markup, "run-2")[0]  # its tokens are others
    assert (own["texts"]["chosen"], own["chosen"]["rewards"]) == ({"tokens": ["a b"], "differs": "1"}, [3000])
    (head,) = block(markup, "viewer")
    assert (head["runs"], head["shown"], head["unit"]) == (["dpo", "dpo_bmc", "own"], ["dpo", "dpo_bmc"], 10_000)


def test_the_scale_leaves_out_the_extremes() -> None:
    """Of 1, 2, …, 100 the 99th percentile is 99.01; one outlier changes next to nothing."""
    rewards = [sign * reward for reward, sign in zip(range(1, 101), [1, -1] * 50, strict=True)]
    found = {"run": {"1": {"chosen": {"rewards": rewards[:40]}, "rejected": {"rewards": rewards[40:]}}}}
    assert color_scale(found) == 99
    rewards[99] = -1_000_000
    assert color_scale({"run": {"1": {"chosen": {"rewards": rewards}, "rejected": {"rewards": []}}}}) < 11_000
    assert color_scale({"run": {"1": {"chosen": {"rewards": []}, "rejected": {"rewards": [0]}}}}) == 1


def test_damaged_and_left_out_pairs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = [
        '{"id": "2", "prompt": "x", "chos', "[]", "",
        json.dumps(row("2", ["a", "b"], [0.1], 1.0)),  # fewer rewards than tokens
        json.dumps(row("2", ["a"], [float("nan")], 1.0)),
        json.dumps({**row("2", ["a"], [0.1], 1.0), "rejected": {}}),
    ]  # fmt: skip
    path, notices = tmp_path / "dpo.jsonl", list[str]()
    path.write_text("\n".join([json.dumps(row("1", ["a"], [0.1], 1.0)), *bad]) + "\n")
    assert len(block(token_data({"dpo": path}, notices), "pairs")) == 1
    assert notices == [f"{path}: row 2 (and 5 more): is no pair with its tokens' numbers; analyze again"]
    monkeypatch.setattr(module, "MAX_PAIRS", 2)
    for name in ("a", "b"):
        write_rows(tmp_path / f"{name}.jsonl", [row(str(n), ["a"], [0.1], 1.0) for n in range(3)])
    markup = token_data({name: tmp_path / f"{name}.jsonl" for name in ("a", "b")}, notices)
    assert len(block(markup, "pairs")) == len(block(markup, "run-1")) == 2
    assert notices[-1] == "the token viewer holds the first 2 of 3 pairs"
    assert token_data({"none": tmp_path / "none.jsonl"}, notices) == ""
    assert "none.jsonl: can't be read" in notices[-1]


# Damage: a report, or a fault of one line, whatever stands in the files

RESPONSE = side(["a"], [0.1], [1.0], [True])
WHOLE: dict[str, Any] = {
    "dpo/eval/metrics.json": {"n": 1, "results": {"ecqa": result(1, 1) | {"accuracy_released": 1.0}}, "seconds": 1.0},
    "dpo/eval/predictions.jsonl": {"id": "r", "source": "ecqa", "correct": True},
    "dpo/eval/provenance.json": {
        "recipe": {"dataset_mixture": {"datasets": [{"id": "t"}]}, "chat_template": "t"}, "data": [{"sha256": "a"}],
        "git": {"commit": "c"}, "versions": {"torch": "2"},
    },
    "dpo/eval/judge_results.json": {
        "benchmark": "arena_hard", "win_rate": 1.0, "interval": [0.0, 2.0], "n": 3, "judge": "j",
    },
    "dpo/eval/lm_eval.json": {"tasks": {"gsm8k": {"metric": "m", "value": 0.5, "stderr": 0.1, "n": 3}}},
    "dpo/trainer_state.json": {"log_history": [{"step": 1, "loss": 0.5}]},
    "dpo/metrics.json": {"rows": 3, "seconds": 2.0},
    "dpo/seeds.json": {"results": {"ecqa": {"mean": 0.5, "sd": None, "accuracies": [0.5], "n": 3}}},
    "bridge/stats.json": Statistics("targeted").summary(),
    "bridge/train.jsonl": {
        "id": "1", "bridged": True, "prompt": "x", "chosen": "a", "rejected": "b", "original_chosen": "c",
    },
    "analysis/analysis.json": {
        "figures": [{"name": "f", "title": "t", "svg": "f.svg"}],
        "missing": [{"name": "g", "why": "w", "command": "c"}],
    },
    "analysis/tokens/dpo.jsonl": {"id": "1", "prompt": "x", "chosen": RESPONSE, "rejected": RESPONSE},
}  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.sampled_from(["", "x", "<b>", "\ud800", "a/b"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["n", "x", "name"]), inner, max_size=2),
    max_leaves=3,
)


@st.composite
def damaged(draw: Any, value: Any) -> Any:
    """The value with one thing in it, at whatever depth, gone or something else."""
    if isinstance(value, dict | list) and value and draw(st.integers(0, 3)):
        place = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
        copy = value.copy()
        if draw(st.integers(0, 4)):
            copy[place] = draw(damaged(value[place]))
        else:
            del copy[place]
        return copy
    return draw(VALUES)


def write_whole(root: Path) -> None:
    for file, value in WHOLE.items():
        write_rows(root / file, [value]) if file.endswith(".jsonl") else write(root / file, value)


def outcome(root: Path) -> UserErrors | None:
    try:
        made(root)
    except UserErrors as faults:
        return faults
    return None


@given(name=st.sampled_from(sorted(WHOLE)), found=st.data(), cut=st.integers(0, 30))
@settings(max_examples=30, deadline=None)
@pytest.mark.slow
def test_no_damage_crashes_the_report(name: str, found: Any, cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        evaluated(root / "sft/eval", {"r": False})
        write_whole(root)
        text = json.dumps(found.draw(damaged(WHOLE[name])))
        (root / name).write_text(text if cut else text[: len(text) // 2])
        logging.disable()  # what is captured may hold half a surrogate pair, which pytest-xdist can't send
        try:
            faults = outcome(root)
        finally:
            logging.disable(logging.NOTSET)
        if faults:
            assert folder in str(faults)
            assert all(len(str(fault).splitlines()) == 1 for fault in faults.faults)
            assert not (root / "report.html").exists()
        else:
            assert (root / "report.html").read_text(encoding="utf-8").endswith("</html>\n")


def test_all_of_it_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_whole(tmp_path)
    (tmp_path / "analysis/f.svg").write_text("<svg/>")
    made(tmp_path)
    assert caplog.messages == []


def test_what_is_damaged_beside_the_scores_is_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluated(tmp_path / "dpo/eval", {"r": True})
    for name in ("trainer_state.json", "seeds.json"):
        (tmp_path / "dpo" / name).write_text('{"results": {"ecqa"')
    (tmp_path / "dpo/eval/provenance.json").write_text("[]")
    write(tmp_path / "bridge/stats.json", {"kept": 3, "rows": 4})
    write(tmp_path / "analysis/analysis.json", {"figures": [{"name": "f", "svg": "none.svg"}, 3, {}], "missing": "x"})
    assert "| dpo | 100.0 [" in made(tmp_path)
    for name in ("trainer_state.json", "seeds.json", "bridge", "none.svg"):
        assert name in "\n".join(caplog.messages), name
