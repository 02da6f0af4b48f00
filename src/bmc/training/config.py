"""The recipes of the training stages, on top of TRL's configs (whose import takes some seconds)."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

import trl
from pydantic import Field, TypeAdapter, ValidationError

from ..config import DataArguments, GpuName, seed_numbers
from ..errors import did_you_mean
from ..models import lacks_bfloat16
from ..recipe import default_of
from .losses import LOSSES, OF_A_BATCH, REFERENCE_FREE, hyperparameters

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_FromZero = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0.0, lt=1.0)]
_Count = Annotated[int, Field(ge=1)]
_Steps = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
# what the libraries' keys may be, beyond their types; most would fail far into a run, or train nothing
TRAINER_LIMITS: dict[str, Any] = {
    "learning_rate": _FromZero,
    "weight_decay": _FromZero,
    "max_grad_norm": _FromZero,
    "adam_beta1": _Share,
    "adam_beta2": _Share,
    "adam_epsilon": _FromZero,
    "num_train_epochs": _Steps,
    "max_steps": Annotated[int, Field(ge=-1)],
    "warmup_steps": _FromZero,
    "logging_steps": _Steps,
    "save_steps": _Steps,
    "eval_steps": _Steps | None,
    "eval_delay": _FromZero,
    "save_total_limit": Annotated[int, Field(ge=0)] | None,
    "per_device_train_batch_size": _Count,
    "per_device_eval_batch_size": _Count,
    "gradient_accumulation_steps": _Count,
    "eval_accumulation_steps": _Count | None,
    "dataloader_num_workers": Annotated[int, Field(ge=0)],
    "dataloader_prefetch_factor": _Count | None,
    "dataset_num_proc": _Count | None,
    "ddp_timeout": _Count,
    "seed": Annotated[int, Field(ge=0, lt=2**32)],
    "data_seed": Annotated[int, Field(ge=0, lt=2**32)] | None,
    "max_length": _Count | None,
    "neftune_noise_alpha": _FromZero | None,
    "label_smoothing_factor": _Share,
    "resume_from_checkpoint": bool | str | None,  # whose type TRL's parser can't read
}


def trainer_value_faults(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield `(key, what is wrong)` for combinations of the Trainer's keys that would fail once it runs."""
    if values.get("dataloader_persistent_workers") and not values.get("dataloader_num_workers"):
        yield "dataloader_persistent_workers", "there are no workers to keep; set dataloader_num_workers too"
    if values.get("bf16", not values.get("fp16")) and not values.get("use_cpu") and lacks_bfloat16():
        yield "bf16", "Apple's GPU has bfloat16 from macOS 14 on; write bf16: false, and dtype: float32 with an adapter"
    name, given = str(values.get("lr_scheduler_type", "")), values.get("lr_scheduler_kwargs")
    if "min_lr" in name and not (isinstance(given, dict) and {"min_lr", "min_lr_rate"} & set(given)):
        yield "lr_scheduler_kwargs", f"{name} needs a floor; write lr_scheduler_kwargs: {{min_lr_rate: 0.1}}"


