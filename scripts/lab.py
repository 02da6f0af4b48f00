"""Run a study of the laboratory: methods × seeds on a generated task, on a laptop.

python scripts/lab.py recipes/lab/core.yaml
"""

from bmc.cli import script

if __name__ == "__main__":
    script("lab")
