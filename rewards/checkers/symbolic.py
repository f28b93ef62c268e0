"""Are two LaTeX expressions equal? math-verify and sympy, with their evaluators and alarms switched off.

Only ever called in a worker: neither a bound on time nor one on memory is set here. Importing takes a second.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import sympy
import sympy.physics.units  # simplify() imports it on first use
from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex
from math_verify import verify
from math_verify.grader import should_treat_as_complex
from sympy.parsing import sympy_parser

from rewards.errors import MalformedAnswerError

_SPELLING = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
)
_LITERAL = re.compile(r"Integer ?\( ?([0-9]+) ?\)|Float ?\( ?'([0-9.eE+-]+)' ?\)|Symbol ?\( ?'(\w+)' ?\)")
_ELEMENT_OF = re.compile(r"^ ?[A-Za-z] ?\\in ?(?![A-Za-z])")
_FACTOR = re.compile(r"(?<![A-Za-z\\])([abckmnrtxyz]) ?\(")
"""Letters that stand for numbers: in front of a bracket they multiply, where the parser sees a function."""
_RELATIVE_TOLERANCE = 1e-9


def _literal_only(code: str, local_dict: Any, global_dict: Any) -> Any:
    """What sympy would evaluate, when that is one number or one name; anything else is refused."""
    literal = _LITERAL.fullmatch(code.strip())
    if literal is None:
        raise MalformedAnswerError("text is never evaluated as Python")
    if literal[3]:
        return sympy.Symbol(literal[3])
    return sympy.Integer(literal[1]) if literal[1] else sympy.Float(literal[2])


def warm_up() -> None:
    """Once in each worker: take the place of sympy's only `eval` of text, which its numbers go through.

    Also parses once, for the parser builds its tables on first use, and silences the notice that time-outs
    are off.
    """
    sympy_parser.eval_expr = _literal_only
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    same_expression("x(x+1)", "x^2+x")


def same_expression(gold: str, answer: str) -> bool:
    """math-verify's verdict, then the checks against the false positives that it is known for.

    Equations are compared as such: the same solutions because one is a constant multiple of the other.
    """
    wanted, given = parse(gold), parse(answer)
    if wanted is None or given is None:
        return False
    if isinstance(wanted, sympy.Eq) and isinstance(given, sympy.Eq):
        return _same_equation(wanted, given)
    equal = verify(wanted, given, strict=True, allow_set_relation_comp=True, timeout_seconds=None)
    return bool(equal) and _same_magnitude(wanted, given)


def parse(latex: str) -> Any:
    """The sympy expression, or None when the parser does not understand the text."""
    spelled = normalize_latex(_FACTOR.sub(r"\1 \\cdot (", _ELEMENT_OF.sub("", latex)), _SPELLING)
    is_real = not should_treat_as_complex(spelled)
    try:
        expression = latex2sympy(spelled, is_real=is_real, convert_degrees=False, normalization_config=None)
        return expression if is_real else _with_imaginary_unit(expression)
    except MemoryError:
        raise
    except Exception:
        return None


def _with_imaginary_unit(expression: Any) -> Any:
    """The parser reads ``i`` as a variable."""
    named_i = [symbol for symbol in getattr(expression, "free_symbols", ()) if symbol.name == "i"]
    return expression.xreplace(dict.fromkeys(named_i, sympy.I)) if named_i else expression


def _same_equation(gold: Any, answer: Any) -> bool:
    """``a = b`` and ``c = d`` are the same when ``(a - b) / (c - d)`` is a constant other than 0."""
    wanted, given = (equation.lhs.doit() - equation.rhs.doit() for equation in (gold, answer))
    if wanted == 0 or given == 0:
        return bool(wanted == given)
    ratio = sympy.simplify(wanted / given)
    return bool(ratio.is_number and ratio != 0)


def _same_magnitude(gold: Any, answer: Any) -> bool:
    """math-verify rounds to six decimals and drops small residues; numbers must agree relatively too."""
    numbers = [_number(expression) for expression in (gold, answer)]
    if None in numbers:
        return True
    left, right = numbers
    return bool(abs(left - right) <= _RELATIVE_TOLERANCE * max(abs(left), abs(right)))


def _number(expression: Any) -> Any:
    if not isinstance(expression, sympy.Expr) or not expression.is_number:
        return None
    value = expression.doit().evalf(30)
    return value if value.is_Number and value.is_finite else None
