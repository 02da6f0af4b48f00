import json
from typing import Any

import pytest

from bmc.data.schema import (
    PAIR,
    assistant,
    check_rows,
    content,
    hash_fraction,
    split_prompt,
    transcript,
    user,
    with_content,
)
from bmc.errors import UserErrors


def told(rows: list[dict[str, Any]], columns: tuple[str, ...] = PAIR) -> list[str]:
    with pytest.raises(UserErrors) as caught:
        check_rows(rows, columns, "data")
    return str(caught.value).splitlines()


def pair(**changes: Any) -> dict[str, Any]:
    return {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"} | changes


def test_content_and_transcript() -> None:
    assert content("hello") == "hello"
    assert content([*user("hello"), *assistant("hi")]) == "hello\n\nhi"
    assert with_content("old", "new") == "new"
    given = [*user("q"), {"role": "assistant", "content": "old", "name": "x"}]
    assert with_content(given, "new") == [*user("q"), {"role": "assistant", "content": "new", "name": "x"}]
    assert content(given) == "q\n\nold"
    assert transcript("Q?") == transcript([Q]) == "Q?"
    assert transcript([SYSTEM, Q, CALL, RESULT]) == (
        'system: Be brief.\n\nuser: Q?\n\nassistant: [{"function": {"name": "add", "arguments": {"a": 1}}}]\n\ntool: 3'
    )


def test_hash_fractions_are_nested_uniform_and_the_start_of_the_sha256() -> None:
    # printf x | sha256sum: 2d711642b726b…; 0x2d71… / 0x10000… = 0.1775…
    assert hash_fraction("x") == pytest.approx(0x2D711642B726B / 16**13)
    fractions = [hash_fraction(f"row-{number}") for number in range(4000)]
    assert 0 <= min(fractions) <= max(fractions) < 1
    # binomial: 800 ± 25 and 1600 ± 31; four deviations are allowed
    assert 700 < sum(value < 0.2 for value in fractions) < 900
    assert 1476 < sum(value < 0.4 for value in fractions) < 1724


SYSTEM, Q, R = {"role": "system", "content": "Be brief."}, *user("Q?"), *user("R?")
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]}
RESULT, A = {"role": "tool", "content": "3"}, *assistant("a")
W, L = *assistant("w"), *assistant("l")


def filled(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in message.items() if value is not None} for message in messages]


def test_an_explicit_prompt_is_kept() -> None:
    table: list[tuple[Any, list[Any], list[Any]]] = [
        ([SYSTEM, Q], [], [SYSTEM, Q]),
        ([SYSTEM, Q], [CALL, RESULT], [SYSTEM, Q, CALL, RESULT]),  # the responses go on
        ([SYSTEM, Q], [Q], [SYSTEM, Q]),  # they repeat the prompt's end
        ([SYSTEM, Q], [SYSTEM, Q], [SYSTEM, Q]),
        ([SYSTEM, Q], [Q, CALL, RESULT], [SYSTEM, Q, CALL, RESULT]),
        ([SYSTEM, Q, A, R], [Q, A, R], [SYSTEM, Q, A, R]),
        ([SYSTEM, Q, A, R], [R], [SYSTEM, Q, A, R]),
        ([Q], [SYSTEM, Q], [SYSTEM, Q]),  # they say more than the prompt
        ([R], [SYSTEM, Q, A, R], [SYSTEM, Q, A, R]),
        ([SYSTEM], [Q, A, R], [SYSTEM, Q, A, R]),
        ([Q], [A, Q], [Q, A, Q]),  # a question that comes again
        ([Q, A, Q], [Q, A, Q], [Q, A, Q]),
        ([Q, CALL, RESULT], [CALL, RESULT], [Q, CALL, RESULT, CALL, RESULT]),  # a call that is made again
        ([Q], [{**Q, "name": None}], [Q]),
        (None, [SYSTEM, Q], [SYSTEM, Q]),
        ([], [Q], [Q]),
        ("Q?", [Q], [Q]),
        ("Q?", [SYSTEM, Q, A, R], [SYSTEM, Q, A, R]),
        ("Q? ", [Q, A, R], [Q, A, R]),
        ("In short: Q?", [Q], user("In short: Q?")),
        ("S?", [Q, A, R], [*user("S?"), Q, A, R]),
        ("Q?", [CALL, RESULT], [Q, CALL, RESULT]),
    ]
    wrong = []
    for prompt, turns, made in table:
        row = {"prompt": prompt, "chosen": [*turns, W], "rejected": [*turns, L], "original_chosen": [*turns, A]}
        split = split_prompt(row)
        rest = {"chosen": [W], "rejected": [L], "original_chosen": [A]}
        if filled(split["prompt"]) != filled(made) or {**split, "prompt": 0} != {"prompt": 0, **rest}:
            wrong.append((prompt, turns, split))
        assert split_prompt(split) == split
    assert not wrong


