"""An editor without a model, for closed tasks."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from rapidfuzz.distance import LCSseq, Levenshtein, Prefix

from ..errors import user_error
from ..evaluation.extraction import MARK, stated_answer, statement
from ..evaluation.maths import math_equal
from ..evaluation.qa import normalise, read_options, split_label
from ..evaluation.scoring import GRADERS, is_correct
from .edits import Edit, EditError, EditRequest, Scores
from .words import MOST, words

# A whole equation of integers: no part of a decimal, of a number with commas, or of a longer equation.
_EQUATION = re.compile(r"(?<![\w.])(?<!\d,)(-?\d+) ?([-+*/×]) ?(-?\d+) ?= ?(-?\d+)(?![\w.,]*\d)(?! ?[-+*/×^=] ?-?\d)")
_LONGER = re.compile(r"(?:[\w)%] ?[-+*/×^]|[\d)] ?=) ?\Z")
_TRUTHS = {"yes", "no", "true", "false"}  # options, but mostly other words where they stand in a sentence


# What `Edit.notes` may say, for the statistics.
TIDIED, REORDERED, Y_W_LAYOUT = "torn or doubled text dropped", "terms reordered", "written in y_w's layout"


class RuleEditor:
    """Edit y_l by rule, offline and at no cost.

    QA: mentions of the option that y_l wrongly chose become mentions of the right one, except on lines that y_w has,
    too, and so does its final answer. Math: wrong results of integer equations `a ∘ b = c` are recomputed and carried
    into the later steps. A running sum gets y_w's terms: from the other end where y_l does that rightly or is nearer to
    it, else in y_w's order, so that no order arises that neither writer uses. The final answer becomes the gold one.
    Wording and layout of y_l stay, unless no right text comes of them; then the steps are written in y_w's layout.
    Torn lines, doubled lines and all answers but the last go first. `Edit.notes` says what was done.

    No edit is needed where the final answer is right, and so is every equation, and nothing is torn or doubled.

    What it can't do: judge or repair an argument in words (after a swap of options, the sentence around may no longer
    be sensible, and yes, no, true and false are changed in the final answer only); read equations with decimals, units,
    brackets, unknowns or several operators; change a number outside an equation; invent a step that isn't a term of a
    sum. A pair that it can't bring to the gold answer is dropped with that reason. It is for tests, demonstrations and
    synthetic tasks; for real text use an LLM.
    """

    async def edit(self, case: EditRequest) -> Edit:
        if case.task not in GRADERS or case.answer is None:
            raise user_error(f"row {case.id}", "editor: rules edits only qa and math rows with an `answer`; use openai")
        text = tidy(case.rejected, case.chosen)
        notes = (TIDIED,) if text != case.rejected else ()
        right = is_correct(text, case.answer, case.task, case.prompt)
        found = steps(text)
        if right and (case.task == "qa" or all(step.holds for step in found)):
            if not notes:
                return Edit(None)
            if case.task == "qa" or not found or not _is_running(steps(case.chosen)):
                return Edit(text, notes)
        if case.task == "qa":
            options = [option for _, option in read_options(case.prompt)]
            return Edit(_edit_options(text, case.answer, options, case.chosen), notes)
        text, more = _edit_equations(text, case.chosen, case.answer)
        return Edit(text, notes + more)

    async def score(self, case: EditRequest) -> tuple[Scores, Scores]:
        """Score the words of y_w that state its answer 3, and those of y_l that an edit takes out or replaces −3."""
        edited = (await self.edit(case)).text
        return _answer_scores(case.chosen), {} if edited is None else _loss_scores(case.rejected, edited)


# --- torn and doubled text ------------------------------------------------------------------------------------------

_DAMAGE = re.compile("[\ufffd\x00-\x08\x0e-\x1f]")
_NUMBER = r"-?\d[\d,]*(?:\.\d+)?"
_EXPRESSION = re.compile(rf"\s*{_NUMBER}(?:\s?[-+*/×]\s?{_NUMBER})*\s*")
_BARE = re.compile(r"[\d\s.,;=+*/×-]*\d[\d\s.,;=+*/×-]*")  # nothing but arithmetic
_OPERATION = re.compile(r"[-+*/×=] ?\d|\d ?[-+*/×=]")
_TWICE = re.compile(r"(.{6,}?)(?:\s*\1)+")


def tidy(text: str, reference: str) -> str:
    """Drop what no writer means to write: torn lines, doubled ones, all answers but the last and what follows it."""
    known, lines = reference.split("\n"), list[str]()
    stacked = any(line.lstrip().startswith("=") for line in text.split("\n"))  # an equation on several lines
    for line in text.split("\n"):
        if (twice := _TWICE.fullmatch(line.strip())) and line not in known:
            line = twice[1]
        torn = line not in known and _is_torn(line, stacked)
        whole = [line[slice(*step.span)] for step in steps(line)] if torn else [line]
        lines += [part for part in whole if not _is_doubled(part, lines, known)]
    return _one_answer("\n".join(lines), reference)


def _is_doubled(line: str, before: list[str], known: list[str]) -> bool:
    """Return whether a line stands before, more often than in y_w.

    A step that adds nothing may come twice, and of answers the last one counts.
    """
    if not line.strip() or _marks(line) or any(step.left == step.result for step in steps(line)):
        return False
    return before.count(line) >= max(known.count(line), 1)


def _is_torn(line: str, stacked: bool) -> bool:
    """Return whether a line is damaged, or nothing but arithmetic that is no equation or a long one that doesn't
    hold."""
    if _DAMAGE.search(line):
        return True
    if not _BARE.fullmatch(line) or stacked:
        return False
    sums = [chunk.strip() for chunk in re.split(r"[,;.]\s+", line.strip(" .,;")) if _OPERATION.search(chunk)]
    return any(not _EQUATION.fullmatch(each) and not _holds(each) for each in sums)


def _holds(chain: str) -> bool:
    """Return whether `7 + 8 = 15 = 20 - 5` holds, or goes on from each result as `7 + 8 = 15 + 9 = 24` does."""
    sides = chain.split("=")
    if len(sides) < 2 or not all(_EXPRESSION.fullmatch(side) for side in sides):
        return False
    sides = [side.replace(",", "").replace("×", "*") for side in sides]
    values = [_value(side) for side in sides]
    starts = [_value(re.match(rf"\s*{_NUMBER}", side)[0]) for side in sides]  # type: ignore[index]
    joints = [*starts[1:-1], values[-1]]
    return all(left in (right, whole) for left, right, whole in zip(values, joints, values[1:], strict=False))


def _value(expression: str) -> Fraction | None:
    """Compute an expression of numbers and `+ - * /`; None where it divides by 0."""
    tokens, signed = re.findall(r"\d+(?:\.\d+)?|[-+*/]", expression), list[Fraction]()
    sign, operator = 1, "+"
    for token in tokens:
        if token == "-" and operator == "":
            operator = "-"
        elif token in "+*/-":
            sign = -sign if token == "-" and operator else sign
            operator = operator or token
        else:
            number = sign * Fraction(token)
            if operator in "*/" and signed:
                if operator == "/" and not number:
                    return None
                signed[-1] = signed[-1] * number if operator == "*" else signed[-1] / number
            else:
                signed.append(-number if operator == "-" else number)
            sign, operator = 1, ""
    return sum(signed, Fraction())


def _one_answer(text: str, reference: str) -> str:
    """Drop all statements of an answer but the last, and what follows that where nothing follows y_w's."""
    if len(_marks(text)) > 1 and len(_marks(reference)) < 2:
        last = _marks(text)[-1].start()
        before = [line[: marks[0].start()] if (marks := _marks(line)) else line for line in text[:last].split("\n")]
        marked = [bool(_marks(line)) for line in text[:last].split("\n")]
        kept = [line for line, cut in zip(before, marked, strict=True) if not cut or line.strip()]
        if marked[-1]:  # on one line with the last
            kept = [*kept, ""] if not before[-1].strip() else kept
        text = "\n".join(kept) + text[last:]
    ours, theirs = statement(text), statement(reference)
    if ours and theirs and not reference[theirs[1] :].strip():
        text = text[: ours[1]] + ("\n" if text.endswith("\n") and text[ours[1] :].strip() == "" else "")
    return text


