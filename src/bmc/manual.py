"""What `--help` prints: a stage's keys, our own first, those of what is nested, and the words that each may have."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

from . import program
from .wording import default_of, kinds_of, words_of

MANY = 24  # words of a key that are listed at the most


def manual(usage: str, description: str, classes: tuple[type, ...]) -> str:
    """Return the text of `--help`.

    Args:
        usage: What follows the script's name.
        description: What it says first.
        classes: The dataclasses whose fields are the keys.
    """
    ours: list[str] = []
    theirs: list[str] = []
    for cls in classes:
        documentation, hints = _documentation(cls), typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if field.init:
                own = _is_ours(cls, field.name)
                (ours if own else theirs).extend(_lines(field.name, field, hints[field.name], documentation))
    lines = [f"usage: {program.name()} {usage}", "", inspect.cleandoc(description), ""]
    lines += ["Every key of the recipe can be given on the command line too, --a.b.0.c for what is nested.", ""]
    lines += ["Keys of this project:", *dict.fromkeys(ours)]
    return "\n".join([*lines, *(["", "Keys of TRL and transformers:", *theirs] if theirs else [])])


def _is_ours(cls: type, name: str) -> bool:
    """Whether this project declares a field, or declares it anew."""
    package = __name__.partition(".")[0]
    return any(
        name in vars(one).get("__annotations__", {}) for one in cls.__mro__ if one.__module__.startswith(package)
    )


def _lines(key: str, field: dataclasses.Field[Any], hint: Any, documentation: dict[str, str]) -> Iterator[str]:
    """Yield a key's line, and those of the keys within it."""
    text = documentation.get(field.name) or str(field.metadata.get("help", ""))
    words = words_of(hint, field.metadata.get("choices") or field.metadata.get("words"))
    choices = f" One of {', '.join(words)}." if 1 < len(words) <= MANY else ""
    line = f"  --{key}{_default(field)}  {' '.join(text.split())}".replace("%%", "%")
    yield (line if not choices or line.endswith((".", " ")) else f"{line}.").rstrip() + choices
    for kind in kinds_of(hint):
        arguments = typing.get_args(kind)
        inner, place = (arguments[-1], f"{key}.0") if typing.get_origin(kind) is list and arguments else (kind, key)
        if dataclasses.is_dataclass(inner) and isinstance(inner, type) and _is_ours(inner, _first(inner)):
            told, hints = _documentation(inner), typing.get_type_hints(inner)
            for nested in dataclasses.fields(inner):
                yield from _lines(f"{place}.{nested.name}", nested, hints[nested.name], told)


def _first(cls: type) -> str:
    return dataclasses.fields(cls)[0].name


def _default(field: dataclasses.Field[Any]) -> str:
    default = default_of(field)
    if default is dataclasses.MISSING:
        return " (required)"
    return "" if dataclasses.is_dataclass(default) or default in ([], {}) else f" ({default})"


def _documentation(cls: type) -> dict[str, str]:
    """What the `Attributes:` sections of a class and its parents say of each field."""
    found: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        section = (parent.__doc__ or "").partition("Attributes:\n")[2]
        found |= dict(re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", section, re.MULTILINE))
    return found
