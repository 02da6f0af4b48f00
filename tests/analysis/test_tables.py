"""The paper's tables, from a tree of runs that was made by hand."""

import functools
from pathlib import Path
from typing import Any

import forks
import pytest
from made import write, write_rows

from bmc.analysis import tables
from bmc.analysis.tables import BRIDGING_METRICS, FIGURE_METRICS, NOT_RUN, TableConfig, table, table_rows, targets
from bmc.errors import UserErrors
from bmc.evaluation.summary import average
from bmc.recipe import load_recipe, parse

ROOT = Path(__file__).parents[2]
REPORTED = ROOT / "recipes/reported.yaml"


LOADED = functools.cache(load_recipe)  # the numbers of the paper are a long file


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(tables, "load_recipe", LOADED)


def result(accuracy: float, low: float, high: float, n: int) -> dict[str, Any]:
    return {"n": n, "correct": round(accuracy * n), "accuracy": accuracy, "interval": [low, high]}


def row(name: str, runs: Path, method: str, **options: Any) -> list[str]:
    """The cells of a method's line."""
    lines = table(TableConfig(table=name, runs=str(runs), **options)).splitlines()
    (line,) = [line for line in lines if line.startswith(f"| {method} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_reported_stands_beside_reproduced(tmp_path: Path) -> None:
    two = {"ecqa": result(0.6, 0.57, 0.64, 600), "qasc": result(0.8, 0.76, 0.83, 400)}
    write(tmp_path / "llama2-7b/qa/dpo_bmc/eval/metrics.json", {"n": 1000, "results": two, "average": 0.7})
    # the mean of 60 and 80; below it √(3² + 4²)/2 = 2.5, above √(4² + 3²)/2 = 2.5
    assert row("table1", tmp_path, "DPO-BMC") == ["65.1", "70.0 [67.5, 72.5] (n = 1000)", "49.6", NOT_RUN]
    assert row("table1", tmp_path, "ORPO") == ["–", NOT_RUN, "–", NOT_RUN]
    text = table(TableConfig(table="table1", runs=str(tmp_path)))
    assert "| method | QA, reported | QA, reproduced | math, reported | math, reproduced |" in text
    assert "from public reviews" in text
    assert "A reproduced number is a single run" in text


def test_of_seeds_there_is_a_mean_and_a_deviation(tmp_path: Path) -> None:
    folder = tmp_path / "llama2-7b/math/dpo"
    write(folder / "eval/metrics.json", {"results": {"gsm8k": result(0.6, 0.57, 0.64, 600)}})
    found = {"gsm8k": {"mean": 0.5, "sd": 0.02, "accuracies": [0.48, 0.5, 0.52], "n": 100}}
    write(folder / "seeds.json", {"seeds": [1, 2, 3], "results": found})
    assert row("table1", tmp_path, "DPO")[3] == "50.0 ± 2.0 [45.0, 55.0] (3 seeds, n = 100)"  # ± 4.303 · 2/√3


def test_an_average_of_one_benchmark_is_its_own() -> None:
    (one,) = [result(0.5, 0.41, 0.62, 80)]
    joined = average({"gsm8k": one})
    assert joined is not None
    assert joined["interval"] == pytest.approx(one["interval"])
    assert (joined["accuracy"], joined["n"]) == (0.5, 80)
    assert average({}) is None


@pytest.mark.slow
def test_judgements(tmp_path: Path) -> None:
    folder = tmp_path / "mistral-7b/ultrafeedback/dpo/eval"
    write(folder / "metrics.json", {"n": 1305, "results": {}})  # what evaluate.py leaves of chat
    assert row("table2", tmp_path, "DPO")[11:] == [
        NOT_RUN, "13.3", NOT_RUN, "1657", NOT_RUN, "13.6", NOT_RUN, "540", NOT_RUN
    ]  # fmt: skip
    lc = {"length_controlled_win_rate": 15.06, "interval_length_controlled": [13.0, 17.11]}
    wr = {"win_rate": 13.3, "interval": [11.04, 15.6], "length": 1657.4}
    write(folder / "alpaca_eval/judge_results.json", {"benchmark": "alpaca_eval", "n": 805, **lc, **wr})
    none = {"length_controlled_win_rate": None, "n": 500}
    write(folder / "arena_hard/judge_results.json", {"win_rate": 13.6, "interval": [12, 15], "length": 540, **none})
    found = row("table2", tmp_path, "DPO")
    assert found[10:12] == ["15.1", "15.1 (n = 805)"]  # alpaca_eval's error makes no interval
    assert found[13] == "13.3 [11.0, 15.6] (n = 805)"
    assert found[15] == "1657.4 (n = 805)"
    assert found[17] == "13.6 [12.0, 15.0] (n = 500)"
    assert found[19] == "540.0 (n = 500)"
    assert found[1] == NOT_RUN
    assert "make SETTING/METHOD/judge" in table(TableConfig(table="table2", runs=str(tmp_path)))


def test_gradient_norms(tmp_path: Path) -> None:
    log = [{"grad_norm": 3.0}, {"grad_norm": 4.5}, {"grad_norm": float("nan")}, {"train_loss": 0.6}]
    write(tmp_path / "llama3-8b/ultrafeedback/ablations/dpo_split_1/trainer_state.json", {"log_history": log})
    assert row("figure5", tmp_path, "DPO, split 1") == ["–", NOT_RUN, "3.31", "3.75 (n = 2 logged)"]
    assert row("figure5", tmp_path, "DPO, split 6")[2:] == ["4.85", NOT_RUN]


def test_another_models_rows_are_those_with_a_recipe(tmp_path: Path) -> None:
    write(tmp_path / "smollm2-135m/math/dpo/eval/metrics.json", {"results": {"gym": result(0.5, 0.4, 0.6, 90)}})
    small = {"model": "smollm2-135m"}
    assert row("table1", tmp_path, "DPO", **small) == ["other model", "50.0 [40.0, 60.0] (n = 90)"]
    assert row("table1", tmp_path, "DPO (CW)", **small) == ["other model", NOT_RUN]
    runs = targets(TableConfig(table="table1", **small))
    assert runs[:2] == ["smollm2-135m/math/sft", "smollm2-135m/math/figa"]
    assert len(runs) == 12


def test_a_table_with_a_baseline_shows_paired_gains_over_it(tmp_path: Path) -> None:
    """Of 100 rows ConfPO gets 10 right that DPO-BMC gets wrong and misses 2: 8 points, Tango's interval [1.4, 15.8]
    (solved apart from bmc.evaluation.stats); entropy was scored on other rows, TIS-DPO with two seeds."""

    def predicted(run: str, right: range | list[int], first: int = 0) -> None:
        rows = [{"id": str(first + n), "source": "sums", "correct": n in right} for n in range(100)]
        write(tmp_path / run / "metrics.json", {"results": {"sums": result(len(right) / 100, 0.4, 0.8, 100)}})
        write_rows(tmp_path / run / "predictions.jsonl", rows)

    task = "smollm2-135m/math"
    predicted(f"{task}/dpo_bmc/eval", range(50))
    predicted(f"{task}/dpo_confpo/eval", range(2, 60))
    predicted(f"{task}/dpo_entropy/eval", range(50), first=7)
    for seed in (1, 2):
        predicted(f"{task}/dpo_tis/seed_{seed}/eval", range(50))
    found = {"sums": {"mean": 0.5, "sd": 0.0, "accuracies": [0.5, 0.5], "n": 100}}
    write(tmp_path / task / "dpo_tis/seeds.json", {"seeds": [1, 2], "results": found})
    assert row("credit", tmp_path, "DPO-BMC")[1:] == ["–"]
    for options in ({}, {"model": "smollm2-135m"}):
        accuracy, gain = row("credit", tmp_path, "ConfPO", **options)
        assert accuracy == "58.0 [40.0, 80.0] (n = 100)"
        assert gain == "+8.0 [+1.4, +15.8] (n = 100)"
    assert row("credit", tmp_path, "entropy")[1] == "other rows"
    assert row("credit", tmp_path, "TIS-DPO")[1].startswith("+0.0 [-3.7, +3.7] (n = 100, 2 against 1 seeds)")
    assert row("credit", tmp_path, "SePO") == [NOT_RUN, ""]
    assert "| method | math | above dpo_bmc, 95 % |" in table(TableConfig(table="credit", runs=str(tmp_path)))


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which a judge can be asked."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setattr(tables.importlib.util, "find_spec", lambda name: name)


def test_targets_come_once_and_a_judge_at_the_end(judge: None) -> None:
    folder = "outputs/qwen2.5-14b/ultrafeedback"
    methods, benchmarks = ("dpo", "dpo_bmc"), ("alpaca_eval", "arena_hard")
    assert targets(TableConfig(table="table11")) == [
        *(f"qwen2.5-14b/ultrafeedback/{method}" for method in methods),
        *(f"{folder}/{method}/eval/{benchmark}/judge_results.json" for method in methods for benchmark in benchmarks),
    ]
    runs = targets(TableConfig(table="table2", runs="out"))
    assert runs[:3] == ["llama3-8b/ultrafeedback/sft", "mistral-7b/ultrafeedback/sft", "llama3-8b/ultrafeedback/figa"]
    assert len(runs) == 24 + 48
    assert all(run.startswith("out/") for run in runs[24:])
    only = [run for run in targets(TableConfig(table="figure5")) if run.endswith("judge_results.json")]
    assert len(only) == 24
    assert all("alpaca_eval" in run for run in only)  # nothing is paid for that the table doesn't show
    assert not any(run.endswith("judge_results.json") for run in targets(TableConfig(table="table1")))


@pytest.mark.slow
def test_without_what_a_judge_needs_the_table_says_what_to_type(
    tmp_path: Path, judge: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TableConfig(table="table11", runs=str(tmp_path))
    last = table(config).splitlines()[-1]
    assert last == "What is missing comes by `make table11`."
    monkeypatch.delenv("OPENAI_API_KEY")
    assert [run.count("/") for run in targets(config)] == [2, 2]  # the runs alone
    assert len(targets(TableConfig(table="table11", dry_run=True))) == 6
    assert table(config).splitlines()[-1] == "What is missing comes by `OPENAI_API_KEY=… make table11`."
    monkeypatch.setattr(tables.importlib.util, "find_spec", lambda name: None)
    wanted = "What is missing comes by `pip install '.[eval]' && OPENAI_API_KEY=… make table11`."
    assert table(config).splitlines()[-1] == wanted
    small = TableConfig(table="table1", model="smollm2-135m", runs=str(tmp_path))
    assert table(small).splitlines()[-1] == "What is missing comes by `make table1 MODEL=smollm2-135m`."


def test_a_table_that_is_complete_asks_for_nothing(tmp_path: Path) -> None:
    numbers = {"win_rate": 1.0, "length_controlled_win_rate": 1.0, "length": 1, "n": 9}
    for method in ("dpo", "dpo_bmc"):
        for benchmark in ("alpaca_eval", "arena_hard"):
            write(tmp_path / f"qwen2.5-14b/ultrafeedback/{method}/eval/{benchmark}/judge_results.json", numbers)
    assert table(TableConfig(table="table11", runs=str(tmp_path))).splitlines()[-1].startswith("| DPO-BMC |")


def test_training_rows_that_were_set_aside_are_told(tmp_path: Path) -> None:
    """The paper trains on all of them."""
    config = TableConfig(table="table1", runs=str(tmp_path))
    assert "not trained on" not in table(config)
    counts = {"leaked": 3, "held_out": 0, "train": 15_729, "validation": 1_590, "test": 4_307}
    write(tmp_path / "llama2-7b/qa/prepare/stats.json", counts)
    write(tmp_path / "llama2-7b/math/prepare/stats.json", counts | {"leaked": 0})
    (said,) = [line for line in table(config).splitlines() if "not trained on" in line]
    assert said == "llama2-7b/qa: not trained on, unlike in the paper: 3 prompts of a benchmark (of 15,732 rows)."
    write(tmp_path / "llama2-7b/math/prepare/stats.json", counts | {"held_out": 800, "train": 39_197})
    said = "800 held out for validation, 3 prompts of a benchmark (of 40,000 rows)."
    assert f"llama2-7b/math: not trained on, unlike in the paper: {said}" in table(config).splitlines()


def test_what_the_papers_text_says_of_analyses_stands_beside_ours(tmp_path: Path) -> None:
    folder = tmp_path / "llama3-8b/ultrafeedback"
    figures = folder / "analyze/figures"
    figures.mkdir(parents=True)
    (figures / "rewards.csv").write_text(
        "run,pairs,margin,low,high,n,accuracy in %,low,high,n\n"
        "dpo,ỹ_w / y_l,9,9,9,9,9,9,9,9\n"
        "dpo,y_w / y_l,0.5,0.4,0.6,2000,70.25,68.2,72.2,2000\n"
    )
    assert row("rewards", tmp_path, "DPO") == [
        "0.54", "0.50 [0.40, 0.60] (n = 2000)", "72.19", "70.25 [68.20, 72.20] (n = 2000)",
    ]  # fmt: skip
    assert row("rewards", tmp_path, "DPO-BMC") == ["0.74", NOT_RUN, "73.60", NOT_RUN]
    (figures / "figure2.csv").write_text(
        "model,response,tokens,mean −log p,low,high,pairs,number of tokens\n"
        "before,y_l,first,1,1,1,1,1\nafter,ỹ_w,first,2,2,2,2,2\nafter,y_l,first,12.5,12,13,30,99\n"
    )
    assert row("figure2", tmp_path, "DPO on bridged pairs") == [
        "13.79", "12.50 [12.00, 13.00] (n = 30)", "1.81", NOT_RUN
    ]  # fmt: skip
    (figures / "table10.csv").write_text("run,pairs,ratio to dpo\ndpo,1,1\ndpo_bmc,1,1.004\n")
    assert row("table10", tmp_path, "DPO-BMC")[4:] == ["below 1.01", "1.00"]


def test_what_bridging_left_out_and_changed_stands_beside_the_papers(tmp_path: Path) -> None:
    similar = {"levenshtein": {}, "cosine": {"y_w_edit": 0.91, "edit_y_l": 0.7}}
    stats = {"mode": "targeted", "rows": 200, "bridged": 90, "reasons": {"y_l needs no edit": 50, "other": 9}}
    write(tmp_path / "llama2-7b/qa/bridge/stats.json", stats | {"similarity": similar})
    write(tmp_path / "llama2-7b/math/bridge/stats.json", stats | {"similarity": {"levenshtein": {}}})
    degraded = stats | {"mode": "degrade", "similarity": similar}
    write(tmp_path / "llama2-7b/qa/ablations/bridge_degrade/stats.json", degraded)
    assert row("bridging", tmp_path, "dropped, no edit needed") == [
        "31 %", "25.0 % (n = 200)", "43 %", "25.0 % (n = 200)", "n/a", "–",
    ]  # fmt: skip
    assert row("bridging", tmp_path, "cosine of (y_w, ỹ_w)")[:4] == ["0.88", "0.91 (n = 90)", "0.88", NOT_RUN]
    assert row("bridging", tmp_path, "cosine of (y_l, ỹ_l)")[:2] == ["0.73", "0.70 (n = 90)"]
    write(tmp_path / "llama2-7b/qa/bridge/stats.json", {"mode": "targeted"})
    with pytest.raises(
        UserErrors, match=r"llama2-7b/qa: its files hold no bridging.no_edit_needed that can be read; run make"
    ):
        table(TableConfig(table="bridging", runs=str(tmp_path)))


def test_faults(subtests: pytest.Subtests) -> None:
    for words, what in [
        (["--table", "tabel1"], r"table: 'tabel1' is unknown \(did you mean 'table1'\?\); choose from table1, table2"),
        (["--table", "table1", "--model", "smollm2"], r"table1 has no 'smollm2' \(did you mean 'smollm2-135m'\?\)"),
        (["--table", "table2", "--model", "smollm2-135m"], "table2 has no 'smollm2-135m'; leave it out"),
        (["--table", "table1", "--numbers", "nowhere.yaml"], r"nowhere\.yaml: cannot be read"),
    ]:
        with subtests.test(words=words):
            with pytest.raises(UserErrors, match=what) as caught:
                parse(words, TableConfig)
            assert len(caught.value.faults) == 1


def test_a_damaged_file_is_named(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for text in ["{", "[]", '{"results": {"ecqa": {"n": 3}}}']:
        with subtests.test(text=text):
            path = tmp_path / "llama2-7b/qa/dpo/eval/metrics.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            with pytest.raises(UserErrors, match=r"dpo/eval/metrics\.json: is"):
                table(TableConfig(table="table1", runs=str(tmp_path)))


@pytest.mark.slow
def test_the_script() -> None:
    def run(*words: str) -> forks.Fork:
        return forks.run(["scripts/table.py", *words])

    needed = targets(TableConfig(table="table11", dry_run=True))
    assert run("table11", "--targets", "--dry_run").stdout.split() == needed
    for words in ([], ["tabel1"]):
        failed = run(*words)
        assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (2, "", 1)


def test_reported_numbers_are_the_papers() -> None:
    """Spot checks, copied apart from the file."""

    def reported(name: str, method: str) -> list[str]:
        (found,) = [line for line in table_rows(TableConfig(table=name)) if line[0].method == method]
        return [cell.reported for cell in found]

    assert reported("table1", "FIGA") == ["55.8", "–"]
    assert reported("table2", "SimPO") == ["21.3", "18.9", "1718", "26.6", "562", "16.8", "14.4", "1906", "18.4", "615"]
    assert reported("table2", "DPO-MC")[5:] == ["16.4", "14.3", "1712", "15.4", "551"]
    assert reported("table3", "y_l → ỹ_w without y_w") == ["64.3", "49.2", "19.8"]
    assert reported("table4", "Llama3-70B-Instruct") == ["64.6", "–", "21.8"]
    assert reported("table5", "IPO-BMC") == ["64.1", "48.6", "15.7"]
    assert reported("table11", "DPO-BMC") == ["+8.8 over DPO", "+7.3 over DPO"]


@pytest.mark.slow
def test_every_table_has_a_source_whole_rows_and_known_metrics() -> None:
    for name, entry in load_recipe(REPORTED)[0].items():
        assert entry["title"], name
        assert entry["source"], name
        assert all(len(line["reported"]) == len(entry["columns"]) for line in entry["rows"]), name
        metrics = {cell.metric for line in table_rows(TableConfig(table=name)) for cell in line}
        known = {"accuracy", "grad_norm", *FIGURE_METRICS, *BRIDGING_METRICS}
        assert all(metric in known or metric.startswith("judge.") for metric in metrics), name
