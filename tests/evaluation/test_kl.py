"""KL from a reference, estimated on responses, against log-softmax by hand."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import t
from transformers import AutoModelForCausalLM

from bmc import commands
from bmc.errors import UserErrors


@pytest.fixture
def moved(model_dir: Path, tokenizer: Any, tmp_path: Path) -> Path:
    """A model near the reference."""
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
    model.save_pretrained(tmp_path / "moved")
    tokenizer.save_pretrained(tmp_path / "moved")
    return tmp_path / "moved"


def evaluated(model: Path, reference: Any, folder: Path, *more: str) -> dict[str, Any]:
    rows = [{"prompt": f"{'x' * i}?", "answer": str(i), "task": "math"} for i in range(1, 6)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "model_name_or_path": model, "kl_reference": reference, "output_dir": folder / "eval", "dtype": "float32",
        "max_new_tokens": 6, "batch_size": 2, "temperature": 1.0,
        "dataset_mixture.datasets": f"[{{id: {folder}/rows.jsonl}}]",
    }  # fmt: skip
    commands.evaluate([*(f"--{key}={value}" for key, value in values.items()), *more])
    return {} if more else json.loads((folder / "eval/metrics.json").read_text())


@pytest.mark.slow
def test_it_is_the_mean_log_ratio_of_the_responses(
    moved: Path, model_dir: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bmc.generation import generate

    seen: list[Any] = []
    real = generate.generate
    monkeypatch.setattr(
        generate, "generate", lambda prompts, *rest: seen.extend([prompts, made := real(prompts, *rest)]) or made
    )
    kl = evaluated(moved, model_dir, tmp_path)["kl"]
    models = [AutoModelForCausalLM.from_pretrained(place).eval() for place in (moved, model_dir)]
    ratios, counts = [], []
    for prompt, response in zip(*seen, strict=True):
        ids = torch.tensor([[*prompt, *response["ids"]]])
        with torch.no_grad():
            ours, theirs = (model(ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1] for model in models)
        chosen = ids[0, len(prompt) :, None]
        ratios.append(float((ours - theirs).gather(1, chosen).sum()))
        counts.append(len(response["ids"]))
    values = torch.tensor(ratios, dtype=torch.float64)
    mean, half = float(values.mean()), float(t.ppf(0.975, 4) * values.std() / 5**0.5)
    assert kl["per_response"] == pytest.approx([mean, mean - half, mean + half], abs=2e-5)
    assert kl["per_token"][0] == pytest.approx(sum(ratios) / sum(counts), abs=2e-5)
    assert (kl["n"], kl["unit"], kl["reference"]) == (5, "nats", str(model_dir))
    rows = [json.loads(line) for line in (tmp_path / "eval/predictions.jsonl").read_text().splitlines()]
    assert [row["log_ratio"] for row in rows] == pytest.approx(ratios, abs=2e-5)


@pytest.mark.slow
def test_a_model_is_at_no_distance_from_itself(model_dir: Path, tmp_path: Path) -> None:
    assert evaluated(model_dir, model_dir, tmp_path)["kl"]["per_response"] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("more", [(), ("--dry_run",)])
def test_references_that_are_no_good(more: tuple[str, ...], model_dir: Path, tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(UserErrors, match="gone"):
        evaluated(model_dir, tmp_path / "gone", tmp_path, *more)
    AutoModelForCausalLM.from_pretrained(model_dir).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    file = tmp_path / "other/tokenizer.json"
    file.write_text(file.read_text().replace('"!"', '"!!"', 1))
    with pytest.raises(UserErrors, match=re.escape("kl_reference: ") + ".*other tokens"):
        evaluated(model_dir, tmp_path / "other", tmp_path, *more)
    assert not (tmp_path / "eval").exists()
