"""AlpacaEval 2 by alpaca_eval itself, its judge on loopback; where the extra `eval` is installed."""

import json
import re
from math import exp, log
from pathlib import Path
from typing import Any

import pytest
from server import ChatServer, Reply, refuses, says

from bmc.config import JudgeConfig
from bmc.errors import UserErrors
from bmc.evaluation import alpaca_eval as alpaca
from bmc.evaluation.judges import judge

pytest.importorskip("alpaca_eval")


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-judge-93f0")


def recipe(folder: Path, url: str, rows: int = 6, **settings: Any) -> JudgeConfig:
    """An evaluation of so many rows. In row 2 both responses are the same."""
    (folder / "eval").mkdir(parents=True, exist_ok=True)
    rows_of = [
        {"id": f"r{i}", "source": "alpaca_eval", "prompt": f"Question {i}?",
         "prediction": " same" if i == 2 else f"model {i} \n"}
        for i in range(rows)
    ]  # fmt: skip
    (folder / "eval/predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of))
    reference = [
        {"instruction": f"Question {i}?", "output": "same" if i == 2 else f"ref {i}", "generator": "gpt4_1106_preview"}
        for i in range(rows)
    ]
    (folder / "reference.json").write_text(json.dumps(reference))
    given = {"model": "j", "temperature": 1.0, "max_tokens": 1, "api_key_env": "JUDGE_KEY", "max_retries": 0}
    return JudgeConfig(
        benchmark="alpaca_eval", responses=str(folder / "eval"), reference=str(folder / "reference.json"),
        output_dir=str(folder / "eval/alpaca_eval"), base_url=url, **{**given, **settings}
    )  # fmt: skip


def weighted(first: float, *others: tuple[str, float], token: str = "m") -> Reply:
    """A verdict that gives m (or another token) this probability and M the rest."""
    likely = [(token, first), ("M", 1 - first), *others]
    reply = says("m")
    top = [{"token": token, "logprob": log(p), "bytes": None} for token, p in likely if p > 0]
    reply["body"]["choices"][0]["logprobs"] = {"content": [{"token": "m", "logprob": log(first), "top_logprobs": top}]}
    return reply


def row_of(request: dict[str, Any]) -> tuple[int, bool]:
    """Which row is judged, and whether the model's response is m, the first one."""
    words = request["messages"][1]["content"]
    found = re.search(r'"instruction": """Question (\d+)\?""".*"m",\s+"output": """(\w+)', words, re.DOTALL)
    assert found
    return int(found[1]), found[2] == "model"


def test_preferences_are_weighted_whatever_the_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The judge gives the model's response to row i a chance of 0.1 (i + 1); row 4 it can't read."""

    def script(request: dict[str, Any], number: int) -> Reply:
        row, is_first = row_of(request)
        if row == 4:
            return weighted(1.0, token="Both")
        return weighted(0.1 * (row + 1) if is_first else 1 - 0.1 * (row + 1), ("Both", 1e-9))

    with ChatServer(script) as server:
        judged = judge(recipe(tmp_path, server.url))
    assert len(server.requests) == 5  # equal responses are a tie
    assert {row_of(request)[1] for request in server.requests} == {True, False}
    request = server.requests[0]
    assert {key: value for key, value in request.items() if key != "messages"} == {
        "model": "j", "temperature": 1.0, "max_tokens": 1, "logprobs": True, "top_logprobs": 5,
    }  # fmt: skip
    assert [message["role"] for message in request["messages"]] == ["system", "user"]
    assert request["messages"][0]["content"].startswith("You are a highly efficient assistant, who evaluates")
    rows = [json.loads(line) for line in (tmp_path / "eval/alpaca_eval/verdicts.jsonl").read_text().splitlines()]
    preferences = [row["preference"] for row in rows]
    assert preferences[4] is None
    assert [p for p in preferences if p] == pytest.approx([1.1, 1.2, 1.5, 1.4, 1.6])
    assert [judged[key] for key in ("rows", "n", "verdicts", "unreadable", "unreadable_ids")] == [6, 5, 5, 1, ["r4"]]
    assert rows[4]["reason"] == "neither m nor M among the likely first tokens (they are 'Both')"
    assert judged["win_rate"] == pytest.approx(100 * (0.1 + 0.2 + 0.5 + 0.4 + 0.6) / 5)
    assert judged["interval"][0] < judged["win_rate"] < judged["interval"][1]
    assert judged["length"] == pytest.approx((5 * len("model 0") + len("same")) / 6)
    assert judged["length_controlled_win_rate"] is None
    assert "no length-controlled win rate: it is defined for all 805 rows" in capsys.readouterr().out


def test_alpaca_eval_reads_the_annotations_and_says_the_same(tmp_path: Path) -> None:
    import pandas
    from alpaca_eval.metrics import get_winrate

    with ChatServer(lambda request, number: weighted(0.5 + 0.07 * row_of(request)[0])) as server:
        judged = judge(recipe(tmp_path, server.url))
    found = pandas.read_json(tmp_path / "eval/alpaca_eval/annotations.json")
    assert get_winrate(found)["win_rate"] == pytest.approx(judged["win_rate"])
    assert list(found["generator_2"]) == [tmp_path.name] * 6


def test_its_own_openai_annotator_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same judge, called by alpaca_eval alone, without our cache."""
    from alpaca_eval.annotators import PairwiseAnnotator

    with ChatServer(lambda request, number: weighted(0.2 + 0.1 * row_of(request)[0])) as server:
        judge(recipe(tmp_path, server.url))
        ours = [json.loads(line) for line in (tmp_path / "eval/alpaca_eval/verdicts.jsonl").read_text().splitlines()]
        asked = {json.dumps(request["messages"]) for request in server.requests}
        server.requests.clear()
        clients = {"default": [{"api_key": "k", "base_url": server.url}]}
        (tmp_path / "clients.yaml").write_text(json.dumps(clients))
        annotator = PairwiseAnnotator(annotators_config=alpaca.ANNOTATOR, caching_path=None)
        single = annotator.annotators[alpaca.ANNOTATOR]
        single.completions_kwargs |= {"client_config_path": str(tmp_path / "clients.yaml"), "num_procs": 1}
        reference = json.loads((tmp_path / "reference.json").read_text())
        outputs = [
            {"instruction": row["instruction"], "output": "same" if i == 2 else f"model {i}", "generator": "m"}
            for i, row in enumerate(reference)
        ]
        theirs = annotator.annotate_head2head(reference, outputs)
    assert {json.dumps(request["messages"]) for request in server.requests} == asked
    assert [row["preference"] for row in ours] == pytest.approx([row["preference"] for row in theirs])


def test_a_text_that_looks_like_chatml_is_named(tmp_path: Path) -> None:
    with ChatServer(lambda request, number: weighted(0.5)) as server:
        config = recipe(tmp_path, server.url)
        path = tmp_path / "eval/predictions.jsonl"
        path.write_text(path.read_text().replace("model 3", "<|im_start|>system"))
        judged = judge(config)
    assert (judged["n"], judged["unreadable_ids"]) == (5, ["r3"])
    assert len(server.requests) == 4


def test_a_row_that_the_endpoint_refuses_is_named(tmp_path: Path) -> None:
    def script(request: dict[str, Any], number: int) -> Reply:
        return refuses(400, "maximum context length") if row_of(request)[0] == 5 else weighted(0.5)

    with ChatServer(script) as server:
        assert judge(recipe(tmp_path, server.url))["unreadable_ids"] == ["r5"]


def test_a_server_without_log_probabilities_stops_the_run_at_the_first_response(tmp_path: Path) -> None:
    with ChatServer(lambda request, number: says("m")) as server:
        with pytest.raises(UserErrors) as raised:
            judge(recipe(tmp_path, server.url, max_concurrency=1))
        assert str(raised.value) == (
            f"j at {server.url}: the response has no `logprobs`, by which AlpacaEval weighs a verdict; the "
            "response was not cached: use a server and a model that provide it"
        )
        assert len(server.requests) == 1
    with ChatServer(lambda request, number: weighted(0.5)) as other:  # nothing stands in its way
        assert judge(recipe(tmp_path, other.url))["unreadable"] == 0
        assert len(other.requests) == 5


def test_a_single_response_without_log_probabilities_is_a_row_error(tmp_path: Path) -> None:
    """That of the third request, which the next run sends again, and no other."""
    order: list[int] = []

    def script(request: dict[str, Any], number: int) -> Reply:
        order.append(row_of(request)[0])
        return says("m") if order[-1] in order[2:3] else weighted(0.5)

    with ChatServer(script) as server:
        judged = judge(recipe(tmp_path, server.url, max_concurrency=1))
        assert (judged["n"], judged["unreadable_ids"]) == (5, [f"r{order[2]}"])
        judge(recipe(tmp_path, server.url))
        assert order[5:] == order[2:3]
    rows = [json.loads(line) for line in (tmp_path / "eval/alpaca_eval/verdicts.jsonl").read_text().splitlines()]
    assert rows[order[2]]["reason"] == "the response has no `logprobs`, by which AlpacaEval weighs a verdict"


def test_a_judge_that_thinks_until_it_is_cut_off_is_named(tmp_path: Path) -> None:
    def script(request: dict[str, Any], number: int) -> Reply:
        if row_of(request)[0] != 1:
            return weighted(0.5)
        reply = weighted(1.0, token="<think>")
        reply["body"]["choices"][0] |= {"finish_reason": "length", "message": {"role": "assistant", "content": ""}}
        return reply

    with ChatServer(script) as server:
        assert judge(recipe(tmp_path, server.url))["unreadable_ids"] == ["r1"]
    rows = [json.loads(line) for line in (tmp_path / "eval/alpaca_eval/verdicts.jsonl").read_text().splitlines()]
    assert rows[1]["reason"] == "cut off at max_tokens before a verdict"


def test_the_length_controlled_win_rate_is_alpaca_evals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With made-up difficulties of the 805 instructions: to a judge that only likes length, equal lengths would be
    a tie.
    """
    import pandas
    from alpaca_eval.metrics import glm_winrate

    rows = [
        {"model": model, "index": i, "preference": 1 / (1 + exp(-d)), "std_delta_len": d,
         "instruction_difficulty": i % 7 - 3, "not_gamed_baseline": False}
        for model in ("concise", "verbose") for i in range(805) for d in [(i * 37 % 101 - 50) / 25]
    ]  # fmt: skip
    pandas.DataFrame(rows).to_csv(tmp_path / "df_gamed.csv", index=False)
    monkeypatch.setattr(glm_winrate, "hf_hub_download", lambda **_: str(tmp_path / "df_gamed.csv"))
    annotations = [
        {"instruction": str(i), "preference": 2 - 1 / (1 + exp(2 * ((i * 53 % 97) - 58) / 28)), "output_1": "x" * 100,
         "output_2": "y" * (42 + i * 53 % 97), "generator_1": "r", "generator_2": "m", "annotator": "w"}
        for i in range(805)
    ]  # fmt: skip
    plain = sum(row["preference"] - 1 for row in annotations) / 805
    assert "in their published order" in str(alpaca.length_controlled(annotations))
    monkeypatch.setattr(alpaca, "ORDER", alpaca.order_of([str(i) for i in range(805)]))
    assert "in their published order" in str(alpaca.length_controlled(annotations[::-1]))
    found = alpaca.length_controlled(annotations)
    assert not isinstance(found, str)
    assert plain < 0.42
    assert abs(50 - found[0]) < (50 - 100 * plain) / 2  # its regulariser keeps it from getting all the way there


def test_without_the_hub_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from alpaca_eval.metrics import glm_winrate

    def offline(**_: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(glm_winrate, "hf_hub_download", offline)
    monkeypatch.setattr(alpaca, "ORDER", alpaca.order_of(["i"] * 805))
    row = {
        "instruction": "i", "preference": 1.5, "output_1": "x", "output_2": "y", "generator_1": "r",
        "generator_2": "m"
    }  # fmt: skip
    assert alpaca.length_controlled([row] * 805) == "alpaca_eval can't compute it (OSError: no network)"
