"""`report.html` in a headless Chromium: it opens, moves, tells, and runs nothing that stands in the data.

The pictures are kept in `build/report/` (git-ignored).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made import ROOT, evaluated, result, side, write, write_rows

from bmc.analysis.report import report
from bmc.config import ReportConfig

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no browser (apt-get install chromium)")]
PICTURES = ROOT / "build/report"
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
UNSEEN = "\u202e\x07"  # characters that would act on the page, or not be seen there
PAIRS, ROWS = 40, 16
RUNS = ["dpo", "dpo_bmc", "sft", *(f"ablations/dpo_bmc_with_a_long_name_{n}" for n in range(27))]
BENCHMARKS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta_challenge", "eta", "theta"]


def pair(number: int, scale: float) -> dict[str, Any]:
    """Of tokens A, ` bank`, `.` and a line break; the third pair's are hostile, the fifth has what can't be seen."""
    special = {2: ["A", HOSTILE, "  ", "\n"], 4: ["A\n\nB", "\u202e", "\t", " "]}
    rewards = [0.0, 0.25 * scale, -0.125 * scale, 0.5 * scale]
    weights = [1.0, 1.0 + 2 * (scale > 1), 1.0, 1.0]
    chosen = side(special.get(number, ["A", " bank", ".", "\n"]), rewards, weights, [False, True, False, False])
    rejected = side(["A", " river", "."], [0.0, -scale, 0.0], [1.0, 4.0, 1.0], [False, True, False])
    prompt = HOSTILE if number == 2 else f"Where is money kept, number {number}?"
    return {"id": f"row {number}/é", "prompt": prompt, "chosen": chosen, "rejected": rejected}


def predictions(folder: Path, run: int, rows: int = ROWS, words: int = 3) -> None:
    """Row n has the gold answer n; what is wrong says "no". The response of row n is n words longer by each run. dpo is
    right on the first half, dpo_bmc but on every fourth, sft nowhere."""
    lines, hits = [], dict.fromkeys(BENCHMARKS, 0)
    for n in range(rows):
        of, hit = BENCHMARKS[n % len(BENCHMARKS)], [n < ROWS // 2, n % 4 != 0, False][run % 3]
        hits[of] += hit
        answer, odd = str(n) if hit else "no", HOSTILE + UNSEEN if n == 5 else ""
        said = f"{odd or 'word'} {'word ' * (words + n % ROWS * (run + 1))}\nThe answer is {answer}"
        texts = {"prompt": f"Question {n}? {odd}", "prediction": said, "answer": answer, "gold": str(n)}
        lines.append({"id": f"r{n}", "source": of, **texts, "correct": hit})
    if run == 1 and rows == ROWS:
        texts = {"prompt": "Hello?", "prediction": "Hi.", "answer": None, "gold": None}
        lines.append({"id": "c1", "source": "chat", **texts, "correct": None})
    write_rows(folder / "predictions.jsonl", lines)
    each = rows // len(BENCHMARKS)
    write(folder / "metrics.json", {"n": rows, "results": {of: result(count, each) for of, count in hits.items()}})


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of 30 trained runs of 8 benchmarks, and of an analysis, with hostile names and texts."""
    root = tmp_path_factory.mktemp("runs")
    for place, run in enumerate(RUNS):
        predictions(root / run / "eval", place)
        log = [{"step": step, "rewards/margins": (step % 2) + place / 10} for step in range(1, 61)]
        write(root / run / "trainer_state.json", {"log_history": log})
    write(root / "dpo/eval/provenance.json", {"recipe": {"note": HOSTILE}, "command": HOSTILE})
    for run, scale in (("dpo", 1.0), ("dpo_bmc", 2.0), ("zz", 1.0)):
        write_rows(root / f"analysis/tokens/{run}.jsonl", [pair(number, scale) for number in range(PAIRS)])
    inner = "<script>parent.hacked = 3</script><g/>"
    (root / "analysis/f.svg").write_text(f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">{inner}</svg>')
    (root / "analysis/f.csv").write_text(f"a,b\n1,{HOSTILE}\n")
    figures = [{"name": "figure2", "caption": HOSTILE, "svg": "f.svg", "csv": "f.csv"}]
    missing = [{"name": "figure5", "why": HOSTILE, "command": "make figure5"}]
    write(root / "analysis/analysis.json", {"figures": figures, "missing": missing})
    report(ReportConfig(runs=str(root)))
    return root / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The browser, with a profile of its own that is removed again."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield found
        found.close()


class Opened:
    """A page, and what it did that it shouldn't: words on the console, requests, dialogs."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}} | options)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def counter(self) -> str:
        return str(self.page.locator("#counter").inner_text())

    def tip(self) -> list[list[str]]:
        return [row.locator("th, td").all_inner_texts() for row in self.page.locator("#tip tr").all()]

    def token(self, column: int, response: int, place: int) -> Any:
        return self.page.locator(".run").nth(column).locator(".tokens").nth(response).locator(".token").nth(place)

    def show_predictions(self) -> Any:
        self.page.locator("#predictions-browser").scroll_into_view_if_needed()
        self.page.wait_for_selector("#p-rows tr")
        return self.page


@pytest.fixture
def opened(browser: Any, path: Path) -> Iterator[Opened]:
    found = Opened(browser, path)
    yield found
    assert found.said == []
    assert found.page.evaluate("window.hacked") is None
    found.context.close()


@pytest.fixture
def page(opened: Opened) -> Any:
    return opened.show_predictions()


def test_it_opens_in_silence_and_asks_for_nothing(opened: Opened, path: Path) -> None:
    others = [url for url in opened.asked if url != path.as_uri()]
    assert all(url.startswith("data:image/svg+xml") for url in others)
    assert opened.page.evaluate("document.images[0].naturalWidth") == 9  # the figure is there
    assert opened.counter() == "pair 1 of 40"
    PICTURES.mkdir(parents=True, exist_ok=True)
    opened.page.screenshot(path=PICTURES / "desktop.png", full_page=True)


def test_a_foreign_script_is_stopped_by_the_policy(browser: Any, path: Path) -> None:
    opened = Opened(browser, path)
    add = "const s = document.createElement('script'); s.textContent = 'window.hacked = 4'; document.body.append(s)"
    opened.page.evaluate(add)
    assert opened.page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in words for words in opened.said)
    opened.context.close()


def test_a_report_without_tokens_has_no_errors(browser: Any, tmp_path: Path) -> None:
    evaluated(tmp_path / "dpo/eval", {"r": True})
    report(ReportConfig(runs=str(tmp_path)))
    opened = Opened(browser, tmp_path / "report.html")
    assert opened.said == []
    assert "Nothing is analysed yet" in opened.page.inner_text("main")
    opened.context.close()


# Tokens


def test_keys_buttons_and_search_go_through_the_pairs(opened: Opened) -> None:
    page = opened.page
    for key, expected in (
        ("ArrowRight", 2), ("j", 3), ("ArrowRight", 4), ("ArrowLeft", 3), ("k", 2), ("k", 1), ("ArrowLeft", 1),
    ):  # fmt: skip
        page.keyboard.press(key)
        assert opened.counter() == f"pair {expected} of 40"
        assert page.locator("#pair-id").inner_text() == f"row {expected - 1}/é"
    page.click("#next")
    assert "number 1?" in page.locator("#prompt").inner_text()
    page.click("#previous")
    assert page.locator("#previous").is_disabled()
    page.keyboard.press("/")
    for words, expected in (
        ("Number 17", "pair 1 of 1 that match, of 40"),  # a prompt, whatever its case
        ("row 3", "pair 1 of 11 that match, of 40"),  # ids: 3, 30 … 39
        ("window.hacked", "pair 1 of 1 that match, of 40"),
        ("a bank", "pair 1 of 38 that match, of 40"),  # across tokens of a response
        ("nowhere", "no pair matches"),
        ("", "pair 1 of 40"),
    ):
        page.keyboard.press("Control+A")
        page.keyboard.press("Delete")
        page.keyboard.type(words)
        assert opened.counter() == expected, words
        assert page.locator("#runs").is_visible() == (words != "nowhere")
    page.keyboard.press("j")  # a letter in the box, not the next pair
    assert page.locator("#search").input_value() == "j"


def test_numbers_are_shown_by_pointer_and_by_key(opened: Opened) -> None:
    """DPO-BMC's numbers stand beside DPO's: r = 0.25 and twice that, λ = 3 where it weighs, π = 1/4."""
    page = opened.page
    expected = [["", "dpo", "dpo_bmc"], ["r", "+0.250", "+0.500"], ["λ", "1.00", "3.00"], ["π", "0.250", "0.250"]]
    assert page.locator("#tip").is_hidden()
    opened.token(0, 0, 1).hover()
    assert opened.tip() == expected
    assert page.locator("#tip p").inner_text() == '" bank" differs'
    page.mouse.move(1, 1)
    assert page.locator("#tip").is_hidden()
    opened.token(0, 0, 0).focus()
    assert opened.tip()[1] == ["r", "+0.000", "+0.000"]
    page.keyboard.press("ArrowRight")
    assert opened.tip() == expected
    assert page.evaluate("document.activeElement.getAttribute('aria-describedby')") == "tip"
    assert opened.counter() == "pair 1 of 40"
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()
    page.keyboard.press("ArrowRight")
    assert opened.counter() == "pair 2 of 40"


def test_colours_lines_and_other_runs(opened: Opened) -> None:
    """The scale ends at the 99th percentile, here the largest reward, 2: 0.5 is a quarter of it."""
    strength = "element => element.style.getPropertyValue('--strength')"
    places = ((0, 0, 0), (1, 0, 1), (1, 1, 1))
    assert [opened.token(*place).evaluate(strength) for place in places] == ["0%", "25%", "100%"]
    assert opened.token(1, 1, 1).get_attribute("class") == "token differs down"
    assert opened.token(1, 0, 1).get_attribute("class") == "token differs up"
    line = "element => getComputedStyle(element).textDecorationLine"
    assert [opened.token(0, 0, place).evaluate(line) for place in (0, 1)] == ["none", "underline"]
    assert opened.page.locator("#lowest").inner_text() == "less likely, −2.000"
    margins = opened.page.locator(".margin")  # 0.25 − 0.125 + 0.5 + 1
    assert margins.all_inner_texts() == ["margin +1.625, ỹ_w preferred", "margin +3.250, ỹ_w preferred"]
    choice = opened.page.locator(".run select").nth(1)
    assert choice.locator("option").all_inner_texts() == ["dpo", "dpo_bmc", "zz"]
    choice.select_option("zz")
    assert margins.all_inner_texts()[1] == "margin +1.625, ỹ_w preferred"
    opened.page.locator("#next").click()
    assert opened.page.locator(".run select").nth(1).input_value() == "zz"


def test_texts_of_pairs_are_shown_and_not_run(opened: Opened) -> None:
    """Hostile ones as they are; what can't be seen by a sign, which isn't copied."""
    box = opened.page.locator(".tokens").first
    copied = "element => { getSelection().selectAllChildren(element); return getSelection().toString() }"
    assert box.evaluate(copied).rstrip("\n") == "A bank."
    signs = "element => [...element.querySelectorAll('.sign')].map(one => one.dataset.sign)"
    assert box.evaluate(signs) == ["↵"]
    for key in "jj":
        opened.page.keyboard.press(key)
    assert opened.page.locator("#prompt").inner_text() == opened.token(0, 0, 1).inner_text() == HOSTILE
    for key in "jj":
        opened.page.keyboard.press(key)
    assert box.evaluate(signs) == ["↵", "↵", "U+202E", "⇥"]
    assert box.evaluate("element => element.textContent") == "A\n\nB\t "  # not the mark that would turn the text
    opened.token(0, 0, 1).focus()
    assert opened.page.locator("#tip p").inner_text() == '"\\u202E" differs'
    assert "blank" in (opened.token(0, 0, 3).get_attribute("class") or "")


def test_a_link_leads_to_a_pair(opened: Opened, browser: Any, path: Path) -> None:
    opened.page.keyboard.press("j")
    assert opened.page.url.endswith("#pair=row%201%2F%C3%A9")
    again = Opened(browser, path)
    again.page.goto(opened.page.url)
    assert again.counter() == "pair 2 of 40"
    again.page.evaluate("location.hash = '#pair=row%207%2F%C3%A9'")
    again.page.wait_for_function("document.getElementById('counter').textContent === 'pair 8 of 40'")
    again.page.evaluate("location.hash = '#pair=%E0%A4%A'")  # no text at all
    assert again.said == []
    again.context.close()


# Predictions


def listed(page: Any) -> list[str]:
    return list(page.locator("#p-rows th").all_inner_texts())


def counts(page: Any, words: str) -> None:
    page.wait_for_function("words => document.getElementById('p-counter').textContent === words", arg=words)


def test_two_runs_stand_side_by_side(page: Any) -> None:
    counts(page, "rows 1 to 17 of 17")
    assert page.locator("#p-head th").all_inner_texts() == ["row", "benchmark", "prompt", "gold", "dpo", "dpo_bmc"]
    page.locator("#p-rows button").nth(5).click()  # hostile
    assert HOSTILE + "[U+202E]␇" in page.locator("#p-detail .text").nth(1).inner_text()
    assert page.locator("#predictions-browser img").count() == 0
    page.locator("#p-rows button").nth(9).click()
    assert page.locator("#p-detail h3").inner_text() == "beta: r9"
    assert page.locator("#p-detail h4").all_inner_texts() == ["dpo", "dpo_bmc"]
    assert page.locator("#p-detail .label").all_inner_texts()[1] == "Gold answer: 9"
    assert page.locator("#p-detail .verdict").all_inner_texts() == ["✗ wrong", "✓ right"]
    texts = page.locator("#p-detail .text").all_inner_texts()
    assert texts[0].strip() == "Question 9?"
    assert texts[1].endswith("The answer is no")
    assert texts[2].count("word") == 1 + 3 + 18
    left, right = (page.locator(".prediction").nth(place).bounding_box() for place in (0, 1))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]


def test_filters_benchmarks_search_and_sorting(page: Any) -> None:
    for chosen, count, first in (  # of the rows 0 … 15 dpo has 0 … 7, dpo_bmc all but 0, 4, 8, 12
        ("differ", 2 + 6, "r0"), ("answers", 2 + 6, "r0"), ("gained", 6, "r9"), ("lost", 2, "r0"), ("right", 6, "r1"),
        ("wrong", 2, "r8"), ("unscored", 1, "c1"),
    ):  # fmt: skip
        page.select_option("#p-filter", chosen)
        counts(page, f"rows 1 to {count} of {count}, of 17")
        page.wait_for_function("id => document.querySelector('#p-rows th').innerText === id", arg=first)
    page.select_option("#p-filter", "all")
    page.select_option("#p-source", "beta")
    counts(page, "rows 1 to 2 of 2, of 17")
    assert listed(page) == ["r1", "r9"]
    page.select_option("#p-source", "")
    page.fill("#p-search", "QUESTION 1")
    counts(page, "rows 1 to 7 of 7, of 17")  # 1, 10 … 15
    page.fill("#p-search", "")
    counts(page, "rows 1 to 17 of 17")
    for sort, ends in (
        ("long", ("r15", "c1")), ("apart", ("r15", "c1")), ("short", ("c1", "r5")), ("id", ("c1", "r15")),
        ("hard", ("r8", "r7")),  # no run is right on 8 and 12
    ):  # fmt: skip
        page.select_option("#p-sort", sort)
        page.wait_for_function("id => document.querySelector('#p-rows th').innerText === id", arg=ends[0])
        assert sort == "hard" or listed(page)[-1] == ends[1], sort


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


def test_ten_runs_of_2000_rows_open_in_two_seconds(browser: Any, tmp_path: Path) -> None:
    for run in range(10):
        predictions(tmp_path / f"run_{run}" / "eval", run, rows=2000, words=100)
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


# Curves, and which runs are shown


def test_runs_are_hidden_everywhere_and_shown_again(page: Any) -> None:
    of = "[data-run='ablations/dpo_bmc_with_a_long_name_3']"
    assert page.locator(of).count() >= 2  # a line of the scores, and one in the chart
    page.locator(".legend input[value='ablations/dpo_bmc_with_a_long_name_3']").last.uncheck()
    assert all(not one.is_visible() for one in page.locator(of).all())
    assert page.locator(".grid [data-run='dpo']").first.is_visible()
    page.locator("[data-show='none']").last.click()
    assert page.locator(".chart g[data-run]:visible").count() == 0
    page.locator("[data-show='all']").last.click()
    assert page.locator(".chart g[data-run]:visible").count() == len(RUNS)
    page.locator(".legend li").last.hover()
    assert page.locator(".chart g.dim").count() == len(RUNS) - 1


def test_curves_are_told_apart_smoothed_and_rough_again(page: Any) -> None:
    """Margins go up and down by 1; with w = 0.9 the average of 1, 0, 1 is (1 + 0.81)/(1 + 0.9 + 0.81)."""
    looks = "lines => lines.map(line => line.getAttribute('class') + line.getAttribute('stroke-dasharray'))"
    assert len(set(page.locator(".legend svg line").evaluate_all(looks))) == len(RUNS)
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


# Accessibility


def test_by_keyboard_alone(opened: Opened) -> None:
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    reached = []
    while page.evaluate("document.activeElement !== document.body"):
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", reached[-1]
        page.keyboard.press("Tab")
    for name in ("wide", "next", "search", "prompt"):
        assert name in reached, name
    assert sum("token" in name for name in reached) == 4  # one stop a response
