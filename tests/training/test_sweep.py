"""Sweeps and seeds around a launcher that trains nothing: it writes the numbers that a training would leave."""

import json
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from bmc.analysis.results import method_and_seed
from bmc.errors import UserErrors
from bmc.evaluation.summary import seed_summary, seeds_cell
from bmc.recipe import parse
from bmc.runs import Preempted
from bmc.training import sweep as trial
from bmc.training.config import BMCConfig, ModelArguments, PreferenceArguments
from bmc.training.sweep import describe_sweep, label, last_words, line_search, refuse_launcher, seeds, sweep, table_7

# Stands for `accelerate launch`: notes its command, then fails, or leaves a score by the learning rate or the seed.
LAUNCHER = """
import json, pathlib, sys
given = dict(word[2:].split("=", 1) for word in sys.argv[3:] if "=" in word)
with open("commands.txt", "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
folder = pathlib.Path(given["output_dir"])
folder.mkdir(parents=True, exist_ok=True)
(folder / "model.safetensors").write_text("weights")
(folder / "checkpoint-1").mkdir(exist_ok=True)
rate = float(given.get("learning_rate", 0))
if rate == 9e-6 and not pathlib.Path("repaired").exists():
    sys.exit("[rank0]: Traceback\\n[rank0]: RuntimeError: out of memory\\nsome launcher's table")
score = {1e-6: 0.5, 2e-6: 0.75, 3e-6: 0.75}.get(rate, 0.25)
metrics = {"eval_rewards/accuracies": score, "eval_rows": 8, "seconds": 3}
(folder / "metrics.json").write_text(json.dumps(metrics))
if "seed" in given:
    hits = {"1": 40, "2": 44}[given["seed"]]
    result = {"n": 80, "correct": hits, "accuracy": hits / 80, "interval": [0.4, 0.6]}
    (folder / "eval").mkdir(exist_ok=True)
    (folder / "eval/metrics.json").write_text(json.dumps({"results": {"sums": result}, "seconds": 1}))
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe in a folder that has pairs, rows to validate on without answers, and the launcher."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["scripts/preference.py"])
    (tmp_path / "launch.py").write_text(LAUNCHER)
    (tmp_path / "validation.jsonl").write_text('{"prompt": "Hello"}\n')
    base = {"model_name_or_path": "m", "output_dir": "out/dpo", "use_cpu": True, "bf16": False}
    mixture = {"datasets": [{"id": "pairs.jsonl"}], "test_split_size": 0.5}
    (tmp_path / "dpo.yaml").write_text(yaml.safe_dump({**base, "dataset_mixture": mixture, "launcher": launcher()}))
    rows = {"dataset_mixture": {"datasets": [{"id": "test.jsonl"}]}, "model_name_or_path": "m", "output_dir": "out"}
    (tmp_path / "eval.yaml").write_text(yaml.safe_dump(rows))
    return tmp_path / "dpo.yaml"


def launcher() -> str:
    return f"{sys.executable} launch.py"


def parsed(argv: list[str]) -> tuple[Any, Any]:
    arguments, _, config = parse(argv, PreferenceArguments, ModelArguments, BMCConfig)
    return arguments, config


def swept(*argv: str) -> str:
    given = ["dpo.yaml", *argv]
    return sweep(given, *parsed(given))


def commands() -> list[list[str]]:
    return [json.loads(line) for line in Path("commands.txt").read_text().splitlines()]


def faults(*argv: str) -> list[str]:
    with pytest.raises(UserErrors) as caught:
        swept(*argv)
    return str(caught.value).splitlines()


RATES = "--sweep.learning_rate=[1e-6, 2e-6, 9e-6, 3e-6]"


def test_every_point_is_scored_and_the_first_of_the_best_is_left_as_a_recipe(recipe: Path) -> None:
    table = swept(RATES, "--beta", "0.2")
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert [line.split(" | ")[1].split(" [")[0] for line in lines] == [
        "50.0", "**75.0", "failed: RuntimeError: out of memory", "75.0"
    ]  # fmt: skip
    assert "4 of 4 points" in table
    best = Path("out/dpo-sweep/best.yaml")
    assert best.read_text().startswith("# The best point of a sweep: 75.0 [40.9, 92.9] (n = 8) %")
    assert yaml.safe_load(best.read_text()) == {
        "extends": "../../dpo.yaml", "beta": 0.2, "learning_rate": 2e-6, "output_dir": "out/dpo"
    }  # fmt: skip
    arguments, config = parsed([str(best)])
    assert (config.learning_rate, config.beta, config.output_dir, arguments.sweep) == (2e-6, 0.2, "out/dpo", None)
    assert all("--do_eval=true" in command for command in commands())  # each scores itself
    folders = [Path(f"out/dpo-sweep/learning_rate={rate}e-06") for rate in (1, 2, 3)]
    for name, kept in (("model.safetensors", [False, True, False]), ("checkpoint-1", [False, True, False])):
        assert [(folder / name).exists() for folder in folders] == kept  # the best point alone keeps its weights
    assert all((folder / "metrics.json").exists() for folder in folders)


def test_a_sweep_goes_on_where_it_was_and_tries_again_what_failed(recipe: Path) -> None:
    swept(RATES)
    assert len(commands()) == 4
    Path("repaired").touch()
    table = swept("--sweep.learning_rate=[1e-6, 2e-6, 9e-6, 3e-6, 5e-6]")
    assert [command[-2] for command in commands()[4:]] == ["--learning_rate=9e-06", "--learning_rate=5e-06"]
    assert "failed" not in table
    state = json.loads(Path("out/dpo-sweep/sweep.json").read_text())
    assert [point["accuracy"] for point in state["points"]] == [0.5, 0.75, 0.25, 0.75, 0.25]
    assert state["best"] == 1


def test_another_recipe_doesn_t_go_on_in_the_folder(recipe: Path) -> None:
    swept("--sweep.learning_rate=[1e-6]")
    folder = Path("out/dpo-sweep/learning_rate=1e-06")
    (folder / "recipe.json").write_text(json.dumps({"beta": 7}))
    assert "holds a run of another recipe" in faults("--sweep.learning_rate=[1e-6]")[0]


def test_failures_and_a_missing_launcher_are_faults(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert faults("--sweep.beta=[0.1]", "--launcher=accelerrate launch") == [
        "launcher: 'accelerrate' can't be started (No such file or directory)"
    ]
    assert faults("--sweep.learning_rate=[9e-6]") == [
        "out/dpo-sweep: no point could be trained; the last said: RuntimeError: out of memory"
    ]
    assert "RuntimeError: out of memory" in Path("out/dpo-sweep/learning_rate=9e-06.log").read_text()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserErrors, match="run it by python"):
        refuse_launcher()


def test_what_is_wrong_is_said_before_anything_is_trained(subtests: pytest.Subtests, recipe: Path) -> None:
    for argv, said in [
        (["--sweep.betta=[1]"], "command line: sweep: betta: unknown key (did you mean 'beta'?)"),
        (["--sweep.beta=[0.1, -1]"], "command line: sweep: beta: must be greater than 0, got -1"),
        (["--sweep.beta=[]"], "command line: sweep.beta: lists no value"),
        (["--sweep.output_dir=[a]"], "command line: sweep.output_dir: can't be swept; leave it out"),
        (
            ["--sweep.simpo_gamma=[1.0]"],
            "command line: sweep: simpo_gamma: sigmoid doesn't read it; leave it out (it is of simpo)",
        ),
        (
            ["--loss_type=hinge", "--sweep"],
            "sweep: Table 7 has no ranges for hinge; write them: `sweep: {beta: [0.1, 0.5]}`",
        ),
        (
            ["--sweep", "--seeds=1,2"],
            "command line: seeds: not together with a sweep; train the sweep's best recipe with them",
        ),
        (["--seeds=1,1"], "command line: seeds: each once, got 1,1"),
        (["--seeds=1,x"], "command line: seeds: must be whole numbers from 0, as in 1,2,3, got 1,x"),
    ]:
        with subtests.test(argv=argv, said=said):
            assert faults(*argv) == [said]
            assert not Path("commands.txt").exists()


def test_a_sweep_needs_rows_to_score_on(recipe: Path) -> None:
    grid = "--sweep.beta=[0.1]"
    assert faults(grid, "--dataset_mixture.test_split_size=null") == [
        "eval.yaml: its rows have no answers to compare; hold out pairs (dataset_mixture.test_split_size: 0.05)"
    ]
    Path("validation.jsonl").write_text("")
    assert faults(grid) == [
        "validation.jsonl: holds no rows; set validation_datasets or validation_fraction where the data are prepared"
    ]
    Path("eval.yaml").unlink()
    assert faults(grid) == ["eval_recipe: is missing; no eval.yaml stands beside the recipe"]


# Table 7 and A.3 of the paper
def test_the_default_grid_is_the_paper_s(subtests: pytest.Subtests, recipe: Path) -> None:
    for options, count, keys in [
        (["--loss_type=figa"], 4 * 3 * 3, ["learning_rate", "figa_alpha", "figa_beta"]),
        (["--loss_type=ipo"], 4 * 4, ["learning_rate", "beta"]),
        (["--loss_type=orpo"], 4 * 4, ["learning_rate", "orpo_lambda"]),
        (["--loss_type=rdpo"], 4 * 4 * 3, ["learning_rate", "rdpo_alpha", "beta"]),
        (["--loss_type=simpo"], 4 * 2 * 6, ["learning_rate", "beta", "simpo_gamma"]),
        ([], 4 * 3, ["learning_rate", "beta"]),
        (["--token_weighting=bmc"], 4 * 3 * 5, ["learning_rate", "beta", "bmc_delta"]),
        (["--loss_type=ipo", "--token_weighting=bmc"], 4 * 4, ["learning_rate", "beta"]),
    ]:
        with subtests.test(options=options, count=count):
            _, config = parsed(["dpo.yaml", "--sweep", *options])
            assert list(table_7(config)) == keys
            assert math.prod(map(len, table_7(config).values())) == count


def test_sweep_on_the_command_line_leaves_the_recipe_s_grid(recipe: Path) -> None:
    recipe.write_text(recipe.read_text() + "sweep: {beta: [0.1, 0.2]}\n")
    given = ["dpo.yaml", "--sweep"]
    assert describe_sweep(given, *parsed(given)) == "2 points of beta, in out/dpo-sweep"
    swept()
    assert yaml.safe_load(Path("out/dpo-sweep/best.yaml").read_text())["sweep"] is None


def test_seeds_give_mean_and_standard_deviation(recipe: Path) -> None:
    given = ["dpo.yaml", "--seeds", "1,2"]
    table = seeds(given, *parsed(given))
    # 40/80 and 44/80: mean 52.5, sd 5/√2 = 3.54 points, ± 12.706 · 2.5
    assert "| sums | 52.5 ± 3.5 [20.7, 84.3] (2 seeds, n = 80) |" in table
    assert [command[-2:] for command in commands()] == [
        [f"--seed={n}", f"--output_dir=out/dpo/seed_{n}"] for n in (1, 2)
    ]
    assert json.loads(Path("out/dpo/seeds.json").read_text())["results"]["sums"]["accuracies"] == [0.5, 0.55]
    seeds(given, *parsed(given))
    assert len(commands()) == 2  # not trained twice


def test_a_summary_of_one_seed_has_no_deviation() -> None:
    one = seed_summary([{"accuracy": 0.5, "n": 10}])
    assert seeds_cell(one) == "50.0 (1 seed, n = 10)"


def test_runs_of_seeds_are_known_by_their_names() -> None:
    assert method_and_seed("qa/dpo/seed_12") == ("qa/dpo", 12)
    assert method_and_seed("qa/dpo") == ("qa/dpo", None)
    assert method_and_seed("qa/dpo_seed_x") == ("qa/dpo_seed_x", None)


def test_the_last_words_are_those_of_the_error() -> None:
    log = (
        "step 1\n[rank1]: ValueError: b\n[rank0]: torch.OutOfMemoryError: CUDA out of memory\nE1125 elastic: Root cause"
    )
    assert last_words(log) == "torch.OutOfMemoryError: CUDA out of memory"
    assert last_words("a.jsonl: row 3: is empty\n\n") == "a.jsonl: row 3: is empty"
    assert last_words("") == "ended without a word"


def test_a_label_is_a_file_name() -> None:
    assert label({"learning_rate": 5e-7, "loss_type": ["a", "b"], "model": "x/y"}) == (
        "learning_rate=5e-07,loss_type=_a_,_b_,model=x_y"
    )


SAVES = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("ready", flush=True)
time.sleep(60)
"""


