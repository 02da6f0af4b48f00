from __future__ import annotations

import logging

import pytest

from bmc.evaluation.math import correct, extract


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("2 + 2 = 4\nThe answer is 4", "4"),
        ("The answer is 3\nThe answer is: $4$.", "$4$."),
        ("2 + 2 = 4", "2 + 2 = 4"),  # no mark: the whole text, to be searched
        ("The answer is", ""),
    ],
)
def test_what_is_compared(text: str, answer: str) -> None:
    assert extract(text) == answer


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("28", "28"),
        (" 28 ", "28"),
        ("28.", "28"),
        ("28.0", "28"),
        ("-6", "-6"),
        ("0", "0"),
        ("1,300", "1300"),
        ("$28", "28"),
        ("28 apples", "28"),
        ("x = 28", "28"),
        ("0.5", "1/2"),
        ("\\frac{1}{2}", "0.5"),
        ("\\frac12", "1/2"),
        ("$\\dfrac{3}{6}$", "\\frac{1}{2}"),
        ("50%", "0.5"),
        ("2^3", "8"),
        ("\\sqrt{4}", "2"),
        ("\\boxed{28}", "28"),
        ("2 + 3x", "3x + 2"),
        ("(x+1)^2", "x^2 + 2x + 1"),  # x² + 2x + 1
        ("\\frac{3\\pi}{4}", "0.75\\pi"),
        ("(1,2)", "(1, 2)"),
        ("\\{2, 1\\}", "\\{1, 2\\}"),
        ("7 + 8 = 15\n15 + 9 = 24", "24"),
        ("6:45 a.m.", "6:45 A.M."),
        ("3:4", "3:4"),
        ("7; 100", "7; 100"),
        ("Yes.", "yes"),
        ("Dr. Smith's", "dr. smith's"),
        ("$3.54", "3.54"),
    ],
)
def test_equal(answer: str, gold: str) -> None:
    assert correct(answer, gold)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("27", "28"),
        ("2", "28"),
        ("28", "2"),
        ("-28", "28"),
        ("280", "28"),
        ("28.5", "28"),
        ("0.333", "1/3"),
        ("\\frac{1}{3}", "\\frac{3}{1}"),
        ("3x + 2", "2x + 3"),
        ("(x+1)^2", "x^2 + 1"),
        ("(2,1)", "(1,2)"),
        ("[0,1)", "[0,1]"),
        ("", "28"),
        ("no idea", "28"),
        ("7 + 8 = 15\n15 + 9 = 24", "15"),
        ("6:15 A.M.", "6:45 A.M."),
        ("3:5", "3:4"),
        ("100", "7; 100"),
        ("no", "yes"),
        ("-ab", "ab"),
        ("7", "yes"),
    ],
)
def test_different(answer: str, gold: str) -> None:
    assert not correct(answer, gold)


def test_what_cannot_be_read_is_wrong_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert not correct("\\frac{1}{", "28")
        assert not correct("}{$$\\\\", "28")
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
