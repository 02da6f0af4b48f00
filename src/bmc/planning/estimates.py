"""Size of a model, and the memory, operations, time and disk that a stage needs: formulas without side effects.

Bytes throughout. N is the number of tokens in a micro-batch, b the bytes of a number in the forward pass.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ..config import Price
from ..models import adapter_base, empty_model, read_config
from ..pipeline import producer
from .hardware import Gpu, LaunchConfig

GIB = 2**30
TILE = 128  # tokens whose logits exist at once in `bmc.training.lm_head`, off a GPU
TRL_TILE = (4096, 32_768)  # tokens and words of the vocabulary in TRL's kernel; off a GPU all tokens, some six times
GPU_OVERHEAD = 2 * GIB  # CUDA's context, NCCL's buffers, what the allocator can't use: assumed, not derived
EFFICIENCY = 0.4  # share of a GPU's peak that training reaches (MFU); assumed
LINK_EFFICIENCY = 0.7  # share of a link's rate that NCCL's collectives of large messages reach; assumed
CPU_EFFICIENCY = 0.6  # share of a large matrix product's speed that training reaches on a CPU; assumed
VLLM_SHARE = 0.9  # of a GPU's memory, which vLLM takes by default
INSTRUCTION = {"closed": 600, "instruction": 350}  # tokens of an editor's prompt besides the pair, about


@dataclass(frozen=True)
class ModelSize:
    """The size of a decoder-only language model."""

    parameters: int  # all of them, a tied head counted once
    hidden: int  # width H of the residual stream
    intermediate: int  # width I of the MLP; of all experts that a token goes through
    layers: int  # decoder layers L
    attention_width: int  # width A of all query heads together
    key_width: int  # width K of all key heads together, and of all value heads
    vocabulary: int  # rows V of the embedding
    positions: int = 4096  # the longest sequence
    tied: bool = False  # whether the head is the embedding
    idle: int = 0  # parameters of experts that a token doesn't go through
    config: str = field(default="", repr=False)  # the model's configuration as JSON

    @property
    def embedding(self) -> int:
        """Return V · H, the largest single module."""
        return self.vocabulary * self.hidden

    @property
    def layer(self) -> int:
        """Return the parameters of a decoder layer, on average."""
        return (self.parameters - (1 if self.tied else 2) * self.embedding) // self.layers

    @property
    def matmul(self) -> int:
        """Return N of the FLOP counts: the parameters that a token is multiplied with, all but the embedding."""
        return self.parameters - (0 if self.tied else self.embedding) - self.idle

    @property
    def matrices(self) -> tuple[tuple[str, int, int], ...]:
        """Return name, inputs and outputs of each linear module of the decoder layers."""
        return _matrices(self.config)


@cache
def _matrices(config: str) -> tuple[tuple[str, int, int], ...]:
    import torch
    from transformers.pytorch_utils import Conv1D

    model = empty_model(_config(config))
    found = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not model.get_output_embeddings():
            inputs, outputs = module.weight.shape if isinstance(module, Conv1D) else reversed(module.weight.shape)
            found.append((name.rpartition(".")[2], inputs, outputs))
    return tuple(found)


def _config(text: str) -> Any:
    from transformers import AutoConfig

    values = json.loads(text)
    return AutoConfig.for_model(values.pop("model_type"), **values)


def count_parameters(config: Any) -> ModelSize:
    """Measure a model by building it without weights."""
    return _count(config.to_json_string(use_diff=False))


@cache
def _count(config: str) -> ModelSize:
    model = empty_model(_config(config))
    text = model.config.get_text_config()

    def given(*names: str) -> Any:
        return next((value for name in names if (value := getattr(text, name, None))), None)

    heads = text.num_attention_heads
    head = given("head_dim") or text.hidden_size // heads
    active, experts = given("num_experts_per_tok"), given("num_experts", "num_local_experts")
    of_experts = sum(weight.numel() for name, weight in model.named_parameters() if ".experts." in name)
    width = (active and given("moe_intermediate_size")) or given("intermediate_size", "ffn_dim", "n_inner")
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    return ModelSize(
        parameters=model.num_parameters(),
        hidden=text.hidden_size,
        intermediate=(width or 4 * text.hidden_size) * (active or 1),
        layers=text.num_hidden_layers,
        attention_width=heads * head,
        key_width=(given("num_key_value_heads") or heads) * head,
        vocabulary=text.vocab_size,
        positions=given("max_position_embeddings") or 4096,
        tied=outputs is None or outputs.weight is inputs.weight,
        idle=of_experts - of_experts * active // experts if active and experts else 0,
        config=config,
    )


def _known(
    kind: str, parameters: int, h: int, i: int, layers: int, heads: int, kv: int, v: int, **more: Any
) -> ModelSize:
    """Return the size by a public config.json, without transformers, which takes seconds to import."""
    config = {
        "model_type": kind, "hidden_size": h, "intermediate_size": i, "num_hidden_layers": layers, "vocab_size": v,
        "num_attention_heads": heads, "num_key_value_heads": kv, "tie_word_embeddings": more.get("tied", False),
    }  # fmt: skip
    return ModelSize(parameters, h, i, layers, h, kv * h // heads, v, config=json.dumps(config), **more)


# config.json of each repository, and the parameters that its safetensors files have
_LLAMA2 = _known("llama", 6_738_415_616, 4096, 11008, 32, 32, 32, 32_000)
_LLAMA3 = _known("llama", 8_030_261_248, 4096, 14336, 32, 32, 8, 128_256, positions=8192)
_MISTRAL = _known("mistral", 7_241_732_096, 4096, 14336, 32, 32, 8, 32_000, positions=32_768)
_QWEN = _known("qwen2", 14_770_033_664, 5120, 13824, 48, 40, 8, 152_064, positions=131_072)
_SMOLLM2 = _known("llama", 134_515_008, 576, 1536, 30, 9, 3, 49_152, tied=True, positions=8192)
KNOWN = {
    "meta-llama/Llama-2-7b-hf": _LLAMA2,
    "meta-llama/Meta-Llama-3-8B": _LLAMA3,
    "princeton-nlp/Llama-3-Base-8B-SFT": _LLAMA3,
    "mistralai/Mistral-7B-v0.1": _MISTRAL,
    "alignment-handbook/zephyr-7b-sft-full": _MISTRAL,
    "Qwen/Qwen2.5-14B": _QWEN,
    "Qwen/Qwen2.5-14B-Instruct": _QWEN,
    "HuggingFaceTB/SmolLM2-135M": _SMOLLM2,
    "HuggingFaceTB/SmolLM2-135M-Instruct": _SMOLLM2,
    "models/smollm2-135m": _SMOLLM2,  # as scripts/fetch_smollm2.py unpacks it
}


def base_model(name: str) -> str:
    """Follow a model of ours to the one that training began with: `outputs/llama2-7b/qa/sft` → `meta-llama/…`."""
    seen: set[str] = set()
    while name not in seen:
        seen.add(name)
        if base := adapter_base(name):
            name = base
        elif recipe := producer(name):
            name = str(recipe.values.get("model_name_or_path", name))
    return name


def model_size(name: str, revision: str = "main") -> tuple[ModelSize, str] | None:
    """Find a model's size and say where from; None if its configuration is nowhere at hand. Downloads nothing.

    Looks in a folder of that name, in the Hub's cache, and in `KNOWN`; then for the model that it is trained from.
    """
    base = base_model(name)
    for place in dict.fromkeys((name, base)):
        if (config := read_config(place, revision)) is not None:
            with contextlib.suppress(ValueError, ImportError):  # not a causal language model of transformers
                return count_parameters(config), f"{place}/config.json"
    return (KNOWN[base], f"the table of {base}'s public config") if base in KNOWN else None


@dataclass(frozen=True)
class Adapter:
    """LoRA, by the keys of `trl.ModelConfig`."""

    rank: int  # `lora_r`
    targets: Sequence[str] | str | None = None  # `lora_target_modules`; None for PEFT's default, or `all-linear`
    saved: Sequence[str] = ()  # `lora_modules_to_save`: modules trained whole
    bits: int | None = None  # of a frozen weight of a projection: 4 or 8 where it is quantised, else None
    nested: bool = False  # whether scales of 4-bit weights are quantised themselves (`use_bnb_nested_quant`)
    dropout: bool = False  # whether there is dropout before the adapters

    def targeted(self, model: ModelSize) -> list[tuple[int, int]]:
        """List the inputs and outputs of each linear module that has an adapter."""
        targets = self.targets
        if not targets:
            from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULTS

            targets = DEFAULTS.get(json.loads(model.config)["model_type"], "all-linear")
        targets = [targets] if isinstance(targets, str) else targets
        return [(a, b) for name, a, b in model.matrices if "all-linear" in targets or name in targets]

    def trained(self, model: ModelSize) -> int:
        """Count the trained parameters: r · (inputs + outputs) for each target, and whole modules."""
        whole = [name for name in self.saved if name in ("lm_head", "embed_tokens")]
        return self.rank * sum(a + b for a, b in self.targeted(model)) + model.embedding * len(whole)

    def quantised(self, model: ModelSize) -> int:
        """Count the parameters that are quantised: all linear modules' but the head's."""
        return sum(inputs * outputs for _, inputs, outputs in model.matrices) if self.bits else 0

    def frozen_bytes(self, model: ModelSize, width: int) -> int:
        """Add up the base model, of which embedding, head and norms aren't quantised.

        A weight of NF4 has 4 bits, and a float32 scale for each block of 64; nested, a byte for each block and a
        float32 scale for each 256 of these (arXiv 2305.14314, §3). int8 has a float32 scale a row.
        """
        if self.bits is None:
            return model.parameters * width
        quantised = self.quantised(model)
        scales = (1 + 4 / 256) / 64 if self.nested else 4 / 64
        rows = 4 * sum(outputs for _, _, outputs in model.matrices)
        kept = quantised * (0.5 + scales) if self.bits == 4 else quantised + rows
        return int(kept) + (model.parameters - quantised) * width


@dataclass(frozen=True)
class Memory:
    """The peak of one process."""

    states: int  # weights, gradients and optimizer states
    activations: int  # kept from the forward pass for the backward pass, and one layer's working set
    head: int  # logits of a tile and the gradient of the head
    reference: int  # the reference model's weights
    overhead: int  # what a GPU holds besides
    host: int = 0  # memory of each machine, for what is offloaded and while the model is loaded
    paged: int = 0  # optimizer states, counted above, that move to host memory when the card is full

    @property
    def resident(self) -> int:
        """Return what must be on the card."""
        return self.total - self.paged

    @property
    def total(self) -> int:
        return self.states + self.activations + self.head + self.reference + self.overhead


@dataclass(frozen=True)
class StepShape:
    """What one training process holds and computes at a time."""

    tokens: int  # N, of a micro-batch
    width: int  # b
    weight_width: int  # bytes of a weight as it is loaded
    checkpointing: bool = True  # whether layers are computed again in the backward pass
    # whether attention goes by trees, which repeats keys and values; transformers' own SDPA may not
    packed: bool = True
    reference: bool = False  # whether a reference model is in memory besides
    on_gpu: bool = True
    tiled: bool = True  # whether off a GPU `bmc.training.lm_head` replaces TRL's kernel, as in preference training
    adapter: Adapter | None = None  # loRA; None trains everything
    optimizer: str = "adamw_torch"  # `optim`, which decides the bytes of optimizer states


def activation_bytes(model: ModelSize, shape: StepShape) -> int:
    """Estimate what a forward pass keeps, and the working set of the layer that runs backwards.

    Autograd keeps, for each token of a layer in numbers of b bytes (I: width of the MLP, A: of all query heads):

    - of each of the two norms its input in float32 (in bfloat16 that is a copy, in float32 the residual stream itself),
      the normalised state, and the output, which the projections read: H · (4 + 2b);
    - of attention queries, keys and values as SDPA reads them (repeated for each query head), its output, and the
      output in the order that o_proj reads: 5A · b. No scores: SDPA's kernels compute them again;
    - of the MLP gate, silu(gate), up and their product: 4I · b.

    The layer that runs backwards holds the gradients of the MLP's product, of silu(gate) and of up, and of its input
    and output: (3I + 2H) · b. With gradient checkpointing each layer keeps its input alone, H · b, and one layer at a
    time all of the above. The hidden states that the head reads are at most one more layer's input.

    With an adapter what only gradients of frozen weights would read isn't kept: the normalised states, the outputs of
    the norms, one A and one I. Each adapter keeps its own copy of its module's input (and a byte a number for dropout's
    mask) and r numbers; while it runs the input is float32. Weights of 4 and 8 bits are unpacked one module at a time.

    Sharing prefixes makes N smaller and changes nothing else; N is thus that of two sequences a pair of `max_length`
    tokens for a bound, or what a batch really has.
    """
    a, h, i, b = model.attention_width, model.hidden, model.intermediate, shape.width
    attention = 5 * a if shape.packed else 3 * a + 2 * model.key_width
    layer, working, unpacked = 2 * h * (4 + 2 * b) + b * (attention + 4 * i), b * (3 * i + 2 * h), 0
    if adapter := shape.adapter:
        targets = adapter.targeted(model)
        copies = sum(inputs * (b + adapter.dropout) + adapter.rank * b for inputs, _ in targets) // model.layers
        layer += copies - b * (4 * h + a + i)
        working += 4 * max((inputs for inputs, _ in targets), default=0)
        unpacked = b * max(x * y for _, x, y in model.matrices) if adapter.bits else 0
    kept = model.layers * h * b + layer if shape.checkpointing else model.layers * layer
    return shape.tokens * (kept + working + h * b) + unpacked


def head_bytes(model: ModelSize, shape: StepShape) -> int:
    """Estimate the logits of a tile in float32, twice (they and their gradient), and the head's gradient in float32.

    Only positions that predict a response token are projected, a tile at a time, so no N × V exists. A frozen head, as
    with most adapters, has no gradient.
    """
    words = min(TRL_TILE[1], model.vocabulary)
    if shape.on_gpu:
        tile = 2 * min(TRL_TILE[0], shape.tokens) * words
    else:
        tile = 2 * min(TILE, shape.tokens) * model.vocabulary if shape.tiled else 6 * shape.tokens * words
    saved = shape.adapter.saved if shape.adapter else ("lm_head",)
    trained = "lm_head" in saved or (model.tied and "embed_tokens" in saved)
    return 4 * (tile + (model.embedding if trained else 0))


def state_bytes(model: ModelSize, launch: LaunchConfig, shape: StepShape) -> tuple[int, int]:
    """Estimate weights, gradients and optimizer states: (bytes of a process, bytes of a machine's own memory).

    What is trained is float32, or has float32 copies (`bmc.precision`). Under DeepSpeed its own estimator says what
    that takes, with 8 bytes of optimizer states a parameter. Otherwise, with n processes, P trained parameters and M
    bytes of optimizer states in all:

    - FSDP2: (8P + M) / n, and two layers gathered at b bytes;
    - DDP: 8P + M, and 4P of buckets; a single process has no buckets.

    Frozen weights are sharded by ZeRO-3 and FSDP2, unless they are quantised, and nothing else is kept of them.
    """
    adapter, states = shape.adapter, optimizer_bytes(model, shape)
    trained = adapter.trained(model) if adapter else model.parameters
    frozen = adapter.frozen_bytes(model, shape.weight_width) if adapter else 0
    if adapter and not adapter.bits:
        frozen //= launch.shards
    if launch.engine == "deepspeed":
        host, device = _deepspeed_bytes(trained, model.embedding, launch)
        saved = 0 if launch.offload_optimizer else (8 * trained - states) // launch.processes
        return frozen + device - saved, host
    if launch.engine == "fsdp":
        return frozen + (8 * trained + states) // launch.processes + 2 * model.layer * shape.width, 0
    return frozen + (8 + (4 if launch.engine == "ddp" else 0)) * trained + states, 0


def _deepspeed_bytes(parameters: int, largest: int, launch: LaunchConfig) -> tuple[int, int]:
    """Ask DeepSpeed's estimator for model states: (bytes of a machine's own memory, bytes of a GPU)."""
    logging.getLogger("DeepSpeed").disabled = True  # it would say that a laptop has no accelerator
    with contextlib.redirect_stdout(io.StringIO()):
        from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
        from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs
    each, offload = -(-launch.processes // launch.machines), launch.offload_optimizer
    if launch.zero_stage < 3:
        return estimate_zero2_model_states_mem_needs(parameters, each, launch.machines, offload)
    return estimate_zero3_model_states_mem_needs(
        parameters, largest, each, launch.machines, offload, offload and launch.offload_params
    )[:2]


def training_memory(model: ModelSize, launch: LaunchConfig, shape: StepShape) -> Memory:
    """Estimate the peak of one process within a step: gradients of earlier micro-batches and all activations exist."""
    states, host = state_bytes(model, launch, shape)
    pages = "paged" in shape.optimizer and shape.on_gpu and launch.engine in ("none", "ddp")
    paged = optimizer_bytes(model, shape) if pages else 0
    casts = shape.width < shape.weight_width and launch.engine in ("none", "ddp")
    cast = model.parameters - (shape.adapter.quantised(model) if shape.adapter else 0)
    return Memory(
        states + (cast * shape.width if casts else 0),
        activation_bytes(model, shape),
        head_bytes(model, shape),
        shape.weight_width * model.parameters // launch.shards if shape.reference else 0,
        GPU_OVERHEAD if shape.on_gpu else 0,
        host + paged,
        paged,
    )


def generation_memory(model: ModelSize, sequences: int, tokens: int, width: int) -> Memory:
    """Estimate weights and the cache of keys and values on a GPU: 2 · L · K · b a token."""
    cached = 2 * model.layers * model.key_width * width * sequences * tokens
    return Memory(model.parameters * width, cached, 2 * 4 * sequences * model.vocabulary, 0, GPU_OVERHEAD)


@dataclass(frozen=True)
class StepCount:
    """How far a run goes."""

    steps: int
    rows: int  # rows that it sees, repeats counted


def count_steps(rows: int, batch: int, epochs: float, max_steps: int) -> StepCount:
    """Count as transformers' Trainer does: the last batch of an epoch may be smaller, and makes a step."""
    if max_steps > 0:
        return StepCount(max_steps, max_steps * batch)
    return StepCount(math.ceil(epochs * math.ceil(rows / batch)), math.ceil(epochs * rows))