def test_a_preempted_training_ends_the_sweep_as_preempted_and_not_as_failed(tmp_path: Path) -> None:
    with pytest.raises(Preempted):
        trial._process([sys.executable, "-c", "raise SystemExit(75)"], tmp_path / "log")

    def terminate_when_ready() -> None:
        while "ready" not in log.read_text().splitlines():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    log = tmp_path / "other_log"
    log.touch()
    threading.Thread(target=terminate_when_ready).start()
    with pytest.raises(Preempted):
        trial._process([sys.executable, "-c", SAVES], log)


def test_a_line_search_climbs_and_turns() -> None:
    """Accuracy peaks at learning rate 9e-6 and β 0.1/3: seven points from 1e-6 and 0.1."""
    peak = {"learning_rate": 9e-6, "beta": 0.1 / 3}

    def accuracy(point: dict[str, float]) -> float:
        return -sum(abs(math.log(point[key] / peak[key])) for key in peak)

    search = line_search({"learning_rate": 1e-6, "beta": 0.1})
    points = [next(search)]
    try:
        while True:
            points.append(search.send(accuracy(points[-1])))
    except StopIteration:
        pass
    assert [tuple(point.values()) for point in points] == [
        (1e-6, 0.1), (3e-6, 0.1), (9e-6, 0.1), (2.7e-5, 0.1), (9e-6, 0.3), (9e-6, 0.0333333), (9e-6, 0.0111111),
    ]  # fmt: skip


def test_a_small_sweep_resumes_and_ends_with_its_hours(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--sweep=small", "--learning_rate=1e-6")
    assert "line search over learning_rate and beta" in describe_sweep(
        ["dpo.yaml", *given], *parsed(["dpo.yaml", *given])
    )
    # each training takes 3 s: after two of them a third would end at 9 s, after 0.002 h = 7.2 s
    table = swept(*given, "--sweep_hours=0.002")
    assert "2 points, a single run each" in table
    assert "stopped after 2 points" in capsys.readouterr().err
    swept(*given)
    kept = json.loads(Path("out/dpo-sweep/sweep.json").read_text())
    # up from 1e-6 (0.5) to 3e-6 (0.75), no further; β neither up nor down, since the score doesn't depend on it
    tried = [(point["values"]["learning_rate"], point["values"]["beta"]) for point in kept["points"]]
    assert tried == [(1e-6, 0.1), (3e-6, 0.1), (9e-6, 0.1), (3e-6, 0.3), (3e-6, 0.0333333)]
    assert (kept["best"], "failed" in kept["points"][2]) == (1, True)
    assert len(commands()) == 5  # nothing ran twice
