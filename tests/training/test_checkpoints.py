"""Killed and resumed runs against one that was never stopped, on a tiny Llama."""

import json
import logging
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import forks
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from bmc.errors import UserErrors
from bmc.training.fault_tolerance import (
    CHECKPOINT_FILES,
    check_checkpoint,
    commit,
    find_damage,
    find_start,
    last_checkpoint,
    write_manifest,
)

ROOT = Path(__file__).parents[2]
TEMPLATE = str(ROOT / "recipes/chat_templates/instruction.jinja")


def checkpoint(folder: Path, step: int, recipe: dict[str, Any] | None = None) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "deep").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"x" * 1000)
    (path / "deep/optimizer.pt").write_bytes(b"y" * 10)
    write_manifest(path, recipe)
    return path


def test_a_sealed_checkpoint_is_whole(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 5)
    assert find_damage(path) is None
    assert json.loads((path / CHECKPOINT_FILES).read_text())["files"] == {
        "deep/optimizer.pt": 10,
        "model.safetensors": 1000,
    }


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: (path / "model.safetensors").write_bytes(b"x" * 999), "model.safetensors has 999 of 1,000 bytes"),
        (lambda path: (path / "deep/optimizer.pt").unlink(), "deep/optimizer.pt is missing"),
        (
            lambda path: (path / CHECKPOINT_FILES).unlink(),
            "it has neither checkpoint.json nor a trainer_state.json that can be read, one of which is written last",
        ),
        (
            lambda path: (path / CHECKPOINT_FILES).write_text("{"),
            "checkpoint.json, which is written last, can't be read",
        ),
    ],
)
def test_a_torn_checkpoint_is_passed_over(damage: Any, said: str, tmp_path: Path, caplog: Any) -> None:
    older, newest = checkpoint(tmp_path, 9), checkpoint(tmp_path, 10)
    damage(newest)
    assert find_damage(newest) == said
    with caplog.at_level(logging.WARNING):
        assert last_checkpoint(str(tmp_path)) == str(older)
    assert caplog.messages == [f"{newest} is torn ({said}); going back to the one before it"]


def test_without_a_whole_checkpoint_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-x").mkdir()
    assert last_checkpoint(str(tmp_path)) is None
    assert last_checkpoint(str(tmp_path / "nothing")) is None


def test_a_checkpoint_takes_the_place_of_an_older_one_and_moves_what_others_wrote_aside(tmp_path: Path) -> None:
    older = checkpoint(tmp_path, 5)
    (older / "left.txt").touch()
    commit(checkpoint(tmp_path / "partial", 5), older)
    assert find_damage(older) is None
    assert not (older / "left.txt").exists()
    foreign = tmp_path / "checkpoint-6"
    for number in (1, 2):
        foreign.mkdir()
        (foreign / "mine.txt").write_text(str(number))
        commit(checkpoint(tmp_path / f"again-{number}", 6), foreign)
        assert find_damage(foreign) is None
        assert (tmp_path / f"replaced-{number}-checkpoint-6/mine.txt").read_text() == str(number)
        shutil.rmtree(foreign)


