from __future__ import annotations

import subprocess
import sys
import time

import pytest

import bmc.evaluation
from bmc.evaluation.answers import extract_answer, stated_answer
from bmc.evaluation.grading import is_correct


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So.\nThe answer is river", "river"),
        ("The answer is: river  \n", "river"),
        ("the ANSWER is river.\nBye.", "river."),
        ("The answer is bank.\nNo.\nThe answer is river", "river"),
        ("So the answer is river bank", "river bank"),
        ("The answer is\nriver", "river"),
        ("The answer is:\n\nriver\nbank", "river"),
        ("The answer: river", "river"),
        ("**Answer:** river", "river"),
        ("## Final answer\n\nriver\n", "river"),
        ("The correct answer is **(B) money**.", "(B) money."),
        ("The answer to this question is river", "river"),
        ("The answer isn't river. The answer is bank", "bank"),
        ("The answer isn’t river. The answer is bank", "bank"),
        ("The answer is not river. The answer is bank", "bank"),
        ("The answer is bank. The answer is not river.", "bank."),
        ("The answer is bank\n\nThe answer is not river.", "bank"),
        ("It rains.\nThe answer is not very much", "not very much"),
        ("The answer is bank. This answer is correct.", "bank."),
        ("<think>The answer is bank</think>The answer is river", "river"),
        ("\\boxed{\\text{river}}", "\\text{river}"),
        ("The answer isn't river.", ""),
        ("river", ""),
        ("", ""),
    ],
)
def test_qa(text: str, answer: str) -> None:
    assert extract_answer(text, "qa") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("2 + 2 = 4\nThe answer is 4", "4"),
        ("The answer is 3\nThe answer is: $4$.", "$4$."),
        ("The answer is:\n\n\\boxed{18}", "18"),
        ("The answer is\n18", "18"),
        ("The answer is\n$$\n18\n$$\nDone.", "$$\n18\n$$"),
        ("The answer is \\[\nx = 5\n\\]", "\\[\nx = 5\n\\]"),
        ("The answer is \\begin{pmatrix} 1 \\\\\n 2 \\end{pmatrix}", "\\begin{pmatrix} 1 \\\\\n 2 \\end{pmatrix}"),
        ("Work.\n#### 1,300", "1,300"),
        ("The answer is 18. She has 3 left.", "18"),
        ("The answer is Dr. Smith's", "Dr. Smith's"),
        ("The final answer is $\\frac{1}{2}$. I hope it is correct.", "$\\frac{1}{2}$"),
        ("Thus $\\boxed{\\frac{3}{4}}$.", "\\frac{3}{4}"),
        ("so \\boxed 5", "5"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("First $\\boxed{3}$. Then we go on to $\\boxed{5}$.", "5"),
        ("x = \\boxed{3} or x = \\boxed{5}", "3, 5"),
        ("The answer is $\\boxed{3}$ and $\\boxed{5}$.", "3, 5"),
        ("The answer is 3. Checked again: \\boxed{5}", "5"),
        ("\\boxed{5}, so the answer is 6", "6"),
        ("The answer is $\\boxed{18}$ dollars.", "18"),
        ("\\boxed{5}\n\nThe answer is correct.", "5"),
        ("The answer is 5.\nThe answer is not 7.", "5."),
        ("The answer is not 7.", ""),
        ("The answer isn't 7.", ""),
        ("The answer is", ""),
        ("2 + 2 = 4", "2 + 2 = 4"),  # nothing is marked: the last line, number or formula
        ("So she makes 9 * 2 = $18 every day at the market.", "18"),
        ("First 3 and then, with care, we get $x = 5$.", "x = 5"),
    ],
)
def test_math(text: str, answer: str) -> None:
    assert extract_answer(text, "math") == answer


@pytest.mark.parametrize(
    ("text", "gold", "task", "right"),
    [
        ("The answer is:\n\n\\boxed{18}", "18", "math", True),
        ("The answer is\n$$\n18\n$$", "18", "math", True),
        ("The answer is B. money", "money", "qa", True),
        ("The answer is 5 or 10", "5", "math", False),
        ("7 + 8 = 15\n15 + 9 = 24", "24", "math", True),
        ("7 + 8 = 15\n15 + 9 = 24", "15", "math", False),
        ("The answer isn't river. The answer is bank", "bank", "qa", True),
        ("The answer isn't river. The answer is bank", "river", "qa", False),
        ("A river", "river", "qa", False),
    ],
)
def test_is_correct(text: str, gold: str, task: str, right: bool) -> None:
    assert is_correct(text, gold, task) is right


def test_stated_answer() -> None:
    assert stated_answer("So.\nThe answer is 4") == "4"
    assert stated_answer("So 4.") is None


def test_public_names() -> None:
    assert bmc.evaluation.qa_equal("River.", "river")
    assert bmc.evaluation.math_equal("\\frac12", "0.5")
    assert bmc.evaluation.extract_answer("The answer is 4", "math") == "4"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bmc.evaluation.nothing  # noqa: B018
    quick = "import sys, bmc.evaluation; sys.exit('mpmath' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", quick]).returncode == 0


@pytest.mark.parametrize(
    "word", ["the ", "answer ", "answer to a ", " ", "\n", "\\boxed{1} ", "\\boxed{", "$", "\\begin{a}", "1"]
)
def test_a_long_response_takes_no_time(word: str) -> None:
    start = time.perf_counter()
    assert extract_answer(word * (50_000 // len(word)) + "\nThe answer is 5", "math") == "5"
    extract_answer(word * (50_000 // len(word)), "qa")
    assert time.perf_counter() - start < 2.0
