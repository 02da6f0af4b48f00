import math
import os
from pathlib import Path
from typing import Any

import pytest

from bmc.config import BridgeConfig, PrepareConfig
from bmc.errors import UserErrors
from bmc.recipe import load_recipe, parse

DATA = "dataset_mixture: {datasets: [{id: rows.jsonl}]}\noutput_dir: out\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")
    return name


def prepare(*argv: str) -> PrepareConfig:
    return parse([*argv], PrepareConfig)[0]


def bridge(*argv: str) -> BridgeConfig:
    return parse([*argv], BridgeConfig)[0]


def faults(call: Any, *argv: str) -> list[str]:
    with pytest.raises(UserErrors) as caught:
        call(*argv)
    return str(caught.value).splitlines()


# --- extends -------------------------------------------------------------------------------------------------------


def test_extends_takes_the_parents_keys_beneath_the_recipes_own() -> None:
    write("a/base.yaml", "proportion: 0.5\nmodel: big\n" + DATA)
    write("b/child.yaml", "extends: ../a/base.yaml\nmodel: small\n")
    config = bridge("b/child.yaml")
    assert (config.model, config.proportion, config.output_dir) == ("small", 0.5, "out")


def test_extends_over_three_generations() -> None:
    write("one.yaml", "proportion: 0.1\nmodel: one\ntemplate: instruction\n" + DATA)
    write("two.yaml", "extends: one.yaml\nproportion: 0.2\nmodel: two\n")
    write("three.yaml", "extends: two.yaml\nproportion: 0.3\n")
    config = bridge("three.yaml")
    assert (config.proportion, config.model, config.template) == (0.3, "two", "instruction")


def test_mappings_are_merged_and_lists_replaced() -> None:
    write("base.yaml", "dataset_mixture: {datasets: [{id: a.jsonl}, {id: b.jsonl}], seed: 3}\noutput_dir: out\n")
    write("child.yaml", "extends: base.yaml\ndataset_mixture: {datasets: [{id: c.jsonl}]}\n")
    mixture = prepare("child.yaml").dataset_mixture
    assert ([part.id for part in mixture.datasets], mixture.seed) == (["c.jsonl"], 3)


def test_a_circle_of_parents_is_a_fault() -> None:
    write("a.yaml", "extends: b.yaml\n")
    write("b.yaml", "extends: a.yaml\n")
    assert faults(prepare, "a.yaml") == ["b.yaml: extends: a.yaml extends this recipe in turn; break the circle"]


def test_a_recipe_that_extends_itself_is_a_fault() -> None:
    write("a.yaml", "extends: a.yaml\n")
    assert faults(prepare, "a.yaml") == ["a.yaml: extends: a.yaml extends this recipe in turn; break the circle"]


def test_two_children_may_share_a_grandparent() -> None:
    write("base.yaml", DATA)
    write("child.yaml", "extends: base.yaml\n")
    assert prepare("child.yaml") == prepare("base.yaml")


def test_a_missing_parent_is_told_with_its_heir() -> None:
    write("child.yaml", "extends: none.yaml\n")
    assert faults(prepare, "child.yaml") == [
        "none.yaml: cannot be read: No such file or directory (extended by child.yaml)"
    ]


def test_of_several_parents_the_last_wins_and_the_recipe_over_all() -> None:
    write("a.yaml", "model: a\nproportion: 0.1\ntemplate: instruction\n" + DATA)
    write("b.yaml", "proportion: 0.2\ntemplate: closed\ndataset_mixture: {seed: 4}\n")
    write("child.yaml", "extends: [a.yaml, b.yaml]\nproportion: 0.3\n")
    config = bridge("child.yaml")
    assert (config.model, config.template, config.proportion) == ("a", "closed", 0.3)
    assert (config.dataset_mixture.seed, config.dataset_mixture.datasets[0].id) == (4, "rows.jsonl")
    origin = load_recipe(Path("child.yaml"))[1]
    assert [origin[key] for key in ("model", "template", "proportion")] == ["a.yaml", "b.yaml", "child.yaml"]


