"""Countdown: reach the target with the given numbers, each exactly once, by + - * / and brackets.

Gold: ``{"numbers": [19, 36, 55, 7], "target": 65}``. The answer is an expression, optionally followed by
``= target``. It is read by the small grammar below, in exact fractions, and by nothing else::

    expression = term (("+" | "-") term)*
    term       = atom (("*" | "/") atom)*
    atom       = number | "(" expression ")"

There are no signs in front of a number or a bracket, no powers, no decimals and no implied products: such
answers are malformed. Unicode signs, square brackets and ``\\times  \\div  \\cdot  \\left  \\right`` are
read as their plain forms.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from rewards.errors import MalformedAnswerError, UnusableGoldError

_MAX_CHARS = 400
_MAX_DEPTH = 40
_TOKEN = re.compile(r"\s*(?:([0-9]{1,12})(?![0-9.])|([-+*/()=]))")
_PLAIN = {
    **dict.fromkeys(("×", "·", "⋅", "∗", "\\times", "\\cdot"), "*"),  # noqa: RUF001
    **dict.fromkeys(("÷", "∕", "⁄", "\\div"), "/"),  # noqa: RUF001
    **dict.fromkeys(("−", "–"), "-"),  # noqa: RUF001
    **dict.fromkeys(("\\left", "\\right", "$", "\\(", "\\)"), ""),
    "[": "(",
    "]": ")",
}


@dataclass(frozen=True)
class Countdown:
    """A parsed gold; `numbers` in ascending order."""

    numbers: tuple[int, ...]
    target: Fraction


def check(gold: str, answer: str) -> bool:
    """Does the answer use exactly the given numbers and reach the target?"""
    puzzle = _parse_gold(gold)
    parser = _Parser(_tokens(answer))
    value = parser.expression(0)
    stated = parser.stated_result()
    right = value == puzzle.target and stated in (None, puzzle.target)
    return right and tuple(sorted(parser.used)) == puzzle.numbers


def check_gold(gold: str) -> None:
    """Raises UnusableGoldError unless the gold is of the form above. The target need not be within reach."""
    _parse_gold(gold)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _parse_gold(gold: str) -> Countdown:
    try:
        puzzle = json.loads(gold)
        numbers, target = puzzle["numbers"], puzzle["target"]
    except (ValueError, TypeError, KeyError):
        raise UnusableGoldError(f'{gold!r} is not {{"numbers": [...], "target": n}}') from None
    if not isinstance(numbers, list) or not numbers or not all(_is_whole(n) and n >= 0 for n in numbers):
        raise UnusableGoldError(f"numbers={numbers!r}: not a list of whole numbers from 0")
    if not _is_whole(target):
        raise UnusableGoldError(f"target={target!r}: not a whole number")
    return Countdown(tuple(sorted(numbers)), Fraction(target))


def _tokens(answer: str) -> list[str]:
    for written, plain in _PLAIN.items():
        answer = answer.replace(written, plain)
    answer = unicodedata.normalize("NFKC", answer).strip()
    if len(answer) > _MAX_CHARS:
        raise MalformedAnswerError(f"longer than {_MAX_CHARS} characters")
    tokens, position = [], 0
    while position < len(answer):
        token = _TOKEN.match(answer, position)
        if token is None:
            raise MalformedAnswerError(f"not arithmetic: {answer[position : position + 20]!r}")
        tokens.append(token[1] or token[2])
        position = token.end()
    return tokens


class _Parser:
    """Reads tokens from left to right; `used` collects the numbers. A value is None after a division by zero."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._next = 0
        self.used: list[int] = []

    def expression(self, depth: int) -> Fraction | None:
        value = self._term(depth)
        while (sign := self._take("+", "-")) is not None:
            right = self._term(depth)
            value = _apply(sign, value, right)
        return value

    def stated_result(self) -> Fraction | None:
        """The number after a final ``=``, or None when the answer ends without one."""
        stated = None
        if self._take("=") is not None:
            sign = -1 if self._take("-") else 1
            stated = Fraction(sign * self._number())
        if self._next < len(self._tokens):
            raise MalformedAnswerError(f"unexpected {self._tokens[self._next]!r}")
        return stated

    def _term(self, depth: int) -> Fraction | None:
        value = self._atom(depth)
        while (sign := self._take("*", "/")) is not None:
            right = self._atom(depth)
            value = _apply(sign, value, right)
        return value

    def _atom(self, depth: int) -> Fraction | None:
        if self._take("(") is None:
            number = self._number()
            self.used.append(number)
            return Fraction(number)
        if depth >= _MAX_DEPTH:
            raise MalformedAnswerError(f"more than {_MAX_DEPTH} brackets inside each other")
        value = self.expression(depth + 1)
        if self._take(")") is None:
            raise MalformedAnswerError("a bracket is not closed")
        return value

    def _number(self) -> int:
        token = self._tokens[self._next] if self._next < len(self._tokens) else ""
        if not token.isdigit():
            raise MalformedAnswerError(f"a number is missing before {token!r}" if token else "ends too early")
        self._next += 1
        return int(token)

    def _take(self, *wanted: str) -> str | None:
        if self._next < len(self._tokens) and self._tokens[self._next] in wanted:
            self._next += 1
            return self._tokens[self._next - 1]
        return None


def _apply(sign: str, left: Fraction | None, right: Fraction | None) -> Fraction | None:
    if left is None or right is None or (sign == "/" and right == 0):
        return None
    if sign == "+":
        return left + right
    if sign == "-":
        return left - right
    return left * right if sign == "*" else left / right
