"""Turn raw data into SFT data, a validation part and benchmarks.

python scripts/prepare.py recipes/smollm2-135m/math/prepare.yaml
"""

from bmc.cli import script

if __name__ == "__main__":
    script("prepare")
