"""Make a small language model with random weights and a tokenizer of its own.

python scripts/tiny_model.py recipes/lab/model.yaml
"""

from bmc.cli import script

if __name__ == "__main__":
    script("tiny_model")
