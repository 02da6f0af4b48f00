"""Every recipe in the repository loads, and says what the paper says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bmc.config import AnalyzeConfig, BridgeConfig, EvaluateConfig, PrepareConfig, SampleConfig
from bmc.recipe import load, parse

ROOT = Path(__file__).parents[1]
FOUND = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("recipes/*/*/**/*.yaml"))
RECIPES = [path for path in FOUND if Path(path).stem != "base"]
STAGES = {"prepare": PrepareConfig, "sample": SampleConfig, "bridge": BridgeConfig, "eval": EvaluateConfig,
          "analyze": AnalyzeConfig}  # fmt: skip
SCRIPTS = {"prepare": "prepare", "sft": "sft", "sample": "sample", "bridge": "bridge", "eval": "evaluate",
           "analyze": "analyze"}  # fmt: skip
PAPER = {  # β, δ and learning rate of DPO-BMC (Table 8)
    "llama2-7b/qa": (0.05, 3.0, 5e-7),
    "llama2-7b/math": (0.05, 2.5, 5e-7),
    "llama3-8b/ultrafeedback": (0.01, 1.5, 5e-7),
    "mistral-7b/ultrafeedback": (0.01, 2.0, 5e-7),
    "qwen2.5-14b/ultrafeedback": (0.01, 1.5, 5e-7),
}
SMALL = {"smollm2-135m/math": (0.1, 2.5, 1e-5), "smollm2-135m/qa": (0.1, 3.0, 1e-5)}
METHODS = {  # objective, chosen column, token weighting, folder of the pairs
    "figa": ("figa", "chosen", "none", "bridge"),
    "ipo": ("ipo", "original_chosen", "none", "bridge"),
    "orpo": ("orpo", "original_chosen", "none", "bridge"),
    "rdpo": ("rdpo", "original_chosen", "none", "bridge"),
    "simpo": ("simpo", "original_chosen", "none", "bridge"),
    "dpo": ("sigmoid", "original_chosen", "none", "bridge"),
    "dpo_cw": ("sigmoid", "chosen", "none", "sample_cw"),
    "dpo_ew": ("sigmoid", "chosen", "external", "bridge_ew"),
    "dpo_bc": ("sigmoid", "chosen", "none", "bridge"),
    "dpo_mc": ("sigmoid", "original_chosen", "bmc", "bridge"),
    "dpo_bmc": ("sigmoid", "chosen", "bmc", "bridge"),
    "ipo_bmc": ("ipo", "chosen", "bmc", "bridge"),
    "orpo_bmc": ("orpo", "chosen", "bmc", "bridge"),
    "rdpo_bmc": ("rdpo", "chosen", "bmc", "bridge"),
    "simpo_bmc": ("simpo", "chosen", "bmc", "bridge"),
}
SEARCHED = {  # Table 7, and A.3 for the learning rate
    "figa_alpha": {0.5, 1.0, 1.5},
    "figa_beta": {0.5, 1.0, 1.5},
    "orpo_lambda": {0.1, 0.5, 1.0, 2.0},
    "rdpo_alpha": {0.05, 0.1, 0.5, 1.0},
    "simpo_gamma": {0.3, 0.5, 1.0, 1.2, 1.4, 1.6},
    "bmc_delta": {1.5, 2.0, 2.5, 3.0, 3.5},
    "learning_rate": {3e-7, 5e-7, 6e-7, 1e-6},
}
BETAS = {"sigmoid": {0.01, 0.05, 0.1}, "rdpo": {0.01, 0.05, 0.1}, "ipo": {0.01, 0.1, 0.5, 1.0}, "simpo": {2.0, 2.5}}
READS = {  # which stages' folders a recipe may read, by its name
    "sft": "prepare",
    "sample": "prepare",
    "sample_cw": "bridge",
    "bridge": "sample prepare",
    "bridge_ew": "bridge",
    "eval": "prepare",
    "dpo_cw": "sample_cw",
    "dpo_ew": "bridge_ew",
    "sample_held_out": "prepare",
    "bridge_held_out": "sample_held_out prepare",
    "analyze": "bridge_held_out",
}
VALUES = [*SEARCHED, "beta", "prefix_fraction", "weight_source", "diff_algorithm", "ignore_stop_words", "mode"]
SOURCE = re.compile(r"Table \d|A\.\d|§\d|Eq|paper|released|135M parameters")


def stage_of(recipe: str) -> str:
    """What kind of recipe it is: `bridge` for bridge_ew.yaml too; `preference` for any method."""
    name = Path(recipe).stem.partition("_")[0]
    return name if name in SCRIPTS else "preference"


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def training(recipe: str) -> tuple[Any, Any, Any]:
    from bmc.training.config import BMCConfig, PreferenceArguments, SFTConfig, TrainingArguments
    from bmc.training.run import parse_training

    sft = stage_of(recipe) == "sft"
    kinds = (TrainingArguments, SFTConfig) if sft else (PreferenceArguments, BMCConfig)
    return parse_training([recipe, "--dry_run"], *kinds, "")


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_passes_a_dry_run(recipe: str) -> None:
    stage = stage_of(recipe)
    parts = parse([recipe, "--dry_run"], STAGES[stage]) if stage in STAGES else training(recipe)
    assert all(part is not None for part in parts)


@pytest.mark.parametrize("benchmark", ["alpaca_eval", "arena_hard"])
def test_judges_are_asked_as_published(benchmark: str) -> None:
    from bmc.config import JudgeConfig

    recipe = f"recipes/judge_{benchmark}.yaml"
    assert f"scripts/judge.py {recipe}" in Path(recipe).read_text().splitlines()[0]
    (config,) = parse([recipe, "--responses", "r", "--output_dir", "o", "--max_cost_usd", "20"], JudgeConfig)
    assert (config.benchmark, config.model) == (benchmark, "gpt-4-1106-preview")
    published = {"alpaca_eval": (1.0, 1, {"logprobs", "top_logprobs"}), "arena_hard": (0.0, 4096, set())}
    more = set(config.request([])) - {"model", "messages", "temperature", "max_tokens"}
    assert (config.temperature, config.max_tokens, more) == published[benchmark]


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_begins_with_its_command(recipe: str) -> None:
    first = Path(recipe).read_text().splitlines()[0]
    script = SCRIPTS.get(stage_of(recipe), "preference")
    assert first.startswith("# ")
    assert f"scripts/{script}.py {recipe}" in first


@pytest.mark.parametrize("recipe", FOUND)
def test_every_value_says_where_it_comes_from(recipe: str) -> None:
    values = rf"^({'|'.join(VALUES)}): *([^#\n]*)(.*)$"
    for key, value, comment in re.findall(values, Path(recipe).read_text(), re.MULTILINE):
        if (key, value.strip()) not in {("mode", "token_scores"), ("mode", "continue_prefix")}:  # told at the top
            assert SOURCE.search(comment), f"{key}: {value}"


def test_every_setting_has_every_method() -> None:
    for setting in [*PAPER, *SMALL]:
        assert all(Path(f"recipes/{setting}/{name}.yaml").exists() for name in [*METHODS, "sample_cw", "bridge_ew"])


CASES = [(setting, method) for setting in [*PAPER, *SMALL] for method in METHODS]


@pytest.mark.parametrize(("setting", "method"), CASES)
def test_methods_differ_in_what_they_are(setting: str, method: str) -> None:
    arguments, model_args, config = training(f"recipes/{setting}/{method}.yaml")
    loss, column, weighting, folder = METHODS[method]
    assert (config.loss_type, arguments.chosen_column, config.token_weighting) == ([loss], column, weighting)
    assert arguments.dataset_mixture.datasets[0].id == f"outputs/{setting}/{folder}/train.jsonl"
    assert config.output_dir == f"outputs/{setting}/{method}"
    assert (config.num_train_epochs, config.seed, config.warmup_steps) == (1, 42, 0.1)
    beta, delta, learning_rate = (PAPER | SMALL)[setting]
    if loss == "sigmoid":
        assert (config.beta, config.learning_rate) == (beta, learning_rate)
    assert config.bmc_delta == (delta if weighting == "bmc" else 3.0)
    if setting in PAPER:
        assert 4 * config.per_device_train_batch_size * config.gradient_accumulation_steps == 128
        assert (config.max_length, config.bf16, model_args.dtype) == (2048, True, "float32")


@pytest.mark.parametrize(("setting", "method"), CASES)
def test_hyperparameters_lie_in_the_searched_ranges(setting: str, method: str) -> None:
    values, _ = load(Path(f"recipes/{setting}/{method}.yaml"))
    for key, searched in SEARCHED.items():
        if key in values and not (key == "learning_rate" and setting in SMALL):
            assert values[key] in searched, key
    assert values.get("beta") in BETAS.get(METHODS[method][0], {None})


@pytest.mark.parametrize(("setting", "gamma", "rate"), [("llama3-8b", 1.0, 6e-7), ("mistral-7b", 1.6, 3e-7)])
def test_simpo_is_as_its_authors_ran_it(setting: str, gamma: float, rate: float) -> None:
    """training_configs/{llama-3-8b,mistral-7b}-base-simpo.yaml of princeton-nlp/SimPO, for the same SFT models."""
    _, _, config = training(f"recipes/{setting}/ultrafeedback/simpo.yaml")
    assert (config.beta, config.simpo_gamma, config.learning_rate) == (2.0, gamma, rate)


@pytest.mark.parametrize("setting", [*PAPER, *SMALL])
def test_continue_writing(setting: str) -> None:
    (config,) = parse([f"recipes/{setting}/sample_cw.yaml"], SampleConfig)
    (dataset,) = config.dataset_mixture.datasets
    assert (config.mode, config.prefix_fraction) == ("continue_prefix", 0.5)
    assert (dataset.id, dataset.num_rows) == (f"outputs/{setting}/bridge/train.jsonl", None)


@pytest.mark.parametrize("setting", [*PAPER, *SMALL])
def test_external_weights_are_for_the_tokens_that_are_trained(setting: str) -> None:
    (scored,) = parse([f"recipes/{setting}/bridge_ew.yaml"], BridgeConfig)
    arguments, model_args, _ = training(f"recipes/{setting}/dpo_ew.yaml")
    assert scored.mode == "token_scores"
    assert scored.tokenizer_name_or_path == (arguments.tokenizer_name_or_path or model_args.model_name_or_path)
    assert scored.chat_template == arguments.chat_template


@pytest.mark.parametrize(
    "recipe",
    sorted(path.relative_to(ROOT / "recipes/llama3-8b") for path in ROOT.glob("recipes/llama3-8b/**/bridge*.yaml")),
)
def test_models_that_send_equal_requests_share_a_response_cache(recipe: Path) -> None:
    """UltraFeedback's pairs are the data set's own, whatever the model; QA's and math's are the model's."""
    paths = [f"recipes/{model}/{recipe}" for model in ("llama3-8b", "mistral-7b", "qwen2.5-14b")]
    configs = [parse([path], BridgeConfig)[0] for path in paths if Path(path).exists()]
    assert {config.replies for config in configs} == {"outputs/ultrafeedback/replies.sqlite"}
    message = [{"role": "user", "content": "x"}]
    asked = [(config.request(message), config.mode, config.template, config.validators) for config in configs]
    assert all(one == asked[0] for one in asked)


