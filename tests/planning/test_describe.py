"""What a dry run says, of each stage."""

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bmc.config import AnalyzeConfig, BridgeConfig, DatasetConfig, DatasetMixture, Price, SampleConfig
from bmc.llm.cache import ResponseCache
from bmc.planning import describe
from bmc.planning.hardware import read_launch
from bmc.training.config import BMCConfig, PreferenceArguments, SFTConfig, TrainingArguments
from bmc.training.run import parse_training

ROOT = Path(__file__).parents[2]
SETTINGS = [
    "llama2-7b/qa", "llama2-7b/math", "llama3-8b/ultrafeedback", "mistral-7b/ultrafeedback", "qwen2.5-14b/ultrafeedback"
]  # fmt: skip


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout in which no stage has run."""
    for name in ("recipes", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)  # not under `accelerate launch`


def plan(recipe: str, *argv: str) -> dict[str, Any]:
    kinds = (TrainingArguments, SFTConfig) if recipe.endswith("sft.yaml") else (PreferenceArguments, BMCConfig)
    arguments, model_args, config = parse_training([recipe, *argv, "--dry_run"], *kinds, "")
    launch = read_launch(arguments.accelerate_config, arguments.num_processes)
    return describe.training_facts(arguments, model_args, config, launch, config.use_cpu)


def amount(fact: str) -> float:
    return float(re.match(r"[\d.,]+", fact)[0].replace(",", ""))


def test_will_it_fit_on_four_cards_of_80_gb(subtests: pytest.Subtests) -> None:
    for setting in SETTINGS:
        with subtests.test(setting=setting):
            found = plan(f"recipes/{setting}/dpo_bmc.yaml")
            assert found["fits 4 × A800-80GB"].startswith("yes, ")
            by_tokens = "128 = 32 × 4 processes, in micro-batches of at most 8,192 tokens"
            chat = "ultrafeedback" in setting
            assert found["batch"] == ("128 = 2 × 16 accumulation × 4 processes" if chat else by_tokens)
            assert found["WARNING"] is None
            assert found["launched with"] == "ZeRO-3, 4 processes (recipes/accelerate_configs/zero3.yaml)"
            assert amount(found["steps"]) > 50
            parts = re.findall(r"([\d.]+) ", found["memory a process"].partition("=")[2])
            assert sum(map(float, parts)) == pytest.approx(amount(found["memory a process"]), abs=0.3)
            assert "0.0 reference" in found["memory a process"]


def test_the_documents_say_what_the_plan_says() -> None:
    table = (ROOT / "docs/gpu.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`[\w./-]+`(?:, )?)+) \| ([\d.]+) GiB \|", table, re.MULTILINE)
    needs = {setting: float(need) for settings, need in rows for setting in re.findall(r"`([\w./-]+)`", settings)}
    assert sorted(needs) == sorted(SETTINGS)
    for setting, need in needs.items():
        assert amount(plan(f"recipes/{setting}/dpo_bmc.yaml")["memory a process"]) == need


def test_llama2_by_hand() -> None:
    """DeepSpeed: 18 bytes × 6.738 B / 4 + 4 × 131 M. 10,855 pairs (Table 6, 31 % dropped) in 128s: 85."""
    found = plan("recipes/llama2-7b/qa/dpo_bmc.yaml")
    states = (18 * 6_738_415_616 / 4 + 4 * 32_000 * 4096) / 2**30
    assert f"= {states:.1f} weights, gradients, optimizer" in found["memory a process"]
    assert found["steps"] == "85"
    # a prompt of 60 once, two responses of 60; the reference sees them apart
    assert found["tokens"] == f"{10_855 * 180:,}, and {10_855 * 240:,} by the reference"
    flops = (8 * 10_855 * 180 + 2 * 10_855 * 240) * (6_738_415_616 - 32_000 * 4096)
    assert f"({flops:.2g} FLOP)" in found["time"]
    assert " on 4 × A800-80GB at 40% of 312 TFLOP/s" in found["time"]


def test_communication_of_llama2_by_hand() -> None:
    """Micro-batches of two pairs: 16 a step, 85 steps. Each receives 3/4 of 13.48 GB three times over (two gathers, one
    reduction) at 70 % of an A800's 200 GB/s: 0.217 s. Its 360 tokens take 8 · 6.6e9 · 360 FLOP at 125 TFLOP/s: 0.152 s.
    The reference's pass has 10,855 pairs / 4 / 2 micro-batches of one gather each."""
    alone = plan("recipes/llama2-7b/qa/dpo_bmc.yaml", "--micro_batch_tokens", "null")
    gather = 0.75 * 2 * 6_738_415_616 / (0.7 * 200e9)
    share = 10_855 / 10_880  # the last step isn't full
    exchanged = 85 * 16 * share * 3 * gather + 1357 * gather
    products = 6_607_343_616 * 10_855 / (4 * 0.4 * 312e12)
    assert amount(alone["communication"]) == round(exchanged / 60)
    assert f"beside {products * (8 * 180 + 2 * 240) / 60:.0f} min of computation" in alone["communication"]
    assert amount(alone["time"]) == round(exchanged / 60) == 7
    # in one micro-batch a step the computation is the longer part, and the reference's gathers are what is left
    full = plan("recipes/llama2-7b/qa/dpo_bmc.yaml")
    seconds = products * 8 * 180 + max(products * 2 * 240, 1357 * gather)
    assert amount(full["time"]) == round(seconds / 60) == 5


