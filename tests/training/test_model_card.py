"""The model card says what was done, in metadata that the Hub reads, and nothing about this machine."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from bmc.training import model_card as card

ROOT = Path(__file__).parents[2]
RECIPE = {
    "model_name_or_path": "outputs/llama2-7b/qa/sft",
    "dataset_mixture": {"datasets": [{"id": "/data/somewhere/pairs.jsonl"}]},
    "chat_template": "/opt/templates/chat.jinja", "token_weighting": "bmc", "bmc_delta": 2.5, "beta": 0.05,
    "hub_token": "***"
}  # fmt: skip
RECORD = {
    "command": "scripts/preference.py recipes/a.yaml --output_dir /data/out/run", "recipe": RECIPE,
    "versions": {"python": "3.11.7", "torch": "2.13.0", "vllm": None}, "git": {"commit": "abc123", "dirty": True},
    "data": [{"file": "/data/somewhere/pairs.jsonl", "bytes": 3, "sha256": "f00d"}], "processes": 4
}  # fmt: skip
METRICS = {"train_loss": 0.57463, "rewards/accuracies": 0.8333, "rows": 104}
EVALUATED = {"results": {"ecqa": {"n": 200, "correct": 142, "accuracy": 0.71, "interval": [0.6436, 0.7685]}}}


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def made(folder: Path, record: dict[str, Any], **files: dict[str, Any]) -> ModelCard:
    (folder / "eval").mkdir(exist_ok=True)
    (folder / "provenance.json").write_text(json.dumps({"started": "now"} | record))
    for name, value in files.items():
        (folder / f"{name.replace('__', '/')}.json").write_text(json.dumps(value))
    assert card.write(folder)
    assert not list(folder.glob("*.tmp"))
    return ModelCard.load(folder / "README.md", ignore_metadata_errors=False)


def test_a_preference_model(tmp_path: Path) -> None:
    found = made(tmp_path, RECORD, metrics=METRICS, eval__metrics=EVALUATED)
    assert found.data.base_model == "meta-llama/Llama-2-7b-hf"
    assert found.data.license == "llama2"
    assert found.data.library_name == "transformers"
    assert found.data.tags == ["trl", "dpo", "bmc"]
    (result,) = found.data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("ecqa", "accuracy", 0.71)
    text = found.text
    assert "DPO-BMC" in text
    assert r"-\log\sigma\left(\beta \sum_t \lambda(y_w^t) \log\frac{\pi_\theta(y_w^t)}{\pi_\mathrm{ref}(y_w^t)}" in text
    assert r"\right), 2.5\right)" in text
    assert "| ecqa | 71.0 | [64.4, 76.8] | 200 |" in text.replace("76.9", "76.8")
    assert "Training ended with train_loss 0.5746, rewards/accuracies 0.8333 (104 rows)." in text
    assert "bmc_delta: 2.5" in text
    assert "commit abc123 and changes since" in text
    assert "torch 2.13.0" in text
    assert "vllm" not in text
    assert "SHA-256 `f00d`" in text
    assert "/data" not in (tmp_path / "README.md").read_text()
    assert "/opt" not in text
    assert str(tmp_path.parent) not in text


def test_an_sft_model_without_results(tmp_path: Path) -> None:
    recipe = {"model_name_or_path": "Qwen/Qwen2.5-14B", "dataset_mixture": {"datasets": [{"source": "ecqa"}]}}
    found = made(tmp_path, RECORD | {"command": "scripts/sft.py a.yaml", "recipe": recipe, "git": None, "data": []})
    assert found.data.tags == ["trl", "sft"]
    assert found.data.eval_results is None
    assert "None yet." in found.text
    assert r"$$ -\sum_t \log\pi_\theta(y^t \mid y^{<t}, x) $$" in found.text
    assert "Supervised fine-tuning of [Qwen/Qwen2.5-14B](https://huggingface.co/Qwen/Qwen2.5-14B)" in found.text


def test_each_objective_is_said(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for changes, said in [
        ({"loss_type": "ipo", "token_weighting": "none"}, r"\lambda \equiv 1"),
        ({"loss_type": ["simpo"], "token_weighting": "external"}, r"\log\pi_\theta(y_w^t) - \frac{\beta}{|y_l|}"),
        ({"loss_type": "hinge"}, "`hinge`: Hinge loss on the reward margin"),
        ({"chosen_column": "original_chosen"}, "DPO-MC"),
    ]:
        with subtests.test(changes=changes, said=said):
            assert said in made(tmp_path, RECORD | {"recipe": RECIPE | changes}).text


def test_every_objective_has_words_or_an_equation(tmp_path: Path) -> None:
    from bmc.training.losses import LOSSES

    assert card.EQUATIONS.keys() <= LOSSES.keys()
    for name in LOSSES:
        text = card._method(RECORD | {"recipe": RECIPE | {"loss_type": name}})
        assert text.count("$$") == (4 if name in card.EQUATIONS else 2)
        assert text.count("{") == text.count("}")


def test_the_base_models_licence_is_looked_up(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: mit\nbase_model: someone/model\n---\n# Base\n")
    recipe = {"model_name_or_path": str(base)}
    assert card.base_model(recipe) == "someone/model"
    assert card.license_of(recipe, "someone/model") == "mit"
    assert card.license_of(recipe | {"license": "apache-2.0"}, None) == "apache-2.0"
    (base / "README.md").write_text("---\n[\n---\n")
    assert card.base_model(recipe) is None
    assert card.license_of(recipe, None) is None
    assert card.license_of({"model_name_or_path": "alignment-handbook/zephyr-7b-sft-full"}, None) == "apache-2.0"


def test_adapters_and_folders_that_are_no_runs(tmp_path: Path) -> None:
    assert made(tmp_path, RECORD | {"recipe": RECIPE | {"use_peft": True}}).data.library_name == "peft"
    (tmp_path / "none").mkdir()
    assert not card.write(tmp_path / "none")
    assert list((tmp_path / "none").iterdir()) == []


def test_paths_are_portable(subtests: pytest.Subtests) -> None:
    for value, said in [
        ("/data/x/pairs.jsonl", "…/pairs.jsonl"), ("--out=/data/x/run --n 3", "--out=…/run --n 3"),
        ("org/model", "org/model"), ("https://host/a/b", "https://host/a/b"),
        ("outputs/a/b.jsonl", "outputs/a/b.jsonl"), ({"a": ["/x/y", 1]}, {"a": ["…/y", 1]})
    ]:  # fmt: skip
        with subtests.test(value=value, said=said):
            assert card.portable(value) == said


def test_nothing_is_pushed_unless_it_is_asked_for() -> None:
    from bmc.training.config import BMCConfig, SFTConfig

    for config in (BMCConfig, SFTConfig):
        assert config.__dataclass_fields__["push_to_hub"].default is False
    for path in (ROOT / "recipes").rglob("*.yaml"):
        assert "push_to_hub: true" not in path.read_text(), path
