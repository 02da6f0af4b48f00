"""Memory of a training process: weights, gradients and optimizer states, activations, the head, the reference.

Bytes throughout. N is the number of tokens in a micro-batch, b the bytes of a number in the forward pass.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from .architecture import Architecture
from .hardware import Launch

GIB = 2**30
TILE = 128  # tokens whose logits exist at once where `bmc.training.lm_head` makes them, off a GPU
TRL_TILE = (4096, 32_768)  # tokens and words of the vocabulary, in TRL's kernel; off a GPU all tokens, some six times
GPU_OVERHEAD = 2 * GIB  # CUDA's context, NCCL's buffers, what the allocator can't use: assumed, not derived


@dataclass(frozen=True)
class Adapter:
    """LoRA, by the keys of `trl.ModelConfig`.

    Attributes:
        rank: `lora_r`.
        targets: `lora_target_modules`; PEFT's default for these models, or `all-linear`.
        saved: `lora_modules_to_save`: trained whole.
        bits: Of a frozen weight of a projection: 4 or 8 where it is quantised, else None.
    """

    rank: int
    targets: Sequence[str] | str | None = None
    saved: Sequence[str] = ()
    bits: int | None = None

    def trained(self, model: Architecture) -> int:
        """Parameters that are trained: r · (inputs + outputs) for each target, and whole modules."""
        linear = model.linear()
        targets = ("q_proj", "v_proj") if self.targets is None else self.targets
        targets = [targets] if isinstance(targets, str) else targets
        chosen = linear if "all-linear" in targets else [name for name in linear if name in targets]
        whole = sum(model.embedding for name in self.saved if name in ("lm_head", "embed_tokens"))
        return model.layers * sum(self.rank * sum(linear[name]) for name in chosen) + whole

    def frozen_bytes(self, model: Architecture, width: int) -> int:
        """The base model. NF4 in blocks of 64 adds 1/16 byte a weight for their scales; int8 a scale a row."""
        a_weight = {4: 0.5 + 1 / 16, 8: 1.0, None: width}[self.bits]
        return int(model.linear_parameters * a_weight) + (model.parameters - model.linear_parameters) * width


@dataclass(frozen=True)
class Memory:
    """The peak of one process.

    Attributes:
        states: Weights, gradients and optimizer states.
        activations: Kept from the forward pass for the backward pass, and one layer's working set.
        head: Logits of a tile and the gradient of the head.
        reference: The reference model's weights.
        overhead: What a GPU holds besides.
        host: Of a machine's own memory, for what is offloaded and while the model is loaded.
    """

    states: int
    activations: int
    head: int
    reference: int
    overhead: int
    host: int = 0

    @property
    def total(self) -> int:
        return self.states + self.activations + self.head + self.reference + self.overhead


def activations(model: Architecture, tokens: int, width: int, checkpointing: bool, packed: bool = True) -> int:
    """What a forward pass keeps, and the working set of the layer that runs backwards.

    Autograd keeps, for each token of a layer in numbers of b bytes (I: width of the MLP, A: of all query heads):

    - of each of the two norms its input in float32 (in bfloat16 that is a copy, in float32 the residual stream itself),
      the normalised state, and the output, which the projections read: H · (4 + 2b);
    - of attention queries, keys and values as SDPA reads them (repeated for each query head), its output, and the
      output in the order that o_proj reads: 5A · b. No scores: SDPA's kernels compute them again;
    - of the MLP gate, silu(gate), up and their product: 4I · b.

    The layer that runs backwards holds the gradients of the MLP's product, of silu(gate) and of up, and of its input
    and output: (3I + 2H) · b.

    With gradient checkpointing each layer keeps its input alone, H · b, and one layer at a time all of the above. The
    hidden states of the response tokens, which the head reads, are at most one more layer's input.

    Sharing prefixes makes N smaller and changes nothing else; N is thus that of two sequences a pair of `max_length`
    tokens for a bound, or what a batch really has.

    Args:
        model: The policy.
        tokens: N.
        width: b.
        checkpointing: Whether layers are computed again in the backward pass.
        packed: Whether attention goes by trees, which repeats keys and values; transformers' own SDPA may not.
    """
    a, h, i = model.attention_width, model.hidden, model.intermediate
    attention = 5 * a if packed else 3 * a + 2 * model.key_width
    layer = 2 * h * (4 + 2 * width) + width * (attention + 4 * i)
    working = width * (3 * i + 2 * h)
    kept = model.layers * h * width + layer if checkpointing else model.layers * layer
    return tokens * (kept + working + h * width)


def head(model: Architecture, tokens: int, on_gpu: bool, lean: bool) -> int:
    """Logits of a tile in float32, twice (they and their gradient), and the head's gradient in float32.

    Only positions that predict a response token are projected, a tile at a time, so no N × V is ever there.

    Args:
        model: The policy.
        tokens: N.
        on_gpu: Whether TRL's kernel runs on a GPU.
        lean: Whether off a GPU our kernel stands in for it, as in preference training.
    """
    words = min(TRL_TILE[1], model.vocabulary)
    if on_gpu:
        tile = 2 * min(TRL_TILE[0], tokens) * words
    else:
        tile = 2 * min(TILE, tokens) * model.vocabulary if lean else 6 * tokens * words
    return 4 * (tile + model.embedding)


def states(
    model: Architecture, launch: Launch, weight_width: int, width: int, adapter: Adapter | None = None, moments: int = 8
) -> tuple[int, int]:
    """Weights, gradients and optimizer states: (bytes of a process, bytes of a machine's own memory).

    What is trained is float32, or has float32 copies (`bmc.precision`). Under DeepSpeed its own estimator says what
    that takes, with 8 bytes of optimizer states a parameter. Otherwise, with n processes, P trained parameters and m
    bytes of optimizer states a parameter:

    - FSDP2: (4 + 4 + m) · P/n, and two layers gathered at b bytes;
    - DDP: (4 + 4 + m) · P, and 4P of buckets; a single process has no buckets.

    Frozen weights are sharded by ZeRO-3 and FSDP2, unless they are quantised, and nothing else is kept of them.

    Args:
        model: The policy.
        launch: The launcher.
        weight_width: Bytes of a frozen weight.
        width: b of the forward pass.
        adapter: LoRA; None trains everything.
        moments: m.
    """
    trained = adapter.trained(model) if adapter else model.parameters
    frozen, host = 0, 0
    if adapter:
        frozen = adapter.frozen_bytes(model, weight_width)
        frozen = frozen if adapter.bits else frozen // launch.shards
    if launch.engine == "deepspeed":
        host, device = _deepspeed(trained, model.embedding, launch)
        saved = 0 if launch.offload_optimizer else (8 - moments) * trained // launch.processes
        return frozen + device - saved, host
    if launch.engine == "fsdp":
        return frozen + (8 + moments) * trained // launch.processes + 2 * model.layer * width, 0
    return frozen + (8 + moments + (4 if launch.engine == "ddp" else 0)) * trained, 0


def _deepspeed(parameters: int, largest: int, launch: Launch) -> tuple[int, int]:
    """DeepSpeed's estimate of model states: (bytes of a machine's own memory, bytes of a GPU)."""
    logging.getLogger("DeepSpeed").disabled = True  # it would tell that a laptop has no accelerator
    with contextlib.redirect_stdout(io.StringIO()):
        from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
        from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs
    each = -(-launch.processes // launch.machines)
    if launch.zero_stage < 3:
        return estimate_zero2_model_states_mem_needs(parameters, each, launch.machines, launch.offload_optimizer)
    offload = launch.offload_optimizer
    host, device, _ = estimate_zero3_model_states_mem_needs(
        parameters, largest, each, launch.machines, offload, offload and launch.offload_params
    )
    return host, device


def training(
    model: Architecture,
    launch: Launch,
    *,
    tokens: int,
    width: int,
    weight_width: int,
    checkpointing: bool,
    packed: bool,
    reference: bool,
    on_gpu: bool,
    lean: bool = True,
    adapter: Adapter | None = None,
    moments: int = 8,
) -> Memory:
    """The peak of one process within a step, when earlier micro-batches' gradients and all activations are there.

    Args:
        model: The policy.
        launch: The launcher.
        tokens: N, of a micro-batch.
        width: b of the forward pass.
        weight_width: Bytes of a weight as it is loaded.
        checkpointing: Whether layers are computed again in the backward pass.
        packed: Whether attention goes by trees.
        reference: Whether a reference model is in memory besides.
        on_gpu: Whether it is a GPU's memory.
        lean: As in `head`.
        adapter: LoRA, if there is one.
        moments: Bytes of optimizer states for each trained parameter.
    """
    own, host = states(model, launch, weight_width, width, adapter, moments)
    casts = model.parameters * width if width < weight_width and launch.engine in ("none", "ddp") else 0
    return Memory(
        own + casts,
        activations(model, tokens, width, checkpointing, packed),
        head(model, tokens, on_gpu, lean),
        weight_width * model.parameters // launch.shards if reference else 0,
        GPU_OVERHEAD if on_gpu else 0,
        host,
    )


def generating(model: Architecture, sequences: int, tokens: int, width: int, on_gpu: bool) -> Memory:
    """Weights and the cache of keys and values: 2 · L · K · b a token, K being the width of all key heads.

    Args:
        model: The model.
        sequences: Of a batch.
        tokens: The longest of them, prompt and response.
        width: b.
        on_gpu: Whether it is a GPU's memory.
    """
    cache = 2 * model.layers * model.key_width * width * sequences * tokens
    logits = 2 * 4 * sequences * model.vocabulary
    return Memory(model.parameters * width, cache, logits, 0, GPU_OVERHEAD if on_gpu else 0)
