"""Training curves: what is drawn, and where."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmc.analysis.page.curves import COLOURS, curves, series, stroke, ticks

NAN = float("nan")


def state(*values: float, key: str = "rewards/margins") -> dict[str, Any]:
    return {"log_history": [{"step": 10 * (place + 1), key: value} for place, value in enumerate(values)]}


def test_what_was_logged_is_read_and_what_is_no_number_left_out() -> None:
    history = [
        {"step": 1, "loss": 0.7, "learning_rate": 1e-6},
        {"step": 2, "loss": NAN, "grad_norm": float("inf"), "k3/chosen": 0.5},
        {"loss": 3.0},
        {"step": 3, "loss": "0.1"},
        "torn",
    ]
    assert series({"log_history": history}) == {"loss": [(1, 0.7)], "k3/chosen": [(2, 0.5)]}
    assert series({}) == series({"log_history": 3}) == {}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 0.69, [0, 0.2, 0.4, 0.6, 0.8]),
        (3.1, 4.8, [3, 3.5, 4, 4.5, 5]),
        (-120, 0, [-150, -100, -50, 0]),
        (1, 1, [0.5, 1, 1.5]),
        (0, 0, [-0.5, 0, 0.5]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_span_what_is_drawn(low: float, width: float) -> None:
    found = ticks(low, low + width)
    tiny = 1e-6 * (abs(low) + width)
    assert found[0] <= low + tiny
    assert found[-1] >= low + width - tiny
    assert 2 <= len(found) <= 8


def test_a_line_stands_where_its_numbers_say() -> None:
    """0 to 1 in steps of 0.5 from y = 176 up to 10; steps 10 to 30 from x = 46 to 286."""
    markup = curves({"dpo": state(0.0, 0.5, 1.0)})
    assert '<polyline points="46.0,176.0 166.0,93.0 286.0,10.0" class="c0">' in markup
    assert "<title>dpo, step 20: 0.5</title>" in markup
    assert 'aria-label="Reward margin by step; at the end: dpo 1"' in markup
    assert '<th scope="row">20</th><td>0.5</td>' in markup  # the numbers are there as a table too


def test_runs_keep_their_colour_in_every_chart() -> None:
    runs = {"a": state(1, 2), "<b>": {"log_history": [{"step": 10, "rewards/margins": 1.0, "loss": 0.5}]}}
    markup = curves(runs)
    charts = re.findall(r"<figure.*?</figure>", markup, re.DOTALL)
    assert len(charts) == 2
    assert 'class="c1" stroke-dasharray="6 3"' in charts[0]
    assert 'class="c0"' not in charts[0]
    assert "<b>Loss</b>" in charts[0]
    assert "&lt;b&gt;" in markup
    assert "<b>b" not in markup.replace("<b>Reward", "").replace("<b>Loss", "")


def test_sft_has_no_place_beside_preference_runs() -> None:
    sft = state(2.0, 1.0, key="loss")
    assert "sft" not in curves({"dpo": state(0.1, 0.2), "sft": sft})
    assert "sft" in curves({"sft": sft})
    assert curves({"sft": {}}) == ""


def test_28_runs_are_told_apart_by_colour_and_dash() -> None:
    assert len({stroke(place) for place in range(4 * COLOURS)}) == 4 * COLOURS


def test_labels_of_lines_that_end_together_do_not_cover_one_another() -> None:
    markup = curves({name: state(0.0, 1.0) for name in "abcd"})
    labels = sorted(float(y) for y in re.findall(r'<text class="t\d" x="[\d.]+" y="([\d.]+)"', markup))
    assert [round(after - before) for before, after in pairwise(labels)] == [12, 12, 12]
