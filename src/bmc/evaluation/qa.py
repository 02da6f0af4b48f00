"""Equality of short answers in words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation

MAX_LENGTH = 600  # of an answer that is read; what follows isn't

_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—−﹣－", "-"))
_RAISED = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿ]+)")
_FRACTION = re.compile("(?<=[0-9])(?=[¼½¾⅐-⅞])")  # `1½` is no `11/2`
_QUOTES = "'\"‘’‚‛“”„‟«»‹›`´"
_TIGHT = re.compile(r"\s*([+=<>^/%$°×÷±])\s*")  # signs that mean the same with and without spaces
_ARTICLE = re.compile(r"(?:a|an|the) (?=.)")
_LABEL = re.compile(
    r"(?:(?:option|choice|answer)\s+)?(?:\(([A-Za-z]|\d)\)|([A-Za-z]|\d)\s?[).:]|([A-Z])\s-)\s+(?=\S)", re.IGNORECASE
)
_CHOICE = re.compile(r"(?:(?:option|choice|answer)\s+)?\(?([A-Za-z]|\d)\s?[).:]?\s*", re.IGNORECASE)
_REASON = re.compile(
    r",?\s+(?:because|since|due to)\s.*|,\s+(?:not|which|as|rather than|instead of)\s.*"
    r"|\s[-–—]\s.*|\s*\([^()]*\)[.]?$|[,;]$",
    re.IGNORECASE | re.DOTALL,
)
_SENTENCE = re.compile(r"(?:(?<=[^\W_.]{2})|(?<=[\d)\"'*”]))[.!]\s+(?=[A-Z*\"“])|\n+")
_RETRACTION = re.compile(
    r"\W*(?:no\b|wait|actually|sorry|but|or\b|however|hmm|alternatively|correction|oops|scratch)", re.IGNORECASE
)


def qa_equal(answer: str, gold: str) -> bool:
    """Whether an answer in words is the gold one.

    Case, quotes, brackets, commas and full stops don't count; signs, decimal points, `:`, `/`, symbols and letters'
    marks do. An option's label before the answer ("B. money"), and a reason or further sentences after it, may stand
    there.

    Args:
        answer: An extracted answer.
        gold: The answer that it must equal.
    """
    if answer.strip() == gold.strip():
        return bool(gold.strip())
    answer, gold = answer[:MAX_LENGTH], gold[:MAX_LENGTH]
    if not normalise(gold):
        return answer.strip().strip(_QUOTES) == gold.strip().strip(_QUOTES) and bool(gold.strip())
    label = _CHOICE.fullmatch(gold.strip())
    if label:
        said = _LABEL.match(answer.strip()) or _CHOICE.fullmatch(answer.strip())
        letter = next(filter(None, said.groups()), "") if said else ""
        return letter.casefold() == label[1].casefold() or _same(answer, gold)
    return any(_same(reading, gold) for reading in _readings(answer))


def _readings(answer: str) -> Iterator[str]:
    """What an answer may say: all of it, or without a label, a reason, and the sentences after the first."""
    yield answer
    first = _SENTENCE.split(answer.strip(), maxsplit=1)
    if len(first) > 1 and not _RETRACTION.match(first[1]):
        answer = first[0]
        yield answer
    if label := _LABEL.match(answer.strip("* ")):
        answer = answer.strip("* ")[label.end() :]
        yield answer
    yield _REASON.sub("", answer.strip())


def _same(answer: str, gold: str) -> bool:
    if _is_genotype(answer) and _is_genotype(gold):
        return answer.strip() == gold.strip()
    if any(normalise(answer, joiner) == normalise(gold, joiner) for joiner in (" ", "")):
        return True
    ours, theirs = _number(answer), _number(gold)
    return ours is not None and ours == theirs


def _is_genotype(text: str) -> bool:
    """Whether case alone can tell an answer from another: Tt, TT, tt; RrYy."""
    return bool(re.fullmatch(r"(?:([a-z])\1){1,3}", text.strip().lower()))


def _number(text: str) -> Decimal | None:
    try:
        return Decimal(normalise(text))
    except InvalidOperation:
        return None


def normalise(answer: str, joiner: str = " ") -> str:
    """Fold what doesn't change an answer's meaning: case, encoding, quotes, commas, full stops, spaces, an article.

    >>> normalise(" The Friend’s House. ")
    'friends house'
    >>> normalise("−1.50 m/s"), normalise("C++"), normalise("3 : 4")
    ('-1.50 m/s', 'c++', '3:4')

    Args:
        answer: A short answer.
        joiner: What a hyphen between two words becomes: "well-being" is "well being" and "wellbeing".
    """
    text = _FRACTION.sub(" ", _RAISED.sub(r"^\1", answer))
    text = unicodedata.normalize("NFKC", text).replace("⁄", "/").translate(_DASHES).casefold()
    text = unicodedata.normalize("NFKC", text).replace("&", " and ")
    text = re.sub(r"\bper ?cent\b", "%", text)
    text = re.sub(r"(?<=\d)\s*:\s*(?=\d)", ":", re.sub(r"(?<=\w)\s*/\s*(?=\w)", "/", text))
    text = re.sub(r"(?<![\d.,])(\d{1,3}(?:,\d{3})+)(?![\d,])", lambda found: found[1].replace(",", ""), text)
    kept = "".join(_fold(text, place, joiner) for place in range(len(text)))
    text = " ".join(_TIGHT.sub(r"\1", kept).split())
    text = re.sub(r"(?<![\d.])(?=\.\d)", "0", text)
    return _ARTICLE.sub("", text, count=1) if _ARTICLE.match(text) else text


def _fold(text: str, place: int, joiner: str) -> str:
    """What becomes of one character, by its neighbours: itself, a space, or nothing."""
    letter = text[place]
    if letter.isalnum() or unicodedata.category(letter).startswith("M"):
        return letter
    if letter.isspace():
        return " "
    before, after = text[place - 1] if place else " ", text[place + 1 : place + 2] or " "
    if letter in _QUOTES:
        return letter if letter in "'\"" and before.isdigit() and not after.isalnum() else ""  # 5' and 5"
    if letter == ".":
        return "." if after.isdigit() and not before.isalpha() else ""
    if letter in ":/":
        return letter if before.isalnum() and after.isalnum() else " "
    if letter == "-":
        return _hyphen(text, place, joiner)
    if letter in "([{":
        return letter if before.isalnum() and after.isalnum() else " "  # Ca(OH)2
    if letter in ")]}":
        return letter if after.isalnum() else " "
    if letter in "*_":
        return (letter if letter == "*" else joiner) if before.isalnum() and after.isalnum() else ""
    if letter == "#":
        return letter if before.isalnum() else ""
    if letter in "+%°" or unicodedata.category(letter).startswith("S"):
        return letter
    return " " if letter in ",;" else ""


def _hyphen(text: str, place: int, joiner: str) -> str:
    """A minus sign, or a hyphen between single signs (`p-q`, `10-20`), stays; between words it becomes `joiner`."""
    before, after = text[place - 1] if place else " ", text[place + 1 : place + 2] or " "
    if not after.isalnum() and not (after == "." and text[place + 2 : place + 3].isdigit()):
        return " "
    if not before.isalnum():
        return "-"
    left, right = re.search(r"\w+\Z", text[:place]), re.match(r"\w+", text[place + 1 :])
    single = bool(left and right and len(left.group()) == len(right.group()) == 1)
    return "-" if single or before.isdigit() or after.isdigit() else joiner
