"""Bridge one pair: request an edit, validate it, retry once; or request scores and turn them into token weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from ..config import BridgeConfig, BridgeMode, ValidatorSettings
from ..data.schema import SIDES, WEIGHTS, Row, content, hash_fraction, transcript, with_content
from ..data.tokenization import AlignmentError, align_response, response_start
from ..llm.client import CachedClient, Completion, off_loop
from ..llm.errors import RequestFailed
from .edits import Edit, EditError, Editor, EditRejected, EditRequest, NoEditNeeded, Scores
from .prompts import SCORING, Messages, Prompt, edit_prompt, read_reply, request, score_request
from .validators import EditCandidate, edit_ratio, first_rejection, is_truncated, refused_reply, wrong_verdict
from .words import read_scores, token_weights, words

Result = TypeVar("Result")


class BridgedPair(Row):
    """A pair, and what the statistics want to know of it that its columns don't tell."""

    # why the first edit was rejected, where it took a second; of both requests, for scores
    rejected_edit: str | None = None
    failure: str | None = None  # why there is no edit, where the pair is kept as it was all the same
    notes: tuple[str, ...] = ()  # what the rule editor did


async def bridge_pair(row: Row, editor: Editor | CachedClient, settings: BridgeConfig) -> Row:
    """Give a pair the editor's ỹ_w (for `degrade` ỹ_l), or leave it as it is if it lies outside the proportion.

    Raises:
        EditError: No edit passes validation; the message says why.
        UserErrors: The run can't go on.
    """
    check_editable(row)
    case = edit_request(row)
    if isinstance(editor, Editor):
        edit = await editor.edit(case)
        if settings.editor == "person":  # the edit isn't what it may be made of
            case = replace(case, chosen=case.rejected)
        edit, rejected_edit = await off_loop(_size(case), _validated, edit, case, settings, None), None
    else:
        edit, rejected_edit = await _request_edit(editor, case, settings)
    if edit.text is None:
        good = NoEditNeeded()
        good.rejected_edit = rejected_edit
        raise good
    text = edit.text if hash_fraction(row["id"]) < settings.proportion else None
    pair = await off_loop(len(case.rejected) + len(edit.text), bridged_pair, row, text, settings.mode)
    pair.rejected_edit, pair.notes = rejected_edit, edit.notes if pair["bridged"] else ()
    if pair["bridged"]:
        pair |= {"rationale": edit.rationale} if edit.rationale else {}
        pair |= {"editor": "person"} if settings.editor == "person" else {}
    return pair


def check_editable(row: Row) -> None:
    """Refuse responses of which the editor could change a part only: it is shown, and writes, one text.

    Raises:
        EditError: A response is several messages, or a tool call. Equal turns are the prompt's by now.
    """
    for name, side in (("y_w", row.get("chosen")), ("y_l", row["rejected"])):
        if side is None or isinstance(side, str):
            continue
        if len(side) > 1:
            raise EditError("responses of several messages differ before the last one")
        if side[0].get("tool_calls"):
            raise EditError(f"{name} is a tool call, which has no text to edit")


def edit_request(row: Row) -> EditRequest:
    """Return a pair as an editor sees it."""
    reference = row.get("chosen")
    return EditRequest(
        id=row["id"],
        task=row.get("task") or "chat",
        prompt=transcript(row["prompt"]),
        chosen=content(row["rejected"] if reference is None else reference),
        rejected=content(row["rejected"]),
        answer=None if row.get("answer") is None else str(row["answer"]),
        solutions=tuple(row.get("solutions") or ()),
        feedback=feedback_of(row),
        has_reference=reference is not None,
    )


def feedback_of(row: Row) -> str | None:
    """Return the note on what is wrong with y_l, the notes of several people one a line; None where there is none."""
    given = row.get("feedback")
    return "\n".join(filter(None, map(str.strip, given))) if isinstance(given, list) else given


class PersonEditor:
    """Take y_w for what a person made of y_l."""

    async def edit(self, case: EditRequest) -> Edit:
        return Edit(case.chosen)

    async def score(self, case: EditRequest) -> tuple[Scores, Scores]:
        raise EditError("editor: person scores no words")


async def _request_edit(client: CachedClient, case: EditRequest, settings: BridgeConfig) -> tuple[Edit, str | None]:
    prompt = edit_prompt(settings.mode, settings.template, settings.rationale, case)
    messages, mark = await off_loop(_size(case), request, prompt, case)
    rationale: str | None = None

    def read(reply: Completion) -> Edit:
        nonlocal rationale
        try:
            edit = read_reply(prompt, _whole(reply, settings.validators), mark)
            rationale = edit.rationale or rationale  # the second reply may leave it out
        except EditRejected as error:
            found = refused_reply(reply, case, settings.validators)
            raise EditRejected(found) if found else error from None
        return _validated(replace(edit, rationale=rationale), case, settings, mark)

    return await request_with_retry(client, prompt, messages, mark, read)


def _size(case: EditRequest) -> int:
    return len(case.prompt) + len(case.chosen) + len(case.rejected)


