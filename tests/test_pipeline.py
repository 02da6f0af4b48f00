"""What a target would run: by `bmc run` in this process, and a few through make."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from bmc import commands
from bmc.errors import UserErrors
from bmc.pipeline import FETCHED, Pipeline, producer
from bmc.recipe_files import ablations, find_ablation, load_recipe

ROOT = Path(__file__).parents[1]
Lines = Callable[..., list[str]]
SMALL = "smollm2-135m/math"
METHODS = ["figa", "ipo", "orpo", "rdpo", "simpo", "dpo", "dpo_cw", "dpo_ew", "dpo_bmc", "dpo_bc", "dpo_mc"]


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Lines:
    """The commands that `bmc run` prints, with outputs in an empty folder."""

    def run(*words: str) -> list[str]:
        capsys.readouterr()
        commands.run([*words, "--dry_run", "--outputs", str(tmp_path)])
        return capsys.readouterr().out.splitlines()

    return run


def short(lines: list[str]) -> list[str]:
    """`stage model/task/recipe` of each command."""
    words = [line.split() for line in lines]
    return [f"{w[1][8:-3]} {w[2].removeprefix('recipes/').removesuffix('.yaml')}" for w in words]


def leave(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("{}")


TO_BRIDGE = ["prepare prepare", "sft sft", "sample sample", "bridge bridge"]


@pytest.mark.parametrize(
    ("run", "rest"),
    [
        ("dpo_bmc", ["preference dpo_bmc", "evaluate eval"]),
        ("dpo_cw", ["sample sample_cw", "preference dpo_cw", "evaluate eval"]),
        ("dpo_ew", ["bridge bridge_ew", "preference dpo_ew", "evaluate eval"]),
        ("dpo_bmc_released", ["preference dpo_bmc_released", "evaluate eval"]),
        ("bridge_ew", ["bridge bridge_ew"]),
        ("ablations/bridge_degrade", ["bridge bridge"]),
        ("ablations/dpo_bmc_degrade", ["bridge bridge", "preference dpo_bmc", "evaluate eval"]),
        ("ablations/dpo_mc_split_2", ["preference dpo_mc", "evaluate eval"]),
    ],
)
@pytest.mark.slow
def test_the_whole_chain_in_order(run: str, rest: list[str], lines: Lines) -> None:
    wanted = [command.replace(" ", " llama2-7b/qa/") for command in [*TO_BRIDGE, *rest]]
    assert short(lines(f"llama2-7b/qa/{run}")) == wanted
    assert short(lines(f"recipes/llama2-7b/qa/{run}.yaml")) == wanted


def test_what_a_run_needs(subtests: pytest.Subtests, lines: Lines) -> None:
    """Released models and published pairs cost no training and no editor."""
    fetched = [] if Path(FETCHED, "config.json").exists() else ["fetch_smollm2"]
    for run, stages in [
        ("mistral-7b/ultrafeedback/dpo", ["prepare", "bridge", "preference", "evaluate"]),
        ("mistral-7b/ultrafeedback/sft", ["prepare", "evaluate"]),
        ("llama2-7b/math/dpo_bmc_released_data", ["sft", "preference", "prepare", "evaluate"]),
        ("llama3-8b/ultrafeedback/dpo_bmc_clair", ["preference", "prepare", "evaluate"]),
        (f"{SMALL}/sft", ["prepare", *fetched, "sft", "evaluate"]),
    ]:
        with subtests.test(run=run):
            assert [command.split()[0] for command in short(lines(run))] == stages


def test_what_is_there_is_not_built_again(lines: Lines, tmp_path: Path) -> None:
    task = tmp_path / "llama2-7b/math"
    leave(task, "prepare/stats.json", "sft/metrics.json", "sample/stats.json", "bridge/stats.json")
    assert [c.split()[0] for c in short(lines("llama2-7b/math/dpo"))] == ["preference", "evaluate"]
    leave(task, "dpo/metrics.json", "dpo/eval/metrics.json")
    assert lines("llama2-7b/math/dpo") == []


@pytest.mark.parametrize(
    ("target", "bridging"),
    [
        (SMALL, f"{SMALL}/bridge"),
        (f"{SMALL}/bridge_ew", f"{SMALL}/bridge_ew"),
        ("llama2-7b/qa/ablations/bridge_degrade", "llama2-7b/qa/ablations/bridge_degrade"),
    ],
)
def test_a_review_comes_after_its_bridging(target: str, bridging: str, lines: Lines, tmp_path: Path) -> None:
    opened = f"python -m bmc review {tmp_path}/{bridging}"
    *before, last = lines(f"{target}/review")
    assert last == opened
    assert before[-1].startswith("python scripts/bridge.py ")
    leave(tmp_path / bridging, "stats.json")
    assert lines(f"{target}/review") == [opened]  # again, each time


def test_a_review_without_a_bridging_is_a_fault(lines: Lines) -> None:
    with pytest.raises(UserErrors, match="dpo/review: llama2-7b/qa/dpo has no bridging"):
        lines("llama2-7b/qa/dpo/review")


def test_the_launcher_starts_training_stages_only(lines: Lines) -> None:
    launcher = "accelerate launch --config_file recipes/accelerate_configs/zero3.yaml"
    started = [line.startswith(launcher) for line in lines("llama2-7b/qa/dpo_bmc", "--launcher", launcher)]
    assert started == [False, True, False, False, True, False]


@pytest.mark.parametrize(
    ("run", "words"), [("dpo", ""), ("ablations/dpo_bmc_delta_1.5", "--bmc_delta 1.5 --output_dir OUT/RUN ")]
)
def test_seeds_are_left_to_the_stage(run: str, words: str, lines: Lines, tmp_path: Path) -> None:
    recipe = "dpo_bmc" if "bmc" in run else run
    leave(tmp_path / "llama2-7b/qa" / run, "seeds.json")
    given = words.replace("OUT/RUN", f"{tmp_path}/llama2-7b/qa/{run}")
    asked = f"python scripts/preference.py recipes/llama2-7b/qa/{recipe}.yaml {given}--seeds 1,2 --launcher"
    made = lines(f"llama2-7b/qa/{run}", "--seeds", "1,2", "--launcher", "accelerate launch")
    assert made[-1] == f'{asked} "accelerate launch"'
    assert len(made) == 5  # prepare, sft, sample, bridge and that


def test_seeds_are_judged_before_anything_runs(subtests: pytest.Subtests, lines: Lines) -> None:
    """A first stage of hours or dollars doesn't come before the fault of a later one."""
    words = r"--seeds: (must be whole numbers from 0, as in 1,2,3|each once), got "
    for seeds in ["x", "1,,2", "-1", "1,1", "1.5"]:
        with subtests.test(seeds=seeds), pytest.raises(UserErrors, match=words):
            lines("table1", f"--seeds={seeds}")


