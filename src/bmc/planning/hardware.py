"""Cards and launchers: what a recipe is to run on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from ..errors import fail

OWN_CONFIGS = Path(__file__).parents[3] / "recipes/accelerate_configs"  # of the checkout that this is installed from
Engine = Literal["none", "ddp", "fsdp", "deepspeed"]


@dataclass(frozen=True)
class Gpu:
    """A card by its data sheet.

    Attributes:
        memory_gib: Memory in GiB, as nvidia-smi counts.
        teraflops: Dense bf16 peak, 10¹² FLOP/s.
        bandwidth: Of its memory, 10⁹ bytes/s.
    """

    memory_gib: float
    teraflops: float
    bandwidth: float


GPUS: dict[str, Gpu] = {
    "A800-80GB": Gpu(80, 312, 2039),
    "A100-80GB": Gpu(80, 312, 2039),
    "A100-40GB": Gpu(40, 312, 1555),
    "H100-80GB": Gpu(80, 989, 3350),
    "H200-141GB": Gpu(141, 989, 4800),
    "L40S-48GB": Gpu(48, 362, 864),
    "RTX4090-24GB": Gpu(24, 165, 1008),
    "RTX3090-24GB": Gpu(24, 71, 936),
}


@dataclass(frozen=True)
class Launch:
    """How many processes there are, and how they share a model.

    Attributes:
        processes: On all machines together, one a card.
        machines: How many.
        engine: Who shares it out.
        zero_stage: DeepSpeed's.
        offload_optimizer: Whether optimizer states lie in the host's memory.
        offload_params: Whether weights do.
    """

    processes: int = 1
    machines: int = 1
    engine: Engine = "none"
    zero_stage: int = 0
    offload_optimizer: bool = False
    offload_params: bool = False

    @property
    def shards(self) -> int:
        """Processes that share weights, gradients and optimizer states."""
        return self.processes if self.engine == "fsdp" or self.zero_stage == 3 else 1

    def __str__(self) -> str:
        names = {"none": "no engine", "ddp": "DDP", "fsdp": "FSDP2", "deepspeed": f"ZeRO-{self.zero_stage}"}
        where = "1 process" if self.processes == 1 else f"{self.processes} processes"
        offloaded = [
            name for name, is_so in (("optimizer", self.offload_optimizer), ("weights", self.offload_params)) if is_so
        ]
        return ", ".join(
            [
                names[self.engine],
                where + (f" on {self.machines} machines" if self.machines > 1 else ""),
                *([f"{' and '.join(offloaded)} offloaded"] if offloaded else []),
            ]
        )


def is_launched() -> bool:
    """Whether this process was started by `accelerate launch`."""
    return "ACCELERATE_MIXED_PRECISION" in os.environ


def read_launch(path: str | None, processes: int | None = None) -> Launch:
    """The launcher that an accelerate config describes; without one, that of this process.

    Args:
        path: An accelerate config, as for `accelerate launch --config_file`.
        processes: How many there are instead, as many on each machine.

    Raises:
        Faults: The file can't be read, or is of a kind that no recipe is launched with.
    """
    if path is None or is_launched():
        return _of_environment(os.environ)
    try:
        config = yaml.safe_load(_found(path).read_text(encoding="utf-8"))
        if processes is not None:
            each = -(-int(config.get("num_processes", 1)) // int(config.get("num_machines", 1)))
            config |= {"num_processes": processes, "num_machines": -(-processes // each)}
        return _of_config(config)
    except OSError as error:
        names = ", ".join(sorted(file.stem for file in OWN_CONFIGS.glob("*.yaml")))
        what = f"{path} cannot be read: {error.strerror}; give a file, or one of {names}"
        raise fail("accelerate_config", what) from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise fail(
            "accelerate_config", f"{path} is no config of accelerate's ({reason}); see `accelerate config`"
        ) from None


def _found(path: str) -> Path:
    """An accelerate config by its path, or by the name of one of this repository's: `zero3`."""
    named = OWN_CONFIGS / f"{Path(path).stem}.yaml"
    return named if "/" not in path and named.is_file() and not Path(path).is_file() else Path(path)


def _of_config(config: dict[str, Any]) -> Launch:
    engines: dict[str, Engine] = {
        "NO": "none", "MULTI_GPU": "ddp", "MULTI_CPU": "ddp", "FSDP": "fsdp", "DEEPSPEED": "deepspeed"
    }  # fmt: skip
    kind = config["distributed_type"]
    if kind not in engines:
        raise ValueError(f"distributed_type {kind} is none of {', '.join(engines)}")
    processes, machines = int(config.get("num_processes", 1)), int(config.get("num_machines", 1))
    if kind != "DEEPSPEED":
        return Launch(processes, machines, engines[kind] if processes > 1 else "none")
    settings = config["deepspeed_config"]
    if file := settings.get("deepspeed_config_file"):
        given = json.loads(Path(file).read_text(encoding="utf-8"))["zero_optimization"]
        devices = {key: given.get(key, {}).get("device") for key in ("offload_optimizer", "offload_param")}
        settings = {"zero_stage": given["stage"]} | {f"{key}_device": value for key, value in devices.items()}
    return Launch(
        processes,
        machines,
        "deepspeed",
        int(settings["zero_stage"]),
        settings.get("offload_optimizer_device") in ("cpu", "nvme"),
        settings.get("offload_param_device") in ("cpu", "nvme"),
    )


def _of_environment(environment: Mapping[str, str]) -> Launch:
    """What `accelerate launch` tells its processes."""
    processes = int(environment.get("WORLD_SIZE", "1"))
    machines = max(1, processes // int(environment.get("LOCAL_WORLD_SIZE", processes)))
    if environment.get("ACCELERATE_USE_DEEPSPEED") == "true":
        stage = int(environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"))
        offloads = ("OPTIMIZER", "PARAM")
        devices = [environment.get(f"ACCELERATE_DEEPSPEED_OFFLOAD_{name}_DEVICE") for name in offloads]
        return Launch(processes, machines, "deepspeed", stage, *(device in ("cpu", "nvme") for device in devices))
    if environment.get("ACCELERATE_USE_FSDP") == "true":
        return Launch(processes, machines, "fsdp")
    return Launch(processes, machines, "ddp" if processes > 1 else "none")