# --- scores of words ------------------------------------------------------------------------------------------------


def _answer_scores(text: str) -> Scores:
    marks = _marks(text)
    if not marks:
        return {}
    start, line = marks[-1].end(), text[marks[-1].end() :].partition("\n")[0]
    return {n: MOST for n, span in enumerate(words(text), start=1) if start <= span[0] < start + len(line)}


def _loss_scores(text: str, edited: str) -> Scores:
    before, after = ([version[start:end] for start, end in words(version)] for version in (text, edited))
    changes = Levenshtein.opcodes(before, after)
    return {
        n + 1: -MOST for change in changes if change.tag != "equal" for n in range(change.src_start, change.src_end)
    }


# --- options --------------------------------------------------------------------------------------------------------


def _edit_options(text: str, gold: str, options: list[str], reference: str = "") -> str:
    """Write the gold option wherever y_l named the one it chose; longer options around that one's words stay.

    Lines that y_w has, too, stay as they are: what they say of the wrong option is right.
    """
    _, wrong = split_label((stated_answer(text) or "").strip(" ."))
    key = normalise(wrong)
    if wrong and key not in _TRUTHS and (not options or key in map(normalise, options)):
        phrases = sorted({MARK, wrong, gold, *filter(None, options)}, key=len, reverse=True)
        mention = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, phrases))})(?!\w)", re.IGNORECASE)
        known = set(reference.split("\n"))

        def renamed(found: re.Match[str]) -> str:
            return _in_case_of(found[0], gold) if found[0].lower() == wrong.lower() else found[0]

        text = "\n".join(line if line in known else mention.sub(renamed, line) for line in text.split("\n"))
    return set_final_answer(text, gold)


