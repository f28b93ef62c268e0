"""Mathematics in LaTeX: normalise, compare, and only then compute.

Gold and answer are brought into one spelling (`normalize`) and taken apart into lists, brackets, intervals,
equations and matrices (`forms`), piece by piece. Equal strings are right at once; words are compared as words
(`words`), written numbers exactly (`numbers`), quantities with their units (`units`); the rest goes to math-verify
(`symbolic`). Where graders disagree, `AnswerPolicy` decides.
"""

from __future__ import annotations

import re

from rewards.checkers.compare import Comparison
from rewards.checkers.forms import sides, split_items
from rewards.checkers.normalize import normalize, squeeze
from rewards.checkers.numbers import parse_number
from rewards.checkers.words import is_text
from rewards.errors import MalformedAnswerError, UnusableGoldError
from rewards.policy import DEFAULT_POLICY, AnswerPolicy

_MAX_CHARS = 2000
_MAX_DIGIT_RUN = 400
_MAX_DEPTH = 60
_MAX_ITEMS = 100
_DIGIT_RUN = re.compile(rf"[0-9]{{{_MAX_DIGIT_RUN},}}")
_DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d)")


def check(gold: str, answer: str, policy: AnswerPolicy = DEFAULT_POLICY) -> bool:
    """Do both mean the same? Raises UnusableGoldError for an empty or oversized gold."""
    wanted, given = _read_gold(gold, policy), _read(answer, policy)
    if not given:
        return False
    if (fault := _oversize(given)) is not None:
        if squeeze(wanted) == squeeze(given):
            return True
        raise MalformedAnswerError(fault)
    return Comparison(policy).same(wanted, given)


def check_gold(gold: str, policy: AnswerPolicy = DEFAULT_POLICY) -> str | None:
    """Also sends the gold through math-verify, so that one that cannot be computed is found at the start."""
    try:
        wanted = _read_gold(gold, policy)
    except UnusableGoldError as error:
        return str(error)
    if parse_number(wanted) is not None or is_text(wanted):
        return None
    from rewards.checkers import symbolic

    values = [sides(item)[-1] for item in split_items(wanted)]
    parsed = [value for value in values if symbolic.parse(value) is not None]
    return None if all(symbolic.same_expression(value, value) for value in parsed) else "does not verify against itself"


def _read_gold(gold: str, policy: AnswerPolicy) -> str:
    wanted = _read(gold, policy)
    if not wanted:
        raise UnusableGoldError("the gold is empty")
    if (fault := _oversize(wanted)) is not None:
        raise UnusableGoldError(fault)
    return wanted


def _read(text: str, policy: AnswerPolicy) -> str:
    return normalize(_DECIMAL_COMMA.sub(".", text) if policy.decimal_comma and text.count(",") == 1 else text)


def _oversize(text: str) -> str | None:
    if len(text) > _MAX_CHARS:
        return f"longer than {_MAX_CHARS} characters"
    if _DIGIT_RUN.search(text):
        return f"a number of more than {_MAX_DIGIT_RUN} digits"
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if deepest > _MAX_DEPTH:
        return f"more than {_MAX_DEPTH} brackets inside each other"
    return f"more than {_MAX_ITEMS} items" if text.count(",") + text.count(";") > _MAX_ITEMS else None
