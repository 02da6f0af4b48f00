"""Figures from hand-made scores and folders: their numbers, their files, and what they lack."""

import csv
import io
import json
import xml.etree.ElementTree as ET
from math import log, sqrt
from pathlib import Path

import pytest
import torch
from made import write
from PIL import Image

from bmc.analysis import analyze
from bmc.analysis.figures import DPI, Figure, MissingFigure, figure3, figure4, figure5, save, table9, table10, to_csv
from bmc.analysis.results import Run
from bmc.analysis.token_rewards import (
    ScoredRun,
    TokenScores,
    positions_in_span,
    reward_accuracy,
    sums_by_position,
)
from bmc.evaluation.summary import Estimate, mean_estimate, ratio_estimate
from bmc.training.lm_head import Head, exact_kl


def side(logps: list[float], ref: list[float], differs: list[bool], kl: float = 0.1) -> TokenScores:
    tokens = [f"t{place} " for place in range(len(logps))]
    return TokenScores(tokens, logps, ref, [1.0] * len(logps), [kl] * len(logps), differs)


def scored(name: str, folder: Path, shift: float = 1.0) -> ScoredRun:
    """Two pairs; log π_θ/π_ref is `shift` at the winners' tokens and −`shift` at the losers'."""
    marks = [False, True, True]
    winner, loser = side([-1.0, -2.0, -3.0], [-1 - shift] * 3, marks), side([-4.0, -5.0, -7.0], [-4.0] * 3, marks)
    bridged = {"a": (winner, loser), "b": (side([-2.0, -4.0], [-2 - shift] * 2, [False, True], 0.4), loser)}
    return ScoredRun(Run(name, folder / name), 0.5, None, bridged, bridged, [])


def evaluated(folder: Path, correct: int, n: int = 10) -> None:
    from bmc.evaluation.stats import accuracy

    write(folder / "eval/metrics.json", {"results": {"ecqa": accuracy([True] * correct + [False] * (n - correct))}})


def cells(drawing: Figure | MissingFigure) -> list[list[str]]:
    assert isinstance(drawing, Figure)
    return list(csv.reader(io.StringIO(to_csv(drawing.header, drawing.rows))))


def test_figure2(tmp_path: Path) -> None:
    """Winners: first tokens −log p 2 and 4, one later of 3; losers twice the same, 5 and 7. Before: 2, 3 and 4."""
    rows = {tuple(row[:3]): row[3:] for row in cells(analyze.figure2(scored("dpo_bc", tmp_path)))[1:]}
    assert rows["after", "ỹ_w", "first"][::4] == ["3", "2"]
    assert rows["after", "ỹ_w", "later"] == ["3", "", "", "1", "1"]
    assert rows["after", "y_l", "first"] == ["5", "5", "5", "2", "2"]
    assert rows["after", "y_l", "later"] == ["7", "7", "7", "2", "2"]
    assert rows["before", "ỹ_w", "first"] == ["2.5", "-3.8531", "8.8531", "2", "2"]  # 2 and 3; 12.706 · ½


def test_rewards(tmp_path: Path) -> None:
    """β = ½. Pair a: winner ½ (1 + 0 − 1) = 0, loser ½ (0 − 1 − 3) = −2; b: winner ½ (1 − 1) = 0. Both margins: 2.
    Wilson's interval of 2 of 2 begins at 2/(2 + 1.96²)."""
    rows = cells(analyze.rewards_figure([scored("dpo", tmp_path)]))
    assert rows[1] == ["dpo", "y_w / y_l", "2", "2", "2", "2", "100", "34.238", "100", "2"]
    assert rows[2][1] == "ỹ_w / y_l"


def test_figure9_of_saved_models_and_of_the_log(tmp_path: Path) -> None:
    """Three tokens of 0.1 and two of 0.4: 1.1/5 a token."""
    history = [{"step": 5, "eval_k3/chosen": 0.01}, {"step": 6, "loss": 1.0}, {"step": 10, "eval_k3/chosen": 0.02}]
    write(tmp_path / "dpo/trainer_state.json", {"log_history": history})
    one = scored("dpo", tmp_path)
    drawing = analyze.figure9([one.run], [one], "make x")
    rows = cells(drawing)
    assert rows[1] == ["while training: k3", "DPO", "own", "5", "0.01", "", "", ""]
    assert rows[2][3:5] == ["10", "0.02"]
    assert rows[3][:5] == ["saved models: exact KL", "DPO", "y_w", "10", "0.22"]
    assert rows[3][7] == "2"
    assert isinstance(drawing, Figure)
    assert "While training" in drawing.caption
    assert "2 chosen validation responses" in drawing.caption
    assert "KL(π_ref ‖ π_θ)" in drawing.caption  # the paper's direction, which isn't ours
    bare = analyze.figure9([Run("dpo_bc", tmp_path / "dpo_bc")], [], "make a/b/dpo")
    assert isinstance(bare, MissingFigure)
    assert bare.why == "no run evaluated while it trained (eval_strategy), and no model is there"


