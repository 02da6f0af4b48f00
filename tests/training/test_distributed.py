"""Two real processes on the CPU, under each engine, see and learn what one does."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import yaml

from bmc.training.fault_tolerance import find_damage

ROOT = Path(__file__).parents[2]
CPU = ["--use_cpu", "true"]
ENGINES: dict[str, tuple[list[str], list[str], dict[str, str]]] = {  # launcher, keys of the recipe, environment
    "one": ([], CPU, {}),
    "ddp": (["cpu"], [*CPU, "--ddp_backend", "gloo"], {}),
    "zero2": (["zero3_cpu", "--zero_stage", "2"], ["--ddp_backend", "gloo"], {"DS_ACCELERATOR": "cpu"}),
    "zero3": (["zero3_cpu"], ["--ddp_backend", "gloo"], {"DS_ACCELERATOR": "cpu"}),
    "fsdp2": (["fsdp2", "--num_processes", "2", "--mixed_precision", "no"], ["--ddp_backend", "gloo"], {}),
}
ROWS, STEPS = 18, 10  # two epochs by 4: the last step of each has 2 rows, which is none for one of two processes
STAGES = {"sft": "rows.jsonl", "preference": "pairs.jsonl"}


@dataclass
class Runs:
    """What the jobs of one launch left behind."""

    folder: Path

    def log(self, name: str, rank: int = 0) -> str:
        return (self.folder / f"{name}.{rank}.log").read_text()

    def codes(self, name: str) -> list[int]:
        return [int(path.read_text()) for path in sorted(self.folder.glob(f"{name}.*.code"))]

    def observed(self, name: str, key: str) -> list[dict[str, Any]]:
        lines = [line for path in sorted(self.folder.glob(f"{name}.*.jsonl")) for line in path.open()]
        return [found for found in map(json.loads, lines) if key in found]

    def steps(self, name: str) -> list[list[str]]:
        """The ids of each optimizer step's rows, over all processes."""
        steps: dict[int, list[str]] = {}
        for found in self.observed(name, "ids"):
            steps.setdefault(found["step"], []).extend(found["ids"])
        return [sorted(steps[step]) for step in sorted(steps)]

    def curve(self, name: str, key: str) -> list[float]:
        history = json.loads((self.folder / name / "trainer_state.json").read_text())["log_history"]
        return [line[key] for line in history if key in line]

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        from transformers import AutoModelForCausalLM

        return dict(AutoModelForCausalLM.from_pretrained(self.folder / name).state_dict())


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {
            "id": f"r{i}",
            "prompt": f"Add {i} and 2.",
            "chosen": f"The sum is {i + 2}{'!' * (i % 5)}",
            "rejected": f"{i}.",
        }
        for i in range(ROWS)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sft = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sft))
    for name in STAGES.values():  # five rows by 4: the last step of the evaluation has one
        (folder / f"test_{name}").write_text("".join((folder / name).read_text().splitlines(keepends=True)[:5]))
    from transformers import AutoModelForCausalLM, AutoTokenizer

    half = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16)  # as models are published
    half.save_pretrained(folder / "half")
    AutoTokenizer.from_pretrained(model_dir).save_pretrained(folder / "half")
    settings = {
        "model_name_or_path": str(model_dir), "dtype": "float32", "bf16": False, "report_to": "none", "max_length": 96,
        "num_train_epochs": 2, "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 5, "save_strategy": "steps",
        "save_steps": 3, "learning_rate": 1e-3, "gradient_checkpointing": False,
    }  # fmt: skip
    for stage, name in STAGES.items():
        mixture = {"datasets": [{"id": str(folder / name)}], "test_datasets": [{"id": str(folder / f"test_{name}")}]}
        own = {"token_weighting": "bmc", "precompute_ref_log_probs": True} if stage == "preference" else {}
        (folder / f"{stage}.yaml").write_text(yaml.safe_dump(settings | own | {"dataset_mixture": mixture}))
    return folder


def launch(data: Path, engine: str, *jobs: dict[str, Any]) -> Runs:
    """Runs jobs under an engine; of two processes each has half of the batch."""
    launcher, keys, environment = ENGINES[engine]
    folder = data / engine
    folder.mkdir()
    half = 2 if launcher else 4
    for job in jobs:
        stage = job.setdefault("stage", "preference")
        output = folder / job.setdefault("output", job["name"])
        if job.pop("half", False):
            job["keys"] = ["--model_name_or_path", str(data / "half"), *job["keys"]]
        cache = folder / job.pop("cache", "reference")
        own = ["--reference_cache", str(cache)] if stage == "preference" else []
        job["argv"] = [
            str(ROOT / f"scripts/{stage}.py"), str(data / f"{stage}.yaml"), "--output_dir", str(output), *own, *keys,
            "--per_device_train_batch_size", str(half), "--per_device_eval_batch_size", str(half), *job.pop("keys", []),
        ]  # fmt: skip
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable]
    if launcher:
        config = ROOT / f"recipes/accelerate_configs/{launcher[0]}.yaml"
        port = ["--main_process_port", str(_free_port())]
        command += ["-m", "accelerate.commands.launch", "--config_file", str(config), *port, *launcher[1:]]
    done = subprocess.run(
        [*command, str(ROOT / "tests/ranks.py"), str(folder / "jobs.json")],
        capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return Runs(folder)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1]) % 12000 + 20000  # the jobs take the next; none is given away below 32768


