"""What a script written for `trl.DPOTrainer` gives it, and what it gets: the same from BMCTrainer, or one line."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import trl
from datasets import Dataset, IterableDataset
from peft import LoraConfig, get_peft_model
from tiny_pairs import PAIRS, perturb, settings
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3MoeConfig, Qwen3MoeForCausalLM, TrainerCallback
from trl.trainer.dpo_trainer import DataCollatorForPreference, DataCollatorForVisionPreference

import bmc
from bmc.errors import UserErrors
from bmc.recipe import parse
from bmc.training.config import SFTConfig

ROWS, HELD = Dataset.from_list(PAIRS), Dataset.from_list(PAIRS[:3])
BARE = Dataset.from_list([{"prompt": "", "chosen": f"It is {i}.", "rejected": f"No: {3 * i}"} for i in range(8)])
CLOCK = ("runtime", "per_second", "flos")


def metrics_of_logits(found: Any) -> dict[str, float]:
    real = found.label_ids != -100
    return {
        "rows": found.predictions.shape[0],
        "vocabulary": found.predictions.shape[2],
        "mean": float(found.predictions[real].mean()),
        "ids": float(found.label_ids[real].sum()),
    }


class Steps(TrainerCallback):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.seen.append(state.global_step)


def adapter() -> Any:
    return LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights="gaussian")


def adapted(folder: Any) -> Any:
    """A model with an adapter that is no longer zero: the reference is a copy of it."""
    torch.manual_seed(5)
    return get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(r=4, init_lora_weights=False))


def experts() -> Any:
    """A mixture of experts, whose router's loss is logged beside the others."""
    torch.manual_seed(6)
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=259, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2,
            router_aux_loss_coef=0.1,
        )
    )  # fmt: skip


def streamed() -> Any:
    return IterableDataset.from_generator(lambda: iter(PAIRS))


def trained(trainer: Any, config: Any, arguments: dict[str, Any], folder: Any, **options: Any) -> dict[str, Any]:
    """What three steps log, without the clock, and the trainer."""
    options = {"max_steps": 3, "precompute_ref_log_probs": False, **options}
    values = {key: value for key, value in settings(folder, **options).items() if value is not None}
    made = trainer(args=config(**values), **arguments)
    made.train()
    lines = [(line["step"], key, value) for line in made.state.log_history for key, value in line.items()]
    logged = {(step, key): value for step, key, value in lines if not key.endswith(CLOCK)}
    return {"trainer": made, **logged}