def test_parents_are_paths(subtests: pytest.Subtests) -> None:
    for extends in ["3", "[a.yaml, 3]", "{a: b}"]:
        with subtests.test(extends=extends):
            write("child.yaml", f"extends: {extends}\n")
            write("a.yaml", DATA)
            assert faults(prepare, "child.yaml") == [
                "child.yaml: extends: must be the path of a recipe, or a list of paths"
            ]


def test_a_file_whose_keys_have_moved_is_named() -> None:
    write("recipes/own.yaml", "extends: paper.yaml\n")
    (fault,) = faults(prepare, "recipes/own.yaml")
    assert fault.endswith("its keys stand in each base.yaml now: extend recipes/llama2-7b/qa/base.yaml, or another one")


def test_a_recipe_of_another_stage(subtests: pytest.Subtests) -> None:
    for stage, fault in [
        ("sft", "r.yaml: stage: is sft, and this is bmc bridge; run bmc sft, or scripts/sft.py"),
        ("train", "r.yaml: stage: is train, and this is bmc bridge; run bmc train, or scripts/preference.py"),
        ("brigde", "r.yaml: stage: 'brigde' is unknown (did you mean 'bridge'?); choose from prepare, sft, sample, "),
    ]:
        with subtests.test(stage=stage):
            write("r.yaml", f"stage: {stage}\n" + DATA)
            (found,) = faults(bridge, "r.yaml")
            assert found.startswith(fault)
            write("r.yaml", "stage: train\nlearning_rate: 1e-5\n" + DATA)
            assert len(faults(bridge, "r.yaml")) == 1  # its keys are no faults beside that
            write("r.yaml", "stage: bridge\n" + DATA)
            assert bridge("r.yaml") == bridge(write("s.yaml", DATA))


def test_a_chat_template_file_is_relative_to_the_recipe_that_names_it() -> None:
    write("a/base.yaml", "chat_template: templates/x.jinja\n" + DATA)
    write("b/child.yaml", "extends: ../a/base.yaml\n")
    assert prepare("b/child.yaml").chat_template == "a/templates/x.jinja"


def test_load_says_where_each_key_comes_from() -> None:
    write("base.yaml", "dataset_mixture: {seed: 1, datasets: []}\nmodel: x\n")
    write("child.yaml", "extends: base.yaml\ndataset_mixture: {seed: 2}\n")
    values, origin = load_recipe(Path("child.yaml"))
    assert values == {"dataset_mixture": {"seed": 2, "datasets": []}, "model": "x"}
    assert origin == {
        "model": "base.yaml",
        "dataset_mixture": "child.yaml",
        "dataset_mixture.seed": "child.yaml",
        "dataset_mixture.datasets": "base.yaml",
    }


# --- command line --------------------------------------------------------------------------------------------------


def test_the_command_line_wins_in_each_spelling(subtests: pytest.Subtests) -> None:
    for argv in [
        ["r.yaml", "--proportion", "0.25", "--dry_run"],
        ["--dry_run", "r.yaml", "--proportion=0.25"],
        ["--config", "r.yaml", "--proportion=0.25", "--dry-run", "true"],
        ["--proportion", "0.25", "--config=r.yaml", "--dry_run=true"],
    ]:
        with subtests.test(argv=argv):
            write("r.yaml", "proportion: 0.5\n" + DATA)
            config = bridge(*argv)
            assert (config.proportion, config.dry_run) == (0.25, True)


def test_the_command_line_reaches_into_mappings_and_lists() -> None:
    write("r.yaml", DATA)
    mixture = prepare("r.yaml", "--dataset_mixture.datasets.0.id", "x.jsonl", "--dataset_mixture.seed", "7")
    assert (mixture.dataset_mixture.datasets[0].id, mixture.dataset_mixture.seed) == ("x.jsonl", 7)


def test_the_command_line_alone_can_make_a_recipe() -> None:
    config = prepare("--output_dir", "out", "--dataset_mixture", "{datasets: [{id: a.jsonl, weight: 0.5}]}")
    assert config.dataset_mixture.datasets[0].weight == 0.5


def test_a_negative_number_is_a_value() -> None:
    write("r.yaml", DATA)
    assert faults(bridge, "r.yaml", "--max_retries", "-1") == [
        "command line: max_retries: must be greater than or equal to 0, got -1"
    ]