def test_a_budget_of_tokens_is_recommended() -> None:
    """As much as memory is planned for: two pairs of 2 × 2,048. A step's 32 pairs of 180 tokens are then one."""
    alone = plan("recipes/llama2-7b/qa/dpo_bmc.yaml", "--micro_batch_tokens", "null")
    said = "8192 is recommended: a step is about 1 micro-batch instead of 16, 5 min instead of 7 min"
    assert alone["micro_batch_tokens"] == f"{said}, 36.4 GiB a process"
    with_it = plan("recipes/llama2-7b/qa/dpo_bmc.yaml")
    assert with_it["micro_batch_tokens"] == "8192, as recommended: a step is about 1 micro-batch"
    assert with_it["memory a process"] == alone["memory a process"]
    assert with_it["steps"] == alone["steps"]
    # where it can't be: a loss over a batch; where it gains nothing: SFT, a CPU
    whole = ["--loss_type", "[sigmoid, sft]", "--loss_weights", "[1.0, 1.0]", "--micro_batch_tokens", "null"]
    assert plan("recipes/llama2-7b/qa/dpo.yaml", *whole)["micro_batch_tokens"] is None
    assert plan("recipes/llama2-7b/qa/sft.yaml")["micro_batch_tokens"] is None
    assert plan("recipes/smollm2-135m/math/dpo_bmc.yaml")["micro_batch_tokens"] is None


@pytest.mark.parametrize("setting", SETTINGS[:4])
@pytest.mark.parametrize(("method", "card"), [("lora", "A800-80GB"), ("qlora", "RTX4090-24GB")])
def test_a_7b_model_on_one_card(setting: str, method: str, card: str) -> None:
    found = plan(f"recipes/{setting}/{method}_dpo_bmc.yaml")
    assert found[f"fits one {card}"].startswith("yes")
    assert "tight" not in found[f"fits one {card}"]
    assert found["batch"].startswith("128 = 128 × 1 process")
    assert found["WARNING"] is None
    assert "0.0 reference" in found["memory a process"]  # the policy without its adapter
    ranks = {"llama2-7b": 319.8, "llama3-8b": 335.5, "mistral-7b": 335.5}  # 128 · Σ (inputs + outputs) · 32
    assert f"of which {ranks[setting.split('/')[0]]} M are trained" in found["parameters"]
    assert found["micro_batch_tokens"].partition(",")[0] == {"lora": "8192", "qlora": "4096"}[method]


def test_another_batch_than_the_papers_is_warned_of() -> None:
    found = plan("recipes/llama2-7b/qa/dpo_bmc.yaml", "--num_processes", "8")
    assert found["batch"].startswith("256 = ")
    assert found["WARNING"].startswith("the batch is 256, the paper's 128; change gradient_accumulation_steps")
    assert (
        plan("recipes/llama2-7b/qa/dpo_bmc.yaml", "--num_processes", "8", "--gradient_accumulation_steps", "8")[
            "WARNING"
        ]
        is None
    )
    assert plan("recipes/smollm2-135m/math/dpo_bmc.yaml")["WARNING"] is None


