"""What setup.py asks for is what constraints.txt tests."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PINS = {
    canonicalize_name(name): Version(version)
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}
OTHERS = {"setuptools", "vllm"}  # one comes with Python; vLLM brings a CUDA build of torch, so that no pin is installed


@pytest.fixture(scope="module")
def asked() -> list[Requirement]:
    given: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", given.update)
        runpy.run_path(str(ROOT / "setup.py"))
    texts = [*given["install_requires"], *(text for extra in given["extras_require"].values() for text in extra)]
    return [Requirement(text) for text in texts]


def test_every_floor_is_what_is_tested(asked: list[Requirement]) -> None:
    """A floor names the pin's first two numbers, or three where the first is 0."""
    for requirement in asked:
        if requirement.name in OTHERS:
            continue
        pin = PINS[canonicalize_name(requirement.name)]
        (floor,) = [Version(part.version) for part in requirement.specifier if part.operator == ">="]
        assert pin in requirement.specifier, requirement
        told = 3 if pin.major == 0 else 2
        assert (*floor.release, 0, 0)[:told] == (*pin.release, 0, 0)[:told], requirement


@pytest.mark.parametrize(
    ("name", "fits", "too_new"),
    [("transformers", "5.24.3", "5.25.0"), ("trl", "1.16.1", "1.17.0"), ("vllm", "0.30.0", "0.31.0")],
)
def test_what_is_used_beyond_its_interface_is_bounded(
    name: str, fits: str, too_new: str, asked: list[Requirement]
) -> None:
    (requirement,) = [requirement for requirement in asked if requirement.name == name]
    assert fits in requirement.specifier
    assert too_new not in requirement.specifier


def test_no_extra_is_out_of_a_repository(asked: list[Requirement]) -> None:
    assert not [requirement.name for requirement in asked if requirement.url]


def test_pins_leave_room_for_vllm() -> None:
    """vLLM 0.30 wants fastapi below 0.137, and by way of mistral-common numpy below 2.4."""
    assert PINS["fastapi"] < Version("0.137")
    assert PINS["numpy"] < Version("2.4")
