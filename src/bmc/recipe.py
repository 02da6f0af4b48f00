"""YAML + `extends` + command line → the dataclasses of a stage; every fault at once.

    parse(["recipes/a/b/dpo.yaml", "--beta", "0.05"], BMCConfig, …)

The recipes of the alignment-handbook load as they are: `bmc.handbook` translates their keys, each file and the command
line by itself, so that what stands nearest wins under either name.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from .errors import Fault, Faults, did_you_mean, fail
from .handbook import DATA, drop_other_data, mixture, today
from .wording import mismatches, unknown_word

COMMAND_LINE = "command line"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but `5e-7` is a number and a key that stands twice is an error."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value]
        for place, (key, _) in enumerate(node.value):
            if key.value in keys[:place]:
                what = f"{key.value}: stands twice; keep one"
                raise yaml.composer.ComposerError(problem=what, problem_mark=key.start_mark)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)$|^[-+]?(\d+\.\d*|\.\d+)$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def parse(
    argv: list[str],
    *classes: type,
    description: str = "",
    adjust: Callable[[dict[str, Any]], None] = lambda values: None,
) -> tuple[Any, ...]:
    """Reads a recipe and the command line into one instance of each class.

    Args:
        argv: Arguments of the command line: `RECIPE.yaml [--key value …]` or `--config RECIPE.yaml`. A value is read
            as YAML; `--key` alone means true; `--a.b.0.c` reaches into mappings and lists.
        classes: Dataclasses whose fields are the recipe's keys. A key that several have goes to each.
        description: What `--help` says first.
        adjust: May change the values before they are judged.

    Raises:
        Faults: One fault for each thing that is wrong.
        SystemExit: After `--help`.
    """
    if "-h" in argv or "--help" in argv:
        print(_help(description, classes))
        raise SystemExit(0)
    if not argv:
        raise fail(COMMAND_LINE, "names no recipe; give its path, or --help for the keys")
    path, values, origin, faults = resolve(argv, *classes)
    where = str(path) if path else COMMAND_LINE
    adjust(values)
    broken = mixture(values, origin, faults)

    known = sorted({field.name for cls in classes for field in dataclasses.fields(cls) if field.init})
    for key in sorted(set(values) - set(known) - broken):
        faults.append(Fault(origin.get(key, where), f"{key}: unknown key{did_you_mean(key, known) or '; remove it'}"))
    instances = [_build(cls, values, origin, where, faults, broken) for cls in classes]
    if faults:
        raise Faults(*dict.fromkeys(faults))
    return tuple(instances)


def resolve(argv: list[str], *classes: type) -> tuple[Path | None, dict[str, Any], dict[str, str], list[Fault]]:
    """A recipe with the command line over it, before anything is made of its values.

    Returns:
        `(the recipe's path, values, where each key comes from, faults of the command line)`.

    Raises:
        Faults: As `load`.
    """
    path, overrides = _split(argv, _switches(classes))
    values, origin = load(path) if path else ({}, {})
    faults: list[Fault] = []
    for key, value in overrides:
        try:
            _override(values, origin, key, value)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError):
            faults.append(Fault(COMMAND_LINE, f"--{key}: there is no such place in the recipe"))
    return path, values, origin, faults


def load(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A recipe with its ancestors' keys beneath its own, and which file each key (`a`, `a.b`) comes from.

    Raises:
        Faults: The file is missing, isn't a YAML mapping, or extends itself.
    """
    return _load(path, ())


