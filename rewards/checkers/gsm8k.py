"""GSM8K's own way to state an answer: a number behind the last ``####``.

Gold: the data set's solution text, or the number alone. The answer may end in a ``#### 72`` line of its own, or be
the number; it is compared as `integer` compares.
"""

from __future__ import annotations

import re

from rewards.checkers import integer
from rewards.errors import UnusableGoldError

_LAST_LINE = re.compile(r"(?:^|\n)[ \t]*####([^\n]*)\s*\Z")


def check(gold: str, answer: str) -> bool:
    """Are both the same number?"""
    check_gold(gold)
    return integer.check(_stated(gold), _stated(answer))


def check_gold(gold: str) -> None:
    if integer.parse_number(_stated(gold)) is None:
        raise UnusableGoldError(f"{gold!r:.80} is not a number; give one, or a solution that ends in '#### number'")


def _stated(text: str) -> str:
    last_line = _LAST_LINE.search(text)
    return last_line[1].strip() if last_line else text
