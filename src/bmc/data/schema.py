"""Rows that the stages exchange: their columns, their checks, and the parts of a pair.

A text is a string, or a list of messages (`[{"role": "user", "content": "…"}]`), as in TRL. Rows are

- prompts: `prompt`, and `answer` where it is known;
- SFT examples: `prompt`, `completion`; or `messages`, a whole conversation;
- pairs: `prompt`, `chosen`, `rejected`; a bridged pair also has the columns in `BRIDGING`.

Besides these, rows carry `id`, `source` and `task` (`qa`, `math`, `chat`), and what the chat template reads: `tools`
(a list of JSON schemas, or its JSON text) and `chat_template_kwargs`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from rapidfuzz.distance import Levenshtein

from ..errors import UserError, UserErrors, user_error

Text = str | list[dict[str, str]]
Row = dict[str, Any]

PAIR = ("prompt", "chosen", "rejected")
SIDES = ("chosen", "rejected")
WEIGHTS = ("chosen_weights", "rejected_weights")  # λ of each response token, as other models scored them
ORIGINALS = ("original_chosen", "original_rejected")
BRIDGING = (*ORIGINALS, "bridged", "edit_ratio", *WEIGHTS)  # columns that bridging adds
EDIT = ("rationale", "editor")  # those that it adds to some rows, and that other data may have
UNUSABLE = "unusable"  # why no pair can be made of a row
GUESSES = {  # names of columns in public data sets → ours
    "prompt": ("question", "instruction", "query", "input", "problem", "history", "context", "conversations"),
    "chosen": ("chosen_response", "response_chosen", "preferred", "winner", "human_ref_A", "response_a", "answer_a"),
    "rejected": ("rejected_response", "response_rejected", "dispreferred", "loser", "human_ref_B", "response_b"),
    "completion": ("response", "answer", "output", "solution", "completion_text", "text"),
    "messages": ("conversations", "conversation", "dialogue"),
    "answer": ("model_answer", "response", "output", "completion", "original_response", "reply", "original"),
    "correction": ("corrected", "corrected_answer", "edited_response", "edited", "fixed", "revision", "human_answer"),
    "responses": ("answers", "completions", "candidates", "outputs", "replies"),
    "response": ("completion", "answer", "output", "reply"),
    "score": ("rating", "label", "thumbs", "helpfulness", "thumb"),
    "scores": ("ratings", "rewards", "ranks"),
    "feedback": ("critique", "comment", "note"),
}
_SHAREGPT = {"human": "user", "gpt": "assistant", "function_call": "assistant", "observation": "tool"}
_ASSISTANT = "\n\nAssistant:"  # of Anthropic's HH
# what a rendered prompt ends with: a label, or a special token and perhaps the role
_HANDED_OVER = re.compile(r"(:|\[/INST\]|<\|[^<>|\s]+\|>(assistant)?|<start_of_turn>model)\s*$")


def user(content: str) -> list[dict[str, str]]:
    """Build a prompt of one user message."""
    return [{"role": "user", "content": content}]


def assistant(content: str) -> list[dict[str, str]]:
    """Build a response of one assistant message."""
    return [{"role": "assistant", "content": content}]


def chat_messages(text: Any) -> Any:
    """Return ShareGPT's messages (`{"from": "human", "value": "…"}`) with role and content, and a single message as a
    list; anything else as it is."""
    if isinstance(text, dict):
        text = [text]
    if not isinstance(text, list) or not text:
        return text
    if not all(isinstance(turn, dict) and isinstance(turn.get("from"), str) and "value" in turn for turn in text):
        return text
    return [{"role": _SHAREGPT.get(turn["from"], turn["from"]), "content": turn["value"]} for turn in text]


def content(text: Text) -> str:
    """Return the words of a prompt or response, with blank lines between messages; a bare tool call has none."""
    return text if isinstance(text, str) else "\n\n".join(message.get("content") or "" for message in text)


def transcript(prompt: Text) -> str:
    """Write a prompt as plain text: a single message without its role, several messages each after its role."""
    if isinstance(prompt, str) or len(prompt) == 1:
        return content(prompt)
    return "\n\n".join(f"{message['role']}: {_spoken(message)}" for message in prompt)


def _spoken(message: dict[str, Any]) -> str:
    calls = message.get("tool_calls")
    return "\n".join(filter(None, [message.get("content"), json.dumps(calls, ensure_ascii=False) if calls else None]))


def with_content(text: Text, words: str) -> Text:
    """Return a text of the same form (string or messages) with other words."""
    return words if isinstance(text, str) else [*text[:-1], {**text[-1], "content": words}]


def digest(text: str) -> str:
    """Hash a text to 16 hex digits, the same in every process."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def hash_fraction(text: str) -> float:
    """Hash a text to [0, 1), for deterministic nested subsets: those below p are a share p of all texts."""
    return int(hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:13], 16) / 16**13


