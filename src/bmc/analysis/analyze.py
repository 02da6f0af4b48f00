"""The runs of a setting → `tokens/RUN.jsonl`, `figures/NAME.{svg,png,csv}` and `analysis.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..config import AnalyzeConfig
from ..errors import Faults
from ..runs import (
    check_output_dir,
    claim_output_dir,
    elapsed,
    report_disk_errors,
    run_fingerprint,
    write_json,
    write_jsonl,
)
from .figures import ablations, costs, divergence, pair, rewards, spans
from .figures.drawing import Drawing, Missing, check_matplotlib, save
from .held_out import HeldOut, held_out, originals
from .token_scores import Scored, Scorer, token_row
from .trained import METHODS, Run, check_alike, find, make, run_stage

Figures = dict[str, Drawing | Missing]


def analyze(config: AnalyzeConfig) -> dict[str, Any]:
    """Writes all that can be made of the runs that are there; returns what `analysis.json` says.

    Raises:
        Faults: There is no finished run, runs don't compare, a file is damaged, the output folder is another recipe's,
            or matplotlib is missing. Nothing has been written.
    """
    recipe = run_fingerprint(config)
    check_output_dir(config.output_dir, recipe)
    check_matplotlib()
    runs, missing = find(config.setting, config.runs)
    check_alike(runs)
    there = [run for run in runs if run.has_weights]
    missing |= {run.name: "its weights are gone; only its curves are shown" for run in runs if run not in there}
    ready = _of_files(Path(config.setting), config.metric, runs)  # a damaged file is told before anything is scored
    pairs, why = _pairs(config, there)
    scorer = Scorer(config, there) if pairs else None
    folder = claim_output_dir(config.output_dir, recipe, config, rows=pairs.rows if pairs else None)
    scored = _score(scorer, there, pairs, folder) if scorer and pairs else []
    with report_disk_errors(folder):
        (folder / "figures").mkdir(exist_ok=True)
        figures = list(_figures(config, runs, scored, pairs, why, ready))
        drawn = [figure for figure in figures if isinstance(figure, Drawing)]
        files = {figure.name: save(figure, folder / "figures") for figure in drawn}
        _remove_others(folder, [one.run.name for one in scored], files)
    gone = [Missing(name, why, make(config.setting, name)) for name, why in missing.items()]
    summary = {
        "setting": config.setting,
        "pairs": None if pairs is None else {"n": len(pairs.rows), "from": pairs.origin, "left_out": pairs.left_out},
        "runs": {one.run.name: _described(one) for one in scored},
        "figures": [
            {
                "name": figure.name,
                "title": figure.title,
                "caption": figure.caption,
                **{kind: f"figures/{name}" for kind, name in files[figure.name].items()},
            }
            for figure in drawn
        ],
        "missing": [vars(one) for one in (*gone, *figures) if isinstance(one, Missing)],
        "seconds": elapsed(),
    }
    write_json(folder / "analysis.json", summary)
    return summary


def _remove_others(folder: Path, runs: list[str], files: dict[str, dict[str, str]]) -> None:
    """Removes what an earlier analysis left of runs and figures that aren't there any more."""
    kept = {folder / "tokens" / f"{run}.jsonl" for run in runs}
    kept |= {folder / "figures" / name for names in files.values() for name in names.values()}
    for path in (*folder.glob("tokens/**/*.jsonl"), *folder.glob("figures/*")):
        if path not in kept:
            path.unlink()


def _pairs(config: AnalyzeConfig, there: list[Run]) -> tuple[HeldOut | None, str]:
    """Held-out pairs, or why there are none; pairs that are named in the recipe must be good."""
    if not there:
        return None, "no run has its weights"
    try:
        return held_out(config, there), ""
    except Faults as error:
        if config.dataset_mixture is not None:
            raise
        return None, "; ".join(map(str, error.faults))


def _score(scorer: Scorer, there: list[Run], pairs: HeldOut, folder: Path) -> list[Scored]:
    """Scores the pairs with each run and writes `tokens/RUN.jsonl`."""
    before, prompts, scored = originals(pairs.rows), pairs.prompts, []
    for run in there:
        one = scorer.score(run, pairs.rows, before)
        rows = (token_row(id, prompts[id], sides, one.beta) for id, sides in one.bridged.items())
        with report_disk_errors(folder):
            write_jsonl(folder / "tokens" / f"{run.name}.jsonl", rows)
        scored.append(one)
    return scored


def _described(one: Scored) -> dict[str, Any]:
    return {
        "tokens": f"tokens/{one.run.name}.jsonl",
        "method": one.run.method,
        "model": str(one.run.folder),
        "beta": one.beta,
        "delta": one.delta,
    }


def _of_files(setting: Path, metric: str, runs: list[Run]) -> Figures:
    """The figures that no model is needed for, by name."""
    made = (
        *(draw(setting, metric) for draw in (ablations.figure3, ablations.figure4, ablations.figure5)),
        costs.table9(setting),
        costs.table10(setting, runs),
    )
    return {figure.name: figure for figure in made}


def _figures(
    config: AnalyzeConfig, runs: list[Run], scored: list[Scored], pairs: HeldOut | None, why: str, ready: Figures
) -> Iterator[Drawing | Missing]:
    """Each figure, or what it lacks, in the paper's order."""
    by_name = {one.run.name: one for one in scored}

    def of_runs(name: str, runs: tuple[str, ...], draw: Callable[[], Drawing | Missing]) -> Drawing | Missing:
        """A figure of held-out pairs, by runs that must be there."""
        absent = [run for run in runs if run not in by_name]
        if pairs and not absent:
            return draw()
        lacking = f"needs the model of {' and '.join(absent)}" if pairs else why
        return Missing(name, lacking, make(config.setting, *(absent or runs)))

    prompts = pairs.prompts if pairs else {}
    again, two = run_stage("analyze", config.setting), ("dpo", "dpo_bmc")
    yield of_runs("figure2", ("dpo_bc",), lambda: spans.figure2(by_name["dpo_bc"]))
    yield from (ready[name] for name in ("figure3", "figure4", "figure5"))
    yield of_runs("figure6", two, lambda: pair.figure6([by_name[run] for run in two], prompts, config.pair, again))
    yield rewards.rewards(scored) if scored else Missing("rewards", why, make(config.setting, *config.runs))
    yield divergence.figure9(runs, scored, make(config.setting, *METHODS))
    yield from (ready[name] for name in ("table9", "table10"))
