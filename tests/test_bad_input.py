"""What a user who gets it wrong sees: exit status 2, one line a fault, no traceback, and nothing written."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forks
import pytest

from bmc.errors import UserErrors

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAIR = {"id": "1", "prompt": "2 + 2?", "chosen": "4", "rejected": "5", "task": "math", "answer": "4"}
TORCH = ("torch", "transformers", "trl", "datasets", "openai", "vllm")
HARNESS = """
import runpy, sys
heavy, *scripts = sys.argv[1:]
for script in scripts:
    for argument, status in (("--help", 0), ("recipe.yaml", 2)):
        sys.argv, ended = [script, argument], 0
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            ended = end.code or 0
        assert ended == status, (script, argument, ended)
        imported = [name for name in heavy.split(",") if name in sys.modules]
        assert not imported, (script, argument, imported)
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def rows(name: str, *given: dict[str, Any] | str) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in given]
    Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return name


def recipe(data: str = "{id: pairs.jsonl}", **keys: Any) -> str:
    lines = [f"dataset_mixture: {{datasets: [{data}]}}", *(f"{key}: {value}" for key, value in keys.items())]
    Path("recipe.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return "recipe.yaml"


def script(name: str, *argv: str) -> list[str]:
    """Runs a script that must refuse, and returns the lines of its stderr."""
    before = {path: path.read_bytes() for path in Path.cwd().rglob("*") if path.is_file()}
    environment = {key: value for key, value in os.environ.items() if key != "OPENAI_API_KEY"}
    done = forks.run([str(ROOT / "scripts" / name), *argv], cwd=Path.cwd(), env=environment)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert {path: path.read_bytes() for path in Path.cwd().rglob("*") if path.is_file()} == before
    assert not Path("out").is_dir() or (Path("out") / "recipe.json").exists()
    return done.stderr.splitlines()


# --- the stages without a trainer, as subprocesses -----------------------------------------------------------------


def test_each_stage_tells_all_that_is_wrong_with_its_recipe() -> None:
    path = recipe("{id: a.jsonl, wieght: 1}", output_dir="out", dtpye="auto", proportion=1.5)
    assert script("bridge.py", path, "--editor", "rule") == [
        "recipe.yaml: dtpye: unknown key; remove it",
        "recipe.yaml: dataset_mixture.datasets[0].wieght: unknown key (did you mean 'weight'?)",
        "command line: editor: must be 'openai', 'vllm', 'transformers', 'rules', 'ideal', 'sloppy' or 'person', "
        'got "rule"',
        "recipe.yaml: proportion: must be less than or equal to 1, got 1.5",
    ]
    path = recipe("{id: a.jsonl, num_rows: 0}", output_dir="out", dtpye="auto", top_p=0)
    for name in ("sample.py", "evaluate.py"):
        assert set(script(name, path)) == {
            "recipe.yaml: dtpye: unknown key (did you mean 'dtype'?)",
            "recipe.yaml: dataset_mixture.datasets[0].num_rows: must be greater than or equal to 1, got 0",
            "recipe.yaml: top_p: must be greater than 0, got 0",
            "recipe.yaml: model_name_or_path: is missing; add it to the recipe, or give --model_name_or_path",
        }
    path = recipe("{id: a.jsonl}", output_dir="out", validation_fraction="a lot")
    assert script("prepare.py", path) == ['recipe.yaml: validation_fraction: must be a number, got "a lot"']


def test_missing_file_split_and_column_and_a_row_that_is_no_json() -> None:
    rows("pairs.jsonl", PAIR)
    rows("broken.jsonl", PAIR, '{"prompt": ')
    Path("folder").mkdir()
    rows("folder/train.jsonl", PAIR)
    parts = [
        "{id: pears.jsonl}",
        "{id: folder, split: test}",
        "{id: pairs.jsonl, columns: [prompt, choosen]}",
        "{id: broken.jsonl}",
    ]
    assert script("bridge.py", recipe(", ".join(parts), output_dir="out", editor="rules")) == [
        f"pears.jsonl: no such file (did you mean 'pairs.jsonl'?); paths are relative to {Path.cwd()}",
        "folder: has no split 'test'; there are train",
        "pairs.jsonl: has no column 'choosen' (did you mean 'chosen'?); "
        "there are prompt, chosen, rejected, task, answer, id",
        "broken.jsonl: row 2: is not JSON (Expecting value at column 12); write one object a line",
    ]


def test_empty_and_equal_texts() -> None:
    rows("pairs.jsonl", PAIR, PAIR | {"prompt": " "}, PAIR | {"rejected": ""}, PAIR | {"chosen": "5"})
    assert script("bridge.py", recipe(output_dir="out", editor="rules")) == [
        "pairs.jsonl: row 2: prompt: is empty; write it or remove the row",
        "pairs.jsonl: row 3: rejected: is empty; write it or remove the row",
        "pairs.jsonl: row 4: rejected: equals chosen, so there is no preference; remove the row",
    ]


def test_no_api_key() -> None:
    rows("pairs.jsonl", PAIR)
    (fault,) = script("bridge.py", recipe(output_dir="out", api_key_env="MY_KEY"))
    assert fault.startswith("environment variable MY_KEY: is not set; export the endpoint's key")


def test_a_folder_that_holds_a_run_of_another_recipe() -> None:
    rows("pairs.jsonl", PAIR)
    Path("out").mkdir()
    Path("out/recipe.json").write_text("{}")
    Path("out/train.jsonl").write_text("")
    (fault,) = script("prepare.py", recipe(output_dir="out"))
    assert fault == (
        "out: holds a run of another recipe (it differs in dataset_mixture); "
        "choose another output_dir or remove the folder"
    )


def test_a_folder_without_runs() -> None:
    assert script("report.py", "none") == ["none: no such folder; give the one that the runs were written to"]
    Path("empty").mkdir()
    assert script("report.py", "empty") == [
        "empty: holds no run; train one by scripts/preference.py, evaluate it by scripts/evaluate.py"
    ]
    assert not list(Path("empty").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sample.py", "evaluate.py"])
def test_a_model_folder_that_does_not_exist(name: str) -> None:
    rows("pairs.jsonl", PAIR)
    (fault,) = script(name, recipe(output_dir="out", model_name_or_path="./models/none"))
    assert fault == (
        "recipe.yaml: model_name_or_path: './models/none' is no model that can be loaded (there is no such "
        f"folder; paths are relative to {Path.cwd()}); give a Hub id or the folder of a saved model"
    )


def test_help_and_recipe_errors_do_not_import_torch() -> None:
    recipe(outptu_dir="x")
    scripts = [
        str(ROOT / f"scripts/{name}.py") for name in ("prepare", "sample", "bridge", "evaluate", "report", "analyze")
    ]
    command = [sys.executable, "-c", HARNESS, ",".join(TORCH), *scripts]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- the training stages: most of it in this process, since importing TRL takes seconds -------------------------------


def start(path: str, *argv: str) -> tuple[Any, Any]:
    from bmc.training import run as training
    from bmc.training.config import BMCConfig, PreferenceArguments

    argv = (path, "--use_cpu", "--bf16", "false", *argv)
    arguments, model_args, config = training.parse_training([*argv], PreferenceArguments, BMCConfig, "")
    training.prepare_run(arguments, model_args, config, ("prompt", "chosen", "rejected"), arguments.chosen_column)
    return config, training.trainer_arguments(model_args, config)


def told(path: str, *argv: str) -> list[str]:
    with pytest.raises(UserErrors) as caught:
        start(path, *argv)
    assert not Path("out").exists()
    return str(caught.value).splitlines()


def test_good_input_claims_the_folder_once_all_is_checked(model_dir: Path) -> None:
    rows("pairs.jsonl", PAIR)
    path = recipe(output_dir="out", model_name_or_path=model_dir)
    _, arguments = start(path)
    assert arguments["model"] == str(model_dir)
    assert {file.name for file in Path("out").iterdir()} == {"recipe.json", "provenance.json"}
    assert json.loads(Path("out/recipe.json").read_text())["model_name_or_path"] == str(model_dir)
    start(path, "--logging_steps", "7", "--save_strategy", "'no'")  # decide no result
    start(path, "--beta", "0.2")  # a folder without results is anybody's
    assert json.loads(Path("out/recipe.json").read_text())["beta"] == 0.2
    assert "resumed" not in json.loads(Path("out/provenance.json").read_text())
    start(path)
    Path("out/metrics.json").write_text("{}")
    with pytest.raises(UserErrors, match=r"^out: holds a run of another recipe \(it differs in beta\); choose another"):
        start(path, "--beta", "0.3")
    assert {file.name for file in Path("out").iterdir()} == {"recipe.json", "provenance.json", "metrics.json"}
    manifest = json.loads(Path("out/recipe.json").read_text())
    assert manifest["dataset_mixture"]["datasets"][0]["id"] == "pairs.jsonl"


def test_training_data_that_cannot_be_used(model_dir: Path) -> None:
    path = recipe(output_dir="out", model_name_or_path=model_dir)
    (fault,) = told(path)
    assert fault.startswith("pairs.jsonl: no such file")
    rows("pairs.jsonl", PAIR | {"prompt": ""}, PAIR | {"rejected": "4"})
    assert told(path) == [
        "pairs.jsonl: row 1: prompt: is empty; write it or remove the row",
        "pairs.jsonl: row 2: rejected: equals chosen, so there is no preference; remove the row",
    ]
    rows("pairs.jsonl", PAIR)
    assert told(path, "--chosen_column", "original_chosen") == [
        "chosen_column: 'original_chosen' is no column of pairs.jsonl; only bridged data has it"
    ]
    rows("pairs.jsonl", {"prompt": "q", "completion": "a"})
    assert told(path) == [
        "pairs.jsonl: has no column chosen and no rejected; there are prompt, completion, id; write in "
        "dataset_mixture.datasets what they are called: columns: {prompt: prompt, chosen: …, rejected: …}; for … write "
        "one of completion"
    ]


PEFT = ("--use_peft", "--lora_target_modules")


def test_what_a_run_would_stumble_over_is_told_before_it_and_by_a_dry_run(
    subtests: pytest.Subtests, model_dir: Path
) -> None:
    table: list[tuple[Any, ...]] = [
        (["--attn_implementation", "flash_attention_2"], "attn_implementation: flash_attention_2 isn't installed; "),
        (["--attn_implementation", "sdpaa"], "attn_implementation: 'sdpaa' is unknown (did you mean 'sdpa'?); choose"),
        ([*PEFT, "q_prj"], "lora_target_modules: 'q_prj' is in no layer of the model (did you mean 'q_proj'?); there"),
        ([*PEFT, "q_proj", "v"], "lora_target_modules: 'v' is in no layer of the model; there are q_proj, k_proj, "),
        ([*PEFT, ".*[xyz]_proj"], "lora_target_modules: PEFT refuses .*[xyz]_proj (Target modules .*[xyz]_proj not"),
        ([*PEFT, "self_attn"], "lora_target_modules: PEFT refuses ['self_attn'] (Target module LlamaAttention"),
        (["--use_peft", "--lora_modules_to_save", "score"], "lora_modules_to_save: 'score' is in no layer of the"),
        (["--lr_scheduler_type", "warmup_stable_decay"], "lr_scheduler_kwargs: don't suit warmup_stable_decay: "),
        (["--lr_scheduler_kwargs", "{cycles: 2}"], "lr_scheduler_kwargs: don't suit linear: "),
        (["--optim", "galore_adamw"], "optim: galore_adamw can't be used here (You need to install `galore_torch`"),
        (["--gradient_checkpointing_kwargs", "{reentrant: false}"], "gradient_checkpointing_kwargs: 'reentrant' is"),
        (["--model_init_kwargs", "{devise_map: auto}"], "model_init_kwargs: 'devise_map' is nothing that from_pre"),
        (["--accelerator_config", "{dispatch_batches: true}"], "accelerator_config: dispatch_batches: a batch of"),
        (["--router_aux_loss_coef", "0.1"], "router_aux_loss_coef: LlamaForCausalLM isn't a mixture of experts; "),
        (["--use_liger_kernel"], "use_liger_kernel: liger-kernel isn't installed; pip install liger-kernel, or"),
        (["--activation_offloading"], "activation_offloading: needs a GPU, and there is none; leave it out"),
        (
            ["--push_to_hub"],
            "push_to_hub: the Hub can't be written to from here; `hf auth login`, or write push_to_hub",
        ),
        (["--report_to", "wandb"], "report_to: wandb can't be used here"),
    ]
    for argv, fault in table:
        with subtests.test(argv=argv, fault=fault):
            from bmc.training import run as training
            from bmc.training.config import BMCConfig, PreferenceArguments

            rows("pairs.jsonl", PAIR)
            path = recipe(output_dir="out", model_name_or_path=model_dir, loss_type="sigmoid")
            (found,) = told(path, *argv)
            assert found.startswith(fault)
            parsed = training.parse_training(
                [path, "--use_cpu", "--dry_run", *argv], PreferenceArguments, BMCConfig, ""
            )
            with pytest.raises(UserErrors) as caught:
                training.check_run(*parsed, ("prompt", "chosen", "rejected"))
            assert str(caught.value) == found


def test_attention_of_a_generating_stage(subtests: pytest.Subtests, model_dir: Path) -> None:
    table: list[tuple[Any, ...]] = [
        ("flash_attention_2", "flash_attention_2 isn't installed"),
        ("spda", "'spda' is unknown (did you mean 'sdpa'?)"),
    ]
    for attention, fault in table:
        with subtests.test(attention=attention, fault=fault):
            from bmc.config import EvaluateConfig
            from bmc.generation.generate import generate_responses
            from bmc.recipe import parse

            rows("pairs.jsonl", PAIR)
            path = recipe(output_dir="out", model_name_or_path=model_dir, attn_implementation=attention)
            with pytest.raises(UserErrors, match=re.escape(f"attn_implementation: {fault}")):
                generate_responses(parse([path], EvaluateConfig)[0])
            assert not Path("out").exists()


def test_the_head_has_no_adapter(tmp_path: Path, model_dir: Path) -> None:
    from transformers import AutoConfig

    rows("pairs.jsonl", PAIR)
    path = recipe(output_dir="out", model_name_or_path=model_dir, loss_type="sigmoid")
    assert AutoConfig.from_pretrained(model_dir).tie_word_embeddings is False
    (found,) = told(path, *PEFT, "q_proj", "lm_head")
    assert found.startswith(
        "lora_target_modules: lm_head can't have an adapter, since log-probs come from its weight; "
    )


def test_a_dry_run_for_another_machine_tells_what_is_missing_here(model_dir: Path) -> None:
    from bmc.training import run as training
    from bmc.training.config import BMCConfig, PreferenceArguments

    argv = ["--dry_run", "--attn_implementation", "flash_attention_2", "--push_to_hub"]
    path = recipe(output_dir="out", model_name_or_path=model_dir, loss_type="sigmoid")
    parsed = training.parse_training([path, *argv], PreferenceArguments, BMCConfig, "")
    facts = training.check_run(*parsed, ("prompt", "chosen", "rejected"))
    assert str(facts["not on this machine"]).startswith("attn_implementation: flash_attention_2 isn't installed; ")


def test_an_engine_without_a_launcher(subtests: pytest.Subtests, model_dir: Path) -> None:
    for key in ["deepspeed", "fsdp"]:
        with subtests.test(key=key):
            from bmc.preflight import launch_faults

            (fault,) = launch_faults(SimpleNamespace(**{"deepspeed": None, "fsdp": "", key: "x"}))
            assert str(fault).startswith(f"{key}: needs processes that a launcher starts: accelerate launch ")


def test_a_dry_run_sees_the_folder_the_rows_and_the_names(model_dir: Path) -> None:
    from bmc.planning.describe import describe_data
    from bmc.training import run as training
    from bmc.training.config import BMCConfig, PreferenceArguments

    def check_run(path: str, *argv: str) -> str:
        parsed = training.parse_training([path, "--dry_run", *argv], PreferenceArguments, BMCConfig, "")
        try:
            training.check_run(*parsed, ("prompt", "chosen", "rejected"))
            return describe_data(parsed[0].dataset_mixture.datasets)
        except UserErrors as faults:
            return str(faults)

    rows("pairs.jsonl", PAIR | {"rejected": "4"})
    path = recipe(output_dir="out", model_name_or_path=model_dir, loss_type="sigmoid")
    assert check_run(path) == "pairs.jsonl: row 1: rejected: equals chosen, so there is no preference; remove the row"
    rows("pairs.jsonl", PAIR)
    assert check_run(path, "--dataset_mixture.datasets.0.id", "paris.jsonl").startswith(
        "paris.jsonl: no such file (did"
    )
    Path("models").mkdir()
    Path("models/smollm2").symlink_to(model_dir)
    assert check_run(path, "--model_name_or_path", "models/smollm") == (
        "model_name_or_path: there is no folder models/smollm (did you mean 'models/smollm2'?); for a model of the Hub "
        "first write: hf download models/smollm --local-dir models/smollm"
    )
    assert told(path, "--model_name_or_path", "models/smollm")[0].startswith("model_name_or_path: there is no folder ")
    Path("held").mkdir()
    Path("held/recipe.json").write_text('{"beta": 0.3}')
    Path("held/metrics.json").write_text("{}")
    assert check_run(path, "--output_dir", "held").startswith("held: holds a run of another recipe (it differs in ")


def test_evaluation_data_are_looked_at_too(model_dir: Path) -> None:
    rows("pairs.jsonl", PAIR)
    rows("test.jsonl", PAIR | {"chosen": ""})
    path = recipe(output_dir="out", model_name_or_path=model_dir)
    assert told(path, "--dataset_mixture.test_datasets", "[{id: test.jsonl}]") == [
        "test.jsonl: row 1: chosen: is empty; write it or remove the row"
    ]


def test_original_chosen_may_stand_alone(model_dir: Path) -> None:
    rows("pairs.jsonl", {"prompt": "q", "original_chosen": "a", "rejected": "b"})
    start(recipe(output_dir="out", model_name_or_path=model_dir, chosen_column="original_chosen"))


def test_a_checkpoint_that_is_not_there_or_of_another_recipe(model_dir: Path) -> None:
    from bmc.training.fault_tolerance import write_manifest

    rows("pairs.jsonl", PAIR)
    path = recipe(output_dir="out", model_name_or_path=model_dir)
    assert told(path, "--resume_from_checkpoint", "none") == [
        "resume_from_checkpoint: none is no folder; leave it out to start from the newest checkpoint"
    ]
    start(path, "--output_dir", "other", "--beta", "0.3")
    Path("other/checkpoint-3").mkdir()
    write_manifest(Path("other/checkpoint-3"), json.loads(Path("other/recipe.json").read_text()))
    assert told(path, "--resume_from_checkpoint", "other/checkpoint-3") == [
        "other/checkpoint-3: is a checkpoint of another recipe (it differs in beta); to go on from its weights alone, "
        "give it as model_name_or_path"
    ]


def test_a_template_that_refuses_the_messages(model_dir: Path) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "user", "content": "r"}]
    answers = {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    rows("pairs.jsonl", {"prompt": turns} | answers)
    template = ROOT / "recipes/chat_templates/instruction.jinja"
    assert told(recipe(output_dir="out", model_name_or_path=model_dir, chat_template=template)) == [
        "pairs.jsonl: row 1: the chat template refuses its messages (roles user, user, assistant): "
        "this template takes one user message and at most one assistant message"
    ]
    assert told(recipe(output_dir="out", model_name_or_path=model_dir, chat_template="none.jinja")) == [
        "chat_template: none.jinja cannot be read: No such file or directory"
    ]


def test_models_that_cannot_be_loaded(model_dir: Path) -> None:
    rows("pairs.jsonl", PAIR)
    (fault,) = told(recipe(output_dir="out", model_name_or_path="a/b/c"))
    assert fault.startswith(
        "model_name_or_path: 'a/b/c' is no model that can be loaded (there is no such folder; paths"
    )
    (fault,) = told(recipe(output_dir="out", model_name_or_path="a/b/c", tokenizer_name_or_path=model_dir))
    assert fault.startswith(
        "model_name_or_path: 'a/b/c' is no model that can be loaded (there is no such folder; paths"
    )
    Path("bare").mkdir()
    (fault,) = told(recipe(output_dir="out", model_name_or_path="bare"))
    assert fault.startswith("model_name_or_path: 'bare' is no model that can be loaded (")
    (Path("bare") / "config.json").write_bytes((model_dir / "config.json").read_bytes())
    (fault,) = told(recipe(output_dir="out", model_name_or_path="bare"))
    assert fault.startswith("tokenizer: 'bare' has none that can be loaded (")
    (Path("bare") / "tokenizer.json").write_text("{")
    (fault,) = told(recipe(output_dir="out", model_name_or_path="bare"))
    assert fault.startswith("tokenizer: 'bare' has none that can be loaded (")


@pytest.mark.slow
def test_preference_script_tells_all_that_is_wrong_with_its_recipe() -> None:
    path = recipe("{id: pairs.jsonl, weight: 2}", output_dir="out", loss_type="sigmoid", bmc_delta=-1, beta=0, bata=1)
    faults = script("preference.py", path, "--bf16", "false", "--use_cpu")
    assert {fault for fault in faults if fault.startswith("recipe.yaml")} == {
        "recipe.yaml: bata: unknown key (did you mean 'beta'?)",
        "recipe.yaml: dataset_mixture.datasets[0].weight: must be less than or equal to 1, got 2",
        "recipe.yaml: model_name_or_path: is missing; name a model of the Hub or a folder",
        "recipe.yaml: beta: must be greater than 0, got 0",
        "recipe.yaml: bmc_delta: must be greater than or equal to 0, got -1",
    }


@pytest.mark.slow
def test_preference_script_looks_at_the_data_before_it_writes(model_dir: Path) -> None:
    rows("pairs.jsonl", PAIR | {"rejected": "4"})
    path = recipe(output_dir="out", model_name_or_path=model_dir, bf16="false", use_cpu="true")
    assert script("preference.py", path)[-1] == (
        "pairs.jsonl: row 1: rejected: equals chosen, so there is no preference; remove the row"
    )


@pytest.mark.slow
def test_sft_script_looks_at_the_data_before_it_writes(model_dir: Path) -> None:
    rows("pairs.jsonl", {"prompt": "q", "completion": ""})
    path = recipe(output_dir="out", model_name_or_path=model_dir, bf16="false", use_cpu="true")
    assert script("sft.py", path)[-1] == "pairs.jsonl: row 1: completion: is empty; write it or remove the row"
