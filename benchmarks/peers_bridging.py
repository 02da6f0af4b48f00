"""Bridging's client against a server on loopback that answers at once, beside other clients: answers a second.

    python benchmarks/peers_bridging.py --make /tmp/peers                makes an environment for each peer with pip
    python benchmarks/peers_bridging.py --python curator=…/bin/python    takes one that is there

The peers get the very requests that a bridging run sends, 32 at once: `openai` alone (which neither caches, counts nor
checks), bespokelabs-curator (which caches) and distilabel. They take turns; a figure is the median over the rounds. The
rate is the server's, from the first request to the last response; processor time is all of a peer's, from when its
libraries are imported.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import urllib.request
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bridging

# distilabel imports requests, and doesn't say so
PACKAGES = {"curator": ["bespokelabs-curator"], "distilabel": ["distilabel[openai]", "requests"]}
AT_ONCE = 32
ALONE = {  # nothing but the server on loopback is reached
    "OPENAI_API_KEY": "none", "TELEMETRY_ENABLED": "false", "CURATOR_DISABLE_RICH_DISPLAY": "1", "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True", "BESPOKE_CURATOR_TRACKER_DISABLED": "1", "DISTILABEL_LOG_LEVEL": "ERROR",
}  # fmt: skip


def write_requests(folder: Path, rows: int) -> None:
    """Pairs for ours, and their requests for the others."""
    from bmc.bridging.edits import EditRequest
    from bmc.bridging.prompts import edit_prompt, request

    bridging.write_pairs(folder / f"{rows}.jsonl", rows)
    with (folder / f"{rows}.jsonl").open() as pairs, (folder / "requests.jsonl").open("w") as out:
        for line in pairs:
            row = json.loads(line)
            case = EditRequest(row["id"], "chat", row["prompt"], row["chosen"], row["rejected"])
            messages, _ = request(edit_prompt("targeted", "instruction", False), case)
            out.write(json.dumps({"messages": messages}) + "\n")


def seconds_used() -> float:
    """Processor time of this process and of those that it waited for."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))


def ours(folder: Path, url: str, rows: int) -> Callable[[], int]:
    import bmc.bridging.run  # noqa: F401

    def run() -> int:
        bridging.bridge_once(folder, rows, url, AT_ONCE, "openai")
        return rows

    return run


def openai_alone(folder: Path, url: str, rows: int) -> Callable[[], int]:
    import openai

    async def all_of_them() -> int:
        client, slots = openai.AsyncOpenAI(base_url=url), asyncio.Semaphore(AT_ONCE)

        async def one(messages: Any) -> str:
            async with slots:
                reply = await client.chat.completions.create(model="m", messages=messages, max_tokens=1024)
            return reply.choices[0].message.content or ""

        return len(await asyncio.gather(*(one(row["messages"]) for row in read(folder))))

    return lambda: asyncio.run(all_of_them())


def curator(folder: Path, url: str, rows: int) -> Callable[[], int]:
    from bespokelabs import curator as library  # type: ignore[import-not-found,unused-ignore]

    counts_tokens_offline()

    class Editor(library.LLM):  # type: ignore[misc,unused-ignore]
        def prompt(self, row: Any) -> Any:
            return row["messages"]

        def parse(self, row: Any, response: Any) -> Any:
            return {"text": response}

    limits = {"max_requests_per_minute": 10**7, "max_tokens_per_minute": 10**10, "max_concurrent_requests": AT_ONCE}
    editor = Editor(model_name="m", backend="openai", backend_params={"base_url": url, **limits})

    def run() -> int:
        found = editor(read(folder), working_dir=str(folder / "curator"))
        return len(getattr(found, "dataset", found))

    return run


def counts_tokens_offline() -> None:
    """Give curator, which counts each request's tokens with tiktoken, a vocabulary of bytes where it can't load one."""
    import tiktoken

    load = tiktoken.get_encoding

    @functools.cache
    def get_encoding(name: str) -> Any:
        try:
            return load(name)
        except OSError:
            ranks = {bytes([byte]): byte for byte in range(256)}
            return tiktoken.Encoding(name, pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={})

    tiktoken.get_encoding = get_encoding
    tiktoken.encoding_for_model = lambda model: get_encoding("cl100k_base")