def test_turns_that_differ_stay_in_the_responses() -> None:
    row = {"prompt": [Q], "chosen": [CALL, RESULT, W], "rejected": [CALL, {**RESULT, "content": "4"}, L]}
    assert split_prompt(row) == {"prompt": [Q, CALL], "chosen": [RESULT, W], "rejected": row["rejected"][1:]}
    row = {"prompt": [Q], "chosen": [A, R, W], "rejected": [L, R, W]}
    assert split_prompt(row) == row


HH = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Is it?\n\nAssistant:"


def test_a_prompt_within_two_strings() -> None:
    table: list[tuple[dict[str, Any], str | None]] = [
        ({"chosen": HH + " It is.", "rejected": HH + " It isn't."}, HH),  # Anthropic's HH has no prompt
        ({"prompt": HH, "chosen": HH + " It is.", "rejected": HH + " It isn't."}, HH),
        ({"prompt": "1 + 2 =", "chosen": "1 + 2 = 3", "rejected": "1 + 2 = 4"}, None),  # a response may restate it
        ({"prompt": HH, "chosen": HH + " Yes", "rejected": " No"}, None),
        *(
            ({"prompt": start, "chosen": start + " It is.", "rejected": start + " It isn't."}, start)
            for start in ("<|user|>\nHi</s>\n<|assistant|>\n", "[INST] Hi [/INST]", "<start_of_turn>model\n")
        ),
        ({"prompt": "x < y > z", "chosen": "x < y > z or", "rejected": "x < y > z and"}, None),
        ({"prompt": HH.removesuffix("\n\nAssistant:"), "chosen": HH + " It is.", "rejected": HH + " It isn't."}, HH),
        ({"chosen": "It is.", "rejected": "It isn't."}, None),
    ]
    for row, prompt in table:
        expected = {"prompt": prompt, "chosen": " It is.", "rejected": " It isn't."}
        assert split_prompt(row) == (row if prompt is None else expected)
    bridged = {"chosen": HH + " a", "rejected": HH + " b", "original_chosen": HH + " c", "original_rejected": "d"}
    assert split_prompt(bridged) == {
        "prompt": HH, "chosen": " a", "rejected": " b", "original_chosen": " c", "original_rejected": "d"
    }  # fmt: skip


def test_other_rows_stay_as_they_are() -> None:
    chat = {"prompt": user("q"), "chosen": assistant("a"), "rejected": assistant("b")}
    for row in (pair(), {"prompt": "q", "completion": "c"}, {"messages": user("q")}, chat, {**chat, "rejected": "b"}):
        assert split_prompt(row) == row
    assert split_prompt({**chat, "prompt": "q"}) == chat  # a lone prompt becomes messages
    both = [*user("q"), *assistant("a")]  # the last message of equal responses stays
    assert split_prompt({"chosen": both, "rejected": both}) == {
        "prompt": user("q"), "chosen": assistant("a"), "rejected": assistant("a"),
    }  # fmt: skip


