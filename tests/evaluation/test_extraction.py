import subprocess
import sys
import time

import pytest

import bmc.evaluation
from bmc.evaluation.extraction import extract_answer, stated_answer
from bmc.evaluation.scoring import is_correct

QA = [
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
    ("The answer is clear", "clear"),  # gold answers of ECQA
    ("That is bad.\nThe answer is wrong", "wrong"),
    ("The answer is never want", "never want"),
    ("The answer is just in front of the lens", "just in front of the lens"),
    ("\\boxed{river}\n\nThe answer is correct.", "river"),
    ("<think>The answer is river", ""),
    ("<thinking>\nThe answer is bank\n</thinking>\nThe answer is river", "river"),
    ("<answer>\nriver\n</answer>", "river"),
    ('{"reason": "water", "answer": "river"}', "river"),
    ("The answer is:\n\n* river\n\nIt has banks.", "river"),
    ("The answer is:\n- river\n- bank", "river, bank"),
    ("The correct option is B) river", "B) river"),
    ("The correct choice is (B).", "(B)."),
    ("The correct answer choice is (B).", "(B)."),
    ("Correct answer: B", "B"),
    ("正确答案是B", "B"),
    ("答えは：川", "川"),
    ("La respuesta es río", "río"),
    ("Die Antwort ist: Fluss", "Fluss"),
    ("The answer is bank. Wait, no. It is river", "river"),
    ("The answer is bank. Actually, it is river.", "river."),
    ("The answer is bank. No, river.", "river."),
    ("The answer is river. No other option fits.", "river. No other option fits."),
    ("The answer is no, it is not", "no, it is not"),
    ("The answer is river. Hmm, let me check. Yes.", "river. Hmm, let me check. Yes."),
    ("river", ""),
    ("", ""),
]


def test_qa() -> None:
    assert [(text, extract_answer(text, "qa")) for text, answer in QA if extract_answer(text, "qa") != answer] == []


MATH = [
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
    ("<think>The answer is 5", ""),
    ("<think>The answer is 5</think>The answer is 6", "6"),
    ("[THINK]The answer is 5[/THINK]6", "6"),
    ("The answer is 5 <think>or is the answer 6?", "5"),
    ("<answer>5</answer>", "5"),
    ("<answer>The answer is \\boxed{5}</answer>", "5"),
    ("So\n<answer>5", "5"),
    ('```json\n{"reason": "x", "answer": 5}\n```', "5"),
    ("The answer is:\n- 5", "5"),
    ("The answer is:\n-5", "-5"),
    ("The answer is - 5", "- 5"),
    ("The answer is:\n1. 5", "5"),
    ("The answer is\n1.5", "1.5"),
    ("The answer is:\n\n1) 5\n2) 7\n\nDone", "5, 7"),
    ("The answer is therefore 5", "5"),
    ("答案是5", "5"),
    ("答案：5", "5"),
    ("所以最终答案为：$5$", "$5$"),
    ("정답은 5", "5"),
    ("Ответ: 5", "5"),
    ("\\boxed{3}\n\\boxed{5}", "5"),
    ("$\\boxed{3}$\n\n$\\boxed{5}$", "5"),
    ("x = \\boxed{3}\ny = \\boxed{5}", "3, 5"),
    ("\\boxed{3},\n\\boxed{5}", "3, 5"),
    ("\\boxed{5}. It stands in \\boxed{}.", "5"),
    ("The answer is 4. Wait, no. It is 5.", "5."),
    ("The answer is 4.\n\nWait, that's wrong. It should be 5.", "5."),
    ("The answer is 4, no wait, 5", "5"),
    ("The answer is 4. No, 5.", "5."),
    ("The answer is 4. Sorry, I mean 5.", "5."),
    ("\\boxed{4}. Wait, no. It is 5.", "5."),
    ("The answer is 4. Hmm, let me check. 2 + 2 = 4. Yes.", "4"),
    ("The answer is 5.\nThe answer is not 7.", "5."),
    ("The answer is not 7.", ""),
    ("The answer isn't 7.", ""),
    ("The answer is", ""),
    ("2 + 2 = 4", "2 + 2 = 4"),  # nothing is marked: the last line, number or formula
    ("So she makes 9 * 2 = $18 every day at the market.", "18"),
    ("First 3 and then, with care, we get $x = 5$.", "x = 5"),
]


def test_math() -> None:
    assert [
        (text, extract_answer(text, "math")) for text, answer in MATH if extract_answer(text, "math") != answer
    ] == []


RESPONSES = [
    ("The answer is:\n\n\\boxed{18}", "18", "math", True),
    ("The answer is\n$$\n18\n$$", "18", "math", True),
    ("The answer is B. money", "money", "qa", True),
    ("The answer is 5 or 10", "5", "math", False),
    ("7 + 8 = 15\n15 + 9 = 24", "24", "math", True),
    ("7 + 8 = 15\n15 + 9 = 24", "15", "math", False),
    ("The answer isn't river. The answer is bank", "bank", "qa", True),
    ("The answer isn't river. The answer is bank", "river", "qa", False),
    ("A river", "river", "qa", False),
]


def test_is_correct() -> None:
    assert [row for row in RESPONSES if is_correct(row[0], row[1], row[2]) is not row[3]] == []


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


@pytest.mark.slow
def test_a_long_response_takes_no_time(subtests: pytest.Subtests) -> None:
    for word in ["the ", "answer ", "answer to a ", " ", "\n", "\\boxed{1} ", "\\boxed{", "$", "\\begin{a}", "1"]:
        with subtests.test(word=word):
            start = time.perf_counter()
            assert extract_answer(word * (50_000 // len(word)) + "\nThe answer is 5", "math") == "5"
            extract_answer(word * (50_000 // len(word)), "qa")
            assert time.perf_counter() - start < 2.0
