"""What both kinds of training share: rows that were read and compared once, and engines that do what was asked."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.utils import DistributedType

import bmc
from bmc.errors import UserErrors
from bmc.recipe import parse
from bmc.training import token_weights as diff
from bmc.training.config import BMCConfig, ModelArguments, PreferenceArguments, SFTConfig, TrainingArguments
from bmc.training.fault_tolerance import SFTTrainer
from bmc.training.run import SFT, _check_engine, _end_turns, assistant_only, load_rows, prepare_run


def test_masks_are_made_once_for_the_same_rows(
    tmp_path: Path, model_dir: Path, tokenizer: Any, monkeypatch: Any
) -> None:
    file = tmp_path / "pairs.jsonl"
    pair = {"prompt": "2 + 2 = ", "chosen": "4, I am sure", "rejected": "5, I think"}
    file.write_text("".join(json.dumps({**pair, "prompt": f"{i} {pair['prompt']}"}) + "\n" for i in range(6)))
    recipe = tmp_path / "dpo_bmc.yaml"
    recipe.write_text(f"{{model_name_or_path: {model_dir}, dataset_mixture: {{datasets: [{{id: {file}}}]}}}}")

    def columns() -> Any:
        overrides = ["--use_cpu", "--bf16=false", f"--output_dir={tmp_path / 'run'}", "--report_to=none"]
        arguments, _, config = parse(
            [str(recipe), *overrides], PreferenceArguments, ModelArguments, BMCConfig, description=""
        )
        rows, _ = load_rows(arguments, tokenizer, ("prompt", "chosen", "rejected"))
        made = bmc.BMCTrainer(str(model_dir), args=config, train_dataset=rows, processing_class=tokenizer)
        return made.train_dataset["chosen_diff"][:]

    first = columns()
    monkeypatch.setattr(diff, "token_diff", None)  # a call would fail
    assert columns() == first
    file.write_text(file.read_text().replace("sure", "certain"))
    with pytest.raises(TypeError):
        columns()


@pytest.mark.parametrize(
    ("asked", "engine", "said"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, DistributedType.MULTI_CPU, "accelerate launch: has FSDP for GPUs alone"),
        (
            {"ACCELERATE_USE_DEEPSPEED": "true"},
            DistributedType.MULTI_CPU,
            "use_cpu: accelerate then leaves DeepSpeed",
        ),
        ({"WORLD_SIZE": "2"}, DistributedType.NO, "accelerate launch: started 2 processes, and there is no GPU"),
        ({"ACCELERATE_USE_FSDP": "true"}, DistributedType.MULTI_GPU, None),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, DistributedType.DEEPSPEED, None),
        ({"WORLD_SIZE": "2"}, DistributedType.MULTI_CPU, None),
        ({}, DistributedType.NO, None),
    ],
)
def test_engines_that_accelerate_would_leave_out_in_silence(
    asked: dict[str, str], engine: DistributedType, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "WORLD_SIZE"):
        monkeypatch.delenv(key, raising=False)
    for key, value in asked.items():
        monkeypatch.setenv(key, value)
    config = SimpleNamespace(distributed_state=SimpleNamespace(distributed_type=engine))
    if said is None:
        _check_engine(config)
        return
    with pytest.raises(UserErrors, match=f"^{said}"):
        _check_engine(config)


MESSAGES = [
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "And 3 + 3?"},
    {"role": "assistant", "content": "6"},
]
FEEDBACK = {  # the columns of UltraFeedback binarized
    "prompt": "2 + 2?", "prompt_id": "d41d", "chosen": MESSAGES[:2], "messages": MESSAGES[:2], "score_chosen": 8.5,
    "rejected": [MESSAGES[0], {"role": "assistant", "content": "5"}], "score_rejected": 7,
}  # fmt: skip
NO_END = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def arguments(folder: Path, model: Path, rows: list[dict[str, Any]], *overrides: str, kind: type = SFTConfig) -> Any:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"model_name_or_path: {model}\ndataset_mixture: {{datasets: [{{id: {folder / 'rows.jsonl'}}}]}}\n"
    )
    common = ["--use_cpu", "--bf16=false", f"--output_dir={folder / 'run'}", "--report_to=none", "--max_steps=1"]
    given = PreferenceArguments if kind is BMCConfig else TrainingArguments
    return parse([str(recipe), *common, *overrides], given, ModelArguments, kind, description="")


def trained_on(tmp_path: Path, model_dir: Path, rows: list[dict[str, Any]], *overrides: str) -> str:
    """The text of the first row's labels, by the trainer of the SFT stage."""
    given, model_args, config = arguments(tmp_path, model_dir, rows, *overrides)
    tokenizer, train, _ = prepare_run(given, model_args, config, SFT)
    config.assistant_only_loss = assistant_only(config, train)
    trainer = SFTTrainer(str(model_dir), args=config, train_dataset=train, processing_class=tokenizer)
    labels = trainer.train_dataset[0]["labels"]
    return tokenizer.decode([token for token in labels if token != -100])


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ([], "4</s>\n6</s>\n"),
        (["--assistant_only_loss=true"], "4</s>\n6</s>\n"),
        (
            ["--assistant_only_loss=false"],
            "<s><user> 2 + 2?\n<assistant> 4</s>\n<user> And 3 + 3?\n<assistant> 6</s>\n",
        ),
    ],
)
def test_the_loss_of_conversations(overrides: list[str], text: str, tmp_path: Path, model_dir: Path) -> None:
    assert trained_on(tmp_path, model_dir, [{"messages": MESSAGES}], *overrides) == text


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ([], "4</s>\n<user> And 3 + 3?\n<assistant> 6</s>\n"),
        (["--assistant_only_loss=true"], "4</s>\n6</s>\n"),
        (["--assistant_only_loss=true", "--completion_only_loss=false"], "4</s>\n6</s>\n"),
    ],
)
def test_the_loss_of_completions(overrides: list[str], text: str, tmp_path: Path, model_dir: Path) -> None:
    rows = [{"prompt": MESSAGES[:1], "completion": MESSAGES[1:], "messages": MESSAGES[:2]}]
    assert trained_on(tmp_path, model_dir, rows, *overrides) == text