def test_rounds_need_what_no_round_makes(lines: Lines) -> None:
    found = lines(f"{SMALL}/rounds", "--launcher", "accelerate launch")
    assert [line for line in found if "fetch_smollm2" not in line] == [
        f"python scripts/prepare.py recipes/{SMALL}/prepare.yaml",
        f"accelerate launch scripts/sft.py recipes/{SMALL}/sft.yaml",
        f'python scripts/rounds.py recipes/{SMALL}/rounds.yaml --launcher "accelerate launch"',
    ]


def test_a_judge_is_asked_about_what_was_evaluated(lines: Lines, tmp_path: Path) -> None:
    task = tmp_path / "mistral-7b/ultrafeedback"
    leave(task, "sft/eval/metrics.json")
    folder, replies = f"{task}/sft/eval", f"--response_cache {task}/judge.sqlite"
    wanted = [
        f"python scripts/judge.py recipes/judge_{name}.yaml --responses {folder} --output_dir {folder}/{name} {replies}"
        for name in ("alpaca_eval", "arena_hard")
    ]
    assert lines("mistral-7b/ultrafeedback/sft/judge") == wanted
    assert lines(f"{folder}/arena_hard/judge_results.json") == wanted[1:]
    run = "llama3-8b/ultrafeedback/ablations/dpo_split_2"
    *_, evaluated, first, second = lines(f"{run}/judge")
    assert [evaluated.split()[1], first.split()[2], second.split()[2]] == [
        "scripts/evaluate.py", "recipes/judge_alpaca_eval.yaml", "recipes/judge_arena_hard.yaml",
    ]  # fmt: skip
    assert f"--responses {tmp_path}/{run}/eval " in first


