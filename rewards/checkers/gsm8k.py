"""GSM8K's own way to state an answer: a number behind the last ``####``.

Gold: the data set's solution text, or the number alone. The answer may end in a ``#### 72`` line of its own, or be
the number; it is compared as `integer` compares.
"""

from __future__ import annotations

import re
from fractions import Fraction

from rewards.checkers import integer
from rewards.errors import UnusableGoldError

_LAST_LINE = re.compile(r"(?:^|\n)[ \t]*####([^\n]*)\s*\Z")


def check(gold: str, answer: str) -> bool:
    """Are both the same number?"""
    return integer.parse_number(_stated(answer)) == _wanted(gold)


def check_gold(gold: str) -> None:
    """Raises UnusableGoldError unless the gold is a number, bare or behind ``####``."""
    _wanted(gold)


def _wanted(gold: str) -> Fraction:
    wanted = integer.parse_number(_stated(gold))
    if wanted is None:
        raise UnusableGoldError(f"{gold!r:.80} is not a number; give one, or a solution that ends in '#### number'")
    return wanted


def _stated(text: str) -> str:
    last_line = _LAST_LINE.search(text)
    return last_line[1].strip() if last_line else text
