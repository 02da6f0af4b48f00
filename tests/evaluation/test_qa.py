from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmc.evaluation.qa import normalise, qa_equal


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("Friend’s house.", "friends house"),
        ("friends house", "Friend's House!"),
        ("  RIVER \t bank ", "river bank"),
        ("(river)", "river"),
        ("“river”", "river"),
        ("**river**", "river"),
        ("`river`", "river"),
        ("- river", "river"),
        ("straße", "STRASSE"),
        ("ｒｉｖｅｒ", "river"),  # full width
        ("cafe\u0301", "caf\u00e9"),  # two encodings of é
        ("snake_case", "snakecase"),
        ("well being", "well-being"),
        ("wellbeing", "well-being"),
        ("U.S.", "us"),
        ("a Thermometer", "A Thermometer ."),
        ("the bank", "bank"),
        ("salt, pepper", "salt pepper"),
        ("salt & pepper", "salt and pepper"),
        ("antigens+antibody", "antigens + antibody"),
        ("+", "+"),
        (" % ", "%"),
        ("10", "10."),
        (".5", "0.5"),
        ("5.0", "5"),
        ("1,000", "1000"),
        ("50 percent", "50%"),
        ("3 : 4", "3:4"),
        ("−1", "-1"),  # a minus sign
        ("½", "1/2"),
        ("m²", "m^2"),
        ("कि", "कि"),
        ("B. money", "money"),
        ("(B) money", "money"),
        ("B) money", "money"),
        ("Option B: money", "money"),
        ("B. money", "B"),
        ("(b)", "B"),
        ("bank, because it holds money", "bank"),
        ("bank because it holds money", "bank"),
        ("bank. It holds money.", "bank"),
        ("bank (a financial institution)", "bank"),
        ("bank, not river", "bank"),
        ("not very much", "not very much"),
    ],
)
def test_what_does_not_change_an_answer(answer: str, gold: str) -> None:
    assert qa_equal(answer, gold)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("bank", "river"),
        ("river bank", "river"),
        ("river", "river bank"),
        ("", "river"),
        (".", "river"),
        ("", ""),
        ("-", "+"),
        ("", "+"),
        ("cafe", "café"),
        ("no", "yes"),
        ("not river", "river"),
        ("river? No, bank", "river"),
        ("river. No wait, bank", "river"),
        ("river or bank", "river"),
        ("A. money", "B. money"),
        ("A", "B"),
        ("A. money", "B"),
        ("-1", "+1"),
        ("1", "-1"),
        ("1.28 millimeters", "128 millimeters"),
        ("C", "C++"),
        ("C", "C#"),
        ("12", "1/2"),
        ("11/2", "1½"),
        ("05", "0.5"),
        ("15", "1.5"),
        ("34", "3:4"),
        ("pq", "p-q"),
        ("p q", "p-q"),
        ("1020", "10-20"),
        ("12", "1,2"),
        ("July 20", "June 20"),
        ("102", "10²"),
        ("x2", "x²"),
        ("50", "50%"),
        ("5", "$5"),
        ("<5", ">5"),
        ("5'", '5"'),
        ("km", "km/h"),
        ("Tt", "TT"),  # genotypes
        ("CaOH2", "Ca(OH)2"),
        ("क", "कि"),  # an Indic vowel sign
        ("की", "कि"),
        ("กา", "กำ"),
    ],
)
def test_what_changes_an_answer(answer: str, gold: str) -> None:
    assert not qa_equal(answer, gold)


@given(st.text(max_size=20))
def test_an_answer_is_itself(text: str) -> None:
    assert qa_equal(text, text) == bool(text.strip())
    assert normalise(text) == normalise(f" {text} ")


@given(st.text("abcdef", min_size=2, max_size=8), st.text("abcdef", min_size=2, max_size=8))
def test_words_are_equal_if_they_are_the_same(a: str, b: str) -> None:
    genotype = len(a) in (2, 4, 6) and all(a[n] == a[n + 1] for n in range(0, len(a), 2))
    assert qa_equal(a, b) == (a == b)
    assert qa_equal(a.upper(), a) or genotype