def _in_case_of(mention: str, option: str) -> str:
    """Capitalise the option where the mention that it replaces was and it isn't itself."""
    return option[:1].upper() + option[1:] if mention[:1].isupper() else option


def set_final_answer(text: str, answer: str) -> str:
    """Replace the answer that a text states last, or add a line that states it."""
    span = statement(text)
    if span is None:
        return f"{text.rstrip()}\n{MARK} {answer}"
    said = text[slice(*span)]
    space = said[: len(said) - len(said.lstrip())] or " "
    stop = "." if said.rstrip().endswith(".") and not answer.endswith(".") else ""
    return f"{text[: span[0]].rstrip(' ')}{space}{answer}{stop}{text[span[1] :]}"


def _marks(text: str) -> list[re.Match[str]]:
    """Where a text states an answer."""
    return list(re.finditer(rf"{re.escape(MARK)}:?", text, re.IGNORECASE))


@dataclass(frozen=True)
class Equation:
    """An equation `left ∘ right = result` and where it stands in its text."""

    left: int
    operator: str
    right: int
    result: int
    span: tuple[int, int]

    @property
    def value(self) -> int | None:
        """left ∘ right; None if that is no integer."""
        if self.operator == "/":
            exact = self.right != 0 and self.left % self.right == 0
            return self.left // self.right if exact else None
        if self.operator in "*×":
            return self.left * self.right
        return self.left + self.right if self.operator == "+" else self.left - self.right

    @property
    def term(self) -> int:
        """What the step adds to a running sum."""
        return -self.right if self.operator == "-" else self.right

    @property
    def holds(self) -> bool:
        return self.value == self.result


def steps(text: str) -> list[Equation]:
    """Return the integer equations of a text, in its order."""
    return [
        Equation(int(m[1]), m[2], int(m[3]), int(m[4]), m.span())
        for m in _EQUATION.finditer(text)
        if _is_whole(text, m.start())
    ]


def _is_whole(text: str, start: int) -> bool:
    """Return whether an equation begins there, and not in the middle of `3 + 4 + 5 = 12` or `5 -3 + 4 = 6`."""
    before = text[max(start - 4, 0) : start]
    return not _LONGER.search(before) and not (text[start] == "-" and re.search(r"[\d)] ?\Z", before))


def _edit_equations(text: str, reference: str, gold: str) -> tuple[str, tuple[str, ...]]:
    """Make y_l's equations right, and the gold answer its last."""
    found, right = steps(text), steps(reference)
    edited, notes = list[Equation](), tuple[str, ...]()
    if _is_sum(found) and _is_running(right):
        edited, notes = _edit_sum(found, right)
    if not _comes_to(edited, gold):
        edited, notes = _carry(found), ()
    if not _comes_to(edited, gold):
        raise EditError("rules: its steps can't be brought to the gold answer")
    for base, old, said in ((text, found, ()), (reference, right, (Y_W_LAYOUT,))):
        written = set_final_answer(_write_into(base, old, edited), gold)
        if [*map(_write, steps(written))] == [*map(_write, edited)] and tidy(written, reference) == written:
            return written, notes + said
    raise EditError("rules: its steps don't stand on lines of their own")


