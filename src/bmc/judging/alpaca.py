"""AlpacaEval 2 by the package `alpaca_eval` itself: its prompt, order of the answers, reading of the verdict and
length-controlled win rate. Only the judge's answers come from our store.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..asking.asker import Asker
from ..asking.cost import Messages
from ..asking.replies import NoReply, Reply
from ..data.schema import Row
from ..errors import fail
from .cases import Case

ANNOTATOR = "weighted_alpaca_eval_gpt4_turbo"
ROWS = 805  # of the benchmark; the length-controlled win rate knows the difficulty of each
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


def prompts_of(cases: Sequence[Case], names: tuple[str, str]) -> list[str]:
    """The judge's prompts, one for each case whose answers differ.

    Args:
        cases: The cases.
        names: Of the reference and of the model.
    """
    found: list[str] = []

    def capture(prompts: Sequence[str], **_: Any) -> Any:
        found.extend(prompts)
        raise _Captured

    with contextlib.suppress(_Captured):
        _annotated(cases, names, capture)
    return found


async def ask(prompt: str, asker: Asker) -> Reply | None:
    """The judge's answer to a prompt; None where there is none.

    Raises:
        Faults: The run can't go on.
    """
    try:
        return await asker.ask(messages(prompt))
    except NoReply:
        return None


def messages(prompt: str) -> Messages:
    """A prompt in ChatML, as messages.

    Raises:
        NoReply: A text in it looks like ChatML, too.
    """
    from alpaca_eval.utils import prompt_to_chatml

    try:
        made = prompt_to_chatml(prompt.strip())
    except (AssertionError, IndexError, ValueError):
        made = []
    if [message["role"] for message in made] != ["system", "user"]:
        raise NoReply(HOLDS_TEMPLATE)
    return made


def annotate(cases: Sequence[Case], names: tuple[str, str], replies: Mapping[str, Reply | None]) -> list[Row]:
    """alpaca_eval's annotations, one a case, in their order; `preference` is 1 (the reference) to 2 (the model), or
    None where the judge's answer can't be read.

    Args:
        cases: The cases.
        names: Of the reference and of the model.
        replies: Prompt → the judge's answer.
    """

    def answers(prompts: Sequence[str], **_: Any) -> dict[str, list[Any]]:
        given = [replies[prompt] for prompt in prompts]
        texts = [reply.text if reply else "" for reply in given]
        whole = [_completion(reply) for reply in given]
        unknown = [0.0] * len(given)
        return {
            "completions": texts,
            "completions_all": whole,
            "price_per_example": unknown,
            "time_per_example": unknown,
        }

    found = {row["instruction"]: row for row in _annotated(cases, names, answers)}
    rows = (found[case.name].items() for case in cases)
    return [{key: None if value != value else value for key, value in row if key not in PASSING} for row in rows]


def length_controlled(annotations: Sequence[Row]) -> tuple[float, float] | str:
    """The length-controlled win rate and its standard error in %, or why there is none."""
    if len(annotations) != ROWS:
        return f"it is defined for all {ROWS} rows"
    from alpaca_eval.metrics import get_length_controlled_winrate

    try:
        with _quiet():
            found = get_length_controlled_winrate(list(annotations), save_weights_dir=None)
    except Exception as error:  # it downloads the instructions' difficulties: the Hub's client fails in many ways
        return f"alpaca_eval can't compute it ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    return float(found["length_controlled_winrate"]), float(found["lc_standard_error"])


def _annotated(cases: Sequence[Case], names: tuple[str, str], completions: Callable[..., Any]) -> list[Row]:
    from alpaca_eval.annotators import PairwiseAnnotator

    with _quiet():
        annotator = PairwiseAnnotator(annotators_config=ANNOTATOR, caching_path=None)
        annotator.annotators[ANNOTATOR].fn_completions = completions
        reference, model = names
        return annotator.annotate_head2head(
            [{"instruction": case.name, "output": case.reference, "generator": reference} for case in cases],
            [{"instruction": case.name, "output": case.response, "generator": model} for case in cases],
            chunksize=None,
        )


def _completion(reply: Reply | None) -> dict[str, Any]:
    """An answer as alpaca_eval's parser wants it."""
    likely = reply.first_token if reply and reply.first_token else []
    return {"text": reply.text if reply else "", "logprobs": {"content": [{"top_logprobs": likely}]}}


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
