"""The Files and Batches endpoints on 127.0.0.1, whose batches are answered by a script when they are looked at."""

import json
import re
from collections.abc import Callable
from typing import Any

from server import ChatServer, Reply, Script


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line]  # splitlines() would cut at U+2028, too


Break = Callable[[str, str, int], Reply | None]


class BatchServer(ChatServer):
    """`requests` are the lines of the submitted files.

    Args:
        script: What is replied to a line.
        looks: Looks at a batch until it is over.
        breaks: `(method, path, how many such calls came before) → a reply in place of the right one`.
        ends: How a batch ends; `expired` ones answer the first half of their lines.

    Attributes:
        calls: Method and path of every call.
        files: Contents by id.
        batches: By id, as the protocol has them.
        bill: Tokens of all responses that batches were given, whatever became of their files.
    """

    def __init__(
        self, script: Script, looks: int = 1, breaks: Break = lambda *_: None, ends: list[str] | None = None
    ) -> None:
        super().__init__(script)
        self.cancels = True  # whether a batch that is cancelled ends
        self.looks, self.breaks, self.ends = looks, breaks, ends or []
        self.calls: list[tuple[str, str]] = []
        self.files: dict[str, str] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.bill = 0

    def reply(self, method: str, path: str, body: bytes, headers: Any) -> Reply:
        path = path.partition("?")[0].removeprefix("/v1")
        broken = self.breaks(method, path, self.calls.count((method, path)))
        self.calls.append((method, path))
        self.keys.append(headers["Authorization"])
        if broken and not broken.pop("after", False):
            return broken
        reply = self._right(method, path, body, headers)
        return broken or reply

    def _right(self, method: str, path: str, body: bytes, headers: Any) -> Reply:
        if (method, path) == ("POST", "/files"):
            return self._upload(body, headers["Content-Type"])
        if (method, path) == ("POST", "/batches"):
            return self._begin(json.loads(body))
        if method == "POST" and path.endswith("/cancel"):
            batch = self.batches[path.split("/")[2]]
            self.looks, self.ends = 0, ["expired"] if self.cancels else ["never"]
            return {"body": batch | {"status": "cancelling"}}
        if (method, path) == ("GET", "/batches"):
            return {"body": {"object": "list", "data": list(self.batches.values()), "has_more": False}}
        kind, id = path.split("/")[1:3]
        if kind == "files":
            return {"body": self.files[id], "headers": {"Content-Type": "application/octet-stream"}}
        return {"body": self._look(self.batches[id])}

    def _upload(self, body: bytes, kind: str) -> Reply:
        boundary = re.search(r"boundary=(\S+)", kind)
        assert boundary
        parts = body.split(b"--" + boundary[1].encode())
        (purpose,) = [part for part in parts if b'name="purpose"' in part]
        assert purpose.strip().endswith(b"batch")
        (file,) = [part for part in parts if b'name="file"' in part]
        id = f"file-{len(self.files)}"
        self.files[id] = file.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n").decode()
        return {"body": {"id": id, "object": "file", "bytes": 1, "created_at": 0, "filename": "f", "purpose": "batch"}}

    def _begin(self, asked: dict[str, Any]) -> Reply:
        assert (asked["endpoint"], asked["completion_window"]) == ("/v1/chat/completions", "24h")
        lines = _lines(self.files[asked["input_file_id"]])
        assert len({json.loads(line)["custom_id"] for line in lines}) == len(lines)
        batch = asked | {
            "id": f"batch-{len(self.batches)}", "object": "batch", "created_at": 0, "status": "in_progress",
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0}, "looks": 0
        }  # fmt: skip
        self.batches[batch["id"]] = batch
        self.requests += [json.loads(line) for line in lines]
        return {"body": batch}

    def _look(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch["looks"] += 1
        if batch["looks"] > self.looks and batch["status"] == "in_progress":
            batch["status"] = self.ends.pop(0) if self.ends else "completed"
            if batch["status"] == "never":
                batch["status"], self.ends = "in_progress", ["never"]
                return batch
            if batch["status"] == "failed":
                batch["errors"] = {"object": "list", "data": [{"code": "x", "message": "no such model"}]}
                return batch
            lines = [json.loads(line) for line in _lines(self.files[batch["input_file_id"]])]
            kept = lines[: len(lines) // 2] if batch["status"] == "expired" else lines
            good, bad = [], []
            for line in kept:
                reply = self.script(line["body"], 0)
                status = reply.get("status", 200)
                if isinstance(reply["body"], dict):
                    self.bill += reply["body"].get("usage", {}).get("total_tokens", 0)
                response = {"status_code": status, "request_id": "r", "body": reply["body"]}
                answer = {"id": "a", "custom_id": line["custom_id"], "response": response, "error": None}
                (good if status == 200 else bad).append(answer)
            error = {"code": "batch_expired", "message": "too late"}
            bad += [{"custom_id": line["custom_id"], "response": None, "error": error} for line in lines[len(kept) :]]
            for name, answers in (("output_file_id", good), ("error_file_id", bad)):
                if answers:
                    batch[name] = f"file-{len(self.files)}"
                    self.files[batch[name]] = "".join(json.dumps(a, ensure_ascii=False) + "\n" for a in answers)
        return batch
