"""Decisions on a bridging run: the page's API, the review file, and what a training reads of it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bmc.bridging.review import REVIEW, BridgingRun, Review, agreement, cohen_kappa, read_decisions
from bmc.bridging.review_server import Server
from bmc.cli import main
from bmc.config import BridgeConfig, DatasetConfig, DatasetMixture
from bmc.data.loading import load_mixture
from bmc.data.schema import assistant, user
from bmc.errors import UserErrors
from bmc.runs import claim_output_dir, run_fingerprint

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>\u202e"
REWRITE = "a rewrite, not an edit: edit ratio above 0.6"


def pair(number: int, **more: Any) -> dict[str, Any]:
    """y_l "river number n", y_w "money lies in a bank", ỹ_w "bank number n"."""
    texts = {"chosen": assistant(f"bank number {number}"), "rejected": assistant(f"river number {number}")}
    original = {"original_chosen": assistant("money lies in a bank"), "bridged": True, "edit_ratio": number / 10}
    return {"id": f"r{number}", "prompt": user(f"Where, {number}?"), **texts, **original, **more}


def dropped(number: int, reason: str) -> dict[str, Any]:
    texts = {"chosen": assistant("money lies in a bank"), "rejected": assistant(f"river number {number}")}
    return {"id": f"d{number}", "prompt": user("Where?"), **texts, "reason": reason}


def bridged(folder: Path, train: list[Any] | None = None, **recipe: Any) -> Path:
    """A finished run: places 0 to 4 are pairs r0 … r4, 5 and 6 the dropped rows d0, d1."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.json").write_text(json.dumps(recipe))
    files = {"train": [pair(n) for n in range(5)] if train is None else train}
    files["dropped"] = [dropped(0, REWRITE), dropped(1, "refusal")]
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


class Client:
    def __init__(self, server: Server) -> None:
        self.server = server

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
        link = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=20)
        given = {"Content-Type": "application/json"} | {key.replace("_", "-"): value for key, value in headers.items()}
        link.request(method, path, body if method == "POST" else None, given)
        answer = link.getresponse()
        text = answer.read().decode()
        link.close()
        return answer.status, json.loads(text) if answer.getheader("Content-Type") == "application/json" else text

    def get(self, path: str) -> Any:
        return self.send("GET", f"/{self.server.token}/{path}")[1]

    def post(self, path: str, **body: Any) -> tuple[int, Any]:
        return self.send("POST", f"/{self.server.token}/{path}", json.dumps(body).encode())

    def places(self, query: str) -> list[int]:
        return [row["place"] for row in self.get(f"rows?count=50&{query}")["rows"]]


@contextmanager
def reviewing(folder: Path, reviewer: str = "AB") -> Iterator[Client]:
    review = Review(folder, reviewer)
    with Server(review) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield Client(server)
        server.shutdown()
    review.close()


def test_kappa(subtests: pytest.Subtests) -> None:
    for pairs, kappa in [
        # 7 of 10 the same; by chance 6/10 · 5/10 + 4/10 · 5/10 = 0.5: (0.7 − 0.5) / 0.5
        ([("a", "a")] * 4 + [("a", "r")] * 2 + [("r", "a")] + [("r", "r")] * 3, 0.4),
        ([("a", "a"), ("r", "r"), ("c", "c")], 1.0),
        ([("a", "r"), ("r", "a")], -1.0),  # p_o = 0, p_e = 1/2
        ([("a", "a"), ("a", "r")], 0.0),  # one says the same always: p_o = p_e = 1/2
        ([("a", "a"), ("a", "a")], None),
        ([], None),
    ]:
        with subtests.test(pairs=pairs):
            assert cohen_kappa(pairs) == (kappa if kappa is None else pytest.approx(kappa))


