"""Words of a text, in any script; and DPO (EW): an LLM scores the words of both responses, which weighs their tokens.

The paper says only that an LLM scores each token for how much it improves or decreases the quality (§4). Our reading:
the LLM scores words, since it can't see our tokens, by whole numbers from −3 to 3, and

    λ = 1 + max(score, 0) for a word of y_w, 1 + max(−score, 0) for a word of y_l

so that what makes y_w good and what makes y_l bad counts more, up to the 1 + δ of δ = 3 in DPO-BMC, and
nothing counts less than in DPO.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import regex

from .edits import EditRejected, RejectionReason, Scores

Span = tuple[int, int]
MOST = 3  # largest score of a word

# Scripts that put no space between words. Unicode's default rules (UAX #29) then give single characters, or runs of
# katakana; a dictionary would give words, but no count or score here needs more than pieces of an even size.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Tai_Le}\p{Javanese}]"
# \b is Unicode's word boundary; punctuation and marks start no word.
_START = regex.compile(rf"(?w)\b(?={UNSPACED})|(?<={UNSPACED}[\p{{M}}\p{{P}}]*)\b(?=[\p{{L}}\p{{N}}])")


def words(text: str) -> list[Span]:
    """Return [start, end) of each word: what stands between white space, cut further in scripts without spaces.

    Punctuation stays with the word before it.

    >>> [text[slice(*span)] for text in ["It is 4, sure.", "这是 4。"] for span in words(text)]
    ['It', 'is', '4,', 'sure.', '这', '是', '4。']
    """
    return [span for chunk in re.finditer(r"\S+", text) for span in _pieces(text, *chunk.span())]


def _pieces(text: str, start: int, end: int) -> list[Span]:
    """Cut one chunk between white space."""
    if text[start:end].isascii():
        return [(start, end)]
    cuts = [start, *(at for found in _START.finditer(text, start, end) if (at := found.start()) > start), end]
    return list(pairwise(cuts))


def word_texts(text: str) -> list[str]:
    """Return the words themselves."""
    return [text[start:end] for start, end in words(text)]


def number_words(text: str) -> str:
    """Write its number before each word of a text; the layout stays.

    >>> number_words("It is 4,\\nsure.")
    '[1]It [2]is [3]4,\\n[4]sure.'
    """
    starts = [0, *(start for start, _ in words(text)), len(text)]
    pieces = [text[start:end] for start, end in pairwise(starts)]
    return pieces[0] + "".join(f"[{number}]{piece}" for number, piece in enumerate(pieces[1:], start=1))


def read_scores(listed: str, count: int) -> Scores:
    """Read a list of `number:score`, separated by whitespace or commas, for a response of `count` words.

    Raises:
        EditRejected: It is no such list, or it scores a word that isn't there, a word twice or beyond ±3.
    """
    scores: dict[int, int] = {}
    for entry in filter(None, re.split(r"[\s,]+", listed)):
        pair = re.fullmatch(r"([0-9]{1,9}):([-+−]?[0-9]{1,9})", entry)
        if not pair:
            raise _rejection("unreadable reply: a score that isn't number:score", "an entry isn't number:score")
        number, score = int(pair[1]), int(pair[2].replace("−", "-"))
        if not 1 <= number <= count:
            raise _rejection("wrong scores: a word that isn't there", f"the words are numbered from 1 to {count}")
        if number in scores:
            raise _rejection("wrong scores: a word is scored twice", "a word is scored twice")
        if abs(score) > MOST:
            raise _rejection(f"wrong scores: beyond ±{MOST}", f"scores go from -{MOST} to {MOST}")
        scores[number] = score
    return scores


def _rejection(reason: str, advice: str) -> EditRejected:
    return EditRejected(RejectionReason(reason, advice))


def token_weights(text: str, scores: Scores, spans: Sequence[Span], sign: int) -> list[float]:
    """Compute λ of each token by the words that it stands for: the largest of theirs, 1 where it stands for none.

    `spans` are [start, end) of the tokens in the text, empty for tokens of the template and EOS; `sign` is 1 for the
    chosen response, −1 for the rejected one. A weight is in [1, 4].
    """
    weights = [1.0] * len(text)  # of characters
    for number, (start, end) in enumerate(words(text), start=1):
        weights[start:end] = [1.0 + max(sign * scores.get(number, 0), 0)] * (end - start)
    return [max(weights[start:end], default=1.0) for start, end in spans]
