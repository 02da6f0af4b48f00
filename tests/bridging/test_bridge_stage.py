import asyncio
import json
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import forks
import pytest
from server import ChatServer, Reply, part, refuses, revises, says

from bmc.bridging.editor import bridge_pair, bridged_pair
from bmc.bridging.edits import Edit, EditError, EditRequest
from bmc.bridging.rule_editor import RuleEditor
from bmc.bridging.run import bridge, bridge_all
from bmc.config import BridgeConfig, DatasetConfig, DatasetMixture
from bmc.data.schema import hash_fraction
from bmc.errors import UserErrors

ROOT = Path(__file__).parents[2]
KEY = "sk-test-90e4"
Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR_KEY", KEY)


def pair(id: str, rejected: str, chosen: str = "1 + 2 = 3\nThe answer is 3", **more: Any) -> dict[str, Any]:
    row = {"id": id, "source": "s", "task": "math", "prompt": "1 + 2 =", "chosen": chosen, "rejected": rejected}
    return row | {"answer": "3"} | more


# a, d: edited in two figures; b: good; c: needs no edit
SUMS = [
    pair("a", "1 + 2 = 4\nThe answer is 4"),
    pair("b", "2 + 1 = 3\nThe answer is 3"),
    pair("c", "So it is.\nThe answer is 5"),
    pair("d", "2 + 1 = 5\nThe answer is 5"),
]


