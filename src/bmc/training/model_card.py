"""The model card of a training run: README.md in its folder, made from what else lies there."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import yaml

from .. import provenance
from ..planning import estimates
from ..program import trains_on_pairs

PAPER = "https://arxiv.org/abs/2408.07471"
LICENSES = {  # of the models' cards, as the Hub's metadata name them
    "meta-llama/Llama-2-7b-hf": "llama2",
    "meta-llama/Meta-Llama-3-8B": "llama3",
    "princeton-nlp/Llama-3-Base-8B-SFT": "llama3",
    "mistralai/Mistral-7B-v0.1": "apache-2.0",
    "alignment-handbook/zephyr-7b-sft-full": "apache-2.0",
    "Qwen/Qwen2.5-14B": "apache-2.0",
    "Qwen/Qwen2.5-14B-Instruct": "apache-2.0",
    "HuggingFaceTB/SmolLM2-135M": "apache-2.0",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "apache-2.0",
    "models/smollm2-135m": "apache-2.0",
}
_RATIO = r"\log\frac{\pi_\theta(y_%s^t)}{\pi_\mathrm{ref}(y_%s^t)}"
_DELTA = {side: rf"\sum_t \lambda(y_{side}^t) {_RATIO % (side, side)}" for side in "wl"}
EQUATIONS = {  # objectives of the paper's tables; the others say in words what they are
    "sigmoid": rf"-\log\sigma\left(\beta {_DELTA['w']} - \beta {_DELTA['l']}\right)",
    "ipo": r"\left(\frac{\Delta_w}{\sum_t \lambda(y_w^t)} - \frac{\Delta_l}{\sum_t \lambda(y_l^t)} - "
    rf"\frac{{1}}{{2\beta}}\right)^2, \quad \Delta_y = {_DELTA['w'].replace('y_w', 'y')}",
    "rdpo": rf"-\log\sigma\left(\beta {_DELTA['w']} - \beta {_DELTA['l']} - (\alpha |y_w| - \alpha |y_l|)\right)",
    "simpo": r"-\log\sigma\left(\frac{\beta}{|y_w|} \sum_t \lambda(y_w^t) \log\pi_\theta(y_w^t) - "
    r"\frac{\beta}{|y_l|} \sum_t \lambda(y_l^t) \log\pi_\theta(y_l^t) - \gamma\right)",
    "orpo": r"-\log p_\theta(y_w) - \lambda_\mathrm{OR} \log\sigma\left(\log\frac{p_\theta(y_w)}{1 - p_\theta(y_w)} - "
    r"\log\frac{p_\theta(y_l)}{1 - p_\theta(y_l)}\right)",
    "figa": r"-\alpha \sum_{t \in \mathrm{diff}(y_w|y_l)} \log\pi_\theta(y_w^t) + "
    r"\beta \sum_{t \in \mathrm{diff}(y_l|y_w)} \log\pi_\theta(y_l^t)",
}
WEIGHTS = {
    "none": r"\lambda \equiv 1",
    "bmc": r"\lambda(y^t) = 1 + \min\left(\mathrm{sg}\left(\frac{1}{\pi_\theta(y^t \mid y^{<t}, x)}\right), %s\right)"
    r"\text{ for tokens in which } y_w \text{ and } y_l \text{ differ, else } 1",
    "confpo": r"\lambda(y^t) = 1 \text{ if } \pi_\theta(y^t \mid y^{<t}, x) \text{ is below its mean in } y"
    r"\text{, else } 0",
    "entropy": r"\lambda(y^t) = 1 \text{ for the tokens of } y \text{ at which } \pi_\theta "
    r"\text{ has the highest entropy, else } 0",
    "position": r"\lambda(y^t) = \gamma^{\max(t - t_0, 0)} \text{, } t_0 \text{ where } y_w \text{ and } y_l "
    r"\text{ first differ}",
    "shift": r"\lambda(y_w^t) = 1, \quad \lambda(y_l^t) = f",
    "external": r"\lambda(y^t) \text{ as other models scored each token}",
}
SFT = r"-\sum_t \log\pi_\theta(y^t \mid y^{<t}, x)"
TEMPLATE = Path(__file__).parent / "templates/model_card.md.jinja"


def with_card(trainer: type) -> type:
    """Make a trainer of TRL's write our card where it would write its own: with checkpoints, and before a push."""

    def create_model_card(self: Any, model_name: Any = None, dataset_name: Any = None, tags: Any = None) -> None:
        if self.is_world_process_zero():
            write(Path(self.args.output_dir))

    return type(trainer.__name__, (trainer,), {"create_model_card": create_model_card, "__doc__": trainer.__doc__})


def write(folder: Path) -> bool:
    """Write README.md from `provenance.json`, `metrics.json` and `eval/metrics.json`; again when there is more to say.

    Returns:
        Whether it was written; not in a folder that has no record.
    """
    from huggingface_hub import ModelCard

    record = provenance.read_provenance(folder)
    if record is None:
        return False
    results = _read(folder / "eval" / "metrics.json").get("results", {})
    values = _values(folder, record, _read(folder / "metrics.json"))
    card = ModelCard.from_template(_metadata(folder, record, results), str(TEMPLATE), results=results, **values)
    temporary = folder / "README.md.tmp"
    card.save(temporary)
    os.replace(temporary, folder / "README.md")
    return True


