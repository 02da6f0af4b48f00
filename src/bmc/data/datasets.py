"""Loaders: one raw row of a public data set → one of our rows.

Each loader's docstring shows a raw row. `bmc.data.registry` says where each data set lies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from ..errors import did_you_mean, user_error
from .schema import Row, assistant, hash_fraction, user

GENERATOR = "reasoning_gym"
ORDER = "solution_order"
LEAD = "Let's think step by step."
CLOSE = "The answer is"
Parts = tuple[str, str, Any]  # question, reasoning, answer

_LEAD = re.compile(r"Let['’]s think step by step[.:]")
_CLOSE = re.compile(r"(?:(?:^|\n)####|(?<![A-Za-z])The answer is\b)[^\n]*\Z")
_SUM = re.compile(r"-?\d+(?: [+-] -?\d+)+")
_ANNOTATION = re.compile(r"<<.*?>>")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_UNITS = re.compile(r"\s*\([^)]*\)")


def plain_messages(raw: Row, column: str) -> list[dict[str, str]]:
    """Return a column's messages with role and content only.

    Raises:
        KeyError: The column, or a message's role or content, is missing.
        ValueError: The column holds no list of messages.
    """
    if not isinstance(raw[column], list) or not all(isinstance(message, dict) for message in raw[column]):
        raise ValueError(f"{column}: must be a list of messages with `role` and `content`")
    return [{"role": message["role"], "content": message["content"]} for message in raw[column]]


def ultrachat_200k(raw: Row) -> Row:
    """Read a row of UltraChat 200k.

    `{"prompt": "…", "prompt_id": "…", "messages": [{"role": "user", "content": "…"}, …]}`
    """
    return {"source": "ultrachat_200k", "task": "chat", "messages": plain_messages(raw, "messages")}


def ultrafeedback(raw: Row) -> Row:
    """Read a row of UltraFeedback.

    `{"prompt": "…", "chosen": [{"role": "user", …}, {"role": "assistant", …}], "rejected": [...], …}`
    """
    pair = {
        "prompt": raw["prompt"],
        "chosen": plain_messages(raw, "chosen"),
        "rejected": plain_messages(raw, "rejected"),
    }
    return {"source": "ultrafeedback", "task": "chat", **pair}


def alpaca_eval(raw: Row) -> Row:
    """Read a row of AlpacaEval.

    `{"dataset": "helpful_base", "instruction": "…?", "output": "…", "generator": "text_davinci_003"}`
    """
    row = {"source": "alpaca_eval", "task": "chat", "prompt": user(raw["instruction"])}
    extra = {"reference": raw.get("output"), "dataset": raw.get("dataset")}
    return row | {column: value for column, value in extra.items() if value is not None}


def arena_hard(raw: Row) -> Row:
    """Read a row of Arena-Hard.

    `{"question_id": "328c…", "category": "…", "cluster": "…", "turns": [{"content": "Use ABC notation …"}]}`
    """
    if not raw["turns"]:
        raise ValueError("turns: is empty")
    row = {"source": "arena_hard", "task": "chat", "prompt": user(raw["turns"][0]["content"])}
    return row | ({} if raw.get("question_id") is None else {"question_id": str(raw["question_id"])})


def sft_target(reasoning: str, answer: str) -> str:
    """Write the SFT target: the lead, the reasoning if there is any, and the answer, each once.

    What the reasoning has of a lead and a final answer of its own is not repeated.
    """
    answer = " ".join(answer.split())
    return "\n".join(filter(None, (LEAD, _bare(reasoning, answer), f"{CLOSE} {answer}")))


def _bare(reasoning: str, answer: str) -> str:
    """Strip lead and final answer from a solution, until nothing changes: they may occur several times."""
    # A final answer of several lines (a matrix) is found by its words, any other by its place on the last line.
    words = r"\s+".join(map(re.escape, answer.split()))
    stated = re.compile(rf"{CLOSE}:?\s+{words}\Z")
    while True:
        shorter = reasoning.strip()
        lead = _LEAD.match(shorter)
        shorter = shorter[lead.end() :] if lead else shorter
        shorter = _CLOSE.sub("", stated.sub("", shorter).strip()).strip()
        if shorter == reasoning:
            return shorter
        reasoning = shorter


def _answer(value: Any) -> str:
    """Write an answer as one line of text: 43.0 → `43`, true → `yes`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float) or not str(value).strip():
        raise ValueError("answer: is empty, or neither text nor a number")
    return " ".join(str(value).split())


