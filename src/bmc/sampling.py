"""Sampled responses → preference pairs."""

from __future__ import annotations

from .data.schema import Row, assistant, content
from .generation import Response


def pair_up(rows: list[Row], responses: list[Response]) -> tuple[list[Row], list[Row]]:
    """The ground truth as y_w, the model's response as y_l.

    Args:
        rows: With `prompt` and `completion`, or `chosen` where the data are pairs (their `rejected` gives way).
        responses: The model's, in the order of the rows.

    Returns:
        The pairs, and the rows that are none with their `reason`: an empty response, or one equal to y_w.
    """
    pairs, dropped = [], []
    for row, response in zip(rows, responses, strict=True):
        winner = row.get("completion") or row["chosen"]
        rest = {key: value for key, value in row.items() if key not in ("completion", "chosen", "rejected")}
        text = response["text"].strip()
        loser = text if isinstance(winner, str) else assistant(text)
        pair = {**rest, "chosen": winner, "rejected": loser, "finished": response["finished"]}
        reason = "empty response" if not text else "equal to y_w" if text == content(winner).strip() else None
        if reason:
            dropped.append({**pair, "reason": reason})
        else:
            pairs.append(pair)
    return pairs, dropped
