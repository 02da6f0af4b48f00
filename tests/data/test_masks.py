"""The assistant's tokens by rendering prefixes, against TRL's templates with markers and against masks by hand."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import trl
from jinja2 import TemplateError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bmc.data.tokenization import MaskError, mark_assistant, read_template, turn_end

ROOT = Path(__file__).parents[2]
TRL = Path(trl.__file__).parent / "chat_templates"
SPECIAL = re.compile(r"<[|｜][^<>|｜\n]+[|｜]>|<\w+_of_\w+>|\[/?INST\]")

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are SmolLM<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ZEPHYR = (  # of the alignment-handbook, and of the released BMC recipe for Mistral
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + "
    "eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n"
    "{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
LLAMA3 = (  # as Meta has it, and the released BMC recipe for Llama 3
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA2 = (  # no generation prompt; the system message goes into the first user turn
    "{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + (system if loop.first else '') + "
    "message['content'] + ' [/INST]' }}{% else %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
MISTRAL = (  # v0.3 and later put the system message, as tools, before the last user turn
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set messages = messages[1:] %}"
    "{% endif %}{% set users = messages | selectattr('role', 'equalto', 'user') | list %}{{ bos_token }}"
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{% if system is defined and message is sameas users[-1] %}"
    "{{ '[INST] ' + system + '\n\n' + message['content'] + '[/INST]' }}{% else %}"
    "{{ '[INST] ' + message['content'] + '[/INST]' }}{% endif %}"
    "{% else %}{{ ' ' + message['content'] | trim + eos_token }}{% endif %}{% endfor %}"
)


def byte_tokenizer(template: str, more: str = "") -> Any:
    """One token a byte, and one for each special token that a template writes."""
    symbols = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=[]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", chat_template=template
    )
    tokenizer.add_tokens(sorted({*SPECIAL.findall(template + more)}), special_tokens=True)
    return tokenizer


def says(role: str, content: str | None, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def shown(tokenizer: Any, row: dict[str, Any], mask: str = "assistant_masks") -> str:
    """The text, with «» around what the mask has."""
    before = [0, *row[mask]]
    pieces = [
        "«»"[was] * (was != now) + tokenizer.decode([token])
        for token, now, was in zip(row["input_ids"], row[mask], before, strict=False)
    ]
    return "".join(pieces) + "»" * row[mask][-1]


TALK = [says("user", "hi"), says("assistant", "yes ok"), says("user", "yes more"), says("assistant", "done")]
TALKS = {
    "one turn": TALK[:2], "two turns": TALK, "system": [says("system", "be"), *TALK],
    "blanks": [says("user", "hi"), says("assistant", " yes\n"), says("user", "q"), says("assistant", "a\n")],
    "repeats": [says("user", "q"), says("assistant", "q"), says("user", "q"), says("assistant", "q")],
    "special token in the words": [says("user", "hi"), says("assistant", "a <|im_end|> b"), *TALK[2:]],
    "tool": [
        says("user", "hi"),
        says("assistant", "", tool_calls=[{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}]),
        says("tool", "3", name="f"), says("assistant", "it is 3"), *TALK
    ]
}  # fmt: skip


def test_the_masks_are_those_of_markers(subtests: pytest.Subtests) -> None:
    table1: list[tuple[Any, ...]] = [
        *(
            (name, "")
            for name in ("llama3", "gemma", "gemma3", "phi3", "phi3_5", "cohere", "lfm2", "qwen3_instruct_2507")
        ),
        *(("qwen2_5", "\n"), ("deepseekv3", "<｜Assistant｜>"), ("gptoss", "<|start|>assistant")),
    ]
    for talk in TALKS:
        for name, early in table1:
            with subtests.test(talk=talk, name=name, early=early):
                plain, marked = ((TRL / f"{name}{kind}.jinja").read_text() for kind in ("", "_training"))
                with_markers, without = byte_tokenizer(marked, plain), byte_tokenizer(plain, marked)
                row = {"messages": TALKS[talk]}
                for tokenizer in (with_markers, without):  # Gemma has no system message, and some have no tools
                    try:
                        tokenizer.apply_chat_template(row["messages"], tokenize=False)
                    except (TemplateError, TypeError):
                        pytest.skip("the template refuses these messages")
                theirs = mark_assistant(row, with_markers)
                ours = mark_assistant(row, without)
                assert ours["input_ids"] == theirs["input_ids"]
                assert shown(without, ours) == shown(without, theirs).replace(f"«{early}", f"{early}«")


def test_templates_without_markers(subtests: pytest.Subtests) -> None:
    table: list[tuple[Any, ...]] = [
        (
            SMOLLM2,
            "<|im_start|>system\nbe<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n«yes ok"
            "<|im_end|>\n»<|im_start|>user\nyes more<|im_end|>\n<|im_start|>assistant\n«done<|im_end|>\n»",
        ),
        (
            ZEPHYR,
            "<|system|>\nbe</s>\n<|user|>\nhi</s>\n<|assistant|>\n«yes ok</s>\n»<|user|>\nyes more</s>\n<|assistant|>\n"
            "«done</s>\n»",
        ),
        (
            LLAMA3,
            "<s><|start_header_id|>system<|end_header_id|>\n\nbe<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nhi"
            "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n«yes ok<|eot_id|>»<|start_header_id|>user"
            "<|end_header_id|>\n\nyes more<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n«done<|eot_id|>»",
        ),
        (LLAMA2, "<s>[INST] <<SYS>>\nbe\n<</SYS>>\n\nhi [/INST]« yes ok </s>»<s>[INST] yes more [/INST]« done </s>»"),
        (MISTRAL, "<s>[INST] hi[/INST] «yes ok</s>»[INST] be\n\nyes more[/INST]« done</s>»"),
    ]
    for template, text in table:
        with subtests.test(template=template, text=text):
            tokenizer = byte_tokenizer(template)
            marked = mark_assistant({"messages": TALKS["system"]}, tokenizer)
            rendered = tokenizer.apply_chat_template(TALKS["system"], tokenize=True, return_dict=True)
            assert marked["input_ids"] == rendered["input_ids"]
            assert shown(tokenizer, marked) == text


def test_thoughts_that_the_template_drops_from_earlier_turns() -> None:
    tokenizer = byte_tokenizer((TRL / "qwen3.jinja").read_text())
    talk = [says("user", "hi"), says("assistant", "<think>\nhm\n</think>\n\nyes"), *TALK[2:3]]
    row = {"messages": [*talk, says("assistant", "<think>\nso\n</think>\n\ndone")]}
    assert shown(tokenizer, mark_assistant(row, tokenizer)) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n«yes<|im_end|>\n»<|im_start|>user\nyes more<|im_end|>\n"
        "<|im_start|>assistant\n«<think>\nso\n</think>\n\ndone<|im_end|>\n»"
    )
    row = {"prompt": talk[:1], "completion": TALK[1:2], "chat_template_kwargs": {"enable_thinking": False}}
    marked = mark_assistant(row, tokenizer)
    assert shown(tokenizer, marked).endswith("assistant\n<think>\n\n</think>\n\n«yes ok<|im_end|>\n»")
    assert marked["completion_mask"] == marked["assistant_masks"]


def test_a_template_that_refuses_the_messages_before_a_turn() -> None:
    """Qwen3.5's raises "No user query found" for a greeting of the assistant's, but not for the whole."""
    template = (TRL / "qwen3_5_nothink.jinja").read_text()
    talk = [says("system", "be"), says("assistant", "hello"), *TALK[:2]]
    tokenizer = byte_tokenizer(template)
    assert shown(tokenizer, mark_assistant({"messages": talk}, tokenizer)) == (
        "<|im_start|>system\nbe<|im_end|>\n<|im_start|>assistant\n«hello<|im_end|>\n»<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n«yes ok<|im_end|>\n»"
    )


def test_the_repositorys_own_template() -> None:
    template = read_template(str(ROOT / "recipes/chat_templates/instruction.jinja"))
    tokenizer = byte_tokenizer(str(template))
    marked = mark_assistant({"messages": TALK[:2]}, tokenizer)
    assert shown(tokenizer, marked) == "<s>### Instruction:\nhi\n\n### Response:\n«yes ok</s>»"


def test_a_completion_of_several_messages() -> None:
    """The user's turn in it is behind the prompt, but none of the assistant's."""
    tokenizer = byte_tokenizer(LLAMA2)
    marked = mark_assistant({"prompt": TALK[:1], "completion": TALK[1:]}, tokenizer)
    assert shown(tokenizer, marked) == "<s>[INST] hi [/INST]« yes ok </s>»<s>[INST] yes more [/INST]« done </s>»"
    assert shown(tokenizer, marked, "completion_mask").startswith("<s>[INST] hi [/INST]« yes ok </s><s>[INST] yes")


def test_a_conversation_without_an_assistant() -> None:
    for template in (SMOLLM2, (TRL / "llama3_training.jinja").read_text()):
        with pytest.raises(MaskError, match="no message of the assistant's"):
            mark_assistant({"messages": TALK[:1]}, byte_tokenizer(template))


def test_what_ends_a_turn(subtests: pytest.Subtests) -> None:
    table: list[tuple[Any, ...]] = [
        (SMOLLM2, "<|im_end|>"),
        (ZEPHYR, "</s>"),
        (LLAMA3, "<|eot_id|>"),
        (LLAMA2, "</s>"),
        (MISTRAL, "</s>"),
        *(
            ((TRL / f"{name}.jinja").read_text(), end)
            for name, end in {
                "gemma": "<end_of_turn>",
                "phi3": "<|end|>",
                "qwen3": "<|im_end|>",
                "gptoss": "<|return|>",
                "deepseekv3": "<｜end▁of▁sentence｜>",
                "glm4moe": None,
            }.items()
        ),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", None),
        ("{{ raise_exception('no') }}", None),
    ]
    for template, end in table:
        with subtests.test(template=template, end=end):
            tokenizer = byte_tokenizer(template)
            assert turn_end(tokenizer) == (None if end is None else tokenizer.convert_tokens_to_ids(end))


def test_a_token_that_the_tokenizer_lacks_ends_no_turn(tokenizer: Any) -> None:
    """ChatML on a tokenizer that reads its tokens as so many letters."""
    other = copy.deepcopy(tokenizer)
    other.chat_template = SMOLLM2
    assert turn_end(other) is None
