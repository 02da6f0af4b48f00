"""The recipes of huggingface/alignment-handbook, key by key (at main, and as they were before `dataset_mixture`)."""

import logging
from pathlib import Path
from typing import Any

import pytest
from handbook_recipes import (
    BMC,
    CAPYBARA_ORPO,
    GEMMA_SFT,
    GPT2_CPT,
    RELEASED,
    SCAN_DPO,
    SIMPO,
    SMOLLM2_SFT,
    SMOLLM3_APO,
    SMOLLM3_SFT,
    STARCHAT_DPO,
    ULTRAFEEDBACK_BMC,
    ZEPHYR_DPO,
    ZEPHYR_DPO_QLORA,
    ZEPHYR_SFT,
)

from bmc.errors import UserErrors
from bmc.recipe import load_recipe
from bmc.training.config import BMCConfig, PreferenceArguments, SFTConfig, TrainingArguments
from bmc.training.run import parse_training


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(text: str, *argv: str, arguments: type = PreferenceArguments, config: type = BMCConfig) -> tuple[Any, ...]:
    Path("recipe.yaml").write_text(text, encoding="utf-8")
    return parse_training(["recipe.yaml", "--dry_run", *argv], arguments, config, "")


def read_sft(text: str, *argv: str) -> tuple[Any, ...]:
    return read(text, *argv, arguments=TrainingArguments, config=SFTConfig)


def parts(datasets: list[Any]) -> list[tuple[Any, ...]]:
    return [(part.id, part.config, part.split, part.weight) for part in datasets]


def test_zephyr_sft(caplog: pytest.LogCaptureFixture) -> None:
    arguments, model, config = read_sft(ZEPHYR_SFT)
    assert [record.message for record in caplog.records if record.name.startswith("bmc")] == [
        "recipe.yaml: overwrite_output_dir: no longer has an effect; left out"
    ]
    assert (model.dtype, model.attn_implementation) == ("bfloat16", "flash_attention_2")
    assert (config.max_length, config.warmup_steps, config.dataset_num_proc) == (2048, 0.1, 12)
    assert (config.learning_rate, config.eval_strategy.value, config.save_steps) == (2e-5, "epoch", 100)
    assert config.gradient_checkpointing_kwargs == {"use_reentrant": False}
    mixture = arguments.dataset_mixture
    assert (mixture.test_split_size, mixture.seed, mixture.datasets[1].columns) == (1000, 0, ["messages"])
    assert "<|im_start|>" in arguments.chat_template


def test_smollm3_sft() -> None:
    arguments, model, config = read_sft(SMOLLM3_SFT)
    assert (config.eos_token, config.packing, config.packing_strategy, config.max_length) == (
        "<|im_end|>", True, "bfd", 65536,
    )  # fmt: skip
    assert (config.warmup_steps, config.lr_scheduler_kwargs, config.save_steps) == (0.03, {"min_lr_rate": 0.1}, 0.05)
    assert (model.model_revision, arguments.dataset_mixture.datasets[0].weight) == ("it-mid-training", 0.02)


def test_smollm2_sft_names_one_data_set() -> None:
    mixture = read_sft(SMOLLM2_SFT)[0].dataset_mixture
    assert parts(mixture.datasets) == [("HuggingFaceTB/smoltalk", "all", "train", 1.0)]
    assert parts(mixture.test_datasets) == [("HuggingFaceTB/smoltalk", "all", "test", 1.0)]


def test_a_named_data_set_is_not_evaluated_where_the_recipe_does_not_evaluate() -> None:
    assert read_sft(SMOLLM2_SFT, "--eval_strategy", "'no'")[0].dataset_mixture.test_datasets == []


def test_gemma_sft() -> None:
    arguments, model, config = read_sft(GEMMA_SFT)
    assert arguments.tokenizer_name_or_path == "philschmid/gemma-tokenizer-chatml"
    assert model.attn_implementation == "flash_attention_2"
    assert (config.eval_strategy.value, config.dataset_kwargs["append_concat_token"]) == ("epoch", False)
    assert parts(arguments.dataset_mixture.test_datasets) == [("HuggingFaceH4/deita-10k-v0-sft", None, "test_sft", 1.0)]


def test_gpt2_cpt_names_a_configuration() -> None:
    mixture = read_sft(GPT2_CPT)[0].dataset_mixture
    assert parts(mixture.datasets) == [("yhavinga/mc4_nl_cleaned", "tiny", "train", 1.0)]
    assert mixture.test_datasets == []


