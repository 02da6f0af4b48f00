"""YAML + `extends` + command line → the dataclasses of a stage; every fault at once.

    parse(["recipes/a/b/dpo.yaml", "--beta", "0.05"], BMCConfig, …)

The recipes of the alignment-handbook load as they are: `bmc.handbook` translates their keys, each file and the command
line by itself, so that what stands nearest wins under either name.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from .errors import UserError, UserErrors, did_you_mean, raise_all, user_error
from .handbook import EXPLAINED, RENAMED, SWITCHES, mixture, objective
from .manual import default_of, kinds_of, manual, words_of
from .program import script_of
from .recipe_files import COMMAND_LINE, Loader, load_recipe, override

STAGES = (
    "prepare", "sft", "sample", "bridge", "score_tokens", "train", "evaluate", "judge", "analyze", "rounds",
    "tiny_model", "lab",
)  # fmt: skip
_SOURCES: dict[str, str] = {}  # where each key of the recipe that this process runs comes from; "": the recipe


def parse(
    argv: list[str],
    *classes: type,
    description: str = "",
    usage: str = "RECIPE.yaml [--key value …]",
    adjust: Callable[[dict[str, Any]], None] = lambda values: None,
    across: Callable[..., Iterator[tuple[str, str]]] = lambda *instances: iter(()),
) -> tuple[Any, ...]:
    """Read a recipe and the command line into one instance of each class.

    Args:
        argv: Arguments of the command line: `RECIPE.yaml [--key value …]` or `--config RECIPE.yaml`. A value is read
            as YAML; `--key` alone means true; `--a.b.0.c` reaches into mappings and lists.
        classes: Dataclasses whose fields are the recipe's keys. A key that several have goes to each.
        description: What `--help` says first.
        usage: What `--help` says of the arguments.
        adjust: May change the values before they are checked.
        across: Yields `(key, what is wrong)` for what must hold between the instances.

    Raises:
        UserErrors: One fault for each thing that is wrong.
        SystemExit: After `--help`.
    """
    if "-h" in argv or "--help" in argv:
        print(manual(usage, description, classes))
        raise SystemExit(0)
    if not argv:
        raise user_error(COMMAND_LINE, "names no recipe; give its path, or --help for the keys")
    draft = translate(argv, *classes, adjust=adjust)
    instances = [draft.build(cls) for cls in classes]
    for key, what in across(*instances) if not draft.faults else ():
        draft.object_to(key, what)
    raise_all(draft.faults)
    _SOURCES.setdefault("", draft.where)  # of the first recipe, which is the stage's own
    if _SOURCES[""] == draft.where:
        _SOURCES.update({key: draft.origin.get(key, draft.where) for key in known_keys(classes)} | draft.origin)
    return tuple(instances)


@dataclasses.dataclass
class Draft:
    """The values of a recipe in today's keys, before instances are made of them."""

    path: Path | None
    values: dict[str, Any]  # its keys, but `stage`
    origin: dict[str, str]  # where each of them comes from
    faults: list[UserError]
    broken: set[str] = dataclasses.field(default_factory=set)  # keys whose faults are reported already

    @property
    def where(self) -> str:
        """The recipe, for messages."""
        return str(self.path) if self.path else COMMAND_LINE

    def object_to(self, key: str, what: str) -> None:
        """Add a fault at a place such as `a.b[0].c`, with the source of the nearest mapping around it."""
        place = re.sub(r"\[(\d+)\]", r".\1", key)
        while place not in self.origin and "." in place:
            place = place.rpartition(".")[0]
        self.faults.append(UserError(self.origin.get(place, self.where), f"{key}: {what}"))

    def check_stage(self, classes: tuple[type, ...]) -> None:
        """Take `stage` out; it must be the one that is run, if it is said."""
        said, source = self.values.pop("stage", None), self.origin.pop("stage", self.where)
        wanted = next((cls.STAGE for cls in classes if hasattr(cls, "STAGE")), None)
        if said is None or wanted is None or said == wanted:
            return
        if said in STAGES:  # what its keys are to this stage would only hide that
            how = f"run bmc {said}, or scripts/{script_of(said)}.py"
            raise user_error(source, f"stage: is {said}, and this is bmc {wanted}; {how}")
        self.faults.append(UserError(source, f"stage: {stage_fault(said)}"))

    def build(self, cls: type) -> Any:
        """Make an instance of a class, or None with the reasons added to the faults.

        A class may have `value_faults(values)`, which looks at what the instance would be made of, and `faults()`,
        which looks at the instance; both yield `(key, what is wrong)`. The values of fields may have `faults()` too.
        """
        arguments: dict[str, Any] = {}
        before, hints = len(self.faults), _types(cls)
        for field in dataclasses.fields(cls):
            if field.init and field.name not in self.broken:
                self._read_field(field, hints[field.name], arguments)
        for key, what in getattr(cls, "value_faults", lambda values: ())(arguments):
            self.object_to(key, what)
        if len(self.faults) > before or self.broken & {field.name for field in dataclasses.fields(cls)}:
            return None
        try:
            instance = cls(**arguments)
        except (ValueError, TypeError, ImportError, OSError) as error:  # TRL's and transformers' own checks
            what = (str(error).strip() or type(error).__name__).partition("\n")[0]
            if about := _spoken_of(what, arguments):
                self.object_to(about, what.removeprefix(f"{about}: "))
            else:
                self.faults.append(UserError(self.where, what))
            return None
        for key, what in _faults_of(instance):
            self.object_to(key, what)
        return instance

    def _read_field(self, field: dataclasses.Field[Any], hint: Any, arguments: dict[str, Any]) -> None:
        """Check the value of a field and put it among the arguments."""
        name, value = field.name, default_of(field)
        if name in self.values:
            given, choices = self.values[name], words_of(hint, field.metadata.get("choices"))
            try:
                value = arguments[name] = _check(hint, "no" if given is False and "no" in choices else given)
            except ValidationError as error:
                for key, what in mismatches(name, hint, error):
                    self.object_to(key, what + _without(field, given))
                return
            listed = isinstance(default_of(field), list)  # whose words the class checks one by one
            if not listed and (unknown := unknown_word(choices, value)):
                self.object_to(name, unknown)
        elif value is dataclasses.MISSING:
            self.faults.append(UserError(self.where, f"{name}: is missing; add it to the recipe, or give --{name}"))
        for key, what in _faults_of(value):
            self.object_to(f"{name}.{key}", what)


