"""Corrections and ratings in the columns of the logs and data sets that have them → pairs."""

import json
from pathlib import Path
from typing import Any

import pytest

from bmc.config import DatasetConfig, DatasetMixture
from bmc.data.human_feedback import conversation
from bmc.data.loading import load_mixture, load_split, to_dataset
from bmc.data.schema import content
from bmc.errors import UserErrors

Rows = list[dict[str, Any]]
HI = [{"role": "user", "content": "Hi?"}]
CHAT = [*HI, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Bye?"}]
NAMED = {"prompt": "q", "answer": "a", "correction": "c"}


def load(folder: Path, rows: Rows, keep: bool = True, seed: int = 0, **config: Any) -> Rows:
    file = folder / "log.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(load_mixture([DatasetConfig(id=str(file), **config)], seed, keep))


def texts(rows: Rows) -> list[tuple[str, str, Any]]:
    """y_w, y_l and why they are no pair."""
    return [(content(row["chosen"]), content(row["rejected"]), row.get("unusable")) for row in rows]


CORRECTED: list[Any] = [
    ({"q": "Hi?", "a": "No", "c": "Yes"}, NAMED, [("Yes", "No", None)]),
    ({"prompt": "Hi?", "answer": "No", "correction": "Yes"}, None, [("Yes", "No", None)]),
    ({"q": "Hi?", "a": "No", "c": ["Yes", "No", " ", None, "Y"]}, NAMED,
     [("Yes", "No", None), ("No", "No", "edit equals y_l"), ("Y", "No", None)]),
    ({"q": "Hi?", "a": "No", "c": None}, NAMED, [("No", "No", "no correction")]),
    ({"q": "Hi?", "a": " ", "c": "Yes"}, NAMED, [(" ", " ", "y_l is empty")]),
    # Argilla's records, flat (as to_datasets writes them) and nested (to_json)
    ({"q": "Hi?", "a": "No", "c.responses": ["Yes", "Y"], "c.responses.status": ["submitted", "discarded"]},
     {**NAMED, "correction": "c.responses"}, [("Yes", "No", None)]),
    ({"fields": {"q": "Hi?", "a": "No"}, "responses": {"c": [{"value": "Yes", "user_id": "1"}]}},
     {"prompt": "fields.q", "answer": "fields.a", "correction": "responses.c"}, [("Yes", "No", None)]),
    # messages, ShareGPT's too
    ({"messages": [*HI, {"role": "assistant", "content": "No"}], "correction": "Yes"}, None, [("Yes", "No", None)]),
    ({"conversations": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "No"}], "c": "Yes"},
     {"messages": "conversations", "correction": "c"}, [("Yes", "No", None)]),
    ({"messages": [*HI, {"role": "assistant", "content": "No"}], "correction":
      [*HI, {"role": "assistant", "content": "Yes"}]}, None, [("Yes", "No", None)]),
    ({"prompt": HI, "rejected": [{"role": "assistant", "content": "No"}], "answer": "3", "correction":
      [{"role": "assistant", "content": "Yes"}]}, None, [("Yes", "No", None)]),
]  # fmt: skip


TURNS = [*HI, HI[0] | {"role": "assistant"}]
GOOD = {"q": "Hi?", "a": "No", "prompt": "Hi?", "answer": "No", "rejected": "No", "messages": TURNS, "c": "?",
        "correction": "?", "c.responses": "?", "conversations": TURNS, "fields": {"q": "?", "a": "!"},
        "responses": {"c": "?"}}  # fmt: skip


