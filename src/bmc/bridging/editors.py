"""The editor that a recipe names: a model, or one that needs none."""

from __future__ import annotations

from ..config import BridgeConfig
from ..llm.batch import BatchClient
from ..llm.cache import ResponseCache
from ..llm.client import ChatModel
from ..llm.cost import UsageTracker
from ..llm.openai_client import OpenAIClient
from .edit import Editor
from .ideal_editor import IdealEditor
from .rules import RulesEditor


def make_model(config: BridgeConfig, usage: UsageTracker, store: ResponseCache, paid: float = 0.0) -> ChatModel:
    """The model that a recipe asks.

    Args:
        config: The recipe; its editor is a model (not in `OFFLINE`).
        usage: Counts requests.
        store: Keeps responses, and what was paid for those that hold none.
        paid: Dollars that earlier runs have spent.

    Raises:
        UserErrors: It needs a key and there is none, or there is no such model.
    """
    if config.editor == "vllm" or config.editor == "transformers":
        from ..llm.local import LocalClient

        return LocalClient(config, config.editor)
    return (BatchClient if config.batch_api else OpenAIClient)(config, usage, store, paid)


def offline_editor(config: BridgeConfig) -> Editor:
    """Make the recipe's editor, one of `OFFLINE`."""
    if config.editor == "rules":
        return RulesEditor()
    return IdealEditor(config.editor_error_rate, config.editor_rewrite_rate)
