from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmc.evaluation.answers import stated_answer
from bmc.evaluation.qa import correct, correct_released, extract, normalise


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So.\nThe answer is river", "river"),
        ("The answer is: river  \n", "river"),
        ("the ANSWER is river.\nBye.", "river."),
        ("The answer is bank.\nNo.\nThe answer is river", "river"),
        ("So the answer is river bank", "river bank"),
        ("The answer is\nriver", ""),
        ("The answer: river", None),
        ("", None),
    ],
)
def test_the_last_stated_answer_counts(text: str, answer: str | None) -> None:
    assert stated_answer(text) == answer
    assert extract(text) == (answer or "")


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("Friend’s house.", "friends house"),
        ("friends house", "Friend's House!"),
        ("  RIVER \t bank ", "river bank"),
        ("(river)", "river"),
        ("straße", "STRASSE"),
        ("ｒｉｖｅｒ", "river"),  # full width
        ("cafe\u0301", "caf\u00e9"),  # two encodings of é
        ("snake_case", "snakecase"),
        ("+", "+"),
        (" % ", "%"),
        ("10", "10."),
    ],
)
def test_case_punctuation_and_spaces_do_not_matter(answer: str, gold: str) -> None:
    assert correct(answer, gold)
    assert correct(gold, answer)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("bank", "river"),
        ("river bank", "river"),
        ("river", "river bank"),
        ("", "river"),
        (".", "river"),
        ("-", "+"),
        ("", "+"),
        ("cafe", "café"),
        ("no", "yes"),
        ("not river", "river"),
    ],
)
def test_other_words_are_another_answer(answer: str, gold: str) -> None:
    assert not correct(answer, gold)


@given(st.text(max_size=20))
def test_an_answer_is_itself_and_normalised_once(text: str) -> None:
    assert correct(text, text)
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    ("text", "gold", "right"),
    [
        ("So.\nThe answer is River", "river", True),
        ("The answer is bank. The answer is river \n", "river", True),
        ("The answer is river.", "river", False),
        ("The answer is: river", "river", False),
        ("the answer is river", "river", False),
        ("river", "river", False),
        ("The answer is river\nBye", "river", False),
        ("The answer is Humidity", "Humidity", False),
        ("", "", False),
    ],
)
def test_the_released_rule(text: str, gold: str, right: bool) -> None:
    assert correct_released(text, gold) is right