def test_a_correction(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for row, columns, wanted in CORRECTED:
        with subtests.test(row=row):
            found = load(tmp_path, [row, GOOD], source="corrections", columns=columns)
            assert texts(found[: len(wanted)]) == wanted
            assert [found[0]["prompt"], found[0]["task"], found[0]["source"]] == [HI, "chat", "corrections"]
            assert found[0].get("answer") == (row.get("answer") if "rejected" in row else None)  # the gold answer


def test_ids_depend_on_the_texts_alone(tmp_path: Path) -> None:
    rows = [{"id": 7, "q": "Hi?", "a": "No", "c": text} for text in ("Yes", "Y", "Yep")] + [
        {"q": "Hi?", "a": "No", "c": "Yo"}
    ]
    one, two = (
        {content(row["chosen"]): row["id"] for row in load(tmp_path, order, source="corrections", columns=NAMED)}
        for order in (rows, rows[::-1])
    )
    assert one == two
    assert len({*one.values()}) == 4
    assert [id.startswith("7-") for id in one.values()] == [True, True, True, False]


RATED: list[Any] = [
    ("nectar", [{"prompt": "\n\nHuman: Hi?\n\nAssistant: Yes?\n\nHuman: Bye?\n\nAssistant: ", "answers": [
        {"answer": "b", "model": "m", "rank": 2.0}, {"answer": "a", "rank": 1.0}, {"answer": "c", "rank": 7.0}]}],
     [("a", "c", None)]),
    ("ultrafeedback_ratings", [{"instruction": "Hi?", "completions": [
        {"response": "b", "overall_score": 3.0}, {"response": "", "overall_score": 1.0},
        {"response": "a", "overall_score": 7.5, "fine-grained_score": 4.25}]}], [("a", "b", None)]),
    ("helpsteer2", [{"prompt": "Hi?", "response": text, "helpfulness": score, "verbosity": 1}
                    for text, score in (("b", 2), ("a", 4))], [("a", "b", None)]),
    ("helpsteer3", [{"context": CHAT, "response1": "b", "response2": "a", "overall_preference": 2}],
     [("a", "b", None)]),
    ("helpsteer3", [{"context": HI, "response1": "a", "response2": "b", "overall_preference": -1},
                    {"context": HI, "response1": "a", "response2": "b", "overall_preference": 0}],
     [("a", "b", None), ("a", "a", "the ratings tie")]),
    ("oasst", [{"message_id": str(n), "parent_id": parent, "role": role, "text": text, "rank": rank}
               for n, (parent, role, text, rank) in enumerate(
                   [("1", "assistant", "b", 1), (None, "prompter", "Hi?", None), ("1", "assistant", "a", 0),
                    ("9", "assistant", "lost", 0), ("1", "assistant", "unranked", None)])], [("a", "b", None)]),
    ("ratings", [{"prompt": "Hi?", "response": text, "score": thumb} for text, thumb in
                 (("b", False), ("a", True))], [("a", "b", None)]),
    ("ratings", [{"prompt": "Hi?", "response": text, "score": thumb} for text, thumb in
                 (("b", "down"), ("a", "👍"), ("c", None))], [("a", "b", None)]),
    ("ratings", [{"prompt": "Hi?", "response": text, "score": thumb} for text, thumb in
                 (("b", "thumbs_down"), ("a", "👍🏽"), ("c", None))], [("a", "b", None)]),
    ("ratings", [{"prompt": "Hi?", "response": text, "score": thumb} for text, thumb in
                 (("b", "Dislike"), ("a", "thumbs-up"), ("c", ""))], [("a", "b", None)]),
    # b has 2, 4 and 4.5 from three people, of whom two stand in one row: 3.5 on average
    ("ratings", [{"prompt": "Hi?", "response": text, "score": score} for text, score in
                 (("b", 2), ("a", 4), ("b", [4, 4.5]))], [("a", "b", None)]),
    ("ratings", [{"prompt": "Hi?", "responses": ["a", "b"], "ranks": [1, 2]}], [("a", "b", None)]),
    ("ratings", [{"prompt": "Hi?", "responses": ["a", "b", "c"], "scores": ["4", "1", None]}], [("a", "b", None)]),
    ("ratings", [{"prompt": "Hi?", "responses": [[{"role": "assistant", "content": "a"}], "b"], "scores": [2, 1]},
                 {"prompt": "Hi?", "responses": ["c"], "scores": [9]}],
     [("a", "b", None), ("c", "c", "fewer than two rated responses")]),
]  # fmt: skip


def test_ratings(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for source, rows, wanted in RATED:
        with subtests.test(source=source):
            found = load(tmp_path, rows, source=source)
            assert texts(found) == wanted
            assert found[0]["prompt"] == (CHAT if "Bye?" in json.dumps(rows) else HI)


def test_rules_and_ties(tmp_path: Path) -> None:
    rated = [{"prompt": f"Hi {n}?", "responses": list("abcde"), "scores": [3, 5, 1, 5, 1]} for n in range(40)]

    def made(rule: str, seed: int = 0) -> list[tuple[str, str]]:
        return [(y_w, y_l) for y_w, y_l, _ in texts(load(tmp_path, rated, seed=seed, source="ratings", pair_rule=rule))]

    assert made("largest_gap") == [("b", "c")] * 40  # of b and d, of c and e the first
    assert made("all") == [("b", "a"), ("b", "c"), ("b", "e")] * 40
    drawn = made("random")
    assert {*drawn} == {("b", "a"), ("b", "c"), ("b", "e")}
    assert drawn == made("random") != made("random", seed=1)
    rated.reverse()
    assert made("random")[::-1] == drawn


PAIRLESS: list[Any] = [
    ("corrections", [{"prompt": "Hi?", "answer": "No", "correction": "No"}], None, "1 × edit equals y_l"),
    ("corrections", [{"question": "Hi?", "response": "No", "edited": "Y"}], None,
     "columns: {prompt: question, answer: response, correction: edited}"),
    ("corrections", [{"q": "Hi?", "a": "No", "c": "Y"}], NAMED | {"correction": "cc"}, "no column 'cc'"),
    ("corrections", [{"messages": CHAT, "correction": "Y"}], None, "must end with the assistant's turn"),
    ("ratings", [{"prompt": "Hi?", "responses": ["a", "b"], "scores": [1, 1]}], None, "1 × the ratings tie"),
    ("ratings", [{"prompt": "Hi?", "response": "a", "score": 1}], None, "1 × fewer than two rated responses"),
    ("ratings", [{"prompt": "Hi?", "responses": ["a", "b"], "scores": [1]}], None, "scores: there are 1, for 2"),
    ("ratings", [{"prompt": "Hi?", "responses": ["a", "b"], "scores": ["good", 1]}], None, "'good' is no score"),
    ("ratings", [{"question": "Hi?", "answers": ["a"], "ratings": [1]}], None,
     "columns: {prompt: question, responses: answers, scores: ratings}"),
]  # fmt: skip


def test_data_without_a_pair(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for source, rows, columns, why in PAIRLESS:
        with subtests.test(source=source):
            for keep in (True, False):
                with pytest.raises(UserErrors) as error:
                    load(tmp_path, rows, keep, source=source, columns=columns)
                assert why in str(error.value)
                assert len(error.value.faults) == 1


def test_other_stages_leave_out_what_is_no_pair(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"prompt": "Hi?", "answer": "No", "correction": text} for text in ("No", "Yes", None)]
    assert texts(load(tmp_path, rows, keep=False, source="corrections")) == [("Yes", "No", None)]
    assert "2 of 3 rows give no pair: 1 × edit equals y_l; 1 × no correction" in caplog.text


def test_a_rationale_is_never_trained_on(tmp_path: Path) -> None:
    row = {"prompt": "Hi?", "chosen": "Yes", "rejected": "No", "rationale": "It is rude.", "editor": "person"}
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps(row | {"bridged": True}))
    rows, _ = load_split(DatasetMixture(datasets=[DatasetConfig(id=str(file))]))
    assert rows[0]["rationale"] == "It is rude."
    assert {*to_dataset(rows, ("prompt", "chosen", "rejected")).column_names} == {"prompt", "chosen", "rejected", "id"}


def test_role_marks() -> None:
    assert conversation("\n\nHuman: Hi?\n\nAssistant: Yes?\n\nHuman: Bye?\n\nAssistant:") == CHAT
    assert conversation("Hi?\n<extra_id_1>Assistant\nYes?\n<extra_id_1>User\nBye?") == CHAT
    assert conversation("Who says \n\nHuman: Hi?") == [{"role": "user", "content": "Who says \n\nHuman: Hi?"}]


def test_sharegpt_pairs_need_no_source(tmp_path: Path) -> None:
    turn = {"conversations": [{"from": "human", "value": "Hi?"}], "chosen": {"from": "gpt", "value": "Yes"}}
    row = turn | {"rejected": {"from": "gpt", "value": "No"}}
    columns = {"prompt": "conversations", "chosen": "chosen", "rejected": "rejected"}
    (found,) = load(tmp_path, [row], columns=columns)
    assert (found["prompt"], *texts([found])[0]) == (HI, "Yes", "No", None)
