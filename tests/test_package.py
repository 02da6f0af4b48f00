"""The wheel works outside the checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PROBE = """
import bmc, sys
from importlib.resources import files
assert bmc.__file__.startswith(sys.argv[1]), bmc.__file__
assert bmc.token_diff([1, 2, 3], [1, 9, 3])[0] == [False, True, False]
missing = [name for name in sys.argv[2:] if not (files("bmc") / name).is_file()]
assert not missing, missing
"""


@pytest.mark.slow
def test_the_wheel_is_complete_and_its_command_runs_in_a_fresh_environment(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(source)], check=True)
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(source)], check=True, timeout=300)
    (wheel,) = tmp_path.glob("bmc-*.whl")
    venv.create(tmp_path / "env", with_pip=False)
    (python,) = (tmp_path / "env/bin").glob("python3")
    packages = next((tmp_path / "env/lib").glob("python3*/site-packages"))
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, timeout=300)
    # the dependencies are those of this environment, without a download
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    data = [
        str(path.relative_to(ROOT / "src/bmc"))
        for path in (ROOT / "src/bmc").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([python, "-c", PROBE, str(packages), *data], check=True, cwd=tmp_path, env=environment, timeout=300)
    command = [tmp_path / "env/bin/bmc", "--help"]
    printed = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60)
    assert printed.returncode == 0, printed.stderr
    assert "bridge" in printed.stdout
