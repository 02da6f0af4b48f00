"""Rounds on a tiny model: what each stage is given, resuming, early stop, budget, control, faults."""

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forks
import pytest
import yaml
from server import ChatServer, Reply, part, revises

from bmc import commands, pipeline
from bmc.errors import UserErrors
from bmc.recipe import located
from bmc.rounds import best_round, fresh_parts

ROOT = Path(__file__).parents[1]
PRICE = {"m": {"input": 1000.0, "output": 2000.0}}
PAID = 0.3 + 0.04  # dollars of a response: 300 and 20 tokens
Commands = list[list[str]]


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    """A folder with prepared rows and the recipes of the stages."""
    folder = tmp_path_factory.mktemp("rounds")
    questions = folder / "questions.jsonl"
    with questions.open("w") as file:
        for i in range(24):
            problem = f"Which is {i}?\nOptions:\nred{i}\nblue{i}"
            print(json.dumps({"problem": problem, "solution": f"It is red{i}.", "answer": f"red{i}"}), file=file)
    ours = {"datasets": [{"id": str(questions), "source": "ecqa", "num_rows": 16}]}
    tests = {"test_datasets": [{"id": str(questions), "source": "ecqa", "num_rows": 5}]}
    write(folder, "prepare", dataset_mixture=ours | tests, validation_fraction=0.3)
    commands.prepare([str(folder / "prepare.yaml"), f"--output_dir={folder}/data"])
    template = str(ROOT / "recipes/chat_templates/instruction.jinja")
    model = {"model_name_or_path": str(model_dir), "dtype": "float32", "chat_template": template}
    generation = model | {"max_new_tokens": 8, "batch_size": 4}
    write(folder, "sample", dataset_mixture=data(folder / "data/train.jsonl"), temperature=1.0, **generation)
    write(folder, "bridge", dataset_mixture=data("none.jsonl"), editor="rules")
    write(
        folder, "train", dataset_mixture=data("none.jsonl"), token_weighting="bmc", use_cpu=True, bf16=False,
        gradient_checkpointing=False, report_to="none", save_strategy="no", logging_steps=1, max_length=200,
        num_train_epochs=1, per_device_train_batch_size=4, learning_rate=1e-3, **model,
    )  # fmt: skip
    write(folder, "evaluate", dataset_mixture=data(folder / "data/test.jsonl"), **generation)
    return folder


def data(path: Any) -> dict[str, Any]:
    return {"datasets": [{"id": str(path)}]}


def write(folder: Path, name: str, **values: Any) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"output_dir": str(folder / name), **values}))
    return path


@pytest.fixture
def run(recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Commands]:
    """Runs rounds with their stages in this process; returns the stages' commands."""
    monkeypatch.setattr(sys, "argv", ["bmc", "rounds"])
    monkeypatch.chdir(tmp_path)
    after: list[Callable[[str, Path], None]] = []

    def stage(command: list[str]) -> int:
        words = command[2:]
        run.commands.append(words)  # type: ignore[attr-defined]
        try:
            getattr(commands, words[0])(words[1:])
        except UserErrors as error:
            print(located(error), file=sys.stderr)
            return 2
        for look in after:
            look(words[0], Path(words[words.index("--output_dir") + 1]))
        return 0

    monkeypatch.setattr(pipeline, "_run", stage)

    def run(*more: str, **values: Any) -> Commands:
        run.commands = []  # type: ignore[attr-defined]
        path = rounds_recipe(recipes, tmp_path, **values)
        commands.rounds([str(path), *more])
        return run.commands  # type: ignore[attr-defined]

    run.after = after  # type: ignore[attr-defined]
    return run


def rounds_recipe(recipes: Path, folder: Path, **values: Any) -> Path:
    stages = {
        name: os.path.relpath(recipes / f"{name}.yaml", folder) for name in ("sample", "bridge", "train", "evaluate")
    }
    return write(folder, "rounds", stage="rounds", **{**stages, "rounds": 2, "output_dir": "out", **values})


def value(words: list[str], key: str) -> Any:
    return words[words.index(f"--{key}") + 1] if f"--{key}" in words else None


def datasets(words: list[str]) -> list[str]:
    return [Path(entry["id"]).as_posix() for entry in json.loads(value(words, "dataset_mixture.datasets"))]


def numbers(folder: Path) -> Any:
    """The results without what depends on time and place."""
    text = (folder / "rounds.json").read_text()
    return json.loads(re.sub(r'"seconds": [\d.]+', '"seconds": 0', text).replace(str(folder), "out"))


