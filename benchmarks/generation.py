"""Greedy responses to ECQA's test questions, against plain `generate` in batches of 16 in the order of the data.

    make bench-generation ECQA=data/ecqa_test.jsonl     128 questions a round, on the CPU (10 minutes on 2 cores)
    python benchmarks/generation.py data/ecqa_test.jsonl --rounds 5 --rows 64
    python benchmarks/generation.py --device cuda --dtype bfloat16

The peers take turns on the same questions, others in each round; a figure is the median of the rounds' ratios, with the
smallest and the largest in brackets. Without a file the questions come from the Hub (tasksource/ecqa).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from bmc.config import DatasetConfig, EvaluateConfig
from bmc.data.loading import load_mixture
from bmc.data.tokenization import encode_prompt
from bmc.generation.backends import Response, load_backend, response_of
from bmc.generation.generate import generate

PLAIN = 16  # rows of the peer's batches


def plain(model: Any, tokenizer: Any, prompts: list[list[int]], new: int) -> list[Response]:
    """The peer: `generate` on batches in the order of the prompts, padded on the left."""
    tokenizer.padding_side = "left"
    responses = []
    for start in range(0, len(prompts), PLAIN):
        batch = tokenizer.pad({"input_ids": prompts[start : start + PLAIN]}, return_tensors="pt").to(model.device)
        width = batch["input_ids"].shape[1]
        eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
        output = model.generate(**batch, max_new_tokens=new, do_sample=False, eos_token_id=eos, pad_token_id=pad)
        responses += [response_of(ids, [eos], tokenizer) for ids in output[:, width:].tolist()]
    return responses


def timed(run: Callable[[], list[Response]]) -> tuple[float, float, list[Response]]:
    """Seconds, seconds of processor time, and the responses."""
    start, cpu = time.perf_counter(), time.process_time()
    responses = run()  # lists of Python's numbers: a GPU has finished
    return time.perf_counter() - start, time.process_time() - cpu, responses


def spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="JSONL of ECQA's test questions: its own columns, or problem, answer")
    parser.add_argument("--model", default="models/smollm2-135m", help="folder or Hub id (models/smollm2-135m)")
    parser.add_argument("--rows", type=int, default=128, help="questions a round (128)")
    parser.add_argument("--rounds", type=int, default=3, help="(3)")
    parser.add_argument("--new", type=int, default=80, help="tokens that a response may have (80)")
    parser.add_argument("--batch_size", type=int, default=64, help="ours (64)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    args = parser.parse_args()
    if args.device == "cpu":
        torch.cuda.is_available = lambda: False  # which is how `load_model` decides
    config = EvaluateConfig(
        model_name_or_path=args.model, dtype=args.dtype, max_new_tokens=args.new, batch_size=args.batch_size,
        output_dir="",
    )  # fmt: skip
    data = DatasetConfig(id=args.data, source="ecqa", split="test" if args.data is None else "train")
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    prompts = [encode_prompt(tokenizer, row) for row in load_mixture([data], 0)]
    measure(config, tokenizer, prompts, args.rounds, args.rows)


def measure(config: EvaluateConfig, tokenizer: Any, prompts: list[list[int]], rounds: int, rows: int) -> None:
    """Prints the table."""
    from bmc.models import load_model

    model, complete = load_model(config), load_backend(config, config, tokenizer)
    wall, cpu, rates, equal, lengths = [], [], [], 0, []
    for number in range(rounds):
        part = prompts[number * rows : (number + 1) * rows]
        with tempfile.TemporaryDirectory() as folder:
            runs: dict[str, Callable[[], list[Response]]] = {
                "plain": lambda part=part: plain(model, tokenizer, part, config.max_new_tokens),
                "ours": lambda part=part, folder=folder: generate(
                    part, [config] * len(part), lambda: complete, Path(folder)
                ),
            }
            order = sorted(runs, reverse=number % 2 == 0)  # either is first in turn
            found = {name: timed(runs[name]) for name in order}
        wall.append(found["plain"][0] / found["ours"][0])
        cpu.append(found["plain"][1] / found["ours"][1])
        rates.append((len(part) / found["plain"][0], len(part) / found["ours"][0]))
        equal += sum(a == b for a, b in zip(found["plain"][2], found["ours"][2], strict=True))
        lengths += [response["tokens"] for response in found["plain"][2]]
    each = " and ".join(f"{statistics.median(values):.2f}" for values in zip(*rates, strict=True))
    print("| figure | bar | measured | |\n| --- | --- | --- | --- |")
    what = f"ECQA, greedy, {config.dtype}"
    print(f"| {what}: rows a second over batches of {PLAIN} | ≥ 1.5 | {spread(wall)} | {each} |")
    threads = f"{torch.get_num_threads()} threads"
    print(f"| {what}: rows a second of processor time over batches of {PLAIN} | | {spread(cpu)} | {threads} |")
    mean = f"{statistics.mean(lengths):.0f} tokens each on average, {config.max_new_tokens} at the most"
    print(f"| responses equal to the peer's | | {equal} of {len(lengths)} | {mean} |")


if __name__ == "__main__":
    main()
