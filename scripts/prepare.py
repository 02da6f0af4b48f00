"""Raw data → SFT data, validation part and benchmarks.

python scripts/prepare.py recipes/smollm2-135m/math/prepare.yaml
"""

import sys

from bmc.config import PrepareConfig
from bmc.plan import describe_data, show
from bmc.planning.facts import data_facts
from bmc.recipe import parse
from bmc.runtime import stage


def main() -> None:
    (config,) = parse(sys.argv[1:], PrepareConfig, description=__doc__)
    if config.dry_run:
        mixture = config.dataset_mixture
        show(
            "prepare data",
            {
                "training data": describe_data(mixture.datasets),
                "benchmarks": describe_data(mixture.test_datasets) or "none",
                "validation": describe_data(config.validation_datasets)
                or f"{config.validation_fraction:.1%} of the training prompts",
                **data_facts(mixture.datasets, mixture.test_datasets),
                "output": config.output_dir,
            },
        )
        return
    from bmc.data.prepare import prepare

    stats = prepare(config)
    counts = ", ".join(f"{stats[name]:,} {name}" for name in ("train", "validation", "test"))
    print(f"prepared {counts} rows: {config.output_dir}")


if __name__ == "__main__":
    stage(main)