def of_another_trainer(folder: Path, step: int) -> Path:
    """A checkpoint as transformers' trainers write it."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"w": torch.ones(3)}, path / "model.safetensors")
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return path


def test_checkpoints_of_another_trainer_are_found_and_never_overwritten(tmp_path: Path) -> None:
    two, four = (of_another_trainer(tmp_path, step) for step in (2, 4))
    folder = str(tmp_path)
    assert find_damage(four) is None
    assert last_checkpoint(folder) == str(four)
    assert find_start(folder, True, {}) == str(four)
    assert find_start(folder, str(four), {}) == str(four)
    said = "of another trainer, which this one would overwrite; resume_from_checkpoint: true goes on from it"
    for given, names in (
        (None, "checkpoint-2, checkpoint-4"),
        (False, "checkpoint-2, checkpoint-4"),
        (str(two), "checkpoint-4"),
    ):
        with pytest.raises(UserErrors) as caught:
            find_start(folder, given, {})
        assert str(caught.value) == f"{folder}: holds {names} {said}, another output_dir starts anew"
    ours = checkpoint(tmp_path, 6)
    assert find_start(folder, None, {}) == str(ours)
    (two / "model.safetensors").write_bytes(b"short")
    assert find_damage(two).startswith("model.safetensors is damaged or cut short (5 bytes; ")


def test_where_there_is_no_checkpoint_a_run_starts_from_the_beginning(tmp_path: Path) -> None:
    assert find_start(str(tmp_path), None, {}) is find_start(str(tmp_path), False, {}) is None
    with pytest.raises(
        UserErrors, match=r"^resume_from_checkpoint: true, and .* holds no whole checkpoint; leave it out"
    ):
        find_start(str(tmp_path), True, {})


def test_a_named_checkpoint_must_be_whole_and_of_the_recipe(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 5, {"beta": 0.1, "seed": 1})
    check_checkpoint(path, {"beta": 0.1, "seed": 1})
    with pytest.raises(UserErrors, match=r"is a checkpoint of another recipe \(it differs in beta\)"):
        check_checkpoint(path, {"beta": 0.2, "seed": 1})
    (path / "model.safetensors").unlink()
    with pytest.raises(UserErrors, match=r"is torn \(model.safetensors is missing\)"):
        check_checkpoint(path, {})
    with pytest.raises(UserErrors, match=r"resume_from_checkpoint: .* is no folder"):
        check_checkpoint(tmp_path / "none", {})


# runs


def recipe(folder: Path, model_dir: Path, name: str, **options: Any) -> Path:
    """Pairs with attention dropout's worth of randomness: 6 steps of 4 pairs, logged every 4 and saved every 3."""
    pairs = folder / "pairs.jsonl"
    if not pairs.exists():
        rows = [{"id": f"r{i}", "prompt": f"{i}+1=", "chosen": f"{i + 1}", "rejected": f"{i}?"} for i in range(24)]
        pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = json.loads((model_dir / "config.json").read_text())
        copy = folder / "model"
        copy.mkdir()
        for path in model_dir.iterdir():
            (copy / path.name).write_bytes(path.read_bytes())
        (copy / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.3}))
    path = folder / f"{name}.yaml"
    values = {
        "model_name_or_path": str(folder / "model"), "chat_template": TEMPLATE, "dtype": "float32", "use_cpu": True,
        "bf16": False, "gradient_checkpointing": False, "report_to": "none", "max_length": 64, "learning_rate": 1e-3,
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 1, "logging_steps": 4,
        "save_strategy": "steps", "save_steps": 3, "token_weighting": "bmc", "disable_dropout": False,
        "dataset_mixture": {"datasets": [{"id": str(pairs)}]}, "output_dir": str(folder / name), **options,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(values))
    return path


# Runs a stage in its process and sends that a signal when the step given has begun
KILL = """
import os, runpy, signal, sys
from transformers import TrainerCallback, Trainer
step, name, script = int(sys.argv[1]), sys.argv[2], sys.argv[3]
class Kill(TrainerCallback):
    def on_substep_end(self, args, state, control, **_):
        if state.global_step == step:
            os.kill(os.getpid(), getattr(signal, name))
before = Trainer.__init__
def after(self, *args, **kwargs):
    before(self, *args, **kwargs)
    self.add_callback(Kill())
Trainer.__init__ = after
sys.argv = sys.argv[3:]
runpy.run_path(script, run_name="__main__")
"""


def train(path: Path, *, kill_at: int = -1, by: str = "SIGKILL", before: str = "") -> forks.Fork:
    return forks.run(["-c", before + KILL, str(kill_at), by, str(ROOT / "scripts/preference.py"), str(path)])


def history(folder: Path) -> list[dict[str, Any]]:
    """The logged lines without what time alone decides."""
    passing = ("runtime", "per_second")
    logged = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [{key: value for key, value in line.items() if not key.endswith(passing)} for line in logged]


def same_weights(a: Path, b: Path) -> bool:
    ours, theirs = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(folder: Path, model_dir: Path) -> Path:
    """A run that was never stopped."""
    run = train(recipe(folder, model_dir, "whole"))
    assert run.returncode == 0, run.stderr[-3000:]
    return folder / "whole"


@pytest.mark.slow
def test_a_killed_run_ends_as_if_it_had_never_been(whole: Path, folder: Path, model_dir: Path) -> None:
    path = recipe(folder, model_dir, "killed")
    assert train(path, kill_at=5).returncode == -signal.SIGKILL
    assert [p.name for p in (folder / "killed").glob("checkpoint-*")] == ["checkpoint-3"]
    run = train(path)
    assert run.returncode == 0, run.stderr[-3000:]
    assert same_weights(whole, folder / "killed")
    assert history(whole) == history(folder / "killed")
    (line,) = [line for line in history(whole) if "loss" in line]
    assert line["step"] == 4  # logged after the checkpoint, of sums from before it


