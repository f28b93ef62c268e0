"""Is this answer right? One checker for each kind of gold, all exact, by the name that problems carry.

`CHECKERS` maps names to modules' functions without importing sympy; the math checker does that on first use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rewards.checkers import countdown, exact, integer, knights_knaves, latex
from rewards.errors import MalformedAnswerError, UnusableGoldError, WrongAnswerError, did_you_mean
from rewards.types import Outcome, Verdict

MAX_ANSWER_CHARS = 2000
"""Longer answers are malformed, before any parser sees them."""


@dataclass(frozen=True)
class Checker:
    """`check(gold, answer)` says whether the answer is right.

    It raises UnusableGoldError or MalformedAnswerError where no verdict is possible, and may raise
    WrongAnswerError to say what was wrong. `check_gold` returns the reason why a gold is unusable, "does not
    verify against itself" included, or None.
    """

    check: Callable[[str, str], bool]
    check_gold: Callable[[str], str | None]


CHECKERS: dict[str, Checker] = {
    "integer": Checker(integer.check, integer.check_gold),
    "math": Checker(latex.check, latex.check_gold),
    "countdown": Checker(countdown.check, countdown.check_gold),
    "knights_knaves": Checker(knights_knaves.check, knights_knaves.check_gold),
    "exact": Checker(exact.check, exact.check_gold),
    "exact_ignore_case": Checker(exact.check_ignoring_case, exact.check_gold),
}


def find_checker(name: str) -> Checker:
    """The checker of that name. Raises ValueError with the nearest known one."""
    if name not in CHECKERS:
        raise ValueError(f"checker={name!r}: no such checker; {did_you_mean(name, CHECKERS)}")
    return CHECKERS[name]


def judge(checker: str, gold: str, answer: str) -> Verdict:
    """The verdict on one extracted answer. Bounded only by the process it runs in."""
    found = find_checker(checker)
    if len(answer) > MAX_ANSWER_CHARS:
        return Verdict(Outcome.MALFORMED, f"longer than {MAX_ANSWER_CHARS} characters")
    try:
        return Verdict(Outcome.CORRECT if found.check(gold, answer) else Outcome.WRONG)
    except UnusableGoldError as error:
        return Verdict(Outcome.GOLD_UNUSABLE, str(error))
    except MalformedAnswerError as error:
        return Verdict(Outcome.MALFORMED, str(error))
    except WrongAnswerError as error:
        return Verdict(Outcome.WRONG, str(error))
