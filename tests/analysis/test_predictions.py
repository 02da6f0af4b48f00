"""The browser of predictions, and what hides and smooths runs, in a headless Chromium."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, chromium
from made import result, write, write_rows

from bmc.analysis.page import predictions
from bmc.analysis.page.curves import stroke
from bmc.analysis.report import report
from bmc.config import ReportConfig

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no browser (apt-get install chromium)")
PICTURES = Path(__file__).parents[2] / "build/report"
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>\u202e\x07"
RUNS = ["dpo", "dpo_bmc", "sft", *(f"ablations/dpo_bmc_with_a_long_name_{n}" for n in range(27))]
BENCHMARKS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta_challenge", "eta", "theta"]
ROWS = 16


def right(run: int, row: int) -> bool:
    """dpo on the first half, dpo_bmc but on every fourth, sft nowhere."""
    return [row < ROWS // 2, row % 4 != 0, False][run % 3]


def evaluated(folder: Path, run: int, rows: int = ROWS, words: int = 3) -> None:
    """Row n has the gold answer n; what is wrong says "no". The response of row n is n words longer by each run."""
    lines, hits = [], dict.fromkeys(BENCHMARKS, 0)
    for n in range(rows):
        of, hit = BENCHMARKS[n % len(BENCHMARKS)], right(run, n)
        hits[of] += hit
        answer = str(n) if hit else "no"
        said = f"{HOSTILE if n == 5 else 'word'} {'word ' * (words + n % ROWS * (run + 1))}\nThe answer is {answer}"
        lines.append({"id": f"r{n}", "source": of, "prompt": f"Question {n}? {HOSTILE if n == 5 else ''}",
                      "prediction": said, "answer": answer, "gold": str(n), "correct": hit})  # fmt: skip
    if run == 1 and rows == ROWS:
        lines.append({"id": "c1", "source": "chat", "prompt": "Hello?", "prediction": "Hi.", "answer": None,
                      "gold": None, "correct": None})  # fmt: skip
    write_rows(folder / "predictions.jsonl", lines)
    each = rows // len(BENCHMARKS)
    write(folder / "metrics.json", {"n": rows, "results": {of: result(count, each) for of, count in hits.items()}})


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 trained runs of 8 benchmarks."""
    root = tmp_path_factory.mktemp("runs")
    for place, run in enumerate(RUNS):
        evaluated(root / run / "eval", place)
        log = [{"step": step, "rewards/margins": (step % 2) + place / 10} for step in range(1, 61)]
        write(root / run / "trainer_state.json", {"log_history": log})
    report(ReportConfig(runs=str(root)))
    return root / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: Any, path: Path) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    found = context.new_page()
    said: list[str] = []
    found.on("console", lambda message: said.append(message.text))
    found.on("pageerror", lambda error: said.append(str(error)))
    found.goto(path.as_uri())
    found.locator("#predictions-browser").scroll_into_view_if_needed()
    found.wait_for_selector("#p-rows tr")
    yield found
    assert said == []
    assert found.evaluate("window.hacked") is None
    context.close()


def listed(page: Any) -> list[str]:
    return list(page.locator("#p-rows th").all_inner_texts())


def counts(page: Any, words: str) -> None:
    page.wait_for_function("words => document.getElementById('p-counter').textContent === words", arg=words)


def test_two_runs_stand_side_by_side(page: Any) -> None:
    counts(page, "rows 1 to 17 of 17")
    assert page.locator("#p-head th").all_inner_texts() == ["row", "benchmark", "prompt", "gold", "dpo", "dpo_bmc"]
    page.locator("#p-rows button").nth(8).click()  # r8, which both get wrong
    page.locator("#p-rows button").nth(9).click()
    assert page.locator("#p-detail h3").inner_text() == "beta: r9"
    assert page.locator("#p-detail h4").all_inner_texts() == ["dpo", "dpo_bmc"]
    assert page.locator("#p-detail .label").all_inner_texts()[1] == "Gold answer: 9"
    assert page.locator("#p-detail .verdict").all_inner_texts() == ["✗ wrong", "✓ right"]
    texts = page.locator("#p-detail .text").all_inner_texts()
    assert texts[0].strip() == "Question 9?"
    assert texts[1].endswith("The answer is no")
    assert texts[2].count("word") == 1 + 3 + 18
    left, right_ = (page.locator(".prediction").nth(place).bounding_box() for place in (0, 1))
    assert left["y"] == right_["y"]
    assert left["x"] + left["width"] <= right_["x"]


