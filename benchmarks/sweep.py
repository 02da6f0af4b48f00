"""The trainings of a sweep of five points and three seeds, beside the same eight trainings by TRL.

    python benchmarks/sweep.py --model models/smollm2-135m --pairs 16

Each training is a process of its own, as `--sweep` starts them: DPO-BMC by `bmc train`, whose reference log-probs the
eight share, and DPO by `trl.DPOTrainer` with `precompute_ref_log_probs`, which computes them each time. Both save the
model. They take turns.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pairs import SHAPES, draw

RATES = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4)
POINTS = [*((rate, 0) for rate in RATES), *((1e-5, seed) for seed in (1, 2, 3))]


def values(options: argparse.Namespace, rate: float, seed: int, folder: str) -> dict[str, Any]:
    """The training arguments that both have."""
    return {
        "output_dir": folder, "learning_rate": rate, "seed": seed, "beta": 0.1, "use_cpu": True, "bf16": False,
        "per_device_train_batch_size": 4, "gradient_checkpointing": False, "max_length": 1024, "save_strategy": "no",
        "report_to": "none", "precompute_ref_log_probs": True,
    }  # fmt: skip


def train_by_trl(options: argparse.Namespace) -> None:
    import datasets
    import trl

    rows = datasets.Dataset.from_list([json.loads(line) for line in Path(options.data).read_text().splitlines()])
    args = trl.DPOConfig(**values(options, options.rate, options.seed, options.folder))
    trainer = trl.DPOTrainer(options.model, args=args, train_dataset=rows)
    trainer.train()
    trainer.save_model()


def command(name: str, options: argparse.Namespace, rate: float, seed: int, folder: str, data: str) -> list[str]:
    if name == "TRL":
        given = {"model": options.model, "rate": rate, "seed": seed, "folder": folder, "data": data}
        return [sys.executable, __file__, "--trl", *(f"--{key}={value}" for key, value in given.items())]
    recipe = values(options, rate, seed, folder) | {
        "stage": "train", "model_name_or_path": options.model, "dtype": "float32", "token_weighting": "bmc",
        "dataset_mixture": {"datasets": [{"id": data}]}, "reference_cache": f"{Path(data).parent}/reference",
    }  # fmt: skip
    path = Path(f"{folder}.yaml")
    path.write_text(json.dumps(recipe))  # JSON is YAML
    return [sys.executable, "-m", "bmc", "train", str(path)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/smollm2-135m")
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--trl", action="store_true", help=argparse.SUPPRESS)
    for name, kind in (("rate", float), ("seed", int), ("folder", str), ("data", str)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.trl:
        train_by_trl(options)
        return
    from transformers import AutoTokenizer

    took = {"ours": 0.0, "TRL": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        data, tokenizer = f"{folder}/pairs.jsonl", AutoTokenizer.from_pretrained(options.model)
        rows = itertools.islice(draw(SHAPES["qa"], tokenizer, seed=0), options.pairs)
        Path(data).write_text("".join(json.dumps(row) + "\n" for row in rows))
        for number, (rate, seed) in enumerate(POINTS):
            for name in took:
                start = time.perf_counter()
                run = command(name, options, rate, seed, f"{folder}/{name}-{number}", data)
                done = subprocess.run(run, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
                if done.returncode:
                    raise SystemExit(f"{name}: {done.stderr[-1500:]}")
                took[name] += (seconds := time.perf_counter() - start)
                print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)
    print("| figure | bar | measured | |\n| --- | --- | --- | --- |")
    note = f"{took['ours']:.0f} s and {took['TRL']:.0f} s for {len(POINTS)} trainings on {options.pairs} pairs"
    print(f"| five points and three seeds: time over TRL's | ≤ 0.45 | {took['ours'] / took['TRL']:.2f} | {note} |")


if __name__ == "__main__":
    main()
