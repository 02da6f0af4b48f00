"""Preference optimisation with bridged pairs and token weights (BMC, arXiv 2408.07471).

Names are imported when they are first used, so that `import bmc` costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "BMCConfig": "bmc.training.config",
    "BMCTrainer": "bmc.training.trainer",
    "LOSSES": "bmc.training.losses",
    "bmc_weights": "bmc.training.token_weights",
    "token_diff": "bmc.training.token_weights",
}
__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bmc' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