@dataclass(kw_only=True)
class TrainingArguments(DataArguments):
    """What SFT and preference training share, besides TRL's own keys.

    Attributes:
        tokenizer_name_or_path: Tokenizer, if not the model's own.
        dry_run: Check everything that can be checked without weights or money, print the plan and stop.
        accelerate_config: Accelerate config that the plan of a dry run is for, relative to the recipe that names it;
            one process by default. It launches nothing.
        num_processes: How many processes the plan is for; by default accelerate_config's.
        gpu: Card that the plan is for.
        paper_batch_size: The batch of all processes that a result is to be compared at; another one gets a warning.
        wandb_project: Project that `report_to: wandb` writes to.
        wandb_entity: Its owner, a user or team.
        wandb_run_group: Group of the run.
        env: Environment variables to set first, as in TRL's configs.
    """

    NON_IDENTITY_KEYS: ClassVar = {
        "accelerate_config", "num_processes", "gpu", "paper_batch_size", "wandb_project", "wandb_entity",
        "wandb_run_group", "env",
    }  # fmt: skip

    tokenizer_name_or_path: str | None = None
    dry_run: bool = False
    accelerate_config: str | None = None
    num_processes: Annotated[int, Field(ge=1)] | None = None
    gpu: GpuName = "A800-80GB"
    paper_batch_size: Annotated[int, Field(ge=1)] | None = None
    wandb_project: str | None = None
    wandb_entity: str | None = None
    wandb_run_group: str | None = None
    env: dict[str, str | int | float | bool] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables that the recipe sets."""
        own = {key.upper(): getattr(self, key) for key in ("wandb_project", "wandb_entity", "wandb_run_group")}
        return {key: str(value) for key, value in (*self.env.items(), *own.items()) if value is not None}


@dataclass
class ModelArguments(trl.ModelConfig):
    """`trl.ModelConfig`; the model must be named.

    Attributes:
        allow_pickle: Load weights that are pickled (`pytorch_model.bin`), which may run any code; safetensors alone by
            default.
        license: Of the base model, for the model card; by default what its own card says.
        lora_target_modules: Names of the modules that get an adapter, or all-linear; by default PEFT's for the model.
    """

    NON_IDENTITY_KEYS: ClassVar = {"allow_pickle", "license"}
    LIMITS: ClassVar[dict[str, Any]] = {
        "lora_r": _Count,
        "lora_alpha": _Count,
        "lora_dropout": _Share,
        "lora_task_type": Literal["CAUSAL_LM"],
        "bnb_4bit_quant_storage": Literal["uint8", "bfloat16", "float16", "float32", None],
    }

    allow_pickle: bool = False
    license: str | None = None
    lora_target_modules: list[str] | str | None = None

    def __post_init__(self) -> None:
        modules = self.lora_target_modules
        super().__post_init__()  # makes a text of a list of one, which PEFT would read as a regular expression
        if isinstance(modules, str) and modules != "all-linear" and re.fullmatch(r"[\w., ]*\w", modules):
            modules = re.split(r"[, ]+", modules)
        self.lora_target_modules = modules

    def faults(self) -> Iterator[tuple[str, str]]:
        if not self.model_name_or_path:
            yield "model_name_or_path", "is missing; name a model of the Hub or a folder"
        for key in ("load_in_4bit", "load_in_8bit"):
            if getattr(self, key) and not self.use_peft:
                yield key, "quantised weights can't be trained themselves; set use_peft: true"

    @staticmethod
    def value_faults(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield `(key, what is wrong)` for an adapter's keys without an adapter, which would train the whole model."""
        if "use_peft" in values:
            return
        for key in sorted(values):
            if key.startswith(("lora_", "use_rslora", "use_dora", "load_in_")) and values[key] not in (None, False):
                yield (
                    key,
                    "is of an adapter, and the recipe trains the whole model; write use_peft: true, or leave it out",
                )


@dataclass(kw_only=True)
class PreferenceArguments(TrainingArguments):
    """What `scripts/preference.py` reads besides the trainer's config.

    Attributes:
        chosen_column: Which response wins: `chosen` (ỹ_w of bridged data), or `original_chosen` (y_w of the same
            pairs, for the baselines and DPO-MC).
        sweep: Train several points, score each on validation rows and name the best: a mapping of keys to their values
            for a grid, true for the grid of the paper's Table 7, or `small` for a line search from the recipe's values
            over the learning rate and β (or the loss's own weight), by factors of 3 while accuracy rises.
        sweep_hours: Hours that a sweep may train for: none starts that would probably end after them.
        seeds: Train and evaluate once with each of these seeds; on the command line `1,2,3`.
        launcher: Command that starts each training of `sweep` and `seeds`; python by default.
        eval_recipe: Recipe of `scripts/evaluate.py` that scores the trainings of `sweep` (on `validation.jsonl` where
            it says `test.jsonl`) and `seeds`; by default `eval.yaml` beside the recipe.
    """

    NON_IDENTITY_KEYS: ClassVar = {"sweep", "sweep_hours", "seeds", "launcher", "eval_recipe"}

    chosen_column: Literal["chosen", "original_chosen"] = "chosen"
    sweep: Literal["small"] | bool | dict[str, list[Any]] | None = None
    sweep_hours: Annotated[float, Field(gt=0)] | None = None
    seeds: list[int] | int | str | None = None
    launcher: str | None = None
    eval_recipe: str | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        if self.sweep and self.seeds is not None:
            yield "seeds", "not together with a sweep; train the sweep's best recipe with them"
        if self.sweep_hours and not self.sweep:
            yield "sweep_hours", "bounds a sweep, and there is none; write sweep: small, or leave it out"
        if isinstance(self.sweep, dict):
            for key, values in self.sweep.items():
                if not values:
                    yield f"sweep.{key}", "lists no value"
                if key in (*self.NON_IDENTITY_KEYS, "output_dir", "dry_run"):
                    yield f"sweep.{key}", "can't be swept; leave it out"
        if self.seeds is not None:
            try:
                self.seed_list()
            except ValueError as error:
                yield "seeds", str(error)

    def seed_list(self) -> list[int]:
        """Return the seeds as numbers; raise ValueError where they aren't."""
        return seed_numbers(self.seeds)