@pytest.mark.parametrize(
    ("run", "stage", "words"),
    [
        ("bridge_proportion_0.2", -1, "--proportion 0.2 --response_cache OUT/responses.sqlite --output_dir DIR"),
        ("dpo_bmc_proportion_0.2", -2, "--DATA.id OUT/ablations/bridge_proportion_0.2/train.jsonl --output_dir DIR"),
        ("dpo_bmc_delta_1.5", -2, "--bmc_delta 1.5 --output_dir DIR"),
        ("dpo_bc_split_2", -2, "--DATA.edit_split 2/6 --output_dir DIR"),
        ("bridge_degrade", -1, "--mode degrade --DATA.id OUT/bridge/train.jsonl --output_dir DIR"),
        ("bridge_gpt-4.1", -1, '--model NEW --prices \'{"NEW": {"input": 2, "output": 8}}\' --output_dir DIR'),
    ],
)  # fmt: skip
def test_what_an_ablation_says_on_the_command_line(
    run: str, stage: int, words: str, lines: Lines, tmp_path: Path
) -> None:
    task = f"{tmp_path}/{SMALL}"
    words = words.replace("DATA", "dataset_mixture.datasets.0").replace("NEW", "gpt-4.1-2025-04-14")
    wanted = words.replace("OUT", task).replace("DIR", f"{task}/ablations/{run}")
    assert lines(f"{SMALL}/ablations/{run}")[stage].split(" ", 3)[3] == wanted


def test_a_cache_that_the_recipe_names_is_not_overridden(lines: Lines) -> None:
    command = lines("mistral-7b/ultrafeedback/ablations/bridge_proportion_0.2")[-1]
    assert "--proportion 0.2" in command
    assert "--response_cache" not in command  # the recipe's own, which all models share


def test_every_ablation_is_its_recipe_with_the_words_of_its_command() -> None:
    """The path of an ablation and the command that `bmc run` prints give the same values."""
    from bmc.config import BridgeConfig
    from bmc.recipe import resolve
    from bmc.training.config import BMCConfig, ModelArguments, PreferenceArguments

    names = ablations((ROOT / "recipes/ablations.yaml").resolve())
    assert len(names) == 6 + 6 + 5 + 5 + 6 + 24
    for name in names:
        recipe = producer(f"outputs/llama2-7b/qa/ablations/{name}")
        assert recipe is not None
        pipeline = Pipeline()
        pipeline._step(recipe, recipe.overrides())
        (step,) = pipeline.steps
        classes = [BridgeConfig] if recipe.stage == "bridge" else [PreferenceArguments, ModelArguments, BMCConfig]
        assert resolve(step.words[1:], *classes)[1] == recipe.values


def test_an_unknown_ablation_names_the_nearest() -> None:
    with pytest.raises(UserErrors, match=r"no such ablation \(did you mean 'dpo_bmc_delta_1.0'\?\)"):
        load_recipe(Path("recipes/llama2-7b/qa/ablations/dpo_bmc_delta_1.4.yaml"))
    assert find_ablation(Path("recipes/llama2-7b/qa/dpo.yaml")) is None


@pytest.mark.parametrize("model", [None, "smollm2-135m"])
def test_table1(model: str | None, lines: Lines) -> None:
    run = short(lines("table1", *(["--model", model] if model else [])))
    tasks = [SMALL] if model else ["llama2-7b/qa", "llama2-7b/math"]
    trained = [f"preference {task}/{method}" for method in METHODS for task in tasks]
    assert [command for command in run if command.startswith("preference")] == trained
    for task in tasks:
        assert run.count(f"evaluate {task}/eval") == 1 + len(METHODS)
        before = [run.index(command.replace(" ", f" {task}/")) for command in TO_BRIDGE]
        assert before == sorted(before)
        assert before[-1] < run.index(f"preference {task}/figa")
        assert run.index(f"sample {task}/sample_cw") < run.index(f"preference {task}/dpo_cw")
    assert run[-1] == "table table1"


def test_figure4(lines: Lines, tmp_path: Path) -> None:
    made = lines("figure4")
    trained = [line.split()[2:5] for line in made if "scripts/preference.py" in line]
    recipe = "recipes/llama2-7b/qa/dpo_bmc.yaml"
    deltas = [[recipe, "--bmc_delta", delta] for delta in ("1.0", "1.5", "2.0", "2.5", "3.5")]
    assert trained == [["recipes/llama2-7b/qa/dpo.yaml"], *deltas[:4], [recipe], deltas[4]]
    assert made[-1] == f"python scripts/table.py figure4 --runs {tmp_path}"


