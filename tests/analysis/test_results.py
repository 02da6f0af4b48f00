"""Runs and their results: which are there, their numbers worked out by hand, and whether they are comparable."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from made import ROOT, evaluated, message, result, write, write_rows

from bmc.analysis.results import (
    Column,
    Estimate,
    check_comparable,
    comparability_warnings,
    find_runs,
    find_trained,
    load_correctness,
    make_command,
    missing_rows,
    overview,
    overview_table,
)
from bmc.analysis.token_rewards import load_eval_pairs
from bmc.config import AnalyzeConfig, DatasetConfig, DatasetMixture
from bmc.data.loading import load_split
from bmc.errors import UserErrors
from bmc.recipe import parse

HITS = {"r1": True, "r2": False}


# Overview


def columns(root: Path) -> dict[str, Column]:
    return {column.title: column for column in overview(find_runs(root, []), root)}


def printed(found: dict[str, Column]) -> dict[str, dict[str, str]]:
    return {title: {run: str(score) for run, score in column.scores.items()} for title, column in found.items()}


def test_average_and_released_scoring(tmp_path: Path) -> None:
    """Each end of the average is √(3² + 4²)/2 = 2.5 points from the mean of 60 and 80; Wilson's interval of 5 of 10."""
    two = {"ecqa": result(360, 600, (0.57, 0.64)), "qasc": result(320, 400, (0.76, 0.83))}
    write(tmp_path / "a/dpo/eval/metrics.json", {"results": two, "average": 0.7})
    found = columns(tmp_path / "a")
    assert list(found) == ["ecqa", "qasc", "average"]
    assert str(found["average"].scores["dpo"]) == "70.0 [67.5, 72.5] (n = 1000)"
    both = {"ecqa": result(7, 10) | {"accuracy_released": 0.5}}
    write(tmp_path / "b/dpo/eval/metrics.json", {"results": both})
    write(tmp_path / "b/sft/eval/metrics.json", {"results": {"ecqa": result(3, 10)}})
    found = columns(tmp_path / "b")
    assert str(found["ecqa, released scoring"].scores["dpo"]) == "50.0 [23.7, 76.3] (n = 10)"
    header, rows = overview_table(["dpo", "sft"], list(found.values()))
    assert header == ["run", "ecqa", "ecqa, released scoring"]
    assert rows[1] == ["sft", "30.0 [20.0, 80.0] (n = 10)", "not run"]


def test_runs_of_different_benchmarks_have_no_average(tmp_path: Path) -> None:
    for benchmark in ("ecqa", "qasc"):
        write(tmp_path / benchmark / "metrics.json", {"results": {benchmark: result(5, 10)}})
    assert list(columns(tmp_path)) == ["ecqa", "qasc"]


def test_marks(subtests: pytest.Subtests) -> None:
    for best, second, mark in [
        (Estimate(60, 55, 65), Estimate(54, 49, 59), "best"),
        (Estimate(60, 55, 65), Estimate(56, 51, 61), "highest"),  # may be chance
        (Estimate(60, 55, 65), Estimate(60, 55, 65), "highest"),  # a tie: both
        (Estimate(60), Estimate(10), "highest"),  # without an interval nothing is sure
    ]:
        with subtests.test(best=best):
            column = Column("ecqa", {"a": second, "b": best})
            assert [column.mark(run) for run in "abc"] == ["highest" if best == second else "", mark, ""]
            assert Column("ecqa", {"b": best}).mark("b") == ""


JUDGED: dict[str, Any] = {
    "benchmark": "alpaca_eval", "judge": "j", "reference": "r", "n": 805, "win_rate": 16.8, "interval": [14.2, 19.4],
    "length_controlled_win_rate": 22.4, "unreadable": 3,
}  # fmt: skip


