"""Run lm-evaluation-harness on a trained model; write `lm_eval.json` beside the evaluation's `metrics.json`.

python scripts/harness.py --model_name_or_path outputs/llama2-7b/qa/dpo --output_dir outputs/llama2-7b/qa/dpo/eval
"""

from bmc.cli import script

if __name__ == "__main__":
    script("lm_eval")
