import asyncio
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bmc.bridging.edits import EditError, EditRequest
from bmc.bridging.rule_editor import RuleEditor, _edit_options, set_final_answer, steps, tidy
from bmc.errors import UserErrors
from bmc.evaluation.scoring import is_correct

LEAD = "Let's think step by step.\n"
BANKS = "Where is water?\nOptions:\nbank\nbank account\nriver\nriver bank\na"


def edited(task: str, rejected: str, answer: str | None, chosen: str = "y_w", prompt: str = "x") -> str | None:
    case = EditRequest("1", task, prompt, chosen, rejected, answer)
    return asyncio.run(RuleEditor().edit(case)).text


def qa(rejected: str, answer: str = "river", prompt: str = BANKS) -> str | None:
    return edited("qa", rejected, answer, prompt=prompt)


def math(rejected: str, chosen: str, answer: str) -> str | None:
    return edited("math", rejected, answer, chosen)


def test_qa_names_the_gold_option_instead(subtests: pytest.Subtests) -> None:
    for rejected, expected in [
        ("Water is in a bank.\nThe answer is bank", "Water is in a river.\nThe answer is river"),
        ("Bank it is: a bank.\nThe answer is bank", "River it is: a river.\nThe answer is river"),
        ("Bankers embank the banks.\nThe answer is bank", "Bankers embank the banks.\nThe answer is river"),
        ("A bank\nThe answer is bank.", "A river\nThe answer is river."),
        ("A bank\nthe answer is: Bank", "A river\nthe answer is: river"),
        ("The answer is bank\nNo.\nThe answer is bank", "No.\nThe answer is river"),
        ("Water flows.", "Water flows.\nThe answer is river"),
        ("Water flows.\n\n", "Water flows.\nThe answer is river"),
        # the chosen option's words inside longer options, and the other way round
        ("A bank account or bank\nThe answer is bank", "A bank account or river\nThe answer is river"),
        ("A bank account or bank\nThe answer is bank account", "A river or bank\nThe answer is river"),
        # what it states is no option: only the final answer changes
        ("A bank is a place\nThe answer is a place", "A bank is a place\nThe answer is river"),
        ("İİ bank\nThe answer is bank", "İİ river\nThe answer is river"),  # "İ".lower() is longer than "İ"
    ]:
        with subtests.test(rejected=rejected, expected=expected):
            assert qa(rejected) == expected


def test_the_gold_option_may_contain_the_wrong_one() -> None:
    rejected = "A river bank or a bank\nThe answer is bank"
    assert qa(rejected, "river bank") == "A river bank or a river bank\nThe answer is river bank"


def test_options_are_no_patterns(subtests: pytest.Subtests) -> None:
    for option in ["c++", "a.b", "$5 (five)", "what?", r"\d+", "[x]"]:
        with subtests.test(option=option):
            text = f"It is {option} , not axb.\nThe answer is {option}"
            prompt = f"x\nOptions:\n{option}\nriver"
            assert qa(text, prompt=prompt) == "It is river , not axb.\nThe answer is river"
            assert qa("A river.\nThe answer is river", option, prompt) == f"A {option}.\nThe answer is {option}"


def test_options_may_be_labelled_or_not_listed() -> None:
    text, expected = "A bank\nThe answer is bank", "A river\nThe answer is river"
    assert qa(text, prompt="x\nOptions:\n(A) bank\nB) river") == expected
    assert qa(text, prompt="x") == expected


def test_the_words_that_state_an_answer_are_no_mention() -> None:
    prompt = "x\nOptions:\nanswer\nriver"
    assert qa("An answer\nThe answer is answer", prompt=prompt) == "An river\nThe answer is river"


def test_yes_and_no_change_in_the_final_answer_only() -> None:
    prompt = "x\nOptions:\nyes\nno"
    assert qa("There is no sea.\nThe answer is no", "yes", prompt) == "There is no sea.\nThe answer is yes"