def write(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(folder: Path, rows: Rows, **settings: Any) -> BridgeConfig:
    data = write(folder / "pairs.jsonl", rows)
    given = {"editor": "rules", "output_dir": str(folder / "out"), "api_key_env": "EDITOR_KEY", "max_retries": 0}
    return BridgeConfig(
        dataset_mixture=DatasetMixture(datasets=[DatasetConfig(id=str(data))]), **{**given, "model": "m", **settings}
    )


def lines(folder: Path, name: str) -> Rows:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def script(*arguments: str, **environment: str) -> forks.Fork:
    settings = {name: value for name, value in os.environ.items() if name not in ("EDITOR_KEY", "OPENAI_API_KEY")}
    return forks.run(["scripts/bridge.py", *arguments], env=settings | environment)


def arguments(folder: Path, rows: Rows, **settings: Any) -> list[str]:
    """A recipe file, and what follows it on the command line."""
    data = write(folder / "pairs.jsonl", rows)
    text = {"dataset_mixture": {"datasets": [{"id": str(data)}]}, "output_dir": str(folder / "out"), **settings}
    (folder / "bridge.yaml").write_text(json.dumps(text))
    return [str(folder / "bridge.yaml")]


def test_rules_end_to_end(tmp_path: Path) -> None:
    stats = bridge(recipe(tmp_path, SUMS))
    out = tmp_path / "out"
    train, dropped = lines(out, "train"), lines(out, "dropped")
    assert [row["id"] for row in train] == ["a", "d"]
    assert train[0] == SUMS[0] | {
        "chosen": "1 + 2 = 3\nThe answer is 3",
        "original_chosen": SUMS[0]["chosen"],
        "bridged": True,
        "edit_ratio": 0.08,  # 2 of 25 characters
    }
    assert train[1]["chosen"] == "2 + 1 = 3\nThe answer is 3"
    assert train[1]["original_chosen"] == "1 + 2 = 3\nThe answer is 3"
    assert dropped == [
        SUMS[1] | {"reason": "y_l needs no edit"},
        SUMS[2] | {"reason": "rules: its steps can't be brought to the gold answer"},
    ]
    assert stats == json.loads((out / "stats.json").read_text())
    assert stats.pop("seconds") >= 0
    expected = {
        "rows": 4,
        "kept": 2,
        "bridged": 2,
        "dropped": 2,
        "reasons": {"y_l needs no edit": 1, "rules: its steps can't be brought to the gold answer": 1},
        "edit_ratio_unit": "characters",
        "edit_ratio": 0.08,
        "original_edit_ratio": 0.12,  # (2/25 + 4/25) / 2: y_w and y_l of d differ in 1, 2, 3 and 3
    }
    assert {name: stats[name] for name in expected} == expected
    names = {"train.jsonl", "dropped.jsonl", "stats.json", "stats.html", "recipe.json", "provenance.json"}
    assert {file.name for file in out.iterdir()} == names


def scripted(request: dict[str, Any], number: int) -> Reply:
    """Replies by what the draft says."""
    draft = part(request, "draft")
    if "good" in draft:
        return says("<verdict>good</verdict>")
    if "cut" in draft:
        return says("<revised", "length")
    if "silent" in draft:
        return says("")
    if "odd" in draft:
        return says("Sure!")
    if "broken" in draft:
        return refuses(500)
    if "long" in draft:
        return refuses(400, "This model's maximum context length is 8 tokens.")
    if "same" in draft:
        return revises(request, draft)
    if "void" in draft:
        return revises(request, "")
    if "lost" in draft:
        return revises(request, "The answer is 5")
    return revises(request, draft.replace("4", "3"))


REASONS = {
    "good": "y_l needs no edit", "cut": "cut off: the reply reached max_tokens", "silent": "empty reply",
    "odd": "unreadable reply: no revised draft between the tags", "broken": "endpoint failed: HTTP 500",
    "long": "endpoint refuses the request (400: This model's maximum context length is … tokens.)",
    "same": "edit equals y_l", "void": "empty edit", "lost": "edit doesn't state the gold answer"
}  # fmt: skip
MIXED = [
    pair(f"{word}{number}", f"{word} {number}\nThe answer is {3 if word == 'good' else 4}")
    for number in range(4)
    for word in ("fine", *REASONS, "well")
]


def test_every_row_is_in_one_file_in_its_order_and_with_its_reason(tmp_path: Path) -> None:
    with ChatServer(scripted) as server:
        stats = bridge(recipe(tmp_path, MIXED, editor="openai", base_url=server.url, max_concurrency=3))
    train, dropped = (lines(tmp_path / "out", name) for name in ("train", "dropped"))
    order = [row["id"] for row in MIXED]
    assert [row["id"] for row in train] == [id for id in order if id[:4] in ("fine", "well")]
    assert [row["id"] for row in dropped] == [id for id in order if id[:4] not in ("fine", "well")]
    assert all(row["reason"] == REASONS[row["id"][:-1]] for row in dropped)
    assert stats["reasons"] == dict.fromkeys(REASONS.values(), 4)
    assert (stats["rows"], stats["kept"], stats["dropped"]) == (44, 8, 36)
    assert train[0]["chosen"] == "fine 0\nThe answer is 3"


def test_messages_stay_messages_and_empty_columns_stay_out(tmp_path: Path) -> None:
    chat = {
        "id": "u", "task": "chat", "answer": None, "prompt": [{"role": "user", "content": "Hi"}],
        "chosen": [{"role": "assistant", "content": "Hello!"}], "rejected": [{"role": "assistant", "content": "Hell"}]
    }  # fmt: skip
    with ChatServer(lambda request, number: revises(request, "Hell yes")) as server:
        bridge(recipe(tmp_path, [chat], editor="openai", base_url=server.url, template="instruction"))
    assert lines(tmp_path / "out", "train") == [
        {
            "id": "u",
            "task": "chat",
            "prompt": chat["prompt"],
            "chosen": [{"role": "assistant", "content": "Hell yes"}],
            "rejected": chat["rejected"],
            "original_chosen": chat["chosen"],
            "bridged": True,
            "edit_ratio": 0.5,  # " yes" of "Hell yes"
        }
    ]
    assert part(server.requests[0], "reference") == "Hello!"


def test_proportions_are_nested_and_keep_the_same_pairs(tmp_path: Path) -> None:
    rows = [pair(f"r{number}", f"1 + 2 = {4 + number}\nThe answer is {4 + number}") for number in range(40)]
    rows += [pair("good", "The answer is 3"), pair("hopeless", "The answer is 9")]
    bridged: dict[float, set[str]] = {}
    for proportion in (0.0, 0.4, 0.7, 1.0):
        folder = tmp_path / str(proportion)
        folder.mkdir()
        stats = bridge(recipe(folder, rows, proportion=proportion))
        train = lines(folder / "out", "train")
        assert [row["id"] for row in train] == [f"r{number}" for number in range(40)]
        bridged[proportion] = {row["id"] for row in train if row["bridged"]}
        assert stats["bridged"] == len(bridged[proportion])
        for row in train:
            assert row["original_chosen"] == "1 + 2 = 3\nThe answer is 3"
            assert row["edit_ratio"] > 0
    assert bridged[0.0] == set()
    assert bridged[0.4] == {f"r{number}" for number in range(40) if hash_fraction(f"r{number}") < 0.4}
    assert 0 < len(bridged[0.4]) < len(bridged[0.7]) < 40
    assert bridged[0.4] < bridged[0.7] < bridged[1.0]
    assert len(bridged[1.0]) == 40


def test_another_proportion_needs_no_more_replies(tmp_path: Path) -> None:
    with ChatServer(scripted) as server:
        config = recipe(tmp_path, MIXED[:2], editor="openai", base_url=server.url)
        bridge(config)
        bridge(replace(config, proportion=0.0, output_dir=str(tmp_path / "none")))
    assert len(server.requests) == 2
    assert [row["bridged"] for row in lines(tmp_path / "none", "train")] == [False]


def test_an_unbridged_row_keeps_its_winner() -> None:
    row = pair("a", "abcd", "abxyz")
    kept = bridged_pair(row, None, "targeted")
    assert (kept["chosen"], kept["original_chosen"], kept["bridged"]) == ("abxyz", "abxyz", False)
    assert kept["edit_ratio"] == 0.6  # c → x, d → y, + z: 3 of 5
    assert bridged_pair(row, "abcx", "targeted")["edit_ratio"] == 0.25  # d → x: 1 of 4


def test_only_the_first_pairs_are_tried(tmp_path: Path) -> None:
    assert bridge(recipe(tmp_path, SUMS, limit=2))["rows"] == 2
    assert [row["id"] for row in lines(tmp_path / "out", "train")] == ["a"]
    (tmp_path / "more").mkdir()
    assert bridge(recipe(tmp_path / "more", SUMS, limit=99))["rows"] == 4


def test_nothing_to_keep(tmp_path: Path) -> None:
    with pytest.raises(UserErrors, match=r"dropped\.jsonl: all 2 pairs were dropped: 1 × y_l needs no edit; 1 × rules"):
        bridge(recipe(tmp_path, SUMS[1:3]))
    stats = json.loads((tmp_path / "out" / "stats.json").read_text())
    assert (stats["kept"], stats["edit_ratio"], stats["dropped"]) == (0, 0.0, 2)
    assert lines(tmp_path / "out", "train") == []


def test_numbers_may_be_answers(tmp_path: Path) -> None:
    bridge(recipe(tmp_path, [row | {"answer": 3} for row in SUMS]))
    assert [row["answer"] for row in lines(tmp_path / "out", "train")] == [3, 3]


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.slow
def test_no_more_requests_than_allowed_are_under_way(tmp_path: Path, width: int) -> None:
    rows = [pair(f"r{number}", f"fine {number}\nThe answer is 4") for number in range(24)]
    with ChatServer(scripted, delay=0.02) as server:
        bridge(recipe(tmp_path, rows, editor="openai", base_url=server.url, max_concurrency=width))
    assert len(server.requests) == 24
    assert server.most == width


def test_rows_come_in_their_order_and_few_are_held() -> None:
    read: list[str] = []

    class Slow(RuleEditor):
        async def edit(self, case: EditRequest) -> Edit:
            await asyncio.sleep(0.001 * (int(case.id) % 5))
            if case.id == "7":
                raise EditError("no")
            return Edit("The answer is 3")

    def rows() -> Any:
        for number in range(50):
            read.append(str(number))
            yield pair(str(number), "The answer is 4")

    async def run() -> list[str]:
        seen = []
        make = partial(bridge_pair, editor=Slow(), settings=BridgeConfig(output_dir="o"))
        async for row, outcome in bridge_all(rows(), make, 8):
            assert isinstance(outcome, EditError) == (row["id"] == "7")
            seen.append(row["id"])
            assert len(read) - len(seen) <= 8
        return seen

    assert asyncio.run(run()) == read


def test_a_fault_on_the_way_leaves_no_files_but_what_was_answered(tmp_path: Path) -> None:
    rows = [pair(f"r{number}", f"fine {number}\nThe answer is 4") for number in range(9)]
    with ChatServer(lambda request, number: refuses(401) if number == 5 else scripted(request, number)) as server:
        config = recipe(tmp_path, rows, editor="openai", base_url=server.url, max_concurrency=1)
        with pytest.raises(UserErrors, match="refuses the key in EDITOR_KEY"):
            bridge(config)
        assert {file.name for file in (tmp_path / "out").iterdir()} == {"recipe.json", "provenance.json"}
        assert (tmp_path / "responses.sqlite").exists()
        asked = len(server.requests)
        assert asked < 9
        bridge(config)
    assert len(server.requests) == asked + 4  # five of nine were answered
    assert len(lines(tmp_path / "out", "train")) == 9


def test_any_other_error_leaves_no_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(self: object, case: EditRequest) -> Edit:
        raise ZeroDivisionError

    monkeypatch.setattr("bmc.bridging.rule_editor.RuleEditor.edit", fails)
    with pytest.raises(ZeroDivisionError):
        bridge(recipe(tmp_path, SUMS))
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"recipe.json", "provenance.json"}