def test_zephyr_dpo(caplog: pytest.LogCaptureFixture) -> None:
    arguments, model, config = read(ZEPHYR_DPO)
    assert [record.message for record in caplog.records if record.name.startswith("bmc")] == [
        "recipe.yaml: max_prompt_length: no longer has an effect; left out; a prompt isn't shortened: a response is "
        "cut at max_length, and a pair whose prompt fills it is left out",
        "recipe.yaml: loss_type: is missing; trains sigmoid (DPO)",
    ]
    assert model.dtype is None
    assert (config.beta, config.learning_rate, config.max_length, config.eval_steps) == (0.01, 5e-7, 1024, 100)
    assert (config.loss_type, config.token_weighting, config.optim.value) == (["sigmoid"], "none", "adamw_torch")
    assert [part.split for part in arguments.dataset_mixture.datasets] == ["train_prefs", "test_prefs"]


def test_zephyr_dpo_qlora_before_the_mixture() -> None:
    arguments, model, config = read(ZEPHYR_DPO_QLORA)
    name = "HuggingFaceH4/ultrafeedback_binarized"
    assert parts(arguments.dataset_mixture.datasets) == [(name, None, "train_prefs", 1.0)]
    assert parts(arguments.dataset_mixture.test_datasets) == [(name, None, "test_prefs", 1.0)]
    assert (model.dtype, model.use_peft, model.load_in_4bit, model.lora_r) == ("float16", True, True, 16)
    assert (config.eval_strategy.value, config.save_total_limit, config.warmup_steps) == ("steps", None, 0.1)


def test_starchat_dpo_weighs_training_data_only() -> None:
    mixture = read(STARCHAT_DPO)[0].dataset_mixture
    assert parts(mixture.datasets) == [
        ("HuggingFaceH4/ultrafeedback_binarized", None, "train_prefs", 1.0),
        ("HuggingFaceH4/orca_dpo_pairs", None, "train_prefs", 0.5),
    ]
    assert [part.weight for part in mixture.test_datasets] == [1.0, 1.0]


def test_scan_dpo_names_a_branch() -> None:
    config = read(SCAN_DPO)[2]
    assert (config.hub_revision, config.loss_type) == ("dpo-beta-0.01", ["sigmoid"])


def test_smollm3_apo() -> None:
    arguments, model, config = read(SMOLLM3_APO)
    assert [dataset.weight for dataset in arguments.dataset_mixture.datasets] == [0.5, 0.25]
    assert (config.loss_type, config.beta, config.max_length, config.warmup_steps) == (["apo_zero"], 0.05, 24576, 0.1)
    assert (model.dtype, model.model_revision, config.trust_remote_code) == ("bfloat16", "it-SFT", True)
    assert (config.lr_scheduler_kwargs, config.max_grad_norm, config.save_steps) == ({"min_lr_rate": 0.1}, 0.2, 0.5)


def test_capybara_orpo_keeps_its_warm_up_steps() -> None:
    arguments, model, config = read(CAPYBARA_ORPO)
    assert (config.warmup_steps, config.lr_scheduler_type.value, config.max_length) == (100, "inverse_sqrt", 2048)
    assert model.attn_implementation == "flash_attention_2"
    assert arguments.dataset_mixture.test_datasets == []


# --- recipes of SimPO, of BMC, of TRL ------------------------------------------------------------------------------


def test_simpo_recipes_keep_their_objective(subtests: pytest.Subtests) -> None:
    for name in SIMPO:
        with subtests.test(name=name):
            beta, ratio, rate = SIMPO[name]
            text = f"model_name_or_path: m\noutput_dir: outputs/{name}-simpo\ndataset_mixer: {{d: 1.0}}\n{RELEASED}"
            config = read(f"{text}beta: {beta}\ngamma_beta_ratio: {ratio}\nlearning_rate: {rate}\n")[2]
            # their loss is -log σ(β (Δ − γ/β)), Δ the difference of mean log-probs
            assert (config.loss_type, config.beta, config.learning_rate) == (["simpo"], beta, rate)
            assert config.simpo_gamma == pytest.approx(ratio * beta, rel=1e-12)
            assert (config.token_weighting, config.eval_strategy.value, config.warmup_steps) == ("none", "steps", 0.1)


