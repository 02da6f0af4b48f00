"""What is asked of each benchmark's judge, and what its answers say.

Responses in, a judge's verdicts out: `judgements.jsonl` and `judged.json`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from ..config import JudgeConfig
from ..data.schema import Row
from ..errors import fail
from ..llm.batch import BatchClient
from ..llm.cache import CachedResponses, cache_path
from ..llm.client import Completion, PendingRequest, confirm, estimate_cost, open_client
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
from . import alpaca_eval as alpaca
from . import arena_hard
from .comparisons import Comparison, load_comparisons
from .exports import model_name
from .stats import win_rate


class Benchmark(Protocol):
    """One benchmark's scheme."""

    def jobs(self) -> Iterator[PendingRequest]:
        """What is asked, a request or a conversation each."""
        ...

    def judgements(self, answers: Sequence[Any]) -> list[Row]:
        """A line of `judgements.jsonl` for each comparison, with `id`, and `reason` where a verdict can't be read.

        Args:
            answers: What each job gave.
        """
        ...

    def summary(self, judgements: Sequence[Row]) -> Row:
        """Return n (comparisons that are scored), verdicts, how many of these can't be read (`unreadable`), win rate in
        % with its 95 % interval, and mean length; of no comparison that is scored, no win rate."""
        ...

    def write(self, folder: Path) -> None:
        """Writes what else the official evaluator reads."""
        ...


class AlpacaEval:
    """AlpacaEval 2: one question a comparison, whose answer is weighed by the log-probabilities of its token.

    Args:
        comparisons: The comparisons.
        names: Of the reference and of the model.
    """

    def __init__(self, comparisons: Sequence[Comparison], names: tuple[str, str]) -> None:
        self.comparisons, self.names = comparisons, names
        self.prompts = alpaca.prompts_of(comparisons, names)
        self.annotations: list[Row] = []
        self.replies: dict[str, Completion | str] = {}

    def jobs(self) -> Iterator[PendingRequest]:
        for prompt in self.prompts:
            yield PendingRequest(partial(alpaca.ask, prompt), "m")

    def judgements(self, answers: Sequence[Any]) -> list[Row]:
        self.replies = dict(zip(self.prompts, answers, strict=True))
        self.annotations = alpaca.annotate(self.comparisons, self.names, self.replies)
        rows: list[Row] = []
        for comparison, annotation in zip(self.comparisons, self.annotations, strict=True):
            row = {"id": comparison.id, "instruction": comparison.name, "preference": annotation["preference"]}
            rows.append(row | ({"reason": self._reason(comparison)} if annotation["preference"] is None else {}))
        return rows

    def _reason(self, comparison: Comparison) -> str:
        """Why a comparison has no verdict; alpaca_eval doesn't say which prompt was whose."""
        texts = (comparison.prompt, comparison.response, comparison.reference)
        asked = (prompt for prompt in self.replies if all(text in prompt for text in texts))
        return next((alpaca.reason(self.replies[prompt]) for prompt in asked), "no verdict")

    def summary(self, judgements: Sequence[Row]) -> Row:
        won = [row["preference"] - 1 for row in judgements if row["preference"] is not None]
        counts = {"n": len(won), "verdicts": len(self.prompts), "unreadable": len(judgements) - len(won)}
        if not won:
            return counts
        controlled = alpaca.length_controlled(self.annotations)
        if isinstance(controlled, str):
            print(f"no length-controlled win rate: {controlled}")
        rate, error = (None, None) if isinstance(controlled, str) else controlled
        return {
            **counts,
            **_win_rate(won, [1.0] * len(won)),
            "length_controlled_win_rate": rate,
            "lc_standard_error": error,  # alpaca_eval's own, of predictions: no interval can be made of it
            "length": fmean(len(comparison.response) for comparison in self.comparisons),
        }

    def write(self, folder: Path) -> None:
        write_json(folder / "annotations.json", self.annotations)


class ArenaHard:
    """Arena-Hard v0.1: two games a comparison, whose verdicts a Bradley-Terry model turns into a win rate.

    Args:
        comparisons: The comparisons.
        names: Of the reference and of the model.
        judge: The judge's name, for the official files.
    """

    def __init__(self, comparisons: Sequence[Comparison], names: tuple[str, str], judge: str) -> None:
        self.comparisons, self.names, self.judge = comparisons, names, judge

    def jobs(self) -> Iterator[PendingRequest]:
        for comparison in self.comparisons:
            longer = max(comparison.response, comparison.reference, key=len)
            for swapped in (False, True):
                yield PendingRequest(
                    partial(arena_hard.play, comparison, swapped),
                    longer,
                )

    def judgements(self, answers: Sequence[Any]) -> list[Row]:
        rows = []
        for number, comparison in enumerate(self.comparisons):
            games: Sequence[arena_hard.Game] = answers[2 * number : 2 * number + 2]
            reasons = "; ".join(game.reason for game in games if game.reason)
            row = {
                "id": comparison.id,
                "question_id": comparison.name,
                "model": self.names[1],
                "judge": self.judge,
                "games": [{"judgment": game.judgement, "score": game.verdict} for game in games],
            }
            rows.append(row | ({"reason": reasons} if reasons else {}))
        return rows

    def summary(self, judgements: Sequence[Row]) -> Row:
        scored = [[game["score"] for game in row["games"]] for row in judgements]
        verdicts = [verdict for games in scored for verdict in games]
        outcomes = [outcome for games in scored if (outcome := arena_hard.outcome(games))]
        counts = {"n": len(outcomes), "verdicts": len(verdicts), "unreadable": verdicts.count(None)}
        if not outcomes:
            return counts
        return {
            **counts,
            **_win_rate([won for won, _ in outcomes], [won + lost for won, lost in outcomes]),
            "length_controlled_win_rate": None,
            "length": fmean(comparison.tokens for comparison in self.comparisons),
        }

    def write(self, folder: Path) -> None:
        pass


