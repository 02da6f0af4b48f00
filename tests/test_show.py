"""`bmc show`: where each value comes from, a recipe that stands alone, and what an editor would be sent."""

import json
import logging
from pathlib import Path

import pytest
import yaml

from bmc import show
from bmc.commands import show as command
from bmc.errors import UserErrors
from bmc.recipe import translate
from bmc.recipe_files import Loader, ablations, load_recipe

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def origins(*argv: str) -> dict[str, tuple[str, str]]:
    """Value and origin of each key that is printed."""
    parts = [line.partition("  # ") for line in show.show([*argv])]
    pairs = [(text.rstrip().partition(":"), origin) for text, _, origin in parts]
    return {key: (value.strip(), origin) for (key, _, value), origin in pairs}


def test_each_value_with_its_origin() -> None:
    found = origins("recipes/smollm2-135m/math/dpo_bmc.yaml", "--learning_rate", "2e-5")
    here = "recipes/smollm2-135m/math"
    assert found["stage"] == ("train", f"{here}/dpo_bmc.yaml")
    assert found["max_length"] == ("256", f"{here}/base.yaml")
    assert found["token_weighting"] == ("bmc", "recipes/methods/dpo_bmc.yaml")
    assert found["bmc_delta"] == ("2.5", f"{here}/dpo_bmc.yaml")
    assert found["learning_rate"] == ("2.0e-05", "command line")
    assert found["weight_source"] == ("policy", "default")
    assert found["dataset_mixture"] == (
        "{datasets: [{id: outputs/smollm2-135m/math/bridge/train.jsonl}]}",
        f"{here}/base.yaml",
    )


def test_words_of_the_command_line_are_read_by_their_types() -> None:
    argv = [
        "--loss_type", "sigmoid", "bco_pair", "--no_bf16", "recipes/smollm2-135m/math/dpo.yaml", "--eval_recipe",
        "e.yaml"
    ]  # fmt: skip
    found = origins(*argv)
    assert [found[key] for key in ("loss_type", "bf16", "eval_recipe")] == [
        ("[sigmoid, bco_pair]", "command line"), ("false", "command line"), ("e.yaml", "command line"),
    ]  # fmt: skip
    with pytest.raises(UserErrors, match="names no recipe"):
        command(["--flat"])


def test_a_mapping_of_several_files_is_shown_by_its_keys() -> None:
    found = origins("recipes/smollm2-135m/qa/dpo_cw.yaml")
    assert found["  datasets"][1] == "recipes/smollm2-135m/qa/dpo_cw.yaml"
    assert found["  test_split_size"] == ("0.15", "recipes/smollm2-135m/qa/base.yaml")


def test_what_is_shown_is_a_recipe(subtests: pytest.Subtests) -> None:
    """With comments taken off, the lines are the YAML of the recipe with all its defaults."""
    for recipe in [
        "smollm2-135m/qa/dpo_cw", "llama2-7b/qa/bridge", "judge_arena_hard", "llama2-7b/qa/ablations/dpo_mc_split_2"
    ]:  # fmt: skip
        with subtests.test(recipe=recipe):
            lines = list(show.show([f"recipes/{recipe}.yaml"]))
            values = yaml.load("\n".join(lines), Loader=Loader)
            assert values.items() >= load_recipe(Path(f"recipes/{recipe}.yaml"))[0].items()


def test_an_ablation_names_its_table() -> None:
    found = origins("recipes/llama2-7b/qa/ablations/dpo_bmc_delta_1.5.yaml")
    assert found["bmc_delta"] == ("1.5", "recipes/ablations.yaml")
    assert found["beta"] == ("0.05", "recipes/llama2-7b/qa/dpo_bmc.yaml")


def recipes() -> list[str]:
    """Every recipe that says its stage, and the ablations of one model/task."""
    found = [path for path in Path("recipes").rglob("*.yaml") if path.parent.name != "accelerate_configs"]
    names = ablations((ROOT / "recipes/ablations.yaml").resolve())
    own = [str(path) for path in sorted(found) if "stage" in load_recipe(path)[0]]
    return [*own, *(f"recipes/llama3-8b/ultrafeedback/ablations/{name}.yaml" for name in names)]


@pytest.mark.slow
def test_flat_recipes_give_the_same_run(tmp_path: Path) -> None:
    """Of all recipes: what is printed names no other file, and holds every value, whose types are the same."""
    logging.disable(logging.CRITICAL)
    flat = tmp_path / "flat.yaml"
    for recipe in recipes():
        flat.write_text(show.flat([recipe], check=False))
        alone = yaml.load(flat.read_text(), Loader=Loader)
        assert "extends" not in alone
        classes = show.classes_of(alone["stage"])
        assert translate([str(flat)], *classes).values == translate([recipe], *classes).values, recipe
        assert load_recipe(flat)[0] == load_recipe(Path(recipe))[0], recipe
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("recipe", ["llama2-7b/qa/sft", "smollm2-135m/math/dpo_bmc", "mistral-7b/ultrafeedback/eval"])
def test_a_flat_recipe_is_read_alike(recipe: str, tmp_path: Path) -> None:
    from bmc.runs import run_fingerprint

    flat = tmp_path / "flat.yaml"
    flat.write_text(show.flat([f"recipes/{recipe}.yaml"]))
    parts = [show.read([path])[2].values for path in (str(flat), f"recipes/{recipe}.yaml")]
    assert parts[0] == parts[1]
    stage, classes, _ = show.read([str(flat)])
    both = [show._check(stage, classes, [path]) for path in (str(flat), f"recipes/{recipe}.yaml")]
    both = [made if isinstance(made, tuple) else (made,) for made in both]
    assert run_fingerprint(*both[0]) == run_fingerprint(*both[1])