BOTH = [{"name": stage, "stage": stage} for stage in STAGES]
RESUMED = [{"name": "killed", "output": "again", "kill_at": 8}, {"name": "resumed", "output": "again"}]
GROUPED = {"name": "grouped", "keys": ["--train_sampling_strategy", "group_by_length", "--dataloader_num_workers", "1"]}
# a budget that one rank's pairs fit and the other's may not
BUDGET = {"name": "budget", "keys": ["--micro_batch_tokens", "40"]}

ADAPTER = {
    "name": "adapter",
    "keys": [
        "--use_peft", "--lora_r", "4", "--lora_dropout", "0.0", "--lora_target_modules", "[q_proj, down_proj]",
        "--learning_rate", "1e-2", "--precompute_ref_log_probs", "false", "--max_steps", "4", "--eval_strategy", "'no'",
    ],
}  # fmt: skip

# the paper's: bf16 and checkpointing that isn't reentrant
PAPERS = [
    "--dtype", "null", "--bf16", "true", "--gradient_checkpointing", "true",
    "--gradient_checkpointing_kwargs", "{use_reentrant: false}", "--eval_strategy", "'no'", "--save_steps", "8",
    "--max_steps", "8",
]  # fmt: skip
SLOW = ["--learning_rate", "5e-7"]
MIXED = [
    {"name": "mixed", "half": True, "keys": [*PAPERS, "--precompute_ref_log_probs", "false"]},
    {"name": "slow", "half": True, "cache": "half_reference", "keys": [*PAPERS, *SLOW]},
    {"name": "slow_sft", "stage": "sft", "half": True, "keys": [*PAPERS, *SLOW]},
]
PAIRS_MIXED = MIXED[:2]  # SFT loads and casts its model in the same way, so one engine will do for it
EXACT = [job | {"name": f"{job['name']}_float32", "keys": [*job["keys"], "--bf16", "false"]} for job in MIXED]


@pytest.fixture(scope="module")
def one(data: Path) -> Runs:
    return launch(data, "one", *map(dict, [*BOTH, GROUPED, ADAPTER, *MIXED, *EXACT]))


@pytest.fixture(scope="module")
def ddp(data: Path) -> Runs:
    torn, often = str(data / "ddp/torn/checkpoint-8/model.safetensors"), ["--save_steps", "2"]
    return launch(
        data, "ddp", *map(dict, [*BOTH, *RESUMED, GROUPED, BUDGET]),
        {"name": "torn_killed", "output": "torn", "kill_at": 9, "keys": often},
        {"name": "torn", "tear": torn, "keys": often},
        {"name": "nan", "nan_at": [3, 1]},
        {"name": "preempted", "term_at": [4, 1]},
        {"name": "early", "term_reference_at": [2, 1], "cache": "early_reference"},
        {"name": "early_again", "output": "early", "cache": "early_reference"},
        *map(dict, MIXED),
    )  # fmt: skip


@pytest.fixture(scope="module")
def zero2(data: Path) -> Runs:
    return launch(data, "zero2", *map(dict, [*PAIRS_MIXED, BUDGET]))


@pytest.fixture(scope="module")
def zero3(data: Path) -> Runs:
    return launch(data, "zero3", *map(dict, [*BOTH, *RESUMED, ADAPTER, *PAIRS_MIXED, BUDGET]))


