"""Which recipe makes what another one reads: `outputs/NAME` is written by `recipes/NAME.yaml`, as in the Makefile."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ..errors import Faults
from ..recipe import load

OUTPUTS, RECIPES = "outputs", "recipes"


@cache
def upstream(folder: str) -> dict[str, Any] | None:
    """The keys of the recipe that writes a folder; None if there is no such recipe."""
    path = Path(folder)
    if not path.parts or path.parts[0] != OUTPUTS:
        return None
    recipe = Path(RECIPES, *path.parts[1:]).with_suffix(".yaml")
    try:
        return load(recipe)[0] if recipe.is_file() else None
    except Faults:  # it tells them itself when it is run
        return None
