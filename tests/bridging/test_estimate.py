"""Cost of a run: estimated, confirmed, counted, and capped."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import forks
import pytest
from server import ChatServer, Reply, part, revises, says

from bmc.bridging.run import bridge, estimate_for, load_pairs
from bmc.config import BridgeConfig, DatasetConfig, DatasetMixture, Price
from bmc.errors import UserErrors
from bmc.llm.cost import CostEstimate, estimated_tokens
from bmc.recipe import parse

ROOT = Path(__file__).parents[2]
CHAT = "A river runs to the sea, and it never comes back to its spring."
PRICES = {"m": Price(input=1000.0, output=2000.0)}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR_KEY", "sk-test-11")


def recipe(folder: Path, url: str = "http://127.0.0.1:9/v1", rows: int = 4, **settings: Any) -> BridgeConfig:
    path = folder / "pairs.jsonl"
    texts = (
        {"id": f"r{i}", "prompt": "Rivers?", "chosen": CHAT, "rejected": f"{i} {CHAT[:-8]} hill."} for i in range(rows)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in texts))
    given = {"output_dir": str(folder / "out"), "api_key_env": "EDITOR_KEY", "model": "m", "template": "instruction"}
    mixture = DatasetMixture(datasets=[DatasetConfig(id=str(path))])
    return BridgeConfig(dataset_mixture=mixture, **{**given, "base_url": url, "prices": PRICES, **settings})


def edits(request: dict[str, Any], number: int) -> Reply:
    return revises(request, part(request, "draft").replace("hill", "lake"))


def estimate_cost(config: BridgeConfig) -> CostEstimate:
    return estimate_for(config, *load_pairs(config))


def test_an_estimate_is_what_is_then_sent_and_paid(tmp_path: Path) -> None:
    with ChatServer(edits) as server:
        config = recipe(tmp_path, server.url)
        before = estimate_cost(config)
        assert (before.rows, before.to_send, before.cached, before.cached_dollars) == (4, 4, 0, 0.0)
        stats = bridge(config)
        assert len(server.requests) == 4
        said = [message["content"] for request in server.requests for message in request["messages"]]
        assert before.prompt_tokens == pytest.approx(sum(map(estimated_tokens, said)) + 4 * (2 * 4 + 3), rel=0.01)
        replies = (edits(request, 0)["body"]["choices"][0]["message"]["content"] for request in server.requests)
        # an edit of the draft between tags, and no verdict, which this template doesn't ask for
        losers = sum(estimated_tokens(reply.partition("\n")[2]) for reply in replies)
        assert before.completion_tokens == pytest.approx(losers, rel=0.15)  # marks vary
        after = estimate_cost(config)
        assert (after.rows, after.to_send, after.cached) == (4, 0, 4)
        assert after.cached_dollars == pytest.approx(4 * 0.017)  # 7 · $1,000 and 5 · $2,000 a million tokens
    used = {"completions": 4, "prompt_tokens": 28, "completion_tokens": 20, "dollars": 0.068}
    assert stats["usage"] == used
    assert {name: stats["this_run"][name] for name in used} == used
    assert (stats["this_run"]["requests"], stats["this_run"]["retries"]) == (4, {})
    again = bridge(config)
    assert again["usage"] == used
    assert (again["this_run"]["requests"], again["this_run"]["dollars"]) == (0, 0.0)


def test_an_estimate_knows_of_second_tries_that_wait(tmp_path: Path) -> None:
    """r0's first response is rejected and cached; the run is stopped at its second: one cached, two more to send."""

    def script(request: dict[str, Any], number: int) -> Reply:
        return says("") if number == 0 else {"status": 401, "body": {}}

    with ChatServer(script) as server:
        config = recipe(tmp_path, server.url, rows=2, max_concurrency=1)
        with pytest.raises(UserErrors, match="refuses the key"):
            bridge(config)
    found = estimate_cost(config)
    assert (found.cached, found.to_send) == (1, 2)


def test_scores_are_estimated_for_both_responses(tmp_path: Path, tokenizer: Any) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    config = recipe(tmp_path, mode="token_scores", tokenizer_name_or_path=str(tmp_path / "tokenizer"))
    assert estimate_cost(config).to_send == 8


