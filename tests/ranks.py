"""Runs stages one after another in each process that a launcher has started, and writes down what they do.

    accelerate launch … tests/ranks.py JOBS.json

`JOBS.json` is a list of `{name, argv, …}`. Each runs in a fork of this process, which has imported what takes seconds.
What it prints goes to NAME.RANK.log beside the list, what is observed to NAME.RANK.jsonl, its exit code to
NAME.RANK.code. A job may have `kill_at` (SIGKILL when so many steps are done), `term_at` ([steps, rank], where a
SIGTERM comes), `term_reference_at` (likewise, in batches of the reference pass), `tear` (a file to be cut short before
it starts) and `nan_at` ([steps, rank], where the loss is no number).
"""

import itertools
import json
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

RANK = int(os.environ.get("RANK", "0"))


def let_fsdp_run_on_a_cpu() -> None:
    """Accelerate starts FSDP for GPUs alone, torch's own runs on a CPU as well: these processes say they are GPUs."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    PartialState._prepare_backend = lambda self, *_: ("gloo", DistributedType.MULTI_GPU)


def let_engines_compute_in_bf16_on_a_cpu() -> None:
    """transformers wants use_cpu for bf16 without a GPU, with which accelerate leaves DeepSpeed and FSDP out."""
    import transformers.training_args

    transformers.training_args.is_torch_bf16_gpu_available = lambda: True


def parameters_of(model: Any) -> dict[str, int]:
    """How many numbers of the weights there are, how many lie in this process, and how many weights are whose."""
    found = {"all": 0, "here": 0, "tensors": 0, "deepspeed": 0, "dtensor": 0}
    for parameter in model.parameters():
        found["tensors"] += 1
        if hasattr(parameter, "ds_tensor"):
            found["deepspeed"] += 1
            found["all"] += parameter.ds_numel
            found["here"] += parameter.ds_tensor.numel()
        elif hasattr(parameter, "to_local"):
            found["dtensor"] += any(placement.is_shard(0) for placement in parameter.placements)
            found["all"] += parameter.numel()
            found["here"] += parameter.to_local().numel()
        else:
            found["all"] += parameter.numel()
            found["here"] += parameter.numel()
    return found


def observe(job: dict[str, Any], say: Any) -> None:
    """Patches the trainer of a job."""
    import torch
    from transformers import Trainer, TrainerCallback

    from bmc.training.fault_tolerance import FaultTolerantTrainer
    from bmc.training.trainer import BMCTrainer

    class Watch(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == job.get("kill_at"):
                os.kill(os.getpid(), signal.SIGKILL)
            if [state.global_step, RANK] == job.get("term_at"):
                os.kill(os.getpid(), signal.SIGTERM)

    started, stepped, ours = Trainer.__init__, Trainer.training_step, FaultTolerantTrainer.training_step

    def start(self: Any, *args: Any, **kwargs: Any) -> None:
        started(self, *args, **kwargs)
        self.add_callback(Watch())

    def our_step(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if "ids" in inputs:
            weights = inputs.get("pair_weights", torch.ones(len(inputs["ids"]))).tolist()
            ids = [name for name, weight in zip(inputs["ids"], weights, strict=True) if weight]
            say({"step": self.state.global_step, "ids": ids})
        if self.state.global_step == 1:
            say({"engine": type(self.model_wrapped).__name__, **parameters_of(model)})
        return ours(self, model, inputs, *args, **kwargs)

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = stepped(self, *args, **kwargs)
        return loss * float("nan") if [self.state.global_step, RANK] == job.get("nan_at") else loss

    batches, reference = itertools.count(1), BMCTrainer._reference_logps

    def reference_batch(self: Any, *args: Any, **kwargs: Any) -> Any:
        if [next(batches), RANK] == job.get("term_reference_at"):
            os.kill(os.getpid(), signal.SIGTERM)
        return reference(self, *args, **kwargs)

    BMCTrainer._reference_logps = reference_batch  # type: ignore[method-assign]
    Trainer.__init__, Trainer.training_step, FaultTolerantTrainer.training_step = start, step, our_step  # type: ignore


def run(job: dict[str, Any], folder: Path) -> None:
    """A job, in the fork that is its own."""
    log = os.open(folder / f"{job['name']}.{RANK}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    observed = (folder / f"{job['name']}.{RANK}.jsonl").open("w")
    observe(job, lambda what: print(json.dumps(what), file=observed, flush=True))
    if RANK == 0 and "tear" in job:
        os.truncate(job["tear"], os.path.getsize(job["tear"]) - 1)
    sys.argv = job["argv"]
    runpy.run_path(sys.argv[0], run_name="__main__")


def main(jobs: Path) -> None:
    import datasets  # noqa: F401
    import torch  # noqa: F401
    import trl  # noqa: F401

    import bmc.training.sweep
    import bmc.training.trainer

    bmc.runs.GRACE = 0  # no launcher ends a fork
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401 - imports torch's compiler
        from deepspeed.accelerator import get_accelerator

        get_accelerator().create_op_builder("ShareMemCommBuilder").load(verbose=False)  # looks each time for a compiler
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        let_fsdp_run_on_a_cpu()
    let_engines_compute_in_bf16_on_a_cpu()
    for number, job in enumerate(json.loads(jobs.read_text())):
        child = os.fork()
        if not child:
            if "MASTER_PORT" in os.environ:
                os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + 1 + number)
                os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"  # which listens at the launcher's port
            try:
                run(job, jobs.parent)
                os._exit(0)
            except SystemExit as end:
                os._exit(end.code if isinstance(end.code, int) else 1)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        (jobs.parent / f"{job['name']}.{RANK}.code").write_text(str(code))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
