"""Which runs are there, whether they compare, and which pairs they weren't trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bmc.analysis import trained
from bmc.analysis.held_out import held_out, originals
from bmc.config import AnalyzeConfig, DatasetConfig, DatasetMixture
from bmc.data.schema import transcript
from bmc.errors import Faults


def message(words: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": words}]


def pairs(path: Path, numbers: range) -> str:
    sides = {"chosen": "w", "rejected": "l", "original_chosen": "o"}
    said = {side: message(words) for side, words in sides.items()} | {"bridged": True, "edit_ratio": 0.5}
    rows = [{"id": f"p{n}", "prompt": [{"role": "user", "content": f"x{n}"}]} | said for n in numbers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def make_run(setting: Path, name: str, weights: bool = True, **recipe: Any) -> Path:
    folder = setting / name
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text('{"rows": 3, "train_runtime": 2.0}')
    (folder / "recipe.json").write_text(json.dumps({"model_name_or_path": "sft", "max_length": 64} | recipe))
    (folder / "tokenizer.json").write_text("{}")
    if weights:
        (folder / "model.safetensors").write_bytes(b"")
    return folder


def config(setting: Path, **more: Any) -> AnalyzeConfig:
    return AnalyzeConfig(setting=str(setting), output_dir=str(setting / "analyze"), **more)


def told(setting: Path, *names: str) -> str:
    with pytest.raises(Faults) as error:
        trained.check_alike(trained.find(str(setting), list(names))[0])
    return str(error.value)


def test_what_is_there_and_what_is_missing(tmp_path: Path) -> None:
    setting = tmp_path / "outputs/a/b"
    make_run(setting, "dpo")
    make_run(setting, "dpo_bc", weights=False)
    (setting / "dpo_mc").mkdir()
    (setting / "dpo_mc/recipe.json").write_text("{}")
    runs, missing = trained.find(str(setting), ["dpo", "dpo_mc", "dpo_bc", "dpo_bmc"])
    assert [(run.name, run.method, run.has_weights) for run in runs] == [
        ("dpo", "DPO", True), ("dpo_bc", "DPO-BC", False),
    ]  # fmt: skip
    assert missing == {"dpo_mc": "not finished", "dpo_bmc": "not run"}
    assert trained.make(str(setting), "dpo_mc", "dpo_bmc") == "make a/b/dpo_mc a/b/dpo_bmc"


def test_an_empty_folder_and_none(tmp_path: Path) -> None:
    (tmp_path / "outputs/a").mkdir(parents=True)
    with pytest.raises(Faults, match=r"outputs/a: holds no finished run dpo \(metrics.json\); make a/dpo"):
        trained.find(str(tmp_path / "outputs/a"), ["dpo"])
    with pytest.raises(Faults, match=r"setting: there is no folder .*/none; give the one"):
        trained.find(str(tmp_path / "none"), ["dpo"])


def test_runs_that_do_not_compare(tmp_path: Path) -> None:
    make_run(tmp_path, "dpo")
    make_run(tmp_path, "same")
    trained.check_alike(trained.find(str(tmp_path), ["dpo", "same"])[0])
    make_run(tmp_path, "of_another", model_name_or_path="other")
    assert told(tmp_path, "dpo", "of_another") == (
        "runs: of_another has another reference model than dpo (other and sft); analyse them apart"
    )
    make_run(tmp_path, "longer", max_length=128)
    assert "longer has another max_length than dpo (128 and 64)" in told(tmp_path, "dpo", "longer")
    (make_run(tmp_path, "words") / "tokenizer.json").write_text('{"other": 1}')
    assert "words has another tokenizer than dpo; analyse" in told(tmp_path, "dpo", "words")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (make_run(tmp_path, "dpo") / "metrics.json").write_text("{")
    (run,) = trained.find(str(tmp_path), ["dpo"])[0]
    with pytest.raises(Faults, match=r"dpo/metrics.json: is not JSON; remove it"):
        _ = run.metrics


def test_pairs_are_those_that_training_held_out(tmp_path: Path) -> None:
    data = pairs(tmp_path / "train.jsonl", range(10))
    mixture = {"datasets": [{"id": data}], "test_split_size": 0.3}
    make_run(tmp_path, "dpo", dataset_mixture=mixture)
    make_run(tmp_path, "dpo_bmc", dataset_mixture=mixture)
    runs = trained.find(str(tmp_path), ["dpo", "dpo_bmc"])[0]
    found = held_out(config(tmp_path), runs)
    from bmc.data.loading import load_split

    train, held = load_split(DatasetMixture(datasets=[DatasetConfig(id=data)], test_split_size=0.3))
    assert held is not None
    assert [row["id"] for row in found.rows] == [row["id"] for row in held]
    assert not {row["id"] for row in found.rows} & {row["id"] for row in train}
    assert (found.left_out, len(found.rows)) == (0, 3)
    assert originals(found.rows)[0]["chosen"] == message("o")


def test_pairs_that_a_run_was_trained_on_are_left_out(tmp_path: Path) -> None:
    data, others = pairs(tmp_path / "train.jsonl", range(4)), pairs(tmp_path / "others.jsonl", range(2, 6))
    make_run(tmp_path, "dpo", dataset_mixture={"datasets": [{"id": data}]})
    runs = trained.find(str(tmp_path), ["dpo"])[0]
    named = DatasetMixture(datasets=[DatasetConfig(id=others)])
    found = held_out(config(tmp_path, dataset_mixture=named), runs)
    assert ([row["id"] for row in found.rows], found.left_out) == (["p4", "p5"], 2)
    with pytest.raises(Faults, match=r"the prompts of all 4 pairs of .*train.jsonl were trained on; give others"):
        held_out(config(tmp_path, dataset_mixture=DatasetMixture(datasets=[DatasetConfig(id=data)])), runs)
    with pytest.raises(Faults, match="dataset_mixture: the runs held no pairs out; name some"):
        held_out(config(tmp_path), runs)


def test_pairs_must_be_bridged(tmp_path: Path) -> None:
    path = tmp_path / "plain.jsonl"
    path.write_text(json.dumps({"prompt": "x", "chosen": "a", "rejected": "b"}) + "\n")
    make_run(tmp_path, "dpo", dataset_mixture={"datasets": [{"id": pairs(tmp_path / "train.jsonl", range(2))}]})
    named = DatasetMixture(datasets=[DatasetConfig(id=str(path))])
    with pytest.raises(Faults, match=r"has no column original_chosen; .* not bridged: run scripts/bridge\.py"):
        held_out(config(tmp_path, dataset_mixture=named), trained.find(str(tmp_path), ["dpo"])[0])


def test_prompts_are_read_as_text() -> None:
    assert transcript("x") == "x"
    assert transcript([{"role": "user", "content": "Why?"}]) == "Why?"
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    assert transcript(turns) == "user: Hi\n\nassistant: Yes?"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("--runs=[dpo,dpo]", "runs: dpo stands twice; keep one"),
        ("--runs=[]", "runs: is empty; name a folder in setting"),
        ("--metric=f1", "metric: must be accuracy, judged.BENCHMARK_lc or judged.BENCHMARK_wr, got f1"),
    ],
)
def test_recipes_that_can_not_be(words: str, what: str) -> None:
    from bmc.recipe import parse

    with pytest.raises(Faults) as error:
        parse(["--setting=x", "--output_dir=y", words], AnalyzeConfig)
    assert str(error.value) == f"command line: {what}"