def with_options(question: str, options: list[str]) -> str:
    """Append options to a question, one a line."""
    return "\n".join([question, "Options:", *options])


def answerable_task(source: str, task: str) -> Callable[[Callable[[Row], Parts]], Callable[[Row], Row]]:
    """Turn a function `raw row → (question, reasoning, answer)` into the loader of a task with one right answer.

    The loader also accepts the prepared shape, which the project's own JSONL files have:
    `{"problem": "…\\nOptions:\\n…", "solution": "…\\nThe answer is beads", "answer": "beads"}`.
    """

    def decorate(parts: Callable[[Row], Parts]) -> Callable[[Row], Row]:
        def to_row(raw: Row) -> Row:
            prepared = raw.get("problem") is not None and raw.get("answer") is not None
            question, reasoning, answer = (
                (raw["problem"], raw.get("solution") or "", raw["answer"]) if prepared else parts(raw)
            )
            if not isinstance(question, str) or not question.strip():
                raise ValueError("question: is empty or no text")
            answer = _answer(answer)
            completion = assistant(sft_target(reasoning, answer))
            return {
                "source": source,
                "task": task,
                "prompt": user(question),
                "completion": completion,
                "answer": answer,
            }

        to_row.__name__, to_row.__doc__ = parts.__name__, parts.__doc__
        return to_row

    return decorate


def running_sums(expression: str) -> str:
    """Work out a sum of integers, one step a line: `60 + 93 - 16` → `60 + 93 = 153⏎153 - 16 = 137`.

    Returns an empty text for anything but integers joined by + and -.
    """
    if not _SUM.fullmatch(expression):
        return ""
    first, *rest = expression.split()
    total, lines = int(first), []
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        after = total + int(term) if sign == "+" else total - int(term)
        lines.append(f"{total} {sign} {term} = {after}")
        total = after
    return "\n".join(lines)


@answerable_task(GENERATOR, "math")
def reasoning_gym(raw: Row) -> Parts:
    """Read a row of reasoning-gym.

    `{"question": "… 60 + 93 - 16 =", "answer": "137", "metadata": {"expression": "60 + 93 - 16", …}}`

    The reasoning is `answer_cot` (gsm_symbolic), the running sums of `expression` (chain_sum and its like), or empty.
    With `solution_order: either` half of the pure sums are added up from their end, as other writers would: two right
    solutions of one task then differ in much that doesn't matter, which is what bridging is about.
    """
    metadata = raw.get("metadata") or {}
    expression = str(metadata.get("expression", ""))
    if raw.get(ORDER) == "either" and "-" not in expression and hash_fraction(expression) < 0.5:
        expression = " ".join(reversed(expression.split()))
    return raw["question"], metadata.get("answer_cot") or running_sums(expression), raw["answer"]


def generate(parameters: Any, num_rows: int | None) -> list[Row]:
    """Generate raw rows of a reasoning-gym task, `{"question", "answer", "metadata", "solution_order"}` each.

    `parameters` name the `task` and its own parameters. The default `seed` is 0, so that a recipe always means the same
    rows; `solution_order` (`left`, `either`) is ours. Without `num_rows` the task's `size` (500) counts.

    Raises:
        UserErrors: The task or a parameter is unknown, or a parameter's value is refused.
    """
    where = f"{GENERATOR}: config"
    if not isinstance(parameters, Mapping) or "task" not in parameters:
        raise user_error(where, "must name the task and its parameters, as in {task: chain_sum, seed: 7}")
    from reasoning_gym.factory import DATASETS, create_dataset

    task = parameters["task"]
    if task not in DATASETS:
        raise user_error(f"{where}.task", f"'{task}' is unknown{did_you_mean(str(task), list(DATASETS))}")
    known = [parameter.name for parameter in fields(DATASETS[task][1])]
    own = {"seed": 0} | {key: value for key, value in parameters.items() if key not in ("task", ORDER)}
    order = parameters.get(ORDER, "left")
    if order not in ("left", "either"):
        raise user_error(f"{where}.{ORDER}", f"must be left or either, got '{order}'")
    for key in own:
        if key not in known and key in parameters:
            raise user_error(
                f"{where}.{key}", f"is no parameter of {task}{did_you_mean(key, known)}; it has {', '.join(known)}"
            )
    if num_rows is not None:
        own["size"] = num_rows
    try:
        rows = create_dataset(task, **{key: own[key] for key in own if key in known})
        return [{**row, ORDER: order} for row in rows]
    except (AssertionError, TypeError, ValueError) as error:
        raise user_error(where, f"{task} refuses these parameters ({error})") from error