def test_what_a_folder_of_another_recipe_holds_stays(tmp_path: Path) -> None:
    bridge(recipe(tmp_path, SUMS))
    with ChatServer(scripted) as server, pytest.raises(UserErrors, match="holds a run of another recipe"):
        bridge(recipe(tmp_path, SUMS, editor="openai", base_url=server.url))
    assert server.requests == []
    assert not (tmp_path / "responses.sqlite").exists()


@pytest.mark.slow
def test_the_script_with_rules(tmp_path: Path) -> None:
    done = script(*arguments(tmp_path, SUMS, editor="rules"))
    assert done.returncode == 0, done.stderr
    first, *reasons = done.stdout.splitlines()
    assert first.startswith("kept 2 of 4 pairs (2 bridged, 2 dropped) in ")
    assert first.endswith(f" s: {tmp_path / 'out'}")
    assert sorted(reasons) == [
        "  dropped 1: rules: its steps can't be brought to the gold answer",
        "  dropped 1: y_l needs no edit",
    ]


@pytest.mark.slow
def test_the_script_with_an_endpoint_shows_the_key_nowhere(tmp_path: Path) -> None:
    with ChatServer(scripted) as server:
        more = {"editor": "openai", "base_url": server.url, "model": "m", "api_key_env": "EDITOR_KEY", "max_retries": 0}
        done = script(*arguments(tmp_path, MIXED, **more), EDITOR_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert set(server.keys) == {f"Bearer {KEY}"}
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.name for file in files} >= {"train.jsonl", "dropped.jsonl", "stats.json", "responses.sqlite"}
    assert KEY not in done.stdout + done.stderr
    assert not any(KEY.encode() in file.read_bytes() for file in files)


