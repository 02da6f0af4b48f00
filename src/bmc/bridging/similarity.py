"""Cosine similarity of responses by a sentence-embedding model (extra `embeddings`), as the paper measures it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from ..config import BridgeMode
from ..data.schema import Row, content, unbridged
from ..errors import user_error
from .making import edited_side
from .statistics import Mean

_BATCH = 32  # pairs, with three texts each


def load(name: str) -> Any:
    """The model, a `SentenceTransformer`; loaded before anything is paid for.

    Raises:
        UserErrors: The extra isn't installed, or there is no such model.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        what = "needs the extra `embeddings`; pip install -e '.[embeddings]', or leave the key out"
        raise user_error("similarity_model", what) from None
    try:
        return SentenceTransformer(name)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise user_error(
            "similarity_model", f"'{name}' can't be loaded ({reason}); give a Hub id or a folder"
        ) from None


def cosine(model: Any, pairs: Iterable[Row], mode: BridgeMode) -> dict[str, float | None]:
    """Mean similarities of the bridged pairs, in [−1, 1]; a batch of pairs is in memory at a time.

    Args:
        model: With `encode` as `SentenceTransformer` has it.
        pairs: Rows of `train.jsonl`.
        mode: What kind of edits they hold.

    Returns:
        Those of (y_w, edit), `y_w_edit`, and (edit, y_l), `edit_y_l`.
    """
    means = {"y_w_edit": Mean(), "edit_y_l": Mean()}
    bridged = (pair for pair in pairs if pair["bridged"])
    while batch := list(islice(bridged, _BATCH)):
        before = [unbridged(pair) for pair in batch]
        texts = [content(pair["chosen"]) for pair in before]
        texts += [content(pair[edited_side(mode)]) for pair in batch]
        texts += [content(pair["rejected"]) for pair in before]
        vectors = model.encode(texts, batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False)
        count = len(batch)
        for row in range(count):
            means["y_w_edit"].add(float(vectors[row] @ vectors[count + row]))
            means["edit_y_l"].add(float(vectors[count + row] @ vectors[2 * count + row]))
    return {name: mean.rounded() for name, mean in means.items()}
