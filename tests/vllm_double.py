"""A stand-in for the module `vllm`, as far as it is used, that notes what it is given."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any


@dataclass
class SamplingParams:
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    stop_token_ids: list[int] = field(default_factory=list)


@dataclass
class Calls:
    """What `LLM` was given and the environment it saw then; requests as `(prompt, sampling)`."""

    engine: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[Any, SamplingParams]] = field(default_factory=list)


def vllm_double(calls: Calls, say: Callable[[list[int]], list[int]]) -> ModuleType:
    """A module whose engine answers the last request first, after a look at the first, with what `say` makes of its
    tokens."""

    class LLM:
        def __init__(self, **given: Any) -> None:
            calls.engine, calls.environment = given, dict(os.environ)
            self.llm_engine = self
            self.waiting: list[tuple[str, list[int]]] = []

        def add_request(self, request_id: str, prompt: dict[str, list[int]], params: SamplingParams) -> None:
            calls.requests.append((prompt, params))
            self.waiting.append((request_id, say(prompt["prompt_token_ids"])))

        def has_unfinished_requests(self) -> bool:
            return bool(self.waiting)

        def step(self) -> list[Any]:
            name, ids = self.waiting[0]
            begun = SimpleNamespace(request_id=name, finished=False, outputs=[SimpleNamespace(token_ids=ids[:1])])
            name, ids = self.waiting.pop()
            return [begun, SimpleNamespace(request_id=name, finished=True, outputs=[SimpleNamespace(token_ids=ids)])]

    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams  # type: ignore[attr-defined]
    return module