EVALUATED = {"eval_strategy": "steps", "eval_steps": 2}
SCRIPTS: dict[str, tuple[dict[str, Any], Callable[[Any], dict[str, Any]]]] = {
    "name": ({}, lambda model: {"model": str(model)}),
    "precomputed": ({"precompute_ref_log_probs": True}, lambda model: {"model": str(model)}),
    "no prompt": ({"precompute_ref_log_probs": True}, lambda model: {"model": str(model), "train_dataset": BARE}),
    "object, pad_token": (
        {"pad_token": "</s>"},
        lambda model: {
            "model": AutoModelForCausalLM.from_pretrained(model),
            "processing_class": AutoTokenizer.from_pretrained(model),
        },
    ),
    "ref_model, data_collator": (
        {},
        lambda model: {
            "model": str(model),
            "ref_model": perturb(AutoModelForCausalLM.from_pretrained(model), 0.05, seed=1),
            "data_collator": DataCollatorForPreference(0, max_length=40),
        },
    ),
    "peft_config": ({}, lambda model: {"model": str(model), "peft_config": adapter()}),
    "PeftModel": ({}, lambda model: {"model": adapted(model)}),
    "PeftModel, precomputed": ({"precompute_ref_log_probs": True}, lambda model: {"model": adapted(model)}),
    "mixture of experts": (
        EVALUATED,
        lambda model: {
            "model": experts(),
            "ref_model": experts(),
            "processing_class": AutoTokenizer.from_pretrained(model),
            "eval_dataset": HELD,
        },
    ),
    "streamed": (
        EVALUATED, lambda model: {"model": str(model), "train_dataset": streamed(), "eval_dataset": streamed()}
    ),
    "several evaluations, model_init_kwargs": (
        {**EVALUATED, "model_init_kwargs": {"attn_implementation": "eager", "dtype": "float32"}},
        lambda model: {"model": str(model), "eval_dataset": {"a": HELD, "b": ROWS}},
    ),
    "compute_metrics": (
        EVALUATED, lambda model: {"model": str(model), "eval_dataset": HELD, "compute_metrics": metrics_of_logits}
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_for_trl_logs_what_trl_logs(script, model_dir, tmp_path):
    """With `DPOConfig` left as it is, and with `BMCConfig`."""
    options, arguments = SCRIPTS[script]
    given = lambda: {"train_dataset": ROWS, **arguments(model_dir)}  # noqa: E731 - models are trained in place
    theirs = trained(trl.DPOTrainer, trl.DPOConfig, given(), tmp_path, **options)
    for config in (trl.DPOConfig, bmc.BMCConfig) if script == "name" else (trl.DPOConfig,):
        ours = trained(bmc.BMCTrainer, config, given(), tmp_path, **options)
        assert isinstance(ours["trainer"].args, bmc.BMCConfig)
        # at step 1 the policy is the reference, and rounding decides which reward is larger
        for key in theirs.keys() - {"trainer", (1, "rewards/accuracies")}:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-4, abs=2e-5), key


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"precompute_ref_log_probs": True}], ids=["", "precomputed"])
def test_predictions_are_those_of_trl(options, model_dir, tmp_path):
    """Four pairs in a batch: logits (8, S, V), the chosen before the rejected ones, with the token ids beside them."""
    arguments = {"model": str(model_dir), "train_dataset": ROWS, "eval_dataset": Dataset.from_list(PAIRS[:4])}
    found = []
    for trainer, config in ((trl.DPOTrainer, trl.DPOConfig), (bmc.BMCTrainer, bmc.BMCConfig)):
        made = trained(trainer, config, arguments, tmp_path, per_device_eval_batch_size=4, **options)["trainer"]
        found.append(made.predict(made.eval_dataset))
    theirs, ours = found
    assert ours.predictions.shape == theirs.predictions.shape == (8, *theirs.label_ids.shape[1:], 259)
    assert (ours.label_ids == theirs.label_ids).all()
    assert ours.predictions == pytest.approx(theirs.predictions, abs=1e-4)
    for key in theirs.metrics:
        if not key.endswith(CLOCK):
            assert ours.metrics[key] == pytest.approx(theirs.metrics[key], abs=1e-4), key
    assert made.data_collator.packing  # for what comes after


@pytest.mark.slow
@pytest.mark.parametrize("peft", [False, True])
def test_rows_that_come_after_training_are_evaluated_against_the_reference(peft, model_dir, tmp_path):
    """Even where the reference ran beforehand and isn't in memory, which TRL refuses."""
    arguments = {"model": str(model_dir), "train_dataset": ROWS, "eval_dataset": HELD}
    arguments |= {"peft_config": adapter()} if peft else {}
    theirs = trained(trl.DPOTrainer, trl.DPOConfig, arguments, tmp_path)["trainer"]
    arguments |= {} if peft else {"model": AutoModelForCausalLM.from_pretrained(model_dir)}
    ours = trained(bmc.BMCTrainer, bmc.BMCConfig, arguments, tmp_path, precompute_ref_log_probs=True)["trainer"]
    for rows in ((Dataset.from_list(PAIRS[2:7]),) * 2, (theirs.eval_dataset, ours.eval_dataset)):
        expected, found = theirs.evaluate(rows[0]), ours.evaluate(rows[1])
        for key in ("eval_loss", "eval_rewards/margins", "eval_logps/chosen"):
            # a margin is β times a difference of sums near −200, whose last float32 digit is 1.5e-5
            assert found[key] == pytest.approx(expected[key], rel=1e-4, abs=5e-6), key
    assert ours.ref_model is None


@pytest.mark.parametrize("beforehand", [False, True])
def test_the_reference_of_a_model_in_memory_is_that_model(beforehand, model_dir, tmp_path):
    """Not what its folder holds, as in TRL where the reference doesn't run beforehand: −log σ(0) = log 2."""
    model = perturb(AutoModelForCausalLM.from_pretrained(model_dir), 0.05, seed=1)
    arguments = {"model": model, "train_dataset": ROWS}
    ours = trained(bmc.BMCTrainer, bmc.BMCConfig, arguments, tmp_path, max_steps=1, precompute_ref_log_probs=beforehand)
    assert ours[1, "loss"] == pytest.approx(0.693147, abs=1e-6)
    if beforehand:  # it is gone, and what its folder holds is no substitute
        with pytest.raises(UserErrors, match="holds other weights than training began with"):
            ours["trainer"].evaluate(Dataset.from_list(PAIRS[2:7]))