def test_a_row_is_shown_with_what_a_reviewer_needs(tmp_path: Path) -> None:
    row = pair(1, rationale=f"It says river. {HOSTILE}", answer="bank")
    (tmp_path / "stats.json").write_text('{"rationale": {"rows": 1, "length": 20.0}}')
    with reviewing(bridged(tmp_path, [row])) as client:
        assert client.get("progress")["rationale"] == 1
        (shown,) = client.get("rows")["rows"]
        assert shown["pieces"] == [["del", "river "], ["ins", "bank "], ["equal", "number 1"]]
        assert (shown["base"], shown["edit"], shown["other"]) == ("y_l", "ỹ_w", "y_w")
        assert (shown["prompt"], shown["beside"]) == ("Where, 1?", "money lies in a bank")
        assert shown["rationale"].endswith("[U+202E]")
        assert (shown["answer"], shown["edit_ratio"], shown["findings"]) == ("bank", 0.1, [])
        (lost,) = client.get("rows?at=2")["rows"]
        assert (lost["state"], lost["findings"], lost["text"]) == ("dropped", ["refusal"], "river number 1")


def test_a_degraded_edit_is_shown_against_y_w(tmp_path: Path) -> None:
    sides = {"original_rejected": assistant("river number 1"), "original_chosen": assistant("bank number 1")}
    row = pair(1, **sides) | {"rejected": assistant("brook number 1"), "chosen": assistant("bank number 1")}
    with reviewing(bridged(tmp_path, [row], mode="degrade")) as client:
        (shown,) = client.get("rows")["rows"]
        assert (shown["base"], shown["edit"], shown["other"], shown["text"]) == ("y_w", "ỹ_l", "y_l", "brook number 1")
        assert shown["pieces"][:2] == [["del", "bank "], ["ins", "brook "]]
        client.post("decide", place=0, decision="correct", text="bench number 1")
    (made,) = load_mixture([DatasetConfig(id=str(tmp_path / "train.jsonl"), use_review="accepted")], 0)
    assert made["rejected"] == assistant("bench number 1")
    assert made["chosen"] == assistant("bank number 1")


def test_filters_order_and_pages(tmp_path: Path) -> None:
    with reviewing(bridged(tmp_path)) as client:
        client.post("decide", place=1, decision="reject")
        assert client.places("") == [0, 1, 2, 3, 4, 5, 6]
        assert client.places("decision=undecided") == [0, 2, 3, 4, 5, 6]
        assert client.places("decision=reject") == [1]
        assert client.places("reason=") == [0, 1, 2, 3, 4]
        assert client.places("reason=refusal") == [6]
        assert client.places("low=0.2&high=0.3") == [2, 3]
        assert client.places("at=2&step=1") == [3, 4, 5, 6]
        assert [row["number"] for row in client.get("rows?at=5&step=-1&count=2")["rows"]] == [4, 5]
        assert client.places("at=1&step=1&decision=undecided") == [2, 3, 4, 5, 6]  # from a row that doesn't pass
        mixed = client.places("seed=7")
        assert mixed != sorted(mixed) == [0, 1, 2, 3, 4, 5, 6]
        assert client.places("seed=7") == mixed != client.places("seed=8")
        assert client.places(f"seed=7&at={mixed[2]}&step=1") == mixed[3:]


def test_decisions_are_on_the_disk_and_come_back(tmp_path: Path) -> None:
    folder = bridged(tmp_path)
    with reviewing(folder) as client:
        client.post("decide", place=0, decision="accept")
        client.post("decide", place=1, decision="reject")
        status, answer = client.post("decide", place=2, decision="correct", text="bank numbers 2")
        assert status == 200
        assert answer["row"]["decision"] == "correct"
        assert answer["row"]["edit_ratio"] == 0.4286  # river → bank: 5 edits, + s, of 14 characters
        lines = (folder / REVIEW).read_text().splitlines()
        assert [json.loads(line)["decision"] for line in lines] == ["accept", "reject", "correct"]
        first = json.loads(lines[0])
        assert (first["reviewer"], first["id"], first["file"], first["line"]) == ("AB", "r0", "train.jsonl", 1)
        assert first["time"].endswith("+00:00")
        client.post("decide", place=1, decision="accept")
        assert client.post("undo")[1]["row"]["decision"] == "reject"  # the one before it
        assert client.post("undo")[1]["row"]["place"] == 2
    with reviewing(folder) as client:
        assert client.get("progress") | {"agreement": []} == {
            "reviewer": "AB", "rows": 7, "decided": 2, "pairs": 5, "dropped": 2, "rationale": 0,
            "accept": 1, "reject": 1, "correct": 0,
            "agreement": [],
        }  # fmt: skip
        assert client.post("undo")[1]["row"]["place"] == 1
        assert client.post("undo")[1]["row"]["place"] == 0
        assert client.post("undo")[1]["row"] is None
    assert len((folder / REVIEW).read_text().splitlines()) == 8  # nothing is taken out of the file


