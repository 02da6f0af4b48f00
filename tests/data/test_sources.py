from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hub_rows import ALLENAI, HUB, NO, STEPS, USER, YES, closed
from hypothesis import example, given
from hypothesis import strategies as st

from bmc.config import DatasetConfig
from bmc.data.datasets import CLOSE, LEAD, boxed, generate, running_sums, sft_target
from bmc.data.loading import open_dataset
from bmc.data.registry import DATASETS, GENERATORS
from bmc.data.schema import split_prompt
from bmc.evaluation.scoring import is_correct

CLOSED = [
    name
    for name, source in DATASETS.items()
    if source.task != "chat" and source.folder is None and name not in GENERATORS
]


# Loaders


def test_importing_the_sources_imports_nothing_heavy() -> None:
    code = "import sys, bmc.data.registry; print({'datasets', 'reasoning_gym', 'torch', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.strip() == "set()"


def test_every_source_has_an_example() -> None:
    assert list(HUB) == list(DATASETS)
    assert {name: source.task for name, source in DATASETS.items()} == {n: row["task"] for n, (_, row) in HUB.items()}


@pytest.mark.parametrize("name", HUB)
def test_hub_row(name: str) -> None:
    raw, row = HUB[name]
    before = json.dumps(raw)
    assert split_prompt(DATASETS[name].to_row(raw)) == row
    assert json.dumps(raw) == before


@pytest.mark.parametrize("name", CLOSED)
def test_prepared_row(name: str) -> None:
    raw = {"problem": "What?\nOptions:\nrain\nbeads", "solution": "Beads form.\nThe answer is beads", "answer": "beads"}
    row = DATASETS[name].to_row(raw)
    assert row == closed(name, DATASETS[name].task, raw["problem"], f"{STEPS}Beads form.\nThe answer is beads", "beads")
    del raw["solution"]
    assert DATASETS[name].to_row(raw)["completion"][0]["content"] == f"{STEPS}The answer is beads"


@pytest.mark.parametrize(("target", "answer"), [(43.0, "43"), (43, "43"), (0.5, "0.5"), (" 3/4 ", "3/4"), (-2.0, "-2")])
def test_mawps_local_row(target: Any, answer: str) -> None:
    row = DATASETS["mawps"].to_row({"input": "How many?", "target": target, "type": "singleeq", "idx": 0})
    assert row == closed("mawps", "math", "How many?", f"{STEPS}The answer is {answer}", answer)


@pytest.mark.parametrize(
    ("given", "answer"), [("9 (apples)", "9"), ("7 (kilometers); 100 (meters)", "7; 100"), ("1/2", "1/2"), ("no", "no")]
)
def test_asdiv_answers_have_no_units(given: str, answer: str) -> None:
    row = DATASETS["asdiv"].to_row(
        {"body": "A.", "question": "B?", "answer": given, "solution_type": "", "formula": ""}
    )
    assert row["answer"] == answer


@pytest.mark.parametrize(("given", "answer"), [(8.0, "8"), ("10.0", "10"), ("2.5", "2.5")])
def test_svamp_answers(given: Any, answer: str) -> None:
    assert DATASETS["svamp"].to_row({"Body": "A.", "Question": "B?", "Answer": given})["answer"] == answer


def test_rows_without_what_may_be_missing() -> None:
    table = DATASETS["tabmwp"].to_row({"table": "a | b", "question": "What?", "choices": None, "answer": 7})
    assert table == closed("tabmwp", "math", "a | b\n\nWhat?", f"{STEPS}The answer is 7", "7")
    assert DATASETS["alpaca_eval"].to_row({"instruction": "Hi?"}).keys() == {"source", "task", "prompt"}
    assert "question_id" not in DATASETS["arena_hard"].to_row({"turns": [{"content": "Hi?"}]})
    facts = DATASETS["strategyqa"].to_row({"question": "Fly?", "answer": True, "facts": ["One.", "Two."]})
    assert facts["completion"][0]["content"] == f"{STEPS}One.\nTwo.\nThe answer is yes"


def test_ultrafeedback_keeps_the_turns_that_both_responses_share() -> None:
    turns = [USER, YES, {"role": "user", "content": "Sure?"}]
    raw = {"prompt": "Hi?", "chosen": [*turns, YES], "rejected": [*turns, NO]}
    row = split_prompt(DATASETS["ultrafeedback"].to_row(raw))
    assert (row["prompt"], row["chosen"], row["rejected"]) == (turns, [YES], [NO])


@pytest.mark.parametrize("name", list(HUB))
def test_row_of_unknown_shape(name: str) -> None:
    with pytest.raises((KeyError, ValueError)):
        DATASETS[name].to_row({"foo": 1, "bar": "x"})


