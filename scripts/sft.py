"""Fine-tune on responses, with the loss on the response only (TRL's SFTTrainer).

accelerate launch --config_file recipes/accelerate_configs/zero3.yaml scripts/sft.py recipes/llama2-7b/qa/sft.yaml
"""

from bmc.cli import script

if __name__ == "__main__":
    script("sft")
