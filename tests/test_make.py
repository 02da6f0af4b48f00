"""What `make SETTING/RECIPE` would run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def chain(*arguments: str, out: Path) -> list[str]:
    """`script recipe` of each command that make prints, in order."""
    run = subprocess.run(
        ["make", "--no-print-directory", "DRY_RUN=1", f"OUT={out}", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return run.stdout.splitlines()


def test_the_whole_chain_in_order(tmp_path: Path) -> None:
    lines = chain("llama2-7b/qa/dpo_bmc", out=tmp_path)
    stages = ["prepare", "sft", "sample", "bridge", "preference", "evaluate"]
    recipes = ["prepare", "sft", "sample", "bridge", "dpo_bmc", "eval"]
    wanted = [f"scripts/{s}.py recipes/llama2-7b/qa/{r}.yaml" for s, r in zip(stages, recipes, strict=True)]
    assert [" ".join(line.split()[1:3]) for line in lines] == wanted


def test_released_sft_models_need_no_sft(tmp_path: Path) -> None:
    lines = chain("mistral-7b/ultrafeedback/dpo", out=tmp_path)
    assert [line.split()[1] for line in lines] == [
        f"scripts/{stage}.py" for stage in ("prepare", "bridge", "preference", "evaluate")
    ]


def test_what_is_there_is_not_built_again(tmp_path: Path) -> None:
    for name in ("prepare/stats.json", "sft/metrics.json", "sample/stats.json", "bridge/stats.json"):
        path = tmp_path / "llama2-7b/math" / name
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    lines = chain("llama2-7b/math/dpo", out=tmp_path)
    assert [line.split()[1] for line in lines] == ["scripts/preference.py", "scripts/evaluate.py"]


def test_a_judge_is_asked_about_what_was_evaluated(tmp_path: Path) -> None:
    folder = tmp_path / "mistral-7b/ultrafeedback/sft/eval"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text("{}")
    lines = chain("mistral-7b/ultrafeedback/sft/judge", out=tmp_path)
    replies = f"--replies {tmp_path}/mistral-7b/ultrafeedback/judge.sqlite"
    assert lines == [
        f"python scripts/judge.py recipes/judge_{name}.yaml --responses {folder} --output_dir {folder}/{name} {replies}"
        for name in ("alpaca_eval", "arena_hard")
    ]


def test_the_harness_runs_on_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "llama2-7b/qa/dpo"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text("{}")
    asked = f"python scripts/harness.py --model_name_or_path {folder} --output_dir {folder}/eval --tasks gsm8k,own"
    assert [line.rstrip() for line in chain("lm_eval", "RECIPE=llama2-7b/qa/dpo", "TASKS=gsm8k,own", out=tmp_path)] == [
        asked
    ]


def test_the_launcher_starts_training_stages_only(tmp_path: Path) -> None:
    launcher = "accelerate launch --config_file recipes/accelerate_configs/zero3.yaml"
    lines = chain("llama2-7b/qa/dpo_bmc", f"LAUNCHER={launcher}", out=tmp_path)
    assert [line.startswith(launcher) for line in lines] == [False, True, False, False, True, False]


def test_seeds_are_left_to_the_script(tmp_path: Path) -> None:
    arguments = ["llama2-7b/qa/dpo", "SEEDS=1,2", "LAUNCHER=accelerate launch"]
    lines = chain(*arguments, out=tmp_path)
    asked = "python scripts/preference.py recipes/llama2-7b/qa/dpo.yaml --seeds 1,2 --launcher"
    assert lines[-1] == f'{asked} "accelerate launch"'
    assert len(lines) == 5  # prepare, sft, sample, bridge and that
    made = tmp_path / "llama2-7b/qa/dpo/seeds.json"
    made.parent.mkdir(parents=True)
    made.write_text("{}")
    assert chain("llama2-7b/qa/dpo", "SEEDS=1,2,3", out=tmp_path)[-1].endswith("--seeds 1,2,3")


def commands(*arguments: str, out: Path) -> list[str]:
    """`script recipe` of each command, without `scripts/`, `recipes/` and endings: `sft llama2-7b/qa/sft`."""
    words = [line.split() for line in chain(*arguments, out=out)]
    return [f"{w[1][8:-3]} {w[2].removeprefix('recipes/').removesuffix('.yaml')}" for w in words]


TO_BRIDGE = ["prepare prepare", "sft sft", "sample sample", "bridge bridge"]


@pytest.mark.parametrize(
    ("run", "rest"),
    [
        ("dpo_cw", ["sample sample_cw", "preference dpo_cw", "evaluate eval"]),
        ("dpo_ew", ["bridge bridge_ew", "preference dpo_ew", "evaluate eval"]),
        ("simpo_bmc", ["preference simpo_bmc", "evaluate eval"]),
        ("dpo_bmc_released", ["preference dpo_bmc_released", "evaluate eval"]),
        ("bridge_ew", ["bridge bridge_ew"]),
        (
            "ablations/dpo_bmc_degrade",
            ["bridge ablations/bridge_degrade", "preference dpo_bmc", "evaluate eval"],
        ),
        ("ablations/dpo_mc_split_2", ["preference dpo_mc", "evaluate eval"]),
    ],
)
def test_a_method_finds_what_it_reads(run: str, rest: list[str], tmp_path: Path) -> None:
    wanted = [command.replace(" ", " llama2-7b/qa/") for command in [*TO_BRIDGE, *rest]]
    assert commands(f"llama2-7b/qa/{run}", out=tmp_path) == wanted


@pytest.mark.parametrize(
    ("run", "stages"),
    [
        ("llama2-7b/qa/dpo_bmc_released_data", ["prepare", "sft", "preference", "evaluate"]),
        ("llama2-7b/math/dpo_bmc_released_data", ["prepare", "sft", "preference", "evaluate"]),
        ("mistral-7b/ultrafeedback/dpo_bmc_released_data", ["prepare", "preference", "evaluate"]),
        ("llama3-8b/ultrafeedback/dpo_bmc_clair", ["prepare", "preference", "evaluate"]),
    ],
)
def test_published_pairs_cost_nothing(run: str, stages: list[str], tmp_path: Path) -> None:
    """No sampling and no editor; the benchmarks are prepared for the evaluation."""
    asked = commands(run, out=tmp_path)
    assert sorted(command.split()[0] for command in asked) == sorted(stages)
    assert f"preference {run}" in asked
    if run.startswith("llama2-7b"):
        assert f"sft {run.replace('dpo_bmc', 'sft')}" in asked


def test_an_editor_makes_its_own_choice_of_pairs(tmp_path: Path) -> None:
    run = commands("llama2-7b/math/ablations/dpo_bmc_llama3-70b", out=tmp_path)
    assert run[3:5] == ["bridge llama2-7b/math/ablations/bridge_llama3-70b", "preference llama2-7b/math/dpo_bmc"]


def test_what_an_ablation_says_on_the_command_line(tmp_path: Path) -> None:
    folder = f"{tmp_path}/smollm2-135m/math/ablations"

    def options(run: str) -> list[list[str]]:
        lines = chain(f"smollm2-135m/math/ablations/{run}", out=tmp_path)[-3:-1]
        return [line.split()[3:] for line in lines]

    replies = f"{tmp_path}/smollm2-135m/math/replies.sqlite"
    shares = ["--proportion", "0.2", "--replies", replies, "--output_dir", f"{folder}/bridge_proportion_0.2"]
    data = ["--dataset_mixture.datasets.0.id", f"{folder}/bridge_proportion_0.2/train.jsonl"]
    assert options("dpo_bmc_proportion_0.2") == [
        shares,
        [*data, "--output_dir", f"{folder}/dpo_bmc_proportion_0.2"],
    ]
    delta = ["--bmc_delta", "1.5", "--output_dir", f"{folder}/dpo_bmc_delta_1.5"]
    assert options("dpo_bmc_delta_1.5")[1] == delta
    split = ["--dataset_mixture.datasets.0.edit_split", "2/6", "--output_dir", f"{folder}/dpo_bc_split_2"]
    assert options("dpo_bc_split_2")[1] == split


def test_a_cache_that_the_recipe_names_is_not_overridden(tmp_path: Path) -> None:
    lines = chain("mistral-7b/ultrafeedback/ablations/bridge_proportion_0.2", out=tmp_path)
    assert "--proportion 0.2" in lines[-1]
    assert "--replies" not in lines[-1]  # the recipe's own, which all models share


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("bridge", ["--proportion", "0.0", "--replies", "outputs/replies.sqlite"]),
        ("dpo_bmc", ["--bmc_delta", "1.0"]),
        ("dpo_bc", ["--dataset_mixture.datasets.0.edit_split", "6/6"]),
    ],
)
def test_recipes_take_what_an_ablation_says(recipe: str, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from bmc.bridge_config import BridgeConfig
    from bmc.recipe import parse
    from bmc.training.config import BMCConfig, PreferenceArguments
    from bmc.training.run import parse_training

    monkeypatch.chdir(ROOT)
    words = [f"recipes/smollm2-135m/math/{recipe}.yaml", *options, "--dry_run"]
    if recipe == "bridge":
        parse(words, BridgeConfig)
    else:
        parse_training(words, PreferenceArguments, BMCConfig, "")


def test_table1(tmp_path: Path) -> None:
    run = commands("table1", out=tmp_path)
    methods = ["figa", "ipo", "orpo", "rdpo", "simpo", "dpo", "dpo_cw", "dpo_ew", "dpo_bmc", "dpo_bc", "dpo_mc"]
    trained = [f"preference llama2-7b/{task}/{method}" for method in methods for task in ("qa", "math")]
    assert [command for command in run if command.startswith("preference")] == trained
    assert run.count("evaluate llama2-7b/qa/eval") == run.count("evaluate llama2-7b/math/eval") == 1 + len(methods)
    for task in ("qa", "math"):
        before = [run.index(f"{command.replace(' ', f' llama2-7b/{task}/')}") for command in TO_BRIDGE]
        assert before == sorted(before)
        assert before[-1] < run.index(f"preference llama2-7b/{task}/figa")
        assert run.index(f"sample llama2-7b/{task}/sample_cw") < run.index(f"preference llama2-7b/{task}/dpo_cw")
    assert run[-1] == "table table1"


def test_table1_at_the_scale_of_a_laptop(tmp_path: Path) -> None:
    run = commands("table1", "MODEL=smollm2-135m", out=tmp_path)
    setting = "smollm2-135m/math"
    assert run[0] == f"prepare {setting}/prepare" or run[0].startswith("fetch_smollm2")
    methods = ["figa", "ipo", "orpo", "rdpo", "simpo", "dpo", "dpo_cw", "dpo_ew", "dpo_bmc", "dpo_bc", "dpo_mc"]
    assert [c.split("/")[-1] for c in run if c.startswith("preference")] == methods
    assert run.count(f"evaluate {setting}/eval") == 1 + len(methods)
    assert run[-1] == "table table1"


def test_figure4(tmp_path: Path) -> None:
    lines = chain("figure4", out=tmp_path)
    trained = [line.split()[2:5] for line in lines if "scripts/preference.py" in line]
    recipe = "recipes/llama2-7b/qa/dpo_bmc.yaml"
    deltas = [[recipe, "--bmc_delta", delta] for delta in ("1.0", "1.5", "2.0", "2.5", "3.5")]
    assert trained == [["recipes/llama2-7b/qa/dpo.yaml"], *deltas[:4], [recipe], deltas[4]]
    assert lines[-1] == f"python scripts/table.py figure4 --runs {tmp_path}"


METHODS = ["dpo", "dpo_mc", "dpo_bc", "dpo_bmc"]


@pytest.mark.parametrize(
    ("setting", "held_out"),
    [
        ("llama2-7b/math", ["sample sample_held_out", "bridge bridge_held_out"]),
        ("llama3-8b/ultrafeedback", ["bridge bridge_held_out"]),
        ("smollm2-135m/qa", []),
    ],
)
def test_an_analysis_builds_its_runs_and_pairs(setting: str, held_out: list[str], tmp_path: Path) -> None:
    run = [command.replace(f"{setting}/", "") for command in commands(f"{setting}/analyze", out=tmp_path)]
    assert [command for command in run if command.endswith("held_out")] == held_out
    assert [command for command in run if command.startswith("preference")] == [f"preference {m}" for m in METHODS]
    assert not any(command.startswith("evaluate") for command in run)
    assert run[-1] == "analyze analyze"
    for method in METHODS:  # what is there is analysed anew
        path = tmp_path / setting / method / "metrics.json"
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    for name in ("prepare", "sample_held_out", "bridge_held_out", "bridge"):
        path = tmp_path / setting / name / "stats.json"
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    assert commands(f"{setting}/analyze", out=tmp_path) == [f"analyze {setting}/analyze"]


def test_figures_of_a_setting(tmp_path: Path) -> None:
    setting = "smollm2-135m/math"

    def trained(figure: str) -> list[str]:
        lines = chain(f"{setting}/{figure}", out=tmp_path)
        folders = [line.split("--output_dir ")[-1] for line in lines if "scripts/preference.py" in line]
        return [Path(folder.split()[-1]).stem for folder in folders]

    deltas = [f"dpo_bmc_delta_{delta}" for delta in ("1.0", "1.5", "2.0", "3.0", "3.5")]  # 2.5 is the recipe's own
    assert trained("figure4") == [Path(name).stem for name in ["dpo", *deltas, "dpo_bmc"]]
    assert len(trained("figure3")) == 7
    assert len(trained("figure5")) == 24
    judged = [line for line in chain("llama3-8b/ultrafeedback/figure5", out=tmp_path) if "judge.py" in line]
    assert len(judged) == 24


def test_a_table_skips_what_is_there(tmp_path: Path) -> None:
    made = ("prepare/stats.json", "bridge/stats.json", "sft/metrics.json", "dpo/metrics.json", "dpo/eval/metrics.json")
    for name in made:
        path = tmp_path / "qwen2.5-14b/ultrafeedback" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    run = [line for line in chain("table11", out=tmp_path) if not line.startswith("make")]
    stages = ["preference", "evaluate", *["judge"] * 4, "table"]
    assert [line.split()[1] for line in run] == [f"scripts/{stage}.py" for stage in stages]


TABLES = ["table1", "table2", "table3", "table4", "table5", "table10", "table11", "figure2", "figure3", "figure4",
          "figure5", "rewards", "bridging"]  # fmt: skip


def test_every_run_of_every_table_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    from bmc.analysis.tables import TableConfig, targets

    monkeypatch.chdir(ROOT)
    wanted = {run for table in TABLES for run in targets(TableConfig(table=table))}
    made = subprocess.run(["make", "-n", "DRY_RUN=1", *sorted(wanted)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


JUDGED = {"table2": 48, "table3": 5, "table4": 3, "table5": 10, "table11": 4, "figure5": 24, "table1": 0, "figure4": 0}


@pytest.mark.parametrize(("table", "judges"), JUDGED.items())
def test_tables_of_chat_end_with_a_judge(table: str, judges: int, tmp_path: Path) -> None:
    """Each run's benchmarks that the table shows: 24 × 2, 5, 3, 10, 2 × 2, 24."""
    stages = [command.split()[0] for command in commands(table, out=tmp_path)]
    assert stages[-1] == "table"
    assert stages.count("judge") == judges
    assert stages[-1 - judges : -1] == ["judge"] * judges


