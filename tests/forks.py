"""Runs commands in forks of one process that has imported what takes seconds: torch, TRL, openai and the stages.

    run(["scripts/bridge.py", "recipe.yaml"]), Fork(["-m", "bmc", "rounds", …]), run(["-c", code])

A fork behaves as `python` with those arguments does: exit status, signals, output. What a stage imports, and what a
launcher does, needs a Python of its own.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_server: subprocess.Popen[str] | None = None
_last: Fork | None = None


class Fork:
    """One command, with `Popen`'s methods. Only one may run at a time."""

    def __init__(self, command: list[str], cwd: Any = ROOT, env: Any = None, start_new_session: bool = False) -> None:
        global _server, _last
        if _server is None:
            _server = subprocess.Popen([sys.executable, __file__], stdin=-1, stdout=-1, text=True, bufsize=1)
            atexit.register(_server.communicate)  # its input ends, and it does
        if _last is not None and _last.poll() is None:  # of a test that failed
            _last.send_signal(9)
            _last.wait()
        self.args, self.returncode, self._server, _last = command, None, _server, self
        self._folder = tempfile.TemporaryDirectory()
        job = {"command": command, "cwd": str(cwd or os.getcwd()), "env": {**(os.environ if env is None else env)}}
        job |= {"session": start_new_session, "folder": self._folder.name}
        print(json.dumps(job), file=_server.stdin)
        self.pid = int(_server.stdout.readline())

    def _read(self, name: str) -> str:
        return Path(self._folder.name, name).read_text(encoding="utf-8", errors="replace")

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._server.stdout], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        if self.returncode is None:
            if not select.select([self._server.stdout], [], [], timeout)[0]:
                os.kill(self.pid, 9)
                self.wait(10)
                raise TimeoutError(f"{self.args} took {timeout} s; {self._read('err')[-3000:]}")
            self.returncode = int(self._server.stdout.readline())
            self.stdout, self.stderr = self._read("out"), self._read("err")
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)


def run(command: list[str], cwd: Any = ROOT, env: Any = None, timeout: float = 300) -> Fork:
    done = Fork(command, cwd, env)
    done.wait(timeout)
    return done


def _become(job: dict[str, Any]) -> None:
    for number, name in ((0, None), (1, "out"), (2, "err")):
        path = os.path.join(job["folder"], name) if name else os.devnull
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    if job["session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    first, *rest = job["command"]
    if first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


def _leave(job: dict[str, Any]) -> None:
    """Do the job and exit as Python does, but for the seconds in which it clears what the server has imported."""
    status: Any = 0
    try:
        _become(job)
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    if not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _serve() -> None:
    import datasets  # noqa: F401
    import openai  # noqa: F401
    import torch  # noqa: F401
    import trl  # noqa: F401

    import bmc.bridging.run
    import bmc.commands
    import bmc.training.sweep
    import bmc.training.trainer  # noqa: F401

    gc.freeze()  # a collection would copy all pages
    for line in iter(sys.stdin.readline, ""):  # reads no further than the line
        child = os.fork()
        if not child:
            _leave(json.loads(line))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
