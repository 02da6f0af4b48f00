"""An editor without a model, for closed tasks."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from ..errors import user_error
from ..evaluation.extraction import MARK, stated_answer, statement
from ..evaluation.maths import math_equal
from ..evaluation.qa import normalise, read_options, split_label
from ..evaluation.scoring import GRADERS, is_correct
from .token_scores import LIMIT
from .types import Edit, EditError, EditRequest, Scores
from .words import words

# A whole equation of integers: no part of a decimal, of a number with commas, or of a longer equation.
_EQUATION = re.compile(r"(?<![\w.])(?<!\d,)(-?\d+) ?([-+*/×]) ?(-?\d+) ?= ?(-?\d+)(?![\w.,]*\d)(?! ?[-+*/×^=] ?-?\d)")
_LONGER = re.compile(r"(?:[\w)%] ?[-+*/×^]|[\d)] ?=) ?\Z")
_TRUTHS = {"yes", "no", "true", "false"}  # options, but mostly other words where they stand in a sentence


class RuleEditor:
    """Mends y_l by rule, offline and for nothing.

    QA: mentions of the option that y_l wrongly chose become mentions of the right one, and so does its final answer.
    Math: wrong results of integer equations `a ∘ b = c` are recomputed and carried into the later steps; in a running
    sum, terms that the reference doesn't have are replaced by those that it has; the final answer becomes the
    gold one. Wording, order and layout of y_l stay.

    y_l is good enough if its final answer is right and so is every equation in it.

    What it can't do: judge or repair an argument in words (after a swap of options, the sentence around may no longer
    be sensible, and yes, no, true and false are changed in the final answer only); read equations with decimals, units,
    brackets, unknowns or several operators; change a number outside an equation; invent a step that isn't a term of a
    sum. A pair that it can't bring to the gold answer is dropped with that reason. It is for tests, demonstrations and
    synthetic tasks; for real text use an LLM.
    """

    def close(self) -> None:
        """Nothing is held."""

    async def edit(self, case: EditRequest) -> Edit:
        if case.task not in GRADERS or case.answer is None:
            raise user_error(f"row {case.id}", "editor: rules mends only qa and math rows with an `answer`; use openai")
        right = is_correct(case.rejected, case.answer, case.task, case.prompt)
        if case.task == "qa":
            options = [text for _, text in read_options(case.prompt)]
            return Edit(None if right else _mend_options(case.rejected, case.answer, options))
        if right and all(step.holds for step in steps(case.rejected)):
            return Edit(None)
        return Edit(_mend_equations(case.rejected, case.chosen, case.answer))

    async def score(self, case: EditRequest) -> tuple[Scores, Scores]:
        """The words of y_w that state its answer score 3, those of y_l that mending takes out or replaces −3."""
        mended = (await self.edit(case)).text
        return _answer_scores(case.chosen), {} if mended is None else _loss_scores(case.rejected, mended)


def _answer_scores(text: str) -> Scores:
    marks = _marks(text)
    if not marks:
        return {}
    start, line = marks[-1].end(), text[marks[-1].end() :].partition("\n")[0]
    return {n: LIMIT for n, span in enumerate(words(text), start=1) if start <= span[0] < start + len(line)}


def _loss_scores(text: str, mended: str) -> Scores:
    before, after = ([version[start:end] for start, end in words(version)] for version in (text, mended))
    changes = Levenshtein.opcodes(before, after)
    return {
        n + 1: -LIMIT for change in changes if change.tag != "equal" for n in range(change.src_start, change.src_end)
    }


def _mend_options(text: str, gold: str, options: list[str]) -> str:
    """y_l with the gold option wherever it named the one it chose; longer options around that one's words stay."""
    _, wrong = split_label((stated_answer(text) or "").strip(" ."))
    key = normalise(wrong)
    if wrong and key not in _TRUTHS and (not options or key in map(normalise, options)):
        phrases = sorted({MARK, wrong, gold, *filter(None, options)}, key=len, reverse=True)
        mention = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, phrases))})(?!\w)", re.IGNORECASE)
        text = mention.sub(
            lambda found: _in_case_of(found[0], gold) if found[0].lower() == wrong.lower() else found[0], text
        )
    return state(text, gold)


def _in_case_of(mention: str, option: str) -> str:
    """The option, capitalised where the mention that it replaces was and it isn't itself."""
    return option[:1].upper() + option[1:] if mention[:1].isupper() else option


def state(text: str, answer: str) -> str:
    """The text with the answer that it states last replaced, or with a last line that states it."""
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
class Step:
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