def test_judge_results_and_lm_eval(tmp_path: Path) -> None:
    write(tmp_path / "dpo/eval/metrics.json", {"n": 805, "results": {}})
    write(tmp_path / "dpo/eval/judge_results.json", JUDGED)
    write(tmp_path / "sft/eval/judge_results.json", JUDGED | {"length_controlled_win_rate": None})
    tasks = {
        "gsm8k": {"metric": "exact_match", "value": 0.5, "stderr": 0.05, "n": 100},
        "none": {"metric": "acc", "value": 0.0, "stderr": 0.0, "n": 20},
    }
    write(tmp_path / "sft/eval/lm_eval.json", {"tasks": tasks})
    assert printed(columns(tmp_path)) == {
        "AlpacaEval 2 LC": {"dpo": "22.4 (n = 805)"},
        "AlpacaEval 2 WR": {"dpo": "16.8 [14.2, 19.4] (n = 805)", "sft": "16.8 [14.2, 19.4] (n = 805)"},
        "gsm8k, lm-eval (exact_match)": {"sft": "50.0 [39.7, 60.3] (n = 100)"},  # exact; 50 ± 1.984 × 5 is 40.1 to 59.9
        "none, lm-eval (acc)": {"sft": "0.0 [0.0, 16.8] (n = 20)"},  # 1 − 0.025^(1/20)
    }


def test_a_judge_result_belongs_to_the_run_it_is_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for run in ("dpo", "sft", "ipo"):
        write(Path("runs") / run / "eval/metrics.json", {"n": 805, "results": {}})
    write(Path("runs/dpo/eval/alpaca/judge_results.json"), JUDGED)  # below the responses
    write(Path("runs/sft/arena/judge_results.json"), {**JUDGED, "benchmark": "arena_hard"})  # below the model
    write(Path("runs/judge/ipo/judge_results.json"), {**JUDGED, "responses": "runs/ipo/eval"})  # elsewhere
    runs = find_runs(Path("runs"), [])
    owned = {"dpo": ["alpaca_eval"], "ipo": ["alpaca_eval"], "sft": ["arena_hard"]}
    assert {name: list(run.judge_results) for name, run in runs.items()} == owned
    write(Path("runs/dpo/eval/again/judge_results.json"), JUDGED)
    with pytest.raises(
        UserErrors, match=r"dpo has two judge results on alpaca_eval: \S+/again/\S+ and \S+/alpaca/judge_"
    ):
        find_runs(Path("runs"), [])


def test_the_papers_numbers_stand_beside_those_of_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for setting in ("llama2-7b/math", "smollm2-135m/math"):
        for run in ("dpo_bmc", "orpo"):
            write(tmp_path / setting / run / "eval/metrics.json", {"results": {"gsm8k": result(5, 10)}})
    write(tmp_path / "llama3-8b/ultrafeedback/dpo_bmc/eval/judge_results.json", JUDGED)
    assert columns(tmp_path / "llama2-7b/math")["gsm8k"].reported == {"dpo_bmc": "49.6"}
    assert columns(tmp_path / "smollm2-135m/math")["gsm8k"].reported == {}
    found = columns(tmp_path)
    assert found["gsm8k"].reported == {"llama2-7b/math/dpo_bmc": "49.6"}
    assert found["AlpacaEval 2 LC"].reported == {"llama3-8b/ultrafeedback/dpo_bmc": "22.4"}
    header, rows = overview_table(["llama2-7b/math/dpo_bmc", "llama2-7b/math/orpo"], [found["gsm8k"]])
    assert header == ["run", "gsm8k", "gsm8k, the paper's average"]
    assert [row[-1] for row in rows] == ["49.6", "–"]


