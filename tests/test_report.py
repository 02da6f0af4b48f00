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
    two = {"ecqa": result(5, 10), "qasc": result(3, 4)}
    write(tmp_path / "dpo/eval/metrics.json", {"n": 14, "results": two, "average": 0.625, "seconds": 9})
    write(tmp_path / "<sft>/eval/metrics.json", {"n": 10, "results": {"ecqa": result(4, 10)}, "seconds": 8})
    markdown = report(ReportConfig(runs=str(tmp_path)))
    assert "| run | ecqa | qasc | average |" in markdown
    assert "| dpo | 50.0 [20.0, 80.0] (n = 10) | 75.0 [20.0, 80.0] (n = 4) | 62.5 |" in markdown
    assert "| <sft> | 40.0 [20.0, 80.0] (n = 10) | not run | – |" in markdown
    assert "| bridge | 1 s | 6 of 9 pairs kept (5 bridged), 3 dropped |" in markdown
    assert "| dpo | 90 s | a model, from 64 rows |" in markdown
    assert markdown in (tmp_path / "report.md").read_text()
    page = (tmp_path / "report.html").read_text()
    assert "<td>&lt;sft&gt;</td>" in page
    assert "<sft>" not in page


def test_a_folder_without_evaluated_runs(tmp_path: Path) -> None:
    write(tmp_path / "dpo/metrics.json", {"train_loss": 0.5})
    with pytest.raises(Faults, match="holds no evaluated run"):
        report(ReportConfig(runs=str(tmp_path)))
    assert not (tmp_path / "report.md").exists()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(Faults, match=r"metrics\.json: is not JSON"):
        report(ReportConfig(runs=str(tmp_path)))
