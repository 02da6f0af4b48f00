"""The SFT model's own outputs as losing responses y_l, the ground truth as winning ones y_w (§4).

python scripts/sample.py recipes/smollm2-135m/math/sample.yaml
"""

from bmc.cli import script

if __name__ == "__main__":
    script("sample")