@pytest.mark.parametrize(
    ("chosen", "count", "first"),
    [  # of the rows 0 … 15 dpo has 0 … 7, dpo_bmc all but 0, 4, 8, 12
        ("differ", 2 + 6, "r0"),
        ("answers", 2 + 6, "r0"),
        ("gained", 6, "r9"),
        ("lost", 2, "r0"),
        ("right", 6, "r1"),
        ("wrong", 2, "r8"),
        ("unscored", 1, "c1"),
    ],
)
def test_filters(page: Any, chosen: str, count: int, first: str) -> None:
    page.select_option("#p-filter", chosen)
    counts(page, f"rows 1 to {count} of {count}, of 17")
    assert listed(page)[0] == first


def test_benchmarks_search_and_sorting(page: Any) -> None:
    page.select_option("#p-source", "beta")
    counts(page, "rows 1 to 2 of 2, of 17")
    assert listed(page) == ["r1", "r9"]
    page.select_option("#p-source", "")
    page.fill("#p-search", "QUESTION 1")
    counts(page, "rows 1 to 7 of 7, of 17")  # 1, 10 … 15
    page.fill("#p-search", "")
    counts(page, "rows 1 to 17 of 17")
    for sort, ends in (
        ("long", ("r15", "c1")),
        ("apart", ("r15", "c1")),
        ("short", ("c1", "r5")),
        ("id", ("c1", "r15")),
    ):
        page.select_option("#p-sort", sort)
        page.wait_for_function("id => document.querySelector('#p-rows th').innerText === id", arg=ends[0])
        assert listed(page)[-1] == ends[1], sort
    page.select_option("#p-sort", "hard")  # nobody is right on 8 and 12
    page.wait_for_function("() => document.querySelector('#p-rows th').innerText === 'r8'")


def test_more_runs_and_fewer(page: Any) -> None:
    page.locator("#p-runs input[value='sft']").check()
    page.wait_for_function("() => document.querySelectorAll('#p-head th').length === 7")
    assert page.locator("#p-detail h4").all_inner_texts() == ["dpo", "dpo_bmc", "sft"]
    for run in ("dpo", "dpo_bmc"):
        page.locator(f"#p-runs input[value='{run}']").uncheck()
    page.wait_for_function("() => document.querySelectorAll('#p-head th').length === 5")
    counts(page, "rows 1 to 16 of 16, of 17")  # the chat row is dpo_bmc's alone
    page.locator("#p-runs input[value='sft']").uncheck()
    counts(page, "no row matches")


def test_texts_from_data_are_shown_and_do_nothing(page: Any) -> None:
    page.locator("#p-rows button").nth(5).click()
    shown = page.locator("#p-detail .text").nth(1).inner_text()
    assert "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>[U+202E]␇" in shown
    assert page.locator("#predictions-browser img").count() == 0


def test_runs_are_hidden_everywhere_and_shown_again(page: Any) -> None:
    of = "[data-run='ablations/dpo_bmc_with_a_long_name_3']"
    assert page.locator(of).count() >= 2  # a line of the scores, and one in the chart
    box = page.locator(".legend input[value='ablations/dpo_bmc_with_a_long_name_3']").last
    box.uncheck()
    assert all(not one.is_visible() for one in page.locator(of).all())
    assert page.locator(".grid [data-run='dpo']").first.is_visible()
    page.locator("[data-show='none']").last.click()
    assert page.locator(".chart g[data-run]:visible").count() == 0
    page.locator("[data-show='all']").last.click()
    assert page.locator(".chart g[data-run]:visible").count() == len(RUNS)
    page.locator(".legend li").last.hover()
    assert page.locator(".chart g.dim").count() == len(RUNS) - 1


