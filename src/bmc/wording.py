"""What is wrong with a recipe's value, in a recipe's words and not in pydantic's."""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import types
import typing
from collections.abc import Collection, Iterator
from typing import Any

from pydantic import ValidationError

from .errors import did_you_mean

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
        if any(
            other.startswith((f"{place}[", f"{place}.")) for other in wanted
        ):  # of a union, what it isn't meant to be
            continue
        shown = json.dumps(got[place], ensure_ascii=False, default=str)
        quotes = "; put it in quotes" if "text" in whats and isinstance(got[place], bool | int | float) else ""
        shown = shown if len(shown) <= 60 else f"{shown[:57]}…"
        if any(what.startswith("'") for what in whats):  # the words of an enumeration, which "text" says nothing beside
            whats = [what for what in whats if what != "text"]
        yield place, f"must be {' or '.join(dict.fromkeys(whats))}, got {shown}{quotes}"


def _wanted(kind: str, message: str) -> str:
    """Say what pydantic asks for, in a recipe's words."""
    words = {
        "bool_type": "true or false",
        "dataclass_type": "a mapping",
        "dict_type": "a mapping",
        "float_type": "a number",
        "int_type": "a whole number",
        "list_type": "a list",
        "string_type": "text",
    }
    return words.get(kind) or re.sub(r"^Input should be (a valid )?", "", message)


def _field_names(hint: Any) -> set[str]:
    """Return the names of the fields of every dataclass that a type mentions."""
    names: set[str] = set()
    if dataclasses.is_dataclass(hint):
        for field_hint in typing.get_type_hints(hint).values():
            names |= _field_names(field_hint)
        names |= {field.name for field in dataclasses.fields(hint)}
    for argument in typing.get_args(hint):
        names |= _field_names(argument)
    return names


def words_of(hint: Any, choices: Collection[str] | None = None) -> list[str]:
    """Return the words that a key may have: its field's `choices`, or those of an enumeration or a Literal."""
    if choices:
        return list(choices)
    if typing.get_origin(hint) is typing.Literal:
        return [word for word in typing.get_args(hint) if isinstance(word, str)]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return [str(member.value) for member in hint]
    return [word for kind in typing.get_args(hint) for word in words_of(kind)]


def unknown_word(words: list[str], value: Any) -> str | None:
    """Say what is wrong with a text where the libraries want one of some words, but take any text as a type."""
    if not words or not isinstance(value, str) or isinstance(value, enum.Enum) or value in words:
        return None
    short = SHORT.get(value.removeprefix("torch."), value)
    meant = f" (did you mean '{short}'?)" if short in words else did_you_mean(value, words)
    return f"'{value}' is unknown{meant}; choose from {', '.join(words)}"


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
