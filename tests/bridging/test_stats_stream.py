import random
from typing import Any

import pytest

from bmc.bridging.editor import bridged_pair, keep_unbridged
from bmc.bridging.edits import EditError, NoEditNeeded
from bmc.bridging.stats import EXAMPLES, LENGTH_EDGES, Histogram, Statistics


def row(id: str, chosen: str = "abcd", rejected: str = "wxyz") -> dict[str, Any]:
    return {"id": id, "prompt": "p", "chosen": chosen, "rejected": rejected}


def test_numbers_worked_out_by_hand() -> None:
    statistics = Statistics("targeted")
    first = bridged_pair(row("a"), "wxcd", "targeted")  # half of either
    first.rejected_edit, first.notes = "refusal", ("terms reordered",)
    statistics.add(row("a"), first)
    statistics.add(row("b"), bridged_pair(row("b"), "abcdwxyz", "targeted"))  # 4 of 8 away from both
    statistics.add(row("c"), bridged_pair(row("c"), None, "targeted"))
    statistics.add(row("d"), NoEditNeeded())
    failure = EditError("refusal")
    failure.rejected_edit = "empty reply"
    statistics.add(row("e"), failure)
    statistics.add(row("f"), keep_unbridged(row("f"), failure, "targeted"))
    summary = statistics.summary()
    histograms = summary.pop("histograms")
    assert summary == {
        "mode": "targeted",
        "rows": 6,
        "kept": 4,
        "bridged": 2,
        "dropped": 2,
        "reasons": {"y_l needs no edit": 1, "refusal": 1},
        "kept_original": {"refusal": 1},
        "second_tries": {"rows": 3, "kept": 1, "reasons": {"empty reply": 2, "refusal": 1}},
        "rule_edits": {"terms reordered": 1},
        "edit_ratio_unit": "characters",
        "edit_ratio": 0.75,  # 0.5, 0.5, 1, 1
        "original_edit_ratio": 1.0,
        "length": {"unit": "characters", "y_w": 4.0, "y_l": 4.0, "edit": 6.0, "compared_to": "y_l"},
        "similarity": {"levenshtein": {"y_w_edit": 0.5, "edit_y_l": 0.5}},
    }
    ratios = histograms["edit_ratio"]
    assert ratios["edges"] == pytest.approx([place / 20 for place in range(21)])
    assert {place: count for place, count in enumerate(ratios["counts"]) if count} == {10: 2, 19: 2}
    assert {place: count for place, count in enumerate(histograms["original_edit_ratio"]["counts"]) if count} == {19: 4}
    grown = histograms["length_ratio"]
    assert grown["edges"] == [*LENGTH_EDGES, None]
    bins = dict(zip(grown["edges"], grown["counts"], strict=False))
    assert {edge: count for edge, count in bins.items() if count} == {0.95: 1, 2.0: 1}  # 1 and 2 times


def test_what_degrade_edits_is_y_l() -> None:
    statistics = Statistics("degrade")
    statistics.add(row("a"), bridged_pair(row("a", "abcd", "wxyz"), "abcz", "degrade"))
    summary = statistics.summary()
    assert summary["edit_ratio"] == 0.25
    assert summary["similarity"]["levenshtein"] == {"y_w_edit": 0.75, "edit_y_l": 0.25}
    assert summary["length"]["compared_to"] == "y_w"
    assert [example.edit for example in statistics.examples] == ["abcz"]


def test_nothing_at_all() -> None:
    summary = Statistics("targeted").summary()
    assert (summary["rows"], summary["kept"], summary["edit_ratio"], summary["length"]["edit"]) == (0, 0, 0.0, None)


def test_bins(subtests: pytest.Subtests) -> None:
    for value, unbounded, place in [
        (0.0, False, 0), (0.99, False, 0), (1.0, False, 1), (2.0, False, 1), (2.0, True, 2), (9.0, True, 2)
    ]:  # fmt: skip
        with subtests.test(value=value, unbounded=unbounded, place=place):
            histogram = Histogram([0.0, 1.0, 2.0], unbounded)
            histogram.add(value)
            assert [index for index, count in enumerate(histogram.counts) if count] == [place]
            assert len(histogram.counts) == 2 + unbounded


def test_examples_are_the_same_in_any_order_and_no_more_than_are_shown() -> None:
    def drawn(names: list[str]) -> list[str]:
        statistics = Statistics("targeted")
        for name in names:
            statistics.add(row(name), bridged_pair(row(name), "wbcd", "targeted"))
            assert len(statistics._drawn) <= EXAMPLES
        return [example.id for example in statistics.examples]

    names = [f"r{number}" for number in range(500)]
    chosen = drawn(names)
    assert len(set(chosen)) == EXAMPLES
    assert drawn(random.Random(0).sample(names, 500)) == chosen
    assert max(int(name[1:]) for name in chosen) > 250 > min(int(name[1:]) for name in chosen)  # from all over
    assert len(drawn(names[:7])) == 7
    assert len(drawn(["same"] * 30)) == EXAMPLES


def test_reasons_without_end_are_counted_together() -> None:
    statistics = Statistics("targeted")
    for number in range(1000):
        statistics.add(row(str(number)), EditError(f"reason {number}"))
    reasons = statistics.summary()["reasons"]
    assert len(reasons) == 101
    assert reasons["other reasons"] == 900
    assert statistics.summary()["dropped"] == 1000