def _write_into(text: str, found: list[Equation], edited: list[Equation]) -> str:
    """Write steps in the places of a text's own; what stays the same stays as it was written."""
    layout = text
    for old, new in reversed(list(zip(found, edited, strict=False))):
        if _write(old) != _write(new):
            start, end = old.span
            written = _write(new) if " " in text[start:end] else _write(new).replace(" ", "")
            layout = layout[:start] + written + layout[end:]
    return _fit_length(layout, found, edited) if found else layout


def _comes_to(edited: list[Equation], gold: str) -> bool:
    return bool(edited) and math_equal(str(edited[-1].result), gold)


def _write(step: Equation) -> str:
    return f"{step.left} {step.operator} {step.right} = {step.result}"


def _carry(found: list[Equation]) -> list[Equation]:
    """Recompute each result, and renew each operand that was an earlier step's result."""
    renewed: dict[int, int] = {}
    edited = []
    for step in found:
        left, right = renewed.get(step.left, step.left), renewed.get(step.right, step.right)
        new = Equation(left, step.operator, right, step.result, step.span)
        if new.value is None:
            raise EditError("rules: a step has no whole result")
        renewed[step.result] = new.value
        edited.append(Equation(left, step.operator, right, new.value, step.span))
    return edited


def _is_sum(found: list[Equation]) -> bool:
    """Return whether the steps add and subtract one term after the other."""
    return bool(found) and all(step.operator in "+-" for step in found)


def _terms(found: list[Equation]) -> list[int]:
    """Return the signed terms of a running sum."""
    return [found[0].left, *(step.term for step in found)]


def _is_running(found: list[Equation]) -> bool:
    """Return whether the steps are right and each goes on from the result before it."""
    goes_on = all(step.left == before.result for before, step in pairwise(found))
    return _is_sum(found) and goes_on and all(step.holds for step in found)


def _edit_sum(found: list[Equation], reference: list[Equation]) -> tuple[list[Equation], tuple[str, ...]]:
    """Sum y_w's terms in its order, or from the other end where y_l does.

    y_l is read as from the other end where its first step is right that way, or its terms are nearer to that order.
    Terms with a minus are turned round only where y_l's first step is.
    """
    said, order = _terms(found), _terms(reference)
    turned = order[::-1]
    starts = [Prefix.similarity(said, each) for each in (order, turned)]
    away = [Levenshtein.distance(said, each) for each in (order, turned)]
    if max(starts) >= 2 and starts[0] != starts[1]:
        turn = starts[1] > starts[0]
    else:
        turn = away[1] < away[0] and min(order) >= 0
    total, *rest = turned if turn else order
    edited = []
    for place, term in enumerate(rest):
        operator, right = ("-" if term < 0 else "+"), abs(term)
        if place < len(found) and found[place].term == term:  # `+ -3` stays `+ -3`
            operator, right = found[place].operator, found[place].right
        edited.append(Equation(total, operator, right, total + term, (0, 0)))
        total += term
    shared = sum((Counter(said) & Counter(order)).values())
    reordered = LCSseq.similarity(said, turned if turn else order) < shared
    return edited, (REORDERED,) if reordered else ()


def _fit_length(text: str, found: list[Equation], edited: list[Equation]) -> str:
    """Add the steps that the text lacked after its last equation's line, or cut the lines of those too many."""
    places = [step.span for step in steps(text)]
    if len(edited) > len(found):
        added = "\n".join(_write(step) for step in edited[len(found) :])
        end = places[-1][1]
        line = text[end:].partition("\n")[0]
        answer = line.lower().find(MARK.lower())
        if answer >= 0:  # the answer stands on the same line: the steps go before it
            return f"{text[:end]}{line[:answer].rstrip()}\n{added}\n{text[end + answer :]}"
        end += len(line)
        return f"{text[:end]}\n{added}{text[end:]}"
    surplus = {text.count("\n", 0, start) for start, _ in places[len(edited) :]}
    return "\n".join(line for number, line in enumerate(text.split("\n")) if number not in surplus)