@pytest.mark.parametrize(
    ("task", "held_out"),
    [
        ("llama2-7b/math", ["sample sample_held_out", "bridge bridge_held_out"]),
        ("llama3-8b/ultrafeedback", ["bridge bridge_held_out"]),
        ("smollm2-135m/qa", []),
    ],
)
def test_an_analysis_builds_its_runs_and_pairs(task: str, held_out: list[str], lines: Lines, tmp_path: Path) -> None:
    run = [command.replace(f"{task}/", "") for command in short(lines(f"{task}/analyze"))]
    methods = ["dpo", "dpo_mc", "dpo_bc", "dpo_bmc"]
    assert [command for command in run if command.endswith("held_out")] == held_out
    assert [command for command in run if command.startswith("preference")] == [f"preference {m}" for m in methods]
    assert not any(command.startswith("evaluate") for command in run)
    assert run[-1] == "analyze analyze"
    leave(tmp_path / task, *(f"{method}/metrics.json" for method in methods))
    leave(
        tmp_path / task, *(f"{name}/stats.json" for name in ("prepare", "sample_held_out", "bridge_held_out", "bridge"))
    )
    assert short(lines(f"{task}/analyze")) == [f"analyze {task}/analyze"]  # anew


@pytest.mark.slow
def test_figures_of_a_model_and_task(lines: Lines) -> None:
    def trained(figure: str) -> list[str]:
        folders = [
            line.split("--output_dir ")[-1].split()[-1]
            for line in lines(f"{SMALL}/{figure}")
            if "preference.py" in line
        ]
        return [folder.rpartition("/")[2].removesuffix(".yaml") for folder in folders]

    deltas = [f"dpo_bmc_delta_{delta}" for delta in ("1.0", "1.5", "2.0", "3.0", "3.5")]  # 2.5 is the recipe's own
    assert trained("figure4") == ["dpo", *deltas, "dpo_bmc"]
    assert len(trained("figure3")) == 7
    assert len(trained("figure5")) == 24
    assert sum("judge.py" in line for line in lines("llama3-8b/ultrafeedback/figure5")) == 24


def test_a_table_skips_what_is_there(lines: Lines, tmp_path: Path) -> None:
    leave(tmp_path / "qwen2.5-14b/ultrafeedback", "prepare/stats.json", "bridge/stats.json", "sft/metrics.json",
          "dpo/metrics.json", "dpo/eval/metrics.json")  # fmt: skip
    stages = ["preference", "evaluate", *["judge"] * 4, "table"]
    assert [command.split()[0] for command in short(lines("table11"))] == stages


JUDGED = {"table2": 48, "table3": 5, "table4": 3, "table5": 10, "table11": 4, "figure5": 24, "table1": 0, "bridging": 0}


@pytest.mark.slow
def test_tables_of_chat_end_with_a_judge(lines: Lines) -> None:
    """Each run's benchmarks that the table shows: 24 × 2, 5, 3, 10, 2 × 2, 24."""
    for table, judges in JUDGED.items():
        stages = [command.split()[0] for command in short(lines(table))]
        assert stages[-1] == "table"
        assert stages.count("judge") == judges, table
        assert stages[-1 - judges : -1] == ["judge"] * judges


# --- recipes that no file name tells about -------------------------------------------------------------------------

