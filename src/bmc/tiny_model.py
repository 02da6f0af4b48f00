"""A small Llama with a tokenizer of its own, made from a file of texts: no download."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .config import TinyModelConfig
from .data.loading import load_mixture
from .data.schema import content
from .data.tokenization import read_template
from .errors import user_error
from .runs import claim_output_dir, elapsed, run_fingerprint, write_json

EOS, PAD = "<eos>", "<pad>"


def make_model(config: TinyModelConfig) -> dict[str, Any]:
    """Train a tokenizer on the recipe's rows and save it with randomly initialised weights.

    Returns:
        `parameters` and `vocabulary`, also in `stats.json`.

    Raises:
        UserErrors: The rows can't be read, or the sizes don't fit together.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if config.hidden_size % (2 * config.num_attention_heads):
        raise user_error("hidden_size", "must be a multiple of twice num_attention_heads")
    rows = load_mixture(config.dataset_mixture.datasets, config.dataset_mixture.seed)
    tokenizer = _tokenizer(list(rows), read_template(config.chat_template), config)
    folder = claim_output_dir(config.output_dir, run_fingerprint(config), config, rows=rows)
    torch.manual_seed(config.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size or 4 * config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            max_position_embeddings=config.max_position_embeddings,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    stats = {"parameters": model.num_parameters(), "vocabulary": len(tokenizer), "seconds": elapsed()}
    write_json(Path(folder) / "stats.json", stats)
    return stats


def _texts(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield content(row["prompt"])
        yield content(row["completion"])
        yield from row.get("solutions") or []


def _tokenizer(rows: list[dict[str, Any]], template: str | None, config: TinyModelConfig) -> Any:
    """Train byte-level BPE in which each digit is a token, with the space before it, and no longer number is."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r" ?\d"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size, special_tokens=[EOS, PAD], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_texts(rows), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, pad_token=PAD)
    if template is not None:
        fast.chat_template = template
    return fast
