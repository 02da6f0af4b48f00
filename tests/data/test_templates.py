import copy
from pathlib import Path
from typing import Any

import pytest
from test_masks import ZEPHYR

from bmc.data.schema import assistant, user
from bmc.data.tokenization import check_template, encode_prompt, read_template
from bmc.errors import UserErrors
from bmc.models import load_tokenizer

INSTRUCTION = Path(__file__).parents[2] / "recipes/chat_templates/instruction.jinja"


@pytest.fixture
def instructed(tokenizer: Any) -> Any:
    """The tiny tokenizer with the repository's plain template."""
    other = copy.deepcopy(tokenizer)
    other.chat_template = read_template(str(INSTRUCTION))
    return other


def told(tokenizer: Any, rows: list[dict[str, Any]], responses: tuple[str, ...] = ("chosen", "rejected")) -> list[str]:
    with pytest.raises(UserErrors) as caught:
        check_template(tokenizer, rows, responses, "data")
    return str(caught.value).splitlines()


def test_messages_are_encoded_with_the_generation_prompt(tokenizer: Any) -> None:
    ids = encode_prompt(tokenizer, {"prompt": user("hé?")})
    assert tokenizer.decode(ids) == "<s><user> hé?\n<assistant> "
    assert ids[0] == tokenizer.bos_token_id
    assert len(ids) == 1 + len("<user> hé?\n<assistant> ".encode())


def test_a_string_is_encoded_as_it_stands(tokenizer: Any) -> None:
    ids = encode_prompt(tokenizer, {"prompt": "hé?"})
    assert tokenizer.decode(ids) == "hé?"
    assert len(ids) == 4


def test_the_prompt_begins_the_whole_conversation(instructed: Any) -> None:
    prompt = encode_prompt(instructed, {"prompt": user("2 + 2?")})
    whole = instructed.apply_chat_template([*user("2 + 2?"), *assistant("4")], tokenize=True, return_dict=True)
    assert whole["input_ids"][: len(prompt)] == prompt
    assert instructed.decode(whole["input_ids"][len(prompt) :]) == "4</s>"
    assert instructed.decode(prompt) == "<s>### Instruction:\n2 + 2?\n\n### Response:\n"


def test_read_template() -> None:
    assert read_template(None) is None
    assert read_template("{{ messages }}") == "{{ messages }}"
    assert "### Instruction" in (read_template(str(INSTRUCTION)) or "")
    with pytest.raises(UserErrors, match=r"^chat_template: no/such.jinja cannot be read: No such file or directory$"):
        read_template("no/such.jinja")


def test_conversations_that_the_template_takes(instructed: Any) -> None:
    check_template(instructed, [{"prompt": user("q"), "chosen": assistant("a")}], ("chosen",), "data")
    check_template(instructed, [{"messages": [*user("q"), *assistant("a")]}], (), "data")
    check_template(instructed, [{"prompt": "a string needs none", "chosen": "x"}], ("chosen",), "data")


def test_two_user_messages_in_a_row_are_refused(instructed: Any) -> None:
    good = {"prompt": user("q"), "chosen": assistant("a"), "rejected": assistant("b")}
    bad = good | {"prompt": [*user("q"), *user("r")]}
    assert told(instructed, [good, bad]) == [
        "data: row 2: the chat template refuses its messages (roles user, user, assistant): "
        "this template takes one user message and at most one assistant message"
    ]


def test_the_second_message_must_be_the_assistants(instructed: Any) -> None:
    (fault,) = told(instructed, [{"prompt": [*user("q"), *user("r")]}], ())
    assert fault.endswith("(roles user, user): the second message must be the assistant's")


def test_messages_need_a_template(tokenizer: Any) -> None:
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    assert told(bare, [{"prompt": user("q")}]) == ["chat_template: the tokenizer has none; name one in the recipe"]
    check_template(bare, [{"prompt": "q", "chosen": "a"}], ("chosen",), "data")


def test_a_template_that_is_none_is_told_once(tokenizer: Any) -> None:
    broken = copy.deepcopy(tokenizer)
    broken.chat_template = "{% for message in messages %}"
    (fault,) = told(broken, [{"prompt": user("q")}] * 3)
    assert fault.startswith("chat_template: is no Jinja template (line 1: ")


def test_no_more_than_five_rows_are_told(instructed: Any) -> None:
    assert len(told(instructed, [{"prompt": assistant("q")}] * 9)) == 5


# --- an empty system turn ------------------------------------------------------------------------------------------

LLAMA_3 = (
    "{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + "
    "message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
)
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '\n' }}{% endfor %}"
)
HELLO = [{"role": "user", "content": "Hello"}]
BRIEF = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("template", "messages", "rendered"),
    [
        (ZEPHYR, HELLO, "<|system|>\n</s>\n<|user|>\nHello</s>\n<|assistant|>\n"),
        (ZEPHYR, [BRIEF, *HELLO], "<|system|>\nBe brief.</s>\n<|user|>\nHello</s>\n<|assistant|>\n"),
        (CHATML, HELLO, "<|im_start|>system\n\n<|im_start|>user\nHello\n"),
        (LLAMA_3, HELLO, "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"),
    ],
)
def test_an_empty_system_turn(template: str, messages: list[dict[str, str]], rendered: str, model_dir: Path) -> None:
    def render(empty_system: bool) -> str:
        tokenizer = load_tokenizer(str(model_dir), "main", False, template, empty_system)
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    assert render(True) == rendered
    empty = "<|im_start|>system\n\n" if template is CHATML else "<|system|>\n</s>\n"
    assert render(False) == rendered.removeprefix(empty)


def test_an_empty_system_turn_is_saved_with_the_tokenizer_and_comes_once(model_dir: Path, tmp_path: Path) -> None:
    load_tokenizer(str(model_dir), "main", False, ZEPHYR, True).save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path), "main", False, None, True)
    ids = encode_prompt(again, {"prompt": HELLO})
    assert again.decode(ids) == "<|system|>\n</s>\n<|user|>\nHello</s>\n<|assistant|>\n"


def test_a_prompt_that_the_template_refuses_alone(tokenizer: Any) -> None:
    """Training and sampling render it alone, too."""
    other = copy.deepcopy(tokenizer)
    other.chat_template = "{% if messages | length < 2 %}{{ raise_exception('too short') }}{% endif %}x"
    row = {"prompt": user("q"), "chosen": assistant("a")}
    assert told(other, [row], ("chosen",)) == [
        "data: row 1: the chat template refuses its messages (roles user): too short"
    ]
