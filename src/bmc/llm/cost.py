"""Tokens and dollars of an LLM: estimated before a run, counted after."""

from __future__ import annotations

import hashlib
import math
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..config import LLMArguments, Price

Messages = list[dict[str, str]]
SAMPLE = 256  # texts that the model's tokenizer counts exactly
PER_MESSAGE, PER_RESPONSE = 4, 3  # tokens of a chat template around each message, and before the response
BATCH_SHARE = 0.5  # of the price, by the Batch API
LEARN_FROM = 10  # cached responses that correct an estimate

_PIECE = re.compile(
    r"(?P<latin>[A-Za-z]*[\u00c0-\u024f\u1e00-\u1eff][A-Za-z\u00c0-\u024f\u1e00-\u1eff]*)|(?P<word>[A-Za-z]+)"
    r"|(?P<digits> ?[0-9]+)|(?P<blanks> +)|(?P<lines>[\r\n]+)|(?P<ascii>[\t\x0b\x0c!-~])"
    r"|(?P<mark>[\u00a0-\u00bf\u0250-\u036f\u2000-\u2bff])|(?P<greek>[\u0370-\u03ff\u1f00-\u1fff]+)"
    r"|(?P<cyrillic>[\u0400-\u052f]+)|(?P<armenian>[\u0530-\u058f\u10a0-\u10ff]+)|(?P<hebrew>[\u0590-\u05ff]+)"
    r"|(?P<arabic>[\u0600-\u08ff]+)|(?P<devanagari>[\u0900-\u097f]+)|(?P<thai>[\u0e00-\u0e7f]+)"
    r"|(?P<khmer>[\u1000-\u109f\u1780-\u17ff]+)|(?P<indic>[\u0980-\u1dff]+)"
    r"|(?P<han>[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]+)|(?P<hangul>[\uac00-\ud7af]+)|(?P<other>[^\x00-\x20])"
)
# Tokens per character. Fitted to tiktoken's cl100k_base (the older models) and o200k_base (all later ones) on
# AlpacaEval, GSM8K, MATH-500, ECQA, Chinese instructions, and translations into 20 other languages.
_OLDER = {
    "greek": 0.98, "cyrillic": 0.5, "armenian": 2.0, "hebrew": 1.05, "arabic": 0.88, "devanagari": 1.22, "thai": 0.94,
    "khmer": 1.64, "indic": 1.7, "han": 1.17, "hangul": 1.3, "other": 2.0,
}  # fmt: skip
_NEWER = {
    "greek": 0.37, "cyrillic": 0.3, "armenian": 0.37, "hebrew": 0.4, "arabic": 0.37, "devanagari": 0.385, "thai": 0.38,
    "khmer": 0.52, "indic": 0.42, "han": 0.76, "hangul": 0.72, "other": 1.6,
}  # fmt: skip
_OLDER_MODELS = re.compile(r"(^|[/:])(gpt-?3|gpt-?4(?![.o\d])|text-|davinci)|llama-?2\b", re.IGNORECASE)
_PER_PIECE = {"lines": 0.9, "ascii": 0.8, "mark": 1.0}  # tokens of a whole piece


def estimated_tokens(text: str, model: str = "") -> float:
    """Estimate the tokens of a text by its scripts.

    GPT-4 and older models have a vocabulary that needs more tokens for scripts other than Latin.
    """
    older = _OLDER_MODELS.search(model) is not None
    rates = _OLDER if older else _NEWER
    total = 0.0
    for kind, (pieces, length, extra) in _measure(text).items():
        if kind == "word":
            total += pieces + 0.11 * extra
        elif kind in ("digits", "blanks"):
            total += extra
        elif kind == "latin":
            total += 0.85 * pieces + 0.3 * length if older else 0.75 * pieces + 0.17 * length
        else:
            total += pieces * _PER_PIECE[kind] if kind in _PER_PIECE else rates[kind] * length
    return total


_ASCII = {  # of text without other scripts, where a search for each kind takes a tenth of the time
    kind: re.compile(pattern)
    for kind, pattern in {
        "word": r"[A-Za-z]+", "digits": r"(?<! ) [0-9]+|[0-9]+", "blanks": r"  +", "lines": r"[\r\n]+",
        "ascii": r"[\t\x0b\x0c!-/:-@\[-`{-~]", "other": r"\x7f",
    }.items()
}  # fmt: skip


