"""Mathematics in words, with a worked solution or without."""

from __future__ import annotations

import re

from ..schema import Row
from .closed import Parts, closed, with_options

_ANNOTATION = re.compile(r"<<.*?>>")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_UNITS = re.compile(r"\s*\([^)]*\)")


def boxed(solution: str) -> str:
    r"""Content of the last `\boxed{…}`, braces balanced; `\boxed 5`, which MATH has too, gives `5`.

    Raises:
        ValueError: There is none, or its braces don't close.
    """
    starts = [match.end() for match in _BOX.finditer(solution)]
    if not starts:
        raise ValueError("solution: has no \\boxed{…} and there is no answer column")
    rest = solution[starts[-1] :]
    if not rest.startswith("{"):
        return re.split(r"[\s$]", rest, maxsplit=1)[0]
    depth, position = 0, 0
    while position < len(rest):
        letter = rest[position]
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return rest[1:position].strip()
        position += 2 if letter == "\\" else 1  # `\{` and `\}` are signs, not groups
    raise ValueError("solution: its last \\boxed{ is never closed")


@closed("metamathqa", "math")
def metamathqa(raw: Row) -> Parts:
    """`{"query": "Gracie …?", "response": "Gracie has …\\n#### 110\\nThe answer is: 110", "type": "GSM_AnsAug"}`"""
    reasoning, found, answer = raw["response"].rpartition("The answer is:")
    if not found:
        raise ValueError("response: has no line 'The answer is: …'")
    return raw["query"], reasoning, answer


@closed("gsm8k", "math")
def gsm8k(raw: Row) -> Parts:
    """`{"question": "Janet …?", "answer": "She sells 16 - 3 = <<16-3=13>>13 eggs.\\n#### 1,300"}` → answer 1300"""
    reasoning, found, answer = raw["answer"].rpartition("####")
    if not found:
        raise ValueError("answer: has no '#### …' at its end")
    return raw["question"], _ANNOTATION.sub("", reasoning), answer.replace(",", "")


@closed("math", "math")
def math(raw: Row) -> Parts:
    r"""`{"problem": "Simplify …", "solution": "… $\\boxed{\\frac{1}{2}}$.", "level": "Level 2", "type": "Algebra"}`

    MATH-500 has `answer` too, and so the prepared shape.
    """
    return raw["problem"], raw["solution"], boxed(raw["solution"])


@closed("mawps", "math")
def mawps(raw: Row) -> Parts:
    """`{"input": "Joan found 70 seashells …?", "target": 43.0}`, or Calc-MAWPS's `{"question": "…", "result": "43"}`

    Calc-X separates thousands by `_`.
    """
    if "input" in raw:
        return raw["input"], "", raw["target"]
    return raw["question"], "", str(raw["result"]).replace("_", "").replace(",", "")


@closed("tabmwp", "math")
def tabmwp(raw: Row) -> Parts:
    """`{"table_title": "Coin collections", "table": "Name | Coins\\nBraden | 76", "question": "…?", "choices": null,
    "answer": "84", "solution": "…"}`; title and choices may be missing."""
    table = "\n".join(filter(None, (raw.get("table_title"), raw["table"])))
    question = f"{table}\n\n{raw['question']}"
    options = raw.get("choices")
    return with_options(question, options) if options else question, raw.get("solution") or "", raw["answer"]


@closed("math_500", "math")
def math_500(raw: Row) -> Parts:
    """500 rows of MATH's test split, with `answer` (and so in the prepared shape), and `subject` for `type`."""
    return raw["problem"], raw["solution"], boxed(raw["solution"])


@closed("svamp", "math")
def svamp(raw: Row) -> Parts:
    """`{"ID": "chal-1", "Body": "Each pack …", "Question": "How much …?", "Equation": "( 76.0 - 25.0 )",
    "Answer": "51.0", "Type": "Subtraction"}`; the authors' file has numbers as `Answer`."""
    return f"{raw['Body'].strip()} {raw['Question'].strip()}", "", str(raw["Answer"]).removesuffix(".0")


@closed("asdiv", "math")
def asdiv(raw: Row) -> Parts:
    """`{"body": "Seven red apples …", "question": "How many …?", "solution_type": "Addition", "answer": "9 (apples)",
    "formula": "7+2=9"}`; units are no part of the answer."""
    return f"{raw['body'].strip()} {raw['question'].strip()}", "", _UNITS.sub("", raw["answer"])
