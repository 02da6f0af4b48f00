"""The laboratory: its tasks, its editor, its model and a study, each small."""

import asyncio
import json
import re
import subprocess
import sys
import time
from math import log
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bmc.bridging.edits import EditRequest
from bmc.bridging.ideal_editor import IdealEditor
from bmc.config import DatasetConfig, LabConfig
from bmc.data.loading import load_mixture
from bmc.errors import UserErrors
from bmc.lab import trainings, writers_followed
from bmc.recipe import parse

ROOT = Path(__file__).parents[2]

PARAMETERS = st.fixed_dictionaries(
    {
        "task": st.sampled_from(["sums", "turns"]),
        "writers": st.integers(1, 8),
        "length": st.integers(3, 7),
        "seed": st.integers(0, 99),
    }
)


def read(config: Any, num_rows: int) -> list[dict[str, Any]]:
    return list(load_mixture([DatasetConfig(source="lab", config=config, num_rows=num_rows)], 0))


def right_answer(question: str) -> str:
    """Solve a question from its words alone."""
    if question.startswith("Calculate"):
        return str(sum(map(int, re.findall(r"\d+", question))))
    turned = sum(AROUND[word] for word in re.findall(r"\w+", question.split(".")[0]) if word in AROUND)
    return ("north", "east", "south", "west")[turned % 4]


AROUND = {"north": 0, "east": 1, "south": 2, "west": 3, "none": 0, "right": 1, "back": 2, "left": 3}


def holds(step: str) -> bool:
    """Whether a sum's or a turn's step is true."""
    numbers = [*map(int, re.findall(r"\d+", step))]
    if numbers:
        return numbers[0] + numbers[1] == numbers[2]
    one, other, result = (word for word in re.findall(r"\w+", step) if word in AROUND)
    kinds = [word in ("north", "east", "south", "west") for word in (one, other, result)]
    return (AROUND[one] + AROUND[other] - AROUND[result]) % 4 == 0 and kinds[2] == any(kinds[:2])


@settings(deadline=None)
@given(PARAMETERS)
def test_all_solutions_are_right(parameters: dict[str, Any]) -> None:
    for row in read(parameters, 5):
        answer = right_answer(row["prompt"][0]["content"])
        assert row["answer"] == answer
        assert row["completion"][0]["content"] in row["solutions"]
        assert len(row["solutions"]) <= parameters["writers"]
        for solution in row["solutions"]:
            *steps, last = solution.splitlines()[1:]
            assert last == f"The answer is {answer}"
            assert all(holds(step) for line in steps for step in line.split(" ; "))


def test_one_writer_has_one_style_and_more_writers_have_more() -> None:
    def styles(writers: int) -> int:
        rows = read({"writers": writers, "seed": 3}, 200)
        return max(len(row["solutions"]) for row in rows)

    assert [styles(writers) for writers in (1, 2, 4, 8)] == [1, 2, 4, 8]


def test_writers_who_add_in_one_order_differ_in_words_and_layout() -> None:
    row = read({"writers": 4, "length": 3, "order": "left", "seed": 3}, 1)[0]
    first, second, third = map(int, re.findall(r"\d+", row["prompt"][0]["content"]))
    terms = (first, second, first + second), (first + second, third, first + second + third)
    steps = [[shape.format(*numbers) for numbers in terms] for shape in ("{} + {} = {}", "{} and {} make {}")]
    bodies = [sep.join(lines) for sep in ("\n", " ; ") for lines in steps]
    assert [solution.split("\n", 1)[1].rsplit("\n", 1)[0] for solution in row["solutions"]] == bodies


def test_rejected_responses_are_wrong_at_the_given_rate(subtests: pytest.Subtests) -> None:
    for rate in [0.0, 0.7, 1.0]:
        with subtests.test(rate=rate):
            rows = read({"writers": 4, "rejected_error_rate": rate, "seed": 5}, 1000)
            right = sum(row["rejected"][0]["content"] in row["solutions"] for row in rows)
            assert right / 1000 == pytest.approx(1 - rate, abs=0.05)
            assert all(row["chosen"][0]["content"] in row["solutions"] for row in rows)


