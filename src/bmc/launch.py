"""`accelerate launch` for a job that may be preempted: `python -m bmc.launch`, with the same arguments.

Accelerate's own ends with status 1 whatever a rank ends with, and gives ranks 30 seconds after a SIGTERM, in which no
large model is saved. This one passes a SIGTERM on, waits for as long as it takes, and ends as the first rank did that
failed: with `EXIT_PREEMPTED` where it saved a checkpoint, or had none to save yet, and is to be started again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from .runs import EXIT_PREEMPTED, EXIT_USER_ERROR


def main(argv: list[str]) -> int:
    """Launches, and returns the exit status."""
    import psutil
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    arguments = launch_command_parser().parse_args(argv)
    arguments.signals_to_handle = "SIGINT,SIGHUP,SIGQUIT"  # torchrun's key: SIGTERM is left to us
    terminated: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        terminated.append(number)
        for child in psutil.Process().children():
            child.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    try:
        launch_command(arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        if code not in (EXIT_PREEMPTED, EXIT_USER_ERROR):  # which the rank has spoken of itself
            print(f"rank {rank} failed first, with exit status {code}", file=sys.stderr)
    except subprocess.CalledProcessError as error:  # a single process
        code = error.returncode
    else:
        return 0
    if terminated and code == -signal.SIGTERM:  # it came while the rank still started
        return EXIT_PREEMPTED
    return 128 - code if code < 0 else code  # as a shell says it


def launch_workers(count: int) -> None:
    """Runs this script in `count` processes that share its rows out, and ends as they do; returns in those, and where
    `count` is 1."""
    if count > 1 and "WORLD_SIZE" not in os.environ:
        alike = ["--multi_gpu", "--mixed_precision", "no", "--dynamo_backend", "no", "--num_machines", "1"]
        raise SystemExit(main([*alike, "--num_processes", str(count), "--main_process_port", "0", *sys.argv]))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
