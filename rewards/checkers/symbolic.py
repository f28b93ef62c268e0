"""Are two LaTeX expressions equal? math-verify and sympy, with their evaluators and alarms switched off.

Only ever called in a worker: neither a bound on time nor one on memory is set here. Importing takes a second.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import sympy
import sympy.physics.units  # simplify() imports it on first use
from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from math_verify import verify
from sympy.parsing import sympy_parser

from rewards.checkers.number_text import Written, read_number, same_number
from rewards.checkers.units import in_radians
from rewards.errors import MalformedAnswerError

_SPELLING = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
)
_SYMBOLS = ConversionConfig(lowercase_symbols=False)
_LITERAL = re.compile(r"Integer ?\( ?([0-9]+) ?\)|Float ?\( ?'([0-9.eE+-]+)' ?\)|Symbol ?\( ?'(\w+)' ?\)")
_ELEMENT_OF = re.compile(r"^ ?[A-Za-z] ?\\in ?(?![A-Za-z])")
_FACTOR = re.compile(r"(?<![A-Za-z\\])([abckmnrtxyz]) ?\(")
"""Letters that stand for numbers: in front of a bracket they multiply, where the parser sees a function."""
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_IMAGINARY_UNIT = re.compile(r"(?<![A-Za-z\\_])i(?![A-Za-z_(])")
_DIGITS = 30
_EXACT = sympy.Float("1e-50")
"""Numbers are equal when their difference, relative to their size, is not above this. sympy computes a difference until
it is sure of `_DIGITS` digits, or has found only zeros in a hundred."""
_ROUNDED = sympy.Float("1e-12")
"""The same bound where a decimal stands inside an expression, since that was read as a float."""


def _literal_only(code: str, local_dict: Any, global_dict: Any) -> Any:
    """What sympy would evaluate, when that is one number or one name; anything else is refused."""
    literal = _LITERAL.fullmatch(code.strip())
    if literal is None:
        raise MalformedAnswerError("text is never evaluated as Python")
    if literal[3]:
        return sympy.Symbol(literal[3])
    return sympy.Integer(literal[1]) if literal[1] else sympy.Float(literal[2])


def warm_up() -> None:
    """Prepare a process, once: replace sympy's only `eval` of text, through which its numbers go.

    Also parses once, since the parser builds its tables on first use, and silences the notice that time-outs
    are off.
    """
    sympy_parser.eval_expr = _literal_only
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    same_expression("x(x+1)", "x^2+x")


def same_expression(gold: str, answer: str, min_digits: int | None = None, relative_tolerance: float = 0.0) -> bool:
    """math-verify's verdict, then the checks against the false positives that it is known for.

    Two constants are compared by their values. A decimal of at least `min_digits` digits stands
    for the irrational number that it is rounded or cut off from; numbers within `relative_tolerance` of the gold
    are equal.
    """
    wanted, given = parse(gold), parse(answer)
    if wanted is None or given is None or isinstance(wanted, sympy.Eq) or isinstance(given, sympy.Eq):
        return False
    try:
        constants = _constant(wanted), _constant(given)
        if None not in constants:
            written = read_number(gold), read_number(answer)
            return _same_constant(*constants, written, min_digits, relative_tolerance)
    except OverflowError:
        raise MalformedAnswerError("a number too large to work with") from None
    if any(constant is None and _is_infinite(one) for constant, one in zip(constants, (wanted, given), strict=True)):
        return bool(wanted == given)
    equal = bool(verify(wanted, given, strict=True, allow_set_relation_comp=True, timeout_seconds=None))
    return equal and _same_case(_symbols_of(wanted), _symbols_of(given))


def _symbols_of(expression: Any) -> set[str]:
    return {symbol.name for symbol in getattr(expression, "free_symbols", ())}


def _same_case(wanted: set[str], given: set[str]) -> bool:
    """math-verify takes A_1 for a_1: names that differ in case alone are different names."""
    only_wanted, only_given = ({name.lower() for name in names} for names in (wanted - given, given - wanted))
    return only_wanted.isdisjoint(only_given)


def _is_infinite(expression: Any) -> bool:
    """A constant without a finite value: nothing is equal to it but itself, whatever math-verify makes of it."""
    return isinstance(expression, sympy.Expr) and bool(expression.is_number)


def same_equation(gold: Sequence[str], answer: Sequence[str], only_rearranged: bool) -> bool:
    """Equations by their two sides: ``a = b`` and ``c = d`` are the same when ``(a - b) / (c - d)`` is a constant
    other than 0, which is 1 or -1 when the one is only a rearrangement of the other."""
    if len(gold) != 2 or len(answer) != 2:
        return False
    parsed = [parse(side) for side in (*gold, *answer)]
    if not all(isinstance(side, sympy.Expr) for side in parsed):
        return False
    wanted, given = parsed[0].doit() - parsed[1].doit(), parsed[2].doit() - parsed[3].doit()
    if wanted == 0 or given == 0:
        return bool(wanted == given)
    ratio = sympy.simplify(wanted / given)
    return bool(ratio.is_number and ratio != 0 and (not only_rearranged or abs(ratio) == 1))


def real_value(latex: str) -> Any:
    """The value of a real constant as a sympy number, or None."""
    expression = parse(latex)
    value = None if expression is None else _constant(expression)
    return value.evalf(_DIGITS) if value is not None and value.is_real and value.is_finite else None


def parse(latex: str) -> Any:
    """The sympy expression, or None when the parser does not understand the text."""
    spelled = _FACTOR.sub(r"\1 \\cdot (", _ELEMENT_OF.sub("", latex))
    if _TRIGONOMETRIC.search(spelled):
        spelled = in_radians(spelled)
    spelled = normalize_latex(spelled, _SPELLING)
    is_complex = bool(_IMAGINARY_UNIT.search(spelled)) and "\\sum" not in spelled and "\\prod" not in spelled
    try:
        expression = latex2sympy(
            spelled,
            is_real=not is_complex,
            convert_degrees=False,
            normalization_config=None,
            conversion_config=_SYMBOLS,
        )
        return _with_imaginary_unit(expression) if is_complex else expression
    except MemoryError:
        raise
    except Exception:
        return None


def _with_imaginary_unit(expression: Any) -> Any:
    """The parser reads ``i`` as a variable."""
    named_i = [symbol for symbol in getattr(expression, "free_symbols", ()) if symbol.name == "i"]
    return expression.xreplace(dict.fromkeys(named_i, sympy.I)) if named_i else expression


def _constant(expression: Any) -> Any:
    """The value of an expression that is a finite number, as far as sympy computes it by itself; else None."""
    if not isinstance(expression, sympy.Expr) or not expression.is_number:
        return None
    value = expression.doit()
    if not isinstance(value, sympy.Expr) or not value.is_number or value.has(sympy.oo, sympy.zoo, sympy.nan):
        return None
    return value


def _same_constant(
    gold: Any, answer: Any, written: Sequence[Written | None], min_digits: int | None, relative_tolerance: float
) -> bool:
    """Exactly where both are rational, else to `_EXACT` of their size; `written` are gold and answer as decimals."""
    gold, answer = (
        expression if decimal is None else sympy.Rational(decimal.value)
        for expression, decimal in zip((gold, answer), written, strict=True)
    )
    if gold.is_Rational and answer.is_Rational:
        wanted, given = (
            decimal or Written(Fraction(int(number.p), int(number.q)))
            for number, decimal in zip((gold, answer), written, strict=True)
        )
        return same_number(wanted, given, min_digits) or bool(abs(gold - answer) <= relative_tolerance * abs(gold))
    difference, size, other = (abs(value.evalf(_DIGITS)) for value in (gold - answer, gold, answer))
    if not all(value.is_Float or value.is_Integer for value in (difference, size, other)):
        return False
    rounding = _ROUNDED if gold.has(sympy.Float) or answer.has(sympy.Float) else _EXACT
    if difference <= max(rounding * max(size, other, _EXACT), relative_tolerance * size):
        return True
    return any(
        decimal is not None and decimal.is_long(min_digits) and difference < sympy.Rational(decimal.last_digit)
        for decimal in written
    )
