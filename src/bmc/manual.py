"""The keys of recipes, by the dataclasses and their docstrings: types, `--help` of a stage, and `docs/recipes.md`."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Collection, Iterator
from typing import Any

from . import program

MANY = 24  # words of a key to list at most


def manual(usage: str, description: str, classes: tuple[type, ...]) -> str:
    """Return the text of `--help`."""
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
    """Tell whether this project declares or redeclares a field."""
    package = __name__.partition(".")[0]
    return any(
        name in vars(one).get("__annotations__", {}) for one in cls.__mro__ if one.__module__.startswith(package)
    )


def _lines(key: str, field: dataclasses.Field[Any], hint: Any, documentation: dict[str, str]) -> Iterator[str]:
    """Yield a key's line, and those of the keys within it."""
    text = documentation.get(field.name) or str(field.metadata.get("help", ""))
    words = words_of(hint, field.metadata.get("choices"))
    choices = f" One of {', '.join(words)}." if 1 < len(words) <= MANY else ""
    line = f"  --{key}{_default(field)}  {' '.join(text.split())}".replace("%%", "%")
    yield (line if not choices or line.endswith((".", " ")) else f"{line}.").rstrip() + choices
    for kind in kinds_of(hint):
        arguments = typing.get_args(kind)
        inner, place = (arguments[-1], f"{key}.0") if typing.get_origin(kind) is list and arguments else (kind, key)
        if dataclasses.is_dataclass(inner) and isinstance(inner, type) and _is_ours(inner, _first(inner)):
            texts, hints = _documentation(inner), typing.get_type_hints(inner)
            for nested in dataclasses.fields(inner):
                yield from _lines(f"{place}.{nested.name}", nested, hints[nested.name], texts)


def _first(cls: type) -> str:
    return dataclasses.fields(cls)[0].name


def _default(field: dataclasses.Field[Any]) -> str:
    default = default_of(field)
    if default is dataclasses.MISSING:
        return " (required)"
    return "" if dataclasses.is_dataclass(default) or default in ([], {}) else f" ({default})"


