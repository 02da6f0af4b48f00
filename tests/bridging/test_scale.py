"""Hundreds of rows, errors of every kind, kills: every row accounted for, nothing sent twice, the same files."""

import json
import random
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import forks
import pytest
from billing_server import INPUT, OUTPUT, recipe, write
from server import HANGS_UP, NO_JSON, ChatServer, Reply, half_sent, part, refuses, revises, says

from bmc.bridging.run import bridge
from bmc.errors import UserErrors
from bmc.llm import errors

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR_KEY", "sk-test-31")
    monkeypatch.setattr(errors, "FIRST_WAIT", 0.01)


def edits(request: dict[str, Any]) -> Reply:
    return revises(request, part(request, "draft").replace("up to the hills", "down to the sea"))


def row_of(request: dict[str, Any]) -> int:
    return int(part(request, "draft").split(":")[0].removeprefix("Row "))


def lines(path: Path) -> Rows:
    with path.open() as file:
        return [json.loads(line) for line in file]


TRANSIENT = {
    "429 with a wait": refuses(429, headers={"Retry-After": "0.05"}),
    "429 without": refuses(429, headers={}), "500": refuses(500, headers={}), "closed": HANGS_UP,
    "half": half_sent(says("never read")), "no JSON": NO_JSON
}  # fmt: skip
USELESS = {
    "empty": (says(""), "empty reply"),
    "refusal": (says("I'm sorry, but I can't assist with that."), "refusal"),
    "length": (says("<revised", "length"), "cut off: the reply reached max_tokens"),
    "filtered": (refuses(400, "", "content_filter"), "endpoint refuses the request (400: no reason given)"),
}


@pytest.mark.slow
def test_500_rows_with_a_fifth_of_faults(tmp_path: Path) -> None:
    """A tenth of the rows meets passing trouble, once or twice, a tenth a reply that is of no use, once or always."""
    rng = random.Random(5)
    kinds: dict[int, tuple[str, int]] = {}
    for i in range(500):
        if rng.random() < 0.2:
            kinds[i] = rng.choice([*TRANSIENT, *USELESS]), rng.choice([1, 2])
    seen, lock = Counter[int](), threading.Lock()

    def script(request: dict[str, Any], number: int) -> Reply:
        i = row_of(request)
        with lock:
            seen[i] += 1
        kind, times = kinds.get(i, ("", 0))
        if kind in TRANSIENT:
            return TRANSIENT[kind] if seen[i] <= times else edits(request)
        if kind in USELESS:  # the second of two tries is of use where it is to be of no use once
            return USELESS[kind][0] if seen[i] <= times or kind == "filtered" else edits(request)
        return edits(request)

    with ChatServer(script) as server:
        config = recipe(tmp_path, server.url, 500, max_concurrency=32)
        stats = bridge(config)
        asked = len(server.requests)
        again = bridge(config)
    lost = {i: USELESS[kind][1] for i, (kind, n) in kinds.items() if kind in USELESS and (n == 2 or kind == "filtered")}
    train, dropped = (lines(tmp_path / "out" / f"{name}.jsonl") for name in ("train", "dropped"))
    assert [row["id"] for row in train] == [f"r{i}" for i in range(500) if i not in lost]
    assert {row["id"]: row["reason"] for row in dropped} == {f"r{i}": reason for i, reason in lost.items()}
    assert all("down to the sea" in row["chosen"] for row in train)
    troubled = [times for kind, times in kinds.values() if kind in TRANSIENT]
    retried = [kind for kind, _ in kinds.values() if kind in USELESS and kind != "filtered"]
    assert sum(stats["this_run"]["retries"].values()) == sum(troubled)
    assert stats["this_run"]["requests"] == asked == 500 + sum(troubled) + len(retried)
    assert again["this_run"]["requests"] == len([i for i in lost if kinds[i][0] == "filtered"])  # of those is no answer


def script_of(request: dict[str, Any]) -> Reply:
    """Edits, second tries and rows that are dropped, the same in every run."""
    i = row_of(request)
    if i % 7 == 3 and len(request["messages"]) == 2:
        return says("")
    return says("I can't.") if i % 11 == 5 else edits(request)


