"""Decode a batch with transformers: finished rows leave the batch, and each row is sampled with its own seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from transformers import (
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.cache_utils import DynamicLayer

from ..config import GenerationArguments

ROOM = 64  # tokens by which a cache grows
LEAVING = 1 / 8  # share of finished rows at which a batch is made smaller
_SMALLEST = 2.0**-25  # half a step of a uniform float32; an exponential variate below it may come out as 0


@torch.inference_mode()
def decode(
    model: Any, prompts: list[list[int]], seeds: list[int], args: GenerationArguments, eos: list[int], pad: int
) -> Iterator[tuple[int, list[int]]]:
    """Complete a batch of prompts; yield `(place, token ids of the response)` as rows end, EOS included.

    The common beginning of all prompts (a template's head) goes through the model once. Whenever a share `LEAVING` of
    the rows has ended, `generate` stops and continues with the cache of the others. Each response has its own seed and
    doesn't depend on the rest of its batch, apart from rounding.
    """
    cache = DynamicCache(config=model.config)
    cache.layers = [GrowingCacheLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    head = 0 if any(cache.is_sliding) else _head(prompts)  # a sliding window would count the padding
    ids, mask = _padded(prompts, head, pad, model.device)
    if head:
        model(input_ids=ids[:1, :head], cache=cache, logits_to_keep=1)
        cache.batch_repeat_interleave(len(prompts))
    width, places = ids.shape[1], list(range(len(prompts)))
    ends = torch.tensor(eos, dtype=torch.long, device=model.device)
    noise = [torch.Generator(model.device).manual_seed(seed) for seed in seeds] if args.temperature > 0 else []
    while places:
        ids = model.generate(
            input_ids=ids,
            attention_mask=mask,
            cache=cache,
            do_sample=False,
            max_length=width + args.max_new_tokens,
            eos_token_id=eos or None,
            pad_token_id=pad,
            logits_processor=_sampler(args, noise),
            stopping_criteria=StoppingCriteriaList([_Leaving(ends, len(places))]),
        )
        new = ids[:, width:]
        ended = torch.isin(new, ends).any(1) | (new.shape[1] == args.max_new_tokens)
        for row in ended.nonzero()[:, 0].tolist():
            yield places[row], new[row].tolist()
        stays = (~ended).nonzero()[:, 0]
        places, noise = ([of[row] for row in stays.tolist()] if of else [] for of in (places, noise))
        mask = torch.nn.functional.pad(mask, (0, ids.shape[1] - mask.shape[1]), value=1)[stays]
        ids = ids[stays]
        cache.batch_select_indices(stays)


def _head(prompts: list[list[int]]) -> int:
    """Count the tokens that all prompts begin with, leaving at least one of each."""
    least, most = min(prompts), max(prompts)
    head = 0
    while head < min(map(len, prompts)) - 1 and least[head] == most[head]:
        head += 1
    return head


def _padded(prompts: list[list[int]], head: int, pad: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and attention mask, (B, longest) of int64 each, padded after the first `head` tokens."""
    longest = max(map(len, prompts))
    gaps = [longest - len(prompt) for prompt in prompts]
    rows = [[*prompt[:head], *[pad] * gap, *prompt[head:]] for prompt, gap in zip(prompts, gaps, strict=True)]
    seen = [[1] * head + [0] * gap + [1] * (longest - head - gap) for gap in gaps]
    return torch.tensor(rows, device=device), torch.tensor(seen, device=device)


class GrowingCacheLayer(DynamicLayer):
    """Keep a layer's keys and values with spare room; transformers copies all of them for each new token."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        """Append keys and values, as `DynamicLayer.update` does."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys: torch.Tensor = appended(self.keys, key_states)
        self.values: torch.Tensor = appended(self.values, value_states)
        return self.keys, self.values


def appended(kept: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Append `new` (B, H, t, D) to `kept` (B, H, T, D; may be empty).

    Returns a view of `kept`'s memory if it has room after each head's T tokens, else of a copy with room for `ROOM`
    more tokens.
    """
    batch, heads, count, width = new.shape
    before = kept.shape[-2] if kept.numel() else 0
    if not before or before + count > kept.stride(1) // width:
        larger = new.new_empty(batch, heads, before + count + ROOM, width)
        if before:
            larger[:, :, :before] = kept
        kept = larger
    whole = kept.as_strided((batch, heads, before + count, width), kept.stride())
    whole[:, :, before:] = new
    return whole


def _sampler(args: GenerationArguments, noise: list[torch.Generator]) -> LogitsProcessorList:
    """List what changes the logits before the largest is taken; nothing for greedy decoding."""
    if not noise:
        return LogitsProcessorList()
    nucleus = [TopPLogitsWarper(args.top_p)] if args.top_p < 1 else []
    return LogitsProcessorList([TemperatureLogitsWarper(args.temperature), *nucleus, GumbelNoise(noise)])


class GumbelNoise(LogitsProcessor):
    """Add −log E, E ~ Exp(1), to each logit: the largest is then a draw from their softmax (the Gumbel-max trick).

    Rounding changes a draw only as far as it changes the distribution; with one uniform variate for the whole
    distribution it would move all of its boundaries.
    """

    def __init__(self, generators: list[torch.Generator]) -> None:
        self.generators = generators

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores (B, vocabulary; float32) with noise added."""
        noise = torch.empty_like(scores)
        for row, generator in zip(noise, self.generators, strict=True):
            row.exponential_(generator=generator)
        return scores - noise.clamp_(min=_SMALLEST).log_()


class _Leaving(StoppingCriteria):
    """Stop `generate` when a share `LEAVING` of its rows has ended."""

    def __init__(self, ends: torch.Tensor, rows: int) -> None:
        self.ends, self.enough = ends, max(1, int(LEAVING * rows))
        self.ended: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        now = torch.isin(input_ids[:, -1], self.ends)
        self.ended = now if self.ended is None else self.ended | now
        return (self.ended.sum() >= self.enough).expand(len(input_ids))
