"""How long `report.html` takes to open and to move, with the tokens of many long pairs.

python benchmarks/report.py
python benchmarks/report.py --pairs 100 --tokens 200 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

WORDS = [f" {a}{b}" for a in ("ba", "do", "ki", "lu", "me", "po") for b in ("n", "r", "s", "t", "l", "m", "lum", "rak")]
RUNS = ("dpo", "dpo_bmc")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
SHOWN = "document.querySelectorAll('.token').length"


def response(rng: random.Random, tokens: int, weighs: bool) -> dict[str, Any]:
    """A response of random words, a third of them differing."""
    differs = [rng.random() < 1 / 3 for _ in range(tokens)]
    probabilities = [rng.random() for _ in range(tokens)]
    return {
        "tokens": rng.choices(WORDS, k=tokens),
        "rewards": [rng.gauss(0, 0.2) for _ in range(tokens)],
        "probabilities": probabilities,
        "weights": [1 + min(1 / p, 3) if weighs and d else 1.0 for p, d in zip(probabilities, differs, strict=True)],
        "differs": differs,
    }


def write_runs(root: Path, pairs: int, tokens: int) -> None:
    """An analysis of two runs on the same pairs, as `scripts/analyze.py` leaves it."""
    folder = root / "analysis/tokens"
    folder.mkdir(parents=True)
    (root / "analysis/analysis.json").write_text("{}")
    for run in RUNS:
        words, numbers = random.Random(0), random.Random(run)
        with (folder / f"{run}.jsonl").open("w") as file:
            for pair in range(pairs):
                row: dict[str, Any] = {"id": f"r{pair}", "prompt": "".join(words.choices(WORDS, k=60))}
                for side in ("chosen", "rejected"):
                    texts = response(words, tokens, False)
                    made = response(numbers, tokens, run == "dpo_bmc")
                    row[side] = made | {name: texts[name] for name in ("tokens", "differs")}
                file.write(json.dumps(row) + "\n")


def measure(path: Path, rounds: int, tokens: int) -> dict[str, list[float]]:
    """Seconds of each round, in a browser that is already up, with a fresh profile each: from asking for the page until
    the first pair is on it and painted; of 20 steps to the next pair, a step each; of a first search."""
    from playwright.sync_api import sync_playwright

    found: dict[str, list[float]] = {"open": [], "next pair": [], "first search": []}
    painted = "() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for _ in range(rounds):
            page = browser.new_context(viewport={"width": 1200, "height": 900}).new_page()
            start = time.perf_counter()
            page.goto(path.as_uri())
            page.evaluate(painted)
            found["open"].append(time.perf_counter() - start)
            assert page.evaluate(SHOWN) == 4 * tokens, "the first pair isn't on the page"
            for _ in range(20):
                start = time.perf_counter()
                page.keyboard.press("ArrowRight")
                page.evaluate(painted)
                found["next pair"].append(time.perf_counter() - start)
            page.keyboard.press("/")
            start = time.perf_counter()
            page.keyboard.type("k")
            page.evaluate(painted)
            found["first search"].append(time.perf_counter() - start)
            page.context.close()
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=500, help="of each response")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    from bmc.analysis.report import report
    from bmc.config import ReportConfig

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_runs(root, options.pairs, options.tokens)
        start = time.perf_counter()
        report(ReportConfig(runs=folder))
        made, size = time.perf_counter() - start, (root / "report.html").stat().st_size / 2**20
        print(f"{options.pairs} pairs of 2 × {options.tokens} tokens, {len(RUNS)} runs: {size:.1f} MiB in {made:.1f} s")
        print("\n| | median | smallest | largest | n |\n| --- | ---: | ---: | ---: | ---: |")
        for name, seconds in measure(root / "report.html", options.rounds, options.tokens).items():
            cells = (statistics.median(seconds), min(seconds), max(seconds))
            print(f"| {name} | {' | '.join(f'{value:.2f} s' for value in cells)} | {len(seconds)} |")


if __name__ == "__main__":
    main()
