"""The language model's head, on the positions that predict a response token and on no other.

TRL's fused head computes log-probabilities tile by tile, so that logits of a whole batch never exist; it is given the
hidden states that matter. Off a GPU its tiles are as tall as the batch and are copied some six times, so there
`TiledLogProbs` stands in for its kernel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from trl.trainer.utils import maybe_gather_lm_head_ctx

from .prefix_sharing import causal_lm
from .trl_compat import fused_head_kernel, trl_kernel

TILE = 128  # tokens whose logits exist at once


class Head(NamedTuple):
    """What the head was given, and what it is: enough for the distributions that U tokens were drawn from."""

    hidden: Tensor  # hidden states (U, H)
    weight: Tensor  # (V, H)
    bias: Tensor | None  # (V,), or None
    softcap: float | None  # of the logits, or None
    scale: float  # of the logits
    dtype: torch.dtype  # in which the product is made

    def logps(self, tile: slice) -> Tensor:
        """Compute log π of the whole vocabulary at some of the tokens, at least float32."""
        return _logits(self.hidden[tile], self.weight, self.bias, self).log_softmax(dim=-1)


class TokenLogprobs(NamedTuple):
    """What a forward says of U tokens; all of shape (U,), but for `aux_loss` and `head`."""

    logps: Tensor  # log π of each token, floating dtype
    entropy: Tensor  # of the distribution that each was drawn from; without gradient off a GPU
    # mean of the vocabulary's logits; None where the model wasn't asked for it (a reference)
    mean_logits: Tensor | None
    is_top1: Tensor  # whether each was the likeliest; bool
    aux_loss: Any  # the router's of a mixture of experts, a scalar; None for others
    head: Head  # what they were made of


class RecordingKernel:
    """A kernel of TRL's fused head that remembers what it was given."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def apply(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Any:
        _, _, _, softcap, scale, _ = rest
        self.head = Head(hidden, weight, bias, softcap, scale, _dtype(hidden))
        return self.kernel.apply(hidden, weight, bias, *rest)