def test_figure9_follows_models_that_were_saved_on_the_way(tmp_path: Path) -> None:
    one = scored("dpo", tmp_path)
    on_the_way = ScoredRun(one.run, one.beta, None, one.bridged, one.originals, [(3, one.bridged, one.originals)])
    rows = cells(analyze.figure9([one.run], [on_the_way], ""))
    assert [row[3] for row in rows if row[2] == "y_w"] == ["3", "0"]
    save_and_check(analyze.figure9([one.run], [on_the_way], ""), tmp_path, "step")


def test_figure3_and_4(tmp_path: Path) -> None:
    for name, correct in (("dpo_mc", 5), ("ablations/dpo_bmc_proportion_0.2", 7), ("dpo_bmc", 8), ("dpo", 4)):
        evaluated(tmp_path / name, correct)
    write(tmp_path / "dpo_bmc/recipe.json", {"bmc_delta": 2.5})
    rows = cells(figure3(tmp_path, "accuracy"))
    assert [row[:3] for row in rows[1:]] == [["DPO-BMC", x, y] for x, y in (("0", "50"), ("20", "70"), ("100", "80"))]
    assert rows[1][3:] == ["23.6593", "76.3407", "10"]  # Wilson's interval of 5 of 10
    drawing = figure3(tmp_path, "accuracy")
    assert isinstance(drawing, Figure)
    assert "Not run: dpo_bmc_proportion_0.4, dpo_bmc_proportion_0.6, dpo_bmc_proportion_0.8." in drawing.caption
    lacking = figure4(tmp_path, "accuracy")
    assert isinstance(lacking, MissingFigure)
    assert lacking.command.endswith("/figure4")
    evaluated(tmp_path / "ablations/dpo_bmc_delta_1.0", 6)
    rows = cells(figure4(tmp_path, "accuracy"))
    assert [row[:3] for row in rows[1:]] == [["DPO-BMC", "1", "60"], ["DPO-BMC", "2.5", "80"], ["DPO", "", "40"]]
    svg = save_and_check(figure4(tmp_path, "accuracy"), tmp_path, "accuracy, % (n = 10)")
    assert {"DPO", "DPO-BMC", "δ"} <= svg


def test_figure5(tmp_path: Path) -> None:
    said = {
        "benchmark": "alpaca_eval", "n": 805, "win_rate": 3, "interval": [1, 4], "interval_length_controlled": [9, 14]
    }  # fmt: skip
    for split, norms in ((1, [3.0, 4.0]), (2, [5.0])):
        folder = tmp_path / f"ablations/dpo_split_{split}"
        write(folder / "trainer_state.json", {"log_history": [{"grad_norm": norm} for norm in norms] + [{"loss": 1}]})
        write(folder / "eval/alpaca_eval/judge_results.json", said | {"length_controlled_win_rate": 10.0 + split})
    rows = cells(figure5(tmp_path, "judge.alpaca_eval_lc"))
    assert rows[1] == ["alpaca eval LC, %", "DPO", "1", "11", "", "", "805"]
    assert rows[3] == ["gradient norm", "DPO", "1", "3.5", "", "", "2"]
    assert rows[4] == ["gradient norm", "DPO", "2", "5", "", "", "1"]
    assert isinstance(figure5(tmp_path / "none", "accuracy"), MissingFigure)
    assert {"gradient norm", "alpaca eval LC, %"} <= save_and_check(
        figure5(tmp_path, "judge.alpaca_eval_lc"), tmp_path, "DPO"
    )


