"""Launch processes that may be preempted: `python -m bmc.launch`, with the arguments of `accelerate launch`.

Accelerate exits with status 1 whatever a rank exits with, and gives ranks 30 seconds after a SIGTERM, too few to save a
large model. This launcher passes a SIGTERM on, waits as long as it takes, and exits with the status of the first rank
that failed: `EXIT_PREEMPTED` if the job is to be started again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from .runs import EXIT_PREEMPTED, EXIT_USER_ERROR


def main(argv: list[str]) -> int:
    """Launch, and return the exit status."""
    import psutil
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    arguments = launch_command_parser().parse_args(argv)
    arguments.signals_to_handle = "SIGINT,SIGHUP,SIGQUIT"  # torchrun's: SIGTERM is handled here
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
        if code not in (EXIT_PREEMPTED, EXIT_USER_ERROR):  # the rank has reported these itself
            print(f"rank {rank} failed first, with exit status {code}", file=sys.stderr)
    except subprocess.CalledProcessError as error:  # a single process
        code = error.returncode
    else:
        return 0
    if terminated and code == -signal.SIGTERM:  # the rank was still starting
        return EXIT_PREEMPTED
    return 128 - code if code < 0 else code  # as a shell reports a signal


def launch_workers(count: int) -> None:
    """Run this script in `count` processes that share its rows, and exit as they do.

    Returns at once if `count` is 1, or in a process that a launcher started.
    """
    if count > 1 and "WORLD_SIZE" not in os.environ:
        alike = ["--multi_gpu", "--mixed_precision", "no", "--dynamo_backend", "no", "--num_machines", "1"]
        raise SystemExit(main([*alike, "--num_processes", str(count), "--main_process_port", "0", *sys.argv]))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
