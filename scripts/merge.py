"""Merge an adapter (LoRA) into its base model, as vLLM and full fine-tuning need it.

python scripts/merge.py --model_name_or_path outputs/mine/dpo_bmc --output_dir outputs/mine/dpo_bmc-merged
"""

from bmc.cli import script

if __name__ == "__main__":
    script("merge")
