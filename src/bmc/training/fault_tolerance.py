"""Fault-tolerant training: atomic checkpoints, exact resume, SIGTERM, NaN checks."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import torch
import trl
from accelerate.utils import gather_object
from torch import Tensor
from transformers import Trainer, TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import has_length, rotate_checkpoints

from ..data.tokenization import mark_assistant
from ..errors import UserErrors, user_error
from ..models import find_file_damage, warn_if_slow
from ..precision import HALF, keep_differentiable, keep_outputs, mixed_precision, train_in_float32
from ..runs import differing_keys, write_json
from .trl_compat import items_in_batch

logger = logging.getLogger(__name__)

CHECKPOINT_FILES = "checkpoint.json"
PARTIAL = ".checkpoint-partial"
NONE_THERE = "true, and {} holds no whole checkpoint; leave it out to start from the beginning where there is none"


def write_manifest(folder: Path, recipe: dict[str, Any] | None = None) -> None:
    """Flush a checkpoint to the disk and list its files, with their sizes, in `checkpoint.json`."""
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(_files(folder))}
    write_json(folder / CHECKPOINT_FILES, {"files": sizes, "recipe": recipe})
    for path in (*_files(folder), *(path for path in folder.rglob("*") if path.is_dir()), folder):
        _sync(path)


def commit(partial: Path, final: Path) -> None:
    """Rename a complete checkpoint into place of an older one of ours; move aside what another trainer wrote."""
    if final.exists() and not (final / CHECKPOINT_FILES).exists():
        aside = next(path for n in count(1) if not (path := final.with_name(f"replaced-{n}-{final.name}")).exists())
        logger.warning("%s isn't of this trainer; it is now %s", final, aside.name)
        os.replace(final, aside)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    _sync(final.parent)


def find_damage(folder: Path) -> str | None:
    """Say what keeps a checkpoint from being used; None if it is whole."""
    if not (folder / CHECKPOINT_FILES).exists():
        return _find_damage_without_manifest(folder)
    try:
        sizes = json.loads((folder / CHECKPOINT_FILES).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        return f"{CHECKPOINT_FILES}, which is written last, can't be read"
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} of {size:,} bytes"
    return None


def _find_damage_without_manifest(folder: Path) -> str | None:
    """Look for damage in a checkpoint of another trainer. transformers writes `trainer_state.json` last."""
    try:
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
    except (OSError, ValueError, KeyError, TypeError):
        return (
            f"it has neither {CHECKPOINT_FILES} nor a trainer_state.json that can be read, one of which is written last"
        )
    weights = sorted(folder.glob("*.safetensors"))
    return next((f"{path.name} {reason}" for path in weights if (reason := find_file_damage(path))), None)


def is_from_another_trainer(folder: Path) -> bool:
    """Return whether another trainer wrote a checkpoint that can be used."""
    return not (folder / CHECKPOINT_FILES).exists() and find_damage(folder) is None


def check_start(output_dir: str, start: str | None) -> None:
    """Check that a training overwrites no checkpoint of another trainer.

    Raises:
        UserErrors: There are some that it would come to.
    """
    done = (
        int(match[1]) if start and Path(start).parent == Path(output_dir) and (match := _numbered(Path(start))) else 0
    )
    steps = {int(match[1]): path for path in Path(output_dir).glob("checkpoint-*") if (match := _numbered(path))}
    ahead = [path.name for step, path in sorted(steps.items()) if step > done and is_from_another_trainer(path)]
    if ahead:
        what = f"holds {', '.join(ahead)} of another trainer, which this one would overwrite"
        raise user_error(
            output_dir, f"{what}; resume_from_checkpoint: true goes on from it, another output_dir starts anew"
        )


def find_start(output_dir: str, given: bool | str | None, recipe: dict[str, Any]) -> str | None:
    """Find the checkpoint that a recipe's run starts from; None for the beginning. It writes nothing.

    Raises:
        UserErrors: There is no such checkpoint, or it is another recipe's; or the run would overwrite another
            trainer's.
    """
    if isinstance(given, str):
        check_checkpoint(Path(given), recipe)
        start: str | None = given
    else:
        start = None if given is False else last_checkpoint(output_dir)
        if given is None and start and is_from_another_trainer(Path(start)):
            start = None  # which check_start then refuses: the recipe that made it isn't known
    if given is True and start is None:
        raise user_error("resume_from_checkpoint", NONE_THERE.format(output_dir))
    check_start(output_dir, start)
    return start


def last_checkpoint(output_dir: str) -> str | None:
    """Find the newest whole checkpoint of a run; warn of damaged ones."""
    found = {int(match[1]): path for path in Path(output_dir).glob("checkpoint-*") if (match := _numbered(path))}
    for step in sorted(found, reverse=True):
        reason = find_damage(found[step])
        if reason is None:
            return str(found[step])
        logger.warning("%s is torn (%s); going back to the one before it", found[step], reason)
    return None


def check_checkpoint(folder: Path, recipe: dict[str, Any]) -> None:
    """Check that a run may go on from a checkpoint that its recipe names.

    Raises:
        UserErrors: It isn't there, is torn, or was written by another recipe.
    """
    if not folder.is_dir():
        raise user_error(
            "resume_from_checkpoint", f"{folder} is no folder; leave it out to start from the newest checkpoint"
        )
    reason = find_damage(folder)
    if reason:
        raise user_error(
            str(folder), f"is torn ({reason}); without resume_from_checkpoint the newest whole one is taken"
        )
    if is_from_another_trainer(folder):
        return  # what made it isn't known
    earlier = json.loads((folder / CHECKPOINT_FILES).read_text(encoding="utf-8"))["recipe"]
    changed = differing_keys(earlier or recipe, recipe)
    if changed:
        raise user_error(
            str(folder),
            f"is a checkpoint of another recipe (it differs in {', '.join(changed)}); to go on from its weights alone, "
            "give it as model_name_or_path",
        )


def is_full_disk(error: BaseException) -> bool:
    """Return whether a file couldn't be written: libraries hide the system's error in texts of their own."""
    return isinstance(error, OSError) or bool(
        re.search(r"No space left|os error 28|PytorchStreamWriter failed|File too large|os error 27", str(error))
    )


def _numbered(path: Path) -> re.Match[str] | None:
    return re.fullmatch(r"checkpoint-(\d+)", path.name) if path.is_dir() else None


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and path != folder / CHECKPOINT_FILES)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def any_process(here: bool, accelerator: Any) -> bool:
    """Return whether a signal came to any rank; it reaches them at different steps. All ranks call this together."""
    if accelerator.num_processes == 1:
        return here
    return bool(accelerator.reduce(torch.tensor(float(here), device=accelerator.device)) > 0)


class FaultTolerantTrainer(Trainer):
    """Mixin before a trainer class.

    A checkpoint appears when it is whole, with what the trainer's own lacks: the sums behind the next logged line, so
    that a resumed run logs what one that was never stopped would. On SIGTERM the step is finished, a checkpoint saved
    and `preempted` set. A loss or gradient norm that isn't finite is a fault that names the batch's rows.

    Attributes:
        recipe: What decides the run's results; stands in its checkpoints.
        preempted: Whether SIGTERM ended the training.
        seconds_before: Training time of earlier processes of a resumed run.
    """

    recipe: dict[str, Any] | None = None
    preempted = False
    seconds_before = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._partial: Path | None = None
        self._resumed_from: str | None = None
        self._batches: list[Any] = []
        self._sampler_by_length: SeededLengthSampler | None = None
        super().__init__(*args, **kwargs)
        if not (self.is_deepspeed_enabled and mixed_precision(self.args) in HALF):
            train_in_float32(self.model)  # TRL and PEFT leave some adapters, and modules beside them, in 16 bits
        self.add_callback(PreemptionCallback(self))

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        keep_differentiable(self.model)
        if (kind := self.accelerator.mixed_precision) in HALF:
            warn_if_slow(self.accelerator.device.type, HALF[kind], kind, "false")
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        if plugin is not None and plugin.mixed_precision_policy is not None:
            plugin.mixed_precision_policy = keep_outputs(plugin.mixed_precision_policy)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train as the trainer does; `True` takes the newest checkpoint that is whole, of this trainer or another.

        Raises:
            UserErrors: `True`, and there is none; or the training would overwrite another trainer's checkpoints.
        """
        folder = self.args.output_dir
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_checkpoint(folder)
            if resume_from_checkpoint is None:
                raise user_error("resume_from_checkpoint", NONE_THERE.format(folder))
        check_start(folder, resume_from_checkpoint or None)
        self._resumed_from = resume_from_checkpoint or None
        return super().train(resume_from_checkpoint=self._resumed_from, **kwargs)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Train an epoch, unless the checkpoint is of the last step: transformers would take one more."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    # checkpoints

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._partial or super()._get_output_dir(trial))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self._partial is None:
            super()._push_from_checkpoint(checkpoint_folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save as the trainer does, under another name first."""
        run = Path(super()._get_output_dir(trial))
        name, partial = f"checkpoint-{self.state.global_step}", run / PARTIAL
        if self.args.should_save:
            shutil.rmtree(partial, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._partial = partial
        try:
            super()._save_checkpoint(model, trial)
            self._write_progress(partial / name)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                self._name_best(run, partial / name)
                write_manifest(partial / name, self.recipe)
                commit(partial / name, run / name)
        except Exception as error:
            shutil.rmtree(partial, ignore_errors=True)
            if not is_full_disk(error):
                raise
            kept = last_checkpoint(str(run)) or "none was saved before"
            raise user_error(
                str(run / name), f"can't be written ({error}); make room and start again, from the newest: {kept}"
            ) from None
        finally:
            self._partial = None
        if self.args.should_save:
            shutil.rmtree(partial, ignore_errors=True)
            rotate_checkpoints(
                output_dir=str(run),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )
        self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            super()._push_from_checkpoint(str(run / name))

    def _name_best(self, run: Path, written: Path) -> None:
        """Write the best checkpoint's path, as it is after renaming, into the saved state."""
        if self.state.best_global_step:
            best = run / f"checkpoint-{self.state.best_global_step}"
            if best.exists() or best.name == written.name:
                self.state.best_model_checkpoint = str(best)
                self.state.save_to_json(str(written / "trainer_state.json"))

    # an exact resume

    def _progress_file(self, folder: Path) -> Path:
        return folder / f"progress_{self.args.process_index}.json"

    def _write_progress(self, folder: Path) -> None:
        """Save the sums since the last logged line, and those over the whole training."""
        metrics = getattr(self, "_metrics", {})
        progress = {
            "tr_loss": self._tr_loss.item(),
            "total_loss": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
            "seconds": self.seconds_before + time.time() - self._began,
            "metrics": {mode: dict(values) for mode, values in metrics.items()},
            "tokens": getattr(self, "_total_train_tokens", None),
        }
        write_json(self._progress_file(folder), progress)

    def _read_progress(self) -> None:
        path = self._progress_file(Path(self._resumed_from)) if self._resumed_from else None
        if path is None or not path.exists():  # another number of processes: the next logged line is of what follows
            return
        progress = json.loads(path.read_text(encoding="utf-8"))
        self._tr_loss = torch.tensor(progress["tr_loss"], device=self.args.device)
        self._total_loss_scalar = progress["total_loss"]
        self._globalstep_last_logged = progress["last_logged"]
        self.seconds_before = progress["seconds"]
        if progress["tokens"] is not None:
            self._total_train_tokens = progress["tokens"]
            self._metrics = {mode: defaultdict(list, values) for mode, values in progress["metrics"].items()}

    def _finalize_training(self, trial: Any, num_train_samples: int, start_time: float) -> Any:
        """Report loss and speed of the whole training, not of what came after the last resume."""
        if self.seconds_before:
            self._initial_global_step = 0
        return super()._finalize_training(trial, num_train_samples, start_time - self.seconds_before)

    # the order of rows, and each once

    def _lengths(self, dataset: Any) -> list[int]:
        """Count the tokens of each row."""
        return [len(ids) for ids in dataset["input_ids"]]

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length" or not has_length(dataset):
            return super()._get_train_sampler(train_dataset)
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        self._sampler_by_length = SeededLengthSampler(self._lengths(dataset), batch, seed)
        return self._sampler_by_length

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        by_length = self.args.train_sampling_strategy == "group_by_length"
        return None if by_length else super()._get_eval_sampler(eval_dataset)  # as they come, whatever is trained on

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Any:
        self._reweight_last_batch(batch_samples, self._train_batch_size)
        return super()._get_num_items_in_batch(batch_samples, device)

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        uneven = self._reweight_last_batch([inputs], self.args.eval_batch_size)
        loss, logits, labels = super().prediction_step(model, inputs, *args, **kwargs)
        return self.accelerator.reduce(loss, "mean") if uneven else loss, logits, labels

    def _reweight_last_batch(self, batches: list[Any], size: int) -> bool:
        """Give repeated rows of an epoch's last step no weight, and all others the same; return whether it had to."""
        progress, ranks = self.accelerator.gradient_state, self.args.world_size
        if not batches or not progress.end_of_dataloader or self.args.dataloader_drop_last:
            return False
        dataset = progress.active_dataloader.dataset
        size = size // ranks if self.args.accelerator_config.split_batches else size
        if not has_length(dataset):
            return False
        found = last_step_weights(len(dataset), size, ranks, self.args.process_index, len(batches))
        if found is None:
            return False
        own, weight = found
        for number, batch in enumerate(batches, 1):
            self._reweight_rows(batch, own if number == len(batches) else size, size, weight)
        return True

    def _reweight_rows(self, batch: Any, own: int, size: int, weight: float) -> None:
        """Drop the repeated rows from the loss, which averages over all tokens with labels."""
        mask_repeated_rows(batch, own, size)

    # numbers that aren't finite

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        parts = inputs.get("micro_batches", [inputs])
        self._batches += [part.get("ids") or part["input_ids"][:, :40] for part in parts]
        loss = super().training_step(model, inputs, *args, **kwargs)
        finite = torch.isfinite(loss)
        if self.accelerator.reduce(finite.float(), "sum") < self.args.world_size:  # all stop, each knowing why
            raise self._not_finite("loss", loss.item(), [] if finite else self._batches[-len(parts) :])
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None and not math.isfinite(norm) and not self.args.fp16:  # whose loss scaler expects it
            raise self._not_finite("gradient norm", float(norm), self._batches)
        self._batches.clear()
        return norm

    def _not_finite(self, what: str, value: float, batches: list[Any]) -> UserErrors:
        """Make the fault, with the rows of all ranks' `batches`."""
        rows: list[str] = []
        for batch in batches:  # ids, or the beginnings of rows
            texts = batch if isinstance(batch, list) else self.processing_class.batch_decode(batch)
            rows += texts if isinstance(batch, list) else [f"“{text[:60]}”" for text in texts]
        found = gather_object([(value, rows)])
        value = next(value for value, _ in found if not math.isfinite(value))
        kept = last_checkpoint(self.args.output_dir)
        return user_error(
            self.args.output_dir,
            f"stopped at step {self.state.global_step + 1}: the {what} is {value}; the batch has the rows "
            f"{', '.join(row for _, rows in found for row in rows)}; look at them, or lower learning_rate; "
            + (f"the last good checkpoint is {kept}" if kept else "no checkpoint was saved before"),
        )


class SFTTrainer(FaultTolerantTrainer, trl.SFTTrainer):
    """`trl.SFTTrainer` whose loss finds the assistant's messages without generation markers in the template."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # TRL would swap in a template with markers of its own, and refuses one that it has none for.
        config, self._assistant_only = kwargs["args"], bool(kwargs["args"].assistant_only_loss)
        config.assistant_only_loss = False
        super().__init__(*args, **kwargs)
        config.assistant_only_loss = self._assistant_only

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, *rest: Any) -> Any:
        if self._assistant_only and "input_ids" not in dataset.column_names:
            dataset = dataset.map(
                mark_assistant,
                fn_kwargs={"tokenizer": processing_class},
                num_proc=args.dataset_num_proc,
                desc="Tokenizing, and marking the assistant's messages",
            )
        return super()._prepare_dataset(dataset, processing_class, args, *rest)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Average over the tokens of all ranks in evaluation, too, where TRL's averages over those of each."""
        if num_items_in_batch is None and self.args.world_size > 1 and not self.aux_loss_enabled:
            num_items_in_batch = items_in_batch(self, [inputs])
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


class PreemptionCallback(TrainerCallback):
    """Restores a checkpoint's progress, and stops on SIGTERM when all ranks have finished the step."""

    def __init__(self, trainer: FaultTolerantTrainer) -> None:
        self.trainer, self.terminated = trainer, False
        self.before: Any = signal.SIG_DFL

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.trainer._began = time.time()
        self.trainer._read_progress()
        if threading.current_thread() is threading.main_thread():  # no other may
            self.before = signal.signal(signal.SIGTERM, self._terminate)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.trainer._sampler_by_length:
            self.trainer._sampler_by_length.epoch = int(state.epoch or 0)

    def _terminate(self, *_: Any) -> None:
        self.terminated = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if any_process(self.terminated, self.trainer.accelerator):
            self.trainer.preempted = control.should_save = control.should_training_stop = True

    def on_train_end(self, *_: Any, **__: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.before)


class SeededLengthSampler(LengthGroupedSampler):
    """Groups rows of similar length, in an order that depends on seed and epoch alone.

    transformers' own draws from the process's generator: each rank gets another order, and so does a resumed run.
    """

    def __init__(self, lengths: list[int], batch: int, seed: int) -> None:
        super().__init__(batch, lengths=lengths, generator=torch.Generator())
        self.seed, self.epoch = seed, 0

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch)
        return super().__iter__()


