"""Tokens of texts: by a tokenizer, by an estimate, by what an endpoint tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bmc.llm.cost import TokenCounter, estimated_prompt, estimated_tokens, most_tokens, plausible_usage

# With the tokens that tiktoken 0.14 counts in each, by cl100k_base (gpt-4) and by o200k_base (gpt-4o).
COUNTED = {
    "A river runs to the sea, and it never comes back to its spring. Towns grew on both of its banks, because boats "
    "were the cheapest way to carry grain, timber and stone.": (39, 39),
    "Tom has 14 boxes with 36 pencils each, and sells 127 of them.\n14 * 36 = 504\n504 - 127 = 377\nThe answer is 377"
    "": (39, 39),
    "\\[\\frac{x^2 - 9}{x + 3} = x - 3\\] for $x \\ne -3$, so the limit is $\\boxed{-6}$.": (40, 40),
    "河流奔向大海，再也不会回到它的源头。两岸兴起了许多城镇，因为船只是运送粮食、木材和石料最便宜的方式。": (63, 44),
    "Река бежит к морю и никогда не возвращается к своему истоку. На обоих берегах выросли города.": (46, 27),
    "แม่น้ำไหลลงสู่ทะเลและไม่เคยไหลย้อนกลับไปยังต้นน้ำ เมืองหลายแห่งเกิดขึ้นสองฝั่งแม่น้ำเพราะเรือเป็นวิธีขนส่งข้าวที่ถูกที่สุด": (116, 49),
    "नदी समुद्र की ओर बहती है और कभी अपने स्रोत पर वापस नहीं आती। उसके दोनों किनारों पर नगर बसे, क्योंकि नाव से अनाज ले जाना "
    "सबसे सस्ता था।": (128, 39),
    "川は海へ流れ、二度と源には戻りません。両岸には町が育ちました。": (36, 26),
}


@pytest.mark.parametrize("text", COUNTED)
def test_the_estimate_is_within_15_percent(text: str) -> None:
    older, newer = COUNTED[text]
    for model in ("gpt-4-0125-preview", "openai/gpt-4", "gpt-3.5-turbo", "meta-llama/Llama-2-7b-chat-hf"):
        assert estimated_tokens(text, model) == pytest.approx(older, rel=0.15)
    for model in ("gpt-4o-mini", "gpt-4.1", "gpt-5", "o3", "claude-sonnet-5", "my-deployment", ""):
        assert estimated_tokens(text, model) == pytest.approx(newer, rel=0.15)


def test_an_estimate_by_hand() -> None:
    """Two words, a comma, three digits and one behind a space, a line: 2 + 0.8 + 1 + 2 + 0.9."""
    assert estimated_tokens("Hello,world123 4\n") == pytest.approx(6.7)
    assert estimated_tokens("") == 0.0
    assert estimated_tokens("\ud83d") == 1.6
    assert estimated_prompt([{"role": "user", "content": "Hello"}]) == 1 + 4 + 3


def test_no_prompt_is_longer_than_its_bytes_or_twice_the_estimate() -> None:
    template = 4 * (4 + 3)
    assert most_tokens([{"role": "user", "content": "水水"}], 9) == {
        "prompt_tokens": 5 + template,
        "completion_tokens": 9,
    }
    assert most_tokens([{"role": "user", "content": "!?"}], 9)["prompt_tokens"] == 2 + template


USAGE: list[tuple[Any, tuple[int, int] | None]] = [
    ({"prompt_tokens": 100, "completion_tokens": 20}, (100, 20)),
    ({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}, (100, 20)),
    ({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 900}, (100, 800)),  # thoughts, as Gemini has them
    ({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 10**12}, (100, 20)),
    ({"prompt_tokens": 100.0, "completion_tokens": 20.0}, (100, 20)),
    ({"prompt_tokens": 100, "completion_tokens": 0}, (100, 0)),
    (None, None),
    ("free", None),
    ({}, None),
    ({"prompt_tokens": 100}, None),
    ({"prompt_tokens": -100, "completion_tokens": 20}, None),
    ({"prompt_tokens": 100, "completion_tokens": -20}, None),
    ({"prompt_tokens": True, "completion_tokens": 20}, None),
    ({"prompt_tokens": "100", "completion_tokens": "20"}, None),
    ({"prompt_tokens": float("nan"), "completion_tokens": 20}, None),
    ({"prompt_tokens": float("inf"), "completion_tokens": 20}, None),
    ({"prompt_tokens": 0, "completion_tokens": 0}, None),
    ({"prompt_tokens": 10**9, "completion_tokens": 20}, None),
    ({"prompt_tokens": 100, "completion_tokens": 10**9}, None),
    ({"prompt_tokens": 100, "completion_tokens": 10**400}, None),
]


@pytest.mark.parametrize(("usage", "counts"), USAGE)
def test_usage_that_can_be(usage: Any, counts: tuple[int, int] | None) -> None:
    found = plausible_usage(usage, 90, 1000)
    assert (tuple(found.values()) if found else None) == counts


def test_a_tokenizer_on_this_machine_counts(model_dir: Path) -> None:
    count = TokenCounter(str(model_dir))
    assert count("abcdé") == 6  # a token a byte
    assert count.how == f"the tokenizer of {model_dir}"
    for _ in range(300):
        count("ab")
    assert count("cd") == pytest.approx(2, rel=0.02)  # by the ratio of those before
    assert TokenCounter("gpt-4").how == TokenCounter("no/such-model").how == "an estimate by script"
