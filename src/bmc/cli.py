"""The console command `bmc`. Nothing heavy is imported before a command is chosen."""

from __future__ import annotations

import sys
from importlib import import_module

STAGES = {  # stage → what it does
    "prepare": "turn raw data into SFT data, a validation part and benchmarks",
    "sft": "fine-tune on responses",
    "sample": "sample the SFT model's responses as y_l",
    "bridge": "edit y_l where it is wrong: bridged pairs",
    "score_tokens": "compute token weights from two models: TIS-DPO, SePO, TGDPO",
    "train": "train on preference pairs: DPO-BMC, DPO and other methods",
    "evaluate": "answer benchmarks and score the responses",
    "judge": "have a judge compare an evaluation's responses",
    "analyze": "draw the paper's figures from the runs of a model/task",
    "rounds": "sample, bridge, train and evaluate several times",
    "report": "compare all runs below a folder",
    "table": "print a table of the paper, its numbers beside ours",
    "merge": "merge an adapter into its base model",
    "export": "export a model for Ollama",
    "lm_eval": "run lm-evaluation-harness on a model",
    "tiny_model": "make a small model with random weights",
    "lab": "compare methods over seeds with tiny models",
}


OTHERS = {
    "run": "TARGET… [--dry_run] [--seeds 1,2,3] [--launcher COMMAND]: build what a target needs, then the target",
    "show": "RECIPE [--key value …] [--flat] [--prompt [--row N]]: print values with origins, or the editor's prompt",
    "review": "FOLDER [--reviewer AB]: accept, reject or correct a bridging run's edits in the browser",
    "plan": "RECIPE… [--fit CARD]: print what each would do, need and cost; or how it fits a card",
    "keys": ": print every key of every stage's recipe (docs/recipes.md)",
}


def main(argv: list[str] | None = None) -> None:
    """Run one command of `bmc`; by default that of `sys.argv`."""
    words = sys.argv[1:] if argv is None else argv
    command, rest = (words[0], words[1:]) if words else ("--help", [])
    if command in ("-h", "--help", "help"):
        print(usage())
    elif command == "--version":
        from . import __version__

        print(f"bmc {__version__}")
    else:
        from .runs import run_main

        run_main(lambda: _dispatch(command, rest))


def script(name: str) -> None:
    """Run a stage with the arguments of the script in `scripts/` that is for it alone."""
    from .runs import run_main

    run_main(lambda: _dispatch(name, sys.argv[1:]))


def _dispatch(command: str, argv: list[str]) -> None:
    """Import and call what a command names."""
    if command not in STAGES and command not in OTHERS:
        from .errors import did_you_mean, user_error

        hint = did_you_mean(command, [*STAGES, *OTHERS])
        raise user_error("command line", f"bmc {command}: there is no such command{hint}; bmc --help lists them")
    getattr(import_module("bmc.commands"), command)(argv)


def usage() -> str:
    """Return what `bmc --help` prints."""
    lines = [
        "usage: bmc COMMAND …",
        "",
        "Stages (bmc STAGE RECIPE.yaml [--key value …] [--dry_run]; --help lists the keys):",
    ]
    lines += [f"  {name:<12} {what}" for name, what in STAGES.items()]
    lines += ["", "And:", *(f"  bmc {name} {what}" for name, what in OTHERS.items())]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
