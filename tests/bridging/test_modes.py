"""The modes of Table 3 and the controls, against an endpoint that does what each prompt asks."""

import json
from pathlib import Path
from typing import Any

import pytest
from server import ChatServer, Reply, part, revises, says, shows

from bmc.bridging.run import bridge
from bmc.config import BridgeConfig, DatasetConfig, DatasetMixture
from bmc.data.schema import assistant, hash_fraction, user

pytestmark = pytest.mark.slow

MODES = ["targeted", "without_reference", "degrade", "fresh", "polish"]
W, L = "It is 1 + 2 = 3.\nThe answer is 3", "It's 1 + 2 = 4.\nThe answer is 4"
ROW = {"id": "r", "task": "math", "prompt": "1 + 2 =", "chosen": W, "rejected": L, "answer": "3"}
MADE = {
    "targeted": "It's 1 + 2 = 3.\nThe answer is 3",
    "without_reference": "It's 1 + 2 = 3.\nThe answer is 3",
    "degrade": "It is 1 + 2 = 4.\nThe answer is 4",
    "fresh": "One and two make 3.\nThe answer is 3",
    "polish": "We have 1 + 2 = 3.\nThe answer is 3",
}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR_KEY", "k")


def obeys(request: dict[str, Any], number: int) -> Reply:
    """An editor that does what the request asks, told from what it shows and says."""
    user = request["messages"][1]["content"]
    if "Answer it" in user:
        return revises(request, MADE["fresh"], tag="answer")
    draft = part(request, "draft")
    if "Polish the draft" in user:
        return revises(request, draft.replace("It is", "We have"))
    if "revised reference" in user:
        return revises(request, part(request, "reference").replace("3", "4"))
    return revises(request, draft.replace("4", "3"))


def recipe(folder: Path, url: str, rows: list[dict[str, Any]], mode: str, **more: Any) -> BridgeConfig:
    folder.mkdir(exist_ok=True)
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"base_url": url, "api_key_env": "EDITOR_KEY", "max_retries": 0, "output_dir": str(folder / mode)}
    data = DatasetMixture(datasets=[DatasetConfig(id=str(folder / "pairs.jsonl"))])
    return BridgeConfig(dataset_mixture=data, mode=mode, **{**given, **more})


def lines(folder: Path, name: str = "train") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("template", ["closed", "instruction"])
@pytest.mark.parametrize("mode", MODES)
def test_what_is_trained_on(mode: str, template: str, tmp_path: Path) -> None:
    with ChatServer(obeys) as server:
        stats = bridge(recipe(tmp_path, server.url, [ROW], mode, template=template))
    (pair,) = lines(tmp_path / mode)
    made = {"rejected": MADE[mode], "original_rejected": L} if mode == "degrade" else {"chosen": MADE[mode]}
    assert {key: value for key, value in pair.items() if key != "edit_ratio"} == {
        **ROW, **made, "original_chosen": W, "bridged": True,
    }  # fmt: skip
    assert stats["bridged"] == stats["kept"] == 1
    by_hand = {"targeted": 2 / 31, "without_reference": 2 / 31, "degrade": 2 / 32}  # 3 and 4, twice
    assert pair["edit_ratio"] == round(by_hand.get(mode, pair["edit_ratio"]), 4) == stats["edit_ratio"]
    assert stats["original_edit_ratio"] == 4 / 32  # " i" and "'" are two, 3 and 4 another two


@pytest.mark.parametrize(
    ("mode", "reference", "draft"),
    [
        ("targeted", W, L), ("without_reference", None, L), ("degrade", W, L), ("fresh", None, None),
        ("polish", None, W)
    ]
)  # fmt: skip
def test_what_the_editor_sees(mode: str, reference: str | None, draft: str | None, tmp_path: Path) -> None:
    with ChatServer(obeys) as server:
        bridge(recipe(tmp_path, server.url, [ROW], mode))
    (request,) = server.requests
    assert part(request, "question") == ROW["prompt"]
    for name, text in (("reference", reference), ("draft", draft)):
        assert (part(request, name) if shows(request, name) else None) == text
    said = json.dumps(request, ensure_ascii=False)
    assert (json.dumps(L)[1:-1] in said) == (draft == L)
    assert (json.dumps(W)[1:-1] in said) == (W in (draft, reference))


