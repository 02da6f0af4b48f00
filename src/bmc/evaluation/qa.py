"""Equality of short answers in words, with or without the options that a question lists."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from functools import lru_cache

MAX_LENGTH = 600  # of an answer that is read; what follows isn't

Options = tuple[tuple[str, str], ...]  # label and text of each; labels are empty where the question has none

_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—−﹣－", "-"))
_WIDE = str.maketrans("（）．：、，？\u3000", "().:),? ")  # of a Chinese or Japanese keyboard
_RAISED = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿ]+)")
_FRACTION = re.compile("(?<=[0-9])(?=[¼½¾⅐-⅞])")  # `1½` is no `11/2`
_QUOTES = "'\"‘’‚‛“”„‟«»‹›`´"
_TIGHT = re.compile(r"\s*([+=<>^/%$°×÷±])\s*")  # signs that mean the same with and without spaces
_ARTICLE = re.compile(r"(?:a|an|the) (?=.)")
_LATEX = re.compile(
    r"\\(?:boxed|fbox|[mh]box|text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt)|emph|underline)\s*\{([^{}]*)\}"
)
_FORMULA = re.compile(r"(?:\$\$?|\\\(|\\\[)\s*([^$]+?)\s*(?:\$\$?|\\\)|\\\])([.]?)")

_OPTION = r"(?:(?:the\s+)?(?:option|choice|answer)\s+)?"
_LETTER, _SIGN = r"([A-Za-z])", r"([A-Za-z]|\d\d?)"
_LABELS = [  # before an answer: "(B) money", "(b)money", "B) money", "B.money", "B – money", "option B, money"
    re.compile(_OPTION + pattern, re.IGNORECASE)
    for pattern in (
        rf"[(\[]{_SIGN}[)\]][.:]?\s+(?=\S)",
        rf"[(\[]{_LETTER}[)\]](?=\w)",
        rf"{_SIGN}\s?[).:]\s+(?=\S)",
        rf"{_LETTER}[):](?=\w\w)",
        rf"{_LETTER}\.(?=[^\W\d]{{3}})",
        rf"{_SIGN}(?:\s+[-–—]\s+|—)(?=\S)",
    )
] + [re.compile(rf"(?:the\s+)?(?:option|choice)\s+{_SIGN}\b\s*[,-]?\s+(?=\w)", re.IGNORECASE)]
_LABEL_AFTER = re.compile(  # "money (B)", "money, option B"
    rf"(?:\s+[(\[]\s*(?:option\s+|choice\s+)?{_SIGN}\s*[)\]]|,\s*(?:option|choice)\s+\(?{_SIGN}\)?)\.?$", re.IGNORECASE
)
_BESIDE = re.compile(rf"{_OPTION}[(\[]?{_SIGN}[)\]]?(\s*[;=(\[]\s*|\s+)(\S.*?)[)\].]*", re.IGNORECASE)  # "B (money)"
_CHOICE = re.compile(rf"{_OPTION}[(\[]?{_SIGN}\s?[)\].:]*\s*", re.IGNORECASE)
_SEVERAL = re.compile(rf"\W*(?:(?:and|or|/|&|,)\W*)+{_SIGN}\b(?!')", re.IGNORECASE)
_DENIED = re.compile(r"\W*(?:is\s+|are\s+)?(?:not\b|isn['’]t|wrong|incorrect|false|no\b|wait\b)", re.IGNORECASE)

_HEDGE = re.compile(
    r"(?:(?:most|very)\s+)?(?:likely|probably|presumably|definitely|certainly|clearly|obviously|surely|simply|indeed"
    r"|actually|therefore|thus|hence|then|just)(?:,?\s+|:\s*)(?=\S)",
    re.IGNORECASE,
)
_REASON = re.compile(
    r",?\s+(?:because|since|due to)\s.*|,\s+(?:not|which|as|rather than|instead of)\s.*"
    r"|\s[-–—]\s.*|\s*\([^()]*\)[.]?$|[,;]$",
    re.IGNORECASE | re.DOTALL,
)
_SENTENCE = re.compile(r"(?:(?<=[^\W_.]{2})|(?<=[\d)\"'*”]))[.!]\s+(?=[A-Z*\"“])|\n+")
_RETRACTION = re.compile(
    r"\W*(?:no\b|wait|actually|sorry|but|or\b|however|hmm|alternatively|correction|oops|scratch)", re.IGNORECASE
)

_ELEMENTS = (
    "He|Li|Be|Ne|Na|Mg|Al|Si|Cl|Ar|Ca|Sc|Ti|Cr|Mn|Fe|Co|Ni|Cu|Zn|Ga|Ge|As|Se|Br|Kr|Rb|Sr|Zr|Nb|Mo|Tc|Ru|Rh|Pd|Ag|Cd|In"
    "|Sn|Sb|Te|Xe|Cs|Ba|La|Ce|Pr|Nd|Pm|Sm|Eu|Gd|Tb|Dy|Ho|Er|Tm|Yb|Lu|Hf|Ta|Re|Os|Ir|Pt|Au|Hg|Tl|Pb|Bi|Po|At|Rn|Fr|Ra"
    "|Ac|Th|Pa|Np|Pu|Am|Cm|Bk|Cf|Es|Fm|Md|No|Lr|H|B|C|N|O|F|P|S|K|V|Y|I|W|U"
)
_COMPOUND = re.compile(rf"(?:(?:{_ELEMENTS})[\d₀-₉]*|[()])+")
_GENOTYPE = re.compile(r"(?:([a-z])\1){1,3}")  # in lower case
_PREFIXED = re.compile(r"\d\s*([mM])(?:Wh?|Hz|Pa|J|V|N|eV|g|[Bb](?:it|yte)?s?)\b")  # milli- or mega-

_HEADER = re.compile(
    r"(?:^[ \t*#]*|(?<=[?.!] ))(?:answer\s+)?(?:options|choices)[ \t*]*:[ \t*]*", re.IGNORECASE | re.MULTILINE
)
_MARKER = re.compile(
    r"(?:(?P<line>^[ \t]*(?:[-*•>][ \t]+)?)|(?<![^\s;,?:.])|(?:(?<=[a-z]{2})|(?<=[^\x00-\x7f]))(?=\())"
    r"(?:\*\*)?(?:(?:option|choice)[ \t]+)?(?:\((?P<round>[A-J]|10|[1-9])\)|\[(?P<square>[A-J]|10|[1-9])\]"
    r"|(?P<bare>[A-J]|10|[1-9])(?P<close>[).:]))(?:\*\*)?[.:]?[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)
_TRAILING = re.compile(r"(?:[\s,;|*>•-]|\b(?:and|or)$)+$")
_AFTER_OPTIONS = re.compile(
    r"\n|\s(?:(?:the\s+)?(?:correct\s+)?answer|explanation|solution|response)\s*:", re.IGNORECASE
)


def qa_equal(answer: str, gold: str, options: str | Mapping[str, str] | Sequence[str] | Options = ()) -> bool:
    """Return whether an answer in words is the gold one.

    Quotes, brackets, commas and full stops don't count; signs, decimal points, `:`, `/`, symbols and letters' marks do.
    An option's label before or after the answer ("B. money"), a hedge ("likely money"), and a reason or further
    sentences may stand there. Case counts only where it makes another chemical formula (Co, CO), genotype (Tt, TT) or
    unit (5 mW, 5 MW), or where two options differ by it alone.

    With labelled options a label means its option: "B" is "money" if option B is, and "(A) money" is wrong if option A
    is something else. Without them a label says nothing. `options` are texts by label, texts alone, what `read_options`
    returns, or the question that lists them.
    """
    verdict = same_choice(answer, gold, _listed(options), qa_equal)
    if verdict is not None:
        return verdict
    if answer.strip() == gold.strip():
        return bool(gold.strip())
    answer, gold = undress(answer[:MAX_LENGTH]), undress(gold[:MAX_LENGTH])
    if not normalise(gold):
        return answer.strip(_QUOTES) == gold.strip(_QUOTES) and bool(gold)
    label = _CHOICE.fullmatch(gold)
    if label:
        said = split_label(answer)[0] or _label_alone(answer)
        return said == label[1].casefold() or _same(answer, gold)
    return any(_same(reading, gold) for reading in _readings(answer))


def undress(text: str) -> str:
    r"""Take away what only dresses words: `\text{money}`, `$money$`, `\boxed{B}`."""
    while (plain := _LATEX.sub(r"\1", text)) != text:
        text = plain
    formula = _FORMULA.fullmatch(text.strip())
    return (formula[1] + formula[2] if formula else text).strip()


def _readings(answer: str) -> Iterator[str]:
    """Return what an answer may say: all of it, or without a label, a hedge, a reason, and the sentences after the
    first."""
    yield answer
    first = _SENTENCE.split(answer.strip(), maxsplit=1)
    if len(first) > 1 and not _RETRACTION.match(first[1]):
        answer = first[0]
        yield answer
    label, rest = split_label(answer)
    if label:
        answer = rest
        yield answer
    if hedge := _HEDGE.match(answer.strip()):
        answer = answer.strip()[hedge.end() :]
        yield answer
    yield _REASON.sub("", answer.strip())


def _same(answer: str, gold: str) -> bool:
    if any(normalise(answer, joiner) == normalise(gold, joiner) for joiner in (" ", "")):
        return not _differ_by_case(answer.strip(" .*_"), gold.strip(" .*_"))
    ours, theirs = _number(answer), _number(gold)
    return ours is not None and ours == theirs


def _differ_by_case(answer: str, gold: str) -> bool:
    """Return whether case makes one answer mean something else than the other: Co and CO, Tt and TT, 5 mW and 5 MW."""
    if answer == gold or answer.lower() == "no":
        return False
    if _GENOTYPE.fullmatch(answer.lower()) and _GENOTYPE.fullmatch(gold.lower()):
        return True
    if _COMPOUND.fullmatch(answer) and _COMPOUND.fullmatch(gold):
        return re.findall(_ELEMENTS, answer) != re.findall(_ELEMENTS, gold)
    return _PREFIXED.findall(answer) != _PREFIXED.findall(gold)


# Options


def split_label(answer: str) -> tuple[str, str]:
    """Return an option's label before or after an answer, in lower case, and the rest; the label is empty if there
    is none."""
    answer = answer.strip("* \n\t")
    for pattern in _LABELS:
        if label := pattern.match(answer):
            return label[1].casefold(), answer[label.end() :].strip("* ")
    if after := _LABEL_AFTER.search(answer):
        return (after[1] or after[2]).casefold(), answer[: after.start()].strip("* ")
    return "", answer


def _label_alone(answer: str) -> str:
    """Return the label that an answer consists of, in lower case; empty if it is more than that."""
    label = _CHOICE.fullmatch(answer.strip("* \n\t"))
    return label[1].casefold() if label else ""


def same_choice(answer: str, gold: str, options: Options, equal: Callable[[str, str], bool]) -> bool | None:
    """Return whether two answers choose the same option; None if one of them chooses none that can be told."""
    if not options:
        return None
    wanted = _choice(undress(gold), options, equal)
    if wanted is None:
        return None
    found = _choice(undress(answer[:MAX_LENGTH]), options, equal)
    if found is None or -1 in (found, wanted):
        return None if found is None else False
    return options[found][1].strip(" .") == options[wanted][1].strip(" .")


def _choice(said: str, options: Options, equal: Callable[[str, str], bool]) -> int | None:
    """Which option an answer chooses; −1 if it contradicts itself or names several, None if it names none."""
    labels = {label.casefold(): place for place, (label, _) in enumerate(options) if label}
    exact = [place for place, (_, text) in enumerate(options) if text == said]
    if exact:
        return exact[0]  # of options that are written alike
    first = _SENTENCE.split(said, maxsplit=1)
    if len(first) > 1 and not _RETRACTION.match(first[1]):
        said = first[0]
    if hedge := _HEDGE.match(said):
        said = said[hedge.end() :]
    said = said.strip(f"{_QUOTES}* ")
    beside = _BESIDE.fullmatch(said)
    if beside and beside[1].casefold() in labels and (beside[1] not in "aA" or beside[2].strip()):  # "A bank"
        place, named = labels[beside[1].casefold()], _by_text(beside[3], options, equal)
        if named:
            return place if place in named else -1
    for reading in (said, _REASON.sub("", said)):
        if (alone := _label_alone(reading)) in labels and (reading[0] in "([" or not _by_text(reading, options, equal)):
            return labels[alone]
    label, rest = split_label(said)
    if label not in labels:
        several = re.match(rf"(?:both\s+)?\W?{_SIGN}\b", said, re.IGNORECASE)
        if several and several[1].casefold() in labels and _is_several(said[several.end() :], labels):
            return -1
        matches = _by_text(said, options, equal)
        return matches[0] if len(matches) == 1 else -1 if matches else None
    place = labels[label]
    if (
        _DENIED.match(rest)
        or _is_several(f" {rest}", labels)
        or labels.get(_label_alone(rest.strip(", ")), place) != place
    ):
        return -1
    named = _by_text(rest, options, equal)
    return place if not named or place in named else -1


def _is_several(rest: str, labels: Mapping[str, int]) -> bool:
    """Return whether another label follows a label: "B or C", "(B) and (C)"."""
    other = _SEVERAL.match(rest)
    return other is not None and other[1].casefold() in labels


def _by_text(said: str, options: Options, equal: Callable[[str, str], bool]) -> list[int]:
    """Return the options whose text an answer is; where that is several, the one that it is letter by letter."""
    matches = [place for place, (_, text) in enumerate(options) if text and equal(said, text)]
    if not matches:
        said = said.casefold()
        matches = [place for place, (_, text) in enumerate(options) if text and equal(said, text.casefold())]
    exact = [place for place in matches if options[place][1].strip(" .") == said.strip(" .")]
    alike = len({options[place][1].strip(" .") for place in matches}) == 1  # an option may be listed twice
    return exact[:1] or (matches[:1] if alike else matches)


def _listed(options: str | Mapping[str, str] | Sequence[str] | Options) -> Options:
    if isinstance(options, str):
        return read_options(options)
    listed = options.items() if isinstance(options, Mapping) else options
    pairs = (item if isinstance(item, tuple) else ("", item) for item in listed)
    return tuple((str(label), str(text).strip()) for label, text in pairs)


@lru_cache(maxsize=256)
def read_options(question: str) -> Options:
    """Read the options that a question lists last: labels and texts.

    Labels run from A, a or 1, in brackets or before `)`, `.` or `:`, each on a line of its own or one after another.
    Below "Options:" lines without labels are options too.

    >>> read_options("Where? (A) bank (B) river")
    (('A', 'bank'), ('B', 'river'))
    """
    question = question.translate(_WIDE)
    headers = list(_HEADER.finditer(question))
    start = headers[-1].end() if headers else 0
    runs = _runs(question, start)
    if runs:
        run = max(runs, key=lambda run: (-"Aa1".index(_label_of(run[0])), run[0].start()))
        ends = [marker.start() for marker in run[1:]]
        stop = _AFTER_OPTIONS.search(question, run[-1].end())
        ends.append(stop.start() if stop else len(question))
        return tuple(
            (_label_of(marker), _TRAILING.sub("", " ".join(question[marker.end() : end].split())).strip())
            for marker, end in zip(run, ends, strict=True)
        )
    listed = question[start:].strip("\n").partition("\n\n")[0] if headers else ""
    lines = [re.sub(r"^[-*•]\s+", "", line.strip()) for line in listed.split("\n")]
    return tuple(("", line) for line in lines if line) if len(lines) > 1 else ()


def _label_of(marker: re.Match[str]) -> str:
    return marker["round"] or marker["square"] or marker["bare"]


def _runs(question: str, start: int) -> list[list[re.Match[str]]]:
    """Return the series of labels A, B, C … that are written alike."""
    runs: list[list[re.Match[str]]] = []
    latest: dict[str, list[re.Match[str]]] = {}  # of each way to write a label
    for marker in _MARKER.finditer(question, start):
        label = _label_of(marker)
        kind = "A" if label.isupper() else "a" if label.islower() else "1"
        style = kind + (marker["close"] or ("()" if marker["round"] else "[]"))
        place = int(label) - 1 if label.isdigit() else ord(label.upper()) - ord("A")
        if place == 0 and not question[marker.start() - 1 : marker.start()].isalpha():
            latest[style] = [marker]
            runs.append(latest[style])
        elif style in latest and place == len(latest[style]):
            latest[style].append(marker)
    return [run for run in runs if _is_list(run, question, start)]


def _is_list(run: list[re.Match[str]], question: str, start: int) -> bool:
    """Return whether a series of labels marks options, and isn't "Vitamin A. B. Smith" or a lone "(A)"."""
    first = run[0]
    if len(run) == 1:
        others = question[first.end() :].partition("\n\n")[0].partition("\n")[2]
        return start > 0 and not question[start : first.start()].strip() and not others.strip()
    if first["line"] is not None or first["close"] is None:
        return True
    ends = r"(?:\A|[?:.!_)]|[a-z]{2})\s*\Z" if first["close"] == ")" else r"(?:\A|[?:.!_)])\s*\Z"
    return first["bare"] != "1" and bool(re.search(ends, question[: first.start()]))


# Notation


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

    A hyphen between two words becomes `joiner`: "well-being" is "well being" and "wellbeing".
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
    """Return what becomes of one character, by its neighbours: itself, a space, or nothing."""
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
    """Keep a minus sign, or a hyphen between single signs (`p-q`, `10-20`); replace one between words by `joiner`."""
    before, after = text[place - 1] if place else " ", text[place + 1 : place + 2] or " "
    if not after.isalnum() and not (after == "." and text[place + 2 : place + 3].isdigit()):
        return " "
    if not before.isalnum():
        return "-"
    left, right = re.search(r"\w+\Z", text[:place]), re.match(r"\w+", text[place + 1 :])
    single = bool(left and right and len(left.group()) == len(right.group()) == 1)
    return "-" if single or before.isdigit() or after.isdigit() else joiner
