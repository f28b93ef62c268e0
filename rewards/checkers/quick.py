"""Verdicts that need no worker: two plain numbers, or the same text, in microseconds and in bounded time.

What is decided here is decided exactly as the worker would; everything else is left to it.
"""

from __future__ import annotations

import re
from fractions import Fraction

from rewards.checkers.integer import parse_number
from rewards.policy import AnswerPolicy
from rewards.types import Outcome, Verdict

_PLAIN = re.compile(r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3}){1,6}|[0-9]{1,30})(?:\.[0-9]{1,30})?")
_MAX_CHARS = 64
_CORRECT, _WRONG = Verdict(Outcome.CORRECT), Verdict(Outcome.WRONG)


def quick_verdict(checker: str, gold: str, answer: str, policy: AnswerPolicy) -> Verdict | None:
    """The verdict where gold and answer are plain numbers such as ``-1,234.5``, else None."""
    if checker not in ("math", "integer", "gsm8k") or len(gold) > _MAX_CHARS or len(answer) > _MAX_CHARS:
        return None
    if checker == "math" and (policy.relative_tolerance or policy.decimal_comma or policy.percent == "either"):
        return None
    wanted, given = _plain_number(gold), _plain_number(answer)
    if wanted is None or given is None:
        return None
    return _CORRECT if wanted == given else _WRONG


def _plain_number(text: str) -> Fraction | None:
    text = text.strip(" ")
    return parse_number(text) if _PLAIN.fullmatch(text) else None
