"""Every recipe in the repository loads, and says what the paper says."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bmc.config import BridgeConfig, EvaluateConfig, JudgeConfig, PrepareConfig, SampleConfig, ScoreTokensConfig
from bmc.errors import UserErrors
from bmc.program import script_of
from bmc.recipe import parse
from bmc.recipe_files import Loader, load_recipe
from bmc.show import _check, classes_of

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path.relative_to(ROOT) for path in ROOT.glob("recipes/**/*.yaml") if path.parent.name != "accelerate_configs"
)
PARTS = {"base.yaml", "ablations.yaml", "reported.yaml"}  # files that are no run
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
    "sample_rounds": "prepare",
    "bridge_held_out": "sample_held_out prepare",
    "analyze": "bridge_held_out",
    "sft_bridged": "bridge",
    "sft_chosen": "bridge",
    "dpo_tis": "score_tis",
    "dpo_sepo": "score_sepo",
    "dpo_tgdpo": "score_tgdpo",
}
VALUES = [*SEARCHED, "beta", "prefix_fraction", "weight_source", "diff_algorithm", "ignore_stop_words", "mode"]
SOURCE = re.compile(r"Table \d|A\.\d|§\d|Eq|paper|released|135M parameters|handbook|_search\.yaml")


def recipes() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each run, and its values."""
    for path in FILES:
        if path.name not in PARTS and path.parent.name not in ("methods", "adapters"):
            yield path, load_recipe(path)[0]


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def training(recipe: str) -> tuple[Any, Any, Any]:
    from bmc.training.run import parse_training

    classes = classes_of(load_recipe(Path(recipe))[0]["stage"])
    return parse_training([recipe, "--dry_run"], classes[0], classes[2], "")


@pytest.mark.slow
def test_every_recipe() -> None:
    """It is read without a fault; its first line is its command; it extends files that extend none; it writes where its
    name says; what it reads below outputs/ is of the same model/task and an earlier stage; and each value that the
    paper searched says where it is from."""
    logging.disable(logging.CRITICAL)
    wrong = [f"{path}: {what}" for path, values in recipes() for what in _faults(path, values)]
    logging.disable(logging.NOTSET)
    assert wrong == []
    assert len(list(recipes())) > 180


def _faults(path: Path, values: dict[str, Any]) -> Iterator[str]:
    text, stage = path.read_text(), values["stage"]
    try:
        _check(stage, classes_of(stage), [str(path)])
    except UserErrors as error:
        yield str(error)
    if f"scripts/{script_of(stage)}.py {path}" not in text.splitlines()[0]:
        yield "doesn't begin with its command"
    own = yaml.load(text, Loader=Loader)
    if own.get("stage") != stage:
        yield "doesn't say its stage itself"
    parents = own.get("extends", [])
    for parent in [parents] if isinstance(parents, str) else parents:
        if "extends" in yaml.load((path.parent / parent).read_text(), Loader=Loader):
            yield f"extends {parent}, which extends another file"
    if "lab" not in path.parts:
        yield from _unsourced(text)
    if len(path.parts) == 4:
        yield from _misplaced(path, values)


def _unsourced(text: str) -> Iterator[str]:
    for key, value, comment in re.findall(rf"^({'|'.join(VALUES)}): *([^#\n]*)(.*)$", text, re.MULTILINE):
        told_above = (key, value.strip()) in {("mode", "token_scores"), ("mode", "continue_prefix")}
        if not told_above and not SOURCE.search(comment):
            yield f"{key}: {value} has no source"


def _misplaced(path: Path, values: dict[str, Any]) -> Iterator[str]:
    task, name = "/".join(path.parts[1:3]), path.stem
    wanted = f"outputs/{task}/{'sft/eval' if name == 'eval' else name}"
    if values["output_dir"] != wanted:
        yield f"writes {values['output_dir']}"
    for dataset in values.get("dataset_mixture", {}).get("datasets", []):
        place = str(dataset.get("id")).split("/")
        earlier = READS.get(name, READS["sft"] if name.startswith("sft") else "bridge").split()
        if place[0] == "outputs" and ("/".join(place[1:3]) != task or place[3] not in earlier):
            yield f"reads {dataset['id']}"