def test_what_does_not_fit_says_by_how_much_and_what_helps() -> None:
    found = plan("recipes/qwen2.5-14b/ultrafeedback/dpo_bmc.yaml", "--gpu", "A100-40GB")
    said = found["fits 4 × A100-40GB"]
    need = amount(found["memory a process"])
    assert said.startswith("NO, ")
    assert amount(said[4:]) == pytest.approx(need - 40, abs=0.15)
    fitting = dict(
        entry.rsplit(": ", 1)
        for entry in said.partition("what would fit: ")[2].partition("; not enough alone")[0].split("; ")
    )
    assert amount(fitting["offload_optimizer_device: cpu"]) < 40
    assert "per_device_train_batch_size: 1" not in fitting  # 18 × 14.8 B / 4 bytes are more than 40 GiB
    alone = plan("recipes/llama2-7b/qa/dpo_bmc.yaml", "--accelerate_config", "recipes/accelerate_configs/zero2.yaml")
    assert "ZeRO-2" in alone["launched with"]
    assert amount(alone["memory a process"]) > amount(plan("recipes/llama2-7b/qa/dpo_bmc.yaml")["memory a process"])


def test_the_reference_is_in_memory_only_where_it_is_not_computed_beforehand() -> None:
    recipe = "recipes/llama2-7b/qa/dpo_bmc.yaml"
    found = plan(recipe, "--precompute_ref_log_probs", "false")
    assert f"+ {2 * 6_738_415_616 / 4 / 2**30:.1f} reference" in found["memory a process"]
    assert found["memory assumes"].endswith("the reference log-probs in memory")
    found = plan(recipe, "--max_steps", "5")  # not all pairs
    assert "0.0 reference" not in found["memory a process"]
    found = plan("recipes/llama2-7b/qa/simpo.yaml")
    assert "0.0 reference" in found["memory a process"]
    assert "by the reference" not in found["tokens"]


def test_lora_by_the_handbooks_keys(subtests: pytest.Subtests) -> None:
    for keys, trained in [
        (["--use_peft", "--lora_r", "16"], "8.4 M"),  # 32 layers × 2 × 16 × (4096 + 4096)
        (["--use_peft", "--lora_r", "8", "--lora_target_modules", "all-linear"], "20.0 M"),
    ]:
        with subtests.test(keys=keys, trained=trained):
            found = plan("recipes/llama2-7b/qa/dpo_bmc.yaml", *keys, "--precompute_ref_log_probs", "false")
            assert f"of which {trained} are trained" in found["parameters"]
            assert "0.0 reference" in found["memory a process"]  # the policy without its adapter


def test_qlora_fits_a_small_card() -> None:
    keys = [
        "--use_peft", "--load_in_4bit", "--gpu", "RTX4090-24GB", "--accelerate_config",
        "recipes/accelerate_configs/ddp.yaml"
    ]  # fmt: skip
    found = plan("recipes/llama2-7b/qa/dpo_bmc.yaml", *keys, "--per_device_train_batch_size", "1")
    assert found["fits 4 × RTX4090-24GB"].startswith("yes")


def test_sft_has_no_reference() -> None:
    found = plan("recipes/llama2-7b/qa/sft.yaml")
    assert "reference" not in found["memory a process"] + found["tokens"] + found["memory assumes"]
    assert found["memory assumes"].startswith("8 sequences of 2,048 tokens")


def test_a_recipe_for_a_cpu_is_held_against_this_machine() -> None:
    found = plan("recipes/smollm2-135m/math/dpo_bmc.yaml")
    (fits,) = [key for key in found if key.startswith("fits")]
    assert re.fullmatch(r"fits this machine's [\d.]+ GiB", fits)
    assert "this CPU at 60%" in found["time"]


