"""Rounds: sample, bridge, train and evaluate, again from the trained model.

python scripts/rounds.py recipes/smollm2-135m/math/rounds.yaml
"""

from bmc.cli import script

if __name__ == "__main__":
    script("rounds")
