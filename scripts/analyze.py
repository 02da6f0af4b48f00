"""The paper's figures from the runs of a setting, and the reward of every token of held-out pairs.

python scripts/analyze.py recipes/smollm2-135m/math/analyze.yaml
"""

import sys

from bmc.config import AnalyzeConfig
from bmc.plan import describe_data, show
from bmc.planning.facts import analysis_facts
from bmc.recipe import parse
from bmc.runtime import stage


def main() -> None:
    (config,) = parse(sys.argv[1:], AnalyzeConfig, description=__doc__)
    if config.dry_run:
        named = config.dataset_mixture
        data = {"held-out pairs": describe_data(named.datasets) if named else None}
        show("analyze", data | analysis_facts(config))
        return
    from bmc.analysis.analyze import analyze

    summary = analyze(config)
    for gap in summary["missing"]:
        print(f"{gap['name']}: {gap['why']}; {gap['command']}")
    pairs = f"{summary['pairs']['n']:,} held-out pairs by {len(summary['runs'])} runs, " if summary["pairs"] else ""
    print(f"{pairs}{len(summary['figures'])} figures in {summary['seconds']:.0f} s: {config.output_dir}")


if __name__ == "__main__":
    stage(main)
