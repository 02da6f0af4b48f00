"""An output folder belongs to one recipe; files are whole or absent; a stage ends as users expect."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forks import run

from bmc.config import BridgeConfig, DatasetConfig, DatasetMixture, PrepareConfig
from bmc.errors import UserError, UserErrors, did_you_mean, user_error
from bmc.recipe import parse
from bmc.runs import check_output_dir, claim_output_dir, run_fingerprint, run_main, write_json, write_jsonl


def recipe(**changes: Any) -> dict[str, Any]:
    mixture = DatasetMixture(datasets=[DatasetConfig(id="a.jsonl")])
    return run_fingerprint(PrepareConfig(**({"output_dir": "out", "dataset_mixture": mixture} | changes)))


def test_a_fingerprint_has_what_was_set_and_affects_results() -> None:
    """A key that a later version adds changes nothing."""
    assert recipe() == recipe(output_dir="elsewhere", dry_run=True)
    assert recipe() == {"dataset_mixture": {"datasets": [{"id": "a.jsonl"}]}}
    assert recipe(validation_fraction=0.1, chat_template=None) == {**recipe(), "validation_fraction": 0.1}


def test_the_same_recipe_may_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_output_dir(str(tmp_path / "a"), recipe())
    with monkeypatch.context() as patch:
        patch.setenv("RANK", "1")
        claim_output_dir(str(tmp_path / "a"), recipe())
    assert list(tmp_path.iterdir()) == []  # a check, and other processes, write nothing
    folder = claim_output_dir(str(tmp_path / "a/b"), recipe())
    assert {path.name for path in folder.iterdir()} == {"recipe.json", "provenance.json"}
    assert json.loads((folder / "recipe.json").read_text()) == recipe()
    before = (folder / "recipe.json").stat().st_mtime_ns
    (folder / "notes.txt").write_text("mine")
    claim_output_dir(str(folder), recipe())
    assert (folder / "recipe.json").stat().st_mtime_ns == before
    assert (folder / "notes.txt").read_text() == "mine"


def test_another_recipe_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    folder = claim_output_dir(str(tmp_path / "run"), recipe())
    (folder / "train.jsonl").write_text("")
    before = (folder / "recipe.json").read_text()
    with pytest.raises(UserErrors) as caught:
        claim_output_dir(str(folder), recipe(validation_fraction=0.1, chat_template="x"))
    assert str(caught.value) == (
        f"{folder}: holds a run of another recipe (it differs in chat_template, validation_fraction); "
        "choose another output_dir or remove the folder"
    )
    assert (folder / "recipe.json").read_text() == before


def test_what_a_recipe_reads_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    for name in ("train.jsonl", "pairs.jsonl"):
        (tmp_path / "mine" / name).write_text('{"prompt": "x"}\n')

    def reading(name: str) -> dict[str, Any]:
        return recipe(dataset_mixture=DatasetMixture(datasets=[DatasetConfig(id=str(tmp_path / "mine" / name))]))

    for folder in ("mine", "link"):
        with pytest.raises(UserErrors, match=r"(mine|link): holds train\.jsonl, which the recipe reads"):
            claim_output_dir(str(tmp_path / folder), reading("train.jsonl"))
    assert not (tmp_path / "mine/recipe.json").exists()
    check_output_dir(str(tmp_path / "mine"), reading("train.jsonl"), writes_rows=False)  # a training writes no rows
    check_output_dir(str(tmp_path / "mine"), reading("pairs.jsonl"))
    check_output_dir(str(tmp_path / "mine/out"), reading("train.jsonl"))


def test_a_folder_without_results_is_free(tmp_path: Path) -> None:
    for left in ("train.jsonl.tmp", "runs/host/events.out.tfevents.1"):
        claim_output_dir(str(tmp_path), {"a": 1})
        (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / left).write_text("x")
        claim_output_dir(str(tmp_path), {"a": 2})
        assert json.loads((tmp_path / "recipe.json").read_text()) == {"a": 2}
        assert "resumed" not in json.loads((tmp_path / "provenance.json").read_text())
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "checkpoint-4/model.safetensors").write_text("x")
    with pytest.raises(UserErrors, match=r"differs in b\)"):
        claim_output_dir(str(tmp_path), {"a": 2, "b": 1})


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("file", "file/below"):
        with pytest.raises(UserErrors, match="is a file, or lies in one; choose another output_dir"):
            claim_output_dir(str(tmp_path / name), recipe())
    for text in ("{", "3", ""):
        (tmp_path / "recipe.json").write_text(text)
        with pytest.raises(UserErrors, match="is no record of a run; choose another output_dir or remove"):
            claim_output_dir(str(tmp_path), recipe())


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield {"a": 1}
        raise RuntimeError("half-way")

    write_json(tmp_path / "a/b.json", {"x": "é"})
    assert (tmp_path / "a/b.json").read_text(encoding="utf-8") == '{\n  "x": "é"\n}\n'
    path = tmp_path / "rows.jsonl"
    assert write_jsonl(path, [{"a": 1}, {"b": "\u2028"}]) == 2
    assert path.read_text() == '{"a": 1}\n{"b": "\u2028"}\n'
    with pytest.raises(RuntimeError, match="half-way"):
        write_jsonl(path, rows())
    with pytest.raises(TypeError):
        write_json(tmp_path / "new.json", object())
    assert {file.name for file in tmp_path.iterdir()} == {"a", "rows.jsonl"}
    assert path.read_text() == '{"a": 1}\n{"b": "\u2028"}\n'


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "config", "keys"), [
    ("bridge", BridgeConfig, {"editor": "rules"}),
    ("prepare", PrepareConfig, {}),
])  # fmt: skip
def test_a_folder_is_written_by_one_run_at_a_time(tmp_path: Path, stage: str, config: type, keys: Any) -> None:
    folder, recipe = tmp_path / "out", tmp_path / "recipe.yaml"
    row = {"task": "math", "answer": "3", "prompt": "1 + 2 =", "chosen": "1 + 2 = 3\nThe answer is 3"}
    row |= {"rejected": "1 + 2 = 4\nThe answer is 4"}
    write_jsonl(tmp_path / "pairs.jsonl", [row])
    mixture = {"datasets": [{"id": str(tmp_path / "pairs.jsonl")}]}
    write_json(recipe, {"dataset_mixture": mixture, "output_dir": str(folder), **keys})

    def first() -> None:
        (parsed,) = parse([str(recipe)], config)
        claim_output_dir(str(folder), run_fingerprint(parsed), parsed)
        (folder / "train.jsonl.tmp").write_text("half")
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        second = run([f"scripts/{stage}.py", str(recipe)])
        what = "another run is writing this folder; wait until it has ended, or choose another output_dir"
        assert (second.returncode, second.stderr) == (2, f"{folder}: {what}\n")
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before

    run_main(first)
    third = run([f"scripts/{stage}.py", str(recipe)])
    assert (third.returncode, (folder / "train.jsonl").exists()) == (0, True), third.stderr


def test_a_stage_prints_one_line_an_error_and_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise UserErrors(UserError("a.yaml", "beta:\n  is wrong"), UserError("b", "too"))

    with pytest.raises(SystemExit) as caught:
        run_main(main)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "a.yaml: beta: is wrong\nb: too\n"
    with pytest.raises(ZeroDivisionError):
        run_main(lambda: 1 / 0)  # type: ignore[arg-type,return-value]


def test_messages_and_suggestions() -> None:
    assert str(user_error("a", "b")) == "a: b"
    assert did_you_mean("wieght", ["weight", "split"]) == " (did you mean 'weight'?)"
    assert did_you_mean("bta", ["base_url", "beta"]) == " (did you mean 'beta'?)"
    assert did_you_mean("bta", ["base_url"]) == did_you_mean("x", []) == ""
