"""Faults that the user can mend: collected, printed one a line, exit status 2."""

from __future__ import annotations

from dataclasses import dataclass

from rapidfuzz import fuzz, process


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        where: The file, and the key, row or line in it.
        what: What is wrong there, and how to mend it.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return " ".join(f"{self.where}: {self.what}".split())


class Faults(Exception):
    """Everything that is wrong with a recipe or its data; the scripts print it and exit with 2."""

    def __init__(self, *faults: Fault) -> None:
        self.faults = faults
        super().__init__("\n".join(map(str, faults)))


def fail(where: str, what: str) -> Faults:
    """A single fault, ready to be raised."""
    return Faults(Fault(where, what))


def raise_all(faults: list[Fault]) -> None:
    """Raise the faults that there are, each once."""
    if faults:
        raise Faults(*dict.fromkeys(faults))


def did_you_mean(word: str, known: list[str]) -> str:
    """`" (did you mean 'beta'?)"`, or nothing where no known word is close."""
    match = process.extractOne(word, known, scorer=fuzz.ratio, score_cutoff=65)
    return f" (did you mean '{match[0]}'?)" if match else ""
