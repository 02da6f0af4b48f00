"""The recipe of the bridging stage (`scripts/bridge.py`), as dataclasses; `bmc.config` has those of the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .config import STRICT, AskingArguments, DataArguments, Fraction, Positive, StageArguments

OFFLINE = ("rules", "ideal", "sloppy")  # editors that ask no model
BridgeMode = Literal["targeted", "without_reference", "degrade", "fresh", "polish", "token_scores"]


@dataclass(kw_only=True)
class ValidatorSettings:
    """What an edit must be before it is trained on (`bmc.bridging.validate`). "Made of" is y_l, or y_w for `degrade`
    and `polish`; lengths and distances are in characters, edit ratios as in the data (0: equal, 1: nothing in common).

    Attributes:
        min_chars: Characters that an edit has at the least, whitespace around it aside.
        min_edit_ratio: An edit this close to the response that it is to stand against (0: equal) is the same; white
            space doesn't count.
        max_edit_ratio: An edit further than this from what it was made of is a rewrite, unless no more than this
            share of the words that it was made of is lost; 1 allows everything.
        copy_edit_ratio: An edit this close to the response that it was to learn from is a copy of it, …
        copy_min_original_ratio: … where y_w and y_l differ by more than this; where they differ by less, mending a few
            words may well end there. 1 allows copies.
        short_words: What was made of so few words may be replaced whole: no rewrite, copy or drift there. In scripts
            without spaces each character is a word.
        min_length_ratio: Length of an edit over that of the shorter of what it was made of and what it was to learn
            from, at the least; 0 allows everything.
        max_length_ratio: The same over the longer, at the most; null allows everything.
        refusal_window: Characters at the start in which a refusal ("I'm sorry, but I can't help …") counts; 0 allows
            refusals. Where y_w or y_l refuses, an edit may.
        meta_window: Characters at the start and at the end in which talk about the edit ("Here is the revised
            response") counts; 0 allows it. What y_w or y_l says is no such talk.
        cut_off: Turn down replies that reached `max_tokens`.
        final_answer: Check the final answer of QA and math rows against `answer`; where the verdict is "good", y_l's.
        delimiters: Reject the prompt's own tags, special tokens of chat templates and diff marks (`~~old~~`) that are
            in none of x, y_w, y_l.
    """

    min_chars: Positive = 1
    min_edit_ratio: Fraction = 0.0
    max_edit_ratio: Fraction = 0.6
    copy_edit_ratio: Fraction = 0.02
    copy_min_original_ratio: Fraction = 0.3
    short_words: Annotated[int, Field(ge=0)] = 3
    min_length_ratio: Fraction = 0.5
    max_length_ratio: Annotated[float, Field(ge=1.0)] | None = 2.0
    refusal_window: Annotated[int, Field(ge=0)] = 200
    meta_window: Annotated[int, Field(ge=0)] = 200
    cut_off: bool = True
    final_answer: bool = True
    delimiters: bool = True

    __pydantic_config__ = STRICT


@dataclass(kw_only=True)
class BridgeConfig(AskingArguments, StageArguments, DataArguments):
    """Recipe of `scripts/bridge.py`: (x, y_w, y_l) → (x, ỹ_w, y_l) (§3.1, Eq. 1), or what it is compared with.

    Pairs that were bridged before are taken as they were then: (x, y_w, y_l).

    Attributes:
        editor: `openai` (any OpenAI-compatible endpoint), `vllm` (extra `vllm`) or `transformers` (a model in this
            process), or `rules` (offline, closed tasks; `targeted` and `token_scores` only). `ideal` takes the right
            response nearest to y_l from the column `solutions`, and `sloppy` does so with the two faults below
            (`targeted` only; for experiments with generated data).
        editor_error_rate: Share of the pairs in which `sloppy` edits only half of what is wrong. Its final answers
            are wrong then: set `validators.final_answer` to false to keep them.
        editor_rewrite_rate: Share of the pairs in which `sloppy` takes the farthest right response instead.
        mode: What the editor does. `targeted`: y_l → ỹ_w with y_w as reference, the method. Table 3:
            `without_reference`, y_l → ỹ_w without y_w; `degrade`, y_w → ỹ_l, where y_l is wrong, for (y_w, ỹ_l).
            Controls: `fresh`, the editor's own answer to x as ỹ_w; `polish`, y_w → ỹ_w. DPO (EW): `token_scores`, no
            edit, but a weight for each token of (y_w, y_l), by the editor's scores of its words.
        template: Prompt of a model: `closed` is for QA and math and asks first whether y_l is good enough,
            where the editor sees both y_l and y_w; `instruction` does not.
        proportion: Share of the pairs to bridge, chosen by the hash of the id, so that 20 % lies within 40 %
            (Figure 3); the rest keep (y_w, y_l).
        on_failure: What becomes of a pair that the editor failed: `drop` it with the reason, or `keep_original`, (y_w,
            y_l) with `bridged` false. A pair with nothing to mend is dropped either way.
        limit: Try only the first so many pairs.
        tokenizer_name_or_path: Tokenizer of the model to be trained, whose tokens `token_scores` weighs (by
            `chat_template`, if that is not the tokenizer's own).
        validators: What an edit must be before it is trained on.
        similarity_model: Sentence-embedding model (a Hub id or a folder; extra `embeddings`) by which `stats.json`
            tells the cosine similarity of (y_w, ỹ_w) and (ỹ_w, y_l) too.
    """

    STAGE: ClassVar = "bridge"

    NON_IDENTITY_KEYS: ClassVar = AskingArguments.NON_IDENTITY_KEYS | {"similarity_model"}

    editor: Literal["openai", "vllm", "transformers", "rules", "ideal", "sloppy"] = "openai"
    editor_error_rate: Fraction = 0.0
    editor_rewrite_rate: Fraction = 0.0
    mode: BridgeMode = "targeted"
    template: Literal["closed", "instruction"] = "closed"
    proportion: Fraction = 1.0
    on_failure: Literal["drop", "keep_original"] = "drop"
    limit: Positive | None = None
    tokenizer_name_or_path: str | None = None
    validators: ValidatorSettings = field(default_factory=ValidatorSettings)
    similarity_model: str | None = None

    @property
    def endpoint(self) -> str | None:
        return super().endpoint if self.editor == "openai" else None

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        if self.temperature is None and self.editor in ("transformers", "vllm"):
            yield "temperature", f"is null, which editor: {self.editor} can't leave out; write 0.0"
        if self.batch_api and self.editor != "openai":
            yield "batch_api", f"editor: {self.editor} has no Batch API; leave it out, or set editor: openai"
        if self.editor in ("ideal", "sloppy") and self.mode != "targeted":
            yield "mode", f"editor: {self.editor} can't do {self.mode}; choose mode: targeted"
        for key in ("editor_error_rate", "editor_rewrite_rate"):
            if getattr(self, key) and self.editor != "sloppy":
                yield key, f"editor: {self.editor} doesn't read it; leave it out, or set editor: sloppy"
        if self.editor == "rules" and self.mode not in ("targeted", "token_scores"):
            yield "mode", f"editor: rules can't do {self.mode}; choose mode: targeted, or editor: openai"
        scores = self.mode == "token_scores"
        if scores and self.tokenizer_name_or_path is None:
            yield "tokenizer_name_or_path", "is missing; token_scores weighs the tokens of the model to be trained"
        if not scores and self.tokenizer_name_or_path is not None:
            yield "tokenizer_name_or_path", f"mode: {self.mode} doesn't read it; leave it out"
        if scores and self.proportion < 1:
            yield "proportion", "token_scores bridges no pairs; leave it out"
