"""Find out how this process was started: as `bmc STAGE`, or by the stage's own script."""

from __future__ import annotations

import sys
from pathlib import Path

SCRIPTS = {"train": "preference", "lm_eval": "harness"}  # stages whose script has another name


def script_of(stage: str) -> str:
    """Return the name of a stage's file in `scripts/`, without its ending."""
    return SCRIPTS.get(stage, stage)


def shown(argv: list[str]) -> list[str]:
    """Return a command line as a person types it: `bmc` instead of the file that it stands for."""
    return ["bmc", *argv[1:]] if _is_bmc(argv) else argv


def name() -> str:
    """Return the program's name for `--help`: `bmc train`, `preference.py`."""
    return " ".join(shown(sys.argv)[:2]) if _is_bmc(sys.argv) else Path(sys.argv[0]).name


def start(stage: str) -> list[str]:
    """Return the words that start another stage in the way this process was started, also under a launcher."""
    program = Path(sys.argv[0])
    if _is_bmc(sys.argv):
        return [str(program), stage]
    return [str(program.with_name(f"{script_of(stage)}.py"))]


def trains_on_pairs(command: str) -> bool:
    """Tell whether a recorded command line is a preference training."""
    return "preference.py" in command or command.startswith("bmc train ")


def _is_bmc(argv: list[str]) -> bool:
    return Path(argv[0]).stem in ("bmc", "__main__")
