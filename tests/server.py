"""A chat-completions endpoint on 127.0.0.1 for tests: scripted replies, every request recorded."""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
import time
from collections import Counter
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


def refuses(status: int, message: str = "no", code: str | None = None, headers: dict[str, str] | None = None) -> Reply:
    """An error of the protocol. The header spares the client its wait before the next try."""
    body = {"error": {"message": message, "type": "error", "code": code}}
    return {"status": status, "body": body, "headers": {"retry-after-ms": "1"} if headers is None else headers}


HANGS_UP: Reply = {"hangs up": True}
NO_JSON: Reply = {"body": '{"choices": [{"message"'}


def half_sent(reply: Reply) -> Reply:
    """A reply whose connection breaks in the middle of the body."""
    return reply | {"half": True}


def gzipped(reply: Reply, damage: Callable[[bytes], bytes] = lambda stream: stream) -> Reply:
    """A reply whose body is compressed, and perhaps damaged after that."""
    return reply | {"gzip": damage}


def part(request: dict[str, Any], name: str) -> str:
    """What a request says between the tags `name`, and the mark on them as `part(request, "mark")`."""
    user = next(message["content"] for message in request["messages"] if message["role"] == "user")
    found = re.search(r"<(?:question|request) (\w+)>", user)  # the first tag
    assert found
    if name == "mark":
        return found[1]
    wanted = re.search(rf"<{name} {found[1]}>\n(.*)\n</{name} {found[1]}>", user, re.DOTALL)
    assert wanted, f"the request shows no {name}"
    return wanted[1]


def shows(request: dict[str, Any], name: str) -> bool:
    """Whether a request has a part of that name."""
    return f"<{name} {part(request, 'mark')}>" in request["messages"][-1]["content"]


def revises(request: dict[str, Any], text: str, tag: str = "revised") -> Reply:
    """The reply of an editor that follows the prompt."""
    mark = part(request, "mark")
    return says(f"<verdict>edit</verdict>\n<{tag} {mark}>\n{text}\n</{tag} {mark}>")


class _Http(ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Clients that were killed are no news."""


class ChatServer:
    """`with ChatServer(script) as server:`; the script gets (request, how many came before).

    Args:
        script: What to reply.
        delay: Seconds before a reply.
        port: To listen on; any free one by default.

    Attributes:
        requests: Body of every request, in their order.
        times: When each came.
        keys: Authorization header of every request.
        most: Most requests that were under way at once.
    """

    def __init__(self, script: Script, delay: float = 0.0, port: int = 0) -> None:
        self.script, self.delay = script, delay
        self.requests: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.keys: list[str | None] = []
        self.most = self.under_way = 0
        self.lock = threading.Lock()
        self.http = _Http(("127.0.0.1", port), self._handler())
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def asked(self) -> Counter[str]:
        """How often each request came."""
        with self.lock:
            return Counter(json.dumps(request, sort_keys=True) for request in self.requests)

    def _answer(self, request: dict[str, Any], key: str | None) -> Reply:
        with self.lock:
            number = len(self.requests)
            self.requests.append(request)
            self.times.append(time.monotonic())
            self.keys.append(key)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        try:
            time.sleep(self.delay)
            return self.script(request, number)
        finally:
            with self.lock:
                self.under_way -= 1

    def reply(self, method: str, path: str, body: bytes, headers: Any) -> Reply:
        """The reply to an HTTP request."""
        assert (method, path) == ("POST", "/v1/chat/completions")
        return self._answer(json.loads(body), headers["Authorization"])

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self._reply(b"")

            def do_POST(self) -> None:
                self._reply(self.rfile.read(int(self.headers["Content-Length"])))

            def _reply(self, given: bytes) -> None:
                reply = server.reply(self.command, self.path, given, self.headers)
                time.sleep(reply.get("delay", 0.0))
                if reply.get("hangs up"):
                    self._hang_up()
                    return
                body = reply["body"] if isinstance(reply["body"], str | bytes) else json.dumps(reply["body"])
                sent = body if isinstance(body, bytes) else body.encode()
                self.send_response(reply.get("status", 200))
                headers = {"Content-Type": "application/json"} | reply.get("headers", {})
                if "gzip" in reply:
                    sent = reply["gzip"](gzip.compress(sent))
                    headers["Content-Encoding"] = "gzip"
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                if reply.get("half"):
                    self.wfile.write(sent[: len(sent) // 2])
                    self._hang_up()
                    return
                self.wfile.write(sent)

            def _hang_up(self) -> None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