@pytest.mark.slow
def test_killed_several_times_it_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    width, rows, kills_ = 8, 160, 4
    whole = tmp_path / "whole"
    whole.mkdir()
    data = write(tmp_path, rows)
    with ChatServer(lambda request, number: script_of(request), delay=0.005) as server:
        bridge(recipe(whole, server.url, rows, max_concurrency=width))
        requests = len(server.requests)
    assert max(server.asked.values()) == 1

    rng = random.Random(7)
    moments = sorted(rng.sample(range(requests - 20), kills_))
    running: list[forks.Fork] = []
    lock = threading.Lock()

    def kills(request: dict[str, Any], number: int) -> Reply:
        with lock:
            if moments and running and number >= moments[0]:
                moments.pop(0)
                running.pop().send_signal(signal.SIGKILL)
        return script_of(request)

    with ChatServer(kills, delay=0.005) as server:
        settings = {
            "dataset_mixture": {"datasets": [{"id": str(data)}]},
            "output_dir": str(tmp_path / "killed" / "out"),
        }
        more = {"api_key_env": "EDITOR_KEY", "model": "m", "template": "instruction", "max_concurrency": width}
        more["prices"] = {"m": {"input": float(INPUT), "output": float(OUTPUT)}}
        (tmp_path / "bridge.yaml").write_text(json.dumps({**settings, **more, "base_url": server.url}))
        codes = []
        while not codes or codes[-1] == -9:
            process = forks.Fork(["scripts/bridge.py", str(tmp_path / "bridge.yaml")])
            running[:] = [process]
            codes.append(process.wait(120))
    assert codes == [-9] * kills_ + [0]
    repeated = sum(count - 1 for count in server.asked.values())
    assert repeated <= kills_ * width
    assert len(server.asked) == requests
    for name in ("train.jsonl", "dropped.jsonl"):
        assert (tmp_path / "killed" / "out" / name).read_bytes() == (tmp_path / "whole" / "out" / name).read_bytes()
    assert (
        len(lines(tmp_path / "whole" / "out" / "train.jsonl"))
        + len(lines(tmp_path / "whole" / "out" / "dropped.jsonl"))
        == rows
    )
    stats = [json.loads((tmp_path / run / "out" / "stats.json").read_text()) for run in ("whole", "killed")]
    for run in stats:
        del run["this_run"], run["seconds"]
    assert stats[1]["usage"].pop("possibly_billed_dollars", 0.0) > 0  # in flight at a kill
    assert stats[0] == stats[1]


def test_failures_may_keep_their_pairs(tmp_path: Path) -> None:
    def script(request: dict[str, Any], number: int) -> Reply:
        i = row_of(request)
        if i == 2:
            return says("<verdict>good</verdict>")
        return [edits(request), refuses(500), None, says("")][i]

    with ChatServer(script) as server:
        config = recipe(tmp_path, server.url, 4, max_retries=0, template="closed")
        config.on_failure = "keep_original"
        stats = bridge(config)
    train, dropped = (lines(tmp_path / "out" / f"{name}.jsonl") for name in ("train", "dropped"))
    assert [(row["id"], row["bridged"]) for row in train] == [("r0", True), ("r1", False), ("r3", False)]
    assert train[1]["chosen"] == train[1]["original_chosen"] == "It runs to the sea past town 1."
    assert [(row["id"], row["reason"]) for row in dropped] == [("r2", "y_l needs no edit")]
    assert stats["kept_original"] == {"endpoint failed: HTTP 500": 1, "empty reply": 1}


def test_half_surrogates_are_no_text(tmp_path: Path) -> None:
    data = write(tmp_path, 2)
    data.write_text(data.read_text().replace(", past 1.", ", past \\ud83d 1."))
    with ChatServer(lambda request, number: edits(request)) as server:
        bridge(recipe(tmp_path, server.url, None))
    assert "past ? 1." in lines(tmp_path / "out" / "train.jsonl")[1]["rejected"]


@pytest.mark.parametrize("folder", ["/proc/out", "/sys/out"])
def test_a_folder_that_can_not_be_written_costs_nothing(tmp_path: Path, folder: str) -> None:
    """Not even root may write there."""
    with ChatServer(lambda request, number: edits(request)) as server:
        config = recipe(tmp_path, server.url, 4, output_dir=folder, response_cache=str(tmp_path / "r.sqlite"))
        with pytest.raises(UserErrors, match=f"{folder}.*: can't be written .*make room or choose another output_dir"):
            bridge(config)
    assert server.requests == []


FULL = """
import resource, signal, sys
sys.path[:0] = {tests!r}
from pathlib import Path
from billing_server import recipe
from bmc.bridging import run
from bmc.runs import run_main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
load_pairs = run.load_pairs

def limited(config):
    loaded = load_pairs(config)
    resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
    return loaded

run.load_pairs = limited
run_main(lambda: run.bridge(recipe(Path({folder!r}), {url!r}, None)))
"""


@pytest.mark.parametrize(("size", "full"), [(60_000, "responses.sqlite"), (2_000_000, "out")])
def test_a_full_disk_stops_in_a_line_and_keeps_the_responses(tmp_path: Path, size: int, full: str) -> None:
    """Once the pairs are read, files may not grow beyond a size, which the cache reaches first, or the long results."""
    data = write(tmp_path, 150)
    if full == "out":
        data.write_text("".join(json.dumps(row | {"more": "x" * 20_000}) + "\n" for row in lines(data)))
    with ChatServer(lambda request, number: edits(request)) as server:
        code = FULL.format(
            tests=[str(folder) for folder in Path(__file__).parents[:2]],
            size=size,
            folder=str(tmp_path),
            url=server.url,
        )
        done = forks.run(["-c", code])
        assert done.returncode == 2, done.stderr
        last = done.stderr.replace("\r", "\n").splitlines()[-1]
        assert last.startswith(f"{tmp_path / full}"), last
        assert "can't be" in last
        assert "make room" in last
        assert "Traceback" not in done.stderr
        assert not list((tmp_path / "out").glob("*.jsonl*"))
        before = server.asked
        assert len(before) > 0
        stats = bridge(recipe(tmp_path, server.url, None))
    assert stats["kept"] == 150
    repeated = sum(count - 1 for count in server.asked.values())
    assert repeated <= 16  # those whose responses did not fit any more
