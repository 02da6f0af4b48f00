"""What asking costs: tokens, dollars, minutes; before it is done, and after."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..config import AskingArguments, Price

BATCH_SHARE = 0.5  # of the price, by the Batch API
BYTES_PER_TOKEN = 4.0  # of UTF-8: OpenAI's rule of thumb for English
SAMPLE = 256  # texts by which a tokenizer's bytes per token are measured
Messages = list[dict[str, str]]


def approximate_tokens(text: str) -> int:
    """Tokens that a text has, at four bytes a token."""
    return -(-len(text.encode(errors="surrogatepass")) // int(BYTES_PER_TOKEN))


def prompt_text(messages: Messages) -> str:
    """All that a model reads."""
    return "\n".join(message["content"] for message in messages)


def dollars(price: Price | None, prompt_tokens: float, completion_tokens: float, batch: bool = False) -> float:
    """What tokens cost; nothing where there is no price."""
    if price is None:
        return 0.0
    share = BATCH_SHARE if batch else 1.0
    return share * (price.input * prompt_tokens + price.output * completion_tokens) / 1e6


class TokenCounter:
    """Counts a model's tokens: by its tokenizer, if that is on this machine, or by four bytes a token.

    A tokenizer measures the first texts, and the rest are counted at the bytes per token of those: 60,000 pairs take a
    second and not minutes.

    Attributes:
        how: What the counts rest on, in words.
    """

    def __init__(self, model: str) -> None:
        self.encode = _local_tokenizer(model)
        self.measured = self.bytes = self.tokens = 0
        self.how = f"the tokenizer of {model}" if self.encode else "four bytes a token"

    def __call__(self, text: str) -> float:
        size = len(text.encode(errors="surrogatepass"))
        if self.encode is None:
            return size / BYTES_PER_TOKEN
        if self.measured < SAMPLE:
            count = len(self.encode(text))
            self.measured, self.bytes, self.tokens = self.measured + 1, self.bytes + size, self.tokens + count
            return count
        return size * self.tokens / max(self.bytes, 1)


def _local_tokenizer(model: str) -> Callable[[str], Any] | None:
    """The model's tokenizer, if it takes no network to load it."""
    if "/" in model or Path(model).is_dir():
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
        except Exception:  # whatever its reader raises, there is none
            return None
        return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    if not os.environ.get("TIKTOKEN_CACHE_DIR"):  # without it tiktoken would download its vocabularies
        return None
    try:
        import tiktoken

        encoding = tiktoken.encoding_for_model(model)
    except Exception:  # not installed, or it doesn't know the model
        return None
    return lambda text: encoding.encode(text, disallowed_special=())


class Paid(NamedTuple):
    """What answers of earlier runs, on which this one rests, have cost."""

    dollars: float = 0.0
    answers: int = 0


NONE_PAID = Paid()


@dataclass
class Quote:
    """What is to be asked.

    Attributes:
        settings: How.
        how: What the counts of tokens rest on.
        rows: Rows of the data.
        kept: Requests whose answers are there.
        asked: Requests to be sent.
        prompt_tokens: Tokens of those.
        completion_tokens: Tokens of their answers, as a guess.
        kept_dollars: What the answers that are there have cost.
    """

    settings: AskingArguments
    how: str = ""
    rows: int = 0
    kept: int = 0
    asked: int = 0
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0
    kept_dollars: float = 0.0

    @property
    def price(self) -> Price | None:
        return self.settings.prices.get(self.settings.model)

    @property
    def paid(self) -> Paid:
        return Paid(self.kept_dollars, self.kept)

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
        return {
            "rows": f"{self.rows:,}; {self.asked:,} requests to send, {self.kept:,} answered already{spent}",
            "tokens": f"about {self.prompt_tokens:,.0f} to read and {self.completion_tokens:,.0f} to write "
            f"({self.how}; an answer as long as the text it is about; second tries not counted)",
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
        over = self.asked and self.kept_dollars + self.dollars > most
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
class Meter:
    """What was really used: by the answers that a run's rows rest on, and by the run itself.

    Attributes:
        price: The model's.
        used: Tokens and dollars of all answers, whenever they were paid for. An answer that two rows share counts for
            both.
        spent: Those of this run alone.
        requests: Sent by this run, retries included.
        retries: Of those, by what went wrong before.
        guessed: Answers whose endpoint told no usage; their tokens are counted at four bytes each.
    """

    price: Price | None
    used: dict[str, float] = field(default_factory=lambda: _nothing())
    spent: dict[str, float] = field(default_factory=lambda: _nothing())
    requests: int = 0
    retries: dict[str, int] = field(default_factory=dict)
    guessed: int = 0

    def cost(self, reply: dict[str, Any]) -> float:
        """Dollars that an answer has cost."""
        return dollars(self.price, reply["prompt_tokens"], reply["completion_tokens"], reply.get("batch", False))

    def use(self, reply: dict[str, Any]) -> None:
        """Counts an answer that a row rests on."""
        self._add(self.used, reply)

    def pay(self, reply: dict[str, Any]) -> None:
        """Counts an answer that was just given."""
        self._add(self.spent, reply)
        self.guessed += reply.get("guessed", False)

    def retry(self, kind: str) -> None:
        """Counts a retry."""
        self.retries[kind] = self.retries.get(kind, 0) + 1

    def __str__(self) -> str:
        spent, retries = self.spent, sum(self.retries.values())
        money = "no price in the recipe" if self.price is None else f"${spent['dollars']:,.4f}"
        return (
            f"spent in this run: {money}; {self.requests:,} requests ({retries:,} of them retries), "
            f"{spent['replies']:,} answers, {spent['prompt_tokens']:,} tokens read and "
            f"{spent['completion_tokens']:,} written"
        )

    def this_run(self, rows: int, seconds: float) -> dict[str, Any]:
        """What depends on when and how often a run was resumed, for its statistics."""
        seconds = max(seconds, 0.1)
        told = {"answers_without_usage": self.guessed} if self.guessed else {}
        return {
            "requests": self.requests,
            "retries": dict(sorted(self.retries.items())),
            **self.summary(self.spent),
            **told,
            "rows_per_second": round(rows / seconds, 2),
            "answers_per_second": round(self.spent["replies"] / seconds, 2),
        }

    def _add(self, sums: dict[str, float], reply: dict[str, Any]) -> None:
        sums["replies"] += 1
        sums["prompt_tokens"] += reply["prompt_tokens"]
        sums["completion_tokens"] += reply["completion_tokens"]
        sums["dollars"] += self.cost(reply)

    def summary(self, of: dict[str, float]) -> dict[str, Any]:
        """Sums for `stats.json`; dollars are null where the recipe has no price for the model."""
        return {**of, "dollars": None if self.price is None else round(of["dollars"], 6)}


def _nothing() -> dict[str, float]:
    return {"replies": 0, "prompt_tokens": 0, "completion_tokens": 0, "dollars": 0.0}
