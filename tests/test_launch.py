"""A job under Slurm: what is submitted, what each machine runs, and what happens to its exit status."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

ROOT = Path(__file__).parents[1]
RECIPE = "recipes/llama2-7b/qa/dpo_bmc.yaml"
# Stand-ins that write down how they were called, `|` between the words. `python` is called by the job itself.
FAKES = {
    "python": 'printf "%s|" python "$@" >> "$CALLS"; echo >> "$CALLS"\n'
    'case "$*" in *--dry_run*) exit "${PLAN_STATUS:-0}";; esac\nexit "${RANK_STATUS:-0}"',
    "sbatch": 'printf "%s|" sbatch "$@" >> "$CALLS"; echo >> "$CALLS"',
    "scontrol": 'if [ "$1" = requeue ]; then echo "requeue $2" >> "$CALLS"; else printf "node07\\nnode08\\n"; fi',
    # runs its command once on each machine, as srun does with a task a machine, and ends with the worst status
    "srun": 'machines=${SLURM_NNODES:-1}; worst=0\n'
    'while [ "${1#--}" != "$1" ]; do [ "$1" = --nodes=1 ] && machines=1; shift; done\n'
    'for ((i = 0; i < machines; i++)); do SLURM_NODEID=$i "$@" || worst=$?; done; exit $worst',
}  # fmt: skip


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    for name, text in FAKES.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "repo/recipes").mkdir(parents=True)
    for name in ("scripts", "recipes/launch.slurm"):  # without a .venv, whose python would come first
        (tmp_path / "repo" / name).symlink_to(ROOT / name)
    return tmp_path / "calls"


def launch(calls: Path, *arguments: str, **environment: str) -> tuple[int, list[str]]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "BMC", "NODES", "GPUS"))}
    path = f"{calls.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "recipes/launch.slurm", *arguments], cwd=calls.parent / "repo",
        env=clean | environment | {"PATH": path, "CALLS": str(calls)}, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, calls.read_text().splitlines() if calls.exists() else []


JOB = {
    "SLURM_JOB_ID": "123456", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_NODELIST": "node[07-08]"
}  # fmt: skip
PLAN = (
    f"python|scripts/preference.py|{RECIPE}|--beta|0.1|--accelerate_config|recipes/accelerate_configs/zero3.yaml|"
    "--num_processes|%d|--dry_run|"
)
RUN = (
    "python|-m|bmc.launch|--machine_rank|%d|--config_file|recipes/accelerate_configs/zero3.yaml|--num_machines|2|"
    f"--num_processes|8|--main_process_ip|node07|--main_process_port|23456|scripts/preference.py|{RECIPE}|--beta|0.1|"
)


def test_it_is_bash() -> None:
    assert subprocess.run(["bash", "-n", str(ROOT / "recipes/launch.slurm")]).returncode == 0


def test_on_the_login_node_the_recipe_is_checked_and_the_job_submitted(calls: Path) -> None:
    status, said = launch(calls, "preference", RECIPE, "--beta", "0.1", NODES="2", GPUS="8")
    submitted = f"sbatch|--nodes=2|--gpus-per-node=8|recipes/launch.slurm|preference|{RECIPE}|--beta|0.1|"
    assert (status, said) == (0, [PLAN % 16, submitted])


def test_a_recipe_at_fault_is_not_submitted(calls: Path) -> None:
    status, said = launch(calls, "preference", RECIPE, "--beta", "0.1", PLAN_STATUS="2")
    assert (status, said) == (2, [PLAN % 4])


def test_in_the_job_each_machine_launches_its_part(calls: Path) -> None:
    assert launch(calls, "preference", RECIPE, "--beta", "0.1", BMC_CHECKED="1", **JOB) == (0, [RUN % 0, RUN % 1])


def test_a_job_submitted_without_a_check_is_checked_first(calls: Path) -> None:
    _, said = launch(calls, "preference", RECIPE, "--beta", "0.1", **JOB)
    assert said == [PLAN % 8, RUN % 0, RUN % 1]


def test_arguments_with_spaces_stay_whole(calls: Path) -> None:
    _, said = launch(calls, "sft", "my recipe.yaml", "--run_name", "a b", BMC_CHECKED="1", **JOB)
    assert said[0].endswith("|scripts/sft.py|my recipe.yaml|--run_name|a b|")


def test_data_stages_are_one_process(calls: Path) -> None:
    status, said = launch(calls, "bridge", "b.yaml", "--limit", "3", BMC_CHECKED="1", **JOB)
    assert (status, said) == (0, ["python|scripts/bridge.py|b.yaml|--limit|3|"])


def test_the_signal_comes_early_enough_for_a_step_and_a_large_checkpoint() -> None:
    """110 GB (8 B parameters: 2 + 12 bytes each) in 600 s, and a step of two minutes."""
    lead = re.search(r"^#SBATCH --signal=TERM@(\d+)$", (ROOT / "recipes/launch.slurm").read_text(), re.MULTILINE)
    assert lead is not None
    assert int(lead[1]) >= 600 + 120


@pytest.mark.parametrize("stage", ["preference", "evaluate", "bridge"])
def test_a_preempted_job_is_queued_again_and_a_failed_one_is_not(calls: Path, stage: str) -> None:
    environment = JOB | {"BMC_CHECKED": "1"}
    status, said = launch(calls, stage, RECIPE, RANK_STATUS="75", **environment)
    assert (status, said[-1]) == (75, "requeue 123456")
    calls.unlink()
    status, said = launch(calls, stage, RECIPE, RANK_STATUS="1", **environment)
    assert status == 1
    assert not any("requeue" in line for line in said)


def test_usage(subtests: pytest.Subtests, calls: Path) -> None:
    for arguments in [(), ("preference",), ("prefrence", RECIPE)]:
        with subtests.test(arguments=arguments):
            assert launch(calls, *arguments) == (2, [])


RANK = """
import os, pathlib, signal, sys, time
def save(*_):
    time.sleep(1)
    sys.exit(75)
