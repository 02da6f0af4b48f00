"""The examples run as they are."""

import json
import os
from pathlib import Path

import forks
import pytest
from server import ChatServer, revises

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAIR = {
    "prompt": "Calculate 8 + 3 + 6 + 5.", "chosen": "8 + 3 = 11\n11 + 6 = 17\n17 + 5 = 22\nThe answer is 22",
    "rejected": "5 + 6 = 11\n11 + 3 = 14\n14 + 8 = 23\nThe answer is 23", "answer": "22", "task": "math"
}  # fmt: skip
BRIDGED = "5 + 6 = 11\n11 + 3 = 14\n14 + 8 = 22\nThe answer is 22"


def run(script: str, *arguments: str, folder: Path) -> str:
    environment = os.environ | {"OPENAI_API_KEY": "none"}
    done = forks.run([str(ROOT / "examples" / script), *arguments], cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bridge_by_rules(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(json.dumps(PAIR) + "\n")
    printed = run("bridge_my_pairs.py", "pairs.jsonl", "out", folder=tmp_path)
    assert "1 of 1 pairs kept" in printed
    (row,) = map(json.loads, (tmp_path / "out/train.jsonl").read_text().splitlines())
    assert (row["chosen"], row["original_chosen"], row["rejected"]) == (BRIDGED, PAIR["chosen"], PAIR["rejected"])


def test_bridge_with_a_server(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(json.dumps(PAIR) + "\n")
    with ChatServer(lambda request, number: revises(request, BRIDGED)) as server:
        run("bridge_my_pairs.py", "pairs.jsonl", "out", server.url, "my-model", folder=tmp_path)
    (row,) = map(json.loads, (tmp_path / "out/train.jsonl").read_text().splitlines())
    assert row["chosen"] == BRIDGED


@pytest.mark.slow
def test_train(tmp_path: Path, model_dir: Path) -> None:
    row = {key: PAIR[key] for key in ("prompt", "rejected")} | {"chosen": BRIDGED}
    (tmp_path / "train.jsonl").write_text((json.dumps(row) + "\n") * 8)
    run("train_bmc.py", "train.jsonl", str(model_dir), "out", folder=tmp_path)
    assert (tmp_path / "out/model.safetensors").is_file()
