"""A judge's verdicts on an evaluation's responses: AlpacaEval 2's win rates, or Arena-Hard v0.1's.

python scripts/judge.py recipes/judge_arena_hard.yaml --responses outputs/dpo/eval --output_dir outputs/dpo/judged
"""

import sys
from pathlib import Path

from bmc.asking.address import where
from bmc.judge_config import JudgeConfig
from bmc.plan import show
from bmc.recipe import parse
from bmc.runtime import stage


def plan(config: JudgeConfig) -> None:
    """Prints what would be done and what it would cost; needs no key."""
    facts = {
        "benchmark": config.benchmark,
        "responses": config.responses,
        "reference": config.reference,
        "judge": f"{config.model} at {where(config.base_url)}, key from {config.api_key_env}",
        "output": config.output_dir,
    }
    if Path(config.responses).is_dir():
        from bmc.judging.pipeline import load, quote_for

        facts |= quote_for(config, load(config)[0]).facts()
    else:
        facts |= {"quote": "none before the responses are there"}
    show("judge responses", facts)


def main() -> None:
    (config,) = parse(sys.argv[1:], JudgeConfig, description=__doc__)
    if config.dry_run:
        plan(config)
        return
    from bmc.judging.benchmarks import lost
    from bmc.judging.pipeline import judge

    judged = judge(config)
    low, high = judged["interval"]
    print(
        f"{config.benchmark}: win rate {judged['win_rate']:.1f} % against {judged['reference']} "
        f"(n = {judged['n']}; 95 % interval {low:.1f} to {high:.1f})"
    )
    if judged["length_controlled_win_rate"] is not None:
        print(f"  length-controlled: {judged['length_controlled_win_rate']:.1f} %")
    if judged["unreadable"]:
        named = ", ".join(judged["unreadable_ids"][:5]) + (", …" if len(judged["unreadable_ids"]) > 5 else "")
        print(f"  {lost(judged)} ({named})")


if __name__ == "__main__":
    stage(main)