def test_generation_and_bridging() -> None:
    mixture = DatasetMixture(datasets=[DatasetConfig(id="outputs/llama2-7b/qa/prepare/train.jsonl")])
    sample = SampleConfig(
        output_dir="o", model_name_or_path="outputs/llama2-7b/qa/sft", dataset_mixture=mixture, dtype="bfloat16"
    )
    found = describe.generation_facts(sample)
    assert found["parameters"].startswith("6.74 B")
    assert found["fits one A800-80GB"] == "yes"
    # 2 × 32 layers × 4096 × 2 bytes × 32 sequences of 60 + 512 tokens
    assert f"{2 * 32 * 4096 * 2 * 32 * 572 / 2**30:.1f} GiB of it keys and values" in found["memory a process"]
    four = describe.generation_facts(replace(sample, backend="vllm", data_parallel_size=2, tensor_parallel_size=2))
    assert four["memory a card"] == f"{6.738e9 * 2 / 2 / 2**30:.1f} GiB of weights"
    assert four["fits 2 × A800-80GB"] == "yes"
    assert " on 4 × A800-80GB" in four["time"]
    minutes = [float(plan["time"].split(" min")[0]) for plan in (found, four)]
    assert minutes[1] == pytest.approx(minutes[0] / 4, abs=1)
    prices = {"gpt-4-0125-preview": Price(input=10, output=30)}
    found = describe.bridging_facts(BridgeConfig(output_dir="o", dataset_mixture=mixture, prices=prices))
    dollars = 15_732 * ((600 + 60 + 120) * 0.01 + 60 * 0.03) / 1000
    assert found["cost"].startswith(f"about ${dollars:,.0f} for 15,732 requests")
    found = describe.bridging_facts(BridgeConfig(output_dir="o", dataset_mixture=mixture, model="llama3-70b"))
    assert found["cost"] == "the recipe's `prices` has none for llama3-70b"


def test_a_shared_response_cache_is_told(tmp_path: Path) -> None:
    """61,135 pairs (Table 6) of 350 + 180 + 2 × 320 tokens to read and 320 to write, at $10 and $30 a million."""
    recipe = BridgeConfig(
        output_dir="outputs/mistral-7b/ultrafeedback/bridge",
        dataset_mixture=DatasetMixture(
            datasets=[DatasetConfig(id="outputs/mistral-7b/ultrafeedback/prepare/train.jsonl")]
        ),
        prices={"gpt-4-0125-preview": Price(input=10, output=30)},
        template="instruction",
    )
    found = describe.bridging_facts(recipe)
    assert found["cost"] == f"about ${61_135 * (1_170 * 10 + 320 * 30) / 1e6:,.0f} for 61,135 requests"
    assert found["paid once"] is None
    shared = replace(recipe, response_cache=str(tmp_path / "shared.sqlite"))
    assert describe.bridging_facts(shared)["paid once"].endswith("shared.sqlite, which holds 0 responses")
    with contextlib.closing(ResponseCache(tmp_path / "shared.sqlite")) as cache:
        asyncio.run(cache.put_all({"a": {}, "b": {}}))
    assert describe.bridging_facts(shared)["paid once"].endswith("shared.sqlite, which holds 2 responses")


def test_an_analysis() -> None:
    held_out = "outputs/llama2-7b/qa/bridge_held_out/train.jsonl"
    mixture = DatasetMixture(datasets=[DatasetConfig(id=held_out)])
    config = AnalyzeConfig(
        output_dir="o", setting="outputs/llama2-7b/qa", runs=["dpo", "dpo_bmc"], dataset_mixture=mixture,
        dtype="bfloat16"
    )  # fmt: skip
    found = describe.analysis_facts(config)
    assert found["not there yet"] == "dpo, dpo_bmc; `make` builds them"
    assert found["reference"] == "outputs/llama2-7b/qa/sft"
    assert found["memory"] == f"{2 * 2 * 6_738_415_616 / 2**30:.1f} GiB, the reference and one run's model"
    assert found["pairs"].startswith(
        "1,097 pairs"
    )  # ECQA's and OpenBookQA's validation rows, less the 31 % that are good enough


@pytest.mark.slow
def test_plans_of_the_other_stages_import_no_torch() -> None:
    stages = {stage: stage for stage in ("prepare", "sample", "bridge", "analyze")} | {"evaluate": "eval"}
    harness = (
        "import runpy, sys\n"
        f"for stage, recipe in {stages}.items():\n"
        "    sys.argv = [f'scripts/{stage}.py', f'recipes/llama2-7b/qa/{recipe}.yaml', '--dry_run']\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "print(*{'torch', 'transformers', 'datasets', 'deepspeed'} & sys.modules.keys(), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", harness], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == ""
    assert len(re.findall("^Plan: ", done.stdout, re.MULTILINE)) == len(stages)


def test_what_nothing_is_known_of(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        json.dumps({"model_name_or_path": "nobody/knows", "dataset_mixture": {"datasets": [{"id": "nobody/knows"}]}})
    )
    found = plan(str(tmp_path / "a.yaml"), "--output_dir", "o")
    assert found["parameters"].startswith("unknown")
    assert found["rows"].startswith("unknown")
    assert not any(key.startswith("fits") for key in found)