def boxed(solution: str) -> str:
    r"""Extract the content of the last `\boxed{…}`, with balanced braces; `\boxed 5`, which MATH has too, gives `5`.

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


@answerable_task("metamathqa", "math")
def metamathqa(raw: Row) -> Parts:
    """Read a row of MetaMathQA.

    `{"query": "Gracie …?", "response": "Gracie has …\\n#### 110\\nThe answer is: 110", "type": "GSM_AnsAug"}`
    """
    reasoning, found, answer = raw["response"].rpartition("The answer is:")
    if not found:
        raise ValueError("response: has no line 'The answer is: …'")
    return raw["query"], reasoning, answer


@answerable_task("gsm8k", "math")
def gsm8k(raw: Row) -> Parts:
    """Read a row of GSM8K.

    `{"question": "Janet …?", "answer": "She sells 16 - 3 = <<16-3=13>>13 eggs.\\n#### 1,300"}` → answer 1300
    """
    reasoning, found, answer = raw["answer"].rpartition("####")
    if not found:
        raise ValueError("answer: has no '#### …' at its end")
    return raw["question"], _ANNOTATION.sub("", reasoning), answer.replace(",", "")


@answerable_task("math", "math")
def math(raw: Row) -> Parts:
    r"""Read a row of MATH.

    `{"problem": "Simplify …", "solution": "… $\\boxed{\\frac{1}{2}}$.", "level": "Level 2", "type": "Algebra"}`

    MATH-500 has `answer` too, and so the prepared shape.
    """
    return raw["problem"], raw["solution"], boxed(raw["solution"])


@answerable_task("mawps", "math")
def mawps(raw: Row) -> Parts:
    """Read a row of MAWPS.

    `{"input": "Joan found 70 seashells …?", "target": 43.0}`, or Calc-MAWPS's `{"question": "…", "result": "43"}`

    Calc-X separates thousands by `_`.
    """
    if "input" in raw:
        return raw["input"], "", raw["target"]
    return raw["question"], "", str(raw["result"]).replace("_", "").replace(",", "")


@answerable_task("tabmwp", "math")
def tabmwp(raw: Row) -> Parts:
    """Read a row of TabMWP.

    `{"table_title": "Coin collections", "table": "Name | Coins\\nBraden | 76", "question": "…?", "choices": null,
    "answer": "84", "solution": "…"}`; title and choices may be missing.
    """
    table = "\n".join(filter(None, (raw.get("table_title"), raw["table"])))
    question = f"{table}\n\n{raw['question']}"
    options = raw.get("choices")
    return with_options(question, options) if options else question, raw.get("solution") or "", raw["answer"]


@answerable_task("math_500", "math")
def math_500(raw: Row) -> Parts:
    """Read a row of MATH-500.

    500 rows of the test split, with `answer` (and so in the prepared shape), and `subject` for `type`.
    """
    return raw["problem"], raw["solution"], boxed(raw["solution"])


@answerable_task("svamp", "math")
def svamp(raw: Row) -> Parts:
    """Read a row of SVAMP.

    `{"ID": "chal-1", "Body": "Each pack …", "Question": "How much …?", "Equation": "( 76.0 - 25.0 )",
    "Answer": "51.0", "Type": "Subtraction"}`; the authors' file has numbers as `Answer`.
    """
    return f"{raw['Body'].strip()} {raw['Question'].strip()}", "", str(raw["Answer"]).removesuffix(".0")


@answerable_task("asdiv", "math")
def asdiv(raw: Row) -> Parts:
    """Read a row of ASDiv.

    `{"body": "Seven red apples …", "question": "How many …?", "solution_type": "Addition", "answer": "9 (apples)",
    "formula": "7+2=9"}`; units are no part of the answer.
    """
    return f"{raw['body'].strip()} {raw['question'].strip()}", "", _UNITS.sub("", raw["answer"])


@answerable_task("ecqa", "qa")
def ecqa(raw: Row) -> Parts:
    """Read a row of ECQA.

    `{"q_text": "Where …?", "q_op1": "roses", …, "q_op5": "bedroom", "q_ans": "bedroom", "taskA_pos": "A candle …"}`

    The reasoning is `taskA_pos`, the properties that speak for the answer; `taskB` argues against the others too.
    """
    options = [raw[f"q_op{number}"] for number in range(1, 6)]
    return with_options(raw["q_text"], options), raw.get("taskA_pos") or "", raw["q_ans"]


def _choice(raw: Row, question: str, reasoning: str) -> Parts:
    """Take apart a row with `choices: {"text": [...], "label": ["A", …]}` and `answerKey` (AllenAI's sets)."""
    texts, labels = raw["choices"]["text"], raw["choices"]["label"]
    if raw["answerKey"] not in labels:
        raise ValueError(f"answerKey: is {raw['answerKey']!r}, none of {', '.join(labels)}; is this split unlabelled?")
    return with_options(raw[question], texts), reasoning, texts[labels.index(raw["answerKey"])]


@answerable_task("qasc", "qa")
def qasc(raw: Row) -> Parts:
    """Read a row of QASC.

    `{"question": "…?", "choices": {"text": ["sand", …], "label": ["A", …, "H"]}, "answerKey": "F",
    "fact1": "…", "fact2": "…", "combinedfact": "…"}`; the facts are the reasoning.
    """
    facts = (raw.get("fact1"), raw.get("fact2"), raw.get("combinedfact"))
    return _choice(raw, "question", "\n".join(filter(None, facts)))


@answerable_task("openbookqa", "qa")
def openbookqa(raw: Row) -> Parts:
    """Read a row of OpenBookQA.

    `{"question_stem": "The sun is responsible for", "choices": {"text": [...], "label": [...]}, "answerKey": "D"}`

    Configuration `additional` has `fact1` besides.
    """
    return _choice(raw, "question_stem", raw.get("fact1") or "")


@answerable_task("strategyqa", "qa")
def strategyqa(raw: Row) -> Parts:
    """Read a row of StrategyQA.

    `{"question": "Could a llama …?", "answer": true, "facts": "The gestation period …"}`; facts may be a list.
    """
    facts = raw.get("facts") or ""
    reasoning = facts if isinstance(facts, str) else "\n".join(facts)
    return with_options(raw["question"], ["yes", "no"]), reasoning, raw["answer"]


@answerable_task("arc_easy", "qa")
def arc_easy(raw: Row) -> Parts:
    """Read a row of ARC-Easy.

    `{"id": "…", "question": "…?", "choices": {"text": [...], "label": ["A", …]}, "answerKey": "C"}`

    Some labels are 1 to 4.
    """
    return _choice(raw, "question", "")


@answerable_task("arc_challenge", "qa")
def arc_challenge(raw: Row) -> Parts:
    """Read a row of ARC-Challenge.

    Its shape is that of `arc_easy`.
    """
    return _choice(raw, "question", "")


def released_pairs(source: str, task: str) -> Callable[[Row], Row]:
    """Make a loader of pairs whose `chosen` is a bridged response; y_w itself isn't published. CLAIR's have a
    `rational`: what its editor said is wrong with y_l.

    A raw row is `{"chosen": [{"role": "user", …}, {"role": "assistant", …}], "rejected": [...], …}`; the prompt may
    also stand in `prompt`, as text or messages.
    """

    def to_row(raw: Row) -> Row:
        pair: Row = {"chosen": plain_messages(raw, "chosen"), "rejected": plain_messages(raw, "rejected")}
        begins_alike = min(map(len, pair.values())) > 1 and pair["chosen"][0] == pair["rejected"][0]
        if raw.get("prompt") is not None:
            pair["prompt"] = raw["prompt"] if isinstance(raw["prompt"], str) else plain_messages(raw, "prompt")
        if not pair.get("prompt") and not begins_alike:
            raise ValueError("chosen, rejected: begin with different messages, and there is no prompt")
        rationale = {"rationale": raw["rational"]} if raw.get("rational") else {}
        return {"source": source, "task": task, **pair, **rationale}

    return to_row


def released_sft(source: str, task: str) -> Callable[[Row], Row]:
    """Make a loader of `{"prompt_id": "qa_0", "messages": [{"role": "user", …}, {"role": "assistant", …}]}`."""

    def to_row(raw: Row) -> Row:
        *prompt, response = plain_messages(raw, "messages")
        if not prompt or response["role"] != "assistant":
            raise ValueError("messages: must be a prompt and an assistant's response")
        return {"source": source, "task": task, "prompt": prompt, "completion": [response]}

    return to_row