def _validated(edit: Edit, case: EditRequest, settings: BridgeConfig, mark: str | None) -> Edit:
    """Return the edit, or the verdict that none is needed, if no check speaks against it."""
    if edit.text is None:
        found = wrong_verdict(case, settings.validators)
    else:
        found = first_rejection(EditCandidate(edit.text, case, settings.mode, mark), settings.validators)
    if found:
        raise EditRejected(found)
    return edit


def _whole(reply: Completion, limits: ValidatorSettings) -> str:
    """Return the text of a reply unless it was cut off."""
    found = is_truncated(reply, limits)
    if found:
        raise EditRejected(found)
    return reply.text


async def request_with_retry(
    client: CachedClient, prompt: Prompt, messages: Messages, mark: str, read: Callable[[Completion], Result]
) -> tuple[Result, str | None]:
    """Request a reply and read it; if it is rejected, request it once more with the reason.

    Raises:
        EditError: The last reply is rejected, too, or there is none.
        UserErrors: The run can't go on.
    """
    reply = await _complete(client, messages)
    try:
        return await off_loop(len(reply.text), read, reply), None
    except EditRejected as error:
        first = error
    try:
        more = await off_loop(len(reply.text), prompt.again, reply.text, first.advice, mark)
        second = await _complete(client, [*messages, *more])
        return await off_loop(len(second.text), read, second), str(first)
    except EditError as error:
        error.rejected_edit = str(first)
        raise


async def _complete(client: CachedClient, messages: Messages) -> Completion:
    try:
        return await client.complete(messages)
    except RequestFailed as error:
        raise EditError(str(error)) from None


def bridged_pair(row: Row, text: str | None, mode: BridgeMode) -> BridgedPair:
    """Put ỹ_w into a row as `chosen` (for `degrade` ỹ_l as `rejected`), or leave both responses as they were where it
    is to stay unbridged (Figure 3).
    """
    side = edited_side(mode)
    # `degrade` edits y_w, so that ỹ_l has y_w's form; and so have the chosen responses, which stand for it
    made = {} if text is None else {side: with_content(row.get("chosen") or row["rejected"], text)}
    originals = {f"original_{name}": row[name] for name in dict.fromkeys(["chosen", side]) if name in row}
    return _finished({**row, **made}, bridged=text is not None, **originals)


def keep_unbridged(row: Row, failure: EditError, mode: BridgeMode) -> BridgedPair:
    """Keep the row as it was, in spite of a failure (`on_failure: keep_original`)."""
    pair = bridged_pair(row, None, mode)
    pair.rejected_edit, pair.failure = failure.rejected_edit, str(failure)
    return pair


def edited_side(mode: BridgeMode) -> str:
    """Name the column that holds the edit."""
    return "rejected" if mode == "degrade" else "chosen"


async def scored_pair(row: Row, editor: Editor | CachedClient, tokenizer: Any, settings: BridgeConfig) -> Row:
    """Add `chosen_weights` and `rejected_weights` to a pair: λ of each response token as `trl.DPOTrainer` has them.

    Raises:
        EditError: The scores can't be used, or the chat template hides the words; the message says why.
        UserErrors: The run can't go on.
    """
    case, rejected_edit = edit_request(row), None
    try:
        tokens, start = await off_loop(_size(case), _tokens, tokenizer, row)
    except AlignmentError as error:
        raise EditError(str(error)) from None
    if isinstance(editor, Editor):
        scores = await editor.score(case)
    else:
        scores, rejected_edit = await _request_scores(editor, case, settings.validators)
    weights = {
        column: token_weights(content(row[side]), of_side, tokens[side].spans[start:], sign)
        for side, column, of_side, sign in zip(SIDES, WEIGHTS, scores, (1, -1), strict=True)
    }
    pair = _finished(row, bridged=False, original_chosen=row["chosen"], **weights)
    pair.rejected_edit = rejected_edit
    return pair


def _tokens(tokenizer: Any, row: Row) -> tuple[dict[str, Any], int]:
    """Return the tokens of both sides, and where the response starts in them."""
    tokens = {side: align_response(tokenizer, row, row[side]) for side in SIDES}
    return tokens, response_start(tokenizer, row, *(sequence.ids for sequence in tokens.values()))


async def _request_scores(
    client: CachedClient, case: EditRequest, limits: ValidatorSettings
) -> tuple[tuple[Scores, Scores], str | None]:
    """Request the scores of y_w and of y_l; return why the first reply to one of them was rejected, if it was, too."""

    async def of(response: str) -> tuple[Scores, str | None]:
        messages, mark = await off_loop(_size(case), score_request, case.prompt, response)

        def read(reply: Completion) -> Scores:
            return read_scores(SCORING.between_tags(_whole(reply, limits), mark), len(words(response)))

        return await request_with_retry(client, SCORING, messages, mark, read)

    chosen, rejected_edit = await of(case.chosen)
    try:
        rejected, later = await of(case.rejected)
    except EditError as error:
        error.rejected_edit = error.rejected_edit or rejected_edit
        raise
    return (chosen, rejected), rejected_edit or later


def _finished(pair: Row, **added: Any) -> BridgedPair:
    """Drop empty columns of a pair and add what bridging adds."""
    ratio = edit_ratio(content(pair["chosen"]), content(pair["rejected"]))
    kept = {key: value for key, value in pair.items() if value is not None}
    return BridgedPair(kept | {"edit_ratio": round(ratio, 4), **added})
