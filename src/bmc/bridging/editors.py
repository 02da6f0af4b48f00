"""The editor that a recipe names."""

from __future__ import annotations

from ..asking.asker import Asker, Model, StoredAsker
from ..asking.batch import Batches
from ..asking.cost import NONE_PAID, Meter, Paid
from ..asking.endpoint import Endpoint
from ..asking.store import ReplyStore, replies_path
from ..bridge_config import BridgeConfig
from .edit import Editor
from .prompts import VERSION


def make_model(config: BridgeConfig, meter: Meter, paid: Paid = NONE_PAID) -> Model:
    """The model that a recipe asks.

    Args:
        config: The recipe; its editor is none of rules.
        meter: Counts requests.
        paid: For answers of earlier runs.

    Raises:
        Faults: It needs a key and there is none.
    """
    if config.editor == "vllm" or config.editor == "transformers":
        from ..asking.local import Local

        return Local(config, config.editor)
    return (Batches if config.batch_api else Endpoint)(config, meter, paid)


def make_editor(config: BridgeConfig, meter: Meter | None = None, paid: Paid = NONE_PAID) -> Editor | Asker:
    """The recipe's editor. Whoever asks it must be in one event loop throughout.

    Args:
        config: The recipe.
        meter: Counts tokens and dollars.
        paid: For answers of earlier runs.

    Raises:
        Faults: It needs a key and there is none, or the store of answers can't be used.
    """
    if config.editor == "rules":
        from .rules import RulesEditor

        return RulesEditor()
    meter = meter or Meter(config.prices.get(config.model))
    model = make_model(config, meter, paid)
    return StoredAsker(model, config, VERSION, ReplyStore(replies_path(config.replies, config.output_dir)), meter)