@pytest.mark.parametrize("name", BMC)
def test_bmc_recipes_keep_their_objective(name: str, caplog: pytest.LogCaptureFixture) -> None:
    loss, beta, delta = BMC[name]
    text = f"model_name_or_path: m\noutput_dir: outputs/{name}\n{ULTRAFEEDBACK_BMC}{RELEASED}"
    text += f"beta: {beta}\ndpo_bmc_delta: {delta}\n" + (f"loss_type: {loss}\n" if loss else "")
    config = read(text)[2]
    assert config.loss_type == ["sigmoid"]
    assert (config.beta, config.bmc_delta, config.token_weighting) == (beta, delta, "bmc")
    assert (config.weight_source, config.diff_algorithm, config.ignore_stop_words) == ("each_model", "difflib", True)
    assert (
        "recipe.yaml: dpo_bmc_delta: read as bmc_delta with the released code's token_weighting: bmc, " in caplog.text
    )


def test_objectives_by_the_names_of_other_trainers(subtests: pytest.Subtests) -> None:
    for lines, expected in [
        ("gamma_beta_ratio: 0.3", {"loss_type": ["simpo"], "beta": 2.0, "simpo_gamma": 0.6}),
        ("gamma_beta_ratio: 0.3\nsft_weight: 0.0", {"loss_type": ["simpo"], "loss_weights": None}),
        (
            "gamma_beta_ratio: 0.5\nsft_weight: 0.2\nbeta: 10",
            {"loss_type": ["simpo", "sft"], "loss_weights": [1.0, 0.2], "beta": 10, "simpo_gamma": 5.0},
        ),
        ("loss_type: simpo\ncpo_alpha: 0.5", {"loss_type": ["simpo", "sft"], "loss_weights": [1.0, 0.5]}),
        ("rpo_alpha: 1.0", {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 1.0]}),
        ("loss_type: ipo\nrpo_alpha: 0.1", {"loss_type": ["ipo", "sft"], "loss_weights": [1.0, 0.1]}),
        ("rpo_alpha: null", {"loss_type": ["sigmoid"], "loss_weights": None}),
        ("loss_type: r_dpo\nbeta: 0.05", {"loss_type": ["rdpo"], "beta": 0.05, "rdpo_alpha": -0.05}),
        ("loss_type: aot_pair", {"loss_type": ["aot_unpaired"]}),
        ("loss_type: orpo\nbeta: 0.05", {"loss_type": ["orpo"], "orpo_lambda": 0.05, "beta": 0.1}),
        ("loss_type: orpo\norpo_lambda: 0.5", {"loss_type": ["orpo"], "orpo_lambda": 0.5}),
        ("dpo_bmc_delta: 2.0\nweight_source: policy", {"weight_source": "policy", "ignore_stop_words": True}),
        ("reference_free: false", {"loss_type": ["sigmoid"]}),
    ]:
        with subtests.test(lines=lines):
            config = read(f"{SHORT}{lines}\n")[2]
            assert {key: getattr(config, key) for key in expected} == expected


def test_objectives_that_are_not_guessed(subtests: pytest.Subtests) -> None:
    for lines, fault in [
        (
            "loss_type: hinge\ngamma_beta_ratio: 0.5",
            "gamma_beta_ratio: is SimPO's, and loss_type is hinge; write loss_",
        ),
        ("gamma_beta_ratio: high", 'gamma_beta_ratio: must be a number, got "high"'),
        ("loss_type: kto_pair", "loss_type: kto_pair has been removed from DPOTrainer; apo_zero is the nearest"),
        ("rpo_alpha: 1\nloss_weights: [1.0]", "rpo_alpha: adds sft to loss_type, which has weights of its own; write"),
        (
            "reference_free: true",
            "reference_free: isn't there for DPO; take an objective without a reference, as loss_",
        ),
        ("cpo_alpha: 1.0", "cpo_alpha: is CPOTrainer's weight of the likelihood, read with loss_type: simpo alone"),
        ("sft_weight: 1.0", "sft_weight: is SimPO's, beside gamma_beta_ratio or loss_type: simpo; for DPO write rpo_"),
        ("pref_beta: 0.1", "pref_beta: is LLaMA-Factory's; write beta"),
        (
            "run_name: zephyr-orpo",
            "loss_type: is missing, and run_name speaks of orpo; write loss_type: orpo (beta then",
        ),
        (
            "output_dir: data/my-KTO",
            "loss_type: is missing, and output_dir speaks of KTO; write loss_type: sigmoid for",
        ),
        (
            "# SimPOTrainer arguments",
            "loss_type: is missing, and a comment speaks of SimPO; write loss_type: simpo, or",
        ),
    ]:
        with subtests.test(lines=lines):
            with pytest.raises(UserErrors) as caught:
                read(
                    SHORT.replace("output_dir: out\n", "" if "output_dir" in lines else "output_dir: out\n")
                    + f"{lines}\n"
                )
            assert str(caught.value).splitlines()[0].startswith(f"recipe.yaml: {fault}")


