"""An LLM behind an OpenAI-compatible endpoint as the editor."""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from ..config import BridgeConfig
from ..errors import fail
from .edit import Case, Edit, EditError, Editor
from .prompts import VERSION, read_reply, request, score_request
from .scores import Scores, read_scores, words
from .store import ReplyStore, request_key

# A 400 that is about one row: too long for the model, or refused by a content filter.
_ROW_FAULT = re.compile(r"context|too long|content.?(filter|policy|management)|invalid_prompt", re.IGNORECASE)


def make_editor(config: BridgeConfig) -> Editor:
    """The recipe's editor.

    Raises:
        Faults: The editor needs a key and there is none.
    """
    if config.editor == "rules":
        from .rules import RulesEditor

        return RulesEditor()
    return OpenAIEditor(config)


class OpenAIEditor:
    """Asks a chat-completions endpoint: OpenAI, vLLM, `transformers serve`, llama.cpp, Ollama.

    Replies are kept in a store under a hash of the whole request, so that a run that was killed asks for nothing that
    it has when it is started again; nor does one with another `proportion` or `output_dir`.
    """

    def __init__(self, config: BridgeConfig) -> None:
        from openai import AsyncOpenAI

        self.config, self.reached = config, False
        self.client = AsyncOpenAI(
            api_key=api_key(config.api_key_env),
            base_url=config.base_url,
            max_retries=config.max_retries,  # with exponential back-off, for 408, 409, 429, 5xx and lost connections
            timeout=config.timeout,
        )

    @cached_property
    def store(self) -> ReplyStore:
        """The store; it is made with the first edit, so that a run without a key leaves nothing behind."""
        return ReplyStore(Path(self.config.replies or Path(self.config.output_dir).parent / "replies.sqlite"))

    def close(self) -> None:
        if "store" in vars(self):
            self.store.close()

    async def edit(self, case: Case) -> Edit:
        messages, mark = request(self.config.mode, self.config.template, case)
        return read_reply(self.config.mode, self.config.template, await self._reply(messages), mark)

    async def score(self, prompt: str, response: str) -> Scores:
        """What each word does to a response's quality; words that aren't there are neutral.

        Raises:
            EditError, Faults: As `edit`.
        """
        messages, mark = score_request(prompt, response)
        return read_scores(await self._reply(messages), mark, len(words(response)))

    async def _reply(self, messages: list[dict[str, str]]) -> str:
        """What the endpoint says, now or when it was asked before."""
        settings: dict[str, Any] = {
            "model": self.config.model,
            "messages": messages,
            "temperature": self.config.temperature,
            "max_tokens": self.config.max_tokens,
        }
        key = request_key(version=VERSION, base_url=self.config.base_url, **settings)
        reply = self.store.get(key)
        if reply is None:
            reply = await self._ask(settings)
            self.store.put(key, reply)
        if reply["finish_reason"] == "length":
            raise EditError("cut off: the reply reached max_tokens")
        if not reply["content"]:
            raise EditError("empty reply")
        return reply["content"]

    async def _ask(self, settings: dict[str, Any]) -> dict[str, Any]:
        import openai

        where = f"editor at {self.config.base_url or 'api.openai.com'}"
        try:
            completion = await self.client.chat.completions.create(**settings)
        except openai.AuthenticationError:
            raise fail(where, f"refuses the key in {self.config.api_key_env}; set a valid one") from None
        except (openai.BadRequestError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            reason = _reason(error, self.client.api_key)
            if isinstance(error, openai.BadRequestError) and _ROW_FAULT.search(f"{error.code} {reason}"):
                raise EditError("endpoint refuses the pair: too long, or filtered") from None
            raise fail(where, f"refuses the request ({error.status_code}: {reason}); mend the recipe") from None
        except openai.APIConnectionError as error:
            if type(error.__cause__).__name__ == "ConnectError" and not self.reached:
                raise fail(where, "can't be reached; check base_url and that the server is up") from None
            raise EditError(f"endpoint failed: {type(error).__name__}") from None
        except (openai.APIError, ValueError) as error:  # ValueError: its reply is no JSON
            self.reached = True
            raise EditError(f"endpoint failed: {type(error).__name__}") from None
        self.reached = True
        if not isinstance(completion, openai.types.chat.ChatCompletion):
            raise fail(where, "answers with something else than a chat completion; does base_url lack its /v1?")
        if not completion.choices or not completion.choices[0].message:
            raise EditError("endpoint failed: no choices in its reply")
        choice = completion.choices[0]
        return {
            "content": choice.message.content or "",
            "finish_reason": choice.finish_reason,
            "usage": completion.usage.model_dump() if completion.usage else None,
        }


def api_key(variable: str) -> str:
    """The key that an environment variable holds.

    Raises:
        Faults: It holds none.
    """
    key = os.environ.get(variable)
    if not key:
        what = "is not set; export the endpoint's key (a server without keys takes any word), or name another variable"
        raise fail(f"environment variable {variable}", f"{what} with api_key_env")
    return key


def _reason(error: Any, key: str) -> str:
    """What the endpoint says of its refusal; some repeat the key."""
    body = error.body if isinstance(error.body, dict) else {}
    return str(body.get("message") or error.message).replace(key, "…")[:200]
