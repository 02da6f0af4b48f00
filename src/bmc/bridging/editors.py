"""The editor that a recipe names: a model, or one that needs none."""

from __future__ import annotations

from ..config import BridgeConfig
from ..llm.batch import Batches
from ..llm.cache import ResponseCache
from ..llm.client import Model
from ..llm.cost import Meter
from ..llm.endpoint import Endpoint
from .edit import Editor
from .ideal_editor import IdealEditor
from .rules import RulesEditor


def make_model(config: BridgeConfig, meter: Meter, store: ResponseCache, paid: float = 0.0) -> Model:
    """The model that a recipe asks.

    Args:
        config: The recipe; its editor is a model (not in `OFFLINE`).
        meter: Counts requests.
        store: Keeps responses, and what was paid for those that hold none.
        paid: Dollars that earlier runs have spent.

    Raises:
        Faults: It needs a key and there is none, or there is no such model.
    """
    if config.editor == "vllm" or config.editor == "transformers":
        from ..llm.local import Local

        return Local(config, config.editor)
    return (Batches if config.batch_api else Endpoint)(config, meter, store, paid)


def offline_editor(config: BridgeConfig) -> Editor:
    """Make the recipe's editor, one of `OFFLINE`."""
    if config.editor == "rules":
        return RulesEditor()
    return IdealEditor(config.editor_error_rate, config.editor_rewrite_rate)