HANDBOOK = """
model_name_or_path: m
torch_dtype: bfloat16
dataset_mixer: {a/b: 1.0}
dataset_splits: [train_prefs]
warmup_ratio: 0.1
max_prompt_length: 512
beta: 0.01
output_dir: out
"""


def test_a_handbook_recipe_in_todays_keys(tmp_path: Path) -> None:
    path = tmp_path / "config_full.yaml"
    path.write_text(HANDBOOK)
    with pytest.raises(
        UserErrors, match=r"config_full.yaml: stage: is missing; add one of prepare, .*, or give it as --stage"
    ):
        show.read([str(path)])
    found = origins(str(path), "--stage", "train")
    assert found["warmup_steps"] == ("0.1", f"{path} (warmup_ratio)")
    assert found["dtype"] == ("bfloat16", f"{path} (torch_dtype)")
    assert found["dataset_mixture"][1] == f"{path} (dataset_mixer)"
    assert "max_prompt_length" not in found


def test_faults_are_told_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("stage: bridge\nproportion: 2\neditr: x\noutput_dir: o\ndataset_mixture: {datasets: [{id: a}]}\n")
    with pytest.raises(UserErrors) as raised:
        show.read([str(path)])
    assert [fault.what.partition(":")[0] for fault in raised.value.faults] == ["editr", "proportion"]


PAIRS = [
    {"id": f"p{n}", "prompt": f"What is {n}?", "chosen": f"It is {n}.", "rejected": f"It is {n + 1}.", "answer": str(n)}
    for n in range(3)
]


@pytest.fixture
def bridging(tmp_path: Path) -> list[str]:
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    (tmp_path / "b.yaml").write_text(
        f"stage: bridge\nmodel: some-model\noutput_dir: {tmp_path}/out\n"
        f"dataset_mixture: {{datasets: [{{id: {tmp_path}/pairs.jsonl}}]}}\n"
    )
    return [str(tmp_path / "b.yaml"), "--prompt"]


@pytest.mark.parametrize(("row", "n"), [([], None), (["--row", "1"], None), (["--row=p2"], 2)])
def test_the_prompt_of_a_row(
    row: list[str], n: int | None, bridging: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command([*bridging, *row])
    shown = capsys.readouterr().out
    head, rest = shown.split("\n", 1)
    assert head.endswith("some-model, temperature 0.0, max_tokens 2048")
    number = n if n is not None else int(head.split()[2].removesuffix(":")[1:])
    assert all(text in rest for text in (f"What is {number}?", f"It is {number}.", f"It is {number + 1}."))
    assert rest.index("--- system ---") < rest.index("--- user ---")
    assert "{" not in rest
    assert not Path(bridging[0]).with_name("out").exists()


def test_token_scores_ask_twice(bridging: list[str], model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command([*bridging, "--mode", "token_scores", "--tokenizer_name_or_path", str(model_dir)])
    assert capsys.readouterr().out.count("--- user ---") == 2


def test_faults_of_a_prompt(subtests: pytest.Subtests, bridging: list[str]) -> None:
    for words, fault in [
        (["--row", "3"], "command line: --row 3: there is no such row; give 0 to 2, or an id"),
        (["--row"], "command line: --row: give a row's number, from 0, or its id"),
        (["--editor", "rules"], "editor: rules is sent nothing; give --editor openai to see its prompt"),
    ]:
        with subtests.test(words=words):
            with pytest.raises(UserErrors) as raised:
                command([*bridging, *words])
            assert str(raised.value).endswith(fault)


def test_without_data_the_prompt_is_shown_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    command(["recipes/llama2-7b/qa/bridge.yaml", "--prompt"])
    assert "{rejected}" in capsys.readouterr().out
    with pytest.raises(UserErrors, match=r"sample/train\.jsonl"):
        command(["recipes/llama2-7b/qa/bridge.yaml", "--prompt", "--row", "0"])
    with pytest.raises(UserErrors, match="stage: is train; --prompt is for recipes of bridging"):
        command(["recipes/llama2-7b/qa/dpo.yaml", "--prompt"])


def test_the_page_of_keys_is_the_codes(capsys: pytest.CaptureFixture[str]) -> None:
    from bmc.commands import keys

    keys([])
    assert capsys.readouterr().out == Path("docs/recipes.md").read_text(), "write it anew: bmc keys > docs/recipes.md"


def test_every_key_of_ours_says_what_it_means() -> None:
    rows = [line.split(" | ") for line in Path("docs/recipes.md").read_text().splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert [row for row in rows if len(row) == 4 and len(row[3].strip(" |")) < 3] == []
