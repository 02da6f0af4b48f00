from __future__ import annotations

from typing import Any

import pytest

from bmc.data.schema import PAIR, assistant, check, content, share, split_prompt, user, with_content
from bmc.errors import Faults


def told(rows: list[dict[str, Any]], columns: tuple[str, ...] = PAIR) -> list[str]:
    with pytest.raises(Faults) as caught:
        check(rows, columns, "data")
    return str(caught.value).splitlines()


def pair(**changes: Any) -> dict[str, Any]:
    return {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"} | changes


def test_content_of_a_string_and_of_messages() -> None:
    assert content("hello") == "hello"
    assert content([*user("hello"), *assistant("hi")]) == "hello\n\nhi"


def test_with_content_keeps_the_form() -> None:
    assert with_content("old", "new") == "new"
    given = [*user("q"), {"role": "assistant", "content": "old", "name": "x"}]
    assert with_content(given, "new") == [*user("q"), {"role": "assistant", "content": "new", "name": "x"}]
    assert content(given) == "q\n\nold"


def test_share_is_nested_and_uniform() -> None:
    shares = [share(f"row-{number}") for number in range(4000)]
    fifth = {number for number, value in enumerate(shares) if value < 0.2}
    two_fifths = {number for number, value in enumerate(shares) if value < 0.4}
    assert fifth < two_fifths
    assert 0 <= min(shares) <= max(shares) < 1
    # binomial: 800 ± 25 and 1600 ± 31; four deviations are allowed
    assert 700 < len(fifth) < 900
    assert 1476 < len(two_fifths) < 1724


def test_share_is_the_start_of_the_sha256() -> None:
    # printf x | sha256sum: 2d711642b726b…; 0x2d71… / 0x10000… = 0.1775…
    assert share("x") == pytest.approx(0x2D711642B726B / 16**13)


def test_split_prompt_of_ultrafeedback() -> None:
    """The prompt is a string, and the first message of both responses."""
    row = {"prompt": "q", "chosen": [*user("q"), *assistant("a")], "rejected": [*user("q"), *assistant("b")], "id": "1"}
    assert split_prompt(row) == {"prompt": user("q"), "chosen": assistant("a"), "rejected": assistant("b"), "id": "1"}


def test_split_prompt_without_a_prompt() -> None:
    turns = [*user("q"), *assistant("a"), *user("r")]
    row = {"chosen": [*turns, *assistant("x")], "rejected": [*turns, *assistant("y")]}
    assert split_prompt(row) == {"prompt": turns, "chosen": assistant("x"), "rejected": assistant("y")}


def test_split_prompt_keeps_the_last_message_of_equal_responses() -> None:
    both = [*user("q"), *assistant("a")]
    assert split_prompt({"chosen": both, "rejected": both}) == {
        "prompt": user("q"), "chosen": assistant("a"), "rejected": assistant("a"),
    }  # fmt: skip


def test_split_prompt_makes_messages_of_a_lone_prompt() -> None:
    row = {"prompt": "q", "chosen": assistant("a"), "rejected": assistant("b")}
    assert split_prompt(row) == {**row, "prompt": user("q")}


@pytest.mark.parametrize(
    "row",
    [
        pair(),
        {"prompt": "q", "completion": "c"},
        {"messages": user("q")},
        pair(prompt=user("q"), chosen=assistant("a")),
    ],
)
def test_split_prompt_leaves_other_rows_alone(row: dict[str, Any]) -> None:
    assert split_prompt(row) == row


def test_good_rows_pass() -> None:
    check([pair(), pair(rejected="6")], PAIR, "data")
    check([pair(prompt=user("q"), chosen=assistant("a"), rejected=assistant("b"))], PAIR, "data")
    check([{"messages": [*user("q"), *assistant("a")]}], ("messages",), "data")
    check([{"prompt": "q", "answer": 4}], ("prompt",), "data")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (pair(prompt=""), "prompt: is empty; write it or remove the row"),
        (pair(chosen=" \n"), "chosen: is empty; write it or remove the row"),
        (pair(prompt=[]), "prompt: is empty; write it or remove the row"),
        (pair(chosen="5"), "rejected: equals chosen, so there is no preference; remove the row"),
        ({"prompt": "q", "chosen": "a"}, "rejected: is missing; there are chosen, prompt"),
        (pair(chosen=None), "chosen: is missing; there are chosen, prompt, rejected"),
        (pair(chosen=3), "chosen: must be a string or a list of messages with `role` and `content`"),
        (pair(chosen=[{"content": "a"}]), "chosen: must be a string or a list of messages with `role` and `content`"),
        (pair(chosen=[{"role": "a"}]), "chosen: must be a string or a list of messages with `role` and `content`"),
        (pair(chosen=["a"]), "chosen: must be a string or a list of messages with `role` and `content`"),
        (pair(prompt=user("q")), "chosen, rejected: a string, but the rest are messages; make them alike"),
    ],
)
def test_one_fault(row: dict[str, Any], fault: str) -> None:
    assert told([pair(), row]) == [f"data: row 2: {fault}"]


def test_messages_are_no_string() -> None:
    assert told([{"messages": "q"}], ("messages",)) == [
        "data: row 1: messages: must be a list of messages with `role` and `content`"
    ]


def test_every_fault_of_every_row() -> None:
    assert told([pair(prompt="", chosen=""), pair(), pair(rejected="")]) == [
        "data: row 1: prompt: is empty; write it or remove the row",
        "data: row 1: chosen: is empty; write it or remove the row",
        "data: row 3: rejected: is empty; write it or remove the row",
    ]


def test_no_more_than_the_first_faults() -> None:
    found = told([pair(prompt="")] * 50)
    assert len(found) == 21
    assert found[-1] == "data: more rows may be at fault; these are the first 20"
