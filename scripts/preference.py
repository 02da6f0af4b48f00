"""Train on preference pairs: DPO-BMC, DPO and the other methods (BMCTrainer).

    accelerate launch --config_file recipes/accelerate_configs/zero3.yaml \\
        scripts/preference.py recipes/llama2-7b/qa/dpo_bmc.yaml
    python scripts/preference.py recipes/llama2-7b/qa/dpo.yaml --sweep --launcher "accelerate launch …"
    python scripts/preference.py recipes/llama2-7b/qa/dpo.yaml --seeds 1,2,3 --launcher "accelerate launch …"
"""

from bmc.cli import script

if __name__ == "__main__":
    script("train")