def test_figure5_shows_how_far_apart_each_split_is(tmp_path: Path) -> None:
    """Twelve pairs, out of order, whose y_w (not ỹ_w) is 1 … 12 edits from y_l: the splits' means are 1.5, 3.5, …"""
    for split in (1, 2):
        folder = tmp_path / f"ablations/dpo_split_{split}"
        write(folder / "trainer_state.json", {"log_history": [{"grad_norm": 1.0 + split}]})
    pairs = [
        {"id": f"r{n}", "prompt": "x", "chosen": "same", "original_chosen": "same" + "!" * n, "rejected": "same"}
        for n in (7, 3, 12, 1, 9, 5, 2, 11, 8, 4, 10, 6)
    ]
    (tmp_path / "bridge").mkdir()
    (tmp_path / "bridge/train.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    drawing = figure5(tmp_path, "accuracy")
    found = [row for row in cells(drawing) if row[0] == "edit distance"]
    assert [row[1:4] for row in found] == [["all pairs", str(k), f"{2 * k - 0.5:g}"] for k in range(1, 7)]
    assert {row[6] for row in found} == {"2"}
    save_and_check(drawing, tmp_path, "edit distance")


def test_figure6(tmp_path: Path) -> None:
    runs = [scored("dpo", tmp_path), scored("dpo_bmc", tmp_path, 2.0)]
    drawing = analyze.figure6(runs, {"a": "Why?", "b": "How?"}, "b", "analyze")
    rows = cells(drawing)
    assert rows[1] == ["dpo", "ỹ_w", "1", "t0 ", "0.5", "False"]  # ½ (−2 − −3)
    assert rows[6:8] == [["dpo_bmc", "ỹ_w", "1", "t0 ", "1", "False"], ["dpo_bmc", "ỹ_w", "2", "t1 ", "0", "True"]]
    assert isinstance(drawing, Figure)
    assert "Prompt: “How?” (pair b, named in the recipe)" in drawing.caption
    absent = analyze.figure6(runs, {}, "c", "analyze")
    assert absent == MissingFigure("figure6", "there is no validation pair c", "analyze --pair a")


def test_figure6_shows_markup_as_it_is_and_breaks_lines(tmp_path: Path) -> None:
    words = ["<script>", "$x$", " a&b", "\n", "next ", "w" * 40, "v" * 40]
    one = TokenScores(words, [-1.0] * 7, [-2.0] * 7, [1.0] * 7, [0.0] * 7, [False, True] + [False] * 5)
    runs = [ScoredRun(Run(name, tmp_path), 1.0, None, {"a": (one, one)}, {}, []) for name in ("dpo", "dpo_bmc")]
    texts = save_and_check(analyze.figure6(runs, {"a": "x"}, None, ""), tmp_path, "token reward r")
    assert {"<script>", "$x$", "\u00a0a&b", "⏎"} <= texts
    assert analyze._lines(words) == [[0, 1, 2, 3], [4, 5], [6]]


def test_table9(tmp_path: Path) -> None:
    setting = tmp_path / "outputs/a/b"
    nothing = table9(setting)
    assert nothing == MissingFigure("table9", "nothing was bridged", "make a/b/bridge")
    write(setting / "bridge/stats.json", {"rows": 10, "kept": 7})
    free = table9(setting)
    assert isinstance(free, MissingFigure)
    assert free.command.startswith("python scripts/bridge.py recipes/a/b/bridge.yaml --editor openai --output_dir ")
    answers = {"completions": 12, "prompt_tokens": 9000, "completion_tokens": 2000, "dollars": 0.15}
    write(setting / "ablations/bridge_fresh/stats.json", {"rows": 10, "kept": 9, "usage": answers})
    rows = cells(table9(setting))
    assert rows[1:] == [["ablations/bridge_fresh", "10", "9", "12", "9000", "2000", "0.15"]]
    assert {"bridge_fresh", "  $0.15"} <= save_and_check(table9(setting), tmp_path, "thousand tokens")


def test_table10(tmp_path: Path) -> None:
    for name, seconds in (("dpo", 100.0), ("dpo_bmc", 104.0), ("dpo_bc", 50.0)):
        write(tmp_path / name / "metrics.json", {"train_runtime": seconds, "rows": 64, "seconds": seconds + 9})
        write(tmp_path / name / "provenance.json", {"host": {"cpu": "x"}})
    write(tmp_path / "dpo_bc/provenance.json", {"host": {"cpu": "x"}, "resumed": [{}]})
    runs = [Run(name, tmp_path / name) for name in ("dpo", "dpo_bc", "dpo_bmc")]
    drawing = table10(tmp_path, runs)
    assert cells(drawing)[1:] == [["dpo", "64", "", "100", "109", "1"], ["dpo_bmc", "64", "", "104", "113", "1.04"]]
    assert isinstance(drawing, Figure)
    assert "that of their last part alone: DPO-BC." in drawing.caption
    assert "different machines" not in drawing.caption
    assert "1.7 (1.04 × DPO)" in save_and_check(drawing, tmp_path, "training time, minutes")
    write(tmp_path / "dpo/provenance.json", {"host": {"cpu": "y"}})
    other = table10(tmp_path, runs)
    assert isinstance(other, Figure)
    assert "different machines" in other.caption


def save_and_check(drawing: Figure | MissingFigure, folder: Path, label: str) -> set[str]:
    """Saves a figure, looks at its files, and returns the texts in its SVG."""
    assert isinstance(drawing, Figure)
    names = save(drawing, folder)
    with Image.open(folder / names["png"]) as image:
        assert image.size == tuple(int(side * DPI) for side in drawing.size)
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 20  # something is drawn
    root = ET.parse(folder / names["svg"]).getroot()
    texts = {"".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert label in texts
    return texts


def test_the_same_numbers_are_the_same_bytes(tmp_path: Path) -> None:
    kinds = ("svg", "png", "csv")
    first, second = ({}, {})
    for made, folder in ((first, tmp_path / "a"), (second, tmp_path / "b")):
        folder.mkdir()
        names = save(analyze.rewards_figure([scored("dpo", tmp_path), scored("dpo_bmc", tmp_path)]), folder)
        made.update({kind: (folder / names[kind]).read_bytes() for kind in kinds})
    assert first == second


def test_positions_in_spans() -> None:
    assert positions_in_span([False, True, True, True, False, True, False]) == [0, 1, 2, 3, 0, 1, 0]
    assert positions_in_span([]) == []
    values, differs = [9.0, 1.0, 2.0, 4.0, 9.0, 8.0], [False, True, True, True, False, True]
    assert sums_by_position(values, differs) == {"first": (9.0, 2), "later": (6.0, 2)}
    assert sums_by_position([3.0], [False]) == {"first": (0.0, 0), "later": (0.0, 0)}


def test_estimates() -> None:
    """1, 2, 6: mean 3, deviations −2, −1, 3, variance 14/2 = 7, standard error √(7/3), t with 2 degrees of freedom.
    Two tokens of sum 4 and six of sum 20: R = 3; residuals −2 and 2, s² = 2/1 · 8 / 8² = 1/4, t with 1."""
    found, half = mean_estimate([1.0, 2.0, 6.0]), 4.302652729749464 * sqrt(7 / 3)
    assert found == pytest.approx(Estimate(3.0, 3 - half, 3 + half, 3))
    assert found is not None
    assert found.bars == pytest.approx((half, half))
    half = 0.5 * 12.706204736174694
    assert ratio_estimate([4.0, 20.0, 0.0], [2, 6, 0]) == pytest.approx(Estimate(3.0, 3 - half, 3 + half, 2))
    assert ratio_estimate([4.0], [2]) == Estimate(2.0, None, None, 1)  # no interval of one pair
    assert Estimate(2.0, None, None, 1).bars == (0.0, 0.0)
    assert ratio_estimate([0.0], [0]) is mean_estimate([]) is reward_accuracy([]) is None


def test_accuracy_wants_a_larger_reward() -> None:
    """3 of 4, a tie being no win; Wilson's interval of 3 of 4 is [30.06, 95.44] %."""
    found = reward_accuracy([0.5, 0.1, 0.0, 2.0])
    assert found == pytest.approx(Estimate(75, 30.0642, 95.4413, 4), abs=1e-3)


def test_exact_kl() -> None:
    """π = (½, ¼, ¼) against π_ref = (¼, ½, ¼): ½ log 2 − ¼ log 2 = ¼ log 2; the same distribution has none."""
    policy = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]).log()
    reference = torch.tensor([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]).log() + 3
    one, two = (Head(logits / 2, torch.eye(3), None, None, 2.0, torch.float32) for logits in (policy, reference))
    assert exact_kl(one, two).tolist() == pytest.approx([0.25 * log(2), 0, 0], abs=1e-6)
    many = [head._replace(hidden=head.hidden[:1].expand(300, 3)) for head in (one, two)]  # more than a tile
    assert exact_kl(*many).tolist() == pytest.approx([0.25 * log(2)] * 300, abs=1e-6)
