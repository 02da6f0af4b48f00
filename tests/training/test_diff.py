"""Which tokens differ."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

import bmc

IDS = st.lists(st.integers(0, 5), max_size=12)


def test_marks_what_is_inserted_deleted_or_replaced(subtests: pytest.Subtests) -> None:
    for chosen, rejected, chosen_mask, rejected_mask in [
        ([5, 6, 7], [5, 7], "010", "00"),  # an inserted token
        ([5, 7], [5, 6, 7], "00", "010"),  # a deleted one
        ([5, 6, 7], [5, 9, 7], "010", "010"),  # a replaced one
        ([1, 2], [1, 2], "00", "00"),
        ([1, 2], [3, 4], "11", "11"),
        ([1, 2, 3], [1, 2], "001", "00"),  # one is the other's beginning
        ([1], [2], "1", "1"),
        ([1], [], "1", ""),
    ]:
        with subtests.test(chosen=chosen, rejected=rejected):
            marks = ["".join("01"[differs] for differs in mask) for mask in bmc.token_diff(chosen, rejected)]
            assert marks == [chosen_mask, rejected_mask]


def test_an_inserted_not_differs():
    ids = {"it": 1, "is": 2, "not": 3, "good": 4}
    chosen, rejected = ([ids[w] for w in text.split()] for text in ("it is not good", "it is good"))
    assert bmc.token_diff(chosen, rejected) == ([False, False, True, False], [False, False, False])


@given(IDS, IDS)
def test_what_is_not_marked_is_common_and_the_marks_are_as_few_as_can_be(chosen, rejected):
    chosen_mask, rejected_mask = bmc.token_diff(chosen, rejected)
    keep = [token for token, differs in zip(chosen, chosen_mask, strict=True) if not differs]
    assert keep == [token for token, differs in zip(rejected, rejected_mask, strict=True) if not differs]
    # an alignment of least edits: a replaced token is marked on both sides, any other on one
    distance = Levenshtein.distance(rejected, chosen)
    assert max(sum(chosen_mask), sum(rejected_mask)) <= distance <= sum(chosen_mask) + sum(rejected_mask)


@given(IDS, IDS, st.sampled_from(["levenshtein", "difflib"]))
def test_masks_have_the_length_of_their_response(chosen, rejected, algorithm):
    masks = bmc.token_diff(chosen, rejected, algorithm)
    assert [len(mask) for mask in masks] == [len(chosen), len(rejected)]


def test_difflib_may_mark_more_than_levenshtein():
    # difflib keeps the longest common block [1, 2]; Levenshtein finds 3 edits fewer by replacing in place
    chosen, rejected = [0, 1, 0, 1, 0], [1, 0, 0, 0, 1]
    marked = {name: sum(map(sum, bmc.token_diff(chosen, rejected, name))) for name in ("levenshtein", "difflib")}
    assert marked["difflib"] >= marked["levenshtein"]


def test_unknown_algorithm():
    with pytest.raises(ValueError, match="levenshtein, difflib"):
        bmc.token_diff([1], [2], "myers")
