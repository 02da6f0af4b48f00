"""Weight files that can't be trusted are refused before anything is loaded, on one line."""

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bmc.errors import UserErrors
from bmc.models import check_model, check_weight_files


@pytest.fixture
def model(tmp_path: Path, model_dir: Path) -> Path:
    return Path(shutil.copytree(model_dir, tmp_path / "model"))


def told(folder: Path, **options: bool) -> str:
    with pytest.raises(UserErrors) as caught:
        check_model(str(folder), "main", options.pop("trust_remote_code", False), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_model_is_fine(model: Path) -> None:
    check_model(str(model), "main", False)


def test_a_damaged_file(subtests: pytest.Subtests, model: Path) -> None:
    file = model / "model.safetensors"
    data = file.read_bytes()
    damages = {
        "cut by a byte": data[:-1], "empty": b"", "a byte too long": data + b"0",
        "a huge header": struct.pack("<Q", 2**40) + data[8:], "no JSON": data.replace(b'{"', b"{?", 1),
        "a web page": b"<html><body>Not found</body></html>"
    }  # fmt: skip
    for name, damaged in damages.items():
        with subtests.test(name):
            file.write_bytes(damaged)
            message = told(model)
            assert message.startswith(
                f"{file}: is damaged or cut short ({file.stat().st_size:,} bytes; safetensors says: "
            )
            assert message.endswith("; copy or save the model again")


def test_shards_that_are_missing_or_cut_short(model: Path) -> None:
    (model / "model.safetensors").unlink()
    shards = {"a.weight": "model-00001-of-00002.safetensors", "b.weight": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    save_file({"a.weight": torch.zeros(4)}, model / "model-00001-of-00002.safetensors")
    assert told(model) == (
        f"{model}/model-00002-of-00002.safetensors: is missing, and model.safetensors.index.json names it; copy it too"
    )
    (model / "model-00002-of-00002.safetensors").write_bytes(b"short")
    assert "model-00002-of-00002.safetensors: is damaged or cut short (5 bytes; " in told(model)
    (model / "model.safetensors.index.json").write_text("[]")
    assert "model.safetensors.index.json: is no index of safetensors files" in told(model)


def test_pickled_weights_are_refused_unless_they_are_allowed(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    (model / "training_args.bin").touch()
    assert told(model) == (
        f"model_name_or_path: '{model}' has only pickled weights (pytorch_model.bin), which may run any code when they "
        "are loaded; convert them to safetensors, or set allow_pickle: true"
    )
    check_model(str(model), "main", False, allow_pickle=True)
    shutil.copy(model / "pytorch_model.bin", model / "model.safetensors")  # not read where safetensors are
    check_weight_files(str(model))


def test_a_model_that_wants_to_run_code(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / "mine.py").write_text("raise SystemExit('it ran')\n")
    assert told(model) == (
        f"trust_remote_code: '{model}' wants to run code of its own; read it, then set trust_remote_code: true, or "
        "choose a model that transformers has"
    )
    with pytest.raises(SystemExit, match="it ran"):
        check_model(str(model), "main", True)
