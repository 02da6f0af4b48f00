"""Files as people have them, in every format and layout; damaged ones; clones and the Hub."""

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import datasets
import pyarrow
import pytest
from datasets import Dataset, DatasetDict
from hub_rows import HUB, NO, USER, YES
from pyarrow import parquet

from bmc.config import DatasetConfig
from bmc.data.files import file_rows
from bmc.data.loading import files_of, load_mixture, open_dataset
from bmc.data.registry import DATASETS
from bmc.data.schema import split_prompt
from bmc.errors import UserErrors

ROWS: list[dict[str, Any]] = [
    {"prompt": "Why, then?", "chosen": 'He said "no",\nand left.', "rejected": "007"},
    {"prompt": "q2\u2028", "chosen": "true", "rejected": "2020-01-01"},
]


def rows(**config: Any) -> list[dict[str, Any]]:
    found = load_mixture([DatasetConfig(**config)], 0)
    return [{key: value for key, value in row.items() if key != "id"} for row in found]


def fault(**config: Any) -> str:
    with pytest.raises(UserErrors) as caught:
        list(open_dataset(DatasetConfig(**config)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(path: Path, given: list[dict[str, Any]]) -> str:
    """Write rows in the format that a name asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    opener: Any = gzip.open if path.suffix == ".gz" else open
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        Dataset.from_list(given).to_parquet(str(path))
        return str(path)
    with opener(path, "wt", encoding="utf-8-sig", newline="") as file:
        if name.endswith(".csv"):
            writer = csv.DictWriter(file, list(given[0]))
            writer.writeheader()
            writer.writerows(given)
        elif name.endswith(".json"):
            json.dump(given, file, indent=2)
        else:
            file.write("\r\n".join(json.dumps(row, ensure_ascii=False) for row in given) + "\n\n")
    return str(path)


FORMATS = ("jsonl", "json", "parquet", "csv", "jsonl.gz", "json.gz", "csv.gz")


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    found = {kind: rows(id=write(tmp_path / f"a.{kind}", ROWS)) for kind in FORMATS}
    assert {kind: given for kind, given in found.items() if given != ROWS} == {}
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "object.json").write_text(json.dumps(dict(enumerate(ROWS))))  # TabMWP
    (tmp_path / "one.json").write_text(json.dumps(ROWS[0]))
    assert rows(id=f"{tmp_path}/lines.json") == rows(id=f"{tmp_path}/object.json") == ROWS
    assert rows(id=f"{tmp_path}/one.json") == ROWS[:1]
    (tmp_path / "b.csv").write_text("prompt,answer\r\nq,\r\nr,7\r\n")
    assert rows(id=f"{tmp_path}/b.csv") == [{"prompt": "q"}, {"prompt": "r", "answer": "7"}]


def test_folders_as_the_hub_lays_them_out(tmp_path: Path) -> None:
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    write(one / "data/train-00000-of-00002.parquet", ROWS[:1])
    write(one / "data/train-00001-of-00002.parquet", ROWS[1:])
    write(one / "data/test_prefs-00000-of-00001-0123456789abcdef.parquet", ROWS[1:])
    write(two / "default/train/0000.parquet", ROWS[:1])
    write(two / "default/train/0001.parquet", ROWS[1:])
    write(two / "other/train.jsonl", ROWS[1:])
    write(three / "train.jsonl", ROWS[:1])  # a split in two formats is read once
    write(three / "train.parquet", ROWS)
    assert rows(id=str(one)) == rows(id=str(two), config="default") == ROWS
    assert rows(id=str(one), split="test_prefs") == rows(id=str(two), config="other") == ROWS[1:]
    assert rows(id=str(three)) == ROWS[:1]
    assert fault(id=str(one), split="test") == f"{one}: has no split 'test'; there are test_prefs, train"
    (one / "data/train-00001-of-00002.parquet").unlink()
    assert "train-00001-of-00002.parquet is missing" in fault(id=str(one))


def test_what_save_to_disk_wrote(tmp_path: Path) -> None:
    DatasetDict({"train": Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "d"))
    Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "e"))
    assert rows(id=str(tmp_path / "d")) == rows(id=str(tmp_path / "e")) == ROWS
    assert fault(id=str(tmp_path / "d"), split="test").endswith("has no split 'test'; there are train")


def test_a_file_at_fault_is_named_with_its_row(tmp_path: Path) -> None:
    deep = "is not JSON (nested too deeply"
    digits = "is not JSON (a number of thousands of digits"
    cases: dict[str, tuple[str | bytes, str]] = {
        "a.jsonl": ('{"a": 1}\n\n{"a": 2\n', ": row 3: is not JSON (Expecting ',' delimiter at column 8); write one"),
        "b.jsonl": ('{"a": 1}\n[2]\n', ': row 2: is not an object; write {"column": value, …}'),
        "c.jsonl": (b'{"a": "\xff"}\n', ": is not UTF-8 text (invalid start byte at byte 7)"),
        "d.jsonl": ("[" * 100_000 + "\n", f": row 1: {deep}"),
        "e.jsonl": ('{"n": ' + "9" * 5000 + "}\n", f": row 1: {digits}"),
        "a.json": ('[{"a": 1},\n {"a" 2}]', ": line 2: is not JSON (Expecting ':' delimiter)"),
        "b.json": ('[{"a": 1}, 2]', ": row 2: is not an object"),
        "c.json": ("17", ": must hold a list of objects"),
        "d.json": ('{"a": 1}\n{"a": 2', ": row 2: is not JSON"),
        "e.json": ("[" * 100_000, f": line 1: {deep}"),
        "f.json": ("9" * 5000, f": line 1: {digits}"),
        "a.parquet": ("PAR1", ": can't be read as Parquet"),
        "a.csv": ("prompt,answer\nq,a, b\n", ": row 1: has more cells than the first line has names; put texts with"),
        "b.csv": ("p,answer,p,,\nq,a,b,,\n", ": has two columns 'p'; give each its own name in the first line"),
        "a.tsv": ("a\n1\n", ": is no .jsonl, .json, .parquet, .csv, "),
    }
    whole = gzip.compress(json.dumps(ROWS).encode() * 9)
    for kind in ("jsonl", "json", "csv"):
        for number, data in enumerate((whole[:-9], whole[10:], whole[:10] + b"!" * 20)):
            cases[f"{number}.{kind}.gz"] = (data, ": can't be read (")
    wrong = {}
    for name, (data, what) in cases.items():
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        if not (said := fault(id=f"{tmp_path}/{name}")).startswith(f"{tmp_path}/{name}{what}"):
            wrong[name] = said
    assert not wrong


def test_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub(monkeypatch, [])
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "train.jsonl", ROWS)
    (tmp_path / "sets/pairs").mkdir(parents=True)
    (tmp_path / "void").mkdir()
    assert fault(id=f"{tmp_path}/trian.jsonl") == (
        f"{tmp_path}/trian.jsonl: no such file (did you mean 'train.jsonl'?); paths are relative to {Path.cwd()}"
    )
    names = ("rows.jsonl", "rows.json", "rows.parquet", "./rows", "../rows", "/rows", "~/rows.x", "a/b/c")
    assert [name for name in names if not fault(id=name).startswith(f"{name}: no such file")] == []
    assert fault(id=str(tmp_path), split="tran").endswith(
        "has no split 'tran' (did you mean 'train'?); there are train"
    )
    assert fault(id="sets/paris").startswith("sets/paris: there is no such folder (did you mean 'pairs'?); for a data ")
    assert "it holds no .jsonl, .json, .parquet, .csv, " in fault(id=str(tmp_path / "void"))
    assert fault(source="gsm8kk") == "source: 'gsm8kk' is unknown (did you mean 'gsm8k'?)"
    assert fault(source="tabmwp") == "tabmwp: has no home on the Hub; give the path of its file as `id`"
    assert "config: must be the name of a configuration" in fault(id="me/x", config={"task": "chain_sum"})
    assert not calls


def test_a_row_of_unknown_shape_is_named_with_its_columns(tmp_path: Path) -> None:
    good = {"question": "?", "answer": "#### 1"}
    for name in ("rows.jsonl", "rows.parquet"):
        path = write(tmp_path / name, [{"q": "?", "a": "1"}])
        assert fault(source="gsm8k", id=path) == (
            f"{path}: row 1: is of no shape that source 'gsm8k' knows; it has q, a, "
            "and gsm8k wants question and answer, or problem, solution and answer"
        )
    path = write(tmp_path / "empty.jsonl", [good, {"question": "?", "answer": "1"}])
    assert fault(source="gsm8k", id=path).startswith(f"{path}: row 2: answer: has no '#### …' at its end; it has ")


READ = """
import resource, sys
from pathlib import Path
from bmc.data.files import file_rows
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = [(row["prompt"], len(row["text"]), len(row["turns"][0]["content"])) for row in file_rows(Path(sys.argv[1]))]
assert rows == [(str(i), 2_000_000, 2_000_000) for i in range(150)], rows[:3]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_small_parquet_file_of_large_texts_takes_little_memory(tmp_path: Path) -> None:
    """0.6 GB of text in some 10 kB."""
    text = "x" * 2_000_000
    turns = [[{"role": "user", "content": text}]] * 150
    table = pyarrow.table({"prompt": [str(i) for i in range(150)], "text": [text] * 150, "turns": turns})
    parquet.write_table(table, tmp_path / "bomb.parquet", compression="zstd")
    assert (tmp_path / "bomb.parquet").stat().st_size < 20_000
    done = subprocess.run([sys.executable, "-c", READ, str(tmp_path / "bomb.parquet")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 350_000  # kB; 256 rows at once take more than half a million


def test_half_a_surrogate_pair_is_a_question_mark(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a\\ud83d"}\n')
    assert list(file_rows(tmp_path / "a.jsonl")) == [{"prompt": "a?"}]


# The authors' repository


FOLDERS = {  # training_data/ of YJiangcm/BMC, as its tree lists it
    "bmc_released_qa": ("qa_dpo_bmc", ["train-00000-of-00001"]),
    "bmc_released_math": ("math_dpo_bmc", ["train-00000-of-00001"]),
    "bmc_released_ultrafeedback": (
        "ultrafeedback_dpo_bmc", ["test-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"]
    ),
    "bmc_released_qa_sft": ("qa_sft", ["train-00000-of-00001"]),
    "bmc_released_math_sft": ("math_sft", ["train-00000-of-00001"]),
}  # fmt: skip


def test_a_clone_of_the_authors_repository_is_an_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    unknown = DatasetConfig(source="bmc_released_qa", id="data/BMC")  # could be a Hub id
    with pytest.raises(UserErrors, match=r"^data/BMC: holds no training_data/qa_dpo_bmc; git clone"):
        load_mixture([unknown], 0)
    with pytest.raises(UserErrors, match=r"^bmc_released_qa: lies in its authors' repository; git clone"):
        load_mixture([DatasetConfig(source="bmc_released_qa")], 0)
    clone = tmp_path / "BMC"
    for source, (folder, names) in FOLDERS.items():
        for name in names:
            said = [{"role": "user", "content": f"{name} {n}?"} for n in range(2)]
            given: list[dict[str, Any]] = [{"prompt_id": f"{n}", "messages": [said[n], YES]} for n in range(2)]
            if not source.endswith("sft"):
                given = [{"chosen": [said[n], YES], "rejected": [said[n], NO]} for n in range(2)]
            write(clone / f"training_data/{folder}/{name}.parquet", given)
    for source, (folder, names) in FOLDERS.items():
        shards = [name for name in names if name.startswith("train")]
        found = rows(source=source, id=str(clone))
        assert [row["prompt"][0]["content"] for row in found] == [f"{name} {n}?" for name in shards for n in (0, 1)]
        responses = {"completion": [YES]} if source.endswith("sft") else {"chosen": [YES], "rejected": [NO]}
        assert all({"source": source, **responses}.items() <= row.items() for row in found)
        assert rows(source=source, id=f"{clone}/training_data/{folder}") == found
        assert rows(source=source, id=f"{clone}/training_data/{folder}/{shards[0]}.parquet") == found[:2]
        assert [path.stem for path in files_of(str(clone), "train", source)] == shards
    assert len(rows(source="bmc_released_ultrafeedback", id=str(clone), split="test")) == 2


# The Hub


def hub(monkeypatch: pytest.MonkeyPatch, given: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Stand in for the Hub; returns the list of what it will have been asked."""
    calls: list[tuple[Any, ...]] = []

    def load(path: str, name: str | None = None, *, split: str, data_files: str | None = None) -> Dataset:
        calls.append((path, name, split, data_files))
        return Dataset.from_list(given)

    monkeypatch.setattr(datasets, "load_dataset", load)
    return calls


def test_hub_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    feedback, alpaca = "HuggingFaceH4/ultrafeedback_binarized", "tatsu-lab/alpaca_eval/alpaca_eval_gpt4_baseline.json"
    cases: list[tuple[dict[str, Any], tuple[Any, ...]]] = [
        ({"source": "gsm8k"}, ("openai/gsm8k", "main", "train", None)),
        ({"source": "gsm8k", "config": "socratic", "split": "test"}, ("openai/gsm8k", "socratic", "test", None)),
        ({"source": "gsm8k", "id": "me/gsm8k"}, ("me/gsm8k", None, "train", None)),
        ({"source": "qasc", "split": "test"}, ("allenai/qasc", None, "validation", None)),
        ({"source": "arc_easy", "split": "test"}, ("allenai/ai2_arc", "ARC-Easy", "test", None)),
        ({"source": "arc_challenge", "split": "test"}, ("allenai/ai2_arc", "ARC-Challenge", "test", None)),
        ({"source": "math_500", "split": "test"}, ("HuggingFaceH4/MATH-500", None, "test", None)),
        ({"source": "svamp", "split": "test"}, ("ChilleD/SVAMP", None, "test", None)),
        ({"source": "asdiv", "split": "test"}, ("EleutherAI/asdiv", None, "validation", None)),
        ({"source": "ultrachat_200k"}, ("HuggingFaceH4/ultrachat_200k", None, "train_sft", None)),
        ({"source": "ultrafeedback", "split": "test"}, (feedback, None, "test_prefs", None)),
        ({"source": "ultrafeedback", "split": "train_gen"}, (feedback, None, "train_gen", None)),
        ({"source": "alpaca_eval", "split": "eval"}, ("json", None, "train", f"hf://datasets/{alpaca}")),
        ({"id": "hf://datasets/a/b/c.parquet"}, ("parquet", None, "train", "hf://datasets/a/b/c.parquet")),
        ({"id": "squad"}, ("squad", None, "train", None)),
    ]
    for arguments, call in cases:
        raw, row = HUB[arguments.get("source", "gsm8k")]
        calls = hub(monkeypatch, [raw] * 2)
        found = list(map(split_prompt, open_dataset(DatasetConfig(**arguments))))
        assert (calls, found) == ([call], [row if "source" in arguments else raw] * 2)


def test_hub_faults(subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch) -> None:
    table: list[tuple[Any, ...]] = [
        (ConnectionError("Couldn't reach it"), "is no file here and can't be loaded from the Hub; check the network"),
        (datasets.exceptions.DatasetNotFoundError("gone"), "is neither a file here nor a data set on the Hub"),
        (ValueError("Unknown split \"tset\". Should be one of ['test']."), "has no split 'tset'; Unknown split"),
        (ValueError("BuilderConfig 'x' not found. Available: ['main']"), "give another `config`; BuilderConfig 'x'"),
        (RuntimeError("Dataset scripts are no longer supported"), "needs a loading script"),
    ]
    for error, message in table:
        with subtests.test(error=error, message=message):
            monkeypatch.setattr(datasets, "load_dataset", Mock(side_effect=error))
            assert fault(source="gsm8k", split="tset").startswith(f"openai/gsm8k: {message}")


def test_released_rows_of_another_shape() -> None:
    for source, raw, what in (
        ("bmc_released_qa", {"chosen": [YES], "rejected": [NO]}, "there is no prompt"),
        ("bmc_released_qa", {"chosen": "Yes.", "rejected": [USER, NO]}, "chosen: must be a list of messages"),
        ("bmc_released_qa_sft", {"messages": [USER]}, "must be a prompt and an assistant's response"),
    ):
        with pytest.raises(ValueError, match=what):
            DATASETS[source].to_row(raw)
