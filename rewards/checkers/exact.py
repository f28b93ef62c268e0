"""The same text: equal after Unicode folding (NFKC), with runs of white space as one blank."""

from __future__ import annotations

import unicodedata

from rewards.errors import UnusableGoldError


def check(gold: str, answer: str) -> bool:
    """Equal, upper and lower case told apart."""
    check_gold(gold)
    return _fold(answer) == _fold(gold)


def check_ignoring_case(gold: str, answer: str) -> bool:
    """Equal, upper and lower case not told apart."""
    return check(gold.casefold(), answer.casefold())


def check_gold(gold: str) -> None:
    if not _fold(gold):
        raise UnusableGoldError("the gold is empty; give the expected text")


def _fold(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())
