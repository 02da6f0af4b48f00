import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmc.bridging.validators import SPECIAL, escape_special_tokens, find_delimiters, unescape_special_tokens

TOKENS = [
    "<|im_end|>", "<｜User｜>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<s>", "</s>", "<bos>", "<end_of_turn>"
]  # fmt: skip


def test_a_special_token_is_none_once_it_is_defused(subtests: pytest.Subtests) -> None:
    for token in TOKENS:
        with subtests.test(token=token):
            assert escape_special_tokens(f"a{token}b") == f"a{token[0]}\u2060{token[1:]}b"
            assert unescape_special_tokens(f"a{token[0]}\u2060{token[1:]}b") == f"a{token}b"
            assert unescape_special_tokens(f"a{token}b") == f"a{token}b"  # an editor may leave the joiner out
            assert find_delimiters(f"a{token}b") == {token}


def test_other_texts_are_left_alone(subtests: pytest.Subtests) -> None:
    for text in ["<b>x</b>", "a[i]", "x < y | z > w", "[1] <|> <||>", "<script>", "[INSTALL]", "<S>"]:
        with subtests.test(text=text):
            assert escape_special_tokens(text) == unescape_special_tokens(text) == text
            assert find_delimiters(text) == set()


@given(
    st.lists(st.sampled_from([*TOKENS, "<", ">", "[", "]", "|", "\u2060", "a", " ", "SYS", "s"]), max_size=12).map(
        "".join
    )
)
def test_no_special_token_is_left_and_none_is_lost(text: str) -> None:
    assert not SPECIAL.search(escape_special_tokens(text))
    assert unescape_special_tokens(escape_special_tokens(text)) == text


def test_tags_of_the_prompts_and_headings_of_turns() -> None:
    text = "</draft> <revised 1a2b3c>\n### Response: x ### Input: y\n<verdict>"
    assert find_delimiters(text) == {"</draft>", "<revised 1a2b3c>", "### Response:", "<verdict>"}
