"""Are two single values equal: numbers, quantities with units, ratios, expressions? Both normalised."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from rewards.answer_policy import AnswerPolicy
from rewards.checkers.forms import split_top, without_parentheses
from rewards.checkers.normalize import squeeze
from rewards.checkers.number_text import Written, read_number, same_number
from rewards.checkers.units import NEVER_DROPPED, in_radians, split_unit
from rewards.checkers.words import fold_words_in

_LITERAL = re.compile(
    r"\\(?:[lcdv]?dots|forall|exists|mathbb|text|lfloor|lceil|mid|angle|triangle|prime)(?![A-Za-z])"
    r"|(?<![A-Za-z\\])[0-9][0-9A-Fa-f]* ?_|\\#|[?:$']|!!"
    r"|\^ ?\{? ?(?:T|\\top|\\intercal)(?![A-Za-z])|[A-Za-z)}] ?\^\\circ|\^\\circ ?[0-9]"
)
_SIDE_BY_SIDE = re.compile(r"(?<![_^0-9])[0-9]+(?: +[0-9]| ?\{ ?[0-9])|(?<![\w}\]])\{ ?[0-9]+ ?\} ?[0-9]")
"""Numbers next to each other, which the parser would add up as a mixed number."""


def _same_ratio(wanted: Sequence[str], given: Sequence[str], policy: AnswerPolicy) -> bool:
    """``a : b`` and ``c : d`` with ``a d = b c``; of whole numbers only those that `words` found alike."""
    if len(wanted) != len(given) or all(term.strip().isdigit() for term in (*wanted, *given)):
        return False
    products = [
        (f"({wanted[0]}) \\cdot ({other})", f"({term}) \\cdot ({given[0]})")
        for term, other in zip(wanted[1:], given[1:], strict=True)
    ]
    return all(same_expression(*pair, policy) for pair in products)


def is_number(text: str) -> bool:
    """A written number, with a unit or without."""
    return read_number(split_unit(text)[0]) is not None


def same_quantity(gold: str, answer: str, policy: AnswerPolicy) -> bool:
    """Values with their units; degrees may be written as multiples of π."""
    (wanted, unit), (given, other) = split_unit(gold), split_unit(answer)
    if {unit, other} == {"degree", ""} and "\\pi" in wanted + given:
        wanted, given = (in_radians(text) for text in (gold, answer))
        return same_expression(wanted, given, policy)
    if unit != other and policy.units != "ignored":
        is_needed = policy.units == "required" or not {unit, other}.isdisjoint(NEVER_DROPPED)
        if is_needed or (unit and other):
            return False
    if _same_scalar(wanted, given, policy):
        return True
    # What looked like a unit may be a variable.
    return bool(unit) != bool(other) and "\\text" not in gold + answer and same_expression(gold, answer, policy)


def _same_scalar(gold: str, answer: str, policy: AnswerPolicy) -> bool:
    gold, answer = without_parentheses(gold), without_parentheses(answer)
    if squeeze(gold) == squeeze(answer):
        return True
    terms = split_top(gold, (":",)), split_top(answer, (":",))
    if len(terms[0]) > 1:
        return _same_ratio(*terms, policy)
    wanted, given = read_number(gold), read_number(answer)
    if given is not None and not given.is_reduced and policy.unreduced == "refuse":
        return False
    if wanted is not None and given is not None:
        if policy.percent == "either" and ("\\%" in gold) != ("\\%" in answer):
            return any(
                _same_number(wanted, Written(given.value * scale), policy) for scale in (1, 100, Fraction(1, 100))
            )
        return _same_kind(gold, wanted, answer, given) and _same_number(wanted, given, policy)
    if wanted is not None and policy.unevaluated == "refuse":
        return False
    return same_expression(gold, answer, policy)


def _same_number(wanted: Written, given: Written, policy: AnswerPolicy) -> bool:
    if same_number(wanted, given, policy.rounding_digits):
        return True
    return abs(wanted.value - given.value) <= policy.relative_tolerance * abs(wanted.value)


def _same_kind(gold: str, wanted: Written, answer: str, given: Written) -> bool:
    """A whole number is not written in per cent: neither 42 \\% nor 4200 \\% is meant by 42."""
    if ("\\%" in gold) == ("\\%" in answer):
        return True
    return (given if "\\%" in gold else wanted).value.denominator != 1


def same_expression(gold: str, answer: str, policy: AnswerPolicy) -> bool:
    """The last resort: computed by math-verify and sympy, unless the notation says more than they read."""
    if not gold or not answer:
        return False
    if is_literal(gold, answer):
        return fold_words_in(gold, policy) == fold_words_in(answer, policy)
    if _SIDE_BY_SIDE.search(answer):
        return False
    from rewards.checkers import symbolic

    return symbolic.same_expression(gold, answer, policy.rounding_digits, policy.relative_tolerance)


def is_literal(gold: str, answer: str) -> bool:
    """Notation that the parser drops or misreads: such answers must be written alike."""
    return bool(_LITERAL.search(gold) or _LITERAL.search(answer))