def known_keys(classes: tuple[type, ...]) -> list[str]:
    """Return the keys that a recipe of some dataclasses may have."""
    return sorted({field.name for cls in classes for field in dataclasses.fields(cls) if field.init})


def translate(argv: list[str], *classes: type, adjust: Callable[[dict[str, Any]], None] = lambda values: None) -> Draft:
    """Read a recipe and the command line, and translate the keys of other projects and earlier versions.

    Raises:
        UserErrors: A file can't be read, the command line names several recipes, or the recipe is another stage's.
    """
    draft = Draft(*resolve(argv, *classes))
    values, origin, faults, known = draft.values, draft.origin, draft.faults, known_keys(classes)
    adjust(values)
    draft.check_stage(classes)
    draft.broken = mixture(values, origin, faults, known)
    if "simpo_gamma" in known:
        objective(draft.path, values, origin, faults)
    for key in sorted(set(values) - set(known) - draft.broken):
        what = EXPLAINED.get(key) or f"unknown key{did_you_mean(key, known) or '; remove it'}"
        draft.object_to(key, what)
    return draft


def stage_fault(said: Any) -> str:
    """Say what is wrong with a stage that is none."""
    if said is None:
        return f"is missing; add one of {', '.join(STAGES)}"
    return f"'{said}' is unknown{did_you_mean(str(said), list(STAGES))}; choose from {', '.join(STAGES)}"


def located(error: UserErrors) -> str:
    """Return faults as lines; those of the stage's recipe that a later check has found name its file, too."""
    lines = [
        f"{_SOURCES[key]}: {fault}" if (key := fault.where) in _SOURCES and key else str(fault)
        for fault in error.faults
    ]
    return "\n".join(lines)


def resolve(argv: list[str], *classes: type) -> tuple[Path | None, dict[str, Any], dict[str, str], list[UserError]]:
    """Read a recipe with the command line over it, before anything is made of its values.

    Returns:
        `(the recipe's path, values, where each key comes from, faults of the command line)`.

    Raises:
        UserErrors: As `load`.
    """
    path, overrides = _split(argv, _hints(classes))
    values, origin = load_recipe(path) if path else ({}, {})
    faults: list[UserError] = []
    for key, value in overrides:
        try:
            override(values, origin, key, value)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError):
            faults.append(UserError(COMMAND_LINE, f"--{key}: there is no such place in the recipe"))
    return path, values, origin, faults


