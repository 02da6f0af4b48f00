"""lm-evaluation-harness on a trained model, folded into `lm_eval.json` beside the evaluation's `metrics.json`.

python scripts/harness.py --model_name_or_path outputs/llama2-7b/qa/dpo --output_dir outputs/llama2-7b/qa/dpo/eval
"""

import shlex
import sys

from bmc.config import HarnessConfig
from bmc.recipe import parse
from bmc.runtime import stage


def main() -> None:
    (config,) = parse(sys.argv[1:], HarnessConfig, description=__doc__, usage="--key value …")
    from bmc.evaluation.harness import command, describe, measure

    if config.dry_run:
        print(shlex.join(command(config)))
        return
    print(describe(measure(config)))


if __name__ == "__main__":
    stage(main)