@dataclass
class SFTConfig(trl.SFTConfig):
    """`trl.SFTConfig`.

    Attributes:
        assistant_only_loss: Train on the assistant's messages alone, whether or not the chat template has generation
            markers; by default where the rows are whole conversations (`messages`).
        resume_from_checkpoint: A checkpoint's path; nothing for the newest in output_dir, if there is one; true where
            there must be one, perhaps of another trainer; false for none.
    """

    STAGE: ClassVar = "sft"

    LIMITS: ClassVar = TRAINER_LIMITS
    value_faults = staticmethod(trainer_value_faults)

    assistant_only_loss: bool | None = None  # type: ignore[assignment]
    resume_from_checkpoint: str | None = None


@dataclass
class BMCConfig(trl.DPOConfig):
    """`trl.DPOConfig` with token weights.

    Attributes:
        beta: β, how closely the policy is held to the reference model.
        loss_type: The objective, a name in `bmc.LOSSES`; several are added up with `loss_weights`.
        simpo_gamma: γ of SimPO.
        rdpo_alpha: α of R-DPO; negative for the sign of Table 7 (the released code: −β).
        orpo_lambda: λ of ORPO.
        figa_alpha: α of FIGA.
        figa_beta: β of FIGA.
        token_weighting: `none` (λ ≡ 1); `bmc` (Eqs. 7 and 10 of arXiv 2408.07471); λ = 1 for some tokens, else 0:
            `confpo` (those that the policy finds less likely than the response's mean), `entropy` (those of which it
            is most uncertain); `position` (decay from the first difference); `shift` (rejected tokens count less);
            `external` (the columns `chosen_weights` and `rejected_weights`, one number from 0 a response token, as
            score_tokens writes them).
        bmc_delta: δ, the most that a differing token weighs above 1 (§3.2; Figure 4: best near 3.0 on QA).
        entropy_share: Share of each response's tokens that `entropy` takes.
        position_decay: γ of `position`.
        rejected_weight: λ of rejected tokens under `shift`.
        weight_source: Whose confidence weighs the reference log-probs: the `policy`'s, as in the paper, or
            `each_model`'s own, as in the released code.
        diff_algorithm: `levenshtein` over the responses, or `difflib` over prompt and response, as in the released
            code.
        ignore_stop_words: English stop words never count as differing, as in the released code.
        prefix_sharing: What the sequences of a batch begin with, prompts and responses alike, goes through the model
            once: the same numbers for less work. By default wherever attention (sdpa, flash_attention_2,
            flex_attention) and model allow it; false never.
        packing: The sequences of a batch stand end to end in one row, without padding. By default as prefix_sharing.
        micro_batch_tokens: The pairs of an optimizer step (micro-batch × accumulation) go through the model in as few
            micro-batches of at most so many tokens as their order allows, whatever their number: the same steps, for
            fewer and fuller passes where pairs are short. By default a micro-batch is a number of pairs.
        precompute_ref_log_probs: Run the reference once, before training, and keep no reference model in memory. By
            default wherever the run goes through all pairs.
        reference_cache: Folder of the reference log-probs, which other runs reuse; by default `bmc-reference`
            in the cache of 🤗 datasets.
        ref_model_name_or_path: π_ref, a Hub id or a folder; by default the model that training begins with. It is
            loaded only until its log-probs are there, if they are computed before training.
        resume_from_checkpoint: A checkpoint's path; nothing for the newest in output_dir, if there is one; true where
            there must be one, perhaps of another trainer; false for none.
    """

    STAGE: ClassVar = "train"

    LIMITS: ClassVar = TRAINER_LIMITS | {
        "loss_weights": list[_Finite] | None,
        "discopop_tau": _Steps,
        "label_smoothing": _Share,
        "precompute_ref_batch_size": _Count | None,
    }

    beta: Annotated[float, Field(gt=0.0)] = 0.1
    loss_type: list[str] | str = field(default_factory=lambda: ["sigmoid"], metadata={"choices": list(LOSSES)})
    simpo_gamma: Annotated[float, Field(ge=0.0)] = 0.5
    rdpo_alpha: Annotated[float, Field(allow_inf_nan=False)] = 0.05
    orpo_lambda: Annotated[float, Field(ge=0.0)] = 0.1
    figa_alpha: Annotated[float, Field(ge=0.0)] = 1.0
    figa_beta: Annotated[float, Field(ge=0.0)] = 0.5
    token_weighting: Literal["none", "bmc", "confpo", "entropy", "position", "shift", "external"] = "none"
    bmc_delta: Annotated[float, Field(ge=0.0)] = 3.0
    entropy_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    position_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 0.98
    rejected_weight: Annotated[float, Field(ge=0.0)] = 0.75
    weight_source: Literal["policy", "each_model"] = "policy"
    diff_algorithm: Literal["levenshtein", "difflib"] = "levenshtein"
    ignore_stop_words: bool = False
    prefix_sharing: bool | None = None
    packing: bool | None = None
    micro_batch_tokens: Annotated[int, Field(ge=1)] | None = None
    precompute_ref_log_probs: bool | None = None
    reference_cache: str | None = None
    ref_model_name_or_path: str | None = None
    resume_from_checkpoint: str | None = None

    @classmethod
    def of(cls, args: trl.DPOConfig) -> BMCConfig:
        """Give a `trl.DPOConfig` the keys that it lacks, at their defaults; what it says stays as it is.

        Raises:
            ValueError: It asks for something that BMCTrainer doesn't have.
        """
        if isinstance(args, cls):
            return args
        config = copy.copy(args)
        config.__class__ = cls
        for known in fields(cls):
            if known.name not in vars(config):
                setattr(config, known.name, default_of(known))
        config._check()
        return config

    def __post_init__(self) -> None:
        self._check()
        if self.micro_batch_tokens is not None:  # the data loader deals out a whole step (`collator`)
            given = dict(vars(self))
            size, steps = given["per_device_train_batch_size"], given["gradient_accumulation_steps"]
            self.per_device_train_batch_size, self.gradient_accumulation_steps = size * steps, 1
            self.precompute_ref_batch_size = given["precompute_ref_batch_size"] or size
        super().__post_init__()

    def _check(self) -> None:
        """Check our own keys."""
        values = vars(self)
        hints = get_type_hints(BMCConfig, include_extras=True) | BMCConfig.LIMITS
        for key, kind in ((one.name, hints[one.name]) for one in fields(self)):
            if key in BMCConfig.__annotations__:
                try:
                    TypeAdapter(kind).validate_python(values[key])
                except ValidationError as error:
                    said = error.errors()[0]["msg"].removeprefix("Input should be ")
                    raise ValueError(f"{key}: must be {said}, got {values[key]!r}") from None
        defaults = {field.name: field.default for field in fields(self)}
        for key, what in self.value_faults({key: value for key, value in values.items() if value != defaults.get(key)}):
            raise ValueError(f"{key}: {what}")

    @property
    def reads_reference(self) -> bool:
        """Return whether an objective reads the reference log-probs."""
        return not REFERENCE_FREE.issuperset([self.loss_type] if isinstance(self.loss_type, str) else self.loss_type)

    @staticmethod
    def value_faults(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield `(key, what is wrong)` for values of the right type that BMCTrainer can't train with."""
        given = values.get("loss_type", ["sigmoid"])
        names = [given] if isinstance(given, str) else given
        for name in names:
            if name not in LOSSES:
                hint = did_you_mean(name, list(LOSSES))
                yield "loss_type", f"'{name}' is unknown; choose from {', '.join(LOSSES)}{hint}"
        if not names:
            yield "loss_type", f"names no objective; choose from {', '.join(LOSSES)}"
        yield from _hyperparameter_faults(names, values)
        yield from trainer_value_faults(values)
        together = sorted(OF_A_BATCH.intersection(names))
        if together and values.get("micro_batch_tokens"):
            yield (
                "micro_batch_tokens",
                f"{' and '.join(together)} depends on which pairs share a micro-batch; leave it out",
            )
        weights = values.get("loss_weights")
        if weights is not None and len(weights) != len(names):
            yield "loss_weights", f"has {len(weights)} numbers for {len(names)} objectives; write one for each"
        if values.get("ref_model_name_or_path") and names and REFERENCE_FREE.issuperset(names):
            yield "ref_model_name_or_path", f"{' + '.join(names)} has no reference; leave it out"
        weighting = values.get("token_weighting", "none")
        for key, reader in WEIGHTING_KEYS.items():
            if weighting != reader and values.get(key, "policy") != "policy":
                what = f"token_weighting: {weighting} doesn't read it; write token_weighting: {reader}, or leave it out"
                yield key, what
        if weighting not in ("bmc", "position"):
            for key in ("diff_algorithm", "ignore_stop_words"):
                if values.get(key, False) not in (False, "levenshtein") and "figa" not in names:
                    yield (
                        key,
                        "without λ no loss reads which tokens differ; write token_weighting: bmc, or leave it out",
                    )
        if values.get("train_sampling_strategy") == "batch_rebalance":
            yield "train_sampling_strategy", "batch_rebalance weighs pairs unequally; take group_by_length"
        if (values.get("liger_kernel_config") or {}).get("fused_linear_cross_entropy"):
            what = "fused_linear_cross_entropy takes the place of the head that log-probs come from; leave it out"
            yield "liger_kernel_config", what
        launcher = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()  # its config's dynamo_backend
        if launcher != "no" or any(values.get(key) for key in _COMPILE):
            what = (
                "compiles again for almost every batch, since the trees of shared prefixes differ; leave it out "
                "(use_liger_kernel: true fuses norms, RoPE and MLPs)"
            )
            yield (
                "torch_compile",
                f"{what} (of the accelerate config: dynamo_backend: 'no')" if launcher != "no" else what,
            )
        for key, neutral in _UNSUPPORTED.items():
            if values.get(key, neutral) != neutral:
                yield key, "BMCTrainer doesn't have it; leave it out, or use trl.DPOTrainer"


def _hyperparameter_faults(names: list[str], values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield hyperparameters that none of the objectives reads, or that one can't use."""
    smoothing = values.get("label_smoothing", 0.0)
    if "exo_pair" in names and not 0 < smoothing < 1:
        yield "label_smoothing", f"must be between 0 and 1 for exo_pair (its paper: 1e-3), got {smoothing:g}"
    if "robust" in names and not 0 <= smoothing < 0.5:
        yield "label_smoothing", f"must be 0 or more and below 0.5 for robust, got {smoothing:g}"
    known = [name for name in names if name in LOSSES]
    read = {key for name in known for key in hyperparameters(name)}
    given = HYPERPARAMETERS & values.keys() - ({"label_smoothing"} if not smoothing else set())
    for key in sorted(given - read) if known else []:
        theirs = [name for name in LOSSES if key in hyperparameters(name)]
        shown = ", ".join(theirs if len(theirs) < 5 else [*theirs[:3], "…"])
        yield key, f"{' + '.join(names)} doesn't read it; leave it out (it is of {shown})"


# keys that one token_weighting reads
WEIGHTING_KEYS = {
    "bmc_delta": "bmc", "weight_source": "bmc", "entropy_share": "entropy", "position_decay": "position",
    "rejected_weight": "shift",
}  # fmt: skip
# hyperparameters that a recipe may only set for an objective that reads them; label_smoothing: 0.0 stands in many
HYPERPARAMETERS = {key for name in LOSSES for key in hyperparameters(name)}
_COMPILE = ("torch_compile", "torch_compile_backend", "torch_compile_mode")
# keys of DPOConfig that change the loss in ways that token weights have no definition for
_UNSUPPORTED: dict[str, Any] = {
    "f_divergence_type": "reverse_kl",
    "f_alpha_divergence_coef": 0.5,
    "label_smoothing_factor": 0.0,
    "ld_alpha": None,
    "sync_ref_model": False,
    "ref_model_mixup_alpha": 0.6,
    "ref_model_sync_steps": 512,
    "use_weighting": False,
    "truncation_mode": "keep_start",
}