def take_option(argv: list[str], name: str) -> tuple[str | None, list[str]]:
    """Take `--NAME VALUE` or `--NAME=VALUE` out of a command line: its value ("" if that is missing), and the rest."""
    for place, word in enumerate(argv):
        key, equals, value = word.partition("=")
        if key == f"--{name}":
            end = place + (1 if equals else 2)
            return value or "".join(argv[place + 1 : end]), argv[:place] + argv[end:]
    return None, argv


def _hints(classes: tuple[type, ...]) -> dict[str, Any]:
    """Return the type of each key; the last class's where several have it."""
    return {name: hint for cls in classes for name, hint in _types(cls).items()}


def _types(cls: type) -> dict[str, Any]:
    """Return the types of a class's fields, with the limits that it sets for those of its parents (`LIMITS`)."""
    return typing.get_type_hints(cls, include_extras=True) | getattr(cls, "LIMITS", {})


def _hint_of(key: str, hints: dict[str, Any]) -> Any:
    """Return the type of a place such as `dataset_mixture.datasets.0.id`; None where it isn't known."""
    first, *rest = key.split(".")
    hint = bool if first in SWITCHES else hints.get(RENAMED.get(first, first))
    for part in rest:
        found = None
        for kind in kinds_of(hint):
            arguments = typing.get_args(kind)
            if dataclasses.is_dataclass(kind):
                found = typing.get_type_hints(kind, include_extras=True).get(part)
            elif typing.get_origin(kind) in (list, dict) and arguments:
                found = arguments[-1]
        hint = found
    return hint


def _takes(hint: Any, kind: type) -> bool:
    return any(one is kind or typing.get_origin(one) is kind for one in kinds_of(hint))


def _split(argv: list[str], hints: dict[str, Any]) -> tuple[Path | None, list[tuple[str, Any]]]:
    """Split a command line into the recipe's path and `(key, value)` pairs.

    A key alone means true, `--no_KEY` false; a key whose type has lists takes several words. A recipe's path that
    follows a switch or a list, as in `--dry_run RECIPE.yaml`, is not its value.
    """
    paths: list[str] = []
    pairs: list[tuple[str, Any]] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if re.match(r"-[A-Za-z]", word):
            raise user_error(COMMAND_LINE, f"{word}: write -{word}")
        if not word.startswith("--"):
            paths.append(word)
            continue
        key, equals, value = word[2:].partition("=")
        key = key.replace("-", "_")
        if key not in hints and _takes(hints.get(key.removeprefix("no_")), bool) and not equals:
            pairs.append((key.removeprefix("no_"), False))
            continue
        hint = _hint_of(key, hints)
        words = [value] if equals else [*rest[:1]] if key == "config" else _words(rest, hint)
        if key == "config":
            paths += words
            rest = rest if equals else rest[1:]
        elif len(words) > 1 and not _takes(hint, list):
            raise user_error(COMMAND_LINE, f"--{key}: takes one value, got {' '.join(words)}; put it in quotes")
        else:
            pairs.append((key, _value(hint, words)))
    if len(paths) > 1:
        raise user_error(COMMAND_LINE, f"one recipe at a time, got {', '.join(paths)}")
    return (Path(paths[0]) if paths else None), pairs


def _words(rest: list[str], hint: Any) -> list[str]:
    """Take the words that follow a key from the rest of the command line."""
    words: list[str] = []
    while rest and not rest[0].startswith("--"):
        is_recipe = rest[0].endswith((".yaml", ".yml"))
        if is_recipe and (words or hint is None or _takes(hint, bool)):
            break
        words.append(rest.pop(0))
    return words


def _value(hint: Any, words: list[str]) -> Any:
    """Return what the words of a command line mean for a type: YAML, if that fits; else text; else a list of one.

    The shell takes away the quotes that keep `no`, `123` or `1e5` from being something else than text in YAML.
    """
    if not words:
        return True
    read = [_yaml(word) for word in words]
    if len(words) > 1:
        return read if hint is None or _fits(hint, read) else words
    meant = [read[0], *([] if read[0] is None else [words[0], [read[0]], [words[0]]])]
    if words[0].lower() == "none":  # Python's word, for a key that takes no text
        meant.append(None)
    return next((value for value in meant if hint not in (None, bool) and _fits(hint, value)), read[0])


def _yaml(word: str) -> Any:
    try:
        value = yaml.load(word, Loader=Loader)
    except (yaml.YAMLError, ValueError):
        return word
    cut = "#" in word and (value is None or isinstance(value, str)) and word[0] not in "'\""
    return word if cut else value  # what YAML takes for a comment is text on a command line


