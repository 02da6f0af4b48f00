"""The console command `bmc`. Nothing heavy is imported before a command is chosen."""

from __future__ import annotations

import sys
from importlib import import_module

STAGES = {  # stage → what it does
    "prepare": "raw data → SFT data, validation part, benchmarks",
    "sft": "supervised fine-tuning",
    "sample": "the SFT model's responses as rejected ones",
    "bridge": "edit rejected responses into bridged ones",
    "score_tokens": "token weights of pairs from other models: TIS-DPO, SePO, TGDPO",
    "train": "preference training: DPO-BMC, DPO and the rest",
    "evaluate": "responses to benchmarks, scored",
    "judge": "an evaluation's responses, compared by a judge",
    "analyze": "the paper's figures from the runs of a model/task",
    "rounds": "sample, bridge, train and evaluate, again from the trained model",
    "report": "all runs below a folder, side by side",
    "table": "a table of the paper, reported beside reproduced",
    "merge": "an adapter and its base model → a whole model",
    "export": "a model → weights and a Modelfile for Ollama",
    "lm_eval": "lm-evaluation-harness on a model",
    "tiny_model": "a small model with random weights, with its tokenizer",
    "lab": "a study over methods and seeds with tiny models",
}


OTHERS = {
    "run": "TARGET… [--dry_run] [--seeds 1,2,3] [--launcher COMMAND]: what a target needs and isn't there yet, then it",
    "show": "RECIPE [--key value …] [--flat] [--prompt [--row N]]: each value with its origin; or the editor's prompt",
    "review": "FOLDER [--reviewer AB]: a bridging run's edits in the browser, to accept, reject or correct",
    "plan": "RECIPE… [--fit CARD]: what each would do, need and cost; or the command of what fits a card",
    "keys": ": every key of every stage's recipe, as docs/recipes.md has it",
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