def split_prompt(row: Row) -> Row:
    r"""Move what both responses of a pair begin with into its prompt.

    For lists of messages these are the equal first turns; the last message always stays. An explicit prompt is kept,
    and turns that repeat it are dropped: UltraFeedback gives `prompt` as a string and repeats it as the first message
    of both responses. For strings it is a prompt that ends in a label ("…\n\nAssistant:") or, where there is no prompt
    (Anthropic's HH), the dialogue. The original responses of a bridged pair lose the same beginning.
    """
    prompt, chosen, rejected = row.get("prompt"), row.get("chosen"), row.get("rejected")
    if isinstance(chosen, str) and isinstance(rejected, str):
        start = prompt or _dialogue(chosen, rejected)
        if isinstance(start, str) and all(text.startswith(f"{start}{_ASSISTANT}") for text in (chosen, rejected)):
            start += _ASSISTANT
        # A response may well begin with the question's words ("1 + 2 = 3"), but hardly with "…\n\nAssistant:".
        handed_over = isinstance(start, str) and _HANDED_OVER.search(start)
        if not handed_over or not (chosen.startswith(start) and rejected.startswith(start)):
            return row
        return {**row, "prompt": start, **_without(row, start)}
    if not (isinstance(chosen, list) and isinstance(rejected, list) and _is_text(chosen) and _is_text(rejected)):
        return row
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and _same(chosen[shared], rejected[shared]):
        shared += 1
    turns = chosen[:shared]
    if isinstance(prompt, str):
        prompt = _after_string(prompt, turns)
    elif isinstance(prompt, list) and prompt and turns and _is_text(prompt):
        prompt = _after_messages(prompt, turns)
    elif turns and not prompt:
        prompt = turns
    if not shared and prompt == row.get("prompt"):
        return row
    return {**row, "prompt": prompt, **_without(row, turns)}


def _without(row: Row, start: Any) -> Row:
    """Cut a beginning off both responses, and off the original ones that have it."""
    cut = {side: row[side][len(start) :] for side in SIDES}
    for column in ORIGINALS:
        text: Any = row.get(column)
        if type(text) is type(start) and len(text) > len(start) and _is_text(text) and _begins(text, start):
            cut[column] = text[len(start) :]
    return cut


def _begins(text: Any, start: Any) -> bool:
    return text.startswith(start) if isinstance(text, str) else all(map(_same, start, text))


