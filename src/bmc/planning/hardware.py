"""GPUs and launch configurations: what a recipe is planned for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import user_error

OWN_CONFIGS = Path(__file__).parents[3] / "recipes/accelerate_configs"  # of the checkout that this is installed from
Engine = Literal["none", "ddp", "fsdp", "deepspeed"]
ENGINES: dict[str, Engine] = {
    "NO": "none", "MULTI_GPU": "ddp", "MULTI_CPU": "ddp", "FSDP": "fsdp", "DEEPSPEED": "deepspeed"
}  # fmt: skip
OFFLOADED = ("cpu", "nvme")


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet."""

    memory_gib: float  # memory in GiB, as nvidia-smi counts
    teraflops: float  # dense bf16 peak, 10¹² FLOP/s
    bandwidth: float  # memory bandwidth, 10⁹ bytes/s
    link: float  # to the other GPUs of its machine, 10⁹ bytes/s in one direction: NVLink, or PCIe 4.0 × 16
    # of its machine to others, for each GPU, 10⁹ bytes/s in one direction: InfiniBand HDR with A100 and A800, NDR with
    # H100 and H200, 100 Gbit/s elsewhere; assumed, since it is no part of the card
    network: float


GPUS: dict[str, Gpu] = {
    "A800-80GB": Gpu(80, 312, 2039, 200, 25),
    "A100-80GB": Gpu(80, 312, 2039, 300, 25),
    "A100-40GB": Gpu(40, 312, 1555, 300, 25),
    "H100-80GB": Gpu(80, 989, 3350, 450, 50),
    "H200-141GB": Gpu(141, 989, 4800, 450, 50),
    "L40S-48GB": Gpu(48, 362, 864, 32, 12.5),
    "RTX4090-24GB": Gpu(24, 165, 1008, 32, 12.5),
    "RTX3090-24GB": Gpu(24, 71, 936, 32, 12.5),
}


@dataclass(frozen=True)
class LaunchConfig:
    """How many processes there are, and how they shard a model."""

    processes: int = 1  # world size, one process a GPU
    machines: int = 1
    engine: Engine = "none"
    zero_stage: int = 0
    offload_optimizer: bool = False  # whether optimizer states are in host memory
    offload_params: bool = False  # whether weights are in host memory

    @property
    def shards(self) -> int:
        """Return how many processes share the weights, gradients and optimizer states."""
        return self.processes if self.engine == "fsdp" or self.zero_stage == 3 else 1

    def bandwidth(self, gpu: Gpu) -> float:
        """Return the 10⁹ bytes/s of a GPU's slowest hop, where rings go through all network cards of a machine."""
        each = self.processes / self.machines
        return gpu.link if self.machines == 1 else min(gpu.link, each * gpu.network)

    def __str__(self) -> str:
        engine = {"none": "no engine", "ddp": "DDP", "fsdp": "FSDP2", "deepspeed": f"ZeRO-{self.zero_stage}"}
        size = "1 process" if self.processes == 1 else f"{self.processes} processes"
        where = f" on {self.machines} machines" if self.machines > 1 else ""
        offloads = {"optimizer": self.offload_optimizer, "weights": self.offload_params}
        offloaded = " and ".join(name for name, is_so in offloads.items() if is_so)
        return ", ".join([engine[self.engine], size + where, *([f"{offloaded} offloaded"] if offloaded else [])])


def is_launched() -> bool:
    """Return whether `accelerate launch` started this process."""
    return "ACCELERATE_MIXED_PRECISION" in os.environ


def read_launch(path: str | None, processes: int | None = None) -> LaunchConfig:
    """Read the launch configuration of an accelerate config; without one, that of this process.

    `path` may be the name of one of ours (`zero3`). `processes` takes the place of the file's world size, with as many
    on each machine.

    Raises:
        UserErrors: The file can't be read, or is of a kind that no recipe is launched with.
    """
    if path is None or is_launched():
        return _of_environment(os.environ)
    own = OWN_CONFIGS / f"{Path(path).stem}.yaml"
    file = own if "/" not in path and own.is_file() and not Path(path).is_file() else Path(path)
    try:
        file.open().close()
        return _of_file(file, processes)
    except OSError as error:
        names = ", ".join(sorted(config.stem for config in OWN_CONFIGS.glob("*.yaml")))
        what = f"{path} cannot be read: {error.strerror}; give a file, or one of {names}"
        raise user_error("accelerate_config", what) from None
    except Exception as error:  # YAML's, JSON's and accelerate's own
        what = f"{path} is no config of accelerate's ({str(error).partition(chr(10))[0]}); see `accelerate config`"
        raise user_error("accelerate_config", what) from None


def _of_file(file: Path, processes: int | None) -> LaunchConfig:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(file))
    kind = config.distributed_type.value
    if kind not in ENGINES:
        raise ValueError(f"distributed_type {kind} is none of {', '.join(ENGINES)}")
    size, machines = max(1, int(config.num_processes)), max(1, int(config.num_machines))
    if processes is not None:
        size, machines = processes, -(-processes // -(-size // machines))
    if kind != "DEEPSPEED":
        return LaunchConfig(size, machines, ENGINES[kind] if size > 1 else "none")
    settings: dict[str, Any] = config.deepspeed_config
    if given := settings.get("deepspeed_config_file"):
        zero = json.loads(Path(given).read_text(encoding="utf-8"))["zero_optimization"]
        settings = {"zero_stage": zero["stage"]}
        settings |= {f"{key}_device": zero.get(key, {}).get("device") for key in ("offload_optimizer", "offload_param")}
    offloads = (settings.get(f"{key}_device") in OFFLOADED for key in ("offload_optimizer", "offload_param"))
    return LaunchConfig(size, machines, "deepspeed", int(settings["zero_stage"]), *offloads)


def _of_environment(environment: Mapping[str, str]) -> LaunchConfig:
    """Read what `accelerate launch` tells its processes."""
    size = int(environment.get("WORLD_SIZE", "1"))
    machines = max(1, size // int(environment.get("LOCAL_WORLD_SIZE", size)))
    if environment.get("ACCELERATE_USE_DEEPSPEED") == "true":
        stage = int(environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"))
        offloads = (environment.get(f"ACCELERATE_DEEPSPEED_OFFLOAD_{name}_DEVICE") for name in ("OPTIMIZER", "PARAM"))
        return LaunchConfig(size, machines, "deepspeed", stage, *(device in OFFLOADED for device in offloads))
    if environment.get("ACCELERATE_USE_FSDP") == "true":
        return LaunchConfig(size, machines, "fsdp")
    return LaunchConfig(size, machines, "ddp" if size > 1 else "none")
