"""Parameter counts against the models' own, and against models that transformers builds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bmc.planning import architecture
from bmc.planning.architecture import KNOWN, find, of_config, origin
from bmc.planning.chain import upstream

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # as the repositories' safetensors say
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
        ("princeton-nlp/Llama-3-Base-8B-SFT", 8_030_261_248),
        ("alignment-handbook/zephyr-7b-sft-full", 7_241_732_096),
        ("Qwen/Qwen2.5-14B", 14_770_033_664),
        ("HuggingFaceTB/SmolLM2-135M", 134_515_008),
    ],
)
def test_the_papers_models_have_the_parameters_that_they_have(name: str, parameters: int) -> None:
    assert KNOWN[name].parameters == parameters


@pytest.mark.parametrize("kind", ["LlamaConfig", "MistralConfig", "Qwen2Config", "Qwen3Config", "GemmaConfig"])
@pytest.mark.parametrize("tied", [True, False])
def test_counts_are_those_of_transformers(kind: str, tied: bool) -> None:
    import torch
    import transformers

    config: Any = getattr(transformers, kind)(
        vocab_size=50, hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=6, tie_word_embeddings=tied,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    found = of_config(json.loads(config.to_json_string(use_diff=False)))
    assert found is not None
    assert found.parameters == model.num_parameters()
    linear = [module for name, module in model.named_modules() if name.endswith("_proj")]
    assert found.linear_parameters == sum(module.weight.numel() for module in linear)
    assert found.layer == sum(weight.numel() for weight in model.model.layers[0].parameters())
    assert found.multiplied == model.num_parameters() - (0 if tied else 50 * 24)


def test_a_mixture_of_experts_is_not_guessed_at() -> None:
    assert of_config({"model_type": "mixtral", "hidden_size": 8}) is None


def test_a_model_of_ours_is_followed_to_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_dir: Path
) -> None:
    monkeypatch.chdir(ROOT)
    assert origin("outputs/llama2-7b/qa/sft") == "meta-llama/Llama-2-7b-hf"
    assert origin("outputs/nobody/knows") == "outputs/nobody/knows"
    found = find("outputs/llama2-7b/qa/sft")
    if not (ROOT / "outputs/llama2-7b/qa/sft").exists():
        assert found == (
            architecture.KNOWN["meta-llama/Llama-2-7b-hf"],
            "the table of meta-llama/Llama-2-7b-hf's public config",
        )
    assert find("outputs/nobody/knows") is None
    assert find("nobody/knows") is None

    found = find(str(model_dir))
    assert found is not None
    assert (found[0].hidden, found[0].layers, found[1]) == (32, 2, f"{model_dir}/config.json")


def test_a_recipe_at_fault_upstream_is_left_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    upstream.cache_clear()
    (tmp_path / "recipes/a").mkdir(parents=True)
    (tmp_path / "recipes/a/sft.yaml").write_text("[")
    assert upstream("outputs/a/sft") is None
    assert upstream("data/a/sft") is None
    (tmp_path / "recipes/a/dpo.yaml").write_text("model_name_or_path: outputs/a/dpo\n")  # a circle
    assert origin("outputs/a/dpo") == "outputs/a/dpo"
    upstream.cache_clear()
