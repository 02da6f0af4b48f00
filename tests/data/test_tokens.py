"""Tokens are the trainer's, whatever the template and the tokenizer, and their spans are the words'."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference_tokens import merging_tokenizer, trl_tokens
from tokenizers import processors

from bmc.data.schema import assistant, content, user
from bmc.data.tokenization import (
    AlignmentError,
    ContinuationDecoder,
    align_response,
    check_offsets,
    response_prefix,
    response_start,
)
from bmc.errors import UserErrors

TRIMMING = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content | trim }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
THINKING = (  # its prompt alone ends otherwise than its prompt before a response
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant><think>{% endif %}"
)
TOOLS = (
    "{% if tools %}{{ tools[0].name }}{% endif %}{{ mood | default('') }}"
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
ROWS: dict[str, dict[str, Any]] = {
    "strings": {"prompt": "Q: ", "chosen": "the cat sat. So é", "rejected": "the cat"},
    "EOS is there already": {"prompt": "Q:", "chosen": "the cat</s>", "rejected": " a</s>"},
    "merging at the boundary": {"prompt": "Q:", "chosen": " the cat", "rejected": " the sat"},
    "one merges": {"prompt": "Q:", "chosen": " the cat", "rejected": "sat"},
    "messages": {"prompt": user("Q"), "chosen": assistant("the cat\n sat"), "rejected": assistant("cat")},
    "spaces": {"prompt": user("Q"), "chosen": assistant("  the cat \n"), "rejected": assistant("\ncat")},
    "several": {
        "prompt": user("Q"),
        "chosen": [*assistant("the cat"), *user("the"), *assistant("sat")],
        "rejected": [*assistant("the"), *user("cat"), *assistant(" sat ")],
    },
    "the role's own words": {"prompt": user("user"), "chosen": assistant("assistant"), "rejected": assistant(">")},
}


def tokenizers(plain: Any) -> dict[str, Any]:
    import copy

    made = {"bytes": plain, "merging": merging_tokenizer(plain.chat_template)}
    for name, template in (("trimming", TRIMMING), ("thinking", THINKING), ("tools", TOOLS)):
        made[name] = copy.deepcopy(plain)
        made[name].chat_template = template
    made["BOS"] = copy.deepcopy(plain)  # writes one before a text; the template writes it itself
    begin = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", plain.bos_token_id)])
    made["BOS"].backend_tokenizer.post_processor = begin
    return made


def both(tokenizer: Any, row: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    sides = {side: align_response(tokenizer, row, row[side]) for side in ("chosen", "rejected")}
    return response_start(tokenizer, row, *(tokens.ids for tokens in sides.values())), sides


@pytest.mark.slow
def test_tokens_are_the_trainers(subtests: pytest.Subtests, tokenizer: Any) -> None:
    for kind in ["bytes", "merging", "trimming", "thinking", "tools", "BOS"]:
        for name in list(ROWS):
            with subtests.test(kind=kind, name=name):
                row, chosen = ROWS[name], tokenizers(tokenizer)[kind]
                trl = trl_tokens(chosen, row)
                start, sides = both(chosen, row)
                for side, tokens in sides.items():
                    assert tokens.ids == trl["prompt_ids"] + trl[f"{side}_ids"]
                    assert len(tokens.spans) == len(tokens.ids)
                    assert tokens.ids[start:] == trl[f"{side}_ids"]
                    if kind == "BOS":
                        assert tokens.ids.count(chosen.bos_token_id) == 1


def test_a_rows_own_template_options_count(tokenizer: Any) -> None:
    row = ROWS["messages"] | {"tools": '[{"name": "look"}]', "chat_template_kwargs": {"mood": "glad"}}
    with_tools = tokenizers(tokenizer)["tools"]
    trl = trl_tokens(with_tools, row)
    start, sides = both(with_tools, row)
    assert tokenizer.decode(sides["chosen"].ids[:start]) == "lookglad<user>Q<assistant>"
    assert sides["chosen"].ids == trl["prompt_ids"] + trl["chosen_ids"]


def test_spans_are_where_the_words_are() -> None:
    tokenizer = merging_tokenizer()
    row = {"prompt": "Q:", "chosen": " the cat. So é", "rejected": " the"}
    tokens = align_response(tokenizer, row, row["chosen"])
    named = list(zip(tokenizer.convert_ids_to_tokens(tokens.ids), tokens.spans, strict=True))
    assert named == [
        ("▁Q", (0, 0)),
        (":▁the", (0, 4)),  # the prompt's colon is none of the response
        ("▁cat", (4, 8)),
        (".▁So", (8, 12)),
        ("▁", (12, 13)),
        ("<0xC3>", (13, 14)),  # two tokens of one character
        ("<0xA9>", (13, 14)),
        ("</s>", (0, 0)),
    ]


def test_spans_of_messages_are_in_their_joined_words(tokenizer: Any) -> None:
    row = ROWS["several"]
    words = content(row["rejected"])
    assert words == "the\n\ncat\n\n sat "
    for kind in ("bytes", "trimming"):
        tokens = align_response(tokenizers(tokenizer)[kind], row, row["rejected"])
        seen = [words[start:end] for start, end in tokens.spans if end]
        assert "".join(seen) == ("thecat sat " if kind == "bytes" else "thecatsat")
        assert all(end - start in (0, 1) for start, end in tokens.spans)


def test_a_template_that_changes_the_words(subtests: pytest.Subtests, tokenizer: Any) -> None:
    for template in [
        "{% for message in messages %}{{ message.content | upper }}{% endfor %}",
        "{% for message in messages %}{{ message.content + message.content }}{% endfor %}",
        "{% for message in messages[:2] %}{{ message.content }}{% endfor %}",
        "no words",
    ]:
        with subtests.test(template=template):
            import copy

            other = copy.deepcopy(tokenizer)
            other.chat_template = template
            for response in (ROWS["several"]["chosen"], [*assistant("cat"), *user("")]):
                with pytest.raises(AlignmentError, match="the chat template changes the response"):
                    align_response(other, ROWS["several"], response)


def test_a_tokenizer_without_offsets_is_a_fault(tokenizer: Any) -> None:
    check_offsets(tokenizer)
    with pytest.raises(UserErrors, match="tokenizer_name_or_path: SimpleNamespace can't tell which characters"):
        check_offsets(SimpleNamespace(is_fast=False))


# --- beginnings ----------------------------------------------------------------------------------------------------


def test_a_share_of_the_tokens_but_one_and_less_than_all(subtests: pytest.Subtests, tokenizer: Any) -> None:
    table: list[tuple[Any, ...]] = [
        (0.5, "abcde"), (0.01, "a"), (0.99, "abcdefghi"), (0.24, "ab"), (0.25, "ab"), (0.26, "abc")
    ]  # fmt: skip
    for fraction, text in table:
        with subtests.test(fraction=fraction, text=text):
            row = {"prompt": user("x"), "chosen": assistant("abcdefghij")}  # a token a letter
            ids, begins = response_prefix(tokenizer, row, row["chosen"], fraction)
            assert begins == text
            assert tokenizer.decode(ids) == f"<s><user> x\n<assistant> {text}"


def test_strings_begin_with_their_prompt() -> None:
    tokenizer = merging_tokenizer()
    row = {"prompt": "Q:", "chosen": " the cat sat. So"}
    ids, begins = response_prefix(tokenizer, row, row["chosen"], 0.5)  # ": the", " cat", " sat", ". So"
    assert (tokenizer.convert_ids_to_tokens(ids), begins) == (["▁Q", ":▁the", "▁cat"], " the cat")


def test_no_character_is_cut(tokenizer: Any) -> None:
    row = {"prompt": user("x"), "chosen": assistant("é🙂a")}  # 2, 4 and 1 tokens: cuts at 2 and 6 of 7
    for fraction, text in ((0.1, "é"), (0.55, "é"), (0.6, "é🙂"), (0.9, "é🙂")):
        ids, begins = response_prefix(tokenizer, row, row["chosen"], fraction)
        assert begins == text
        assert tokenizer.decode(ids).endswith(f"<assistant> {text}")


def test_no_beginning(subtests: pytest.Subtests, tokenizer: Any) -> None:
    table: list[tuple[Any, ...]] = [
        (assistant("a"), "y_w has no tokens between which to cut it"),
        (assistant("🙂"), "y_w has no tokens between which to cut it"),
        ("a", "y_w has no tokens between which to cut it"),
        ([*assistant("abc"), *user("d"), *assistant("efg")], "y_w is several messages"),
    ]
    for chosen, reason in table:
        with subtests.test(chosen=chosen, reason=reason):
            row = {"prompt": "x" if isinstance(chosen, str) else user("x")}
            with pytest.raises(AlignmentError, match=reason):
                response_prefix(tokenizer, row, chosen, 0.5)


@given(text=st.text(min_size=1), fraction=st.floats(0.01, 0.99))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_beginning_is_a_beginning(text: str, fraction: float, tokenizer: Any) -> None:
    row = {"prompt": "x: ", "chosen": text}
    try:
        ids, begins = response_prefix(tokenizer, row, text, fraction)
    except AlignmentError:
        return
    assert text.startswith(begins)
    assert 0 < len(begins) < len(text)
    assert tokenizer.decode(ids) == f"x: {begins}"


def test_a_continuation_keeps_the_space_before_it() -> None:
    tokenizer = merging_tokenizer()
    ids = tokenizer.convert_tokens_to_ids(["▁cat", "▁sat", "</s>"])
    assert tokenizer.decode(ids, skip_special_tokens=True) == "cat sat"
    continuing = ContinuationDecoder(tokenizer)
    assert continuing.decode(ids, skip_special_tokens=True) == " cat sat"
    assert continuing.decode([], skip_special_tokens=True) == ""
    assert continuing.eos_token_id == tokenizer.eos_token_id