def test_parts_are_disjoint_of_equal_size_and_keep_equal_prompts_together() -> None:
    rows = [{"id": str(place), "prompt": f"{place % 10}?"} for place in range(20)]
    parts = fresh_parts(rows, 3, 7)
    prompts = [{row["prompt"] for row in part} for part in parts]
    assert sorted(map(len, prompts)) == [3, 3, 4]
    assert set.union(*prompts) == {row["prompt"] for row in rows}
    assert [len(part) for part in parts] == [2 * len(found) for found in prompts]
    assert parts == fresh_parts(rows, 3, 7) != fresh_parts(rows, 3, 8)
    assert fresh_parts(list(reversed(rows)), 3, 7) == [list(reversed(part)) for part in parts]


def test_the_best_is_the_first_of_the_highest(subtests: pytest.Subtests) -> None:
    for accuracies, best in [([0.5], 0), ([0.5, 0.6, 0.4], 1), ([0.5, 0.5], 0), ([0.5, 0.4], 0)]:
        with subtests.test(accuracies=accuracies):
            assert best_round(accuracies) == best


@pytest.mark.slow
def test_each_round_goes_on_from_the_last_and_a_control_has_as_many_pairs(
    run: Any, model_dir: Path, tmp_path: Path, recipes: Path
) -> None:
    made = run(prompts="fresh", control=True)
    first, one, two = str(model_dir), "out/round_1/model", "out/round_2/model"
    shown = [(words[0], value(words, "model_name_or_path"), value(words, "output_dir")) for words in made]
    assert shown == [
        ("evaluate", first, "out/first/eval"), ("evaluate", first, "out/first/eval_validation"),
        ("sample", first, "out/round_1/sample"), ("bridge", None, "out/round_1/bridge"), ("train", first, one),
        ("evaluate", one, f"{one}/eval"), ("evaluate", one, f"{one}/eval_validation"),
        ("sample", one, "out/round_2/sample"), ("bridge", None, "out/round_2/bridge"), ("train", one, two),
        ("evaluate", two, f"{two}/eval"), ("evaluate", two, f"{two}/eval_validation"),
        ("sample", first, "out/control/pass_2/sample"), ("bridge", None, "out/control/pass_2/bridge"),
        ("train", first, "out/control/model"), ("evaluate", "out/control/model", "out/control/model/eval"),
        ("evaluate", "out/control/model", "out/control/model/eval_validation"),
    ]  # fmt: skip
    trained = [words for words in made if words[0] == "train"]
    assert [value(words, "ref_model_name_or_path") for words in trained] == [None, first, None]
    assert datasets(trained[1]) == ["out/round_2/bridge/train.jsonl"]
    assert datasets(trained[2]) == ["out/round_1/bridge/train.jsonl", "out/control/pass_2/bridge/train.jsonl"]
    sampled = [words for words in made if words[0] == "sample"]
    parts = [Path(path).name for words in sampled for path in datasets(words)]
    assert parts == ["part_1.jsonl", "part_2.jsonl", "part_2.jsonl"]
    assert [value(words, "seed") for words in sampled] == ["42", "43", "43"]

    found = numbers(tmp_path / "out")
    kept = [len((tmp_path / f"out/round_{k}/bridge/train.jsonl").read_text().splitlines()) for k in (1, 2)]
    assert [result["kept"] for result in found["rounds"]] == [None, *kept]
    assert found["control"]["kept"] == found["control"]["wanted"] == found["control"]["trained_on"] == sum(kept)
    assert [result["prompts"] for result in found["rounds"][1:]] == [
        len((tmp_path / f"out/prompts/part_{k}.jsonl").read_text().splitlines()) for k in (1, 2)
    ]
    metrics = json.loads((tmp_path / two / "eval/metrics.json").read_text())
    assert found["rounds"][2]["kl"] == metrics["kl"]
    assert metrics["kl"]["reference"] == first
    assert metrics["kl"]["per_response"][0] != 0
    assert found["rounds"][2]["accuracy"]["n"] == 5
    assert (
        found["rounds"][2]["edit_ratio"]
        == json.loads((tmp_path / "out/round_2/bridge/stats.json").read_text())["edit_ratio"]
    )
    page = (tmp_path / "out/rounds.html").read_text()
    assert all(f"{value:.2f}" in page for value in metrics["kl"]["per_response"])
    assert page.count("data:image/svg") == 2

    assert run(prompts="fresh", control=True) == []  # all is there
    assert numbers(tmp_path / "out") == found
    with pytest.raises(UserErrors, match=r"out: holds a run of another recipe .*differs in reference"):
        run(prompts="fresh", reference="previous")
    assert run("--rounds=2", prompts="fresh", early_stop=False) == []  # decides nothing that is done