def test_a_right_qa_answer_is_good_enough(subtests: pytest.Subtests) -> None:
    for rejected in ["A bank.\nThe answer is river", "The answer is River."]:
        with subtests.test(rejected=rejected):
            assert qa(rejected) is None


def test_state_replaces_the_last_answer() -> None:
    assert set_final_answer("The answer is 1\nThe answer is 2\nBye", "3") == "The answer is 1\nThe answer is 3\nBye"
    assert set_final_answer("So 3.5.\nThe answer is 2.5", "3.5") == "So 3.5.\nThe answer is 3.5"
    assert set_final_answer("The answer is x.", "U.S.") == "The answer is U.S."
    assert set_final_answer("The answer is", "3") == "The answer is 3"


W = LEAD + "7 + 8 = 15\n15 + 9 = 24\n24 + 3 = 27\nThe answer is 27"
MINUS = LEAD + "20 - 5 = 15\n15 + 4 = 19\nThe answer is 19"


def test_math_comes_out_right(subtests: pytest.Subtests) -> None:
    for rejected, chosen, answer, expected in [
        # a wrong sum, carried on; then slipped at the end only
        ("7 + 8 = 15\n15 + 9 = 25\n25 + 3 = 28\n…28", W, "27", "7 + 8 = 15\n15 + 9 = 24\n24 + 3 = 27\n…27"),
        ("7 + 8 = 15\n15 + 9 = 24\n24 + 3 = 27\n…28", W, "27", "7 + 8 = 15\n15 + 9 = 24\n24 + 3 = 27\n…27"),
        # a wrong operand; a total that is copied wrongly
        ("7 + 8 = 15\n15 + 6 = 21\n21 + 3 = 24\n…24", W, "27", "7 + 8 = 15\n15 + 9 = 24\n24 + 3 = 27\n…27"),
        ("7 + 8 = 15\n14 + 9 = 23\n23 + 3 = 26\n…26", W, "27", "7 + 8 = 15\n15 + 9 = 24\n24 + 3 = 27\n…27"),
        # the last term is missing; one too many
        ("7 + 8 = 15\n15 + 9 = 24\n…24", W, "27", "7 + 8 = 15\n15 + 9 = 24\n24 + 3 = 27\n…27"),
        ("20 - 5 = 15\n15 + 4 = 19\n19 + 4 = 23\n…23", MINUS, "19", "20 - 5 = 15\n15 + 4 = 19\n…19"),
        ("20 - 5 = 15\n15 + 4 = 19\n19 + 4 = 23\n23 + 1 = 24\n…24", MINUS, "19", "20 - 5 = 15\n15 + 4 = 19\n…19"),
        # y_l adds from the right and keeps its order; 8 is read as 6
        ("3 + 9 = 12\n12 + 6 = 18\n18 + 7 = 25\n…25", W, "27", "3 + 9 = 12\n12 + 8 = 20\n20 + 7 = 27\n…27"),
        # a term twice instead of another: the first one stays
        ("7 + 8 = 15\n15 + 8 = 23\n23 + 3 = 26\n…26", W, "27", "7 + 8 = 15\n15 + 9 = 24\n24 + 3 = 27\n…27"),
        # subtraction: a wrong sign, a total below zero
        ("20 + 5 = 25\n25 + 4 = 29\n…29", MINUS, "19", "20 - 5 = 15\n15 + 4 = 19\n…19"),
        (
            "3 - 5 = -1\n-1 - 4 = -5\n…-5",
            "3 - 5 = -2\n-2 - 4 = -6\nThe answer is -6",
            "-6",
            "3 - 5 = -2\n-2 - 4 = -6\n…-6",
        ),
        # what is right stays as it was written
        ("20-5 = 15\n15+4=18\n…18", MINUS, "19", "20-5 = 15\n15+4=19\n…19"),
        (
            "5 + -3 = 2\n2 - 0 = 3\n…3",
            "5 + -3 = 2\n2 - 0 = 2\nThe answer is 2",
            "2",
            "5 + -3 = 2\n2 - 0 = 2\n…2",
        ),
        # in sentences
        (
            "We add 8: 7 + 8 = 14.\nThen 9: 14 + 9 = 23.\nAnd 23 + 3 = 26.\n…26.",
            W,
            "27",
            "We add 8: 7 + 8 = 15.\nThen 9: 15 + 9 = 24.\nAnd 24 + 3 = 27.\n…27.",
        ),
        ("7 + 8 = 15, 15 + 9 = 25, 25 + 3 = 28. …28", W, "27", "7 + 8 = 15, 15 + 9 = 24, 24 + 3 = 27. …27"),
        ("So 20 - 5 = 15. …15", MINUS, "19", "So 20 - 5 = 15.\n15 + 4 = 19\n…19"),
        # the fourth can't be cut with its line, nor the second: y_w's layout
        (
            "7 + 8 = 15, 15 + 9 = 24, 24 + 3 = 27, 27 + 1 = 28. …28",
            W,
            "27",
            "7 + 8 = 15\n15 + 9 = 24\n24 + 3 = 27\n…27",
        ),
        ("7 + 8 = 15\n…15 + 9 = 24", W, "27", "7 + 8 = 15\n15 + 9 = 24\n24 + 3 = 27\n…27"),
        # the right answer with a wrong equation on the way
        ("7 + 8 = 16\n15 + 9 = 24\n24 + 3 = 27\n…27", W, "27", "7 + 8 = 15\n15 + 9 = 24\n24 + 3 = 27\n…27"),
        # no final answer
        ("20 - 5 = 15\n15 + 4 = 18", MINUS, "19", "20 - 5 = 15\n15 + 4 = 19\n…19"),
        # products, and sums that are no running ones: results are carried into later steps
        ("3 * 4 = 13\n13 × 2 = 26\n26 / 2 = 13\n…13", "y_w", "12", "3 * 4 = 12\n12 × 2 = 24\n24 / 2 = 12\n…12"),
        (
            "20 + 30 = 50\n5 + 7 = 13\n50 + 13 = 63\n…63",
            "20 + 30 = 50\n5 + 7 = 12\n50 + 12 = 62\nThe answer is 62",
            "62",
            "20 + 30 = 50\n5 + 7 = 12\n50 + 12 = 62\n…62",
        ),
    ]:
        with subtests.test(rejected=rejected, chosen=chosen, answer=answer, expected=expected):
            rejected, expected = (text.replace("…", "The answer is ") for text in (rejected, expected))
            assert math(LEAD + rejected, chosen, answer) == LEAD + expected


