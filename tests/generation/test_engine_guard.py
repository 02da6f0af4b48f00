"""The guard ends an engine's processes once the stage that started them is gone."""

import os
import signal
import subprocess
import sys
import time

from bmc.generation.engine_guard import MARK, marked_processes

STAGE = f"""
import os, subprocess, sys, time
from bmc.generation.engine_guard import engine_guard
mark = engine_guard().mark
engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env={{**os.environ, "{MARK}": mark}})
print(mark, flush=True)
time.sleep(60)
"""


def test_a_killed_stage_leaves_no_engine_behind() -> None:
    stage = subprocess.Popen([sys.executable, "-c", STAGE], stdout=subprocess.PIPE, text=True)
    assert stage.stdout
    mark = stage.stdout.readline().strip()
    end = time.monotonic() + 20
    while not marked_processes(mark) and time.monotonic() < end:
        time.sleep(0.05)
    assert len(marked_processes(mark)) == 1  # the engine, not the stage or the guard
    os.kill(stage.pid, signal.SIGKILL)
    stage.wait()
    while marked_processes(mark) and time.monotonic() < end:
        time.sleep(0.05)
    assert not marked_processes(mark)