def distilabel(folder: Path, url: str, rows: int) -> Callable[[], int]:
    from distilabel.models import OpenAILLM  # type: ignore[import-not-found,unused-ignore]
    from distilabel.pipeline import Pipeline  # type: ignore[import-not-found,unused-ignore]
    from distilabel.steps import LoadDataFromDicts  # type: ignore[import-not-found,unused-ignore]
    from distilabel.steps.tasks import ChatGeneration  # type: ignore[import-not-found,unused-ignore]

    with Pipeline(name="edit", cache_dir=str(folder / "distilabel")) as pipeline:
        data = LoadDataFromDicts(data=read(folder), batch_size=AT_ONCE)
        llm = OpenAILLM(model="m", base_url=url, api_key="none", generation_kwargs={"max_new_tokens": 1024})
        data >> ChatGeneration(llm=llm, input_batch_size=AT_ONCE)
    return lambda: len(pipeline.run(use_cache=False)["default"]["train"])


PEERS: dict[str, Callable[[Path, str, int], Callable[[], int]]] = {
    "ours": ours, "openai": openai_alone, "curator": curator, "distilabel": distilabel
}  # fmt: skip


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "requests.jsonl").open()]


def run_peer(python: str, name: str, rows: int, data: Path) -> dict[str, float]:
    """Run a peer in a process of its own, against a server in another: answers and processor milliseconds."""
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, bridging.__file__, "--serve", "0"], stdout=subprocess.PIPE, text=True
        ) as server,
    ):
        try:
            assert server.stdout
            address = f"http://127.0.0.1:{int(server.stdout.readline())}"
            for file in data.iterdir():
                (Path(folder) / file.name).symlink_to(file)
            command = [python, __file__, "--peer", name, "--url", f"{address}/v1", "--rows", str(rows)]
            ran = subprocess.run(
                [*command, "--folder", folder], capture_output=True, text=True,
                env=os.environ | ALONE | {"CURATOR_CACHE_DIR": folder, "OPENAI_BASE_URL": f"{address}/v1"},
            )  # fmt: skip
            if ran.returncode:
                raise RuntimeError(f"{name}: {ran.stderr[-1500:]}")
            result = json.loads(ran.stdout.strip().splitlines()[-1])
            assert result["rows"] == rows, result
            with urllib.request.urlopen(address) as times:
                server_saw = json.load(times)
        finally:
            server.kill()
    return {"rate": server_saw["count"] / server_saw["seconds"], "ms": 1000 * result["cpu"] / rows}


def make_environment(folder: Path, name: str) -> str:
    python = folder / name / "bin/python"
    if not python.exists():
        venv.create(folder / name, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES[name]], check=True)
    return str(python)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--make", type=Path, help="folder where environments are made")
    parser.add_argument("--python", nargs="+", default=[], metavar="PEER=PYTHON", help="environments that are there")
    for name in ("--peer", "--url", "--folder"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.peer:
        work = PEERS[options.peer](Path(options.folder), options.url, options.rows)
        before = seconds_used()
        rows = work()
        print(json.dumps({"rows": rows, "cpu": seconds_used() - before}))
        return
    pythons = {"ours": sys.executable, "openai": sys.executable}
    if options.make:
        pythons |= {name: make_environment(options.make, name) for name in PACKAGES}
    pythons |= dict(given.split("=", 1) for given in options.python)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in pythons}
    with tempfile.TemporaryDirectory() as folder:
        write_requests(Path(folder), options.rows)
        for _ in range(options.rounds):
            for name, python in pythons.items():
                found[name].append(run := run_peer(python, name, options.rows, Path(folder)))
                print(f"{name}: {run['rate']:.0f} answers/s, {run['ms']:.2f} ms a row", file=sys.stderr, flush=True)
    print("| client | answers a second | over ours | processor ms a row |\n| --- | ---: | ---: | ---: |")
    own = statistics.median(run["rate"] for run in found["ours"])
    for name, runs in found.items():
        rates = [run["rate"] for run in runs]
        rate, cost = statistics.median(rates), statistics.median(run["ms"] for run in runs)
        print(
            f"| {name} | {rate:.0f} [{min(rates):.0f}, {max(rates):.0f}] | {rate / own:.2f} | {cost:.2f} |", flush=True
        )


if __name__ == "__main__":
    main()
