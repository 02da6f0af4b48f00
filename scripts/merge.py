"""A whole model of an adapter (LoRA) and its base: what vLLM and a training without use_peft want.

python scripts/merge.py --model_name_or_path outputs/mine/dpo_bmc --output_dir outputs/mine/dpo_bmc-merged
"""

from bmc.cli import script

if __name__ == "__main__":
    script("merge")
