"""How large a model is, from its configuration or from a table of the paper's models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .chain import upstream

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Architecture:
    """A decoder of attention and gated MLP (Llama, Mistral, Qwen2 and what is built like them).

    Attributes:
        hidden: Width H of the residual stream.
        intermediate: Width I of the MLP.
        layers: Decoder layers L.
        heads: Query heads.
        key_value_heads: Key and value heads.
        vocabulary: Rows V of the embedding.
        head_dim: Width of a head; H / heads by default.
        tied: Whether the head is the embedding.
        query_bias: Whether the projections to queries, keys and values have a bias (Qwen2).
        head_norms: Whether queries and keys are normalised head by head (Qwen3).
        positions: The longest sequence.
        license: Of the model, as the Hub's metadata name it; None where it isn't known.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int
    head_dim: int | None = None
    tied: bool = False
    query_bias: bool = False
    head_norms: bool = False
    positions: int = 4096
    license: str | None = None

    @property
    def attention_width(self) -> int:
        """Width of all query heads."""
        return self.heads * (self.head_dim or self.hidden // self.heads)

    @property
    def key_width(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.key_value_heads * (self.head_dim or self.hidden // self.heads)

    def linear(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of each projection of a layer."""
        h, a, k, i = self.hidden, self.attention_width, self.key_width, self.intermediate
        return dict(zip(LINEAR, ((h, a), (h, k), (h, k), (a, h), (h, i), (h, i), (i, h)), strict=True))

    @property
    def linear_parameters(self) -> int:
        """Weights of all projections, which quantisation to 4 or 8 bits is about."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linear().values())

    @property
    def embedding(self) -> int:
        """V · H, the largest single module."""
        return self.vocabulary * self.hidden

    @property
    def layer(self) -> int:
        """Parameters of a decoder layer: projections, their biases, norms."""
        biases = (self.attention_width + 2 * self.key_width) if self.query_bias else 0
        norms = 2 * self.hidden + (2 * self.attention_width // self.heads if self.head_norms else 0)
        return self.linear_parameters // self.layers + biases + norms

    @property
    def parameters(self) -> int:
        """All parameters, a tied head counted once."""
        return self.layers * self.layer + (1 if self.tied else 2) * self.embedding + self.hidden

    @property
    def multiplied(self) -> int:
        """N of the FLOP counts: the parameters that tokens are multiplied with, which is all but the embedding."""
        return self.layers * self.layer + self.embedding + self.hidden


# config.json of each repository; the licences are those of their model cards
_LLAMA2 = Architecture(4096, 11008, 32, 32, 32, 32_000, license="llama2")
_LLAMA3 = Architecture(4096, 14336, 32, 32, 8, 128_256, positions=8192, license="llama3")
_MISTRAL = Architecture(4096, 14336, 32, 32, 8, 32_000, positions=32_768, license="apache-2.0")
_QWEN = Architecture(
    5120, 13824, 48, 40, 8, 152_064, query_bias=True, positions=131_072, license="apache-2.0"
)  # fmt: skip
_SMOLLM2 = Architecture(576, 1536, 30, 9, 3, 49_152, tied=True, positions=8192, license="apache-2.0")
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


def origin(name: str) -> str:
    """The model that a model of ours is trained from: `outputs/llama2-7b/qa/sft` → `meta-llama/Llama-2-7b-hf`."""
    seen = set()
    while name not in seen:
        seen.add(name)
        made, adapter = upstream(name), Path(name, "adapter_config.json")
        if adapter.is_file():
            made = {"model_name_or_path": json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]}
        name = str(made.get("model_name_or_path", name)) if made else name
    return name


def find(name: str, revision: str = "main") -> tuple[Architecture, str] | None:
    """The architecture of a model and where it is known from; None for one of another kind, or nowhere at hand.

    Looked for in a folder of that name, in the Hub's cache, in the folder or at the Hub id that it is trained from, and
    in `KNOWN`. Nothing is downloaded.
    """
    base = origin(name)
    for place in dict.fromkeys((name, base)):
        path = _config_file(place, revision)
        if path is not None and (found := of_config(json.loads(path.read_text(encoding="utf-8")))):
            return found, f"{place}/config.json"
    return (KNOWN[base], f"the table of {base}'s public config") if base in KNOWN else None


def _config_file(name: str, revision: str) -> Path | None:
    if (local := Path(name) / "config.json").is_file():
        return local
    if name.count("/") != 1 or name.startswith((".", "~")):
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(cached) if isinstance(cached, str) else None


def of_config(config: dict[str, Any]) -> Architecture | None:
    """The architecture of a `config.json`; None if it isn't a decoder of the kind, or a mixture of experts."""
    config = config.get("text_config", config)
    if config.get("model_type") not in ("llama", "mistral", "qwen2", "qwen3", "gemma"):
        return None
    heads = config["num_attention_heads"]
    return Architecture(
        config["hidden_size"],
        config["intermediate_size"],
        config["num_hidden_layers"],
        heads,
        config.get("num_key_value_heads") or heads,
        config["vocab_size"],
        config.get("head_dim"),
        bool(config.get("tie_word_embeddings", config["model_type"] == "gemma")),
        config["model_type"] == "qwen2" or bool(config.get("attention_bias")),
        config["model_type"] == "qwen3",
        config.get("max_position_embeddings", 4096),
    )
