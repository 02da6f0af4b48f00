"""Real processes that share the rows of sampling and evaluation write what one would."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bmc.generation import generate as generation
from bmc.generation.generate import PARTIAL

ROOT = Path(__file__).parents[2]
CPU = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "recipes/accelerate_configs/cpu.yaml")]


@pytest.fixture
def recipe(tmp_path: Path, model_dir: Path) -> dict[str, Any]:
    """Seven questions, some of them alike, answered by a sample each."""
    with (tmp_path / "rows.jsonl").open("w") as file:
        for n in range(7):
            text = f"What is {'1 + ' * (n % 4)}{n % 5}?"
            row = {"id": str(n), "prompt": text, "completion": f"It is {n}.", "answer": str(n), "task": "math"}
            print(json.dumps(row), file=file)
    return {
        "model_name_or_path": str(model_dir), "dtype": "float32", "max_new_tokens": 9, "batch_size": 3,
        "temperature": 1.0, "dataset_mixture": {"datasets": [{"id": str(tmp_path / "rows.jsonl")}]},
    }  # fmt: skip


def run(folder: Path, name: str, launcher: list[str], script: Path, values: dict[str, Any], **environment: str) -> Any:
    """Runs a script on the recipe in processes of its own, its output in `folder / name`."""
    command = [sys.executable, *launcher, str(script), write(folder, name, values)]
    clean = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=clean)


def write(folder: Path, name: str, values: dict[str, Any]) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values | {"output_dir": str(folder / name)}))
    return str(path)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path, dict[str, Any]], None]:
    """Runs a script in this process."""

    def run(name: str, script: Path, values: dict[str, Any]) -> None:
        monkeypatch.setattr(sys, "argv", [str(script), write(tmp_path, name, values)])
        runpy.run_path(str(script), run_name="__main__")

    return run


@pytest.mark.slow
def test_two_processes_write_one_evaluation(recipe: dict[str, Any], tmp_path: Path, alone: Any) -> None:
    """Started by the stage itself; with what fsdp2.yaml sets, of which transformers takes notice."""
    script = ROOT / "scripts/evaluate.py"
    fsdp = {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
    done = run(tmp_path, "two", [], script, recipe | {"data_parallel_size": 2}, **fsdp)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Generating (process 1 of 2): 100%" in done.stderr
    assert done.stdout.count("accuracy") <= 1
    alone("one", script, recipe)
    one, two = (tmp_path / name for name in ("one", "two"))
    assert len((one / "predictions.jsonl").read_text().splitlines()) == 7
    assert (one / "predictions.jsonl").read_bytes() == (two / "predictions.jsonl").read_bytes()
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (one, two)]
    assert metrics[0] | {"seconds": 0} == metrics[1] | {"seconds": 0}
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())


MORTAL = """
import os, runpy, signal, time
from pathlib import Path
from bmc.generation import generate as generation

def backend(*given, real=generation.load_backend):
    complete = real(*given)

    def mortal(prompts, *rest):
        Path({noted!r}, f"asked.{{os.environ['RANK']}}").write_text(str(len(prompts)))
        for number, found in enumerate(complete(prompts, *rest)):
            if number == 2 and os.environ["RANK"] == "1":
                while not Path({noted!r}, "asked.0").exists():  # the launcher would end it before it has begun
                    time.sleep(0.05)
                os.kill(os.getpid(), signal.SIGKILL)
            yield found

    return mortal

generation.load_backend = backend
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.mark.slow
def test_a_process_that_is_killed_loses_no_finished_row(
    recipe: dict[str, Any], tmp_path: Path, alone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe | {"mode": "continue_prefix"}
    script = ROOT / "scripts/sample.py"
    alone("never", script, recipe)
    mortal = tmp_path / "mortal.py"
    mortal.write_text(MORTAL.format(noted=str(tmp_path), script=str(script)))
    assert run(tmp_path, "killed", CPU, mortal, recipe).returncode != 0
    folder = tmp_path / "killed"
    assert [(tmp_path / f"asked.{rank}").read_text() for rank in (0, 1)] == ["4", "3"]
    assert not (folder / "train.jsonl").exists()
    kept = [line for path in folder.glob(f"*{PARTIAL}") for line in path.read_text().splitlines()]
    assert len((folder / f"1.{PARTIAL}").read_text().splitlines()) == 2

    asked: list[int] = []
    real = generation.load_backend

    def backend(*given: Any) -> Any:
        complete = real(*given)
        return lambda prompts, *rest: (asked.append(len(prompts)), complete(prompts, *rest))[1]

    monkeypatch.setattr(generation, "load_backend", backend)
    alone("killed", script, recipe | {"batch_size": 2})
    assert sum(asked) == 7 - len(kept)
    for name in ("train.jsonl", "dropped.jsonl"):
        assert (folder / name).read_bytes() == (tmp_path / "never" / name).read_bytes()
    assert not [*folder.glob(f"*{PARTIAL}")]
