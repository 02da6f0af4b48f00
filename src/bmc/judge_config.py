"""The recipe of the judging stage (`scripts/judge.py`), as a dataclass; `bmc.config` has those of the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from .config import AskingArguments, Positive, StageArguments


@dataclass(kw_only=True)
class JudgeConfig(AskingArguments, StageArguments):
    """Recipe of `scripts/judge.py`: an evaluation's responses against a reference's, by the judge of the benchmark.

    Attributes:
        benchmark: `alpaca_eval` (AlpacaEval 2; extra `eval`) or `arena_hard` (Arena-Hard v0.1); decides the prompt.
        responses: Folder of the evaluation.
        reference: The reference's answers in the benchmark's own form: a file, or `hf://datasets/OWNER/NAME/FILE`.
        limit: Judge only the first so many of the reference's rows.
    """

    STAGE: ClassVar = "judge"

    benchmark: Literal["alpaca_eval", "arena_hard"]
    responses: str
    reference: str
    limit: Positive | None = None

    def lacks(self, reply: dict[str, Any]) -> str | None:
        """AlpacaEval reads log-probabilities, which some servers leave out without a word."""
        if self.benchmark == "alpaca_eval" and not reply.get("first_token"):
            return "the reply has no `logprobs`, by which AlpacaEval weighs a verdict"
        return None

    def request(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        """AlpacaEval weighs its judge's verdict by the log-probabilities of its first token."""
        weighed = {"logprobs": True, "top_logprobs": 5} if self.benchmark == "alpaca_eval" else {}
        return super().request(messages) | weighed
