"""Pairs of a tiny setting, and how its stages are run."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HELD_OUT = 6
MAX_LENGTH = 58  # some responses are longer


def message(words: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": words}]


def pair(number: int) -> dict[str, Any]:
    """A bridged pair; an à has two tokens of the tiny tokenizer."""
    total = number + number % 7
    return {
        "id": f"sum-{number}",
        "prompt": [{"role": "user", "content": f"Add {number} and {number % 7}."}],
        "chosen": message(f"The sum, voilà, is {total}."),
        "rejected": message(f"The sum, voilà, is not {number}."),
        "original_chosen": message(f"It makes {total}, I think"),
        "bridged": True,
        "edit_ratio": 0.2,
    }


def call(script: str, *arguments: str) -> None:
    """Runs a stage in this process, in the repository's root."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"scripts/{script}.py", *arguments])
        patch.chdir(ROOT)
        runpy.run_path(str(ROOT / f"scripts/{script}.py"), run_name="__main__")