@pytest.mark.slow
def test_the_script_with_a_key_that_is_refused(tmp_path: Path) -> None:
    rows = [pair(f"r{number}", f"fine {number}\nThe answer is 4") for number in range(40)]

    def refused(request: dict[str, Any], number: int) -> Reply:
        time.sleep(0.3 if part(request, "draft").startswith("fine 0") else 0)  # the others have failed by then
        return refuses(401, f"wrong key: {KEY}")

    with ChatServer(refused) as server:
        more = {"editor": "openai", "base_url": server.url, "api_key_env": "EDITOR_KEY"}
        done = script(*arguments(tmp_path, rows, **more), EDITOR_KEY=KEY)
    assert done.returncode == 2
    said = [line for line in done.stderr.replace("\r", "\n").splitlines() if line and "pair/s" not in line]
    assert said == [f"gpt-4-0125-preview at {server.url}: refuses the key in EDITOR_KEY; set a valid one"]
    assert not list((tmp_path / "out").glob("*.jsonl*"))


@pytest.mark.slow
def test_the_script_without_a_key_says_so_in_a_line_and_writes_nothing(tmp_path: Path) -> None:
    done = script(*arguments(tmp_path, SUMS))
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("environment variable OPENAI_API_KEY: is not set; export the endpoint's key")
    assert not (tmp_path / "out").exists()


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