def test_no_such_place() -> None:
    write("r.yaml", DATA)
    keys = ("dataset_mixture.datasets.3.id", "dataset_mixture.datasets.first.id", "output_dir.x.y", "output_dir.x")
    assert faults(prepare, "r.yaml", *(f"--{key}=1" for key in keys)) == [
        f"command line: --{key}: there is no such place in the recipe" for key in keys
    ]


def test_two_recipes_or_none_are_a_fault() -> None:
    assert faults(prepare, "a.yaml", "b.yaml") == ["command line: one recipe at a time, got a.yaml, b.yaml"]
    assert faults(prepare) == ["command line: names no recipe; give its path, or --help for the keys"]


def test_help_tells_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help"], BridgeConfig, description="Bridging.")
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert "Bridging." in text
    assert "--output_dir (required)  Folder that the stage writes." in text
    assert "--proportion (1.0)  Share of the pairs to bridge" in text
    assert "--dataset_mixture.datasets.0.weight (1.0)  Share of the rows to take" in text
    assert "One of openai, vllm, transformers, rules, ideal, sloppy, person." in text


def test_help_of_training_says_our_own_keys_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        preference("--help")
    text = capsys.readouterr().out
    places = [
        text.index(f"  --{key} ") for key in ("dataset_mixture.datasets.0.id", "bmc_delta", "loss_type", "warmup_steps")
    ]
    assert places[:1] + sorted(places[1:3]) + places[3:] == sorted(places)
    assert "%%" not in text
    assert "One of sigmoid, hinge, ipo, rdpo, simpo, orpo," in text
    assert "--save_strategy (steps)" in text
    assert "One of no, steps, epoch, best." in text


# --- values --------------------------------------------------------------------------------------------------------


def test_numbers_as_people_write_them(subtests: pytest.Subtests) -> None:
    for text, value in [
        ("5e-1", 0.5), ("5E-1", 0.5), (".5", 0.5), ("1", 1.0), ("1_0e-1", None), ("0.5e0", 0.5), ('"0.5"', None)
    ]:  # fmt: skip
        with subtests.test(text=text):
            write("r.yaml", f"proportion: {text}\n" + DATA)
            if value is None:
                assert len(faults(bridge, "r.yaml")) == 1
            else:
                assert bridge("r.yaml").proportion == value


def test_infinity_is_a_number_and_nan_no_share() -> None:
    write("r.yaml", "timeout: .inf\n" + DATA)
    assert math.isinf(bridge("r.yaml").timeout)
    write("r.yaml", "proportion: .nan\n" + DATA)
    assert len(faults(bridge, "r.yaml")) == 1


def test_one_fault(subtests: pytest.Subtests) -> None:
    for line, fault in [
        ("proportion: 1.5", "proportion: must be less than or equal to 1, got 1.5"),
        ("proportion: -0.1", "proportion: must be greater than or equal to 0, got -0.1"),
        ("proportion: high", 'proportion: must be a number, got "high"'),
        ("proportion: true", "proportion: must be a number, got true"),
        ("proportion:", "proportion: must be a number, got null; leave the key out for its default, 1.0"),
        ("max_tokens: 0", "max_tokens: must be greater than or equal to 1, got 0"),
        ("max_tokens: 1.5", "max_tokens: must be a whole number, got 1.5"),
        (
            "editor: rule",
            "editor: must be 'openai', 'vllm', 'transformers', 'rules', 'ideal', 'sloppy' or 'person', got \"rule\"",
        ),
        ("model: 4", "model: must be text, got 4; put it in quotes"),
        ("base_url: no", "base_url: must be text, got false; put it in quotes"),
        ("dry_run: 1", "dry_run: must be true or false, got 1"),
        ("timeout: 0", "timeout: must be greater than 0, got 0"),
        ("temprature: 1", "temprature: unknown key (did you mean 'temperature'?)"),
        ("zzz: 1", "zzz: unknown key; remove it"),
        ("1: 1", "1: unknown key; remove it"),
        ("chat_template: [a]", 'chat_template: must be text, got ["a"]'),
    ]:
        with subtests.test(line=line):
            write("r.yaml", f"{line}\n" + DATA)
            assert faults(bridge, "r.yaml") == [f"r.yaml: {fault}"]


