"""Bridging against a server on loopback: requests a second, and memory by the number of rows.

python benchmarks/bridging.py
python benchmarks/bridging.py --rows 20000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

WORDS = [f"{a}{b}" for a in ("ba", "do", "ki", "lu", "me") for b in ("n", "r", "s", "t", "l", "m")]
_DRAFT = re.compile(r"<draft (\w+)>\n(.*)\n</draft \1>", re.DOTALL)


def write_pairs(path: Path, rows: int) -> None:
    """Write pairs of some 80 words a response; the rejected one has a word more, which the server takes out."""
    rng = random.Random(0)
    with path.open("w") as file:
        for number in range(rows):
            rejected = rng.choices(WORDS, k=rng.randint(60, 100))
            chosen = [*rejected[:30], *rng.choices(WORDS, k=30)]
            rejected.insert(rng.randint(31, 50), "wrong")
            prompt = " ".join(rng.choices(WORDS, k=40))
            row = {"id": f"r{number}", "prompt": prompt, "chosen": " ".join(chosen), "rejected": " ".join(rejected)}
            file.write(json.dumps(row) + "\n")


class Server:
    """Chat completions, each after a delay. GET gives when the first request came and the last reply went."""

    def __init__(self, delay: float) -> None:
        self.delay, self.first, self.last, self.count = delay, 0.0, 0.0, 0

    async def serve(self) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=1024)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                body = await self._reply(await reader.readexactly(int(size[1]) if size else 0))
                start = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                writer.write(start % len(body) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _reply(self, body: bytes) -> bytes:
        if not body:
            return json.dumps({"seconds": self.last - self.first, "count": self.count}).encode()
        self.first = self.first or time.perf_counter()
        messages = json.loads(body)["messages"]
        found = _DRAFT.search(messages[-1]["content"]) if messages else None  # curator probes with none
        mark, draft = found.groups() if found else ("", "")
        text = f"<revised {mark}>\n{draft.replace(' wrong', '')}\n</revised {mark}>"
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 400, "completion_tokens": 120, "total_tokens": 520}
        await asyncio.sleep(self.delay)
        self.last, self.count = time.perf_counter(), self.count + 1
        return json.dumps({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def bridge_once(folder: Path, rows: int, url: str, concurrency: int, editor: str) -> None:
    """A run in this process; prints what it took."""
    from bmc.bridging.run import bridge
    from bmc.config import BridgeConfig, DatasetConfig, DatasetMixture

    mixture = DatasetMixture(datasets=[DatasetConfig(id=str(folder / f"{rows}.jsonl"))])
    config = BridgeConfig(
        dataset_mixture=mixture, editor=editor, base_url=url, model="m", template="instruction",
        max_concurrency=concurrency, output_dir=str(folder / f"{rows}-{editor}" / "out"),
    )  # fmt: skip
    stats = bridge(config)
    assert stats["kept"] == stats["rows"] == rows, stats["reasons"]
    used = {"mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "seconds": stats["seconds"]}
    print(json.dumps(used | {"requests": stats["this_run"]["requests"]}))


def run(folder: Path, rows: int, delay: float, concurrency: int) -> dict[str, Any]:
    """A run in a process of its own, against a server in another; with the server's times."""
    if not (folder / f"{rows}.jsonl").exists():
        write_pairs(folder / f"{rows}.jsonl", rows)
    me = [sys.executable, __file__]
    with subprocess.Popen([*me, "--serve", str(delay)], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            address = f"http://127.0.0.1:{int(server.stdout.readline())}"
            arguments = ["--once", str(folder), "--rows", str(rows), "--url", f"{address}/v1"]
            environment = os.environ | {"OPENAI_API_KEY": "none"}
            command = [*me, *arguments, "--concurrency", str(concurrency)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
            with urllib.request.urlopen(address) as times:
                return json.loads(done.stdout.splitlines()[-1]) | {"server": json.load(times)}
        finally:
            server.kill()


def figure(name: str, bar: str, measured: str, remark: str) -> None:
    print(f"| {name} | {bar} | {measured} | {remark} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the long run (100,000)")
    parser.add_argument("--only", choices=["throughput", "memory"], help="one figure alone")
    parser.add_argument("--folder", type=Path, help="where to work and what to keep; a temporary folder by default")
    parser.add_argument("--concurrency", type=int, default=32, help=argparse.SUPPRESS)
    for name in ("--serve", "--once", "--url"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve is not None:
        asyncio.run(Server(float(args.serve)).serve())
    elif args.once:
        bridge_once(Path(args.once), args.rows, args.url, args.concurrency, "openai")
    else:
        with tempfile.TemporaryDirectory() as temporary:
            measure(args.folder or Path(temporary), args.rows, args.only)


def measure(folder: Path, many: int, only: str | None) -> None:
    """Prints the table."""
    folder.mkdir(parents=True, exist_ok=True)
    print("| figure | bar | measured | |\n| --- | --- | --- | --- |")
    if only != "memory":
        for rows in (3200, 3232, 3264):  # three runs
            took = run(folder, rows, 0.2, 32)
            rate = took["server"]["count"] / took["server"]["seconds"]
            remark = f"{rate / 160:.1%} of 160; {took['seconds']:.1f} s from the start of the process to the end"
            figure(f"{rows:,} requests of 200 ms, 32 at once: requests a second", "≥ 144", f"{rate:.1f}", remark)
    if only != "throughput":
        few, lots = run(folder, 1000, 0.0, 32), run(folder, many, 0.0, 32)
        remark = f"{few['mb']:.0f} MB with 1,000; {lots['requests']:,} requests in {lots['seconds']:.0f} s"
        figure(f"{many:,} rows: peak memory above that of 1,000", "≤ 50 MB", f"{lots['mb'] - few['mb']:.1f} MB", remark)


if __name__ == "__main__":
    main()