def test_what_cannot_be_edited_is_an_edit_error(subtests: pytest.Subtests) -> None:
    for rejected in [
        "I think so.\nThe answer is 28", "3 * 4 = 12\nThe answer is 12", "7 / 2 = 3\nThe answer is 3",
        "7 / 0 = 3\nThe answer is 3", "7 + 8 + 9 + 3 = 28\nThe answer is 28", "7.5 + 8 = 15.5\nThe answer is 15.5",
        "19,000 + 1 = 19,002\nThe answer is 19,002"
    ]:  # fmt: skip
        with subtests.test(rejected=rejected), pytest.raises(EditError, match=r"^rules: "):
            math(rejected, W, "27")


def test_a_right_math_answer_is_good_enough(subtests: pytest.Subtests) -> None:
    for rejected in [
        W,
        "3 + 9 = 12\n12 + 8 = 20\n20 + 7 = 27\nThe answer is 27.",
        "It is clear.\nThe answer is 27",
        "7 + 8 + 9 + 3 = 27\nThe answer is 27",  # not 9 + 3 = 27
        "2 * (9 + 3) + 3 = 27 = 20 + 7\nThe answer is 27",
        "54 / 2 = 27.0, 7 -3 + 23 = 27, 1/2 = 2/4, 19,000 + 1 = 19,001, 3 + 4 = 7 + 20 = 27\nThe answer is 27",
    ]:
        with subtests.test(rejected=rejected):
            assert math(rejected, W, "27") is None


