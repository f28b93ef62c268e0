"""The errors that this package raises on purpose, and the advice that they end with."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PoolError(RuntimeError):
    """The worker pool cannot go on: its workers do not start, it was closed, or its driver failed."""


class UnusableGoldError(ValueError):
    """The gold itself is at fault: no answer could ever be verified against it."""


class MalformedAnswerError(ValueError):
    """The answer is not of the kind that the checker reads, or exceeds a limit."""


class WrongAnswerError(ValueError):
    """The answer is wrong, and its message says where: for checkers that can tell more than yes or no."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The advice at the end of an error: the nearest known word, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(names)}"