def test_an_estimate_without_a_price(tmp_path: Path) -> None:
    facts = estimate_cost(recipe(tmp_path, prices={}, requests_per_minute=2)).facts()
    assert facts["dollars"] == "unknown: the recipe's `prices` has none for m"
    assert facts["minutes"] == "at least 2.0 (2 requests a minute)"


def test_the_budget_holds_over_runs_and_keeps_everything(tmp_path: Path) -> None:
    """A request may cost some 95 cents, depending on its mark, and costs 1.7."""
    with ChatServer(edits) as server:
        config = recipe(tmp_path, server.url, rows=9, max_cost_usd=1.0, max_tokens=200, max_concurrency=2)
        for _ in range(2):
            with pytest.raises(UserErrors, match="max_cost_usd: is reached"):
                bridge(config)
            assert 1 <= len(server.requests) <= 4
        config.max_cost_usd = 10.0
        stats = bridge(config)
        assert len(server.requests) == 9
    assert stats["kept"] == 9
    assert max(server.asked.values()) == 1


@pytest.mark.slow
def test_a_terminal_is_asked_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    for number, (typed, sent) in enumerate((("n", 0), ("", 0), ("y", 4), ("YES", 4))):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.setattr("builtins.input", lambda prompt, typed=typed: typed)
        with subtests.test(typed=typed), ChatServer(edits) as server:
            config = recipe(folder, server.url)
            if sent:
                bridge(config)
            else:
                with pytest.raises(UserErrors, match="was declined, and nothing was sent; --yes"):
                    bridge(config)
                assert {path.name for path in folder.iterdir()} == {"pairs.jsonl"}
            assert len(server.requests) == sent
            assert "dollars  about $" in capsys.readouterr().out
    monkeypatch.setattr("builtins.input", lambda prompt: pytest.fail("asked"))
    with ChatServer(edits) as server:
        bridge(recipe(tmp_path, server.url, yes=True))
    assert len(server.requests) == 4


def script(*arguments: str) -> forks.Fork:
    environment = {name: value for name, value in os.environ.items() if name not in ("EDITOR_KEY", "OPENAI_API_KEY")}
    return forks.run(["scripts/bridge.py", *arguments], env=environment)


@pytest.mark.slow
def test_a_dry_run_estimates_without_a_key_and_leaves_nothing(tmp_path: Path) -> None:
    config = recipe(tmp_path)
    path = config.dataset_mixture.datasets[0].id
    (tmp_path / "bridge.yaml").write_text(
        f"dataset_mixture: {{datasets: [{{id: {path}}}]}}\nmodel: m\nprices: {{m: {{input: 1000, output: 2000}}}}\n"
        f"template: instruction\noutput_dir: {tmp_path / 'out'}\n"
    )
    before = set(tmp_path.iterdir())
    done = script(str(tmp_path / "bridge.yaml"), "--dry_run")
    assert done.returncode == 0, done.stderr
    assert "4; 4 requests to send, 0 cached" in done.stdout
    assert "($1000 and $2000 per million tokens)" in done.stdout
    assert set(tmp_path.iterdir()) == before
    done = script(str(tmp_path / "bridge.yaml"), "--dry_run", "--dataset_mixture.datasets.0.id", "none.jsonl")
    assert done.returncode == 0
    assert "none before the pairs are there" in done.stdout


def test_faults_of_a_recipe(subtests: pytest.Subtests) -> None:
    rows = [
        ("--max_cost_usd 5", "prices: has no price for gpt-4-0125-preview, which max_cost_usd needs"),
        ("--prices.m.input -1 --prices.m.output 2", "prices.m.input: must be greater than or equal to 0"),
        ("--base_url localhost:8000/v1", "base_url: is no address of a server; write it like http://"),
        ("--batch_api --editor rules", "batch_api: editor: rules has no Batch API"),
        ("--requests_per_minute 0", "requests_per_minute: must be greater than 0"),
        ("--on_failure keep", "on_failure: must be 'drop' or 'keep_original'"),
    ]
    for settings, words in rows:
        with subtests.test(settings), pytest.raises(UserErrors, match=re.escape(words)):
            parse(
                ["--dataset_mixture.datasets", "[{id: pairs.jsonl}]", "--output_dir", "out", *settings.split()],
                BridgeConfig,
            )
