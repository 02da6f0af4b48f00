"""The reference's log-probs are computed once, found again where they hold, and nowhere else."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from peft import PromptTuningConfig, get_peft_model
from tiny_pairs import PAIRS, logged, perturb, settings
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import bmc
from bmc.errors import UserErrors
from bmc.training import reference_cache as reference


class Counting(bmc.BMCTrainer):
    """Counts the responses whose reference is computed."""

    computed = 0

    def _reference_logps(self, model: Any, inputs: dict[str, Any]) -> Any:
        type(self).computed += len(inputs["response_mask"].flatten(0, -2))
        return super()._reference_logps(model, inputs)


def count(model: Any, folder: Path, rows: list[dict[str, Any]] = PAIRS, **changed: Any) -> tuple[Any, int]:
    """Make a trainer and say how many responses it ran the reference on."""
    names = ("peft_config", "processing_class", "eval_dataset")
    others = {key: changed.pop(key) for key in names if key in changed}
    cache = {"reference_cache": str(folder / "cache"), "precompute_ref_log_probs": None}
    args = bmc.BMCConfig(**settings(folder / "run", per_device_train_batch_size=2, **cache) | changed)
    Counting.computed = 0
    trainer = Counting(model, args=args, train_dataset=Dataset.from_list(rows), **others)
    return trainer, Counting.computed


@pytest.fixture
def make(model_dir: Path, tmp_path: Path) -> Any:
    """Makes trainers whose cache begins empty."""
    return lambda rows=PAIRS, model=None, **changed: count(model or str(model_dir), tmp_path, rows, **changed)


@pytest.fixture(scope="module")
def filled(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes trainers whose cache has the log-probs of `PAIRS`."""
    folder = tmp_path_factory.mktemp("filled")
    assert count(str(model_dir), folder)[1] == 16
    return lambda rows=PAIRS, model=None, **changed: count(model or str(model_dir), folder, rows, **changed)


def test_it_is_on_by_default_and_keeps_no_reference_model(make):
    trainer, computed = make()
    assert computed == 16
    assert trainer.ref_model is None
    assert make(max_steps=2, learning_rate=1e-4)[0].ref_model is not None  # 4 of 8 pairs: the rest would be for nothing
    assert make(max_steps=4)[0].ref_model is None


def test_values_are_those_of_the_model(make, model_dir):
    trainer, _ = make(precompute_ref_batch_size=3)
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    for row in trainer.train_dataset:
        for response, column in (("chosen_ids", "ref_chosen_logps"), ("rejected_ids", "ref_rejected_logps")):
            ids = torch.tensor([row["prompt_ids"] + row[response]])
            with torch.no_grad():
                logps = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            expected = logps[len(row["prompt_ids"]) - 1 :]
            torch.testing.assert_close(torch.tensor(row[column]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_it_is_found_again(subtests: pytest.Subtests, filled) -> None:
    for changed in [
        {"loss_type": ["ipo"], "beta": 0.4}, {"token_weighting": "bmc", "bmc_delta": 1.0},
        {"seed": 7, "learning_rate": 1e-3, "gradient_accumulation_steps": 4},
        {"prefix_sharing": False}, {"packing": False}, {"rows": PAIRS[::-1]}, {"rows": PAIRS[2:5]},
        {"eval_dataset": Dataset.from_list(PAIRS[:2])}
    ]:  # fmt: skip
        with subtests.test(changed=changed):
            assert filled(**changed)[1] == 0


def test_an_adapter_of_any_seed_finds_its_base_models(filled):
    from peft import LoraConfig

    for seed in (1, 2):
        torch.manual_seed(seed)
        trainer, computed = filled(peft_config=LoraConfig(r=4, target_modules=["q_proj"]), seed=seed)
        assert computed == 0
        with torch.no_grad():  # what was found is the base model's, not the adapter's
            trainer.model.get_base_model().model.layers[0].self_attn.q_proj.lora_B["default"].weight.fill_(1.0)
        batch = trainer.data_collator([trainer.train_dataset[0]])
        torch.testing.assert_close(trainer._reference_logps(trainer.model, batch), batch["ref_logps"])


def other_weights(model_dir: Path, tokenizer: Any) -> dict[str, Any]:
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-3
    return {"model": model}


def other_template(model_dir: Path, tokenizer: Any) -> dict[str, Any]:
    other = copy.deepcopy(tokenizer)
    other.chat_template = other.chat_template.replace("<assistant> ", "<answer> ")
    return {"processing_class": other}


def other_tokenizer(model_dir: Path, tokenizer: Any) -> dict[str, Any]:
    inner = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = inner["model"]["vocab"]
    vocabulary["e"], vocabulary["t"] = vocabulary["t"], vocabulary["e"]
    other = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(inner)), chat_template=tokenizer.chat_template,
        pad_token="<pad>", bos_token="<s>", eos_token="</s>",
    )  # fmt: skip
    return {"processing_class": other}


def loaded_with(**options: Any) -> Any:
    return lambda model_dir, tokenizer: {"model": AutoModelForCausalLM.from_pretrained(model_dir, **options)}