def test_one_fault_in_a_data_set(subtests: pytest.Subtests) -> None:
    for dataset, fault in [
        ("{id: a, wieght: 1}", "datasets[0].wieght: unknown key (did you mean 'weight'?)"),
        ("{id: a, my-key: 1}", "datasets[0].my-key: unknown key; remove it"),
        ("{id: a, weight: 1.01}", "datasets[0].weight: must be less than or equal to 1, got 1.01"),
        ("{id: a, num_rows: 0}", "datasets[0].num_rows: must be greater than or equal to 1, got 0"),
        ("{id: a, columns: prompt}", 'datasets[0].columns: must be a list or a mapping, got "prompt"'),
        ("{id: a, columns: [prompt, 1]}", "datasets[0].columns[1]: must be text, got 1; put it in quotes"),
        ("{id: a, config: 3}", "datasets[0].config: must be text or a mapping, got 3; put it in quotes"),
        ("{split: test}", "datasets[0].id: is missing; give a Hub id, a file, or a `source`"),
        ("a.jsonl", 'datasets[0]: must be a mapping, got "a.jsonl"'),
    ]:
        with subtests.test(dataset=dataset):
            write("r.yaml", f"dataset_mixture: {{datasets: [{dataset}]}}\noutput_dir: out\n")
            assert faults(prepare, "r.yaml") == [f"r.yaml: dataset_mixture.{fault}"]


def test_an_unknown_source_is_told_with_the_known_ones() -> None:
    write("r.yaml", "dataset_mixture: {datasets: [{source: gsm8kk}]}\noutput_dir: out\n")
    (fault,) = faults(prepare, "r.yaml")
    assert fault.startswith("r.yaml: dataset_mixture.datasets[0].source: 'gsm8kk' is unknown (did you mean 'gsm8k'?); ")


def test_every_fault_at_once_each_with_its_own_file() -> None:
    write("base.yaml", "modell: x\nproportion: 2\ndataset_mixture: {datasets: [{wieght: 1}], sede: 1}\n")
    write("child.yaml", "extends: base.yaml\neditor: 3\ndataset_mixture: {seed: one}\n")
    assert set(faults(bridge, "child.yaml", "--limit", "0", "--dataset_mixture.test_split_size=-1")) == {
        "base.yaml: modell: unknown key (did you mean 'model'?)",
        "base.yaml: proportion: must be less than or equal to 1, got 2",
        "base.yaml: dataset_mixture.datasets[0].wieght: unknown key (did you mean 'weight'?)",
        "base.yaml: dataset_mixture.sede: unknown key (did you mean 'seed'?)",
        'child.yaml: dataset_mixture.seed: must be a whole number, got "one"',
        "child.yaml: editor: must be 'openai', 'vllm', 'transformers', 'rules', 'ideal', 'sloppy' or 'person', got 3",
        "child.yaml: output_dir: is missing; add it to the recipe, or give --output_dir",
        "command line: limit: must be greater than or equal to 1, got 0",
        "command line: dataset_mixture.test_split_size: must be greater than 0, got -1",
    }


def test_what_must_hold_beyond_types_is_told_beside_wrong_types() -> None:
    write("r.yaml", "proportion: 2\n")
    assert set(faults(bridge, "r.yaml")) == {
        "r.yaml: proportion: must be less than or equal to 1, got 2",
        "r.yaml: dataset_mixture.datasets: is empty; list at least one data set",
        "r.yaml: output_dir: is missing; add it to the recipe, or give --output_dir",
    }


def test_yes_is_a_key() -> None:
    """YAML 1.1 reads it as a truth value."""
    write("r.yaml", "output_dir: o\ndataset_mixture: {datasets: [{id: a}]}\nyes: true\n")
    assert parse(["r.yaml"], BridgeConfig)[0].yes is True


# --- files ---------------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_recipe(subtests: pytest.Subtests) -> None:
    for text, fault in [
        ("a: 1\nb: 2\na: 3\n", ": line 3: a: stands twice; keep one"),
        ("m:\n  a: 1\n  a: 2\n", ": line 3: a: stands twice; keep one"),
        ("a: [1\nb: 2\n", ": line 2: is not YAML: expected ',' or ']', but got ':'"),
        ("", ": must be a mapping of keys to values, as in `beta: 0.1`"),
        ("- a\n", ": must be a mapping of keys to values, as in `beta: 0.1`"),
        ("seed: 2024-13-45\n", ": is not YAML: month must be in 1..12"),
    ]:
        with subtests.test(text=text):
            write("r.yaml", text)
            assert faults(prepare, "r.yaml") == [f"r.yaml{fault}"]