def test_parameters_that_are_no_good(subtests: pytest.Subtests) -> None:
    for config, fault in [
        ({"task": "sum"}, "lab: config.task: "),
        ({"writer": 2}, "lab: config.writer: "),
        ({"writers": 9}, "lab: config.writers: "),
        ({"writers": 5, "order": "left"}, "lab: config.writers: must be at most 4 with order: left, got 5"),
        ({"length": 2}, "lab: config: has only 81 different questions of 100"),
        (None, "lab: config: must be a mapping"),
    ]:
        with subtests.test(config=config), pytest.raises(UserErrors, match=re.escape(fault)):
            read(config, 100)


SOLUTIONS = ("2 + 3 = 5\n5 + 4 = 9\nThe answer is 9", "4 + 3 = 7\n7 + 2 = 9\nThe answer is 9")


def edited(rejected: str, solutions: tuple[str, ...] = SOLUTIONS, **faults: float) -> str | None:
    case = EditRequest("1", "math", "2 + 3 + 4", SOLUTIONS[0], rejected, "9", solutions)
    return asyncio.run(IdealEditor(**faults).edit(case)).text


def test_the_ideal_editor_keeps_the_style_of_y_l() -> None:
    assert edited("4 + 3 = 7\n7 + 2 = 8\nThe answer is 8") == SOLUTIONS[1]
    assert edited("2 + 3 = 6\n6 + 4 = 10\nThe answer is 10") == SOLUTIONS[0]
    assert edited(SOLUTIONS[1]) is None  # right as it is, in whatever style
    with pytest.raises(UserErrors, match="need a column `solutions`"):
        edited("x", ())


def test_an_editor_with_faults() -> None:
    wrong = "4 + 3 = 8\n8 + 2 = 10\nThe answer is 10"
    assert edited(wrong, rewrite_rate=1.0) == SOLUTIONS[0]
    # three places are wrong ("8 8", "10" and "10"): the first two are edited
    assert edited(wrong, error_rate=1.0) == "4 + 3 = 7\n7 + 2 = 9\nThe answer is 10"


def test_which_writer_a_response_follows(tmp_path: Path) -> None:
    """Of four rows one is left out, since both writers add 2 + 2."""
    opening = "Let's think step by step."
    rows = [
        (
            [f"{opening}\n2 + 3 = 5\n5 + 4 = 9", f"{opening}\n4 + 3 = 7\n7 + 2 = 9"],
            f"{opening}\n4 + 3 = 7\n7 + 2 = 8",
            False,
        ),
        (
            [f"{opening}\n1 + 3 = 4 ; 4 + 5 = 9", f"{opening}\n5 + 3 = 8 ; 8 + 1 = 9"],
            f"{opening}\n1 + 3 = 4 ; 4 + 5 = 9",
            True,
        ),
        ([f"{opening}\n1 + 3 = 4", f"{opening}\n3 + 1 = 4"], "4", True),
        ([f"{opening}\n2 + 2 = 4"], f"{opening}\n2 + 2 = 4", True),
    ]
    for name, lines in (
        ("rows", [{"solutions": solutions} for solutions, _, _ in rows]),
        ("predictions", [{"prediction": text, "correct": right} for _, text, right in rows]),
    ):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert writers_followed(tmp_path / "predictions", tmp_path / "rows") == [[1, 1], [1, 0], [1, 1]]


STUDY = {
    "recipes": "recipes/lab",
    "sft_seeds": [1],
    "seeds": [1],
    "methods": {"dpo": {"beta": [0.5]}, "dpo_bmc": {"pairs": "sloppy", "learning_rate": 1e-3}},
    "bridges": {"bridge": {}, "sloppy": {"editor": "sloppy", "editor_rewrite_rate": 0.5}},
    "stages": {
        "prepare": {"dataset_mixture.datasets.0.num_rows": 120, "dataset_mixture.test_datasets.0.num_rows": 20},
        "sft": {"num_train_epochs": 1},
        "sample": {"dataset_mixture.datasets.0.num_rows": 64},
        "base": {"logging_steps": 1, "beta": 0.9},
    },
}


def test_trainings_go_through_every_point_of_every_grid() -> None:
    grid = {"dpo": [{"beta": [0.1, 1.0], "learning_rate": 1e-4}, {}], "sft_chosen": {}}
    config = LabConfig(recipes="r", output_dir="o", methods=grid, seeds=[7, 8])
    points = [({"beta": 0.1, "learning_rate": 1e-4}), ({"beta": 1.0, "learning_rate": 1e-4}), {}]
    expected = [("dpo", point, seed) for point in points for seed in (7, 8)]
    assert list(trainings(config)) == [*expected, ("sft_chosen", {}, 7), ("sft_chosen", {}, 8)]


