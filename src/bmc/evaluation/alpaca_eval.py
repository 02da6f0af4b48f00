"""AlpacaEval 2 by the package `alpaca_eval` itself: its prompt, order of the responses, parsing of the verdict and
length-controlled win rate. Only the judge's responses come from our cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from ..data.schema import Row
from ..errors import user_error
from ..llm.client import CachedClient, Completion, PendingRequest
from ..llm.cost import Messages
from ..llm.errors import RequestFailed
from ..runs import write_json
from .comparisons import Comparison, win_rate_in_percent

ANNOTATOR = "weighted_alpaca_eval_gpt4_turbo"
ROWS = 805
# SHA-256 of the instructions in their published order, joined by line breaks: the length-controlled win rate looks up
# each one's difficulty by its place.
ORDER = "80812b0556445b68"
VARYING = ("preference_date", "preference_price_per_example", "preference_time_per_example")
HOLDS_TEMPLATE = "the texts hold a chat template's tokens, which the evaluator's prompt can't carry"
NOT_INSTALLED = "alpaca_eval, which judges AlpacaEval, is not installed; pip install '.[eval]'"
Answer = Completion | str  # the judge's, or why there is none


class AlpacaEval:
    """AlpacaEval 2: one request per comparison; the verdict is weighted by its token's log-probabilities.

    `names` are those of the reference and of the model.
    """

    def __init__(self, comparisons: Sequence[Comparison], names: tuple[str, str]) -> None:
        self.comparisons, self.names = comparisons, names
        self.prompts = self._prompts()
        self.annotations: list[Row] = []

    def pending(self) -> Iterator[PendingRequest]:
        for prompt in self.prompts:
            yield PendingRequest(partial(answer, prompt), "m")

    def verdicts(self, answers: Sequence[Answer]) -> list[Row]:
        given = dict(zip(self.prompts, answers, strict=True))
        self.annotations = self._annotate(given)
        rows: list[Row] = []
        for one, annotation in zip(self.comparisons, self.annotations, strict=True):
            row: Row = {"id": one.id, "instruction": one.name, "preference": annotation["preference"]}
            if row["preference"] is None:  # alpaca_eval doesn't say which prompt is whose
                texts = (one.prompt, one.response, one.reference)
                its = (given[prompt] for prompt in given if all(text in prompt for text in texts))
                row["reason"] = next(map(reason, its), "no verdict")
            rows.append(row)
        return rows

    def summary(self, verdicts: Sequence[Row]) -> Row:
        won = [row["preference"] - 1 for row in verdicts if row["preference"] is not None]
        counts = {"n": len(won), "verdicts": len(self.prompts), "unreadable": len(verdicts) - len(won)}
        if not won:
            return counts
        controlled = length_controlled(self.annotations)
        if isinstance(controlled, str):
            print(f"no length-controlled win rate: {controlled}")
        rate, error = (None, None) if isinstance(controlled, str) else controlled
        return {
            **counts,
            **win_rate_in_percent(won, [1.0] * len(won)),
            "length_controlled_win_rate": rate,
            "lc_standard_error": error,  # alpaca_eval's own, of predictions: no interval can be made of it
            "length": fmean(len(one.response) for one in self.comparisons),
        }

    def write(self, folder: Path) -> None:
        write_json(folder / "annotations.json", self.annotations)

    def _prompts(self) -> list[str]:
        """Return the judge's prompts, one for each comparison whose responses differ."""
        found: list[str] = []

        class Captured(Exception):
            pass

        def capture(prompts: Sequence[str], **_: Any) -> Any:
            found.extend(prompts)
            raise Captured

        with contextlib.suppress(Captured):
            self._run(capture)
        return found

    def _annotate(self, answers: dict[str, Answer]) -> list[Row]:
        """Return alpaca_eval's annotations, one per comparison, in their order.

        `preference` is 1 (the reference) to 2 (the model), or None if the verdict can't be read.
        """

        def completions(prompts: Sequence[str], **_: Any) -> dict[str, list[Any]]:
            given = [answers[prompt] for prompt in prompts]
            texts = ["" if isinstance(one, str) else one.text for one in given]
            likely = [[] if isinstance(one, str) else one.first_token or [] for one in given]
            return {
                "completions": texts,
                "completions_all": [
                    {"text": text, "logprobs": {"content": [{"top_logprobs": tokens}]}}
                    for text, tokens in zip(texts, likely, strict=True)
                ],
                "price_per_example": [0.0] * len(given),
                "time_per_example": [0.0] * len(given),
            }

        found = {row["instruction"]: row for row in self._run(completions)}
        rows = (found[one.name].items() for one in self.comparisons)
        return [{key: None if value != value else value for key, value in row if key not in VARYING} for row in rows]

    def _run(self, completions: Callable[..., Any]) -> list[Row]:
        """Run alpaca_eval's annotator with a function in place of its API calls."""
        from alpaca_eval.annotators import PairwiseAnnotator

        with _quiet():
            annotator = PairwiseAnnotator(annotators_config=ANNOTATOR, caching_path=None)
            annotator.annotators[ANNOTATOR].fn_completions = completions
            reference, model = self.names
            return annotator.annotate_head2head(
                [{"instruction": one.name, "output": one.reference, "generator": reference}
                 for one in self.comparisons],
                [{"instruction": one.name, "output": one.response, "generator": model} for one in self.comparisons],
                chunksize=None,
            )  # fmt: skip


