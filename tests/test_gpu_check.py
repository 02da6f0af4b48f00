"""The checks of a GPU, with tiny sizes on a CPU: that they run, and that a crash costs one line."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import gpu_check

pytestmark = pytest.mark.slow


SKIPPED = {"qlora", "liger"}  # of a dry run
# Processes of their own, for minutes: training/test_distributed.py and test_checkpoints.py show the same.
OF_PROCESSES = {"zero2", "zero3", "fsdp2", "status_75", "against_trl"}


def test_all_checks_run_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [name for name in gpu_check.CHECKS if name not in OF_PROCESSES]
    assert gpu_check.main(["--dry_run", "--out", str(tmp_path), "--only", *names]) == 0
    lines = {line["name"]: line for line in json.loads((tmp_path / "gpu_check.json").read_text())["checks"]}
    assert {name: line["verdict"] for name, line in lines.items()} == {
        name: "SKIP" if name in SKIPPED else "PASS" for name in names
    }
    printed = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [parts[0] for parts in printed if parts[-1] in ("PASS", "SKIP")] == names


def test_a_crash_costs_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(setup: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access\nwas encountered")

    monkeypatch.setitem(gpu_check.CHECKS, "kernel", broken)
    monkeypatch.setitem(gpu_check.CHECKS, "head", lambda setup: ("3", "≤ 2", False))
    names = ["kernel", "head", "gradients", "qlora"]
    lines = list(gpu_check.run_checks(gpu_check.Setup(torch.device("cpu"), True, Path("none")), names, 600))
    assert [(line["name"], line["verdict"]) for line in lines] == list(
        zip(names, ["FAIL", "FAIL", "PASS", "SKIP"], strict=True)
    )
    assert lines[0]["value"] == "RuntimeError: CUDA error: an illegal memory access was encountered"
    on_a_gpu = gpu_check.run_checks(gpu_check.Setup(torch.device("cuda"), True, Path("none")), names, 600)
    assert next(on_a_gpu)["verdict"] == "FAIL"
    with pytest.raises(SystemExit, match="3"):  # the context may be unusable: the rest run in a new process
        next(on_a_gpu)


WORKER = """
import json, os, signal, sys, time
for name in sys.argv[sys.argv.index("--only") + 1 : sys.argv.index("--seconds")]:
    if name == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "hang":
        time.sleep(600)
    while name == "endless":  # a training that logs
        print("{'loss': 0.69}", flush=True)
        time.sleep(0.2)
    print("a library's own line")
    print(json.dumps({"name": name, "verdict": "PASS", "value": str(os.getpid()), "bar": ""}), flush=True)
    if name == "again":
        sys.exit(3)
"""


def test_a_hard_crash_and_a_hang_cost_one_line_each() -> None:
    names = ["first", "segfault", "second", "hang", "endless", "again", "third"]
    lines = {line["name"]: line for line in gpu_check.run_workers([sys.executable, "-c", WORKER], names, 100, limit=3)}
    assert list(lines) == names
    assert {name for name, line in lines.items() if line["verdict"] == "FAIL"} == {"segfault", "hang", "endless"}
    assert lines["segfault"]["value"] == "the process ended with status -11"
    assert lines["hang"]["value"] == lines["endless"]["value"] == "the process hung, or was killed"
    assert lines["again"]["value"] != lines["third"]["value"]  # process ids


def test_no_check_starts_when_the_time_is_over() -> None:
    setup = gpu_check.Setup(torch.device("cpu"), True, Path("none"))
    lines = list(gpu_check.run_checks(setup, ["kernel", "gradients"], -1))
    lines += gpu_check.run_workers([sys.executable, "-c", WORKER], ["first", "second"], -1, limit=3)
    assert [(line["verdict"], line["value"]) for line in lines] == [("SKIP", "no time was left")] * 4


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main([]) == 2
    assert "no GPU here" in capsys.readouterr().err


def test_a_step_beside_trls_runs_with_tiny_sizes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import train_step

    def peak(options: Any, name: str) -> int:
        return 0 if "Liger" in name else train_step.measure_card_peak(options, name)  # not in a process of its own

    monkeypatch.setattr(train_step, "PAIRS", {"qa": train_step.PAIRS["qa"]})
    monkeypatch.setattr(train_step, "card_peak", peak)
    train_step.main(["--only", "cards", "--dims", "tiny", "--rounds", "1"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    found = {row[0].removeprefix("| "): (row[2], row[3]) for row in rows}
    for peer in ("TRL", "TRL, precomputed"):
        assert float(found[f"qa: our pairs a second over {peer}'s"][0].split()[0]) > 0
    assert "flash_pref isn't installed" in found["qa: our pairs a second over flash-pref's"][1]
    assert found["tallest tensor × vocabulary, in tokens"][0] == "128"  # a tile of the head
    assert float(found["pairs of 2 × 2,048: peak memory over TRL's"][0]) > 0
