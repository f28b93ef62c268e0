"""Verdicts: is this answer right? One checker for each kind of gold, by the name that problems carry.

`verify` gives the verdict on one answer, `gold_fault` says why a gold cannot be used. `CHECKERS` lists the checkers
without importing sympy; the math checker does that when it first needs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rewards.answer_policy import DEFAULT_POLICY, AnswerPolicy
from rewards.checkers import choice, countdown, exact, gsm8k, integer, knights_knaves, latex, python_tests
from rewards.errors import MalformedAnswerError, UnusableGoldError, WrongAnswerError, did_you_mean
from rewards.records import Outcome, Verdict
from rewards.sandbox.budget import UNBOUNDED, Budget

MAX_ANSWER_CHARS = 2000
"""Longer answers are malformed, before any parser sees them."""

Extra = tuple[AnswerPolicy | Budget, ...]
"""The arguments that a checker's functions get behind gold and answer."""

_SEVERAL = '"any_of"'
"""The key of a gold that holds several reference answers."""


@dataclass(frozen=True)
class Checker:
    """`check(gold, answer)` says whether the answer is right.

    It raises UnusableGoldError or MalformedAnswerError where it cannot say, and may raise WrongAnswerError to tell
    what was wrong. `check_gold(gold)` raises UnusableGoldError. With `takes_policy` both get the answer policy as well,
    and with `takes_budget` the budget of the processes that they start.
    """

    check: Callable[..., bool]
    check_gold: Callable[..., None]
    takes_policy: bool = False
    takes_budget: bool = False
    max_answer_chars: int = MAX_ANSWER_CHARS

    def extra(self, policy: AnswerPolicy, budget: Budget) -> Extra:
        """The arguments that both functions get behind gold and answer."""
        return (*[policy] * self.takes_policy, *[budget] * self.takes_budget)


CHECKERS: dict[str, Checker] = {
    "integer": Checker(integer.check, integer.check_gold),
    "gsm8k": Checker(gsm8k.check, gsm8k.check_gold),
    "math": Checker(latex.check, latex.check_gold, takes_policy=True),
    "multiple_choice": Checker(choice.check, choice.check_gold),
    "countdown": Checker(countdown.check, countdown.check_gold),
    "knights_knaves": Checker(knights_knaves.check, knights_knaves.check_gold),
    "python_tests": Checker(
        python_tests.check, python_tests.check_gold, takes_budget=True, max_answer_chars=python_tests.MAX_ANSWER_CHARS
    ),
    "exact": Checker(exact.check, exact.check_gold),
    "exact_ignore_case": Checker(exact.check_ignoring_case, exact.check_gold),
}


def find_checker(name: str) -> Checker:
    """The checker of that name. Raises ValueError with the nearest known one."""
    if name not in CHECKERS:
        raise ValueError(f"checker={name!r}: no such checker; {did_you_mean(name, CHECKERS)}")
    return CHECKERS[name]


def checker_fault(name: object) -> str | None:
    """Why there is no checker of that name, or None where there is one."""
    try:
        find_checker(str(name))
    except ValueError as error:
        return str(error)
    return None


def verify(
    checker: str, gold: str, answer: str, policy: AnswerPolicy = DEFAULT_POLICY, budget: Budget = UNBOUNDED
) -> Verdict:
    """The verdict on one extracted answer.

    `budget` bounds the processes that it starts; its own time and memory are for its caller's process to bound. A gold
    ``{"any_of": ["1/2", "0.5"]}`` holds several reference answers: one of them has to be met.
    """
    found = find_checker(checker)
    if len(answer) > found.max_answer_chars:
        return Verdict(Outcome.MALFORMED, f"longer than {found.max_answer_chars} characters")
    try:
        golds = references(gold)
        return _verify_each(found, golds, answer, found.extra(policy, budget.divided_by(len(golds))))
    except UnusableGoldError as error:
        return Verdict(Outcome.GOLD_UNUSABLE, str(error))


def _verify_each(found: Checker, golds: Sequence[str], answer: str, extra: Extra) -> Verdict:
    """CORRECT as soon as one reference is met, else the verdict by the first usable one."""
    verdicts: list[Verdict] = []
    faults: list[UnusableGoldError] = []
    for gold in golds:
        try:
            verdict = _verify_one(found, gold, answer, extra)
        except UnusableGoldError as error:
            faults.append(error)
            continue
        if verdict.outcome is Outcome.CORRECT:
            return verdict
        verdicts.append(verdict)
    if not verdicts:
        raise faults[0]
    return verdicts[0]


def gold_fault(
    checker: str, gold: str, policy: AnswerPolicy = DEFAULT_POLICY, budget: Budget = UNBOUNDED
) -> str | None:
    """Why no answer can be verified against a gold, or None. Of several reference answers, all have to be usable."""
    found = find_checker(checker)
    try:
        golds = references(gold)
        for reference in golds:
            found.check_gold(reference, *found.extra(policy, budget.divided_by(len(golds))))
    except UnusableGoldError as error:
        return str(error)
    return None


def references(gold: str) -> list[str]:
    """The reference answers that a gold holds: itself, or those of ``{"any_of": […]}``. Raises UnusableGoldError."""
    if _SEVERAL not in gold or not gold.lstrip().startswith("{"):
        return [gold]
    try:
        several = json.loads(gold)["any_of"]
    except (ValueError, KeyError, RecursionError) as error:
        raise UnusableGoldError(f"{gold!r:.80} is not JSON with a list any_of ({error})") from None
    if not isinstance(several, list) or not several or not all(isinstance(one, str) for one in several):
        raise UnusableGoldError(f"any_of={several!r}: not a list of reference answers as text")
    return several


def _verify_one(found: Checker, gold: str, answer: str, extra: Extra) -> Verdict:
    try:
        return Verdict(Outcome.CORRECT if found.check(gold, answer, *extra) else Outcome.WRONG)
    except MalformedAnswerError as error:
        return Verdict(Outcome.MALFORMED, str(error))
    except WrongAnswerError as error:
        return Verdict(Outcome.WRONG, str(error))