@pytest.mark.parametrize(
    ("options", "peft"), [({"neftune_noise_alpha": 5.0}, False), ({"disable_dropout": False}, True)]
)
def test_noise_is_of_one_sequence(options, peft, model_dir, tmp_path):
    """NEFTune's has the scale α/√(length of the row · width), and dropout differs between chosen and rejected."""
    config = LoraConfig(target_modules=["q_proj"], lora_dropout=0.1) if peft else None
    made = bmc.BMCTrainer(
        str(model_dir), args=bmc.BMCConfig(**settings(tmp_path, **options)), train_dataset=ROWS, peft_config=config
    )
    assert not made.data_collator.prefix_sharing
    assert not made.data_collator.packing


@pytest.mark.parametrize("stream", [False, True])
def test_columns_of_our_names_are_not_read(stream, model_dir, tmp_path):
    """Another precomputed reference, or weights of pairs."""
    others = {"ref_chosen_logps": -1.0, "ref_rejected_logps": -2.0, "chosen_weights": 0.5, "rejected_weights": "low"}
    found = [{**row, **others, "chosen_diff": 3} for row in PAIRS]
    rows = IterableDataset.from_generator(lambda: iter(found)) if stream else Dataset.from_list(found)
    steps = Steps()
    arguments = {"model": str(model_dir), "train_dataset": rows, "callbacks": [steps]}
    first = trained(bmc.BMCTrainer, trl.DPOConfig, arguments, tmp_path, max_steps=1)
    assert first[1, "loss"] == pytest.approx(0.693147, abs=1e-6)
    assert steps.seen == [1]  # callbacks are called


def test_what_is_not_trls_is_refused_in_one_line(subtests: pytest.Subtests, model_dir, tmp_path) -> None:
    for options, arguments, message in [
        ({"f_divergence_type": "js_divergence"}, {}, "f_divergence_type: BMCTrainer doesn't have it"),
        ({"truncation_mode": "keep_end"}, {}, "truncation_mode: BMCTrainer doesn't have it"),
        ({"pad_token": "<none>"}, {}, "pad_token: '<none>' isn't in the tokenizer's vocabulary"),
        (
            {},
            {"data_collator": DataCollatorForPreference(0, truncation_mode="keep_end")},
            "truncation_mode: keep_end isn't supported; set keep_start",
        ),
        (
            {},
            {"data_collator": DataCollatorForVisionPreference(None)},
            "data_collator: DataCollatorForVisionPreference doesn't make what token weights need",
        ),
        (
            {"accelerator_config": {"dispatch_batches": True}},
            {},
            "accelerator_config.dispatch_batches: packed sequences can't be split",
        ),
    ]:
        with subtests.test(options=options):
            given = {"model": str(model_dir), "train_dataset": ROWS, **arguments}
            with pytest.raises((UserErrors, ValueError)) as caught:
                trained(bmc.BMCTrainer, trl.DPOConfig, given, tmp_path, **options)
            assert str(caught.value).startswith(message)
            assert "\n" not in str(caught.value)


def test_trls_parser_reads_our_keys(tmp_path):
    """As in TRL's own script: `TrlParser((ScriptArguments, DPOConfig, ModelConfig))`."""
    given = (
        "--loss_type sigmoid sft --token_weighting bmc --bmc_delta 2.5 --prefix_sharing false --use_cpu --bf16 false"
    )
    parser = trl.TrlParser((trl.ScriptArguments, bmc.BMCConfig, trl.ModelConfig))
    _, args, _ = parser.parse_args_and_config([*given.split(), "--output_dir", str(tmp_path)])
    assert (args.loss_type, args.token_weighting, args.bmc_delta) == (["sigmoid", "sft"], "bmc", 2.5)
    assert (args.prefix_sharing, args.packing, args.resume_from_checkpoint) == (False, None, None)


@pytest.mark.parametrize("stage", [bmc.BMCConfig, SFTConfig])
def test_a_recipe_says_true_or_false_of_a_checkpoint(stage, tmp_path):
    """Which TRL's parser has no word for."""
    for given in ("true", "false"):
        path = tmp_path / "recipe.yaml"
        path.write_text(f"stage: {stage.STAGE}\noutput_dir: out\nuse_cpu: true\nresume_from_checkpoint: {given}\n")
        config = parse([str(path)], stage)[0]
        assert config.resume_from_checkpoint is (given == "true")