@pytest.mark.slow
def test_all_pairs_and_the_previous_reference(run: Any) -> None:
    made = run("--early_stop=false", pairs="all", reference="previous")
    trained = [words for words in made if words[0] == "train"]
    assert datasets(trained[1]) == ["out/round_1/bridge/train.jsonl", "out/round_2/bridge/train.jsonl"]
    assert value(trained[1], "ref_model_name_or_path") is None
    assert [words for words in made if words[-1].endswith("eval_validation")] == []
    assert all(value(words, "dataset_mixture.datasets") is None for words in made if words[0] == "sample")
    more = run("--early_stop=false", pairs="all", reference="previous", rounds=3)  # of the same prompts
    assert [words[0] for words in more] == ["sample", "bridge", "train", "evaluate"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accuracies", "best", "model"),
    [([0.5, 0.6, 0.4], 1, "out/round_1/model"), ([0.5, 0.4], 0, None), ([0.5, 0.5, 0.6], 2, "out/round_2/model")],
)
def test_it_stops_when_validation_accuracy_falls(
    accuracies: list[float], best: int, model: str | None, run: Any, tmp_path: Path, model_dir: Path
) -> None:
    given = iter(accuracies)

    def score(stage: str, folder: Path) -> None:
        if folder.name == "eval_validation":
            file = folder / "metrics.json"
            metrics = json.loads(file.read_text())
            next(iter(metrics["results"].values()))["accuracy"] = next(given)
            file.write_text(json.dumps(metrics))

    run.after.append(score)
    run(rounds=3 if accuracies[-1] < accuracies[-2] else 2)
    found = numbers(tmp_path / "out")
    assert found["best"] == {"round": best, "model": model or str(model_dir)}
    assert len(found["rounds"]) == len(accuracies)
    fell = accuracies[-1] < accuracies[-2]
    assert (found["stopped"] or "").startswith("validation accuracy fell" if fell else "")
    assert next(given, None) is None


def edits(request: dict[str, Any], number: int) -> Reply:
    reply = revises(request, part(request, "draft") + " Yes.")
    reply["body"]["usage"] = {"prompt_tokens": 300, "completion_tokens": 20, "total_tokens": 320}
    return reply


@pytest.mark.slow
def test_the_budget_holds_over_all_rounds(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipes: Path
) -> None:
    monkeypatch.setenv("EDITOR_KEY", "sk-test")
    with ChatServer(edits) as server:
        bridge = write(
            tmp_path, "bridge", dataset_mixture=data("none.jsonl"), base_url=server.url, api_key_env="EDITOR_KEY",
            model="m", prices=PRICE, max_tokens=64, validators={
                "final_answer": False, "max_length_ratio": None, "max_edit_ratio": 1.0, "copy_min_original_ratio": 1.0
            },
        )  # fmt: skip
        with pytest.raises(UserErrors, match=r"^max_cost_usd: it would cost about \$[\d.]+ after \$0.0000") as error:
            run(bridge=str(bridge), max_cost_usd=0.5)
        assert not server.requests
        need = float(re.search(r"about \$([\d.]+)", str(error.value))[1])  # type: ignore[index]
        made = run(bridge=str(bridge), max_cost_usd=need + 1)
        found = numbers(tmp_path / "out")
        sent = len(server.requests)
        assert len(found["rounds"]) == 2  # the first model, and one round
        assert found["dollars"] == pytest.approx(PAID * sent)
        assert found["stopped"].startswith("round 2 was not begun: it would cost about $")
        assert value(next(words for words in made if words[0] == "bridge"), "max_cost_usd") == str(need + 1)
        made = run(bridge=str(bridge), max_cost_usd=1000)
        assert [words[0] for words in made] == ["bridge", "train", "evaluate", "evaluate"]
        assert float(value(made[0], "max_cost_usd")) == pytest.approx(1000 - PAID * sent)
        found = numbers(tmp_path / "out")
        assert found["stopped"] is None
        assert found["dollars"] == pytest.approx(PAID * len(server.requests))
        assert max(server.asked.values()) == 1


def test_a_round_without_a_pair(run: Any, recipes: Path, tmp_path: Path) -> None:
    """The greedy response is the chosen one of every row."""
    sample = yaml.safe_load((recipes / "sample.yaml").read_text()) | {"temperature": 0.0, "output_dir": "greedy"}
    commands.sample([str(write(tmp_path, "greedy", **sample))])
    rows = [json.loads(line) for line in (tmp_path / "greedy/train.jsonl").read_text().splitlines()]
    same = [{"id": row["id"], "prompt": row["prompt"], "chosen": row["rejected"]} for row in rows]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in same))
    write(tmp_path, "sample", **sample | {"dataset_mixture": data(tmp_path / "rows.jsonl")})
    what = rf"^out/round_1/sample/dropped.jsonl: no pair is left of {len(rows)} responses .*{len(rows)} × equal to y_w"
    with pytest.raises(UserErrors, match=what):
        run(sample="sample.yaml", early_stop=False)
    assert not (tmp_path / "out/round_1/bridge").exists()
    assert not (tmp_path / "out/rounds.json").exists()


