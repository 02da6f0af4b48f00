"""The judging stage against a server on loopback."""

import json
import os
import re
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import forks
import pytest
from batch_server import BatchServer
from server import ChatServer, Reply, refuses, says

from bmc.config import JudgeConfig, Price
from bmc.errors import UserErrors
from bmc.evaluation import alpaca_eval as alpaca
from bmc.evaluation.judges import judge
from bmc.llm import batch, errors
from bmc.recipe import parse

ROOT = Path(__file__).parents[2]
KEY = "sk-judge-93f0"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(errors, "FIRST_WAIT", 0.001)


def jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def arena(folder: Path, rows: int = 4, url: str = "http://127.0.0.1:9/v1", **settings: Any) -> JudgeConfig:
    """An evaluation of so many rows, and its recipe. The model's response to prompt i is `ours i`."""
    given = [
        {"id": f"r{i}", "source": "arena_hard", "question_id": f"q{i}", "prompt": f"Prompt {i}",
         "prediction": f"ours {i}", "tokens": 10 + i}
        for i in range(rows)
    ]  # fmt: skip
    other = {"id": "a", "source": "alpaca_eval", "prompt": "Hi?", "prediction": "Yes."}
    jsonl(folder / "dpo/eval/predictions.jsonl", [other, *reversed(given)])
    turns = [{"index": 0, "turns": [{"content": "theirs", "token_len": 1}]}]
    answers = [{"question_id": f"q{i}", "model_id": "gpt-4-0314", "choices": turns} for i in range(rows)]
    jsonl(folder / "reference.jsonl", answers)
    made = {"benchmark": "arena_hard", "model": "m", "base_url": url, "api_key_env": "JUDGE_KEY", "max_concurrency": 2}
    return JudgeConfig(
        responses=str(folder / "dpo/eval"),
        reference=str(folder / "reference.jsonl"),
        output_dir=str(folder / "dpo/eval/arena_hard"),
        **{**made, **settings},
    )


def place(request: dict[str, Any]) -> tuple[int, bool]:
    """Which prompt is judged, and whether the model's response is A."""
    words = request["messages"][1]["content"]
    return int(re.search(r"Prompt (\d+)", words)[1]), "Assistant A's Answer|>\nours" in words  # type: ignore[index]


def verdicts(request: dict[str, Any], number: int = 0) -> Reply:
    """Prompt 0: a strong win and a win; 1: a loss twice; 2: ties; 3: nonsense first, a loss second: not scored."""
    prompt, is_a = place(request)
    label = {0: ("B>>A", "A>B"), 1: ("A>B", "B>A"), 2: ("A=B", "A=B"), 3: (None, "B>A")}[prompt % 4][is_a]
    return says(f"My verdict: [[{label}]]" if label else "Banana.")


