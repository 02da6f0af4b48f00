"""What must hold between the keys of one recipe."""

from pathlib import Path
from typing import Any

import pytest

from bmc.config import BridgeConfig, EvaluateConfig, SampleConfig
from bmc.errors import UserErrors
from bmc.recipe import parse

DATA = "{id: rows.jsonl}"


def read(folder: Path, kind: Any, *lines: str, data: str = DATA) -> Any:
    path = folder / "r.yaml"
    path.write_text("\n".join([f"dataset_mixture: {{datasets: [{data}]}}", "output_dir: out", *lines]))
    return parse([str(path)], kind)[0]


def faults(folder: Path, kind: Any, *lines: str, data: str = DATA) -> list[str]:
    with pytest.raises(UserErrors) as raised:
        read(folder, kind, *lines, data=data)
    return [line.removeprefix(f"{folder / 'r.yaml'}: ") for line in str(raised.value).splitlines()]


def test_rules_do_the_method_only(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for mode in ["without_reference", "degrade", "fresh", "polish"]:
        with subtests.test(mode=mode):
            said = [f"mode: editor: rules can't do {mode}; choose mode: targeted, or editor: openai"]
            assert faults(tmp_path, BridgeConfig, "editor: rules", f"mode: {mode}") == said
            assert read(tmp_path, BridgeConfig, f"mode: {mode}").mode == mode
            assert read(tmp_path, BridgeConfig, "editor: rules", "mode: targeted").mode == "targeted"


def test_token_scores_need_a_tokenizer(tmp_path: Path) -> None:
    missing = "tokenizer_name_or_path: is missing; token_scores weighs the tokens of the model to be trained"
    assert faults(tmp_path, BridgeConfig, "mode: token_scores") == [missing]
    assert faults(tmp_path, BridgeConfig, "mode: token_scores", "editor: rules", "proportion: 0.4") == [
        missing,
        "proportion: token_scores bridges no pairs; leave it out",
    ]
    config = read(tmp_path, BridgeConfig, "mode: token_scores", "tokenizer_name_or_path: m")
    assert (config.mode, config.tokenizer_name_or_path) == ("token_scores", "m")
    assert faults(tmp_path, BridgeConfig, "tokenizer_name_or_path: m") == [
        "tokenizer_name_or_path: mode: targeted doesn't read it; leave it out"
    ]


def test_an_unknown_mode(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, BridgeConfig, "mode: degraded")
    assert fault.startswith("mode: must be 'targeted', 'without_reference', 'degrade', 'fresh', 'polish' or 'token_")


SAMPLE = "model_name_or_path: m"


def test_a_prefix_is_of_continue_prefix(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for fraction in ["0.2", "0.5"]:
        with subtests.test(fraction=fraction):
            said = ["prefix_fraction: only mode: continue_prefix reads it; leave it out, or set that mode"]
            assert faults(tmp_path, SampleConfig, SAMPLE, f"prefix_fraction: {fraction}") == said
            assert faults(tmp_path, SampleConfig, SAMPLE, f"prefix_fraction: {fraction}", "mode: respond") == said
            config = read(tmp_path, SampleConfig, SAMPLE, f"prefix_fraction: {fraction}", "mode: continue_prefix")
            assert config.prefix_fraction == float(fraction)


def test_half_is_the_default(tmp_path: Path) -> None:
    assert read(tmp_path, SampleConfig, SAMPLE, "mode: continue_prefix").prefix_fraction == 0.5
    assert read(tmp_path, SampleConfig, SAMPLE).mode == "respond"
    assert faults(tmp_path, EvaluateConfig, SAMPLE, "mode: respond") == ["mode: unknown key; remove it"]


def test_a_prefix_is_neither_nothing_nor_all(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for fraction, what in [("0", "greater than 0"), ("1", "less than 1"), ("-1", "greater")]:
        with subtests.test(fraction=fraction):
            (fault,) = faults(tmp_path, SampleConfig, SAMPLE, f"prefix_fraction: {fraction}", "mode: continue_prefix")
            assert fault.startswith("prefix_fraction: must be ")
            assert what in fault


def test_edit_splits(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for split in ["1/1", "2/6", "6/6", "10/12"]:
        with subtests.test(split=split):
            config = read(tmp_path, BridgeConfig, data=f"{{id: a.jsonl, edit_split: {split}}}")
            assert config.dataset_mixture.datasets[0].edit_split == split


def test_what_is_no_edit_split(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for split in ["7/6", "0/6", "1/0", "1", "1/6/2", "a/b", "-1/6", "1 / 6", "1/6\\n", "01/6", ""]:
        with subtests.test(split=split):
            (fault,) = faults(tmp_path, BridgeConfig, data=f'{{id: a.jsonl, edit_split: "{split}"}}')
            assert fault.startswith("dataset_mixture.datasets[0].edit_split: '")
            assert fault.endswith("' is no split; write k/n with 1 ≤ k ≤ n, as in 2/6")