@lru_cache(maxsize=64)  # a request's texts are measured for two vocabularies, and its instructions are those of others
def _measure(text: str) -> dict[str, tuple[int, int, int]]:
    """Measure the pieces of each kind: their number, their characters, and what `_beyond` adds up to."""
    if text.isascii():
        found = {kind: pattern.findall(text) for kind, pattern in _ASCII.items()}
    else:
        found = {}
        for piece in _PIECE.finditer(text):
            found.setdefault(str(piece.lastgroup), []).append(piece[0])
    return {
        kind: (len(pieces), sum(map(len, pieces)), sum(map(_BEYOND[kind], pieces)) if kind in _BEYOND else 0)
        for kind, pieces in found.items()
    }


# What a piece says beyond its number. Words: letters after the seventh; digits: tokens, a space before them being one;
# blanks: whether there are several, since a single one belongs to the word after it.
_BEYOND: dict[str, Callable[[str], int]] = {
    "word": lambda word: max(0, len(word) - 7),
    "digits": lambda digits: (space := digits.startswith(" ")) - (space - len(digits)) // 3,
    "blanks": lambda blanks: len(blanks) > 1,
}


def characters(messages: Messages) -> int:
    """Count a request's characters."""
    return sum(len(message["content"]) for message in messages)


def estimated_prompt(messages: Messages, model: str = "") -> int:
    """Estimate the tokens of a request."""
    texts = sum(estimated_tokens(message["content"], model) for message in messages)
    return round(texts) + PER_MESSAGE * len(messages) + PER_RESPONSE


def most_tokens(messages: Messages, max_tokens: int) -> dict[str, int]:
    """Bound the tokens of a request and its response.

    No prompt has more tokens than bytes, nor than twice the estimate for the older vocabulary.
    """
    size = sum(len(message["content"].encode(errors="surrogatepass")) for message in messages)
    estimate = sum(estimated_tokens(message["content"], "gpt-4") for message in messages)
    longest = min(size, 2 * estimate) + 4 * (PER_MESSAGE * len(messages) + PER_RESPONSE)
    return {"prompt_tokens": math.ceil(longest), "completion_tokens": max_tokens}


def plausible_usage(usage: Any, read: float, max_tokens: int) -> dict[str, int] | None:
    """Return the prompt and completion tokens that an endpoint reports, if they are plausible.

    `read` is the estimate of the prompt's tokens, `max_tokens` the request's limit, which some models' reasoning
    exceeds. Reasoning tokens that only the total has, as Gemini reports them, are billed as completion.
    """
    if not isinstance(usage, dict):
        return None
    prompt, written, total = (_count(usage.get(f"{name}_tokens")) for name in ("prompt", "completion", "total"))
    if prompt is None or written is None:
        return None
    most_written = 10 * max_tokens + 20_000
    if total is not None and written < total - prompt <= most_written:
        written = total - prompt
    if 0 < prompt <= 20 * read + 20_000 and written <= most_written:
        return {"prompt_tokens": prompt, "completion_tokens": written}
    return None