def _load(path: Path, children: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    values = _read(path, children)
    for key, suffix in (("chat_template", ".jinja"), ("accelerate_config", ".yaml")):  # relative to this recipe
        if isinstance(values.get(key), str) and values[key].endswith(suffix):
            values[key] = str(path.parent / values[key])
    parent = values.pop("extends", None)
    values, sources = today(values, str(path))
    origin: dict[str, str] = {}
    for key, source in sources.items():
        origin |= _origins(key, values[key], source)
    if parent is None:
        return values, origin
    if not isinstance(parent, str):
        raise fail(str(path), "extends: must be the path of one recipe")
    base, base_origin = _load(path.parent / parent, (*children, path))
    for key in DATA:
        if key in values:
            drop_other_data(base, key)
    return _merge(base, values), base_origin | origin


def _read(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    """The mapping in one file; `children` led to it by their `extends`."""
    if path.resolve() in [child.resolve() for child in children]:
        raise fail(str(children[-1]), f"extends: {path} extends this recipe in turn; break the circle")
    heir = f" (extended by {children[-1]})" if children else ""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise fail(str(path), f"cannot be read: {error.strerror}{heir}") from None
    except yaml.MarkedYAMLError as error:
        line = f": line {error.problem_mark.line + 1}" if error.problem_mark else ""
        what = error.problem if isinstance(error, yaml.composer.ComposerError) else f"is not YAML: {error.problem}"
        raise fail(f"{path}{line}", str(what)) from None
    except (yaml.YAMLError, ValueError) as error:
        raise fail(str(path), f"is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise fail(str(path), f"must be a mapping of keys to values, as in `beta: 0.1`{heir}")
    return {str(key): value for key, value in values.items()}


def _origins(key: str, value: Any, where: str) -> dict[str, str]:
    """`where` for a key and the keys of the mappings in it."""
    found = {key: where}
    if isinstance(value, dict):
        for inner, deeper in value.items():
            found |= _origins(f"{key}.{inner}", deeper, where)
    return found


def _source(origin: dict[str, str], key: str, where: str) -> str:
    """Where a place such as `a.b[0].c` comes from: what is known of the nearest mapping around it."""
    place = re.sub(r"\[(\d+)\]", r".\1", key)
    while place not in origin:
        if "." not in place:
            return where
        place = place.rpartition(".")[0]
    return origin[place]


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """`base` with `top`'s values over it; mappings are merged, all else is replaced."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _switches(classes: tuple[type, ...]) -> set[str]:
    """The keys that are true or false."""
    hints = {name: hint for cls in classes for name, hint in typing.get_type_hints(cls).items()}
    return {name for name, hint in hints.items() if bool in (hint, *typing.get_args(hint))}


def _split(argv: list[str], switches: set[str]) -> tuple[Path | None, list[tuple[str, Any]]]:
    """The recipe's path and the `(key, value)` pairs of a command line.

    A recipe's path that follows a switch, as in `--dry_run RECIPE.yaml`, is not the switch's value.
    """
    paths: list[str] = []
    pairs: list[tuple[str, Any]] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            paths.append(word)
            continue
        key, equals, value = word[2:].partition("=")
        key = key.replace("-", "_")
        if not equals:
            alone = not rest or rest[0].startswith("--") or (key in switches and rest[0].endswith((".yaml", ".yml")))
            value = "true" if alone else rest.pop(0)
        if key == "config":
            paths.append(value)
            continue
        try:
            pairs.append((key, yaml.load(value, Loader=_Loader)))
        except (yaml.YAMLError, ValueError):
            pairs.append((key, value))
    if len(paths) > 1:
        raise fail(COMMAND_LINE, f"one recipe at a time, got {', '.join(paths)}")
    return (Path(paths[0]) if paths else None), pairs


def _override(values: dict[str, Any], origin: dict[str, str], key: str, value: Any) -> None:
    """Sets one value of the command line."""
    first, *rest = key.split(".")
    new, source = today({first: value}, COMMAND_LINE)
    for name in new:  # none if the key is gone
        if name in DATA:
            drop_other_data(values, name)
        _assign(values, [name, *rest], new[name])
        place = ".".join([name, *rest])
        for deeper in [old for old in origin if old.startswith(f"{place}.")]:
            del origin[deeper]
        origin[place] = source[name]


def _assign(values: Any, keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        values = values[int(key)] if isinstance(values, list) else values.setdefault(key, {})
    if isinstance(values, list):
        values[int(keys[-1])] = value
    elif not (value is True and isinstance(values.get(keys[-1]), dict)):  # `--sweep` leaves the recipe's own as it is
        values[keys[-1]] = value


def _build(
    cls: type, values: dict[str, Any], origin: dict[str, str], where: str, faults: list[Fault], broken: set[str]
) -> Any:
    """An instance of `cls`, or None with the reasons appended to `faults`; `broken` are keys whose faults are told.

    A class may have `objections(values)`, which looks at what the instance would be made of, and `faults()`, which
    looks at the instance; both yield `(key, what is wrong)`. The values of fields may have `faults()` too.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = [field for field in dataclasses.fields(cls) if field.init and field.name not in broken]
    arguments: dict[str, Any] = {}
    before = len(faults)

    def object_to(key: str, what: str) -> None:
        faults.append(Fault(_source(origin, key, where), f"{key}: {what}"))

    for field in fields:
        name = field.name
        if name in values:
            try:
                arguments[name] = _check(hints[name], values[name])
            except ValidationError as error:
                for key, what in mismatches(name, hints[name], error):
                    object_to(key, what)
                continue
            if unknown := unknown_word(hints[name], arguments[name]):
                object_to(name, unknown)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            faults.append(Fault(where, f"{name}: is missing; add it to the recipe, or give --{name}"))
            continue
        value = arguments[name] if name in arguments else default_of(field)
        for key, what in _faults_of(value):
            object_to(f"{name}.{key}", what)
    for key, what in getattr(cls, "objections", lambda values: ())(arguments):
        object_to(key, what)
    if len(faults) > before or broken & {field.name for field in dataclasses.fields(cls)}:
        return None
    try:
        instance = cls(**arguments)
    except (ValueError, TypeError, ImportError, OSError) as error:  # TRL's and transformers' own checks
        key = str(error).partition(":")[0]
        faults.append(Fault(_source(origin, key, where), str(error)))
        return None
    for key, what in _faults_of(instance):
        object_to(key, what)
    return instance


def _faults_of(value: Any) -> Iterator[tuple[str, str]]:
    find: Callable[[], Iterator[tuple[str, str]]] = getattr(value, "faults", lambda: iter(()))
    return find()


def default_of(field: dataclasses.Field[Any]) -> Any:
    """What a field is where nothing is given; `MISSING` if it must be."""
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _check(hint: Any, value: Any) -> Any:
    # JSON mode, since pydantic's strictness about Python objects would refuse a mapping for a nested dataclass
    return TypeAdapter(hint).validate_json(json.dumps(value, default=str), strict=True)


def _help(description: str, classes: tuple[type, ...]) -> str:
    lines = [
        f"usage: {Path(sys.argv[0]).name} RECIPE.yaml [--key value …]",
        "",
        description,
        "",
        "Every key of the recipe can be given on the command line too, --a.b.0.c for what is nested.",
    ]
    for cls in reversed(classes):
        lines += ["", f"{cls.__name__}:"]
        documentation = _documentation(cls)
        for field in dataclasses.fields(cls):
            if field.init:
                text = documentation.get(field.name) or str(field.metadata.get("help", ""))
                lines.append(f"  --{field.name}{_default(field)}  {' '.join(text.split())}".rstrip())
    return "\n".join(lines)


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f" ({field.default})"
    return "" if field.default_factory is not dataclasses.MISSING else " (required)"


def _documentation(cls: type) -> dict[str, str]:
    """What the `Attributes:` sections of a class and its parents say of each field."""
    found: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        section = (parent.__doc__ or "").partition("Attributes:\n")[2]
        found |= dict(re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", section, re.MULTILINE))
    return found