def test_an_orpo_recipe_trains_no_dpo(caplog: pytest.LogCaptureFixture) -> None:
    for place, comment in (("orpo", ""), ("full", "# ORPOTrainer arguments\n")):
        path = Path(place, "config.yaml")
        path.parent.mkdir()
        path.write_text(comment + CAPYBARA_ORPO)
        with pytest.raises(
            UserErrors, match=r"loss_type: is missing, and .* speaks of orpo|ORPO; write loss_type: orpo"
        ):
            parse_training([str(path), "--dry_run"], PreferenceArguments, BMCConfig, "")
        config = parse_training([str(path), "--dry_run", "--loss_type", "orpo"], PreferenceArguments, BMCConfig, "")[2]
        assert (config.loss_type, config.orpo_lambda) == (["orpo"], 0.05)
    line = ["--model_name_or_path", "m", "--dataset_name", "d", "--output_dir", "Qwen2-0.5B-ORPO", "--dry_run"]
    with pytest.raises(
        UserErrors, match=r"command line: loss_type: is missing, and output_dir speaks of ORPO; write loss_"
    ):
        parse_training(line, PreferenceArguments, BMCConfig, "")
    read(CAPYBARA_ORPO, "--output_dir", "sweep/simpo_gamma-0.5")
    assert "recipe.yaml: loss_type: is missing; trains sigmoid (DPO)" in caplog.text


def test_the_nearest_of_two_names_for_a_hyperparameter() -> None:
    Path("base.yaml").write_text(SHORT + "gamma_beta_ratio: 0.5\nloss_type: simpo\nbeta: 2\n")
    config = read("extends: base.yaml\nsimpo_gamma: 1.6\n")[2]
    assert (config.simpo_gamma, config.beta) == (1.6, 2)
    assert read("extends: base.yaml\n", "--beta", "10")[2].simpo_gamma == 5.0
    assert read(SHORT + "token_weighting: bmc\nbmc_delta: 3.0\n", "--dpo_bmc_delta", "1.5")[2].bmc_delta == 1.5


def test_trls_lists_of_data_sets() -> None:
    lines = """model_name_or_path: m
output_dir: out
datasets:
  - {path: trl-lib/ultrafeedback_binarized, name: default, split: train}
  - {path: json, data_files: [a.jsonl, b.jsonl], columns: [prompt, chosen, rejected]}
  - {path: parquet, data_files: {train: a.parquet, test: b.parquet}}
test_split_size: 0.1
"""
    mixture = read(lines)[0].dataset_mixture
    assert parts(mixture.datasets) == [
        ("trl-lib/ultrafeedback_binarized", "default", "train", 1.0),
        ("a.jsonl", None, "train", 1.0),
        ("b.jsonl", None, "train", 1.0),
        ("a.parquet", None, "train", 1.0),
    ]
    assert (mixture.datasets[1].columns, mixture.test_split_size) == (["prompt", "chosen", "rejected"], 0.1)


# --- what stands nearest wins, under either name -------------------------------------------------------------------

SHORT = "model_name_or_path: m\noutput_dir: out\ndataset_mixture: {datasets: [{id: a}]}\n"


def test_the_command_line_wins_under_an_old_name() -> None:
    _, model, config = read(SHORT + "warmup_steps: 10\ndtype: float32\n", "--warmup_ratio=0.2", "--torch_dtype=auto")
    assert (config.warmup_steps, model.dtype) == (0.2, "auto")


def test_the_child_wins_under_an_old_name() -> None:
    Path("base.yaml").write_text(SHORT + "warmup_steps: 10\nattn_implementation: flash_attention_2\n")
    _, model, config = read("extends: base.yaml\nwarmup_ratio: 0.2\nuse_flash_attention_2: false\n")
    assert (config.warmup_steps, model.attn_implementation) == (0.2, None)


def test_the_new_name_wins_within_a_file() -> None:
    assert read(SHORT + "warmup_ratio: 0.2\nwarmup_steps: 10\n")[2].warmup_steps == 10
    assert read(SHORT + "warmup_steps: 10\nwarmup_ratio: 0.2\n")[2].warmup_steps == 10


def test_group_by_length() -> None:
    assert read(SHORT + "group_by_length: true\n")[2].train_sampling_strategy == "group_by_length"


@pytest.mark.parametrize("data", ["dataset_mixer: {b: 0.5}\ndataset_splits: [train]\n", "dataset_name: b\n"])
def test_the_childs_data_replace_the_parents(data: str) -> None:
    Path("base.yaml").write_text(SHORT)
    (part,) = read(f"extends: base.yaml\n{data}")[0].dataset_mixture.datasets
    assert part.id == "b"


