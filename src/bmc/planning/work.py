"""Steps, floating-point operations, time, dollars and disk."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..config import Price
from .architecture import Architecture
from .hardware import Gpu

EFFICIENCY = 0.4  # share of a card's peak that training reaches (MFU); assumed
CPU_EFFICIENCY = 0.6  # share of a large matrix product's speed that training reaches on a CPU; assumed
VLLM_SHARE = 0.9  # of a card's memory, which vLLM takes by default
INSTRUCTION = {"closed": 600, "instruction": 350}  # tokens of an editor's prompt besides the pair, about


@dataclass(frozen=True)
class Steps:
    """What a run goes through.

    Attributes:
        batch: Rows a step, on all processes.
        steps: Optimizer steps.
        rows: Rows that it sees, repeats counted.
    """

    batch: int
    steps: int
    rows: int


def steps(rows: int, micro_batch: int, accumulation: int, processes: int, epochs: float, max_steps: int) -> Steps:
    """As transformers' Trainer counts them: the last batch of an epoch may be smaller, and makes a step."""
    batch = micro_batch * accumulation * processes
    if max_steps > 0:
        return Steps(batch, max_steps, max_steps * batch)
    return Steps(batch, math.ceil(epochs * math.ceil(rows / batch)), math.ceil(epochs * rows))


def training_flops(
    model: Architecture, tokens: float, checkpointing: bool, reference: float = 0.0, frozen: bool = False
) -> float:
    """6ND for the policy's forward (2ND) and backward pass (4ND), 2ND more where layers run again in it, and 2ND for
    each token of the reference.

    N are the parameters that tokens are multiplied with. Attention's own products are left out: 12 · L · H · S/2 a
    token of a sequence of S, 2 % of 6N at 512 tokens of a 7B model and 9 % at 2,048.

    Args:
        model: The policy.
        tokens: D, of the whole run.
        checkpointing: Whether layers run again in the backward pass.
        reference: Tokens that the reference sees.
        frozen: Whether most weights are frozen (LoRA), whose gradients, 2ND, nobody computes.
    """
    policy = 6 + (2 if checkpointing else 0) - (2 if frozen else 0)
    return (policy * tokens + 2 * reference) * model.multiplied


def generating_seconds(model: Architecture, rows: int, prompt: float, new: float, batch: int, gpu: Gpu) -> float:
    """One card: prompts at 2ND, then a pass over the weights (2 bytes each) for each token of a batch, which the
    memory's bandwidth bounds; both at `EFFICIENCY`."""
    prompts = 2 * model.multiplied * rows * prompt / (EFFICIENCY * gpu.teraflops * 1e12)
    passes = math.ceil(rows / batch) * new
    bytes_read, products = (
        2 * model.parameters / (gpu.bandwidth * 1e9),
        2 * model.multiplied * batch / (gpu.teraflops * 1e12),
    )
    return prompts + passes * max(bytes_read, products) / EFFICIENCY


def bridging_dollars(price: Price, rows: int, prompt: float, response: float, template: str) -> float:
    """What an editor that is paid by the token would cost.

    It reads the template, the prompt and both responses, and writes one response.
    """
    read = INSTRUCTION[template] + prompt + 2 * response
    return rows * (read * price.input + response * price.output) / 1e6


def moment_bytes(optim: str) -> int:
    """Look up the bytes of optimizer states that a name of transformers' `optim` keeps for each trained parameter.

    Adam has two float32 numbers, in 8 bits one byte each; Lion one; Adafactor a row and a column of each matrix.
    """
    name = str(getattr(optim, "value", optim))
    if "adafactor" in name or name == "sgd":
        return 0
    short = "8bit" in name
    if "lion" in name or "rmsprop" in name:
        return 1 if short else 4
    return 2 if short else 8


def checkpoint_bytes(trained: int, saved: int, only_model: bool, copies: bool, moments: int) -> int:
    """Add up a checkpoint: the saved weights, the optimizer's states of what is trained, and float32 copies of it where
    the engine keeps them apart from the weights."""
    return saved + (0 if only_model else (moments + (4 if copies else 0)) * trained)


def duration(seconds: float) -> str:
    """`50 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