def test_pairs_with_a_conversation_beside_them(tmp_path: Path, model_dir: Path, tokenizer: Any) -> None:
    bridged = FEEDBACK | {"prompt": MESSAGES[:1], "bridged": True, "original_chosen": MESSAGES[1:2], "id": "1"}
    bridged |= {"chosen": [{"role": "assistant", "content": "5 or 4"}], "rejected": FEEDBACK["rejected"][1:]}
    for row, said in ((FEEDBACK, "4"), (bridged, "5 or 4")):
        given, _, _ = arguments(tmp_path, model_dir, [row], kind=BMCConfig)
        (pair,) = load_rows(given, tokenizer, ("prompt", "chosen", "rejected"))[0]
        assert pair.pop("id")
        assert pair == {
            "prompt": MESSAGES[:1],
            "chosen": [{"role": "assistant", "content": said}],
            "rejected": [{"role": "assistant", "content": "5"}],
        }
    assert trained_on(tmp_path, model_dir, [FEEDBACK]) == "4</s>\n"


def test_faults_before_anything_is_written(subtests: pytest.Subtests, tmp_path: Path, model_dir: Path) -> None:
    for row, overrides, fault in [
        (
            {"messages": MESSAGES},
            [f"--chat_template={NO_END}"],
            r"chat_template: ends the assistant's turn without a special token .* stop; .* \(eos_token is '</s>'\)",
        ),
        ({"messages": MESSAGES}, ["--eos_token=<|im_end|>"], r"eos_token: '<\|im_end\|>' is no token of the tokenizer"),
        (
            {"messages": MESSAGES},
            [
                "--chat_template={% for m in messages %}{{ m.role }}{% if m.role == 'assistant' %}{% generation %}"
                "{{ m.content }}{% endgeneration %}{{ eos_token }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
            ],
            r"chat_template: its {% generation %} markers leave out the token that ends a turn",
        ),
        ({"messages": MESSAGES[:1]}, [], r"row rows-\w+: there is no message of the assistant's; remove the row"),
        (
            {"prompt": "a", "completion": "b"},
            ["--assistant_only_loss=true"],
            "assistant_only_loss: is for messages, and prompt is a string; leave it out",
        ),
    ]:
        with subtests.test(row=row):
            given, model_args, config = arguments(tmp_path, model_dir, [row], *overrides)
            with pytest.raises(UserErrors, match=f"^{fault}"):
                prepare_run(given, model_args, config, SFT)
            assert not (tmp_path / "run").exists()


def test_the_saved_model_stops_where_the_template_ends_a_turn(tmp_path: Path, model_dir: Path, tokenizer: Any) -> None:
    from transformers import AutoModelForCausalLM, GenerationConfig

    other = copy.deepcopy(tokenizer)
    other.add_tokens(["<|im_end|>"], special_tokens=True)
    other.chat_template = "{% for m in messages %}{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    _end_turns(model, other)
    model.save_pretrained(tmp_path)
    end = other.convert_tokens_to_ids("<|im_end|>")
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == [other.eos_token_id, end]
    _end_turns(model, tokenizer)
    assert model.generation_config.eos_token_id == [other.eos_token_id, end]