CHANGES = {
    "weights": other_weights, "template": other_template, "tokenizer": other_tokenizer,
    "configuration": loaded_with(rms_norm_eps=1e-5), "precision": loaded_with(dtype=torch.bfloat16)
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.slow
def test_another_model_or_text_is_computed_anew(make, model_dir, tokenizer, what):
    make()
    assert make(**CHANGES[what](model_dir, tokenizer))[1] == 16


def test_another_truncation_and_other_rows(filled):
    trainer, _ = filled()
    sides = ("chosen_ids", "rejected_ids")
    longest = max(len(row["prompt_ids"] + row[side]) for row in trainer.train_dataset for side in sides)
    assert filled(max_length=longest)[1] == 0
    assert filled(max_length=longest - 1)[1] > 0
    rows = [*PAIRS, {**PAIRS[0], "chosen": [{"role": "assistant", "content": "2, as you know."}]}]
    assert filled(rows)[1] == 1  # its rejected response is there already


def test_a_run_that_is_killed_goes_on_where_it_was(make, monkeypatch):
    monkeypatch.setattr(reference, "FLUSH_SECONDS", 0)
    run = Counting._reference_logps

    def dies(self: Any, model: Any, inputs: dict[str, Any]) -> Any:
        if type(self).computed == 8:
            raise KeyboardInterrupt
        return run(self, model, inputs)

    monkeypatch.setattr(Counting, "_reference_logps", dies)
    with pytest.raises(KeyboardInterrupt):
        make()
    monkeypatch.setattr(Counting, "_reference_logps", run)
    assert make()[1] == 8


def test_a_damaged_or_foreign_file_is_not_used(make, tmp_path, caplog):
    make()
    (file,) = (tmp_path / "cache").rglob("*.arrow")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    file.with_name("torn.partial").write_bytes(whole[:100])
    assert make()[1] == 16
    assert "is damaged" in caplog.text
    file.unlink()
    with pa.ipc.new_file(str(file), pa.schema([("key", pa.string())])) as writer:
        writer.write_table(pa.table({"key": ["other"]}))
    assert make()[1] == 0


@pytest.mark.slow
def test_a_streamed_data_set_has_its_reference_run_with_it(make, model_dir, tmp_path):
    args = bmc.BMCConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False, max_steps=1)
    trainer = bmc.BMCTrainer(str(model_dir), args=args, train_dataset=Dataset.from_list(PAIRS).to_iterable_dataset())
    assert trainer.ref_model is not None
    trainer.train()


def test_the_digest_ignores_what_lies_past_the_end_of_a_shared_out_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """7 numbers over 3 processes are parts of 3, of which the last has 2 of anything."""

    def parts(size: int, ranks: int) -> list[list[float]]:
        found = []
        for rank in range(ranks):
            start = rank * size
            part = torch.tensor([float(i) if i < 7 else 1e9 * i for i in range(start, start + size)])
            monkeypatch.setattr(torch.distributed, "get_rank", lambda group, rank=rank: rank)
            weight = SimpleNamespace(ds_tensor=part, ds_numel=7, ds_process_group=None)
            found.append(reference._without_padding(weight).tolist())
        return found

    assert parts(3, 3) == [[0, 1, 2], [3, 4, 5], [6]]
    assert parts(2, 6) == [[0, 1], [2, 3], [4, 5], [6], [], []]


def test_a_disk_that_is_not_shared_is_told_before_the_pass(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "SHARED_SECONDS", 0)
    monkeypatch.setattr(Accelerator, "num_processes", property(lambda self: 2))
    monkeypatch.setattr(reference, "gather_object", lambda seen: [*seen, False])  # the other one sees nothing
    with pytest.raises(
        UserErrors, match=r"^reference_cache: .* lacks what other processes wrote; give a disk that all"
    ):
        make()
    assert Counting.computed == 0


@pytest.mark.parametrize("beforehand", [True, False])
@pytest.mark.slow
def test_a_named_reference_is_used_whatever_training_begins_with(make, model_dir, tmp_path, beforehand):
    """The first reward is β log π_θ/π_ref, which is 0 where the policy is its own reference."""
    policy = perturb(AutoModelForCausalLM.from_pretrained(model_dir), scale=0.1)
    policy.save_pretrained(tmp_path / "policy")
    PreTrainedTokenizerFast.from_pretrained(model_dir).save_pretrained(tmp_path / "policy")
    changed = {"max_steps": 1, "per_device_train_batch_size": 8, "precompute_ref_log_probs": beforehand}
    named, _ = make(model=str(tmp_path / "policy"), ref_model_name_or_path=str(model_dir), **changed)
    assert (named.ref_model is None) == beforehand
    named.train()
    given = bmc.BMCTrainer(
        AutoModelForCausalLM.from_pretrained(tmp_path / "policy"),
        AutoModelForCausalLM.from_pretrained(model_dir),
        bmc.BMCConfig(**settings(tmp_path / "given") | changed | {"precompute_ref_log_probs": False}),
        train_dataset=Dataset.from_list(PAIRS),
    )
    given.train()
    for key in ("rewards/chosen", "rewards/rejected", "loss"):
        assert logged(named, key) == pytest.approx(logged(given, key), abs=1e-5)
    assert abs(logged(named, "rewards/chosen")[0]) > 1e-3
    other = Dataset.from_list(PAIRS[:4])
    assert named.evaluate(other)["eval_rewards/chosen"] == pytest.approx(
        given.evaluate(other)["eval_rewards/chosen"], abs=1e-5
    )


def test_an_objective_without_a_reference_takes_none(model_dir):
    with pytest.raises(ValueError, match="ref_model_name_or_path: simpo has no reference"):
        bmc.BMCConfig("out", use_cpu=True, bf16=False, loss_type=["simpo"], ref_model_name_or_path=str(model_dir))


def test_prompts_that_were_trained_before_are_part_of_the_reference(model_dir, make):
    """PEFT leaves TRL's frozen copy of a prompt trainable; another prompt's log-probs must not be found for it."""
    for seed in (1, 2):
        config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(model_dir), config)
        perturb(model.prompt_encoder, 1.0, seed)
        assert make(model=model)[1] == 16
