"""The chain on a tiny model, script by script: raw rows → SFT → sample → bridge → DPO-BMC → evaluate → report."""

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEMPLATE = str(ROOT / "recipes/chat_templates/instruction.jinja")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Any:
    """Runs stages in a folder of its own: `run(script, recipe)` → the folder that it wrote."""
    folder = tmp_path_factory.mktemp("chain")
    base = {
        "model_name_or_path": str(model_dir), "chat_template": TEMPLATE, "dtype": "float32", "use_cpu": True,
        "bf16": False, "gradient_checkpointing": False, "report_to": "none", "save_strategy": "no", "logging_steps": 1,
        "max_length": 200, "max_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3,
    }  # fmt: skip

    def run(script: str, name: str, *arguments: str, shared: bool = False, **recipe: Any) -> Path:
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**(base if shared else {}), "output_dir": str(folder / name), **recipe}))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [str(ROOT / f"scripts/{script}.py"), str(path), *arguments])
            patch.chdir(ROOT)
            runpy.run_path(str(ROOT / f"scripts/{script}.py"), run_name="__main__")
        return folder / name

    questions = folder / "questions.jsonl"
    with questions.open("w") as file:
        for i in range(24):
            problem = f"Which is {i}?\nOptions:\nred{i}\nblue{i}"
            print(json.dumps({"problem": problem, "solution": f"It is red{i}.", "answer": f"red{i}"}), file=file)
    run.folder, run.questions = folder, questions  # type: ignore[attr-defined]
    return run


@pytest.fixture(scope="module")
def chain(run: Any) -> dict[str, Path]:
    def data(path: Path, **more: Any) -> dict[str, Any]:
        return {"datasets": [{"id": str(path), **more}]}

    ours = {"datasets": [{"id": str(run.questions), "source": "ecqa"}]}
    generation = {"chat_template": TEMPLATE, "dtype": "float32", "max_new_tokens": 8, "batch_size": 5}
    made = {"prepare": run("prepare", "prepare", dataset_mixture=ours, validation_fraction=0.3)}
    made["sft"] = run("sft", "sft", shared=True, dataset_mixture=data(made["prepare"] / "train.jsonl"))
    made["sample"] = run(
        "sample", "sample", model_name_or_path=str(made["sft"]), temperature=1.0,
        dataset_mixture=data(made["prepare"] / "train.jsonl"), **generation,
    )  # fmt: skip
    made["bridge"] = run("bridge", "bridge", editor="rules", dataset_mixture=data(made["sample"] / "train.jsonl"))
    pairs = data(made["bridge"] / "train.jsonl")
    common = {"shared": True, "model_name_or_path": str(made["sft"]), "dataset_mixture": pairs}
    made["dpo_bmc"] = run("preference", "dpo_bmc", **common, token_weighting="bmc", precompute_ref_log_probs=True)
    made["dpo"] = run("preference", "dpo", **common, chosen_column="original_chosen")
    for name in ("sft", "dpo_bmc"):
        made[f"{name}/eval"] = run(
            "evaluate", f"{name}/eval", model_name_or_path=str(made[name]),
            dataset_mixture=data(made["prepare"] / "validation.jsonl"), **generation,
        )  # fmt: skip
    return made


@pytest.mark.slow
def test_rows_go_to_one_part_by_their_prompts(chain: dict[str, Path], run: Any) -> None:
    parts = {name: lines(chain["prepare"] / f"{name}.jsonl") for name in ("train", "validation", "test")}
    assert len(parts["train"]) + len(parts["validation"]) == 24
    assert parts["validation"]
    assert not parts["test"]
    target = parts["train"][0]["completion"][0]["content"]
    assert target.startswith("Let's think step by step.\n")
    assert target.endswith(f"The answer is {parts['train'][0]['answer']}")


