"""lm-evaluation-harness: its command line, and its result file folded."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import forks
import pytest

from bmc.config import HarnessConfig
from bmc.errors import UserErrors
from bmc.evaluation import lm_eval
from bmc.evaluation.lm_eval import command, describe, fold, measure

ROOT = Path(__file__).parents[2]
FOUND = {  # of the shape that lm-eval 0.4.13 writes
    "results": {
        "gsm8k": {
            "name": "gsm8k", "alias": "gsm8k", "sample_len": 1319,
            "exact_match,strict-match": 0.125, "exact_match_stderr,strict-match": 0.0091,
            "exact_match,flexible-extract": 0.25, "exact_match_stderr,flexible-extract": 0.0119,
        },
        "arc_easy": {
            "name": "arc_easy", "alias": "arc_easy", "sample_len": 40,
            "acc,none": 0.5, "acc_stderr,none": 0.08, "acc_norm,none": 0.4, "acc_norm_stderr,none": 0.078,
        },
        "own": {"alias": "own", "f1,none": 0.7, "f1_stderr,none": "N/A"},
        "a_group": {"alias": "a_group", "acc,none": 0.5, "acc_stderr,none": 0.1},
    },
    "n-samples": {
        "gsm8k": {"original": 1319, "effective": 1319},
        "arc_easy": {"original": 2376, "effective": 40},
        "own": {"original": 9, "effective": 9},
    },
    "lm_eval_version": "0.4.13",
}  # fmt: skip
FOLDED = {
    "tasks": {
        "gsm8k": {"metric": "exact_match,strict-match", "value": 0.125, "stderr": 0.0091, "n": 1319},
        "arc_easy": {"metric": "acc_norm", "value": 0.4, "stderr": 0.078, "n": 40},
        "own": {"metric": "f1", "value": 0.7, "stderr": None, "n": 9},
    },
    "version": "0.4.13",
}


def recipe(**settings: Any) -> HarnessConfig:
    return HarnessConfig(model_name_or_path="outputs/dpo", output_dir="outputs/dpo/eval", **settings)


def test_a_result_file_is_folded() -> None:
    assert fold(FOUND, "file") == FOLDED
    assert describe(FOLDED).splitlines() == [
        "gsm8k: 12.5 % (exact_match,strict-match, n = 1319, standard error 0.9)",
        "arc_easy: 40.0 % (acc_norm, n = 40, standard error 7.8)",
        "own: 70.0 % (f1, n = 9)",
    ]


def test_what_is_no_result_file(subtests: pytest.Subtests) -> None:
    for missing in ["results", "n-samples", "lm_eval_version"]:
        with subtests.test(missing=missing):
            broken = {key: value for key, value in FOUND.items() if key != missing}
            with pytest.raises(UserErrors, match=r"^file: is no result file of lm-evaluation-harness 0.4$"):
                fold(broken, "file")


def test_a_task_without_numbers() -> None:
    broken = copy.deepcopy(FOUND)
    broken["results"]["own"] = {"alias": "own"}
    with pytest.raises(UserErrors, match="is no result file"):
        fold(broken, "file")


def test_the_command() -> None:
    words = command(recipe(tasks="arc_easy, own", limit=5, include_path="tasks", apply_chat_template=True))
    assert words[:4] == [sys.executable, "-m", "lm_eval", "run"]
    model = "pretrained=outputs/dpo,revision=main,dtype=auto,trust_remote_code=False"
    assert words[4:] == [
        "--model", "hf", "--model_args", model, "--tasks", "arc_easy,own", "--batch_size", "8", "--seed", "42",
        "--output_path", "outputs/dpo/eval/lm_eval", "--limit", "5", "--include_path", "tasks", "--apply_chat_template",
    ]  # fmt: skip
    assert "gsm8k,arc_easy,arc_challenge,openbookqa" in command(recipe())


def double(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """A module `lm_eval` that stands in for the harness; it knows where its results are to go."""
    (folder / "double").mkdir()
    (folder / "double/lm_eval.py").write_text(
        "import sys, pathlib, json\nout = pathlib.Path(sys.argv[sys.argv.index('--output_path') + 1]) / 'm'\n" + body
    )
    monkeypatch.setenv("PYTHONPATH", str(folder / "double"))
    monkeypatch.setattr(lm_eval.importlib.util, "find_spec", lambda name: object())


def test_results_stand_beside_the_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "found.json").write_text(json.dumps(FOUND))
    copied = (
        f"out.mkdir(parents=True); (out / 'results_1.json').write_text(open({str(tmp_path / 'found.json')!r}).read())"
    )
    double(tmp_path, monkeypatch, copied)
    folder = tmp_path / "eval"
    folded = measure(HarnessConfig(model_name_or_path="m", output_dir=str(folder)))
    assert folded == FOLDED | {"results": "lm_eval/m/results_1.json"}
    assert json.loads((folder / "lm_eval.json").read_text()) == folded


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("sys.exit(3)", "lm_eval: ended with status 3; what it says above tells why"),
        ("", "eval/lm_eval: lm_eval left no result there"),
        ("out.mkdir(parents=True); (out / 'results_1.json').write_text('{')", "results_1.json: is not JSON; run")
    ]
)  # fmt: skip
def test_a_harness_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, what: str) -> None:
    double(tmp_path, monkeypatch, body)
    with pytest.raises(UserErrors) as raised:
        measure(HarnessConfig(model_name_or_path="m", output_dir=str(tmp_path / "eval")))
    assert what in str(raised.value)
    assert not (tmp_path / "eval/lm_eval.json").exists()


def test_it_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_eval.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserErrors, match=r"^lm_eval: lm-evaluation-harness is not installed; pip install '\.\[eval\]'$"
    ):
        measure(recipe())


@pytest.mark.slow
def test_a_dry_run_prints_the_command() -> None:
    arguments = ["--model_name_or_path", "m", "--output_dir", "o", "--tasks", "arc_easy", "--dry_run"]
    done = forks.run(["scripts/harness.py", *arguments])
    assert "-m lm_eval run --model hf --model_args pretrained=m," in done.stdout