def test_data_of_the_command_line_replace_the_recipes() -> None:
    (part,) = read(SHORT, "--dataset_name", "b")[0].dataset_mixture.datasets
    assert part.id == "b"


def test_faults_of_older_keys(subtests: pytest.Subtests) -> None:
    for lines, fault in [
        ("dataset_mixer: [a]", "recipe.yaml: dataset_mixer: must map data set ids to weights"),
        ("dataset_mixer: {a: 2}", "recipe.yaml (dataset_mixer): dataset_mixture.datasets[0].weight: must be less"),
        ("dataset_mixer: {a: 1}\ndataset_splits: [dev]", "recipe.yaml: dataset_splits: must list splits with 'train'"),
        ("dataset_mixer: {a: 1}\ndataset_splits: 3", "recipe.yaml: dataset_splits: must list splits with 'train'"),
        ("dataset_mixer: {a: 1}\ndataset_configs: [a, b]", "recipe.yaml: dataset_configs: must list one configuration"),
        ("dataset_mixer: {a: 1}\ndataset_name: b", "recipe.yaml: dataset_mixer: there is dataset_name as well; keep"),
        ("dataset_splits: [train]", "recipe.yaml: dataset_splits: refines dataset_mixer, which the recipe"),
        (
            "datasets: [{path: a, fraction: 0.5}]",
            "recipe.yaml: datasets: entry 0: fraction isn't read; write dataset_mix",
        ),
        ("datasets: [{path: a, data_dir: b}]", "recipe.yaml: datasets: entry 0: data_dir isn't read; give the folder"),
        ("datasets: [{name: a}]", "recipe.yaml: datasets: entry 0 names no path"),
        ("datasets: a", "recipe.yaml: datasets: must be a list"),
        ("dataset_name: a\ntest_split_size: 0.1", "recipe.yaml: test_split_size: refines datasets, which the recipe"),
        ("dataset_name: a\ntorch_dtype: 3", "recipe.yaml (torch_dtype): dtype: must be text, got 3; put it in quotes"),
    ]:
        with subtests.test(lines=lines):
            with pytest.raises(UserErrors) as caught:
                read(f"model_name_or_path: m\noutput_dir: out\n{lines}\n")
            assert str(caught.value.faults[0]).startswith(fault)


def test_a_key_without_an_effect_on_the_command_line_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read(SHORT, "--overwrite_output_dir")
    assert caplog.messages[0] == "command line: overwrite_output_dir: no longer has an effect; left out"


# --- the empty system turn of the handbook -------------------------------------------------------------------------


def test_older_recipes_keep_their_empty_system_turn(subtests: pytest.Subtests) -> None:
    for lines, expected in [
        ("dataset_mixer: {d: 1.0}", True),  # its default, while the handbook had the key
        ("dataset_mixer: {d: 1.0}\nauto_insert_empty_system_msg: false", False),
        ("dataset_mixture: {datasets: [{id: d}]}", False),
        ("dataset_mixture: {datasets: [{id: d}]}\nauto_insert_empty_system_msg: true", True),
    ]:
        with subtests.test(lines=lines):
            text = f"model_name_or_path: m\noutput_dir: out\n{lines}\n"
            assert read(text)[0].auto_insert_empty_system_msg is expected
            assert read_sft(text)[0].auto_insert_empty_system_msg is expected


def test_what_else_an_older_recipe_meant_is_said(caplog: pytest.LogCaptureFixture) -> None:
    read_sft("model_name_or_path: m\noutput_dir: out\ndataset_mixer: {a: 1.0, b: 0.5}\n")
    assert caplog.messages == [
        "recipe.yaml (dataset_mixer): a weight below 1 takes a random share of the rows; the handbook took the first "
        "ones",
        "recipe.yaml (dataset_mixer): the loss covers the responses; the handbook's covered every token: "
        "assistant_only_loss: false",
    ]
    caplog.clear()
    read_sft("model_name_or_path: m\noutput_dir: out\nassistant_only_loss: false\ndataset_mixer: {a: 1.0}\n")
    assert caplog.messages == []


def test_the_mistral_recipes_have_the_empty_system_turn(subtests: pytest.Subtests) -> None:
    for stage in ["dpo_bmc", "eval", "sample", "bridge_ew"]:
        with subtests.test(stage=stage):
            path = Path(__file__).parents[1] / f"recipes/mistral-7b/ultrafeedback/{stage}.yaml"
            assert load_recipe(path)[0]["auto_insert_empty_system_msg"] is True