@pytest.mark.parametrize("run", ["dpo_split_2", "dpo_bmc_delta_1.5", "dpo_bmc_degrade", "dpo_bmc_proportion_0.2"])
def test_ablations_of_chat_can_be_judged(run: str, tmp_path: Path) -> None:
    asked = commands(f"llama3-8b/ultrafeedback/ablations/{run}/judge", out=tmp_path)
    assert asked[-3:] == ["evaluate llama3-8b/ultrafeedback/eval", "judge judge_alpaca_eval", "judge judge_arena_hard"]
    (line, _) = chain(f"llama3-8b/ultrafeedback/ablations/{run}/judge", out=tmp_path)[-2:]
    assert f"--responses {tmp_path}/llama3-8b/ultrafeedback/ablations/{run}/eval " in line


def test_an_unknown_model_is_told(tmp_path: Path) -> None:
    run = subprocess.run(
        ["make", "DRY_RUN=1", f"OUT={tmp_path}", "table1", "MODEL=smollm"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 2
    assert "model: table1 has no 'smollm' (did you mean 'smollm2-135m'?)" in run.stderr


@pytest.mark.parametrize("target", ["demo", "test", "quality", "style", "install", "help", *TABLES])
def test_target_is_there(target: str) -> None:
    assert subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True).returncode == 0
