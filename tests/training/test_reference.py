"""The reference's log-probs are computed once, found again where they hold, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset

import bmc
from bmc.errors import Faults
from bmc.training import reference_cache as reference

PAIRS = [
    {
        "prompt": [{"role": "user", "content": f"Add {i} and 2."}],
        "chosen": [{"role": "assistant", "content": f"The sum of both is {i + 2}."}],
        "rejected": [{"role": "assistant", "content": f"It is not {'really ' * (i % 3)}{i + 3}."}],
    }
    for i in range(8)
]


class Counting(bmc.BMCTrainer):
    """Counts the responses whose reference is computed."""

    computed = 0

    def _reference_logps(self, model: Any, inputs: dict[str, Any]) -> Any:
        type(self).computed += len(inputs["response_mask"].flatten(0, -2))
        return super()._reference_logps(model, inputs)


@pytest.fixture
def make(model_dir: Path, tmp_path: Path) -> Any:
    """Makes a trainer and says how many responses it ran the reference on."""

    def made(rows: list[dict[str, Any]] = PAIRS, model: Any = None, **changed: Any) -> tuple[Any, int]:
        others = {
            key: changed.pop(key) for key in ("peft_config", "processing_class", "eval_dataset") if key in changed
        }
        args = bmc.BMCConfig(
            output_dir=str(tmp_path / "run"), report_to="none", use_cpu=True, bf16=False, save_strategy="no",
            gradient_checkpointing=False, per_device_train_batch_size=2, reference_cache=str(tmp_path / "cache"),
            **changed,
        )  # fmt: skip
        Counting.computed = 0
        trainer = Counting(model or str(model_dir), args=args, train_dataset=Dataset.from_list(rows), **others)
        return trainer, Counting.computed

    return made


def moved(model_dir: Path, **config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, **config)
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1e-3
    return model


def test_it_is_on_by_default_and_keeps_no_reference_model(make):
    trainer, computed = make()
    assert computed == 16
    assert trainer.ref_model is None
    assert make(max_steps=2, learning_rate=1e-4)[0].ref_model is not None  # 4 of 8 pairs: the rest would be for nothing
    assert make(max_steps=4)[0].ref_model is None


def test_values_are_those_of_the_model(make, model_dir):
    from transformers import AutoModelForCausalLM

    trainer, _ = make(precompute_ref_batch_size=3)
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    for row in trainer.train_dataset:
        for response, column in (("chosen_ids", "ref_chosen_logps"), ("rejected_ids", "ref_rejected_logps")):
            ids = torch.tensor([row["prompt_ids"] + row[response]])
            with torch.no_grad():
                logps = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            expected = logps[len(row["prompt_ids"]) - 1 :]
            torch.testing.assert_close(torch.tensor(row[column]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changed",
    [
        {"loss_type": ["ipo"], "beta": 0.4},
        {"token_weighting": "bmc", "bmc_delta": 1.0},
        {"seed": 7, "learning_rate": 1e-3, "gradient_accumulation_steps": 4},
        {"prefix_sharing": False},
        {"packing": False},
        {"rows": PAIRS[::-1]},
        {"rows": PAIRS[2:5]},
        {"eval_dataset": Dataset.from_list(PAIRS[:2])},
    ],
    ids=lambda changed: "+".join(changed),
)
def test_it_is_found_again(make, changed):
    make()
    assert make(**changed)[1] == 0


def test_an_adapter_of_any_seed_finds_its_base_models(make):
    from peft import LoraConfig

    make()
    for seed in (1, 2):
        torch.manual_seed(seed)
        trainer, computed = make(peft_config=LoraConfig(r=4, target_modules=["q_proj"]), seed=seed)
        assert computed == 0
        with torch.no_grad():  # what was found is the base model's, not the adapter's
            trainer.model.get_base_model().model.layers[0].self_attn.q_proj.lora_B["default"].weight.fill_(1.0)
        batch = trainer.data_collator([trainer.train_dataset[0]])
        torch.testing.assert_close(trainer._reference_logps(trainer.model, batch), batch["ref_logps"])


def test_other_weights(make, model_dir):
    make()
    assert make(model=moved(model_dir))[1] == 16


def test_another_configuration(make, model_dir):
    from transformers import AutoModelForCausalLM

    make()
    model = AutoModelForCausalLM.from_pretrained(model_dir, rms_norm_eps=1e-5)
    assert make(model=model)[1] == 16


def test_another_precision(make, model_dir):
    from transformers import AutoModelForCausalLM

    make()
    assert make(model=AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16))[1] == 16


def test_another_template(make, tokenizer):
    from copy import deepcopy

    make()
    other = deepcopy(tokenizer)
    other.chat_template = other.chat_template.replace("<assistant> ", "<answer> ")
    assert make(processing_class=other)[1] == 16


def test_another_tokenizer(make, tokenizer):
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    make()
    inner = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = inner["model"]["vocab"]
    vocabulary["e"], vocabulary["t"] = vocabulary["t"], vocabulary["e"]
    other = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(inner)), chat_template=tokenizer.chat_template,
        pad_token="<pad>", bos_token="<s>", eos_token="</s>",
    )  # fmt: skip
    assert make(processing_class=other)[1] == 16


def test_another_truncation(make):
    trainer, _ = make()
    longest = max(
        len(row["prompt_ids"] + row[side]) for row in trainer.train_dataset for side in ("chosen_ids", "rejected_ids")
    )
    assert make(max_length=longest)[1] == 0
    assert make(max_length=longest - 1)[1] > 0


def test_other_rows(make):
    make()
    rows = [*PAIRS, {**PAIRS[0], "chosen": [{"role": "assistant", "content": "2, as you know."}]}]
    assert make(rows)[1] == 1  # its loser is there already


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
    with pytest.raises(Faults, match=r"^reference_cache: .* lacks what other processes wrote; give a disk that all"):
        make()
    assert Counting.computed == 0
