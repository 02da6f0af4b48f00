"""Questions whose answer is one of some options."""

from __future__ import annotations

from ..schema import Row
from .closed import Parts, closed, with_options


@closed("ecqa", "qa")
def ecqa(raw: Row) -> Parts:
    """`{"q_text": "Where …?", "q_op1": "roses", …, "q_op5": "bedroom", "q_ans": "bedroom", "taskA_pos": "A candle …"}`

    The reasoning is `taskA_pos`, the properties that speak for the answer; `taskB` argues against the others too.
    """
    options = [raw[f"q_op{number}"] for number in range(1, 6)]
    return with_options(raw["q_text"], options), raw.get("taskA_pos") or "", raw["q_ans"]


def _choice(raw: Row, question: str, reasoning: str) -> Parts:
    """Parts of a row with `choices: {"text": [...], "label": ["A", …]}` and `answerKey`, as AllenAI's sets have it."""
    texts, labels = raw["choices"]["text"], raw["choices"]["label"]
    if raw["answerKey"] not in labels:
        raise ValueError(f"answerKey: is {raw['answerKey']!r}, none of {', '.join(labels)}; is this split unlabelled?")
    return with_options(raw[question], texts), reasoning, texts[labels.index(raw["answerKey"])]


@closed("qasc", "qa")
def qasc(raw: Row) -> Parts:
    """`{"question": "…?", "choices": {"text": ["sand", …], "label": ["A", …, "H"]}, "answerKey": "F",
    "fact1": "…", "fact2": "…", "combinedfact": "…"}`; the facts are the reasoning."""
    facts = (raw.get("fact1"), raw.get("fact2"), raw.get("combinedfact"))
    return _choice(raw, "question", "\n".join(filter(None, facts)))


@closed("openbookqa", "qa")
def openbookqa(raw: Row) -> Parts:
    """`{"question_stem": "The sun is responsible for", "choices": {"text": [...], "label": [...]}, "answerKey": "D"}`

    Configuration `additional` has `fact1` besides.
    """
    return _choice(raw, "question_stem", raw.get("fact1") or "")


@closed("strategyqa", "qa")
def strategyqa(raw: Row) -> Parts:
    """`{"question": "Could a llama …?", "answer": true, "facts": "The gestation period …"}`; facts may be a list."""
    facts = raw.get("facts") or ""
    reasoning = facts if isinstance(facts, str) else "\n".join(facts)
    return with_options(raw["question"], ["yes", "no"]), reasoning, raw["answer"]


@closed("arc_easy", "qa")
def arc_easy(raw: Row) -> Parts:
    """`{"id": "…", "question": "…?", "choices": {"text": [...], "label": ["A", …]}, "answerKey": "C"}`

    Some labels are 1 to 4.
    """
    return _choice(raw, "question", "")


@closed("arc_challenge", "qa")
def arc_challenge(raw: Row) -> Parts:
    """As `arc_easy`."""
    return _choice(raw, "question", "")
