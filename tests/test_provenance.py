"""A folder records how it was made, without secrets, names of users or of machines."""

import hashlib
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bmc import provenance
from bmc.config import DatasetConfig, DatasetMixture, PrepareConfig
from bmc.runs import claim_output_dir, run_fingerprint

KEYS = ["started", "command", "recipe", "seed", "versions", "git", "model", "data", "processes", "host"]


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "provenance.json").read_text())


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PrepareConfig:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{tmp_path}/scripts/prepare.py", "prepare.yaml", "--hub_token", "hf_secret"])
    (tmp_path / "a.jsonl").write_text('{"prompt": "x"}\n')
    return PrepareConfig(
        output_dir="out", dataset_mixture=DatasetMixture(datasets=[DatasetConfig(id="a.jsonl")], seed=3)
    )


def test_a_run_is_recorded(config: PrepareConfig, tmp_path: Path) -> None:
    claim_output_dir("out", run_fingerprint(config), config)
    found = record(tmp_path / "out")
    assert list(found) == KEYS
    assert found["command"] == "scripts/prepare.py prepare.yaml --hub_token ***"
    assert found["recipe"] == {
        "output_dir": "out", "dataset_mixture": {"datasets": [{"id": "a.jsonl"}], "seed": 3}
    }  # fmt: skip
    assert found["seed"] == 3
    assert found["versions"]["python"] == platform.python_version()
    assert {"torch", "transformers", "trl", "datasets", "accelerate", "deepspeed", "bmc"} <= found["versions"].keys()
    assert found["data"] == [
        {"file": "a.jsonl", "bytes": 16, "sha256": hashlib.sha256(b'{"prompt": "x"}\n').hexdigest()}
    ]
    assert found["host"]["cpus"] > 0
    assert found["host"]["memory_gib"] > 0
    assert platform.node() not in json.dumps(found) or len(platform.node()) < 3
    assert found["model"] is None


def test_a_run_that_goes_on_keeps_the_first_and_notes_what_changed(
    config: PrepareConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim_output_dir("out", run_fingerprint(config), config)
    first = record(tmp_path / "out")
    claim_output_dir("out", run_fingerprint(config), config)
    (tmp_path / "a.jsonl").write_text('{"prompt": "y"}\n')
    monkeypatch.setenv("WORLD_SIZE", "4")
    claim_output_dir("out", run_fingerprint(config), config)
    found = record(tmp_path / "out")
    assert {key: found[key] for key in KEYS} == first
    unchanged, changed = found["resumed"]
    assert unchanged.keys() == {"started", "command"}
    assert changed.keys() == {"started", "command", "data", "processes"}
    assert changed["processes"] == 4


def test_it_decides_nothing(config: PrepareConfig, tmp_path: Path) -> None:
    claim_output_dir("out", run_fingerprint(config), config)
    (tmp_path / "out/provenance.json").write_text("{")
    claim_output_dir("out", run_fingerprint(config), config)
    assert list(record(tmp_path / "out")) == KEYS


def test_rows_that_no_file_holds_have_a_digest(config: PrepareConfig, tmp_path: Path) -> None:
    config.dataset_mixture.datasets = [DatasetConfig(source="ecqa")]
    claim_output_dir("out", run_fingerprint(config), config, rows=[{"b": "é", "a": 1}])
    digest = hashlib.sha256('{"a": 1, "b": "é"}\n'.encode()).hexdigest()
    assert record(tmp_path / "out")["data"] == [{"rows": 1, "sha256": digest}]


def test_a_local_model_is_known_by_its_files(model_dir: Path) -> None:
    found = provenance._model({"model_name_or_path": str(model_dir)})
    again = provenance._model({"model_name_or_path": str(model_dir)})
    assert found == again
    assert found is not None
    assert len(found["sha256"]) == 64
    assert provenance._model({"model_name_or_path": "nobody/knows"}) == {"name": "nobody/knows", "commit": None}
    assert provenance._model({"model_name_or_path": "a/b/c/d"})["commit"] is None


def test_secrets_are_masked(subtests: pytest.Subtests) -> None:
    table: list[tuple[Any, ...]] = [
        (["a.py", "--hub_token", "abc", "--beta", "0.1"], "a.py --hub_token *** --beta 0.1"),
        (["a.py", "--api-key=abc"], "a.py --api-key=***"),
        (["a.py", "--api_key_env", "MY_KEY"], "a.py --api_key_env MY_KEY"),
        (["a.py", "--max_tokens", "5", "--eos_token", "</s>"], "a.py --max_tokens 5 --eos_token </s>"),
        (["a.py", "--base_url", "https://me:word@host/v1"], "a.py --base_url https://host/v1"),
        (["a.py", "--x", "hf_" + "a" * 30], "a.py --x ***"),
        (["a.py", "--x", "a b"], 'a.py --x "a b"'),
        (["a.py", "--hub_token", "--beta", "1"], "a.py --hub_token --beta 1"),
    ]
    for argv, said in table:
        with subtests.test(argv=argv, said=said):
            assert provenance.redact_command(argv) == said


def test_paths_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "me/work").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "me/work")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    here, home = tmp_path / "me/work", tmp_path / "me"
    said = provenance.redact(
        {
            "a": f"{here}/x.jsonl", "b": [f"{home}/data", "/home/somebody/data", "/Users/a.b/c"], "hub_token": "abc",
            "c": str(here), "d": f"{here}-other", "e": 3, "f": None, "api_key_env": "KEY", "g": f"--out={here}/y",
        }
    )  # fmt: skip
    assert said == {
        "a": "x.jsonl", "b": ["~/data", "~/data", "~/c"], "hub_token": "***",
        "c": ".", "d": "~/work-other", "e": 3, "f": None, "api_key_env": "KEY", "g": "--out=y",
    }  # fmt: skip


def test_the_commit_is_that_of_the_code_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        done = subprocess.run(["git", *identity, "-C", str(tmp_path), *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    file = tmp_path / "provenance.py"
    file.touch()
    monkeypatch.setattr(provenance, "__file__", str(file))
    assert provenance.git_state() is None
    run("init", "--quiet")
    assert provenance.git_state() is None  # a checkout that the code isn't part of
    run("add", ".")
    run("commit", "--quiet", "-m", "one")
    assert provenance.git_state() == {"commit": run("rev-parse", "HEAD"), "dirty": False}
    file.write_text("changed")
    assert provenance.git_state() == {"commit": run("rev-parse", "HEAD"), "dirty": True}
    monkeypatch.setenv("PATH", "")
    assert provenance.git_state() is None
