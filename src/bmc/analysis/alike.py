"""Whether the runs of one table were made alike: on the same rows, by the same template, settings and judge, and, as
far as they are preference training, from the same pairs."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from .. import provenance
from ..config import EvaluateConfig
from ..data.schema import digest
from ..program import trains_on_pairs
from ..wording import default_of
from .cells import listed
from .differences import Hits
from .runs import Run, dict_of, dicts_of

SETTINGS = ("backend", "dtype", "max_new_tokens", "temperature", "top_p", "benchmarks")
NO_RECORD = "not recorded"
MOST_WAYS = 4  # that are told of one thing


def unlike(runs: dict[str, Run]) -> list[str]:
    """What differs between runs that share a benchmark, one sentence each, the runs named."""
    shared = [[run for run in runs if benchmark in benchmarks_of(runs[run])] for benchmark in _benchmarks(runs)]
    made = {name: _made(run) for name, run in runs.items()}
    said = (sentence for names in shared for sentence in _differing({name: made[name] for name in names}))
    return list(dict.fromkeys(said))


def benchmarks_of(run: Run) -> list[str]:
    """What a run was scored on."""
    return [*run.metrics["results"], *run.judged]


def missing_rows(runs: dict[str, Run], hits: dict[str, Hits]) -> list[str]:
    """Predictions that aren't there: of those that `metrics.json` counts, or of those that other runs have.

    Args:
        runs: The evaluations.
        hits: What stands in their `predictions.jsonl`.
    """
    said = []
    for benchmark in _benchmarks(runs):
        rows = {name: found[benchmark].keys() for name, found in hits.items() if benchmark in found}
        every = dict.fromkeys(row for ids in rows.values() for row in ids)
        for name, run in runs.items():
            result = run.metrics["results"].get(benchmark)
            there = set(rows.get(name, ()))
            if result and hits[name] and len(there) != result["n"]:
                path = run.folder / "predictions.jsonl"
                what = f"has {len(there)} of the {result['n']} rows of {benchmark} that metrics.json counts"
                said.append(f"{path}: {what}; evaluate again")
            lacking = [str(row) for row in every if row not in there]
            if lacking and name in rows:
                count = f"{len(lacking)} row{'s' * (len(lacking) > 1)}"
                said.append(f"{name}: was not scored on {count} of {benchmark} that others have ({listed(lacking)})")
    return said


def _benchmarks(runs: dict[str, Run]) -> list[str]:
    return list(dict.fromkeys(name for run in runs.values() for name in benchmarks_of(run)))


def _made(run: Run) -> dict[str, str]:
    """How a run's numbers came about, as words that are equal where it is the same."""
    facts = {}
    record = provenance.read_provenance(run.folder)
    if record is None or not isinstance(record.get("recipe"), dict):
        facts["how it was evaluated"] = NO_RECORD
    else:
        recipe = record["recipe"]
        defaults = {field.name: default_of(field) for field in dataclasses.fields(EvaluateConfig)}
        facts["evaluation data"] = _data(record)
        given = recipe.get("chat_template")
        facts["chat template"] = _template(None if given is None else str(given), run.folder.parent)
        facts |= {key: str(recipe.get(key, defaults[key])) for key in SETTINGS}
    training = provenance.read_provenance(run.folder.parent)
    if training and trains_on_pairs(str(training.get("command"))):  # SFT has other data by its nature
        facts["training data"] = _data(training)
    for benchmark, judged in run.judged.items():
        facts[f"{benchmark}'s judge"] = str(judged.said.get("judge"))
        facts[f"{benchmark}'s reference"] = str(judged.said.get("reference"))
    return facts


def _data(record: dict[str, Any]) -> str:
    """Digests of the files, and which of their rows were taken."""
    digests = [str(entry.get("sha256"))[:12] for entry in dicts_of(record.get("data"))]
    parts = dicts_of(dict_of(dict_of(record.get("recipe")).get("dataset_mixture")).get("datasets"))
    taken = [{key: value for key, value in part.items() if key != "id"} for part in parts]
    chosen = ", ".join(f"{key} {json.dumps(value)}" for part in taken for key, value in sorted(part.items()))
    return " ".join(filter(None, ["SHA-256", *digests, chosen and f"({chosen})"]))


def _template(given: str | None, model: Path) -> str:
    """The template by a digest of its text: the recipe's, or else the one that was saved with the model."""
    path = Path(given) if given and "\n" not in given and len(given) < 500 else model / "chat_template.jinja"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        text = given or ""
    return f"the one with digest {digest(text.strip())[:8]}" if text else "the tokenizer's"


def _differing(made: dict[str, dict[str, str]]) -> list[str]:
    said = []
    for what in dict.fromkeys(key for facts in made.values() for key in facts):
        groups: dict[str, list[str]] = defaultdict(list)
        for name, facts in made.items():
            if what in facts:
                groups[facts[what]].append(name)
        if what == "how it was evaluated" and len(groups[NO_RECORD]) < len(made):
            said.append(f"{listed(groups[NO_RECORD])}: {what} isn't recorded (no provenance.json)")
        elif len(groups) > 1:
            ways = sorted(groups.items(), key=lambda group: -len(group[1]))
            told = "; ".join(f"{way} for {listed(names)}" for way, names in ways[:MOST_WAYS])
            told += f"; {len(ways) - MOST_WAYS} other ways" if len(ways) > MOST_WAYS else ""
            said.append(f"not made alike: {what} is {told}")
    return said