def test_parts_stand_alone(subtests: pytest.Subtests) -> None:
    """A base.yaml is whole and flat; a method says what it is, and neither names a folder to write."""
    for file in ["base.yaml", "methods"]:
        with subtests.test(file=file):
            parts = [path for path in FILES if file in (path.name, path.parent.name) and "lab" not in path.parts]
            found = [yaml.load(path.read_text(), Loader=Loader) for path in parts]
            assert len(found) == {"base.yaml": 8, "methods": 22}[file]
            assert not any({"extends", "stage", "output_dir", "learning_rate"} & part.keys() for part in found)
            known = {
                "base.yaml": {"model_name_or_path", "dataset_mixture", "max_length"},
                "methods": {"loss_type", "chosen_column"},
            }
            assert all(known[file] <= part.keys() for part in found)


def test_judges_are_asked_as_published(subtests: pytest.Subtests) -> None:
    for benchmark in ["alpaca_eval", "arena_hard"]:
        with subtests.test(benchmark=benchmark):
            recipe = f"recipes/judge_{benchmark}.yaml"
            (config,) = parse([recipe, "--responses", "r", "--output_dir", "o", "--max_cost_usd", "20"], JudgeConfig)
            assert (config.benchmark, config.model) == (benchmark, "gpt-4-1106-preview")
            published = {"alpaca_eval": (1.0, 1, {"logprobs", "top_logprobs"}), "arena_hard": (0.0, 4096, set())}
            more = set(config.request([])) - {"model", "messages", "temperature", "max_tokens"}
            assert (config.temperature, config.max_tokens, more) == published[benchmark]


@pytest.mark.slow
def test_methods_differ_in_what_they_are(subtests: pytest.Subtests) -> None:
    """And their hyperparameters lie in the ranges that the paper searched."""
    for task in [*PAPER, *SMALL]:
        with subtests.test(task=task):
            beta, delta, learning_rate = (PAPER | SMALL)[task]
            for method, (loss, column, weighting, folder) in METHODS.items():
                arguments, model_args, config = training(f"recipes/{task}/{method}.yaml")
                assert (config.loss_type, arguments.chosen_column, config.token_weighting) == (
                    [loss],
                    column,
                    weighting,
                )
                assert arguments.dataset_mixture.datasets[0].id == f"outputs/{task}/{folder}/train.jsonl"
                assert (config.num_train_epochs, config.seed, config.warmup_steps) == (1, 42, 0.1)
                if loss == "sigmoid":
                    assert (config.beta, config.learning_rate) == (beta, learning_rate)
                assert config.bmc_delta == (delta if weighting == "bmc" else 3.0)
                if task in PAPER:
                    assert 4 * config.per_device_train_batch_size * config.gradient_accumulation_steps == 128
                    assert (config.max_length, config.bf16, model_args.dtype) == (2048, True, "float32")
                values, _ = load_recipe(Path(f"recipes/{task}/{method}.yaml"))
                for key, searched in SEARCHED.items():
                    if key in values and not (key == "learning_rate" and task in SMALL):
                        assert values[key] in searched, key
                assert values.get("beta") in BETAS.get(loss, {None})


@pytest.mark.parametrize("setting", [setting for setting in PAPER if "14b" not in setting])
@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_adapters_have_the_handbooks_values(setting: str, kind: str) -> None:
    """recipes/zephyr-7b-beta/dpo/config_qlora.yaml; β and δ are the setting's, the batch is the paper's on one card."""
    arguments, model_args, config = training(f"recipes/{setting}/{kind}_dpo_bmc.yaml")
    assert (model_args.lora_r, model_args.lora_alpha, model_args.lora_dropout) == (128, 128, 0.05)
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert model_args.lora_target_modules == modules
    assert (model_args.dtype, model_args.use_peft, config.learning_rate) == ("bfloat16", True, 5e-6)
    assert (model_args.load_in_4bit, model_args.use_bnb_nested_quant) == (kind == "qlora",) * 2
    assert config.optim.value == {"lora": "adamw_torch", "qlora": "paged_adamw_32bit"}[kind]
    assert (config.beta, config.bmc_delta) == PAPER[setting][:2]
    assert config.per_device_train_batch_size * config.gradient_accumulation_steps == arguments.paper_batch_size == 128
    assert (arguments.accelerate_config, config.max_length, config.token_weighting) == (None, 2048, "bmc")


CREDIT = {"confpo": "bridge", "entropy": "bridge", "position": "bridge", "shift": "bridge"}
CREDIT |= {name: f"score_{name}" for name in ("tis", "sepo", "tgdpo")}


