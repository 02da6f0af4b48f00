"""The trained runs of a setting, as an analysis finds them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import fail
from ..pipeline import OUTPUTS
from ..provenance import file_digest
from ..runs import RECIPE_FILE
from ..training.fault_tolerance import find_damage
from .cells import read_json

METHODS = {"dpo": "DPO", "dpo_mc": "DPO-MC", "dpo_bc": "DPO-BC", "dpo_bmc": "DPO-BMC"}


@dataclass(frozen=True)
class Run:
    """One finished training.

    Attributes:
        name: Its folder below the setting's: `dpo_bmc`, `ablations/dpo_bmc_delta_1.5`.
        folder: Where it is.
    """

    name: str
    folder: Path

    @property
    def method(self) -> str:
        """What to call it in a figure."""
        return METHODS.get(self.name, self.name)

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """What was set in its recipe."""
        return read_json(self.folder / RECIPE_FILE)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        return read_json(self.folder / "metrics.json")

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """What was logged while it trained, a line a step; nothing where that wasn't kept."""
        path = self.folder / "trainer_state.json"
        return list(read_json(path).get("log_history", [])) if path.is_file() else []

    @property
    def steps(self) -> int | None:
        """Optimizer steps; None where they weren't kept."""
        return max((line["step"] for line in self.history if "step" in line), default=None)

    @property
    def has_weights(self) -> bool:
        return _has_weights(self.folder)

    def saved(self) -> list[tuple[int, Path]]:
        """Step and folder of each model that was saved while it trained, whole and with its weights."""
        found = []
        for path in self.folder.glob("checkpoint-*"):
            number = re.fullmatch(r"checkpoint-(\d+)", path.name)
            if number and _has_weights(path) and find_damage(path) is None:
                found.append((int(number[1]), path))
        return sorted(found)


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


def find(setting: str, names: list[str]) -> tuple[list[Run], dict[str, str]]:
    """The runs of a setting that are finished, and what is to be said of the others.

    Args:
        setting: Their folder.
        names: What to look for in it.

    Returns:
        `(runs, name → what is missing)`.

    Raises:
        Faults: There is no such folder, or none of them in it.
    """
    folder = Path(setting)
    if not folder.is_dir():
        raise fail("setting", f"there is no folder {setting}; give the one that the runs were written to")
    runs, missing = [], {}
    for name in names:
        if (folder / name / "metrics.json").is_file():
            runs.append(Run(name, folder / name))
        else:
            missing[name] = "not finished" if (folder / name / RECIPE_FILE).exists() else "not run"
    if not runs:
        what = f"holds no finished run {', '.join(names)} (metrics.json)"
        raise fail(setting, f"{what}; {make(setting, names[-1])}")
    return runs, missing


def make(setting: str, *names: str) -> str:
    """The command that makes runs of a setting, with what they need."""
    return f"make {' '.join(f'{_place(setting)}/{name}' for name in names)}"


def run_stage(name: str, setting: str) -> str:
    """The command of one stage alone, by the recipe of that name."""
    return f"python scripts/{name}.py recipes/{_place(setting)}/{name}.yaml"


def _place(setting: str) -> str:
    """A setting's folder below `recipes`, which is that below `outputs`."""
    parts = Path(setting).parts
    return "/".join(parts[parts.index(OUTPUTS) + 1 :] if OUTPUTS in parts else parts[-2:])


def check_alike(runs: list[Run]) -> None:
    """Whether runs can be laid side by side: one reference, one tokenizer with its template, one `max_length`.

    Raises:
        Faults: They can't.
    """
    first = runs[0]
    for run in runs[1:]:
        for what, of in (("reference model", _reference), ("tokenizer", _tokenizer), ("max_length", _max_length)):
            if of(run) != of(first):
                told = "" if of is _tokenizer else f" ({of(run)} and {of(first)})"
                raise fail("runs", f"{run.name} has another {what} than {first.name}{told}; analyse them apart")


def _reference(run: Run) -> str:
    name, revision = run.recipe.get("model_name_or_path"), run.recipe.get("model_revision", "main")
    return f"{name}" if revision == "main" else f"{name}@{revision}"


def _max_length(run: Run) -> Any:
    return run.recipe.get("max_length", "TRL's default")


def _tokenizer(run: Run) -> list[str]:
    names = ("tokenizer.json", "chat_template.jinja")
    return [file_digest(path) if (path := run.folder / name).is_file() else "" for name in names]