def test_a_file_that_is_not_there_or_no_text() -> None:
    assert faults(prepare, "none.yaml") == ["none.yaml: cannot be read: No such file or directory"]
    Path("binary.yaml").write_bytes(b"\xff\xfe\x00")
    (fault,) = faults(prepare, "binary.yaml")
    assert fault.startswith("binary.yaml: is not YAML: ")


def test_merge_keys_are_no_duplicates() -> None:
    write(
        "r.yaml",
        "output_dir: out\ndataset_mixture:\n  datasets:\n    - &a {id: a, weight: 0.5}\n    - {<<: *a, id: b}\n",
    )
    assert [(part.id, part.weight) for part in prepare("r.yaml").dataset_mixture.datasets] == [("a", 0.5), ("b", 0.5)]


# --- training recipes ----------------------------------------------------------------------------------------------


def preference(*argv: str) -> tuple[Any, Any, Any]:
    from bmc.training.config import BMCConfig, PreferenceArguments
    from bmc.training.run import parse_training

    return parse_training([*argv, "--dry_run"], PreferenceArguments, BMCConfig, "")


def sft(*argv: str) -> tuple[Any, Any, Any]:
    from bmc.training.config import SFTConfig, TrainingArguments
    from bmc.training.run import parse_training

    return parse_training([*argv, "--dry_run"], TrainingArguments, SFTConfig, "")


def test_a_training_recipe_fills_all_three_classes() -> None:
    write("r.yaml", "model_name_or_path: m\nlearning_rate: 5e-7\nbeta: 1\nloss_type: sigmoid\n" + DATA)
    arguments, model, config = preference("r.yaml", "--max_steps", "-1", "--bmc_delta=2.5", "--token_weighting", "bmc")
    assert (arguments.chosen_column, model.model_name_or_path, config.learning_rate) == ("chosen", "m", 5e-7)
    assert (config.beta, config.bmc_delta, config.token_weighting, config.max_steps) == (1.0, 2.5, "bmc", -1)


def test_every_fault_of_a_training_recipe_at_once() -> None:
    write("base.yaml", "beta: 0\nsave_strategy: no\nlearning_rate: fast\nld_alpha: 0.5\n" + DATA)
    write("r.yaml", "extends: base.yaml\nbmc_delta: -1\nloss_type: sigmoidd\ntoken_weighting: bcm\nbata: 1\n")
    found = faults(preference, "r.yaml", "--chosen_column", "rejected")
    assert len(found) == 9  # a bare `no`, which YAML reads as false, is the word here
    for start in (
        "base.yaml: beta: must be greater than 0, got 0",
        'base.yaml: learning_rate: must be a number, got "fast"',
        "base.yaml: ld_alpha: BMCTrainer doesn't have it; leave it out, or use trl.DPOTrainer",
        "r.yaml: bmc_delta: must be greater than or equal to 0, got -1",
        "r.yaml: loss_type: 'sigmoidd' is unknown; choose from sigmoid",
        "r.yaml: token_weighting: must be 'none', 'bmc', 'confpo', 'entropy', 'position', 'shift' or 'external', "
        'got "bcm"',
        "r.yaml: bata: unknown key (did you mean 'beta'?)",
        "r.yaml: model_name_or_path: is missing; name a model of the Hub or a folder",
        "command line: chosen_column: must be 'chosen' or 'original_chosen', got \"rejected\"",
    ):
        assert any(fault.startswith(start) for fault in found), (start, found)


@pytest.mark.parametrize(("beta", "shown"), [("high", '"high"'), ("true", "true")])
def test_beta_must_be_a_number(beta: str, shown: str) -> None:
    write("r.yaml", f"model_name_or_path: m\nbeta: {beta}\n" + DATA)
    assert faults(preference, "r.yaml") == [f"r.yaml: beta: must be a number, got {shown}"]