def training_flops(
    model: ModelSize, tokens: float, checkpointing: bool, reference: float = 0.0, frozen: bool = False
) -> float:
    """Count 6ND for the policy's forward (2ND) and backward pass (4ND), 2ND more where layers run again in it, and 2ND
    for each token of the reference.

    N are the parameters that tokens are multiplied with. Attention's own products are left out: 12 · L · H · S/2 a
    token of a sequence of S, 2 % of 6N at 512 tokens of a 7B model and 9 % at 2,048. `frozen` leaves out gradients of
    the weights, as with an adapter: 2ND less.
    """
    each = 6 + (2 if checkpointing else 0) - (2 if frozen else 0)
    return model.matmul * (each * tokens + 2 * reference)


def generation_seconds(model: ModelSize, rows: int, prompt: float, new: float, batch: int, gpu: Gpu) -> float:
    """Estimate the time of one GPU: 2N a token of the prompts, and of the responses a pass over the weights (2 bytes
    each) for each token of a batch, which the memory's bandwidth bounds; both at `EFFICIENCY`."""
    flops = gpu.teraflops * 1e12
    each = max(2 * model.parameters / (gpu.bandwidth * 1e9), 2 * model.matmul * batch / flops)
    return (2 * model.matmul * rows * prompt / flops + math.ceil(rows / batch) * new * each) / EFFICIENCY


