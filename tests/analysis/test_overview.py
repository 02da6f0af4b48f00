"""The columns of the overview, worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made import result, write

from bmc.analysis.overview import Column, Score, as_table, overview
from bmc.analysis.page.sections import scores
from bmc.analysis.runs import find_runs
from bmc.errors import Faults

ROOT = Path(__file__).parents[2]


def columns(root: Path) -> dict[str, Column]:
    return {column.title: column for column in overview(find_runs(root), root)}


def test_the_average_joins_its_benchmarks_intervals(tmp_path: Path) -> None:
    """Each end is √(3² + 4²)/2 = 2.5 points from the mean of 60 and 80."""
    two = {"ecqa": result(360, 600, (0.57, 0.64)), "qasc": result(320, 400, (0.76, 0.83))}
    write(tmp_path / "dpo/eval/metrics.json", {"results": two, "average": 0.7})
    found = columns(tmp_path)
    assert list(found) == ["ecqa", "qasc", "average"]
    assert str(found["average"].scores["dpo"]) == "70.0 [67.5, 72.5] (n = 1000)"


@pytest.mark.parametrize(
    ("best", "second", "mark"),
    [
        (Score(60, 55, 65), Score(54, 49, 59), "best"),
        (Score(60, 55, 65), Score(56, 51, 61), "highest"),  # may be chance
        (Score(60, 55, 65), Score(60, 55, 65), "highest"),  # a tie: both
        (Score(60), Score(10), "highest"),  # without an interval nothing is sure
    ],
)
def test_marks(best: Score, second: Score, mark: str) -> None:
    column = Column("ecqa", {"a": second, "b": best})
    assert column.mark("b") == mark
    assert column.mark("a") == ("highest" if best == second else "")
    assert column.mark("c") == ""
    assert Column("ecqa", {"b": best}).mark("b") == ""


def test_the_released_codes_scoring_stands_beside(tmp_path: Path) -> None:
    """Wilson's interval of 5 in 10 is 23.7 to 76.3."""
    both = {"ecqa": result(7, 10) | {"accuracy_released": 0.5}}
    write(tmp_path / "dpo/eval/metrics.json", {"results": both})
    write(tmp_path / "sft/eval/metrics.json", {"results": {"ecqa": result(3, 10)}})
    found = columns(tmp_path)
    assert str(found["ecqa, released scoring"].scores["dpo"]) == "50.0 [23.7, 76.3] (n = 10)"
    header, rows = as_table(["dpo", "sft"], list(found.values()))
    assert header == ["run", "ecqa", "ecqa, released scoring"]
    assert rows[1] == ["sft", "30.0 [20.0, 80.0] (n = 10)", "not run"]


JUDGED: dict[str, Any] = {
    "benchmark": "alpaca_eval", "judge": "j", "reference": "r", "n": 805, "win_rate": 16.8, "interval": [14.2, 19.4],
    "length_controlled_win_rate": 22.4, "unreadable": 3,
}  # fmt: skip


def test_judgements_and_the_harness(tmp_path: Path) -> None:
    write(tmp_path / "dpo/eval/metrics.json", {"n": 805, "results": {}})
    write(tmp_path / "dpo/eval/judged.json", JUDGED)
    write(tmp_path / "sft/eval/judged.json", JUDGED | {"length_controlled_win_rate": None})
    tasks = {
        "gsm8k": {"metric": "exact_match", "value": 0.5, "stderr": 0.05, "n": 100},
        "none": {"metric": "acc", "value": 0.0, "stderr": 0.0, "n": 20},
    }
    write(tmp_path / "sft/eval/lm_eval.json", {"tasks": tasks})
    found = columns(tmp_path)
    assert {title: {run: str(score) for run, score in column.scores.items()} for title, column in found.items()} == {
        "AlpacaEval 2 LC": {"dpo": "22.4 (n = 805)"},
        "AlpacaEval 2 WR": {"dpo": "16.8 [14.2, 19.4] (n = 805)", "sft": "16.8 [14.2, 19.4] (n = 805)"},
        "gsm8k, lm-eval (exact_match)": {"sft": "50.0 [39.7, 60.3] (n = 100)"},  # exact; 50 ± 1.984 × 5 is 40.1 to 59.9
        "none, lm-eval (acc)": {"sft": "0.0 [0.0, 16.8] (n = 20)"},  # 1 − 0.025^(1/20)
    }


