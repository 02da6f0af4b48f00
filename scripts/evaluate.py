"""Answer benchmarks (greedily by default) and score the responses: n, accuracy and 95 % Wilson interval of each.

python scripts/evaluate.py recipes/smollm2-135m/math/eval.yaml --model_name_or_path outputs/smollm2-135m/math/dpo_bmc
"""

from bmc.cli import script

if __name__ == "__main__":
    script("evaluate")