def bridging_dollars(
    price: Price, rows: int, prompt: float, response: float, template: str, rationale: bool = False
) -> float:
    """Estimate the price of an editor: it reads template, prompt and both responses, and writes one response, and
    perhaps a rationale."""
    read = INSTRUCTION[template] + prompt + 2 * response + 60 * rationale
    return rows * (read * price.input + (response + 75 * rationale) * price.output) / 1e6


def moment_bytes(optim: str) -> float:
    """Look up the bytes of optimizer states that a name of transformers' `optim` keeps for each trained parameter.

    Adam has two float32 numbers, AdEMAMix three, Lion, RMSProp and Adagrad one; Adafactor a row and a column of each
    matrix. In 8 bits a number takes one byte, in 4 bits half a byte; their scales, below 2 %, aren't counted.
    """
    name = str(getattr(optim, "value", optim))
    if any(word in name for word in ("adafactor", "lomo")) or name == "sgd":
        return 0
    numbers = 3 if "ademamix" in name else 1 if any(word in name for word in ("lion", "rmsprop", "adagrad")) else 2
    return numbers * (1 if "8bit" in name else 0.5 if "4bit" in name else 4)


def optimizer_bytes(model: ModelSize, shape: StepShape) -> int:
    """Add up the optimizer states of what is trained. bitsandbytes keeps a trained embedding's in 32 bits."""
    adapter, each = shape.adapter, moment_bytes(shape.optimizer)
    trained = adapter.trained(model) if adapter else model.parameters
    whole = adapter is None or "embed_tokens" in adapter.saved
    bnb = "8bit" in shape.optimizer and "torch" not in shape.optimizer and "galore" not in shape.optimizer
    wide = model.embedding if whole and bnb else 0
    return int(each * (trained - wide) + moment_bytes(shape.optimizer.replace("8bit", "32bit")) * wide)