if sys.argv[1] == "train":
    signal.signal(signal.SIGTERM, save)
if sys.argv[1] in ("train", "starts"):
    pathlib.Path(sys.argv[2], os.environ.get("RANK", "0")).touch()
    time.sleep(120)
sys.exit(int(sys.argv[1]) if os.environ.get("RANK", "0") == "1" else 0)
"""


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    """Keys of a launch of two processes on a CPU, at any port."""
    config = yaml.safe_load((ROOT / "recipes/accelerate_configs/cpu.yaml").read_text()) | {"main_process_port": 0}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(config))
    return ["--config_file", str(tmp_path / "two.yaml")]


@pytest.fixture
def rank(tmp_path: Path, two: list[str]) -> list[str]:
    (tmp_path / "rank.py").write_text(RANK)
    return [sys.executable, "-m", "bmc.launch", *two, str(tmp_path / "rank.py")]


@pytest.mark.slow
def test_a_rank_that_fails_decides_the_status(rank: list[str]) -> None:
    done = subprocess.run([*rank, "3"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 3
    assert "rank 1 failed first, with exit status 3" in done.stderr
    assert "Traceback" not in done.stderr
    assert subprocess.run([*rank, "0"], capture_output=True, timeout=120).returncode == 0


@pytest.mark.slow
def test_a_preempted_run_saves_in_its_own_time_and_asks_to_be_started_again(rank: list[str], tmp_path: Path) -> None:
    running = subprocess.Popen([*rank, "train", str(tmp_path)], stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if {"0", "1"} <= {path.name for path in tmp_path.iterdir()}:
            break
        time.sleep(0.2)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=60)
    assert running.returncode == 75


@pytest.mark.slow
def test_a_rank_that_is_still_starting_when_it_is_preempted_is_started_again(rank: list[str], tmp_path: Path) -> None:
    running = subprocess.Popen([*rank, "starts", str(tmp_path)], stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if {"0", "1"} <= {path.name for path in tmp_path.iterdir()}:
            break
        time.sleep(0.2)
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=60)
    assert running.returncode == 75


# A stage of which the second process comes to an end, in the way given, while the first waits for it
STAGE = """
import os, signal, sys
import torch
from bmc.errors import user_error
from bmc.runs import run_main
def main():
    if sys.argv[1] == "fault":
        raise user_error("rows", "there are too few")
    torch.distributed.init_process_group("gloo")
    torch.distributed.all_reduce(torch.ones(1))
    if os.environ["RANK"] == "1":
        if sys.argv[1] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RuntimeError("this process has had enough")
    torch.distributed.all_reduce(torch.ones(1))
run_main(main)
"""


@pytest.fixture
def stage(tmp_path: Path) -> str:
    (tmp_path / "stage.py").write_text(STAGE)
    return str(tmp_path / "stage.py")


def ended(command: list[str], tmp_path: Path) -> tuple[Any, float]:
    """A finished launch, of which nothing may go on running, and how many seconds it took."""
    began = time.monotonic()
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=180, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    left = [one.pid for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(one.info["cmdline"] or [])]
    assert left == []
    return done, time.monotonic() - began


@pytest.mark.slow
def test_a_process_that_fails_says_why_and_the_other_one_ends(two: list[str], stage: str, tmp_path: Path) -> None:
    done, seconds = ended([sys.executable, "-m", "accelerate.commands.launch", *two, stage, "raises"], tmp_path)
    assert done.returncode == 1
    assert seconds < 150
    assert done.stderr.count("RuntimeError: this process has had enough") == 1
    assert done.stderr.count("Error: ") == 2  # and the launcher's own ChildFailedError: the other one has only lost it
    assert "rank      : 1 (local_rank: 1)" in done.stderr.partition("Root Cause")[2]


@pytest.mark.slow
def test_a_process_that_is_killed_takes_the_other_one_along(two: list[str], stage: str, tmp_path: Path) -> None:
    done, seconds = ended([sys.executable, "-m", "bmc.launch", *two, stage, "killed"], tmp_path)
    assert done.returncode == 128 + signal.SIGKILL
    assert seconds < 150
    assert done.stderr.splitlines()[-1] == "rank 1 failed first, with exit status -9"
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_what_all_processes_find_is_said_once(two: list[str], stage: str, tmp_path: Path) -> None:
    done, _ = ended([sys.executable, "-m", "bmc.launch", *two, stage, "fault"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines().count("rows: there are too few") == 1
    assert done.stderr.count("too few") == 1
    assert "Traceback" not in done.stderr