def test_data_of_ultrafeedback_are_the_same_for_every_model() -> None:
    models = ("llama3-8b", "mistral-7b", "qwen2.5-14b")
    prepared = [parse([f"recipes/{model}/ultrafeedback/prepare.yaml"], PrepareConfig)[0] for model in models]
    parts = [(config.dataset_mixture, config.validation_datasets) for config in prepared]
    assert parts[0] == parts[1] == parts[2]


@pytest.mark.parametrize("setting", ["llama2-7b/qa", "llama2-7b/math", "llama3-8b/ultrafeedback"])
def test_ablations_of_the_bridging_phase(setting: str) -> None:
    def recipe(name: str) -> tuple[Any, ...]:
        (config,) = parse([f"recipes/{setting}/ablations/bridge_{name}.yaml"], BridgeConfig)
        return config.mode, config.model, config.base_url, config.dataset_mixture.datasets[0].id

    kept, gpt4 = f"outputs/{setting}/bridge/train.jsonl", "gpt-4-0125-preview"
    for mode in ("without_reference", "degrade", "fresh", "polish"):
        assert recipe(mode) == (mode, gpt4, None, kept)
    (method,) = parse([f"recipes/{setting}/bridge.yaml"], BridgeConfig)
    raw = method.dataset_mixture.datasets[0].id
    assert (method.mode, method.model) == ("targeted", gpt4)
    assert recipe("gpt-4.1") == ("targeted", "gpt-4.1-2025-04-14", None, raw)
    local = "http://localhost:8000/v1"
    assert recipe("llama3-70b") == ("targeted", "meta-llama/Meta-Llama-3-70B-Instruct", local, raw)


