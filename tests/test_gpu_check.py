"""The checks of a GPU, with tiny sizes on a CPU: that they run, and that a crash costs one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import gpu_check

pytestmark = pytest.mark.slow


@pytest.mark.slow
def test_all_checks_run_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--dry_run", "--out", str(tmp_path)]) == 0
    lines = {line["name"]: line for line in json.loads((tmp_path / "gpu_check.json").read_text())["checks"]}
    assert list(lines) == list(gpu_check.CHECKS)
    assert {name: line["verdict"] for name, line in lines.items()} == {
        name: "SKIP" if name == "qlora" else "PASS" for name in lines
    }
    printed = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [parts[0] for parts in printed if parts[-1] in ("PASS", "SKIP")] == list(lines)


def test_a_crash_costs_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(setup: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access\nwas encountered")

    monkeypatch.setitem(gpu_check.CHECKS, "kernel", broken)
    monkeypatch.setitem(gpu_check.CHECKS, "head", lambda setup: ("3", "≤ 2", False))
    names = ["kernel", "head", "gradients", "qlora"]
    assert gpu_check.main(["--dry_run", "--out", str(tmp_path), "--only", *names]) == 1
    checks = json.loads((tmp_path / "gpu_check.json").read_text())["checks"]
    assert [(line["name"], line["verdict"]) for line in checks] == list(
        zip(names, ["FAIL", "FAIL", "PASS", "SKIP"], strict=True)
    )
    assert checks[0]["value"] == "RuntimeError: CUDA error: an illegal memory access was encountered"


def test_no_check_starts_when_the_time_is_over() -> None:
    setup = gpu_check.Setup(torch.device("cpu"), True, Path("none"))
    lines = list(gpu_check.run_checks(setup, ["kernel", "gradients"], -1))
    assert [(line["verdict"], line["value"]) for line in lines] == [("SKIP", "no time was left")] * 2


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main([]) == 2
    assert "no GPU here" in capsys.readouterr().err
