"""Token weights λ of pairs, from the log-probs of two models (TIS-DPO, SePO, TGDPO), for `token_weighting: external`.

python scripts/score_tokens.py recipes/smollm2-135m/math/score_tis.yaml
"""

from bmc.cli import script

if __name__ == "__main__":
    script("score_tokens")