def _documentation(cls: type) -> dict[str, str]:
    """Read what the `Attributes:` sections of a class and its parents say about each field."""
    found: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        section = (parent.__doc__ or "").partition("Attributes:\n")[2]
        found |= dict(re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", section, re.MULTILINE))
    return found


INTRODUCTION = """# Every key of a recipe

`bmc keys > docs/recipes.md` writes this page from the code. A stage reads the keys of the sections beside it, and those
of TRL and transformers that `bmc STAGE --help` lists; `bmc show RECIPE` says which value each has, and why.
`--key value` overrides any of them, `--dataset_mixture.datasets.0.id x.jsonl` one that is nested.
"""


def markdown(stages: dict[str, tuple[type, ...]]) -> str:
    """Return the page of all keys of this project: which sections a stage reads, then a table for each section."""
    sections: dict[str, dict[str, None]] = {}  # title → its rows, each once

    def add(cls: type, names: Collection[str]) -> str:
        title = re.sub(r"(Arguments|Config|Settings)$", "", cls.__name__)
        rows = sections.setdefault(title, {})
        for name in names:
            nested = _nested(typing.get_type_hints(cls)[name])
            inner = add(nested, [field.name for field in dataclasses.fields(nested)]) if nested else None
            rows[_row(cls, name, inner)] = None
        return title

    reads = []
    for stage, classes in stages.items():
        titles = [add(one, names) for cls in classes for one, names in _own_fields(cls).items()]
        reads.append(f"| `{stage}` | {', '.join(map(_link, dict.fromkeys(titles)))} |")
    lines = [INTRODUCTION, "| stage | keys |", "| --- | --- |", *reads]
    for title, rows in sections.items():
        lines += ["", f"## {title}", "", "| key | values | default | meaning |", "| --- | --- | --- | --- |", *rows]
    return "\n".join(lines) + "\n"


def _link(title: str) -> str:
    return f"[{title}](#{title.lower()})"


def _own_fields(cls: type) -> dict[type, list[str]]:
    """Return the dataclasses of this project that a dataclass is made of, each with the fields that it declares."""
    package = __name__.partition(".")[0]
    names = {field.name for field in dataclasses.fields(cls) if field.init}
    ours = [one for one in reversed(cls.__mro__) if one.__module__.startswith(package)]
    found = {one: [name for name in vars(one).get("__annotations__", {}) if name in names] for one in ours}
    return {one: own for one, own in found.items() if own}


def _nested(hint: Any) -> type | None:
    """Return the dataclass that a key's values are made of, if they are."""
    for kind in kinds_of(hint):
        inner = (typing.get_args(kind) or (kind,))[-1]
        if dataclasses.is_dataclass(inner) and isinstance(inner, type) and _is_ours(inner, _first(inner)):
            return inner
    return None


def _row(cls: type, name: str, inner: str | None) -> str:
    """Return a key's line in the table of a section; `inner` is the section of what its values are made of."""
    field = next(one for one in dataclasses.fields(cls) if one.name == name)
    hint = (typing.get_type_hints(cls, include_extras=True) | getattr(cls, "LIMITS", {}))[name]
    words = words_of(hint, field.metadata.get("choices"))
    values = _link(inner) if inner else ", ".join(f"`{word}`" for word in words) or _values(hint)
    default = default_of(field)
    shown = "" if dataclasses.is_dataclass(default) else f"`{json.dumps(default, default=str)}`".replace('"', "")
    shown = "required" if default is dataclasses.MISSING else shown
    text = " ".join((_documentation(cls).get(name) or str(field.metadata.get("help", ""))).split())
    return f"| `{name}` | {values} | {shown} | {text} |".replace("  ", " ")


def _values(hint: Any) -> str:
    """Say in a few words what a key of a type may be."""
    found = []
    for kind in typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,):
        plain = next(kinds_of(kind))
        limits = [limit for one in getattr(kind, "__metadata__", ()) for limit in getattr(one, "metadata", ())]
        said = [_LIMITS[name](limit) for limit in limits if (name := type(limit).__name__) in _LIMITS]
        found.append(" ".join([_KINDS.get(typing.get_origin(plain) or plain, "mapping"), *said]))
    return " or ".join(dict.fromkeys(filter(None, found)))


_KINDS: dict[Any, str] = {
    bool: "true, false", int: "whole number", float: "number", str: "text", list: "list", dict: "mapping",
    type(None): "",
}  # fmt: skip
_LIMITS: dict[str, Callable[[Any], str]] = {
    "Ge": lambda limit: f"from {limit.ge:g}",
    "Gt": lambda limit: f"above {limit.gt:g}",
    "Le": lambda limit: f"to {limit.le:g}",
    "Lt": lambda limit: f"below {limit.lt:g}",
}


# Types of keys


def words_of(hint: Any, choices: Collection[str] | None = None) -> list[str]:
    """Return the words that a key may have: its field's `choices`, or those of an enumeration or a Literal."""
    if choices:
        return list(choices)
    if typing.get_origin(hint) is typing.Literal:
        return [word for word in typing.get_args(hint) if isinstance(word, str)]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return [str(member.value) for member in hint]
    return [word for kind in typing.get_args(hint) for word in words_of(kind)]


def kinds_of(hint: Any) -> Iterator[Any]:
    """Yield the types that a hint is a union of, without what annotates them."""
    if typing.get_origin(hint) is typing.Annotated:
        yield from kinds_of(typing.get_args(hint)[0])
    elif typing.get_origin(hint) in (typing.Union, types.UnionType):
        for kind in typing.get_args(hint):
            yield from kinds_of(kind)
    else:
        yield hint


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return what a field is where nothing is given; `MISSING` if it must be."""
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
