"""Verdicts, worked out by hand."""

from pathlib import Path
from typing import Any

import pytest

from bmc.lab_verdicts import CLAIMS, Side, Slope, accuracies, accuracy, t_test, verdict, verdicts


def row(seed: int, method: str, score: float, pairs: str = "bridge", number: int = 1) -> dict[str, Any]:
    return {
        "sft_seed": seed,
        "seed": number,
        "method": method,
        "pairs": pairs,
        "values": {},
        "accuracy": score,
        "n": 2000,
        "held_out": [[0, -10.0, -12.0, 0.0, 0.5], [10, -11.0, -14.0, 0.2, 0.75]],
        "steps": [[5, 0.69, 3.0]],
        "spans": {side: {"first": 0.3, "later": 0.1} for side in ("chosen", "rejected")},
    }


def test_preference_seeds_of_an_sft_seed_are_one_value() -> None:
    rows = [row(1, "dpo", 0.5), row(1, "dpo", 0.7, number=2), row(2, "dpo", 0.4), row(2, "dpo", 0.9, pairs="sloppy")]
    assert Side("core", "dpo").by_seed({"core": {"rows": rows}}, accuracy) == {
        1: pytest.approx(60),
        2: pytest.approx(40),
    }


def test_t_test() -> None:
    # 1, 2, 3: mean 2, standard error 1/√3, t(2) at 97.5 % is 4.3027; t = 3.4641 has p = 0.0742
    assert t_test([1.0, 2.0, 3.0]) == pytest.approx((2.0, -0.4841, 4.4841, 0.0742), abs=1e-4)
    assert t_test([0.0, 0.0]) == (0.0, 0.0, 0.0, 1.0)


def test_verdict(subtests: pytest.Subtests) -> None:
    for low, high, p, equal, expected in [
        (0.1, 2.0, 0.01, False, "supported"),
        (0.1, 2.0, 0.06, False, "undecided"),  # Holm's p, not the interval alone
        (-2.0, -0.1, 0.01, False, "contradicted"),
        (-1.0, 1.0, 0.5, False, "undecided"),
        (-1.0, 1.9, 0.5, True, "supported"),
        (0.5, 1.9, 0.01, True, "supported"),
        (0.5, 2.1, 0.01, True, "contradicted"),
        (-1.0, 2.1, 0.5, True, "undecided"),
    ]:
        with subtests.test(low=low):
            assert verdict(low, high, p, equal) == expected


def test_slope_over_the_writers() -> None:
    def study(gain: float) -> dict[str, Any]:
        return {
            "rows": [
                row(seed, method, 0.5 + gain * (method == "dpo_bc")) for seed in (1, 2) for method in ("dpo", "dpo_bc")
            ]
        }

    results = {"writers_1": study(0.0), "core": study(0.01), "writers_4": study(0.05)}
    claim = next(claim for claim in CLAIMS if isinstance(claim, Slope))
    # gains 0, 1, 5 points at 0, 1, 2: slope (5 − 0)/2
    assert claim.by_seed(results) == pytest.approx({1: 2.5, 2: 2.5})


def test_a_remedy_is_compared_with_the_same_method_without_it() -> None:
    large = {"learning_rate": 1e-3, "beta": 0.1}
    rows = [
        row(seed, "dpo_bc", score) | {"values": values}
        for seed in (1, 2, 3)
        for score, values in ((0.30, large), (0.35 + seed / 100, large | {"beta": 1.0}))
    ]
    (found,) = verdicts({"remedies": {"rows": rows}})
    assert (found["claim"].name, found["mean"]) == ("h6", pytest.approx(7.0))  # 6, 7 and 8 points


def test_slope_over_the_share_of_bridged_pairs() -> None:
    scores = {"share_0": 0.40, "share_33": 0.433, "share_67": 0.467}
    rows = [row(seed, "dpo_bmc", score, pairs) for pairs, score in scores.items() for seed in (1, 2)]
    at = {"learning_rate": 3e-4, "beta": 0.1, "bmc_delta": 2.5}
    rows += [row(seed, "dpo_bmc", 0.5) | {"values": at} for seed in (1, 2)]
    found = {line["claim"].name: line["mean"] for line in verdicts({"delta": {"rows": rows}})}
    assert found == {"i3": pytest.approx(10.0)}  # 10 points from none to all


def test_tokens_of_spans() -> None:
    spans = {"chosen": {"first": 0.5, "later": 0.2}, "rejected": {"first": 0.9, "later": 0.4}}
    found = verdicts({"core": {"rows": [row(seed, "sft", 0.5) | {"spans": spans} for seed in (1, 2)]}})
    assert {line["claim"].name: line["mean"] for line in found} == pytest.approx({"c1": 0.5, "c2": 0.3, "c3": 0.2})


def test_claims_without_their_study_are_left_out_and_holm_counts_a_letter() -> None:
    scores = {
        "sft": 0.4, "dpo": 0.5, "dpo_bmc": 0.6, "dpo_bc": 0.5, "dpo_mc": 0.5, "sft_bridged": 0.4, "sft_chosen": 0.4
    }  # fmt: skip
    rows = [
        row(seed, method, score + seed / 1000 * (method == "dpo_bmc"))
        for method, score in scores.items()
        for seed in (1, 2, 3)
    ]
    found = {line["claim"].name: line for line in verdicts({"core": {"rows": rows}})}
    assert sorted(found) == ["a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "c1", "c2", "c3"]
    assert found["a2"]["mean"] == pytest.approx(10.2)
    assert (found["a2"]["verdict"], found["a3"]["verdict"], found["a8"]["verdict"]) == (
        "supported",
        "undecided",
        "supported",
    )
    study = {"core": {"rows": rows}}
    assert "| dpo |  | 50.0 | 50.0, 50.0, 50.0 |  |  |" in accuracies(study, {}, "core")
    assert "| dpo |  | 50.0 | 50.0, 50.0, 50.0 | 50.0 | 50.0, 50.0, 50.0 |" in accuracies(study, study, "core")


def test_figures_are_drawn_from_the_studies_that_are_there(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from bmc.lab_figures import METHODS, draw

    rows = [row(seed, method, 0.5) for method in METHODS for seed in (1, 2)]
    (first,) = draw({"displacement": {"rows": rows}}, tmp_path / "first")
    (again,) = draw({"displacement": {"rows": rows}}, tmp_path / "again")
    assert first.name == "displacement.svg"
    assert first.read_bytes() == again.read_bytes()
    studies = {name: {"rows": rows} for name in ("writers_1", "core", "writers_4")}
    assert [path.name for path in draw(studies, tmp_path)] == ["writers.svg"]
