"""Verdicts in microseconds, without a worker: for two plain numbers, the answer perhaps with a unit or currency sign.

They are the same verdicts as a worker's, and take time bounded by the length of two short texts. All other answers are
left to the workers.
"""

from __future__ import annotations

import re
from functools import lru_cache

from rewards.answer_policy import AnswerPolicy
from rewards.checkers.integer import parse_number
from rewards.checkers.normalize import normalize
from rewards.checkers.units import NEVER_DROPPED, split_unit
from rewards.records import Outcome, Verdict

_NUMBER = r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3}){1,6}|[0-9]{1,30})(?:\.[0-9]{1,30})?"
_PLAIN = re.compile(_NUMBER)
_DECORATED = re.compile(rf"(?:\\\$)? ?({_NUMBER})(\\text\{{[A-Za-z ]{{1,30}}\}}| ?[a-z]{{2,20}}(?: [a-z]{{2,20}})?)?")
_MAX_CHARS = 80
_CORRECT, _WRONG = Verdict(Outcome.CORRECT), Verdict(Outcome.WRONG)


def quick_verdict(checker: str, gold: str, answer: str, policy: AnswerPolicy) -> Verdict | None:
    """The verdict where gold and answer are numbers such as ``-1,234.5``, else None."""
    if checker not in ("math", "integer", "gsm8k") or len(gold) > _MAX_CHARS or len(answer) > _MAX_CHARS:
        return None
    if checker == "math":
        if policy.relative_tolerance or policy.decimal_comma or policy.percent == "either":
            return None
        if policy.units != "required":
            answer = _undecorated(answer.strip(" "))
    gold, answer = gold.strip(" "), answer.strip(" ")
    if not _PLAIN.fullmatch(gold) or not _PLAIN.fullmatch(answer):
        return None
    return _CORRECT if gold == answer or parse_number(gold) == parse_number(answer) else _WRONG


def _undecorated(answer: str) -> str:
    """The number of ``\\$1,200`` or ``1200\\text{ dollars}``; anything else as it stands."""
    found = _DECORATED.fullmatch(answer)
    return found[1] if found is not None and (not found[2] or _is_unit(found[2])) else answer


@lru_cache(maxsize=4096)
def _is_unit(tail: str) -> bool:
    body, unit = split_unit(normalize(f"0{tail}"))
    return body == "0" and bool(unit) and unit not in NEVER_DROPPED
