"""Mathematics in LaTeX: normalise, compare, and only then compute.

Gold and answer are brought into one spelling (`normalize`) and taken apart into lists, brackets, intervals,
equations and matrices (`forms`), piece by piece. Equal strings are right at once; words are compared as words
(`words`), written numbers exactly (`number_text`), quantities with their units (`units`); the rest goes to math-verify
(`symbolic`). Where graders disagree, `AnswerPolicy` decides.
"""

from __future__ import annotations

import re

from rewards.answer_policy import DEFAULT_POLICY, AnswerPolicy
from rewards.checkers.compare import Comparison
from rewards.checkers.forms import read_collection, relation_parts, sides, split_items, with_both_signs
from rewards.checkers.normalize import normalize, squeeze
from rewards.checkers.number_text import read_number
from rewards.checkers.scalars import is_literal
from rewards.checkers.units import split_unit
from rewards.checkers.words import is_text
from rewards.errors import MalformedAnswerError, UnusableGoldError

_MAX_CHARS = 2000
_MAX_DIGIT_RUN = 400
_MAX_DEPTH = 60
_MAX_ITEMS = 100
_DIGIT_RUN = re.compile(rf"[0-9]{{{_MAX_DIGIT_RUN},}}")
_DECIMAL_COMMA = re.compile(r"([+-]?(?:[0-9]{1,3}(?:\.[0-9]{3})+|[0-9]+)),([0-9]+)")


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


def check_gold(gold: str, policy: AnswerPolicy = DEFAULT_POLICY) -> None:
    """Raises UnusableGoldError for a gold that is empty, oversized, or does not verify against itself.

    Each value in it goes through math-verify, so that one that cannot be computed is found before training. Values that
    are only ever compared as they are written (words, dots, other bases) do not.
    """
    wanted = _read_gold(gold, policy)
    if is_text(wanted):
        return
    from rewards.checkers import symbolic

    for value in _values(wanted):
        if read_number(value) is not None or is_literal(value, value) or "\\infty" in value:
            continue
        if symbolic.parse(value) is None:
            raise UnusableGoldError(f"{value!r} cannot be parsed; give LaTeX, or take another checker")
        if not symbolic.same_expression(value, value):
            raise UnusableGoldError(f"{value!r} does not verify against itself; give a value")


def _values(gold: str) -> list[str]:
    """The single expressions that a gold is made of, without names, relations and units."""
    parts = [part for item in split_items(gold) for part in (relation_parts(item)[0] or [item])]
    found = [(sides(part)[-1], read_collection(sides(part)[-1])) for part in parts]
    items = [item for value, several in found for item in (several.items if several else (value,))]
    return [split_unit(signed)[0] for item in items for signed in with_both_signs(item)]


def _read_gold(gold: str, policy: AnswerPolicy) -> str:
    wanted = _read(gold, policy)
    if not wanted:
        raise UnusableGoldError("the gold is empty")
    if (fault := _oversize(wanted)) is not None:
        raise UnusableGoldError(fault)
    return wanted


def _read(text: str, policy: AnswerPolicy) -> str:
    if policy.decimal_comma and (number := _DECIMAL_COMMA.fullmatch(text.strip())):
        text = f"{number[1].replace('.', '')}.{number[2]}"
    return normalize(text)


def _oversize(text: str) -> str | None:
    """Why a text is too large for the parsers, or None."""
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
