"""A chat-completions endpoint that keeps its own bill, in exact decimals, for every reply that it sends."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from server import ChatServer, Reply, part, revises

from bmc.config import BridgeConfig, DatasetConfig, DatasetMixture, Price

INPUT, OUTPUT = Decimal(10), Decimal(30)  # dollars per million tokens
PRICES = {"m": Price(input=float(INPUT), output=float(OUTPUT))}
MILLION = Decimal(1_000_000)
Script = Callable[[dict[str, Any], int], Reply]


def tokens(text: str) -> int:
    """What the endpoint counts: four bytes a token, which is about what English has."""
    return -(-len(text.encode(errors="replace")) // 4)


def says(text: str, finish_reason: str = "stop", **choice: Any) -> Reply:
    """A completion, whose usage is the truth."""
    message = {"role": "assistant", "content": text}
    return {"text": text, "choices": [{"index": 0, "message": message, "finish_reason": finish_reason, **choice}]}


def without_choices() -> Reply:
    """A paid reply that holds nothing."""
    return {"text": "x" * 400, "choices": []}


def in_parts(*parts: Any) -> Reply:
    """A completion whose content is a list."""
    reply = says("".join(str(part.get("text", "")) for part in parts if isinstance(part, dict)))
    reply["choices"][0]["message"]["content"] = list(parts)
    return reply


def tells(usage: Any, reply: Reply) -> Reply:
    """The same reply with another usage than the truth; none at all for None."""
    return reply | {"usage": usage}


def raw(reply: Reply, text: str) -> Reply:
    """The same reply, billed as it is, with another body."""
    return reply | {"raw": text}


class BillingServer(ChatServer):
    """`bill` is what was billed for replies that were sent whole, `lost` for those whose connection was cut or that
    came too late. Errors cost nothing.

    A script's reply may have `choices` (with `text`, what is billed as written), or be one of `server`'s.
    """

    def __init__(self, script: Script, delay: float = 0.0) -> None:
        super().__init__(script, delay)
        self.bill = self.lost = Decimal(0)
        self.answered = 0
        self.paths: list[str] = []

    def cost(self, request: dict[str, Any], text: str) -> tuple[dict[str, int], Decimal]:
        """True usage and price of a reply."""
        read = sum(tokens(message["content"]) + 4 for message in request["messages"])
        usage = {"prompt_tokens": read, "completion_tokens": tokens(text)}
        return usage | {"total_tokens": sum(usage.values())}, (
            INPUT * usage["prompt_tokens"] + OUTPUT * usage["completion_tokens"]
        ) / MILLION

    def reply(self, method: str, path: str, body: bytes, headers: Any) -> Reply:
        self.paths.append(path)
        request = json.loads(body)
        reply = self._answer(request, headers["Authorization"])
        if "choices" not in reply:
            return reply
        usage, cost = self.cost(request, reply["text"])
        with self.lock:
            self.answered += 1
            if any(reply.get(kind) for kind in ("half", "hangs up", "delay", "lost")):
                self.lost += cost
            else:
                self.bill += cost
        told = reply.get("usage", usage)
        sent = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": reply["choices"]}
        return {"headers": {}, **reply, "body": reply.get("raw", sent | ({} if told is None else {"usage": told}))}


def write(folder: Path, rows: int) -> Path:
    path = folder / "pairs.jsonl"
    with path.open("w") as file:
        for i in range(rows):
            texts = {"chosen": f"It runs to the sea past town {i}.", "rejected": f"Row {i}: up to the hills, past {i}."}
            print(json.dumps({"id": f"r{i}", "prompt": "Where does the river run?"} | texts), file=file)
    return path


def recipe(folder: Path, url: str, rows: int | None = 12, out: str = "out", **settings: Any) -> BridgeConfig:
    """A recipe for so many new pairs; for those that are there for None."""
    data = folder / "pairs.jsonl" if rows is None else write(folder, rows)
    mixture = DatasetMixture(datasets=[DatasetConfig(id=str(data))])
    given: dict[str, Any] = {"api_key_env": "EDITOR_KEY", "model": "m", "template": "instruction", "prices": PRICES}
    given |= {"output_dir": str(folder / out), "timeout": 5.0, "max_retries": 4, "max_tokens": 200}
    return BridgeConfig(dataset_mixture=mixture, base_url=url, **{**given, **settings})


def edit_of(request: dict[str, Any]) -> str:
    draft = part(request, "draft").replace("up to the hills", "down to the sea")
    return str(revises(request, draft)["body"]["choices"][0]["message"]["content"])


def edits(request: dict[str, Any]) -> Reply:
    return says(edit_of(request))
