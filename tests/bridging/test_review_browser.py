"""The review page in a headless Chromium, against the command itself."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_review import HOSTILE, bridged, pair

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no browser (apt-get install chromium)")]


class Command:
    """`bmc review` as a process of its own."""

    def __init__(self, folder: Path) -> None:
        words = [sys.executable, "-m", "bmc", "review", str(folder), "--reviewer", "AB"]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 120)[0]
        self.first = self.process.stdout.readline().strip()
        self.url = self.process.stdout.readline().strip()

    def end(self, number: signal.Signals) -> str:
        os.kill(self.process.pid, number)
        return self.process.communicate(timeout=60)[0]


@pytest.fixture
def page() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.said = []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("dialog", lambda dialog: page.said.append(dialog.message))
        yield page
        browser.close()


def until(page: Any, element: str, words: str) -> None:
    """Wait until an element has these words in it."""
    from playwright.sync_api import expect

    expect(page.locator(f"#{element}")).to_contain_text(words, timeout=30_000)


def test_decide_undo_correct_reload_kill_and_go_on(page: Any, tmp_path: Path) -> None:
    hostile = pair(1, id=f"r1 {HOSTILE}", prompt=HOSTILE, rationale=HOSTILE, answer=HOSTILE, original_chosen=HOSTILE)
    hostile |= {"chosen": f"bank {HOSTILE}", "rejected": f"river {HOSTILE}"}
    folder = bridged(tmp_path / "</script><b>", [pair(0), hostile, *(pair(n) for n in range(2, 5))])
    command = Command(folder)
    try:
        page.goto(command.url)
        until(page, "counter", "row 1 of 7")
        page.keyboard.press("a")
        until(page, "counter", "row 2 of 7")
        assert [
            page.locator(f"#{id}").inner_text().replace("\n", " ") for id in ("prompt", "beside", "note-rationale")
        ] == [HOSTILE.replace("\u202e", "[U+202E]")] * 3
        assert page.locator("#diff del").all_inner_texts() == ["river "]
        page.keyboard.press("r")
        until(page, "counter", "row 3 of 7")
        until(page, "progress", "2 of 7 rows decided (1 accepted, 1 rejected, 0 corrected)")
        page.keyboard.press("u")
        until(page, "state", "undecided")
        until(page, "id", "r1")
        page.keyboard.press("r")
        until(page, "counter", "row 3 of 7")

        page.keyboard.press("e")
        page.keyboard.press("Control+A")
        page.keyboard.type(f"bank numbers 2 {HOSTILE[:-1]}")  # keys that decide elsewhere are letters here
        until(page, "diff", "hacked")
        page.keyboard.press("Control+A")
        page.keyboard.type("river number 2")
        until(page, "findings", "edit equals y_l")
        page.keyboard.press("Control+Enter")
        until(page, "message", "edit equals y_l")
        assert page.locator("#text").input_value() == "river number 2"  # what was typed is still there
        page.keyboard.press("Control+A")
        page.keyboard.type("bank numbers 2")
        until(page, "facts", "edit ratio 0.43")
        page.keyboard.press("Control+Enter")
        until(page, "counter", "row 4 of 7")
        page.keyboard.press("k")
        until(page, "state", "corrected")
        assert page.locator("#diff ins").all_inner_texts() == ["bank numbers "]

        page.reload()
        until(page, "counter", "row 3 of 7")
        until(page, "state", "corrected")
        page.select_option("#decision", "undecided")
        until(page, "counter", "row 1 of 4")
        until(page, "id", "r3")
        page.keyboard.press("Tab")  # out of the box
        page.locator("#accept").click()
        until(page, "id", "r4")
    finally:
        command.end(signal.SIGKILL)
    page.keyboard.press("r")
    until(page, "message", "the server is gone")
    assert page.evaluate("window.hacked") is None
    page.said = [
        words for words in page.said if "ERR_CONNECTION_REFUSED" not in words and "400 (Bad Request)" not in words
    ]

    command = Command(folder)
    try:
        assert command.first == "AB: 4 of 7 rows decided (2 accepted, 1 rejected, 1 corrected)"
        page.goto(f"{command.url}#decision=undecided&seed=3")
        until(page, "counter", "row 1 of 3")
        page.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), {text: 'window.hacked = 4'}))"
        )
        assert page.evaluate("window.hacked") is None
        assert any("Content Security Policy" in words for words in page.said)
        assert [words for words in page.said if "Content Security Policy" not in words] == []
    finally:
        printed = command.end(signal.SIGINT)
    assert "AB: 4 of 7 rows decided" in printed
    assert command.process.returncode == 0
    decisions = [json.loads(line)["decision"] for line in (folder / "review.jsonl").read_text().splitlines()]
    assert decisions == ["accept", "reject", "undo", "reject", "correct", "accept"]
