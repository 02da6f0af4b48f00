"""The special tokens of chat templates in texts: found, and made harmless on their way to an editor.

A server renders messages by its model's chat template and reads special tokens in them as such, so a response that
holds `<|im_end|>` could end its own message. A word joiner within the token keeps it from being one; what the editor
sends back is freed of it again.
"""

from __future__ import annotations

import re

_JOINER = "\u2060"
_TOKENS = (
    r"<[|｜][^<>|｜\s]{1,60}[|｜]>",  # ChatML, Llama 3 and 4, Phi, Qwen, DeepSeek, Command R, gpt-oss
    r"\[/?INST\]|<</?SYS>>|</?s>",  # Llama 2, Mistral
    r"\[/?(?:AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|SYSTEM_PROMPT|THINK)\]",  # Mistral
    r"</?(?:start|end)_of_(?:turn|utterance|image)>|<(?:bos|eos|pad|unk)>",  # Gemma, SmolVLM
    r"\[gMASK\]|<sop>",  # GLM
)
SPECIAL = re.compile("|".join(_TOKENS))
_HEADING = re.compile(r"^### ?(?:Instruction|Input|Response|System|User|Human|Assistant) ?:", re.MULTILINE)
_TAG = re.compile(r"</?(?:revised|draft|reference|verdict|scores)(?: [0-9a-f]+)?>", re.IGNORECASE)
# A change that is marked instead of made: ~~old~~ **new**, CriticMarkup, word diffs, HTML.
_DIFF_MARKS = re.compile(
    r"~~[^~\n]+~~|</?(?:del|ins|strike)>|\{(?:--|\+\+|~~)[^{}\n]*(?:--|\+\+|~~)\}|\[-[^\]\n]*-\]|\{\+[^}\n]*\+\}|^```diff$",
    re.MULTILINE,
)
# What may be a special token, with joiners after its first character.
_JOINED = re.compile(rf"([<\[])({_JOINER}*)([^<>\[\]\s]{{1,70}}[>\]]|</?SYS>>)")


def defuse(text: str) -> str:
    """The text with a word joiner, or one more, after the first character of each special token.

    >>> defuse("<s>") == "<\u2060s>"
    True
    """
    return _JOINED.sub(lambda token: token[1] + _JOINER + token[2] + token[3] if _is_special(token) else token[0], text)


def restore(text: str) -> str:
    """What `defuse` was given, or what an editor made of it."""
    return _JOINED.sub(lambda token: token[1] + token[2][1:] + token[3] if _is_special(token) else token[0], text)


def _is_special(token: re.Match[str]) -> bool:
    return SPECIAL.fullmatch(token[1] + token[3]) is not None


def delimiters(text: str) -> set[str]:
    """Find the special tokens, headings of turns (`### Response:`), the prompts' tags and diff marks in a text."""
    return {found[0] for pattern in (SPECIAL, _HEADING, _TAG, _DIFF_MARKS) for found in pattern.finditer(text)}
