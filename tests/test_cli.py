"""`bmc STAGE` is the stage's script under another name."""

import subprocess
import sys
from pathlib import Path

import forks
import pytest

from bmc import program
from bmc.cli import STAGES, main

ROOT = Path(__file__).parents[1]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from bmc.cli import main; main(['--help']); sys.exit(len({'torch', 'yaml'} & set(sys.modules)))"
    done = run("-c", code)
    assert done.returncode == 0
    assert all(f"\n  {stage} " in done.stdout for stage in STAGES)


def test_each_stage_has_a_command_and_a_script(subtests: pytest.Subtests) -> None:
    for stage in STAGES:
        with subtests.test(stage=stage):
            from bmc import commands

            assert callable(getattr(commands, stage))
            script = ROOT / f"scripts/{program.script_of(stage)}.py"
            assert f'script("{stage}")' in script.read_text()


@pytest.mark.slow
def test_a_script_and_the_command_say_the_same() -> None:
    script, command = forks.run(["scripts/prepare.py", "--help"]), forks.run(["-m", "bmc", "prepare", "--help"])
    assert script.stdout.splitlines()[0] == "usage: prepare.py RECIPE.yaml [--key value …]"
    assert command.stdout.splitlines()[0] == "usage: bmc prepare RECIPE.yaml [--key value …]"
    assert script.stdout.splitlines()[1:] == command.stdout.splitlines()[1:]


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["trian"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "command line: bmc trian: there is no such command (did you mean 'train'?); bmc --help lists them\n"
    )


@pytest.mark.parametrize(
    ("argv0", "started"),
    [
        ("scripts/preference.py", ["scripts/evaluate.py"]),
        ("/v/bin/bmc", ["/v/bin/bmc", "evaluate"]),
        ("/v/lib/bmc/__main__.py", ["/v/lib/bmc/__main__.py", "evaluate"]),
    ],
)
def test_another_stage_is_started_alike(argv0: str, started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [argv0, "train", "r.yaml"])
    assert program.start("evaluate") == started


@pytest.mark.slow
def test_a_launcher_can_start_the_package_by_its_path(tmp_path: Path) -> None:
    done = forks.run([str(ROOT / "src/bmc/__main__.py"), "prepare", str(tmp_path / "none.yaml")])
    assert (done.returncode, done.stderr) == (2, f"{tmp_path}/none.yaml: cannot be read: No such file or directory\n")
