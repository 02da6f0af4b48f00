"""Values of mathematical expressions, for deciding whether two are equal.

An expression is evaluated at a few fixed points: rational numbers exactly, all others to 50 digits. Two expressions are
the same if their values are. No step depends on a clock: numbers may only grow so far, then an expression counts as
unreadable, so that `9^{9^{9^9}}` costs no more than `9` in any thread or process.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from mpmath import MPContext

POINTS = range(4)  # at points 0 and 1 all variables are positive
MAX_TOKENS, MAX_DEPTH, MAX_DIGITS = 1000, 40, 1000
MAX_BITS = 200_000  # of one rational number
MAX_WORK = 2_000_000  # bits of all large rational numbers of one expression

Number = Any  # a Fraction, or an mpmath number where a value is irrational or complex
Values = list[Number | None]  # at each point; None where an expression has no value

_MP = MPContext()  # not `mpmath.mp`, whose precision every thread may change
_MP.dps = 50
_HUGE = 10**15  # of an argument that a function has to reduce

_TOKEN = re.compile(
    r"(?P<base>(?<![A-Za-z\d.])\d[\dA-F]*_(?:\{\d+\}|\d+))"
    r"|(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+(?![\w.]))?|\.\d+)"
    r"|(?P<command>\\[A-Za-z]+|\\.)|(?P<word>[A-Za-z]+)|(?P<sign>\S)"
)
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "sin": _MP.sin, "cos": _MP.cos, "tan": _MP.tan, "cot": _MP.cot, "sec": _MP.sec, "csc": _MP.csc,
    "arcsin": _MP.asin, "arccos": _MP.acos, "arctan": _MP.atan, "sinh": _MP.sinh, "cosh": _MP.cosh,
    "tanh": _MP.tanh, "exp": _MP.exp, "ln": _MP.log, "log": _MP.log10, "lg": _MP.log10,
}  # fmt: skip
_INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}
_CLOSING = {"(": ")", "[": "]", "{": "}", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil", "\\lvert": "\\rvert"}
_TIMES = {"*", "\\cdot", "\\times", "\\ast"}
_OVER = {"/", "\\div"}
_NAMES = {"pi": "\\pi", "infinity": "\\infty", "inf": "\\infty", "sqrt": "\\sqrt"}
_SYMBOLS = {
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "iota",
    "kappa", "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "varphi", "chi", "psi",
    "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega", "ell",
    "infty", "hbar",
}  # fmt: skip


class Unreadable(ValueError):
    """The text is no expression, or one too large to evaluate."""


class Undefined(ValueError):
    """The expression has no value at this point."""


def values(text: str) -> Values:
    """Evaluate an expression at each of `POINTS`; None where it has no value.

    Raises:
        Unreadable: The text is no expression, is too large, or has no value at most points.
    """
    tokens = _tokens(text)
    found: Values = []
    for point in POINTS:
        try:
            found.append(_Reader(tokens, point).read())
        except (Undefined, ZeroDivisionError):
            found.append(None)
        except (ValueError, OverflowError, TypeError) as error:
            raise Unreadable(str(error)) from None
    if sum(value is not None for value in found) < 2:
        raise Unreadable("has no value at most points")
    return found


def same_value(a: Number, b: Number) -> bool:
    """Whether two values are equal: exactly if both are rational, to 30 digits otherwise."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    a, b = _lift(a), _lift(b)
    return bool(abs(a - b) <= max(abs(a), abs(b)) * _MP.mpf(10) ** -30 + _MP.mpf(10) ** -40)


