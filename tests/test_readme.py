"""Every command, path and name in the documents is real."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "recipes/README.md",
    "recipes/smollm2-135m/README.md",
    "benchmarks/README.md",
]


def commands(document: str) -> list[str]:
    """The shell commands in a document's ```bash blocks, a line each, without comments."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [stripped for line in lines if (stripped := re.sub(r"(^|\s)#.*", "", line).strip())]


COMMANDS = [(document, command) for document in DOCUMENTS for command in commands(document)]


@pytest.mark.parametrize(("document", "command"), COMMANDS, ids=[command[:60] for _, command in COMMANDS])
def test_command(document: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_0-9]+=.*", word)]
    if words[0] == "make":
        known = subprocess.run(["make", "-n", *words[1:]], capture_output=True, text=True)
        assert known.returncode == 0, known.stderr
    elif words[0] in ("python", "accelerate"):
        script = next(word for word in words if word.startswith(("scripts/", "benchmarks/")))
        assert all((ROOT / word).exists() for word in words if word.startswith(("scripts/", "recipes/", "benchmarks/")))
        dry_run(script, words[words.index(script) + 1 :])
    elif words[0] == "bash":
        script, stage, recipe, *arguments = words[1:]
        assert (ROOT / script).exists()
        dry_run(stage, [recipe, *arguments])
    else:
        assert words[0] in ("export", "git", "cd")


def dry_run(script: str, arguments: list[str]) -> None:
    """Judges a stage's arguments as its script would."""
    from bmc.bridge_config import BridgeConfig
    from bmc.config import AnalyzeConfig, EvaluateConfig, HarnessConfig, MergeConfig, PrepareConfig, SampleConfig
    from bmc.judge_config import JudgeConfig
    from bmc.recipe import parse

    light = {"prepare": PrepareConfig, "sample": SampleConfig, "bridge": BridgeConfig, "evaluate": EvaluateConfig}
    light |= {"judge": JudgeConfig, "harness": HarnessConfig, "analyze": AnalyzeConfig, "merge": MergeConfig}
    stage = Path(script).stem
    if any(word.startswith("path/to") for word in arguments) or stage in (
        "report",
        "table",
        "fetch_smollm2",
        "train_step",
        "bridging",
        "memory_plan",
    ):
        return
    if stage in light:
        parse([*arguments, "--dry_run"], light[stage])
        return
    from bmc.training.config import BMCConfig, PreferenceArguments, SFTConfig, TrainingArguments
    from bmc.training.run import parse_training

    kinds = {"sft": (TrainingArguments, SFTConfig), "preference": (PreferenceArguments, BMCConfig)}
    parse_training([*arguments, "--dry_run"], *kinds[stage], "")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", (ROOT / document).read_text()):
        assert ((ROOT / document).parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_in_backticks_exist(document: str) -> None:
    folder = (ROOT / document).parent
    pattern = r"`((?:recipes|scripts|src|tests)/[\w./-]+\.\w+|accelerate_configs/\w+\.yaml)`"
    for path in re.findall(pattern, (ROOT / document).read_text()):
        assert (ROOT / path).exists() or (folder / path).exists(), path


def test_python_in_the_readme_names_what_there_is() -> None:
    import bmc
    from bmc import BMCConfig

    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    compile(block, "README.md", "exec")
    for name in re.findall(r"^from bmc import ([\w, ]+)", block, re.MULTILINE)[0].split(", "):
        assert hasattr(bmc, name.strip())
    for key in re.findall(r"(\w+)=", re.search(r"BMCConfig\((.*?)\)", block).group(1)):
        assert key in BMCConfig.__dataclass_fields__


def test_house_rules_hold() -> None:
    """Thin scripts, nothing that imports them, no path of a machine."""
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"^(from|import) scripts", text, re.MULTILINE), path
    for path in (ROOT / "scripts").glob("*.py"):
        assert path.read_text().count("\n") <= 60, path
