from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bmc.config import DatasetConfig, DatasetMixture, PrepareConfig
from bmc.errors import Fault, Faults, did_you_mean, fail
from bmc.runs import check_output_dir, claim_output_dir, run_fingerprint, run_main, write_json, write_jsonl


def recipe(**changes: Any) -> dict[str, Any]:
    mixture = DatasetMixture(datasets=[DatasetConfig(id="a.jsonl")])
    return run_fingerprint(PrepareConfig(**({"output_dir": "out", "dataset_mixture": mixture} | changes)))


def test_recipe_of_leaves_out_what_decides_no_result() -> None:
    assert recipe() == recipe(output_dir="elsewhere", dry_run=True)
    assert recipe() != recipe(validation_fraction=0.1)


def test_recipe_of_holds_what_was_set_so_that_a_key_of_a_later_version_changes_nothing() -> None:
    assert recipe() == {"dataset_mixture": {"datasets": [{"id": "a.jsonl"}]}}
    assert recipe(validation_fraction=0.1, chat_template=None) == {**recipe(), "validation_fraction": 0.1}


def test_claim_makes_the_folder_and_the_same_recipe_may_come_again(tmp_path: Path) -> None:
    folder = claim_output_dir(str(tmp_path / "a/b"), recipe())
    assert {path.name for path in folder.iterdir()} == {"recipe.json", "provenance.json"}
    assert json.loads((folder / "recipe.json").read_text()) == recipe()
    before = (folder / "recipe.json").stat().st_mtime_ns
    claim_output_dir(str(folder), recipe())
    assert (folder / "recipe.json").stat().st_mtime_ns == before


def test_another_recipe_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    folder = claim_output_dir(str(tmp_path / "run"), recipe())
    (folder / "train.jsonl").write_text("")
    before = (folder / "recipe.json").read_text()
    with pytest.raises(Faults) as caught:
        claim_output_dir(str(folder), recipe(validation_fraction=0.1, chat_template="x"))
    assert str(caught.value) == (
        f"{folder}: holds a run of another recipe (it differs in chat_template, validation_fraction); "
        "choose another output_dir or remove the folder"
    )
    assert (folder / "recipe.json").read_text() == before


def test_a_key_that_one_of_the_recipes_lacks_is_a_difference(tmp_path: Path) -> None:
    claim_output_dir(str(tmp_path), {"a": 1})
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(Faults, match=r"differs in b\)"):
        claim_output_dir(str(tmp_path), {"a": 1, "b": 2})


@pytest.mark.parametrize("left", ["train.jsonl.tmp", "runs/host/events.out.tfevents.1"])
def test_a_folder_without_results_is_claimed_by_no_recipe(left: str, tmp_path: Path) -> None:
    claim_output_dir(str(tmp_path), {"a": 1})
    (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / left).write_text("x")
    claim_output_dir(str(tmp_path), {"a": 2})
    assert json.loads((tmp_path / "recipe.json").read_text()) == {"a": 2}
    assert "resumed" not in json.loads((tmp_path / "provenance.json").read_text())
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "checkpoint-4/model.safetensors").write_text("x")
    with pytest.raises(Faults, match=r"differs in a\)"):
        claim_output_dir(str(tmp_path), {"a": 3})


def test_a_folder_with_other_files_may_be_claimed(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    claim_output_dir(str(tmp_path), recipe())
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_may_claim_writes_nothing(tmp_path: Path) -> None:
    check_output_dir(str(tmp_path / "new"), recipe())
    assert list(tmp_path.iterdir()) == []


def test_other_processes_do_not_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    claim_output_dir(str(tmp_path / "run"), recipe())
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for name in ["file", "file/below"]:
        with subtests.test(name=name):
            (tmp_path / "file").write_text("x")
            with pytest.raises(Faults, match="is a file, or lies in one; choose another output_dir"):
                claim_output_dir(str(tmp_path / name), recipe())


def test_a_manifest_that_is_none(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for text in ["{", "3", ""]:
        with subtests.test(text=text):
            (tmp_path / "recipe.json").write_text(text)
            with pytest.raises(Faults, match="is no record of a run; choose another output_dir or remove the folder"):
                claim_output_dir(str(tmp_path), recipe())


def test_json_is_written_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "a/b.json", {"x": "é"})
    assert (tmp_path / "a/b.json").read_text(encoding="utf-8") == '{\n  "x": "é"\n}\n'
    assert write_jsonl(tmp_path / "c.jsonl", [{"a": 1}, {"b": "\u2028"}]) == 2
    assert [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().split("\n") if line] == [
        {"a": 1}, {"b": "\u2028"},
    ]  # fmt: skip


def test_or_not_at_all(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield {"a": 1}
        raise RuntimeError("half-way")

    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"old": True}])
    with pytest.raises(RuntimeError, match="half-way"):
        write_jsonl(path, rows())
    with pytest.raises(TypeError):
        write_json(tmp_path / "new.json", object())
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]
    assert path.read_text() == '{"old": true}\n'


def test_stage_prints_one_line_a_fault_and_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise Faults(Fault("a.yaml", "beta:\n  is wrong"), Fault("b", "too"))

    with pytest.raises(SystemExit) as caught:
        run_main(main)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "a.yaml: beta: is wrong\nb: too\n"


def test_stage_leaves_other_errors_alone() -> None:
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_main(main)


def test_fail_and_did_you_mean() -> None:
    assert str(fail("a", "b")) == "a: b"
    assert did_you_mean("wieght", ["weight", "split"]) == " (did you mean 'weight'?)"
    assert did_you_mean("bta", ["base_url", "beta"]) == " (did you mean 'beta'?)"
    assert did_you_mean("bta", ["base_url"]) == ""
    assert did_you_mean("x", []) == ""


def test_a_template_named_over_another_folder_is_the_same() -> None:
    from bmc.runs import differing_keys

    earlier = {"chat_template": "recipes/a/b/../c/../../chat_templates/x.jinja", "beta": 0.1}
    assert differing_keys(earlier, earlier | {"chat_template": "recipes/a/b/../../chat_templates/x.jinja"}) == []
    assert differing_keys(earlier, earlier | {"chat_template": "recipes/y.jinja"}) == ["chat_template"]
