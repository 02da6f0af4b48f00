"""Compute token weights λ for `token_weighting: external` from two models' log-probs: TIS-DPO, SePO, TGDPO.

python scripts/score_tokens.py recipes/smollm2-135m/math/score_tis.yaml
"""

from bmc.cli import script

if __name__ == "__main__":
    script("score_tokens")