@pytest.fixture(scope="module")
def fsdp2(data: Path) -> Runs:
    return launch(data, "fsdp2", *map(dict, [*BOTH, *RESUMED, ADAPTER, *PAIRS_MIXED, BUDGET]))


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("engine", ["ddp", "zero3", "fsdp2"])
def test_two_processes_follow_one(engine: str, stage: str, one: Runs, request: pytest.FixtureRequest) -> None:
    """Ten steps, two evaluations and one of the result, at the same global batch; rank 0 alone reports."""
    two: Runs = request.getfixturevalue(engine)
    assert [two.log(stage, rank).count(f"trained on {ROWS}") for rank in (0, 1)] == [1, 0]
    assert two.codes(stage) == [0, 0], two.log(stage)[-3000:]
    alone = one.curve(stage, "loss")
    assert len(alone) == STEPS
    assert alone[-1] < alone[0] - 0.1
    assert two.curve(stage, "loss") == pytest.approx(alone, abs=1e-4)
    assert len(one.curve(stage, "eval_loss")) == 3
    assert two.curve(stage, "eval_loss") == pytest.approx(one.curve(stage, "eval_loss"), abs=1e-4)
    found, wanted = (json.loads((runs.folder / stage / "metrics.json").read_text()) for runs in (two, one))
    assert found["eval_loss"] == pytest.approx(wanted["eval_loss"], abs=1e-4)
    assert found["rows"] == ROWS
    for name in (stage, f"{stage}/checkpoint-10"):
        assert distance(two.weights(name), one.weights(stage)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "zero2", "zero3", "fsdp2"])
def test_micro_batches_by_tokens_take_the_same_steps(engine: str, one: Runs, request: pytest.FixtureRequest) -> None:
    two: Runs = request.getfixturevalue(engine)
    assert two.codes("budget") == [0, 0], two.log("budget")[-3000:]
    for key in ("loss", "eval_loss"):
        assert two.curve("budget", key) == pytest.approx(one.curve("preference", key), abs=1e-4)
    assert distance(two.weights("budget"), one.weights("preference")) < 1e-4


@pytest.mark.slow
def test_the_engines_have_each_weight_in_parts(zero3: Runs, fsdp2: Runs) -> None:
    for stage in STAGES:
        found = zero3.observed(stage, "engine")
        assert [rank["engine"] for rank in found] == ["DeepSpeedEngine"] * 2
        for rank in found:
            assert rank["deepspeed"] == rank["tensors"]
            assert rank["here"] == pytest.approx(rank["all"] / 2, rel=1e-3)
        found = fsdp2.observed(stage, "engine")
        assert [rank["engine"] for rank in found] == ["FSDPLlamaForCausalLM"] * 2
        assert all(rank["dtensor"] == rank["tensors"] for rank in found)
        assert sum(rank["here"] for rank in found) == found[0]["all"]
        assert max(rank["here"] for rank in found) < 0.6 * found[0]["all"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "zero3", "fsdp2"])
def test_the_reference_is_shared_out_and_says_what_it_says_to_one(
    engine: str, one: Runs, request: pytest.FixtureRequest
) -> None:
    from bmc.training.reference_cache import ReferenceCache

    tables = []
    for runs in (one, request.getfixturevalue(engine)):
        (folder,) = (runs.folder / "reference").iterdir()
        tables.append(dict(ReferenceCache(folder).table().to_pydict().items()))
        assert len([*folder.glob("*.arrow")]) >= (1 if runs is one else 2)  # each process wrote what it computed
    alone, shared = (dict(zip(table["key"], table["logps"], strict=True)) for table in tables)
    assert alone.keys() == shared.keys()
    for key, logps in alone.items():
        assert shared[key] == pytest.approx(logps, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "zero3", "fsdp2"])
def test_a_killed_job_ends_as_if_it_had_never_been(engine: str, request: pytest.FixtureRequest) -> None:
    runs: Runs = request.getfixturevalue(engine)
    assert runs.codes("killed") == [-9, -9]
    assert runs.codes("resumed") == [0, 0], runs.log("resumed")[-3000:]
    assert runs.steps("resumed") == runs.steps("preference")[6:]  # in the midst of the second epoch
    assert distance(runs.weights("again"), runs.weights("preference")) < 1e-6
    assert runs.curve("again", "loss") == pytest.approx(runs.curve("preference", "loss"), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["zero3", "fsdp2"])
def test_an_adapter_on_a_sharded_model_has_the_model_for_its_reference(
    engine: str, one: Runs, request: pytest.FixtureRequest
) -> None:
    runs: Runs = request.getfixturevalue(engine)
    assert runs.codes("adapter") == [0, 0], runs.log("adapter")[-3000:]
    alone = one.curve("adapter", "loss")
    assert alone[3] < alone[0] - 0.02
    assert runs.curve("adapter", "loss") == pytest.approx(alone, abs=1e-4)
    assert {path.name for path in (runs.folder / "adapter").glob("*.safetensors")} == {"adapter_model.safetensors"}
    assert distance(runs.weights("adapter"), one.weights("adapter")) < 1e-4


@pytest.mark.slow
def test_steps_have_the_same_rows_each_once(one: Runs, ddp: Runs) -> None:
    for name in ("preference", "grouped"):
        assert ddp.steps(name) == one.steps(name)
        for epoch in (one.steps(name)[:5], one.steps(name)[5:]):
            assert sorted(row for step in epoch for row in step) == sorted(f"r{i}" for i in range(ROWS))
    assert one.steps("preference") != one.steps("grouped")


