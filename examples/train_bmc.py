"""Train DPO-BMC on bridged pairs: what a user of `trl.DPOTrainer` changes is two names.

python examples/train_bmc.py outputs/mine/bridge/train.jsonl Qwen/Qwen2.5-0.5B-Instruct outputs/mine/dpo_bmc
"""

import sys

from datasets import load_dataset

from bmc import BMCConfig, BMCTrainer  # instead of: from trl import DPOConfig, DPOTrainer

pairs, model, output_dir = sys.argv[1:4]
trainer = BMCTrainer(
    model=model,
    args=BMCConfig(output_dir=output_dir, token_weighting="bmc", bmc_delta=3.0, beta=0.1, bf16=False, report_to="none"),
    train_dataset=load_dataset("json", data_files=pairs, split="train"),
)
trainer.train()
trainer.save_model()
