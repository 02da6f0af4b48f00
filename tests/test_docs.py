"""Every command, link, path and key in the documents is real."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "recipes/*.md", "recipes/*/README.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)
OTHER_PROGRAMS = ("export", "git", "cd", "pip", "source")


def commands(text: str) -> list[list[str]]:
    """Return the shell commands in ```bash blocks, without comments, variables and what follows a redirection."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        words = shlex.split(re.sub(r"(^|\s)#.*", "", line).split(" > ")[0])
        while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
            words.pop(0)
        if words:
            found.append(words)
    return found


def check_command(words: list[str]) -> None:
    """Run a command as far as it can be without work, weights or a key; raise what it raises."""
    program, *rest = words
    if program == "make":
        check_make(rest)
    elif program == "bash":
        assert (ROOT / rest[0]).is_file(), f"{rest[0]} isn't there"
        check_stage(rest[1], rest[2:])
    elif program == "bmc":
        check_stage(rest[0], rest[1:])
    elif program in ("python", "accelerate"):
        place = next(n for n, word in enumerate(rest) if word.startswith(("scripts/", "benchmarks/", "examples/")))
        assert (ROOT / rest[place]).is_file(), f"{rest[place]} isn't there"
        for word in rest:
            assert not word.startswith("recipes/accelerate_configs") or (ROOT / word).is_file(), f"{word} isn't there"
        if rest[place].startswith("scripts/"):
            check_stage(Path(rest[place]).stem, rest[place + 1 :])
    else:
        assert program in OTHER_PROGRAMS, f"{program} is unknown"


def check_make(words: list[str]) -> None:
    """Ask make about its own targets, and `bmc run` about what it forwards."""
    from bmc import commands

    targets = [word for word in words if "=" not in word]
    if not targets or set(targets) & set(re.findall(r"^([a-z_-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)):
        done = subprocess.run(["make", "-n", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    else:
        given = dict(word.split("=", 1) for word in words if "=" in word)
        flags = [f"--{key.lower()}={value}" for key, value in given.items() if key in ("SEEDS", "LAUNCHER", "MODEL")]
        commands.run([*targets, "--dry_run", *flags])


def check_stage(stage: str, arguments: list[str]) -> None:
    """Read a stage's recipe and arguments as the stage would."""
    from bmc import commands
    from bmc.config import (
        AnalyzeConfig,
        BridgeConfig,
        EvaluateConfig,
        ExportConfig,
        HarnessConfig,
        JudgeConfig,
        MergeConfig,
        PrepareConfig,
        SampleConfig,
    )
    from bmc.recipe import parse

    light = {"prepare": PrepareConfig, "sample": SampleConfig, "bridge": BridgeConfig, "evaluate": EvaluateConfig}
    light |= {"judge": JudgeConfig, "harness": HarnessConfig, "analyze": AnalyzeConfig, "merge": MergeConfig}
    stage = {"preference": "train"}.get(stage, stage)
    if any(word.startswith("path/to") for word in arguments):
        return
    if stage == "export":
        parse(["--model_name_or_path", *arguments, "--dry_run"], ExportConfig)
    elif stage in light:
        parse([*arguments, "--dry_run"], light[stage])
    elif stage in ("sft", "train"):
        from bmc.training.config import BMCConfig, PreferenceArguments, SFTConfig, TrainingArguments
        from bmc.training.run import parse_training

        kinds = {"sft": (TrainingArguments, SFTConfig), "train": (PreferenceArguments, BMCConfig)}
        parse_training([*arguments, "--dry_run"], *kinds[stage], "")
    elif stage in ("show", "lab"):
        getattr(commands, stage)([*arguments, *(["--dry_run"] if stage == "lab" else [])])
    else:
        assert hasattr(commands, stage) or (ROOT / f"scripts/{stage}.py").is_file(), f"{stage} is no stage"


@pytest.mark.slow
def test_commands_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    documents = {shlex.join(words): name for name in DOCUMENTS for words in commands((ROOT / name).read_text())}
    failed = []
    for command, document in documents.items():
        try:
            check_command(shlex.split(command))
        except (Exception, SystemExit) as error:
            failed.append(f"{document}: {command}: {error}")
    assert not failed, "\n".join(failed)


def test_links_and_paths_lead_somewhere() -> None:
    gone = []
    for document in DOCUMENTS:
        text, folder = (ROOT / document).read_text(), (ROOT / document).parent
        links = re.findall(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)", text)
        paths = re.findall(r"`((?:recipes|scripts|src|tests|docs|examples|benchmarks)/[\w./-]+\.\w+)`", text)
        gone += [f"{document}: {target}" for target in links if not (folder / target).exists()]
        gone += [f"{document}: {path}" for path in paths if not (ROOT / path).exists()]
    assert not gone


def test_anchors_are_headings() -> None:
    def anchor(heading: str) -> str:
        return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")

    gone = []
    for document in DOCUMENTS:
        for target, name in re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", (ROOT / document).read_text()):
            path = (ROOT / document).parent / target if target else ROOT / document
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            if name not in map(anchor, headings):
                gone.append(f"{document}: {target}#{name}")
    assert not gone


def test_python_in_the_readme_names_what_there_is() -> None:
    import bmc
    from bmc import BMCConfig

    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    compile(block, "README.md", "exec")
    for name in re.findall(r"^from bmc import ([\w, ]+)", block, re.MULTILINE)[0].split(", "):
        assert hasattr(bmc, name.strip())
    for key in re.findall(r"(\w+)=", re.search(r"BMCConfig\((.*?)\)", block).group(1)):
        assert key in BMCConfig.__dataclass_fields__
