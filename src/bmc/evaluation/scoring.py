"""Scoring: whether a response is right, as we see it and as the paper's released code does; predictions and accuracy.

The released procedure, for comparison with its numbers:

QA (its `eval/QA`): generation ends at the first of its stop strings; what then follows the last "The answer is", in
lower case, must be the gold answer as it stands. A gold answer with a capital is never met.

Math (its `eval/math`, after ToRA's): the answer is the last box, what follows "he answer is", or the last number. Units
from a list of words, dollar and percent signs are taken away; numbers are equal within 1e-4 of one another, of a
hundredth and of a hundred times the gold answer. The last step, symbolic equality, is by sympy there and by
`values` here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from itertools import chain
from math import isclose
from typing import Any

from ..data.schema import Row, content
from .extraction import MARK, extract_answer
from .math_reading import Unreadable, braced, real, same_value, spelled, values
from .maths import math_equal
from .qa import qa_equal, read_options, same_choice
from .stats import accuracy

GRADERS: dict[str, Callable[[str, str], bool]] = {"qa": qa_equal, "math": math_equal}


def is_correct(text: str, gold: str, task: str, prompt: str = "") -> bool:
    """Return whether a response states the gold answer.

    Where the prompt lists options with labels, a label stands for its option.
    """
    return is_right(extract_answer(text, task), gold, task, prompt)


def is_right(answer: str, gold: str, task: str, prompt: str = "") -> bool:
    """Return whether an extracted answer is the gold one; arguments as those of `is_correct`."""
    verdict = same_choice(answer, gold, read_options(prompt), GRADERS[task])
    return GRADERS[task](answer, gold) if verdict is None else verdict


def predict(row: Row, text: str) -> Row:
    """Return a line of `predictions.jsonl`; `correct` and `correct_released` are None where nothing can be compared
    (chat, or no gold answer).
    """
    task = row.get("task") or ""
    closed = task in GRADERS
    gold = None if row.get("answer") is None else str(row["answer"])
    answer = extract_answer(text, task) if closed else None
    scored = closed and bool(gold)
    prompt = content(row["prompt"])
    return {
        "id": row.get("id"),
        "source": row.get("source"),
        **({"question_id": row["question_id"]} if "question_id" in row else {}),  # Arena-Hard's name of it
        "prompt": prompt,
        "prediction": text,
        "answer": answer,
        "gold": gold,
        "correct": is_right(answer or "", gold or "", task, prompt) if scored else None,
        "correct_released": correct_released(text, gold or "", task) if scored else None,
    }


def summarise(predictions: list[Row]) -> dict[str, Any]:
    """Return n, accuracy and interval of each benchmark (`source`) and, of several, their macro average; what the
    released code's procedure says of the same rows is in `…_released`.
    """
    scored: dict[str, list[Row]] = defaultdict(list)
    for prediction in predictions:
        if prediction["correct"] is not None:
            scored[prediction["source"] or "data"].append(prediction)
    results: dict[str, Any] = {name: _scores(rows) for name, rows in sorted(scored.items())}
    summary: dict[str, Any] = {"n": len(predictions), "results": results}
    if len(results) > 1:  # the paper's "Avg." column
        summary["average"] = sum(result["accuracy"] for result in results.values()) / len(results)
    return summary


def _scores(rows: list[Row]) -> dict[str, Any]:
    scores: dict[str, Any] = accuracy([row["correct"] for row in rows])
    released = [row["correct_released"] for row in rows]
    if None in released:
        return scores
    return scores | {f"{key}_released": value for key, value in accuracy(released).items() if key != "n"}


def describe(metrics: Row) -> str:
    """Return a line for each benchmark: accuracy, interval, n."""
    lines = [
        f"{name}: {100 * r['accuracy']:.1f} % ({r['correct']}/{r['n']}; 95 % interval {_percents(r['interval'])})"
        + (f"; as released: {100 * r['accuracy_released']:.1f} %" if "accuracy_released" in r else "")
        for name, r in metrics["results"].items()
    ]
    return "\n".join(lines or [f"{metrics['n']} responses; nothing to compare them with"])


def _percents(interval: list[float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


# The released procedure

MAX_LENGTH = 600  # of an answer that is read; a longer one is right only as it stands
QA_STOPS = ("Question", "USER", "ASSISTANT", "Instruction", "Response", "Below")
MATH_STOPS = ("</s>", "Instruction", "Response")

# Words that are taken away wherever they stand alone, mostly MathQA's units; each also with an s.
_UNITS = (
    "east|degree|mph|kmph|ft|m sqaure| m east|sq m|deg|mile|q .|monkey|prime|ratio|profit of rs|rd|o|gm|p . m|lb|"
    "tile|per|dm|lt|gain|ab|way|west|a .|b .|c .|d .|e .|f .|g .|h .|t|a|h|no change|men|soldier|pie|bc|excess|"
    "st|inches|noon|percent|by|gal|kmh|c|acre|rise|a . m|th|π r 2|sq|mark|l|toy|coin|sq . m|gallon|° f|profit|"
    "minw|yr|women|feet|am|pm|hr|cu cm|square|are|rupee|rounds|cubic|cc|mtr|s|ohm|number|day|hour|minute|min|"
    "second|man|woman|sec|cube|mt|sq inch|mp|hectare|more|unit|cu . m|cm 2|rs .|rs|kg|g|month|km|m|cm|mm|apple|"
    "liter|loss|yard|pure|year|increase|decrease|d|less|Surface|litre|pi sq m|s .|metre|meter|inch"
)
_UNIT_WORDS = [re.compile(rf"(^|\W){unit}{plural}($|\W)") for plural in ("", "s") for unit in _UNITS.split("|")]
_BEFORE_UNITS: list[tuple[str, str]] = [
    (r"\\!", ""), (r"\\begin\{array\}\{.*?\}", r"\\begin{pmatrix}"), (r"\\end\{array\}", r"\\end{pmatrix}"),
    ("bmatrix", "pmatrix"), ("[td]frac", "frac"), (r"\\neq", r"\\ne"), (r"\\leq", r"\\le"), (r"\\geq", r"\\ge"),
    (r"\\left|\\right", ""), (r"\\([{}])", r"\1"),
]  # fmt: skip
_AFTER_UNITS: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"\\text\{(.*?)\}", r"\1"), (r"[xyz](?:=|\\in|\\to)", ""), (r"\\emptyset", "{}"),
    (r"\(-\\infty,\\infty\)", r"\\mathbb{R}"), (r"\\?%", ""), (r"([ {])\.", r"\g<1>0."), ("infinity", r"\\infty"),
    (r"^((?!.*\\infty).*)$", lambda found: found[1].replace("inf", "\\infty")), ("and", ""), (r"\\mathbf", ""),
    (r"\\mbox\{.*?\}", ""), (r"^(?!.*i)(.*)$", lambda found: found[1].replace("j", "i")),
    (r"(\d+)\.0*([^\d])", r"\1\2"), (r"(\d+)\.0*$", r"\1"), (r"^\.", "0."), (r"^[^=]{0,2}=([^=]*)$", r"\1"),
    (r"\\sqrt(\w+)", r"\\sqrt{\1}"), (" ", ""), (r"\\frac([^{])([^{])", r"\\frac{\1}{\2}"),
    (r"\\frac([^{])\{", r"\\frac{\1}{"), (r"^(-?\d+)/(-?\d+)$", r"\\frac{\1}{\2}"),
]  # fmt: skip
_MATRIX = re.compile(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", re.DOTALL)


def correct_released(text: str, gold: str, task: str) -> bool:
    """Return whether the released procedure counts a response as right."""
    if task == "qa":
        _, found, stated = cut(text, QA_STOPS).rpartition(MARK)
        return bool(found) and stated.strip().lower() == gold
    return _equal(_extract(cut(text, MATH_STOPS).strip()), _strip(gold))


def cut(text: str, stops: tuple[str, ...]) -> str:
    """Return a response up to the first of some stop strings."""
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]


def _extract(text: str) -> str:
    if "boxed" in text:
        rest = text.rpartition("boxed")[2]
        answer = braced(rest, 0)[0] if rest.startswith("{") else rest.partition("$")[0].strip()
    elif "he answer is" in text:
        answer = text.rpartition("he answer is")[2].strip()
    else:
        answer = (re.findall(r"-?\d*\.?\d+", text.replace(",", "")) or [""])[-1]
    answer = re.sub(r"\n\s*", "", answer).removeprefix(":").removesuffix(".").removesuffix("/")
    return _strip(_strip(answer))


def _strip(answer: str) -> str:
    """Return what the released code compares of an answer."""
    text = answer.strip().replace("\n", "").rstrip(".")
    if len(text) > MAX_LENGTH:
        return text
    for pattern, written in _BEFORE_UNITS:
        text = re.sub(pattern, written, text)
    text = re.sub(r"\\text{.*?}$", "", text).strip() or text
    for _ in range(2):
        for word in _UNIT_WORDS:
            text = word.sub(r"\1\2", text) or text
    text = re.sub(r"\^\\circ|\^\{\\circ\}|\\?\$|\\[()]", "", text)
    numerals = " ".join(re.findall(r"[a-z]+", text.lower()))
    text = _numeral(numerals) or text
    for pattern, replacement in _AFTER_UNITS:
        text = re.sub(pattern, replacement, text)
    return text


def _numeral(words: str) -> str:
    known = [word for word in words.split() if word not in ("and", "a") and spelled(word) is not None]
    number = spelled(" ".join(known)) if known else None
    return "" if number is None else str(number)


def _equal(answer: str, gold: str) -> bool:
    if answer.strip().lower() == gold.strip().lower():
        return True
    number, wanted = _float(answer), _float(gold)
    if number is not None and wanted is not None:
        return any(isclose(number, scaled, rel_tol=1e-4) for scaled in (wanted / 100, wanted, wanted * 100))
    if not answer:
        return False
    if "pmatrix" in answer and "pmatrix" not in gold:
        rows = [group.strip("{}").replace(",", "\\") for group in re.findall(r"\{.*,.*\}", gold)]
        gold = ", ".join(rf"\begin{{pmatrix}}{row}\end{{pmatrix}}" for row in rows)
    if _bare(answer, gold) or _parts_equal(answer, gold):
        return True
    if answer.count("=") == gold.count("=") == 1:
        (left, right), (gold_left, gold_right) = (side.split("=") for side in (answer, gold))
        ours, theirs = f"{left} - ({right})", f"{gold_left} - ({gold_right})"
        return _symbolic(ours, theirs) or _symbolic(f"-({ours})", theirs)
    for equation, other, swapped in ((answer, gold, False), (gold, answer, True)):
        name, sign, value = equation.partition("=")
        if sign and "=" not in value + other and len(name.strip()) <= 2:
            return _equal(other, value) if swapped else _equal(value, other)
    return _symbolic(answer, gold)


def _bare(answer: str, gold: str) -> bool:
    """Equality without brackets and case."""
    other = {"[]": "(", "()": "["}.get(answer[0] + answer[-1])
    if other and not gold.startswith(other):
        answer, gold = answer.strip("[]()"), gold.strip("[]()")
    return re.sub(r"[{}()]", "", answer).lower() == re.sub(r"[{}()]", "", gold).lower()


def _parts_equal(answer: str, gold: str) -> bool:
    """Equality of pairs, intervals and matrices, part by part."""
    if all(re.match(r"[(\[].+[)\]]", text) for text in (answer, gold)):
        ours, theirs = ([text[1:-1].split(",")] for text in (answer, gold))
    elif (found := _MATRIX.fullmatch(answer)) and (wanted := _MATRIX.fullmatch(gold)):
        ours, theirs = ([row.split("&") for row in text[1].split("\\\\") if row.strip()] for text in (found, wanted))
    else:
        return False
    if [len(row) for row in ours] != [len(row) for row in theirs]:
        return False
    return all(_equal(a.strip(), b.strip()) for a, b in zip(chain(*ours), chain(*theirs), strict=True))


def _float(text: str) -> float | None:
    for ending, divisor in (("", 1), ("\\%", 100), ("%", 100)):
        try:
            return float(text.replace(",", "").removesuffix(ending)) / divisor if text.endswith(ending) else None
        except ValueError:
            continue
    return None


def _symbolic(answer: str, gold: str) -> bool:
    """Equality as expressions. sympy stops reading, without a word, at what can't follow."""
    try:
        ours, theirs = (values(re.split(r",|!|_", text)[0]) for text in (answer, gold))
    except Unreadable:
        return False
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    if len(pairs) > 1 and all(same_value(a, b) for a, b in pairs):
        return True
    numbers = [(real(a), real(b)) for a, b in pairs]
    constant = all(pair == numbers[0] for pair in numbers[1:])
    if len(numbers) < 2 or not constant or None in numbers[0]:
        return False
    (a, b) = numbers[0]
    return a is not None and b is not None and abs(a - b) <= max(abs(a), abs(b)) / 10**4
