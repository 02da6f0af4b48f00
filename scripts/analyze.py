"""The paper's figures from the runs of a setting, and the reward of every token of held-out pairs.

python scripts/analyze.py recipes/smollm2-135m/math/analyze.yaml
"""

from bmc.cli import script

if __name__ == "__main__":
    script("analyze")
