"""The recipes of the training stages, on top of TRL's configs (whose import takes some seconds)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import trl
from pydantic import Field

from .config import DataArguments
from .errors import did_you_mean
from .preference.losses import LOSSES


@dataclass(kw_only=True)
class TrainingArguments(DataArguments):
    """What SFT and preference training share, besides TRL's own keys.

    Attributes:
        tokenizer_name_or_path: Tokenizer, if not the model's own.
        dry_run: Check everything that can be checked without weights or money, print the plan and stop.
    """

    tokenizer_name_or_path: str | None = None
    dry_run: bool = False


@dataclass
class ModelArguments(trl.ModelConfig):
    """`trl.ModelConfig`; the model must be named."""

    def faults(self) -> Iterator[tuple[str, str]]:
        if not self.model_name_or_path:
            yield "model_name_or_path", "is missing; name a model of the Hub or a folder"


@dataclass(kw_only=True)
class PreferenceArguments(TrainingArguments):
    """What `scripts/preference.py` reads besides the trainer's config.

    Attributes:
        chosen_column: Which response wins: `chosen` (ỹ_w of bridged data), or `original_chosen` (y_w of the same
            pairs, for the baselines and DPO-MC).
    """

    chosen_column: Literal["chosen", "original_chosen"] = "chosen"


@dataclass
class SFTConfig(trl.SFTConfig):
    """`trl.SFTConfig`.

    Attributes:
        resume_from_checkpoint: A checkpoint's path; true or nothing for the newest in output_dir; false for none.
    """

    resume_from_checkpoint: bool | str | None = None


@dataclass
class BMCConfig(trl.DPOConfig):
    """`trl.DPOConfig` with token weights.

    Attributes:
        beta: β, how closely the policy is held to the reference model.
        loss_type: The objective, a name in `bmc.LOSSES`; several are added up with `loss_weights`.
        token_weighting: `none` (λ ≡ 1) or `bmc` (Eqs. 7 and 10 of arXiv 2408.07471).
        bmc_delta: δ, the most that a differing token weighs above 1 (§3.2; Figure 4: best near 3.0 on QA).
        prefix_sharing: What the sequences of a batch begin with, prompts and responses alike, goes through the model
            once: the same numbers for less work. By default wherever attention (sdpa, flex_attention) and model
            allow it; false never.
        packing: The sequences of a batch stand end to end in one row, without padding. By default as prefix_sharing.
        precompute_ref_log_probs: Run the reference once, before training, and keep no reference model in memory. By
            default wherever the run goes through all pairs.
        reference_cache: Folder of the reference's log-probs, which other runs find again; by default `bmc-reference`
            in the cache of 🤗 datasets.
        resume_from_checkpoint: A checkpoint's path; true or nothing for the newest in output_dir; false for none.
    """

    beta: Annotated[float, Field(gt=0.0)] = 0.1
    loss_type: list[str] | str = field(default_factory=lambda: ["sigmoid"])
    token_weighting: Literal["none", "bmc"] = "none"
    bmc_delta: Annotated[float, Field(ge=0.0)] = 3.0
    prefix_sharing: bool | None = None
    packing: bool | None = None
    precompute_ref_log_probs: bool | None = None
    reference_cache: str | None = None
    resume_from_checkpoint: bool | str | None = None

    def __post_init__(self) -> None:
        for key, what in self.objections({**vars(self)}):
            raise ValueError(f"{key}: {what}")
        if not self.beta > 0:
            raise ValueError(f"beta: must be above 0, got {self.beta}")
        if not self.bmc_delta >= 0:
            raise ValueError(f"bmc_delta: must be 0 or more, got {self.bmc_delta}")
        if self.token_weighting not in ("none", "bmc"):
            raise ValueError(f"token_weighting: must be none or bmc, got '{self.token_weighting}'")
        super().__post_init__()

    @staticmethod
    def objections(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """`(key, what is wrong)` for values of the right type that BMCTrainer can't train with."""
        given = values.get("loss_type", ["sigmoid"])
        names = [given] if isinstance(given, str) else given
        for name in names:
            if name not in LOSSES:
                hint = did_you_mean(name, list(LOSSES))
                yield "loss_type", f"'{name}' is unknown; choose from {', '.join(LOSSES)}{hint}"
        if not names:
            yield "loss_type", f"names no objective; choose from {', '.join(LOSSES)}"
        smoothing = values.get("label_smoothing", 0.0)
        if "exo_pair" in names and not 0 < smoothing < 1:
            yield "label_smoothing", f"must be between 0 and 1 for exo_pair (its paper: 1e-3), got {smoothing:g}"
        if "robust" in names and not 0 <= smoothing < 0.5:
            yield "label_smoothing", f"must be 0 or more and below 0.5 for robust, got {smoothing:g}"
        for key, neutral in _UNSUPPORTED.items():
            if values.get(key, neutral) != neutral:
                yield key, "BMCTrainer doesn't have it; leave it out, or use trl.DPOTrainer"


# keys of DPOConfig that change the loss in ways that token weights have no definition for
_UNSUPPORTED: dict[str, Any] = {
    "f_divergence_type": "reverse_kl",
    "ld_alpha": None,
    "use_weighting": False,
    "sync_ref_model": False,
    "truncation_mode": "keep_start",
}