@pytest.mark.slow
def test_sigterm_saves_and_exits_with_75(whole: Path, folder: Path, model_dir: Path) -> None:
    path = recipe(folder, model_dir, "preempted")
    run = train(path, kill_at=1, by="SIGTERM")
    assert run.returncode == 75, run.stderr[-3000:]
    assert run.stdout.splitlines()[-1] == (
        f"stopped by SIGTERM after step 2: {folder / 'preempted'}/checkpoint-2; the same command goes on"
    )
    assert not (folder / "preempted/metrics.json").exists()
    assert train(path).returncode == 0
    assert same_weights(whole, folder / "preempted")
    assert history(whole) == history(folder / "preempted")


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_rows(folder: Path, model_dir: Path) -> None:
    """The weights of the second process are of the first's checkpoint, with one that is no number."""
    path = recipe(folder, model_dir, "poisoned")
    assert train(path, kill_at=4).returncode == -signal.SIGKILL
    weights = folder / "poisoned/checkpoint-3/model.safetensors"
    tensors = load_file(weights)
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})
    run = train(path)
    assert run.returncode == 2, run.stderr[-3000:]
    said = run.stderr.splitlines()[-1]
    assert re.search(r": stopped at step 4: the loss is nan; the batch has the rows r\d+, r\d+; look at them", said)
    assert said.endswith(f"the last good checkpoint is {folder}/poisoned/checkpoint-3")
    assert not (folder / "poisoned/metrics.json").exists()


# Lets no file grow beyond what a checkpoint of 3 steps needs once that one is there
FILL = """
import resource, signal
from bmc.training import fault_tolerance as steady
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
commit = steady.commit
def then_full(partial, final):
    commit(partial, final)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
steady.commit = then_full
"""


@pytest.mark.slow
def test_a_full_disk_leaves_the_older_checkpoint(folder: Path, model_dir: Path) -> None:
    path = recipe(folder, model_dir, "full")
    run = train(path, before=FILL)
    assert run.returncode == 2, run.stderr[-3000:]
    said = run.stderr.splitlines()[-1]
    assert said.startswith(f"{folder}/full/checkpoint-6: can't be written (")
    assert said.endswith(f"make room and start again, from the newest: {folder}/full/checkpoint-3")
    assert [entry.name for entry in (folder / "full").iterdir() if "checkpoint" in entry.name] == ["checkpoint-3"]
    assert find_damage(folder / "full/checkpoint-3") is None


def trainers(folder: Path, model_dir: Path, **options: Any) -> Any:
    """TRL's DPOTrainer and ours with the same arguments, on the same rows."""
    import trl
    from datasets import Dataset

    import bmc

    rows = Dataset.from_list([{"prompt": f"{i}+1=", "chosen": f"{i + 1}", "rejected": f"{i}?"} for i in range(12)])
    values = {
        "output_dir": str(folder), "use_cpu": True, "bf16": False, "report_to": "none", "learning_rate": 1e-3,
        "gradient_checkpointing": False, "per_device_train_batch_size": 2, "save_steps": 2, "logging_steps": 1,
        "precompute_ref_log_probs": False, "seed": 3, "max_steps": 6, **options,
    }  # fmt: skip
    for trainer, config in ((trl.DPOTrainer, trl.DPOConfig), (bmc.BMCTrainer, bmc.BMCConfig)):
        yield trainer(str(model_dir), args=config(**values), train_dataset=rows)


def losses(trainer: Any) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in trainer.state.log_history if "loss" in line}


@pytest.mark.slow
def test_after_the_swap_a_run_goes_on_where_trl_stopped(tmp_path: Path, model_dir: Path) -> None:
    """Steps 5 and 6 after TRL's checkpoint-4 have the losses that TRL itself would have gone on with."""
    theirs, _ = trainers(tmp_path / "whole", model_dir)
    theirs.train()
    _, ours = trainers(tmp_path / "swapped", model_dir)
    shutil.copytree(tmp_path / "whole/checkpoint-4", tmp_path / "swapped/checkpoint-4")
    before = (tmp_path / "swapped/checkpoint-4/model.safetensors").read_bytes()
    with pytest.raises(UserErrors, match="holds checkpoint-4 of another trainer"):
        ours.train()
    ours.train(resume_from_checkpoint=True)
    assert ours.state.global_step == 6
    assert [losses(ours)[step] for step in (5, 6)] == pytest.approx([losses(theirs)[step] for step in (5, 6)], abs=1e-5)
    assert (tmp_path / "swapped/checkpoint-4/model.safetensors").read_bytes() == before
    assert not (tmp_path / "swapped/checkpoint-2").exists()
    _, fresh = trainers(tmp_path / "nothing", model_dir)
    with pytest.raises(UserErrors, match="holds no whole checkpoint"):
        fresh.train(resume_from_checkpoint=True)


@pytest.mark.slow
def test_a_training_that_has_ended_takes_no_further_step(tmp_path: Path, model_dir: Path) -> None:
    """Four steps of an epoch's six: transformers alone would go on to the fifth."""
    weights = []
    for resumed in (None, True):
        _, trainer = trainers(tmp_path, model_dir, max_steps=4)
        trainer.train(resume_from_checkpoint=resumed)
        assert trainer.state.global_step == 4
        weights.append(trainer.model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
