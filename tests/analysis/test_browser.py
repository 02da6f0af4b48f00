"""`report.html` in a headless Chromium: it opens, moves, tells, and runs nothing that stands in the data.

The pictures are kept in `build/report/` (git-ignored).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, chromium
from made import evaluated, side, write, write_rows

from bmc.analysis.report import report
from bmc.config import ReportConfig

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no browser (apt-get install chromium)")
PICTURES = Path(__file__).parents[2] / "build/report"
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
PAIRS = 40


def pair(number: int, scale: float) -> dict[str, Any]:
    """Of tokens A, ` bank`, `.` and a line break; the third pair's are hostile, the fifth has what can't be seen."""
    tokens = ["A", " bank", ".", "\n"]
    if number == 2:
        tokens = ["A", HOSTILE, "  ", "\n"]
    if number == 4:
        tokens = ["A\n\nB", "\u202e", "\t", " "]
    rewards = [0.0, 0.25 * scale, -0.125 * scale, 0.5 * scale]
    weights = [1.0, 1.0 + 2 * (scale > 1), 1.0, 1.0]
    winner = side(tokens, rewards, weights, [False, True, False, False])
    loser = side(["A", " river", "."], [0.0, -scale, 0.0], [1.0, 4.0, 1.0], [False, True, False])
    prompt = HOSTILE if number == 2 else f"Where is money kept, number {number}?"
    return {"id": f"row {number}/é", "prompt": prompt, "chosen": winner, "rejected": loser}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two runs, DPO-BMC with twice DPO's rewards, and of hostile names and texts."""
    root = tmp_path_factory.mktemp("runs")
    for run, right in (("dpo", 3), ("dpo_bmc", 5), (HOSTILE.replace("/", "\\"), 1)):
        evaluated(root / run / "eval", {f"r{n}": n < right for n in range(8)}, note=HOSTILE)
        log = [{"step": step, "loss": 0.7 - right * step / 100, "rewards/margins": step / 10} for step in range(1, 9)]
        write(root / run / "trainer_state.json", {"log_history": log})
    for run, scale in (("dpo", 1.0), ("dpo_bmc", 2.0), ("zz", 1.0)):
        write_rows(root / f"analysis/tokens/{run}.jsonl", [pair(number, scale) for number in range(PAIRS)])
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>parent.hacked = 3</script>{"<g/>"}</svg>'
    )
    (root / "analysis/f.svg").write_text(svg)
    (root / "analysis/f.csv").write_text(f"a,b\n1,{HOSTILE}\n")
    figures = [{"name": "figure2", "caption": HOSTILE, "svg": "f.svg", "csv": "f.csv"}]
    missing = [{"name": "figure5", "why": HOSTILE, "command": "make figure5"}]
    write(root / "analysis/analysis.json", {"figures": figures, "missing": missing})
    report(ReportConfig(runs=str(root)))
    return root / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