def _metadata(folder: Path, record: dict[str, Any], results: dict[str, Any]) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    base = base_model(record["recipe"])
    evaluated = [
        EvalResult(
            task_type="text-generation",
            dataset_type=name,
            dataset_name=name,
            metric_type="accuracy",
            metric_value=round(result["accuracy"], 4),
        )
        for name, result in results.items()
    ]
    return ModelCardData(
        model_name=folder.resolve().name,
        base_model=base,
        license=license_of(record["recipe"], base),
        library_name="peft" if record["recipe"].get("use_peft") else "transformers",
        pipeline_tag="text-generation",
        tags=["trl", *(["dpo", "bmc"] if _is_preference(record) else ["sft"])],
        eval_results=evaluated or None,
    )


def base_model(recipe: dict[str, Any]) -> str | None:
    """Return the Hub id of the model that training began with; None where only a folder of this machine is known."""
    name = estimates.base_model(str(recipe["model_name_or_path"]))
    if Path(name).is_dir() or name.count("/") != 1 or name.startswith(("/", ".", "~", "outputs/", "models/")):
        inner = _card_data(Path(name) / "README.md").get("base_model")
        return inner if isinstance(inner, str) else None
    return name


def license_of(recipe: dict[str, Any], base: str | None) -> str | None:
    """Return the base model's licence: the recipe's, or its card's where that is at hand, or a known model's."""
    if recipe.get("license"):
        return str(recipe["license"])
    places = [Path(str(recipe["model_name_or_path"]), "README.md")]
    if base is not None:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(base, "README.md")
        places += [Path(cached)] if isinstance(cached, str) else []
    found = next((license for path in places if isinstance(license := _card_data(path).get("license"), str)), None)
    return found or LICENSES.get(base or estimates.base_model(str(recipe["model_name_or_path"])))


def _card_data(path: Path) -> dict[str, Any]:
    """Read the metadata of a card; nothing of a file that isn't there, or is none."""
    try:
        head = re.match(r"---\n(.*?)\n---", path.read_text(encoding="utf-8"), re.DOTALL)
        return dict(yaml.safe_load(head[1]) or {}) if head else {}
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        return {}


def _is_preference(record: dict[str, Any]) -> bool:
    return trains_on_pairs(record["command"]) or bool(
        {"beta", "loss_type", "token_weighting"} & record["recipe"].keys()
    )


def _values(folder: Path, record: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """Collect what the template prints: what was done, with which data, and what training ended with."""
    recipe = {key: portable(value) for key, value in record["recipe"].items()}
    base, git = base_model(record["recipe"]), record.get("git")
    mixture = record["recipe"].get("dataset_mixture", {})
    data = [f"`{portable(part.get('id') or part.get('source'))}`" for part in mixture.get("datasets", [])]
    data += [f"{portable(one.get('file', 'the rows as read'))}: SHA-256 `{one['sha256']}`" for one in record["data"]]
    ends = ("train_loss", "eval_loss", "rewards/accuracies", "rewards/margins")
    ended = ", ".join(f"{name} {metrics[name]:.4g}" for name in ends if isinstance(metrics.get(name), int | float))
    return {
        "name": folder.resolve().name,
        "paper": PAPER,
        "kind": "Preference training" if _is_preference(record) else "Supervised fine-tuning",
        "base": f"[{base}](https://huggingface.co/{base})" if base else f"`{recipe['model_name_or_path']}`",
        "method": _method(record),
        "data": data,
        "ended": f"{ended} ({metrics['rows']:,} rows)" if ended and "rows" in metrics else "",
        "recipe": yaml.safe_dump(recipe, sort_keys=True, allow_unicode=True).rstrip(),
        "command": portable(record["command"]),
        "processes": record["processes"],
        "commit": f", commit {git['commit']}{' and changes since' if git['dirty'] else ''}" if git else "",
        "versions": ", ".join(f"{package} {version}" for package, version in record["versions"].items() if version),
    }


def _method(record: dict[str, Any]) -> str:
    """Say what was minimised, as equations."""
    if not _is_preference(record):
        return f"The response's negative log-likelihood:\n\n$$ {SFT} $$"
    from .losses import LOSSES

    recipe = record["recipe"]
    given = recipe.get("loss_type", ["sigmoid"])
    shown = []
    for name in [given] if isinstance(given, str) else given:
        summary = (LOSSES[name].__doc__ or "").partition("\n\n")[0]
        shown.append(f"$$ {EQUATIONS[name]} $$" if name in EQUATIONS else f"`{name}`: {' '.join(summary.split())}")
    weighting = recipe.get("token_weighting", "none")
    weights = WEIGHTS[weighting]
    weights = weights % f"{recipe.get('bmc_delta', 3.0):g}" if weighting == "bmc" else weights
    title = "The objective"
    if weighting == "bmc" and shown == [f"$$ {EQUATIONS['sigmoid']} $$"]:
        column = recipe.get("chosen_column", "chosen")
        title = "DPO-BMC (Eq. 4, on bridged pairs)" if column == "chosen" else "DPO-MC (Eq. 4, on pairs as they were)"
    head = f"{title} of [arXiv 2408.07471]({PAPER}), averaged over pairs (x, y_w, y_l):"
    return "\n\n".join([head, *shown, f"with\n\n$$ {weights} $$"])


def portable(value: Any) -> Any:
    """Return a value without absolute paths, which mean nothing on another machine, and without secrets."""
    if isinstance(value, dict):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [portable(item) for item in value]
    if not isinstance(value, str):
        return value
    return provenance.redact(re.sub(r"(?<![\w.~:/-])/(?:[^\s\"'/]+/)+(?=[^\s\"'/]+)", "…/", value))


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
