"""Values worked out by hand from the released scripts, or returned by them."""

from pathlib import Path

import jinja2
import pytest

from bmc.evaluation.scoring import correct_released

QA = [
    ("So.\nThe answer is River", "river", True),
    ("The answer is bank. The answer is river \n", "river", True),
    ("The answer is river.", "river", False),
    ("The answer is: river", "river", False),
    ("the answer is river", "river", False),
    ("river", "river", False),
    ("The answer is river\nBye", "river", False),
    ("The answer is Humidity", "Humidity", False),
    ("", "", False),
    # generation ends at a stop string
    ("The answer is river\n\n### Instruction:\nWho?", "river", False),
    ("The answer is river\n\nQuestion: Who? The answer is me", "river", True),
    ("The answer is river\nBelow is an instruction. The answer is bank", "river", True),
    ("Question the banks. The answer is river", "river", False),
    ("The answer is immune Response", "immune", True),
    ("The answer is river USER: and then?", "river", True),
]


def test_qa() -> None:
    assert [row for row in QA if correct_released(row[0], row[1], "qa") is not row[2]] == []


MATH = [
    ("The answer is 18", "18", True),
    ("The answer is: 18.", "18", True),
    ("9 * 2 = 18 eggs", "18", True),  # the last number
    ("It is \\boxed{18}. The answer is 17", "18", True),  # a box comes first
    ("The answer is $1,800$", "1800", True),
    ("The answer is 18 dollars", "18", False),
    ("The answer is eighteen", "18", True),
    ("The answer is 0.18", "18", True),  # a hundredth
    ("The answer is 1800", "18", True),  # a hundred times
    ("The answer is 18.001", "18", True),  # 0.0056 % off
    ("The answer is 18.01", "18", False),
    ("The answer is 17", "18", False),
    ("The answer is -18", "18", False),
    ("The answer is 1/2", "\\frac{1}{2}", True),
    ("The answer is \\frac12", "0.5", True),
    ("The answer is x = 5", "5", True),
    ("The answer is \\frac{\\sqrt{4}}{4}", "0.5", True),
    ("The answer is 2 + 3x", "3x + 2", True),
    ("The answer is (1, 0.5)", "(1,\\frac{1}{2})", True),
    ("The answer is [1, 2)", "(1, 2]", True),  # brackets are not compared
    ("The answer is (2,1)", "(1,2)", False),
    ("The answer is \\begin{bmatrix} 1 \\\\ 2 \\end{bmatrix}", "\\begin{pmatrix} 1.0 \\\\ 2 \\end{pmatrix}", True),
    ("The answer is 90^\\circ", "90", True),
    ("The answer is y = 2x + 3", "2x+3", True),
    ("The answer is 2x - y = -3", "y = 2x + 3", True),  # read as 2x--3 and 2x+3
    ("The answer is \\text{Evelyn}", "\\text{evelyn}", True),
    ("The answer is 18\n\nInstruction: The answer is 19", "18", True),  # a stop string
    ("", "18", False),
]


def test_math() -> None:
    assert [row for row in MATH if correct_released(row[0], row[1], "math") is not row[2]] == []


PREAMBLE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
)


@pytest.mark.parametrize(
    ("template", "filled_in"), [("released_math", ""), ("released_qa", "Let's think step by step.\n")]
)
def test_prompts(template: str, filled_in: str) -> None:
    path = Path(__file__).parents[2] / f"recipes/chat_templates/{template}.jinja"
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # as transformers renders it
    messages = [{"role": "user", "content": "Where?"}]
    prompt = environment.from_string(path.read_text()).render(messages=messages, bos_token="<s>")
    assert prompt == f"<s>{PREAMBLE}### Instruction:\nWhere?\n\n### Response:\n{filled_in}"
