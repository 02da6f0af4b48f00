"""Tables 9 and 10: what bridging cost, and how long training took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...provenance import read_provenance
from ..cells import read_json
from ..trained import METHODS, Run, make, run_stage
from .drawing import BLUE, ORANGE, Drawing, Missing, Row, look

TABLE9 = "Table 9: tokens and dollars of bridging"
TABLE10 = "Table 10: training time"
BASELINE = "dpo"


def table9(setting: Path) -> Drawing | Missing:
    """Of each bridging below a setting: the answers that its pairs rest on, whenever they were paid for."""
    rows: list[Row] = []
    found = sorted([*setting.glob("bridge*/stats.json"), *setting.glob("ablations/bridge*/stats.json")])
    for path in found:
        stats, name = read_json(path), str(path.parent.relative_to(setting))
        if answers := stats.get("answers"):
            read, written, count = (answers[key] for key in ("prompt_tokens", "completion_tokens", "replies"))
            rows.append((name, stats["rows"], stats["kept"], count, read, written, answers["dollars"]))
    if not found:
        return Missing("table9", "nothing was bridged", make(str(setting), "bridge"))
    if not rows:
        why = "the pairs were bridged by rules, which cost nothing; an LLM would cost tokens"
        return Missing(
            "table9", why, f"{run_stage('bridge', str(setting))} --editor openai --output_dir {setting}/bridge_llm"
        )
    caption = (
        "Tokens that the editor read and wrote for the pairs of each bridging, second tries included, and dollars by "
        "the recipe's prices (none where it has no price). " + "; ".join(f"{row[0]}: {row[3]:,} answers for {row[1]:,} "
        "pairs" for row in rows) + "."
    )  # fmt: skip
    header = ("bridging", "pairs", "kept", "answers", "tokens read", "tokens written", "dollars")
    return Drawing("table9", TABLE9, caption, header, rows, lambda figure: _draw9(figure, rows))


def _draw9(figure: Any, rows: list[Row]) -> None:
    panel = figure.subplots()
    for offset, column, label, color, hatch in ((-0.19, 4, "read", BLUE, ""), (0.19, 5, "written", ORANGE, "//")):
        heights = [float(row[column] or 0) / 1000 for row in rows]
        panel.barh(
            [place + offset for place in range(len(rows))], heights, 0.36, color=color, hatch=hatch, edgecolor="white",
            label=f"tokens {label}",
        )  # fmt: skip
    for place, row in enumerate(rows):
        most, dollars = float(row[4] or 0) / 1000, row[6]
        panel.text(most, place - 0.19, "  no price" if dollars is None else f"  ${float(dollars):,.2f}", va="center")
    panel.set_yticks(range(len(rows)), [str(row[0]).removeprefix("ablations/") for row in rows])
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.margins(x=0.25)
    panel.set_xlabel("thousand tokens")
    panel.grid(axis="y", visible=False)
    figure.legend(loc="outside upper center", ncols=2)


def table10(setting: Path, runs: list[Run]) -> Drawing | Missing:
    """Of each run: the time in its training loop, evaluations included."""
    took: dict[Run, float] = {}
    for run in runs:
        resumed = (read_provenance(run.folder) or {}).get("resumed")
        if "train_runtime" in run.metrics and not resumed:
            took[run] = run.metrics["train_runtime"]
    if not took:
        return Missing(
            "table10", "no run trained without a break, so none has a time to compare", make(str(setting), *METHODS)
        )
    baseline = next((seconds for run, seconds in took.items() if run.name == BASELINE), None)
    ratios = {run: None if baseline is None else seconds / baseline for run, seconds in took.items()}
    told = [
        "Wall time of the training loop, evaluations during it included; the reference's log-probs, which runs share "
        "through a cache, are not. Each bar is a single run, without an interval.",
        "; ".join(f"{run.method}: {run.metrics.get('rows')} pairs, {run.steps} steps" for run in took) + ".",
    ]
    if len({str((read_provenance(run.folder) or {}).get("host")) for run in took}) > 1:
        told.append("They ran on different machines, so their times don't compare.")
    if left_out := [run.method for run in runs if run not in took]:
        told.append(f"Left out, since their time is that of their last part alone: {', '.join(left_out)}.")
    header = ("run", "pairs", "steps", "training seconds", "seconds of the whole stage", f"ratio to {BASELINE}")
    rows: list[Row] = [
        (run.name, run.metrics.get("rows"), run.steps, seconds, run.metrics.get("seconds"), ratios[run])
        for run, seconds in took.items()
    ]
    return Drawing("table10", TABLE10, " ".join(told), header, rows, lambda figure: _draw10(figure, took, ratios))


def _draw10(figure: Any, took: dict[Run, float], ratios: dict[Run, float | None]) -> None:
    panel, methods = figure.subplots(), [run.method for run in took]
    longest = max(took.values())
    unit, name = (3600, "hours") if longest >= 5400 else (60, "minutes") if longest >= 90 else (1, "seconds")
    lengths = [seconds / unit for seconds in took.values()]
    bars = panel.barh(range(len(took)), lengths, 0.6, color=[look(method, methods).color for method in methods])
    shown = [f"{length:.1f}" for length in lengths]
    for place, ratio in enumerate(ratios.values()):
        shown[place] += "" if ratio is None else f" ({ratio:.2f} × DPO)"
    panel.bar_label(bars, shown, padding=4)
    panel.set_yticks(range(len(took)), methods)
    panel.set_ylim(len(took) - 0.4, -0.6)
    panel.margins(x=0.45)
    panel.set_xlabel(f"training time, {name}")
    panel.grid(axis="y", visible=False)
