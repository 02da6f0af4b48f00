from pathlib import Path
from typing import get_args

import pytest

from bmc.config import GpuName
from bmc.errors import UserErrors
from bmc.planning.hardware import GPUS, LaunchConfig, _of_environment, read_launch

CONFIGS = Path(__file__).parents[2] / "recipes/accelerate_configs"


def test_every_accelerate_config_is_understood(subtests: pytest.Subtests) -> None:
    for name, launch, said in [
        ("zero3", LaunchConfig(4, 1, "deepspeed", 3), "ZeRO-3, 4 processes"),
        ("zero2", LaunchConfig(4, 1, "deepspeed", 2), "ZeRO-2, 4 processes"),
        ("fsdp2", LaunchConfig(4, 1, "fsdp"), "FSDP2, 4 processes"),
        ("ddp", LaunchConfig(4, 1, "ddp"), "DDP, 4 processes"),
        ("cpu", LaunchConfig(2, 1, "ddp"), "DDP, 2 processes"),
        ("zero3_cpu", LaunchConfig(2, 1, "deepspeed", 3), "ZeRO-3, 2 processes"),
    ]:
        with subtests.test(name=name, launch=launch):
            assert read_launch(str(CONFIGS / f"{name}.yaml")) == launch
            assert str(launch) == said


def test_more_processes_than_the_config_has_are_on_more_machines() -> None:
    assert read_launch(str(CONFIGS / "zero3.yaml"), 8) == LaunchConfig(8, 2, "deepspeed", 3)
    assert str(LaunchConfig(8, 2, "deepspeed", 3, True)) == "ZeRO-3, 8 processes on 2 machines, optimizer offloaded"


def test_what_is_sharded() -> None:
    assert [launch.shards for launch in (LaunchConfig(4, 1, "ddp"), LaunchConfig(4, 1, "deepspeed", 2))] == [1, 1]
    assert [launch.shards for launch in (LaunchConfig(4, 1, "fsdp"), LaunchConfig(4, 1, "deepspeed", 3))] == [4, 4]


def test_a_deepspeed_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text('{"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}')
    config = tmp_path / "a.yaml"
    config.write_text(
        f"{{distributed_type: DEEPSPEED, num_processes: 2, deepspeed_config: {{deepspeed_config_file: {file}}}}}"
    )
    assert read_launch(str(config)) == LaunchConfig(2, 1, "deepspeed", 3, False, True)


def test_under_accelerate_launch_it_is_what_that_says() -> None:
    said = {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "ACCELERATE_USE_DEEPSPEED": "true"}
    stage3 = {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"}
    assert _of_environment(said | stage3) == LaunchConfig(8, 2, "deepspeed", 3, True)
    assert _of_environment({"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true"}) == LaunchConfig(2, 1, "fsdp")
    assert _of_environment({"WORLD_SIZE": "2"}) == LaunchConfig(2, 1, "ddp")
    assert _of_environment({}) == LaunchConfig()


def test_faults(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for text, what in [
        ("[", "is no config of accelerate's"),
        ("{num_processes: 4}", "is no config of accelerate's"),
        ("{distributed_type: XLA}", "distributed_type XLA is none of NO, MULTI_GPU"),
        ("{distributed_type: TPU}", "'TPU' is not a valid DistributedType"),
    ]:
        with subtests.test(text=text, what=what):
            (tmp_path / "a.yaml").write_text(text)
            with pytest.raises(UserErrors, match=what) as caught:
                read_launch(str(tmp_path / "a.yaml"))
            assert "\n" not in str(caught.value)
            assert read_launch("zero3") == read_launch(str(CONFIGS / "zero3.yaml"))
            with pytest.raises(
                UserErrors, match=r"accelerate_config: zero4 cannot be read: .*one of cpu, ddp, fsdp2, zero2, zero3"
            ):
                read_launch("zero4")
            with pytest.raises(UserErrors, match=r"accelerate_config: .*none.yaml cannot be read: No such file"):
                read_launch(str(tmp_path / "none.yaml"))


def test_a_recipe_can_name_each_card() -> None:
    assert set(get_args(GpuName)) == set(GPUS)