def last_step_weights(rows: int, size: int, ranks: int, rank: int, batches: int) -> tuple[int, float] | None:
    """Weigh the rows of an epoch's last step, where the mean over each micro-batch isn't the mean over the step.

    Args:
        rows: Rows of the epoch.
        size: Rows of a micro-batch on one process.
        ranks: Processes.
        rank: This one.
        batches: Micro-batches of the step on each process.

    Returns:
        `(rows of this process's last micro-batch that aren't repeated, weight of a row)`: with these weights the sum
        over a micro-batch, averaged over micro-batches and processes, is the mean over the rows of the step. None where
        all micro-batches are full, or the step is a single one.
    """
    left = rows % (size * ranks)
    if left == 0 or ranks == batches == 1:
        return None
    weight = batches * ranks / ((batches - 1) * size * ranks + left)
    return min(max(left - rank * size, 0), size), weight


def mask_repeated_rows(batch: dict[str, Any], own: int, size: int) -> None:
    """Remove the labels of the rows of a micro-batch after its first `own` ones.

    Rows without padding stand end to end; where packing has put several in one they can't be told apart and stay.
    """
    labels = batch["labels"]
    if len(labels) == size:
        labels[own:] = -100
    elif "position_ids" in batch and len(starts := (batch["position_ids"][0] == 0).nonzero()) == size and own < size:
        labels[0, starts[own] :] = -100
