"""Kill vLLM's engine processes when the stage that started them ends, even by SIGKILL.

vLLM starts processes of its own, which outlive a killed stage and keep their GPU memory. They inherit an environment
variable with a unique mark. A guard process holds one end of a pipe to the stage: once the stage has ended, the pipe
closes, and the guard kills every process that carries the mark.

The guard runs this file by its path, in isolation: it imports the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from functools import cache
from pathlib import Path
from typing import NamedTuple

MARK = "BMC_ENGINE_OF"


class Guard(NamedTuple):
    """Hold the guard process and the mark that it looks for."""

    mark: str
    process: subprocess.Popen[bytes]


@cache
def engine_guard() -> Guard:
    """Start the guard of this process, once; its pipe stays open as long as this process lives."""
    mark = f"{os.getpid()}-{uuid.uuid4().hex}"
    command = [sys.executable, "-I", __file__, mark]
    # a session of its own: a signal to the stage's process group must not end the guard first
    return Guard(mark, subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))


def marked_processes(mark: str) -> list[int]:
    """List the ids of this user's processes that were started with the mark (Linux; none elsewhere)."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:  # another user's, or it has just ended
            continue
        if wanted in environment.split(b"\0"):
            found.append(int(folder.name))
    return found


def main(mark: str) -> None:
    """Wait until the stage has ended, then kill what is left of its engines."""
    sys.stdin.buffer.read()  # returns when the stage's end of the pipe closes
    while processes := marked_processes(mark):
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.1)


if __name__ == "__main__":
    main(sys.argv[1])