def _fits(hint: Any, value: Any) -> bool:
    try:
        _check(hint, value)
    except ValidationError:
        return False
    return True


def _without(field: dataclasses.Field[Any], value: Any) -> str:
    """Say how to fix a null where a key takes none."""
    default = default_of(field)
    if value is not None or default is dataclasses.MISSING or isinstance(default, list | dict):
        return ""
    return f"; leave the key out for its default, {json.dumps(default, default=str)}"


def _spoken_of(what: str, arguments: dict[str, Any]) -> str | None:
    """Find the key that a message of TRL's or transformers' is about: one that it names, or whose value it quotes."""
    words = [word.lower().replace("_", "") for word in re.findall(r"\w+", what)]
    named = [key for word in words for key in arguments if key.replace("_", "") == word]
    quoted = [key for key, value in arguments.items() if isinstance(value, str) and len(value) > 3 and value in what]
    return next(iter([*named, *quoted]), None)


def _faults_of(value: Any) -> Iterator[tuple[str, str]]:
    find: Callable[[], Iterator[tuple[str, str]]] = getattr(value, "faults", lambda: iter(()))
    return find()


def _check(hint: Any, value: Any) -> Any:
    # JSON mode, since pydantic's strictness about Python objects would refuse a mapping for a nested dataclass
    return TypeAdapter(hint).validate_json(json.dumps(value, default=str), strict=True)


# What is wrong with a value, in a recipe's words and not in pydantic's

SHORT = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "half": "float16", "float": "float32"}


def mismatches(key: str, hint: Any, error: ValidationError) -> Iterator[tuple[str, str]]:
    """Return `(place, what is wrong)` for each place that pydantic objects to; one line says what a
    union might be."""
    wanted: dict[str, list[str]] = {}
    got: dict[str, Any] = {}
    for fault in error.errors():
        unknown = fault["loc"][-1] if fault["type"] == "unexpected_keyword_argument" else None
        # a union puts the name of the type that it tried into the place
        tags = r"str|int|float|bool|list|dict|.*\W.*"
        parts = [part for part in fault["loc"] if part is unknown or not re.fullmatch(tags, str(part))]
        place = key + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
        if unknown is not None:
            yield place, f"unknown key{did_you_mean(str(unknown), sorted(_field_names(hint))) or '; remove it'}"
            continue
        wanted.setdefault(place, []).append(_wanted(fault["type"], fault["msg"]))
        got[place] = fault["input"]
    for place, whats in wanted.items():
        if any(other.startswith((f"{place}[", f"{place}.")) for other in wanted):
            continue  # of a union, what it isn't meant to be
        shown = json.dumps(got[place], ensure_ascii=False, default=str)
        quotes = "; put it in quotes" if "text" in whats and isinstance(got[place], bool | int | float) else ""
        shown = shown if len(shown) <= 60 else f"{shown[:57]}…"
        if any(what.startswith("'") for what in whats):  # the words of an enumeration, which "text" says nothing beside
            whats = [what for what in whats if what != "text"]
        yield place, f"must be {' or '.join(dict.fromkeys(whats))}, got {shown}{quotes}"


def _wanted(kind: str, message: str) -> str:
    """Say what pydantic asks for, in a recipe's words."""
    words = {
        "bool_type": "true or false", "dataclass_type": "a mapping", "dict_type": "a mapping", "float_type": "a number",
        "int_type": "a whole number", "list_type": "a list", "string_type": "text",
    }  # fmt: skip
    return words.get(kind) or re.sub(r"^Input should be (a valid )?", "", message)


def _field_names(hint: Any) -> set[str]:
    """Return the names of the fields of every dataclass that a type mentions."""
    own = typing.get_type_hints(hint) if dataclasses.is_dataclass(hint) else {}
    return set(own).union(*map(_field_names, [*own.values(), *typing.get_args(hint)]))


def unknown_word(words: list[str], value: Any) -> str | None:
    """Say what is wrong with a text where the libraries want one of some words, but take any text as a type."""
    if not words or not isinstance(value, str) or isinstance(value, enum.Enum) or value in words:
        return None
    short = SHORT.get(value.removeprefix("torch."), value)
    meant = f" (did you mean '{short}'?)" if short in words else did_you_mean(value, words)
    return f"'{value}' is unknown{meant}; choose from {', '.join(words)}"