def _win_rate(won: Sequence[float], played: Sequence[float]) -> Row:
    """A win rate over prompts in %, with its interval. Of one reference and one model, Bradley and Terry's estimate is
    wins over games."""
    rate, low, high = win_rate(won, played)
    return {"win_rate": 100 * rate, "interval": [100 * low, 100 * high]}


def lost(judged: Mapping[str, Any]) -> str | None:
    """Say which part of the verdicts and rows is lost; None where nothing is, or where the file doesn't count it."""
    counts = [judged.get(key) for key in ("unreadable", "verdicts", "rows", "n")]
    whole = [count for count in counts if isinstance(count, int)]
    if len(whole) < len(counts) or not judged["unreadable"] or not judged["rows"]:
        return None
    unreadable, verdicts, rows, n = whole
    return (
        f"{unreadable} of {verdicts} verdicts can't be read, so {rows - n} of {rows} rows "
        f"({100 * (rows - n) / rows:.1f} %) are not scored: the win rate is that of the others"
    )


VERSION = 1  # of how a judge is asked


def judge(config: JudgeConfig) -> dict[str, Any]:
    """Runs the stage and returns what it writes to `judged.json`.

    Raises:
        Faults: The responses, the reference, the folder or the endpoint can't be used, the quote is declined, or no
            judgement can be read. Answers that the judge has given are kept in any case.
    """
    benchmark, comparisons, reference = load(config)
    check_output_dir(config.output_dir, run_fingerprint(config))
    found = estimate_for(config, benchmark)
    if found.asked:
        api_key(config.api_key_env)
    print_plan(f"ask {config.model} about {len(comparisons):,} responses", found.facts())
    confirm(config, found)
    with report_disk_errors(config.output_dir):
        folder = claim_output_dir(
            config.output_dir, run_fingerprint(config), config, rows=[vars(comparison) for comparison in comparisons]
        )
        answers, usage = asyncio.run(_answers(config, benchmark, found))
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
            "rows": len(comparisons),
            **summary,
            "unreadable_ids": list(unreadable),
            "answers": usage.all_runs(),
            "this_run": usage.this_run(len(comparisons), elapsed()),
            "seconds": elapsed(),
        }
        write_json(folder / "judged.json", judged)  # the last one: it says that the run is done
    return judged


def load(config: JudgeConfig) -> tuple[Benchmark, list[Comparison], str]:
    """The benchmark with its comparisons, the comparisons, and the reference's name.

    Raises:
        Faults: The responses or the reference can't be used, or the evaluator isn't installed.
    """
    if config.benchmark == "alpaca_eval":
        alpaca.require()
    comparisons, reference = load_comparisons(config)
    folder = Path(config.responses)
    names = reference, model_name(str(folder.parent if folder.name == "eval" else folder))
    if config.benchmark == "alpaca_eval":
        return AlpacaEval(comparisons, names), comparisons, reference
    return ArenaHard(comparisons, names, config.model), comparisons, reference


def estimate_for(config: JudgeConfig, benchmark: Benchmark) -> CostEstimate:
    """What the run would ask beyond what is kept."""
    with contextlib.closing(CachedResponses(cache_path(config.replies, config.output_dir))) as store:
        return asyncio.run(estimate_cost(benchmark.jobs(), config, VERSION, store))


async def _answers(config: JudgeConfig, benchmark: Benchmark, found: CostEstimate) -> tuple[list[Any], UsageTracker]:
    """What each of the benchmark's jobs gave, and what it cost."""
    from tqdm import tqdm

    model = partial(BatchClient if config.batch_api else OpenAIClient, config)
    async with open_client(config, VERSION, benchmark.jobs, found, model) as client:
        if isinstance(client.model, BatchClient):
            await client.model.run_batches(benchmark.jobs, client)
        tasks = [asyncio.ensure_future(job.send(client)) for job in benchmark.jobs()]
        try:
            with tqdm(total=len(tasks), unit="request", desc="Judging") as progress:
                for task in tasks:
                    task.add_done_callback(lambda _: progress.update())
                return await asyncio.gather(*tasks), client.usage
        finally:  # the exceptions of all are fetched, or asyncio would print tracebacks
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