def test_modes_ask_for_themselves_and_not_twice(tmp_path: Path) -> None:
    with ChatServer(obeys) as server:
        for mode in MODES * 2:
            bridge(recipe(tmp_path, server.url, [ROW], mode, response_cache=str(tmp_path / "responses.sqlite")))
    assert len(server.requests) == 5


@pytest.mark.parametrize("mode", MODES)
def test_a_draft_that_is_good_drops_the_pair_where_that_is_asked(mode: str, tmp_path: Path) -> None:
    rows = [ROW, {**ROW, "id": "good", "prompt": "good", "rejected": "Good: 3 is the sum.\nThe answer is 3"}]

    def script(request: dict[str, Any], number: int) -> Reply:
        asked = "good enough" in request["messages"][1]["content"]
        if part(request, "question") == "good" and asked:
            return says("<verdict>good</verdict>")
        return obeys(request, number)

    with ChatServer(script) as server:
        stats = bridge(recipe(tmp_path, server.url, rows, mode))
    reasons = {
        "targeted": {"y_l needs no edit": 1},
        "without_reference": {"edit equals y_l": 1},  # this editor changes no draft without a 4
        "degrade": {"y_l needs no edit": 1},
    }
    assert stats["reasons"] == reasons.get(mode, {})


@pytest.mark.parametrize("mode", MODES)
def test_some_pairs_stay_as_they_were(mode: str, tmp_path: Path) -> None:
    rows = [{**ROW, "id": str(number)} for number in range(12)]
    with ChatServer(obeys) as server:
        bridge(recipe(tmp_path, server.url, rows, mode, proportion=0.5))
    pairs = lines(tmp_path / mode)
    assert {pair["id"] for pair in pairs if pair["bridged"]} == {
        row["id"] for row in rows if hash_fraction(row["id"]) < 0.5
    }
    assert 0 < sum(pair["bridged"] for pair in pairs) < 12
    side = "rejected" if mode == "degrade" else "chosen"
    for pair in pairs:
        assert pair[side] == (MADE[mode] if pair["bridged"] else ROW[side])
        assert pair[f"original_{side}"] == ROW[side]
        assert pair["original_chosen"] == W


@pytest.mark.parametrize("mode", MODES)
def test_messages_stay_messages(mode: str, tmp_path: Path) -> None:
    row = {"id": "m", "prompt": user("1 + 2 ="), "chosen": assistant(W), "rejected": assistant(L)}
    with ChatServer(obeys) as server:
        bridge(recipe(tmp_path, server.url, [row], mode, template="instruction"))
    (pair,) = lines(tmp_path / mode)
    side = "rejected" if mode == "degrade" else "chosen"
    assert pair[side] == assistant(MADE[mode])
    assert pair[f"original_{side}"] == row[side]


@pytest.mark.parametrize("then", MODES)
def test_bridged_pairs_are_bridged_as_they_were_before(then: str, tmp_path: Path) -> None:
    """A variant may take the pairs that the method kept, so that all train on the same ones."""
    with ChatServer(obeys) as server:
        bridge(recipe(tmp_path / "c", server.url, [ROW], then))
        for first in ("targeted", "degrade"):
            bridge(recipe(tmp_path / "a", server.url, [ROW], first))
            bridge(recipe(tmp_path / f"b_{first}", server.url, lines(tmp_path / "a" / first), then))
            assert lines(tmp_path / f"b_{first}" / then) == lines(tmp_path / "c" / then)


def test_weights_of_other_responses_are_not_kept(tmp_path: Path) -> None:
    row = {**ROW, "original_chosen": W, "bridged": False, "chosen_weights": [1.0], "rejected_weights": [1.0]}
    with ChatServer(obeys) as server:
        bridge(recipe(tmp_path, server.url, [row], "targeted"))
    assert lines(tmp_path / "targeted")[0].keys() == {*ROW, "original_chosen", "bridged", "edit_ratio"}
