"""Have a judge compare an evaluation's responses: AlpacaEval 2's win rates, or Arena-Hard v0.1's.

python scripts/judge.py recipes/judge_arena_hard.yaml --responses outputs/dpo/eval --output_dir outputs/dpo/judge
"""

from bmc.cli import script

if __name__ == "__main__":
    script("judge")
