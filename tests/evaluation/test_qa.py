from hypothesis import given
from hypothesis import strategies as st

from bmc.evaluation.qa import normalise, qa_equal, read_options

SAME = [
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
    ("\\text{money}", "money"),
    ("$\\text{money}$.", "money"),
    ("\\(money\\)", "money"),
    ("\\boxed{B}", "B"),
    ("B.money", "money"),
    ("(b)money", "money"),
    ("B – money", "money"),
    ("option B, money", "money"),
    ("money (B)", "money"),
    ("most likely money", "money"),
    ("co", "CO"),
    ("NO", "No"),
]


def test_what_does_not_change_an_answer() -> None:
    assert [pair for pair in SAME if not qa_equal(*pair)] == []


DIFFERENT = [
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
    ("CO", "Co"),  # carbon monoxide, cobalt
    ("Co", "CO"),
    ("5 mW", "5 MW"),
    ("unlikely money", "money"),
    ("CaOH2", "Ca(OH)2"),
    ("क", "कि"),  # an Indic vowel sign
    ("की", "कि"),
    ("กา", "กำ"),
]


def test_what_changes_an_answer() -> None:
    assert [pair for pair in DIFFERENT if qa_equal(*pair)] == []


@given(st.text(max_size=20))
def test_an_answer_is_itself(text: str) -> None:
    assert qa_equal(text, text) == bool(text.strip())
    assert normalise(text) == normalise(f" {text} ")


@given(st.text("abcdef", min_size=2, max_size=8), st.text("abcdef", min_size=2, max_size=8))
def test_words_are_equal_if_they_are_the_same(a: str, b: str) -> None:
    genotype = len(a) in (2, 4, 6) and all(a[n] == a[n + 1] for n in range(0, len(a), 2))
    assert qa_equal(a, b) == (a == b)
    assert qa_equal(a.upper(), a) or genotype


WHERE = "Where is cash kept? (A) bank (B) money (C) river"


def test_labels_stand_for_the_options_of_the_question() -> None:
    """Gold is `money`, option B."""
    right = [
        "B", "(B)", "b)", "B.", "[B]", "**B**", "option (B)", "The option B", "answer B", "$B$", "\\boxed{\\text{B}}",
        "likely B", "B. money", "B.money", "(b)money", "B – money", "B: money", "option B, money", "money (B)",
        "money, option B", "money", "B, not C", "B because it is", "B) money. It is kept there.", "D. money",
        "B (money)", "B; money", "B money", '"B"', "`B`",
    ]  # fmt: skip
    wrong = [
        "A", "(A) money", "A. bank", "money (A)", "bank (B)", "(B) bank", "bank", "A bank", "B or C", "A and B",
        "(A), (B)", "Both A and B", "B. No wait, C", "(B) is wrong", "B or money", "D", "", "neither", "B (bank)",
        "C money", "A (money)",
    ]  # fmt: skip
    for gold in ("money", "B", "(B) money"):
        assert [answer for answer in right if not qa_equal(answer, gold, WHERE)] == []
        assert [answer for answer in wrong if qa_equal(answer, gold, WHERE)] == []
    for options in ({"A": "bank", "B": "money"}, read_options("Where? (A) bank (B) money")):
        assert qa_equal("b", "money", options)
        assert not qa_equal("a", "money", options)
    assert qa_equal("CO", "Co", ["Co", "Ni"])  # no other option is meant
    assert not qa_equal("CO", "Co", ["Co", "CO"])
    assert not qa_equal("KM", "km", ["km", "KM"])
    assert not qa_equal("Km", "km", ["km", "KM"])
    assert qa_equal("Plants", "plants.", "What?\nOptions:\nplants\nplants.")  # as QASC has it


def test_options_of_a_question() -> None:
    bank = (("A", "bank"), ("B", "money"))
    small = (("a", "bank"), ("b", "money"))
    expected = {
        WHERE: (*bank, ("C", "river")),
        "Where?\nA) bank\nB) money": bank,
        "Where?\nA. bank\nB. money": bank,
        "Where?\nA.bank\nB.money": bank,
        "Where? A: bank B: money": bank,
        "Where? A. bank B. money": bank,
        "Where? (A)bank(B)money": bank,
        "Where? [A] bank [B] money": bank,
        "Where?\n- (A) bank\n- (B) money": bank,
        "Where?\n**A.** bank\n**B.** money\n\nAnswer with a letter.": bank,
        "Where?\nOption A: bank\nOption B: money": bank,
        "Where? (A) bank, or (B) money\nAnswer:": bank,
        "Where? (A) bank (B) money Answer:": bank,
        "Where?\nOptions:\n(a) bank\n(b) money": small,
        "Who? (A) x (B) y\nAnswer: (A)\n\nWhere? (A) bank (B) money": bank,
        "1. bank 2. money\n(A) 1 only (B) 2 only": (("A", "1 only"), ("B", "2 only")),
        "Where？（A）bank（B）money": bank,
        "Which? Options: (A) bank": bank[:1],
        "n?\n" + "\n".join(f"{n}. x{n}" for n in range(1, 11)): tuple((str(n), f"x{n}") for n in range(1, 11)),
        "Where?\nOptions:\nbank\nmoney": (("", "bank"), ("", "money")),
        "Where?\nOptions:\na.b\nmoney": (("", "a.b"), ("", "money")),
        "John A. Smith met B. Jones": (),
        "Is P(A) + P(B) = 1?": (),
        "Expand (x - a)(x - b).": (),
        "Draw (1,1)--(2,4).": (),
        "Where?": (),
    }  # fmt: skip
    assert {question: read_options(question) for question in expected} == expected