@pytest.mark.slow
def test_a_torn_checkpoint_is_passed_over_by_both(ddp: Runs) -> None:
    assert ddp.codes("torn_killed") == [-9, -9]
    assert ddp.codes("torn") == [0, 0], ddp.log("torn")[-3000:]
    newest = ddp.folder / "torn/checkpoint-8"
    size = (newest / "model.safetensors").stat().st_size
    warning = (
        f"{newest} is torn (model.safetensors has {size - 1:,} of {size:,} bytes); going back to the one before it"
    )
    assert [log.count(warning) for log in (ddp.log("torn"), ddp.log("torn", 1))] == [1, 0]
    assert ddp.steps("torn") == ddp.steps("preference")[6:]
    assert distance(ddp.weights("torn"), ddp.weights("preference")) < 1e-6


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_process_stops_both(ddp: Runs) -> None:
    assert ddp.codes("nan") == [2, 2]
    rows = ddp.observed("nan", "ids")[-1]["ids"]  # the last of the second process
    said = ddp.log("nan").splitlines()[-1]
    assert said == ddp.log("nan", 1).splitlines()[-1]  # alone, since no launcher ended it
    assert f"stopped at step 4: the loss is nan; the batch has the rows {', '.join(rows)}; look at them" in said
    assert "Traceback" not in ddp.log("nan") + ddp.log("nan", 1)


@pytest.mark.slow
def test_a_sigterm_that_reaches_one_process_has_both_save_and_leave(ddp: Runs) -> None:
    assert ddp.codes("preempted") == [75, 75]
    said = f"stopped by SIGTERM after step 5: {ddp.folder}/preempted/checkpoint-5; the same command goes on"
    assert [ddp.log("preempted", rank).count(said) for rank in (0, 1)] == [1, 0]
    assert find_damage(ddp.folder / "preempted/checkpoint-5") is None


@pytest.mark.slow
def test_a_sigterm_in_the_reference_pass_has_both_keep_their_work_and_leave(ddp: Runs) -> None:
    """36 sequences by 4 in each of two processes: two batches of each are kept, and three follow (the ninth twice)."""
    assert ddp.codes("early") == [75, 75], ddp.log("early", 1)
    said = "stopped by SIGTERM; the same command goes on where it was"
    assert [ddp.log("early", rank).count(said) for rank in (0, 1)] == [1, 0]
    assert ddp.codes("early_again") == [0, 0]
    (folder,) = (ddp.folder / "early_reference").iterdir()
    sizes = sorted(len(pa.ipc.open_file(path).read_all()) for path in folder.glob("*.arrow"))
    assert sizes == [8, 8, 12, 12]
    assert ddp.curve("early", "loss") == ddp.curve("preference", "loss")


def trained_weights(runs: Runs, name: str) -> dict[str, torch.Tensor]:
    """What the optimizer updated: the saved model, or the float32 copies in DeepSpeed's checkpoint."""
    checkpoint = runs.folder / name / "checkpoint-8"
    if (checkpoint / "latest").exists():
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        return dict(get_fp32_state_dict_from_zero_checkpoint(str(checkpoint)))
    return runs.weights(name)


def movement(runs: Runs, name: str) -> tuple[float, float]:
    """The share of weights that a training changed, and the mean |ΔW|."""
    from transformers import AutoModelForCausalLM

    before = AutoModelForCausalLM.from_pretrained(runs.folder.parent / "half", dtype=torch.float32).state_dict()
    after = trained_weights(runs, name)
    moved = torch.cat([(after[key].float() - before[key]).flatten() for key in after])
    return (moved != 0).float().mean().item(), moved.abs().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["one", "ddp", "zero2", "zero3", "fsdp2"])
def test_the_papers_precision_follows_float32_and_moves_as_many_weights_as_far(
    engine: str, one: Runs, request: pytest.FixtureRequest
) -> None:
    runs: Runs = request.getfixturevalue(engine)
    for name in ("slow", "slow_sft") if engine in ("one", "ddp") else ("slow",):
        assert set(runs.codes(name)) == {0}, runs.log(name)[-3000:]
        assert movement(runs, name) == pytest.approx(movement(one, f"{name}_float32"), rel=0.05)
    assert set(runs.codes("mixed")) == {0}, runs.log("mixed")[-3000:]
    found = runs.curve("mixed", "loss")
    assert found[0] == pytest.approx(math.log(2), abs=1e-6)
    assert runs.curve("slow", "loss")[0] == pytest.approx(math.log(2), abs=1e-6)  # with the reference computed before
    assert found == pytest.approx(one.curve("mixed_float32", "loss"), abs=0.01)
