"""A pair in, a pair out: with a response that the editor made of it, or with weights by the editor's scores."""

from __future__ import annotations

from typing import Any, Protocol

from rapidfuzz.distance import Levenshtein

from ..config import BridgeMode
from ..data.pairs import SIDES, WEIGHTS
from ..data.schema import Row, content, share, with_content
from ..data.tokens import Untraceable, response_start, tokenise
from .edit import Case, EditError, Editor
from .scores import Scores, token_weights
from .validate import objection


class Scorer(Protocol):
    """Anything that scores words; `editors.OpenAIEditor` does."""

    async def score(self, prompt: str, response: str) -> Scores:
        """What each word does to the quality of the response.

        Raises:
            EditError, Faults: As `Editor.edit`.
        """
        ...


async def edited_pair(row: Row, editor: Editor, mode: BridgeMode, proportion: float) -> Row:
    """The pair with the editor's ỹ_w (for `degrade` ỹ_l), or as it is if it lies outside the proportion.

    Raises:
        EditError: There is none that may be trained on; the message says why.
        Faults: The run can't go on.
    """
    case = Case(
        id=row["id"],
        task=row.get("task") or "chat",
        prompt=content(row["prompt"]),
        chosen=content(row["chosen"]),
        rejected=content(row["rejected"]),
        answer=None if row.get("answer") is None else str(row["answer"]),
    )
    text = (await editor.edit(case)).text
    reason = "y_l is good enough" if text is None else objection(mode, text, case)
    if text is None or reason:
        raise EditError(reason)
    return bridged_pair(row, text if share(row["id"]) < proportion else None, mode)


def bridged_pair(row: Row, text: str | None, mode: BridgeMode) -> Row:
    """The row with ỹ_w as `chosen` (for `degrade` ỹ_l as `rejected`), or with both responses as they were where it is
    to stay unbridged (Figure 3).

    Args:
        row: With y_w and y_l.
        text: The edit, None for none.
        mode: What kind of edit it is.
    """
    side = "rejected" if mode == "degrade" else "chosen"
    # `degrade` edits y_w, so that ỹ_l has y_w's form; and so do the winners, which stand for it
    made = {} if text is None else {side: with_content(row["chosen"], text)}
    originals = {f"original_{name}": row[name] for name in dict.fromkeys(["chosen", side])}
    return _finished({**row, **made}, bridged=text is not None, **originals)


async def scored_pair(row: Row, scorer: Scorer, tokenizer: Any) -> Row:
    """The pair with `chosen_weights` and `rejected_weights`: λ of each response token as `trl.DPOTrainer` has them.

    Raises:
        EditError: The scores are of no use, or the chat template hides the words; the message says why.
        Faults: The run can't go on.
    """
    try:
        tokens = {side: tokenise(tokenizer, row, row[side]) for side in SIDES}
    except Untraceable as error:
        raise EditError(str(error)) from None
    start = response_start(tokenizer, row, *(sequence.ids for sequence in tokens.values()))
    weights: Row = {}
    for side, column, sign in zip(SIDES, WEIGHTS, (1, -1), strict=True):
        text = content(row[side])
        scores = await scorer.score(content(row["prompt"]), text)
        weights[column] = token_weights(text, scores, tokens[side].spans[start:], sign)
    return _finished(row, bridged=False, original_chosen=row["chosen"], **weights)


def _finished(pair: Row, **added: Any) -> Row:
    """A pair without empty columns, with what bridging adds."""
    ratio = edit_ratio(content(pair["chosen"]), content(pair["rejected"]))
    return {key: value for key, value in pair.items() if value is not None} | {"edit_ratio": round(ratio, 4), **added}


def edit_ratio(a: str, b: str) -> float:
    """Levenshtein distance over the longer length, in characters."""
    return Levenshtein.normalized_distance(a, b)