def test_good_rows_pass() -> None:
    check_rows([pair(), pair(rejected="6")], PAIR, "data")
    check_rows([pair(prompt=user("q"), chosen=assistant("a"), rejected=assistant("b"))], PAIR, "data")
    check_rows([{"messages": [*user("q"), *assistant("a")]}], ("messages",), "data")
    check_rows(
        [{"prompt": "q", "answer": 4}, {"prompt": "q", "answer": ["nothing", "reads", "it"]}], ("prompt",), "data"
    )
    called, other = [CALL], [{**CALL, "tool_calls": [{"function": {"name": "sub", "arguments": {}}}]}]
    tools: list[Any] = [[], None, "", [{"type": "function"}], '[{"type": "function"}]']
    check_rows([pair(meta=2**80, tools=[{"maximum": 2**64 - 1, "minimum": -(2**63)}])], PAIR, "data")
    check_rows(({"prompt": [Q], "chosen": called, "rejected": other, "tools": tool} for tool in tools), PAIR, "data")


def test_each_fault_names_row_column_and_fix() -> None:
    table: list[tuple[dict[str, Any], str]] = [
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
        (
            {"prompt": user("q"), "chosen": [{"role": "assistant", "content": None}], "rejected": assistant("b")},
            "chosen: must be a string or a list of messages with `role` and `content`",
        ),
        (pair(tools="[{"), "tools: must be a list of JSON schemas, or its JSON text"),
        (pair(tools=["add"]), "tools: must be a list of JSON schemas, or its JSON text"),
        (
            pair(chat_template_kwargs="x"),
            "chat_template_kwargs: must map names to values, as in {enable_thinking: false}",
        ),
        (
            pair(tools=json.dumps([{"maximum": 2**64}])),
            "tools: holds 18446744073709551616, which is more than 64 bits; write it as a text, or leave it out",
        ),
        (
            {"prompt": user("q"), "chosen": [{**assistant("a")[0], "n": [-(2**63) - 1]}], "rejected": assistant("b")},
            "chosen: holds -9223372036854775809, which is more than 64 bits; write it as a text, or leave it out",
        ),
        (
            pair(task="qa", answer=["a", "b"]),
            "answer: must be one answer, a text or a number; write the one that counts",
        ),
        (
            pair(prompt=user("q"), chosen=assistant("a"), rejected=assistant("b")),
            "prompt, chosen, rejected: messages, but strings in row 1; make all rows alike",
        ),
        (pair(prompt=user("q")), "chosen, rejected: a string, but the rest are messages; make them alike"),
    ]
    wrong = [(found, fault) for row, fault in table if (found := told([pair(), row])) != [f"data: row 2: {fault}"]]
    assert not wrong
    assert told([{"messages": "q"}], ("messages",)) == [
        "data: row 1: messages: must be a list of messages with `role` and `content`"
    ]


def test_every_fault_of_every_row_up_to_twenty() -> None:
    assert told([pair(prompt="", chosen=""), pair(), pair(rejected="")]) == [
        "data: row 1: prompt: is empty; write it or remove the row",
        "data: row 1: chosen: is empty; write it or remove the row",
        "data: row 3: rejected: is empty; write it or remove the row",
    ]
    found = told([pair(prompt="")] * 50)
    assert len(found) == 21
    assert found[-1] == "data: more rows may be at fault; these are the first 20"


def test_one_fault_shows_the_mapping_to_write() -> None:
    two = "{prompt: history, chosen: human_ref_A, rejected: human_ref_B}; that is right only for rows in which A"
    for names, mapping in (
        (["system", "question", "chosen", "rejected"], "{prompt: question, chosen: chosen, rejected: rejected}"),
        (["history", "human_ref_A", "human_ref_B"], two),
        (["prompt", "response", "helpfulness"], "{prompt: prompt, chosen: …, rejected: …}; for … write one of respon"),
        (["prompt", "answers"], "{prompt: prompt, chosen: …, rejected: …}; for … write one of answers"),
    ):
        (fault,) = told([{name: f"{name} {number}" for name in names} for number in range(50)])
        assert fault.startswith("data: has no column ")
        assert f"write in dataset_mixture.datasets what they are called: columns: {mapping}" in fault