@dataclass(frozen=True)
class Traffic:
    """Bytes that a process exchanges with the others; of n processes it receives (n − 1)/n of a sharded whole."""

    gather: float = 0.0  # of the weights, for each pass of a micro-batch
    reduce: float = 0.0  # of gradients, in each micro-batch
    step: float = 0.0  # once a step


def traffic(model: ModelSize, launch: LaunchConfig, shape: StepShape) -> Traffic:
    """Count what a training process exchanges, with b bytes a weight and P trained parameters.

    - ZeRO-3: weights are gathered for the forward and for the backward pass (with checkpointing, the pass that runs
      again uses those of the backward pass); gradients are reduced and scattered in b bytes in each micro-batch.
      Together 3 · b · P (arXiv 1910.02054, §7.2.2).
    - FSDP2: the same gathers; gradients are reduced once a step, in float32.
    - ZeRO-2: gradients are reduced and scattered in each micro-batch, and weights gathered once a step.
    - DDP, ZeRO-0 and 1: gradients are summed once a step, which is a reduction and a gather: 2 · 4 · P, or 2 · b · P.
    """
    n, b, adapter = launch.processes, shape.width, shape.adapter
    trained = (adapter.trained(model) if adapter else model.parameters) * (n - 1) / n
    sharded = trained if adapter and adapter.bits else model.parameters * (n - 1) / n
    if launch.engine == "fsdp":
        return Traffic(gather=b * sharded, step=4 * trained)
    if launch.zero_stage == 3:
        return Traffic(gather=b * sharded, reduce=b * trained)
    if launch.zero_stage == 2:
        return Traffic(reduce=b * trained, step=b * trained)
    return Traffic(step=2 * trained * (b if launch.engine == "deepspeed" else 4))


