"""AlpacaEval 2 by the package `alpaca_eval` itself: its prompt, order of the answers, reading of the verdict and
length-controlled win rate. Only the judge's answers come from our store.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..data.schema import Row
from ..errors import fail
from ..llm.client import CachedClient, Completion
from ..llm.cost import Messages
from ..llm.errors import RequestFailed
from .comparisons import Comparison

ANNOTATOR = "weighted_alpaca_eval_gpt4_turbo"
ROWS = 805
# SHA-256 of the instructions in their published order, joined by line breaks: the length-controlled win rate looks up
# each one's difficulty by its place.
ORDER = "80812b0556445b68"
PASSING = ("preference_date", "preference_price_per_example", "preference_time_per_example")
HOLDS_TEMPLATE = "the texts hold a chat template's tokens, which the evaluator's prompt can't carry"
NOT_INSTALLED = "alpaca_eval, which judges AlpacaEval, is not installed; pip install '.[eval]'"


class _Captured(Exception):
    """The prompts are known, and nothing is to be answered."""


def require() -> None:
    """
    Raises:
        Faults: alpaca_eval isn't installed.
    """
    if "alpaca_eval" not in sys.modules and importlib.util.find_spec("alpaca_eval") is None:
        raise fail("benchmark: alpaca_eval", NOT_INSTALLED)


def prompts_of(comparisons: Sequence[Comparison], names: tuple[str, str]) -> list[str]:
    """The judge's prompts, one for each comparison whose answers differ.

    Args:
        comparisons: The comparisons.
        names: Of the reference and of the model.
    """
    found: list[str] = []

    def capture(prompts: Sequence[str], **_: Any) -> Any:
        found.extend(prompts)
        raise _Captured

    with contextlib.suppress(_Captured):
        _annotated(comparisons, names, capture)
    return found


async def ask(prompt: str, client: CachedClient) -> Completion | str:
    """Return the judge's reply to a prompt, or why there is none.

    Raises:
        Faults: The run can't go on.
    """
    try:
        return await client.complete(messages(prompt))
    except RequestFailed as error:
        return str(error)


def reason(reply: Completion | str) -> str:
    """Say why a reply can't be read as a verdict."""
    if isinstance(reply, str):
        return reply
    first = [one["token"] for one in reply.first_token or []]
    if not reply.text.strip() and reply.finish_reason == "length":
        return "cut off at max_tokens before a verdict"
    seen = ", ".join(map(repr, first)) or "none"
    cut = ", cut off at max_tokens" if reply.finish_reason == "length" and len(reply.text) > 1 else ""
    return f"neither m nor M among the likely first tokens (they are {seen}{cut})"


def messages(prompt: str) -> Messages:
    """A prompt in ChatML, as messages.

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


def annotate(
    comparisons: Sequence[Comparison], names: tuple[str, str], replies: Mapping[str, Completion | str]
) -> list[Row]:
    """alpaca_eval's annotations, one a comparison, in their order; `preference` is 1 (the reference) to 2 (the model),
    or None where the judge's answer can't be read.

    Args:
        comparisons: The comparisons.
        names: Of the reference and of the model.
        replies: Prompt → the judge's reply, or why there is none.
    """

    def answers(prompts: Sequence[str], **_: Any) -> dict[str, list[Any]]:
        given = [replies[prompt] for prompt in prompts]
        texts = ["" if isinstance(reply, str) else reply.text for reply in given]
        whole = [_completion(reply) for reply in given]
        unknown = [0.0] * len(given)
        return {
            "completions": texts,
            "completions_all": whole,
            "price_per_example": unknown,
            "time_per_example": unknown,
        }

    found = {row["instruction"]: row for row in _annotated(comparisons, names, answers)}
    rows = (found[comparison.name].items() for comparison in comparisons)
    return [{key: None if value != value else value for key, value in row if key not in PASSING} for row in rows]


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


def _annotated(comparisons: Sequence[Comparison], names: tuple[str, str], completions: Callable[..., Any]) -> list[Row]:
    from alpaca_eval.annotators import PairwiseAnnotator

    with _quiet():
        annotator = PairwiseAnnotator(annotators_config=ANNOTATOR, caching_path=None)
        annotator.annotators[ANNOTATOR].fn_completions = completions
        reference, model = names
        return annotator.annotate_head2head(
            [{"instruction": one.name, "output": one.reference, "generator": reference} for one in comparisons],
            [{"instruction": one.name, "output": one.response, "generator": model} for one in comparisons],
            chunksize=None,
        )


def _completion(reply: Completion | str) -> dict[str, Any]:
    """Return a reply as alpaca_eval's parser wants it."""
    text, likely = ("", []) if isinstance(reply, str) else (reply.text, reply.first_token or [])
    return {"text": text, "logprobs": {"content": [{"top_logprobs": likely}]}}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without alpaca_eval's log, which has a traceback for each answer that can't be read, and its progress bars."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
