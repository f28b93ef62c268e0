"""The same text: equal after Unicode folding (NFKC), with runs of white space as one blank."""

from __future__ import annotations

import unicodedata

from rewards.errors import UnusableGoldError


def check(gold: str, answer: str) -> bool:
    """Equal, upper and lower case told apart."""
    return _fold(answer) == _wanted(gold)


def check_ignoring_case(gold: str, answer: str) -> bool:
    """Equal, upper and lower case not told apart."""
    return check(gold.casefold(), answer.casefold())


def check_gold(gold: str) -> None:
    """Raises UnusableGoldError unless the gold is text."""
    _wanted(gold)


def _wanted(gold: str) -> str:
    wanted = _fold(gold)
    if not wanted:
        raise UnusableGoldError("the gold is empty; give the expected text")
    return wanted


def _fold(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())
