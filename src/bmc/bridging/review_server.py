"""Serve the review page to a browser on this machine: one process, random address, nothing from or to elsewhere."""

from __future__ import annotations

import hmac
import json
import re
import secrets
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..config import ReviewConfig
from ..errors import UserErrors, user_error
from ..runs import report_disk_errors
from ..web import TEMPLATES, render
from .review import DECISIONS, Filter, Review, summary

HOST = "127.0.0.1"
ROWS = 50  # of an answer at most
BODY = 4 * 2**20  # bytes of a request at most
_POLICY = re.compile(r'http-equiv="Content-Security-Policy" content="([^"]*)"')


class Server(ThreadingHTTPServer):
    """The server of one review."""

    daemon_threads = True

    def __init__(self, review: Review, port: int = 0) -> None:
        """Bind the port.

        Raises:
            UserErrors: It is taken.
        """
        self.review, self.token = review, secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise user_error(
                "--port", f"{port} can't be used ({error.strerror}); leave it out for a free one"
            ) from None
        self.hosts = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}
        self.url = f"http://{HOST}:{self.server_port}/{self.token}/"
        folder = review.run.folder
        self.page = render(
            TEMPLATES / "review.html.jinja", ["review.css"], ["review.js"], "'self'", title=f"Review: {folder.name}",
            folder=str(folder), reviewer=review.reviewer, reasons=review.reasons(),
        )  # fmt: skip

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let a browser go that has hung up; report anything else."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def version_string(self) -> str:
        return "bmc"

    def do_GET(self) -> None:
        found = self._path()
        if found == "":
            policy = f"{_POLICY.findall(self.server.page)[0]}; frame-ancestors 'none'"
            page = self.server.page.encode("utf-8", "replace")
            self._send(HTTPStatus.OK, page, "text/html; charset=utf-8", {"Content-Security-Policy": policy})
        elif found in ("rows", "progress"):
            self._answer(self._rows if found == "rows" else self.server.review.progress)
        elif found is not None:
            self._fail(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        found = self._path()
        if found is None:
            return
        actions = {"decide": self._decide, "undo": self._undo, "judge": self._judge}
        length = self.headers.get("Content-Length", "")
        origin = self.headers.get("Origin")
        if found not in actions:
            self._fail(HTTPStatus.NOT_FOUND, "there is no such page")
        elif origin is not None and origin not in {f"http://{host}" for host in self.server.hosts}:
            self._fail(HTTPStatus.FORBIDDEN, "another page may not send requests")
        elif self.headers.get_content_type() != "application/json":
            self._fail(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send JSON")
        elif not (length.isascii() and length.isdigit()):
            self._fail(HTTPStatus.LENGTH_REQUIRED, "say how long the request is")
        elif int(length) > BODY:
            self._fail(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the request is too long")
        else:
            body = self.rfile.read(int(length))
            self._answer(lambda: actions[found](_object(body)))

    def _path(self) -> str | None:
        """Return what a request wants, behind the token; None after answering one that may not."""
        _, token, *rest = (*urlsplit(self.path).path.split("/", 2), "")
        if self.headers.get("Host") not in self.server.hosts:  # a name that somebody has pointed at this machine
            self._fail(HTTPStatus.FORBIDDEN, "this host is not served")
        elif not hmac.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()):
            self._fail(HTTPStatus.NOT_FOUND, "there is no such page")
        else:
            return rest[0]
        return None

    def _rows(self) -> dict[str, Any]:
        """Answer `rows?at=…&step=…&count=…` with the keys of `Filter`."""
        query = {key: values[-1] for key, values in parse_qs(urlsplit(self.path).query, keep_blank_values=True).items()}
        kinds: dict[str, Callable[[str], Any]] = {
            "at": int, "step": int, "count": int,
            "reason": str, "low": float, "high": float, "decision": str, "seed": int,
        }  # fmt: skip
        for key in query:
            if key not in kinds:
                raise user_error(key, f"is unknown; there are {', '.join(kinds)}")
        try:
            given = {key: kinds[key](value) for key, value in query.items()}
        except ValueError as error:
            raise user_error("rows", str(error)) from None
        where = {key: given.pop(key) for key in ("at", "step", "count") if key in given}
        if "at" in where:
            self._place(where["at"])
        where["count"] = min(max(where.get("count", 1), 0), ROWS)
        return self.server.review.page(Filter(**given), **where)

    def _place(self, value: Any) -> int:
        if type(value) is not int or not 0 <= value < len(self.server.review.run):
            raise user_error("place", f"must be a number from 0 to {len(self.server.review.run) - 1}")
        return value

    def _text(self, given: dict[str, Any]) -> str:
        if not isinstance(given.get("text"), str):
            raise user_error("text", "is missing; write the edit")
        return str(given["text"])

    def _decide(self, given: dict[str, Any]) -> dict[str, Any]:
        place, decision = self._place(given.get("place")), given.get("decision")
        if decision not in DECISIONS:
            raise user_error("decision", f"must be one of {', '.join(DECISIONS)}")
        self.server.review.decide(place, decision, self._text(given) if decision == "correct" else None)
        return {"row": self.server.review.show(place), "progress": self.server.review.progress()}

    def _undo(self, given: dict[str, Any]) -> dict[str, Any]:
        place = self.server.review.undo()
        row = None if place is None else self.server.review.show(place)
        return {"row": row, "progress": self.server.review.progress()}

    def _judge(self, given: dict[str, Any]) -> dict[str, Any]:
        return self.server.review.judge(self._place(given.get("place")), self._text(given))

    def _answer(self, action: Callable[[], dict[str, Any]]) -> None:
        try:
            value = action()
        except UserErrors as error:
            self._fail(HTTPStatus.BAD_REQUEST, str(error))
            return
        self._send(HTTPStatus.OK, json.dumps(value).encode(), "application/json")

    def _fail(self, status: HTTPStatus, what: str) -> None:
        self.close_connection = True  # a body may not have been read
        self._send(status, json.dumps({"error": what}).encode(), "application/json", {"Connection": "close"})

    def _send(self, status: HTTPStatus, body: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        always = {
            "Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin", "X-Frame-Options": "DENY",
        }  # fmt: skip
        for name, value in {**always, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise user_error("request", "is no JSON object")
    return value


def serve(config: ReviewConfig) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UserErrors: The folder can't be reviewed, the port is taken, or the reviewer is missing.
    """
    with report_disk_errors(config.folder):
        review = Review(Path(config.folder), config.reviewer or _ask_initials(config))
    try:
        with Server(review, config.port) as server:
            print(f"{summary(review.progress())}\n{server.url}\nCtrl-C ends the review", flush=True)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print(f"\n{summary(review.progress())}", flush=True)
    finally:
        review.close()


def _ask_initials(config: ReviewConfig) -> str:
    """Ask on a terminal who reviews."""
    given = input("Your initials: ").strip() if sys.stdin.isatty() else ""
    if not given:
        raise user_error("--reviewer", f"is missing; give your initials: bmc review {config.folder} --reviewer AB")
    for _, what in ReviewConfig(folder=config.folder, reviewer=given).faults():
        raise user_error("--reviewer", what)
    return given
