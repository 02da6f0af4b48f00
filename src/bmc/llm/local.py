"""LLM in this process, by transformers or vLLM, without a server."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any, Literal

from ..config import GenerationArguments, InferenceModelArguments, LLMArguments
from ..data.tokenization import encode_prompt
from ..errors import user_error
from ..generation.backends import Complete, Response, check_vllm, load_backend
from ..models import check_model, load_tokenizer
from .cost import Messages
from .errors import RequestFailed, RunAborted

_GATHERING = 0.02  # seconds in which requests join the next batch


@dataclass
class _Request:
    key: str
    ids: list[int]
    response: asyncio.Future[Response]


class LocalClient:
    """`ChatModel` that generates in batches of the waiting requests, `max_concurrency` at most.

    Weights are loaded with the first request. A response depends on its batch only as far as padding changes the last
    bits of its logits.

    Raises:
        UserErrors: There is no such model, or vLLM isn't installed.
    """

    def __init__(self, settings: LLMArguments, name: Literal["transformers", "vllm"]) -> None:
        if name == "vllm":
            check_vllm("editor")
        check_model(settings.model, "main", False)
        self.batch_size = settings.max_concurrency
        self.model = InferenceModelArguments(model_name_or_path=settings.model)
        self.tokenizer = load_tokenizer(settings.model, "main", False, None)
        self.longest = _longest(settings.model, self.tokenizer)
        self.arguments = GenerationArguments(
            backend=name,
            max_new_tokens=settings.max_tokens,
            temperature=settings.temperature or 0.0,
            batch_size=settings.max_concurrency,
        )
        self.generate: Complete | None = None
        self.queue: list[_Request] = []
        self.worker: asyncio.Task[None] | None = None
        self.stopped = False

    async def complete(self, messages: Messages, key: str) -> dict[str, Any]:
        """Implement `ChatModel.complete`."""
        if self.stopped:
            raise RunAborted
        ids = self._encoded(messages)
        if len(ids) >= self.longest:
            raise RequestFailed("too long for the model")
        request = _Request(key, ids, asyncio.get_running_loop().create_future())
        self.queue.append(request)
        if self.worker is None or self.worker.done():
            self.worker = asyncio.create_task(self._work())
        response = await request.response
        return {
            "content": response["text"],
            "finish_reason": "stop" if response["finished"] else "length",
            "prompt_tokens": len(ids),
            "completion_tokens": response["tokens"],
        }

    def _encoded(self, messages: Messages) -> list[int]:
        from jinja2 import TemplateError

        if self.tokenizer.chat_template is None:
            raise user_error(
                f"model {self.model.model_name_or_path}", "has no chat template; choose an instruction-tuned one"
            )
        try:
            return encode_prompt(self.tokenizer, {"prompt": messages})
        except TemplateError as error:
            what = f"its chat template refuses the messages ({error}); choose another model"
            raise user_error(f"model {self.model.model_name_or_path}", what) from None

    async def _work(self) -> None:
        while self.queue:
            size = 0
            while size < len(self.queue) < self.batch_size:  # requests after a batch come one by one
                size = len(self.queue)
                await asyncio.sleep(_GATHERING)
            batch, self.queue = self.queue[: self.batch_size], self.queue[self.batch_size :]
            try:
                responses = await asyncio.to_thread(self._generate_batch, batch)
            except Exception as error:
                for request in batch:
                    request.response.set_exception(error)
                continue
            for request, response in zip(batch, responses, strict=True):
                request.response.set_result(response)

    def _generate_batch(self, batch: list[_Request]) -> list[Response]:
        if self.generate is None:
            self.generate = load_backend(self.arguments, self.model, self.tokenizer)
        # each request has a seed of its own, and samples the same when it is sent again
        seeds = [int(request.key[:15], 16) for request in batch]
        found = dict(self.generate([request.ids for request in batch], seeds, [self.arguments] * len(batch)))
        return [found[place] for place in range(len(batch))]

    def stop(self) -> None:
        self.stopped = True

    async def aclose(self) -> None:
        self.generate = None


def _longest(name: str, tokenizer: Any) -> int:
    """Return the tokens that the model can take, response included."""
    from transformers import AutoConfig

    positions = getattr(AutoConfig.from_pretrained(name), "max_position_embeddings", None)
    return min(positions or sys.maxsize, tokenizer.model_max_length)