@pytest.mark.parametrize("values", [{"beta": 0.0}, {"beta": math.nan}, {"bmc_delta": -1.0}, {"loss_type": "no"}])
def test_the_config_checks_itself_without_a_recipe(values: dict[str, Any], tmp_path: Path) -> None:
    from bmc.training.config import BMCConfig

    with pytest.raises(ValueError, match=next(iter(values))):
        BMCConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **values)


def test_words_of_transformers_enumerations() -> None:
    write("r.yaml", "model_name_or_path: m\nlr_scheduler_type: cosin\noptim: adamw\n" + DATA)
    scheduler, optimiser = sorted(faults(preference, "r.yaml"))
    assert scheduler.startswith("r.yaml: lr_scheduler_type: 'cosin' is unknown (did you mean 'cosine'?); choose from ")
    assert optimiser.startswith("r.yaml: optim: 'adamw' is unknown")


def test_trls_own_checks_are_faults_of_the_recipe() -> None:
    write("r.yaml", "model_name_or_path: m\nbf16: true\nfp16: true\n" + DATA)
    assert faults(preference, "r.yaml") == ["r.yaml: fp16: At most one of fp16 and bf16 can be True, but not both"]
    write("r.yaml", "model_name_or_path: m\naccelerator_config: none.json\n" + DATA)
    assert faults(preference, "r.yaml") == [
        "r.yaml: accelerator_config: [Errno 2] No such file or directory: 'none.json'"
    ]
    write("base.yaml", "deepspeed: zero.json\n")
    write("r.yaml", "extends: base.yaml\nmodel_name_or_path: m\n" + DATA)
    (fault,) = faults(preference, "r.yaml")
    assert fault.startswith("base.yaml: deepspeed: ")
    assert fault.endswith("zero.json")


# --- what people type ----------------------------------------------------------------------------------------------

TRAINING = "model_name_or_path: m\nloss_type: sigmoid\n" + DATA


def test_words_of_a_command_line(subtests: pytest.Subtests) -> None:
    for argv, key, value in [
        (["--save_strategy", "no"], "save_strategy", "no"), (["--eval_strategy=no"], "eval_strategy", "no"),
        (["--logging-strategy", "no"], "logging_strategy", "no"),
        (["--loss_type", "sigmoid", "bco_pair"], "loss_type", ["sigmoid", "bco_pair"]),
        (["--loss_type", "ipo"], "loss_type", ["ipo"]),
        (["--report_to", "wandb", "tensorboard"], "report_to", ["wandb", "tensorboard"]),
        (["--report_to", "null"], "report_to", []),
        (["--no_remove_unused_columns"], "remove_unused_columns", False),
        (["--no-gradient-checkpointing"], "gradient_checkpointing", False),
        (["--run_name", "1e5"], "run_name", "1e5"), (["--run_name", "no"], "run_name", "no"),
        (["--output_dir", "2024-01-01"], "output_dir", "2024-01-01"),
        (["--hub_model_id=123"], "hub_model_id", "123"), (["--learning_rate", "5e-7"], "learning_rate", 5e-7),
        (["--bf16", "no"], "bf16", False),
        (["--group_by_length"], "train_sampling_strategy", "group_by_length")
    ]:  # fmt: skip
        with subtests.test(argv=argv):
            write("r.yaml", TRAINING)
            for line in ([*argv, "r.yaml"] if argv[-1].startswith("--") else ["r.yaml", *argv], ["r.yaml", *argv]):
                assert getattr(preference(*line)[2], key) == value


def test_modules_of_an_adapter(subtests: pytest.Subtests) -> None:
    for argv, modules in [
        (["q_proj", "v_proj"], ["q_proj", "v_proj"]), (["[q_proj]"], ["q_proj"]), (["q_proj"], ["q_proj"]),
        (["q_proj,v_proj"], ["q_proj", "v_proj"]), (["all-linear"], "all-linear"),
        ([r".*\.[qv]_proj"], r".*\.[qv]_proj")
    ]:  # fmt: skip
        with subtests.test(argv=argv):
            write("r.yaml", TRAINING)
            assert preference("r.yaml", "--use_peft", "--lora_target_modules", *argv)[1].lora_target_modules == modules