def test_verdicts_become_a_win_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ChatServer(verdicts) as server:
        judged = judge(arena(tmp_path, url=server.url, prices={"m": Price(input=10.0, output=20.0)}))
    folder = tmp_path / "dpo/eval/arena_hard"
    assert judged == json.loads((folder / "judge_results.json").read_text())
    told = ("benchmark", "judge", "reference", "rows", "n", "verdicts", "unreadable", "unreadable_ids")
    assert {key: judged[key] for key in told} == {
        "benchmark": "arena_hard", "judge": "m", "reference": "gpt-4-0314", "rows": 4, "n": 3, "verdicts": 8,
        "unreadable": 1, "unreadable_ids": ["r3"]
    }  # fmt: skip
    # wins 4 + 0 + 1 and losses 0 + 2 + 1: 5 of 8; as much as 1.875 of 3 trials, by the beta distribution
    assert judged["win_rate"] == pytest.approx(100 * 5 / 8)
    assert judged["interval"] == pytest.approx([7.80, 98.63], abs=0.01)
    assert judged["length_controlled_win_rate"] is None
    assert judged["length"] == 11.5
    assert len(server.requests) == 9  # 8 games, one of them continued
    assert judged["usage"]["completions"] == 9
    assert judged["usage"]["dollars"] == pytest.approx(9 * (7 * 10 + 5 * 20) / 1e6)
    rows = [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["r0", "r1", "r2", "r3"]
    assert rows[0] == {
        "id": "r0", "question_id": "q0", "model": "dpo", "judge": "m",
        "games": [
            {"judgment": "\nMy verdict: [[B>>A]]", "score": "B>>A"},
            {"judgment": "\nMy verdict: [[A>B]]", "score": "A>B"}
        ]
    }  # fmt: skip
    assert rows[3]["reason"] == "no verdict"
    assert "9 completions" in capsys.readouterr().out


def test_a_judge_without_verdicts(tmp_path: Path) -> None:
    with ChatServer(lambda request, number: says("Banana.")) as server:
        what = r"verdicts.jsonl: none of 4 rows can be scored \(the first: no verdict; no verdict\)"
        with pytest.raises(UserErrors, match=what):
            judge(arena(tmp_path, url=server.url))
    assert not (tmp_path / "dpo/eval/arena_hard/judge_results.json").exists()


def test_verdicts_are_counted_and_one_game_is_not_a_row(tmp_path: Path) -> None:
    """Rows 0 to 2 lose both verdicts and 3 to 5 one; 6 and 7 are won: 9 of 16 verdicts are lost, and 6 of 8 rows."""

    def script(request: dict[str, Any], number: int) -> Reply:
        prompt, is_a = place(request)
        if prompt < 3 or (prompt < 6 and is_a):
            return says("Both are", finish_reason="length")
        return says("[[A>B]]" if is_a else "[[B>A]]")

    with ChatServer(script) as server:
        judged = judge(arena(tmp_path, rows=8, url=server.url))
    assert (judged["rows"], judged["n"], judged["verdicts"], judged["unreadable"]) == (8, 2, 16, 9)
    assert judged["unreadable_ids"] == [f"r{i}" for i in range(6)]
    # two rows, both won: not certain; 0.025^(1/2)
    assert (judged["win_rate"], *judged["interval"]) == pytest.approx((100.0, 15.81, 100.0), abs=0.01)
    rows = [json.loads(line) for line in Path(tmp_path, "dpo/eval/arena_hard/verdicts.jsonl").read_text().splitlines()]
    assert rows[4]["reason"] == "no verdict, cut off at max_tokens"
    assert rows[0]["reason"] == "; ".join(["no verdict, cut off at max_tokens"] * 2)


def test_no_request_is_sent_twice(tmp_path: Path) -> None:
    with ChatServer(verdicts) as server:
        first = judge(arena(tmp_path, url=server.url))
        again = judge(arena(tmp_path, url=server.url, max_concurrency=1))
        assert len(server.requests) == 9
        assert again["win_rate"] == first["win_rate"]
        assert again["this_run"]["requests"] == 0
        part = arena(tmp_path, url=server.url, limit=2)
        part.output_dir = str(tmp_path / "dpo/eval/part")
        assert judge(part)["n"] == 2
        assert len(server.requests) == 9


def test_the_budget_stops_it_and_caches_all(tmp_path: Path) -> None:
    prices = {"m": Price(input=10_000.0, output=0.0)}  # 7 tokens: $0.07 a response
    with ChatServer(verdicts) as server:
        config = arena(tmp_path, url=server.url, prices=prices, max_cost_usd=9.3, max_concurrency=1)
        # the requests of some 450 tokens might cost $9.08, by twice the estimate
        with pytest.raises(UserErrors, match=r"^max_cost_usd: is reached: \$0.2800 of \$9.30 spent"):
            judge(config)
        assert len(server.requests) == 4
        assert not Path(config.output_dir, "judge_results.json").exists()
        config.max_cost_usd = 100.0
        assert judge(config)["n"] == 3
    assert max(server.asked.values()) == 1


@pytest.mark.slow
def test_killed_it_continues_where_it_was(tmp_path: Path) -> None:
    running: list[forks.Fork] = []
    lock = threading.Lock()

    def kills(request: dict[str, Any], number: int) -> Reply:
        with lock:
            if running and number >= 8:
                running.pop().send_signal(signal.SIGKILL)
        return verdicts(request)

    with ChatServer(kills, delay=0.005) as server:
        config = arena(tmp_path, rows=12, url=server.url)
        recipe = {key: value for key, value in vars(config).items() if value is not None and key != "prices"}
        (tmp_path / "judge.yaml").write_text(json.dumps(recipe))
        command = ["scripts/judge.py", str(tmp_path / "judge.yaml")]
        process = forks.Fork(command)
        running.append(process)
        assert process.wait(60) == -9
        before = len(server.requests)
        done = forks.run(command)
        assert done.returncode == 0, done.stderr
    assert re.search(r"arena_hard: win rate 62.5 % against gpt-4-0314 \(n = 9; 95 % interval", done.stdout)
    told = "3 of 24 verdicts can't be read, so 3 of 12 rows (25.0 %) are not scored: the win rate is that of the others"
    assert f"{told} (r3, r7, r11)" in done.stdout
    repeated = sum(count - 1 for count in server.asked.values())
    assert repeated <= 2  # those that were in flight
    assert before < 27 <= len(server.requests)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(KEY.encode() in path.read_bytes() for path in files)
    assert KEY not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_dry_run_estimates_without_a_key_and_leaves_nothing(tmp_path: Path) -> None:
    config = arena(tmp_path, prices={"m": Price(input=10.0, output=30.0)})
    recipe = {key: value for key, value in vars(config).items() if value is not None}
    (tmp_path / "judge.yaml").write_text(json.dumps(recipe | {"prices": {"m": {"input": 10, "output": 30}}}))
    before = sorted(tmp_path.rglob("*"))
    environment = {name: value for name, value in os.environ.items() if name != "JUDGE_KEY"}
    done = forks.run(["scripts/judge.py", str(tmp_path / "judge.yaml"), "--dry_run"], env=environment)
    assert done.returncode == 0, done.stderr
    assert "8; 8 requests to send, 0 cached" in done.stdout
    assert "about $0.0" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


def fault(config: JudgeConfig) -> str:
    with pytest.raises(UserErrors) as raised:
        judge(config)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = arena(tmp_path)
    predictions, reference = tmp_path / "dpo/eval/predictions.jsonl", tmp_path / "reference.jsonl"
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]

    jsonl(predictions, rows[:-1])  # r0 is the last
    what = "lacks the response to 'q0', which the reference has; evaluate every prompt, or set `limit`"
    assert fault(config) == f"{predictions}: {what}"
    jsonl(predictions, [*rows, rows[-1] | {"id": "r9", "question_id": "q9"}])
    assert fault(config) == f"{reference}: has no response to 'q9' ({predictions}: row of r9)"
    jsonl(predictions, [{key: value for key, value in row.items() if key != "question_id"} for row in rows])
    what = "has no question_id; take the prompts from `source: arena_hard` and evaluate again"
    assert fault(config) == f"{predictions}: row of r3: {what}"
    jsonl(predictions, rows[:1])
    assert fault(config) == f"{predictions}: holds no responses to arena_hard's prompts; evaluate them first"
    predictions.unlink()
    assert fault(config).startswith(f"{predictions}: there is none; evaluate first")
    jsonl(predictions, rows)

    jsonl(reference, [{"question_id": "q0"}])
    what = "isn't of the shape of arena_hard's reference responses; it has question_id"
    assert fault(config) == f"{reference}: row 1: {what}"
    reference.write_text("")
    assert fault(config) == f"{reference}: is empty"
    reference.unlink()
    assert fault(config).startswith(f"{reference}: no such file")
    config.reference = "gpt-4"
    assert fault(config).startswith("gpt-4: no such file; give a file, or hf://datasets/")
    config.reference = "hf://datasets/owner/name/a.jsonl"
    assert fault(config).startswith("hf://datasets/owner/name/a.jsonl: can't be loaded from the Hub; download it")

    arguments = [f"--{key}=x" for key in ("responses", "reference", "output_dir")]
    with pytest.raises(UserErrors, match="benchmark"):
        parse(["--benchmark=arena-hard", *arguments], JudgeConfig)
    config = arena(tmp_path)
    monkeypatch.delenv("JUDGE_KEY")
    assert fault(config).startswith("environment variable JUDGE_KEY: is not set")