@pytest.mark.parametrize(
    ("values", "stage", "fault"),
    [
        ({"max_cost_usd": 1.0}, {}, "max_cost_usd: editor: rules of .*bridge.yaml costs nothing; leave it out"),
        ({"prompts": "fresh", "rounds": 99}, {}, r"prompts: \d+ prompts can't be dealt to 99 rounds"),
        ({"sample": "gone.yaml"}, {}, "gone.yaml: cannot be read"),
        ({}, {"train": {"sweep": {"beta": [0.1, 0.2]}}}, "train.yaml: sweep: a round is one training"),
        ({}, {"train": data("a.jsonl")["datasets"] * 2}, "train.yaml: dataset_mixture.datasets: lists 2 data sets"),
        ({}, {"bridge": {"modus": "targeted"}}, "bridge.yaml: modus: unknown key"),
        ({}, {"sample": {"model_revision": "v1"}}, "sample.yaml: model_revision: "),
        ({}, {"evaluate": {"dataset_mixture": data("other.jsonl")}}, "early_stop: .*evaluate.yaml reads other.jsonl"),
        ({}, {"evaluate": {"dataset_mixture": data("gone/test.jsonl")}}, "gone/validation.jsonl: holds no rows"),
        ({"prompts": "new"}, {}, "prompts: must be 'same' or 'fresh'"),
    ],
)
def test_faults_are_found_before_anything_is_written(
    values: dict[str, Any], stage: dict[str, Any], fault: str, run: Any, recipes: Path, tmp_path: Path
) -> None:
    changed = {}
    for name, more in stage.items():
        more = {"dataset_mixture": {"datasets": more}} if isinstance(more, list) else more
        write(tmp_path, name, **yaml.safe_load((recipes / f"{name}.yaml").read_text()) | more)
        changed[name] = f"{name}.yaml"
    for dry in ([], ["--dry_run"]):
        if dry and "gone/" in fault:
            continue  # its data may still be made
        with pytest.raises(UserErrors) as error:
            run(*dry, **changed | values)
        assert re.search(fault, located(error.value)), located(error.value)
        assert not (tmp_path / "out").exists()


def test_a_dry_run_prints_all_commands_and_their_cost(run: Any, recipes: Path, tmp_path: Path, capsys: Any) -> None:
    from bmc.config import Price
    from bmc.planning.dataset_stats import dataset_stats
    from bmc.planning.estimates import bridging_dollars

    bridge = write(tmp_path, "bridge", dataset_mixture=data("none.jsonl"), model="m", prices=PRICE)
    assert run("--dry_run", bridge=str(bridge), rounds=3, control=True, max_cost_usd=90.0) == []
    printed = capsys.readouterr().out.splitlines()
    stages = [words[2] for line in printed if (words := line.split())[:2] == ["python", "bmc"]]
    assert stages == ["evaluate"] * 2 + ["sample", "bridge", "train", "evaluate", "evaluate"] * 3 + [
        "sample", "bridge", "sample", "bridge", "train", "evaluate", "evaluate"
    ]  # fmt: skip
    from bmc.config import DatasetConfig

    rows = dataset_stats([DatasetConfig(id=str(recipes / "data/train.jsonl"))])
    assert rows is not None
    each = bridging_dollars(Price(**PRICE["m"]), rows.rows, rows.prompt, rows.response, "closed")
    cost = next(line for line in printed if line.startswith("  cost"))
    amounts = re.findall(r"\$([\d.,]+)", cost)
    assert [float(amount.strip(",.")) for amount in amounts] == pytest.approx(
        [each, 3 * each, 5 * each, 90.0], abs=0.006
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_killed_in_round_2_goes_on_with_the_same_numbers(run: Any, recipes: Path, tmp_path: Path) -> None:
    run()
    whole = numbers(tmp_path / "out")
    shutil.rmtree(tmp_path / "out/round_2")
    (tmp_path / "out/rounds.json").unlink()
    command = ["-m", "bmc", "rounds", str(rounds_recipe(recipes, tmp_path))]
    running = forks.Fork(command, cwd=tmp_path, start_new_session=True)
    claimed = tmp_path / "out/round_2/model/recipe.json"
    while not claimed.exists() and running.poll() is None:
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert claimed.exists()
    assert not (tmp_path / "out/round_2/model/metrics.json").exists()
    assert [words[0] for words in run()] == ["train", "evaluate", "evaluate"]
    assert numbers(tmp_path / "out") == whole
