"""Tokens and dollars of an LLM: estimated before a run, counted after."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import LLMArguments, Price

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


BATCH_SHARE = 0.5  # of the price, by the Batch API
LEARN_FROM = 10  # kept replies, by which an estimate is corrected


def dollars(price: Price | None, prompt_tokens: float, completion_tokens: float, batch: bool = False) -> float:
    """What tokens cost; nothing where there is no price."""
    if price is None:
        return 0.0
    share = BATCH_SHARE if batch else 1.0
    return share * (price.input * prompt_tokens + price.output * completion_tokens) / 1e6


@dataclass
class CostEstimate:
    """What is to be asked.

    Attributes:
        settings: How.
        how: What the counts of tokens rest on.
        rows: Rows of the data.
        kept: Requests whose answers are there.
        asked: Requests to be sent.
        prompt_tokens: Tokens of those.
        completion_tokens: Tokens of their answers, as a guess.
        kept_dollars: What these requests have cost so far, responses without an answer included, …
        possibly_billed: … and what those without a known outcome may have cost beyond it.
        seen: What the cache held when the estimate was made (`CachedResponses.size`).
    """

    settings: LLMArguments
    how: str = ""
    rows: int = 0
    kept: int = 0
    asked: int = 0
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0
    kept_dollars: float = 0.0
    possibly_billed: float = 0.0
    seen: tuple[int, int] = (0, 0)
    kept_tokens: tuple[float, float] = (0.0, 0.0)
    kept_estimates: tuple[float, float] = (0.0, 0.0)

    @property
    def price(self) -> Price | None:
        return self.settings.prices.get(self.settings.model)

    @property
    def prior_spend(self) -> float:
        """Dollars that count towards `max_cost_usd`."""
        return self.kept_dollars + self.possibly_billed

    def learn(self, estimates: tuple[float, float], tokens: tuple[float, float]) -> None:
        """Note a kept response: an estimate of its tokens, and what they were."""
        self.kept_estimates = (self.kept_estimates[0] + estimates[0], self.kept_estimates[1] + estimates[1])
        self.kept_tokens = (self.kept_tokens[0] + tokens[0], self.kept_tokens[1] + tokens[1])

    def correct(self) -> None:
        """Corrects the estimate by the kept replies, if they are many enough."""
        if self.kept < LEARN_FROM or not self.asked or not all(self.kept_estimates):
            return
        self.prompt_tokens *= self.kept_tokens[0] / self.kept_estimates[0]
        self.completion_tokens *= self.kept_tokens[1] / self.kept_estimates[1]
        self.how += f", corrected by the {self.kept:,} replies that are there"

    @property
    def dollars(self) -> float | None:
        """None where the recipe has no price for the model."""
        if self.price is None:
            return None
        return dollars(self.price, self.prompt_tokens, self.completion_tokens, self.settings.batch_api)

    @property
    def minutes(self) -> float | None:
        """At the limits; None without any."""
        tokens = self.prompt_tokens + self.completion_tokens
        limits = ((self.asked, self.settings.requests_per_minute), (tokens, self.settings.tokens_per_minute))
        return max((amount / limit for amount, limit in limits if limit), default=None)

    def facts(self) -> dict[str, str]:
        """The quote in lines, for `plan.show`."""
        spent = f"; ${self.kept_dollars:,.2f} spent on those that are there" if self.kept_dollars else ""
        if self.possibly_billed:
            spent += f"; up to ${self.possibly_billed:,.4f} more possibly billed for requests whose responses were lost"
        return {
            "rows": f"{self.rows:,}; {self.asked:,} requests to send, {self.kept:,} answered already{spent}",
            "tokens": f"about {self.prompt_tokens:,.0f} to read and {self.completion_tokens:,.0f} to write "
            f"({self.how}; a response as long as the text it is about; second tries not counted)",
            "dollars": self._dollars(),
            "minutes": self._minutes(),
        }

    def _dollars(self) -> str:
        price, most = self.price, self.settings.max_cost_usd
        if price is None or self.dollars is None:
            return f"unknown: the recipe's `prices` has none for {self.settings.model}"
        half = ", half of it by the Batch API" if self.settings.batch_api else ""
        told = f"about ${self.dollars:,.2f} (${price.input:g} and ${price.output:g} per million tokens{half})"
        if most is None:
            return told
        over = self.asked and self.prior_spend + self.dollars > most
        return f"{told}; stops at max_cost_usd, ${most:,.2f}{', which is less' if over else ''}"

    def _minutes(self) -> str:
        if self.settings.batch_api:
            return "within 24 hours a batch (of 50,000 requests at the most)"
        if self.minutes is None:
            return f"no limit in the recipe: as fast as {self.settings.max_concurrency} requests at once are answered"
        named = (("requests", self.settings.requests_per_minute), ("tokens", self.settings.tokens_per_minute))
        limits = " and ".join(f"{limit:,.0f} {name}" for name, limit in named if limit)
        return f"at least {self.minutes:,.1f} ({limits} a minute)"


@dataclass
class UsageTracker:
    """What was really used: for the requests of a run's rows, whenever that was, and by the run itself.

    Attributes:
        price: The model's.
        used: Tokens and dollars of all replies to the rows' requests, each counted once; `replies` are those that hold
            an answer.
        spent: Those of this run alone.
        requests: Sent by this run, retries included.
        retries: Of those, by what went wrong before.
        guessed: Replies whose endpoint told no usage, or none that can be; their tokens are estimated.
        unusable: Paid replies of this run that hold no answer.
        lost: Requests of this run whose responses never came (time-outs, cut connections), …
        lost_now: … the most dollars that they can have cost all the same, …
        lost_dollars: … and the same of all runs.
    """

    price: Price | None
    used: dict[str, float] = field(default_factory=lambda: _nothing())
    spent: dict[str, float] = field(default_factory=lambda: _nothing())
    requests: int = 0
    retries: dict[str, int] = field(default_factory=dict)
    guessed: int = 0
    unusable: int = 0
    lost: int = 0
    lost_now: float = 0.0
    lost_dollars: float = 0.0
    counted: dict[str, int] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)

    def cost(self, reply: dict[str, Any]) -> float:
        """Dollars that a reply has cost."""
        return dollars(self.price, reply["prompt_tokens"], reply["completion_tokens"], reply.get("batch", False))

    def use(self, key: str, reply: dict[str, Any] | None, charges: list[dict[str, Any]]) -> None:
        """Counts all replies to a request that a row rests on, each once however many rows and times.

        Args:
            key: The request.
            reply: That with the answer, if there is one.
            charges: For those without.
        """
        new = charges[self.counted.get(key, 0) :]
        self.counted[key] = len(charges)
        for charge in new:
            if charge.get("lost"):
                self.lost_dollars += self.cost(charge)
            else:
                self._add(self.used, charge, 0)
        if reply is not None and key not in self.answered:
            self.answered.add(key)
            self._add(self.used, reply, 1)

    def pay(self, reply: dict[str, Any]) -> None:
        """Counts an answer that was just given."""
        self._add(self.spent, reply, 1)
        self.guessed += reply.get("guessed", False)

    def pay_unusable(self, charge: dict[str, Any]) -> None:
        """Counts a reply that was just paid for, or may have been, and holds no answer."""
        if charge.get("lost"):
            self.lost += 1
            self.lost_now += self.cost(charge)
            return
        self._add(self.spent, charge, 0)
        self.unusable += 1
        self.guessed += charge.get("guessed", False)

    def retry(self, kind: str) -> None:
        """Counts a retry."""
        self.retries[kind] = self.retries.get(kind, 0) + 1

    def __str__(self) -> str:
        spent, retries = self.spent, sum(self.retries.values())
        money = "no price in the recipe" if self.price is None else f"${spent['dollars']:,.4f}"
        unusable = f", {self.unusable:,} paid replies without an answer" if self.unusable else ""
        lost = f", {self.lost:,} responses lost" if self.lost else ""
        if self.lost_dollars:
            lost += f" (possibly billed in all runs: up to ${self.lost_dollars:,.4f})"
        return (
            f"spent in this run: {money}; {self.requests:,} requests ({retries:,} of them retries), "
            f"{spent['replies']:,} answers{unusable}{lost}, {spent['prompt_tokens']:,} tokens read and "
            f"{spent['completion_tokens']:,} written"
        )

    def this_run(self, rows: int, seconds: float) -> dict[str, Any]:
        """What depends on when and how often a run was resumed, for its statistics."""
        seconds = max(seconds, 0.1)
        seen = {
            "answers_without_usage": self.guessed,
            "unusable_replies": self.unusable,
            "lost_replies": self.lost,
        }
        return {
            "requests": self.requests,
            "retries": dict(sorted(self.retries.items())),
            **self.summary(self.spent),
            **{name: count for name, count in seen.items() if count},
            "rows_per_second": round(rows / seconds, 2),
            "answers_per_second": round(self.spent["replies"] / seconds, 2),
        }

    def _add(self, sums: dict[str, float], reply: dict[str, Any], answers: int) -> None:
        sums["replies"] += answers
        sums["prompt_tokens"] += reply["prompt_tokens"]
        sums["completion_tokens"] += reply["completion_tokens"]
        sums["dollars"] += self.cost(reply)

    def summary(self, of: dict[str, float]) -> dict[str, Any]:
        """Sums for `stats.json`; dollars are null where the recipe has no price for the model."""
        return {**of, "dollars": None if self.price is None else round(of["dollars"], 6)}

    def all_runs(self) -> dict[str, Any]:
        """`used` for `stats.json`, and what lost responses may have cost beyond it."""
        lost = round(self.lost_dollars, 6)
        return self.summary(self.used) | ({"possibly_billed_dollars": lost} if lost else {})


def _nothing() -> dict[str, float]:
    return {"replies": 0, "prompt_tokens": 0, "completion_tokens": 0, "dollars": 0.0}
