"""Pairs that the runs weren't trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple

from pydantic import TypeAdapter

from ..config import AnalyzeConfig, DatasetMixture, names
from ..data.schema import PAIR, Row, check_rows, content, digest, transcript, unbridged
from ..errors import Faults, fail
from .trained import Run

logger = logging.getLogger(__name__)

NONE = "the runs held no pairs out; name some here, or train with dataset_mixture.test_split_size"


class HeldOut(NamedTuple):
    """Pairs to look at.

    Attributes:
        rows: With `id`, and the prompt in a column of its own; as bridging left them.
        origin: Where they are from, in words.
        left_out: How many more there were, whose prompts a run was trained on.
    """

    rows: list[Row]
    origin: str
    left_out: int

    @property
    def prompts(self) -> dict[str, str]:
        """Id → prompt as plain text."""
        return {row["id"]: transcript(row["prompt"]) for row in self.rows}


def held_out(config: AnalyzeConfig, runs: list[Run]) -> HeldOut:
    """The pairs that the recipe names, or else those that the runs' own recipes evaluate on or hold out.

    A pair whose prompt stands in the training data of a run is left out.

    Raises:
        Faults: There are none, or they are no bridged pairs.
    """
    from ..data.loading import load_mixture, load_split

    mixtures = [mixture_of(run) for run in runs]
    if config.dataset_mixture is not None:
        given = config.dataset_mixture
        found: Iterable[Row] = load_mixture(given.datasets, given.seed)
        origin = names(given.datasets)
    else:
        holding = [mixture for mixture in mixtures if mixture.test_datasets or mixture.test_split_size]
        if not holding:
            raise fail("dataset_mixture", NONE)
        found, origin = load_split(holding[0])[1] or (), names(holding[0].test_datasets)
        origin = origin or f"{holding[0].test_split_size:g} of {names(holding[0].datasets)}, held out of training"
    rows = [*found]
    check_rows(rows, (*PAIR, "original_chosen"), origin)
    trained = _trained(mixtures)
    kept = [row for row in rows if _key(row) not in trained]
    if not kept:
        raise fail("held-out pairs", f"the prompts of all {len(rows)} pairs of {origin} were trained on; give others")
    if len(kept) < len(rows):
        logger.warning(
            "held-out pairs: left out %d of %d, whose prompts were trained on", len(rows) - len(kept), len(rows)
        )
    return HeldOut(kept, origin, len(rows) - len(kept))


def mixture_of(run: Run) -> DatasetMixture:
    """The data that a run was trained on.

    Raises:
        Faults: Its `recipe.json` doesn't say.
    """
    try:
        return TypeAdapter(DatasetMixture).validate_python(run.recipe["dataset_mixture"])
    except (KeyError, ValueError):
        raise fail(str(run.folder / "recipe.json"), "names no dataset_mixture; train the run again") from None


def originals(rows: list[Row]) -> list[Row]:
    """The same pairs as they were before they were bridged, (y_w, y_l)."""
    return [unbridged(row) for row in rows]


def _trained(mixtures: list[DatasetMixture]) -> set[str]:
    """Digests of the prompts of all training rows, as far as they are at hand."""
    from ..data.loading import load_split

    prompts: set[str] = set()
    for number, mixture in enumerate(mixtures):
        if mixture in mixtures[:number]:
            continue
        try:
            train = load_split(mixture)[0]
        except Faults as error:
            logger.warning("held-out pairs: can't tell whether they were trained on: %s", error)
            continue
        prompts |= {_key(row) for row in train}
    return prompts


def _key(row: Row) -> str:
    return digest(content(row["prompt"]))
