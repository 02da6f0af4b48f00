"""`accelerate launch` for a job that may be preempted: `python -m bmc.launch`, with the same arguments.

Accelerate's own ends with status 1 whatever a rank ends with, and gives ranks 30 seconds after a SIGTERM, in which no
large model is saved. This one passes a SIGTERM on and waits, and ends as the first rank did that failed: with
`PREEMPTED` where it saved a checkpoint and is to be started again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from .runtime import FAULT, PREEMPTED


def main(argv: list[str]) -> int:
    """Launches, and returns the exit status."""
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    arguments = launch_command_parser().parse_args(argv)
    arguments.signals_to_handle = "SIGINT,SIGHUP,SIGQUIT"  # torchrun's key: SIGTERM is left to us
    signal.signal(signal.SIGTERM, _pass_on)
    try:
        launch_command(arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode not in (PREEMPTED, FAULT):  # which the rank has spoken of itself
            print(f"rank {rank} failed first, with exit status {failure.exitcode}", file=sys.stderr)
        return _status(failure.exitcode)
    except subprocess.CalledProcessError as error:  # a single process
        return _status(error.returncode)
    return 0


def share_out(count: int) -> None:
    """Runs this script in `count` processes that share its rows out, and ends as they do; returns in those, and where
    `count` is 1."""
    if count > 1 and "WORLD_SIZE" not in os.environ:
        alike = ["--multi_gpu", "--mixed_precision", "no", "--dynamo_backend", "no", "--num_machines", "1"]
        raise SystemExit(main([*alike, "--num_processes", str(count), "--main_process_port", "0", *sys.argv]))


def _status(code: int) -> int:
    """A shell's word for an exit code, which is negative for a signal."""
    return 128 - code if code < 0 else code


def _pass_on(number: int, frame: Any) -> None:
    import psutil

    for child in psutil.Process().children():
        child.send_signal(number)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