def require() -> None:
    """
    Raises:
        UserErrors: alpaca_eval isn't installed.
    """
    if "alpaca_eval" not in sys.modules and importlib.util.find_spec("alpaca_eval") is None:
        raise user_error("benchmark: alpaca_eval", NOT_INSTALLED)


async def answer(prompt: str, client: CachedClient) -> Answer:
    """Send a prompt to the judge.

    Raises:
        UserErrors: Fatal error.
    """
    try:
        return await client.complete(messages(prompt))
    except RequestFailed as error:
        return str(error)


def reason(answer: Answer) -> str:
    """Say why an answer can't be read as a verdict."""
    if isinstance(answer, str):
        return answer
    first = [one["token"] for one in answer.first_token or []]
    if not answer.text.strip() and answer.finish_reason == "length":
        return "cut off at max_tokens before a verdict"
    seen = ", ".join(map(repr, first)) or "none"
    cut = ", cut off at max_tokens" if answer.finish_reason == "length" and len(answer.text) > 1 else ""
    return f"neither m nor M among the likely first tokens (they are {seen}{cut})"


def messages(prompt: str) -> Messages:
    """Split a prompt in ChatML into messages.

    Raises:
        RequestFailed: A text in it looks like ChatML, too.
    """
    from alpaca_eval.utils import prompt_to_chatml

    try:
        made = prompt_to_chatml(prompt.strip())
    except (AssertionError, IndexError, ValueError):
        made = []
    if [message["role"] for message in made] != ["system", "user"]:
        raise RequestFailed(HOLDS_TEMPLATE)
    return made


def length_controlled(annotations: Sequence[Row]) -> tuple[float, float] | str:
    """Compute the length-controlled win rate in % and alpaca_eval's `lc_standard_error`, or say why there is none.

    That error is the spread of the fitted model's predictions over the instructions: no interval can be made of it.
    """
    if len(annotations) != ROWS:
        return f"it is defined for all {ROWS} rows"
    if order_of([row["instruction"] for row in annotations]) != ORDER:
        return (
            "the reference doesn't have AlpacaEval's instructions in their published order, by which their "
            "difficulties are looked up; take alpaca_eval_gpt4_baseline.json as it is"
        )
    from alpaca_eval.metrics import get_length_controlled_winrate

    try:
        with _quiet():
            found = get_length_controlled_winrate(list(annotations), save_weights_dir=None)
    except Exception as error:  # it downloads the instructions' difficulties: the Hub's client fails in many ways
        return f"alpaca_eval can't compute it ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    return float(found["length_controlled_winrate"]), float(found["lc_standard_error"])


def order_of(instructions: Sequence[str]) -> str:
    """Hash the instructions in their order."""
    return hashlib.sha256("\n".join(instructions).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence alpaca_eval's log, which has a traceback for each verdict that can't be read, and its progress bars."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
