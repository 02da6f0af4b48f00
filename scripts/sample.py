"""Sample the SFT model's responses as y_l; the ground truth is y_w (§4).

python scripts/sample.py recipes/smollm2-135m/math/sample.yaml
"""

from bmc.cli import script

if __name__ == "__main__":
    script("sample")
