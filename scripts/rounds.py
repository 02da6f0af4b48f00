"""Sample, bridge, train and evaluate several times, each round from the model of the one before.

python scripts/rounds.py recipes/smollm2-135m/math/rounds.yaml
"""

from bmc.cli import script

if __name__ == "__main__":
    script("rounds")