SHORT = "1 + 2 = 3\n3 + 4 = 7\nThe answer is 7"


def test_torn_and_doubled_text_goes(subtests: pytest.Subtests) -> None:
    for rejected, expected in [
        # torn: a damaged character, a step that breaks off, a tail without an end
        ("1 + 2 = 3\ufffd + 4 + 1\n3 + 4 = 8\n…8", "1 + 2 = 3\n3 + 4 = 7\n…7"),
        ("1 + 2 = 3 + 4 + 1\n3 + 4 = 8\n…8", "3 + 4 = 7\n…7"),
        ("1 + 2 =\n1 + 2 = 3\n3 + 4 = 8\n…8", "1 + 2 = 3\n3 + 4 = 7\n…7"),
        ("1 + 2 = 3\n3 + 4 = 8\n8 + 4", "1 + 2 = 3\n3 + 4 = 7\n…7"),
        # doubled: lines, within a line, the lead
        ("1 + 2 = 3\n1 + 2 = 3\n3 + 4 = 8\n…8", "1 + 2 = 3\n3 + 4 = 7\n…7"),
        ("1 + 2 = 31 + 2 = 3\n3 + 4 = 8\n…8", "1 + 2 = 3\n3 + 4 = 7\n…7"),
        (f"{LEAD}1 + 2 = 3\n3 + 4 = 8\n…8", "1 + 2 = 3\n3 + 4 = 7\n…7"),
        # two answers, and what follows the answer
        ("1 + 2 = 3\n…3\n3 + 4 = 8\n…8", "1 + 2 = 3\n3 + 4 = 7\n…7"),
        ("1 + 2 = 3\n3 + 4 = 8\n…8 …9", "1 + 2 = 3\n3 + 4 = 7\n…7"),
        ("1 + 2 = 3\n3 + 4 = 8\n…8\n8 + 1 = 9\nBye", "1 + 2 = 3\n3 + 4 = 7\n…7"),
        # right but for that
        ("1 + 2 = 3\n3 + 4 = 7\n…6\n…7", "1 + 2 = 3\n3 + 4 = 7\n…7"),
        ("1 + 2 = 3\n1 + 2 = 3\n3 + 4 = 7\n…7", "1 + 2 = 3\n3 + 4 = 7\n…7"),
    ]:
        with subtests.test(rejected=rejected, expected=expected):
            rejected, expected = (LEAD + text.replace("…", "The answer is ") for text in (rejected, expected))
            if "3 + 4 + 1" in rejected and "\ufffd" not in rejected:
                expected = (
                    LEAD + SHORT
                )  # the first step went with its line, and the rest has no place for it: y_w's layout
            edit = asyncio.run(RuleEditor().edit(EditRequest("1", "math", "x", LEAD + SHORT, rejected, "7")))
            assert edit.text == expected
            assert edit.notes[0] == "torn or doubled text dropped"


def test_text_that_y_w_has_too_is_not_torn() -> None:
    reference = "x\ufffd\nAgain.\nAgain.\nThe answer is 3\nThe answer is 3\nBye"
    assert tidy(reference, reference) == reference
    whole = "5 + 0 = 5\n5 + 0 = 5\n2 * (3 + 4) = 14\n7\n= 3 + 4\n1, 2, 3\n-5\n3 + 4 = 7 + 1 = 8\nha ha ha ha\n\n\nx"
    assert tidy(whole, "") == whole


