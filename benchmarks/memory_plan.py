"""The memory that a dry run plans for a training process, against the measured peak of one, on a CPU.

    python benchmarks/memory_plan.py
    python benchmarks/memory_plan.py --only 30m --checkpointing off --lora

Each figure is a process of its own: BMCTrainer on a random Llama in float32, two steps of two micro-batches, with the
reference's log-probs computed beforehand. What libraries take is not the model's: a tiny model is trained first, and
the peak counts from there (VmHWM, set back through /proc/self/clear_refs). Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SIZES = {  # hidden, intermediate, layers, heads, key-value heads, vocabulary
    "tiny": (64, 128, 2, 4, 2, 1_000),
    "30m": (448, 1_216, 12, 7, 7, 8_192),
    "135m": (576, 1_536, 30, 9, 3, 49_152),  # SmolLM2's
}
PAIRS, LENGTH, RANK = 4, 192, 16


def planned(size: str, checkpointing: bool, lora: bool) -> int:
    """Bytes, by `bmc.planning.estimates`, for batches of `PAIRS` pairs without a common prefix."""
    from bmc.planning.estimates import Adapter, StepShape, count_parameters, training_memory
    from bmc.planning.hardware import LaunchConfig

    return training_memory(
        count_parameters(configuration(size)),
        LaunchConfig(),
        StepShape(
            2 * PAIRS * LENGTH,
            width=4,
            weight_width=4,
            checkpointing=checkpointing,
            on_gpu=False,
            adapter=Adapter(RANK, "all-linear", dropout=True) if lora else None,
        ),
    ).total


def configuration(size: str) -> Any:
    from transformers import LlamaConfig

    hidden, intermediate, layers, heads, key_value_heads, vocabulary = SIZES[size]
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=key_value_heads, tie_word_embeddings=True,
    )  # fmt: skip


def measured(size: str, checkpointing: bool, lora: bool) -> int:
    """Bytes, in a process of its own."""
    command = [sys.executable, __file__, "--measure", size, str(int(checkpointing)), str(int(lora))]
    # blocks above 64 KiB go back to the system when they are freed, so that the peak is what is in use
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    if ran.returncode:
        raise SystemExit(ran.stderr)
    return json.loads(ran.stdout.splitlines()[-1])


def measure(size: str, checkpointing: bool, lora: bool) -> int:
    """Bytes above what a process has that has trained a tiny model."""
    train("tiny", checkpointing, lora)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
    before = status("VmRSS")
    train(size, checkpointing, lora)
    return status("VmHWM") - before


def status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


def train(size: str, checkpointing: bool, lora: bool) -> None:
    """Two steps of two micro-batches."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import LlamaForCausalLM

    import bmc

    config = configuration(size)
    vocabulary = config.vocab_size
    with tempfile.TemporaryDirectory() as folder:
        trainer = bmc.BMCTrainer(
            LlamaForCausalLM(config),
            args=bmc.BMCConfig(
                output_dir=folder, max_steps=2, per_device_train_batch_size=PAIRS, gradient_accumulation_steps=2,
                token_weighting="bmc", use_cpu=True, bf16=False, report_to="none", save_strategy="no",
                gradient_checkpointing=checkpointing, precompute_ref_log_probs=True, disable_tqdm=True,
                reference_cache=folder, max_length=LENGTH,
            ),
            train_dataset=Dataset.from_list(pairs(vocabulary)),
            processing_class=tokenizer(vocabulary),
            peft_config=LoraConfig(r=RANK, target_modules="all-linear", lora_dropout=0.05) if lora else None,
        )  # fmt: skip
        trainer.train()


def pairs(vocabulary: int) -> list[dict[str, str]]:
    """Pairs whose sequences are cut at `LENGTH` tokens and share nothing."""
    rng = random.Random(0)

    def text() -> str:
        return "".join(f" w{rng.randrange(3, vocabulary)}" for _ in range(LENGTH))

    return [{"prompt": f"w{3 + row}", "chosen": text(), "rejected": text()} for row in range(4 * PAIRS)]


def tokenizer(vocabulary: int) -> Any:
    """A word a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate(["<pad>", "<s>", "</s>"])}
    words |= {f"w{index}": index for index in range(3, vocabulary)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["30m", "135m"], help="one size")
    parser.add_argument("--checkpointing", choices=["on", "off"], help="one of the two")
    parser.add_argument("--lora", action="store_true", help=f"train an adapter of rank {RANK} on all linear modules")
    parser.add_argument("--json", action="store_true", help="(planned, measured) as JSON")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(measure(options.measure[0], options.measure[1] == "1", options.measure[2] == "1"))
        return
    figures = {
        (size, mode): tuple(count(size, mode == "on", options.lora) for count in (planned, measured))
        for size in ([options.only] if options.only else ["30m", "135m"])
        for mode in ([options.checkpointing] if options.checkpointing else ["off", "on"])
    }
    if options.json:
        print(json.dumps([list(figure) for figure in figures.values()]))
        return
    from bmc.planning.estimates import count_parameters

    print("| model | checkpointing | planned | measured | planned over measured |\n| --- | --- | ---: | ---: | ---: |")
    for (size, mode), (plan, peak) in figures.items():
        name = f"{count_parameters(configuration(size)).parameters / 1e6:.0f}M parameters"
        print(f"| {name} | {mode} | {plan / 2**20:.0f} MiB | {peak / 2**20:.0f} MiB | {plan / peak:.3f} |")


if __name__ == "__main__":
    main()