def test_curves_are_smoothed_and_rough_again(page: Any) -> None:
    """Margins go up and down by 1; with w = 0.9 the average of 1, 0, 1 is (1 + 0.81)/(1 + 0.9 + 0.81)."""
    line = page.locator(".chart g[data-run='dpo'] polyline").last
    rough = line.get_attribute("points")
    heights = [float(pair.split(",")[1]) for pair in rough.split(" ")]
    top, bottom = heights[0], heights[1]
    page.locator("#smoothing").fill("0.9")
    points = [float(pair.split(",")[1]) for pair in line.get_attribute("points").split(" ")]
    assert points[2] == pytest.approx(bottom + (top - bottom) * 1.81 / 2.71, abs=0.06)
    assert abs(points[-1] - points[-2]) < (bottom - top) / 8
    assert page.locator(".chart g[data-run='dpo'] .raw").is_visible()
    page.locator("#smoothing").fill("0")
    assert line.get_attribute("points") == rough
    assert not page.locator(".chart g[data-run='dpo'] .raw").is_visible()


def test_84_runs_are_told_apart() -> None:
    assert len({stroke(place) for place in range(84)}) == 84


def test_names_of_runs_break_at_their_separators_only(page: Any) -> None:
    """Each line of a name ends at one of them."""
    lines = page.evaluate(
        """() => [...document.querySelectorAll('.grid tr[data-run] th')].map(cell => {
            const found = [];
            const walk = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
            let top = null;
            while (walk.nextNode()) {
                const text = walk.currentNode.data;
                for (let at = 0; at < text.length; at++) {
                    const range = document.createRange();
                    range.setStart(walk.currentNode, at); range.setEnd(walk.currentNode, at + 1);
                    const y = Math.round(range.getBoundingClientRect().top);
                    if (y !== top) { found.push(''); top = y; }
                    found[found.length - 1] += text[at];
                }
            }
            return found;
        })"""
    )
    assert len(lines) >= len(RUNS)
    assert all(part.endswith(("/", "_")) for name in lines for part in name[:-1])


def test_landmarks_have_names_of_their_own(page: Any) -> None:
    names = page.evaluate(
        """() => [...document.querySelectorAll('section, [role=region], nav, main, header, form, aside')].map(one => {
            const heading = document.getElementById(one.getAttribute('aria-labelledby'));
            return one.tagName + (one.getAttribute('aria-label') || (heading || {}).textContent || '');
        })"""
    )
    assert len(names) == len(set(names)) > 5


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_narrow_page_does_not_scroll_sideways(browser: Any, path: Path, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844}, is_mobile=True, has_touch=True)
    page = context.new_page()
    page.goto(path.as_uri())
    page.locator("#predictions-browser").scroll_into_view_if_needed()
    page.wait_for_selector("#p-rows tr")
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    table = page.locator(".wide").first
    assert table.evaluate("one => one.scrollWidth > one.clientWidth")  # but the table does
    page.screenshot(path=PICTURES / f"narrow-{width}.png")
    context.close()


def test_ten_runs_of_2000_rows_open_in_two_seconds(browser: Any, tmp_path: Path) -> None:
    for run in range(10):
        evaluated(tmp_path / f"run_{run}" / "eval", run, rows=2000, words=100)
    report(ReportConfig(runs=str(tmp_path)))
    context = browser.new_context()
    page = context.new_page()
    started = time.monotonic()
    page.goto((tmp_path / "report.html").as_uri())
    page.locator("#predictions-browser").scroll_into_view_if_needed()
    page.wait_for_selector("#p-rows tr")
    assert time.monotonic() - started < 2
    counts(page, "rows 1 to 20 of 2000")
    page.click("#p-on")
    counts(page, "rows 21 to 40 of 2000")
    context.close()


def test_what_the_page_leaves_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "MOST", 10)
    evaluated(tmp_path / "eval", 0)
    notices: list[str] = []
    assert predictions.browser({"dpo": tmp_path / "eval/predictions.jsonl"}, notices)
    assert notices == ["the browser of predictions holds the first 10 rows; 6 predictions are left out"]
    assert predictions.browser({"dpo": tmp_path / "none.jsonl"}, notices) == ""
