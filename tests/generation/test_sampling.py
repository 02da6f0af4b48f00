"""Losing responses: the model's own, or what it makes of the beginning of y_w (DPO (CW))."""

import copy
import dataclasses
import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from reference_tokens import merging_tokenizer, trl_tokens

from bmc.config import DatasetConfig, DatasetMixture, EvaluateConfig, SampleConfig
from bmc.data.schema import assistant, user
from bmc.errors import UserErrors
from bmc.generation import generate as generation
from bmc.generation.generate import PARTIAL, generate_responses, make_pairs

ROOT = Path(__file__).parents[2]
Rows = list[dict[str, Any]]


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"text": text, "tokens": 1, "finished": True, **more}


def test_a_pair(subtests: pytest.Subtests) -> None:
    table: list[tuple[Any, ...]] = [
        ({"completion": "w"}, said(" l\n"), {"chosen": "w", "rejected": "l"}),
        ({"chosen": "w", "rejected": "old"}, said("l"), {"chosen": "w", "rejected": "l"}),
        ({"chosen": assistant("w")}, said("l"), {"chosen": assistant("w"), "rejected": assistant("l")}),
        (
            {"chosen": "ỹ_w", "original_chosen": "w", "rejected": "old", "bridged": True, "edit_ratio": 0.1},
            said("l"),
            {"chosen": "w", "rejected": "l"},
        ),
        ({"completion": " w x"}, said("\n l \n", prefix=" w"), {"chosen": " w x", "rejected": " w\n l"}),
        ({"completion": "w x"}, said("", prefix="w "), {"chosen": "w x", "rejected": "w"}),
    ]
    for row, response, pair in table:
        with subtests.test(row=row, response=response):
            expected = {"id": "1", "prompt": "x", "finished": True, **pair}
            assert make_pairs([{"id": "1", "prompt": "x", **row}], [response]) == ([expected], [])


def test_no_pair(subtests: pytest.Subtests) -> None:
    table: list[tuple[Any, ...]] = [
        (said(" \n"), "empty response"),
        (said(" w x "), "equal to y_w"),
        (said("x\n", prefix="w "), "equal to y_w"),
        (said("", reason="y_w is several messages"), "y_w is several messages"),
    ]
    for response, reason in table:
        with subtests.test(response=response, reason=reason):
            pairs, dropped = make_pairs([{"prompt": "x", "completion": "w x"}], [response])
            assert pairs == []
            assert [row["reason"] for row in dropped] == [reason]


# --- continuing ----------------------------------------------------------------------------------------------------

WORDS = ["abcdefgh", "the cat sat on the mat", "é🙂é", "12 + 30 = 42\nThe answer is 42"]
CHAT: Rows = [{"id": str(n), "prompt": user(f"q{n}"), "completion": assistant(w)} for n, w in enumerate(WORDS)]
STRINGS: Rows = [{"id": str(n), "prompt": f"q{n}: ", "chosen": w, "rejected": "r"} for n, w in enumerate(WORDS)]


def recipe(folder: Path, model: Path, rows: Rows, **more: Any) -> SampleConfig:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"mode": "continue_prefix", "dtype": "float32", "max_new_tokens": 5, "batch_size": 2, "temperature": 1.0}
    return SampleConfig(
        dataset_mixture=DatasetMixture(datasets=[DatasetConfig(id=str(folder / "rows.jsonl"))]),
        model_name_or_path=str(model), output_dir=str(folder / "out"), **{**given, **more},
    )  # fmt: skip


