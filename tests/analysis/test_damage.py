"""Whatever stands in the files of a folder of runs: a report, or a fault of one line."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import evaluated, result, side, write, write_rows

from bmc.analysis.report import report
from bmc.bridging.statistics import Statistics
from bmc.config import ReportConfig
from bmc.errors import Faults

RESPONSE = side(["a"], [0.1], [1.0], [True])
WHOLE: dict[str, Any] = {
    "dpo/eval/metrics.json": {"n": 1, "results": {"ecqa": result(1, 1) | {"accuracy_released": 1.0}}, "seconds": 1.0},
    "dpo/eval/predictions.jsonl": {"id": "r", "source": "ecqa", "correct": True},
    "dpo/eval/provenance.json": {
        "recipe": {"dataset_mixture": {"datasets": [{"id": "t"}]}, "chat_template": "t"},
        "data": [{"sha256": "a"}],
        "git": {"commit": "c"},
        "versions": {"torch": "2"},
    },
    "dpo/eval/judged.json": {"benchmark": "arena_hard", "win_rate": 1.0, "interval": [0.0, 2.0], "n": 3, "judge": "j"},
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


def outcome(folder: str) -> Faults | None:
    try:
        report(ReportConfig(runs=folder))
    except Faults as faults:
        return faults
    return None


@given(name=st.sampled_from(sorted(WHOLE)), found=st.data(), cut=st.integers(0, 30))
@settings(max_examples=40, deadline=None)
def test_no_damage_crashes_the_report(name: str, found: Any, cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        evaluated(root / "sft/eval", {"r": False})
        for file, value in WHOLE.items():
            write_rows(root / file, [value]) if file.endswith(".jsonl") else write(root / file, value)
        text = json.dumps(found.draw(damaged(WHOLE[name])))
        (root / name).write_text(text if cut else text[: len(text) // 2])
        faults = outcome(folder)
        if faults:
            assert folder in str(faults)
            assert all(len(str(fault).splitlines()) == 1 for fault in faults.faults)
            assert not (root / "report.html").exists()
        else:
            page = (root / "report.html").read_text(encoding="utf-8")
            assert page.endswith("</html>\n")


def test_all_of_it_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for file, value in WHOLE.items():
        write_rows(tmp_path / file, [value]) if file.endswith(".jsonl") else write(tmp_path / file, value)
    (tmp_path / "analysis/f.svg").write_text("<svg/>")
    report(ReportConfig(runs=str(tmp_path)))
    assert caplog.messages == []