def test_a_judgement_belongs_to_the_run_that_it_is_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for run in ("dpo", "sft", "ipo"):
        write(Path("runs") / run / "eval/metrics.json", {"n": 805, "results": {}})
    write(Path("runs/dpo/eval/alpaca/judged.json"), JUDGED)  # below the responses
    write(Path("runs/sft/arena/judged.json"), {**JUDGED, "benchmark": "arena_hard"})  # below the model
    write(Path("runs/judge/ipo/judged.json"), {**JUDGED, "responses": "runs/ipo/eval"})  # elsewhere
    runs = find_runs(Path("runs"))
    assert {name: list(run.judged) for name, run in runs.items()} == {
        "dpo": ["alpaca_eval"],
        "ipo": ["alpaca_eval"],
        "sft": ["arena_hard"],
    }
    write(Path("runs/dpo/eval/again/judged.json"), JUDGED)
    with pytest.raises(Faults, match=r"dpo was judged twice on alpaca_eval: \S+/again/\S+ and \S+/alpaca/judged"):
        find_runs(Path("runs"))


def test_the_papers_numbers_stand_beside_those_of_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for setting in ("llama2-7b/math", "smollm2-135m/math"):
        for run in ("dpo_bmc", "orpo"):
            write(tmp_path / setting / run / "eval/metrics.json", {"results": {"gsm8k": result(5, 10)}})
    write(tmp_path / "llama3-8b/ultrafeedback/dpo_bmc/eval/judged.json", JUDGED)
    assert columns(tmp_path / "llama2-7b/math")["gsm8k"].reported == {"dpo_bmc": "49.6"}
    assert columns(tmp_path / "smollm2-135m/math")["gsm8k"].reported == {}
    found = columns(tmp_path)
    assert found["gsm8k"].reported == {"llama2-7b/math/dpo_bmc": "49.6"}
    assert found["AlpacaEval 2 LC"].reported == {"llama3-8b/ultrafeedback/dpo_bmc": "22.4"}
    header, rows = as_table(["llama2-7b/math/dpo_bmc", "llama2-7b/math/orpo"], [found["gsm8k"]])
    assert header == ["run", "gsm8k", "gsm8k, the paper's average"]
    assert [row[-1] for row in rows] == ["49.6", "–"]


def test_the_page_shows_the_best_in_bold_and_in_words(tmp_path: Path) -> None:
    write(tmp_path / "a/eval/metrics.json", {"results": {"ecqa": result(60, 100, (0.55, 0.65))}})
    write(tmp_path / "b/eval/metrics.json", {"results": {"ecqa": result(40, 100, (0.35, 0.45))}})
    markup = scores(["a", "b", "<c>"], list(columns(tmp_path).values()))
    assert '<b>60.0</b> <span class="mark">best</span><br><small>55.0 to 65.0</small>' in markup
    assert "ecqa<br><small>n = 100</small>" in markup
    assert '<th scope="row">&lt;c&gt;</th><td><span class="none">not run</span></td>' in markup
    # 35 to 65 is the whole scale, from 4 to 96: 40 lies at 4 + 92 × 5/30
    assert '<line x1="4.0" y1="4" x2="34.7" y2="4"/><circle cx="19.3"' in markup


@pytest.mark.parametrize(
    ("file", "value"),
    [
        ("judged.json", JUDGED | {"interval": [1]}),
        ("lm_eval.json", {"tasks": {"gsm8k": {"value": 0.5}}}),
        ("metrics.json", {"results": {"ecqa": {"accuracy": 0.5}}}),
        ("metrics.json", {"results": []}),
        ("metrics.json", []),
    ],
)
def test_a_file_of_another_shape_is_named(file: str, value: Any, tmp_path: Path) -> None:
    write(tmp_path / "dpo/eval" / file, value)
    with pytest.raises(Faults, match=rf"dpo/eval/{file}.*; \w+") as caught:
        columns(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
