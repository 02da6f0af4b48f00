"""Draw the paper's figures from the runs of a model/task, and score every token of validation pairs.

python scripts/analyze.py recipes/smollm2-135m/math/analyze.yaml
"""

from bmc.cli import script

if __name__ == "__main__":
    script("analyze")