@pytest.mark.parametrize(
    ("name", "raw", "why"),
    [
        ("gsm8k", {"question": "?", "answer": "18"}, "no '#### …'"),
        ("metamathqa", {"query": "?", "response": "18"}, "no line 'The answer is: …'"),
        ("qasc", {"question": "?", **ALLENAI, "answerKey": ""}, "is this split unlabelled"),
        ("math", {"problem": "?", "solution": "It is 2."}, r"no \\boxed"),
        ("mawps", {"input": "?", "target": ""}, "answer: is empty"),
        ("mawps", {"input": " ", "target": 1}, "question: is empty"),
        ("arena_hard", {"turns": []}, "turns: is empty"),
        ("ultrachat_200k", {"messages": "Hi?"}, "messages: must be a list of messages"),
    ],
)
def test_row_with_a_bad_value(name: str, raw: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        DATASETS[name].to_row(raw)


# Targets


@pytest.mark.parametrize(
    ("reasoning", "answer", "body"),
    [
        ("", "5", ""),
        ("2 + 3 = 5", "5", "2 + 3 = 5\n"),
        ("Let's think step by step.\n2 + 3 = 5\nThe answer is 5", "5", "2 + 3 = 5\n"),
        ("Let’s think step by step: 2 + 3 = 5.The answer is: 5", "5", "2 + 3 = 5.\n"),
        ("2 + 3 = 5\n#### 5\nThe answer is: 5", "5", "2 + 3 = 5\n"),
        ("It grows.\nThe answer is Steam.", "steam.", "It grows.\n"),
        ("So.\nThe answer is: \\begin{m} 1\\\\\n2 \\end{m}", "\\begin{m} 1\\\\\n2 \\end{m}", "So.\n"),
        ("The answer is not yet clear.\nBut 2 + 3 = 5", "5", "The answer is not yet clear.\nBut 2 + 3 = 5\n"),
    ],
)
def test_target(reasoning: str, answer: str, body: str) -> None:
    assert sft_target(reasoning, answer) == f"{STEPS}{body}The answer is {' '.join(answer.split())}"


pieces = st.lists(
    st.sampled_from([LEAD, f"{CLOSE} 7", f"{CLOSE}: 7", "#### 7", "\n", " ", "1 + 6 = 7.", f"{CLOSE} a\nb"])
    | st.text(),
    max_size=6,
).map("".join)


@given(pieces, st.text(min_size=1).filter(str.strip) | st.sampled_from(["7", "a\nb", f"{CLOSE} 7", "#### 7"]))
@example(f"{LEAD}{LEAD} x {CLOSE} 7 {CLOSE} 7", "7")
def test_target_is_never_doubled(reasoning: str, answer: str) -> None:
    target = sft_target(reasoning, answer)
    said = " ".join(answer.split())  # one line, whatever the source has
    assert target.startswith(f"{LEAD}\n")
    assert target.endswith(f"\n{CLOSE} {said}")
    body = target[len(LEAD) : -len(f"\n{CLOSE} {said}")].strip()
    assert not body.startswith(LEAD)
    last = body.split("\n")[-1]
    assert not last.startswith((CLOSE + " ", CLOSE + ":", "####"))
    assert not body.endswith(f"{CLOSE} {said}")
    assert sft_target(target, answer) == target


@pytest.mark.parametrize("task", ["qa", "math"])
@given(
    pieces,
    st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1).filter(
        lambda text: "*" not in text and text[0] != ":"
    ),
)
@example("So \\boxed{3}.", "not very much")
@example("", "then")
@example("", "St. Louis, Mo. It is.")
@example("", "\\begin{pmatrix} 1 \\\\\n 2 \\end{pmatrix}")
@example("", "\\$18")
def test_target_states_its_answer(task: str, reasoning: str, answer: str) -> None:
    """What the loaders write is what the scorer reads."""
    assert is_correct(sft_target(reasoning, answer), answer, task)


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"$\boxed{3}$ or rather $\boxed{\frac{1}{2}}$", r"\frac{1}{2}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"so $\boxed 5$.", "5"),
        (r"\fbox{ C }", "C"),
    ],
)
def test_boxed(solution: str, answer: str) -> None:
    assert boxed(solution) == answer


def test_boxed_that_never_closes() -> None:
    with pytest.raises(ValueError, match="never closed"):
        boxed(r"\boxed{\frac{1}{2}")


# The generator


@pytest.mark.parametrize(
    ("expression", "lines"),
    [
        ("60 + 93 - 16", "60 + 93 = 153\n153 - 16 = 137"),
        ("-6 + -77 - -8", "-6 + -77 = -83\n-83 - -8 = -75"),
        ("7", ""),
        ("6 * 7 + 1", ""),
        ("( 1 + 2 )", ""),
        ("1.5 + 2", ""),
    ],
)
def test_running_sums(expression: str, lines: str) -> None:
    assert running_sums(expression) == lines


@given(st.lists(st.integers(-9999, 9999), min_size=2, max_size=6), st.data())
def test_running_sums_end_in_the_sum(terms: list[int], data: st.DataObject) -> None:
    signs = data.draw(st.lists(st.sampled_from("+-"), min_size=len(terms) - 1, max_size=len(terms) - 1))
    expression = str(terms[0]) + "".join(f" {s} {t}" for s, t in zip(signs, terms[1:], strict=True))
    lines = running_sums(expression).split("\n")
    assert len(lines) == len(signs)
    assert lines[-1].split(" = ")[1] == str(eval(expression))


def test_generated_rows() -> None:
    config = {"task": "chain_sum", "seed": 7, "min_terms": 3, "max_terms": 3}
    data = DatasetConfig(source="reasoning_gym", config=config, num_rows=20)
    rows = list(open_dataset(data))
    assert len(rows) == 20
    assert rows == list(open_dataset(data))
    for row in rows:
        lines = row["completion"][0]["content"].split("\n")
        assert len(lines) == 4
        assert lines[2].endswith(f"= {row['answer']}")
    assert len(generate({"task": "chain_sum"}, None)) == 500
    assert generate({"task": "chain_sum", "size": 2}, None) == generate({"task": "chain_sum", "seed": 0}, 2)


def test_generated_solution_of_gsm_symbolic() -> None:
    config = {"task": "gsm_symbolic", "seed": 7}
    for row in open_dataset(DatasetConfig(source="reasoning_gym", config=config, num_rows=5)):
        said = row["completion"][0]["content"]
        assert said.count("\n") > 1
        assert "####" not in said
        assert said.endswith(f"\nThe answer is {row['answer']}")
