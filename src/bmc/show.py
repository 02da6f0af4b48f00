"""`bmc show`: a recipe as it will be read, with the origin of each value; or the request that a row would make."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .errors import UserErrors, user_error
from .manual import default_of
from .recipe import STAGES, Draft, parse, stage_fault, translate
from .recipe_files import COMMAND_LINE, load_recipe

DEFAULT = "default"


def classes_of(stage: str) -> tuple[type, ...]:
    """Return the dataclasses that a stage's recipe is read into; those of training take some seconds to import."""
    if stage in ("sft", "train"):
        from .training import config as training

        if stage == "sft":
            return training.TrainingArguments, training.ModelArguments, training.SFTConfig
        return training.PreferenceArguments, training.ModelArguments, training.BMCConfig
    from . import config
    from .config import BridgeConfig, JudgeConfig

    own = (
        config.PrepareConfig, config.SampleConfig, BridgeConfig, config.ScoreTokensConfig, config.EvaluateConfig,
        JudgeConfig, config.AnalyzeConfig, config.RoundsConfig, config.TinyModelConfig, config.LabConfig,
    )  # fmt: skip
    return (next(cls for cls in own if stage == cls.STAGE),)


def read(argv: list[str], check: bool = True) -> tuple[str, tuple[type, ...], Draft]:
    """Read a recipe of any stage.

    Returns:
        `(stage, its dataclasses, the recipe's values)`.

    Raises:
        UserErrors: The stage or anything else in the recipe is wrong; all of it at once.
    """
    stage, where = _stage(argv)
    if stage not in STAGES:
        raise user_error(where, f"stage: {stage_fault(stage)}{'' if stage else ', or give it as --stage'}")
    classes = classes_of(stage)
    if check:
        _check(stage, classes, argv)
    disabled, logging.root.manager.disable = logging.root.manager.disable, logging.CRITICAL  # reported a line before
    try:
        return stage, classes, translate(argv, *classes)
    finally:
        logging.root.manager.disable = disabled


def _stage(argv: list[str]) -> tuple[Any, str]:
    """Return the stage of a recipe on a command line, before its keys are known, and what says it."""
    words = [word.removeprefix("--config=") for word in argv]
    given = [word.removeprefix("--stage=") for word in argv if word.startswith("--stage=")]
    given += [word for before, word in itertools.pairwise(argv) if before == "--stage"]
    if given:
        return given[-1], COMMAND_LINE
    named = [
        (before, word) for before, word in zip(["", *words], words, strict=False) if word.endswith((".yaml", ".yml"))
    ]
    named = [(before, word) for before, word in named if not word.startswith("--")]
    alone = [word for before, word in named if not before.startswith("--") or before == "--config"]
    if named:  # one that follows a key may be its value
        path = [*alone, named[0][1]][0]
        values, origin = load_recipe(Path(path))
        return values.get("stage"), origin.get("stage", path)
    raise user_error(COMMAND_LINE, "names no recipe; give its path")


def _check(stage: str, classes: tuple[type, ...], argv: list[str]) -> Any:
    """Read a recipe as its stage will, but for what the command line of a stage must say."""
    if stage in ("sft", "train"):
        from .training.run import parse_training

        return parse_training([*argv, "--dry_run"], classes[0], classes[2], "")
    required = {"judge": ["--responses=RESPONSES", "--output_dir=OUTPUT_DIR"]}.get(stage, [])
    return parse([*required, *argv], *classes)[0]


def show(argv: list[str]) -> Iterator[str]:
    """Yield the lines of a recipe's values, each with its origin: those that are set, then the defaults."""
    stage, classes, draft = read(argv)
    rows = [("stage", stage, draft.where)]
    rows += [row for key, value in draft.values.items() for row in _rows(key, value, draft)]
    rest: dict[str, Any] = {}
    for cls in classes:
        for known in dataclasses.fields(cls):
            default = default_of(known)
            if known.init and known.name not in draft.values and default is not dataclasses.MISSING:
                rest[known.name] = dataclasses.asdict(default) if _is_instance(default) else default
    rows += [(key, value, DEFAULT) for key, value in rest.items()]
    texts = [f"{key}: {_flow(value)}" if key else _flow(value) for key, value, _ in rows]
    width = min(max(map(len, texts)), 64)
    for text, (_, _, origin) in zip(texts, rows, strict=True):
        yield f"{text:<{width}}  # {origin}"