@pytest.mark.parametrize("name", CREDIT)
def test_token_credit_is_compared_on_the_same_pairs_with_the_same_values(name: str) -> None:
    bmc, other = (training(f"recipes/smollm2-135m/math/dpo_{method}.yaml") for method in ("bmc", name))
    assert other[2].token_weighting == (name if name in ("confpo", "entropy", "position", "shift") else "external")
    assert other[0].dataset_mixture.datasets[0].id == f"outputs/smollm2-135m/math/{CREDIT[name]}/train.jsonl"
    for key in (
        "loss_type", "beta", "learning_rate", "num_train_epochs", "seed", "per_device_train_batch_size", "max_length"
    ):  # fmt: skip
        assert getattr(other[2], key) == getattr(bmc[2], key), key
    assert other[0].chosen_column == bmc[0].chosen_column == "chosen"
    if name in ("tis", "sepo", "tgdpo"):
        (scoring,) = parse([f"recipes/smollm2-135m/math/score_{name}.yaml"], ScoreTokensConfig)
        assert scoring.dataset_mixture.datasets[0].id == bmc[0].dataset_mixture.datasets[0].id
        assert (scoring.method, scoring.beta, scoring.max_length) == (name, other[2].beta, other[2].max_length)


@pytest.mark.parametrize(("setting", "gamma", "rate"), [("llama3-8b", 1.0, 6e-7), ("mistral-7b", 1.6, 3e-7)])
def test_simpo_is_as_its_authors_ran_it(setting: str, gamma: float, rate: float) -> None:
    """training_configs/{llama-3-8b,mistral-7b}-base-simpo.yaml of princeton-nlp/SimPO, for the same SFT models."""
    _, _, config = training(f"recipes/{setting}/ultrafeedback/simpo.yaml")
    assert (config.beta, config.simpo_gamma, config.learning_rate) == (2.0, gamma, rate)


def test_continue_writing(subtests: pytest.Subtests) -> None:
    for setting in [*PAPER, *SMALL]:
        with subtests.test(setting=setting):
            (config,) = parse([f"recipes/{setting}/sample_cw.yaml"], SampleConfig)
            (dataset,) = config.dataset_mixture.datasets
            assert (config.mode, config.prefix_fraction) == ("continue_prefix", 0.5)
            assert (dataset.id, dataset.num_rows) == (f"outputs/{setting}/bridge/train.jsonl", None)


def test_external_weights_are_for_the_tokens_that_are_trained(subtests: pytest.Subtests) -> None:
    for setting in [*PAPER, *SMALL]:
        with subtests.test(setting=setting):
            (scored,) = parse([f"recipes/{setting}/bridge_ew.yaml"], BridgeConfig)
            arguments, model_args, _ = training(f"recipes/{setting}/dpo_ew.yaml")
            assert scored.mode == "token_scores"
            assert scored.tokenizer_name_or_path == (arguments.tokenizer_name_or_path or model_args.model_name_or_path)
            assert scored.chat_template == arguments.chat_template


def test_models_that_send_equal_requests_share_a_response_cache(subtests: pytest.Subtests) -> None:
    """UltraFeedback's pairs are the data set's own, whatever the model; QA's and math's are the model's."""
    for recipe in sorted(
        path.relative_to(ROOT / "recipes/llama3-8b") for path in ROOT.glob("recipes/llama3-8b/**/bridge*.yaml")
    ):
        with subtests.test(recipe=recipe):
            paths = [f"recipes/{model}/{recipe}" for model in ("llama3-8b", "mistral-7b", "qwen2.5-14b")]
            configs = [parse([path], BridgeConfig)[0] for path in paths if Path(path).exists()]
            assert {config.response_cache for config in configs} == {"outputs/ultrafeedback/responses.sqlite"}
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


@pytest.mark.parametrize("model", ["llama3-8b", "mistral-7b", "qwen2.5-14b"])
def test_each_chat_benchmark_is_generated_as_released(model: str) -> None:
    """eval/alpacaeval2 and eval/arenahard of YJiangcm/BMC: temperature 0.9 and 0.0, 2,048 new tokens, no top-p."""
    (config,) = parse([f"recipes/{model}/ultrafeedback/eval.yaml"], EvaluateConfig)
    ways = [config.decoding(name) for name in ("alpaca_eval", "arena_hard")]
    assert [(way.temperature, way.top_p, way.max_new_tokens) for way in ways] == [(0.9, 1.0, 2048), (0.0, 1.0, 2048)]


def test_the_papers_settings_hold_no_training_row_out(subtests: pytest.Subtests) -> None:
    for setting in PAPER:
        with subtests.test(setting=setting):
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


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/accelerate_configs/*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_config(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.num_processes == yaml.safe_load(path.read_text())["num_processes"]


def test_no_template_stands_in_a_recipe() -> None:
    for path in FILES:
        template = yaml.load(path.read_text(), Loader=Loader).get("chat_template")
        assert template is None or (path.parent / template).is_file(), path


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
