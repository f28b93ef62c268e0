"""Whole and decimal numbers, compared exactly.

An answer is one number and nothing else: ``71``, ``+71``, ``-5``, ``1,234``, ``71.0``, ``71.`` and the same
between math delimiters (``$71$``). Words, units, currency and equations (``23 + 48 = 71``) are wrong: each
is a way to say more than one thing.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from rewards.errors import UnusableGoldError

_NUMBER = re.compile(r"([+-]?)((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?)(?:\.([0-9]*))?")
_DELIMITED = re.compile(r"\$\$?([^$]*)\$\$?|\\\((.*)\\\)|\\\[(.*)\\\]", re.DOTALL)
_MAX_DIGITS = 1000


def check(gold: str, answer: str) -> bool:
    """Are both the same number? Raises UnusableGoldError when the gold is none."""
    return parse_number(answer) == _wanted(gold)


def check_gold(gold: str) -> None:
    """Raises UnusableGoldError unless the gold is a number."""
    _wanted(gold)


def _wanted(gold: str) -> Fraction:
    wanted = parse_number(gold)
    if wanted is None:
        raise UnusableGoldError(f"{gold!r} is not a number; give digits such as 1234")
    return wanted


def parse_number(text: str) -> Fraction | None:
    """The exact value of a plain number, or None."""
    text = unicodedata.normalize("NFKC", text).strip().replace("\u2212", "-")
    if delimited := _DELIMITED.fullmatch(text):
        text = "".join(filter(None, delimited.groups())).strip()
    number = _NUMBER.fullmatch(text)
    if number is None or len(text) > _MAX_DIGITS:
        return None
    sign, whole, decimals = number[1], number[2].replace(",", ""), number[3] or ""
    if not whole + decimals:
        return None
    value = Fraction(int(whole + decimals), 10 ** len(decimals))
    return -value if sign == "-" else value