@pytest.mark.parametrize(("rows", "fraction"), [(CHAT, 0.5), (STRINGS, 0.25)], ids=["chat", "strings"])
def test_the_model_goes_on_where_it_was_trained_to(
    rows: Rows, fraction: float, tmp_path: Path, model_dir: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given the trainer's own tokens up to the cut, of two equally near ones the earlier."""
    seen: list[list[int]] = []
    real = generation.generate

    def generate(prompts: list[list[int]], *rest: Any) -> Any:
        seen.extend(prompts)
        return real(prompts, *rest)

    monkeypatch.setattr(generation, "generate", generate)
    read, responses, _ = generate_responses(
        recipe(tmp_path, model_dir, rows, prefix_fraction=fraction, temperature=0.0)
    )
    pairs, dropped = make_pairs(read, responses)
    assert dropped == []
    cuts = {0.5: ["abcd", "the cat sat", "é", "12 + 30 = 42\nT"], 0.25: ["ab", "the c", "é", "12 + 30"]}[fraction]
    for row, pair, beginning, ids in zip(rows, pairs, cuts, seen, strict=True):
        y_w = row.get("completion") or row["chosen"]
        trained = trl_tokens(tokenizer, {"prompt": row["prompt"], "chosen": y_w, "rejected": y_w})
        taken = len(beginning.encode())  # a token a byte
        assert ids == trained["prompt_ids"] + trained["chosen_ids"][:taken]
        loser = pair["rejected"] if isinstance(y_w, str) else pair["rejected"][0]["content"]
        assert loser.startswith(beginning)
        assert pair["chosen"] == y_w


def test_words_stay_apart_where_the_model_goes_on(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Llama 2's tokenizer, decoding a continuation alone, would drop the space before it."""

    def backend(args: Any, model_args: Any, tokenizer: Any, longest: int) -> Any:
        ids = tokenizer.convert_tokens_to_ids(["▁the", "▁cat"])
        text = tokenizer.decode(ids, skip_special_tokens=True)
        return lambda prompts, seeds, settings: ((place, said(text)) for place in range(len(prompts)))

    monkeypatch.setattr(generation, "load_backend", backend)
    merging_tokenizer().save_pretrained(tmp_path / "merging")
    rows = [{"id": "1", "prompt": "Q:", "completion": " the cat sat"}]
    config = recipe(tmp_path, model_dir, rows, tokenizer_name_or_path=str(tmp_path / "merging"))
    read, responses, _ = generate_responses(config)
    assert make_pairs(read, responses)[0][0]["rejected"] == " the the cat"


def test_a_killed_run_goes_on(tmp_path: Path, model_dir: Path) -> None:
    rows = [*CHAT, {"id": "short", "prompt": user("q"), "completion": assistant("a")}]
    config = recipe(tmp_path, model_dir, rows)
    whole = generate_responses(config)
    kept = tmp_path / "out" / PARTIAL
    lines = kept.read_text().splitlines(keepends=True)
    assert len(lines) == 4  # the short one is never asked for
    kept.write_text("".join(lines[:2]))
    assert generate_responses(dataclasses.replace(config, batch_size=3)) == whole
    assert sorted(kept.read_text().splitlines(keepends=True)) == sorted(lines)
    assert [response.get("reason") for response in whole[1]] == [None] * 4 + [
        "y_w has no tokens between which to cut it"
    ]


@pytest.mark.parametrize("mode", ["respond", "continue_prefix"])
def test_rows_without_a_winner_are_a_fault_before_anything_is_generated(
    mode: str, tmp_path: Path, model_dir: Path
) -> None:
    rows = [*CHAT, {"id": "n", "prompt": user("q")}]
    with pytest.raises(UserErrors, match=r"row 5: chosen: is missing; there are id, prompt$"):
        generate_responses(recipe(tmp_path, model_dir, rows, mode=mode))
    assert not (tmp_path / "out").exists()


def test_a_prompt_that_leaves_no_room_is_a_fault_before_anything_is_generated(tmp_path: Path, model_dir: Path) -> None:
    """The model takes 512 tokens; a prompt has 21 more than its letters."""
    beyond = "max_new_tokens: 5 more than the 511 tokens of row 2's prompt exceed the model's context of 512; 1 are"
    for size, fault in (
        (490, beyond),
        (600, "rows.jsonl: row 2: the prompt has 621 tokens, the model's context 512; shorten or remove it, or take"),
    ):
        rows = [CHAT[0], {"id": "long", "prompt": user("x" * size), "completion": assistant("a")}]
        with pytest.raises(UserErrors, match=fault):
            generate_responses(recipe(tmp_path, model_dir, rows, mode="respond", max_new_tokens=5))
        assert not (tmp_path / "out").exists()
    generate_responses(
        recipe(tmp_path, model_dir, [{**CHAT[0], "prompt": user("x" * 490)}], mode="respond", max_new_tokens=1)
    )


def test_the_script(tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    rows = [*CHAT, {"id": "short", "prompt": user("q"), "completion": assistant("a")}]
    recipe(tmp_path, model_dir, rows)
    values = {
        "model_name_or_path": str(model_dir), "dtype": "float32", "max_new_tokens": 4, "mode": "continue_prefix",
        "dataset_mixture": {"datasets": [{"id": str(tmp_path / "rows.jsonl")}]}, "output_dir": str(tmp_path / "out"),
    }  # fmt: skip
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
    for more in (["--dry_run"], []):
        monkeypatch.setattr(sys, "argv", ["sample", str(tmp_path / "r.yaml"), *more])
        runpy.run_path(str(ROOT / "scripts/sample.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert re.search(r"rejected +the first 50% of y_w's tokens, continued", printed)
    assert "sampled 4 pairs (1 dropped)" in printed
    stats = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert (stats["rows"], stats["pairs"], stats["dropped"]) == (5, 4, 1)
    assert not (tmp_path / "out" / PARTIAL).exists()


THINKS = (
    "{% if tools %}Tools:{% for tool in tools %} {{ tool.name }}{% endfor %}{{ '\n' }}{% endif %}"
    "{% for m in messages %}<{{ m.role }}> {{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}<assistant> "
    "{% if enable_thinking is defined and not enable_thinking %}(no thoughts) {% endif %}{% endif %}"
)
OPTIONS: Rows = [
    {"tools": [{"name": "add"}], "chat_template_kwargs": {"enable_thinking": False}},
    {"tools": '[{"name": "find"}]'},
    {},
    {"tools": [], "chat_template_kwargs": None},
    {"chat_template_kwargs": {"enable_thinking": True}},
]
PLAIN = "<user> q\n<assistant> "
HEADS = [f"Tools: add\n{PLAIN}(no thoughts) ", f"Tools: find\n{PLAIN}", PLAIN, PLAIN, PLAIN]


@pytest.mark.parametrize("kind", [SampleConfig, EvaluateConfig])
def test_prompts_are_rendered_as_in_training(
    kind: type, tmp_path: Path, model_dir: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the tools and the arguments of each row, beside rows that have none."""
    from types import SimpleNamespace

    from bmc.training.run import load_rows

    rows = [{"prompt": user("q"), "chosen": assistant("w"), "rejected": assistant("l"), **more} for more in OPTIONS]
    own = recipe(tmp_path, model_dir, rows, mode="respond", chat_template=THINKS)
    shared = {key: value for key, value in vars(own).items() if key in {f.name for f in dataclasses.fields(kind)}}
    seen: list[list[int]] = []

    def generate(prompts: list[list[int]], *_: Any, **__: Any) -> Rows:
        seen.extend(prompts)
        return [said("x")] * len(prompts)

    monkeypatch.setattr(generation, "generate", generate)
    read, _, _ = generate_responses(kind(**shared))
    assert [row.get("tools") for row in read] == [row.get("tools") for row in OPTIONS]
    templated = copy.deepcopy(tokenizer)
    templated.chat_template = THINKS
    arguments = SimpleNamespace(dataset_mixture=own.dataset_mixture)
    trained = load_rows(arguments, templated, ("prompt", "chosen", "rejected"))[0]
    for ids, row, head in zip(seen, trained, HEADS, strict=True):
        assert tokenizer.decode(ids) == head
        agreed = trl_tokens(templated, row)["prompt_ids"]
        assert ids[: len(agreed)] == agreed == ids[: len(head.replace("(no thoughts) ", ""))]