def same_values(ours: Values, theirs: Values) -> bool:
    """Whether two expressions have the same value wherever both have one."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    return len(pairs) > 1 and all(same_value(a, b) for a, b in pairs)


def constant(found: Values | None) -> Fraction | None:
    """The real value of an expression without variables, to 50 digits; None for any other."""
    known = [value for value in found or [] if value is not None]
    return real(known[0]) if known and all(same_value(value, known[0]) for value in known[1:]) else None


def proportional(ours: list[str], theirs: list[str], signed: bool) -> bool:
    """Whether left − right of one relation is a constant multiple of the other's; a positive one if `signed`.

    Args:
        ours: The two sides of a relation.
        theirs: Those of another one.
        signed: For inequalities.
    """
    try:
        sides = [values(side) for side in (*ours, *theirs)]
    except Unreadable:
        return False
    ratios: Values = []
    for left, right, other_left, other_right in zip(*sides, strict=True):
        if None not in (left, right, other_left, other_right):
            difference, other = _exactly(left, right, -1), _exactly(other_left, other_right, -1)
            if difference == 0 or other == 0:
                return False
            ratios.append(_exactly(difference, other, 0))
    if len(ratios) < 2 or not all(same_value(ratio, ratios[0]) for ratio in ratios):
        return False
    return not signed or (real(ratios[0]) or 0) > 0


def _exactly(a: Number, b: Number, sign: int) -> Number:
    """a + sign · b, or a / b for sign 0; exact if both are rational."""
    if not (isinstance(a, Fraction) and isinstance(b, Fraction)):
        a, b = _lift(a), _lift(b)
    return a + sign * b if sign else a / b


def real(value: Number) -> Fraction | None:
    """A real value as a fraction, to 50 digits; None for a complex one."""
    if isinstance(value, Fraction):
        return value
    value = _MP.mpmathify(value)
    if not same_value(value.imag, Fraction(0)) or not _MP.isfinite(value):
        return None
    mantissa, exponent = _MP.mpf(value.real).man_exp
    if abs(exponent) > MAX_BITS:
        return None
    return Fraction(int(mantissa)) * Fraction(2) ** int(exponent) * (-1 if value.real < 0 < mantissa else 1)


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens = [(found.lastgroup or "", found.group()) for found in _TOKEN.finditer(text)]
    if not tokens or len(tokens) > MAX_TOKENS:
        raise Unreadable("is empty, or too long")
    return tokens


def _lift(value: Number) -> Any:
    return _MP.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _sample(name: str, point: int) -> Fraction:
    """The value of a variable at a point: the same for the same name, unrelated for others."""
    digest = int.from_bytes(hashlib.sha256(f"{point} {name}".encode()).digest()[:8])
    sign = -1 if point > 1 and digest % 2 else 1
    return Fraction(sign * (300 + digest % 3701), 997)


class _Reader:
    """Recursive descent over the tokens of one expression, which evaluates as it reads."""

    def __init__(self, tokens: list[tuple[str, str]], point: int) -> None:
        self.tokens, self.point = [*tokens, ("end", "")], point
        self.at, self.depth, self.work = 0, 0, 0
        self.inside_bars = False  # of |x|, whose second bar opens nothing

    def read(self) -> Number:
        value = self.sum()
        if self.kind != "end":
            raise Unreadable(f"nothing should follow, but there is {self.text}")
        return value

    @property
    def kind(self) -> str:
        return self.tokens[self.at][0]

    @property
    def text(self) -> str:
        return self.tokens[self.at][1]

    def take(self, wanted: str | None = None) -> str:
        text = self.text
        if (wanted is not None and text != wanted) or self.kind == "end":
            raise Unreadable(f"{wanted or 'more'} is missing")
        self.at += 1
        return text

    # Grammar

    def sum(self) -> Number:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("is nested too deeply")
        value = self.product()
        while self.text in ("+", "-"):
            sign = self.take()
            value = self.add(value, self.product(), 1 if sign == "+" else -1)
        self.depth -= 1
        return value

    def product(self) -> Number:
        value = self.signed()
        while True:
            if self.text in _TIMES:
                self.take()
                value = self.multiply(value, self.signed())
            elif self.text in _OVER:
                self.take()
                value = self.divide(value, self.signed())
            elif self.starts_factor():
                if self.kind in ("number", "base") and self.tokens[self.at - 1][0] in ("number", "base"):
                    raise Unreadable("two numbers stand side by side")
                value = self.multiply(value, self.power())
            else:
                return value

    def signed(self) -> Number:
        sign = 1
        while self.text in ("+", "-"):
            sign = -sign if self.take() == "-" else sign
        return self.multiply(Fraction(sign), self.power()) if sign < 0 else self.power()

    def starts_factor(self) -> bool:
        if self.kind in ("number", "base", "word"):
            return True
        if self.kind == "command":
            return self.text[1:] in _SYMBOLS | FUNCTIONS.keys() or self.text in (
                "\\frac", "\\sqrt", "\\binom", "\\pi", "\\lfloor", "\\lceil", "\\lvert",
            )  # fmt: skip
        return self.text in ("(", "[", "{") or (self.text == "|" and not self.inside_bars)

    def power(self) -> Number:
        value = self.postfix(self.atom())
        if self.text != "^":
            return value
        self.take()
        return self.postfix(self.raise_to(value, self.exponent()))

    def exponent(self) -> Number:
        """What follows `^`: a group, or one signed atom, perhaps with an exponent of its own."""
        if self.text == "{":
            return self.argument()
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("is nested too deeply")
        sign = -1 if self.text == "-" else 1
        if self.text in ("+", "-"):
            self.take()
        value = self.multiply(Fraction(sign), self.atom())
        if self.text == "^":
            self.take()
            value = self.raise_to(value, self.exponent())
        self.depth -= 1
        return value

    def postfix(self, value: Number) -> Number:
        while True:
            if self.text == "!":
                self.take()
                value = self.factorial(value)
            elif self.text in ("%", "\\%"):
                self.take()
                value = self.divide(value, Fraction(100))
            elif self.text == "^" and [text for _, text in self.tokens[self.at + 1 : self.at + 2]] == ["\\circ"]:
                self.at += 2
                value = self.multiply(self.divide(value, Fraction(180)), +_MP.pi)
            else:
                return value

    def atom(self) -> Number:
        kind, text = self.kind, self.take()
        if kind == "number":
            return self.literal(text)
        if kind == "base":
            digits, base = text.split("_")
            return _sample(f"{digits.lstrip('0')}_{base.strip('{}')}", self.point)
        if kind == "word":
            return self.word(text)
        if text in ("(", "[", "{"):
            return self.closed(text)
        if text == "|" and not self.inside_bars:
            self.inside_bars = True
            value = self.sum()
            self.inside_bars = False
            self.take("|")
            return abs(value)
        if kind == "command":
            return self.command(text[1:])
        raise Unreadable(f"{text} is no value")

    def closed(self, opening: str) -> Number:
        bars, self.inside_bars = self.inside_bars, False
        value = self.sum()
        self.inside_bars = bars
        self.take(_CLOSING[opening])
        return value

    def word(self, word: str) -> Number:
        """Letters are variables that are multiplied, but for names of functions and numbers."""
        if word in _NAMES:
            return self.command(_NAMES[word][1:])
        if word in FUNCTIONS:
            return self.function(word)
        if len(word) > 3:
            raise Unreadable(f"{word} is a word")
        value: Number = Fraction(1)
        for place, letter in enumerate(word, start=1):
            factor = self.variable(letter) if place == len(word) else self.constant(letter)
            value = self.multiply(value, factor) if place < len(word) or self.text != "^" else (value, factor)
        if isinstance(value, tuple):  # `xy^2`: the exponent is the last letter's
            self.take()
            return self.multiply(value[0], self.raise_to(value[1], self.exponent()))
        return value

    def constant(self, name: str) -> Number:
        if name == "i":
            return _MP.mpc(0, 1)
        return +_MP.e if name == "e" else _sample(name, self.point)

    def variable(self, name: str) -> Number:
        """A variable with its primes and subscript."""
        while self.text in ("'", "′"):
            name += self.take()
        if self.text != "_":
            return self.constant(name)
        self.take()
        name += "_" + (self.raw() if self.text == "{" else self.take())
        return _sample(name, self.point)

    def raw(self) -> str:
        """The text of a group that isn't evaluated."""
        self.take("{")
        words, depth = [], 1
        while depth:
            text = self.take()
            depth += (text == "{") - (text == "}")
            words.append(text)
        return "".join(words[:-1])

    def argument(self) -> Number:
        """What a command is applied to: a group, or one digit, letter or command, as in `\\frac12`."""
        if self.text == "{":
            self.take()
            return self.closed("{")
        if self.kind in ("number", "word") and len(self.text) > 1:
            kind, text = self.tokens[self.at]
            self.tokens[self.at : self.at + 1] = [(kind, text[0]), (kind, text[1:])]
        return self.atom()

    def command(self, name: str) -> Number:
        if name in FUNCTIONS:
            return self.function(name)
        if name == "pi":
            return +_MP.pi
        if name in _SYMBOLS:
            return self.variable(f"\\{name}")
        if name == "frac":
            return self.divide(self.argument(), self.argument())
        if name == "binom":
            return self.choose(self.argument(), self.argument())
        if name == "sqrt":
            return self.root()
        if name in ("lfloor", "lceil"):
            value = real(self.closed(f"\\{name}"))
            if value is None:
                raise Undefined("no real number")
            return Fraction(math.floor(value) if name == "lfloor" else math.ceil(value))
        if name == "lvert":
            return abs(self.closed("\\lvert"))
        raise Unreadable(f"\\{name} is unknown")

    def root(self) -> Number:
        degree: Number = Fraction(2)
        if self.text == "[":
            self.take()
            degree = self.closed("[")
        if self.text == "(":
            self.take()
            value = self.closed("(")
        else:
            value = self.argument()
        if isinstance(value, Fraction) and isinstance(degree, Fraction):
            if value < 0 and degree.denominator == 1 and degree % 2:
                return -self.raise_to(-value, 1 / degree)
            if degree == 2 and value >= 0:
                top, bottom = math.isqrt(value.numerator), math.isqrt(value.denominator)
                if top * top == value.numerator and bottom * bottom == value.denominator:
                    return Fraction(top, bottom)
        return self.raise_to(value, self.divide(Fraction(1), degree))

    def function(self, name: str) -> Number:
        """`\\sin^2 x`, `\\log_2 8`, `\\sin 2x`, `\\ln(x)`."""
        exponent: Number | None = None
        base: Number | None = None
        while self.text in ("^", "_"):
            if self.take() == "^":
                exponent = self.exponent()
            else:
                base = self.argument()
        if exponent == -1 and name in _INVERSE:
            name, exponent = _INVERSE[name], None
        value = self.apply(name, self.function_argument())
        if base is not None:
            value = self.divide(value, self.apply(name, base))
        return value if exponent is None else self.raise_to(value, exponent)

    def function_argument(self) -> Number:
        if self.text in ("(", "{", "["):
            return self.closed(self.take())
        value = self.signed()
        while self.starts_factor() and self.text[1:] not in FUNCTIONS and self.text not in FUNCTIONS:
            if self.text in ("(", "["):
                break
            value = self.multiply(value, self.power())
        return value

    # Arithmetic, with a bound on the size of what it makes

    def literal(self, text: str) -> Fraction:
        mantissa, _, exponent = text.lower().partition("e")
        if len(mantissa) > MAX_DIGITS or len(exponent) > 5 or abs(int(exponent or 0)) > MAX_DIGITS:
            raise Unreadable("a number is too long")
        return Fraction(mantissa) * Fraction(10) ** int(exponent or 0)

    def bounded(self, value: Number) -> Number:
        if isinstance(value, Fraction):
            bits = value.numerator.bit_length() + value.denominator.bit_length()
            self.work += bits if bits > 4096 else 0
            if bits > MAX_BITS or self.work > MAX_WORK:
                raise Unreadable("a number is too large")
        elif not _MP.isfinite(value):
            raise Undefined("infinite")
        return value

    def add(self, a: Number, b: Number, sign: int) -> Number:
        return self.bounded(_exactly(a, b, sign))

    def multiply(self, a: Number, b: Number) -> Number:
        if not (isinstance(a, Fraction) and isinstance(b, Fraction)):
            a, b = _lift(a), _lift(b)
        return self.bounded(a * b)

    def divide(self, a: Number, b: Number) -> Number:
        if b == 0:
            raise Undefined("division by zero")
        return self.bounded(_exactly(a, b, 0))

    def raise_to(self, a: Number, b: Number) -> Number:
        if a == 0:
            if not isinstance(b, Fraction) or b <= 0:
                raise Undefined("a power of zero")
            return Fraction(0)
        if isinstance(a, Fraction) and isinstance(b, Fraction) and b.denominator == 1:
            bits = max(a.numerator.bit_length(), a.denominator.bit_length())
            if abs(b) * bits > MAX_BITS:
                raise Unreadable("a power is too large")
            return self.bounded(a ** int(b))
        a, b = _lift(a), _lift(b)
        if abs(b) > _HUGE or abs(b * _MP.log(a)) > MAX_BITS:
            raise Unreadable("a power is too large")
        return self.bounded(_MP.power(a, b))

    def apply(self, name: str, value: Number) -> Number:
        if abs(_lift(value)) > (MAX_BITS if name in ("exp", "sinh", "cosh", "tanh") else _HUGE):
            raise Unreadable("an argument is too large")
        if value == 0 and name in ("ln", "log", "lg"):
            raise Undefined("a logarithm of zero")
        return self.bounded(FUNCTIONS[name](_lift(value)))

    def factorial(self, value: Number) -> Number:
        if isinstance(value, Fraction) and value.denominator == 1:
            if value < 0:
                raise Undefined("a factorial of a negative number")
            if value > MAX_DIGITS:
                raise Unreadable("a factorial is too large")
            return Fraction(math.factorial(int(value)))
        if abs(_lift(value)) > MAX_DIGITS:
            raise Unreadable("a factorial is too large")
        return self.bounded(_MP.gamma(_lift(value) + 1))

    def choose(self, n: Number, k: Number) -> Number:
        if max(abs(_lift(n)), abs(_lift(k))) > MAX_DIGITS:
            raise Unreadable("a binomial coefficient is too large")
        if all(isinstance(value, Fraction) and value.denominator == 1 and value >= 0 for value in (n, k)):
            return Fraction(math.comb(int(n), int(k)))
        return self.bounded(_MP.binomial(_lift(n), _lift(k)))