def test_the_released_codes_weights() -> None:
    _, _, config = training("recipes/llama2-7b/qa/dpo_bmc_released.yaml")
    assert (config.token_weighting, config.weight_source) == ("bmc", "each_model")
    assert (config.diff_algorithm, config.ignore_stop_words) == ("difflib", True)
    readme = Path("recipes/README.md").read_text()
    (told,) = re.findall(r"`llama2-7b/qa/dpo_bmc_released.yaml` weighs (.*?)\n\n", readme, re.DOTALL)
    assert len(re.findall(r"\.(?=\s|$)", told)) == 4


@pytest.mark.parametrize("model", ["llama3-8b", "mistral-7b", "qwen2.5-14b"])
def test_each_chat_benchmark_is_generated_as_released(model: str) -> None:
    """eval/alpacaeval2 and eval/arenahard of YJiangcm/BMC: temperature 0.9 and 0.0, 2,048 new tokens, no top-p."""
    (config,) = parse([f"recipes/{model}/ultrafeedback/eval.yaml"], EvaluateConfig)
    ways = [config.decoding(name) for name in ("alpaca_eval", "arena_hard")]
    assert [(way.temperature, way.top_p, way.max_new_tokens) for way in ways] == [(0.9, 1.0, 2048), (0.0, 1.0, 2048)]