def test_terms_stand_in_an_order_that_a_writer_uses(subtests: pytest.Subtests) -> None:
    for rejected, expected, notes in [
        # y_w goes 5, 1, 2, 8; from the other end y_l's first step must be right, or its terms nearer
        ("8 + 2 = 10\n10 + 5 = 15\n15 + 1 = 16", "8 + 2 = 10\n10 + 1 = 11\n11 + 5 = 16", True),
        ("8 + 2 = 11\n11 + 1 = 12\n12 + 5 = 17", "8 + 2 = 10\n10 + 1 = 11\n11 + 5 = 16", False),
        ("8 + 3 = 11\n11 + 1 = 12\n12 + 5 = 17", "8 + 2 = 10\n10 + 1 = 11\n11 + 5 = 16", False),
        ("1 + 5 = 6\n6 + 8 = 14\n14 + 2 = 17", "5 + 1 = 6\n6 + 2 = 8\n8 + 8 = 16", True),
        ("5 + 8 = 13\n13 + 2 = 15\n15 + 1 = 17", "5 + 1 = 6\n6 + 2 = 8\n8 + 8 = 16", True),
        ("5 + 1 = 6\n6 + 2 = 9\n9 + 8 = 17", "5 + 1 = 6\n6 + 2 = 8\n8 + 8 = 16", False),
        ("4 + 4 = 8\n8 + 9 = 17", "5 + 1 = 6\n6 + 2 = 8\n8 + 8 = 16", False),
    ]:
        with subtests.test(rejected=rejected, expected=expected, notes=notes):
            chosen = "5 + 1 = 6\n6 + 2 = 8\n8 + 8 = 16\nThe answer is 16"
            edit = asyncio.run(
                RuleEditor().edit(EditRequest("1", "math", "x", chosen, f"{rejected}\nThe answer is 17", "16"))
            )
            assert edit.text == f"{expected}\nThe answer is 16"
            assert edit.notes == (("terms reordered",) if notes else ())


def test_lines_that_y_w_has_too_keep_their_options() -> None:
    chosen = "A bank holds money.\nA river holds water.\nThe answer is river"
    rejected = "A bank holds money.\nA bank holds water.\nThe answer is bank"
    assert (
        edited("qa", rejected, "river", chosen, BANKS)
        == "A bank holds money.\nA river holds water.\nThe answer is river"
    )


def test_steps_reads_whole_equations_only() -> None:
    whole = "- 3 + 4 = 7\nTotal = -2 - -5=3. So we get -1*4 = -4, and 8 × 2 = 16\n"
    text = whole + "x + 3 + 4 = 9, 1 + 2 = 3.5, 2020-10 = 2,010, 5 -3 + 4 = 6, 1,000 + 5 = 1005"
    found = [(step.left, step.operator, step.right, step.result) for step in steps(text)]
    assert found == [(3, "+", 4, 7), (-2, "-", -5, 3), (-1, "*", 4, -4), (8, "×", 2, 16)]
    assert all(step.holds for step in steps(text))


def test_rows_that_are_not_closed_stop_the_run(subtests: pytest.Subtests) -> None:
    for task, answer in [("chat", "4"), ("math", None), ("qa", None)]:
        refused = pytest.raises(UserErrors, match="row 1: editor: rules edits only qa and math rows")
        with subtests.test(task=task, answer=answer), refused:
            edited(task, "y_l", answer)


def chain(terms: list[int], answer: int | None = None) -> str:
    """The worked solution of a sum: `7 + 8 = 15⏎15 - 3 = 12⏎The answer is 12`."""
    total, lines = terms[0], []
    for term in terms[1:]:
        lines.append(f"{total} {'-' if term < 0 else '+'} {abs(term)} = {total + term}")
        total += term
    return LEAD + "\n".join([*lines, f"The answer is {total if answer is None else answer}"])


