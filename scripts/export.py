"""Export a model for Ollama: weights and a Modelfile.

python scripts/export.py --model_name_or_path outputs/mine/dpo_bmc-merged --to ollama
"""

from bmc.cli import script

if __name__ == "__main__":
    script("export")
