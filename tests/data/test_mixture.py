from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from hub_rows import HUB, USER
from hypothesis import given
from hypothesis import strategies as st

from bmc.config import DatasetConfig, DatasetMixture
from bmc.data import loading as mixture
from bmc.data.loading import load_mixture, load_split, open_dataset
from bmc.data.schema import split_prompt
from bmc.errors import Faults


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def column(rows: Any, name: str) -> list[Any]:
    return [row.get(name) for row in rows]


def jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def hub(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Stands in for the Hub; returns the list of what will have been asked of it."""
    calls: list[tuple[Any, ...]] = []

    def load(path: str, name: str | None = None, *, split: str, data_files: str | None = None) -> datasets.Dataset:
        calls.append((path, name, split, data_files))
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load)
    return calls


# Reading


def fault(**arguments: Any) -> str:
    with pytest.raises(Faults) as caught:
        list(open_dataset(DatasetConfig(**arguments)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"task": "chain_sums"}, "reasoning_gym: config.task: 'chain_sums' is unknown (did you mean 'chain_sum'?)"),
        (
            {"task": "chain_sum", "max_term": 3},
            "reasoning_gym: config.max_term: is no parameter of chain_sum (did you mean 'max_terms'?); it has ",
        ),
        (
            {"task": "chain_sum", "min_terms": 0},
            "reasoning_gym: config: chain_sum refuses these parameters (min_terms must be positive)",
        ),
        (None, "reasoning_gym: config: must name the task and its parameters, as in {task: chain_sum, seed: 7}"),
        ({"seed": 7}, "reasoning_gym: config: must name the task"),
    ],
)
def test_generator_faults(config: Any, message: str) -> None:
    assert fault(source="reasoning_gym", config=config).startswith(message)


@pytest.mark.parametrize("form", ["jsonl", "json list", "json object", "jsonl in json", "parquet", "folder"])
def test_local_forms(form: str, tmp_path: Path) -> None:
    rows = [{"input": f"How many {i}?", "target": i + 0.5} for i in range(3)]
    suffix = {"jsonl": "jsonl", "folder": "jsonl", "parquet": "parquet"}.get(form, "json")
    path = tmp_path / f"test.{suffix}"
    if form == "parquet":
        datasets.Dataset.from_list(rows).to_parquet(path)
    elif form == "json list":
        path.write_text(json.dumps(rows, indent=2))
    elif form == "json object":
        path.write_text(json.dumps({str(i): row for i, row in enumerate(rows)}))
    else:
        path.write_text("\ufeff" + "\r\n".join(map(json.dumps, rows)) + "\n\n")
    config = DatasetConfig(source="mawps", id=str(tmp_path if form == "folder" else path), split="test")
    assert column(open_dataset(config), "answer") == ["0.5", "1.5", "2.5"]


def test_rows_without_a_source_are_taken_as_they_are(tmp_path: Path) -> None:
    rows = [{"prompt": "a\u2028b", "answer": "2020-01-01"}, {"prompt": "c", "extra": 1}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert list(open_dataset(DatasetConfig(id=str(path)))) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n\n{"a": 2\n', "row 3: is not JSON (Expecting ',' delimiter at column 8); write one object a line"),
        ('{"a": 1}\n[2]\n', 'row 2: is not an object; write {"column": value, …}'),
        ("{'a': 1}\n", "row 1: is not JSON (Expecting property name"),
    ],
)
def test_jsonl_faults(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    assert fault(id=str(path)).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1},\n {"a" 2}]', ": line 2: is not JSON (Expecting ':' delimiter)"),
        ('[{"a": 1}, 2]', ": row 2: is not an object"),
        ("17", ": must hold a list of objects"),
        ('{"a": 1}\n{"a": 2', ": row 2: is not JSON"),
    ],
)
def test_json_faults(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    assert fault(id=str(path)).startswith(f"{path}{message}")


def test_row_fault_names_row_and_columns(tmp_path: Path) -> None:
    good, shapeless, empty = (
        {"question": "?", "answer": "#### 1"},
        {"q": "?", "a": "1"},
        {"question": "?", "answer": "1"},
    )
    path = jsonl(tmp_path / "rows.jsonl", [good, shapeless])
    assert fault(source="gsm8k", id=path) == (
        f"{path}: row 2: is of no shape that source 'gsm8k' knows; it has q, a, "
        "and gsm8k wants question and answer, or problem, solution and answer"
    )
    path = jsonl(tmp_path / "empty.jsonl", [good, empty])
    assert fault(source="gsm8k", id=path).startswith(f"{path}: row 2: answer: has no '#### …' at its end; it has ")
    path = str(tmp_path / "rows.parquet")
    datasets.Dataset.from_list([{"q": "?"}]).to_parquet(path)
    assert fault(source="gsm8k", id=path).startswith(f"{path}: row 1: is of no shape")


def test_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = hub(monkeypatch, [])
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path / "train.jsonl", [{"a": 1}])
    (tmp_path / "train.tsv").write_text("a\n1\n")
    missing = f"{tmp_path}/trian.jsonl: no such file (did you mean 'train.jsonl'?); paths are relative to {Path.cwd()}"
    assert fault(id=f"{tmp_path}/trian.jsonl") == missing
    for id in ("rows.jsonl", "rows.json", "rows.parquet", "./rows", "../rows", "/rows", "~/rows.x", "a/b/c"):
        assert fault(id=id).startswith(f"{id}: no such file")
    assert fault(id=str(tmp_path), split="tran") == (
        f"{tmp_path}: has no split 'tran' (did you mean 'train'?); there are train"
    )
    assert fault(id=f"{tmp_path}/train.tsv").startswith(f"{tmp_path}/train.tsv: is no .jsonl, .json, .parquet, .csv, ")
    (tmp_path / "sets/pairs").mkdir(parents=True)
    assert fault(id="sets/paris").startswith("sets/paris: there is no such folder (did you mean 'pairs'?); for a data ")
    (tmp_path / "void").mkdir()
    assert "it holds no .jsonl, .json, .parquet, .csv, " in fault(id=str(tmp_path / "void"))
    assert fault(source="gsm8kk") == "source: 'gsm8kk' is unknown (did you mean 'gsm8k'?)"
    assert not calls


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a": "\xff"}\n')
    assert "is not UTF-8 text (invalid start byte at byte 7)" in fault(id=str(tmp_path / "a.jsonl"))
    (tmp_path / "a.parquet").write_text("no")
    assert "can't be read as Parquet" in fault(id=str(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
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
        (
            {"source": "ultrafeedback", "split": "test"},
            ("HuggingFaceH4/ultrafeedback_binarized", None, "test_prefs", None),
        ),
        (
            {"source": "ultrafeedback", "split": "train_gen"},
            ("HuggingFaceH4/ultrafeedback_binarized", None, "train_gen", None),
        ),
        (
            {"source": "alpaca_eval", "split": "eval"},
            ("json", None, "train", "hf://datasets/tatsu-lab/alpaca_eval/alpaca_eval_gpt4_baseline.json"),
        ),
        ({"id": "hf://datasets/a/b/c.parquet"}, ("parquet", None, "train", "hf://datasets/a/b/c.parquet")),
        ({"id": "squad"}, ("squad", None, "train", None)),
    ],
)
def test_hub_lookup(arguments: dict[str, Any], call: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    name = arguments.get("source", "gsm8k")
    calls = hub(monkeypatch, [HUB[name][0]] * 2)
    rows = list(map(split_prompt, open_dataset(DatasetConfig(**arguments))))
    assert calls == [call]
    assert rows == [HUB[name][1] if "source" in arguments else HUB[name][0]] * 2


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("Couldn't reach it"), "is no file here and can't be loaded from the Hub; check the network"),
        (datasets.exceptions.DatasetNotFoundError("gone"), "is neither a file here nor a data set on the Hub"),
        (ValueError("Unknown split \"tset\". Should be one of ['test']."), "has no split 'tset'; Unknown split"),
        (ValueError("BuilderConfig 'x' not found. Available: ['main']"), "give another `config`; BuilderConfig 'x'"),
        (RuntimeError("Dataset scripts are no longer supported"), "needs a loading script"),
        (OSError("disk\nfull"), "is no file here and can't be loaded"),
    ],
)
def test_hub_faults(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert fault(source="gsm8k", split="tset").startswith(f"openai/gsm8k: {message}")


def test_source_without_a_home() -> None:
    assert fault(source="tabmwp") == "tabmwp: has no home on the Hub; give the path of its file as `id`"
    message = "me/x: config: must be the name of a configuration; a mapping is for source: reasoning_gym"
    assert fault(id="me/x", config={"task": "chain_sum"}) == message


# Mixing


def numbered(tmp_path: Path, name: str = "rows", count: int = 100, **more: Any) -> str:
    return jsonl(
        tmp_path / f"{name}.jsonl", [{"prompt": f"{name} {i}", "answer": str(i), **more} for i in range(count)]
    )


def test_whole_part_keeps_its_order(tmp_path: Path) -> None:
    rows = load_mixture([DatasetConfig(id=numbered(tmp_path))], seed=1)
    assert column(rows, "answer") == [str(i) for i in range(100)]
    assert all(id.startswith("rows-") for id in column(rows, "id"))


def test_weight_and_num_rows(tmp_path: Path) -> None:
    path = numbered(tmp_path)

    def drawn(seed: int, **options: Any) -> list[int]:
        return [int(answer) for answer in column(load_mixture([DatasetConfig(id=path, **options)], seed), "answer")]

    assert len(drawn(1, weight=0.3)) == 30
    assert len(drawn(1, weight=0.3, num_rows=7)) == 7
    assert len(drawn(1, weight=0.3, num_rows=70)) == 30
    assert drawn(1, weight=0.3) == drawn(1, weight=0.3) != drawn(2, weight=0.3)
    assert drawn(1, weight=0.3) == sorted(drawn(1, weight=0.3)) != list(range(30))
    assert set(drawn(1, num_rows=7)) < set(drawn(1, weight=0.3)) < set(drawn(1, weight=0.6))


def test_ids_depend_on_texts_only(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "completion": f"c{i}", "note": i} for i in range(20)]
    backwards = [{**row, "note": 99} for row in reversed(rows)]
    jsonl(tmp_path / "rows.jsonl", rows)
    (tmp_path / "other").mkdir()
    jsonl(tmp_path / "other" / "rows.jsonl", backwards)
    first = load_mixture([DatasetConfig(id=str(tmp_path / "rows.jsonl"))], 0)
    second = load_mixture([DatasetConfig(id=str(tmp_path / "other" / "rows.jsonl"), columns=["prompt"], weight=0.5)], 3)
    ids = dict(zip(column(first, "prompt"), column(first, "id"), strict=True))
    assert len(set(ids.values())) == 20
    assert second.columns == ["prompt", "id"]
    assert all(ids[row["prompt"]] == row["id"] for row in second)


def test_ids_are_unique(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [{"prompt": "a"}, {"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}])
    once = column(load_mixture([DatasetConfig(id=path)], 0), "id")
    assert once[1:] == [f"{once[0]}-2", once[2], f"{once[0]}-3"]
    twice = column(load_mixture([DatasetConfig(id=path), DatasetConfig(id=path)], 0), "id")
    assert twice[:4] == once
    assert len(set(twice)) == 8


@given(st.lists(st.sampled_from(["a", "a-2", "a-3", "b", "a-2-2"]), max_size=8))
def test_unique(ids: list[str]) -> None:
    unique = mixture.unique_ids(ids)
    assert len(set(unique)) == len(ids)
    assert set(ids) <= set(unique)
    assert all(new == old or new.startswith(f"{old}-") for new, old in zip(unique, ids, strict=True))


def test_own_ids_are_kept(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [{"prompt": "a", "id": 7}, {"prompt": "b", "id": None}])
    own, made = column(load_mixture([DatasetConfig(id=path, columns=["prompt"])], 0), "id")
    assert own == "7"
    assert made.startswith("rows-")


def test_parts_with_other_columns(tmp_path: Path) -> None:
    first = numbered(tmp_path, "one", 2, prompt=[USER], extra=1)
    second = numbered(tmp_path, "two", 2, prompt=[{"content": "Hi?", "role": "user"}], answer=None)
    rows = load_mixture([DatasetConfig(id=first), DatasetConfig(id=second)], 0)
    assert column(rows, "extra") == [1, 1, None, None]
    assert column(rows, "answer") == ["0", "1", None, None]
    assert column(rows, "prompt") == [[USER]] * 4


def test_mixture_faults(tmp_path: Path) -> None:
    def faults(*parts: DatasetConfig) -> str:
        with pytest.raises(Faults) as caught:
            load_mixture(parts, 0)
        return str(caught.value)

    one = numbered(tmp_path, "one", 2)
    assert faults(DatasetConfig(id=one, columns=["promt"])) == (
        f"{one}: has no column 'promt' (did you mean 'prompt'?); there are prompt, answer, id"
    )
    empty = jsonl(tmp_path / "empty.jsonl", [])
    assert faults(DatasetConfig(id=empty), DatasetConfig(id=one, weight=0.0)) == (
        "empty, one: no rows are left; look at the files, `edit_split`, `weight` and `num_rows`"
    )
    both = faults(DatasetConfig(id="x.jsonl"), DatasetConfig(id="y.jsonl"))
    assert [line.split(":")[0] for line in both.split("\n")] == ["x.jsonl", "y.jsonl"]


def test_empty_part_is_left_out(tmp_path: Path) -> None:
    empty, one = jsonl(tmp_path / "empty.jsonl", []), numbered(tmp_path, "one", 2)
    assert len(load_mixture([DatasetConfig(id=empty), DatasetConfig(id=one)], 0)) == 2


def test_split_order(tmp_path: Path) -> None:
    one, two = numbered(tmp_path, "one", 50), numbered(tmp_path, "two", 50)
    train, evaluation = load_split(DatasetMixture(datasets=[DatasetConfig(id=one)]))
    assert evaluation is None
    assert column(train, "answer") == [str(i) for i in range(50)]
    mixed = DatasetMixture(datasets=[DatasetConfig(id=one), DatasetConfig(id=two)], seed=3)
    train, _ = load_split(mixed)
    assert {prompt[:3] for prompt in column(train, "prompt")[:20]} == {"one", "two"}
    assert column(train, "id") == column(load_split(mixed)[0], "id")
    mixed.seed = 4
    again = column(load_split(mixed)[0], "id")
    assert column(train, "id") != again
    assert sorted(column(train, "id")) == sorted(again)
    weighted, _ = load_split(DatasetMixture(datasets=[DatasetConfig(id=one, weight=0.5)]))
    assert column(weighted, "answer") != sorted(column(weighted, "answer"), key=int)


@pytest.mark.parametrize(("size", "rows"), [(7, 7), (0.2, 10), (0.001, 1), (1, 1)])
def test_held_out_rows(size: float, rows: int, tmp_path: Path) -> None:
    one = DatasetConfig(id=numbered(tmp_path, "one", 50))
    train, evaluation = load_split(DatasetMixture(datasets=[one], test_split_size=size, seed=5))
    assert evaluation is not None
    assert len(evaluation) == rows
    assert len(train) == 50 - rows
    assert not set(column(train, "id")) & set(column(evaluation, "id"))
    _, again = load_split(DatasetMixture(datasets=[one], test_split_size=size, seed=5))
    assert again is not None
    assert column(again, "id") == column(evaluation, "id")


def test_test_datasets(tmp_path: Path) -> None:
    one, two = numbered(tmp_path, "one", 5), numbered(tmp_path, "two", 4)
    parts = [DatasetConfig(id=two, weight=0.5), DatasetConfig(id=one, num_rows=2)]
    _, evaluation = load_split(DatasetMixture(datasets=[DatasetConfig(id=one)], test_datasets=parts))
    assert evaluation is not None
    assert column(evaluation, "prompt")[:4] == [f"two {i}" for i in range(4)]
    assert len(evaluation) == 6


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (1.5, "dataset_mixture.test_split_size: is 1.5; give a whole number of rows, or a share below 1"),
        (5, "dataset_mixture.test_split_size: would hold out 5 of 5 rows and leave none to train on; make it smaller"),
    ],
)
def test_bad_test_split_size(size: float, message: str, tmp_path: Path) -> None:
    one = DatasetConfig(id=numbered(tmp_path, "one", 5))
    with pytest.raises(Faults) as caught:
        load_split(DatasetMixture(datasets=[one], test_split_size=size))
    assert str(caught.value) == message
    with pytest.raises(Faults, match="there are test_datasets already"):
        load_split(DatasetMixture(datasets=[one], test_datasets=[one], test_split_size=size))