def test_words_in_a_data_set_of_the_command_line() -> None:
    write("r.yaml", DATA)
    (part,) = prepare(
        "r.yaml", "--dataset_mixture.datasets.0.id", "007", "--dataset_mixture.datasets.0.columns", "a", "b"
    ).dataset_mixture.datasets
    assert (part.id, part.columns) == ("007", ["a", "b"])
    columns = prepare("r.yaml", "--dataset_mixture.datasets.0.columns", "1").dataset_mixture.datasets[0].columns
    assert columns == ["1"]


def test_several_words_for_a_key_of_one() -> None:
    write("r.yaml", DATA)
    assert faults(bridge, "r.yaml", "--model", "my", "model") == [
        "command line: --model: takes one value, got my model; put it in quotes"
    ]


def test_a_bare_no_in_a_file() -> None:
    write("r.yaml", TRAINING + "save_strategy: no\nbf16: no\ngradient_checkpointing_kwargs: {use_reentrant: no}\n")
    config = preference("r.yaml")[2]
    assert (config.save_strategy, config.bf16, config.gradient_checkpointing_kwargs) == (
        "no", False, {"use_reentrant": False},
    )  # fmt: skip


def test_a_null_says_the_default() -> None:
    write("r.yaml", TRAINING + "beta: null\n")
    assert faults(preference, "r.yaml") == [
        "r.yaml: beta: must be a number, got null; leave the key out for its default, 0.1"
    ]


def test_values_that_would_fail_once_the_run_has_begun(subtests: pytest.Subtests) -> None:
    for lines, fault in [
        ("dtype: fp32", "dtype: 'fp32' is unknown (did you mean 'float32'?); choose from auto, bfloat16, "),
        ("learning_rate: .nan", "learning_rate: must be a finite number, got NaN"),
        ("max_grad_norm: .inf", "max_grad_norm: must be a finite number, got Infinity"),
        ("per_device_train_batch_size: 0", "per_device_train_batch_size: must be greater than or equal to 1, got 0"),
        ("adam_beta2: 1.0", "adam_beta2: must be less than 1, got 1.0"),
        ("bnb_4bit_quant_type: nf8", "bnb_4bit_quant_type: 'nf8' is unknown"),
        ("lr_scheduler_type: cosine_with_min_lr", "lr_scheduler_kwargs: cosine_with_min_lr needs a floor; write lr_"),
        ("dataloader_persistent_workers: true", "dataloader_persistent_workers: there are no workers to keep"),
        ("eval_strategy: steps", "eval_strategy: there is nothing to evaluate on; write dataset_mixture.test_datasets"),
        ("eval_on_start: true", "eval_on_start: there is nothing to evaluate on; write dataset_mixture.test_datasets"),
        (
            "load_best_model_at_end: true\nsave_strategy: no",
            "load_best_model_at_end: nothing is evaluated; write eval_",
        ),
    ]:
        with subtests.test(lines=lines):
            write("r.yaml", f"{lines}\n" + TRAINING)
            (found,) = faults(preference, "r.yaml")
            assert found.startswith(f"r.yaml: {fault}")


def test_a_best_checkpoint_by_something_that_is_measured() -> None:
    evaluated = "eval_strategy: epoch\nsave_strategy: epoch\nload_best_model_at_end: true\n"
    data = DATA.replace("]", "], test_split_size: 0.1")
    lines = "model_name_or_path: m\nloss_type: sigmoid\n" + evaluated + data
    write("r.yaml", lines + "metric_for_best_model: rewards/accuracy\n")
    (found,) = faults(preference, "r.yaml")
    assert found.startswith(
        "r.yaml: metric_for_best_model: 'rewards/accuracy' isn't measured (did you mean 'rewards/accuracies'?)"
    )
    write("r.yaml", lines + "metric_for_best_model: eval_rewards/accuracies\n")
    assert preference("r.yaml")[2].metric_for_best_model == "eval_rewards/accuracies"


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("test_split_size: 1.5", "is 1.5; give a whole number of rows, or a share below 1"),
        ("test_split_size: 10, test_datasets: [{id: b}]", "there are test_datasets already; give one of the two"),
    ],
)
def test_held_out_rows_are_judged_with_the_recipe(lines: str, fault: str) -> None:
    write("base.yaml", f"dataset_mixture: {{{lines}, datasets: [{{id: a}}]}}\n")
    write("r.yaml", "extends: base.yaml\noutput_dir: out\n")
    assert faults(prepare, "r.yaml") == [f"base.yaml: dataset_mixture.test_split_size: {fault}"]