@st.composite
def losers(draw: Any) -> tuple[list[int], str]:
    """The terms of a sum, and a solution of it that may have gone wrong in any of some ways."""
    terms = [draw(st.integers(0, 99)), *draw(st.lists(st.integers(-99, 99), min_size=1, max_size=5))]
    said = list(terms)
    if draw(st.booleans()):
        said.reverse()
    for _ in range(draw(st.integers(0, 3))):
        kind, place = draw(st.sampled_from(["drop", "add", "change", "swap"])), draw(st.integers(0, len(said) - 1))
        if kind == "drop" and len(said) > 2:
            said.pop(place)
        elif kind == "add":
            said.insert(place, draw(st.integers(-99, 99)))
        elif kind == "change":
            said[place] = draw(st.integers(-99, 99))
        else:
            said[0], said[place] = said[place], said[0]
    slips = draw(st.lists(st.sampled_from([0, 0, 0, 1, -1, 10]), min_size=len(said), max_size=len(said)))
    total, lines = said[0], []
    for term, slip in zip(said[1:], slips, strict=False):
        lines.append(f"{total} {'-' if term < 0 else '+'} {abs(term)} = {total + term + slip}")
        total += term + slip
    return terms, LEAD + "\n".join([*lines, f"The answer is {total + slips[-1]}"])


@settings(max_examples=200, deadline=None)
@given(losers())
@example(([7, 8], chain([7, 8, 9])))
@example(([5, -5, -5], chain([-5, 0], answer=3)))
def test_any_sum_comes_out_right(drawn: tuple[list[int], str]) -> None:
    terms, rejected = drawn
    gold = sum(terms)
    text = math(rejected, chain(terms), str(gold))
    if rejected.endswith(f"The answer is {gold}") and all(step.holds for step in steps(rejected)):
        assert text is None
        return
    assert text is not None
    found = steps(text)
    assert all(step.holds for step in found)
    assert [step.left for step in found[1:]] == [step.result for step in found[:-1]]
    assert [found[0].left, *(step.term for step in found)] in (terms, terms[::-1])
    assert found[-1].result == gold
    assert text.startswith(LEAD)
    assert text.endswith(f"\nThe answer is {gold}")


@settings(max_examples=100, deadline=None)
@given(st.text("bank .ryes\nThe answer is", max_size=60), st.sampled_from(["river", "C++", "bank"]))
def test_any_qa_text_comes_to_state_the_gold_option(text: str, gold: str) -> None:
    assert set_final_answer(text, gold) == set_final_answer(set_final_answer(text, gold), gold)
    assert is_correct(_edit_options(text, gold, []), gold, "qa")


# --- scores of words -----------------------------------------------------------------------------------------------


def scores(task: str, chosen: str, rejected: str, answer: str, prompt: str = "x") -> tuple[dict[int, int], ...]:
    of_chosen, of_rejected = asyncio.run(RuleEditor().score(EditRequest("1", task, prompt, chosen, rejected, answer)))
    return dict(of_chosen), dict(of_rejected)


def test_words_that_decide_are_scored() -> None:
    chosen, rejected = "It flows.\nThe answer is river bank", "A bank holds it.\nThe answer is bank"
    # It 1, flows. 2, The 3, answer 4, is 5, river 6, bank 7; A 1, bank 2, holds 3, it. 4, The 5, answer 6, is 7, bank 8
    assert scores("qa", chosen, rejected, "river", BANKS) == ({6: 3, 7: 3}, {2: -3, 8: -3})
    sum_right, sum_wrong = "1 + 2 = 3\n3 + 4 = 7\nThe answer is 7", "4 + 2 = 7\n7 + 1 = 8\nThe answer is 8"
    # edited: 4 + 2 = 6, 6 + 1 = 7, The answer is 7
    assert scores("math", sum_right, sum_wrong, "7") == ({14: 3}, {5: -3, 6: -3, 10: -3, 14: -3})


def test_what_needs_no_mending_loses_nothing() -> None:
    assert scores("qa", "no mark", "Water.\nThe answer is river", "river", BANKS) == ({}, {})


def test_a_step_that_is_taken_out_is_what_loses() -> None:
    long = "1 + 2 = 3\n3 + 4 = 7\n7 + 4 = 11\nThe answer is 11"
    assert scores("math", "1 + 2 = 3\n3 + 4 = 7\nThe answer is 7", long, "7")[1] == dict.fromkeys(
        [*range(11, 16), 19], -3
    )
