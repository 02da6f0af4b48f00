"""Scores of responses, and how sure they are.

Names are imported when they are first used.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "extract_answer": "bmc.evaluation.extraction",
    "math_equal": "bmc.evaluation.maths",
    "qa_equal": "bmc.evaluation.qa",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bmc.evaluation' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)