@pytest.mark.parametrize(
    ("place", "decision", "text", "fault"),
    [
        (0, "correct", "river  number 0", "edit equals y_l"),
        (0, "correct", " ", "empty edit"),
        (0, "correct", "I'm sorry, but I can't help with that.", "refusal"),
        (0, "correct", "bank number 0", "this is the edit as it was"),
        (0, "correct", None, "text: is missing"),
        (5, "accept", None, "this row was dropped"),
        (0, "undo", None, "decision: must be one of"),
        (7, "accept", None, "place: must be a number from 0 to 6"),
        (True, "accept", None, "place: must be a number"),
    ],
)
def test_a_decision_that_cannot_be_made(tmp_path: Path, place: Any, decision: str, text: Any, fault: str) -> None:
    with reviewing(bridged(tmp_path)) as client:
        status, answer = client.post("decide", place=place, decision=decision, text=text)
        assert status == 400
        assert fault in answer["error"]
        assert (tmp_path / REVIEW).read_bytes() == b""


def test_a_typed_edit_is_judged_without_being_kept(tmp_path: Path) -> None:
    with reviewing(bridged(tmp_path)) as client:
        judged = client.post("judge", place=3, text="bank number three")[1]
        assert judged["pieces"] == [
            ["del", "river "], ["ins", "bank "], ["equal", "number "], ["del", "3"], ["ins", "three"]
        ]  # fmt: skip
        assert judged["edit_ratio"] == 0.5882  # 5 + 5 of 17
        long = client.post("judge", place=3, text="word " * 40)[1]
        assert long["findings"] == ["length drift: above 2 times"]
        assert client.get("progress")["decided"] == 0


def test_only_the_page_itself_may_ask(tmp_path: Path) -> None:
    with reviewing(bridged(tmp_path)) as client:
        inside, port = f"/{client.server.token}", client.server.server_port
        host = f"127.0.0.1:{port}"
        for status, method, path, headers in (
            (200, "GET", f"{inside}/", {}),
            (200, "GET", f"{inside}/", {"Host": f"localhost:{port}"}),
            (404, "GET", "/", {}),
            (404, "GET", f"{inside[:-1]}/rows", {}),
            (404, "GET", f"{inside}x/rows", {}),
            (404, "GET", f"{inside}/../rows", {}),
            (404, "POST", f"{inside}/rows", {}),
            (403, "GET", f"{inside}/rows", {"Host": f"evil.example:{port}"}),
            (403, "GET", f"{inside}/rows", {"Host": "127.0.0.1"}),
            (403, "POST", f"{inside}/undo", {"Origin": "http://evil.example"}),
            (403, "POST", f"{inside}/undo", {"Origin": "null"}),
            (415, "POST", f"{inside}/undo", {"Content_Type": "text/plain"}),
            (400, "POST", f"{inside}/undo", {"Origin": f"http://{host}"}),  # an empty body is no object
            (400, "GET", f"{inside}/rows?place=1", {}),
            (400, "GET", f"{inside}/rows?at=x", {}),
        ):
            assert client.send(method, path, **headers)[0] == status, (method, path, headers)
        assert client.server.server_address[0] == "127.0.0.1"
        assert client.server.token not in (tmp_path / REVIEW).read_text()


