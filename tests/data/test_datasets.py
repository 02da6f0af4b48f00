import json
import subprocess
import sys
from typing import Any

import pytest
from hub_rows import ALLENAI, HUB, STEPS, closed
from hypothesis import example, given
from hypothesis import strategies as st

from bmc.config import DatasetConfig
from bmc.data.datasets import CLOSE, LEAD, boxed, generate, running_sums, sft_target
from bmc.data.loading import open_dataset
from bmc.data.registry import DATASETS, GENERATORS
from bmc.data.schema import split_prompt
from bmc.errors import UserErrors
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
    assert list(HUB) == [name for name, source in DATASETS.items() if source.kind is None]
    assert {name: DATASETS[name].task for name in HUB} == {n: row["task"] for n, (_, row) in HUB.items()}


def test_hub_rows() -> None:
    for name, (raw, row) in HUB.items():
        before = json.dumps(raw)
        assert split_prompt(DATASETS[name].to_row(raw)) == row
        assert json.dumps(raw) == before
        with pytest.raises((KeyError, ValueError)):
            DATASETS[name].to_row({"foo": 1, "bar": "x"})


def test_prepared_rows() -> None:
    raw = {"problem": "What?\nOptions:\nrain\nbeads", "solution": "Beads form.\nThe answer is beads", "answer": "beads"}
    bare = {key: raw[key] for key in ("problem", "answer")}
    for name in CLOSED:
        row = DATASETS[name].to_row(raw)
        said = f"{STEPS}Beads form.\nThe answer is beads"
        assert row == closed(name, DATASETS[name].task, raw["problem"], said, "beads")
        assert DATASETS[name].to_row(bare)["completion"][0]["content"] == f"{STEPS}The answer is beads"


def test_answers_as_text() -> None:
    mawps = {"input": "How many?", "type": "singleeq", "idx": 0}
    for target, answer in ((43.0, "43"), (43, "43"), (0.5, "0.5"), (" 3/4 ", "3/4"), (-2.0, "-2")):
        row = DATASETS["mawps"].to_row({**mawps, "target": target})
        assert row == closed("mawps", "math", "How many?", f"{STEPS}The answer is {answer}", answer)
    for text, answer in (("9 (apples)", "9"), ("7 (kilometers); 100 (meters)", "7; 100"), ("1/2", "1/2"), ("no", "no")):
        assert DATASETS["asdiv"].to_row({"body": "A.", "question": "B?", "answer": text})["answer"] == answer
    for text, answer in ((8.0, "8"), ("10.0", "10"), ("2.5", "2.5")):
        assert DATASETS["svamp"].to_row({"Body": "A.", "Question": "B?", "Answer": text})["answer"] == answer


def test_rows_without_what_may_be_missing() -> None:
    table = DATASETS["tabmwp"].to_row({"table": "a | b", "question": "What?", "choices": None, "answer": 7})
    assert table == closed("tabmwp", "math", "a | b\n\nWhat?", f"{STEPS}The answer is 7", "7")
    assert DATASETS["alpaca_eval"].to_row({"instruction": "Hi?"}).keys() == {"source", "task", "prompt"}
    assert "question_id" not in DATASETS["arena_hard"].to_row({"turns": [{"content": "Hi?"}]})
    facts = DATASETS["strategyqa"].to_row({"question": "Fly?", "answer": True, "facts": ["One.", "Two."]})
    assert facts["completion"][0]["content"] == f"{STEPS}One.\nTwo.\nThe answer is yes"


def test_row_with_a_bad_value() -> None:
    table: list[tuple[Any, ...]] = [
        ("gsm8k", {"question": "?", "answer": "18"}, "no '#### …'"),
        ("metamathqa", {"query": "?", "response": "18"}, "no line 'The answer is: …'"),
        ("qasc", {"question": "?", **ALLENAI, "answerKey": ""}, "is this split unlabelled"),
        ("math", {"problem": "?", "solution": "It is 2."}, r"no \\boxed"),
        ("mawps", {"input": "?", "target": ""}, "answer: is empty"),
        ("mawps", {"input": " ", "target": 1}, "question: is empty"),
        ("arena_hard", {"turns": []}, "turns: is empty"),
        ("ultrachat_200k", {"messages": "Hi?"}, "messages: must be a list of messages"),
    ]
    for name, raw, why in table:
        with pytest.raises(ValueError, match=why):
            DATASETS[name].to_row(raw)


# Targets


def test_target() -> None:
    table: list[tuple[Any, ...]] = [
        ("", "5", ""),
        ("2 + 3 = 5", "5", "2 + 3 = 5\n"),
        ("Let's think step by step.\n2 + 3 = 5\nThe answer is 5", "5", "2 + 3 = 5\n"),
        ("Let’s think step by step: 2 + 3 = 5.The answer is: 5", "5", "2 + 3 = 5.\n"),
        ("2 + 3 = 5\n#### 5\nThe answer is: 5", "5", "2 + 3 = 5\n"),
        ("It grows.\nThe answer is Steam.", "steam.", "It grows.\n"),
        ("So.\nThe answer is: \\begin{m} 1\\\\\n2 \\end{m}", "\\begin{m} 1\\\\\n2 \\end{m}", "So.\n"),
        ("The answer is not yet clear.\nBut 2 + 3 = 5", "5", "The answer is not yet clear.\nBut 2 + 3 = 5\n"),
    ]
    for reasoning, answer, body in table:
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


def test_boxed() -> None:
    table: list[tuple[Any, ...]] = [
        (r"$\boxed{3}$ or rather $\boxed{\frac{1}{2}}$", r"\frac{1}{2}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"so $\boxed 5$.", "5"),
        (r"\fbox{ C }", "C"),
    ]
    for solution, answer in table:
        assert boxed(solution) == answer
    with pytest.raises(ValueError, match="never closed"):
        boxed(r"\boxed{\frac{1}{2}")


# The generator


def test_running_sums() -> None:
    table: list[tuple[Any, ...]] = [
        ("60 + 93 - 16", "60 + 93 = 153\n153 - 16 = 137"), ("-6 + -77 - -8", "-6 + -77 = -83\n-83 - -8 = -75"),
        ("7", ""), ("6 * 7 + 1", ""), ("( 1 + 2 )", ""), ("1.5 + 2", "")
    ]  # fmt: skip
    assert {expression: running_sums(expression) for expression, _ in table} == dict(table)


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


def test_generator_faults() -> None:
    for config, message in (
        ({"task": "chain_sums"}, "config.task: 'chain_sums' is unknown (did you mean 'chain_sum'?)"),
        ({"task": "chain_sum", "max_term": 3}, "config.max_term: is no parameter of chain_sum (did you mean 'max_te"),
        ({"task": "chain_sum", "min_terms": 0}, "config: chain_sum refuses these parameters (min_terms must be posit"),
        (None, "config: must name the task and its parameters, as in {task: chain_sum, seed: 7}"),
        ({"seed": 7}, "config: must name the task"),
    ):
        with pytest.raises(UserErrors) as caught:
            list(open_dataset(DatasetConfig(source="reasoning_gym", config=config)))
        assert str(caught.value).startswith(f"reasoning_gym: {message}")