def _is_instance(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _rows(key: str, value: Any, draft: Draft, indent: str = "", place: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield the lines of a key; a mapping whose keys come from several places has one for each."""
    place = place or key
    own = draft.origin.get(place, draft.where)
    within = {draft.origin.get(f"{place}.{name}", own) for name in value} if isinstance(value, dict) else set()
    if len(within | {own}) < 2:
        yield f"{indent}{key}", value, own
        return
    yield "", _Bare(f"{indent}{key}:"), own
    for name, inner in value.items():
        yield from _rows(str(name), inner, draft, f"{indent}  ", f"{place}.{name}")


class _Bare(str):
    """A text that is printed as it is."""


def _flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, _Bare):
        return value
    text = yaml.safe_dump(
        _plain(value), default_flow_style=True, width=10**9, allow_unicode=True, sort_keys=False
    )  # a scalar is followed by `...`
    return text.removesuffix("\n").removesuffix("\n...")


def _plain(value: Any) -> Any:
    """Return a value of plain Python types."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if _is_instance(value):
        return _plain(dataclasses.asdict(value))
    return value if value is None or type(value) in (bool, int, float, str) else str(getattr(value, "value", value))


def flat(argv: list[str], check: bool = True) -> str:
    """Return a recipe that stands alone: all that is set, each part under the file that it comes from."""
    stage, _, draft = read(argv, check)
    parts: dict[str, dict[str, Any]] = {}
    for key, value in draft.values.items():
        parts.setdefault(draft.origin.get(key, draft.where), {})[key] = _plain(value)
    dumped = [
        f"# {origin}\n" + yaml.safe_dump(values, width=10**9, allow_unicode=True, sort_keys=False)
        for origin, values in parts.items()
    ]
    return "\n".join([f"stage: {stage}\n", *dumped]).rstrip()


def prompt(argv: list[str], row: str | None) -> Iterator[str]:
    """Yield what an editor would be sent for a row of a bridging recipe; no request is sent.

    `row` is the row's number, from 0, or its id; the first one by default.

    Raises:
        UserErrors: The recipe is of another stage, has an editor that is sent nothing, or there is no such row.
    """
    stage, classes, draft = read(argv)
    if stage != "bridge":
        raise user_error(draft.where, f"stage: is {stage}; --prompt is for recipes of bridging")
    from .config import OFFLINE

    (config,) = parse(argv, *classes)
    if config.editor in OFFLINE:
        raise user_error(
            draft.where, f"editor: {config.editor} is sent nothing; give --editor openai to see its prompt"
        )
    from .bridging.run import load_pairs

    try:
        pairs = load_pairs(config)[0]
    except UserErrors as error:
        if row is not None:
            raise
        logging.getLogger(__name__).warning("%s; the prompt without a row:", error.faults[0])
        yield from _template(config)
        return
    yield from _request(config, _row(pairs, row))


def _row(pairs: Any, wanted: str | None) -> dict[str, Any]:
    count = 0
    for number, pair in enumerate(pairs):
        if wanted is None or wanted in (str(number), str(pair["id"])):
            return dict(pair)
        count = number + 1
    raise user_error(COMMAND_LINE, f"--row {wanted}: there is no such row; give 0 to {count - 1}, or an id")


def _request(config: Any, pair: dict[str, Any]) -> Iterator[str]:
    from .bridging.editor import edit_request
    from .bridging.prompts import edit_prompt, request, score_request

    case = edit_request(pair)
    if config.mode == "token_scores":
        requests = [score_request(case.prompt, response) for response in (case.chosen, case.rejected)]
    else:
        requests = [request(edit_prompt(config.mode, config.template, config.rationale, case), case)]
    for messages, _ in requests:
        yield f"# row {pair['id']}: {config.model}, temperature {config.temperature}, max_tokens {config.max_tokens}"
        for message in messages:
            yield f"--- {message['role']} ---\n{message['content']}"


def _template(config: Any) -> Iterator[str]:
    from .bridging.prompts import SCORING, edit_prompt

    scores = config.mode == "token_scores"
    found = SCORING if scores else edit_prompt(config.mode, config.template, config.rationale)
    yield f"--- system ---\n{found.system}"
    yield f"--- user ---\n{found.text}"
