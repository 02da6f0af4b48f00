"""Pairs that people already have: corrections of answers, and ratings or rankings of several responses to a prompt.

Raw columns are renamed first, as the recipe's `columns` or the registry says. Texts may be strings, messages,
ShareGPT's `{"from": "human", "value": …}`, or dialogues with Anthropic's or HelpSteer2's role marks. A row of which no
pair can be made keeps the reason in the column `UNUSABLE`: bridging drops it with that reason, other stages leave it
out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from .schema import UNUSABLE, Row, UnnamedColumns, assistant, chat_messages, content, digest, hash_fraction, user

if TYPE_CHECKING:
    from .loading import RowStream

PairRule = Literal["largest_gap", "random", "all"]
Messages = list[dict[str, Any]]

UNTOUCHED = "edit equals y_l"  # as the validator says of an edit
_ROLE_MARK = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):[ ]?|(?:\A|\n)<extra_id_1>(User|Assistant)\n")
_TEXT = ("response", "answer", "content", "text", "output", "completion", "value")  # keys of a response in a list
_SCORE = ("score", "overall_score", "rating")
_UP = ("up", "thumbs up", "thumbsup", "upvote", "like", "liked", "positive", "true", "👍")
_DOWN = ("down", "thumbs down", "thumbsdown", "downvote", "dislike", "disliked", "negative", "false", "👎")
_THUMBS = dict.fromkeys(_UP, 1.0) | dict.fromkeys(_DOWN, 0.0)


def renamed(raw: Row, names: Mapping[str, str]) -> Row:
    """Return a raw row with our names for its columns (`names`: ours → the file's); all others stay.

    A dot reaches into a mapping: `fields.prompt`. With a column of Argilla's responses comes that of their status.
    """
    row = {key: value for key, value in raw.items() if key not in names.values()}
    for ours, theirs in names.items():
        value: Any = raw.get(theirs)
        if value is None and "." in theirs:
            value = raw
            for part in theirs.split("."):
                value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            row[ours] = value
        if f"{theirs}.status" in raw:
            row[f"{ours}.status"] = raw[f"{theirs}.status"]
    return row


def conversation(text: Any) -> Messages:
    """Return a prompt as messages; a string with role marks is cut at them, any other is one user message.

    >>> [turn["role"] for turn in conversation("\\n\\nHuman: Hi\\n\\nAssistant: Hello\\n\\nHuman: Bye\\n\\nAssistant:")]
    ['user', 'assistant', 'user']
    """
    if not isinstance(text, str):
        return chat_messages(text)
    if not re.match(r"\s*Human:", text) and "<extra_id_1>" not in text:
        return user(text)
    first, *rest = _ROLE_MARK.split(text)
    turns = [("User", first)]
    turns += [(human or other, words) for human, other, words in zip(rest[::3], rest[1::3], rest[2::3], strict=True)]
    roles = {"Assistant": "assistant"}
    return [{"role": roles.get(role, "user"), "content": words.strip()} for role, words in turns if words.strip()]


def _reply(value: Any) -> Messages:
    """Return a response as messages."""
    if isinstance(value, str):
        return assistant(value)
    messages = chat_messages(value)
    if not messages or not all(isinstance(turn, dict) and isinstance(turn.get("role"), str) for turn in messages):
        raise ValueError("a response must be a text, or messages with `role` and `content`")
    return messages


def _unnamed(columns: tuple[str, ...], raw: Row) -> UnnamedColumns:
    return UnnamedColumns(columns, [name for name in columns if name not in raw], [*raw])


def last_turn(row: Row) -> tuple[Messages, Messages]:
    """Split a row's `messages` into the prompt and the assistant's last turn.

    Raises:
        ValueError: They don't end with the assistant's.
    """
    *prompt, last = conversation(row["messages"])
    if not prompt or last.get("role") != "assistant":
        raise ValueError("messages: must end with the assistant's turn, after a prompt")
    return prompt, [last]


def corrections(raw: Row) -> list[Row]:
    """`{"prompt": "…", "answer": "the model's …", "correction": "a person's …"}` → (x, ỹ_w, y_l) for each correction.

    `messages`, which end with the answer, may stand for `prompt` and `answer`; and `rejected` for `answer`, which then
    is the gold answer of a closed task. `correction` may be a list: of texts, or of Argilla's `{"value", "status"}`, of
    which only submitted ones count. A row's own `id` gets a hash of the correction, since it names the answer.
    """
    row = dict(raw)
    given, status = row.pop("correction", None), row.pop("correction.status", None)
    if row.get("prompt") is None and row.get("messages") is not None:
        prompt, answer = last_turn(row)
        del row["messages"]
    else:
        column = "answer" if row.get("rejected") is None else "rejected"
        if not {"prompt", column} <= {*row}:
            raise _unnamed(("prompt", column, "correction"), raw)
        prompt, answer = conversation(row.pop("prompt")), _reply(row.pop(column) or "")
    common = {"task": "chat", **row, "prompt": prompt, "rejected": answer}
    if not content(answer).strip():
        return [common | {"chosen": answer, UNUSABLE: "y_l is empty"}]
    pairs = []
    for text in _submitted(given, status):
        chosen = _reply(text)[-len(answer) :]  # it may be the whole conversation
        reason = {UNUSABLE: UNTOUCHED} if content(chosen[-1:]) == content(answer[-1:]) else {}
        pairs.append(common | {"chosen": chosen} | _id(row, content(chosen)) | reason)
    return pairs or [common | {"chosen": answer, UNUSABLE: "no correction"}]


def _submitted(given: Any, status: Any) -> list[Any]:
    """List the corrections of one answer, without blank ones and those that their author hasn't submitted."""
    several = isinstance(given, list) and not (given and isinstance(given[0], dict) and {"role", "from"} & {*given[0]})
    values: list[Any] = given if several else [given]
    states = status if isinstance(status, list) and len(status) == len(values) else [None] * len(values)
    found = []
    for value, state in zip(values, states, strict=True):
        if isinstance(value, dict) and "value" in value and "from" not in value:
            value, state = value["value"], value.get("status", state)
        blank = value is None or (isinstance(value, str) and not value.strip())
        if not blank and state in (None, "submitted"):
            found.append(value)
    return found


def _id(row: Row, text: str) -> Row:
    return {} if row.get("id") in (None, "") else {"id": f"{row['id']}-{digest(text)[:8]}"}


def ratings(raw: Row) -> Row:
    """Collect the rated responses of a row: `{"prompt", "rated": [[response, score], …], "several": …}`.

    A row has several responses and their scores or ranks (1 is best): `{"prompt": "…", "responses": ["…", "…"],
    "scores": [4, 1]}`, `{"prompt": "…", "responses": [{"answer": "…", "rank": 1}, …]}`; two and a preference, above
    0 where the second is better: `{"prompt": "…", "response_1": "…", "response_2": "…", "preference": -2}`; or one,
    and rows with the same prompt belong together: `{"prompt": "…", "response": "…", "score": true}`. Scores may be
    lists, of several annotators: their mean counts. Responses without score or words are left out.
    """
    row = dict(raw)
    there = [name for name in ("responses", "response_1", "response") if row.get(name) is not None]
    if "prompt" not in row or not there:
        raise _unnamed(("prompt", "responses", "scores"), raw)
    prompt, kind = conversation(row.pop("prompt")), there[0]
    if kind == "responses":
        rated = _list_of_rated(row.pop("responses"), row)
    elif kind == "response_1":
        first, second, preference = (row.pop(name) for name in ("response_1", "response_2", "preference"))
        strength = _number(preference, "preference")
        rated = [] if strength is None else [(first, -strength), (second, strength)]
    else:
        if "score" not in row and "rank" not in row:
            raise _unnamed(("prompt", "response", "score"), raw)
        rated = [(row.pop("response"), _score(row))]
    pairs = [(_reply(text), score) for text, score in rated if text and score is not None]
    pairs = [(reply, score) for reply, score in pairs if content(reply).strip()]
    return {"task": "chat", **row, "prompt": prompt, "rated": pairs, "several": kind != "response"}


def _list_of_rated(responses: Any, row: Row) -> list[tuple[Any, float | None]]:
    """Pair each of several responses with its score, which stands beside the list or within it."""
    if not isinstance(responses, list):
        raise ValueError("responses: must be a list")
    beside = next((name for name in ("scores", "ranks") if isinstance(row.get(name), list)), None)
    if beside is None:
        if not all(isinstance(item, dict) for item in responses):
            raise _unnamed(("prompt", "responses", "scores"), {**row, "prompt": "", "responses": ""})
        texts = [next((item[key] for key in _TEXT if item.get(key) is not None), None) for item in responses]
        return [(text, _score(item)) for text, item in zip(texts, responses, strict=True)]
    given = row.pop(beside)
    if len(given) != len(responses):
        raise ValueError(f"{beside}: there are {len(given)}, for {len(responses)} responses")
    sign = -1.0 if beside == "ranks" else 1.0
    numbers = [_number(value, beside) for value in given]
    return [(text, n if n is None else sign * n) for text, n in zip(responses, numbers, strict=True)]


def _score(item: Row) -> float | None:
    """Take the score of one response, or its negative rank."""
    for key in _SCORE:
        if key in item:
            return _number(item[key], key)
    rank = _number(item.get("rank"), "rank")
    return None if rank is None else -rank


def _number(value: Any, key: str) -> float | None:
    """Read a score: a number, true or false, a thumb, or a list of them, whose mean counts; None for none."""
    if isinstance(value, list):
        found = [number for item in value if (number := _number(item, key)) is not None]
        return math.fsum(found) / len(found) if found else None
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        word = re.sub("[_-]", " ", value.strip().casefold()).rstrip("🏻🏼🏽🏾🏿\ufe0f")  # skin tones aside
        if word in _THUMBS:
            return _THUMBS[word]
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isfinite(number):
        return number
    raise ValueError(f"{key}: {value!r} is no score; write a number, true or false, or null where there is none")


def rated_pairs(rows: RowStream, rule: PairRule, seed: int) -> Iterator[Row]:
    """Make pairs of rated responses: the best is y_w, a worse one y_l.

    Equal responses to a prompt count as one, with the mean of their scores. Of responses with the same score the first
    counts as y_w; it is never paired with another of that score. y_l is the worst (`largest_gap`), any worse one
    (`random`), or each of them in a pair of its own (`all`).
    """
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        key = str(place) if row["several"] else digest(json.dumps(row["prompt"], sort_keys=True))
        groups.setdefault(key, []).append(place)
    for places in groups.values():
        members = [rows[place] for place in places]
        common = {key: value for key, value in members[0].items() if all(row.get(key) == value for row in members[1:])}
        scores: dict[str, list[float]] = {}
        replies: dict[str, Messages] = {}
        for reply, score in (pair for row in members for pair in row["rated"]):
            replies.setdefault(text := json.dumps(reply, sort_keys=True), reply)
            scores.setdefault(text, []).append(score)
        means = {text: math.fsum(found) / len(found) for text, found in scores.items()}
        base = {key: value for key, value in common.items() if key not in ("rated", "several", "score", "rank")}
        if reason := _no_pair(means):
            only = replies[next(iter(replies))] if replies else assistant("")
            yield base | {"chosen": only, "rejected": only, UNUSABLE: reason}
            continue
        best = max(means, key=lambda text: means[text])
        for text in _worse(means, best, rule, f"{seed} {content(common['prompt'])}"):
            chosen, rejected = replies[best], replies[text]
            yield base | {"chosen": chosen, "rejected": rejected} | _id(base, f"{best} {text}")


def _no_pair(means: Mapping[str, float]) -> str | None:
    if len(means) < 2:
        return "fewer than two rated responses"
    return "the ratings tie" if len({*means.values()}) == 1 else None


def _worse(means: Mapping[str, float], best: str, rule: PairRule, draw: str) -> list[str]:
    """Choose y_l, or several, among the responses below the best score."""
    worse = [text for text in means if means[text] < means[best]]
    if rule == "all":
        return worse
    if rule == "random":
        return [worse[int(hash_fraction(draw) * len(worse))]]
    return [min(worse, key=lambda text: means[text])]


def oasst(rows: Iterable[Row]) -> Iterator[Row]:
    """Turn OpenAssistant's messages into rated responses, each with the conversation that leads to it as its prompt.

    A row is `{"message_id": "…", "parent_id": "…", "text": "…", "role": "prompter", "rank": null, …}`; of replies to
    the same message, which several people ranked, 0 is the best.
    """
    messages = {row["message_id"]: row for row in rows}
    for row in messages.values():
        turns, above = [], row.get("parent_id")
        while above in messages:
            turns.append({"role": messages[above]["role"], "content": messages[above]["text"]})
            above = messages[above].get("parent_id")
        if row["role"] == "assistant" and row.get("rank") is not None and above is None and turns:
            path = [{**turn, "role": {"prompter": "user"}.get(turn["role"], turn["role"])} for turn in reversed(turns)]
            yield {"prompt": path, "response": row["text"], "rank": row["rank"], "lang": row.get("lang")}
