"""Whole pages: what their policy allows, and that no text gets out of its place."""

from __future__ import annotations

import base64
import hashlib
import json
import re

from hypothesis import given
from hypothesis import strategies as st

from bmc.web.page import data, data_uri, document, table


def source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_a_policy_allows_the_pages_own_scripts_and_no_others() -> None:
    page = document("<T>", "<p>body</p>", ["p { color: red; }"], ["alert(1);"])
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert styles[-1] == "p { color: red; }"
    assert rules == {
        "default-src": "'none'",
        "style-src": " ".join(map(source, styles)),
        "script-src": source("alert(1);"),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert "<title>&lt;T&gt;</title>" in page
    assert "script-src 'none'" in document("t", "")


@given(st.lists(st.text(max_size=30), max_size=4))
def test_data_cannot_end_their_element(texts: list[str]) -> None:
    element = data("d", texts)
    inside = element.removeprefix('<script type="application/json" id="d">').removesuffix("</script>")
    assert not set(inside) & set("<>&\u2028\u2029")
    assert [json.loads(line) for line in inside.split("\n") if line] == texts


def test_half_a_surrogate_pair_can_be_written() -> None:
    element = data("d", ["\ud800"])
    element.encode("utf-8")
    assert '"\\ud800"' in element


def test_a_table_names_its_lines_and_scrolls_by_keyboard() -> None:
    markup = table("of <x>", ["run", "word", "n"], [["a", "b", "1"]], words=(1,))
    assert '<div class="wide" tabindex="0" role="group" aria-label="of &lt;x&gt;">' in markup
    assert '<tr><th scope="row">a</th><td class="words">b</td><td>1</td></tr>' in markup
    assert '<th scope="col" class="words">word</th>' in markup


def test_a_file_inside_a_page() -> None:
    assert data_uri("text/csv", b"a,b\n") == "data:text/csv;base64,YSxiCg=="
