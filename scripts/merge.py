"""A whole model of an adapter (LoRA) and its base: what vLLM and a training without use_peft want.

python scripts/merge.py --model_name_or_path outputs/mine/dpo_bmc --output_dir outputs/mine/dpo_bmc-merged
"""

import sys

from bmc.config import MergeConfig
from bmc.recipe import parse
from bmc.runtime import stage


def main() -> None:
    (config,) = parse(sys.argv[1:], MergeConfig, description=__doc__)
    from bmc.adapters import merge

    folder = merge(config)
    print(f"{'would merge' if config.dry_run else 'merged'} {config.model_name_or_path} into {folder}")


if __name__ == "__main__":
    stage(main)
