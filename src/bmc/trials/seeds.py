"""One recipe, several seeds: mean ± standard deviation of their test scores, and the 95 % t interval of the mean."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ..analysis.cells import accuracy_cell, markdown_table, read_json
from ..analysis.seeds import FILE, seeds_cell, summary
from ..analysis.tables import average
from ..errors import fail
from ..runtime import write_json
from ..training_config import BMCConfig, PreferenceArguments
from .trial import TrialFailed, eval_recipe, refuse_launcher, run, trials


def seeds(argv: list[str], arguments: PreferenceArguments, config: BMCConfig) -> str:
    """Trains and evaluates a recipe with each seed, in `OUTPUT_DIR/seed_N`, and writes `OUTPUT_DIR/seeds.json`.

    A seed decides the order of the pairs and dropout, not which rows are drawn (that is the mixture's). Started again,
    it goes on, and tries again what failed.

    Returns:
        The table, as Markdown.

    Raises:
        Faults: A folder holds another recipe's run, the test rows have no answers, or a training failed.
    """
    refuse_launcher()
    numbers, folder = arguments.seed_list(), Path(config.output_dir)
    evaluate = [str(eval_recipe(argv, arguments))]
    points = [{"seed": number} for number in numbers]
    made = trials(argv, points, [folder / f"seed_{number}" for number in numbers], evaluate, "seeds")
    found: dict[str, list[dict[str, Any]]] = {}
    failed = []
    for trial in made:
        try:
            run(trial, arguments.launcher)
        except TrialFailed as error:
            failed.append(f"{trial.folder}: {error}")
            print(f"{trial.folder.name} failed: {error}", file=sys.stderr)
            continue
        results = read_json(trial.metrics)["results"]
        for benchmark, result in {**results, **({"average": average(results)} if len(results) > 1 else {})}.items():
            found.setdefault(benchmark, []).append(result)
    if failed:
        raise fail(str(folder), f"{len(failed)} of {len(numbers)} seeds failed; run it again for those; {failed[-1]}")
    if not found:
        raise fail(evaluate[0], "its rows have no answers to compare")
    summaries = {benchmark: summary(results) for benchmark, results in found.items()}
    write_json(folder / FILE, {"seeds": numbers, "results": summaries})
    header = ["benchmark", "mean ± sd [95 % interval]", *(f"seed {number}" for number in numbers)]
    rows = [[name, seeds_cell(summaries[name]), *map(accuracy_cell, found[name])] for name in found]
    return markdown_table((header, rows))