def _dialogue(chosen: str, rejected: str) -> str:
    """Return what two dialogues have in common, up to the assistant's last turn."""
    common = next((place for place, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    end = chosen.rfind(_ASSISTANT, 0, min(len(chosen), len(rejected)) if common is None else common)
    return chosen[: end + len(_ASSISTANT)] if end >= 0 else ""


def _after_string(prompt: str, turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join a prompt that is a string and the turns that both responses begin with."""
    words, said = prompt.strip(), 0
    if _repeats(turns):
        if any(turn["role"] == "user" and words in content([turn]) for turn in turns):
            return turns
        while said < len(turns) and _repeats(turns[said:]) and content([turns[said]]).strip() in words:
            said += 1
    return [*user(prompt), *turns[said:]]


def _after_messages(prompt: list[dict[str, Any]], turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join a prompt and the turns that both responses begin with."""
    if _repeats(turns):
        for start in range(len(turns) - len(prompt) + 1):
            if all(map(_same, prompt, turns[start:])):
                return turns
        for length in range(min(len(prompt), len(turns)), 0, -1):
            if all(map(_same, prompt[-length:], turns)):
                return [*prompt, *turns[length:]]
    return [*prompt, *turns]


def _repeats(turns: list[dict[str, Any]]) -> bool:
    """Tell whether turns may repeat a prompt; those that begin with the assistant continue it."""
    return bool(turns) and turns[0]["role"] not in ("assistant", "tool")


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether two messages are equal, apart from keys without a value."""
    filled = ({key: value for key, value in message.items() if value is not None} for message in (one, other))
    return next(filled) == next(filled)


def check_rows(rows: Any, columns: tuple[str, ...], where: str, most: int = 20) -> None:
    """Check every row before any work is done or paid for.

    Raises:
        UserErrors: A column is missing, a text is empty or no text, strings and messages are mixed, the responses of a
            pair are equal, or the chat template can't use `tools` or `chat_template_kwargs`.
    """
    faults: list[UserError] = []
    forms: dict[type, int] = {}  # of the texts → the first row that has it
    there: dict[str, None] = {}  # columns that a row has had a value in
    for number, row in enumerate(rows, start=1):
        there |= dict.fromkeys(column for column, value in row.items() if value is not None)
        if UNUSABLE in row:
            continue
        found = _row_faults(row, columns)
        if not found:
            form = type(row[columns[0]])
            if other := next((first for kind, first in forms.items() if kind is not form), None):
                kinds = ("strings", "messages") if form is str else ("messages", "strings")
                found = [f"{', '.join(columns)}: {kinds[0]}, but {kinds[1]} in row {other}; make all rows alike"]
            else:
                forms.setdefault(form, number)
        faults += [UserError(f"{where}: row {number}", what) for what in found]
        if len(faults) >= most:
            faults = [*faults[:most], UserError(where, f"more rows may be at fault; these are the first {most}")]
            break
    if faults and (absent := [column for column in columns if column not in there]):
        raise UserErrors(UserError(where, _unnamed(columns, absent, [*there])))
    if faults:
        raise UserErrors(*faults)


class UnnamedColumns(Exception):
    """A row lacks columns; the message says what to write in the recipe."""

    def __init__(self, columns: tuple[str, ...], absent: list[str], there: list[str]) -> None:
        super().__init__(_unnamed(columns, absent, there))


def _unnamed(columns: tuple[str, ...], absent: list[str], there: list[str]) -> str:
    """Say how to fix data that lack a column: bridge them, or map their column names to ours."""
    has = f"has no column {' and no '.join(absent)}; there are {', '.join(there)}"
    if absent == ["original_chosen"]:
        return f"{has}; these pairs were not bridged: run scripts/bridge.py on them, and name its train.jsonl"
    free = [column for column in there if column not in (*columns, "id")]
    mapping: dict[str, str] = {}
    for column in columns:
        guess = next((name for name in GUESSES.get(column, ()) if name in free), None)
        mapping[column] = column if column not in absent else guess or "…"
        free = [name for name in free if name != mapping[column]]
    written = ", ".join(f"{ours}: {theirs}" for ours, theirs in mapping.items())
    rest = f"; for … write one of {', '.join(free) or 'its own'}" if "…" in mapping.values() else ""
    if str(mapping.get("chosen")).lower().endswith("_a"):  # as SHP, whose `labels` says which one is preferred
        rest += "; that is right only for rows in which A is the better one: write the others the other way round"
    return f"{has}; write in dataset_mixture.datasets what they are called: columns: {{{written}}}{rest}"


def _row_faults(row: Row, columns: tuple[str, ...]) -> list[str]:
    found = []
    for column in columns:
        text = row.get(column)
        if text is None:
            found.append(f"{column}: is missing; there are {', '.join(sorted(row))}")
        elif not _is_text(text) or (column == "messages" and isinstance(text, str)):
            kinds = "a list" if column == "messages" else "a string or a list"
            found.append(f"{column}: must be {kinds} of messages with `role` and `content`")
        elif not _says_something(text):
            found.append(f"{column}: is empty; write it or remove the row")
    mixed = sorted(column for column in columns if isinstance(row.get(column), str))
    if not found and mixed and len(mixed) < len(columns):
        found.append(f"{', '.join(mixed)}: a string, but the rest are messages; make them alike")
    if not found and {*SIDES} <= {*columns} and _equal(row["chosen"], row["rejected"]):
        found.append("rejected: equals chosen, so there is no preference; remove the row")
    return found + [
        what for what in (_tools_fault(row), _kwargs_fault(row), _answer_fault(row), _size_fault(row, columns)) if what
    ]


def _tools_fault(row: Row) -> str | None:
    try:
        tools = tools_of(row)
    except ValueError:
        tools = ""
    if tools is None or (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        return None
    return "tools: must be a list of JSON schemas, or its JSON text"


def _kwargs_fault(row: Row) -> str | None:
    given = row.get("chat_template_kwargs")
    if given is None or isinstance(given, dict):
        return None
    return "chat_template_kwargs: must map names to values, as in {enable_thinking: false}"


def _size_fault(row: Row, columns: tuple[str, ...]) -> str | None:
    """Find a number that the Arrow table of a training can't hold; columns that nothing reads may have any."""
    for column in (*columns, "tools", "chat_template_kwargs"):
        value = tools_of(row) if column == "tools" and _tools_fault(row) is None else row.get(column)
        if (number := _oversize(value)) is not None:
            return f"{column}: holds {number}, which is more than 64 bits; write it as a text, or leave it out"
    return None


def _oversize(value: Any) -> int | None:
    """Return a whole number below -2⁶³ or from 2⁶⁴ on within a value; None if there is none."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return next((number for number in map(_oversize, inner) if number is not None), None)
    return value if isinstance(value, int) and not -(2**63) <= value < 2**64 else None


def _answer_fault(row: Row) -> str | None:
    if row.get("task") in ("qa", "math") and isinstance(row.get("answer"), list | dict):
        return "answer: must be one answer, a text or a number; write the one that counts"
    return None


def tools_of(row: Row) -> Any:
    """Return a row's tools as a list; None if it has none.

    Raises:
        ValueError: They are a text that isn't JSON.
    """
    tools = row.get("tools")
    return (json.loads(tools) if isinstance(tools, str) and tools.strip() else tools) or None


def _says_something(text: Text) -> bool:
    calls = not isinstance(text, str) and any(message.get("tool_calls") for message in text)
    return calls or bool(content(text).strip())


def _equal(chosen: Text, rejected: Text) -> bool:
    if isinstance(chosen, str) or isinstance(rejected, str):
        return chosen == rejected
    return [*map(_spoken, chosen)] == [*map(_spoken, rejected)]


def _is_text(text: Any) -> bool:
    return isinstance(text, str) or (isinstance(text, list) and all(map(_is_message, text)))


def _is_message(message: Any) -> bool:
    # tool calls may stand in place of words
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        return False
    words = message.get("content")
    return isinstance(words, str) or (words is None and bool(message.get("tool_calls")))


def unbridged(row: Row) -> Row:
    """Undo bridging: return the pair with y_w and y_l as its responses; any other row as it is."""
    given = zip(SIDES, ORIGINALS, strict=True)
    responses = {side: row[original] for side, original in given if row.get(original) is not None}
    added = (*BRIDGING, *(EDIT if row.get("bridged") is not None else ()))
    return {key: value for key, value in row.items() if key not in added} | responses


def chosen_response(row: Row) -> Text | None:
    """Return y_w: the `completion`, or the chosen response before bridging; None if there is neither."""
    return row.get("completion") or unbridged(row).get("chosen")


def edit_split(rows: Iterable[Row], part: str, where: str) -> list[int]:
    """Select one of n equal splits of the pairs by rising edit distance (Figure 5).

    The distance is Levenshtein's over characters, between y_w (`original_chosen`, or `chosen` if there is none) and
    `rejected`; ties are in the order of their ids. Every row is in one split, and the sizes of the splits differ by one
    at most.

    Returns:
        Indices of the rows of the k-th split (`part`: "k/n", 1 ≤ k ≤ n), ascending.

    Raises:
        UserErrors: The rows aren't pairs.
    """
    number, count = map(int, part.split("/"))
    return sorted(index for _, index in _split(_by_distance(rows, where), number, count))


def split_distances(rows: Iterable[Row], count: int, where: str) -> list[list[int]]:
    """List the edit distances in each of `edit_split`'s splits, ascending."""
    ranked = _by_distance(rows, where)
    return [[distance for distance, _ in _split(ranked, number, count)] for number in range(1, count + 1)]


def _split(ranked: list[tuple[int, int]], number: int, count: int) -> list[tuple[int, int]]:
    start, end = (len(ranked) * bound // count for bound in (number - 1, number))
    return ranked[start:end]


def _by_distance(rows: Iterable[Row], where: str) -> list[tuple[int, int]]:
    """List edit distance and index of each pair, by rising distance and then by id."""
    ids: list[str] = []
    there: dict[str, None] = {}
    for row in rows:
        ids.append(row["id"])
        there |= dict.fromkeys(key for key, value in row.items() if value is not None)
    if ids and ("rejected" not in there or not there.keys() & {"chosen", "original_chosen"}):
        raise user_error(where, f"edit_split: is for pairs with `chosen` and `rejected`; there are {', '.join(there)}")

    def pairs() -> Iterator[Row]:
        return (
            {"chosen": row.get("original_chosen") or row.get("chosen"), "rejected": row.get("rejected")} for row in rows
        )

    check_rows(pairs(), SIDES, where)
    distances = (Levenshtein.distance(content(pair["chosen"]), content(pair["rejected"])) for pair in pairs())
    ranked = sorted(zip(distances, ids, range(len(ids)), strict=True))
    return [(distance, index) for distance, _, index in ranked]
