"""Errors that the user can fix: collected, printed one a line, exit status 2."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rapidfuzz import fuzz, process


@dataclass(frozen=True)
class UserError:
    """Describe one thing that is wrong."""

    where: str  # the file, and the key, row or line in it
    what: str  # what is wrong there, and how to fix it

    def __str__(self) -> str:
        return printable(f"{self.where}: {self.what}")


class UserErrors(Exception):
    """Report everything that is wrong with a recipe or its data; scripts print it and exit with 2."""

    def __init__(self, *faults: UserError) -> None:
        self.faults = faults
        super().__init__("\n".join(map(str, faults)))


def user_error(where: str, what: str) -> UserErrors:
    """Create an exception with a single fault."""
    return UserErrors(UserError(where, what))


def raise_all(faults: list[UserError]) -> None:
    """Raise the given faults, each once; nothing if there are none."""
    if faults:
        raise UserErrors(*dict.fromkeys(faults))


# ANSI escape sequences whole; then what is left of control characters, and marks that reorder a line.
_ESCAPE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[]P_^X][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b.?")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text from outside as one line that can't steer a terminal."""
    return " ".join(_CONTROL.sub("", _ESCAPE.sub("", text)).split())


def did_you_mean(word: str, known: list[str]) -> str:
    """Suggest a known word: `" (did you mean 'beta'?)"`, or an empty text if none is close."""
    match = process.extractOne(word, known, scorer=fuzz.ratio, score_cutoff=65)
    return f" (did you mean '{match[0]}'?)" if match else ""