def steps(text: str) -> list[Step]:
    """The integer equations of a text, in its order."""
    return [
        Step(int(m[1]), m[2], int(m[3]), int(m[4]), m.span())
        for m in _EQUATION.finditer(text)
        if _is_whole(text, m.start())
    ]


def _is_whole(text: str, start: int) -> bool:
    """Whether an equation begins there, and not in the middle of `3 + 4 + 5 = 12` or `5 -3 + 4 = 6`."""
    before = text[max(start - 4, 0) : start]
    return not _LONGER.search(before) and not (text[start] == "-" and re.search(r"[\d)] ?\Z", before))


def _mend_equations(text: str, reference: str, gold: str) -> str:
    """y_l with its equations right, and the gold answer at its end.

    Raises:
        EditError: Its last equation doesn't come to the gold answer even so.
    """
    found, right = steps(text), steps(reference)
    mended = _mend_sum(found, right) if _is_sum(found) and _is_sum(right) else []
    if not _comes_to(mended, gold):
        mended = _carry(found)
    if not _comes_to(mended, gold):
        raise EditError("rules: its steps can't be brought to the gold answer")
    for old, new in reversed(list(zip(found, mended, strict=False))):
        if _write(old) != _write(new):
            start, end = old.span
            written = _write(new) if " " in text[start:end] else _write(new).replace(" ", "")
            text = text[:start] + written + text[end:]
    text = state(_fit_length(text, found, mended), gold)
    if [*map(_write, steps(text))] != [*map(_write, mended)]:
        raise EditError("rules: its steps don't stand on lines of their own")
    return text


def _comes_to(mended: list[Step], gold: str) -> bool:
    return bool(mended) and math_equal(str(mended[-1].result), gold)


def _write(step: Step) -> str:
    return f"{step.left} {step.operator} {step.right} = {step.result}"


def _carry(found: list[Step]) -> list[Step]:
    """Each result recomputed, and each operand that was an earlier step's result renewed with it."""
    renewed: dict[int, int] = {}
    mended = []
    for step in found:
        left, right = renewed.get(step.left, step.left), renewed.get(step.right, step.right)
        new = Step(left, step.operator, right, step.result, step.span)
        if new.value is None:
            raise EditError("rules: a step has no whole result")
        renewed[step.result] = new.value
        mended.append(Step(left, step.operator, right, new.value, step.span))
    return mended


def _is_sum(found: list[Step]) -> bool:
    """Whether the steps add and subtract one term after the other."""
    return bool(found) and all(step.operator in "+-" for step in found)


def _terms(found: list[Step]) -> list[int]:
    """The signed terms of a running sum."""
    return [found[0].left, *(step.term for step in found)]


def _mend_sum(found: list[Step], reference: list[Step]) -> list[Step]:
    """A running sum of the reference's terms in the order of y_l's: wrong terms are replaced, missing ones added."""
    missing = Counter(_terms(reference))
    kept = [(term, _take(missing, term)) for term in _terms(found)]
    wanted = [term for term in _terms(reference) if _take(missing, term)]
    terms = []
    for term, keep in kept:
        if keep:
            terms.append(term)
        elif wanted:
            terms.append(wanted.pop(0))
    total, *rest = [*terms, *wanted]
    mended = []
    for place, term in enumerate(rest):
        operator, right = ("-" if term < 0 else "+"), abs(term)
        if place < len(found) and found[place].term == term:  # `+ -3` stays `+ -3`
            operator, right = found[place].operator, found[place].right
        mended.append(Step(total, operator, right, total + term, (0, 0)))
        total += term
    return mended


def _take(counts: Counter[int], term: int) -> bool:
    """Takes one of a term out of the counts, if there is one."""
    if counts[term] <= 0:
        return False
    counts[term] -= 1
    return True


def _fit_length(text: str, found: list[Step], mended: list[Step]) -> str:
    """Adds the steps that the text lacked after its last equation's line, or cuts the lines of those too many."""
    places = [step.span for step in steps(text)]
    if len(mended) > len(found):
        added = "\n".join(_write(step) for step in mended[len(found) :])
        end = places[-1][1]
        line = text[end:].partition("\n")[0]
        answer = line.lower().find(MARK.lower())
        if answer >= 0:  # the answer stands on the same line: the steps go before it
            return f"{text[:end]}{line[:answer].rstrip()}\n{added}\n{text[end + answer :]}"
        end += len(line)
        return f"{text[:end]}\n{added}{text[end:]}"
    surplus = {text.count("\n", 0, start) for start, _ in places[len(mended) :]}
    return "\n".join(line for number, line in enumerate(text.split("\n")) if number not in surplus)
