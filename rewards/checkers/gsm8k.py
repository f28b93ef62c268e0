"""GSM8K's own way to state an answer: a number behind the last ``####``.

Gold: the data set's solution text, or the number alone. The answer may end in a ``#### 72`` line of its own, or be
the number; it is compared as `integer` compares.
"""

from __future__ import annotations

from rewards.checkers import integer
from rewards.errors import UnusableGoldError


def check(gold: str, answer: str) -> bool:
    """Are both the same number?"""
    wanted = _stated(gold)
    if integer.parse_number(wanted) is None:
        raise UnusableGoldError(f"{wanted!r} is not a number; give one, or a solution that ends in '#### number'")
    return integer.check(wanted, _stated(answer))


def check_gold(gold: str) -> str | None:
    return integer.check_gold(_stated(gold))


def _stated(text: str) -> str:
    return text.rpartition("####")[2].strip()