@pytest.mark.slow
def test_no_pair_is_lost_on_the_way(chain: dict[str, Path]) -> None:
    rows = {row["id"] for row in lines(chain["prepare"] / "train.jsonl")}
    sampled, unsampled = (lines(chain["sample"] / f"{name}.jsonl") for name in ("train", "dropped"))
    assert sorted(row["id"] for row in sampled + unsampled) == sorted(rows)
    kept, dropped = (lines(chain["bridge"] / f"{name}.jsonl") for name in ("train", "dropped"))
    assert sorted(row["id"] for row in kept + dropped) == sorted(row["id"] for row in sampled)
    assert all(row["reason"] for row in unsampled + dropped)
    for row in kept:
        assert row["bridged"]
        assert row["chosen"][0]["content"].endswith(row["answer"])
        assert row["original_chosen"] != row["chosen"]


@pytest.mark.slow
def test_models_are_whole_and_their_first_loss_is_ln_2(chain: dict[str, Path]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for name in ("sft", "dpo", "dpo_bmc"):
        AutoModelForCausalLM.from_pretrained(chain[name])
        assert AutoTokenizer.from_pretrained(chain[name]).chat_template == Path(TEMPLATE).read_text()
    for name in ("dpo", "dpo_bmc"):
        history = json.loads((chain[name] / "trainer_state.json").read_text())["log_history"]
        assert history[0]["loss"] == pytest.approx(0.693147, abs=1e-5)


@pytest.mark.slow
def test_metrics_have_n_and_an_interval(chain: dict[str, Path]) -> None:
    metrics = json.loads((chain["dpo_bmc/eval"] / "metrics.json").read_text())
    predictions = lines(chain["dpo_bmc/eval"] / "predictions.jsonl")
    result = metrics["results"]["ecqa"]
    assert result["n"] == len(predictions) == len(lines(chain["prepare"] / "validation.jsonl"))
    assert result["interval"][0] <= result["accuracy"] <= result["interval"][1]
    assert {"prompt", "prediction", "answer", "gold", "correct"} <= predictions[0].keys()


@pytest.mark.slow
def test_every_folder_says_what_made_it(chain: dict[str, Path]) -> None:
    for name, folder in chain.items():
        record = json.loads((folder / "provenance.json").read_text())
        script = {"sft": "sft", "dpo": "preference", "dpo_bmc": "preference"}.get(name, name.partition("/")[0])
        script = "evaluate" if name.endswith("eval") else script
        assert record["command"].startswith(f"scripts/{script}.py "), name
        assert record["recipe"]["dataset_mixture"]["datasets"]
        assert record["data"][0]["sha256"]
        assert record["processes"] == 1


@pytest.mark.slow
def test_models_have_a_card_with_their_results(chain: dict[str, Path]) -> None:
    from huggingface_hub import ModelCard

    for name, tags in (("sft", ["trl", "sft"]), ("dpo_bmc", ["trl", "dpo", "bmc"])):
        card = ModelCard.load(chain[name] / "README.md")
        metrics = json.loads((chain[f"{name}/eval"] / "metrics.json").read_text())["results"]["ecqa"]
        assert card.data.tags == tags
        assert [result.metric_value for result in card.data.eval_results] == [round(metrics["accuracy"], 4)]
        assert f"| ecqa | {100 * metrics['accuracy']:.1f} |" in card.text
        assert str(chain[name].parent) not in (chain[name] / "README.md").read_text()


@pytest.mark.slow
def test_report_has_a_line_for_each_run(chain: dict[str, Path], run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["report", str(run.folder)])
        runpy.run_path(str(ROOT / "scripts/report.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "| run | ecqa |" in printed
    assert "| dpo_bmc |" in printed
    assert "| sft |" in printed
    page = (run.folder / "report.html").read_text()
    for section in ("scores", "differences", "training", "bridging", "stages", "provenance"):
        assert f'<h2 id="{section}">' in page, section
    assert not re.search(r'(src|href)="(?!data:|#)', page)


@pytest.mark.slow
def test_a_sweep_trains_and_scores_its_points(chain: dict[str, Path], run: Any, capsys: Any) -> None:
    """With real processes: the second point finds the first's rows, masks and reference."""
    evaluate = {"chat_template": TEMPLATE, "dtype": "float32", "max_new_tokens": 4, "output_dir": "none"}
    test = {"dataset_mixture": {"datasets": [{"id": str(chain["prepare"] / "test.jsonl")}]}}
    recipe = run.folder / "by.yaml"
    recipe.write_text(yaml.safe_dump({"model_name_or_path": str(chain["sft"]), **evaluate, **test}))
    pairs = {"datasets": [{"id": str(chain["bridge"] / "train.jsonl"), "num_rows": 9}]}
    run(
        "preference", "swept", shared=True, model_name_or_path=str(chain["sft"]), dataset_mixture=pairs,
        token_weighting="bmc", sweep={"bmc_delta": [1.0, 3.0]}, eval_recipe=str(recipe),
        precompute_ref_log_probs=True, reference_cache=str(run.folder / "references"),
    )  # fmt: skip
    assert "2 of 2 points" in capsys.readouterr().out
    state = json.loads((run.folder / "swept-sweep/sweep.json").read_text())
    assert [point["n"] for point in state["points"]] == [len(lines(chain["prepare"] / "validation.jsonl"))] * 2
    logs = [(run.folder / f"swept-sweep/bmc_delta={delta}.log").read_text() for delta in (1.0, 3.0)]
    for work in ("Tokenizing train", "Comparing train", "Reference log-probs of"):
        assert [work in log for log in logs] == [True, False]


@pytest.mark.slow
def test_a_finished_run_belongs_to_its_recipe(chain: dict[str, Path], run: Any, capsys: Any) -> None:
    before = (chain["bridge"] / "train.jsonl").read_text()
    with pytest.raises(SystemExit) as stop:
        run(
            "bridge", "bridge", editor="rules", proportion=0.5,
            dataset_mixture={"datasets": [{"id": str(chain["sample"] / "train.jsonl")}]},
        )  # fmt: skip
    assert stop.value.code == 2
    assert "it differs in proportion" in capsys.readouterr().err
    assert (chain["bridge"] / "train.jsonl").read_text() == before


@pytest.mark.parametrize("prompt", ["messages", "string"])
@pytest.mark.slow
def test_a_prompt_has_the_same_ids_in_training_sampling_and_evaluation(
    prompt: str, model_dir: Path, tokenizer: Any, tmp_path: Path
) -> None:
    """One BOS, the same template, the generation prompt once."""
    import copy

    from datasets import Dataset
    from trl import SFTTrainer

    import bmc
    from bmc.data.tokenization import encode_prompt
    from bmc.training.config import SFTConfig

    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = Path(TEMPLATE).read_text()
    if prompt == "messages":
        x = [{"role": "user", "content": "2+2?"}]
        y, z = ([{"role": "assistant", "content": words}] for words in "45")
        text = "<s>### Instruction:\n2+2?\n\n### Response:\n"
    else:
        x, y, z, text = "2+2 is ", "4", "5", "2+2 is "
    options = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none"}
    common = {"model": str(model_dir), "processing_class": tokenizer}
    targets = Dataset.from_list([{"prompt": x, "completion": y}])
    pairs = Dataset.from_list([{"prompt": x, "chosen": y, "rejected": z}])
    sft = SFTTrainer(args=SFTConfig(**options), train_dataset=targets, **common).train_dataset[0]
    pair = bmc.BMCTrainer(args=bmc.BMCConfig(**options), train_dataset=pairs, **common).train_dataset[0]
    ids = encode_prompt(tokenizer, {"prompt": x})
    assert tokenizer.decode(ids) == text
    assert ids.count(tokenizer.bos_token_id) == (1 if prompt == "messages" else 0)
    assert pair["prompt_ids"] == ids
    learned = [i for i, label in enumerate(sft["labels"]) if label != -100]
    assert sft["input_ids"][: learned[0]] == ids
    assert tokenizer.decode(sft["input_ids"][learned[0] :]) == "4</s>"  # loss on the response only
    assert tokenizer.decode(pair["chosen_ids"]) == "4</s>"
