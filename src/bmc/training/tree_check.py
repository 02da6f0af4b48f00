"""Check prefix sharing on the model itself: the log-probs of a small tree against those of its sequences alone.

What a model's code does with masks, windows and positions can't be read off its configuration. The sequences are as
long as the longest that are trained on, so that every window is reached that training will reach.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow.compute as pc
import torch
from torch import Tensor

from .collator import Batch, DataCollatorForBMC
from .prefix_sharing import index_trees, pack_sequences, tree_attention
from .token_weights import RESPONSES

ROUNDING = 1e-3  # nats a token; float32 leaves about 1e-5
HALF_ROUNDING = 1e-2  # of 16 bits, where two plain layouts may agree to the last bit and another kernel may not
NOISE = 3  # in lower precision, how many times the difference between two plain layouts may be exceeded
WRONG = 0.3  # nats a token that no precision excuses
KERNEL_ERROR = 0.02  # of a kernel's outputs and gradients, relative; bfloat16 leaves about 0.004


class Outcome(NamedTuple):
    """How far log-probs lie apart, as a mean over tokens."""

    error: float  # between the tree and its sequences alone; infinite where the model can't run a tree
    noise: float  # between the sequences padded to a batch and alone: rounding
    reason: str = ""  # the model's own words where it can't run a tree
    rounding: float = ROUNDING

    @property
    def passed(self) -> bool:
        return self.error <= max(self.rounding, min(WRONG, NOISE * self.noise))


def sequences(length: int, vocabulary: int) -> list[tuple[list[int], list[int]]]:
    """Make prompts and responses of random tokens with all that a tree has: a shared beginning that ends within a
    prompt, one that ends within a response, and a sequence that shares nothing.
    """
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(vocabulary, (count,), generator=generator).tolist()

    prompt, common = tokens(length // 4), tokens(length // 4)
    rest = length - len(prompt) - len(common)
    chosen, rejected = common + tokens(rest), common + tokens(max(2, rest - 3))
    return [
        (prompt, chosen),
        (prompt, rejected),
        (prompt[: length // 8] + tokens(2), tokens(4)),
        (tokens(2), tokens(4)),
    ]


def compare(
    pairs: list[tuple[list[int], list[int]]],
    collator: DataCollatorForBMC,
    plain: Callable[[Batch], Tensor],
    with_trees: Callable[[Batch], Tensor],
) -> Outcome:
    """Compare the log-probs of sequences alone, padded, and laid out as the collator does.

    `plain` and `with_trees` compute log π of the response tokens of a batch, (N, T), 0 at padding; what `with_trees`
    raises is the outcome.
    """
    padded = dataclasses.replace(collator, prefix_sharing=False, packing=False)
    alone = [plain(padded.lay_out([pair]))[0] for pair in pairs]

    def apart(logps: Tensor) -> float:
        differences = [(row[: len(own)] - own).abs() for row, own in zip(logps.float(), alone, strict=True)]
        return torch.cat(differences).mean().item()

    noise = apart(plain(padded.lay_out(pairs)))
    try:
        error = apart(with_trees(collator.lay_out(pairs)))
    except Exception as reason:  # a model's code raises whatever it does when it meets what it doesn't know
        return Outcome(float("inf"), noise, f"{type(reason).__name__}: {str(reason).strip().partition(chr(10))[0]}")
    return Outcome(error if error == error else float("inf"), noise)


def kernel_error(kernel: str, config: Any, dtype: torch.dtype, device: torch.device) -> float:
    """Compare a kernel's outputs and gradients on a small tree with plain PyTorch's in float32.

    Returns the largest of the relative errors (norm of the difference over the norm) of the output and the three
    gradients; infinite where it isn't a number or the kernel can't run.

    The log-probs of `compare` say nothing of the backward pass.
    """
    heads = config.num_attention_heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    sequence = sequences(400, 1000)  # several of a kernel's blocks
    row = pack_sequences([prompt + response for prompt, response in sequence], share=True)
    window = min(getattr(config, "sliding_window", None) or len(row.ids), 100)
    generator = torch.Generator().manual_seed(0)
    states = [
        torch.randn(1, len(row.ids), count, size, generator=generator).to(device, dtype)
        for count in (heads, key_heads, key_heads, heads)
    ]
    index: Any = {
        key: value.to(device) if isinstance(value, Tensor) else value for key, value in index_trees([row.tree]).items()
    }

    def run(name: str, dtype: torch.dtype, window: int | None) -> list[Tensor]:
        *inputs, slope = (state.to(dtype).detach().requires_grad_() for state in states)
        query, key, value = (state.transpose(1, 2) for state in inputs)
        output, _ = tree_attention(
            None, query, key, value, None, trees=(row.tree,), tree_index=index, tree_kernel=name, sliding_window=window
        )
        return [output.detach(), *torch.autograd.grad(output, inputs, slope)]

    worst = 0.0
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        for seen in (None, window):
            try:
                found = run(kernel, dtype, seen)
            except Exception:  # whatever a kernel raises on a card or a shape that it doesn't know
                return float("inf")
            for own, plain in zip(found, run("plain", torch.float32, seen), strict=True):
                error = ((own.float() - plain).norm() / plain.norm()).item()
                worst = max(worst, error if error == error else float("inf"))
    return worst


def longest(dataset: Any) -> int:
    """Count the tokens of the longest sequence of tokenised pairs; fast, for it reads no tokens."""
    prompt, *responses = (pc.list_value_length(dataset.data[column]) for column in ("prompt_ids", *RESPONSES))
    return pc.max(pc.add(prompt, pc.max_element_wise(*responses))).as_py() or 0