@pytest.mark.parametrize(
    ("file", "value"),
    [
        ("judge_results.json", JUDGED | {"interval": [1]}),
        ("lm_eval.json", {"tasks": {"gsm8k": {"value": 0.5}}}),
        ("metrics.json", {"results": {"ecqa": {"accuracy": 0.5}}}),
        ("metrics.json", {"results": []}),
        ("metrics.json", []),
    ],
)
def test_a_file_of_another_shape_is_named(file: str, value: Any, tmp_path: Path) -> None:
    write(tmp_path / "dpo/eval" / file, value)
    with pytest.raises(UserErrors, match=rf"dpo/eval/{file}.*; \w+") as caught:
        columns(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


# Comparability


def warnings(root: Path) -> list[str]:
    return comparability_warnings(find_runs(root, []))


@pytest.mark.parametrize(
    ("recipe", "found"),
    [
        ({"max_new_tokens": 512}, []),  # the default
        ({"model_name_or_path": "m", "batch_size": 3, "output_dir": "o"}, []),
        ({"max_new_tokens": 64}, ["max_new_tokens is 512 for a and b; 64 for c"]),
        ({"temperature": 0.7}, ["temperature is 0.0 for a and b; 0.7 for c"]),
        ({"sha256": "b" * 64}, ["evaluation data is SHA-256 aaaaaaaaaaaa for a and b; SHA-256 bbbbbbbbbbbb for c"]),
        (
            {"dataset_mixture": {"datasets": [{"id": "test.jsonl", "num_rows": 10}]}},
            ["evaluation data is SHA-256 aaaaaaaaaaaa for a and b; SHA-256 aaaaaaaaaaaa (num_rows 10) for c"],
        ),
    ],
)
def test_what_differs_is_named_with_its_runs(recipe: dict[str, Any], found: list[str], tmp_path: Path) -> None:
    for run, own in (("a", {}), ("b", {}), ("c", recipe)):
        evaluated(tmp_path / run / "eval", HITS, **own)
    assert warnings(tmp_path) == [f"not comparable: {sentence}" for sentence in found]


def test_preference_training_on_other_pairs(tmp_path: Path) -> None:
    for run in ("sft", "dpo", "dpo_bc", "dpo_bmc"):
        evaluated(tmp_path / run / "eval", HITS)
        script, digest = "sft" if run == "sft" else "preference", {"sft": "c", "dpo_bmc": "b"}.get(run, "0") * 64
        record = {"command": f"scripts/{script}.py r.yaml", "recipe": {}, "data": [{"sha256": digest}]}
        write(tmp_path / run / "provenance.json", record)
    assert warnings(tmp_path) == [
        "not comparable: training data is SHA-256 000000000000 for dpo and dpo_bc; SHA-256 bbbbbbbbbbbb for dpo_bmc"
    ]


def test_of_many_values_the_first_are_named(tmp_path: Path) -> None:
    for number in range(6):
        evaluated(tmp_path / f"r{number}/eval", HITS, max_new_tokens=10 + number)
    (sentence,) = warnings(tmp_path)
    assert sentence.endswith("11 for r1; 12 for r2; 13 for r3; 2 other values")


def test_templates_are_compared_by_their_text(tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("A {{ messages }}")
    evaluated(tmp_path / "runs/a/eval", HITS, chat_template=str(tmp_path / "t.jinja"))
    for run, text in (("b", "A {{ messages }}"), ("c", "B {{ messages }}")):
        evaluated(tmp_path / f"runs/{run}/eval", HITS)
        (tmp_path / f"runs/{run}/chat_template.jinja").write_text(text)
    (sentence,) = warnings(tmp_path / "runs")
    digests = r"the one with digest \w{8} for a and b; the one with digest \w{8} for c"
    assert re.fullmatch(f"not comparable: chat template is {digests}", sentence)


def test_judges_other_benchmarks_and_missing_records(tmp_path: Path) -> None:
    for run, judge in (("a", "gpt-4-turbo"), ("b", "gpt-4o")):
        write(
            tmp_path / f"judged/{run}/judge_results.json",
            {"benchmark": "arena_hard", "judge": judge, "reference": "gpt-4"},
        )
    assert warnings(tmp_path / "judged") == ["not comparable: arena_hard's judge is gpt-4-turbo for a; gpt-4o for b"]
    for run in "abc":
        evaluated(tmp_path / f"runs/{run}/eval", HITS)
    write(tmp_path / "runs/other/eval/metrics.json", {"results": {}})
    write(tmp_path / "runs/other/eval/provenance.json", {"recipe": {"max_new_tokens": 1}})
    (tmp_path / "runs/c/eval/provenance.json").write_text("{")
    assert warnings(tmp_path / "runs") == ["c: how it was evaluated isn't recorded (no provenance.json)"]


def test_missing_and_other_rows(tmp_path: Path) -> None:
    def missing(root: Path) -> list[str]:
        runs = find_runs(root, [])
        return missing_rows(runs, {n: load_correctness(root / n / "eval/predictions.jsonl") for n in runs})

    evaluated(tmp_path / "1/a/eval", {f"r{n}": True for n in range(10)})
    evaluated(tmp_path / "1/b/eval", {f"r{n}": True for n in range(7)}, n=10)
    counted = "has 7 of the 10 rows of ecqa that metrics.json counts; evaluate again"
    assert missing(tmp_path / "1") == [
        f"{tmp_path}/1/b/eval/predictions.jsonl: {counted}",
        "b: was not scored on 3 rows of ecqa that others have (r7, r8 and r9)",
    ]
    evaluated(tmp_path / "2/a/eval", {"r1": True, "r2": True})
    evaluated(tmp_path / "2/b/eval", {"r1": True, "x": True})
    assert missing(tmp_path / "2") == [
        "a: was not scored on 1 row of ecqa that others have (x)",
        "b: was not scored on 1 row of ecqa that others have (r2)",
    ]


# Trained runs and their validation pairs


def pairs(path: Path, numbers: range) -> str:
    sides = {side: message(words) for side, words in (("chosen", "w"), ("rejected", "l"), ("original_chosen", "o"))}
    row = sides | {"bridged": True, "edit_ratio": 0.5}
    write_rows(path, [{"id": f"p{n}", "prompt": [{"role": "user", "content": f"x{n}"}]} | row for n in numbers])
    return str(path)


def make_run(setting: Path, name: str, weights: bool = True, **recipe: Any) -> Path:
    folder = setting / name
    write(folder / "metrics.json", {"rows": 3, "train_runtime": 2.0})
    write(folder / "recipe.json", {"model_name_or_path": "sft", "max_length": 64} | recipe)
    write(folder / "tokenizer.json", {})
    if weights:
        (folder / "model.safetensors").write_bytes(b"")
    return folder


def config(setting: Path, **more: Any) -> AnalyzeConfig:
    return AnalyzeConfig(setting=str(setting), output_dir=str(setting / "analyze"), **more)


def test_what_is_there_and_what_is_missing(tmp_path: Path) -> None:
    setting = tmp_path / "outputs/a/b"
    make_run(setting, "dpo")
    make_run(setting, "dpo_bc", weights=False)
    write(setting / "dpo_mc/recipe.json", {})
    runs, missing = find_trained(str(setting), ["dpo", "dpo_mc", "dpo_bc", "dpo_bmc"])
    found = [(run.name, run.method, run.has_weights) for run in runs]
    assert found == [("dpo", "DPO", True), ("dpo_bc", "DPO-BC", False)]
    assert missing == {"dpo_mc": "not finished", "dpo_bmc": "not run"}
    assert make_command(str(setting), "dpo_mc", "dpo_bmc") == "make a/b/dpo_mc a/b/dpo_bmc"
    with pytest.raises(UserErrors, match=r"outputs/a: holds no finished run dpo \(metrics.json\); make a/dpo"):
        find_trained(str(tmp_path / "outputs/a"), ["dpo"])
    with pytest.raises(UserErrors, match=r"setting: there is no folder .*/none; give the one"):
        find_trained(str(tmp_path / "none"), ["dpo"])
    (setting / "dpo/metrics.json").write_text("{")
    with pytest.raises(UserErrors, match=r"dpo/metrics.json: is not JSON; remove it"):
        _ = runs[0].metrics


def test_runs_that_are_not_comparable(tmp_path: Path) -> None:
    for name, recipe in (
        ("dpo", {}), ("same", {}), ("other", {"model_name_or_path": "x"}), ("long", {"max_length": 9})
    ):  # fmt: skip
        make_run(tmp_path, name, **recipe)
    write(make_run(tmp_path, "words") / "tokenizer.json", {"other": 1})
    check_comparable(find_trained(str(tmp_path), ["dpo", "same"])[0])
    for name, what in (
        ("other", "reference model than dpo (x and sft)"), ("long", "max_length than dpo (9 and 64)"),
        ("words", "tokenizer than dpo"),
    ):  # fmt: skip
        with pytest.raises(UserErrors) as caught:
            check_comparable(find_trained(str(tmp_path), ["dpo", name])[0])
        assert str(caught.value) == f"runs: {name} has another {what}; analyse them apart"


def test_pairs_are_those_that_training_held_out(tmp_path: Path) -> None:
    data = pairs(tmp_path / "train.jsonl", range(10))
    for name in ("dpo", "dpo_bmc"):
        make_run(tmp_path, name, dataset_mixture={"datasets": [{"id": data}], "test_split_size": 0.3})
    found = load_eval_pairs(config(tmp_path), find_trained(str(tmp_path), ["dpo", "dpo_bmc"])[0])
    train, test = load_split(DatasetMixture(datasets=[DatasetConfig(id=data)], test_split_size=0.3))
    assert test is not None
    assert [row["id"] for row in found.rows] == [row["id"] for row in test]
    assert not {row["id"] for row in found.rows} & {row["id"] for row in train}
    assert (found.left_out, len(found.rows)) == (0, 3)
    assert found.prompts[found.rows[0]["id"]].startswith("x")


def test_pairs_must_be_bridged_and_not_trained_on(tmp_path: Path) -> None:
    data, others = pairs(tmp_path / "train.jsonl", range(4)), pairs(tmp_path / "others.jsonl", range(2, 6))
    write_rows(tmp_path / "plain.jsonl", [{"prompt": "x", "chosen": "a", "rejected": "b"}])
    make_run(tmp_path, "dpo", dataset_mixture={"datasets": [{"id": data}]})
    runs = find_trained(str(tmp_path), ["dpo"])[0]

    def load(path: str | None) -> tuple[list[str], int]:
        named = DatasetMixture(datasets=[DatasetConfig(id=path)]) if path else None
        found = load_eval_pairs(config(tmp_path, dataset_mixture=named), runs)
        return [row["id"] for row in found.rows], found.left_out

    assert load(others) == (["p4", "p5"], 2)
    for path, what in (
        (data, r"the prompts of all 4 pairs of .*train.jsonl were trained on; give others"),
        (None, "dataset_mixture: the runs held no pairs out; name some"),
        (str(tmp_path / "plain.jsonl"), r"has no column original_chosen; .* not bridged: run scripts/bridge\.py"),
    ):
        with pytest.raises(UserErrors, match=what):
            load(path)


def test_recipes_that_can_not_be(subtests: pytest.Subtests) -> None:
    for words, what in [
        ("--runs=[dpo,dpo]", "runs: dpo stands twice; keep one"),
        ("--runs=[]", "runs: is empty; name a folder in setting"),
        ("--metric=f1", "metric: must be accuracy, judge.BENCHMARK_lc or judge.BENCHMARK_wr, got f1"),
    ]:
        with subtests.test(words=words):
            with pytest.raises(UserErrors) as error:
                parse(["--setting=x", "--output_dir=y", words], AnalyzeConfig)
            assert str(error.value) == f"command line: {what}"


def test_damaged_files_of_a_sweep_are_not_read(tmp_path: Path) -> None:
    evaluated(tmp_path / "dpo/eval", HITS)
    (tmp_path / "sweep/beta=0.1").mkdir(parents=True)
    (tmp_path / "sweep/sweep.json").write_text("{}")
    (tmp_path / "sweep/beta=0.1/metrics.json").write_text(json.dumps([]))
    assert list(find_runs(tmp_path, [])) == ["dpo"]
