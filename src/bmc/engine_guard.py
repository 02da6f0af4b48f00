"""End an engine's processes with the process that started them, however that ends.

vLLM starts processes of its own, which outlive a stage that is killed and keep their memory. They inherit an
environment variable with a mark; a guard, which a pipe ties to the stage, kills whatever bears the mark when the stage
has ended.
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
    """A guard's process, and the mark that it looks for."""

    mark: str
    process: subprocess.Popen[bytes]


@cache
def engine_guard() -> Guard:
    """Start this process's guard, once. Its pipe stays open as long as this process lives."""
    mark = f"{os.getpid()}-{uuid.uuid4().hex}"
    command = [sys.executable, "-I", __file__, mark]
    # a session of its own: what ends the stage's process group must not end the guard first
    return Guard(mark, subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))


def marked(mark: str) -> list[int]:
    """Return the ids of this user's processes that were started with the mark (Linux; none elsewhere)."""
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
    """Wait until the stage has closed the pipe, that is until it has ended, then kill what is left of its engines."""
    sys.stdin.buffer.read()
    while processes := marked(mark):
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.1)


if __name__ == "__main__":
    main(sys.argv[1])