def test_a_torn_last_line_does_not_count_and_goes(tmp_path: Path) -> None:
    folder = bridged(tmp_path)
    with reviewing(folder) as client:
        client.post("decide", place=0, decision="accept")
    whole = (folder / REVIEW).read_bytes()
    for torn, count in ((b'{"reviewer": "AB", "ti', 1), (b"\xff\xfe", 1), (whole[:-1], 2)):
        (folder / REVIEW).write_bytes(whole + torn)
        assert len(read_decisions(BridgingRun(folder)).made["AB"]) == count
        with reviewing(folder) as client:
            client.post("decide", place=1, decision="reject")
        assert (folder / REVIEW).read_bytes().startswith(whole)
        assert [json.loads(line)["line"] for line in (folder / REVIEW).read_text().splitlines()] == [*[1] * count, 2]
    (folder / REVIEW).write_bytes(b"{}\n" + whole)
    with pytest.raises(UserErrors, match="line 1: is no decision"):
        read_decisions(BridgingRun(folder))


def decided(folder: Path, reviewer: str, **decisions: str) -> None:
    """Decide on rows by place: `p0="accept"`; `=…` is a correction."""
    review = Review(folder, reviewer)
    for place, given in decisions.items():
        text = given[1:] if given.startswith("=") else None
        review.decide(int(place[1:]), "correct" if text else given, text)
    review.close()


def test_two_reviewers(tmp_path: Path) -> None:
    """They share r0 … r3 and agree on three: p_e = 2/4 · 3/4 + 2/4 · 1/4 = 1/2, κ = (3/4 − 1/2) / (1/2)."""
    folder = bridged(tmp_path)
    decided(folder, "AB", p0="accept", p1="accept", p2="reject", p3="reject", p4="accept")
    decided(folder, "CD", p0="accept", p1="accept", p2="reject", p3="accept")
    assert agreement(read_decisions(BridgingRun(folder))) == [{"reviewers": ["AB", "CD"], "n": 4, "kappa": 0.5}]
    with reviewing(folder, "CD") as client:
        assert client.places("decision=undecided") == [4, 5, 6]  # the other's decisions aren't shown
    verdicts = read_decisions(BridgingRun(folder)).verdicts()
    assert [verdicts[place]["decision"] for place in range(5)] == ["accept", "accept", "reject", "reject", "accept"]


def test_what_a_training_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = bridged(tmp_path / "bridge")
    decided(folder, "AB", p0="accept", p1="reject", p2="=bank numbers 2", p5="=a bank number 0", p6="reject")
    for use, expected in (("accepted", ["r0", "r2", "d0"]), ("not_rejected", ["r0", "r2", "r3", "r4", "d0"])):
        for name in (folder / "train.jsonl", folder):
            rows = load_mixture([DatasetConfig(id=str(name), use_review=use)], 0)
            assert [row["id"] for row in rows] == expected
        corrected = rows[1]
        assert corrected["chosen"] == assistant("bank numbers 2")
        assert corrected["original_chosen"] == assistant("money lies in a bank")
        assert (corrected["bridged"], corrected["editor"], corrected["edit_ratio"]) == (True, "person", 0.4286)
        saved = rows[len(expected) - 1]
        assert (saved["rejected"], saved["chosen"]) == (assistant("river number 0"), assistant("a bank number 0"))
        main(["review", str(folder), "--apply", use])
        lines = {
            file: [json.loads(line) for line in (folder / "reviewed" / f"{file}.jsonl").read_text().splitlines()]
            for file in ("train", "dropped")
        }
        assert [row["id"] for row in lines["train"]] == expected
        reasons = {row["id"]: row["reason"] for row in lines["dropped"]}
        assert reasons["r1"] == "rejected in review"
        assert reasons["d1"] == "refusal"
        assert reasons.get("r3") == ("not accepted in review" if use == "accepted" else None)
        assert {row["id"] for rows in lines.values() for row in rows} == {f"r{n}" for n in range(5)} | {"d0", "d1"}
    assert "dropped 1: rejected in review" in capsys.readouterr().out


