"""One process at a time on a file."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import time
from pathlib import Path

from ..errors import fail

logger = logging.getLogger(__name__)


class Lock:
    """The lock on a file, held from here to `release`. It lies in a file beside, which stays and says who holds it.

    It is the kernel's (`flock`), which lets go of it when the process ends, however it ends.
    """

    def __init__(self, path: Path, poll: float = 0.2) -> None:
        """Waits for whoever holds it, and says who that is.

        Args:
            path: The file that is to be used by one process.
            poll: Seconds between two looks.

        Raises:
            Faults: This very process holds it.
            OSError: The lock can't be written.
        """
        self.file = path.with_name(path.name + ".lock").open("a+", encoding="utf-8")
        told = False
        while not self._taken():
            holder = self._holder()
            if holder.get("pid") == os.getpid() and holder.get("host") == socket.gethostname():
                self.file.close()
                raise fail(str(path), "is in use by this very process; close it first")
            if not told and holder:
                logger.warning(
                    "%s: waiting for process %s on %s, which has held it since %s (Ctrl-C gives up)",
                    path, holder.get("pid"), holder.get("host"), holder.get("since"),
                )  # fmt: skip
                told = True
            time.sleep(poll)
        self._sign()

    def release(self) -> None:
        """Lets the next one in."""
        self.file.close()

    def _taken(self) -> bool:
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _holder(self) -> dict[str, object]:
        self.file.seek(0)
        try:
            return dict(json.loads(self.file.read()))
        except (ValueError, TypeError):  # it has the lock and hasn't signed yet
            return {}

    def _sign(self) -> None:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        self.file.truncate(0)
        self.file.write(json.dumps(holder))
        self.file.flush()