QUESTION = [turn("system", "Be kind."), turn("user", "Where does it run?")]
ASKED_BACK = [turn("assistant", "What does?"), turn("user", "The river.")]
BEFORE, AFTER = turn("assistant", "It runs up to the old town."), turn("assistant", "It runs down to the old town.")
CALLS = turn("assistant", None, tool_calls=[{"function": {"name": "find", "arguments": {"what": "river"}}}])
PAIRS: Rows = [
    {
        "prompt": QUESTION, "chosen": [*ASKED_BACK, AFTER], "rejected": [*ASKED_BACK, BEFORE],
        "tools": [{"name": "find"}]
    },
    {
        "prompt": QUESTION, "chosen": [*ASKED_BACK, AFTER],
        "rejected": [turn("assistant", "Who?"), ASKED_BACK[1], BEFORE]
    },
    {"prompt": QUESTION, "chosen": [AFTER], "rejected": [*ASKED_BACK, BEFORE]},
    {"prompt": QUESTION, "chosen": [AFTER], "rejected": [CALLS]},
    {"prompt": QUESTION, "chosen": [CALLS], "rejected": [BEFORE], "meta": {"a": 2**70}},
    {"prompt": QUESTION, "chosen": [AFTER], "rejected": [BEFORE], "meta": ["b"]}
]  # fmt: skip


def test_only_the_last_message_is_edited_and_turns_are_shown_with_their_roles(tmp_path: Path) -> None:
    edited = "It runs down to the town."
    with ChatServer(lambda request, number: revises(request, edited)) as server:
        bridge(recipe(tmp_path, PAIRS, editor="openai", base_url=server.url, template="instruction"))
    train, dropped = lines(tmp_path / "out", "train"), lines(tmp_path / "out", "dropped")
    assert [row["reason"] for row in dropped] == [
        "responses of several messages differ before the last one",
        "responses of several messages differ before the last one",
        "y_l is a tool call, which has no text to edit",
        "y_w is a tool call, which has no text to edit",
    ]
    assert [row["prompt"] for row in train] == [[*QUESTION, *ASKED_BACK], QUESTION]
    for row in train:
        assert row["chosen"] == [turn("assistant", edited)]
        assert (row["original_chosen"], row["rejected"]) == ([AFTER], [BEFORE])
    assert train[0]["tools"] == [{"name": "find"}]
    shown = sorted({part(request, "request") for request in server.requests}, key=len)
    asked = "system: Be kind.\n\nuser: Where does it run?"
    assert shown == [asked, f"{asked}\n\nassistant: What does?\n\nuser: The river."]


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (PAIRS, None),
        ([{**PAIRS[5], "n": 1}, {**PAIRS[5], "n": [{"deep": None}, "x"], "big": 2**64}], None),
        ([PAIRS[5], {"prompt": "q", "chosen": "a", "rejected": "b"}], "row 2: prompt, chosen, rejected: strings, but"),
        ([PAIRS[5] | {"tools": "[{"}], "row 1: tools: must be a list"),
        ([PAIRS[5] | {"rejected": [AFTER]}], "row 1: rejected: equals chosen"),
        ([PAIRS[5] | {"prompt": []}], "row 1: prompt: is empty"),
        ([{**PAIRS[5], "rejected": None}], "has no column rejected"),
        ([{**PAIRS[5], "rejected": [turn("assistant", 5)]}], "row 1: rejected: must be a string or a list"),
    ],
)
def test_bridging_takes_what_training_takes(rows: Rows, fault: str | None, tmp_path: Path, tokenizer: Any) -> None:
    from types import SimpleNamespace

    from bmc.training.run import load_rows

    def train(path: Path) -> Any:
        mixture = DatasetMixture(datasets=[DatasetConfig(id=str(path))])
        return load_rows(SimpleNamespace(dataset_mixture=mixture), tokenizer, ("prompt", "chosen", "rejected"))[0]

    config = recipe(tmp_path, rows, editor="openai", model="m", on_failure="keep_original")
    if fault:
        for reads in (lambda: bridge(config), lambda: train(tmp_path / "pairs.jsonl")):
            with pytest.raises(UserErrors, match=fault):
                reads()
        return
    assert len(train(tmp_path / "pairs.jsonl")) == len(rows)
    with ChatServer(lambda request, number: revises(request, "It runs down to the town.")) as server:
        bridge(replace(config, base_url=server.url))
    kept = lines(tmp_path / "out", "train")
    assert len(kept) == len(rows)
    assert [row["prompt"] for row in train(tmp_path / "out" / "train.jsonl")] == [row["prompt"] for row in kept]