def test_the_second_form_of_a_reference(tmp_path: Path) -> None:
    """Arena-Hard's files on the Hub have been of this form since v2."""
    with ChatServer(verdicts) as server:
        config = arena(tmp_path, url=server.url)
        said = {"role": "assistant", "content": {"answer": "theirs"}}
        rows = [{"uid": f"q{i}", "model": "g", "messages": [{"role": "user", "content": "?"}, said]} for i in range(4)]
        jsonl(tmp_path / "reference.jsonl", rows)
        judged = judge(config)
    assert (judged["reference"], judged["win_rate"]) == ("g", pytest.approx(100 * 5 / 8))
    assert all("\ntheirs\n" in request["messages"][1]["content"] for request in server.requests)


def test_a_key_that_is_refused(tmp_path: Path) -> None:
    with ChatServer(lambda request, number: refuses(401, f"wrong: {KEY}")) as server:
        assert fault(arena(tmp_path, url=server.url)) == (
            f"m at {server.url}: refuses the key in JUDGE_KEY; set a valid one"
        )


@pytest.mark.slow
def test_a_fault_with_many_requests_in_flight_is_one_line(tmp_path: Path) -> None:
    """None of the requests that stop with it leaves a traceback."""
    with ChatServer(lambda request, number: refuses(400, "unsupported value")) as server:
        config = arena(tmp_path, rows=12, url=server.url, max_concurrency=8)
        recipe = {key: value for key, value in vars(config).items() if value is not None and key != "prices"}
        (tmp_path / "judge.yaml").write_text(json.dumps(recipe))
        done = forks.run(["scripts/judge.py", str(tmp_path / "judge.yaml")])
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("unsupported value") == 1


