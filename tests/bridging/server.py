"""A chat-completions endpoint on 127.0.0.1 for tests: scripted replies, every request recorded."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = dict[str, Any]
Script = Callable[[dict[str, Any], int], Reply]


def says(content: str | None, finish_reason: str = "stop") -> Reply:
    """A completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    return {"body": {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]} | {
        "usage": usage
    }}  # fmt: skip


def refuses(status: int, message: str = "no", code: str | None = None) -> Reply:
    """An error of the protocol. The header spares the client its wait before the next try."""
    body = {"error": {"message": message, "type": "error", "code": code}}
    return {"status": status, "body": body, "headers": {"retry-after-ms": "1"}}


def part(request: dict[str, Any], name: str) -> str:
    """What a request says between the tags `name`, and the mark on them as `part(request, "mark")`."""
    user = request["messages"][1]["content"]
    found = re.search(r"<(?:question|request) (\w+)>", user)  # the first tag
    assert found
    if name == "mark":
        return found[1]
    wanted = re.search(rf"<{name} {found[1]}>\n(.*)\n</{name} {found[1]}>", user, re.DOTALL)
    assert wanted, f"the request shows no {name}"
    return wanted[1]


def shows(request: dict[str, Any], name: str) -> bool:
    """Whether a request has a part of that name."""
    return f"<{name} {part(request, 'mark')}>" in request["messages"][1]["content"]


def revises(request: dict[str, Any], text: str, tag: str = "revised") -> Reply:
    """The reply of an editor that follows the prompt."""
    mark = part(request, "mark")
    return says(f"<verdict>edit</verdict>\n<{tag} {mark}>\n{text}\n</{tag} {mark}>")


class ChatServer:
    """`with ChatServer(script) as server:`; the script gets (request, how many came before).

    Attributes:
        requests: Body of every request, in their order.
        keys: Authorization header of every request.
        most: Most requests that were under way at once.
    """

    def __init__(self, script: Script, delay: float = 0.0) -> None:
        self.script, self.delay = script, delay
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.most = self.under_way = 0
        self.lock = threading.Lock()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    def _answer(self, request: dict[str, Any], key: str | None) -> Reply:
        with self.lock:
            number = len(self.requests)
            self.requests.append(request)
            self.keys.append(key)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        try:
            time.sleep(self.delay)
            return self.script(request, number)
        finally:
            with self.lock:
                self.under_way -= 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path == "/v1/chat/completions"
                reply = server._answer(request, self.headers["Authorization"])
                if reply.get("hangs up"):
                    return
                body = reply["body"] if isinstance(reply["body"], str) else json.dumps(reply["body"])
                self.send_response(reply.get("status", 200))
                headers = {"Content-Type": "application/json"} | reply.get("headers", {})
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        return Handler
