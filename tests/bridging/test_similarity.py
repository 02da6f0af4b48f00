import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bmc.bridging.editor import bridged_pair
from bmc.bridging.stats import cosine, load_embedder
from bmc.errors import UserErrors

VECTORS = {"w": [1.0, 0.0], "l": [0.0, 2.0], "edit": [3.0, 4.0]}
ROW = {"id": "a", "prompt": "x", "chosen": "w", "rejected": "l"}


class Encoder:
    """`SentenceTransformer.encode`, with vectors of our choice."""

    def __init__(self, name: str = "m") -> None:
        if name != "m":
            raise OSError(f"{name} is not a local folder\nand more")
        self.most = 0

    def encode(self, texts: list[str], batch_size: int, normalize_embeddings: bool, show_progress_bar: bool) -> Any:
        assert normalize_embeddings
        self.most = max(self.most, len(texts))
        vectors = np.array([VECTORS[text] for text in texts])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_means_of_the_bridged_pairs(subtests: pytest.Subtests) -> None:
    for mode, edit in [("targeted", "edit"), ("degrade", "edit"), ("polish", "edit")]:
        with subtests.test(mode=mode, edit=edit):
            pairs = [bridged_pair(ROW, edit, mode), bridged_pair(ROW, None, mode)]
            assert cosine(Encoder(), pairs, mode) == {"y_w_edit": 0.6, "edit_y_l": 0.8}  # (3, 4) / 5


def test_a_stream_is_read_in_batches() -> None:
    model, read = Encoder(), 0

    def stream() -> Iterator[Any]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield bridged_pair(ROW, "edit", "targeted")

    assert cosine(model, stream(), "targeted") == {"y_w_edit": 0.6, "edit_y_l": 0.8}
    assert (read, model.most) == (100, 96)
    assert cosine(model, [bridged_pair(ROW, None, "targeted")], "targeted") == {"y_w_edit": None, "edit_y_l": None}


def test_the_extra_and_the_model_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserErrors, match=r"similarity_model: needs the extra `embeddings`; pip install"):
        load_embedder("m")
    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = Encoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    assert isinstance(load_embedder("m"), Encoder)
    with pytest.raises(UserErrors, match=r"similarity_model: 'none' can't be loaded \(none is not a local folder\)"):
        load_embedder("none")
