"""Responses in, a judge's verdicts out: `judgements.jsonl` and `judged.json`."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from pathlib import Path
from typing import Any

from ..asking.batch import Batches
from ..asking.cost import Meter, Quote
from ..asking.endpoint import Endpoint, api_key
from ..asking.quoting import asker_for, confirm, quote
from ..asking.store import KeptReplies, replies_path
from ..errors import fail
from ..evaluation.outputs import model_name
from ..judge_config import JudgeConfig
from ..plan import show
from ..runtime import claim, elapsed, may_claim, recipe_of, write_json, write_jsonl, writing
from . import alpaca
from .benchmarks import AlpacaEval, ArenaHard, Benchmark
from .cases import Case, load_cases

VERSION = 1  # of how a judge is asked


def judge(config: JudgeConfig) -> dict[str, Any]:
    """Runs the stage and returns what it writes to `judged.json`.

    Raises:
        Faults: The responses, the reference, the folder or the endpoint can't be used, the quote is declined, or no
            judgement can be read. Answers that the judge has given are kept in any case.
    """
    benchmark, cases, reference = load(config)
    may_claim(config.output_dir, recipe_of(config))
    found = quote_for(config, benchmark)
    if found.asked:
        api_key(config.api_key_env)
    show(f"ask {config.model} about {len(cases):,} responses", found.facts())
    confirm(config, found)
    with writing(config.output_dir):
        folder = claim(config.output_dir, recipe_of(config), config, rows=[vars(case) for case in cases])
        answers, meter = asyncio.run(_answers(config, benchmark, found))
        judgements = benchmark.judgements(answers)
        write_jsonl(folder / "judgements.jsonl", judgements)
        unreadable = {row["id"]: row["reason"] for row in judgements if "reason" in row}
        summary = benchmark.summary(judgements)
        if not summary["n"]:
            first = next(iter(unreadable.values()))
            what = f"none of {len(judgements)} rows can be scored (the first: {first}); try another judge"
            raise fail(str(folder / "judgements.jsonl"), what)
        benchmark.write(folder)
        judged = {
            "benchmark": config.benchmark,
            "judge": config.model,
            "reference": reference,
            "responses": config.responses,
            "rows": len(cases),
            **summary,
            "unreadable_ids": list(unreadable),
            "answers": meter.all_runs(),
            "this_run": meter.this_run(len(cases), elapsed()),
            "seconds": elapsed(),
        }
        write_json(folder / "judged.json", judged)  # the last one: it says that the run is done
    return judged


def load(config: JudgeConfig) -> tuple[Benchmark, list[Case], str]:
    """The benchmark with its cases, the cases, and the reference's name.

    Raises:
        Faults: The responses or the reference can't be used, or the evaluator isn't installed.
    """
    if config.benchmark == "alpaca_eval":
        alpaca.require()
    cases, reference = load_cases(config)
    folder = Path(config.responses)
    names = reference, model_name(str(folder.parent if folder.name == "eval" else folder))
    if config.benchmark == "alpaca_eval":
        return AlpacaEval(cases, names), cases, reference
    return ArenaHard(cases, names, config.model), cases, reference


def quote_for(config: JudgeConfig, benchmark: Benchmark) -> Quote:
    """What the run would ask beyond what is kept."""
    with contextlib.closing(KeptReplies(replies_path(config.replies, config.output_dir))) as store:
        return asyncio.run(quote(benchmark.jobs(), config, VERSION, store))


async def _answers(config: JudgeConfig, benchmark: Benchmark, found: Quote) -> tuple[list[Any], Meter]:
    """What each of the benchmark's jobs gave, and what it cost."""
    from tqdm import tqdm

    model = partial(Batches if config.batch_api else Endpoint, config)
    async with asker_for(config, VERSION, benchmark.jobs, found, model) as asker:
        if isinstance(asker.model, Batches):
            await asker.model.fill(benchmark.jobs, asker)
        tasks = [asyncio.ensure_future(job.ask(asker)) for job in benchmark.jobs()]
        try:
            with tqdm(total=len(tasks), unit="request", desc="Judging") as progress:
                for task in tasks:
                    task.add_done_callback(lambda _: progress.update())
                return await asyncio.gather(*tasks), asker.meter
        finally:  # the exceptions of all are fetched, or asyncio would print tracebacks
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
