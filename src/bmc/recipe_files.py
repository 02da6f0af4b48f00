"""YAML files, what they extend, ablations and overrides → the values of one recipe, and where each of them comes from.

`extends` names one file or a list of files, relative to the recipe. The recipe's own keys win over theirs, and a later
file of the list wins over an earlier one. Mappings are merged, all else is replaced.
"""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .errors import did_you_mean, user_error
from .handbook import replace_rivals, today

COMMAND_LINE = "command line"
ROUND_STAGES = ("sample", "bridge", "train", "evaluate")  # keys of a rounds recipe: the recipes of its stages
ABLATIONS = "ablations"  # the folder below a model/task, which needs no files, and `ablations.yaml`, which lists them
BESIDE = {"chat_template": ".jinja", "accelerate_config": ".yaml", **dict.fromkeys(ROUND_STAGES, ".yaml")}
FOLDED = {"paper.yaml": "llama2-7b/qa/base.yaml", "smollm2-135m/base.yaml": "smollm2-135m/math/base.yaml"}


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but `5e-7` is a number, the key `yes` a word, and a key that stands twice an error."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:bool":  # `yes: true` is our key, which YAML 1.1 reads as `true: true`
                key.tag = "tag:yaml.org,2002:str"
        for place, (key, _) in enumerate(node.value):
            if key.value in keys[:place]:
                what = f"{key.value}: stands twice; keep one"
                raise yaml.composer.ComposerError(problem=what, problem_mark=key.start_mark)
        return node


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)$|^[-+]?(\d+\.\d*|\.\d+)$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def load_recipe(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read a recipe with the keys of what it extends beneath its own.

    Returns:
        `(values, which file each key (`a`, `a.b`) comes from)`.

    Raises:
        UserErrors: A file is missing, isn't a YAML mapping, or extends itself.
    """
    return _load(path, ())


def _load(path: Path, children: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    if (ablation := find_ablation(path)) is not None:
        return ablation.load()
    values = _read(path, children)
    for key, suffix in BESIDE.items():  # relative to this recipe
        if isinstance(values.get(key), str) and values[key].endswith(suffix):
            values[key] = _beside(path, values[key])
    given = values.pop("extends", None)
    parents = given if isinstance(given, list) else [] if given is None else [given]
    if not all(isinstance(parent, str) for parent in parents):
        raise user_error(str(path), "extends: must be the path of a recipe, or a list of paths")
    values, sources = today(values, os.path.normpath(path))
    origin: dict[str, str] = {}
    for key, source in sources.items():
        origin |= _origins(key, values[key], source)
    layers = [_load(path.parent / parent, (*children, path)) for parent in parents]
    merged: dict[str, Any] = {}
    merged_origin: dict[str, str] = {}
    for layer, layer_origin in [*layers, (values, origin)]:
        for key in layer:
            replace_rivals(merged, key)
        merged, merged_origin = _merge(merged, layer), merged_origin | layer_origin
    return merged, merged_origin


def _beside(recipe: Path, name: str) -> str:
    """Return the path of a file that a recipe names, relative to the recipe; else as `show --flat` writes it."""
    beside = recipe.parent / name
    if Path(name).is_file() and not beside.is_file():
        return name
    short = os.path.normpath(beside)  # which leads elsewhere where a folder is a link
    return short if os.path.realpath(short) == os.path.realpath(beside) else str(beside)


def _read(path: Path, children: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read the mapping in one file; `children` led to it by their `extends`."""
    if path.resolve() in [child.resolve() for child in children]:
        raise user_error(str(children[-1]), f"extends: {path} extends this recipe in turn; break the circle")
    heir = f" (extended by {children[-1]})" if children else ""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    except OSError as error:
        raise user_error(str(path), f"cannot be read: {error.strerror}{heir}{_folded(path)}") from None
    except yaml.MarkedYAMLError as error:
        line = f": line {error.problem_mark.line + 1}" if error.problem_mark else ""
        what = error.problem if isinstance(error, yaml.composer.ComposerError) else f"is not YAML: {error.problem}"
        raise user_error(f"{path}{line}", str(what)) from None
    except (yaml.YAMLError, ValueError) as error:
        raise user_error(str(path), f"is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise user_error(str(path), f"must be a mapping of keys to values, as in `beta: 0.1`{heir}")
    return {str(key): value for key, value in values.items()}


def _folded(path: Path) -> str:
    """Say what has taken the place of a file that earlier recipes extended."""
    for old, new in FOLDED.items():
        if path.resolve().as_posix().endswith(f"recipes/{old}"):
            return f"; its keys stand in each base.yaml now: extend recipes/{new}, or another one"
    return ""


def _origins(key: str, value: Any, where: str) -> dict[str, str]:
    """Return `where` for a key and the keys of the mappings in it."""
    found = {key: where}
    if isinstance(value, dict):
        for inner, deeper in value.items():
            found |= _origins(f"{key}.{inner}", deeper, where)
    return found


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Lay `top`'s values over `base`; mappings are merged, all else is replaced."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def override(values: dict[str, Any], origin: dict[str, str], key: str, value: Any, where: str = COMMAND_LINE) -> None:
    """Set one value, at a place such as `dataset_mixture.datasets.0.id`.

    Raises:
        KeyError, IndexError, ValueError, TypeError, AttributeError: There is no such place.
    """
    first, *rest = key.split(".")
    new, source = today({first: value}, where)
    for name in new:  # none if the key is gone
        replace_rivals(values, name)
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


# --- ablations: recipes without a file ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Ablation:
    """A recipe that differs from another one in a few values."""

    recipe: Path
    overrides: dict[str, Any]  # keys, as on a command line, and values
    unless_set: dict[str, Any]  # the same, for keys that the recipe leaves out
    table: Path
    output_dir: str

    def load(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Read the recipe, with the overrides over it."""
        values, origin = load_recipe(self.recipe)
        for key, value in self.given(values).items():
            override(values, origin, key, value, str(self.table))
        return values, origin

    def given(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return all overrides, as a command line would give them with the recipe."""
        absent = {key: value for key, value in self.unless_set.items() if key not in values}
        return self.overrides | absent | {"output_dir": self.output_dir}


def find_ablation(path: Path) -> Ablation | None:
    """Find what a path `recipes/MODEL/TASK/ablations/NAME.yaml` stands for, where no file is there.

    Raises:
        UserErrors: The folder's runs are listed, and this one isn't among them; or its recipe isn't there.
    """
    if path.parent.name != ABLATIONS or path.exists() or len(path.parents) < 4:
        return None
    task, root = path.parents[1], path.parents[3]
    table = root / f"{ABLATIONS}.yaml"
    if not table.is_file() or not task.is_dir():
        return None
    runs = ablations(table.resolve())
    if path.stem not in runs:
        hint = did_you_mean(path.stem, list(runs)) or f"; {table} lists what there is"
        raise user_error(str(path), f"there is no such ablation{hint}")
    outputs = f"outputs/{task.relative_to(root).as_posix()}"
    recipe, *given = (
        {key: _fill(value, {"outputs": outputs}) for key, value in part.items()} for part in runs[path.stem]
    )
    name = f"{recipe['recipe']}.yaml"
    return Ablation(task / name, given[0], given[1], table, f"{outputs}/{ABLATIONS}/{path.stem}")


@cache
def ablations(table: Path) -> dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Expand a table of ablations: name → its recipe, overrides, and overrides of what the recipe leaves out.

    Raises:
        UserErrors: The table can't be read.
    """
    listed = _read(table)
    found = {}
    for template, entry in listed["runs"].items():
        for filled in combinations(template, listed["values"]):
            parts = ({"recipe": entry["recipe"]}, entry.get("set", {}), entry.get("unless_set", {}))
            name = str(_fill(template, filled))
            found[name] = tuple({key: _fill(value, filled) for key, value in part.items()} for part in parts)
    return found  # type: ignore[return-value]


def figures(table: Path) -> dict[str, list[str]]:
    """Return the runs of each figure of a model/task, below its folder."""
    listed = _read(table)
    return {
        figure: [str(_fill(run, filled)) for run in runs for filled in combinations(run, listed["values"])]
        for figure, runs in listed["figures"].items()
    }


def combinations(template: str, values: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Return each choice of values for the `{names}` in a template, the last name's changing fastest."""
    names = re.findall(r"\{(\w+)\}", template)
    return [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*(values[name] for name in names))]


def _fill(value: Any, given: dict[str, Any]) -> Any:
    """Put values in place of `{names}`; a text that is one name alone becomes the value itself."""
    if not isinstance(value, str):
        return value
    if (alone := re.fullmatch(r"\{(\w+)\}", value)) and alone[1] in given:
        return given[alone[1]]
    return re.sub(r"\{(\w+)\}", lambda found: str(given.get(found[1], found[0])), value)