def slice_hidden_states(model: Any) -> None:
    """Have the backbone of a causal LM take `predictors`, and return the hidden states of these positions alone."""
    backbone = causal_lm(model).base_model
    wanted: list[Tensor | None] = []

    def before(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        wanted[:] = [kwargs.pop("predictors", None)]
        return args, kwargs

    def after(module: Any, args: Any, output: Any) -> Any:
        if wanted[0] is not None:
            rows, columns = wanted[0]
            states = output.last_hidden_state
            places = rows * states.size(1) + columns % states.size(1)
            output.last_hidden_state = states.flatten(0, 1).index_select(0, places)[None]
        return output

    backbone.register_forward_pre_hook(before, with_kwargs=True)
    backbone.register_forward_hook(after)


def score_tokens(model: Any, predictors: Tensor, labels: Tensor, **arguments: Any) -> TokenLogprobs:
    """Run a model and compute the log-probs of chosen tokens.

    `slice_hidden_states` has changed the model. `predictors`, int64 (2, U), are row and column, from the row's end (−1
    is its last), of each position whose next token is scored; `labels`, int64 (U,), are the tokens.

    Raises:
        TypeError: The model's wrapper rounds log-probs to less than float32. Σ log π is hundreds of nats, of which
            bfloat16 keeps 8 bits.
    """
    kernel = RecordingKernel(trl_kernel(labels.device) or TiledLogProbs)
    with fused_head_kernel(kernel):
        outputs = model(
            **arguments, predictors=predictors, shift_labels=labels[None], use_cache=False, fused_lm_head=True
        )
    if _wide(outputs.log_probs.dtype) != outputs.log_probs.dtype:
        raise TypeError(f"log-probs must be float32 or more, the model returned {outputs.log_probs.dtype}")
    means = None if outputs.mean_logits is None else outputs.mean_logits[0]
    return TokenLogprobs(
        outputs.log_probs[0], outputs.entropy[0], means, outputs.is_top1[0], outputs.aux_loss, kernel.head
    )


@torch.no_grad()
def exact_kl(policy: Head, reference: Head) -> Tensor:
    """Compute KL(π_θ ‖ π_ref) of the distributions that tokens were drawn from: Σ_v π_θ(v) (log π_θ(v) − log π_ref(v))
    over the whole vocabulary, `TILE` tokens at a time; (U,), at least float32, ≥ 0 up to rounding.
    """
    parts = []
    for tile in _tiles(len(policy.hidden)):
        logps = policy.logps(tile)
        parts.append((logps.exp() * (logps - reference.logps(tile))).sum(dim=-1))
    return torch.cat(parts)


def gather_response_tokens(values: Tensor, inputs: dict[str, Any]) -> Tensor:
    """Gather values of scored tokens (U,) into those of the responses' tokens (…, T); 0 at padding."""
    return values[inputs["places"]] * inputs["response_mask"]


class TiledLogProbs(torch.autograd.Function):
    """log softmax(h Wᵀ + b) at the targets, `TILE` tokens at a time; with the arguments of TRL's kernel, of which
    temperature is 1, chunk_size isn't looked at, and of outputs only mean_logits is left out where it isn't wanted.

    The backward pass computes each tile's logits again instead of keeping them: ∂/∂logits = (1[target] − π) · gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        chunk_size: int,
        softcap: float | None,
        logit_scale: float,
        outputs: tuple[str, ...],
    ) -> tuple[Tensor, Tensor, None, Tensor | None, Tensor]:
        """Map hidden states (N, H), weight (V, H), bias (V,) and targets (N,) to log-probs, entropy, mean logits and
        is_top1, each (N,)."""
        ctx.set_materialize_grads(False)
        ctx.scale, ctx.softcap, ctx.dtype = logit_scale, softcap, _dtype(hidden)
        logps, entropy, log_z = (hidden.new_empty(len(hidden), dtype=_wide(ctx.dtype)) for _ in range(3))
        is_top1 = torch.empty_like(targets, dtype=torch.bool)
        means = torch.empty_like(logps) if "mean_logits" in outputs else None
        for tile in _tiles(len(hidden)):
            z = _logits(hidden[tile], weight, bias, ctx)
            largest, likeliest = z.max(dim=-1)
            own = z.gather(1, targets[tile, None])[:, 0]
            if means is not None:
                means[tile] = z.mean(dim=-1)
            mass = z.sub_(largest[:, None]).exp()
            total = mass.sum(dim=-1)
            log_z[tile] = largest + total.log()
            logps[tile], is_top1[tile] = own - log_z[tile], likeliest == targets[tile]
            entropy[tile] = total.log() - mass.mul_(z).sum(dim=-1) / total
        ctx.save_for_backward(hidden, weight, bias, targets, log_z)
        ctx.mark_non_differentiable(entropy, is_top1, *([] if means is None else [means]))
        return logps, entropy, None, means, is_top1

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Compute the gradients of hidden states, weight and bias, as far as they are needed."""
        hidden, weight, bias, targets, log_z = ctx.saved_tensors
        if grad is None:
            return (None,) * 9
        with maybe_gather_lm_head_ctx(weight, bias):
            of_hidden, of_weight, of_bias = (
                torch.zeros_like(value, dtype=_wide(value.dtype)) if needed else None
                for value, needed in zip((hidden, weight, bias), ctx.needs_input_grad, strict=False)
            )
            for tile in _tiles(len(hidden)):
                states, slope = hidden[tile], grad[tile, None]
                z = _logits(states, weight, bias, ctx)
                bent = None if ctx.softcap is None else 1 - (z / ctx.softcap) ** 2
                p = z.sub_(log_z[tile, None]).exp_().mul_(-slope).scatter_add_(1, targets[tile, None], slope)
                p = p if bent is None else p.mul_(bent)
                p = p if ctx.scale == 1 else p.mul_(ctx.scale)
                if of_hidden is not None:
                    of_hidden[tile] = p.to(ctx.dtype) @ weight.to(ctx.dtype)
                if of_weight is not None:
                    of_weight.addmm_(p.t(), states.to(p.dtype))
                if of_bias is not None:
                    of_bias += p.sum(dim=0)
        gradients = zip((of_hidden, of_weight, of_bias), (hidden, weight, bias), strict=True)
        return *(None if g is None else g.to(value.dtype) for g, value in gradients), *[None] * 6


def _tiles(tokens: int) -> list[slice]:
    return [slice(start, start + TILE) for start in range(0, tokens, TILE)]


def _dtype(hidden: Tensor) -> torch.dtype:
    """Return the dtype of a product with these states: autocast's, or their own."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Widen a dtype to at least float32."""
    return torch.promote_types(dtype, torch.float32)


def _logits(states: Tensor, weight: Tensor, bias: Tensor | None, ctx: Any) -> Tensor:
    z = (states.to(ctx.dtype) @ weight.to(ctx.dtype).t()).to(_wide(ctx.dtype))
    z = z if bias is None else z.add_(bias)
    z = z if ctx.scale == 1 else z.mul_(ctx.scale)
    return z if ctx.softcap is None else z.div_(ctx.softcap).tanh_().mul_(ctx.softcap)