def test_studies_that_cant_run(subtests: pytest.Subtests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for values, fault in [
        ({"methods": {"dqo": {}}}, "methods.dqo: has no recipe recipes/lab/dqo.yaml"),
        ({"stages": {"sfft": {}}}, "stages.sfft: has no recipe"),
        ({"methods": {"dpo": {"pairs": ["bridge", "slopy"]}}}, "methods.dpo.pairs: 'slopy' is none of bridges: bridge"),
        ({"methods": {"dpo": [0.1]}}, "methods.dpo: must be a mapping"),
        ({"seeds": []}, "seeds: is empty"),
    ]:
        with subtests.test(values=values):
            monkeypatch.chdir(ROOT)
            study = tmp_path / "study.yaml"
            study.write_text(yaml.safe_dump({"recipes": "recipes/lab", "output_dir": "o", **values}))
            with pytest.raises(UserErrors, match=re.escape(fault)):
                parse([str(study)], LabConfig)


@pytest.mark.slow
def test_a_study_trains_each_method_and_is_not_run_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump(STUDY | {"output_dir": str(tmp_path / "out")}))
    command = [sys.executable, "-m", "bmc", "lab", str(study)]
    began = time.monotonic()
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]  # the second waits for the first
    assert [one.wait() for one in both] == [0, 0], (tmp_path / "out/seed_1.log").read_text()
    rows = json.loads((tmp_path / "out/results.json").read_text())["rows"]
    assert [(row["method"], row["pairs"], row["values"], row["n"]) for row in rows] == [
        ("sft", "bridge", {}, 20),
        ("dpo", "bridge", {"beta": 0.5}, 20),
        ("dpo_bmc", "sloppy", {"learning_rate": 1e-3}, 20),
    ]
    assert all(mean > 0 for side in rows[0]["spans"].values() for mean in side.values())
    (start, *_), (first, *_) = rows[1]["held_out"], rows[1]["steps"]
    assert start[0] == start[3] == 0  # no step, no margin
    assert first[1] == pytest.approx(log(2), abs=0.01)
    assert first[0] == rows[2]["steps"][0][0] == 1  # `base` is of all methods, and a method's values go before it
    betas = [json.loads(path.read_text())["beta"] for path in sorted(tmp_path.glob("out/seed_1/dpo*/*/recipe.json"))]
    assert betas == [0.5, 0.9]
    assert 0 < rows[2]["trained_on"] <= 64
    taken = [json.loads(path.read_text())["seconds"] for path in tmp_path.glob("out/seed_1/**/stats.json")]
    assert len(taken) > 3
    assert sum(taken) < time.monotonic() - began  # of each stage alone
    output = tmp_path / "out/seed_1.log"
    stages = output.read_text().count("\nbmc ")
    assert output.read_text().count("bmc train ") == 2
    subprocess.run(command, capture_output=True, check=True)
    assert output.read_text().count("\nbmc ") == stages
    for part, values in [
        ("prepare", {"validation_fraction": 0.2}),
        ("base", {"beta": 0.8}),
        ("eval", {"batch_size": 7}),
    ]:
        changed = STUDY | {"output_dir": str(tmp_path / "out"), "stages": STUDY["stages"] | {part: values}}
        study.write_text(yaml.safe_dump(changed))
        assert subprocess.run(command, capture_output=True).returncode == 2, part
        assert "was made by other values" in output.read_text().splitlines()[-1]
        assert output.read_text().count("\nbmc ") == stages
    own = {"units": str(tmp_path / "out"), "output_dir": str(tmp_path / "other"), "held_out_rows": 0}
    study.write_text(yaml.safe_dump(STUDY | own | {"methods": {"dpo": {"beta": 0.3}}}))
    subprocess.run(command, capture_output=True, check=True)
    sft, dpo = json.loads((tmp_path / "other/results.json").read_text())["rows"]
    assert sft["accuracy"] == rows[0]["accuracy"]
    assert (dpo["held_out"], "spans" in sft) == ([], False)
