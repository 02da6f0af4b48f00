"""Which files an id means, and data sets that lie in a clone of their authors' repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hub_rows import NO, USER, YES

from bmc.config import DatasetConfig
from bmc.data.loading import files_of, load_mixture
from bmc.data.registry import DATASETS
from bmc.errors import Faults
from bmc.planning.dataset_stats import dataset_stats
from bmc.planning.describe import describe_data

FOLDERS = {  # training_data/ of YJiangcm/BMC, as its tree lists it
    "bmc_released_qa": ("qa_dpo_bmc", ["train-00000-of-00001"]),
    "bmc_released_math": ("math_dpo_bmc", ["train-00000-of-00001"]),
    "bmc_released_ultrafeedback": (
        "ultrafeedback_dpo_bmc",
        ["test-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"],
    ),
    "bmc_released_qa_sft": ("qa_sft", ["train-00000-of-00001"]),
    "bmc_released_math_sft": ("math_sft", ["train-00000-of-00001"]),
}


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of the authors' repository, with two rows a file."""
    for source, (folder, names) in FOLDERS.items():
        for name in names:
            said = [{"role": "user", "content": f"{source} {name} {n}?"} for n in range(2)]
            rows: list[dict[str, Any]] = [{"prompt_id": f"{n}", "messages": [said[n], YES]} for n in range(2)]
            if not source.endswith("sft"):
                rows = [{"chosen": [said[n], YES], "rejected": [said[n], NO]} for n in range(2)]
            parquet(tmp_path / f"BMC/training_data/{folder}/{name}.parquet", rows)
    return tmp_path / "BMC"


@pytest.mark.parametrize("source", FOLDERS)
def test_a_clone_is_an_id(source: str, clone: Path) -> None:
    config = DatasetConfig(source=source, id=str(clone))
    rows = list(load_mixture([config], 0))
    shards = [name for name in FOLDERS[source][1] if name.startswith("train")]
    assert [row["prompt"][0]["content"] for row in rows] == [f"{source} {name} {n}?" for name in shards for n in (0, 1)]
    assert {row["source"] for row in rows} == {source}
    assert {"chosen": [YES], "rejected": [NO]}.items() <= rows[0].items() or rows[0]["completion"] == [YES]
    # the folder itself, and one of its files, will do as well
    folder = clone / "training_data" / FOLDERS[source][0]
    assert list(load_mixture([DatasetConfig(source=source, id=str(folder))], 0)) == rows
    one = list(load_mixture([DatasetConfig(source=source, id=str(folder / f"{shards[0]}.parquet"))], 0))
    assert one == rows[:2]
    assert dataset_stats([config]).rows == len(rows)
    assert [path.stem for path in files_of(str(clone), "train", source)] == shards


def test_other_splits_of_a_clone(clone: Path) -> None:
    def rows(split: str) -> Any:
        config = DatasetConfig(source="bmc_released_ultrafeedback", id=str(clone), split=split)
        return load_mixture([config], 0)

    assert len(rows("test")) == 2
    with pytest.raises(Faults, match=r"has no split 'tst' \(did you mean 'test'"):
        rows("tst")
    (clone / "training_data/ultrafeedback_dpo_bmc/train-00001-of-00002.parquet").unlink()
    with pytest.raises(Faults, match=r"train-00001-of-00002\.parquet is missing"):
        rows("train")


def test_without_a_clone_the_fault_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # data/BMC would be a Hub id
    for config, what in (
        (
            DatasetConfig(source="bmc_released_qa", id="data/BMC"),
            "^data/BMC: holds no training_data/qa_dpo_bmc; git clone",
        ),
        (DatasetConfig(source="bmc_released_qa"), "^bmc_released_qa: lies in its authors' repository; git clone"),
    ):
        with pytest.raises(Faults, match=what) as caught:
            load_mixture([config], 0)
        assert len(caught.value.faults) == 1
    assert "not there yet; git clone https" in describe_data([DatasetConfig(source="bmc_released_qa", id="data/BMC")])


@pytest.mark.parametrize("place", ["", "data"])
def test_a_hub_data_set_as_a_local_folder(place: str, tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test_prefs-00000-of-00001"):
        parquet(tmp_path / place / f"{name}.parquet", [{"prompt": f"{name}?", "completion": "Yes."}])
    found = load_mixture([DatasetConfig(id=str(tmp_path))], 0)
    assert [row["prompt"] for row in found] == ["train-00000-of-00002?", "train-00001-of-00002?"]
    assert len(load_mixture([DatasetConfig(id=str(tmp_path), split="test_prefs")], 0)) == 1


@pytest.mark.parametrize(
    ("source", "raw", "what"),
    [
        ("bmc_released_qa", {"chosen": [YES], "rejected": [NO]}, "there is no prompt"),
        ("bmc_released_qa", {"chosen": "Yes.", "rejected": [USER, NO]}, "chosen: must be a list of messages"),
        ("bmc_released_qa_sft", {"messages": [USER]}, "must be a prompt and an assistant's response"),
    ],
)
def test_rows_of_another_shape(source: str, raw: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        DATASETS[source].to_row(raw)
