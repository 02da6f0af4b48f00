"""LLM judges: responses in, a judge's verdicts and their win rate out (`verdicts.jsonl`, `judge_results.json`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..config import JudgeConfig
from ..errors import user_error
from ..llm.batch import BatchClient
from ..llm.cache import CachedResponses, cache_path
from ..llm.client import confirm, estimate_cost, open_client
from ..llm.cost import CostEstimate, UsageTracker
from ..llm.openai_client import OpenAIClient, api_key
from ..planning.describe import print_plan
from ..runs import (
    check_output_dir,
    claim_output_dir,
    elapsed,
    report_disk_errors,
    run_fingerprint,
    write_json,
    write_jsonl,
)
from . import alpaca_eval
from .arena_hard import ArenaHard
from .comparisons import Comparison, load_comparisons, model_name

VERSION = 1  # of the requests to judges


# Both yield what is requested of the judge (`pending`), read its answers (`verdicts`: a line of `verdicts.jsonl` for
# each comparison, with `reason` if it can't be read), and sum these up (`summary`).
Benchmark = alpaca_eval.AlpacaEval | ArenaHard


def lost(results: Mapping[str, Any]) -> str | None:
    """Say which part of the verdicts and rows is lost; None if nothing is, or if the file doesn't count it."""
    counts = [results.get(key) for key in ("unreadable", "verdicts", "rows", "n")]
    whole = [count for count in counts if isinstance(count, int)]
    if len(whole) < len(counts) or not results["unreadable"] or not results["rows"]:
        return None
    unreadable, verdicts, rows, n = whole
    return (
        f"{unreadable} of {verdicts} verdicts can't be read, so {rows - n} of {rows} rows "
        f"({100 * (rows - n) / rows:.1f} %) are not scored: the win rate is that of the others"
    )


def judge(config: JudgeConfig) -> dict[str, Any]:
    """Run the stage and return what it writes to `judge_results.json`.

    Raises:
        UserErrors: The responses, the reference, the folder or the endpoint can't be used, the cost estimate is
            declined, or no verdict can be read. The judge's responses are cached in any case.
    """
    benchmark, comparisons, reference = load_benchmark(config)
    check_output_dir(config.output_dir, run_fingerprint(config))
    estimate = estimate_for(config, benchmark)
    if estimate.to_send:
        api_key(config.api_key_env)
    print_plan(f"ask {config.model} about {len(comparisons):,} responses", estimate.facts())
    confirm(config, estimate)
    with report_disk_errors(config.output_dir):
        rows = [vars(one) for one in comparisons]
        folder = claim_output_dir(config.output_dir, run_fingerprint(config), config, rows=rows)
        answers, usage = asyncio.run(_answers(config, benchmark, estimate))
        verdicts = benchmark.verdicts(answers)
        write_jsonl(folder / "verdicts.jsonl", verdicts)
        unreadable = {row["id"]: row["reason"] for row in verdicts if "reason" in row}
        summary = benchmark.summary(verdicts)
        if not summary["n"]:
            first = next(iter(unreadable.values()))
            what = f"none of {len(verdicts)} rows can be scored (the first: {first}); try another judge"
            raise user_error(str(folder / "verdicts.jsonl"), what)
        benchmark.write(folder)
        results = {
            "benchmark": config.benchmark,
            "judge": config.model,
            "reference": reference,
            "responses": config.responses,
            "rows": len(comparisons),
            **summary,
            "unreadable_ids": list(unreadable),
            "usage": usage.all_runs(),
            "this_run": usage.this_run(len(comparisons), elapsed()),
            "seconds": elapsed(),
        }
        write_json(folder / "judge_results.json", results)  # last, since it marks the run as done
    return results


def load_benchmark(config: JudgeConfig) -> tuple[Benchmark, list[Comparison], str]:
    """Load the benchmark with its comparisons, the comparisons, and the reference's name.

    Raises:
        UserErrors: The responses or the reference can't be used, or the evaluator isn't installed.
    """
    if config.benchmark == "alpaca_eval":
        alpaca_eval.require()
    comparisons, reference = load_comparisons(config)
    folder = Path(config.responses)
    names = reference, model_name(str(folder.parent if folder.name == "eval" else folder))
    if config.benchmark == "alpaca_eval":
        return alpaca_eval.AlpacaEval(comparisons, names), comparisons, reference
    return ArenaHard(comparisons, names, config.model), comparisons, reference


def estimate_for(config: JudgeConfig, benchmark: Benchmark) -> CostEstimate:
    """Estimate the cost of the requests that aren't cached."""
    with contextlib.closing(CachedResponses(cache_path(config.response_cache, config.output_dir))) as cache:
        return asyncio.run(estimate_cost(benchmark.pending(), config, VERSION, cache))


async def _answers(config: JudgeConfig, benchmark: Benchmark, estimate: CostEstimate) -> tuple[list[Any], UsageTracker]:
    """Return the results of the benchmark's pending requests, and the usage."""
    from tqdm import tqdm

    model = partial(BatchClient if config.batch_api else OpenAIClient, config)
    async with open_client(config, VERSION, benchmark.pending, estimate, model) as client:
        if isinstance(client.model, BatchClient):
            await client.model.run_batches(benchmark.pending, client)
        tasks = [asyncio.ensure_future(pending.send(client)) for pending in benchmark.pending()]
        try:
            with tqdm(total=len(tasks), unit="request", desc="Judging") as progress:
                for task in tasks:
                    task.add_done_callback(lambda _: progress.update())
                return await asyncio.gather(*tasks), client.usage
        finally:  # the exceptions of all are fetched, or asyncio would print tracebacks
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