OWN = {
    "lab/notes/raw.yaml": "{stage: prepare, output_dir: outputs/lab/zero}",
    "lab/notes/first.yaml": "{stage: sft, model_name_or_path: some/model, output_dir: outputs/lab/one,"
    " dataset_mixture: {datasets: [{id: outputs/lab/zero/train.jsonl}]}}",
    "lab/notes/pairs.yaml": "{stage: sample, model_name_or_path: outputs/lab/one, output_dir: outputs/lab/two,"
    " dataset_mixture: {datasets: [{id: outputs/lab/zero/train.jsonl}]}}",
    "lab/notes/sample_of_edits.yaml": "stage: bridge\noutput_dir: outputs/lab/three\ndataset_mixture:\n  datasets:\n"
    "    - {id: outputs/lab/two/train.jsonl}\n",
    "lab/notes/bridge_of_sighs.yaml": "stage: train\nmodel_name_or_path: outputs/lab/one\n"
    "output_dir: outputs/lab/four\ndataset_mixture: {datasets: [{id: outputs/lab/three/train.jsonl}]}\n",
    "lab/notes/score.yaml": "{stage: evaluate, model_name_or_path: outputs/lab/one, output_dir: outputs/lab/one/eval,"
    " dataset_mixture: {datasets: [{id: outputs/lab/zero/test.jsonl}]}}",
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in OWN.items():
        (tmp_path / "recipes" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "recipes" / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "recipes/lab/notes"


def planned(target: str) -> list[str]:
    pipeline = Pipeline()
    pipeline.add(target)
    return [pipeline.shown(step) for step in pipeline.steps]


@pytest.mark.parametrize("target", ["lab/notes/bridge_of_sighs", "recipes/lab/notes/bridge_of_sighs.yaml"])
def test_flow_style_and_names_that_mislead(target: str, own: Path) -> None:
    """A stage is what the recipe says, and its input comes from the recipe that writes it, whatever they are called."""
    stages = ["prepare raw", "sft first", "sample pairs", "bridge sample_of_edits", "preference bridge_of_sighs"]
    commands = [f"python scripts/{s.split()[0]}.py recipes/lab/notes/{s.split()[1]}.yaml" for s in stages]
    scored = "--model_name_or_path outputs/lab/four --output_dir outputs/lab/four/eval"
    assert planned(target) == [*commands, f"python scripts/evaluate.py recipes/lab/notes/score.yaml {scored}"]


def test_a_recipe_without_an_evaluation_is_only_trained(own: Path) -> None:
    (own / "score.yaml").unlink()
    assert [line.split()[1] for line in planned("lab/notes/bridge_of_sighs")][-1] == "scripts/preference.py"


def test_faults_of_a_pipeline(subtests: pytest.Subtests, own: Path) -> None:
    for name, text, fault in [
        ("a", "{output_dir: outputs/a}", "HERE/a.yaml: stage: is missing; add one of prepare, sft, "),
        ("a", "{stage: brigde}", "HERE/a.yaml: stage: 'brigde' is unknown (did you mean 'bridge'?); "),
        ("a", "{stage: sample}", "HERE/a.yaml: output_dir: is missing; add it to the recipe"),
        (
            "a",
            "{stage: sample, output_dir: outputs/a, model_name_or_path: outputs/lab/onn}",
            "outputs/lab/onn: isn't there, and no recipe in recipes/ writes it (did you mean 'outputs/lab/one'?)",
        ),
        ("other", "{stage: evaluate, output_dir: outputs/b}", None),
    ]:
        with subtests.test(name=name):
            (own / f"{name}.yaml").write_text(text)
            with pytest.raises(UserErrors) as raised:
                planned(f"lab/notes/{'bridge_of_sighs' if fault is None else name}")
            fault = fault or "HERE/bridge_of_sighs.yaml: eval_recipe: several could evaluate it; write one of "
            assert str(raised.value).startswith(fault.replace("HERE", "recipes/lab/notes"))


def test_recipes_that_read_each_other(own: Path) -> None:
    (own / "first.yaml").write_text(
        "{stage: sft, model_name_or_path: outputs/lab/four, output_dir: outputs/lab/one,"
        " dataset_mixture: {datasets: [{id: outputs/lab/zero/train.jsonl}]}}"
    )
    with pytest.raises(UserErrors, match=r"reads what it makes in turn: .*outputs/lab/four → .*; break the circle"):
        planned("lab/notes/bridge_of_sighs")


def test_a_checkpoint_is_of_its_run_and_what_is_there_needs_no_recipe(own: Path) -> None:
    (own / "late.yaml").write_text(
        "{stage: sft, model_name_or_path: outputs/lab/one/checkpoint-5, output_dir: outputs/lab/late,"
        " dataset_mixture: {datasets: [{id: outputs/elsewhere/rows.jsonl}]}}"
    )
    leave(own.parents[2], "outputs/elsewhere/rows.jsonl")
    assert [line.split("/")[-1] for line in planned("lab/notes/late")[:3]] == ["raw.yaml", "first.yaml", "late.yaml"]


def test_without_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserErrors, match=r"recipes/: isn't in .*; run it from the repository's root"):
        planned("llama2-7b/qa/dpo")


def test_an_unknown_target(own: Path) -> None:
    with pytest.raises(
        UserErrors, match=r"^lab/notes/pair: there is no such target \(did you mean 'lab/notes/pairs'\?\)"
    ):
        planned("lab/notes/pair")


def test_the_first_stage_that_fails_ends_a_run(own: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (own.parents[2] / "scripts").mkdir()
    for stage, status in (("prepare", 0), ("sft", 75), ("sample", 0)):
        code = f"import pathlib, sys; pathlib.Path('{stage}').touch(); print('{stage} runs'); sys.exit({status})"
        (own.parents[2] / f"scripts/{stage}.py").write_text(code)
    with pytest.raises(SystemExit) as ended:
        commands.run(["lab/notes/pairs"])
    assert ended.value.code == 75
    assert capfd.readouterr().out.splitlines() == [
        "python scripts/prepare.py recipes/lab/notes/raw.yaml", "prepare runs",
        "python scripts/sft.py recipes/lab/notes/first.yaml", "sft runs",
    ]  # fmt: skip


# --- make ----------------------------------------------------------------------------------------------------------


def make(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Make with this Python first on the path and no virtual environment of its own."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["make", "--no-print-directory", "VENV=none", *words],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PATH": path, **environment},
    )  # fmt: skip


@pytest.mark.slow
def test_make_forwards(tmp_path: Path) -> None:
    made = make("DRY_RUN=1", f"OUT={tmp_path}", "SEEDS=1,2", "LAUNCHER=accelerate launch", "llama2-7b/qa/dpo")
    last = "python scripts/preference.py recipes/llama2-7b/qa/dpo.yaml --seeds 1,2 --launcher"
    assert made.stdout.splitlines()[-1] == f'{last} "accelerate launch"'
    assert make("-n", "table1", "MODEL=smollm2-135m").stdout.splitlines()[-1] == (
        "python scripts/table.py table1 --model smollm2-135m --runs outputs"
    )
    wrong = make("DRY_RUN=1", "table1", "MODEL=smollm")
    assert wrong.returncode == 2
    assert "model: table1 has no 'smollm' (did you mean 'smollm2-135m'?)" in wrong.stderr


def test_make_runs_the_harness_on_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "llama2-7b/qa/dpo"
    leave(folder, "metrics.json")
    asked = f"python scripts/harness.py --model_name_or_path {folder} --output_dir {folder}/eval --tasks gsm8k,own"
    made = make("DRY_RUN=1", f"OUT={tmp_path}", "lm_eval", "RECIPE=llama2-7b/qa/dpo", "TASKS=gsm8k,own")
    assert made.stdout.splitlines() == [asked]
    assert make("lm_eval").returncode == 2


TARGETS = ["demo", "test", "test-fast", "quality", "style", "install", "extras", "help", "plan", "bench",
           "bench-bridging", "bench-generation", "clean"]  # fmt: skip


@pytest.mark.slow
def test_make_has_its_targets_and_lists_what_there_is() -> None:
    assert make("-n", *TARGETS).returncode == 0
    shown = make("help").stdout
    assert all(f"make {target} " in shown for target in TARGETS)
    assert all(word in shown for word in ["table1", "figure5", "bridging", "make llama2-7b/qa/dpo_bmc"])


@pytest.mark.parametrize("given", ["", "python3.10"])
def test_a_python_is_found_or_asked_for(given: str, tmp_path: Path) -> None:
    """One that is too old doesn't do; without any, a sentence says what to install."""
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path), "PYTHON": given}
    command = ["/bin/sh", str(ROOT / ".ci/find_python")]
    none = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (none.returncode, none.stdout) == (2, "")
    assert "no Python from 3.11 on" in none.stderr
    assert "make install PYTHON=" in none.stderr
    found = tmp_path / ".pyenv/versions/3.12.1/bin/python"
    found.parent.mkdir(parents=True)
    found.symlink_to(sys.executable)
    if not given:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.stdout == f"{found}\n"


def test_ablations_name_recipes_that_exist() -> None:
    listed = yaml.safe_load((ROOT / "recipes/ablations.yaml").read_text())
    recipes = {entry["recipe"] for entry in listed["runs"].values()} - {"{method}"} | set(listed["values"]["method"])
    assert all((ROOT / f"recipes/llama2-7b/qa/{recipe}.yaml").is_file() for recipe in recipes)
