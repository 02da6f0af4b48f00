"""Edit y_l where it is wrong, with y_w as reference: (x, y_w, y_l) → (x, ỹ_w, y_l) (§3.1); or another `mode`.

OPENAI_API_KEY=… python scripts/bridge.py recipes/llama2-7b/qa/bridge.yaml
"""

from bmc.cli import script

if __name__ == "__main__":
    script("bridge")