@pytest.mark.parametrize("setting", PAPER)
def test_the_papers_settings_hold_no_training_row_out(setting: str) -> None:
    (config,) = parse([f"recipes/{setting}/prepare.yaml"], PrepareConfig)
    trained, tested = config.dataset_mixture.datasets, config.dataset_mixture.test_datasets
    parts = {(dataset.source, dataset.split) for dataset in [*trained, *tested]}
    assert config.validation_fraction == 0
    assert not parts & {(dataset.source, dataset.split) for dataset in config.validation_datasets}
    assert all(dataset.weight == 1 and dataset.num_rows is None for dataset in trained)
    assert config.dataset_mixture.test_split_size is None


@pytest.mark.parametrize(("setting", "epochs"), [("llama2-7b/qa", 1), ("llama2-7b/math", 2)])
def test_sft_is_the_papers(setting: str, epochs: int) -> None:
    _, model_args, config = training(f"recipes/{setting}/sft.yaml")
    assert model_args.model_name_or_path == "meta-llama/Llama-2-7b-hf"
    assert (config.learning_rate, config.num_train_epochs, config.max_length) == (2e-5, epochs, 2048)
    assert 4 * config.per_device_train_batch_size * config.gradient_accumulation_steps == 128


@pytest.mark.parametrize("recipe", RECIPES)
def test_stages_read_what_an_earlier_one_wrote(recipe: str) -> None:
    """Inputs below outputs/ belong to the same setting and to a stage that comes before."""
    setting, name = "/".join(recipe.split("/")[1:3]), Path(recipe).stem
    values, _ = load(Path(recipe))
    assert values["output_dir"] == recipe.replace("recipes/", "outputs/").replace(
        "/eval.yaml", "/sft/eval"
    ).removesuffix(".yaml")
    ablation = "bridge sample prepare" if name.startswith("bridge") else "bridge"
    for dataset in values.get("dataset_mixture", {}).get("datasets", []):
        if str(dataset.get("id")).startswith("outputs/"):
            place = dataset["id"].split("/")
            assert "/".join(place[1:3]) == setting
            assert place[3] in READS.get(name, ablation).split()


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/accelerate_configs/*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_config(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.num_processes == yaml.safe_load(path.read_text())["num_processes"]


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/**/*.yaml")), ids=lambda path: path.name)
def test_no_template_stands_in_a_recipe(path: Path) -> None:
    template = (yaml.safe_load(path.read_text()) or {}).get("chat_template")
    assert template is None or (path.parent / template).is_file()


def test_the_base_model_of_table_11_is_fine_tuned_first() -> None:
    """As the other SFT models of the task: UltraChat-200k, one epoch (A.3)."""
    arguments, model_args, config = training("recipes/qwen2.5-14b/ultrafeedback/sft.yaml")
    (data,) = arguments.dataset_mixture.datasets
    assert (model_args.model_name_or_path, data.id, data.split) == (
        "Qwen/Qwen2.5-14B", "HuggingFaceH4/ultrachat_200k", "train_sft",
    )  # fmt: skip
    assert (config.learning_rate, config.num_train_epochs, config.max_length) == (2e-5, 1, 2048)
    for method in ("dpo", "dpo_bmc"):
        _, starts, _ = training(f"recipes/qwen2.5-14b/ultrafeedback/{method}.yaml")
        assert starts.model_name_or_path == config.output_dir