def test_rows_from_elsewhere(tmp_path: Path) -> None:
    """Half a surrogate pair, which is no text; a row without responses, and one whose responses have several turns."""
    folder = bridged(tmp_path, [pair(0, prompt="Where? \ud800"), pair(1)])
    turns = {"chosen": [*user("a"), *assistant("b")], "rejected": [*user("c"), *assistant("d")]}
    for row in ({"id": "none"}, {"id": "turns", "prompt": user("Where?"), **turns}):
        with (folder / "dropped.jsonl").open("a") as file:
            print("\n" + json.dumps(row | {"reason": "unusable"}), file=file)  # a blank line is no row
    with reviewing(folder) as client:
        assert [row["id"] for row in client.get("rows?count=9")["rows"]] == ["r0", "r1", "d0", "d1", "none", "turns"]
        for place, fault in ((4, "this row has no prompt"), (5, "responses of several messages")):
            status, answer = client.post("decide", place=place, decision="correct", text="d, or e")
            assert (status, fault in answer["error"]) == (400, True)
        client.post("decide", place=1, decision="correct", text="bank \ud800 number 1")
    rows = list(load_mixture([DatasetConfig(id=str(folder), use_review="not_rejected")], 0))
    assert rows[0]["prompt"] == user("Where? ?")
    assert rows[1]["chosen"] == assistant("bank ? number 1")


def test_a_run_knows_the_review_that_it_read(tmp_path: Path) -> None:
    folder = bridged(tmp_path / "bridge")
    decided(folder, "AB", p0="accept")
    reviewed = DatasetConfig(id=str(folder / "train.jsonl"), use_review="accepted")
    config = BridgeConfig(output_dir=str(tmp_path / "out"), dataset_mixture=DatasetMixture(datasets=[reviewed]))
    claim_output_dir(config.output_dir, run_fingerprint(config), config)
    record = json.loads((tmp_path / "out/provenance.json").read_text())
    assert [Path(one["file"]).name for one in record["data"]] == ["train.jsonl", REVIEW]
    (tmp_path / "out/result").write_text("")
    claim_output_dir(config.output_dir, run_fingerprint(config), config)  # the same command goes on
    decided(folder, "AB", p1="accept")
    with pytest.raises(UserErrors, match=r"it differs in review\.jsonl"):
        claim_output_dir(config.output_dir, run_fingerprint(config), config)


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*argv])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_faults_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = bridged(tmp_path / "bridge")
    name = str(folder)
    assert "is missing; give your initials" in told(capsys, "review", name)
    assert "are no initials" in told(capsys, "review", name, "--reviewer", "A/B")
    assert "is no finished bridging run" in told(capsys, "review", str(tmp_path), "--reviewer", "AB")
    assert "there are no decisions yet" in told(capsys, "review", name, "--apply", "accepted")
    assert not (folder / "reviewed").exists()
    assert "nothing to review" in told(
        capsys, "review", str(bridged(tmp_path / "scores", mode="token_scores")), "--reviewer", "AB"
    )
    with reviewing(folder):
        assert "is under review by another process" in told(capsys, "review", name, "--reviewer", "CD")
    decided(folder, "AB", p0="accept")
    other = bridged(tmp_path / "other", [pair(9)])
    (other / REVIEW).write_bytes((folder / REVIEW).read_bytes())
    for argv in (["--reviewer", "AB"], ["--apply", "accepted"]):
        fault = told(capsys, "review", str(other), *argv)
        assert fault.startswith(f"{other / REVIEW}: line 1: decides on row r0, which this bridging run has not")
    with pytest.raises(UserErrors, match="decides on row r0"):
        load_mixture([DatasetConfig(id=str(other), use_review="not_rejected")], 0)
    assert not (other / "reviewed").exists()
    for wrong in ({"source": "ultrafeedback"}, {"split": "test"}, {"id": "pairs.parquet"}):
        faults = dict(DatasetConfig(**({"id": name, "use_review": "accepted"} | wrong)).faults())
        assert "train.jsonl of a bridging run" in faults["use_review"]
