"""The table over all runs below a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bmc.analysis.report import report
from bmc.config import ReportConfig
from bmc.errors import Faults


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def result(correct: int, n: int) -> dict[str, Any]:
    return {"n": n, "correct": correct, "accuracy": correct / n, "interval": [0.2, 0.8]}


def test_table(tmp_path: Path) -> None:
    write(tmp_path / "dpo/metrics.json", {"rows": 64, "seconds": 90.2})
    write(tmp_path / "bridge/stats.json", {"rows": 9, "kept": 6, "bridged": 5, "dropped": 3, "seconds": 1.0})
    two = {"ecqa": result(5, 10), "qasc": result(3, 4)}  # the average: 62.5 − √(30² + 55²)/2, 62.5 + √(30² + 5²)/2
    write(tmp_path / "dpo/eval/metrics.json", {"n": 14, "results": two, "average": 0.625, "seconds": 9})
    write(tmp_path / "<sft>/eval/metrics.json", {"n": 10, "results": {"ecqa": result(4, 10)}, "seconds": 8})
    markdown = report(ReportConfig(runs=str(tmp_path)))
    assert "| run | ecqa | qasc | average |" in markdown
    assert "| dpo | 50.0 [20.0, 80.0] (n = 10) | 75.0 [20.0, 80.0] (n = 4) | 62.5 [31.2, 77.7] (n = 14) |" in markdown
    assert "| <sft> | 40.0 [20.0, 80.0] (n = 10) | not run | – |" in markdown
    assert "| bridge | 1 s | 6 of 9 pairs kept (5 bridged), 3 dropped |" in markdown
    assert "| dpo | 90 s | a model, from 64 rows |" in markdown
    assert markdown in (tmp_path / "report.md").read_text()
    page = (tmp_path / "report.html").read_text()
    assert '<th scope="row">&lt;sft&gt;</th>' in page
    assert "<sft>" not in page


def test_a_folder_without_runs(tmp_path: Path) -> None:
    write(tmp_path / "prepare/stats.json", {"train": 1, "leaked": 0})
    with pytest.raises(Faults, match="holds no run; train one"):
        report(ReportConfig(runs=str(tmp_path)))
    assert not (tmp_path / "report.md").exists()


def test_a_run_without_metrics_is_named_as_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "dpo/metrics.json", {"train_loss": 0.5})
    assert "## Scores" not in report(ReportConfig(runs=str(tmp_path)))
    (said,) = caplog.messages
    assert said == (
        "dpo: trained and not evaluated; run scripts/evaluate.py RECIPE --model_name_or_path MODEL "
        "--output_dir MODEL/eval"
    )
    assert f"- {said}" in (tmp_path / "report.md").read_text()
    page = (tmp_path / "report.html").read_text()
    assert f"<li>{said}</li>" in page
    evaluated(tmp_path / "sft/eval", {"r": True})
    assert "| dpo | not run |" in report(ReportConfig(runs=str(tmp_path)))
    assert '<th scope="row">dpo</th><td><span class="none">not run</span>' in (tmp_path / "report.html").read_text()


def test_judgements_that_cannot_be_read_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    judged = {"benchmark": "mine", "judge": "j", "n": 7, "win_rate": 50.0, "interval": [20.0, 80.0]}
    write(tmp_path / "dpo/eval/mine/judged.json", judged | {"unreadable": 3})
    write(tmp_path / "sft/eval/mine/judged.json", judged | {"unreadable": 0})
    markdown = report(ReportConfig(runs=str(tmp_path)))
    assert "| run | mine WR |" in markdown
    assert caplog.messages == ["dpo/eval/mine: mine: 3 of the verdicts can't be read; they are not scored"]
    write(tmp_path / "dpo/eval/mine/judged.json", judged | {"unreadable": 15, "verdicts": 220, "rows": 110})
    report(ReportConfig(runs=str(tmp_path)))
    assert caplog.messages[-1] == (
        "dpo/eval/mine: mine: 15 of 220 verdicts can't be read, so 103 of 110 rows (93.6 %) are not scored: the win "
        "rate is that of the others"
    )


def test_two_runs_of_one_name(tmp_path: Path) -> None:
    evaluated(tmp_path / "dpo", {"r": True})
    evaluated(tmp_path / "dpo/eval", {"r": True})
    with pytest.raises(Faults) as caught:
        report(ReportConfig(runs=str(tmp_path)))
    paths = f"{tmp_path}/dpo/eval/metrics.json and {tmp_path}/dpo/metrics.json"
    assert str(caught.value) == f"{tmp_path}: two runs are called dpo: {paths}; move or remove one of them"


def test_what_is_damaged_beside_the_scores_is_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluated(tmp_path / "dpo/eval", {"r": True})
    damaged = ["trainer_state.json", "seeds.json"]
    for name in damaged:
        (tmp_path / "dpo" / name).write_text('{"results": {"ecqa"')
    (tmp_path / "dpo/eval/provenance.json").write_text("[]")
    write(tmp_path / "bridge/stats.json", {"kept": 3, "rows": 4})
    analysis = {"figures": [{"name": "f", "svg": "none.svg"}, 3, {}], "missing": "x"}
    write(tmp_path / "analysis/analysis.json", analysis)
    (tmp_path / "analysis/tokens").mkdir()
    (tmp_path / "analysis/tokens/dpo.jsonl").write_text('{"id": "1", "prompt"\n[]\n\n')
    assert "| dpo | 100.0 [" in report(ReportConfig(runs=str(tmp_path)))
    said = "\n".join(caplog.messages)
    for name in [*damaged, "bridge", "none.svg", "tokens/dpo.jsonl: row 1 (and 2 more): is no pair"]:
        assert name in said, name
    assert "Mind this" in (tmp_path / "report.html").read_text()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(Faults, match=r"metrics\.json: is not JSON"):
        report(ReportConfig(runs=str(tmp_path)))


def evaluated(folder: Path, hits: dict[str, bool]) -> None:
    write(folder / "metrics.json", {"n": len(hits), "results": {"ecqa": result(sum(hits.values()), len(hits))}})
    rows = [{"id": row, "source": "ecqa", "correct": hit} for row, hit in hits.items()]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_differences_are_row_by_row(tmp_path: Path) -> None:
    """dpo_bmc is right on six rows that dpo gets wrong, and never the reverse: p = 2/2⁶."""
    theirs = {f"r{i}": i < 10 for i in range(20)}
    evaluated(tmp_path / "dpo/eval", theirs)
    evaluated(tmp_path / "dpo_bmc/eval", {row: hit or int(row[1:]) < 16 for row, hit in theirs.items()})
    evaluated(tmp_path / "other/eval", {"x": True})
    markdown = report(ReportConfig(runs=str(tmp_path)))
    assert "points above dpo" in markdown
    assert "| dpo_bmc | ecqa | +30.0 [+9.1, +51.9] (n = 20) | 0.0312 | 0.0312 |" in markdown
    assert "| other | ecqa | other rows |  |  |" in markdown


def test_p_values_are_adjusted_for_all_comparisons(tmp_path: Path) -> None:
    """Six better rows and none worse: p = 2/2⁶; three: 2/2³. Holm: 2 · 2/2⁶, and 2/2³."""
    theirs = {f"r{i}": i < 10 for i in range(20)}
    for run, right in (("dpo", 10), ("a", 13), ("b", 16)):
        evaluated(tmp_path / run / "eval", {row: int(row[1:]) < right for row in theirs})
    lines = report(ReportConfig(runs=str(tmp_path))).splitlines()
    assert [line.split("| ")[-2:] for line in lines if "(n = 20)" in line and " ecqa " in line] == [
        ["0.25 ", "0.25 |"],
        ["0.0312 ", "0.0625 |"],
    ]


def test_seeds_are_compared_by_the_means_of_rows(tmp_path: Path) -> None:
    """Of 20 rows dpo gets 10 with either seed; dpo_bmc gets 16 with seed 1 and 12 with seed 2, those 10 among them:
    (6 + 2)/2/20 = 20 points. Two seeds tell little: t with few degrees of freedom."""
    ten = {f"r{i}": i < 10 for i in range(20)}
    for seed, right in ((1, 16), (2, 12)):
        evaluated(tmp_path / f"dpo/seed_{seed}/eval", ten)
        evaluated(tmp_path / f"dpo_bmc/seed_{seed}/eval", {row: int(row[1:]) < right for row in ten})
    markdown = report(ReportConfig(runs=str(tmp_path)))
    (line,) = [line for line in markdown.splitlines() if line.startswith("| dpo_bmc | ecqa |")]
    assert line.startswith("| dpo_bmc | ecqa | +20.0 [")
    assert "] (n = 20, 2 against 2 seeds) |" in line
    assert float(line.split("|")[-3]) > 0.05
    assert "| dpo_bmc/seed_2 | 60.0 [" in markdown


def test_seeds_have_a_mean_and_a_deviation(tmp_path: Path) -> None:
    evaluated(tmp_path / "dpo/seed_1/eval", {"r": True})
    found = {"ecqa": {"mean": 0.5, "sd": 0.02, "accuracies": [0.48, 0.5, 0.52], "n": 100}}
    write(tmp_path / "dpo/seeds.json", {"seeds": [1, 2, 3], "results": found})
    markdown = report(ReportConfig(runs=str(tmp_path)))
    assert "## Seeds" in markdown
    assert "| dpo | 50.0 ± 2.0 [45.0, 55.0] (3 seeds, n = 100) |" in markdown


def test_the_points_of_a_sweep_are_no_runs(tmp_path: Path) -> None:
    evaluated(tmp_path / "dpo/eval", {"r": True})
    evaluated(tmp_path / "dpo-sweep/beta=0.1/eval", {"v": True})
    write(tmp_path / "dpo-sweep/sweep.json", {})
    assert "sweep" not in report(ReportConfig(runs=str(tmp_path))).split("## Stages")[0]


def test_a_damaged_prediction_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        evaluated(tmp_path / name, {"r": True})
    (tmp_path / "b/predictions.jsonl").write_text('{"id": "r", "source": "ecqa", "correct": true}\n{}\n')
    with pytest.raises(Faults, match=r"b/predictions\.jsonl: row 2: is no prediction"):
        report(ReportConfig(runs=str(tmp_path)))