def count_micro_batches(rows: float, tokens: float, budget: int | None, each: int) -> float:
    """Count the micro-batches of a process in an average step.

    Within a budget (`micro_batch_tokens`) the row that doesn't fit any more leaves half a row unused; without one a
    micro-batch has `each` rows.
    """
    if budget is None:
        return max(1.0, rows / each)
    return float(max(1, min(math.ceil(rows), math.ceil(rows * tokens / max(budget - tokens / 2, tokens)))))


@dataclass(frozen=True)
class StepTime:
    """Seconds that a process needs for a step, or for several."""

    compute: float  # products at `EFFICIENCY`, or reading the weights if that takes longer; both if they are quantised
    exchange: float  # gathers and reductions of the micro-batches, which run beside the computation
    after: float = 0.0  # what is exchanged once a step, when the last micro-batch is done

    @property
    def total(self) -> float:
        return max(self.compute, self.exchange) + self.after


def step_time(
    model: ModelSize,
    launch: LaunchConfig,
    shape: StepShape,
    gpu: Gpu,
    tokens: float,
    micro_batches: float,
    seen: float = 0.0,
    trains: bool = True,
) -> StepTime:
    """Estimate the time of a step.

    Each pass reads the weights once a micro-batch, at b bytes each, and under ZeRO-3 and FSDP2 gathers them. Weights of
    4 and 8 bits are read, written as b bytes and read again, before their products. `tokens` are the step's on one
    process, `seen` those that a reference sees; a reference's own pass doesn't train.
    """
    moved, adapter = traffic(model, launch, shape), shape.adapter
    passes = 1 if not trains else 2 + (seen > 0)
    flops = training_flops(model, tokens if trains else 0, shape.checkpointing, seen, bool(adapter))
    width = adapter.bits / 8 + 2 * shape.width if adapter and adapter.bits else shape.width
    again = 1 if trains and shape.checkpointing else 0
    reads = micro_batches * (passes + again) * width * model.matmul / (gpu.bandwidth * 1e9)
    rate = launch.bandwidth(gpu) * 1e9 * LINK_EFFICIENCY
    exchanged = micro_batches * (passes * moved.gather + (moved.reduce if trains else 0))
    products = flops / (EFFICIENCY * gpu.teraflops * 1e12)
    compute = products + reads if adapter and adapter.bits else max(products, reads)
    return StepTime(compute, exchanged / rate, moved.step / rate if trains else 0.0)


def checkpoint_bytes(trained: int, saved: int, only_model: bool, copies: bool, moments: float) -> int:
    """Add up a checkpoint: the saved weights, the optimizer's states of what is trained, and float32 copies of it where
    the engine keeps them apart from the weights."""
    return saved + (0 if only_model else int((moments + (4 if copies else 0)) * trained))