def test_alpaca_eval_must_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alpaca.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "alpaca_eval", raising=False)
    assert fault(arena(tmp_path, benchmark="alpaca_eval")) == (
        "benchmark: alpaca_eval: alpaca_eval, which judges AlpacaEval, is not installed; pip install '.[eval]'"
    )


def test_the_batch_api_gives_the_same_at_half_the_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "FIRST_POLL", 0.01)
    prices = {"m": Price(input=10.0, output=20.0)}
    with BatchServer(verdicts) as server:
        judged = judge(arena(tmp_path, url=server.url, batch_api=True, prices=prices))
    assert (judged["win_rate"], judged["unreadable_ids"]) == (pytest.approx(100 * 5 / 8), ["r3"])
    assert judged["usage"]["dollars"] == pytest.approx(9 * (7 * 10 + 5 * 20) / 2e6)
    assert len(server.batches) == 2  # the games, then the judgement that is continued


@pytest.mark.parametrize("by_batch", [False, True])
def test_incomplete_responses_are_not_cached(by_batch: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server leaves out what a judge needs; another one then gets all requests."""
    monkeypatch.setattr(batch, "FIRST_POLL", 0.01)
    monkeypatch.setattr(JudgeConfig, "lacks", lambda self, response: None if "fit" in response["content"] else "no fit")
    server_of = BatchServer if by_batch else ChatServer
    prices = {"m": Price(input=10.0, output=20.0)}

    def config(url: str) -> JudgeConfig:
        return arena(tmp_path, url=url, batch_api=by_batch, prices=prices, max_concurrency=1)

    with server_of(verdicts) as server:
        said = fault(config(server.url))
        assert len(server.requests) == (8 if by_batch else 1)  # a batch is answered as a whole
    assert "no fit" in said
    with server_of(
        lambda request, number: says(f"fit {verdicts(request)['body']['choices'][0]['message']['content']}")
    ) as other:
        assert judge(config(other.url))["win_rate"] == pytest.approx(100 * 5 / 8)
        assert len(other.requests) == 9
