"""How many tokens a text has: by the model's tokenizer where it is on this machine, or by an estimate."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Messages = list[dict[str, str]]
SAMPLE = 256  # texts by which a tokenizer's tokens over the estimate are measured
PER_MESSAGE, PER_REPLY = 4, 3  # tokens of a chat template around each message, and before the reply

_PIECE = re.compile(
    r"(?P<latin>[A-Za-z]*[\u00c0-\u024f\u1e00-\u1eff][A-Za-z\u00c0-\u024f\u1e00-\u1eff]*)|(?P<word>[A-Za-z]+)"
    r"|(?P<digits> ?[0-9]+)|(?P<blanks> +)|(?P<lines>[\r\n]+)|(?P<ascii>[\t\x0b\x0c!-~])"
    r"|(?P<mark>[\u00a0-\u00bf\u0250-\u036f\u2000-\u2bff])|(?P<greek>[\u0370-\u03ff\u1f00-\u1fff]+)"
    r"|(?P<cyrillic>[\u0400-\u052f]+)|(?P<armenian>[\u0530-\u058f\u10a0-\u10ff]+)|(?P<hebrew>[\u0590-\u05ff]+)"
    r"|(?P<arabic>[\u0600-\u08ff]+)|(?P<devanagari>[\u0900-\u097f]+)|(?P<thai>[\u0e00-\u0e7f]+)"
    r"|(?P<khmer>[\u1000-\u109f\u1780-\u17ff]+)|(?P<indic>[\u0980-\u1dff]+)"
    r"|(?P<han>[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]+)|(?P<hangul>[\uac00-\ud7af]+)|(?P<other>[^\x00-\x20])"
)
# Tokens a character. Fitted to tiktoken's cl100k_base (the older models) and o200k_base, which stands for all that came
# after it: on AlpacaEval, GSM8K, MATH-500, ECQA, Chinese instructions, and translations into 20 other languages.
_OLDER = {
    "greek": 0.98, "cyrillic": 0.5, "armenian": 2.0, "hebrew": 1.05, "arabic": 0.88, "devanagari": 1.22, "thai": 0.94,
    "khmer": 1.64, "indic": 1.7, "han": 1.17, "hangul": 1.3, "other": 2.0,
}  # fmt: skip
_NEWER = {
    "greek": 0.37, "cyrillic": 0.3, "armenian": 0.37, "hebrew": 0.4, "arabic": 0.37, "devanagari": 0.385, "thai": 0.38,
    "khmer": 0.52, "indic": 0.42, "han": 0.76, "hangul": 0.72, "other": 1.6,
}  # fmt: skip
_OLDER_MODELS = re.compile(r"(^|[/:])(gpt-?3|gpt-?4(?![.o\d])|text-|davinci)|llama-?2\b", re.IGNORECASE)


def estimated_tokens(text: str, model: str = "") -> float:
    """Estimate the tokens of a text by the scripts that it is written in.

    Args:
        text: Of any length.
        model: Its name, which tells how old its vocabulary is: GPT-4's takes more tokens for scripts other than Latin
            than those of later models, which is what a model counts as whose name says nothing.
    """
    older = _OLDER_MODELS.search(model) is not None
    rates = _OLDER if older else _NEWER
    total = 0.0
    for piece in _PIECE.finditer(text):
        kind, length = piece.lastgroup, piece.end() - piece.start()
        if kind == "word":
            total += 1.0 + 0.11 * max(0, length - 7)
        elif kind == "digits":
            space = piece[0].startswith(" ")  # before digits it is a token of its own
            total += space - (space - length) // 3
        elif kind == "blanks":  # a single one belongs to the word after it
            total += length > 1
        elif kind == "lines":
            total += 0.9
        elif kind == "ascii":
            total += 0.8
        elif kind == "latin":
            total += 0.85 + 0.3 * length if older else 0.75 + 0.17 * length
        elif kind == "mark":
            total += 1.0
        else:
            total += rates[str(kind)] * length
    return total


def characters(messages: Messages) -> int:
    """Count a request's characters."""
    return sum(len(message["content"]) for message in messages)


def longest_prompt(messages: Messages) -> float:
    """Return tokens that no prompt exceeds: each has a byte at the least, and they are below twice the estimate for
    the older vocabulary."""
    size = sum(len(message["content"].encode(errors="surrogatepass")) for message in messages)
    estimate = sum(estimated_tokens(message["content"], "gpt-4") for message in messages)
    return min(size, 2 * estimate) + 4 * (PER_MESSAGE * len(messages) + PER_REPLY)


def estimated_prompt(messages: Messages, model: str = "") -> int:
    """Estimate the tokens of a request."""
    texts = sum(estimated_tokens(message["content"], model) for message in messages)
    return round(texts) + PER_MESSAGE * len(messages) + PER_REPLY


def plausible_usage(usage: Any, read: float, max_tokens: int) -> tuple[int, int] | None:
    """Return the tokens read and written that an endpoint tells, if they can be.

    Args:
        usage: What it tells: `prompt_tokens`, `completion_tokens`, `total_tokens`. Thoughts that only the total has, as
            Gemini tells them, are billed as written.
        read: An estimate of the request's tokens.
        max_tokens: The request's limit; some models' thoughts may exceed it.
    """
    if not isinstance(usage, dict):
        return None
    prompt, written = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    if prompt is None or written is None:
        return None
    most_written = 10 * max_tokens + 20_000
    total = _count(usage.get("total_tokens"))
    if total is not None and written < total - prompt <= most_written:
        written = total - prompt
    return (prompt, written) if 0 < prompt <= 20 * read + 20_000 and written <= most_written else None


def _count(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and value >= 0 else None


class TokenCounter:
    """Counts a model's tokens: by its tokenizer, if that is on this machine, or by an estimate.

    A tokenizer measures the first texts, and the rest are estimated and corrected by what those had: 60,000 pairs take
    seconds and not minutes.

    Attributes:
        how: What the counts rest on, in words.
    """

    def __init__(self, model: str) -> None:
        self.model, self.encode = model, _local_tokenizer(model)
        self.measured, self.estimates, self.tokens = 0, 0.0, 0
        self.how = f"the tokenizer of {model}" if self.encode else "an estimate by script"

    def __call__(self, text: str) -> float:
        estimate = estimated_tokens(text, self.model)
        if self.encode is None:
            return estimate
        if self.measured < SAMPLE:
            count = len(self.encode(text))
            self.measured += 1
            self.estimates += estimate
            self.tokens += count
            return count
        return estimate * self.tokens / max(self.estimates, 1.0)

    def prompt(self, messages: Messages) -> float:
        """Tokens of a request, its chat template included."""
        return sum(self(message["content"]) for message in messages) + PER_MESSAGE * len(messages) + PER_REPLY


def _local_tokenizer(model: str) -> Callable[[str], Any] | None:
    """The model's tokenizer, if it takes no network to load it."""
    if "/" in model or Path(model).is_dir():
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
        except Exception:  # whatever its reader raises, there is none
            return None
        return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    try:
        import tiktoken

        name = tiktoken.encoding_name_for_model(model)
        if not _vocabulary(name).is_file():  # tiktoken would download it
            return None
        encoding = tiktoken.get_encoding(name)
    except Exception:  # not installed, or it doesn't know the model
        return None
    return lambda text: encoding.encode(text, disallowed_special=())


def _vocabulary(name: str) -> Path:
    """Where tiktoken keeps a vocabulary that it has downloaded."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    url = f"https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
    return Path(folder or Path(tempfile.gettempdir(), "data-gym-cache")) / hashlib.sha1(url.encode()).hexdigest()
