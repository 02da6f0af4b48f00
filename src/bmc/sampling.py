"""Sampled responses → preference pairs."""

from __future__ import annotations

from typing import Any

from .data.pairs import BRIDGING, SIDES, winner
from .data.schema import Row, assistant, content
from .generation import Response


def pair_up(rows: list[Row], responses: list[Response]) -> tuple[list[Row], list[Row]]:
    """The ground truth as y_w, the model's response as y_l.

    Args:
        rows: With `prompt` and a `winner` (the losers of pairs give way).
        responses: The model's, in the order of the rows; after a `prefix`, or with the `reason` why there is none.

    Returns:
        The pairs, and the rows that are none with their `reason`: an empty response, or one equal to y_w.
    """
    pairs, dropped = [], []
    for row, response in zip(rows, responses, strict=True):
        given: Any = winner(row)
        rest = {key: value for key, value in row.items() if key not in ("completion", *SIDES, *BRIDGING)}
        text = response["text"].strip()
        if "prefix" in response:  # y_l begins as y_w does, to the last space
            text = (response["prefix"] + response["text"]).rstrip()
        loser = text if isinstance(given, str) else assistant(text)
        pair = {**rest, "chosen": given, "rejected": loser, "finished": response["finished"]}
        reason = response.get("reason") or ("" if text else "empty response")
        if not reason and text.strip() == content(given).strip():
            reason = "equal to y_w"
        if reason:
            dropped.append({**pair, "reason": reason})
        else:
            pairs.append(pair)
    return pairs, dropped