def _count(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and value >= 0 else None


class TokenCounter:
    """Counts a model's tokens by its tokenizer, if that is on this machine, else by an estimate.

    The tokenizer counts the first `SAMPLE` texts; their ratio to the estimate corrects the estimate of the rest, so
    that 60,000 pairs take seconds. `how` says what the counts rest on.
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
        """Count the tokens of a request, its chat template included."""
        return sum(self(message["content"]) for message in messages) + PER_MESSAGE * len(messages) + PER_RESPONSE


def _local_tokenizer(model: str) -> Callable[[str], Any] | None:
    """Load the model's tokenizer, if that needs no network."""
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
    """Return the file in which tiktoken caches a vocabulary."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    url = f"https://openaipublic.blob.core.windows.net/encodings/{name}.tiktoken"
    return Path(folder or Path(tempfile.gettempdir(), "data-gym-cache")) / hashlib.sha1(url.encode()).hexdigest()


def dollars(price: Price | None, prompt_tokens: float, completion_tokens: float, batch: bool = False) -> float:
    """Compute the price of tokens; 0 where it is unknown."""
    if price is None:
        return 0.0
    share = BATCH_SHARE if batch else 1.0
    return share * (price.input * prompt_tokens + price.output * completion_tokens) / 1e6


@dataclass
class CostEstimate:
    """What a run would send and cost."""

    settings: LLMArguments  # the recipe
    how: str = ""  # what the token counts rest on
    rows: int = 0  # rows of the data
    cached: int = 0  # requests whose responses are cached
    to_send: int = 0  # requests to be sent
    prompt_tokens: float = 0.0  # tokens of those
    completion_tokens: float = 0.0  # expected tokens of their responses
    cached_dollars: float = 0.0  # prior spend on the run's requests, unusable responses included
    possibly_billed: float = 0.0  # what requests without a known outcome may have cost in addition, at most
    seen: tuple[int, int] = (0, 0)  # what the cache held at the time of the estimate (`CachedResponses.size`)
    cached_tokens: tuple[float, float] = (0.0, 0.0)
    cached_estimates: tuple[float, float] = (0.0, 0.0)

    @property
    def price(self) -> Price | None:
        return self.settings.prices.get(self.settings.model)

    @property
    def prior_spend(self) -> float:
        """Dollars that count towards `max_cost_usd`."""
        return self.cached_dollars + self.possibly_billed

    def learn(self, estimates: tuple[float, float], tokens: tuple[float, float]) -> None:
        """Add a cached response: the estimate of its prompt and completion tokens, and their true numbers."""
        self.cached_estimates = (self.cached_estimates[0] + estimates[0], self.cached_estimates[1] + estimates[1])
        self.cached_tokens = (self.cached_tokens[0] + tokens[0], self.cached_tokens[1] + tokens[1])

    def correct(self) -> None:
        """Correct the estimate by the cached responses, if there are enough."""
        if self.cached < LEARN_FROM or not self.to_send or not all(self.cached_estimates):
            return
        self.prompt_tokens *= self.cached_tokens[0] / self.cached_estimates[0]
        self.completion_tokens *= self.cached_tokens[1] / self.cached_estimates[1]
        self.how += f", corrected by {self.cached:,} cached responses"

    @property
    def dollars(self) -> float | None:
        """Estimated cost; None without a price."""
        if self.price is None:
            return None
        return dollars(self.price, self.prompt_tokens, self.completion_tokens, self.settings.batch_api)

    @property
    def minutes(self) -> float | None:
        """Least duration at the recipe's rate limits; None without any."""
        tokens = self.prompt_tokens + self.completion_tokens
        limits = ((self.to_send, self.settings.requests_per_minute), (tokens, self.settings.tokens_per_minute))
        return max((amount / limit for amount, limit in limits if limit), default=None)

    def facts(self) -> dict[str, str]:
        """Return the estimate as lines of a plan."""
        spent = f"; ${self.cached_dollars:,.2f} spent on those" if self.cached_dollars else ""
        if self.possibly_billed:
            spent += f"; up to ${self.possibly_billed:,.4f} more possibly billed for requests whose responses were lost"
        return {
            "rows": f"{self.rows:,}; {self.to_send:,} requests to send, {self.cached:,} cached{spent}",
            "tokens": f"about {self.prompt_tokens:,.0f} to read and {self.completion_tokens:,.0f} to write "
            f"({self.how}; a response as long as the text it edits or judges; second tries not counted)",
            "dollars": self._dollars(),
            "minutes": self._minutes(),
        }

    def _dollars(self) -> str:
        price, most = self.price, self.settings.max_cost_usd
        if price is None or self.dollars is None:
            return f"unknown: the recipe's `prices` has none for {self.settings.model}"
        half = ", half of it by the Batch API" if self.settings.batch_api else ""
        text = f"about ${self.dollars:,.2f} (${price.input:g} and ${price.output:g} per million tokens{half})"
        if most is None:
            return text
        over = self.to_send and self.prior_spend + self.dollars > most
        return f"{text}; stops at max_cost_usd, ${most:,.2f}{', which is less' if over else ''}"

    def _minutes(self) -> str:
        if self.settings.batch_api:
            return "within 24 hours a batch (of 50,000 requests at most)"
        if self.minutes is None:
            return f"no rate limit in the recipe: {self.settings.max_concurrency} requests at once"
        named = (("requests", self.settings.requests_per_minute), ("tokens", self.settings.tokens_per_minute))
        limits = " and ".join(f"{limit:,.0f} {name}" for name, limit in named if limit)
        return f"at least {self.minutes:,.1f} ({limits} a minute)"


def _no_usage() -> dict[str, float]:
    return {"completions": 0, "prompt_tokens": 0, "completion_tokens": 0, "dollars": 0.0}


@dataclass
class UsageTracker:
    """Counts what was used: by the rows' requests in all runs, and by this run."""

    price: Price | None  # the model's
    # tokens and dollars of all responses to the rows' requests, each counted once; `completions` counts them
    used: dict[str, float] = field(default_factory=_no_usage)
    spent: dict[str, float] = field(default_factory=_no_usage)  # the same of this run alone
    requests: int = 0  # requests sent by this run, retries included
    retries: dict[str, int] = field(default_factory=dict)  # retries by the error before
    guessed: int = 0  # responses without plausible usage; their tokens are estimated
    unusable: int = 0  # billed responses of this run without a completion
    lost: int = 0  # requests of this run whose responses were lost (timeouts, broken connections)
    lost_now: float = 0.0  # the most dollars that they may have cost
    lost_dollars: float = 0.0  # the same of all runs
    counted: dict[str, int] = field(default_factory=dict)
    completed: set[str] = field(default_factory=set)

    def cost(self, tokens: dict[str, Any]) -> float:
        """Compute the dollars of a completion, a charge or a bound."""
        return dollars(self.price, tokens["prompt_tokens"], tokens["completion_tokens"], tokens.get("batch", False))

    def use(self, key: str, completion: dict[str, Any] | None, charges: list[dict[str, Any]]) -> None:
        """Count all responses to a row's request, each once however often it is used."""
        for charge in charges[self.counted.get(key, 0) :]:
            if charge.get("lost"):
                self.lost_dollars += self.cost(charge)
            else:
                self._add(self.used, charge, 0)
        self.counted[key] = len(charges)
        if completion is not None and key not in self.completed:
            self.completed.add(key)
            self._add(self.used, completion, 1)

    def pay(self, completion: dict[str, Any]) -> None:
        """Count a new completion."""
        self._add(self.spent, completion, 1)
        self.guessed += completion.get("guessed", False)

    def pay_unusable(self, charge: dict[str, Any]) -> None:
        """Count a new response without a completion, or a lost one."""
        if charge.get("lost"):
            self.lost += 1
            self.lost_now += self.cost(charge)
            return
        self._add(self.spent, charge, 0)
        self.unusable += 1
        self.guessed += charge.get("guessed", False)

    def retry(self, kind: str) -> None:
        """Count a retry."""
        self.retries[kind] = self.retries.get(kind, 0) + 1

    def _add(self, sums: dict[str, float], tokens: dict[str, Any], completions: int) -> None:
        sums["completions"] += completions
        sums["prompt_tokens"] += tokens["prompt_tokens"]
        sums["completion_tokens"] += tokens["completion_tokens"]
        sums["dollars"] += self.cost(tokens)

    def __str__(self) -> str:
        spent = self.spent
        money = "no price in the recipe" if self.price is None else f"${spent['dollars']:,.4f}"
        unusable = f", {self.unusable:,} unusable responses" if self.unusable else ""
        lost = f", {self.lost:,} responses lost" if self.lost else ""
        if self.lost_dollars:
            lost += f" (possibly billed in all runs: up to ${self.lost_dollars:,.4f})"
        return (
            f"spent in this run: {money}; {self.requests:,} requests ({sum(self.retries.values()):,} of them retries), "
            f"{spent['completions']:,} completions{unusable}{lost}, {spent['prompt_tokens']:,} tokens read and "
            f"{spent['completion_tokens']:,} written"
        )

    def this_run(self, rows: int, seconds: float) -> dict[str, Any]:
        """Return this run's part of `stats.json`, which depends on when and how often the run was resumed."""
        seconds = max(seconds, 0.1)
        rare = {
            "responses_without_usage": self.guessed,
            "unusable_responses": self.unusable,
            "lost_responses": self.lost,
        }
        return {
            "requests": self.requests,
            "retries": dict(sorted(self.retries.items())),
            **self.summary(self.spent),
            **{name: count for name, count in rare.items() if count},
            "rows_per_second": round(rows / seconds, 2),
            "responses_per_second": round(self.spent["completions"] / seconds, 2),
        }

    def all_runs(self) -> dict[str, Any]:
        """Return `used` for `stats.json`, and what lost responses may have cost in addition."""
        lost = round(self.lost_dollars, 6)
        return self.summary(self.used) | ({"possibly_billed_dollars": lost} if lost else {})

    def summary(self, sums: dict[str, float]) -> dict[str, Any]:
        """Round sums for `stats.json`; dollars are null without a price."""
        return {**sums, "dollars": None if self.price is None else round(sums["dollars"], 6)}