class Opened:
    """A page, and what it did that it shouldn't: words on the console, requests, dialogs."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def counter(self) -> str:
        return str(self.page.locator("#counter").inner_text())

    def tip(self) -> list[list[str]]:
        rows = self.page.locator("#tip tr").all()
        return [row.locator("th, td").all_inner_texts() for row in rows]

    def token(self, column: int, response: int, place: int) -> Any:
        return self.page.locator(".run").nth(column).locator(".tokens").nth(response).locator(".token").nth(place)


@pytest.fixture
def opened(browser: Any, path: Path) -> Iterator[Opened]:
    found = Opened(browser, path, viewport={"width": 1200, "height": 900})
    yield found
    found.context.close()


def test_it_opens_in_silence_and_asks_for_nothing(opened: Opened, path: Path) -> None:
    assert opened.said == []
    others = [url for url in opened.asked if url != path.as_uri()]
    assert all(url.startswith("data:image/svg+xml") for url in others)
    assert opened.page.evaluate("document.images[0].naturalWidth") == 9  # the figure is there
    assert opened.counter() == "pair 1 of 40"
    (PICTURES / "desktop.png").parent.mkdir(parents=True, exist_ok=True)
    opened.page.screenshot(path=PICTURES / "desktop.png", full_page=True)


def test_keys_and_buttons_go_through_the_pairs(opened: Opened) -> None:
    for key, expected in (
        ("ArrowRight", 2), ("j", 3), ("ArrowRight", 4), ("ArrowLeft", 3), ("k", 2), ("k", 1), ("ArrowLeft", 1),
    ):  # fmt: skip
        opened.page.keyboard.press(key)
        assert opened.counter() == f"pair {expected} of 40"
        assert opened.page.locator("#pair-id").inner_text() == f"row {expected - 1}/é"
    opened.page.click("#next")
    assert opened.counter() == "pair 2 of 40"
    assert "number 1?" in opened.page.locator("#prompt").inner_text()
    opened.page.click("#previous")
    assert opened.page.locator("#previous").is_disabled()


def test_the_search_looks_in_prompts_responses_and_ids(opened: Opened) -> None:
    page = opened.page
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


def test_numbers_are_told_by_pointer_and_by_key(opened: Opened) -> None:
    """DPO-BMC's numbers stand beside DPO's: r = 0.25 and twice that, λ = 3 where it weighs, π = 1/4."""
    expected = [["", "dpo", "dpo_bmc"], ["r", "+0.250", "+0.500"], ["λ", "1.00", "3.00"], ["π", "0.250", "0.250"]]
    assert opened.page.locator("#tip").is_hidden()
    opened.token(0, 0, 1).hover()
    assert opened.tip() == expected
    assert opened.page.locator("#tip p").inner_text() == '" bank" differs'
    opened.page.mouse.move(1, 1)
    assert opened.page.locator("#tip").is_hidden()
    opened.token(0, 0, 0).focus()
    assert opened.tip()[1] == ["r", "+0.000", "+0.000"]
    opened.page.keyboard.press("ArrowRight")
    assert opened.tip() == expected
    assert opened.page.evaluate("document.activeElement.getAttribute('aria-describedby')") == "tip"
    assert opened.counter() == "pair 1 of 40"
    opened.page.keyboard.press("Escape")
    assert opened.page.locator("#tip").is_hidden()
    opened.page.keyboard.press("ArrowRight")
    assert opened.counter() == "pair 2 of 40"


def test_colours_and_lines(opened: Opened) -> None:
    """The scale ends at the 99th percentile, here the largest reward, 2: 0.5 is a quarter of it."""
    strength = "element => element.style.getPropertyValue('--strength')"
    assert opened.token(0, 0, 0).evaluate(strength) == "0%"
    assert opened.token(1, 0, 1).evaluate(strength) == "25%"
    assert opened.token(1, 1, 1).evaluate(strength) == "100%"
    assert opened.token(1, 1, 1).get_attribute("class") == "token differs down"
    assert opened.token(1, 0, 1).get_attribute("class") == "token differs up"
    line = "element => getComputedStyle(element).textDecorationLine"
    assert [opened.token(0, 0, place).evaluate(line) for place in (0, 1)] == ["none", "underline"]
    assert opened.page.locator("#lowest").inner_text() == "less likely, −2.000"
    assert opened.page.locator(".margin").all_inner_texts() == [
        "margin +1.625, ỹ_w preferred",  # 0.25 − 0.125 + 0.5 + 1
        "margin +3.250, ỹ_w preferred",
    ]


def test_another_run_can_be_chosen(opened: Opened) -> None:
    choice = opened.page.locator(".run select").nth(1)
    assert choice.locator("option").all_inner_texts() == ["dpo", "dpo_bmc", "zz"]
    choice.select_option("zz")
    assert opened.page.locator(".margin").all_inner_texts()[1] == "margin +1.625, ỹ_w preferred"
    opened.page.locator("#next").click()
    assert opened.page.locator(".run select").nth(1).input_value() == "zz"


def test_what_stands_in_the_data_is_shown_and_not_run(opened: Opened) -> None:
    opened.page.keyboard.press("j")
    opened.page.keyboard.press("j")
    assert opened.page.locator("#prompt").inner_text() == HOSTILE
    assert opened.token(0, 0, 1).inner_text() == HOSTILE
    opened.token(0, 0, 1).hover()
    assert HOSTILE in opened.page.locator("#tip p").inner_text()
    text = opened.page.locator("main").text_content()
    assert text.count("<img src=x onerror='window.hacked = 2'>") >= 5
    opened.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert opened.page.evaluate("window.hacked") is None
    assert opened.page.locator("img").count() == 1
    assert opened.said == []


def test_no_other_script_would_run(opened: Opened) -> None:
    """Even one that got into the page is stopped by its policy."""
    add = "const s = document.createElement('script'); s.textContent = 'window.hacked = 4'; document.body.append(s)"
    opened.page.evaluate(add)
    assert opened.page.evaluate("window.hacked") is None
    assert any("Content Security Policy" in words for words in opened.said)


def test_what_cannot_be_seen_has_a_sign_and_is_copied_right(opened: Opened) -> None:
    box = opened.page.locator(".tokens").first
    copied = "element => { getSelection().selectAllChildren(element); return getSelection().toString() }"
    assert box.evaluate(copied).rstrip("\n") == "A bank."
    signs = "element => [...element.querySelectorAll('.sign')].map(one => one.dataset.sign)"
    assert box.evaluate(signs) == ["↵"]
    for _ in range(4):
        opened.page.keyboard.press("j")
    assert box.evaluate(signs) == ["↵", "↵", "U+202E", "⇥"]
    assert box.evaluate("element => element.textContent") == "A\n\nB\t "  # not the mark that would turn the text
    opened.token(0, 0, 1).focus()
    assert opened.page.locator("#tip p").inner_text() == '"\\u202E" differs'
    assert "blank" in (opened.token(0, 0, 3).get_attribute("class") or "")


def test_a_link_leads_to_a_pair(opened: Opened, browser: Any, path: Path) -> None:
    opened.page.keyboard.press("j")
    assert opened.page.url.endswith("#pair=row%201%2F%C3%A9")
    again = Opened(browser, Path(path), viewport={"width": 1200, "height": 900})
    again.page.goto(opened.page.url)
    assert again.counter() == "pair 2 of 40"
    again.page.evaluate("location.hash = '#pair=row%207%2F%C3%A9'")
    again.page.wait_for_function("document.getElementById('counter').textContent === 'pair 8 of 40'")
    again.page.evaluate("location.hash = '#pair=%E0%A4%A'")  # no text at all
    assert again.said == []
    again.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_sideways_scrolling(browser: Any, path: Path, scheme: str) -> None:
    opened = Opened(
        browser, path, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True, color_scheme=scheme
    )
    page = opened.page
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    opened.token(0, 0, 1).tap()
    assert opened.tip()[2] == ["λ", "1.00", "3.00"]
    box = page.locator("#tip").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360
    page.screenshot(path=PICTURES / f"phone-{scheme}.png", full_page=True)
    assert opened.said == []
    opened.context.close()


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


def test_headings_and_landmarks(opened: Opened) -> None:
    page = opened.page
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.locator("main").count() == page.locator("nav").count() == page.locator("header").count() == 1
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(ids) == len(set(ids))
    assert page.locator("#counter").get_attribute("aria-live") == "polite"
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1


def test_a_report_without_tokens_has_no_errors(browser: Any, tmp_path: Path) -> None:
    evaluated(tmp_path / "dpo/eval", {"r": True})
    report(ReportConfig(runs=str(tmp_path)))
    opened = Opened(browser, tmp_path / "report.html")
    assert opened.said == []
    assert "Nothing is analysed yet" in opened.page.inner_text("main")
    opened.context.close()
