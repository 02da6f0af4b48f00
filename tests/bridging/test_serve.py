"""A real server and a real model: `transformers serve` with SmolLM2-135M."""

import importlib.util
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bmc.bridging.run import bridge
from bmc.config import BridgeConfig, DatasetConfig, DatasetMixture
from bmc.errors import UserErrors

MODEL = Path(__file__).parents[2] / "models" / "smollm2-135m"
ROWS = [
    {"id": f"r{n}", "prompt": f"What is {n} + 2?", "chosen": f"{n} + 2 is {n + 2}.", "rejected": f"{n} + 2 is {n + 3}."}
    for n in range(3)
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    if not (MODEL / "config.json").exists():
        pytest.skip("models/smollm2-135m isn't there; make models/smollm2-135m/config.json fetches it")
    if not all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn")):
        pytest.skip("transformers serve needs fastapi and uvicorn; pip install 'transformers[serving]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-m", "transformers.cli.transformers", "serve", str(MODEL), "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(240):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                except (urllib.error.URLError, OSError):
                    assert server.poll() is None, "transformers serve has ended"
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.kill()


@pytest.mark.slow
def test_a_small_model_behind_a_real_server(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of 135M parameters seldom follows the prompt; whatever it says is an edit or a reason, and is kept."""
    monkeypatch.setenv("EDITOR_KEY", "any-word")
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    mixture = DatasetMixture(datasets=[DatasetConfig(id=str(data))])
    config = BridgeConfig(
        dataset_mixture=mixture, base_url=url, model=str(MODEL), api_key_env="EDITOR_KEY", template="instruction",
        max_tokens=40, max_concurrency=2, timeout=300.0, on_failure="keep_original", output_dir=str(tmp_path / "out"),
    )  # fmt: skip
    stats = bridge(config)
    assert (stats["rows"], stats["kept"]) == (3, 3)
    run = stats["this_run"]
    assert 3 <= run["requests"] <= 6
    assert run["retries"] == {}
    assert run["completions"] == run["requests"]
    assert run["prompt_tokens"] > 100 * run["completions"]  # the prompts have some 200 tokens
    assert 0 < run["completion_tokens"] <= 40 * run["completions"]
    assert "responses_without_usage" not in run
    again = bridge(config)
    assert again["this_run"]["requests"] == 0
    assert again["usage"] == stats["usage"]


@pytest.mark.slow
def test_a_model_that_the_server_does_not_have(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR_KEY", "any-word")
    data = tmp_path / "pairs.jsonl"
    data.write_text(json.dumps(ROWS[0]) + "\n")
    mixture = DatasetMixture(datasets=[DatasetConfig(id=str(data))])
    config = BridgeConfig(
        dataset_mixture=mixture, base_url=f"{url}/wrong", model="m", api_key_env="EDITOR_KEY", output_dir=str(tmp_path)
    )
    with pytest.raises(UserErrors, match=r"refuses the request \(404: .*\); fix the recipe"):
        bridge(config)