def test_hyperparameters_that_nothing_would_read(subtests: pytest.Subtests) -> None:
    for lines, fault in [
        ("bmc_delta: 2.0", "bmc_delta: token_weighting: none doesn't read it; write token_weighting: bmc, or"),
        ("bmc_delta: 2.0\ntoken_weighting: external", "bmc_delta: token_weighting: external doesn't read it"),
        ("diff_algorithm: difflib", "diff_algorithm: without λ no loss reads which tokens differ; write token_"),
        ("label_smoothing: 0.1", "label_smoothing: sigmoid doesn't read it; leave it out (it is of exo_pair, robust, "),
        ("label_smoothing_factor: 0.1", "label_smoothing_factor: BMCTrainer doesn't have it"),
        ("ref_model_sync_steps: 64", "ref_model_sync_steps: BMCTrainer doesn't have it"),
        ("simpo_gamma: 0.5", "simpo_gamma: sigmoid doesn't read it; leave it out (it is of simpo)"),
        ("loss_weights: [1.0, 0.5]", "loss_weights: has 2 numbers for 1 objectives; write one for each"),
        ("lora_r: 8", "lora_r: is of an adapter, and the recipe trains the whole model; write use_peft: true, or"),
        ("load_in_4bit: true", "load_in_4bit: is of an adapter"),
    ]:
        with subtests.test(lines=lines):
            write("r.yaml", f"{lines}\n" + TRAINING)
            (found,) = faults(preference, "r.yaml")
            assert found.startswith(f"r.yaml: {fault}")


def test_hyperparameters_that_something_reads() -> None:
    write("r.yaml", TRAINING + "label_smoothing: 0.0\nuse_peft: false\nlora_r: 8\n")
    assert preference("r.yaml")[1].lora_r == 8
    write("r.yaml", TRAINING + "label_smoothing: 0.1\n")
    assert preference("r.yaml", "--loss_type", "robust")[2].label_smoothing == 0.1


def test_weights_and_biases_by_the_handbooks_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_PROJECT", "WANDB_ENTITY", "WANDB_RUN_GROUP", "NCCL_DEBUG"):
        monkeypatch.setenv(name, "")
    write("r.yaml", TRAINING + "wandb_project: p\nwandb_entity: e\nenv: {NCCL_DEBUG: INFO, WANDB_RUN_GROUP: 7}\n")
    preference("r.yaml")
    assert [os.environ[name] for name in ("WANDB_PROJECT", "WANDB_ENTITY", "WANDB_RUN_GROUP", "NCCL_DEBUG")] == [
        "p", "e", "7", "INFO",
    ]  # fmt: skip


def test_a_dry_run_judges_a_gpus_recipe() -> None:
    write("r.yaml", "model_name_or_path: m\nbf16: true\ntf32: true\n" + DATA)
    assert preference("r.yaml")[2].bf16


def test_every_spelling_of_a_dry_run(subtests: pytest.Subtests) -> None:
    for argv in [["--dry-run"], ["--dry_run=true"], ["--dry_run", "true"], ["--dry_run"]]:
        with subtests.test(argv=argv):
            from bmc.training.config import SFTConfig, TrainingArguments
            from bmc.training.run import parse_training

            write("r.yaml", "model_name_or_path: m\nbf16: true\n" + DATA)
            assert parse_training(["r.yaml", *argv], TrainingArguments, SFTConfig, "")[0].dry_run


def test_a_word_is_no_comment(subtests: pytest.Subtests) -> None:
    for word, meant in [("#3", "#3"), ("null", None), ("none", "none"), ("a #b", "a #b")]:
        with subtests.test(word=word):
            assert bridge(write("recipe.yaml", DATA), "--similarity_model", word).similarity_model == meant


def test_none_of_a_number(subtests: pytest.Subtests) -> None:
    for word in ["null", "None", "none"]:
        with subtests.test(word=word):
            assert bridge(write("recipe.yaml", DATA), "--limit", word).limit is None


def test_one_dash() -> None:
    assert faults(bridge, write("recipe.yaml", DATA), "-limit", "3") == ["command line: -limit: write --limit"]
